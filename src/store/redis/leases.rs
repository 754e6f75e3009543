//! Lease calls of many shards in one pipeline: each says the same when it is sent twice, so a connection that broke is
//! no answer worth hearing. Called by `RedisStore`.

use std::time::Duration;

use redis::{Cmd, Value};

use super::RedisStore;
use super::lanes::Purpose;
use super::reply::Reply;
use super::routes::Routes;
use super::scripts::{Script, ScriptCall, acquired, renewed, ttl_ms, write_acquire};
use crate::ids::{Epoch, Owner, ShardId};
use crate::store::{AcquireRequest, Acquired, Held, Renewed, StoreError};

impl RedisStore {
    /// An answer each, in the order asked.
    pub(super) async fn acquire_all(&self, requests: &[AcquireRequest]) -> Vec<Result<Acquired, StoreError>> {
        let metas: Vec<_> = requests.iter().map(|request| self.keys(request.shard).meta()).collect();
        let writes: Vec<_> = requests
            .iter()
            .zip(&metas)
            .map(|(request, meta)| move |command: &mut Cmd| write_acquire(command, meta, request))
            .collect();
        let answers = sent(&self.routes, Purpose::Leases, &self.scripts.lease_acquire, &metas, &writes).await;
        answers.into_iter().map(|answer| acquired(&mut Reply::of(answer?)?)).collect()
    }

    /// An answer each, in the order asked.
    pub(super) async fn renew_all(
        &self,
        owner: &Owner,
        leases: &[(ShardId, Epoch)],
        ttl: Duration,
    ) -> Vec<Result<Renewed, StoreError>> {
        let metas: Vec<_> = leases.iter().map(|(shard, _)| self.keys(*shard).meta()).collect();
        let writes: Vec<_> = leases
            .iter()
            .zip(&metas)
            .map(|((_, epoch), meta)| {
                move |command: &mut Cmd| {
                    command.arg(meta).arg(owner.as_str()).arg(epoch.number()).arg(ttl_ms(ttl));
                }
            })
            .collect();
        let answers = sent(&self.routes, Purpose::Renewals, &self.scripts.lease_renew, &metas, &writes).await;
        answers.into_iter().map(|answer| renewed(&mut Reply::of(answer?)?)).collect()
    }

    /// Who holds each shard. All or nothing: one that did not answer leaves the rest of little use.
    pub(super) async fn look_at_all(&self, shards: &[ShardId]) -> Result<Vec<Option<Held>>, StoreError> {
        let metas: Vec<_> = shards.iter().map(|shard| self.keys(*shard).meta()).collect();
        let writes: Vec<_> = metas
            .iter()
            .map(|meta| {
                move |command: &mut Cmd| {
                    command.arg(meta);
                }
            })
            .collect();
        let answers = sent(&self.routes, Purpose::Reads, &self.scripts.lease_look, &metas, &writes).await;
        answers.into_iter().map(|answer| held(&mut Reply::of(answer?)?)).collect()
    }
}

async fn sent<W: Fn(&mut Cmd) + Sync>(
    routes: &Routes,
    purpose: Purpose,
    script: &Script,
    metas: &[String],
    writes: &[W],
) -> Vec<Result<Value, StoreError>> {
    let calls: Vec<ScriptCall<'_>> =
        metas.iter().zip(writes).map(|(meta, write)| script.with(meta, 1, write)).collect();
    if calls.is_empty() {
        return Vec::new();
    }
    let answers = routes.eval_all(purpose, &calls).await;
    if answers.iter().all(|answer| matches!(answer, Err(StoreError::Unreachable(_)))) {
        return routes.eval_all(purpose, &calls).await;
    }
    answers
}

fn held(reply: &mut Reply) -> Result<Option<Held>, StoreError> {
    if reply.len() == 0 {
        return Ok(None);
    }
    let owner = Owner::named(&reply.word()?);
    Ok(Some(Held { owner, remaining: Duration::from_millis(reply.number()?) }))
}
