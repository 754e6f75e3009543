//! What a client says: the ops of PROTOCOL's first table, one struct each.
//! Read by `session` (and by `gate` for `login` and `resume`); written by the client.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

#[cfg(feature = "schema")]
use crate::limits::STATE_KEY_BYTES_MAX;
#[cfg(feature = "schema")]
use crate::schema::ChangeAck;
use crate::{Stamp, Text, Value};

/// The ops from here on are the server's.
const SERVER_OPS_FROM: u8 = 100;

macro_rules! ops {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// Every op of the wire, from clients (below 100) and from servers (from 100).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Op { $($(#[$doc])* $variant,)* }

        impl Op {
            /// Every op.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its number, as MessagePack frames carry it.
            #[must_use]
            pub const fn number(self) -> u8 {
                match self { $(Self::$variant => $number,)* }
            }

            /// Its name, as JSON frames carry it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether clients send it: else the server does.
            #[must_use]
            pub const fn is_request(self) -> bool {
                self.number() < SERVER_OPS_FROM
            }

            /// The op with this number.
            #[must_use]
            pub const fn numbered(number: u64) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The op with this name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

ops! {
    /// Open a session.
    Login = 1, "login";
    /// Take a session up again.
    Resume = 2, "resume";
    /// End the session.
    Logout = 3, "logout";
    /// Show life, trim the replay buffer, ask the time.
    Ping = 4, "ping";
    /// New credentials on the live link.
    Refresh = 5, "refresh";
    /// Read the player's state.
    StateGet = 10, "state.get";
    /// Change the player's state.
    StatePatch = 11, "state.patch";
    /// Say what the session is doing.
    PresenceSet = 20, "presence.set";
    /// Ask who is on.
    PresenceGet = 21, "presence.get";
    /// Follow players.
    Watch = 22, "watch";
    /// Follow players no more.
    Unwatch = 23, "unwatch";
    /// Enter a room.
    RoomJoin = 30, "room.join";
    /// Leave a room.
    RoomLeave = 31, "room.leave";
    /// Speak in a room.
    RoomSend = 32, "room.send";
    /// Page through a room's members.
    RoomMembers = 33, "room.members";
    /// Change the member's own meta.
    RoomMeta = 34, "room.meta";
    /// Speak to a player.
    Send = 40, "send";
    /// The answer to a request that was carried out.
    Ok = 100, "ok";
    /// The answer to a request that was refused.
    Error = 101, "error";
    /// The answer to `login` and `resume`.
    Ready = 102, "ready";
    /// Connect elsewhere.
    Redirect = 103, "redirect";
    /// Presence of watched players changed.
    Presence = 110, "presence";
    /// A room's roster changed.
    Room = 111, "room";
    /// A message.
    Message = 112, "message";
    /// The session's home moves.
    Moved = 113, "moved";
    /// The last frame before the server closes.
    Bye = 114, "bye";
    /// The store is unreachable, or back.
    Mode = 115, "mode";
    /// Acked writes are gone.
    RolledBack = 116, "rolled_back";
    /// Everything up to here is durable.
    Durable = 117, "durable";
}

/// How much an ack promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// Visible to every later read.
    #[default]
    Applied,
    /// The store has it.
    Durable,
    /// A replica of the store has it too.
    Replicated,
}

/// What a player is doing. In order of activity, the least active first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not here; only the server says so.
    Offline,
    /// Here, but shown to others as offline.
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

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Text::deserialize(deserializer)?;
        Ok(match name.as_str() {
            "offline" => Self::Offline,
            "invisible" => Self::Invisible,
            "away" => Self::Away,
            "online" => Self::Online,
            "busy" => Self::Busy,
            "playing" => Self::Playing,
            // Whoever is told that something is wrong here is a client: `offline` is none of its words.
            _ => return Err(D::Error::unknown_variant(name.as_str(), SETTABLE)),
        })
    }
}

/// The statuses that a client may set.
const SETTABLE: &[&str] = &["online", "away", "busy", "playing", "invisible"];

/// How much of a session's presence others see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Everything.
    #[default]
    Full,
    /// The status, but neither activity nor device.
    Status,
    /// Nothing, as with the status `invisible`.
    Hidden,
}

/// Op 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Login<'a> {
    /// The signed token, or `dev:<player>` where development tokens are allowed.
    #[serde(borrow)]
    pub token: Text<'a>,
    /// `pc`, `mobile`, `console`, `web` or another name of at most 16 bytes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Text<'a>>,
    /// Splice through this node instead of a `redirect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<bool>,
    /// The status to start with, so that `invisible` never shows as online first; `online` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// Op 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resume<'a> {
    /// The session's id.
    #[serde(borrow)]
    pub session: Text<'a>,
    /// The latest ticket.
    #[serde(borrow)]
    pub ticket: Text<'a>,
    /// The highest `seq` that the client has handled.
    #[serde(default)]
    pub last_seq: u64,
    /// The highest stamp that the client has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
    /// Splice through this node instead of a `redirect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<bool>,
}

/// Op 4.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Ping {
    /// Anything the client wants back, such as its own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub t: Option<Value>,
    /// The highest `seq` handled: the server forgets pushes up to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<u64>,
}

/// Op 5.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refresh<'a> {
    /// A new token of the same player.
    #[serde(borrow)]
    pub token: Text<'a>,
}

/// Op 10.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StateGet<'a> {
    /// Which keys; all if absent.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<Text<'a>>>,
    /// Answer `behind` or `rolled_back` unless the record has reached this stamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<Stamp>,
}

/// Op 11. Within one patch `set` goes first, then `unset`, then `incr`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StatePatch<'a> {
    /// Keys to write.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("propertyNames" = {"minLength": 1, "maxLength": STATE_KEY_BYTES_MAX})))]
    pub set: Option<BTreeMap<Text<'a>, Value>>,
    /// Keys to remove.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub unset: Option<Vec<Text<'a>>>,
    /// Keys to add to; a missing one counts as 0.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("propertyNames" = {"minLength": 1, "maxLength": STATE_KEY_BYTES_MAX})))]
    pub incr: Option<BTreeMap<Text<'a>, i64>>,
    /// Only if the state still stands at this `state_stamp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_state: Option<Stamp>,
    /// How much the ack promises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<ChangeAck>"))]
    pub ack: Option<Ack>,
    /// The client's counter of its own changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cseq: Option<u64>,
}

/// Op 20.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PresenceSet<'a> {
    /// What the session is doing.
    pub status: Status,
    /// Rich activity; absent keeps the present one, an empty map clears it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<BTreeMap<Text<'a>, Value>>,
    /// How much others see; absent keeps the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
    /// How much the ack promises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<Ack>,
    /// The client's counter of its own changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cseq: Option<u64>,
}

/// Ops 21, 22 and 23.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Players<'a> {
    /// At most 200 player ids.
    #[serde(borrow)]
    pub players: Vec<Text<'a>>,
}

/// Op 30.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomJoin<'a> {
    /// The room's name.
    #[serde(borrow)]
    pub room: Text<'a>,
    /// The member's own meta.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<BTreeMap<Text<'a>, Value>>,
    /// The client's counter of its own changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cseq: Option<u64>,
}

/// Op 31.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomLeave<'a> {
    /// The room's name.
    #[serde(borrow)]
    pub room: Text<'a>,
    /// The client's counter of its own changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cseq: Option<u64>,
}

/// Op 32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomSend<'a> {
    /// The room's name.
    #[serde(borrow)]
    pub room: Text<'a>,
    /// Anything.
    pub data: Value,
    /// The client's counter of its own changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cseq: Option<u64>,
}

/// Op 33.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomMembers<'a> {
    /// The room's name.
    #[serde(borrow)]
    pub room: Text<'a>,
    /// Where the page before ended.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Text<'a>>,
    /// Members a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Op 34.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomMeta<'a> {
    /// The room's name.
    #[serde(borrow)]
    pub room: Text<'a>,
    /// The member's own meta.
    #[serde(borrow)]
    pub meta: BTreeMap<Text<'a>, Value>,
    /// The client's counter of its own changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cseq: Option<u64>,
}

/// Op 40.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Send<'a> {
    /// To whom.
    #[serde(borrow)]
    pub player: Text<'a>,
    /// Anything.
    pub data: Value,
    /// The client's counter of its own changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cseq: Option<u64>,
}

/// One request of a client.
#[derive(Debug, Clone, PartialEq)]
pub enum Request<'a> {
    /// Op 1.
    Login(Login<'a>),
    /// Op 2.
    Resume(Resume<'a>),
    /// Op 3.
    Logout,
    /// Op 4.
    Ping(Ping),
    /// Op 5.
    Refresh(Refresh<'a>),
    /// Op 10.
    StateGet(StateGet<'a>),
    /// Op 11.
    StatePatch(StatePatch<'a>),
    /// Op 20.
    PresenceSet(PresenceSet<'a>),
    /// Op 21.
    PresenceGet(Players<'a>),
    /// Op 22.
    Watch(Players<'a>),
    /// Op 23.
    Unwatch(Players<'a>),
    /// Op 30.
    RoomJoin(RoomJoin<'a>),
    /// Op 31.
    RoomLeave(RoomLeave<'a>),
    /// Op 32.
    RoomSend(RoomSend<'a>),
    /// Op 33.
    RoomMembers(RoomMembers<'a>),
    /// Op 34.
    RoomMeta(RoomMeta<'a>),
    /// Op 40.
    Send(Send<'a>),
}

impl Request<'_> {
    /// Its op.
    #[must_use]
    pub const fn op(&self) -> Op {
        match self {
            Self::Login(_) => Op::Login,
            Self::Resume(_) => Op::Resume,
            Self::Logout => Op::Logout,
            Self::Ping(_) => Op::Ping,
            Self::Refresh(_) => Op::Refresh,
            Self::StateGet(_) => Op::StateGet,
            Self::StatePatch(_) => Op::StatePatch,
            Self::PresenceSet(_) => Op::PresenceSet,
            Self::PresenceGet(_) => Op::PresenceGet,
            Self::Watch(_) => Op::Watch,
            Self::Unwatch(_) => Op::Unwatch,
            Self::RoomJoin(_) => Op::RoomJoin,
            Self::RoomLeave(_) => Op::RoomLeave,
            Self::RoomSend(_) => Op::RoomSend,
            Self::RoomMembers(_) => Op::RoomMembers,
            Self::RoomMeta(_) => Op::RoomMeta,
            Self::Send(_) => Op::Send,
        }
    }
}
