//! What a stranger sends on the client port: an HTTP request, and WebSocket frames behind it, in pieces of any size.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use hearth::gate::upgrade::{NotUpgraded, Taken, Upgrade, upgrade};
use hearth::session::MessageBounds;
use protocol::{Encoding, decode_request};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::Message;

const BOUNDS: Upgrade = Upgrade {
    timeout: Duration::from_secs(5),
    head_bytes_max: 2_048,
    frame_bytes_max: 4_096,
    message: MessageBounds { fragments_max: 8, timeout: Duration::from_secs(5) },
};

const GOOD_REQUEST: &[u8] =
    b"GET /v1/connect HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The first byte says how many bytes arrive at a time, the second whether a good request stands before the rest.
/// Whatever comes, no message passes its limit, and what is said before an upgrade is HTTP.
pub fn links(mut bytes: &[u8]) {
    let piece = usize::from(super::byte(&mut bytes)).max(1);
    let is_upgraded = !super::byte(&mut bytes).is_multiple_of(4);
    let sent = if is_upgraded { [GOOD_REQUEST, bytes].concat() } else { bytes.to_vec() };
    let said = Arc::new(Mutex::new(Vec::new()));
    let stream = Script { sent, read: 0, piece, said: Arc::clone(&said) };
    runtime().block_on(async {
        let judge = |_: &_| Ok(Taken { subprotocol: None, known: () });
        match upgrade(stream, &BOUNDS, std::future::pending(), judge).await {
            Ok((mut socket, ())) => {
                while let Some(Ok(message)) = socket.next().await {
                    assert!(message.len() <= BOUNDS.frame_bytes_max, "a message of {} bytes", message.len());
                    let _ = match &message {
                        Message::Binary(bytes) => decode_request(Encoding::MessagePack, bytes),
                        Message::Text(text) => decode_request(Encoding::Json, text.as_bytes()),
                        _ => continue,
                    };
                }
            }
            // The request of our own is good, unless what follows came with it: that is refused.
            Err(NotUpgraded::Refused(stream, refusal)) => {
                assert!(!is_upgraded || piece > 1, "{refusal:?}");
                refusal.answer(stream).await;
            }
            Err(NotUpgraded::Gone | NotUpgraded::TimedOut) => assert!(!is_upgraded, "nobody is there"),
        }
    });
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 "), "{said:?}");
}

fn runtime() -> &'static Runtime {
    static MADE: OnceLock<Runtime> = OnceLock::new();
    MADE.get_or_init(|| match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime: {error}"),
    })
}

/// The other side: says what it has to say, piece by piece, then is gone; what it hears is kept up to a bound.
struct Script {
    sent: Vec<u8>,
    read: usize,
    piece: usize,
    said: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = self.sent.get(self.read..).unwrap_or_default();
        let now = rest.get(..rest.len().min(self.piece).min(buf.remaining())).unwrap_or_default();
        buf.put_slice(now);
        let taken = now.len();
        self.read += taken;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let room = 64usize.saturating_sub(said.len());
        said.extend_from_slice(bytes.get(..bytes.len().min(room)).unwrap_or_default());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
