//! What a server answers: `ok` bodies, `error`, `ready`, `redirect`. Written by `session`, read by the client.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::codes::ErrorCode;
use crate::push::PresenceItem;
use crate::request::Ack;
use crate::{Stamp, Value};

/// `ok` to `logout`, `unwatch` and others that say nothing more.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// `ok` to `ping`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Pong {
    /// What the ping carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub t: Option<Value>,
    /// The server's clock, Unix ms.
    pub now_ms: u64,
}

/// `ok` to `refresh`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Refreshed {
    /// How long the new token lasts.
    pub expires_in_ms: u64,
}

/// `ok` to `state.get`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StateGot {
    /// Where the record stands.
    pub stamp: Stamp,
    /// The keys asked for, as far as they exist.
    pub state: BTreeMap<String, Value>,
    /// Where the state last changed: the token for `if_state`.
    pub state_stamp: Stamp,
}

/// `ok` to `state.patch`, `presence.set` and other changes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Changed {
    /// Where the record stands after the change.
    pub stamp: Stamp,
    /// Where the state last changed (`state.patch`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_stamp: Option<Stamp>,
    /// The level that was reached; absent on a repeat below `durable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<Ack>,
    /// The keys that `incr` changed, with their new values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<BTreeMap<String, Value>>,
    /// The change had been applied before: no second effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dup: Option<bool>,
    /// Given while the store is unreachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prov: Option<bool>,
}

/// `ok` to `presence.get` and `watch`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Presences {
    /// One item a known player.
    pub presences: Vec<PresenceItem>,
    /// Players whose presence cannot be told now; it follows if they are watched.
    pub unknown: Vec<String>,
    /// `watch` only: where the record stands with the longer list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
}

/// `ok` to `send`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Sent {
    /// To how many sessions.
    pub delivered: u32,
    /// The message had been sent before: no second effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dup: Option<bool>,
    /// Given while the store is unreachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prov: Option<bool>,
}

/// One member of a room.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Member {
    /// Who.
    pub player: String,
    /// Whether her link is up; absent means yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    /// Her own meta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<BTreeMap<String, Value>>,
}

/// `ok` to `room.join` and `room.members`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Roster {
    /// The roster's own counter.
    pub ver: Stamp,
    /// Members in all.
    pub count: u32,
    /// A page of them.
    pub members: Vec<Member>,
    /// Where the next page starts; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// The roster is being rebuilt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<bool>,
    /// `room.join` only: where the player's record stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
    /// `room.join` only: it had taken effect before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dup: Option<bool>,
    /// `room.join` only: given while the store is unreachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prov: Option<bool>,
}

/// Op 101.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The named error.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// Whether the same request may succeed later.
    pub temporary: bool,
    /// When to try again at the earliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// `cseq_gap`: the next `cseq` that the server takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
    /// `state_conflict`: where the state stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_stamp: Option<Stamp>,
    /// `store_unavailable`: the change took effect in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<bool>,
    /// `store_unavailable` with `applied`, `behind`: where the record stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
    /// `rolled_back`: what survived; `null` = unknown.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub to: Option<Option<Stamp>>,
    /// `banned`: why, as the operator wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `not_resumable`: the store has lost its data, and with it all that the session held, acked or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<bool>,
}

impl ErrorBody {
    /// An error that says no more than its code's own fields.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            temporary: code.is_temporary(),
            retry_after_ms: None,
            expected: None,
            state_stamp: None,
            applied: None,
            stamp: None,
            to: None,
            reason: None,
            lost: None,
        }
    }

    /// The same with a time to wait.
    #[must_use]
    pub fn after(mut self, retry_after_ms: u64) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }
}

/// Tells an absent field (`None`) from `null` (`Some(None)`).
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Stamp>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// What was lost: in `ready.rolled_back` and in the push `rolled_back`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollback {
    /// What the client had been told.
    pub from: Stamp,
    /// What survived; `null` = unknown, take everything anew.
    pub to: Option<Stamp>,
    /// The highest `cseq` that survived.
    pub cseq: u64,
}

/// Op 102.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Ready {
    /// The session's id.
    pub session: String,
    /// The secret for the next `resume`; new each time.
    pub ticket: String,
    /// Who the token says the client is.
    pub player: String,
    /// Where the record stands.
    pub stamp: Stamp,
    /// Send something at least this often.
    pub heartbeat_ms: u64,
    /// How long the session outlives its link.
    pub resume_ms: u64,
    /// How long the token lasts.
    pub expires_in_ms: u64,
    /// The server's clock, Unix ms.
    pub now_ms: u64,
    /// Which node this is.
    pub node: String,
    /// Whether an old session was taken up.
    pub resumed: bool,
    /// How many pushes are sent again after this frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<u32>,
    /// Some pushes are lost; snapshots of watches and rooms follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<bool>,
    /// Acked writes are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<Rollback>,
    /// The highest `cseq` applied.
    pub cseq: u64,
    /// Whom the session watches, after a resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watching: Option<Vec<String>>,
    /// The rooms the session is in, after a resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rooms: Option<Vec<String>>,
    /// Given while the store is unreachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prov: Option<bool>,
    /// This deployment's limits by name.
    pub limits: BTreeMap<String, u64>,
}

/// Op 103.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Redirect {
    /// Where to connect instead.
    pub url: String,
    /// Which node that is.
    pub node: String,
}
