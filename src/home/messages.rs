//! Messages that wait for a player until her client has seen them: kept in the store behind the shard's fence, read
//! when she comes, forgotten when she has seen them. At least once: whoever receives one drops a repeat by its id.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::record::{Refusal, millis};
use super::shard::Shard;
use super::{Home, HomeError};
use crate::clock;
use crate::ids::PlayerId;
use crate::store::{Holder, QueueAdded, QueuedMessage, StoreError, Which};

/// Messages that may wait for one player.
pub const MESSAGES_MAX: usize = 100;
/// How long the store is left alone after it did not take what was seen.
const RETRY: Duration = Duration::from_secs(1);

/// What became of a message that is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It waits for her now.
    New,
    /// It waited already.
    Repeat,
}

impl Home {
    /// Keeps a message for a player, whether she is here or was ever seen. When this returns, the store has it.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] when as many wait as may, or as many bytes, [`HomeError::NotHome`], [`HomeError::Store`] (unknown: the same
    /// id again does no harm).
    pub async fn keep_message(&self, player: &PlayerId, id: u128, body: Bytes) -> Result<Kept, HomeError> {
        let shard = self.shard(self.placement.shard_of(player))?;
        self.serving(shard).await?;
        let holder = self.holder(shard).ok_or_else(|| self.not_home())?;
        let expires_at_unix_ms = clock::now().plus_ms(millis(self.settings.messages_keep)).unix_ms;
        let message = QueuedMessage { id, expires_at_unix_ms, body };
        let added = self.store.queue_add(shard.id(), holder, player.clone(), message, MESSAGES_MAX);
        match added.await.map_err(HomeError::Store)? {
            QueueAdded::Added => Ok(Kept::New),
            QueueAdded::Repeat => Ok(Kept::Repeat),
            QueueAdded::Full => Err(Refusal::TooLarge(
                "as many messages as may, or 256 KiB of them, wait for this player already",
            )
            .into()),
            QueueAdded::Fenced => Err(self.not_home()),
        }
    }

    /// The messages that wait for a player, the oldest first: id and body.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn kept_messages(&self, player: &PlayerId) -> Result<Vec<(u128, Bytes)>, StoreError> {
        let messages = self.store.queue_read(self.placement.shard_of(player), player.clone()).await?;
        Ok(messages.into_iter().map(|message| (message.id, message.body)).collect())
    }

    /// A client of the player has seen these: they are forgotten soon.
    pub fn messages_seen(&self, player: &PlayerId, ids: Vec<u128>) {
        self.seen.update(player.clone(), |seen: &mut Vec<u128>| {
            // More than wait cannot have been seen; what is left out comes once more.
            seen.extend(ids.into_iter().take(MESSAGES_MAX.saturating_sub(seen.len())));
        });
    }

    /// The task that forgets what was seen.
    pub(super) async fn run_seen(self: Arc<Self>) {
        loop {
            tokio::select! {
                biased;
                () = self.tasks.stopping() => return,
                () = self.seen.filled() => {}
            }
            let mut failed = false;
            for (player, ids) in self.seen.take() {
                let forgotten = self.forget_messages(&player, Which::These(ids.clone())).await;
                if matches!(forgotten, Err(HomeError::Store(_))) {
                    failed = true;
                    self.messages_seen(&player, ids);
                }
            }
            if failed {
                tokio::select! {
                    biased;
                    () = self.tasks.stopping() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }

    /// Forgets messages of a player.
    pub(super) async fn forget_messages(&self, player: &PlayerId, which: Which) -> Result<(), HomeError> {
        let shard = self.shard(self.placement.shard_of(player))?;
        let holder = self.holder(shard).ok_or_else(|| self.not_home())?;
        let removed = self.store.queue_remove(shard.id(), holder, player.clone(), which).await;
        if removed.map_err(HomeError::Store)? { Ok(()) } else { Err(self.not_home()) }
    }

    /// Who writes past a commit, as long as the shard is ours.
    pub(super) fn holder(&self, shard: &Shard) -> Option<Holder> {
        let fence = shard.fence()?;
        Some(Holder { owner: self.owner.clone(), epoch: fence.epoch, generation: fence.generation })
    }
}
