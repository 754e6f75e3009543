//! `/v1/locks/{name}`: a lock for services, with a fencing token and an end. Any node gives it: the store alone holds it.
//! Whoever knows the secret of a lock is its holder; the store gets a digest of it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use protocol::ErrorCode;
use protocol::calls::{
    LockAcquired as LockView, LockAsk as Asked, LockRenewal as Renewing, LockRenewed as RenewedView,
};
use protocol::reply::ErrorBody;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::Service;
use super::body::{JsonBody, PathKey};
use super::door::Writer;
use super::lines::{Ask, Full, Waited};
use super::problem::Problem;
use crate::clock::millis;
use crate::home::{LockAcquired, LockOwner, LockRequest, StoreError};
use crate::wire::RETRY_AFTER_MS;

/// How long a lock lasts: long enough to be renewed in time, and not for ever.
const TTL_MS: (u64, u64) = (100, 3_600_000);
/// The longest wait: less than a connection may be silent.
const WAIT_MS_MAX: u64 = 60_000;
/// Carries the secret of whoever renews a lock or gives it back: a header, since not everything between a service and
/// this node lets the body of a DELETE through, and queries stand in logs.
const SECRET: &str = "lock-secret";

/// Locks that nobody heard of, on their way back to the store at a time.
pub(super) const RELEASES_MAX: usize = 1_024;
/// Between two tries to give one back.
const RELEASE_AGAIN: Duration = Duration::from_millis(500);

/// Who holds a lock: the secret that the answer carried.
pub(super) struct Holder(LockOwner);

impl FromRequestParts<Arc<Service>> for Holder {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Service>) -> Result<Self, Problem> {
        let secret = parts.headers.get(SECRET).and_then(|value| value.to_str().ok());
        let secret = secret.and_then(Secret::read);
        secret.map(|secret| Self(secret.owner())).ok_or_else(|| {
            Problem::bad_request("Lock-Secret: a header with the secret of the lock, 32 hex digits")
        })
    }
}

/// What only the holder of a lock knows.
struct Secret(u128);

impl Secret {
    fn read(text: &str) -> Option<Self> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self)
    }

    fn text(&self) -> String {
        format!("{:032x}", self.0)
    }

    /// What the store may know: nobody becomes a holder by reading there.
    fn owner(&self) -> LockOwner {
        let digest = Sha256::digest(self.0.to_be_bytes());
        let head = digest.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte));
        LockOwner::of(head)
    }
}

fn checked_ttl(ttl_ms: u64) -> Result<Duration, Problem> {
    let (least, most) = TTL_MS;
    if (least..=most).contains(&ttl_ms) {
        return Ok(Duration::from_millis(ttl_ms));
    }
    Err(Problem::bad_request(format!("ttl_ms: from {least} to {most}, an hour")))
}

/// `POST /v1/locks/{name}`
pub(super) async fn acquire(
    State(service): State<Arc<Service>>,
    _: Writer,
    PathKey(name): PathKey,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<LockView>), Problem> {
    let asked: Asked = body.read()?;
    let ttl = checked_ttl(asked.ttl_ms)?;
    if asked.wait_ms > WAIT_MS_MAX {
        return Err(Problem::bad_request(format!("wait_ms: at most {WAIT_MS_MAX}, a minute")));
    }
    let deadline = Instant::now() + Duration::from_millis(asked.wait_ms);
    let secret = Secret(rand::random());
    let request = LockRequest { name: name.clone(), owner: secret.owner(), ttl };
    let mut claim = Claim { service: &service, request, may_be_ours: false };
    let waited = if asked.wait_ms == 0 {
        match claim.ask().await? {
            LockAcquired::Acquired(token) => Waited::Acquired(token),
            LockAcquired::Held { remaining } => Waited::Held(remaining),
        }
    } else {
        let place = service.lines.enter(&name).map_err(|Full| too_many_wait())?;
        place.wait(deadline, &mut claim).await?
    };
    match waited {
        Waited::Acquired(token) => {
            claim.may_be_ours = false;
            let view = LockView { token: token.number(), secret: secret.text(), ttl_ms: asked.ttl_ms };
            Ok((StatusCode::CREATED, Json(view)))
        }
        Waited::Held(remaining) => {
            let body = ErrorBody::new(ErrorCode::LockHeld, "somebody else has the lock");
            Err(body.after(millis(remaining).max(1)).into())
        }
        Waited::Unknown => {
            let body =
                ErrorBody::new(ErrorCode::StoreUnavailable, "the store has not said whose the lock is");
            Err(body.after(RETRY_AFTER_MS).into())
        }
    }
}

/// `PUT /v1/locks/{name}`
pub(super) async fn renew(
    State(service): State<Arc<Service>>,
    _: Writer,
    PathKey(name): PathKey,
    Holder(owner): Holder,
    JsonBody(body): JsonBody,
) -> Result<Json<RenewedView>, Problem> {
    let renewing: Renewing = body.read()?;
    let ttl = checked_ttl(renewing.ttl_ms)?;
    let renewed = service.home.renew_lock(LockRequest { name, owner, ttl }).await?;
    let token = renewed.ok_or_else(lost)?.number();
    Ok(Json(RenewedView { token, ttl_ms: renewing.ttl_ms }))
}

/// `DELETE /v1/locks/{name}`
pub(super) async fn release(
    State(service): State<Arc<Service>>,
    _: Writer,
    PathKey(name): PathKey,
    Holder(owner): Holder,
) -> Result<StatusCode, Problem> {
    let released = service.home.release_lock(name.clone(), owner).await?;
    if released {
        service.lines.freed(&name);
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(lost())
    }
}

fn lost() -> Problem {
    Problem::new(ErrorCode::LockLost, "the lock is not the caller's, or not any more")
}

fn too_many_wait() -> Problem {
    let body = ErrorBody::new(ErrorCode::Overloaded, "as many calls wait for locks as may");
    body.after(RETRY_AFTER_MS).into()
}

/// A call that asks for a lock, and gives it back if it may have got it and nobody hears of it: the caller has gone, or
/// the store did not answer.
struct Claim<'a> {
    service: &'a Arc<Service>,
    request: LockRequest,
    may_be_ours: bool,
}

impl Ask for Claim<'_> {
    type Error = StoreError;

    async fn ask(&mut self) -> Result<LockAcquired, StoreError> {
        self.may_be_ours = true;
        let answer = self.service.home.acquire_lock(self.request.clone()).await;
        if matches!(answer, Ok(LockAcquired::Held { .. }) | Err(StoreError::HeldBack { .. })) {
            self.may_be_ours = false;
        }
        answer
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.may_be_ours {
            return;
        }
        let (service, LockRequest { name, owner, ttl }) = (Arc::clone(self.service), self.request.clone());
        // More of them than there can be calls: then the lock's own time ends it, as it does where nothing gets through.
        let Ok(turn) = Arc::clone(&service.lock_releases).try_acquire_owned() else { return };
        self.service.tasks.spawn("lock.release", async move {
            let _turn = turn;
            let until = Instant::now() + ttl;
            while service.home.cancel_lock(name.clone(), owner).await.is_err() && Instant::now() < until {
                tokio::select! {
                    biased;
                    () = service.tasks.stopping() => return,
                    () = tokio::time::sleep(RELEASE_AGAIN) => {}
                }
            }
            service.lines.freed(&name);
        });
    }
}

impl Service {
    /// Nobody waits for a lock here any more: the node stops.
    pub(super) fn end_waits(&self) {
        self.lines.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_back_and_its_digest_is_another() {
        let secret = Secret(rand::random());
        let read = Secret::read(&secret.text()).unwrap();
        assert_eq!((read.0, read.owner()), (secret.0, secret.owner()));
        assert_ne!(secret.owner().digest(), secret.0);
        assert_ne!(Secret(1).owner(), Secret(2).owner());
        for text in ["", "7", &"g".repeat(32), &"+".repeat(32), &"0".repeat(33)] {
            assert!(Secret::read(text).is_none(), "{text}");
        }
    }
}
