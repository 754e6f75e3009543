//! One WebSocket: made, asked for a session, read, written, ended. Used by the driver alone.
//! Never remembers anything of a session.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Utf8Bytes};

use crate::Encoding;

/// Read and write buffers: the default of 128 KiB would cost a gigabyte for 4,000 clients in one process.
const BUFFER_BYTES: usize = 4 * 1024;
/// A snapshot of 200 players with activities can pass 1 MiB.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A server that does not read for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for the other side's part of a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How to lose a link on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropKind {
    /// The connection is reset: the server learns of it at once.
    Reset,
    /// The connection ends without a word of WebSocket: as when a process dies.
    Cut,
    /// The connection stays open and silent until the next one has its session: as when a cable is cut.
    Abandon,
}

/// Why no link could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Not `ws://HOST:PORT/…`.
    #[error("not a ws:// address: {0}")]
    Address(String),
    /// Nobody listens, or the network is away.
    #[error("connecting: {0}")]
    Connect(#[from] std::io::Error),
    /// The upgrade failed.
    #[error("upgrading: {0}")]
    Upgrade(Box<Error>),
    /// It took too long.
    #[error("no connection in time")]
    Timeout,
}

/// What was read.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A frame of the protocol.
    Frame(Bytes),
    /// Something that shows life and no more.
    Life,
    /// The link has ended.
    End {
        /// The close code, where one was given.
        code: Option<u16>,
        /// For people.
        reason: String,
    },
}

/// One WebSocket.
#[derive(Debug)]
pub(crate) struct Link {
    socket: WebSocketStream<TcpStream>,
    encoding: Encoding,
}

impl Link {
    /// Connects and upgrades.
    pub(crate) async fn open(url: String, encoding: Encoding, deadline: Duration) -> Result<Self, OpenError> {
        timeout(deadline, Self::connect(&url, encoding)).await.map_err(|_| OpenError::Timeout)?
    }

    async fn connect(url: &str, encoding: Encoding) -> Result<Self, OpenError> {
        let address = || OpenError::Address(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| address())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("ws")).ok_or_else(address)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
        tcp.set_nodelay(true)?;
        let upgrade = |error| OpenError::Upgrade(Box::new(error));
        let mut request = url.into_client_request().map_err(upgrade)?;
        let subprotocol = HeaderValue::from_static(encoding.subprotocol());
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
            .max_write_buffer_size(1024 * 1024)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let (socket, _) =
            tokio_tungstenite::client_async_with_config(request, tcp, Some(config)).await.map_err(upgrade)?;
        Ok(Self { socket, encoding })
    }

    /// How this link speaks.
    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Reads on. Nothing is lost when this is dropped before it is done.
    pub(crate) async fn hear(&mut self) -> Heard {
        match self.socket.next().await {
            Some(Ok(Message::Binary(bytes))) => Heard::Frame(bytes),
            Some(Ok(Message::Text(text))) => Heard::Frame(text.into()),
            Some(Ok(Message::Close(frame))) => match frame {
                Some(frame) => Heard::End { code: Some(frame.code.into()), reason: frame.reason.to_string() },
                None => Heard::End { code: None, reason: "closed without a code".to_owned() },
            },
            Some(Ok(Message::Ping(_))) => {
                // The answer is queued already; it goes out with the next flush, which is now.
                let _ = self.flush().await;
                Heard::Life
            }
            Some(Ok(_)) => Heard::Life,
            Some(Err(error)) => Heard::End { code: None, reason: error.to_string() },
            None => Heard::End { code: None, reason: "the connection ended".to_owned() },
        }
    }

    /// Queues a frame; [`Link::flush`] sends it.
    ///
    /// # Errors
    /// The link is broken.
    pub(crate) async fn feed(&mut self, frame: Vec<u8>) -> Result<(), String> {
        let message = match self.encoding {
            Encoding::MessagePack => Message::Binary(frame.into()),
            Encoding::Json => match Utf8Bytes::try_from(Bytes::from(frame)) {
                Ok(text) => Message::Text(text),
                Err(error) => return Err(error.to_string()),
            },
        };
        in_time(self.socket.feed(message)).await
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// The link is broken.
    pub(crate) async fn flush(&mut self) -> Result<(), String> {
        in_time(self.socket.flush()).await
    }

    /// Says goodbye with a close code.
    pub(crate) async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::default() };
        let _ = timeout(CLOSE_TIMEOUT, async {
            let _ = self.socket.close(Some(frame)).await;
            while let Some(Ok(_)) = self.socket.next().await {}
        })
        .await;
    }

    /// Ends without a goodbye; what comes back must be kept until the next session is open.
    pub(crate) fn end_abruptly(self, how: DropKind) -> Option<Self> {
        match how {
            DropKind::Reset => {
                let _ = self.socket.get_ref().set_zero_linger();
                None
            }
            DropKind::Cut => None,
            DropKind::Abandon => Some(self),
        }
    }
}

async fn in_time(write: impl Future<Output = Result<(), Error>>) -> Result<(), String> {
    match timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the server does not read".to_owned()),
    }
}
