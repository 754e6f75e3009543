//! Bytes to frames and back, in both encodings. Called by `gate`, `session`, `presence::fanout`, `service` and the
//! client. Never allocates for a MessagePack header, never trusts a length, never reads deeper than its bound.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::codes::ErrorCode;
use crate::limits::VALUE_DEPTH_MAX;
use crate::plain::plain;
use crate::request::{Op, Request};
use crate::value::Value;

/// Nesting that the MessagePack reader accepts in a body: a body, one list or map field, and a value in it.
const BODY_DEPTH_MAX: usize = VALUE_DEPTH_MAX + 4;

/// How a link speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    /// Binary frames, ops as numbers.
    #[default]
    MessagePack,
    /// Text frames, ops as names.
    Json,
}

impl Encoding {
    /// The WebSocket subprotocol that asks for it.
    #[must_use]
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::MessagePack => "hearth.v1.msgpack",
            Self::Json => "hearth.v1.json",
        }
    }

    /// The encoding behind a subprotocol's name.
    #[must_use]
    pub fn of_subprotocol(name: &str) -> Option<Self> {
        [Self::MessagePack, Self::Json].into_iter().find(|encoding| encoding.subprotocol() == name)
    }
}

/// Why a frame is not a request; `reference` is the frame's own where it could be read, else 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// `bad_frame`, `unknown_op` or `bad_request`.
    pub code: ErrorCode,
    /// The `ref` to answer to.
    pub reference: u32,
    /// What is wrong, for people.
    pub message: String,
}

impl DecodeError {
    fn frame(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::BadFrame, reference: 0, message: message.into() }
    }
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl std::error::Error for DecodeError {}

/// A frame split into its three parts; the body is not read yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame<'a> {
    /// The op, if this version knows it.
    pub op: Option<Op>,
    /// `ref` of a request or answer, `seq` of a push.
    pub reference: u64,
    /// The body's bytes in the frame's encoding.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// Reads the body.
    ///
    /// # Errors
    /// What the encoding's reader says: for people.
    pub fn read<T: DeserializeOwned>(&self, encoding: Encoding) -> Result<T, String> {
        read_body(encoding, self.body)
    }
}

/// Splits a frame without reading its body.
///
/// # Errors
/// `bad_frame`.
pub fn peek(encoding: Encoding, bytes: &[u8]) -> Result<Frame<'_>, DecodeError> {
    match encoding {
        Encoding::MessagePack => peek_msgpack(bytes),
        Encoding::Json => peek_json(bytes),
    }
}

fn peek_msgpack(bytes: &[u8]) -> Result<Frame<'_>, DecodeError> {
    let mut rest = bytes;
    match rmp::decode::read_array_len(&mut rest) {
        Ok(3) => {}
        _ => return Err(DecodeError::frame("a frame is an array of three: [op, ref, body]")),
    }
    let number =
        rmp::decode::read_int::<u64, _>(&mut rest).map_err(|_| DecodeError::frame("op is a number"))?;
    let reference = rmp::decode::read_int::<u64, _>(&mut rest)
        .map_err(|_| DecodeError::frame("ref is a number from 0"))?;
    Ok(Frame { op: Op::numbered(number), reference, body: rest })
}

#[derive(Deserialize)]
struct JsonFrame<'a>(#[serde(borrow)] Cow<'a, str>, u64, #[serde(borrow)] &'a RawValue);

fn peek_json(bytes: &[u8]) -> Result<Frame<'_>, DecodeError> {
    let JsonFrame(name, reference, body) =
        serde_json::from_slice(bytes).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => {
                DecodeError::frame("a frame is [\"op\", ref, {…}]: a text, a number from 0, and a map")
            }
            _ => DecodeError::frame(format!("a frame is JSON, [\"op\", ref, {{…}}]: {error}")),
        })?;
    Ok(Frame { op: Op::named(&name), reference, body: body.get().as_bytes() })
}

/// Reads one request of a client.
///
/// # Errors
/// [`DecodeError`] with the code and the `ref` to answer with; the link can go on.
pub fn decode_request(encoding: Encoding, bytes: &[u8]) -> Result<(u32, Request<'_>), DecodeError> {
    let frame = peek(encoding, bytes)?;
    let reference =
        u32::try_from(frame.reference).map_err(|_| DecodeError::frame("ref is a number below 2^32"))?;
    let unknown = || DecodeError {
        code: ErrorCode::UnknownOp,
        reference,
        message: "no such op for a client".to_owned(),
    };
    let bad = |message: String| DecodeError { code: ErrorCode::BadRequest, reference, message };
    let op = frame.op.ok_or_else(unknown)?;
    let body = frame.body;
    let request = match op {
        Op::Login => Request::Login(read_body(encoding, body).map_err(bad)?),
        Op::Resume => Request::Resume(read_body(encoding, body).map_err(bad)?),
        Op::Logout => {
            read_body::<crate::reply::Empty>(encoding, body).map(|_| Request::Logout).map_err(bad)?
        }
        Op::Ping => Request::Ping(read_body(encoding, body).map_err(bad)?),
        Op::Refresh => Request::Refresh(read_body(encoding, body).map_err(bad)?),
        Op::StateGet => Request::StateGet(read_body(encoding, body).map_err(bad)?),
        Op::StatePatch => Request::StatePatch(read_body(encoding, body).map_err(bad)?),
        Op::PresenceSet => Request::PresenceSet(read_body(encoding, body).map_err(bad)?),
        Op::PresenceGet => Request::PresenceGet(read_body(encoding, body).map_err(bad)?),
        Op::Watch => Request::Watch(read_body(encoding, body).map_err(bad)?),
        Op::Unwatch => Request::Unwatch(read_body(encoding, body).map_err(bad)?),
        Op::RoomJoin => Request::RoomJoin(read_body(encoding, body).map_err(bad)?),
        Op::RoomLeave => Request::RoomLeave(read_body(encoding, body).map_err(bad)?),
        Op::RoomSend => Request::RoomSend(read_body(encoding, body).map_err(bad)?),
        Op::RoomMembers => Request::RoomMembers(read_body(encoding, body).map_err(bad)?),
        Op::RoomMeta => Request::RoomMeta(read_body(encoding, body).map_err(bad)?),
        Op::Send => Request::Send(read_body(encoding, body).map_err(bad)?),
        _ => return Err(unknown()),
    };
    Ok((reference, request))
}

/// Reads a body: a map, or nothing (nil, `null`), which counts as an empty one.
fn read_body<'a, T: Deserialize<'a>>(encoding: Encoding, body: &'a [u8]) -> Result<T, String> {
    match encoding {
        Encoding::MessagePack => {
            let body = match body {
                [0xc0] => &[0x80],
                [0x80..=0x8f | 0xde | 0xdf, ..] => body,
                _ => return Err("body is a map".to_owned()),
            };
            let mut reader = rmp_serde::Deserializer::from_read_ref(body);
            reader.set_max_depth(BODY_DEPTH_MAX);
            let read = T::deserialize(&mut reader).map_err(|error| plain(&error.to_string()))?;
            // At the end there is no further marker to read; anything else is a byte too many.
            match serde::de::IgnoredAny::deserialize(&mut reader) {
                Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(read),
                _ => Err("bytes after the frame".to_owned()),
            }
        }
        Encoding::Json => {
            let body = match body {
                b"null" => b"{}",
                [b'{', ..] => body,
                _ => return Err("body is a map".to_owned()),
            };
            serde_json::from_slice(body).map_err(|error| plain(&error.to_string()))
        }
    }
}

/// Appends a frame to `out`.
///
/// # Panics
/// Never: the bodies of this crate serialise in both encodings. A body of the caller's own that does not leaves an
/// empty map in its place.
pub fn encode<B: Serialize>(encoding: Encoding, out: &mut Vec<u8>, op: Op, reference: u64, body: &B) {
    frame_start(encoding, out, op, reference);
    encode_body(encoding, out, body);
    frame_end(encoding, out);
}

/// Appends a client's request.
pub fn encode_request(encoding: Encoding, out: &mut Vec<u8>, reference: u32, request: &Request<'_>) {
    let (op, reference) = (request.op(), u64::from(reference));
    match request {
        Request::Login(body) => encode(encoding, out, op, reference, body),
        Request::Resume(body) => encode(encoding, out, op, reference, body),
        Request::Logout => encode(encoding, out, op, reference, &crate::reply::Empty {}),
        Request::Ping(body) => encode(encoding, out, op, reference, body),
        Request::Refresh(body) => encode(encoding, out, op, reference, body),
        Request::StateGet(body) => encode(encoding, out, op, reference, body),
        Request::StatePatch(body) => encode(encoding, out, op, reference, body),
        Request::PresenceSet(body) => encode(encoding, out, op, reference, body),
        Request::PresenceGet(body) | Request::Watch(body) | Request::Unwatch(body) => {
            encode(encoding, out, op, reference, body);
        }
        Request::RoomJoin(body) => encode(encoding, out, op, reference, body),
        Request::RoomLeave(body) => encode(encoding, out, op, reference, body),
        Request::RoomSend(body) => encode(encoding, out, op, reference, body),
        Request::RoomMembers(body) => encode(encoding, out, op, reference, body),
        Request::RoomMeta(body) => encode(encoding, out, op, reference, body),
        Request::Send(body) => encode(encoding, out, op, reference, body),
    }
}

/// Appends a body alone, as [`encode`] would write it.
pub fn encode_body<B: Serialize>(encoding: Encoding, out: &mut Vec<u8>, body: &B) {
    let start = out.len();
    let written = match encoding {
        Encoding::MessagePack => {
            body.serialize(&mut rmp_serde::Serializer::new(&mut *out).with_struct_map()).map_err(|_| ())
        }
        Encoding::Json => serde_json::to_writer(&mut *out, body).map_err(|_| ()),
    };
    debug_assert!(written.is_ok(), "a body that does not serialise");
    if written.is_err() {
        out.truncate(start);
        out.extend_from_slice(match encoding {
            Encoding::MessagePack => &[0x80],
            Encoding::Json => b"{}",
        });
    }
}

/// Appends a frame whose body is encoded already: how one encoding serves every receiver.
pub fn encode_shared(encoding: Encoding, out: &mut Vec<u8>, op: Op, reference: u64, body: &[u8]) {
    frame_start(encoding, out, op, reference);
    out.extend_from_slice(body);
    frame_end(encoding, out);
}

/// Appends a `presence` push made of items that are encoded already: a header, then copied items.
pub fn encode_presence<'a>(
    encoding: Encoding,
    out: &mut Vec<u8>,
    seq: u64,
    items: impl ExactSizeIterator<Item = &'a [u8]>,
) {
    frame_start(encoding, out, Op::Presence, seq);
    match encoding {
        Encoding::MessagePack => {
            out.extend_from_slice(b"\x81\xa5items");
            write_array_len(out, items.len());
            items.for_each(|item| out.extend_from_slice(item));
        }
        Encoding::Json => {
            out.extend_from_slice(b"{\"items\":[");
            for (index, item) in items.enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(item);
            }
            out.extend_from_slice(b"]}");
        }
    }
    frame_end(encoding, out);
}

fn write_array_len(out: &mut Vec<u8>, len: usize) {
    // Writing into a Vec cannot fail.
    let _ = rmp::encode::write_array_len(out, u32::try_from(len).unwrap_or(u32::MAX));
}

fn frame_start(encoding: Encoding, out: &mut Vec<u8>, op: Op, reference: u64) {
    match encoding {
        Encoding::MessagePack => {
            out.push(0x93);
            let _ = rmp::encode::write_uint(out, u64::from(op.number()));
            let _ = rmp::encode::write_uint(out, reference);
        }
        Encoding::Json => {
            out.extend_from_slice(b"[\"");
            out.extend_from_slice(op.name().as_bytes());
            out.extend_from_slice(b"\",");
            // Writing into a Vec cannot fail.
            let _ = std::io::Write::write_fmt(out, format_args!("{reference}"));
            out.push(b',');
        }
    }
}

fn frame_end(encoding: Encoding, out: &mut Vec<u8>) {
    if encoding == Encoding::Json {
        out.push(b']');
    }
}

/// The same body in JSON: how a push that was encoded once for MessagePack reaches a JSON link.
#[must_use]
pub fn json_of(msgpack: &[u8]) -> Bytes {
    let value = Value::of_own_msgpack(msgpack).unwrap_or_else(|_| Value::Map(Default::default()));
    Bytes::from(serde_json::to_vec(&value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Empty;
    use crate::request::{Ping, StatePatch};

    fn request_bytes<B: Serialize>(encoding: Encoding, op: Op, reference: u64, body: &B) -> Vec<u8> {
        let mut out = Vec::new();
        encode(encoding, &mut out, op, reference, body);
        out
    }

    #[test]
    fn a_request_reads_back_in_both_encodings() {
        for encoding in [Encoding::MessagePack, Encoding::Json] {
            let patch = StatePatch {
                set: Some([("hp".into(), Value::Int(7)), ("name".into(), Value::Str("Ann".into()))].into()),
                incr: Some([("gold".into(), -3)].into()),
                cseq: Some(4),
                ..StatePatch::default()
            };
            let bytes = request_bytes(encoding, Op::StatePatch, 9, &patch);
            assert_eq!(decode_request(encoding, &bytes), Ok((9, Request::StatePatch(patch))));
        }
    }

    #[test]
    fn messagepack_keys_are_borrowed() {
        let bytes = request_bytes(
            Encoding::MessagePack,
            Op::StatePatch,
            1,
            &StatePatch { incr: Some([("gold".into(), 1)].into()), ..StatePatch::default() },
        );
        let Ok((_, Request::StatePatch(patch))) = decode_request(Encoding::MessagePack, &bytes) else {
            panic!()
        };
        assert!(patch.incr.unwrap().keys().all(|key| matches!(key.0, Cow::Borrowed(_))));
    }

    #[test]
    fn unknown_fields_are_ignored_and_unknown_ops_named() {
        let frame = br#"["ping", 3, {"t": 1, "later": {"x": [1]}}]"#;
        let ping = Ping { t: Some(Value::Int(1)), seen: None };
        assert_eq!(decode_request(Encoding::Json, frame), Ok((3, Request::Ping(ping))));
        for frame in [&br#"["dance", 3, {}]"#[..], br#"["ready", 3, {}]"#] {
            let error = decode_request(Encoding::Json, frame).unwrap_err();
            assert_eq!((error.code, error.reference), (ErrorCode::UnknownOp, 3));
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_words_of_parsers() {
        let told = |frame: &str, encoding| {
            let bytes = match encoding {
                Encoding::Json => frame.as_bytes().to_vec(),
                Encoding::MessagePack => {
                    let (op, reference, body): (String, u64, serde_json::Value) =
                        serde_json::from_str(frame).unwrap();
                    rmp_serde::to_vec_named(&(Op::named(&op).unwrap().number(), reference, body)).unwrap()
                }
            };
            decode_request(encoding, &bytes).unwrap_err().message
        };
        let jargon =
            ["JsonFrame", "tuple", "struct", "u64", "i64", "variant", "sequence", "marker", "IO error"];
        let bad_frames =
            ["", "{", "[]", r#"["ping"]"#, r#"["ping", -1, {}]"#, r#"[7, 1, {}]"#, r#"{"op": "ping"}"#];
        for frame in bad_frames {
            let told = told(frame, Encoding::Json);
            assert!(told.contains("[\"op\", ref, {…}]"), "{frame}: {told}");
            assert!(!jargon.iter().any(|word| told.contains(word)), "{frame}: {told}");
        }
        for frame in [
            r#"["ping", 1, {"seen": "x"}]"#,
            r#"["presence.set", 1, {"status": "dancing"}]"#,
            r#"["presence.set", 1, {"status": 7}]"#,
            r#"["state.patch", 1, {"set": 7}]"#,
            r#"["state.patch", 1, {"incr": {"a": "x"}}]"#,
            r#"["state.patch", 1, {"ack": "maybe"}]"#,
            r#"["state.patch", 1, {"ack": 7}]"#,
            r#"["state.patch", 1, {"if_state": [1]}]"#,
            r#"["watch", 1, {"players": "ann"}]"#,
            r#"["login", 1, {"token": []}]"#,
        ] {
            for encoding in [Encoding::Json, Encoding::MessagePack] {
                let told = told(frame, encoding);
                assert!(!jargon.iter().any(|word| told.contains(word)), "{frame}: {told}");
            }
        }
        let short = decode_request(Encoding::MessagePack, b"\x93\x0b\x01\x81\xa3ack\xa7appl").unwrap_err();
        assert!(!jargon.iter().any(|word| short.message.contains(word)), "{short}");
        let status = told(r#"["presence.set", 1, {"status": "dancing"}]"#, Encoding::Json);
        assert!(
            status.contains("dancing") && status.contains("busy") && !status.contains("offline"),
            "{status}"
        );
    }

    #[test]
    fn what_is_not_a_frame_is_a_bad_frame() {
        for frame in
            [&b""[..], b"{", b"[]", br#"["ping"]"#, br#"["ping", -1, {}]"#, br#"["ping", 4294967296, {}]"#]
        {
            assert_eq!(
                decode_request(Encoding::Json, frame).unwrap_err().code,
                ErrorCode::BadFrame,
                "{frame:?}"
            );
        }
        for frame in
            [&b""[..], &[0x93], &[0x92, 4, 1], &[0x93, 0xa1, 0x61, 1, 0x80], &[0xdd, 0xff, 0xff, 0xff, 0xff]]
        {
            assert_eq!(decode_request(Encoding::MessagePack, frame).unwrap_err().code, ErrorCode::BadFrame);
        }
    }

    #[test]
    fn a_lying_length_and_trailing_bytes_are_refused() {
        for frame in
            [&[0x93, 4, 1, 0xdf, 0xff, 0xff, 0xff, 0xff][..], &[0x93, 4, 1, 0x80, 0x80], &[0x93, 4, 1, 0x93]]
        {
            assert_eq!(decode_request(Encoding::MessagePack, frame).unwrap_err().code, ErrorCode::BadRequest);
        }
        let deep = [&[0x93, 4, 1, 0x81, 0xa1, b't'][..], &[0x91; 5000], &[1]].concat();
        assert_eq!(decode_request(Encoding::MessagePack, &deep).unwrap_err().code, ErrorCode::BadRequest);
        let ignored = [&[0x93, 4, 1, 0x81, 0xa1, b'z'][..], &[0x91; 5000], &[1]].concat();
        assert_eq!(decode_request(Encoding::MessagePack, &ignored).unwrap_err().code, ErrorCode::BadRequest);
    }

    #[test]
    fn a_shared_item_makes_the_same_frame_as_a_whole_body() {
        use crate::push::{Presence, PresenceItem};
        let item = |player: &str| PresenceItem {
            player: player.to_owned(),
            status: crate::request::Status::Playing,
            activity: None,
            ver: (1, 2),
            last_seen: None,
            devices: Some(vec!["pc".to_owned()]),
        };
        for encoding in [Encoding::MessagePack, Encoding::Json] {
            let items: Vec<_> = (0..20).map(|n| item(&format!("p{n}"))).collect();
            let shared: Vec<Vec<u8>> = items
                .iter()
                .map(|item| {
                    let mut out = Vec::new();
                    encode_body(encoding, &mut out, item);
                    out
                })
                .collect();
            let mut out = Vec::new();
            encode_presence(encoding, &mut out, 300, shared.iter().map(Vec::as_slice));
            assert_eq!(out, request_bytes(encoding, Op::Presence, 300, &Presence { items }));
        }
    }

    #[test]
    fn a_push_encoded_for_messagepack_says_the_same_in_json() {
        let mut packed = Vec::new();
        let body = crate::push::Message { id: "m".into(), data: Value::Bin(vec![0]), ..Default::default() };
        encode_body(Encoding::MessagePack, &mut packed, &body);
        assert_eq!(&json_of(&packed)[..], br#"{"data":"AA==","id":"m"}"#);
        // As deep as a peer may send, and then wrapped: an item in a list in a body.
        let mut deepest = [vec![0x91; VALUE_DEPTH_MAX - 1], vec![1]].concat();
        let body =
            crate::push::Message { data: rmp_serde::from_slice(&deepest).unwrap(), ..Default::default() };
        packed.clear();
        encode_body(Encoding::MessagePack, &mut packed, &body);
        assert!(json_of(&packed).starts_with(br#"{"data":[[[["#));
        deepest.insert(0, 0x91);
        assert!(rmp_serde::from_slice::<Value>(&deepest).is_err());
        let mut empty = Vec::new();
        encode_body(Encoding::MessagePack, &mut empty, &Empty {});
        assert_eq!(&json_of(&empty)[..], b"{}");
    }
}
