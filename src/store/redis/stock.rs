//! What services keep beside players, on Redis: the scripts' wrappers, their only callers. Every call is of one key, or of
//! keys that share a tag. Called by `RedisStore`.

use std::time::Duration;

use redis::Cmd;

use super::RedisStore;
use super::lane::Repeat;
use super::lanes::Purpose;
use super::reply::{Reply, corrupt};
use super::scripts::ttl_ms;
use crate::ids::KeyName;
use crate::store::counters::CHANGE_REMEMBERED;
use crate::store::locks::{GONE_MAX, TOKEN_REMEMBERED};
use crate::store::{Counted, CounterRequest, LockAcquired, LockOwner, LockRequest, LockToken, StoreError};

impl RedisStore {
    /// Not sent twice, unless it has a name: what was added would be added again.
    pub(super) async fn count(&self, request: &CounterRequest) -> Result<Counted, StoreError> {
        let key = self.layout.counter(&request.name);
        let (lowest, highest) = request.from_within();
        let once = request.remembered_as().map(|id| self.layout.counted(&request.name, id));
        let arguments = |command: &mut Cmd| {
            command.arg(&key);
            if let Some(once) = &once {
                command.arg(once);
            }
            command.arg(request.by).arg(lowest.to_string()).arg(highest.to_string());
            match request.ttl {
                Some(ttl) => command.arg(ttl_ms(ttl)),
                None => command.arg(""),
            };
            command.arg(ttl_ms(CHANGE_REMEMBERED));
        };
        let repeat = if once.is_some() { Repeat::Once } else { Repeat::Never };
        let call = self.scripts.counter.with(&key, 1 + usize::from(once.is_some()), &arguments);
        let mut reply = Reply::of(self.routes.eval(Purpose::Stock, repeat, call).await?)?;
        let (word, value, left_ms) = (reply.word()?, reply.signed()?, reply.signed()?);
        let expires_in = u64::try_from(left_ms).ok().map(Duration::from_millis);
        match word.as_str() {
            "at" => Ok(Counted::At { value, expires_in }),
            "refused" => Ok(Counted::Refused { value, bound: request.bound(), expires_in }),
            other => Err(corrupt(other)),
        }
    }

    /// May be sent twice: the same owner is told the same.
    pub(super) async fn acquire_lock(&self, request: &LockRequest) -> Result<LockAcquired, StoreError> {
        let key = self.layout.lock(&request.name);
        let arguments = |command: &mut Cmd| write_lock(command, &key, request);
        let call = self.scripts.lock_acquire.with(&key, 1, &arguments);
        let mut reply = Reply::of(self.routes.eval(Purpose::Stock, Repeat::Once, call).await?)?;
        match reply.word()?.as_str() {
            "acquired" => Ok(LockAcquired::Acquired(LockToken::of(reply.number()?))),
            "held" => Ok(LockAcquired::Held { remaining: Duration::from_millis(reply.number()?) }),
            other => Err(corrupt(other)),
        }
    }

    pub(super) async fn renew_lock(&self, request: &LockRequest) -> Result<Option<LockToken>, StoreError> {
        let key = self.layout.lock(&request.name);
        let arguments = |command: &mut Cmd| write_lock(command, &key, request);
        let call = self.scripts.lock_renew.with(&key, 1, &arguments);
        let mut reply = Reply::of(self.routes.eval(Purpose::StockReleases, Repeat::Once, call).await?)?;
        match reply.word()?.as_str() {
            "renewed" => Ok(Some(LockToken::of(reply.number()?))),
            "lost" => Ok(None),
            other => Err(corrupt(other)),
        }
    }

    /// Not sent twice: the second one would find it gone, and say that it had been lost.
    pub(super) async fn release_lock(&self, name: &KeyName, owner: LockOwner) -> Result<bool, StoreError> {
        let key = self.layout.lock(name);
        let arguments = |command: &mut Cmd| {
            command.arg(&key).arg(digits(owner)).arg(ttl_ms(TOKEN_REMEMBERED));
        };
        let call = self.scripts.lock_release.with(&key, 1, &arguments);
        let mut reply = Reply::of(self.routes.eval(Purpose::StockReleases, Repeat::Never, call).await?)?;
        match reply.word()?.as_str() {
            "released" => Ok(true),
            "lost" => Ok(false),
            other => Err(corrupt(other)),
        }
    }

    /// May be sent twice: it does the same again, and who asked only wants it to be done.
    pub(super) async fn cancel_lock(&self, name: &KeyName, owner: LockOwner) -> Result<bool, StoreError> {
        let key = self.layout.lock(name);
        let arguments = |command: &mut Cmd| {
            command.arg(&key).arg(digits(owner)).arg(ttl_ms(TOKEN_REMEMBERED)).arg(GONE_MAX);
        };
        let call = self.scripts.lock_cancel.with(&key, 1, &arguments);
        let mut reply = Reply::of(self.routes.eval(Purpose::StockReleases, Repeat::Once, call).await?)?;
        match reply.word()?.as_str() {
            "released" => Ok(true),
            "lost" => Ok(false),
            other => Err(corrupt(other)),
        }
    }
}

/// KEYS and ARGV of `lock_acquire.lua` and `lock_renew.lua`.
fn write_lock(command: &mut Cmd, key: &str, request: &LockRequest) {
    command.arg(key).arg(digits(request.owner)).arg(ttl_ms(request.ttl)).arg(ttl_ms(TOKEN_REMEMBERED));
}

fn digits(owner: LockOwner) -> String {
    format!("{:032x}", owner.digest())
}
