//! Sessions and players: made, looked at, changed, kept out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::is_not;
#[cfg(feature = "schema")]
use crate::limits::{DEVICE_BYTES_MAX, STATE_KEY_BYTES_MAX};
use crate::push::PresenceItem;
use crate::request::Status;
#[cfg(feature = "schema")]
use crate::schema::{NO_CONTROLS, Player, PresenceField};
use crate::{Stamp, Text, Value};

/// `POST /v1/sessions`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Open<'a> {
    /// Whose: 1 to 64 bytes without control characters.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "Player"))]
    pub player: Text<'a>,
    /// `pc`, `mobile`, `console`, `web` or another name of 1 to 16 bytes without control characters; without it `other`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = DEVICE_BYTES_MAX), regex(pattern = NO_CONTROLS)))]
    pub device: Option<Text<'a>>,
    /// Set in the player's state, durably; the whole state has at most 4 096 bytes as MessagePack.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("propertyNames" = {"minLength": 1, "maxLength": STATE_KEY_BYTES_MAX})))]
    pub state: Option<BTreeMap<Text<'a>, Value>>,
}

/// A session that waits for its client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Made {
    /// Its id.
    pub session: String,
    /// The secret that its client resumes it with.
    pub ticket: String,
    /// How long it waits for its client, ms.
    pub pending_ms: u64,
    /// Where the client connects.
    pub url: String,
    /// The store does not have it yet.
    #[serde(default, skip_serializing_if = "is_not")]
    pub prov: bool,
}

/// One session, as services see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionView {
    /// Its id.
    pub session: String,
    /// Whose; absent where that is said already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub player: Option<String>,
    /// On what.
    pub device: String,
    /// What it says it is doing, `invisible` too.
    pub status: Status,
    /// Whether it has a link now.
    pub attached: bool,
    /// Made by a service, and its client has not come yet.
    #[serde(default, skip_serializing_if = "is_not")]
    pub pending: bool,
    /// The highest change of its client that was applied.
    pub cseq: u64,
    /// When it ends if nothing is heard of it, ms from now.
    pub expires_in_ms: u64,
}

/// All that is known of one player.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlayerView {
    /// Who.
    pub player: String,
    /// As others see her.
    pub presence: PresenceItem,
    /// Her sessions.
    pub sessions: Vec<SessionView>,
    /// Her state.
    pub state: BTreeMap<String, Value>,
    /// Where the state last changed: the token for `if_state`.
    pub state_stamp: Stamp,
    /// Where her record stands.
    pub stamp: Stamp,
    /// When she was last here (Unix ms); only while offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<u64>,
    /// Where she is at home.
    pub home: HomeView,
    /// What keeps her out, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ban: Option<BanView>,
    /// Tokens issued before this (Unix ms) are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_before: Option<u64>,
}

/// A home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HomeView {
    /// The node that answered.
    pub node: String,
    /// The player's shard.
    pub shard: u16,
}

/// A ban, as services see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BanView {
    /// As its maker wrote it.
    pub reason: String,
    /// Until when (Unix ms); absent for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Since when (Unix ms).
    pub since: u64,
}

/// `POST /v1/players/{player}/kick`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Kick<'a> {
    /// Told to her clients: at most 256 bytes.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub reason: Text<'a>,
    /// What the links are closed with: 4502, which is also what counts without it, or one of 4750 to 4999.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 4502, max = 4999), extend("not" = {"type": "integer", "minimum": 4503, "maximum": 4749})))]
    pub code: Option<u16>,
    /// Tokens of hers that were issued before this (Unix ms, not in the future) are refused from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1_000_000_000_000_u64)))]
    pub revoke_before: Option<u64>,
}

/// What a kick did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Kicked {
    /// How many sessions were ended.
    pub sessions: usize,
}

/// `PUT /v1/players/{player}/ban`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ban<'a> {
    /// Told to her clients: at most 256 bytes.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub reason: Text<'a>,
    /// Until when (Unix ms, in the future); absent for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// What a ban did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Banned {
    /// How many sessions were ended.
    pub sessions: usize,
    /// Where the player's record stands.
    pub stamp: Stamp,
}

/// `PUT /v1/players/{player}/watches`: either the whole list, or who comes and who goes; who stands in both goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend(
    "if" = {"required": ["set"], "properties": {"set": {"type": "array"}}},
    "then" = {"properties": {"add": {"not": {"type": "array"}}, "remove": {"not": {"type": "array"}}}},
    "else" = {"anyOf": [
        {"required": ["add"], "properties": {"add": {"type": "array"}}},
        {"required": ["remove"], "properties": {"remove": {"type": "array"}}},
    ]},
)))]
pub struct WatchList<'a> {
    /// The whole list.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<Player>>", length(max = 1000)))]
    pub set: Option<Vec<Text<'a>>>,
    /// Who comes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<Player>>", length(max = 1000)))]
    pub add: Option<Vec<Text<'a>>>,
    /// Who goes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<Player>>", length(max = 1000)))]
    pub remove: Option<Vec<Text<'a>>>,
}

/// A watch list after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WatchesListed {
    /// Where the record stands.
    pub stamp: Stamp,
    /// How many sessions have the list.
    pub sessions: usize,
    /// Who came and cannot be looked at now: they follow as soon as they can be.
    pub unknown: Vec<String>,
}

/// `POST /v1/presence/query`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Query<'a> {
    /// Who: at most 1 000.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<Player>", length(max = 1000)))]
    pub players: Vec<Text<'a>>,
    /// What to tell beside `player` and `ver`, which always come: `status`, `activity`, `devices`, `last_seen`; without it
    /// all of them.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<PresenceField>>"))]
    pub fields: Option<Vec<Text<'a>>>,
    /// How old what is told may be, ms; with 0, or without it, all comes from the players' homes.
    #[serde(default)]
    pub max_age_ms: u64,
}

/// The presence of many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Queried {
    /// One item a named player, in the order in which they were named.
    pub presences: Vec<Seen>,
    /// When all of it was true (Unix ms): as old as its oldest item.
    pub as_of: u64,
    /// Whose homes cannot be reached: nobody is guessed.
    pub unknown: Vec<String>,
}

/// What others see of one player, as far as it was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Seen {
    /// Who.
    pub player: String,
    /// The merge over her sessions; `offline` also for invisible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Rich activity of the most active session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<BTreeMap<String, Value>>,
    /// The item's own counter: a higher one replaces, a lower one is dropped.
    pub ver: Stamp,
    /// When she was last here (Unix ms); only while offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<u64>,
    /// The devices of her visible sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<String>>,
    /// How old it is (ms), where it was kept at the node that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

/// Why was this player disconnected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Timeline {
    /// Who.
    pub player: String,
    /// Her latest comings and goings, the oldest first; at most 50.
    pub entries: Vec<Happened>,
    /// The store did not answer: there may be more.
    #[serde(default, skip_serializing_if = "is_not")]
    pub partial: bool,
}

/// One thing that happened, in the timeline and in the events. Ignore kinds and fields that you do not know.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Happened {
    /// `opened`, `bound`, `resumed`, `link_lost`, `moved`, `ended`; in the events also `presence`.
    pub kind: String,
    /// When, by the clock of `node` (Unix ms).
    pub at: u64,
    /// Which session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// At which node.
    pub node: String,
    /// With `version` the stamp of the record that it came with.
    pub epoch: u64,
    /// See `epoch`.
    pub version: u64,
    /// `link_lost`, `ended`: the close code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// `ended`: `logout`, `expired`, `replaced`, `session_limit`, `banned`, `kicked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// `ended`: of a ban or a kick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `opened`: on what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// `moved`: the node before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// `presence`: what others see from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// The data of the events `session`, `presence`, `resync` and `gap`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    /// Of which shard.
    pub shard: u16,
    /// Of whom; of a `resync` without it some events of the shard are lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub player: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub happened: Option<Happened>,
    /// `gap`: how many events of the shard are not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

/// The data of the event `checkpoint`: all that was told before it is behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Checkpoint {
    /// Where to go on, with `after` or `Last-Event-ID`.
    pub checkpoint: String,
    /// How long before it was told the oldest event of the last look had happened, ms.
    pub lag_ms: u64,
    /// More is there already.
    pub behind: bool,
    /// Shards that could not be looked at; their events come when they can.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<u16>,
}
