//! Locks: held by a value that renews itself, says when it is lost, and gives the lock back when it is dropped. One task a
//! lock, which ends with it.

use std::future::Future;
use std::time::Duration;

use rand::Rng as _;
use reqwest::Method;
use reqwest::header::HeaderValue;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{CALL_TIMEOUT, LockAcquired, LockAsk, LockRenewal, Service, ServiceError, body_of, millis, sent};
use crate::ErrorCode;

/// Carries the secret of the holder.
const SECRET: &str = "lock-secret";
/// A renewal is due after this part of the time ...
const RENEWAL: u32 = 3;
/// ... and one that came to nothing is tried again after this one.
const AGAIN: u32 = 12;

/// Why a lock is not its holder's any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// The server says so: its time had run out, or the store has lost it.
    #[error("the lock is not ours any more")]
    Taken,
    /// Its time is over, and no renewal was answered meanwhile. Nobody else need have it.
    #[error("the lock could not be renewed in time")]
    NotRenewed,
}

/// How giving it back went.
type Released = Result<(), ServiceError>;
/// The end of a lock, and where to say how that went, if anybody wants to know.
type End = Option<oneshot::Sender<Released>>;

/// Where a lock stands.
#[derive(Debug, Clone, Copy)]
struct Standing {
    /// It is ours at least until then: counted from when the last renewal was sent.
    until: Instant,
    loss: Option<Loss>,
}

/// A lock that is held. It is renewed at a third of its time until it is lost, released or dropped; dropped, it is given
/// back in the background.
///
/// The holder must stop when it is lost ([`Lock::lost`], [`Lock::run`]), and hand [`Lock::token`] to whatever the lock
/// protects, since a process that stands still does not know that it is late.
#[derive(Debug)]
pub struct Lock {
    token: u64,
    standing: watch::Receiver<Standing>,
    /// Asks the task to give it back, and where to say how that went.
    end: Option<oneshot::Sender<End>>,
}

impl Service {
    /// Takes a lock for `ttl` (100 ms to an hour), waiting for it up to `wait` (a minute at most), and renews it from then on.
    /// Dropped while it waits, it waits no longer. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] with [`ErrorCode::LockHeld`]; [`ServiceError`] else. A lock whose answer was lost ends after
    /// `ttl`.
    pub async fn lock(&self, name: &str, ttl: Duration, wait: Duration) -> Result<Lock, ServiceError> {
        let body = LockAsk { ttl_ms: millis(ttl), wait_ms: millis(wait) };
        let request = self.request(Method::POST, &["locks", name], wait + CALL_TIMEOUT)?.json(&body);
        let waits_since = Instant::now();
        let LockAcquired { token, secret, .. } = body_of(sent(request).await?).await?;
        let (say, standing) = watch::channel(Standing { until: waits_since + ttl, loss: None });
        let (end, ended) = oneshot::channel();
        let keeper = Keeper { service: self.clone(), name: name.to_owned(), secret, ttl, say };
        // Where it did not have to wait its time counts from when it was asked for; else nobody here knows since when, and
        // a renewal says, before it is called held.
        let has_waited = waits_since.elapsed() > ttl / RENEWAL;
        let first = if has_waited { keeper.first_renewal().await? } else { waits_since + ttl / RENEWAL };
        #[allow(clippy::disallowed_methods, reason = "this crate stands outside the house and its tasks.rs")]
        tokio::spawn(keeper.keep(first, ended));
        Ok(Lock { token, standing, end: Some(end) })
    }
}

impl Lock {
    /// The fencing token: above those of all who held this lock before.
    #[must_use]
    pub const fn token(&self) -> u64 {
        self.token
    }

    /// Whether it is held, as far as this process can tell.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let standing = *self.standing.borrow();
        standing.loss.is_none() && Instant::now() < standing.until
    }

    /// Resolves when it is lost.
    pub async fn lost(&self) -> Loss {
        let mut standing = self.standing.clone();
        loop {
            let now = *standing.borrow_and_update();
            match now.loss {
                Some(loss) => return loss,
                None if standing.changed().await.is_err() => return Loss::NotRenewed,
                None => {}
            }
        }
    }

    /// Does something while the lock is held, and drops it unfinished when the lock is lost.
    ///
    /// # Errors
    /// [`Loss`].
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, Loss> {
        tokio::select! {
            biased;
            loss = self.lost() => Err(loss),
            done = work => Ok(done),
        }
    }

    /// Gives it back, and waits until that is done.
    ///
    /// # Errors
    /// [`ServiceError`]; one that [is](ServiceError::is) [`ErrorCode::LockLost`] where it was not held to the end.
    pub async fn release(mut self) -> Result<(), ServiceError> {
        let standing = self.standing.clone();
        let lost = || ServiceError::Lost(standing.borrow().loss.unwrap_or(Loss::NotRenewed));
        let (say, said) = oneshot::channel();
        let asked = self.end.take().map(|end| end.send(Some(say)));
        match asked {
            Some(Ok(())) => said.await.unwrap_or_else(|_| Err(lost())),
            _ => Err(lost()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            // Whoever has lost it has nothing to give back.
            let _ = end.send(None);
        }
    }
}

/// The task that keeps a lock.
struct Keeper {
    service: Service,
    name: String,
    secret: String,
    ttl: Duration,
    say: watch::Sender<Standing>,
}

impl Keeper {
    async fn keep(self, mut renew_at: Instant, mut ended: oneshot::Receiver<End>) {
        loop {
            let until = self.say.borrow().until;
            tokio::select! {
                biased;
                asked = &mut ended => {
                    let released = self.release().await;
                    if let Ok(Some(say)) = asked {
                        let _ = say.send(released);
                    }
                    return;
                }
                () = sleep_until(until) => {
                    self.lose(Loss::NotRenewed);
                    // It may be held in the store for a little longer than here: others need not wait for that.
                    let _ = self.release().await;
                    return;
                }
                next = self.renewal(renew_at, until) => match next {
                    Ok(next) => renew_at = next,
                    Err(loss) => {
                        self.lose(loss);
                        return;
                    }
                },
            }
        }
    }

    /// Renews it at once; when the next one is due. Else it is given back, in the background.
    async fn first_renewal(&self) -> Result<Instant, ServiceError> {
        let sent_at = Instant::now();
        match self.renew().await {
            Ok(()) => {
                self.say.send_modify(|standing| standing.until = sent_at + self.ttl);
                Ok(sent_at + self.ttl / RENEWAL)
            }
            Err(error) => {
                if !error.is(ErrorCode::LockLost) {
                    let release = self.release();
                    #[allow(
                        clippy::disallowed_methods,
                        reason = "this crate stands outside the house and its tasks.rs"
                    )]
                    tokio::spawn(release);
                }
                Err(error)
            }
        }
    }

    /// Renews it when that is due; when the next one is.
    async fn renewal(&self, due: Instant, until: Instant) -> Result<Instant, Loss> {
        sleep_until(due).await;
        let sent_at = Instant::now();
        match timeout_at(until, self.renew()).await {
            Ok(Ok(())) => {
                self.say.send_modify(|standing| standing.until = sent_at + self.ttl);
                Ok(sent_at + self.ttl / RENEWAL)
            }
            Ok(Err(error)) if error.is(ErrorCode::LockLost) => Err(Loss::Taken),
            // Not in step with all the others whose server was away.
            _ => Ok(Instant::now() + (self.ttl / AGAIN).mul_f64(rand::rng().random_range(0.5..=1.0))),
        }
    }

    async fn renew(&self) -> Result<(), ServiceError> {
        // One that is not answered leaves time for another.
        let patience = (self.ttl / RENEWAL).min(CALL_TIMEOUT);
        let request = self.service.request(Method::PUT, &["locks", &self.name], patience)?;
        let request = request.header(SECRET, self.secret()).json(&LockRenewal { ttl_ms: millis(self.ttl) });
        sent(request).await.map(drop)
    }

    fn release(&self) -> impl Future<Output = Result<(), ServiceError>> + Send + use<> {
        let request = self.service.request(Method::DELETE, &["locks", &self.name], CALL_TIMEOUT);
        let request = request.map(|request| request.header(SECRET, self.secret()));
        async move { sent(request?).await.map(drop) }
    }

    /// As a header that nobody logs.
    fn secret(&self) -> HeaderValue {
        // It is letters and digits; what is none of them nobody would accept.
        let mut secret = HeaderValue::from_str(&self.secret).unwrap_or_else(|_| HeaderValue::from_static(""));
        secret.set_sensitive(true);
        secret
    }

    fn lose(&self, loss: Loss) {
        self.say.send_modify(|standing| standing.loss = Some(loss));
    }
}
