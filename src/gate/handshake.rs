//! One connection from its first byte to its session, under one deadline: upgrade, then frames until a login or a
//! resume succeeds. Called by `listener`; hands the socket and the attachment to `session`. One of the doors where
//! wire types stop.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use protocol::reply::{ErrorBody, Pong};
use protocol::request::{Login, Op};
use protocol::{CloseCode, Encoding, ErrorCode, Request, decode_request, limits};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request as Upgraded, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};

use super::auth::{AuthError, Identity};
use super::listener::Gate;
use crate::clock;
use crate::events::Status;
use crate::session::{Closing, EnterError, Entered, Link, LinkSocket, goodbye, house_status};
use crate::telemetry::metrics;

/// Where clients connect.
const PATH: &str = "/v1/connect";
/// Frames before `ready`: a client needs one, and may ping or try again.
const FRAMES_BEFORE_READY_MAX: usize = 16;
/// Read buffer of a link: most frames are below it, and idle links keep it.
const READ_BUFFER_BYTES: usize = 1024;
/// Write buffer of a link: answers and pushes of one wake-up go out in writes of this size.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;
/// A write buffer over this size is a fault of ours. The largest answer is 200 players with full activity, and JSON may
/// write a byte as six.
const WRITE_BUFFER_BYTES_MAX: usize = 16 * 1024 * 1024;
const SUBPROTOCOL: &str = "sec-websocket-protocol";

/// Bounds of a handshake.
#[derive(Debug, Clone, Copy)]
pub struct Upgrade {
    /// From accept to `ready`.
    pub timeout: Duration,
    /// Largest frame.
    pub frame_bytes_max: usize,
}

/// Why a connection came to nothing, for the metric.
type Reason = &'static str;

/// Upgrades, greets, and makes a link; `None` when the connection came to nothing.
pub(super) async fn shake<S: LinkSocket>(
    gate: &Arc<Gate>,
    stream: S,
    ip: IpAddr,
    deadline: Instant,
) -> Option<Link<S>> {
    match greeted(gate, stream, ip, deadline).await {
        Ok(link) => Some(link),
        Err(reason) => {
            metrics::HANDSHAKE_FAILURES.with(&[("reason", reason)]).increment(1);
            None
        }
    }
}

async fn greeted<S: LinkSocket>(
    gate: &Arc<Gate>,
    stream: S,
    ip: IpAddr,
    deadline: Instant,
) -> Result<Link<S>, Reason> {
    let (mut ws, encoding) = match timeout_at(deadline, upgrade(gate, stream)).await {
        Ok(Some(upgraded)) => upgraded,
        Ok(None) => return Err("upgrade"),
        Err(_) => return Err("timeout"),
    };
    for _ in 0..FRAMES_BEFORE_READY_MAX {
        let frame = match timeout_at(deadline, ws.next()).await {
            Err(_) => {
                goodbye(&mut ws, encoding, close(CloseCode::HandshakeTimeout, "no login in time")).await;
                return Err("timeout");
            }
            Ok(None) => return Err("gone"),
            Ok(Some(Err(error))) => {
                if let Some(closing) = closing_for(&error) {
                    goodbye(&mut ws, encoding, closing).await;
                }
                return Err("frame");
            }
            Ok(Some(Ok(frame))) => frame,
        };
        match greet(gate, encoding, &frame, ip).await {
            Greeting::Nothing => {}
            Greeting::Entered(reference, entered) => {
                return Ok(Link::new(Arc::clone(&gate.sessions), ws, encoding, *entered, reference));
            }
            Greeting::Say(frame) => {
                if !matches!(timeout_at(deadline, ws.send(frame)).await, Ok(Ok(()))) {
                    return Err("gone");
                }
            }
            Greeting::Close(frame, closing) => {
                let _ = timeout_at(deadline, ws.feed(frame)).await;
                goodbye(&mut ws, encoding, closing).await;
                return Err("refused");
            }
        }
    }
    goodbye(&mut ws, encoding, close(CloseCode::ProtocolError, "too many frames before a login")).await;
    Err("frames")
}

/// What a frame before `ready` comes to.
enum Greeting {
    Nothing,
    Entered(u32, Box<Entered>),
    Say(Message),
    Close(Message, Closing),
}

async fn greet(gate: &Gate, encoding: Encoding, frame: &Message, ip: IpAddr) -> Greeting {
    let decoded = match (frame, encoding) {
        (Message::Binary(bytes), Encoding::MessagePack) => decode_request(encoding, bytes),
        (Message::Text(text), Encoding::Json) => decode_request(encoding, text.as_bytes()),
        (Message::Binary(_) | Message::Text(_), _) => {
            let body = ErrorBody::new(ErrorCode::BadFrame, "this link speaks the other kind of frame");
            return Greeting::Say(error(encoding, 0, &body));
        }
        _ => return Greeting::Nothing,
    };
    let now = clock::now();
    match decoded {
        Err(fault) => {
            Greeting::Say(error(encoding, fault.reference, &ErrorBody::new(fault.code, fault.message)))
        }
        Ok((reference, Request::Ping(ping))) => {
            Greeting::Say(message(encoding, Op::Ok, reference, &Pong { t: ping.t, now_ms: now.unix_ms }))
        }
        Ok((reference, Request::Login(login))) => {
            let outcome = admit(gate, &login, ip).await;
            entered(encoding, reference, outcome, &metrics::LOGINS)
        }
        Ok((reference, Request::Resume(resume))) => {
            let outcome = gate.sessions.resume(&resume).await;
            entered(encoding, reference, outcome, &metrics::RESUMES)
        }
        Ok((reference, _)) => {
            let body =
                ErrorBody::new(ErrorCode::NotLoggedIn, "only login, resume and ping may come before ready");
            Greeting::Say(error(encoding, reference, &body))
        }
    }
}

async fn admit(gate: &Gate, login: &Login<'_>, ip: IpAddr) -> Result<Entered, EnterError> {
    let now = clock::now();
    if let Err(limited) = gate.addresses.login(ip, now) {
        let body = ErrorBody::new(ErrorCode::RateLimited, "too many logins from this address");
        return Err(EnterError {
            body: body.after(limited.retry_after_ms.into()),
            close: Some(CloseCode::GoingAway),
        });
    }
    let refuse = |code, message: &str, close| EnterError { body: ErrorBody::new(code, message), close };
    let device = login.device.as_ref().map_or("other", |device| device.as_str());
    if device.is_empty() || device.len() > limits::DEVICE_BYTES_MAX || device.chars().any(char::is_control) {
        return Err(refuse(ErrorCode::BadRequest, "a device has 1 to 16 bytes", None));
    }
    let status = match login.status.map(house_status) {
        None => Status::Online,
        Some(Some(status)) => status,
        Some(None) => return Err(refuse(ErrorCode::BadRequest, "only the server says offline", None)),
    };
    match gate.auth.verify(login.token.as_str(), now) {
        Ok(Identity { player, expires_at_unix_ms, .. }) => {
            gate.sessions.login(player, device, status, expires_at_unix_ms).await
        }
        Err(AuthError::Invalid) => {
            Err(refuse(ErrorCode::Unauthorized, "the token is not good", Some(CloseCode::BadToken)))
        }
        Err(AuthError::Expired) => {
            Err(refuse(ErrorCode::TokenExpired, "the token has expired", Some(CloseCode::TokenExpired)))
        }
    }
}

fn entered(
    encoding: Encoding,
    reference: u32,
    outcome: Result<Entered, EnterError>,
    counter: &metrics::CounterName,
) -> Greeting {
    let told = outcome.as_ref().map_or_else(|refused| refused.body.code.name(), |_| "ok");
    counter.with(&[("outcome", told)]).increment(1);
    match outcome {
        Ok(entered) => Greeting::Entered(reference, Box::new(entered)),
        Err(EnterError { body, close: None }) => Greeting::Say(error(encoding, reference, &body)),
        Err(EnterError { body, close: Some(code) }) => {
            let closing = Closing { retry_after_ms: body.retry_after_ms, ..close(code, &body.message) };
            Greeting::Close(error(encoding, reference, &body), closing)
        }
    }
}

/// The WebSocket upgrade: path, origin and subprotocol are judged; small buffers, one frame limit.
#[allow(clippy::result_large_err, reason = "the type is tungstenite's")]
async fn upgrade<S: LinkSocket>(gate: &Gate, stream: S) -> Option<(WebSocketStream<S>, Encoding)> {
    let mut encoding = Encoding::default();
    let judge = |request: &Upgraded, response: Response| judge(gate, request, response, &mut encoding);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(gate.upgrade.frame_bytes_max))
        .max_frame_size(Some(gate.upgrade.frame_bytes_max));
    let ws = tokio_tungstenite::accept_hdr_async_with_config(stream, judge, Some(config)).await.ok()?;
    Some((ws, encoding))
}

#[allow(clippy::result_large_err, reason = "the type is tungstenite's")]
fn judge(
    gate: &Gate,
    request: &Upgraded,
    mut response: Response,
    encoding: &mut Encoding,
) -> Result<Response, ErrorResponse> {
    if request.uri().path() != PATH {
        return Err(refusal(StatusCode::NOT_FOUND, "clients connect to /v1/connect"));
    }
    let origin = request.headers().get("origin").map(|origin| origin.to_str().unwrap_or("?"));
    if !gate.origins.allows(origin) {
        return Err(refusal(StatusCode::FORBIDDEN, "this origin may not connect; see auth.origins_allowed"));
    }
    let offered = request.headers().get_all(SUBPROTOCOL);
    let mut names =
        offered.iter().filter_map(|value| value.to_str().ok()).flat_map(|names| names.split(',')).peekable();
    if names.peek().is_none() {
        return Ok(response);
    }
    match names.find_map(|name| Encoding::of_subprotocol(name.trim())) {
        None => Err(refusal(StatusCode::BAD_REQUEST, "speak hearth.v1.msgpack or hearth.v1.json")),
        Some(chosen) => {
            *encoding = chosen;
            response.headers_mut().insert(SUBPROTOCOL, HeaderValue::from_static(chosen.subprotocol()));
            Ok(response)
        }
    }
}

fn refusal(status: StatusCode, why: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(why.to_owned()));
    *response.status_mut() = status;
    response
}

fn closing_for(error: &WsError) -> Option<Closing> {
    match error {
        WsError::Capacity(_) => Some(close(CloseCode::MessageTooBig, "the frame is over the limit")),
        WsError::Utf8(_) => Some(close(CloseCode::NotUtf8, "a text frame must be UTF-8")),
        WsError::Protocol(_) => Some(close(CloseCode::ProtocolViolation, "RFC 6455 was violated")),
        _ => None,
    }
}

fn close(code: CloseCode, reason: &str) -> Closing {
    Closing { code: code.number(), reason: reason.into(), retry_after_ms: None }
}

fn error(encoding: Encoding, reference: u32, body: &ErrorBody) -> Message {
    message(encoding, Op::Error, reference, body)
}

fn message<B: serde::Serialize>(encoding: Encoding, op: Op, reference: u32, body: &B) -> Message {
    let mut bytes = Vec::new();
    protocol::encode(encoding, &mut bytes, op, reference.into(), body);
    match encoding {
        Encoding::MessagePack => Message::Binary(bytes.into()),
        Encoding::Json => Message::Text(Utf8Bytes::try_from(bytes).unwrap_or_default()),
    }
}
