//! Who changed what, one line a change: a log event of the target `audit`. `door` begins a line for every call that may
//! change something, so that no call can forget it, and the call says whom it concerns. Never a payload, a key or a
//! ticket.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;

use super::keys::Identity;
use super::route;
use crate::ids::{PlayerId, SessionId};

/// Most bytes of a path that a line repeats.
const PATH_BYTES_MAX: usize = 256;

/// A call that passed the door, and what it says of itself.
pub(super) struct Passage {
    identity: Arc<Identity>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    operation: Option<&'static str>,
    player: Option<PlayerId>,
    session: Option<SessionId>,
}

impl Passage {
    pub(super) fn new(identity: Arc<Identity>) -> Self {
        Self { identity, told: Mutex::default() }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What was done, and to whom.
    pub(super) fn tell(&self, operation: &'static str, player: Option<PlayerId>, session: Option<SessionId>) {
        *self.told.lock() = Told { operation: Some(operation), player, session };
    }
}

/// The line of one call, written when the call has ended or was given up.
pub(super) struct Line {
    passage: Arc<Passage>,
    route: &'static str,
    method: Method,
    path: Box<str>,
    trace_id: Option<Box<str>>,
    began: Instant,
    status: Option<StatusCode>,
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
            trace_id: trace_id(request.headers()).map(Into::into),
            began: Instant::now(),
            status: None,
        })
    }

    /// Writes it.
    pub(super) fn end(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let told = std::mem::take(&mut *self.passage.told.lock());
        let status = match self.status {
            // Whoever asked has gone; what was done is done.
            None => "abandoned",
            Some(status) if status.is_success() => "ok",
            Some(status) if status.is_client_error() => "refused",
            Some(_) => "failed",
        };
        tracing::info!(
            target: "audit",
            operation = told.operation.unwrap_or("none"),
            key = self.passage.identity.name(),
            via = self.passage.identity.via().name(),
            player = told.player.as_ref().map(tracing::field::display),
            session = told.session.map(tracing::field::display),
            method = self.method.as_str(),
            route = self.route,
            path = &*self.path,
            status,
            code = self.status.map(|status| status.as_u16()),
            duration_ms = self.began.elapsed().as_secs_f64() * 1_000.0,
            trace_id = self.trace_id.as_deref(),
            "audit: a call of a service"
        );
    }
}

/// The trace that the caller's call belongs to (W3C Trace Context).
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let (_, id) = (parts.next()?, parts.next()?);
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_from_the_caller() {
        let of = |value: &str| {
            let headers: HeaderMap =
                [("traceparent".parse().unwrap(), value.parse().unwrap())].into_iter().collect();
            trace_id(&headers).map(str::to_owned)
        };
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(of(&format!("00-{id}-00f067aa0ba902b7-01")).as_deref(), Some(id));
        for wrong in ["", "00", "00-xyz-1-1", &format!("00-{}-1-1", "g".repeat(32))] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
