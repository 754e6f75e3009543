//! From memory to the store: one task takes the shards whose flush is due, gathers a batch of each behind its fence
//! and sends them together, at most one batch of a shard in flight. A `durable` write is due at once and what else is
//! dirty in its shard rides along; the next batch gathers meanwhile. One task and not one a shard: many small batches
//! then cost one wake-up, one write and one read instead of as many as there are shards.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::OwnedMutexGuard;

use super::Home;
use super::agenda::Turn;
use super::batch::{Outcome, Sent};
use super::lease::State;
use super::shard::{Fence, Shard};
use crate::clock::{self, Now};
use crate::ids::ShardId;
use crate::store::{COMMIT_BYTES_MAX, Commit, CommitRecord, Committed, StoreError};

/// How long a shard waits after an outcome that is unknown.
const RETRY_MS: u64 = 100;
/// Most commits that are sent together, and most records in them: more gains nothing, and who is in a hurry waits
/// behind them.
const BUNDLE_COMMITS_MAX: usize = 64;
const BUNDLE_RECORDS_MAX: usize = 256;

/// A batch on its way.
struct Batch {
    shard: Arc<Shard>,
    fence: Fence,
    sent: Vec<Sent>,
    /// Nobody else sends a batch of this shard.
    _turn: OwnedMutexGuard<()>,
}

/// Batches that came back, or did not.
struct Landed {
    batches: Vec<Batch>,
    answers: Vec<Result<Committed, StoreError>>,
    took: Duration,
}

impl Home {
    /// The task.
    pub(super) async fn run_flush(self: Arc<Self>) {
        let mut flights: FuturesUnordered<BoxFuture<'static, Landed>> = FuturesUnordered::new();
        loop {
            let turn = self.turn();
            tokio::select! {
                biased;
                () = self.tasks.stopping() => return,
                Some(landed) = flights.next() => self.land(landed),
                () = self.agenda.wait(turn.unwrap_or(Turn::Urgent)), if turn.is_some() => {}
            }
            while let Some(flight) = self.take_off() {
                flights.push(flight);
            }
        }
    }

    /// Who may be flushed now. Half of the commits in flight are kept for those in a hurry.
    fn turn(&self) -> Option<Turn> {
        let (flying, most) = (self.flying.load(Ordering::Relaxed), self.settings.commits_in_flight_max);
        match flying {
            _ if flying < most.div_ceil(2) => Some(Turn::Anyone),
            _ if flying < most => Some(Turn::Urgent),
            _ => None,
        }
    }

    /// Sends the batches of those who are due, as many as go together.
    fn take_off(self: &Arc<Self>) -> Option<BoxFuture<'static, Landed>> {
        let now = clock::now();
        let (mut batches, mut commits, mut records, mut bytes) = (Vec::new(), Vec::new(), 0, 0);
        while commits.len() < BUNDLE_COMMITS_MAX && records < BUNDLE_RECORDS_MAX && bytes < COMMIT_BYTES_MAX {
            let Some(shard) = self.turn().and_then(|turn| self.agenda.take(turn, now.mono_ms)) else { break };
            let Some((batch, commit)) = self.board(shard, now) else { continue };
            records += commit.records.len();
            bytes += commit.records.iter().map(CommitRecord::bytes).sum::<usize>();
            self.flying.fetch_add(1, Ordering::Relaxed);
            batches.push(batch);
            commits.push(commit);
        }
        if commits.is_empty() {
            return None;
        }
        let (home, started) = (Arc::clone(self), Instant::now());
        Some(Box::pin(async move {
            let answers = home.store.commit_all(commits).await;
            Landed { batches, answers, took: started.elapsed() }
        }))
    }

    /// The next batch of a shard. Nobody's turn is lost: a shard whose batch is in flight is planned again when it lands,
    /// one without a fence when it gets one.
    fn board(&self, shard: ShardId, now: Now) -> Option<(Batch, Commit)> {
        let shard = self.shards.get(usize::from(shard.number()))?;
        let turn = Arc::clone(&shard.commit_turn).try_lock_owned().ok()?;
        // While the shard is taken again, its next epoch is on the way and everything will go out under that.
        if shard.lease().0 == State::Repair {
            self.agenda.hold(shard.id(), now.mono_ms + RETRY_MS);
            return None;
        }
        if shard.dirty_records() == 0 {
            return None;
        }
        let fence = shard.next_batch()?;
        let (sent, records) = self.gather(shard, &fence, now);
        if records.is_empty() {
            shard.plan_rest(now.mono_ms);
            return None;
        }
        let commit = self.batch(shard, &fence, records);
        Some((Batch { shard: Arc::clone(shard), fence, sent, _turn: turn }, commit))
    }

    /// Settles what came back.
    fn land(&self, landed: Landed) {
        let now = clock::now();
        let missing = std::iter::repeat_with(|| Err(StoreError::Timeout));
        for (batch, answer) in landed.batches.into_iter().zip(landed.answers.into_iter().chain(missing)) {
            let Batch { shard, fence, sent, _turn: turn } = batch;
            self.meters.commit(sent.len(), landed.took, outcome_name(&answer));
            let outcome = self.settle(&shard, &fence, sent, answer, now);
            drop(turn);
            self.flying.fetch_sub(1, Ordering::Relaxed);
            match outcome {
                Outcome::Done => shard.plan_rest(now.mono_ms),
                Outcome::Retry => self.agenda.hold(shard.id(), now.mono_ms + RETRY_MS),
            }
        }
    }

    /// Commits all that is dirty, for a stop; says whether nothing was left.
    pub async fn flush_all(&self, deadline: Duration) -> bool {
        let until = tokio::time::Instant::now() + deadline;
        loop {
            let waiting: Vec<_> = self.shards.iter().filter(|shard| shard.dirty_records() > 0).collect();
            if waiting.is_empty() && self.flying.load(Ordering::Relaxed) == 0 {
                return true;
            }
            if tokio::time::Instant::now() >= until {
                return false;
            }
            waiting.into_iter().for_each(|shard| shard.hurry());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The outcome of a commit as a label.
const fn outcome_name(answer: &Result<Committed, StoreError>) -> &'static str {
    match answer {
        Ok(Committed::Done(_)) => "done",
        Ok(Committed::Fenced { .. }) => "fenced",
        Ok(Committed::Stale { .. }) => "stale",
        Ok(Committed::RolledBack) => "rolled_back",
        Ok(Committed::Lost) => "lost",
        Err(_) => "unknown",
    }
}
