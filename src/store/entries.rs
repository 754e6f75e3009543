//! What a commit writes beside a record, in the same step: the shard's events and the player's timeline. What an entry
//! says is `home`'s; the store knows whose it is, where it goes, and the version that it came with.

use bytes::Bytes;

use super::StoreError;
use crate::ids::{Epoch, FlushSeq, PlayerId, ShardId, Version};

/// Events that a shard's stream keeps, about: older ones are cut off.
pub const EVENTS_MAX: u64 = 10_000;
/// Entries that a player's timeline keeps: older ones are cut off.
pub const TIMELINE_MAX: usize = 50;
/// Most shards one [`super::Store::events_after`] or [`super::Store::events_last`] may name.
pub const EVENT_SHARDS_MAX: usize = 64;
/// Most events of one shard in its answer: with all shards, a thousand, which cost Redis about a millisecond.
pub const EVENTS_PER_SHARD_MAX: usize = 16;

/// Where an entry goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goes {
    /// To the events of the shard.
    Events,
    /// To the timeline of the player.
    Timeline,
    /// To both.
    Both,
    /// Nowhere: all that her timeline holds so far is forgotten.
    Forget,
}

impl Goes {
    /// Whether the events tell it.
    #[must_use]
    pub const fn is_event(self) -> bool {
        matches!(self, Self::Events | Self::Both)
    }

    /// Whether it changes the timeline.
    #[must_use]
    pub const fn is_timeline(self) -> bool {
        matches!(self, Self::Timeline | Self::Both | Self::Forget)
    }
}

/// One thing to write beside a record. Written if the record is, unless it was written before: with a record that is
/// stored at its version, or a later one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The version of the record that it came with.
    pub version: Version,
    /// Where it goes.
    pub goes: Goes,
    /// What it says; opaque here.
    pub body: Bytes,
}

/// Most events that one batch tells.
pub const EVENTS_PER_BATCH_MAX: u64 = 4_096;

/// A place in a shard's events: those behind it are above it. The number counts the shard's events from 1, so that a gap
/// shows; where it leaves some out, the next event says so ([`StoredEvent::after`]). What a store has lost is counted anew,
/// under a higher epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventPlace {
    /// The epoch of the home that wrote it.
    pub epoch: u64,
    /// Which event of the shard.
    pub number: u64,
}

impl EventPlace {
    /// Before all events.
    pub const START: Self = Self { epoch: 0, number: 0 };

    /// The place behind this one under an epoch.
    #[must_use]
    pub const fn next(self, epoch: Epoch) -> Self {
        Self { epoch: epoch.number(), number: self.number + 1 }
    }
}

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place.
    pub place: EventPlace,
    /// Whose it is.
    pub player: PlayerId,
    /// What it says.
    pub body: Bytes,
    /// The number of the event that it comes after, where the numbers between were left out.
    pub after: Option<u64>,
}

/// How many events a shard has told, by number. The rule of `commit_entries.lua`, for whoever compares: where batches were
/// lost, or may have been, somebody may have read their events before, so their numbers are not given out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventCount {
    /// The last number that is used up.
    pub number: u64,
    /// The last event, if numbers behind it were left out and none came since.
    pub last: Option<u64>,
}

impl EventCount {
    /// What a batch of this number finds, where the last one that is stored has that number.
    #[must_use]
    pub fn of_batch(self, stored: FlushSeq, batch: FlushSeq) -> Self {
        match batch.number().saturating_sub(stored.number() + 1) {
            0 => self,
            lost => Self {
                number: self.number + EVENTS_PER_BATCH_MAX * lost,
                last: self.last.or(Some(self.number)),
            },
        }
    }

    /// Counts one event: its number, and [`StoredEvent::after`].
    #[must_use]
    pub fn count(&mut self) -> (u64, Option<u64>) {
        self.number += 1;
        (self.number, self.last.take())
    }
}

/// Events of one shard, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardEvents {
    /// Which shard.
    pub shard: ShardId,
    /// At most [`EVENTS_PER_SHARD_MAX`]; as many as that mean that there may be more.
    pub events: Vec<StoredEvent>,
}

/// What was read of the events of shards.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventsRead {
    /// Those that there are.
    pub found: Vec<ShardEvents>,
    /// Of these shards nothing is known: their server did not answer.
    pub unanswered: Vec<ShardId>,
}

/// Refuses to read the events of more shards than a call may name.
pub(super) fn check_count(shards: usize) -> Result<(), StoreError> {
    if shards > EVENT_SHARDS_MAX {
        return Err(StoreError::Refused(format!("at most {EVENT_SHARDS_MAX} shards a call")));
    }
    Ok(())
}
