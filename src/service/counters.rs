//! `POST /v1/counters/{name}`: a number that services change together, within bounds that each call names. Any node does
//! it: the store alone holds it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use protocol::ErrorCode;
use protocol::calls::{Change as Asked, Counter as CounterView};
use protocol::reply::ErrorBody;

use super::Service;
use super::body::{JsonBody, PathKey};
use super::door::Writer;
use super::messages::checked_key;
use super::problem::Problem;
use super::repeats::message_id;
use crate::clock::millis;
use crate::home::{Bound, Counted, CounterRequest};

/// The longest life of a counter: a year.
const TTL_MS_MAX: u64 = 365 * 24 * 60 * 60 * 1_000;

/// `POST /v1/counters/{name}`
pub(super) async fn count(
    State(service): State<Arc<Service>>,
    caller: Writer,
    PathKey(name): PathKey,
    JsonBody(body): JsonBody,
) -> Result<Json<CounterView>, Problem> {
    let asked: Asked<'_> = body.read()?;
    let ttl = match asked.ttl_ms {
        None => None,
        Some(ttl_ms @ 1..=TTL_MS_MAX) => Some(Duration::from_millis(ttl_ms)),
        Some(_) => return Err(Problem::bad_request("ttl_ms: from 1 to 31536000000, a year")),
    };
    if let (Some(min), Some(max)) = (asked.min, asked.max)
        && min > max
    {
        return Err(Problem::bad_request("min: must not be above max"));
    }
    let key = checked_key(asked.idempotency_key.as_ref())?;
    // A service's own, as of its messages: two services that count under the same key count twice.
    let once = key.map(|key| message_id(caller.name(), name.as_str(), key));
    let request = CounterRequest { name, by: asked.by, min: asked.min, max: asked.max, ttl, once };
    match service.home.count(request).await? {
        Counted::At { value, expires_in } => {
            Ok(Json(CounterView { value, expires_in_ms: expires_in.map(millis) }))
        }
        Counted::Refused { value, bound, expires_in } => Err(refused(value, bound, expires_in)),
    }
}

fn refused(value: i64, bound: Bound, expires_in: Option<Duration>) -> Problem {
    let why = match bound {
        Bound::Max => "it would rise above max",
        Bound::Min => "it would fall below min",
        Bound::Bits => "it would leave what 64 bits hold",
    };
    let body = ErrorBody::new(ErrorCode::OutOfBounds, format!("the counter stays at {value}: {why}"));
    let body = expires_in.map(millis).into_iter().fold(body, ErrorBody::after);
    Problem::from(body).with_value(value)
}
