//! What happened to a player, for whoever asks why she was disconnected: what the store has, and what this node has noted
//! and not brought there yet. Called by `service`; costs the player nothing.

use super::record::Record;
use super::record::notes::Happened;
use super::{Home, HomeError};
use crate::ids::PlayerId;
use crate::store::TIMELINE_MAX;

/// What is known of a player's last comings and goings.
#[derive(Debug)]
pub struct Timeline {
    /// The oldest first, at most [`TIMELINE_MAX`].
    pub entries: Vec<Happened<'static>>,
    /// The store did not answer: what is told is what this node has in memory.
    pub is_partial: bool,
}

impl Home {
    /// The timeline of a player, hot or cold; `None` for one of whom nothing is known.
    ///
    /// # Errors
    /// [`HomeError::NotHome`]; [`HomeError::Store`] if it does not answer and there is nothing in memory.
    pub async fn timeline(&self, player: &PlayerId) -> Result<Option<Timeline>, HomeError> {
        let shard = self.shard(self.placement.shard_of(player))?;
        self.serving(shard).await?;
        // Before the store is asked: what reaches it meanwhile is found twice, and known by its id.
        let here = self.owner.node();
        let hot = self.records.player(player);
        let hot = hot.and_then(|cell| cell.read(|record: &Record| record.notes.timeline(here)));
        let is_hot = hot.is_some();
        if !is_hot && self.known.denies(shard.id(), player) {
            self.cold.meters.filtered(1);
            return Ok(None);
        }
        let (waiting, forgets) = hot.unwrap_or_default();
        let stored =
            if forgets { Ok(Vec::new()) } else { self.store.timeline(shard.id(), player.clone()).await };
        let (stored, is_partial) = match stored {
            Ok(stored) => (stored, false),
            Err(_) if is_hot => (Vec::new(), true),
            Err(error) => return Err(HomeError::Store(error)),
        };
        let entries = joined(stored.iter().filter_map(|body| Happened::read(body)).collect(), waiting);
        if entries.is_empty() && !is_hot && self.look(player).await?.is_none() {
            return Ok(None);
        }
        Ok(Some(Timeline { entries, is_partial }))
    }
}

/// What the store has, then what it has not, each thing once; the newest, as many as a timeline keeps.
fn joined(stored: Vec<Happened<'static>>, waiting: Vec<Happened<'static>>) -> Vec<Happened<'static>> {
    let mut entries = stored;
    for happened in waiting {
        if !entries.iter().any(|known| known.id() == happened.id()) {
            entries.push(happened);
        }
    }
    let over = entries.len().saturating_sub(TIMELINE_MAX);
    entries.drain(..over);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::EndReason;
    use crate::home::record::notes::{Note, What};
    use crate::ids::{Epoch, SessionId, ShardId, Version};

    fn ended(version: u64, session: SessionId) -> Happened<'static> {
        let what = What::Ended(EndReason::Logout);
        let (epoch, version) = (Epoch::of(7), Version::of(version));
        let note = Note { epoch, version, at: 1_000, session: Some(session), what, node: None };
        Happened::read(&note.happened("a").body()).unwrap()
    }

    #[test]
    fn each_session_that_one_change_ends_is_told_once() {
        let [pc, mobile] = [1, 2].map(|at| SessionId::generate(ShardId::FIRST, at));
        let waiting = vec![ended(3, pc), ended(3, mobile), ended(4, pc)];
        assert_eq!(joined(Vec::new(), waiting.clone()), waiting);
        assert_eq!(joined(waiting[..2].to_vec(), waiting.clone()), waiting);
    }

    #[test]
    fn of_too_many_the_newest_are_told() {
        let session = SessionId::generate(ShardId::FIRST, 1);
        let all: Vec<_> = (0..=TIMELINE_MAX as u64).map(|version| ended(version, session)).collect();
        assert_eq!(joined(all[..10].to_vec(), all[5..].to_vec()), all[1..]);
    }
}
