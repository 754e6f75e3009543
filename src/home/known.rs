//! The filter of players ever seen, of each shard that is at home here: read at take-over, grown with every first commit,
//! given a new generation as soon as nobody whom the store remembers is in the old one alone, and put back where the store
//! has lost it. It answers looks at players whom nobody ever saw, so that the store is not asked for them; it decides nothing
//! that is written.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Home;
use super::keeper::answered;
use super::shard::Shard;
use crate::clock;
use crate::ids::{Epoch, PlayerId, ShardId};
use crate::store::{Bits, NextGeneration, Rotated, StoredFilter};
use crate::tasks;

/// Kept by a generation beyond all that the store keeps: its clock and this node's may differ.
const MARGIN: Duration = Duration::from_secs(24 * 3600);
/// How often it is looked which generations are old enough.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Barred players a page, when a new generation begins.
const PAGE: usize = 256;

/// The filters, by shard; `None` while the shard is not at home here.
pub(super) struct Known {
    shards: Vec<Mutex<Option<StoredFilter>>>,
    loaded: Notify,
}

impl Known {
    pub(super) fn nothing(shards: u16) -> Self {
        Self { shards: (0..shards).map(|_| Mutex::default()).collect(), loaded: Notify::new() }
    }

    /// A shard's has come with the shard: it is looked at soon.
    pub(super) fn has_come(&self) {
        self.loaded.notify_one();
    }

    fn with<T>(&self, shard: ShardId, work: impl FnOnce(&mut StoredFilter) -> T) -> Option<T> {
        self.shards.get(usize::from(shard.number()))?.lock().as_mut().map(work)
    }

    fn put(&self, shard: ShardId, filter: Option<StoredFilter>) {
        if let Some(place) = self.shards.get(usize::from(shard.number())) {
            *place.lock() = filter;
        }
    }

    /// A player's bits are about to be committed.
    pub(super) fn add(&self, shard: ShardId, player: &PlayerId) {
        self.with(shard, |stored| stored.filter.add(player));
    }

    /// Whether a player was never seen, for sure.
    pub(super) fn denies(&self, shard: ShardId, player: &PlayerId) -> bool {
        self.with(shard, |stored| stored.is_whole && !stored.filter.may_know(player)).unwrap_or(false)
    }

    /// The store may have lost it: what is here is put back with the next look.
    pub(super) fn may_be_lost(&self, shard: ShardId) {
        self.with(shard, |stored| stored.is_begun = false);
    }

    /// The shard is not at home here any more.
    pub(super) fn forget(&self, shard: ShardId) {
        self.put(shard, None);
    }

    /// The share of players never seen whom the fullest filter lets pass.
    fn passes_wrongly(&self) -> f64 {
        let passes =
            |place: &Mutex<Option<StoredFilter>>| Some(place.lock().as_ref()?.filter.passes_wrongly());
        self.shards.iter().filter_map(passes).fold(0.0, f64::max)
    }
}

impl Home {
    /// Reads a shard's filter, and has the store know for how long those are kept who are committed from now on: before
    /// anybody is, for whoever reads it next goes by that. Says whether it is there. Nothing of the shard may be on its way
    /// to the store.
    pub(super) async fn load_known(&self, shard: &Arc<Shard>, epoch: Epoch) -> bool {
        if !self.read_known(shard, epoch).await {
            return false;
        }
        if self.known.with(shard.id(), |stored| self.owes(stored)) != Some(true) {
            return true;
        }
        let asked = self.next_generation(shard).await;
        matches!(asked, Some(Rotated::Rotated | Rotated::Young)) && self.read_known(shard, epoch).await
    }

    async fn read_known(&self, shard: &Arc<Shard>, epoch: Epoch) -> bool {
        let stored = match self.store.load_known(shard.id()).await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::debug!(operation = "load", shard = shard.id().number(), status = %error, "no answer");
                self.faults.leases.note(&error);
                return false;
            }
        };
        if !shard.is_under(epoch) {
            return false;
        }
        self.known.put(shard.id(), Some(stored));
        true
    }

    /// How long a generation counts: longer than the store keeps anybody who is not committed again meanwhile. Who is
    /// barred may be kept longer, and is put into each new one.
    fn generation_ttl(&self) -> Duration {
        let live = self.settings.rules.session_ttl.saturating_mul(2);
        self.settings.remember.max(live).saturating_add(MARGIN)
    }

    /// Whether the store does not know all that the next to read a filter goes by.
    fn owes(&self, stored: &StoredFilter) -> bool {
        !stored.is_begun || stored.keeps_ms < clock::millis(self.generation_ttl())
    }

    /// The task that begins new generations.
    pub(super) async fn run_known(self: Arc<Self>) {
        loop {
            tasks::rest();
            tokio::select! {
                biased;
                () = self.tasks.stopping() => return,
                () = self.known.loaded.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            tasks::beat();
            let ttl_ms = clock::millis(self.generation_ttl());
            for shard in &self.shards {
                let is_due = self.known.with(shard.id(), |stored| {
                    let ttl_ms = ttl_ms.max(stored.old_keeps_ms);
                    let is_over = |since: u64| since.saturating_add(ttl_ms) <= clock::now().unix_ms;
                    self.owes(stored) || stored.since_unix_ms.is_none_or(is_over)
                });
                if is_due == Some(true) && shard.serves(clock::now().mono_ms) {
                    self.rotate_known(shard).await;
                    tasks::beat();
                }
            }
            self.meters.filter_passes(self.known.passes_wrongly());
        }
    }

    async fn rotate_known(&self, shard: &Arc<Shard>) {
        // No batch is under way meanwhile: whoever is committed is in the one generation or in the other.
        let turn = shard.commit_turn.lock().await;
        let Some(fence) = shard.fence() else { return };
        match self.next_generation(shard).await {
            None | Some(Rotated::Fenced) => {}
            // One that is young may be of a call that nobody heard the answer of.
            // By the store's clock, and this node's may be ahead: then it is asked again at the next look.
            Some(Rotated::Rotated | Rotated::Young) if shard.is_under(fence.epoch) => {
                self.records
                    .of_shard(shard)
                    .iter()
                    .for_each(|cell| cell.with_slot(|slot| slot.known = false));
                self.read_known(shard, fence.epoch).await;
            }
            Some(_) => {}
        }
        drop(turn);
        // A batch that fell due meanwhile was turned away.
        shard.plan_rest(clock::now().mono_ms);
    }

    async fn next_generation(&self, shard: &Arc<Shard>) -> Option<Rotated> {
        let (holder, first) = (self.holder(shard)?, self.bits_of_barred(shard).await?);
        let all = self.known.with(shard.id(), |stored| stored.is_whole.then(|| stored.filter.all()));
        let next = NextGeneration { first, all: all.flatten(), keeps: self.generation_ttl() };
        answered(shard, "rotate", self.store.rotate_known(shard.id(), holder, next).await)
    }

    /// Whoever is barred is kept for as long as that lasts, whatever else the store forgets.
    async fn bits_of_barred(&self, shard: &Arc<Shard>) -> Option<Bits> {
        let (mut bits, mut cursor) = (Bits::default(), None);
        loop {
            let page = answered(shard, "rotate", self.store.load_banned(shard.id(), cursor, PAGE).await)?;
            page.records.iter().for_each(|(player, _)| bits.add(player));
            cursor = page.next;
            if cursor.is_none() {
                return Some(bits);
            }
        }
    }
}
