//! The fence turned off, to prove that a checker notices: commits adopt whatever epoch, owner and counter the store
//! holds, and a renewal that was fenced says it was not. Only in builds with the feature `sabotage`, and only when
//! the guard was switched off at start. Called by `RedisStore`.

use redis::Cmd;

use super::RedisStore;
use super::reply::Reply;
use crate::ids::{Epoch, FlushSeq, Generation, Owner, ShardId};
use crate::sabotage::{Guard, is_off};
use crate::store::{Commit, Renewed, StoreError};

impl RedisStore {
    /// Each commit as the present holder of its shard would send it; as it is, if that cannot be found out.
    pub(super) async fn adopt_all(&self, commits: Vec<Commit>) -> Vec<Commit> {
        let mut adopted = Vec::with_capacity(commits.len());
        for commit in commits {
            adopted.push(self.adopt(commit.clone()).await.unwrap_or(commit));
        }
        adopted
    }

    /// The commit as the present holder of the shard would send it.
    async fn adopt(&self, mut commit: Commit) -> Result<Commit, StoreError> {
        if is_off(Guard::Fence) {
            let mut meta = self.meta(commit.shard).await?;
            commit.epoch = Epoch::of(meta.number()?);
            commit.owner = Owner::named(&meta.word()?);
            commit.generation = Generation::of(meta.hex()?);
            commit.flush_seq_acked = FlushSeq::of(meta.number()?);
            commit.flush_seq = commit.flush_seq_acked.next();
        }
        Ok(commit)
    }

    /// A renewal that nobody fenced.
    pub(super) async fn unfenced(&self, shard: ShardId, answer: Renewed) -> Result<Renewed, StoreError> {
        if !is_off(Guard::Fence) || !matches!(answer, Renewed::Fenced { .. }) {
            return Ok(answer);
        }
        let mut meta = self.meta(shard).await?;
        let (_, _) = (meta.number()?, meta.word()?);
        Ok(Renewed::Renewed { generation: Generation::of(meta.hex()?), flush_seq: FlushSeq::of(u64::MAX) })
    }

    /// The same for many.
    pub(super) async fn unfenced_all(
        &self,
        leases: &[(ShardId, Epoch)],
        answers: Vec<Result<Renewed, StoreError>>,
    ) -> Vec<Result<Renewed, StoreError>> {
        let mut told = Vec::with_capacity(answers.len());
        for ((shard, _), answer) in leases.iter().zip(answers) {
            told.push(match answer {
                Ok(answer) => self.unfenced(*shard, answer).await,
                error => error,
            });
        }
        told
    }

    async fn meta(&self, shard: ShardId) -> Result<Reply, StoreError> {
        let (meta, mut command) = (self.keys(shard).meta(), Cmd::new());
        command.arg("HMGET").arg(&meta).arg(&["epoch", "holder", "gen", "f"]);
        self.read(&meta, &command).await
    }
}
