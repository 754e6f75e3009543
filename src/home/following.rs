//! The events of all shards, wherever their homes are, read from the store for those who follow them. Called by `service`.

use tokio::sync::watch;

use super::{Home, HomeError};
use crate::ids::ShardId;
use crate::store::{EventPlace, EventsRead};

impl Home {
    /// Events behind a place in each of these shards, as [`crate::store::Store::events_after`].
    ///
    /// # Errors
    /// [`HomeError::Store`].
    pub async fn events_after(&self, after: Vec<(ShardId, EventPlace)>) -> Result<EventsRead, HomeError> {
        self.store.events_after(after).await.map_err(HomeError::Store)
    }

    /// The place of the last event of each of these shards, as [`crate::store::Store::events_last`].
    ///
    /// # Errors
    /// [`HomeError::Store`].
    pub async fn events_last(&self, shards: Vec<ShardId>) -> Result<Vec<Option<EventPlace>>, HomeError> {
        self.store.events_last(shards).await.map_err(HomeError::Store)
    }

    /// Changes whenever this node has written events.
    #[must_use]
    pub fn events_written(&self) -> watch::Receiver<()> {
        self.events_written.subscribe()
    }
}
