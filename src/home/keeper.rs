//! The thin shell around the lease machines: one task ticks every shard's machine, sends what it asks for to the store
//! and hands the answers back. A shard stops answering before anything else happens to it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::Home;
use super::history::Verdict;
use super::lease::{Action, Event, Lease, State};
use super::record::Record;
use super::records::{Cell, Durability};
use super::shard::{Fence, Shard};
use crate::clock;
use crate::events::{LinkEnd, RollbackNotice};
use crate::ids::{Epoch, PlayerId, ShardId, Stamp};
use crate::store::{
    AcquireRequest, COMMIT_RECORDS_MAX, Committed, Grant, LOAD_PLAYERS_MAX, LivePage, Renewed, StoreError,
    StoredRecord,
};

/// How often the machines tick.
const TICK: Duration = Duration::from_millis(50);
/// Live records a page of a load.
const LOAD_PAGE: usize = 256;
/// How long the store is left alone before what it could not take or tell after a loss is tried again.
const MEND_AGAIN: Duration = Duration::from_secs(1);

type Call = Pin<Box<dyn Future<Output = (usize, Option<Event>)> + Send>>;

/// All leases of this node, and the calls under way: at most one lease call and one piece of work a shard.
struct Keeper {
    home: Arc<Home>,
    leases: Vec<Lease>,
    /// Whether a shard was last told to serve.
    told_serving: Vec<bool>,
    calls: FuturesUnordered<Call>,
    is_troubled: bool,
}

impl Home {
    /// The task.
    pub(super) async fn run_keeper(self: Arc<Self>, mut reports: mpsc::Receiver<(ShardId, Event)>) {
        let ttl_ms = super::record::millis(self.settings.lease_ttl);
        let now_ms = clock::now().mono_ms;
        let mut keeper = Keeper {
            home: Arc::clone(&self),
            leases: self.shards.iter().map(|_| Lease::new(ttl_ms, now_ms)).collect(),
            told_serving: vec![false; self.shards.len()],
            calls: FuturesUnordered::new(),
            is_troubled: false,
        };
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.tasks.stopping() => return,
                // Bad news first: a tick must not let a shard answer that a batch has found lost.
                Some((shard, event)) = reports.recv() => keeper.step(usize::from(shard.number()), event),
                _ = ticks.tick() => keeper.tick(),
                Some((at, event)) = keeper.calls.next() => {
                    if let Some(event) = event {
                        keeper.step(at, event);
                    }
                }
            }
        }
    }
}

impl Keeper {
    fn tick(&mut self) {
        let now_ms = clock::now().mono_ms;
        for at in 0..self.leases.len() {
            let Some(lease) = self.leases.get_mut(at) else { continue };
            let action = lease.tick(now_ms);
            self.publish(at);
            self.act(at, action);
        }
        self.tell_trouble();
        self.home.meters.lease_states(self.leases.iter().map(Lease::state));
        let dirty = self.home.shards.iter().map(|shard| shard.dirty_records()).sum();
        self.home.meters.records(self.home.records.len(), dirty);
    }

    /// One line when shards begin to miss their store, and one when all are back; each shard's own story is at debug.
    fn tell_trouble(&mut self) {
        let troubled =
            |lease: &&Lease| matches!(lease.state(), State::Unsure | State::Paused | State::Repair);
        let count = self.leases.iter().filter(troubled).count();
        if (count > 0) != self.is_troubled {
            self.is_troubled = count > 0;
            if self.is_troubled {
                tracing::warn!(
                    operation = "lease",
                    shards = count,
                    "the store does not answer, or has lost writes"
                );
            } else {
                tracing::info!(operation = "lease", "all shards have their store again");
            }
        }
    }

    fn step(&mut self, at: usize, event: Event) {
        let Some(lease) = self.leases.get_mut(at) else { return };
        let before = lease.state();
        let action = lease.on(event, clock::now().mono_ms, rand::random());
        let (after, epoch) = (lease.state(), lease.epoch());
        if before != after {
            tracing::debug!(operation = "lease", shard = at, %epoch, from = before.name(), to = after.name());
        }
        if !matches!(action, Some(Action::Restore(_))) {
            self.publish(at);
        }
        self.act(at, action);
        self.publish(at);
    }

    /// Says until when the shard may answer.
    fn publish(&mut self, at: usize) {
        let (Some(lease), Some(shard), Some(told)) =
            (self.leases.get(at), self.home.shards.get(at), self.told_serving.get_mut(at))
        else {
            return;
        };
        shard.serve_until(lease.serving_until_ms());
        shard.set_lease(lease.state(), lease.epoch());
        // Compared with what was told last, not with the shard: that one stops serving by itself when time is up.
        let serving = lease.serving_until_ms() > 0;
        if std::mem::replace(told, serving) != serving {
            self.home.events.mode.put((), serving);
        }
    }

    fn act(&mut self, at: usize, action: Option<Action>) {
        let Some(shard) = self.home.shards.get(at).map(Arc::clone) else { return };
        let home = Arc::clone(&self.home);
        let call: Call = match action {
            None => return,
            Some(Action::Acquire { floor }) => Box::pin(async move {
                let sent_at_ms = clock::now().mono_ms;
                let answer = answered(&shard, "acquire", home.acquire(&shard, floor).await);
                (at, Some(Event::Acquired { sent_at_ms, answer }))
            }),
            Some(Action::Renew) => Box::pin(async move { (at, Some(home.renew(&shard).await)) }),
            Some(Action::Load(grant)) => Box::pin(async move {
                let complete = home.load(&shard, &grant).await;
                (at, Some(Event::Loaded { epoch: grant.epoch, complete }))
            }),
            Some(Action::Restore(grant)) => {
                home.restore(&shard, &grant);
                Box::pin(async move {
                    home.mend_store(&shard, grant.epoch).await;
                    (at, None)
                })
            }
            Some(Action::Free) => {
                let cells = home.free(&shard);
                Box::pin(async move {
                    home.tell_fenced(cells).await;
                    (at, Some(Event::Freed))
                })
            }
        };
        self.calls.push(call);
    }
}

/// The answer, if there was one; an error is logged and means unknown.
fn answered<T>(shard: &Shard, operation: &'static str, answer: Result<T, StoreError>) -> Option<T> {
    answer
        .inspect_err(
            |error| tracing::warn!(operation, shard = shard.id().number(), status = %error, "lease call"),
        )
        .ok()
}

impl Home {
    async fn acquire(&self, shard: &Shard, floor: Epoch) -> Result<crate::store::Acquired, StoreError> {
        let request = AcquireRequest {
            shard: shard.id(),
            owner: self.owner.clone(),
            ttl: self.settings.lease_ttl,
            floor,
            generation_if_new: crate::ids::Generation::of(rand::random::<u64>() >> 12),
        };
        self.store.lease_acquire(request).await
    }

    async fn renew(&self, shard: &Shard) -> Event {
        let sent_at_ms = clock::now().mono_ms;
        let Some(fence) = shard.fence() else {
            return Event::Renewed { sent_at_ms, answer: None, consistent: true };
        };
        let ttl = self.settings.lease_ttl;
        let call = self.store.lease_renew(shard.id(), &self.owner, fence.epoch, ttl);
        // A sixth of the TTL: a late answer is no answer.
        let answer = tokio::time::timeout(ttl / 6, call).await.unwrap_or(Err(StoreError::Timeout));
        let answer = answered(shard, "renew", answer);
        let consistent = match answer {
            Some(
                Renewed::Renewed { flush_seq, generation } | Renewed::Regranted { flush_seq, generation },
            ) => {
                self.settings.lost_writes_unchecked
                    || (flush_seq >= fence.flush_seq_acked && generation == fence.generation)
            }
            _ => true,
        };
        Event::Renewed { sent_at_ms, answer, consistent }
    }

    /// Reads the shard's live records into memory, under the new epoch; says whether all are there.
    async fn load(&self, shard: &Arc<Shard>, grant: &Grant) -> bool {
        shard.set_fence(Some(Fence::of(grant)));
        let mut cursor = None;
        loop {
            match self.store.load_live(shard.id(), cursor, LOAD_PAGE).await {
                Ok(_) if shard.fence().is_none_or(|fence| fence.epoch != grant.epoch) => return false,
                Ok(page) => {
                    if page.missing > 0 {
                        tracing::warn!(
                            operation = "load",
                            shard = shard.id().number(),
                            missing = page.missing
                        );
                    }
                    self.take_in(shard, grant, page.records);
                    cursor = page.next;
                    if cursor.is_none() {
                        return self.load_bans(shard, grant).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(operation = "load", shard = shard.id().number(), status = %error);
                    return false;
                }
            }
        }
    }

    /// Reads the shard's bans into memory; says whether all are there.
    async fn load_bans(&self, shard: &Arc<Shard>, grant: &Grant) -> bool {
        let mut cursor = None;
        loop {
            let page = match self.store.load_banned(shard.id(), cursor, LOAD_PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(operation = "load", shard = shard.id().number(), status = %error);
                    return false;
                }
            };
            if shard.fence().is_none_or(|fence| fence.epoch != grant.epoch) {
                return false;
            }
            let now = clock::now();
            for (player, stored) in page.records {
                match Record::decode(&stored) {
                    Ok(record) => self.hold_ban(shard, &player, &record, now),
                    Err(error) => {
                        tracing::error!(operation = "load", %player, status = %error, "a ban cannot be read");
                    }
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return true;
            }
        }
    }

    fn take_in(&self, shard: &Arc<Shard>, grant: &Grant, records: Vec<(PlayerId, StoredRecord)>) {
        let now = clock::now();
        for (player, stored) in records {
            match Record::decode(&stored) {
                Ok(mut record) => {
                    record.take_over(grant.epoch);
                    record.detach_all(now);
                    let sessions: Vec<_> = record.sessions.iter().map(|session| session.id).collect();
                    let cell = Arc::new(Cell::new(player, Arc::clone(shard), record, stored.version, now));
                    let cell = self.records.insert(cell);
                    sessions.into_iter().for_each(|session| self.records.index(session, &cell));
                    self.arm(&cell, now);
                    cell.tell_rooms(&self.events);
                }
                Err(error) => {
                    tracing::error!(operation = "load", %player, status = %error, "a record cannot be read");
                }
            }
        }
    }

    /// The store lost writes: every hot record is held under the new epoch and goes out again, whatever is stored.
    fn restore(&self, shard: &Arc<Shard>, grant: &Grant) {
        tracing::warn!(operation = "repair", shard = shard.id().number(), epoch = %grant.epoch, "the store lost writes");
        shard.set_fence(Some(Fence::of(grant)));
        shard.forget_dirty();
        let now_ms = clock::now().mono_ms;
        for cell in self.records.of_shard(shard) {
            cell.with_slot(|slot| {
                slot.record.take_over(grant.epoch);
                (slot.restore, slot.known, slot.queued) = (true, false, false);
            });
            cell.requeue(now_ms);
        }
        shard.hurry(now_ms);
        self.meters.repaired();
    }

    /// What a store that lost writes says of those who are not in memory is put right: tried until the store has taken
    /// it all, for it has just been in trouble, or until the shard is taken anew.
    async fn mend_store(&self, shard: &Arc<Shard>, epoch: Epoch) {
        let (mut ghosts_ended, mut bans) = (false, self.bans.of_shard(shard.id(), clock::now().unix_ms));
        while shard.is_under(epoch) {
            ghosts_ended = ghosts_ended || self.end_ghosts(shard, epoch).await;
            bans = self.put_back_bans(shard, bans).await;
            if ghosts_ended && bans.is_empty() {
                return;
            }
            tokio::time::sleep(MEND_AGAIN).await;
        }
    }

    /// Ends what the store lists as live and memory does not hold: a store that went back brings ended sessions back.
    /// Says whether all are ended.
    async fn end_ghosts(&self, shard: &Arc<Shard>, epoch: Epoch) -> bool {
        let agreed = answered(shard, "repair", self.store.agree_config(self.cluster.clone()).await);
        let (mut all, mut cursor) = (agreed.is_some(), None);
        while shard.is_under(epoch) {
            let page = self.store.load_live(shard.id(), cursor, COMMIT_RECORDS_MAX).await;
            let Some(page) = answered(shard, "repair", page) else { return false };
            cursor = page.next.clone();
            all &= self.shrink_ghosts(shard, page).await;
            // A batch of its own that fell due meanwhile was turned away.
            shard.plan_rest(clock::now().mono_ms);
            if cursor.is_none() {
                break;
            }
        }
        all
    }

    async fn shrink_ghosts(&self, shard: &Arc<Shard>, page: LivePage) -> bool {
        let _turn = shard.commit_turn.lock().await;
        let Some(fence) = shard.next_batch() else { return false };
        let now = clock::now();
        // Who is banned ends with her ban put back: a remainder made of what is stored would lack it.
        let is_ghost = |player: &PlayerId| {
            self.records.player(player).is_none() && self.bans.of_player(player, now.unix_ms).is_none()
        };
        let records: Vec<_> = page
            .records
            .into_iter()
            .filter(|(player, _)| is_ghost(player))
            .filter_map(|(player, stored)| self.remainder_of(player, &stored, fence.epoch, now))
            .collect();
        if records.is_empty() {
            return true;
        }
        let commit = self.batch(shard, &fence, records);
        // Whoever is not written for a reason of her own is found by her expiry.
        matches!(answered(shard, "repair", self.store.commit(commit).await), Some(Committed::Done(_)))
    }

    /// Lets a shard's memory go; those who wait are told.
    fn free(&self, shard: &Arc<Shard>) -> Vec<Arc<Cell>> {
        shard.serve_until(0);
        shard.set_fence(None);
        shard.forget_dirty();
        self.bans.forget_shard(shard.id());
        let cells = self.records.of_shard(shard);
        for cell in &cells {
            self.records.remove_if(cell.player(), |slot| {
                for (_, waiter) in slot.waiters.drain(..) {
                    let _ = waiter.send(Durability::Fenced);
                }
                true
            });
            cell.with_slot(|slot| {
                slot.record.sessions.iter().for_each(|session| self.records.unindex(session.id))
            });
            cell.tell_rooms(&self.events);
        }
        cells
    }

    /// Tells the links of a lost shard what survived, as far as the store can say, and closes them.
    async fn tell_fenced(&self, cells: Vec<Arc<Cell>>) {
        for cells in cells.chunks(LOAD_PLAYERS_MAX) {
            let Some(shard) = cells.first().map(|cell| cell.shard().id()) else { return };
            let players = cells.iter().map(|cell| cell.player().clone()).collect();
            let loaded = self.store.load_players(shard, players).await.unwrap_or_default();
            let stored = loaded.into_iter().chain(std::iter::repeat(None));
            for (cell, stored) in cells.iter().zip(stored) {
                self.tell_one_fenced(cell, stored.as_ref());
            }
        }
    }

    fn tell_one_fenced(&self, cell: &Cell, stored: Option<&StoredRecord>) {
        let (from, sessions) = cell.with_slot(|slot| {
            let sessions = std::mem::take(&mut slot.record.sessions);
            (slot.record.stamp(), sessions)
        });
        let survived = stored.and_then(|stored| Record::decode(stored).ok());
        for session in sessions {
            let rolled_back = match &survived {
                None => Some(RollbackNotice { from, to: None, cseq: 0 }),
                Some(record) => rollback(record, from, session.id, session.cseq),
            };
            self.events.sessions.update(session.id, |event| {
                (event.rolled_back, event.link_end) = (rolled_back, Some(LinkEnd::Moved));
                event.watched = session.watches;
            });
        }
    }
}

/// What a session whose home was lost has to be told, if the stored record lies behind what she was acked.
fn rollback(
    record: &Record,
    from: Stamp,
    session: crate::ids::SessionId,
    cseq: u64,
) -> Option<RollbackNotice> {
    let survived = record.session(session).map_or(0, |session| session.cseq.min(cseq));
    match record.history.judge(record.stamp(), from) {
        Verdict::Reached => None,
        // Stored under our own epoch, but not all of it.
        Verdict::Behind => Some(RollbackNotice { from, to: Some(record.stamp()), cseq: survived }),
        Verdict::RolledBack(to) => Some(RollbackNotice { from, to: Some(to), cseq: survived }),
        // The store has not seen our epoch: what it holds is what we inherited, at most.
        Verdict::Unknown if from.version > record.version => {
            Some(RollbackNotice { from, to: Some(record.stamp()), cseq: survived })
        }
        Verdict::Unknown => None,
    }
}
