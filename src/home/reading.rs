//! Looking at players without changing them: presence of the hot from memory, of the cold from the store, and what
//! services ask. A player whose home cannot answer is named as unknown, never guessed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use futures_util::StreamExt as _;

use super::record::Record;
use super::record::document::Document;
use super::records::Cell;
use super::{Home, HomeError};
use crate::clock::{self, Now};
use crate::events::{PresenceView, Status};
use crate::ids::{PlayerId, RoomName, SessionId, ShardId};
use crate::store::{RateRequest, RateTaken, StoreError};

/// Players of one shard that one store call may name.
const LOAD_MAX: usize = 256;

/// Store calls of one look that are under way together.
const COLD_LOADS_MAX: usize = 16;

/// Where a look for one player ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// This is what others see.
    Known(PresenceView),
    /// Cannot be told now.
    Unknown,
}

/// What a look into memory came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Glance<T> {
    /// She is in memory.
    Hot(T),
    /// The store must be asked.
    Cold,
    /// Her home cannot answer now.
    Unknown,
}

impl Home {
    /// A hot player, once her shard may answer.
    ///
    /// # Errors
    /// [`HomeError::NotHome`].
    pub async fn find_serving(&self, player: &PlayerId) -> Result<Option<Arc<Cell>>, HomeError> {
        self.serving(self.shard(self.placement.shard_of(player))?).await?;
        Ok(self.records.player(player))
    }

    /// The player of a session, once its shard may answer; `None` when there is no such session.
    ///
    /// # Errors
    /// [`HomeError::NotHome`].
    pub async fn find_session(&self, session: SessionId) -> Result<Option<Arc<Cell>>, HomeError> {
        let Some(shard) = self.shards.get(usize::from(session.shard().number())) else { return Ok(None) };
        self.serving(shard).await?;
        Ok(self.records.session(session))
    }

    /// Whether an answer about this player may leave at this moment; to be asked right before it does.
    ///
    /// # Errors
    /// [`HomeError::NotHome`].
    pub fn may_answer(&self, player: &PlayerId) -> Result<(), HomeError> {
        let shard = self.shard(self.placement.shard_of(player))?;
        if shard.serves(clock::now().mono_ms) { Ok(()) } else { Err(self.not_home()) }
    }

    /// The same about a room.
    ///
    /// # Errors
    /// [`HomeError::NotHome`].
    pub fn may_answer_for(&self, room: &RoomName) -> Result<(), HomeError> {
        let shard = self.shard(self.placement.shard_of_room(room))?;
        if shard.serves(clock::now().mono_ms) { Ok(()) } else { Err(self.not_home()) }
    }

    /// A real write and a real read through the store; how long both took.
    ///
    /// # Errors
    /// [`StoreError`], also when the deadline passed.
    pub async fn probe_store(&self, deadline: Duration) -> Result<Duration, StoreError> {
        tokio::time::timeout(deadline, self.store.probe()).await.unwrap_or(Err(StoreError::Timeout))
    }

    /// Takes a part of a limit that holds for the cluster as a whole.
    ///
    /// # Errors
    /// [`StoreError`], also when the deadline passed: what was taken then is lost.
    pub async fn take_rate(&self, asked: RateRequest, deadline: Duration) -> Result<RateTaken, StoreError> {
        tokio::time::timeout(deadline, self.store.rate(asked)).await.unwrap_or(Err(StoreError::Timeout))
    }

    /// What operators have said of the cluster as a whole; takes it back with `None`.
    ///
    /// # Errors
    /// [`StoreError`]: the store does not have it.
    pub async fn set_notice(&self, notice: Option<Bytes>) -> Result<(), StoreError> {
        self.store.set_notice(notice).await
    }

    /// What kind of store this node stands on.
    #[must_use]
    pub fn store_kind(&self) -> &'static str {
        self.store.kind()
    }

    /// A hot player.
    #[must_use]
    pub fn find(&self, player: &PlayerId) -> Option<Arc<Cell>> {
        self.records.player(player)
    }

    /// What others see of a player who is in memory; `None` when the store must be asked.
    #[must_use]
    pub fn presence_hot(&self, player: &PlayerId) -> Option<Lookup> {
        match self.glance(player, clock::now(), PresenceView::clone) {
            Glance::Hot(view) => Some(Lookup::Known(view)),
            Glance::Unknown => Some(Lookup::Unknown),
            Glance::Cold => None,
        }
    }

    /// Looks at what others see of a player who is in memory, without a copy; for those who ask about many. `look`
    /// runs under the record's lock: it must be short.
    pub fn glance<T>(&self, player: &PlayerId, now: Now, look: impl FnOnce(&PresenceView) -> T) -> Glance<T> {
        match self.shard(self.placement.shard_of(player)) {
            Ok(shard) if shard.serves(now.mono_ms) => {}
            _ => return Glance::Unknown,
        }
        let seen = self.records.player(player).and_then(|cell| cell.read(|record| look(&record.view)));
        seen.map_or(Glance::Cold, Glance::Hot)
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
        let mut loads = futures_util::stream::iter(loads).buffer_unordered(COLD_LOADS_MAX);
        while let Some((players, loaded)) = loads.next().await {
            match loaded {
                Ok(records) => {
                    found.extend(players.into_iter().zip(records).map(|(player, stored)| {
                        // Whoever logged in meanwhile is told as she is now.
                        let lookup = self
                            .presence_hot(&player)
                            .unwrap_or_else(|| self.presence_stored(&player, stored.as_ref()));
                        (player, lookup)
                    }));
                }
                Err(_) => found.extend(players.into_iter().map(|player| (player, Lookup::Unknown))),
            }
        }
        found
    }

    /// What others see of somebody who is not here: as if she had just left, so that nobody can tell cold from hidden.
    fn presence_stored(&self, player: &PlayerId, stored: Option<&crate::store::StoredRecord>) -> Lookup {
        let epoch = self.shard(self.placement.shard_of(player)).ok().and_then(|shard| shard.fence());
        match (stored.map(Record::decode), epoch) {
            (None, _) => Lookup::Known(PresenceView::default()),
            (Some(Ok(mut record)), Some(fence)) => {
                record.take_over(fence.epoch);
                Lookup::Known(offline(record.view))
            }
            (Some(_), _) => Lookup::Unknown,
        }
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
    // A live record that is not in memory had ended here: its commit is what the store lost.
    record.sessions.clear();
    record.state = Document::default();
    record.view = offline(record.view);
    Ok(record)
}

fn offline(view: PresenceView) -> PresenceView {
    PresenceView { status: Status::Offline, activity: None, devices: Vec::new(), ..view }
}
