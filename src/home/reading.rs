//! Looking at players without changing them: presence of the hot from memory, of the cold from the store, and what
//! services ask. A player whose home cannot answer is named as unknown, never guessed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::record::Record;
use super::record::document::Document;
use super::records::Cell;
use super::{Home, HomeError};
use crate::clock::{self, Now};
use crate::events::{PresenceView, Status};
use crate::ids::{PlayerId, RoomName, SessionId, ShardId};
use crate::store::{RateRequest, RateTaken, StoreError, StoredRecord};

/// How long those who can wait do so for the store: as long as one call to it may take by default.
pub const COLD_WITHIN: Duration = Duration::from_secs(1);

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

    /// What others see of players who are not in memory: nothing for whom nobody ever saw, the others from their
    /// remainders, one store call a shard at most. Whom the store does not tell within this time cannot be told.
    pub async fn presence_cold(&self, players: &[PlayerId], within: Duration) -> Vec<(PlayerId, Lookup)> {
        let mut by_shard: HashMap<ShardId, Vec<PlayerId>> = HashMap::new();
        let mut found = Vec::with_capacity(players.len());
        for player in players {
            let shard = self.placement.shard_of(player);
            if self.known.denies(shard, player) {
                // Whoever came just now is told as she is.
                let never = || Lookup::Known(PresenceView::default());
                found.push((player.clone(), self.presence_hot(player).unwrap_or_else(never)));
            } else {
                by_shard.entry(shard).or_default().push(player.clone());
            }
        }
        self.cold.meters.filtered(found.len());
        let reads = by_shard.into_iter().map(|(shard, players)| async move {
            let mut read = self.cold.read(shard, &players, within).await;
            let lookup = |player: PlayerId| {
                let stored = read.remove(&player);
                // Whoever logged in meanwhile is told as she is now.
                let lookup = self.presence_hot(&player).unwrap_or_else(|| match stored {
                    Some(stored) => self.presence_stored(&player, stored.as_deref()),
                    None => Lookup::Unknown,
                });
                (player, lookup)
            };
            players.into_iter().map(lookup).collect::<Vec<_>>()
        });
        found.extend(futures_util::future::join_all(reads).await.into_iter().flatten());
        found
    }

    /// What others see of somebody who is not here: as if she had just left, so that nobody can tell cold from hidden.
    fn presence_stored(&self, player: &PlayerId, stored: Option<&StoredRecord>) -> Lookup {
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
        let stored = if self.known.denies(shard.id(), player) {
            self.cold.meters.filtered(1);
            None
        } else {
            let mut read = self.cold.read(shard.id(), std::slice::from_ref(player), COLD_WITHIN).await;
            read.remove(player).ok_or_else(|| HomeError::Store(self.cold.why()))?
        };
        // Whoever came meanwhile is told as she is now.
        if let Some(record) = self.records.player(player).and_then(|cell| cell.read(Record::clone)) {
            return Ok(Some(record));
        }
        stored.map(|stored| read_cold(&stored, shard)).transpose()
    }
}

fn read_cold(stored: &StoredRecord, shard: &super::shard::Shard) -> Result<Record, HomeError> {
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
