//! What a server says unasked: ops 110 to 117. Written by `presence::fanout`, `session` and `service`, read by the
//! client. Ops 110 to 112 are numbered and replayed; 113 to 117 are not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::reply::Member;
use crate::request::Status;
use crate::{Stamp, Value};

/// Presence of one player.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PresenceItem {
    /// Who.
    pub player: String,
    /// The merge over the player's sessions; `offline` also for invisible.
    pub status: Status,
    /// Rich activity of the most active session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<BTreeMap<String, Value>>,
    /// The item's own counter: a higher one replaces, a lower one is dropped.
    pub ver: Stamp,
    /// When the player was last here, Unix ms; only while offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<u64>,
    /// The devices of the player's visible sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<String>>,
}

/// Op 110.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Presence {
    /// What changed.
    pub items: Vec<PresenceItem>,
}

/// Op 111.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Room {
    /// Which room.
    pub room: String,
    /// The roster's own counter.
    pub ver: Stamp,
    /// Who came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joins: Option<Vec<Member>>,
    /// Who went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves: Option<Vec<String>>,
    /// Whose meta or link changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<Vec<Member>>,
    /// Members in all.
    pub count: u32,
    /// This is a snapshot: the first page of the whole roster, in place of all that was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<Member>>,
    /// Of a snapshot: where the next page starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Without `members`: more has changed than is told here. With them: the roster is being rebuilt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<bool>,
}

/// Op 112.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Message {
    /// Names the message: receivers drop repeats.
    pub id: String,
    /// Anything.
    pub data: Value,
    /// The player who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub player: Option<String>,
    /// The room it was sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// The service that sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Op 113.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Moved {
    /// Where to connect and resume.
    pub url: String,
    /// Which node that is.
    pub node: String,
    /// How long the old link stays.
    pub within_ms: u64,
}

/// Op 114.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Bye {
    /// The close code that follows.
    pub code: u16,
    /// For people.
    pub reason: String,
    /// Whether the session can be resumed.
    pub resume: bool,
    /// When to come back at the earliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// How the server works now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// With its store.
    #[default]
    Normal,
    /// From memory; acks are provisional.
    Local,
    /// Not at all for now; requests are held.
    Paused,
}

/// Op 115.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ModeChanged {
    /// How the server works from now on.
    pub mode: Mode,
    /// Since when the oldest change waits for the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unflushed_ms: Option<u64>,
}

/// Op 116.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolledBack {
    /// What the client had been told.
    pub from: Stamp,
    /// What survived; `null` = unknown.
    pub to: Option<Stamp>,
    /// The highest `cseq` that survived.
    pub cseq: u64,
    /// For people.
    pub reason: String,
}

/// Op 117.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Durable {
    /// Up to here.
    pub stamp: Stamp,
    /// The highest `cseq` in it.
    pub cseq: u64,
}
