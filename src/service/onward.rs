//! A call that concerns somebody whose home is another node: carried there over the peer link, carried out there as if it
//! had come in there, and its answer brought back. Any node takes any call. The home judges the key itself and
//! writes the audit line; the call was counted where it came in; nothing is carried twice.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts as _, RawPathParams, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use protocol::ErrorCode;
use serde::{Deserialize, Serialize};
use tower::ServiceExt as _;

use super::others::Question;
use super::problem::Problem;
use super::traced::{TRACERESPONSE, fault_of, name_of, told_in};
use super::{BODY_BYTES_MAX, Service, route};
use crate::cluster::{CallError, Correspondent, Topic};
use crate::home::Whereabouts;
use crate::ids::{Owner, PlayerId, RoomName, SessionId, ShardId};
use crate::telemetry::traces::{self, Context, Kind, Span};

/// Longer than a call waits, by default, for a home that cannot answer and for the store together. One that is late may
/// have been done, and its caller is told so.
const DEADLINE: Duration = Duration::from_secs(6);
/// Largest answer that is carried.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// When a service may try again whose call could not be carried.
const RETRY_MS: u64 = 500;
/// The headers that say something to handlers, or to callers; others belong to the connection.
const CARRIED: [HeaderName; 11] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::RETRY_AFTER,
    header::LOCATION,
    header::CACHE_CONTROL,
    header::WWW_AUTHENTICATE,
    header::ALLOW,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static(TRACERESPONSE),
];

/// A call, between two nodes.
#[derive(Serialize, Deserialize)]
struct Call {
    method: String,
    uri: String,
    headers: Vec<(String, Bytes)>,
    body: Bytes,
}

/// Its answer.
#[derive(Serialize, Deserialize)]
struct Answer {
    status: u16,
    headers: Vec<(String, Bytes)>,
    body: Bytes,
}

/// Marks a call that another node has brought: it is not carried any further.
#[derive(Debug, Clone)]
pub(super) struct Brought;

/// What other nodes ask and tell.
pub struct Counter {
    service: Arc<Service>,
    router: Router,
}

impl Counter {
    /// Answers by the API itself.
    #[must_use]
    pub fn of(service: Arc<Service>) -> Arc<Self> {
        Arc::new(Self { router: super::router(Arc::clone(&service)), service })
    }
}

impl Correspondent for Counter {
    /// What operators have said of the cluster.
    fn letter(&self, from: &Owner, body: Bytes) {
        self.service.hear_maintenance(from, &body);
    }

    fn call(&self, _: Owner, body: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        let (service, router) = (Arc::clone(&self.service), self.router.clone());
        Box::pin(async move {
            if let Ok(question) = rmp_serde::from_slice::<Question>(&body) {
                return service.answer(question).await;
            }
            let request = request_of(rmp_serde::from_slice(&body).ok()?)?;
            let response = router.oneshot(request).await.ok()?;
            rmp_serde::to_vec(&answer_of(response).await?).ok().map(Bytes::from)
        })
    }

    fn up(&self, peer: &Owner) {
        self.service.tell_maintenance_to(peer);
    }

    fn down(&self, _: &Owner) {}
}

impl Service {
    /// Carries a call to its home; `Err` gives it back, to be carried out here.
    pub(super) async fn onward(
        &self,
        route: Option<&'static str>,
        request: Request,
    ) -> Result<Response, Request> {
        // A blob is nobody's to hold but the store's: any node does it, and nothing large goes over peer links.
        let is_anybodys = route == Some(route::BLOB);
        if is_anybodys || request.extensions().get::<Brought>().is_some() || !self.home.cluster().has_others()
        {
            return Err(request);
        }
        let (mut parts, body) = request.into_parts();
        let mut whole = None;
        let mut shard = self.shard_of_path(&mut parts).await;
        let mut body = Some(body);
        if shard.is_none() && route == Some(route::SESSIONS) && parts.method == Method::POST {
            let Ok(bytes) = to_bytes(body.take().unwrap_or_default(), BODY_BYTES_MAX).await else {
                let told = format!("a body has at most {BODY_BYTES_MAX} bytes");
                return Ok(Problem::new(ErrorCode::TooLarge, told).into_response());
            };
            shard = self.shard_of_body(&bytes);
            whole = Some(bytes);
        }
        let back = |parts, body: Option<Body>, whole: Option<Bytes>| {
            Request::from_parts(parts, whole.map_or_else(|| body.unwrap_or_default(), Body::from))
        };
        let Some(shard) = shard.filter(|shard| !self.home.is_home_of(*shard)) else {
            return Err(back(parts, body, whole));
        };
        let Whereabouts::At(member) = self.home.whereabouts(shard).await else {
            // Here in a moment, or nowhere: the handler waits, and says so.
            return Err(back(parts, body, whole));
        };
        if whole.is_none() {
            match to_bytes(body.take().unwrap_or_default(), BODY_BYTES_MAX).await {
                Ok(bytes) => whole = Some(bytes),
                Err(_) => {
                    let told = format!("a body has at most {BODY_BYTES_MAX} bytes");
                    return Ok(Problem::new(ErrorCode::TooLarge, told).into_response());
                }
            }
        }
        let call = Call {
            method: parts.method.to_string(),
            uri: parts.uri.to_string(),
            headers: carried(&parts.headers),
            body: whole.unwrap_or_default(),
        };
        let work = traces::begin_here();
        let answer = traces::during(work.as_ref(), self.carry(shard, &member.owner, &call)).await;
        if let Some(work) = work {
            // What that node keeps of the call hangs on this.
            if told_in(answer.headers()).is_some_and(Context::is_sampled) {
                work.keep();
            }
            let method = name_of(&parts.method);
            let span = || {
                Span::new(Kind::Client, format!("{method} {}", route.unwrap_or_default()))
                    .with("http.request.method", method)
                    .with_some("url.template", route)
                    .with("http.response.status_code", answer.status().as_u16())
                    .with("hearth.peer", member.owner.node().to_owned())
                    .with("hearth.shard", shard.number())
            };
            work.end(fault_of(&answer).map(Into::into), span);
        }
        Ok(answer)
    }

    async fn carry(&self, shard: ShardId, first: &Owner, call: &Call) -> Response {
        let Ok(body) = rmp_serde::to_vec(call).map(Bytes::from) else {
            return Problem::new(ErrorCode::Internal, "the call cannot be carried").into_response();
        };
        let answer = match self.peers.call(first, Topic::Service, body, DEADLINE).await {
            Ok(answer) => rmp_serde::from_slice::<Answer>(&answer).ok().and_then(response_of),
            Err(error) => {
                tracing::debug!(operation = "service", shard = shard.number(), to = %first, status = %error);
                self.home.forget_whereabouts(shard).await;
                // What was never asked can be asked again by the caller; what was asked may have been done.
                let told = match error {
                    CallError::NoLink | CallError::Overloaded => {
                        "the player's home cannot be reached from here"
                    }
                    CallError::NoAnswer | CallError::Refused => {
                        "the player's home did not answer: it may have been done"
                    }
                };
                let body = protocol::reply::ErrorBody::new(ErrorCode::NotHome, told).after(RETRY_MS);
                return Problem::from(body).into_response();
            }
        };
        answer.unwrap_or_else(|| {
            Problem::new(ErrorCode::Internal, "the home's answer cannot be read").into_response()
        })
    }

    /// Whom the path names: her shard, the session's, or the room's.
    async fn shard_of_path(&self, parts: &mut axum::http::request::Parts) -> Option<ShardId> {
        let named = RawPathParams::from_request_parts(parts, &()).await.ok()?;
        let value = |name: &str| named.iter().find_map(|(key, value)| (key == name).then_some(value));
        let placement = self.home.placement();
        if let Some(player) = value("player") {
            return PlayerId::parse(player).ok().map(|player| placement.shard_of(&player));
        }
        if let Some(session) = value("session") {
            return SessionId::parse(session).ok().map(|session| session.shard());
        }
        RoomName::parse(value("room")?).ok().map(|room| placement.shard_of_room(&room))
    }

    /// Whom the body of a new session names.
    fn shard_of_body(&self, body: &[u8]) -> Option<ShardId> {
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            player: std::borrow::Cow<'a, str>,
        }
        let named: Named<'_> = serde_json::from_slice(body).ok()?;
        PlayerId::parse(&named.player).ok().map(|player| self.home.placement().shard_of(&player))
    }
}

fn carried(headers: &axum::http::HeaderMap) -> Vec<(String, Bytes)> {
    let known = headers.iter().filter(|(name, _)| CARRIED.contains(name));
    known.map(|(name, value)| (name.to_string(), Bytes::copy_from_slice(value.as_bytes()))).collect()
}

fn request_of(call: Call) -> Option<Request> {
    let mut request = Request::builder()
        .method(Method::from_bytes(call.method.as_bytes()).ok()?)
        .uri(call.uri.parse::<Uri>().ok()?)
        .extension(Brought)
        .body(Body::from(call.body))
        .ok()?;
    for (name, value) in call.headers {
        let (name, value) = (name.parse::<HeaderName>().ok()?, HeaderValue::from_maybe_shared(value).ok()?);
        request.headers_mut().append(name, value);
    }
    Some(request)
}

async fn answer_of(response: Response) -> Option<Answer> {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, ANSWER_BYTES_MAX).await.ok()?;
    Some(Answer { status: parts.status.as_u16(), headers: carried(&parts.headers), body })
}

fn response_of(answer: Answer) -> Option<Response> {
    let status = StatusCode::from_u16(answer.status).ok()?;
    let code = status.is_server_error().then(|| code_of(&answer.body)).flatten();
    let mut response = Response::builder().status(status).body(Body::from(answer.body)).ok()?;
    if let Some(code) = code {
        response.extensions_mut().insert(code);
    }
    for (name, value) in answer.headers {
        let (name, value) = (name.parse::<HeaderName>().ok()?, HeaderValue::from_maybe_shared(value).ok()?);
        response.headers_mut().append(name, value);
    }
    Some(response)
}

/// The code of a refusal.
fn code_of(body: &[u8]) -> Option<ErrorCode> {
    #[derive(Deserialize)]
    struct Refused {
        code: ErrorCode,
    }
    serde_json::from_slice::<Refused>(body).ok().map(|refused| refused.code)
}
