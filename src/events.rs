//! What travels up the house: the vocabulary of events and the queue they travel in. Written by `home`, read by
//! `presence` and `session`. A queue here is bounded by construction: a newer event of a key replaces the older one,
//! and there are no more keys than hot players and sessions.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ids::{Epoch, PlayerId, RoomName, SessionId, ShardId, Stamp};

/// A queue in which the latest event of each key wins.
#[derive(Debug)]
pub struct Coalescing<K, V> {
    waiting: Mutex<HashMap<K, V, ahash::RandomState>>,
    filled: Notify,
}

impl<K, V> Default for Coalescing<K, V> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), filled: Notify::new() }
    }
}

impl<K: Eq + Hash, V> Coalescing<K, V> {
    /// Puts the latest event of a key.
    pub fn put(&self, key: K, event: V) {
        let mut waiting = self.waiting.lock();
        let was_empty = waiting.is_empty();
        waiting.insert(key, event);
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Puts an event, unless what waits for its key is newer.
    pub fn put_newer(&self, key: K, event: V, is_newer: impl FnOnce(&V, &V) -> bool) {
        let mut waiting = self.waiting.lock();
        let was_empty = waiting.is_empty();
        if waiting.get(&key).is_none_or(|present| is_newer(&event, present)) {
            waiting.insert(key, event);
        }
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Changes the event of a key, made first if there is none.
    pub fn update(&self, key: K, change: impl FnOnce(&mut V))
    where
        V: Default,
    {
        let mut waiting = self.waiting.lock();
        let was_empty = waiting.is_empty();
        change(waiting.entry(key).or_default());
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Takes all that waits, in no order.
    pub fn take(&self) -> Vec<(K, V)> {
        self.waiting.lock().drain().collect()
    }

    /// Waits until something waits. One reader only.
    pub async fn filled(&self) {
        while self.waiting.lock().is_empty() {
            self.filled.notified().await;
        }
    }
}

/// What a player is doing, in the house's words; the least active first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
pub enum Status {
    /// Not here.
    #[default]
    Offline,
    /// Here, shown as offline.
    Invisible,
    /// Here, but idle.
    Away,
    /// Here.
    Online,
    /// Here, not to be disturbed.
    Busy,
    /// In a game.
    Playing,
}

/// What others see of a player.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PresenceView {
    /// The merge over the player's sessions; never `Invisible`.
    pub status: Status,
    /// The activity of the most active session: a MessagePack map.
    pub activity: Option<Box<[u8]>>,
    /// The devices of visible sessions, sorted.
    pub devices: Vec<Box<str>>,
    /// The view's own counter.
    pub ver: Stamp,
    /// When the player was last seen, Unix ms; 0 = never.
    pub last_seen_unix_ms: u64,
}

impl PresenceView {
    /// Whether this view replaces that one: by its counter, within one epoch and across them.
    #[must_use]
    pub fn replaces(&self, other: &Self) -> bool {
        let place = |view: &Self| (view.ver.epoch, view.ver.version);
        place(self) > place(other)
    }

    /// Whether others see no difference.
    #[must_use]
    pub fn shows_the_same(&self, other: &Self) -> bool {
        self.status == other.status && self.activity == other.activity && self.devices == other.devices
    }
}

/// A player in one room, as her record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InRoom {
    /// Which room.
    pub room: RoomName,
    /// Whether one of her sessions in it has a link.
    pub online: bool,
    /// Her meta: a MessagePack map.
    pub meta: Option<Arc<[u8]>>,
    /// Her sessions in it: those that are told what happens there.
    pub sessions: Vec<SessionId>,
}

/// The rooms of a player, as this node knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomsOf {
    /// Her record is here.
    Here {
        /// The epoch of the record.
        epoch: Epoch,
        /// All that she is in.
        rooms: Vec<InRoom>,
    },
    /// Her record has gone to another home, or will: she has left nothing, and what she is in is that one's to say.
    Elsewhere,
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndReason {
    /// The client asked.
    Logout,
    /// Its time ran out.
    Expired,
    /// A newer login took its place.
    Replaced,
    /// The login policy refused it when a service-made session was taken up, or when two records met.
    SessionLimit,
    /// The player was banned.
    Banned {
        /// For people.
        reason: std::sync::Arc<str>,
    },
    /// An operator or a service closed it.
    Kicked {
        /// The close code the client gets.
        code: u16,
        /// For people.
        reason: Box<str>,
    },
}

impl EndReason {
    /// In one word, as the log has it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Expired => "expired",
            Self::Replaced => "replaced",
            Self::SessionLimit => "session_limit",
            Self::Banned { .. } => "banned",
            Self::Kicked { .. } => "kicked",
        }
    }
}

/// A session is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEnded {
    /// Whose.
    pub player: PlayerId,
    /// Why.
    pub reason: EndReason,
    /// Whom it watched.
    pub watches: Vec<PlayerId>,
}

/// A link must close though its session stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEnd {
    /// The token ran out on the live link.
    TokenExpired,
    /// Another node serves the player now.
    Moved,
    /// The player is handed over to this node: the link hears of it first, and closes a little later.
    HandedOver(Arc<NewHome>),
}

/// Where a player is served from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHome {
    /// The node.
    pub node: Box<str>,
    /// Where clients connect to it.
    pub url: Box<str>,
    /// How long the old link stays.
    pub within_ms: u64,
}

/// Everything of a session up to here is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurableUpTo {
    /// Where the record stood in the commit.
    pub stamp: Stamp,
    /// The session's counter then.
    pub cseq: u64,
}

/// Acked changes of a session are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RollbackNotice {
    /// What the client may have been told.
    pub from: Stamp,
    /// What survived; `None` = unknown.
    pub to: Option<Stamp>,
    /// The highest counter that survived.
    pub cseq: u64,
}

/// What concerns one session's link, in the order of importance.
#[derive(Debug, Clone, Default)]
pub struct SessionEvent {
    /// The session is gone.
    pub ended: Option<SessionEnded>,
    /// Changes are gone.
    pub rolled_back: Option<RollbackNotice>,
    /// The link must close.
    pub link_end: Option<LinkEnd>,
    /// Whom the session watched here, when another node serves it now.
    pub watched: Vec<PlayerId>,
}

/// All that `home` tells those above it.
#[derive(Debug, Default)]
pub struct Events {
    /// What others see of a player has changed.
    pub presence: Coalescing<PlayerId, PresenceView>,
    /// The same, and where that stands, while other nodes keep near how players look: for those who cannot wait for a tick.
    pub kept_near: Coalescing<PlayerId, Stamp>,
    is_kept_near: AtomicBool,
    /// All rooms that a player is in, whenever one of them may look different. Put under her record's lock, so that
    /// the latest event is the latest truth.
    pub rooms: Coalescing<PlayerId, RoomsOf>,
    /// Sessions that ended, links that must close.
    pub sessions: Coalescing<SessionId, SessionEvent>,
    /// What has become durable, of sessions with writes in flight.
    pub durable: Coalescing<SessionId, DurableUpTo>,
    /// Shards that are served otherwise than before: with their store, from memory, or not at all.
    pub mode: Coalescing<ShardId, ()>,
}

impl Events {
    /// What others see of a player has changed; not under her record's lock. Two changes of one record may arrive here in
    /// either order.
    pub fn shows(&self, player: &PlayerId, view: PresenceView) {
        // Whoever began to keep her near has looked at her since, under her record's lock: either it saw this change, or this
        // sees that it does.
        if self.is_kept_near.load(Ordering::Relaxed) {
            let place = |stamp: &Stamp| (stamp.epoch, stamp.version);
            let is_newer = |new: &Stamp, old: &Stamp| place(new) > place(old);
            self.kept_near.put_newer(player.clone(), view.ver, is_newer);
        }
        self.presence.put_newer(player.clone(), view, PresenceView::replaces);
    }

    /// Whether other nodes keep near how players look whose home is here. Said before they are answered.
    pub fn are_kept_near(&self, are: bool) {
        if self.is_kept_near.load(Ordering::Relaxed) != are {
            self.is_kept_near.store(are, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_latest_event_of_a_key_wins() {
        let queue = Coalescing::default();
        queue.put(1, "old");
        queue.put(1, "new");
        tokio::time::timeout(std::time::Duration::from_secs(5), queue.filled()).await.expect("filled");
        assert_eq!(queue.take(), [(1, "new")]);
        assert!(queue.take().is_empty());
    }
}
