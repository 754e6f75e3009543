//! The reading side of a socket, watched for what the WebSocket library does not count: a message must be whole within
//! a number of fragments and a time. Wraps every client's socket, between TLS and WebSocket; `gate` makes it. Only
//! counts: it changes no byte, judges no frame, and reads no clock while messages come whole.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::Error as WsError;

use super::gulp::Gulp;
use crate::clock;

/// How far a message may be stretched.
#[derive(Debug, Clone, Copy)]
pub struct MessageBounds {
    /// Fragments of one message.
    pub fragments_max: u32,
    /// From a message's first byte to its last.
    pub timeout: Duration,
}

/// Why a message will not be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stretched {
    /// It comes in too many pieces.
    #[error("a message of too many fragments")]
    Fragments,
    /// It takes too long.
    #[error("a message takes too long")]
    Time,
}

impl Stretched {
    /// What this file told the library, and the library tells the link.
    pub(super) fn behind(error: &WsError) -> Option<Self> {
        let WsError::Io(error) = error else { return None };
        error.get_ref()?.downcast_ref::<Self>().copied()
    }
}

/// A socket that gives up on messages that are never whole.
#[derive(Debug)]
pub struct WholeMessages<S> {
    inner: S,
    fragments_max: u32,
    timeout_ms: u32,
    scan: Scan,
    /// When the message that is on its way was seen to have begun; 0 while there is none.
    began_ms: u64,
    is_given_up: bool,
    /// Hands on no byte behind the frame that is on its way.
    is_exact: bool,
}

impl<S> WholeMessages<Gulp<S>> {
    /// The socket for another to read on, as it stands; what is left in its place reads nothing and writes nothing.
    pub(super) fn hand_over(&mut self) -> Self {
        Self {
            inner: self.inner.hand_over(),
            fragments_max: self.fragments_max,
            timeout_ms: self.timeout_ms,
            scan: std::mem::take(&mut self.scan),
            began_ms: self.began_ms,
            is_given_up: self.is_given_up,
            is_exact: self.is_exact,
        }
    }
}

impl<S> WholeMessages<S> {
    /// Watches a socket from its first WebSocket frame on.
    pub fn new(inner: S, bounds: MessageBounds) -> Self {
        let timeout_ms = u32::try_from(bounds.timeout.as_millis()).unwrap_or(u32::MAX);
        Self {
            inner,
            fragments_max: bounds.fragments_max,
            timeout_ms,
            scan: Scan::default(),
            began_ms: 0,
            is_given_up: false,
            is_exact: false,
        }
    }

    /// Whether something has begun to come and not ended.
    pub(super) const fn is_amid(&self) -> bool {
        self.scan.is_amid()
    }

    /// Whether the library gets no byte behind the frame that it reads: before `ready`, so that the socket can be
    /// handed to another reader between two frames without losing one. Costs a look at the buffer a piece of a frame.
    pub const fn exact(mut self, is_exact: bool) -> Self {
        self.is_exact = is_exact;
        self
    }

    /// The same, of one that is in use.
    pub const fn set_exact(&mut self, is_exact: bool) {
        self.is_exact = is_exact;
    }

    /// What is under it, if no frame is on its way.
    pub fn into_inner(self) -> Option<S> {
        (!self.scan.is_amid()).then_some(self.inner)
    }

    /// What is under it, for those who are done with frames.
    pub const fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    fn judge(&mut self, read: &[u8]) -> Result<(), Stretched> {
        let was_amid = self.scan.is_amid();
        let ended = self.scan.take(read);
        if self.scan.fragments > self.fragments_max {
            return Err(Stretched::Fragments);
        }
        if !self.scan.is_amid() {
            self.began_ms = 0;
            return Ok(());
        }
        let now_ms = clock::now().mono_ms.max(1);
        if !was_amid || ended || self.began_ms == 0 {
            self.began_ms = now_ms;
        }
        if now_ms - self.began_ms > u64::from(self.timeout_ms) { Err(Stretched::Time) } else { Ok(()) }
    }
}

/// Where in the stream of frames we are; RFC 6455, section 5.2.
#[derive(Debug, Default)]
pub struct Scan {
    at: At,
    /// Payload bytes still to come.
    left: u64,
    /// The frame's first byte: FIN and opcode.
    first: u8,
    /// Whether a message has begun with a fragment and not ended.
    is_fragmented: bool,
    /// Fragments of that message so far.
    fragments: u32,
}

/// What the next byte is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    First,
    Second,
    /// Of the longer length fields, this many bytes more; then a mask, if there is one.
    Length {
        more: u8,
        has_mask: bool,
    },
    Mask {
        more: u8,
    },
    Payload,
}

impl Scan {
    /// Goes over what was read; whether a message, or a control frame outside of one, ended within it.
    pub fn take(&mut self, mut read: &[u8]) -> bool {
        let mut ended = false;
        while let [byte, rest @ ..] = read {
            if self.at == At::Payload {
                let step = usize::try_from(self.left).unwrap_or(usize::MAX).min(read.len());
                self.left -= step as u64;
                read = read.get(step..).unwrap_or_default();
            } else {
                self.head(*byte);
                read = rest;
            }
            if self.at == At::Payload && self.left == 0 {
                ended |= self.end_frame();
            }
        }
        ended
    }

    fn head(&mut self, byte: u8) {
        self.at = match self.at {
            At::First => {
                self.first = byte;
                At::Second
            }
            At::Second => {
                let has_mask = byte & 0x80 != 0;
                self.left = 0;
                match byte & 0x7f {
                    126 => At::Length { more: 2, has_mask },
                    127 => At::Length { more: 8, has_mask },
                    short => {
                        self.left = short.into();
                        after_length(has_mask)
                    }
                }
            }
            At::Length { more, has_mask } => {
                self.left = self.left << 8 | u64::from(byte);
                if more > 1 { At::Length { more: more - 1, has_mask } } else { after_length(has_mask) }
            }
            At::Mask { more } if more > 1 => At::Mask { more: more - 1 },
            At::Mask { .. } | At::Payload => At::Payload,
        };
    }

    /// Whether it was the end of a message, or of a control frame outside of one.
    fn end_frame(&mut self) -> bool {
        self.at = At::First;
        let (is_final, is_control) = (self.first & 0x80 != 0, self.first & 0x08 != 0);
        if is_control {
            return !self.is_fragmented;
        }
        self.is_fragmented = !is_final;
        self.fragments = if is_final { 0 } else { self.fragments.saturating_add(1) };
        is_final
    }

    /// Whether the last frame was a close.
    #[must_use]
    pub const fn has_closed(&self) -> bool {
        self.first & 0x0f == 8
    }

    /// How many bytes surely belong to the frame that is on its way, or to the head of the next.
    fn owed(&self) -> usize {
        match self.at {
            At::First => 2,
            At::Second => 1,
            At::Length { more, .. } | At::Mask { more } => more.into(),
            At::Payload => usize::try_from(self.left).unwrap_or(usize::MAX),
        }
    }

    /// Whether something has begun and not ended.
    #[must_use]
    pub const fn is_amid(&self) -> bool {
        self.is_fragmented || !matches!(self.at, At::First)
    }
}

const fn after_length(has_mask: bool) -> At {
    if has_mask { At::Mask { more: 4 } } else { At::Payload }
}

impl<S: AsyncRead + Unpin> AsyncRead for WholeMessages<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.is_exact {
            let most = self.scan.owed().min(buf.remaining());
            let mut piece = ReadBuf::new(buf.initialize_unfilled_to(most));
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut piece))?;
            let read = piece.filled().len();
            buf.advance(read);
        } else {
            ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        }
        let judged = match buf.filled().get(before..) {
            Some(read) if !self.is_given_up => self.judge(read),
            _ => Ok(()),
        };
        // Told once: what comes after it is for whoever says goodbye.
        self.is_given_up |= judged.is_err();
        Poll::Ready(judged.map_err(io::Error::other))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WholeMessages<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    const FIN: u8 = 0x80;
    const TEXT: u8 = 1;
    const CONTINUE: u8 = 0;
    const PING: u8 = 9;

    /// A masked frame as a client writes it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..=125 => bytes.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            len => {
                bytes.push(0x80 | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.extend(payload);
        bytes
    }

    fn fragments(first: u8, count: usize) -> Vec<u8> {
        (0..count).flat_map(|n| frame(if n == 0 { first } else { CONTINUE }, b"x")).collect()
    }

    #[test]
    fn whole_frames_leave_no_trace_however_they_are_cut() {
        let lengths = [0, 1, 125, 126, 65_535, 65_536, 70_000];
        let stream: Vec<u8> = lengths.iter().flat_map(|len| frame(FIN | TEXT, &vec![0; *len])).collect();
        for cut in [1, 2, 3, 7, 1_000, stream.len()] {
            let mut scan = Scan::default();
            let ends = stream.chunks(cut).filter(|chunk| scan.take(chunk)).count();
            assert!(!scan.is_amid() && scan.fragments == 0, "{cut}: {scan:?}");
            assert!(ends >= 1);
        }
    }

    #[test]
    fn fragments_count_until_the_last_and_pings_between_do_not() {
        let mut scan = Scan::default();
        scan.take(&fragments(TEXT, 5));
        scan.take(&frame(FIN | PING, b"hello"));
        assert_eq!((scan.fragments, scan.is_amid()), (5, true));
        assert!(scan.take(&frame(FIN | CONTINUE, b"")));
        assert_eq!((scan.fragments, scan.is_amid()), (0, false));
        assert!(scan.take(&frame(FIN | PING, b"")));
    }

    #[test]
    fn every_byte_of_a_frame_but_the_last_leaves_it_amid() {
        for whole in [frame(FIN | TEXT, b"hello"), frame(FIN | PING, b""), frame(FIN | TEXT, &[0; 300])] {
            let mut scan = Scan::default();
            let (last, others) = whole.split_last().expect("bytes");
            for byte in others {
                assert!(!scan.take(&[*byte]) && scan.is_amid());
            }
            assert!(scan.take(&[*last]) && !scan.is_amid());
        }
    }

    fn watched(
        fragments_max: u32,
        timeout: Duration,
    ) -> (tokio::io::DuplexStream, WholeMessages<tokio::io::DuplexStream>) {
        let (near, far) = tokio::io::duplex(1 << 20);
        (near, WholeMessages::new(far, MessageBounds { fragments_max, timeout }))
    }

    async fn told(socket: &mut WholeMessages<tokio::io::DuplexStream>) -> Option<Stretched> {
        let error = socket.read(&mut [0; 65_536]).await.err()?;
        Stretched::behind(&WsError::Io(error))
    }

    #[tokio::test]
    async fn one_fragment_too_many_is_told_once() {
        use tokio::io::AsyncWriteExt as _;
        let (mut client, mut socket) = watched(3, Duration::from_secs(60));
        client.write_all(&fragments(TEXT, 3)).await.expect("room");
        assert_eq!(told(&mut socket).await, None);
        client.write_all(&fragments(CONTINUE, 1)).await.expect("room");
        assert_eq!(told(&mut socket).await, Some(Stretched::Fragments));
        client.write_all(&fragments(CONTINUE, 1)).await.expect("room");
        assert_eq!(told(&mut socket).await, None);
    }

    #[tokio::test]
    async fn a_message_that_drips_is_given_up_and_whole_ones_are_not() {
        use tokio::io::AsyncWriteExt as _;
        let (mut client, mut socket) = watched(100, Duration::from_millis(1));
        for _ in 0..3 {
            client.write_all(&frame(FIN | TEXT, b"hello")).await.expect("room");
            assert_eq!(told(&mut socket).await, None);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The end of one message and the start of the next in one read: only the next one's time counts.
        let (first, second) = (frame(FIN | TEXT, b"one"), frame(FIN | TEXT, b"two"));
        client.write_all(&first[..2]).await.expect("room");
        assert_eq!(told(&mut socket).await, None);
        tokio::time::sleep(Duration::from_millis(5)).await;
        client.write_all(&[&first[2..], &second[..2]].concat()).await.expect("room");
        assert_eq!(told(&mut socket).await, None);
        tokio::time::sleep(Duration::from_millis(5)).await;
        client.write_all(&second[2..3]).await.expect("room");
        assert_eq!(told(&mut socket).await, Some(Stretched::Time));
    }

    #[tokio::test]
    async fn exactly_one_frame_is_handed_on_and_the_rest_is_whole() {
        use crate::session::Gulp;
        use tokio::io::AsyncWriteExt as _;
        let (mut client, far) = tokio::io::duplex(1 << 20);
        let bounds = MessageBounds { fragments_max: 4, timeout: Duration::from_secs(60) };
        let mut socket = WholeMessages::new(Gulp::new(far), bounds).exact(true);
        let (first, second) = (frame(FIN | TEXT, &[7; 300]), frame(FIN | PING, b"early"));
        client.write_all(&[first.as_slice(), &second].concat()).await.expect("room");
        let mut got = Vec::new();
        while got.len() < first.len() {
            let mut piece = [0; 256];
            let read = socket.read(&mut piece).await.expect("more");
            got.extend_from_slice(&piece[..read]);
        }
        assert_eq!(got, first);
        let (_, rest) = socket.into_inner().expect("between two frames").into_parts().expect("ours");
        assert_eq!(rest, second);
    }

    #[test]
    fn it_stays_small() {
        assert!(size_of::<WholeMessages<()>>() <= 48, "{}", size_of::<WholeMessages<()>>());
    }
}
