//! One thing pushed to any number of sessions: encoded once, shared by every receiver. JSON is made of it when the
//! first JSON link needs it. Never changed after it was made.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::ids::{PlayerId, RoomName, Stamp};

/// What kind of push, as far as joining and framing tell them apart.
#[derive(Debug, Clone)]
pub enum PushKind {
    /// One presence item: newer ones of the player replace older ones that were not sent yet; many go in one frame.
    Presence {
        /// Who.
        player: PlayerId,
        /// The item's counter.
        ver: Stamp,
    },
    /// A room's change, or the whole of it: a frame of its own.
    Room {
        /// Which room.
        room: RoomName,
        /// What it says of the room.
        says: RoomWord,
    },
    /// A whole message body: a frame of its own.
    Message,
}

/// What a push says of a room, as far as those that wait tell them apart.
#[derive(Debug, Clone)]
pub enum RoomWord {
    /// All of it: what was said before is of no use any more.
    Whole,
    /// What has changed, with the number that stands for this change and those before it where too many wait.
    Changes(Arc<Push>),
    /// How many there are, in the place of changes: of use only to those who know the room, or wait for the whole of
    /// it.
    Number,
}

/// A push.
#[derive(Debug)]
pub struct Push {
    kind: PushKind,
    msgpack: Bytes,
    json: OnceLock<Bytes>,
    kept: Option<u128>,
}

impl Push {
    /// A push with its MessagePack bytes.
    #[must_use]
    pub const fn new(kind: PushKind, msgpack: Bytes) -> Self {
        Self { kind, msgpack, json: OnceLock::new(), kept: None }
    }

    /// A message that the store keeps under this id until a client has seen it.
    #[must_use]
    pub const fn kept(id: u128, msgpack: Bytes) -> Self {
        Self { kind: PushKind::Message, msgpack, json: OnceLock::new(), kept: Some(id) }
    }

    /// The id under which the store keeps it, if it does.
    #[must_use]
    pub const fn kept_id(&self) -> Option<u128> {
        self.kept
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> &PushKind {
        &self.kind
    }

    /// Its MessagePack bytes.
    #[must_use]
    pub const fn msgpack(&self) -> &Bytes {
        &self.msgpack
    }

    /// Its JSON bytes, made by `transcode` for the first who asks.
    pub fn json(&self, transcode: impl FnOnce(&[u8]) -> Bytes) -> &Bytes {
        self.json.get_or_init(|| transcode(&self.msgpack))
    }

    /// The presence item's player and place, if it is one.
    pub(super) const fn presence(&self) -> Option<(&PlayerId, (u64, u64))> {
        match &self.kind {
            PushKind::Presence { player, ver } => Some((player, (ver.epoch.number(), ver.version.number()))),
            PushKind::Room { .. } | PushKind::Message => None,
        }
    }

    /// What it says of this room's roster, if it is about it.
    pub(super) fn word_of(&self, name: &RoomName) -> Option<&RoomWord> {
        match &self.kind {
            PushKind::Room { room, says } if room == name => Some(says),
            _ => None,
        }
    }

    /// What it weighs in a replay buffer.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.msgpack.len()
    }
}
