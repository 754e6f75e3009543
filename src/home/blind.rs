//! Records that were opened while the store was away: nobody could look whether it holds one of that player. They are
//! looked at as soon as it is back, before anything of their shard is committed: a remainder of this very epoch would
//! else be written over, and what it says of revoked tokens and of former epochs be lost. Called by `opening` and `keeper`.

use std::sync::Arc;

use super::Home;
use super::record::Record;
use super::records::Cell;
use super::shard::Shard;
use crate::clock;
use crate::store::{LOAD_PLAYERS_MAX, StoredRecord};

impl Home {
    /// Looks at all records of a shard that were opened without; whatever cannot be read now is tried again.
    pub(super) async fn look_back(&self, shard: &Arc<Shard>) {
        // One at a time, and never beside a batch.
        let Ok(_turn) = shard.commit_turn.try_lock() else { return };
        loop {
            let cells = shard.blind(LOAD_PLAYERS_MAX);
            let Some(fence) = shard.fence().filter(|_| !cells.is_empty()) else { break };
            let players = cells.iter().map(|cell| cell.player().clone()).collect();
            let loaded = match self.store.load_players(shard.id(), players).await {
                Ok(loaded) if shard.is_under(fence.epoch) => loaded,
                Ok(_) => return,
                Err(error) => {
                    tracing::debug!(operation = "look_back", shard = shard.id().number(), status = %error);
                    return;
                }
            };
            let stored = loaded.into_iter().chain(std::iter::repeat(None));
            for (cell, stored) in cells.iter().zip(stored) {
                if let Some(stored) = stored {
                    self.found(cell, &stored);
                }
            }
            shard.looked_at(&cells);
        }
        shard.plan_rest(clock::now().mono_ms);
    }

    /// The store holds a record of a player who was let in without it.
    fn found(&self, cell: &Arc<Cell>, stored: &StoredRecord) {
        let now = clock::now();
        let Ok(mut before) = Record::decode(stored) else {
            tracing::error!(operation = "look_back", player = %cell.player(), "the stored record cannot be read");
            return;
        };
        // A live record that was not in memory had ended here: its commit is what the store lost.
        before.end_all(self.context(now));
        self.merge_into(cell, before, stored.version, now);
    }
}
