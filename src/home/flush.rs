//! From memory to the store: one task takes the shards whose flush is due, gathers a batch of each behind its fence
//! and sends them together, at most one batch of a shard in flight. A `durable` write is due at once and what else is
//! dirty in its shard rides along; the next batch gathers meanwhile. One task and not one a shard: many small batches
//! then cost one wake-up, one write and one read instead of as many as there are shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::OwnedMutexGuard;

use super::Home;
use super::agenda::Who;
use super::batch::{Outcome, Sent};
use super::lease::State;
use super::records::{Cell, Flight};
use super::shard::{Fence, Shard};
use crate::clock::{self, Now};
use crate::ids::ShardId;
use crate::store::{COMMIT_BYTES_MAX, Commit, CommitRecord, Committed, Reach, StoreError};
use crate::tasks;

/// How long a shard waits after an outcome that is unknown.
const RETRY_MS: u64 = 100;
/// How long a shard waits whose server takes no commits, and one whose server takes few.
const AWAY_MS: u64 = 250;
const RAMP_MS: u64 = 20;
/// Most commits that are sent together, and most records in them: more gains nothing.
const BUNDLE_COMMITS_MAX: usize = 64;
const BUNDLE_RECORDS_MAX: usize = 256;
/// Records in flight above which only those in a hurry go: they would wait behind the others, 3 to 5 us for each.
const PACED_RECORDS_MAX: usize = 1_024;

/// A batch on its way.
struct Batch {
    shard: Arc<Shard>,
    fence: Fence,
    sent: Vec<Sent>,
    /// Nobody else sends a batch of this shard.
    _only: OwnedMutexGuard<()>,
}

/// Batches that came back, or did not.
struct Landed {
    batches: Vec<Batch>,
    answers: Vec<Result<Committed, StoreError>>,
    began: Instant,
    took: Duration,
}

/// Batches in the hands of the flush task, for those who wait until there are none.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    commits: AtomicUsize,
    /// How often one was begun: whoever looks twice and finds the same has missed none.
    begun: AtomicU64,
    /// When one last came back with an answer (monotonic ms).
    answered_at_ms: AtomicU64,
}

impl Home {
    /// The task.
    pub(super) async fn run_flush(self: Arc<Self>) {
        let (mut flights, mut records) = (FuturesUnordered::<BoxFuture<'static, Landed>>::new(), 0);
        loop {
            let who = self.who_may_go(records);
            tasks::rest();
            tokio::select! {
                biased;
                () = self.tasks.stopping() => return,
                Some(landed) = flights.next() => {
                    tasks::beat();
                    records -= self.land(landed);
                }
                () = self.agenda.wait(who.unwrap_or(Who::Urgent)), if who.is_some() => {
                    tasks::beat();
                    // One flight, and then again through the select, which is what sends it.
                    if let Some((flight, loaded)) = self.take_off(records) {
                        flights.push(flight);
                        records += loaded;
                    }
                }
            }
        }
    }

    /// Who may be flushed now. Half of the commits in flight are kept for those in a hurry.
    fn who_may_go(&self, records: usize) -> Option<Who> {
        let commits = self.in_flight.commits.load(Ordering::Relaxed);
        let most = self.settings.commits_in_flight_max;
        if commits >= most {
            return None;
        }
        let is_roomy = commits < most.div_ceil(2) && records < PACED_RECORDS_MAX;
        Some(if is_roomy { Who::Anyone } else { Who::Urgent })
    }

    /// Sends the batches of those who are due, as many as go together, with the number of their records.
    fn take_off(self: &Arc<Self>, records: usize) -> Option<(BoxFuture<'static, Landed>, usize)> {
        let now = clock::now();
        let (mut batches, mut commits, mut loaded, mut bytes) = (Vec::new(), Vec::new(), 0, 0);
        let mut most = BUNDLE_COMMITS_MAX;
        while commits.len() < most && loaded < BUNDLE_RECORDS_MAX && bytes < COMMIT_BYTES_MAX {
            let who = self.who_may_go(records + loaded);
            let Some(shard) = who.and_then(|who| self.agenda.take(who, now.mono_ms)) else { break };
            // Before the records leave their queue: somebody may be looking whether all is stored.
            self.in_flight.begin();
            let Some((batch, commit)) = self.board(shard, now) else {
                self.in_flight.end();
                continue;
            };
            most = most.min(self.store.room(shard).max(1));
            loaded += commit.records.len();
            bytes += commit.records.iter().map(CommitRecord::bytes).sum::<usize>();
            batches.push(batch);
            commits.push(commit);
        }
        if commits.is_empty() {
            return None;
        }
        let (home, started) = (Arc::clone(self), Instant::now());
        let flight = async move {
            let answers = home.store.commit_all(commits).await;
            Landed { batches, answers, began: started, took: started.elapsed() }
        };
        Some((Box::pin(flight), loaded))
    }

    /// The next batch of a shard. Nobody's turn is lost: a shard whose batch is in flight is planned again when it lands,
    /// one without a fence when it gets one.
    fn board(&self, shard: ShardId, now: Now) -> Option<(Batch, Commit)> {
        let shard = self.shards.get(usize::from(shard.number()))?;
        let only = Arc::clone(&shard.commit_turn).try_lock_owned().ok()?;
        // While the shard is taken again, its next epoch is on the way and everything will go out under that.
        // So is one with records of which nobody knows whether the store holds them, until that is known.
        if shard.lease().0 == State::Repair || shard.has_blind() {
            self.agenda.hold(shard.id(), now.mono_ms + RETRY_MS, shard.is_urgent());
            return None;
        }
        if shard.dirty_records() == 0 {
            shard.is_clean();
            return None;
        }
        if self.store.room(shard.id()) == 0 {
            self.hold_back(shard, now);
            return None;
        }
        let fence = shard.next_batch()?;
        let (sent, records) = self.gather(shard, &fence, now);
        if records.is_empty() {
            shard.is_clean();
            shard.plan_rest(now.mono_ms);
            return None;
        }
        let commit = self.batch(shard, &fence, records);
        Some((Batch { shard: Arc::clone(shard), fence, sent, _only: only }, commit))
    }

    /// Lets a shard wait whose server takes no commits now: nothing is gathered and written down for nothing.
    fn hold_back(&self, shard: &Shard, now: Now) {
        let reach = self.store.reach(shard.id());
        if reach != Reach::Well {
            shard.takes_commits(false);
        }
        let wait_ms = if reach == Reach::Well { RAMP_MS } else { AWAY_MS };
        let since_ms = shard.dirty_since_ms().unwrap_or(now.mono_ms);
        self.agenda.hold_in_line(shard.id(), now.mono_ms, wait_ms, since_ms, shard.is_urgent());
    }

    /// Settles what came back; how many records that were.
    fn land(&self, landed: Landed) -> usize {
        let (now, mut records) = (clock::now(), 0);
        let missing = std::iter::repeat_with(|| Err(StoreError::Timeout));
        for (batch, answer) in landed.batches.into_iter().zip(landed.answers.into_iter().chain(missing)) {
            let Batch { shard, fence, sent, _only: only } = batch;
            records += sent.len();
            if answer.is_ok() {
                self.in_flight.answered_at_ms.store(now.mono_ms, Ordering::Relaxed);
            }
            self.meters.commit(sent.len(), landed.took, outcome_name(&answer));
            let flight = Flight { began: landed.began, took: landed.took, records: sent.len() };
            let outcome = self.settle(&shard, &fence, sent, (answer, flight), now);
            drop(only);
            let since_ms = shard.landed(outcome == Outcome::Done);
            if let Some(since_ms) = since_ms.filter(|_| outcome == Outcome::Done) {
                let waited_ms = now.mono_ms.saturating_sub(since_ms);
                self.meters.flush_waited(Duration::from_millis(waited_ms));
            }
            match outcome {
                Outcome::Retry => {
                    self.agenda.hold(shard.id(), now.mono_ms + RETRY_MS, shard.is_urgent());
                }
                Outcome::HeldBack => self.hold_back(&shard, now),
                Outcome::Done | Outcome::Again => shard.plan_rest(now.mono_ms),
            }
            self.in_flight.end();
        }
        records
    }

    /// What was noted of players in memory and would have waited for their next change goes out: there is none here.
    pub(super) fn tell_ahead(&self, cells: &[Arc<Cell>], now: Now) {
        let ahead = cells.iter().filter(|cell| cell.with_slot(|slot| !slot.gone && slot.record.tell_ahead()));
        ahead.for_each(|cell| cell.requeue(now.mono_ms));
    }

    /// Commits all that is dirty, for a stop; says whether nothing was left.
    pub async fn flush_all(&self, deadline: Duration) -> bool {
        let until = tokio::time::Instant::now() + deadline;
        self.tell_ahead(&self.records.all(), clock::now());
        while !self.is_all_stored() {
            if tokio::time::Instant::now() >= until {
                return false;
            }
            let now_ms = clock::now().mono_ms;
            self.shards.iter().for_each(|shard| shard.hurry(now_ms));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// For how long changes have waited though their store is there and their shards are served, if that is longer than
    /// `patience` and nothing has got through for as long: a flush that makes no progress.
    #[must_use]
    pub fn flush_stuck_for(&self, patience: Duration, now: Now) -> Option<Duration> {
        let is_served = |shard: &&Arc<Shard>| shard.serves(now.mono_ms) && !shard.is_held_back();
        let since_ms =
            self.shards.iter().filter(is_served).filter_map(|shard| shard.dirty_since_ms()).min()?;
        let since_ms = since_ms.max(self.in_flight.answered_at_ms.load(Ordering::Relaxed));
        let stuck = Duration::from_millis(now.mono_ms.saturating_sub(since_ms));
        (stuck >= patience).then_some(stuck)
    }

    /// Whether nothing is dirty, neither in a queue nor in flight.
    fn is_all_stored(&self) -> bool {
        let begun = self.in_flight.begun();
        self.in_flight.is_none()
            && self.shards.iter().all(|shard| shard.dirty_records() == 0)
            && self.in_flight.begun() == begun
    }
}

impl InFlight {
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.commits.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn end(&self) {
        self.commits.fetch_sub(1, Ordering::SeqCst);
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    fn is_none(&self) -> bool {
        self.commits.load(Ordering::SeqCst) == 0
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
        Err(StoreError::HeldBack { .. }) => "held_back",
        Err(_) => "unknown",
    }
}
