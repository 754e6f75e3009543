//! What a link writes in one go: answers and pushes encoded one after the other into one buffer, then cut into
//! messages. Called by `link`. Never writes to a socket.

use bytes::{Bytes, BytesMut};
use protocol::request::Op;
use protocol::{Encoding, codec};
use serde::Serialize;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::hub::{Frame, Push, PushKind};

/// Frames on their way to one socket.
pub(super) struct Outbox {
    encoding: Encoding,
    scratch: Vec<u8>,
    bytes: BytesMut,
    lengths: Vec<usize>,
}

impl Outbox {
    pub(super) fn new(encoding: Encoding) -> Self {
        Self { encoding, scratch: Vec::new(), bytes: BytesMut::new(), lengths: Vec::new() }
    }

    pub(super) const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Adds an answer or a control push.
    pub(super) fn add<B: Serialize>(&mut self, op: Op, reference: u64, body: &B) {
        codec::encode(self.encoding, &mut self.scratch, op, reference, body);
        self.cut();
    }

    /// Adds a numbered push.
    pub(super) fn add_frame(&mut self, frame: &Frame) {
        let encoding = self.encoding;
        let body = |push: &'_ std::sync::Arc<Push>| -> Bytes {
            match encoding {
                Encoding::MessagePack => push.msgpack().clone(),
                Encoding::Json => push.json(codec::json_of).clone(),
            }
        };
        let bodies: Vec<Bytes> = frame.pushes.iter().map(body).collect();
        match frame.pushes.first().map(|push| push.kind()) {
            Some(PushKind::Presence(_)) => {
                codec::encode_presence(
                    encoding,
                    &mut self.scratch,
                    frame.seq,
                    bodies.iter().map(|body| &body[..]),
                );
            }
            Some(PushKind::Message) => {
                if let Some(body) = bodies.first() {
                    codec::encode_shared(encoding, &mut self.scratch, Op::Message, frame.seq, body);
                }
            }
            None => return,
        }
        self.cut();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Drops all that was added: it must not be said any more.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.lengths.clear();
    }

    /// The messages, in order; the buffer is used again once the socket has let go of them.
    pub(super) fn take(&mut self) -> Vec<Message> {
        let Self { encoding, bytes, lengths, scratch } = self;
        if scratch.capacity() > 8 * 1024 {
            *scratch = Vec::new();
        }
        lengths
            .drain(..)
            .map(|length| {
                let frame = bytes.split_to(length).freeze();
                match encoding {
                    Encoding::MessagePack => Message::Binary(frame),
                    Encoding::Json => Message::Text(Utf8Bytes::try_from(frame).unwrap_or_default()),
                }
            })
            .collect()
    }

    fn cut(&mut self) {
        self.bytes.extend_from_slice(&self.scratch);
        self.lengths.push(self.scratch.len());
        self.scratch.clear();
    }
}
