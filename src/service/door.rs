//! What every call passes: the process is well, the key is good and not too fast, its scope opens the call; and
//! afterwards it is counted, and a change is written down. Called by the router alone. The only place that reads
//! `Authorization`.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::{Counter, Histogram};
use protocol::ErrorCode;

use super::audit::{Line, Passage};
use super::keys::{Identity, Scope};
use super::onward::Brought;
use super::problem::Problem;
use super::traced::{Traced, fault_of};
use super::{Condition, Service, route};
use crate::clock;
use crate::ids::{PlayerId, SessionId};
use crate::limits::RateLimited;
use crate::telemetry::metrics as table;

/// Wrong keys share one limit under this name, which no key can have: guessing is slow, and hurts nobody else.
const WRONG_KEYS: &str = "\0wrong";

/// The middleware.
pub(super) async fn enter(State(service): State<Arc<Service>>, mut request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let known = matched.and_then(|matched| route::ALL.iter().copied().find(|known| *known == matched));
    let began = Instant::now();
    if is_open(known, request.uri().path()) {
        // Probes, scrapes and pages: nobody has said who calls, and nothing of it goes further than this node.
        let response = next.run(request).await;
        // A probe that says no has not failed.
        let is_probe = matches!(known, Some(route::HEALTHZ | route::READYZ));
        let has_failed = !is_probe && fault_of(&response).is_some();
        service.tell(known, (response.status(), has_failed), began.elapsed());
        return response;
    }
    let caller = service.caller(request.headers());
    let traced = Traced::begin(known, &mut request, caller.is_ok());
    // In a box, since what a trace wraps around it would hold it more than once, for as long as a call waits.
    let answering = Box::pin(async {
        let response = answer(&service, caller, known, request, next).await;
        let has_failed = fault_of(&response).is_some();
        service.tell(known, (response.status(), has_failed), began.elapsed());
        response
    });
    traced.answer(answering).await
}

/// Whether a path is open to all. What is not known needs a key as well, so that no new path of `/v1` is open by accident.
fn is_open(route: Option<&str>, path: &str) -> bool {
    route.map_or(!path.starts_with("/v1"), |route| route::OPEN.contains(&route))
}

async fn answer(
    service: &Arc<Service>,
    caller: Result<Arc<Identity>, Problem>,
    known: Option<&'static str>,
    request: Request,
    next: Next,
) -> Response {
    // The node at which it came in has counted it.
    let is_counted = request.extensions().get::<Brought>().is_some();
    match service.admit(caller, is_counted).await {
        Ok(identity) => service.carry_out(identity, known, request, next).await,
        Err(problem) => problem.into_response(),
    }
}

impl Service {
    /// Counts a call by its status, and whether it failed by our fault, and tells those who look closer.
    fn tell(&self, known: Option<&'static str>, (status, has_failed): (StatusCode, bool), took: Duration) {
        self.meters.count(known, (status, has_failed), took);
        tracing::debug!(
            operation = "service",
            route = known.unwrap_or("other"),
            status = status.as_u16(),
            duration_ms = took.as_secs_f64() * 1_000.0,
            "a call"
        );
    }

    /// Carries a call out here, or at its home.
    async fn carry_out(
        &self,
        identity: Arc<Identity>,
        known: Option<&'static str>,
        request: Request,
        next: Next,
    ) -> Response {
        let request = match self.onward(known, request).await {
            Ok(answered) => return answered,
            Err(request) => request,
        };
        let (mut parts, body) = request.into_parts();
        let passage = Arc::new(Passage::new(identity, known, &mut parts).await);
        let mut request = Request::from_parts(parts, body);
        // A change is written down however the call ends, also when its caller has gone.
        let line = known.and_then(|route| Line::begin(route, &request, &passage));
        request.extensions_mut().insert(passage);
        let response = next.run(request).await;
        if let Some(line) = line {
            line.end(&response);
        }
        response
    }

    /// Who makes a call, by its key alone.
    fn caller(&self, headers: &HeaderMap) -> Result<Arc<Identity>, Problem> {
        if (self.condition)() == Condition::Failed {
            return Err(Problem::new(ErrorCode::Internal, "a vital part of this node has failed"));
        }
        self.identify(headers)
    }

    /// Whether a call may go on.
    async fn admit(
        &self,
        caller: Result<Arc<Identity>, Problem>,
        is_counted: bool,
    ) -> Result<Arc<Identity>, Problem> {
        let identity = caller?;
        if !is_counted {
            self.count(identity.name(), 1).await?;
        }
        Ok(identity)
    }

    fn identify(&self, headers: &HeaderMap) -> Result<Arc<Identity>, Problem> {
        let detail = if self.settings.keys.is_empty() {
            "this server has no service key: set HEARTH_SERVICE_KEY"
        } else {
            match bearer(headers) {
                None => "send Authorization: Bearer <service key or JWT>",
                Some(presented) => match self.settings.keys.find(presented, clock::now()) {
                    Some(identity) => return Ok(identity),
                    None => "the service key is not good",
                },
            }
        };
        // Whatever the others have been asked: guessing costs the store nothing.
        self.pace_alone(WRONG_KEYS, 1).map_err(|limited| self.limited(limited))?;
        Err(Problem::new(ErrorCode::Unauthorized, detail))
    }

    /// Whether the key that a call came with is still good, and opens this scope: for answers that have no end.
    pub(super) fn still_opens(&self, headers: &HeaderMap, scope: Scope) -> bool {
        let identity = bearer(headers).and_then(|presented| self.settings.keys.find(presented, clock::now()));
        identity.is_some_and(|identity| identity.opens(scope))
    }

    /// Counts a call that costs as much as so many.
    pub(super) async fn count(&self, key_id: &str, requests: usize) -> Result<(), Problem> {
        self.pace(key_id, requests).await.map_err(|limited| self.limited(limited))
    }

    fn limited(&self, limited: RateLimited) -> Problem {
        self.meters.rate_limited();
        limited.into()
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
}

/// Who calls, with a key that opens the scope: asking for it in a handler's arguments is the check.
pub(super) struct Caller<const SCOPE: u8>(Arc<Passage>);

/// May look.
pub(super) type Reader = Caller<{ Scope::Read as u8 }>;
/// May push messages.
pub(super) type Pusher = Caller<{ Scope::Push as u8 }>;
/// May change sessions and states.
pub(super) type Writer = Caller<{ Scope::Write as u8 }>;
/// May cut players off.
pub(super) type Admin = Caller<{ Scope::Admin as u8 }>;

impl<const SCOPE: u8> Caller<SCOPE> {
    /// The service's name.
    pub(super) fn name(&self) -> &str {
        self.0.identity().name()
    }

    /// Says whom the audit line of this call is to name, where the path does not. The line itself is the door's.
    pub(super) fn concerns(&self, player: &PlayerId, session: Option<SessionId>) {
        self.0.concerns(player, session);
    }

    /// The same of a call that concerns many.
    pub(super) fn concerns_all<'a>(&self, players: impl ExactSizeIterator<Item = &'a PlayerId>) {
        self.0.concerns_all(players);
    }

    /// Says what the audit line is to call it, where the path does not.
    pub(super) fn is_for(&self, operation: &'static str) {
        self.0.is_for(operation);
    }

    /// Says what is asked for, where neither the path nor the operation does.
    pub(super) fn says(&self, asked: String) {
        self.0.says(asked);
    }
}

impl<const SCOPE: u8> FromRequestParts<Arc<Service>> for Caller<SCOPE> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Service>) -> Result<Self, Problem> {
        let passage = parts.extensions.get::<Arc<Passage>>();
        let passage =
            passage.ok_or_else(|| Problem::new(ErrorCode::Unauthorized, "the door was not passed"))?;
        let scope = Scope::ALL.iter().find(|scope| **scope as u8 == SCOPE);
        match scope {
            Some(scope) if passage.identity().opens(*scope) => Ok(Self(Arc::clone(passage))),
            scope => {
                let name = scope.map_or("another", |scope| scope.name());
                Err(Problem::new(
                    ErrorCode::Forbidden,
                    format!("this call needs a key with the scope {name}"),
                ))
            }
        }
    }
}

/// The statuses that this API answers with.
const STATUSES: &[&str] = &[
    "200", "201", "204", "304", "307", "400", "401", "403", "404", "405", "408", "409", "412", "413", "415",
    "429", "500", "501", "503",
];

struct Handles {
    requests: table::Family<Counter>,
    failures: Counter,
    seconds: Histogram,
}

/// What is counted of calls, by route. Handles are made when a route is first called, so that a node whose services
/// use three calls does not show hundreds of zeros.
pub(super) struct Meters {
    routes: Vec<(&'static str, OnceLock<Handles>)>,
    other: OnceLock<Handles>,
    rate_limited: OnceLock<Counter>,
}

impl Meters {
    pub(super) fn of(routes: &[&'static str]) -> Self {
        let routes = routes.iter().map(|route| (*route, OnceLock::new())).collect();
        Self { routes, other: OnceLock::new(), rate_limited: OnceLock::new() }
    }

    fn count(&self, route: Option<&str>, (status, has_failed): (StatusCode, bool), took: Duration) {
        let known = self.routes.iter().find(|(known, _)| Some(*known) == route);
        let (name, handles) = known.map_or(("other", &self.other), |(name, handles)| (*name, handles));
        let handles = handles.get_or_init(|| Handles {
            requests: table::SERVICE_REQUESTS.by("status", STATUSES, &[("route", name)]),
            failures: table::SERVICE_FAILURES.with(&[("route", name)]),
            seconds: table::SERVICE_REQUEST_SECONDS.with(&[("route", name)]),
        });
        handles.requests.of(status.as_str()).increment(1);
        handles.failures.increment(has_failed.into());
        handles.seconds.record(took.as_secs_f64());
    }

    fn rate_limited(&self) {
        self.rate_limited.get_or_init(|| table::RATE_LIMITED.with(&[("kind", "service")])).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::watch::Totals;

    #[test]
    fn what_is_refused_on_purpose_is_no_failure_to_the_watch() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let problem = |code| Problem::new(code, "no").into_response();
        let failed = |response: &Response| {
            let before = Totals::read(&recorder.handle().render()).failed;
            let told = (response.status(), fault_of(response).is_some());
            metrics::with_local_recorder(&recorder, || {
                Meters::of(route::ALL).count(Some(route::SESSIONS), told, Duration::ZERO);
            });
            Totals::read(&recorder.handle().render()).failed - before
        };
        assert_eq!(failed(&problem(ErrorCode::Maintenance)), 0);
        assert_eq!(failed(&StatusCode::NOT_IMPLEMENTED.into_response()), 0);
        assert_eq!(failed(&problem(ErrorCode::NotFound)), 0);
        for code in [ErrorCode::StoreUnavailable, ErrorCode::NotHome, ErrorCode::Internal] {
            assert_eq!(failed(&problem(code)), 1, "{}", code.name());
        }
        assert_eq!(Totals::read(&recorder.handle().render()).service_calls, 6);
    }

    #[test]
    fn a_bearer_is_read_and_nothing_else() {
        let of = |value: &str| {
            let headers: HeaderMap = [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect();
            bearer(&headers).map(|key| String::from_utf8(key.to_vec()).unwrap())
        };
        assert_eq!(of("Bearer s3cret").as_deref(), Some("s3cret"));
        assert_eq!(of("bearer  s3cret ").as_deref(), Some("s3cret"));
        for wrong in ["s3cret", "Basic s3cret", "Bearer", ""] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
