//! What the parts of `home` share about one shard: whether it may answer, its fence, and its dirty records.
//! `keeper` writes the first two, and `yielding` ends the answers of one that another node has; `flush` drains the third
//! when the agenda says so. Never holds a record's lock while it takes its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::agenda::Agenda;
use super::lease::State;
use super::records::Cell;
use crate::ids::{Epoch, FlushSeq, Generation, ShardId, Version};
use crate::sabotage::{self, Guard};
use crate::store::{Grant, Reach};

/// What every commit of a shard carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The lease's epoch.
    pub epoch: Epoch,
    /// The store's generation.
    pub generation: Generation,
    /// The last batch number sent.
    pub flush_seq: FlushSeq,
    /// The last one acknowledged.
    pub flush_seq_acked: FlushSeq,
    /// The highest version at which a record of the shard ended.
    pub version_max: Version,
}

impl Fence {
    /// The fence that a grant brings.
    #[must_use]
    pub const fn of(grant: &Grant) -> Self {
        Self {
            epoch: grant.epoch,
            generation: grant.generation,
            flush_seq: grant.flush_seq,
            flush_seq_acked: grant.flush_seq,
            version_max: grant.version_max,
        }
    }
}

#[derive(Default)]
struct Dirty {
    queue: VecDeque<Arc<Cell>>,
    /// How many were waiting when somebody last hurried, and have not gone out since.
    urgent: usize,
    since_ms: u64,
    /// Since when what is in flight was dirty.
    flying_since_ms: Option<u64>,
    /// How many were waiting when the shard fell due, and have not gone out since.
    due: usize,
}

/// Where a shard's lease stands.
struct Standing {
    state: State,
    epoch: Epoch,
    /// The highest epoch under which another node is known to hold it.
    overtaken_by: Epoch,
    /// Nothing may leave any more, whatever the lease says.
    is_silenced: bool,
}

/// Why what is acked is provisional: bits of one byte, so that an ack looks at one.
mod trouble {
    /// The last commit that came back was not taken.
    pub(super) const COMMITS_FAIL: u8 = 1;
    /// The server does not answer.
    pub(super) const AWAY: u8 = 2;
    /// It takes no change.
    pub(super) const FULL: u8 = 4;
    /// Served past the lease.
    pub(super) const LOCAL: u8 = 8;
}

/// How a shard is served, as its players are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// With its store.
    Normal,
    /// From memory: its store is away, or takes nothing.
    Local,
    /// Not at all for now.
    Paused,
}

/// One shard.
pub struct Shard {
    id: ShardId,
    serving_until_ms: AtomicU64,
    lease: Mutex<Standing>,
    fence: Mutex<Option<Fence>>,
    /// The epoch under which it was held last, also when it is lost.
    last_epoch: AtomicU64,
    dirty: Mutex<Dirty>,
    /// Bits of [`trouble`].
    trouble: AtomicU8,
    /// Records that were opened without a look at the store; no batch goes before they are looked at.
    blind: Mutex<Vec<Arc<Cell>>>,
    /// One batch of the shard at a time, whoever sends it.
    pub(super) commit_turn: Arc<tokio::sync::Mutex<()>>,
    /// Where its flush is planned.
    agenda: Arc<Agenda>,
    /// Wakes those who wait for the shard to serve.
    serving_changed: Notify,
}

impl Shard {
    /// A shard that serves nobody.
    #[must_use]
    pub(super) fn new(id: ShardId, agenda: Arc<Agenda>) -> Self {
        Self {
            id,
            serving_until_ms: AtomicU64::new(0),
            lease: Mutex::new(Standing {
                state: State::Free,
                epoch: Epoch::ZERO,
                overtaken_by: Epoch::ZERO,
                is_silenced: false,
            }),
            fence: Mutex::new(None),
            last_epoch: AtomicU64::new(Epoch::ZERO.number()),
            dirty: Mutex::default(),
            trouble: AtomicU8::new(0),
            blind: Mutex::default(),
            commit_turn: Arc::default(),
            agenda,
            serving_changed: Notify::new(),
        }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> ShardId {
        self.id
    }

    /// Where its lease stands, and at which epoch.
    #[must_use]
    pub fn lease(&self) -> (State, Epoch) {
        let standing = self.lease.lock();
        (standing.state, standing.epoch)
    }

    /// Whether it is about to be handed over: a moment's silence.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.lease().0 == State::Draining
    }

    /// Whether all its sessions are in this node's memory: not while it comes or goes, nor from the moment on at which
    /// another node is known to hold it, whatever its lease says until the keeper has looked.
    #[must_use]
    pub(super) fn is_whole(&self) -> bool {
        let standing = self.lease.lock();
        matches!(standing.state, State::Owned | State::Unsure | State::Local | State::Paused | State::Repair)
            && standing.overtaken_by <= standing.epoch
    }

    /// Says where its lease stands, and until when answers may leave: never, once another node is known to hold it
    /// under a higher epoch.
    pub(super) fn stand(&self, state: State, epoch: Epoch, serving_until_ms: u64) {
        let mut standing = self.lease.lock();
        (standing.state, standing.epoch) = (state, epoch);
        self.set_trouble(trouble::LOCAL, state == State::Local);
        let may_serve = standing.overtaken_by <= epoch && !standing.is_silenced;
        self.serve_until(if may_serve { serving_until_ms } else { 0 });
    }

    /// Nothing leaves any more from here on, for good: this process is not to be trusted.
    pub(super) fn silence(&self) {
        let mut standing = self.lease.lock();
        standing.is_silenced = true;
        self.serve_until(0);
    }

    /// Whether another node is known to hold it.
    pub(super) fn is_overtaken(&self) -> bool {
        let standing = self.lease.lock();
        standing.overtaken_by > standing.epoch
    }

    /// Another node holds it under this epoch. When this returns nothing leaves any more that was not on its way, and
    /// nothing will under a lower one; says under which epoch it was held here, if it was.
    pub(super) fn overtake(&self, epoch: Epoch) -> Option<Epoch> {
        let mut standing = self.lease.lock();
        let ours = self.fence()?.epoch;
        if ours >= epoch || sabotage::is_off(Guard::PullFencesFirst) {
            return None;
        }
        standing.overtaken_by = standing.overtaken_by.max(epoch);
        self.serve_until(0);
        Some(ours)
    }

    /// Whether an answer or a push may leave at this moment.
    #[must_use]
    pub fn serves(&self, mono_ms: u64) -> bool {
        mono_ms < self.serving_until_ms.load(Ordering::Acquire)
    }

    /// Waits until the shard serves, at most `hold`; says whether it does.
    pub async fn wait_serving(&self, hold: Duration) -> bool {
        let wait = async {
            loop {
                let changed = self.serving_changed.notified();
                if self.serves(crate::clock::now().mono_ms) {
                    return;
                }
                changed.await;
            }
        };
        self.serves(crate::clock::now().mono_ms) || tokio::time::timeout(hold, wait).await.is_ok()
    }

    /// Says until when answers may leave.
    pub(super) fn serve_until(&self, mono_ms: u64) {
        if self.serving_until_ms.swap(mono_ms, Ordering::AcqRel) != mono_ms {
            self.serving_changed.notify_waiters();
            if mono_ms > 0 {
                self.plan_rest(crate::clock::now().mono_ms);
            }
        }
    }

    /// A batch found the shard lost: no more answers, unless it is held under another epoch by now.
    pub(super) fn stop_serving(&self, sent: Epoch) {
        if self.fence().is_some_and(|fence| fence.epoch == sent) {
            self.serve_until(0);
        }
    }

    /// Whether the last commit that came back was taken.
    pub(super) fn takes_commits(&self, taken: bool) {
        self.set_trouble(trouble::COMMITS_FAIL, !taken);
        if taken {
            // Whatever takes commits is there: the keeper finds the same at its next tick.
            self.set_trouble(trouble::AWAY | trouble::FULL, false);
        }
    }

    /// How its server answers, as far as this node has found.
    pub(super) fn reached(&self, reach: Reach) {
        self.set_trouble(trouble::AWAY, reach == Reach::Away);
        self.set_trouble(trouble::FULL, reach == Reach::Full);
    }

    fn set_trouble(&self, bit: u8, is_so: bool) {
        // Most often it is so already, and nothing is written that others look at.
        if (self.trouble.load(Ordering::Relaxed) & bit != 0) == is_so {
            return;
        }
        if is_so {
            self.trouble.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.trouble.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// What could not be stored is gone (a login that was refused, say): nothing is left whose commit would show that the
    /// trouble is over, and the next login finds out.
    pub(super) fn is_clean(&self) {
        if self.dirty_records() == 0 && self.commits_fail() {
            self.takes_commits(true);
        }
    }

    /// The store refuses or does not answer: what is dirty is tried again.
    #[must_use]
    pub fn commits_fail(&self) -> bool {
        self.trouble.load(Ordering::Relaxed) & trouble::COMMITS_FAIL != 0
    }

    /// Whether what is acked now may be lost with this process alone, or to another home.
    #[must_use]
    pub fn is_provisional(&self) -> bool {
        self.trouble.load(Ordering::Relaxed) != 0
    }

    /// Whether its server is known not to answer: its players are served from memory.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.trouble.load(Ordering::Relaxed) & (trouble::AWAY | trouble::LOCAL) != 0
    }

    /// Whether it is served past its lease: its server has been away for long, and nobody waits for it any more.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.trouble.load(Ordering::Relaxed) & trouble::LOCAL != 0
    }

    /// Whether its server is known to take no change, for whatever reason.
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        self.trouble.load(Ordering::Relaxed) & (trouble::AWAY | trouble::FULL | trouble::LOCAL) != 0
    }

    /// What a change hears that is in force and that its server did not take.
    #[must_use]
    pub fn not_stored(&self) -> &'static str {
        match () {
            () if self.is_cut_off() => "the store is away, and has not taken the change yet",
            () if self.is_held_back() => "the store is full, and has not taken the change yet",
            () => "the store has not taken the change yet",
        }
    }

    /// How it is served at this moment. A drain is over in a moment and counts as served: its links are told where to go
    /// rather than that they must wait.
    #[must_use]
    pub fn serving(&self, mono_ms: u64) -> Serving {
        match () {
            () if !self.serves(mono_ms) && !self.is_draining() => Serving::Paused,
            () if self.is_held_back() => Serving::Local,
            () => Serving::Normal,
        }
    }

    /// The fence, if the shard is ours.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        *self.fence.lock()
    }

    /// Whether it is ours, under this epoch still.
    pub(super) fn is_under(&self, epoch: Epoch) -> bool {
        self.fence().is_some_and(|fence| fence.epoch == epoch)
    }

    /// The epoch under which this node holds it, or held it last; zero if it never did. Never falls.
    #[must_use]
    pub fn last_epoch(&self) -> Epoch {
        Epoch::of(self.last_epoch.load(Ordering::Relaxed))
    }

    pub(super) fn set_fence(&self, fence: Option<Fence>) {
        if let Some(fence) = fence {
            self.last_epoch.fetch_max(fence.epoch.number(), Ordering::Relaxed);
        }
        if fence.is_none() {
            // Of a shard that was lost in trouble nothing may be left to commit that would show that the trouble is over.
            self.takes_commits(true);
        }
        *self.fence.lock() = fence;
    }

    /// The next batch's fence: its number is used up by this call.
    pub(super) fn next_batch(&self) -> Option<Fence> {
        let mut fence = self.fence.lock();
        let fence = fence.as_mut()?;
        fence.flush_seq = fence.flush_seq.next();
        Some(*fence)
    }

    /// A batch was acknowledged.
    pub(super) fn acknowledged(&self, batch: &Fence) {
        if let Some(fence) = self.fence.lock().as_mut().filter(|fence| fence.epoch == batch.epoch) {
            fence.flush_seq_acked = fence.flush_seq_acked.max(batch.flush_seq);
        }
    }

    /// The store is ahead of us: numbers go on above it.
    pub(super) fn skip_to(&self, flush_seq: FlushSeq) {
        if let Some(fence) = self.fence.lock().as_mut() {
            fence.flush_seq = fence.flush_seq.max(flush_seq);
        }
    }

    /// A record ended at this version.
    pub(super) fn raise_version_max(&self, version: Version) {
        if let Some(fence) = self.fence.lock().as_mut() {
            fence.version_max = fence.version_max.max(version);
        }
    }

    /// Queues a record that is not queued yet.
    pub(super) fn enqueue(&self, cell: Arc<Cell>, urgent: bool, now_ms: u64) {
        let mut dirty = self.dirty.lock();
        let is_first = dirty.queue.is_empty();
        if is_first {
            dirty.since_ms = now_ms;
        }
        dirty.queue.push_back(cell);
        if urgent {
            dirty.urgent = dirty.queue.len();
        }
        drop(dirty);
        if urgent {
            self.agenda.hurry(self.id, now_ms);
        } else if is_first {
            self.agenda.pace(self.id, now_ms);
        }
    }

    /// Somebody waits for what is queued already.
    pub(super) fn hurry(&self, now_ms: u64) {
        let mut dirty = self.dirty.lock();
        dirty.urgent = dirty.queue.len();
        let hurries = dirty.urgent > 0;
        drop(dirty);
        if hurries {
            self.agenda.hurry(self.id, now_ms);
        }
    }

    /// Plans what is still dirty: at once what was due before or what somebody waits for, the rest in its own time.
    pub(super) fn plan_rest(&self, now_ms: u64) {
        let dirty = self.dirty.lock();
        let (is_urgent, is_due, since_ms) = (dirty.urgent > 0, dirty.due > 0, dirty.since_ms);
        let is_clean = dirty.queue.is_empty();
        drop(dirty);
        match () {
            () if is_clean => {}
            () if is_urgent => self.agenda.hurry(self.id, now_ms),
            () if is_due => self.agenda.go_on(self.id, now_ms),
            () => self.agenda.pace(self.id, since_ms),
        }
    }

    /// A batch has come back; since when the oldest of its records had been dirty. What must go again has been since it
    /// first was.
    pub(super) fn landed(&self, all_settled: bool) -> Option<u64> {
        let mut dirty = self.dirty.lock();
        let since_ms = dirty.flying_since_ms.take();
        if let Some(since_ms) = since_ms.filter(|_| !all_settled && !dirty.queue.is_empty()) {
            dirty.since_ms = dirty.since_ms.min(since_ms);
        }
        since_ms
    }

    /// Takes at most `most` records, the oldest first.
    pub(super) fn take_dirty(&self, most: usize, now_ms: u64) -> Vec<Arc<Cell>> {
        let mut dirty = self.dirty.lock();
        if dirty.due == 0 {
            dirty.due = dirty.queue.len();
        }
        let count = most.min(dirty.queue.len());
        dirty.due = dirty.due.saturating_sub(count);
        dirty.urgent = dirty.urgent.saturating_sub(count);
        if count > 0 {
            dirty.flying_since_ms = Some(dirty.since_ms);
        }
        let taken = dirty.queue.drain(..count).collect();
        if dirty.queue.is_empty() {
            // Between bursts the queue gives its memory back.
            if dirty.queue.capacity() > 1024 {
                dirty.queue = VecDeque::new();
            }
        } else {
            dirty.since_ms = now_ms;
        }
        taken
    }

    /// Puts records back that did not fit, the oldest first again.
    pub(super) fn put_back(&self, cells: Vec<Arc<Cell>>, somebody_waits: bool) {
        let mut dirty = self.dirty.lock();
        dirty.due += cells.len();
        dirty.urgent += if somebody_waits || dirty.urgent > 0 { cells.len() } else { 0 };
        for cell in cells.into_iter().rev() {
            dirty.queue.push_front(cell);
        }
    }

    /// How many records wait for a commit.
    #[must_use]
    pub fn dirty_records(&self) -> usize {
        self.dirty.lock().queue.len()
    }

    /// Since when the oldest of them waits (monotonic ms).
    #[must_use]
    pub fn dirty_since_ms(&self) -> Option<u64> {
        let dirty = self.dirty.lock();
        let waiting = (!dirty.queue.is_empty()).then_some(dirty.since_ms);
        waiting.into_iter().chain(dirty.flying_since_ms).min()
    }

    /// Whether somebody waits for what is dirty.
    pub(super) fn is_urgent(&self) -> bool {
        self.dirty.lock().urgent > 0
    }

    pub(super) fn forget_dirty(&self) {
        *self.dirty.lock() = Dirty::default();
    }

    /// The shard is lost, and who was opened blind with it.
    pub(super) fn forget_blind(&self) {
        *self.blind.lock() = Vec::new();
    }

    /// A record was opened without a look at the store.
    pub(super) fn opened_blind(&self, cell: Arc<Cell>) {
        self.blind.lock().push(cell);
    }

    /// Whether there is such a record.
    pub(super) fn has_blind(&self) -> bool {
        !self.blind.lock().is_empty()
    }

    /// The first `most` of them.
    pub(super) fn blind(&self, most: usize) -> Vec<Arc<Cell>> {
        self.blind.lock().iter().take(most).cloned().collect()
    }

    /// These have been looked at.
    pub(super) fn looked_at(&self, cells: &[Arc<Cell>]) {
        self.blind.lock().retain(|blind| !cells.iter().any(|cell| Arc::ptr_eq(cell, blind)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_epoch_outlives_the_loss_of_the_shard_and_never_falls() {
        let shard = Shard::new(ShardId::FIRST, Arc::new(Agenda::new(1, Duration::from_secs(1))));
        assert_eq!(shard.last_epoch(), Epoch::ZERO);
        let held = |epoch| {
            let (generation, flush_seq, version_max) = Default::default();
            let epoch = Epoch::of(epoch);
            Some(Fence { epoch, generation, flush_seq, flush_seq_acked: flush_seq, version_max })
        };
        for (fence, last) in [(held(7), 7), (None, 7), (held(9), 9), (None, 9)] {
            shard.set_fence(fence);
            assert_eq!(shard.last_epoch(), Epoch::of(last));
        }
        shard.takes_commits(false);
        shard.set_fence(None);
        assert!(!shard.commits_fail(), "a shard that was lost in trouble takes logins when it is held again");
    }

    #[test]
    fn acks_are_provisional_while_anything_is_wrong_with_the_store_and_players_hear_of_what_lasts() {
        let shard = Shard::new(ShardId::FIRST, Arc::new(Agenda::new(1, Duration::from_secs(1))));
        shard.stand(State::Owned, Epoch::of(7), 1_000);
        let looks = || (shard.is_provisional(), shard.is_cut_off(), shard.serving(500));
        assert_eq!(looks(), (false, false, Serving::Normal));
        shard.takes_commits(false);
        assert_eq!(looks(), (true, false, Serving::Normal), "one commit may fail alone");
        assert!(shard.not_stored().starts_with("the store has not"), "{}", shard.not_stored());
        shard.reached(Reach::Full);
        assert_eq!(looks(), (true, false, Serving::Local));
        assert!(shard.not_stored().starts_with("the store is full"), "{}", shard.not_stored());
        shard.reached(Reach::Away);
        assert_eq!(looks(), (true, true, Serving::Local));
        assert!(shard.not_stored().starts_with("the store is away"), "{}", shard.not_stored());
        shard.takes_commits(true);
        assert_eq!(looks(), (false, false, Serving::Normal));
        shard.reached(Reach::Away);
        shard.stand(State::Local, Epoch::of(7), 1_000);
        shard.reached(Reach::Well);
        assert_eq!(looks(), (true, true, Serving::Local), "the lease has not been renewed yet");
        shard.stand(State::Paused, Epoch::of(7), 0);
        assert_eq!(looks(), (false, false, Serving::Paused));
        shard.stand(State::Owned, Epoch::of(7), 1_000);
        assert_eq!(looks(), (false, false, Serving::Normal));
        assert_eq!(shard.serving(1_000), Serving::Paused, "its time is up, whoever has noticed");
        shard.stand(State::Draining, Epoch::of(7), 0);
        assert_eq!(shard.serving(1_000), Serving::Normal);
    }

    #[test]
    fn a_silenced_shard_never_serves_again_and_is_given_to_whoever_asks() {
        let shard = Shard::new(ShardId::FIRST, Arc::new(Agenda::new(1, Duration::from_secs(1))));
        let (generation, flush_seq, version_max) = Default::default();
        let epoch = Epoch::of(7);
        shard.set_fence(Some(Fence {
            epoch,
            generation,
            flush_seq,
            flush_seq_acked: flush_seq,
            version_max,
        }));
        shard.stand(State::Owned, epoch, 5_000);
        assert!(shard.serves(4_999));
        shard.silence();
        assert!(!shard.serves(0));
        shard.stand(State::Owned, epoch, 9_000);
        assert!(!shard.serves(0) && !shard.is_overtaken());
        assert_eq!(shard.overtake(Epoch::of(8)), Some(epoch));
        assert!(shard.is_overtaken());
        shard.stand(State::Owned, Epoch::of(9), 20_000);
        assert!(!shard.serves(0), "not under a newer epoch either");
    }
}
