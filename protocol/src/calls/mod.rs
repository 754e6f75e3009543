//! What game services ask over HTTP and what they are answered: the bodies of the service API, `protocol/README.md`
//! section 11. The server writes and reads them, the client of the feature `service` does the same from its side, and
//! with the feature `schema` the OpenAPI document is made of them, so that what is written here is written once.

mod counters;
mod locks;
mod messages;
mod operators;
mod overview;
mod players;
mod rooms;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use counters::{Change, Counter};
pub use locks::{LockAcquired, LockAsk, LockRenewal, LockRenewed};
pub use messages::{Given, Push, PushToMany, Pushed, Said, Say};
pub use operators::{
    Close, Cluster, Health, Held, LogChange, LogView, MaintenanceView, Node, OnlineByStatus, OnlinePlayers,
    Readiness, Shard, ShardsReadiness, Shortfall, Stats, Store, StoreReadiness,
};
pub use overview::{
    Alarm, AlarmChange, BreakerView, Latencies, NodeOverview, NodeShortfall, Overview, Percentiles, Rates,
    ShardChanging, ShardsOf, SlowConsumer, StoreOverview, StoreShortfall, TopRoom,
};
pub use players::{
    Ban, BanView, Banned, Checkpoint, Event, Happened, HomeView, Kick, Kicked, Made, Open, PlayerView,
    Queried, Query, Seen, SessionView, Timeline, WatchList, WatchesListed,
};
pub use rooms::{Join, PutIn, RoomView};

use crate::reply::present;
use crate::{ErrorCode, Stamp};

/// A refusal: RFC 9457's problem details, and what its code adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(extend("required" = ["type", "title", "status", "detail", "code", "temporary"]))
)]
pub struct Problem {
    /// `urn:hearth:problem:` and the code.
    #[serde(default)]
    pub r#type: Cow<'static, str>,
    /// The same for every refusal with this code; for people.
    #[serde(default)]
    pub title: Cow<'static, str>,
    /// The HTTP status.
    pub status: u16,
    /// For people: names the field that is at fault.
    #[serde(default)]
    pub detail: Cow<'static, str>,
    /// The named error. Clients must bear with codes that they do not know.
    pub code: Cow<'static, str>,
    /// Whether the same call may succeed later.
    #[serde(default)]
    pub temporary: bool,
    /// When to try again at the earliest, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// `cseq_gap`: the next counter that is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
    /// `state_conflict`: where the state stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_stamp: Option<Stamp>,
    /// `store_unavailable`: the change is in force, but the store does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<bool>,
    /// `behind`, `store_unavailable` with `applied`: where the record stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
    /// `rolled_back`: what survived; `null` = unknown.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Stamp>"))]
    pub to: Option<Option<Stamp>>,
    /// `banned`: why, as the operator wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `out_of_bounds`: where the counter stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
    /// `precondition_failed`: the tag of what is stored, as in `ETag`; absent where nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

impl Problem {
    /// Whether it is this error.
    #[must_use]
    pub fn is(&self, code: ErrorCode) -> bool {
        self.code == code.name()
    }
}

/// Whether an answer's flag is left out.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_not(flag: &bool) -> bool {
    !*flag
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_of_a_later_server_is_read() {
        let text = r#"{"type": "urn:x", "status": 409, "code": "brand_new", "detail": "d", "more": [1]}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!((problem.status, problem.is(ErrorCode::LockHeld), problem.temporary), (409, false, false));
    }

    #[test]
    fn an_event_of_a_shard_and_one_of_a_player_are_told_apart() {
        let gap: Event = serde_json::from_str(r#"{"shard": 3, "missed": 7}"#).unwrap();
        assert_eq!((gap.shard, gap.missed, gap.happened), (3, Some(7), None));
        let text = r#"{"shard": 3, "player": "ann", "kind": "ended", "at": 5, "node": "a", "epoch": 1, "version": 2}"#;
        let event: Event = serde_json::from_str(text).unwrap();
        assert_eq!(event.happened.map(|happened| happened.kind).as_deref(), Some("ended"));
    }
}
