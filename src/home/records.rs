//! The hot records: the DashMap, its guards and each record's lock, none of which ever leaves this file or crosses an
//! await. Callers pass a closure that works on the pure record; what it changed is found by comparing before and
//! after. Lock order: the map of players, then a record's lock, then what is held for a moment and takes no record: the
//! index of sessions, an edge of who watches whom, a room, a mailbox, a queue of events. Never inside a record's lock:
//! the map of players, nor the rooms' intake, whose holder works on everything that waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::record::{Context, Record, Refusal};
use super::shard::Shard;
use crate::clock::Now;
use crate::events::{Events, PresenceView, RoomsOf};
use crate::ids::{PlayerId, SessionId, Stamp, Version};

/// What became of a change that somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The store has it: since this flight, or since before anybody waited.
    Committed(Option<Flight>),
    /// The shard was lost before the store had it.
    Fenced,
}

/// One batch of a shard on its way to the store and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flight {
    /// When it left.
    pub(super) began: Instant,
    /// How long it was away, with those of other shards that went together with it.
    pub(super) took: Duration,
    /// How many records it carried.
    pub(super) records: usize,
}

/// One hot player. Links hold it; others find it in the map.
pub struct Cell {
    player: PlayerId,
    shard: Arc<Shard>,
    slot: Mutex<Slot>,
}

/// A record with what its flush and its timers need to know.
pub struct Slot {
    /// The record.
    pub(super) record: Record,
    /// The version that the store is known to have; zero = none.
    pub(super) base: Version,
    /// The version of the lists that the store is known to have.
    pub(super) base_lists: Version,
    /// In its shard's dirty queue.
    pub(super) queued: bool,
    /// Write it whatever the store has lost.
    pub(super) restore: bool,
    /// Its filter bits were set in this epoch.
    pub(super) known: bool,
    /// Out of the map: whoever holds it must look again.
    pub(super) gone: bool,
    /// When the store's own expiry was last set (Unix ms).
    pub(super) touched_at: u64,
    /// The expiry under which the store's index has it; zero when this epoch has not put it there, or took it out.
    pub(super) filed_under: u64,
    /// The earliest entry in the timer wheel (Unix ms).
    pub(super) armed_at: u64,
    /// Highest counter of each session that was told as durable; kept small by the sessions' number.
    pub(super) told: Vec<(SessionId, u64)>,
    /// Who waits for a version to be durable.
    pub(super) waiters: Vec<(Version, oneshot::Sender<Durability>)>,
}

/// What a change did to those outside the record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// The version moved: the record must be flushed.
    pub dirty: bool,
    /// What others see now, if that moved.
    pub shown: Option<PresenceView>,
}

/// A result with where the record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied<T> {
    /// What the closure returned.
    pub value: T,
    /// Where the record stands after it.
    pub stamp: Stamp,
}

/// Why a closure was not run or did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CellError {
    /// The record left the map: look again.
    #[error("the record is no longer here")]
    Gone,
    /// The record said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Cell {
    /// A record that was read from the store (`base` > 0) or is new.
    #[must_use]
    pub fn new(player: PlayerId, shard: Arc<Shard>, record: Record, base: Version, now: Now) -> Self {
        let base_lists = record.lists_version;
        let slot = Slot {
            record,
            base,
            base_lists,
            queued: false,
            restore: false,
            known: false,
            gone: false,
            touched_at: now.unix_ms,
            filed_under: 0,
            armed_at: u64::MAX,
            told: Vec::new(),
            waiters: Vec::new(),
        };
        Self { player, shard, slot: Mutex::new(slot) }
    }

    /// Whose.
    #[must_use]
    pub const fn player(&self) -> &PlayerId {
        &self.player
    }

    /// Which shard's.
    #[must_use]
    pub const fn shard(&self) -> &Arc<Shard> {
        &self.shard
    }

    /// Looks at the record.
    pub fn read<T>(&self, look: impl FnOnce(&Record) -> T) -> Option<T> {
        let slot = self.slot.lock();
        (!slot.gone).then(|| look(&slot.record))
    }

    /// Works on the slot; for `home`'s own files.
    pub(super) fn with_slot<T>(&self, work: impl FnOnce(&mut Slot) -> T) -> T {
        work(&mut self.slot.lock())
    }

    /// Carries a command out and says what it did. A refused command must leave the record unchanged. What rooms show
    /// of the player is told to `events` while her lock is held: the order of events is the order of changes.
    pub(super) fn change<T>(
        self: &Arc<Self>,
        ctx: Context<'_>,
        events: &Events,
        command: impl FnOnce(&mut Record, Context<'_>) -> Result<T, Refusal>,
    ) -> Result<(Applied<T>, Effects), CellError> {
        let mut slot = self.slot.lock();
        if slot.gone {
            return Err(CellError::Gone);
        }
        let (version, ver, rooms) = (slot.record.version, slot.record.view.ver, slot.record.rooms_version);
        let outcome = command(&mut slot.record, ctx);
        let effects = Effects {
            dirty: slot.record.version != version,
            shown: (slot.record.view.ver != ver).then(|| slot.record.view.clone()),
        };
        debug_assert!(outcome.is_ok() || !effects.dirty, "a refused command changed the record");
        self.tell_rooms_moved(&slot, rooms, events);
        let enqueue = effects.dirty && !slot.queued;
        slot.queued |= enqueue;
        let stamp = slot.record.stamp();
        drop(slot);
        if enqueue {
            self.shard.enqueue(Arc::clone(self), false, ctx.now.mono_ms);
        }
        Ok((Applied { value: outcome?, stamp }, effects))
    }

    /// Tells which rooms the player is in, if that or what they show has moved since a version; under her lock.
    pub(super) fn tell_rooms_moved(&self, slot: &Slot, since: Version, events: &Events) {
        if slot.record.rooms_version != since {
            events.rooms.put(self.player.clone(), slot.record.in_rooms());
        }
    }

    /// Tells which rooms the player is in, as it stands now: for a record that comes into memory.
    pub(super) fn tell_rooms(&self, events: &Events) {
        let slot = self.slot.lock();
        if !slot.gone && !slot.record.rooms.is_empty() {
            events.rooms.put(self.player.clone(), slot.record.in_rooms());
        }
    }

    /// Tells that her rooms are another home's to say: for a record that has left memory though it lives.
    pub(super) fn tell_rooms_elsewhere(&self, events: &Events) {
        let slot = self.slot.lock();
        if !slot.record.rooms.is_empty() {
            events.rooms.put(self.player.clone(), RoomsOf::Elsewhere);
        }
    }

    /// Waits for the present version to be durable; a commit starts at once.
    pub(super) fn when_durable(self: &Arc<Self>, now_ms: u64) -> oneshot::Receiver<Durability> {
        let (sender, receiver) = oneshot::channel();
        let mut slot = self.slot.lock();
        let version = slot.record.version;
        if slot.gone {
            let _ = sender.send(Durability::Fenced);
            return receiver;
        }
        if slot.base >= version && !slot.restore {
            let _ = sender.send(Durability::Committed(None));
            return receiver;
        }
        slot.waiters.retain(|(_, waiter)| !waiter.is_closed());
        slot.waiters.push((version, sender));
        let enqueue = !std::mem::replace(&mut slot.queued, true);
        drop(slot);
        if enqueue {
            self.shard.enqueue(Arc::clone(self), true, now_ms);
        } else {
            self.shard.hurry(now_ms);
        }
        receiver
    }

    /// Queues the record though its version has not moved: a touch, a repair, an unknown outcome.
    pub(super) fn requeue(self: &Arc<Self>, now_ms: u64) {
        let (queued, urgent) = self.with_slot(|slot| {
            let was = slot.gone || std::mem::replace(&mut slot.queued, true);
            (was, !slot.waiters.is_empty())
        });
        if !queued {
            self.shard.enqueue(Arc::clone(self), urgent, now_ms);
        }
    }
}

/// All hot players and all their sessions.
pub struct Records {
    players: DashMap<PlayerId, Arc<Cell>, ahash::RandomState>,
    sessions: DashMap<SessionId, Arc<Cell>, ahash::RandomState>,
    count: AtomicUsize,
    most: usize,
}

impl Records {
    /// Room for `most` players.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { players: DashMap::default(), sessions: DashMap::default(), count: AtomicUsize::new(0), most }
    }

    /// How many players are hot.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether one more may come, with so many places beyond the limit.
    #[must_use]
    pub fn has_room(&self, reserve: usize) -> bool {
        self.len() < self.most.saturating_add(reserve)
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// A hot player.
    #[must_use]
    pub fn player(&self, player: &PlayerId) -> Option<Arc<Cell>> {
        self.players.get(player).map(|cell| Arc::clone(&cell))
    }

    /// The player of a session.
    #[must_use]
    pub fn session(&self, session: SessionId) -> Option<Arc<Cell>> {
        self.sessions.get(&session).map(|cell| Arc::clone(&cell))
    }

    /// Puts a player in, unless somebody was faster: then hers is returned.
    pub(super) fn insert(&self, cell: Arc<Cell>) -> Arc<Cell> {
        match self.players.entry(cell.player.clone()) {
            Entry::Occupied(mut present) => {
                // What an older epoch left behind is nobody's any more.
                let epoch = cell.slot.lock().record.epoch;
                let mut slot = present.get().slot.lock();
                slot.gone |= slot.record.epoch < epoch;
                let is_stale = slot.gone;
                drop(slot);
                if is_stale {
                    present.insert(Arc::clone(&cell));
                    cell
                } else {
                    Arc::clone(present.get())
                }
            }
            Entry::Vacant(place) => {
                self.count.fetch_add(1, Ordering::Relaxed);
                Arc::clone(&place.insert(cell))
            }
        }
    }

    pub(super) fn index(&self, session: SessionId, cell: &Arc<Cell>) {
        self.sessions.insert(session, Arc::clone(cell));
    }

    pub(super) fn unindex(&self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// Takes a player out if `leave` says so under her lock; from then on the cell is gone.
    pub(super) fn remove_if(&self, player: &PlayerId, leave: impl FnOnce(&mut Slot) -> bool) -> bool {
        let removed = self.players.remove_if(player, |_, cell| {
            let mut slot = cell.slot.lock();
            slot.gone = leave(&mut slot);
            slot.gone
        });
        if removed.is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        removed.is_some()
    }

    /// All cells of a shard. Walks the whole map: for take-over, repair and drain only.
    pub(super) fn of_shard(&self, shard: &Shard) -> Vec<Arc<Cell>> {
        let cells = self.players.iter();
        cells.filter(|cell| cell.shard.id() == shard.id()).map(|cell| Arc::clone(&cell)).collect()
    }

    /// How many cells are so. Walks the whole map: for what happens seldom.
    pub(super) fn count(&self, is_so: impl Fn(&Cell) -> bool) -> usize {
        self.players.iter().filter(|cell| is_so(cell)).count()
    }

    /// All cells. Walks the whole map: for stopping and for statistics on demand.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Cell>> {
        self.players.iter().map(|cell| Arc::clone(&cell)).collect()
    }
}
