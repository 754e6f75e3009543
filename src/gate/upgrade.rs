//! From a socket's first byte to a WebSocket: reads one HTTP request within bounds, judges it and answers it. Called
//! by `handshake`. What is not an upgrade gets a short answer in HTTP, and the connection ends: there is never a second
//! request on it, so nothing can be smuggled behind the first.

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::machine::TryParse as _;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Result as WsResult};

use crate::session::{ClientSocket, GOODBYE, Gulp, LinkSocket, MessageBounds, WholeMessages, linger};

/// A request of a usual client fits it.
const HEAD_BYTES_USUAL: usize = 1024;
/// Read buffer of a link: most frames are below it, and idle links keep it. What comes at once is read at once
/// whatever its size, see [`Gulp`].
const READ_BUFFER_BYTES: usize = 256;
/// Write buffer of what the library writes by itself: pongs, and the last words. A link writes its frames past it.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;
/// A write buffer over this size is a fault of ours. The largest answer is 200 players with full activity, and JSON may
/// write a byte as six.
const WRITE_BUFFER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Headers of which two would mean two things.
const ONCE: [&str; 4] = ["host", "upgrade", "sec-websocket-key", "sec-websocket-version"];

/// Bounds of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Upgrade {
    /// From accept to `ready`.
    pub timeout: Duration,
    /// The request, up to the empty line.
    pub head_bytes_max: usize,
    /// Largest frame.
    pub frame_bytes_max: usize,
    /// Largest stretch of a message.
    pub message: MessageBounds,
}

/// Why there is no WebSocket.
#[derive(Debug)]
pub enum NotUpgraded<S> {
    /// The other side is gone.
    Gone,
    /// Time is up, and nothing was asked.
    TimedOut,
    /// The request is refused; it is not answered yet.
    Refused(S, Refusal),
}

/// A refusal in HTTP.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    header: &'static str,
    why: &'static str,
}

impl Refusal {
    /// A status and, for people, why.
    #[must_use]
    pub const fn new(status: StatusCode, why: &'static str) -> Self {
        Self { status, header: "", why }
    }

    /// With one more header line.
    const fn with(self, header: &'static str) -> Self {
        Self { header, ..self }
    }

    /// Whether time was up before the request was whole.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.status == StatusCode::REQUEST_TIMEOUT
    }

    /// Says it, and waits a moment until it is read.
    pub async fn answer<S: LinkSocket>(&self, mut stream: S) {
        let last_words = async {
            if stream.write_all(self.to_http().as_bytes()).await.is_ok() {
                linger(&mut stream).await;
            }
        };
        let _ = tokio::time::timeout(GOODBYE, last_words).await;
    }

    fn to_http(&self) -> String {
        let Self { status, header, why } = self;
        let length = why.len() + 1;
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {length}\r\n{header}\r\n{why}\n"
        )
    }
}

/// What is taken of a request that is good.
#[derive(Debug)]
pub struct Taken<T> {
    /// The subprotocol to name in the answer.
    pub subprotocol: Option<&'static str>,
    /// What the judge knows of the client now.
    pub known: T,
}

/// Reads the request, lets `judge` judge it, and answers one that is good. Waits for the request until `time_is_up`
/// resolves.
///
/// # Errors
/// [`NotUpgraded`]; a refusal is the caller's to answer.
pub async fn upgrade<S: LinkSocket, T>(
    mut stream: S,
    bounds: &Upgrade,
    time_is_up: impl Future<Output = ()>,
    judge: impl FnOnce(&Request) -> Result<Taken<T>, Refusal>,
) -> Result<(ClientSocket<S>, T), NotUpgraded<S>> {
    let mut head = Vec::new();
    let read = tokio::select! {
        biased;
        read = read_head(&mut stream, &mut head, bounds.head_bytes_max) => read,
        () = time_is_up => Err(Unread::TimedOut),
    };
    let judged = match read {
        Ok(end) => request_of(&head, end).and_then(|request| accept(&request, judge)),
        Err(Unread::Gone) => return Err(NotUpgraded::Gone),
        Err(Unread::TimedOut) if head.is_empty() => return Err(NotUpgraded::TimedOut),
        Err(Unread::TimedOut) => {
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request did not come in time"))
        }
        Err(Unread::TooLong) => Err(too_large()),
    };
    drop(head);
    match judged {
        Ok((answer, known)) => {
            let said = tokio::time::timeout(GOODBYE, stream.write_all(&answer)).await;
            if !matches!(said, Ok(Ok(()))) {
                return Err(NotUpgraded::Gone);
            }
            let watched = WholeMessages::new(Gulp::new(stream), bounds.message).exact(true);
            Ok((WebSocketStream::from_raw_socket(watched, Role::Server, Some(config(bounds))).await, known))
        }
        Err(refusal) => Err(NotUpgraded::Refused(stream, refusal)),
    }
}

/// Small buffers, one limit of frames and messages.
fn config(bounds: &Upgrade) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX.max(bounds.frame_bytes_max.saturating_mul(2)))
        .max_message_size(Some(bounds.frame_bytes_max))
        .max_frame_size(Some(bounds.frame_bytes_max))
}

/// Why there is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unread {
    Gone,
    TimedOut,
    TooLong,
}

/// Reads up to the empty line; where the request ends.
async fn read_head<S: LinkSocket>(
    stream: &mut S,
    head: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<usize, Unread> {
    loop {
        if head.len() == head.capacity() {
            head.reserve(HEAD_BYTES_USUAL);
        }
        // The empty line may have begun with what was there before.
        let unseen = head.len().saturating_sub(2);
        match stream.read_buf(head).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Err(Unread::Gone),
        }
        let end = end_of_head(head.get(unseen..).unwrap_or_default()).map(|end| unseen + end);
        if end.unwrap_or(head.len()) > bytes_max {
            return Err(Unread::TooLong);
        }
        if let Some(end) = end {
            return Ok(end);
        }
    }
}

/// Where the empty line ends; also one that lacks its CR, so that it can be refused.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let ends =
        |line: &[u8]| bytes.windows(line.len()).position(|window| window == line).map(|at| at + line.len());
    match (ends(b"\n\r\n"), ends(b"\n\n")) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The request, if it is one that everybody reads alike.
fn request_of(head: &[u8], end: usize) -> Result<Request, Refusal> {
    let bad = |why| Err(Refusal::new(StatusCode::BAD_REQUEST, why));
    let (head, rest) = head.split_at_checked(end).unwrap_or((head, &[]));
    let breaks = head.iter().filter(|byte| **byte == b'\n').count();
    if breaks != head.windows(2).filter(|pair| pair == b"\r\n").count() {
        return bad("lines end with CR LF");
    }
    let request = match Request::try_parse(head) {
        Ok(Some((_, request))) => request,
        Ok(None) => return bad("this is no HTTP request"),
        Err(error) => return Err(unreadable(&error)),
    };
    let headers = request.headers();
    let count = |name| headers.get_all(name).iter().count();
    if ONCE.into_iter().any(|name| count(name) > 1) || count("host") != 1 {
        return bad("Host once, and no header of an upgrade twice");
    }
    if headers.contains_key("transfer-encoding") || !is_bodiless(headers) || !rest.is_empty() {
        return bad("an upgrade has no body, and nothing may follow it before the answer");
    }
    Ok(request)
}

fn is_bodiless(headers: &HeaderMap) -> bool {
    headers.get_all("content-length").iter().all(|length| length == "0")
}

fn accept<T>(
    request: &Request,
    judge: impl FnOnce(&Request) -> Result<Taken<T>, Refusal>,
) -> Result<(Vec<u8>, T), Refusal> {
    let Taken { subprotocol, known } = judge(request)?;
    let answer = answer(request, subprotocol).map_err(|error| unreadable(&error))?;
    Ok((answer, known))
}

/// `101 Switching Protocols`, if all that RFC 6455 asks for is there.
fn answer(request: &Request, subprotocol: Option<&'static str>) -> WsResult<Vec<u8>> {
    let mut response = create_response(request)?;
    if let Some(name) = subprotocol {
        response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(name));
    }
    let mut bytes = Vec::new();
    write_response(&mut bytes, &response)?;
    Ok(bytes)
}

/// The library's reasons in HTTP's words.
fn unreadable(error: &WsError) -> Refusal {
    const UPGRADE: Refusal = Refusal::new(
        StatusCode::UPGRADE_REQUIRED,
        "here is a WebSocket; game services have an address of their own",
    );
    match error {
        WsError::Capacity(CapacityError::TooManyHeaders) => too_large(),
        WsError::Protocol(protocol) => match protocol {
            ProtocolError::WrongHttpMethod => {
                Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket is opened with GET")
                    .with("Allow: GET\r\n")
            }
            ProtocolError::WrongHttpVersion => {
                Refusal::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here")
            }
            ProtocolError::MissingConnectionUpgradeHeader | ProtocolError::MissingUpgradeWebSocketHeader => {
                UPGRADE.with("Upgrade: websocket\r\n")
            }
            ProtocolError::MissingSecWebSocketVersionHeader => {
                UPGRADE.with("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
            }
            ProtocolError::MissingSecWebSocketKey | ProtocolError::InvalidSecWebSocketKey => {
                Refusal::new(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is 16 bytes in base64")
            }
            _ => Refusal::new(StatusCode::BAD_REQUEST, "this is no HTTP/1.1 request"),
        },
        _ => Refusal::new(StatusCode::BAD_REQUEST, "this is no HTTP/1.1 request"),
    }
}

const fn too_large() -> Refusal {
    Refusal::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "a request of fewer and shorter headers, please",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncRead, AsyncWrite};

    const GOOD: &str = "GET /v1/connect HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    fn bounds() -> Upgrade {
        let message = MessageBounds { fragments_max: 4, timeout: Duration::from_secs(1) };
        Upgrade { timeout: Duration::from_secs(5), head_bytes_max: 2_000, frame_bytes_max: 1_024, message }
    }

    async fn opened<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        stream: S,
    ) -> Result<(), &'static str> {
        let judge = |_: &Request| Ok(Taken { subprotocol: None, known: () });
        match upgrade(stream, &bounds(), tokio::time::sleep(Duration::from_secs(5)), judge).await {
            Ok(_) => Ok(()),
            Err(NotUpgraded::Gone) => Err("gone"),
            Err(NotUpgraded::TimedOut) => Err("silent"),
            Err(NotUpgraded::Refused(stream, refusal)) => {
                refusal.answer(stream).await;
                Err(if refusal.is_timeout() { "timeout" } else { "refused" })
            }
        }
    }

    /// The status that a request is answered with.
    async fn status(request: &str) -> u16 {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        client.write_all(request.as_bytes()).await.expect("room");
        let asking = async {
            let mut line = [0; 12];
            client.read_exact(&mut line).await.expect("an answer");
            client.shutdown().await.expect("the end");
            String::from_utf8_lossy(&line).split(' ').nth(1).and_then(|code| code.parse().ok())
        };
        let (_, status) = tokio::join!(opened(server), asking);
        status.expect("a status")
    }

    #[tokio::test]
    async fn every_fault_of_a_request_has_its_status() {
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(3_000));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a:\r\n".repeat(200));
        for (request, expected) in [
            (GOOD.to_owned(), 101),
            (GOOD.replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"), 101),
            (GOOD.replace("GET", "POST"), 405),
            (GOOD.replace("HTTP/1.1", "HTTP/1.0"), 505),
            (GOOD.replace("HTTP/1.1", "HTTP/2.0"), 400),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
            ("\u{16}\u{3}\u{1}hello\n\n".to_owned(), 400),
            (GOOD.replace("Upgrade: websocket\r\n", ""), 426),
            (GOOD.replace("Upgrade: websocket", "Upgrade: h2c"), 426),
            (GOOD.replace("Connection: Upgrade", "Connection: keep-alive"), 426),
            (GOOD.replace("Version: 13", "Version: 8"), 426),
            (GOOD.replace("Sec-WebSocket-Key", "X-Key"), 400),
            (GOOD.replace("dGhl", "dGh"), 400),
            (GOOD.replace("Host: h\r\n", ""), 400),
            (GOOD.replace("Host: h\r\n", "Host: h\r\nHost: i\r\n"), 400),
            (GOOD.replace("Host: h\r\n", "Host: h\r\nSec-WebSocket-Key: AAAA\r\n"), 400),
            (GOOD.replace("Host: h", "Host : h"), 400),
            (GOOD.replace("Host: h\r\n", "Host: h\r\n folded\r\n"), 400),
            (GOOD.replace("Host: h\r\n", "Host: h\n"), 400),
            (GOOD.replace("\r\n", "\n"), 400),
            (GOOD.replace("Host: h\r\n", "Host: h\0\r\n"), 400),
            (GOOD.replace("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello"), 400),
            (GOOD.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
            (format!("{GOOD}{GOOD}"), 400),
            (long, 431),
            (many, 431),
        ] {
            assert_eq!(status(&request).await, expected, "{request}");
        }
    }

    #[tokio::test]
    async fn a_request_may_come_byte_by_byte() {
        let (mut client, server) = tokio::io::duplex(1024);
        let asking = async {
            for byte in GOOD.bytes() {
                client.write_all(&[byte]).await.expect("room");
                tokio::task::yield_now().await;
            }
            let mut line = [0; 12];
            client.read_exact(&mut line).await.expect("an answer");
            line
        };
        let (opened, line) = tokio::join!(opened(server), asking);
        assert_eq!((opened, &line), (Ok(()), b"HTTP/1.1 101"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_began_to_ask_is_told_that_time_is_up_and_who_did_not_is_not() {
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(b"GET / HT").await.expect("room");
        let asking = async {
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.expect("text");
            answer
        };
        let (outcome, answer) = tokio::join!(opened(server), asking);
        assert_eq!(outcome, Err("timeout"));
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nthe request did not come in time\n"), "{answer}");
        let (mut client, server) = tokio::io::duplex(1024);
        assert_eq!(opened(server).await, Err("silent"));
        assert_eq!(client.read(&mut [0; 1]).await.expect("the end"), 0);
    }
}
