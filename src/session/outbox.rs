//! What a link writes in one go: answers and pushes encoded one after the other into one buffer, then cut into
//! messages. Called by `link`. Never writes to a socket; holds no memory between two writes, because most links are
//! idle most of the time.

use std::sync::Arc;

use bytes::Bytes;
use protocol::push::{Durable, Mode as WireMode, ModeChanged, RolledBack};
use protocol::request::Op;
use protocol::{Encoding, codec};
use serde::Serialize;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::words::wire_stamp;
use crate::hub::{Control, Frame, Mode, Push, PushKind};

/// Room for the answers of a usual wake-up without growing.
const USUAL_BYTES: usize = 256;

/// Frames on their way to one socket.
pub(super) struct Outbox {
    encoding: Encoding,
    bytes: Vec<u8>,
    /// Where each frame ends.
    ends: Vec<usize>,
}

impl Outbox {
    pub(super) const fn new(encoding: Encoding) -> Self {
        Self { encoding, bytes: Vec::new(), ends: Vec::new() }
    }

    pub(super) const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Adds an answer or a control push.
    pub(super) fn add<B: Serialize>(&mut self, op: Op, reference: u64, body: &B) {
        self.begin();
        codec::encode(self.encoding, &mut self.bytes, op, reference, body);
        self.ends.push(self.bytes.len());
    }

    /// Adds a numbered push: a header of its own, then bytes that every receiver shares.
    pub(super) fn add_frame(&mut self, frame: &Frame) {
        self.begin();
        let encoding = self.encoding;
        match frame.pushes.first().map(|push| push.kind()) {
            Some(PushKind::Presence { .. }) => {
                let items = frame.pushes.iter().map(|push| body(encoding, push));
                codec::encode_presence(encoding, &mut self.bytes, frame.seq, items);
            }
            Some(kind @ (PushKind::Room { .. } | PushKind::Message)) => {
                let op = if matches!(kind, PushKind::Message) { Op::Message } else { Op::Room };
                if let Some(push) = frame.pushes.first() {
                    codec::encode_shared(encoding, &mut self.bytes, op, frame.seq, body(encoding, push));
                }
            }
            None => return,
        }
        self.ends.push(self.bytes.len());
    }

    /// Adds a control push; a close is not one: it is the last word.
    pub(super) fn add_control(&mut self, control: &Control) {
        match control {
            Control::Mode(mode) => {
                let mode = match mode {
                    Mode::Normal => WireMode::Normal,
                    Mode::Paused => WireMode::Paused,
                };
                self.add(Op::Mode, 0, &ModeChanged { mode, unflushed_ms: None });
            }
            Control::RolledBack(notice) => self.add(
                Op::RolledBack,
                0,
                &RolledBack {
                    from: wire_stamp(notice.from),
                    to: notice.to.map(wire_stamp),
                    cseq: notice.cseq,
                    reason: "another node serves the player now".to_owned(),
                },
            ),
            Control::Durable(durable) => {
                self.add(Op::Durable, 0, &Durable { stamp: wire_stamp(durable.stamp), cseq: durable.cseq });
            }
            Control::Close(_) => {}
        }
    }

    /// What waits to be written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Drops all that was added: it must not be said any more.
    pub(super) fn clear(&mut self) {
        (self.bytes, self.ends) = (Vec::new(), Vec::new());
    }

    /// The messages, in order; they share the buffer, which is gone with the last of them.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Message> + use<> {
        let (encoding, bytes) = (self.encoding, Bytes::from(std::mem::take(&mut self.bytes)));
        let mut from = 0;
        std::mem::take(&mut self.ends).into_iter().map(move |end| {
            let frame = bytes.slice(std::mem::replace(&mut from, end)..end);
            match encoding {
                Encoding::MessagePack => Message::Binary(frame),
                Encoding::Json => Message::Text(Utf8Bytes::try_from(frame).unwrap_or_default()),
            }
        })
    }

    fn begin(&mut self) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(USUAL_BYTES);
        }
    }
}

fn body(encoding: Encoding, push: &Arc<Push>) -> &[u8] {
    match encoding {
        Encoding::MessagePack => push.msgpack(),
        Encoding::Json => push.json(codec::json_of),
    }
}
