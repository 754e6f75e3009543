//! The reading side of a socket, for links that are idle most of the time: all that the system has is read in one call
//! into a buffer that every link of a thread shares, and handed on in pieces, so that the WebSocket library can do with
//! a small buffer of its own. `gate` puts it under every client's socket. Changes no byte, and waits for nothing.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes of one read: a wake-up brings a few hundred.
const GULP_BYTES: usize = 16 * 1024;

thread_local! {
    static SHARED: RefCell<Vec<u8>> = RefCell::new(vec![0; GULP_BYTES]);
}

/// A socket that is read in gulps.
#[derive(Debug)]
pub struct Gulp<S> {
    /// None once another has taken the socket.
    inner: Option<S>,
    /// What was read and not handed on yet; most often nothing.
    rest: Option<Box<Rest>>,
}

#[derive(Debug)]
struct Rest {
    bytes: Box<[u8]>,
    given: usize,
}

impl<S> Gulp<S> {
    /// A socket of which nothing was read yet, or nothing is left.
    pub const fn new(inner: S) -> Self {
        Self { inner: Some(inner), rest: None }
    }

    /// The socket, with what was read of it and not handed on.
    pub(super) const fn hand_over(&mut self) -> Self {
        Self { inner: self.inner.take(), rest: self.rest.take() }
    }

    /// The socket, and what was read of it and not handed on; `None` if another has it.
    pub fn into_parts(self) -> Option<(S, Vec<u8>)> {
        let rest = self.rest.map(|rest| rest.bytes.get(rest.given..).unwrap_or_default().to_vec());
        Some((self.inner?, rest.unwrap_or_default()))
    }
}

impl Rest {
    /// Hands on what fits; whether that was all.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let left = self.bytes.get(self.given..).unwrap_or_default();
        let piece = left.get(..buf.remaining()).unwrap_or(left);
        buf.put_slice(piece);
        self.given += piece.len();
        self.given >= self.bytes.len()
    }
}

impl<S: Unpin> Gulp<S> {
    fn socket(&mut self) -> Option<Pin<&mut S>> {
        self.inner.as_mut().map(Pin::new)
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl<S: AsyncRead + Unpin> AsyncRead for Gulp<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner, rest } = &mut *self;
        if let Some(left) = rest {
            if left.give(buf) {
                *rest = None;
            }
            return Poll::Ready(Ok(()));
        }
        let Some(inner) = inner else { return Poll::Ready(Ok(())) };
        SHARED.with_borrow_mut(|shared| {
            let mut gulp = ReadBuf::new(shared);
            ready!(Pin::new(inner).poll_read(cx, &mut gulp))?;
            let read = gulp.filled();
            let (piece, later) = read.split_at(read.len().min(buf.remaining()));
            buf.put_slice(piece);
            if !later.is_empty() {
                *rest = Some(Box::new(Rest { bytes: later.into(), given: 0 }));
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gulp<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.socket().map_or_else(gone, |socket| socket.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.socket().map_or_else(gone, |socket| socket.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().map_or_else(gone, |socket| socket.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().map_or_else(gone, |socket| socket.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn what_does_not_fit_comes_with_the_next_reads_in_order() {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let (sent, mut socket): (Vec<u8>, _) =
            ((0..40_000_u32).map(|n| n as u8 ^ (n >> 8) as u8).collect(), Gulp::new(server));
        client.write_all(&sent).await.expect("room");
        drop(client);
        let (mut got, mut piece) = (Vec::new(), [0; 7]);
        while let Ok(read @ 1..) = socket.read(&mut piece).await {
            got.extend_from_slice(&piece[..read]);
        }
        assert!(got == sent);
        assert!(socket.rest.is_none(), "an idle link holds nothing");
    }

    #[tokio::test]
    async fn a_socket_moves_with_what_was_read_and_not_handed_on() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut socket = Gulp::new(server);
        client.write_all(b"one two").await.expect("room");
        let mut bytes = [0; 4];
        socket.read_exact(&mut bytes).await.expect("four bytes");
        let mut moved = socket.hand_over();
        assert_eq!(socket.read(&mut bytes).await.expect("the end"), 0);
        assert!(socket.write_all(b"x").await.is_err() && socket.flush().await.is_err());
        client.write_all(b"!").await.expect("room");
        moved.read_exact(&mut bytes).await.expect("four bytes");
        assert_eq!(&bytes, b"two!");
        moved.write_all(b"heard").await.expect("room");
        client.read_exact(&mut bytes).await.expect("four bytes");
        assert_eq!(&bytes, b"hear");
    }

    #[tokio::test]
    async fn sockets_of_one_thread_do_not_mix() {
        let ((mut ann, one), (mut bob, other)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        let (mut one, mut other) = (Gulp::new(one), Gulp::new(other));
        ann.write_all(b"from ann").await.expect("room");
        bob.write_all(b"from bob").await.expect("room");
        let mut bytes = [0; 4];
        for (socket, expected) in [(&mut one, b"from"), (&mut other, b"from")] {
            socket.read_exact(&mut bytes).await.expect("four bytes");
            assert_eq!(&bytes, expected);
        }
        for (socket, expected) in [(&mut other, b" bob"), (&mut one, b" ann")] {
            socket.read_exact(&mut bytes).await.expect("four bytes");
            assert_eq!(&bytes, expected);
        }
    }
}
