//! The first exchange on a link: `login` or `resume`, and what comes of it. Called by the driver, which judges it.

use super::event::read_error;
use super::ledger::HANDSHAKE_REFERENCE;
use super::link::{Heard, Link};
use crate::reply::{ErrorBody, Ready, Redirect};
use crate::request::{Op, Request};
use crate::{Encoding, codec, push};

/// How a handshake ended.
pub(super) enum Handshake {
    Ready(Box<Ready>, Link),
    Redirect(Redirect),
    Refused(Box<ErrorBody>, Link),
    Lost { code: Option<u16>, reason: String, bye: Option<push::Bye> },
}

/// Says the first request and waits for what comes of it.
pub(super) async fn handshake(mut link: Link, request: Request<'static>) -> Handshake {
    let mut bye = None;
    let encoding: Encoding = link.encoding();
    let mut first = Vec::new();
    codec::encode_request(encoding, &mut first, HANDSHAKE_REFERENCE, &request);
    if let Err(reason) = link.feed(first).await {
        return Handshake::Lost { code: None, reason, bye };
    }
    if let Err(reason) = link.flush().await {
        return Handshake::Lost { code: None, reason, bye };
    }
    loop {
        let bytes = match link.hear().await {
            Heard::Frame(bytes) => bytes,
            Heard::Life => continue,
            Heard::End { code, reason } => return Handshake::Lost { code, reason, bye },
        };
        let unreadable = |reason: String| Handshake::Lost { code: None, reason, bye: None };
        let frame = match codec::peek(encoding, &bytes) {
            Ok(frame) => frame,
            Err(error) => return unreadable(error.to_string()),
        };
        match frame.op {
            Some(Op::Ready) => match frame.read(encoding) {
                Ok(ready) => return Handshake::Ready(Box::new(ready), link),
                Err(reason) => return unreadable(reason),
            },
            Some(Op::Redirect) => match frame.read(encoding) {
                Ok(redirect) => return Handshake::Redirect(redirect),
                Err(reason) => return unreadable(reason),
            },
            Some(Op::Error) => return Handshake::Refused(read_error(&frame, encoding), link),
            Some(Op::Bye) => bye = frame.read(encoding).ok(),
            _ => {}
        }
    }
}
