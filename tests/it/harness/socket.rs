//! One WebSocket as a client of a test's own: frames of any kind, also those that no client should send. Knows the
//! shape `[op, ref, body]` in both encodings and nothing of what it means; never uses the server's own codec.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

use super::patience::PATIENCE;

/// Anything that bytes go through.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<W: AsyncRead + AsyncWrite + Unpin + Send> Wire for W {}

/// How frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    MessagePack,
}

impl Encoding {
    pub(crate) const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "hearth.v1.json",
            Self::MessagePack => "hearth.v1.msgpack",
        }
    }
}

/// PROTOCOL's table of ops: what MessagePack frames carry instead of names.
const OPS: &[(u64, &str)] = &[
    (1, "login"),
    (2, "resume"),
    (3, "logout"),
    (4, "ping"),
    (5, "refresh"),
    (10, "state.get"),
    (11, "state.patch"),
    (20, "presence.set"),
    (21, "presence.get"),
    (22, "watch"),
    (23, "unwatch"),
    (30, "room.join"),
    (31, "room.leave"),
    (32, "room.send"),
    (33, "room.members"),
    (34, "room.meta"),
    (40, "send"),
    (100, "ok"),
    (101, "error"),
    (102, "ready"),
    (103, "redirect"),
    (110, "presence"),
    (111, "room"),
    (112, "message"),
    (113, "moved"),
    (114, "bye"),
    (115, "mode"),
    (116, "rolled_back"),
    (117, "durable"),
];

/// One frame of the server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) op: String,
    /// `ref` of an answer, `seq` of a push.
    pub(crate) number: u64,
    pub(crate) body: Value,
}

/// What was heard.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Heard {
    Frame(Frame),
    /// The link is closed, with this code if one was given.
    Closed(Option<u16>),
}

/// What a client connects over.
#[derive(Debug, Clone)]
pub(crate) enum Line {
    Plain,
    /// With a small receive buffer, so that a reader who does not read is noticed soon.
    Narrow,
    /// From this address of the machine's own.
    #[allow(dead_code, reason = "the faults that are planted come from several")]
    From(Ipv4Addr),
    /// TLS, where one certificate alone is trusted.
    Tls(CertificateDer<'static>),
}

/// One WebSocket.
pub(crate) struct Socket {
    ws: WebSocketStream<Box<dyn Wire>>,
    encoding: Encoding,
    line: Line,
}

impl Socket {
    /// Connects and upgrades.
    pub(crate) async fn open(url: &str, encoding: Encoding) -> Self {
        Self::open_over(Line::Plain, url, encoding).await
    }

    /// The same over a line that is not a plain one.
    pub(crate) async fn open_over(line: Line, url: &str, encoding: Encoding) -> Self {
        Self::try_open_over(line, url, encoding).await.expect("the server's certificate is the trusted one")
    }

    /// The same, where the server may have another certificate.
    pub(crate) async fn try_open_over(line: Line, url: &str, encoding: Encoding) -> Option<Self> {
        let wire: Box<dyn Wire> = match &line {
            Line::Plain => Box::new(TcpStream::connect(host_of(url)).await.unwrap()),
            Line::Narrow => {
                let socket = TcpSocket::new_v4().unwrap();
                socket.set_recv_buffer_size(4096).unwrap();
                Box::new(socket.connect(host_of(url).parse().unwrap()).await.unwrap())
            }
            Line::From(address) => {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind((*address, 0).into()).unwrap();
                Box::new(socket.connect(host_of(url).parse().unwrap()).await.unwrap())
            }
            Line::Tls(trusted) => {
                let tcp = TcpStream::connect(host_of(url)).await.unwrap();
                Box::new(trusting(trusted).connect("localhost".try_into().unwrap(), tcp).await.ok()?)
            }
        };
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", encoding.subprotocol().parse().unwrap());
        let upgrade = tokio_tungstenite::client_async(request, wire);
        let (ws, _) =
            timeout(PATIENCE, upgrade).await.expect("an answer to the upgrade").expect("the upgrade");
        Some(Self { ws, encoding, line })
    }

    /// Goes to another place, in the same way.
    pub(crate) async fn goes_to(&mut self, url: &str) {
        *self = Self::open_over(self.line.clone(), url, self.encoding).await;
    }

    /// Sends one frame.
    pub(crate) async fn send(&mut self, op: &str, reference: u32, body: &Value) {
        self.feed(op, reference, body).await;
        self.flush().await;
    }

    /// Prepares one frame; [`Self::flush`] sends all that were prepared in one write.
    pub(crate) async fn feed(&mut self, op: &str, reference: u32, body: &Value) {
        let frame = match self.encoding {
            Encoding::Json => Message::text(serde_json::json!([op, reference, body]).to_string()),
            Encoding::MessagePack => {
                let number = OPS.iter().find(|(_, name)| *name == op).map_or(99, |(number, _)| *number);
                Message::binary(rmp_serde::to_vec(&(number, reference, body)).unwrap())
            }
        };
        // A link that the server has closed takes nothing more: reading tells.
        let _ = self.ws.feed(frame).await;
    }

    pub(crate) async fn flush(&mut self) {
        let _ = timeout(PATIENCE, self.ws.flush()).await.expect("a server that reads");
    }

    /// Sends any message.
    pub(crate) async fn send_message(&mut self, message: Message) {
        let _ = timeout(PATIENCE, self.ws.send(message)).await.expect("a server that reads");
    }

    /// Sends bytes past the WebSocket layer.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        use tokio::io::AsyncWriteExt as _;
        self.ws.get_mut().write_all(bytes).await.unwrap();
    }

    /// Sends a close frame and hears on until the end.
    pub(crate) async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
        let _ = self.ws.close(Some(frame)).await;
        while let Some(Ok(_)) = timeout(PATIENCE, self.ws.next()).await.expect("an end") {}
    }

    /// Waits for the next frame or the end.
    pub(crate) async fn hear(&mut self) -> Heard {
        self.hear_within(PATIENCE).await.expect("something to be heard")
    }

    /// The same with a deadline of its own.
    pub(crate) async fn hear_within(&mut self, deadline: Duration) -> Option<Heard> {
        let heard = async {
            loop {
                match self.ws.next().await {
                    Some(Ok(Message::Text(text))) if self.encoding == Encoding::Json => {
                        return Heard::Frame(read_json(&text));
                    }
                    Some(Ok(Message::Binary(bytes))) if self.encoding == Encoding::MessagePack => {
                        return Heard::Frame(read_messagepack(&bytes));
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(close))) => {
                        return Heard::Closed(close.map(|close| close.code.into()));
                    }
                    Some(Ok(other)) => panic!("the server speaks the other encoding: {other:?}"),
                    Some(Err(_)) | None => return Heard::Closed(None),
                }
            }
        };
        timeout(deadline, heard).await.ok()
    }
}

fn trusting(certificate: &CertificateDer<'static>) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(std::sync::Arc::new(config))
}

/// `HOST:PORT` of a URL.
pub(crate) fn host_of(url: &str) -> &str {
    url.split("//").nth(1).and_then(|rest| rest.split('/').next()).expect("a URL")
}

fn read_json(text: &str) -> Frame {
    let (op, number, body) = serde_json::from_str(text).unwrap_or_else(|fault| panic!("{fault}: {text}"));
    Frame { op, number, body }
}

fn read_messagepack(bytes: &[u8]) -> Frame {
    let (op, number, body): (u64, u64, Value) = rmp_serde::from_slice(bytes).unwrap();
    let name = OPS.iter().find(|(known, _)| *known == op).unwrap_or_else(|| panic!("op {op}")).1;
    Frame { op: name.to_owned(), number, body }
}
