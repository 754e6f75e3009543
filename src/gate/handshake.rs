//! One connection from its first byte to its session, under one deadline: upgrade, then frames until a login or a
//! resume succeeds. Called by `listener`; hands the socket and the attachment to `session`. One of the doors where
//! wire types stop.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use protocol::reply::{ErrorBody, Pong, Redirect};
use protocol::request::{Login, Op, Resume};
use protocol::{CloseCode, Encoding, ErrorCode, Request, decode_request, limits};
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::tungstenite::handshake::server::Request as Upgraded;
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::arrival::Arrival;
use super::auth::AuthError;
use super::crowd::Patience;
use super::listener::Gate;
use super::relay::{Relay, Way};
use super::routing;
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

/// A connection that came to something: a link here, or the way to one elsewhere.
pub(super) enum Greeted<S> {
    Link(Box<Link<S>>),
    Relay(Relay<S>),
}

impl<S: LinkSocket> Greeted<S> {
    /// Gives it a task of its own.
    pub(super) fn spawn(self, gate: &Arc<Gate>, ip: IpAddr, place: OwnedSemaphorePermit) {
        match self {
            Self::Link(link) => {
                let ended = Arc::clone(gate);
                // Not an async block, which would hold the link twice.
                gate.links.spawn("link", link.run(place).map(move |code| ended.has_closed(code, ip)));
            }
            Self::Relay(relay) => gate.links.spawn("relay", relay.run(place)),
        }
    }
}

/// Where a connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// The client port.
    Clients,
    /// The peer port: another node brings her, so she is not carried any further.
    Peers,
}

/// Upgrades and greets; `None` when the connection came to nothing.
pub(super) async fn shake<S: LinkSocket>(
    gate: &Arc<Gate>,
    stream: S,
    ip: IpAddr,
    patience: &mut Patience,
) -> Option<Greeted<S>> {
    let judge = |request: &Upgraded| judge(gate, request);
    let reason = match upgrade(stream, &gate.upgrade, patience.over(), judge).await {
        Ok((ws, encoding)) => return greeted(gate, Door::Clients, (ws, encoding), ip, patience).await,
        Err(NotUpgraded::Gone) => "gone",
        Err(NotUpgraded::TimedOut) => "timeout",
        Err(NotUpgraded::Refused(stream, refusal)) => {
            patience.leaves(refusal.answer(stream)).await;
            if refusal.is_timeout() { "timeout" } else { "upgrade" }
        }
    };
    gate.comes_to_nothing(reason, ip);
    None
}

/// Greets whoever speaks WebSocket; `None` when the connection came to nothing.
pub(super) async fn greeted<S: LinkSocket>(
    gate: &Arc<Gate>,
    door: Door,
    client: (ClientSocket<S>, Encoding),
    ip: IpAddr,
    patience: &mut Patience,
) -> Option<Greeted<S>> {
    match enters(gate, door, client, ip, patience).await {
        Ok(greeted) => Some(greeted),
        Err(reason) => {
            gate.comes_to_nothing(reason, ip);
            None
        }
    }
}

async fn enters<S: LinkSocket>(
    gate: &Arc<Gate>,
    door: Door,
    (mut ws, encoding): (ClientSocket<S>, Encoding),
    ip: IpAddr,
    patience: &mut Patience,
) -> Result<Greeted<S>, Reason> {
    for _ in 0..FRAMES_BEFORE_READY_MAX {
        let frame = frame(gate, &mut ws, (encoding, ip), patience).await?;
        match greet(gate, door, encoding, &frame, ip, patience).await {
            Greeting::Nothing => {}
            Greeting::Entered(reference, entered) => {
                ws.get_mut().set_exact(false);
                let sessions = Arc::clone(&gate.sessions);
                return Ok(Greeted::Link(Box::new(Link::new(sessions, ws, encoding, *entered, reference))));
            }
            Greeting::Onward(way) => {
                let relay = way.take(ws, &frame, encoding, gate.links.clone()).await;
                return relay.map(Greeted::Relay).ok_or("gone");
            }
            Greeting::Say(frame) => {
                if !patience.comes_back().await {
                    let closing = impatient(patience, "no place for another try");
                    patience.leaves(last_words(gate, &mut ws, (encoding, ip), frame, closing)).await;
                    return Err("timeout");
                }
                if !matches!(patience.within(ws.send(frame)).await, Some(Ok(()))) {
                    return Err("gone");
                }
            }
            Greeting::Close(frame, closing) => {
                patience.leaves(last_words(gate, &mut ws, (encoding, ip), frame, closing)).await;
                return Err("refused");
            }
        }
    }
    let closing = close(CloseCode::ProtocolError, "too many frames before a login");
    patience.leaves(send_away(gate, &mut ws, (encoding, ip), closing)).await;
    Err("frames")
}

/// An answer, and why it is the last one.
async fn last_words<S: LinkSocket>(
    gate: &Gate,
    ws: &mut ClientSocket<S>,
    client: (Encoding, IpAddr),
    answer: Message,
    closing: Closing,
) {
    let _ = tokio::time::timeout(GOODBYE, ws.feed(answer)).await;
    send_away(gate, ws, client, closing).await;
}

/// A close like any other: counted, and said.
async fn send_away<S: LinkSocket>(
    gate: &Gate,
    ws: &mut ClientSocket<S>,
    (encoding, ip): (Encoding, IpAddr),
    closing: Closing,
) {
    gate.sessions.count_close(closing.code);
    gate.has_closed(closing.code, ip);
    goodbye(ws, encoding, closing).await;
}

/// The next frame, while there is patience; whoever sends none is told why that was the end.
async fn frame<S: LinkSocket>(
    gate: &Gate,
    ws: &mut ClientSocket<S>,
    client: (Encoding, IpAddr),
    patience: &mut Patience,
) -> Result<Message, Reason> {
    let (closing, reason) = match patience.within(ws.next()).await {
        Some(Some(Ok(frame))) => return Ok(frame),
        Some(Some(Err(error))) => (closing_for(&error), "frame"),
        Some(None) => (None, "gone"),
        None => (Some(impatient(patience, "no login in time")), "timeout"),
    };
    if let Some(closing) = closing {
        patience.leaves(send_away(gate, ws, client, closing)).await;
    }
    Err(reason)
}

/// What a frame before `ready` comes to.
enum Greeting {
    Nothing,
    Entered(u32, Box<Entered>),
    Onward(Way),
    Say(Message),
    Close(Message, Closing),
}

async fn greet(
    gate: &Gate,
    door: Door,
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
            let asks = Asks { reference, encoding, door, ip, relay: login.relay == Some(true) };
            let arrival = Arrival::begin("login");
            let outcome = match closed(gate) {
                None => arrival.during(admit(gate, &login, &asks, patience)).await,
                Some(refused) => Err(NotIn::Refused(refused)),
            };
            arrival.end(&outcome);
            entered(&asks, outcome, &metrics::LOGINS)
        }
        Ok((reference, Request::Resume(resume))) => {
            let asks = Asks { reference, encoding, door, ip, relay: resume.relay == Some(true) };
            let arrival = Arrival::begin("resume");
            let outcome = match closed(gate) {
                None => {
                    patience.resumes();
                    arrival.during(come_back(gate, &resume, &asks)).await
                }
                Some(refused) => Err(NotIn::Refused(refused)),
            };
            arrival.end(&outcome);
            entered(&asks, outcome, &metrics::RESUMES)
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

/// Who asks to be let in, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asks {
    pub(super) reference: u32,
    pub(super) encoding: Encoding,
    pub(super) door: Door,
    pub(super) ip: IpAddr,
    /// She cannot follow a redirect.
    pub(super) relay: bool,
}

/// Why there is no session on this connection.
pub(super) enum NotIn {
    Refused(EnterError),
    /// Her home is elsewhere, and she is told where.
    Elsewhere(Redirect),
    /// Her home is elsewhere, and this is the way.
    Onward(Way),
}

impl From<EnterError> for NotIn {
    fn from(refused: EnterError) -> Self {
        Self::Refused(refused)
    }
}

async fn admit(
    gate: &Gate,
    login: &Login<'_>,
    asks: &Asks,
    patience: &mut Patience,
) -> Result<Entered, NotIn> {
    let now = clock::now();
    if let Err(limited) = gate.addresses.login(asks.ip, now) {
        gate.meters.logins_limited.increment(1);
        let body = ErrorBody::new(ErrorCode::RateLimited, "too many logins from this address");
        let body = body.after(limited.retry_after_ms.into());
        return Err(EnterError { body, close: Some(CloseCode::GoingAway) }.into());
    }
    let refuse = |code, message: &str, close| EnterError { body: ErrorBody::new(code, message), close };
    let device = login.device.as_ref().map_or("other", |device| device.as_str());
    if device.is_empty() || device.len() > limits::DEVICE_BYTES_MAX || device.chars().any(char::is_control) {
        return Err(refuse(ErrorCode::BadRequest, "a device has 1 to 16 bytes", None).into());
    }
    let status = match login.status.map(house_status) {
        None => Status::Online,
        Some(Some(status)) => status,
        Some(None) => return Err(refuse(ErrorCode::BadRequest, "only the server says offline", None).into()),
    };
    let identity = gate.auth.verify(login.token.as_str(), now).map_err(|error| match error {
        AuthError::Invalid => {
            refuse(ErrorCode::Unauthorized, "the token is not good", Some(CloseCode::BadToken))
        }
        AuthError::Expired => {
            refuse(ErrorCode::TokenExpired, "the token has expired", Some(CloseCode::TokenExpired))
        }
    })?;
    if !patience.logs_in() {
        let body = ErrorBody::new(ErrorCode::Overloaded, "too many logins wait for the store");
        let body = body.after(RETRY_LOGIN_MS);
        return Err(EnterError { body, close: Some(CloseCode::GoingAway) }.into());
    }
    routing::way(gate, gate.sessions.shard_of(&identity.player), asks).await?;
    Ok(gate.sessions.login(identity.into(), device, status).await?)
}

/// A resume, at the home of the shard that the session's id carries.
async fn come_back(gate: &Gate, resume: &Resume<'_>, asks: &Asks) -> Result<Entered, NotIn> {
    // Strangers make nobody look for a home: who shows no ticket of the cluster's is refused here.
    if let Some(shard) = gate.sessions.shard_of_ticket(resume.session.as_str(), resume.ticket.as_str()) {
        routing::way(gate, shard, asks).await?;
    }
    Ok(gate.sessions.resume(resume).await?)
}

/// What came of it, as metrics, logs and traces tell it.
pub(super) const fn outcome_of(outcome: &Result<Entered, NotIn>) -> &'static str {
    match outcome {
        Ok(_) => "ok",
        Err(NotIn::Refused(refused)) => refused.body.code.name(),
        Err(NotIn::Elsewhere(_)) => "redirect",
        Err(NotIn::Onward(_)) => "relay",
    }
}

fn entered(asks: &Asks, outcome: Result<Entered, NotIn>, counter: &metrics::CounterName) -> Greeting {
    let Asks { reference, encoding, .. } = *asks;
    counter.with(&[("outcome", outcome_of(&outcome))]).increment(1);
    match outcome {
        Ok(entered) => Greeting::Entered(reference, Box::new(entered)),
        Err(NotIn::Elsewhere(redirect)) => {
            let closing = close(CloseCode::Redirect, "the player's home is another node");
            Greeting::Close(message(encoding, Op::Redirect, reference, &redirect), closing)
        }
        Err(NotIn::Onward(way)) => Greeting::Onward(way),
        Err(NotIn::Refused(EnterError { body, close: None })) => {
            Greeting::Say(error(encoding, reference, &body))
        }
        Err(NotIn::Refused(EnterError { body, close: Some(code) })) => {
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
