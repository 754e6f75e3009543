//! Reads of players who are not in memory, kept near for a while: only their home changes what is stored of them, and whoever
//! changes is in memory meanwhile. So what is kept is dropped when a record leaves memory, and never wrong; its time is a
//! bound on memory alone. The store is asked once however many ask, and not at all for whom the filter denies.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::meters::ColdMeters;
use super::placement::Placement;
use crate::ids::{Epoch, PlayerId, ShardId, Version};
use crate::near_cache::{Fill, Flight, NearCache, Terms};
use crate::store::{LOAD_PLAYERS_MAX, Store, StoreError, StoredRecord};
use crate::tasks::Tasks;

/// Store calls of all looks that are under way together.
const CALLS_MAX: usize = 64;
/// What is stored of a player: nothing, or her record without her lists.
pub(super) type Stored = Option<Arc<StoredRecord>>;

/// The reads.
pub(super) struct Cold {
    near: Arc<NearCache<PlayerId, Stored>>,
    store: Arc<dyn Store>,
    calls: Semaphore,
    /// Why the last call that failed did.
    failed: Mutex<Option<StoreError>>,
    pub(super) meters: ColdMeters,
    tasks: Tasks,
}

impl Cold {
    pub(super) fn new(terms: Terms, placement: Placement, store: Arc<dyn Store>, tasks: &Tasks) -> Arc<Self> {
        Arc::new(Self {
            near: NearCache::new(terms, move |player| placement.shard_of(player)),
            store,
            calls: Semaphore::new(CALLS_MAX),
            failed: Mutex::default(),
            meters: ColdMeters::new(),
            tasks: tasks.clone(),
        })
    }

    /// What is stored of players of one shard; who is not in the answer cannot be told within this time. The call to the
    /// store goes on without, and what it brings is kept.
    pub(super) async fn read(
        self: &Arc<Self>,
        shard: ShardId,
        players: &[PlayerId],
        within: Duration,
    ) -> HashMap<PlayerId, Stored, ahash::RandomState> {
        let load = |flight: Flight<PlayerId, Stored>| {
            let cold = Arc::clone(self);
            // Bounded by the keys that may be under way.
            self.tasks.spawn("cold", async move { cold.load(shard, flight).await });
        };
        let got = tokio::time::timeout(within, self.near.get(players, 0, load)).await;
        let Ok(got) = got else { return HashMap::default() };
        self.meters.looked(&got);
        got.known.into_iter().map(|(player, cached)| (player, cached.value)).collect()
    }

    async fn load(&self, shard: ShardId, flight: Flight<PlayerId, Stored>) {
        let mut fills = Vec::with_capacity(flight.keys().len());
        for players in flight.keys().chunks(LOAD_PLAYERS_MAX) {
            let Ok(_turn) = self.calls.acquire().await else { return };
            self.meters.asks_store(players.len());
            match self.store.load_players(shard, players.to_vec()).await {
                Ok(loaded) => {
                    let fill = |stored: Option<StoredRecord>| Fill {
                        ver: stored
                            .as_ref()
                            .map_or_else(Default::default, |stored| (stored.epoch, stored.version)),
                        is_negative: stored.is_none(),
                        value: stored.map(|stored| Arc::new(StoredRecord { w: None, ..stored })),
                    };
                    fills.extend(players.iter().cloned().zip(loaded.into_iter().map(fill)));
                }
                Err(error) => *self.failed.lock() = Some(error),
            }
        }
        self.meters.passed_wrongly(fills.iter().filter(|(_, fill)| fill.is_negative).count());
        flight.land(fills);
    }

    /// Why somebody could not be told.
    pub(super) fn why(&self) -> StoreError {
        self.failed.lock().clone().unwrap_or(StoreError::Timeout)
    }

    /// A record has been committed that leaves memory at this version, or never was in it.
    pub(super) fn changed(&self, player: &PlayerId, epoch: Epoch, version: Version) {
        self.near.invalidate(player, (epoch, version));
    }

    /// Whoever is a shard's may be changed by others from now on, or was.
    pub(super) fn forget(&self, shard: ShardId) {
        self.near.forget(shard);
    }
}
