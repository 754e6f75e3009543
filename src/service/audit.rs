//! Who changed what, one line a change: a log event of the target `audit`. `door` begins a line for every call that may
//! change something, so that no call can forget it: its path says what was asked and whom it concerns, also when it is
//! refused, and a call whose body says more tells that. A renewal of a lock changes nothing while it goes well, and leaves
//! no line. Never a payload, a key or a ticket.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts as _, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use parking_lot::Mutex;

use super::keys::Identity;
use super::route;
use crate::ids::{PlayerId, SessionId};
use crate::telemetry::traces::TraceId;

/// Most bytes of a path that a line repeats.
const PATH_BYTES_MAX: usize = 256;
/// Of a call that concerns many players a line names so many, and says how many there are.
const PLAYERS_NAMED_MAX: usize = 8;

/// Marks the refusal of a call whose change is in force all the same: the store does not have it yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct InForce;

/// A call that passed the door, and what it says of itself.
pub(super) struct Passage {
    identity: Arc<Identity>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    operation: Option<&'static str>,
    asked: Option<String>,
    player: Option<PlayerId>,
    session: Option<SessionId>,
    /// How many players, and the first of them.
    players: Option<(usize, Vec<PlayerId>)>,
}

impl Told {
    /// What the path alone says.
    async fn by(route: Option<&'static str>, parts: &mut Parts) -> Self {
        let named = RawPathParams::from_request_parts(parts, &()).await.ok();
        let value = |name| named.iter().flatten().find_map(|(key, value)| (key == name).then_some(value));
        Self {
            operation: route.and_then(|route| operation(route, &parts.method)),
            asked: None,
            player: value("player").and_then(|player| PlayerId::parse(player).ok()),
            session: value("session").and_then(|session| SessionId::parse(session).ok()),
            players: None,
        }
    }
}

/// What a call is called in the log.
fn operation(route: &str, method: &Method) -> Option<&'static str> {
    Some(match (route, method.as_str()) {
        (route::SESSIONS, "POST") => "session.open",
        (route::SESSION, "DELETE") => "session.logout",
        (route::PLAYER, "DELETE") => "erase",
        (route::STATE, "PATCH") => "state.patch",
        (route::MESSAGES, "POST") => "message",
        (route::KICK, "POST") => "kick",
        (route::BAN, "PUT") => "ban",
        (route::BAN, "DELETE") => "ban.lift",
        (route::WATCHES, "PUT") => "watches",
        (route::BLOB, "PUT") => "blob.put",
        (route::BLOB, "DELETE") => "blob.remove",
        (route::ROOM_MEMBER, "PUT") => "room.put",
        (route::ROOM_MEMBER, "DELETE") => "room.take",
        (route::ROOM_MESSAGES, "POST") => "room.message",
        (route::BROADCAST, "POST") => "message.many",
        (route::LOCK, "POST") => "lock",
        (route::LOCK, "PUT") => "lock.renew",
        (route::LOCK, "DELETE") => "lock.release",
        (route::COUNTER, "POST") => "counter",
        (route::MAINTENANCE, "POST") => "maintenance.begin",
        (route::MAINTENANCE, "DELETE") => "maintenance.end",
        (route::LOG, "PUT") => "log.level",
        _ => return None,
    })
}

impl Passage {
    pub(super) async fn new(identity: Arc<Identity>, route: Option<&'static str>, parts: &mut Parts) -> Self {
        Self { identity, told: Mutex::new(Told::by(route, parts).await) }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whom it concerns, where the path does not say so.
    pub(super) fn concerns(&self, player: &PlayerId, session: Option<SessionId>) {
        let mut told = self.told.lock();
        told.player = Some(player.clone());
        told.session = session.or(told.session);
    }

    /// Whom it concerns, where they are many.
    pub(super) fn concerns_all<'a>(&self, players: impl ExactSizeIterator<Item = &'a PlayerId>) {
        let all = players.len();
        self.told.lock().players = Some((all, players.take(PLAYERS_NAMED_MAX).cloned().collect()));
    }

    /// What is done, where the path does not say so.
    pub(super) fn is_for(&self, operation: &'static str) {
        self.told.lock().operation = Some(operation);
    }

    /// What is asked for, where neither the path nor the operation says it.
    pub(super) fn says(&self, asked: String) {
        self.told.lock().asked = Some(asked);
    }
}

/// The line of one call, written when the call has ended or was given up.
pub(super) struct Line {
    passage: Arc<Passage>,
    route: &'static str,
    method: Method,
    path: Box<str>,
    trace: Option<TraceId>,
    began: Instant,
    status: Option<StatusCode>,
    is_in_force: bool,
}

impl Line {
    /// A line, if the call may change something.
    pub(super) fn begin(route: &'static str, request: &Request, passage: &Arc<Passage>) -> Option<Self> {
        let looks = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if looks || route == route::QUERY {
            return None;
        }
        Some(Self {
            passage: Arc::clone(passage),
            route,
            method: request.method().clone(),
            path: request.uri().path().chars().take(PATH_BYTES_MAX).collect(),
            trace: request.extensions().get().copied(),
            began: Instant::now(),
            status: None,
            is_in_force: false,
        })
    }

    /// Writes it, with what was answered.
    pub(super) fn end(mut self, answer: &Response) {
        self.status = Some(answer.status());
        self.is_in_force = answer.extensions().get::<InForce>().is_some();
    }
}

impl Line {
    /// Whether it says nothing that a line before does not: a holder who goes on as she did, some times a minute. That she
    /// took the lock, gave it back, or had lost it, is written.
    fn is_idle(&self) -> bool {
        let goes_on = self.route == route::LOCK && self.method == Method::PUT;
        goes_on && self.status.is_some_and(|status| status.is_success())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.is_idle() {
            return;
        }
        let told = std::mem::take(&mut *self.passage.told.lock());
        let status = match self.status {
            // Whoever asked has gone; what was done is done.
            None => "abandoned",
            Some(status) if status.is_success() => "ok",
            // Done, and refused only in that the store does not have it: a crash would take it back.
            Some(_) if self.is_in_force => "applied",
            Some(status) if status.is_client_error() => "refused",
            Some(_) => "failed",
        };
        let (players, first) = told.players.unzip();
        tracing::info!(
            target: "audit",
            operation = told.operation.unwrap_or("none"),
            asked = told.asked,
            key = self.passage.identity.name(),
            via = self.passage.identity.via().name(),
            player = told.player.as_ref().map(tracing::field::display),
            session = told.session.map(tracing::field::display),
            players,
            players_first = first.as_deref().map(names),
            method = self.method.as_str(),
            route = self.route,
            path = &*self.path,
            status,
            code = self.status.map(|status| status.as_u16()),
            applied = self.is_in_force.then_some(true),
            duration_ms = self.began.elapsed().as_secs_f64() * 1_000.0,
            trace_id = self.trace.map(tracing::field::display),
            "audit: a call of a service"
        );
    }
}

/// Players as one text.
fn names(players: &[PlayerId]) -> String {
    players.iter().map(PlayerId::as_str).collect::<Vec<_>>().join(",")
}
