//! Looking at players without changing them: presence of the hot from memory, of the cold from the store, and what
//! services ask. A player whose home cannot answer is named as unknown, never guessed.

use std::collections::HashMap;
use std::sync::Arc;

use super::record::Record;
use super::records::Cell;
use super::{Home, HomeError};
use crate::clock;
use crate::events::PresenceView;
use crate::ids::{PlayerId, ShardId};

/// Players of one shard that one store call may name.
const LOAD_MAX: usize = 256;

/// Where a look for one player ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// This is what others see.
    Known(PresenceView),
    /// Cannot be told now.
    Unknown,
}

impl Home {
    /// A hot player.
    #[must_use]
    pub fn find(&self, player: &PlayerId) -> Option<Arc<Cell>> {
        self.records.player(player)
    }

    /// What others see of a player who is in memory; `None` when the store must be asked.
    #[must_use]
    pub fn presence_hot(&self, player: &PlayerId) -> Option<Lookup> {
        let shard = self.shard(self.placement.shard_of(player)).ok()?;
        if !shard.serves(clock::now().mono_ms) {
            return Some(Lookup::Unknown);
        }
        self.records.player(player)?.read(|record| Lookup::Known(record.view.clone()))
    }

    /// What others see of players who are not in memory: from their remainders, one store call a shard.
    pub async fn presence_cold(&self, players: &[PlayerId]) -> Vec<(PlayerId, Lookup)> {
        let mut by_shard: HashMap<ShardId, Vec<PlayerId>> = HashMap::new();
        for player in players {
            by_shard.entry(self.placement.shard_of(player)).or_default().push(player.clone());
        }
        let mut found = Vec::with_capacity(players.len());
        let loads = by_shard.into_iter().flat_map(|(shard, players)| {
            players.chunks(LOAD_MAX).map(|chunk| (shard, chunk.to_vec())).collect::<Vec<_>>()
        });
        let loads = loads.map(|(shard, players)| async move {
            let loaded = self.store.load_players(shard, players.clone()).await;
            (players, loaded)
        });
        for (players, loaded) in futures_util::future::join_all(loads).await {
            match loaded {
                Ok(records) => {
                    found.extend(players.into_iter().zip(records).map(|(player, stored)| {
                        // Whoever logged in meanwhile is told as she is now.
                        let lookup = self.presence_hot(&player).unwrap_or_else(|| cold_view(stored.as_ref()));
                        (player, lookup)
                    }));
                }
                Err(_) => found.extend(players.into_iter().map(|player| (player, Lookup::Unknown))),
            }
        }
        found
    }

    /// A player's whole record for a service, hot or cold; `None` for one who was never here (or is forgotten).
    ///
    /// # Errors
    /// [`HomeError::NotHome`], [`HomeError::Store`], [`HomeError::Corrupt`].
    pub async fn look(&self, player: &PlayerId) -> Result<Option<Record>, HomeError> {
        let shard = self.shard(self.placement.shard_of(player))?;
        self.serving(shard).await?;
        if let Some(record) = self.records.player(player).and_then(|cell| cell.read(Record::clone)) {
            return Ok(Some(record));
        }
        let loaded =
            self.store.load_players(shard.id(), vec![player.clone()]).await.map_err(HomeError::Store)?;
        loaded.into_iter().next().flatten().map(|stored| read_cold(&stored, shard)).transpose()
    }
}

fn read_cold(stored: &crate::store::StoredRecord, shard: &super::shard::Shard) -> Result<Record, HomeError> {
    let mut record = Record::decode(stored).map_err(|_| HomeError::Corrupt)?;
    if let Some(fence) = shard.fence() {
        record.take_over(fence.epoch);
    }
    record.sessions.clear();
    Ok(record)
}

fn cold_view(stored: Option<&crate::store::StoredRecord>) -> Lookup {
    match stored.map(Record::decode) {
        None => Lookup::Known(PresenceView::default()),
        Some(Ok(record)) => Lookup::Known(PresenceView {
            status: crate::events::Status::Offline,
            activity: None,
            devices: Vec::new(),
            ..record.view
        }),
        Some(Err(_)) => Lookup::Unknown,
    }
}
