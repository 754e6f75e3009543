//! Whether replicas of the store have what was committed: the strongest ack. Asked after the commit, so that nothing else
//! waits for replicas.

use super::records::Cell;
use super::{Home, HomeError};
use crate::ids::{PlayerId, Stamp};
use crate::store::CommittedUpTo;

impl Home {
    /// Whether enough replicas follow the store that holds this player.
    ///
    /// # Errors
    /// [`HomeError::Store`] when the store does not say.
    pub async fn has_replicas(&self, player: &PlayerId) -> Result<bool, HomeError> {
        self.store.has_replicas(self.placement.shard_of(player)).await.map_err(HomeError::Store)
    }

    /// Waits until replicas have a change that was made at `stamp` and is committed.
    ///
    /// # Errors
    /// [`HomeError::NotReplicated`] when too few do in time, or when that cannot be known.
    pub async fn replicated(&self, cell: &Cell, stamp: Stamp) -> Result<(), HomeError> {
        // Under another epoch the store may have gone back behind the change, and be on the way to getting it again.
        let fence = cell.shard().fence().filter(|fence| fence.epoch == stamp.epoch);
        let fence = fence.ok_or(HomeError::NotReplicated)?;
        let upto = CommittedUpTo {
            shard: cell.shard().id(),
            epoch: fence.epoch,
            generation: fence.generation,
            flush_seq: fence.flush_seq_acked,
        };
        match self.store.replicated(upto).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(HomeError::NotReplicated),
            Err(error) => {
                tracing::debug!(operation = "replicated", shard = upto.shard.number(), status = %error, "unknown");
                Err(HomeError::NotReplicated)
            }
        }
    }
}
