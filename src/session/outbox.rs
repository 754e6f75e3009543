//! What a link writes in one go: answers and pushes as WebSocket frames, one after the other in one buffer. Called by
//! `link`, which alone writes to the socket; only pongs and the last words go through the WebSocket library, whose
//! buffer would else hold a copy of the largest write of each link. Holds no memory between two writes, because most
//! links are idle most of the time.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use protocol::push::{Durable, Mode as WireMode, ModeChanged, Moved, RolledBack};
use protocol::request::Op;
use protocol::{Encoding, codec};
use serde::Serialize;
use tokio::io::AsyncWrite;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::hub::{Control, Frame, Mode, Push, PushKind};
use crate::wire::wire_stamp;

/// Room for the answers of a usual wake-up without growing.
const USUAL_BYTES: usize = 256;
/// The largest buffer that is kept for the next write.
const SPARE_BYTES_MAX: usize = 64 * 1024;
/// The header of a short frame.
const SHORT_HEADER_BYTES: usize = 2;
/// FIN and opcode of a whole message (RFC 6455, section 5.2).
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;

thread_local! {
    /// The buffer of the latest write of this thread, for the next one.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Frames on their way to one socket.
pub(super) struct Outbox {
    encoding: Encoding,
    bytes: Vec<u8>,
    /// How many of them are written already.
    written: usize,
}

impl Outbox {
    pub(super) const fn new(encoding: Encoding) -> Self {
        Self { encoding, bytes: Vec::new(), written: 0 }
    }

    pub(super) const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Adds an answer or a control push.
    pub(super) fn add<B: Serialize>(&mut self, op: Op, reference: u64, body: &B) {
        let start = self.begin();
        codec::encode(self.encoding, &mut self.bytes, op, reference, body);
        self.finish(start);
    }

    /// Adds a numbered push: a header of its own, then bytes that every receiver shares.
    pub(super) fn add_frame(&mut self, frame: &Frame) {
        if frame.pushes.is_empty() {
            return;
        }
        let (start, encoding) = (self.begin(), self.encoding);
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
            None => {}
        }
        self.finish(start);
    }

    /// Adds a control push; a close is not one: it is the last word.
    pub(super) fn add_control(&mut self, control: &Control) {
        match control {
            Control::Mode { mode, unflushed_ms } => {
                let mode = match mode {
                    Mode::Normal => WireMode::Normal,
                    Mode::Local => WireMode::Local,
                    Mode::Paused => WireMode::Paused,
                };
                self.add(Op::Mode, 0, &ModeChanged { mode, unflushed_ms: *unflushed_ms });
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
            Control::Moved(home) => {
                let (url, node) = (home.url.to_string(), home.node.to_string());
                self.add(Op::Moved, 0, &Moved { url, node, within_ms: home.within_ms });
            }
            Control::Close(_) => {}
        }
    }

    /// What waits to be written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Drops all that was added: it must not be said any more. What is half said stays, or nothing could be said after
    /// it.
    pub(super) fn clear(&mut self) {
        if self.written == 0 {
            self.bytes = Vec::new();
        }
    }

    /// What is left of a write that began.
    pub(super) fn half_said(&self) -> &[u8] {
        if self.written == 0 { &[] } else { self.bytes.get(self.written..).unwrap_or_default() }
    }

    /// Writes all of it, and holds nothing then.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut socket = Pin::new(socket);
        while let Some(left @ [_, ..]) = self.bytes.get(self.written..) {
            match ready!(socket.as_mut().poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.rest();
        socket.poll_flush(cx)
    }

    /// Hands the buffer on to whichever link of the thread writes next.
    fn rest(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        self.written = 0;
        if (1..=SPARE_BYTES_MAX).contains(&bytes.capacity()) {
            bytes.clear();
            SPARE.set(bytes);
        }
    }

    /// Makes room for a frame; where it starts.
    fn begin(&mut self) -> usize {
        if self.bytes.capacity() == 0 {
            self.bytes = SPARE.take();
            self.bytes.reserve(USUAL_BYTES);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; SHORT_HEADER_BYTES]);
        start
    }

    /// Puts the header before what was added since `start`: unmasked, as a server's frames are, and of the shortest form.
    fn finish(&mut self, start: usize) {
        let first = match self.encoding {
            Encoding::MessagePack => BINARY,
            Encoding::Json => TEXT,
        };
        let length = self.bytes.len().saturating_sub(start + SHORT_HEADER_BYTES);
        let place = start..start + SHORT_HEADER_BYTES;
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(length @ ..=125), _) => {
                if let Some(header) = self.bytes.get_mut(place) {
                    header.copy_from_slice(&[first, length]);
                }
            }
            (_, Ok(length)) => {
                let [high, low] = length.to_be_bytes();
                self.bytes.splice(place, [first, 126, high, low]);
            }
            _ => {
                let length = (length as u64).to_be_bytes();
                self.bytes.splice(place, [first, 127].into_iter().chain(length));
            }
        }
    }
}

/// One frame for the WebSocket library to write.
pub(super) fn message_of<B: Serialize>(encoding: Encoding, op: Op, body: &B) -> Message {
    let mut bytes = Vec::new();
    codec::encode(encoding, &mut bytes, op, 0, body);
    match encoding {
        Encoding::MessagePack => Message::Binary(bytes.into()),
        Encoding::Json => Message::Text(Utf8Bytes::try_from(bytes).unwrap_or_default()),
    }
}

fn body(encoding: Encoding, push: &Arc<Push>) -> &[u8] {
    match encoding {
        Encoding::MessagePack => push.msgpack(),
        Encoding::Json => push.json(codec::json_of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

    #[tokio::test]
    async fn frames_of_every_length_are_read_back_by_the_library() {
        for encoding in [Encoding::MessagePack, Encoding::Json] {
            let bodies: Vec<String> = [0, 90, 110, 115, 120, 125, 126, 300, 65_500, 65_530, 65_536, 70_000]
                .map(|n| "x".repeat(n))
                .into();
            let mut outbox = Outbox::new(encoding);
            bodies.iter().for_each(|text| outbox.add(Op::Ok, 7, text));
            let mut written = Vec::new();
            std::future::poll_fn(|cx| outbox.poll_write(&mut written, cx)).await.expect("a buffer");
            assert!(outbox.is_empty() && outbox.bytes.capacity() == 0, "an idle link holds nothing");
            let mut cursor = Cursor::new(&written);
            for text in &bodies {
                let (header, length) = FrameHeader::parse(&mut cursor).expect("a header").expect("whole");
                let kind = if encoding == Encoding::Json { Data::Text } else { Data::Binary };
                assert_eq!((header.is_final, header.opcode, header.mask), (true, OpCode::Data(kind), None));
                let mut expected = Vec::new();
                codec::encode(encoding, &mut expected, Op::Ok, 7, text);
                let (from, length) = (cursor.position() as usize, length as usize);
                assert!(written[from..from + length] == expected[..], "{} bytes", text.len());
                cursor.set_position((from + length) as u64);
            }
            assert_eq!(cursor.position() as usize, written.len());
        }
    }

    #[tokio::test]
    async fn what_is_half_said_is_finished_and_what_is_not_begun_is_dropped() {
        let mut outbox = Outbox::new(Encoding::Json);
        outbox.add(Op::Ok, 1, &"never said");
        outbox.clear();
        assert!(outbox.is_empty());
        outbox.add(Op::Ok, 1, &"x".repeat(100));
        let (mut near, far) = tokio::io::duplex(10);
        let half = std::future::poll_fn(|cx| Poll::Ready(outbox.poll_write(&mut near, cx))).await;
        assert!(half.is_pending());
        outbox.clear();
        assert!(!outbox.is_empty());
        drop(far);
        assert!(std::future::poll_fn(|cx| outbox.poll_write(&mut near, cx)).await.is_err());
    }
}
