//! What a client reads: one frame of a server that may be anybody's.

use protocol::reply::{
    Changed, ErrorBody, Pong, Presences, Ready, Redirect, Refreshed, Roster, Sent, StateGot,
};
use protocol::request::Op;
use protocol::{Encoding, codec, peek, push};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The first byte chooses the encoding, the second the kind of an `ok`, the rest is the frame.
pub fn answers(mut bytes: &[u8]) {
    let encoding =
        if super::byte(&mut bytes).is_multiple_of(2) { Encoding::MessagePack } else { Encoding::Json };
    let kind = super::byte(&mut bytes);
    if encoding == Encoding::MessagePack {
        shared_in_json(bytes);
    }
    let Ok(frame) = peek(encoding, bytes) else { return };
    match frame.op {
        Some(Op::Ready) => reads_back::<Ready>(encoding, &frame),
        Some(Op::Redirect) => reads_back::<Redirect>(encoding, &frame),
        Some(Op::Error) => reads_back::<ErrorBody>(encoding, &frame),
        Some(Op::Presence) => reads_back::<push::Presence>(encoding, &frame),
        Some(Op::Room) => reads_back::<push::Room>(encoding, &frame),
        Some(Op::Message) => reads_back::<push::Message>(encoding, &frame),
        Some(Op::Moved) => reads_back::<push::Moved>(encoding, &frame),
        Some(Op::Bye) => reads_back::<push::Bye>(encoding, &frame),
        Some(Op::Mode) => reads_back::<push::ModeChanged>(encoding, &frame),
        Some(Op::RolledBack) => reads_back::<push::RolledBack>(encoding, &frame),
        Some(Op::Durable) => reads_back::<push::Durable>(encoding, &frame),
        Some(Op::Ok) => match kind % 7 {
            0 => reads_back::<Pong>(encoding, &frame),
            1 => reads_back::<Refreshed>(encoding, &frame),
            2 => reads_back::<StateGot>(encoding, &frame),
            3 => reads_back::<Changed>(encoding, &frame),
            4 => reads_back::<Presences>(encoding, &frame),
            5 => reads_back::<Roster>(encoding, &frame),
            _ => reads_back::<Sent>(encoding, &frame),
        },
        _ => {}
    }
}

/// What was read says the same after it was written and read again.
fn reads_back<B: Serialize + DeserializeOwned>(encoding: Encoding, frame: &codec::Frame<'_>) {
    let Ok(body) = frame.read::<B>(encoding) else { return };
    let mut written = Vec::new();
    codec::encode_body(encoding, &mut written, &body);
    let again = codec::Frame { op: frame.op, reference: frame.reference, body: &written };
    let body: B = match again.read(encoding) {
        Ok(body) => body,
        Err(fault) => panic!("our own body is refused in {encoding:?}: {fault}"),
    };
    let mut twice = Vec::new();
    codec::encode_body(encoding, &mut twice, &body);
    assert_eq!(twice, written);
}

/// A push encoded once for MessagePack reaches JSON links as JSON, whatever is in it.
fn shared_in_json(packed: &[u8]) {
    let json = codec::json_of(packed);
    assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok(), "{json:?}");
}
