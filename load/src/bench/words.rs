//! What a bench says and hears, in the protocol's MessagePack: requests of one size with numbers changed in place, and
//! answers judged by their first bytes. Anything that is not the answer wanted makes the bench void.

use std::collections::BTreeMap;

use protocol::push::Bye;
use protocol::reply::{ErrorBody, Ready};
use protocol::request::{Login, Op, Ping, Players, PresenceSet, Request, Resume, StatePatch, Status};
use protocol::{Encoding, Text, Value, codec};

use super::BenchError;
use super::frames::{Frame, head_len, push_frame};

/// Numbers of requests begin here: from here on each takes five bytes, in requests and answers.
pub const FIRST_REFERENCE: u32 = 100_000;

/// One request as a client's frame.
#[must_use]
pub fn request(reference: u32, request: &Request<'_>) -> Vec<u8> {
    let (mut payload, mut frame) = (Vec::new(), Vec::new());
    codec::encode_request(Encoding::MessagePack, &mut payload, reference, request);
    push_frame(&mut frame, &payload);
    frame
}

/// No push has a higher number.
const SEQ_MAX: u64 = 1 << 53;

/// A login with a development token.
#[must_use]
pub fn login(player: &str) -> Vec<u8> {
    let token = Text::from(format!("dev:{player}"));
    let body = Login { token, device: Some("pc".into()), relay: None, status: Some(Status::Online) };
    request(FIRST_REFERENCE, &Request::Login(body))
}

/// A resume with the ticket of a `ready`.
#[must_use]
pub fn resume(ready: &Ready, last_seq: u64) -> Vec<u8> {
    let (session, ticket) = (Text::from(ready.session.as_str()), Text::from(ready.ticket.as_str()));
    let body = Resume { session, ticket, last_seq, stamp: Some(ready.stamp), relay: None };
    request(FIRST_REFERENCE, &Request::Resume(body))
}

/// A watch of these players.
#[must_use]
pub fn watch(players: impl Iterator<Item = String>) -> Vec<u8> {
    request(FIRST_REFERENCE, &Request::Watch(Players { players: players.map(Text::from).collect() }))
}

/// Says that every push so far is handled.
#[must_use]
pub fn all_seen() -> Vec<u8> {
    request(FIRST_REFERENCE, &Request::Ping(Ping { t: None, seen: Some(SEQ_MAX) }))
}

/// A patch that makes the whole state so many bytes of MessagePack.
#[must_use]
pub fn state_of(bytes: usize) -> Vec<u8> {
    // A map of one key of four bytes, and text behind a header of three (two below 256 bytes).
    let text = "s".repeat(bytes.saturating_sub(1 + 5 + 2));
    let set = BTreeMap::from([(Text::from("save"), Value::Str(text))]);
    request(FIRST_REFERENCE, &Request::StatePatch(StatePatch { set: Some(set), ..StatePatch::default() }))
}

/// A ping that says which pushes were seen.
#[must_use]
pub fn seen(seq: u64) -> Vec<u8> {
    request(FIRST_REFERENCE, &Request::Ping(Ping { t: None, seen: Some(seq) }))
}

/// A change that is sent again and again: numbers are written into its bytes, so that its size never changes.
#[derive(Debug, Clone)]
pub struct Change {
    frame: Vec<u8>,
    reference_at: usize,
    cseq_at: usize,
    value_at: usize,
}

/// Stand-ins of five bytes each in MessagePack; their places are found once.
const REFERENCE: u32 = 0xf1f2_f3f4;
const CSEQ: u32 = 0xe1e2_e3e4;
const VALUE: u32 = 0xd1d2_d3d4;

impl Change {
    /// A `state.patch` of `bytes` bytes: one number that differs each time, and text that fills up.
    ///
    /// # Errors
    /// The size cannot be had.
    pub fn state_patch(bytes: usize) -> Result<Self, BenchError> {
        Self::sized(bytes, |filler| {
            let number = Value::Int(i64::from(VALUE));
            let set = BTreeMap::from([(Text::from("pos"), number), (Text::from("zone"), Value::Str(filler))]);
            Request::StatePatch(StatePatch {
                set: Some(set),
                cseq: Some(CSEQ.into()),
                ..StatePatch::default()
            })
        })
    }

    /// A `presence.set` of `bytes` bytes, with an activity that differs each time.
    ///
    /// # Errors
    /// The size cannot be had.
    pub fn presence_set(bytes: usize) -> Result<Self, BenchError> {
        Self::sized(bytes, |filler| {
            let number = Value::Int(i64::from(VALUE));
            let activity =
                BTreeMap::from([(Text::from("lvl"), number), (Text::from("map"), Value::Str(filler))]);
            Request::PresenceSet(PresenceSet {
                status: Status::Playing,
                activity: Some(activity),
                visibility: None,
                ack: None,
                cseq: Some(CSEQ.into()),
            })
        })
    }

    fn sized(bytes: usize, make: impl Fn(String) -> Request<'static>) -> Result<Self, BenchError> {
        let payload = |filler: usize| {
            let mut payload = Vec::new();
            let request = make("z".repeat(filler));
            codec::encode_request(Encoding::MessagePack, &mut payload, REFERENCE, &request);
            payload
        };
        let payload = payload(bytes.saturating_sub(payload(0).len()));
        if payload.len() != bytes {
            return Err(BenchError::Setup(format!("no such change of {bytes} bytes")));
        }
        let place = |number: u32| {
            let at = payload.windows(4).position(|window| window == number.to_be_bytes());
            at.map(|at| at + head_len(bytes))
                .ok_or_else(|| BenchError::Setup("a change without its numbers".into()))
        };
        let (reference_at, cseq_at, value_at) = (place(REFERENCE)?, place(CSEQ)?, place(VALUE)?);
        let mut frame = Vec::new();
        push_frame(&mut frame, &payload);
        Ok(Self { frame, reference_at, cseq_at, value_at })
    }

    /// Appends the `n`th change of a session, from 1; its reference is `FIRST_REFERENCE + n`.
    pub fn push(&mut self, out: &mut Vec<u8>, n: u32) {
        let numbers =
            [(self.reference_at, FIRST_REFERENCE.wrapping_add(n)), (self.cseq_at, n), (self.value_at, n)];
        for (at, number) in numbers {
            if let Some(place) = self.frame.get_mut(at..at + 4) {
                place.copy_from_slice(&number.to_be_bytes());
            }
        }
        out.extend_from_slice(&self.frame);
    }
}

/// What a server's frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// `ok` to this request.
    Ok(u32),
    /// `ready` to this request.
    Ready(u32),
    /// A numbered push.
    Push(Op, u64),
    /// Something else that is no fault.
    Other,
}

/// Reads a frame; a refusal, a promise that is only provisional, or a goodbye makes the bench void.
///
/// # Errors
/// As said.
pub fn judge(frame: &Frame<'_>) -> Result<Answer, BenchError> {
    let void = |what: String| Err(BenchError::Void(what));
    if frame.opcode != 2 {
        return void(format!("the server sent a frame of kind {} and no answer", frame.opcode));
    }
    let parts = match codec::peek(Encoding::MessagePack, frame.payload) {
        Ok(parts) => parts,
        Err(error) => return void(format!("an answer cannot be read: {error}")),
    };
    let reference = u32::try_from(parts.reference).unwrap_or(0);
    match parts.op {
        Some(Op::Ok) => Ok(Answer::Ok(reference)),
        Some(Op::Ready) => Ok(Answer::Ready(reference)),
        Some(op @ (Op::Presence | Op::Message | Op::Room)) => Ok(Answer::Push(op, parts.reference)),
        Some(Op::Durable) => Ok(Answer::Other),
        Some(Op::Error) => {
            let body: Result<ErrorBody, String> = parts.read(Encoding::MessagePack);
            void(format!("the server refused: {body:?}"))
        }
        Some(Op::Bye) => {
            let body: Result<Bye, String> = parts.read(Encoding::MessagePack);
            void(format!("the server said goodbye: {body:?}"))
        }
        other => void(format!("the server said {other:?}")),
    }
}

/// The body of a `ready`.
///
/// # Errors
/// It cannot be read.
pub fn ready(frame: &Frame<'_>) -> Result<Ready, BenchError> {
    codec::peek(Encoding::MessagePack, frame.payload)
        .map_err(|error| error.to_string())
        .and_then(|parts| parts.read(Encoding::MessagePack))
        .map_err(|error| BenchError::Void(format!("no ready: {error}")))
}

/// How many items a `presence` push carries.
#[must_use]
pub fn items_in(payload: &[u8]) -> usize {
    let body = codec::peek(Encoding::MessagePack, payload).map_or(&[][..], |parts| parts.body);
    match body.strip_prefix(b"\x81\xa5items") {
        Some([count @ 0x90..=0x9f, ..]) => usize::from(count & 0x0f),
        Some([0xdc, high, low, ..]) => usize::from(*high) << 8 | usize::from(*low),
        _ => 0,
    }
}

/// Whether this is the firm `ok` to the `n`th change: read by its bytes alone, because it is read a million times.
/// `fields` is how many fields the answer to a change has that promises what was asked; one more is `prov` or `dup`.
#[must_use]
pub fn is_ack(payload: &[u8], n: u32, fields: u8) -> bool {
    let [r0, r1, r2, r3] = FIRST_REFERENCE.wrapping_add(n).to_be_bytes();
    payload.starts_with(&[0x93, Op::Ok.number(), 0xce, r0, r1, r2, r3, 0x80 | fields])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::frames::next_frame;
    use protocol::decode_request;
    use protocol::reply::Changed;
    use protocol::request::Ack;

    fn decoded(bytes: &[u8]) -> (u32, Request<'_>) {
        let (frame, rest) = next_frame(bytes).unwrap();
        assert!(rest.is_empty());
        decode_request(Encoding::MessagePack, frame.payload).unwrap()
    }

    #[test]
    fn a_change_keeps_its_size_and_carries_its_numbers() {
        let mut bytes = Vec::new();
        let mut patch = Change::state_patch(64).unwrap();
        for n in [1, 300, 70_000] {
            bytes.clear();
            patch.push(&mut bytes, n);
            assert_eq!(bytes.len(), 64 + 6);
            let (reference, Request::StatePatch(body)) = decoded(&bytes) else { panic!() };
            assert_eq!((reference, body.cseq), (FIRST_REFERENCE + n, Some(n.into())));
            assert_eq!(body.set.unwrap().get(&Text::from("pos")), Some(&Value::Int(n.into())));
        }
        bytes.clear();
        Change::presence_set(64).unwrap().push(&mut bytes, 7);
        let (_, Request::PresenceSet(body)) = decoded(&bytes) else { panic!() };
        assert_eq!((bytes.len(), body.cseq), (70, Some(7)));
    }

    #[test]
    fn a_state_has_the_size_that_was_asked() {
        let bytes = state_of(256);
        let (_, Request::StatePatch(body)) = decoded(&bytes) else { panic!() };
        let mut state = Vec::new();
        codec::encode_body(Encoding::MessagePack, &mut state, &body.set.unwrap());
        assert_eq!(state.len(), 256);
    }

    fn ack(reference: u32, prov: Option<bool>) -> Vec<u8> {
        let body = Changed {
            stamp: (1, 2),
            state_stamp: Some((1, 2)),
            ack: Some(Ack::Applied),
            prov,
            ..Changed::default()
        };
        let mut payload = Vec::new();
        codec::encode(Encoding::MessagePack, &mut payload, Op::Ok, reference.into(), &body);
        payload
    }

    #[test]
    fn only_the_firm_answer_to_this_change_counts() {
        assert!(is_ack(&ack(FIRST_REFERENCE + 5, None), 5, 3));
        assert!(!is_ack(&ack(FIRST_REFERENCE + 6, None), 5, 3));
        assert!(!is_ack(&ack(FIRST_REFERENCE + 5, Some(true)), 5, 3));
    }

    #[test]
    fn items_of_a_push_are_counted() {
        for count in [1, 8, 15, 16, 64] {
            let (mut payload, item) = (Vec::new(), [0x80]);
            let items = std::iter::repeat_n(&item[..], count).collect::<Vec<_>>();
            codec::encode_presence(Encoding::MessagePack, &mut payload, 9, items.into_iter());
            assert_eq!(items_in(&payload), count);
        }
    }

    #[test]
    fn a_refusal_makes_the_bench_void() {
        let mut payload = Vec::new();
        let body = ErrorBody::new(protocol::ErrorCode::RateLimited, "too fast");
        codec::encode(Encoding::MessagePack, &mut payload, Op::Error, 1, &body);
        let frame = Frame { opcode: 2, payload: &payload, whole: &payload };
        let error = judge(&frame).unwrap_err().to_string();
        assert!(error.contains("RateLimited"), "{error}");
        assert!(judge(&Frame { opcode: 8, ..frame }).is_err());
    }
}
