//! One connection from its first byte to its session, under one deadline: upgrade, then frames until a login or a
//! resume succeeds. Called by `listener`; hands the socket and the attachment to `session`. One of the doors where
//! wire types stop.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use protocol::reply::{ErrorBody, Pong};
use protocol::request::{Login, Op};
use protocol::{CloseCode, Encoding, ErrorCode, Request, decode_request, limits};
use tokio_tungstenite::tungstenite::handshake::server::Request as Upgraded;
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::auth::AuthError;
use super::crowd::Patience;
use super::listener::Gate;
use super::upgrade::{NotUpgraded, Refusal, Taken, upgrade};
use crate::clock;
use crate::events::Status;
use crate::session::{
    ClientSocket, Closing, EnterError, Entered, GOODBYE, Link, LinkSocket, closing_for, goodbye, house_status,
};
use crate::telemetry::metrics;

/// Where clients connect.
const PATH: &str = "/v1/connect";
/// What people are tempted to put into an address, where every proxy on the way writes it down.
const SECRETS: [&str; 6] = ["token", "access_token", "jwt", "ticket", "auth", "authorization"];
/// Frames before `ready`: a client needs one, and may ping or try again.
const FRAMES_BEFORE_READY_MAX: usize = 16;
/// When a login may come again for which there was no room: the store is away or slow, and that takes a while.
const RETRY_LOGIN_MS: u64 = 1_000;
const SUBPROTOCOL: &str = "sec-websocket-protocol";

/// Why a connection came to nothing, for the metric.
type Reason = &'static str;

/// Upgrades, greets, and makes a link; `None` when the connection came to nothing.
pub(super) async fn shake<S: LinkSocket>(
    gate: &Arc<Gate>,
    stream: S,
    ip: IpAddr,
    patience: &mut Patience,
) -> Option<Link<S>> {
    match greeted(gate, stream, ip, patience).await {
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
    patience: &mut Patience,
) -> Result<Link<S>, Reason> {
    let judge = |request: &Upgraded| judge(gate, request);
    let upgraded = upgrade(stream, &gate.upgrade, patience.over(), judge).await;
    let (mut ws, encoding) = match upgraded {
        Ok(upgraded) => upgraded,
        Err(NotUpgraded::Gone) => return Err("gone"),
        Err(NotUpgraded::TimedOut) => return Err("timeout"),
        Err(NotUpgraded::Refused(stream, refusal)) => {
            patience.leaves(refusal.answer(stream)).await;
            return Err(if refusal.is_timeout() { "timeout" } else { "upgrade" });
        }
    };
    for _ in 0..FRAMES_BEFORE_READY_MAX {
        let frame = frame(&mut ws, encoding, patience).await?;
        match greet(gate, encoding, &frame, ip, patience).await {
            Greeting::Nothing => {}
            Greeting::Entered(reference, entered) => {
                return Ok(Link::new(Arc::clone(&gate.sessions), ws, encoding, *entered, reference));
            }
            Greeting::Say(frame) => {
                if !patience.comes_back().await {
                    let closing = impatient(patience, "no place for another try");
                    patience.leaves(last_words(&mut ws, encoding, frame, closing)).await;
                    return Err("timeout");
                }
                if !matches!(patience.within(ws.send(frame)).await, Some(Ok(()))) {
                    return Err("gone");
                }
            }
            Greeting::Close(frame, closing) => {
                patience.leaves(last_words(&mut ws, encoding, frame, closing)).await;
                return Err("refused");
            }
        }
    }
    let closing = close(CloseCode::ProtocolError, "too many frames before a login");
    patience.leaves(goodbye(&mut ws, encoding, closing)).await;
    Err("frames")
}

/// An answer, and why it is the last one.
async fn last_words<S: LinkSocket>(
    ws: &mut ClientSocket<S>,
    encoding: Encoding,
    answer: Message,
    closing: Closing,
) {
    let _ = tokio::time::timeout(GOODBYE, ws.feed(answer)).await;
    goodbye(ws, encoding, closing).await;
}

/// The next frame, while there is patience; whoever sends none is told why that was the end.
async fn frame<S: LinkSocket>(
    ws: &mut ClientSocket<S>,
    encoding: Encoding,
    patience: &mut Patience,
) -> Result<Message, Reason> {
    let (closing, reason) = match patience.within(ws.next()).await {
        Some(Some(Ok(frame))) => return Ok(frame),
        Some(Some(Err(error))) => (closing_for(&error), "frame"),
        Some(None) => (None, "gone"),
        None => (Some(impatient(patience, "no login in time")), "timeout"),
    };
    if let Some(closing) = closing {
        patience.leaves(goodbye(ws, encoding, closing)).await;
    }
    Err(reason)
}

/// What a frame before `ready` comes to.
enum Greeting {
    Nothing,
    Entered(u32, Box<Entered>),
    Say(Message),
    Close(Message, Closing),
}

async fn greet(
    gate: &Gate,
    encoding: Encoding,
    frame: &Message,
    ip: IpAddr,
    patience: &mut Patience,
) -> Greeting {
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
            let outcome = match closed(gate) {
                None => admit(gate, &login, ip, patience).await,
                Some(refused) => Err(refused),
            };
            entered(encoding, reference, outcome, &metrics::LOGINS)
        }
        Ok((reference, Request::Resume(resume))) => {
            let outcome = match closed(gate) {
                None => {
                    patience.resumes();
                    gate.sessions.resume(&resume).await
                }
                Some(refused) => Err(refused),
            };
            entered(encoding, reference, outcome, &metrics::RESUMES)
        }
        Ok((reference, _)) => {
            let body =
                ErrorBody::new(ErrorCode::NotLoggedIn, "only login, resume and ping may come before ready");
            Greeting::Say(error(encoding, reference, &body))
        }
    }
}

/// Why nobody is let in, while there is maintenance.
fn closed(gate: &Gate) -> Option<EnterError> {
    let now = clock::now();
    let closed = gate.maintenance.closed(now)?;
    let body = ErrorBody::new(ErrorCode::Maintenance, "closed for maintenance");
    let body = ErrorBody { reason: Some(closed.reason.to_string()), ..body };
    let body = closed.retry_after_ms(now).into_iter().fold(body, ErrorBody::after);
    Some(EnterError { body, close: Some(CloseCode::Maintenance) })
}

async fn admit(
    gate: &Gate,
    login: &Login<'_>,
    ip: IpAddr,
    patience: &mut Patience,
) -> Result<Entered, EnterError> {
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
        Ok(_) if !patience.logs_in() => {
            let body = ErrorBody::new(ErrorCode::Overloaded, "too many logins wait for the store");
            Err(EnterError { body: body.after(RETRY_LOGIN_MS), close: Some(CloseCode::GoingAway) })
        }
        Ok(identity) => gate.sessions.login(identity.into(), device, status).await,
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
            let reason = body.reason.as_deref().unwrap_or(&body.message);
            let closing = Closing { retry_after_ms: body.retry_after_ms, ..close(code, reason) };
            Greeting::Close(error(encoding, reference, &body), closing)
        }
    }
}

/// Path, origin and subprotocol.
fn judge(gate: &Gate, request: &Upgraded) -> Result<Taken<Encoding>, Refusal> {
    if request.uri().path() != PATH {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "clients connect to /v1/connect"));
    }
    if request.uri().query().is_some_and(has_secret) {
        let why = "a token in an address is read by everybody on the way: say it in `login`";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, why));
    }
    let origin = request.headers().get("origin").map(|origin| origin.to_str().unwrap_or("?"));
    if !gate.origins.allows(origin) {
        let why = "this origin may not connect; see auth.origins_allowed";
        return Err(Refusal::new(StatusCode::FORBIDDEN, why));
    }
    let offered = request.headers().get_all(SUBPROTOCOL);
    let mut names =
        offered.iter().filter_map(|value| value.to_str().ok()).flat_map(|names| names.split(',')).peekable();
    if names.peek().is_none() {
        return Ok(Taken { subprotocol: None, known: Encoding::default() });
    }
    match names.find_map(|name| Encoding::of_subprotocol(name.trim())) {
        None => Err(Refusal::new(StatusCode::BAD_REQUEST, "speak hearth.v1.msgpack or hearth.v1.json")),
        Some(chosen) => Ok(Taken { subprotocol: Some(chosen.subprotocol()), known: chosen }),
    }
}

fn has_secret(query: &str) -> bool {
    let names = query.split(['&', ';']).filter_map(|pair| pair.split('=').next());
    names.into_iter().any(|name| SECRETS.iter().any(|secret| name.eq_ignore_ascii_case(secret)))
}

fn close(code: CloseCode, reason: &str) -> Closing {
    Closing { code: code.number(), reason: reason.into(), retry_after_ms: None }
}

/// Why nobody waits any longer: for this reason, or because the server goes away.
fn impatient(patience: &Patience, reason: &str) -> Closing {
    if patience.is_cut_short() {
        close(CloseCode::GoingAway, "the server is going away")
    } else {
        close(CloseCode::HandshakeTimeout, reason)
    }
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
