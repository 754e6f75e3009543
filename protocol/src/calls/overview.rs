//! What operators look at all the time: the cluster at one glance, with its alarms.

use serde::{Deserialize, Serialize};

use super::OnlinePlayers;

/// `GET /v1/overview`: the whole cluster, whichever node is asked. What is not known is absent, never 0.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Overview {
    /// When it was made (Unix ms). What nodes say in it is a second old at most.
    pub as_of: u64,
    /// The node that answered.
    pub node: String,
    /// Its version.
    pub version: String,
    /// Players whom others see as here.
    pub players: OnlinePlayers,
    /// Sessions.
    pub sessions: usize,
    /// Links.
    pub links: usize,
    /// Rooms with members.
    pub rooms: usize,
    /// What happens a second, at the nodes that know; absent where none of them does: before their first two looks, or
    /// with `metrics.record=false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
    /// How long it takes.
    pub latency_ms: Latencies,
    /// All nodes that live, those that did not answer among them.
    pub nodes: Vec<NodeOverview>,
    /// Which shards each of them holds.
    pub shards: Vec<ShardsOf>,
    /// How many shards there are.
    pub shards_total: usize,
    /// The store.
    pub store: StoreOverview,
    /// The alarms that are on, at any node; the worst first.
    pub alarms: Vec<Alarm>,
    /// The rooms that make most pushes, at most 10 and the busiest first.
    pub top_rooms: Vec<TopRoom>,
    /// Sessions that lately read too slowly, at most 20 and the latest of each node first.
    pub slow_consumers: Vec<SlowConsumer>,
    /// The nodes that did not answer: what they hold is not counted.
    pub unknown_nodes: Vec<String>,
}

/// What happens a second, over the last ten.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rates {
    /// Commands answered.
    pub acks: f64,
    /// Logins, however they ended.
    pub logins: f64,
    /// Resumes, however they ended.
    pub resumes: f64,
    /// Frames put into outboxes: presence, and what rooms say.
    pub pushes: f64,
    /// Requests refused for being too fast, or because there was too much to do.
    pub refused: f64,
    /// Requests that failed by the server's own fault: of commands, logins, resumes and calls of services.
    #[serde(default)]
    pub failed: f64,
    /// Calls of services.
    pub service_calls: f64,
}

/// How long things took in the last ten seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Latencies {
    /// From a command to its ack.
    pub applied: Percentiles,
    /// From a command to its `durable` ack.
    pub durable: Percentiles,
    /// Commits of the store.
    pub commit: Percentiles,
    /// Calls of services, but those that wait as long as they are asked to.
    pub service: Percentiles,
}

/// How long most take, and nearly all, ms; absent where there was nothing to measure. As exact as the steps of
/// the histograms in `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Percentiles {
    /// Half of them take no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<f64>,
    /// 99 in a hundred take no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
}

/// A node. Of one that did not answer there are `node` and `state` alone; of one that stops and answers no more
/// `shards_left`, too.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeOverview {
    /// Its name.
    pub node: String,
    /// `up`, `stopping`, or `unknown`: it did not answer.
    pub state: String,
    /// Of one that is `stopping`: shards that it holds still, and others have yet to take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards_left: Option<usize>,
    /// When its process began (Unix ms).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<u64>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Shards that it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<usize>,
    /// Links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<usize>,
    /// Sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<usize>,
    /// Player records in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<usize>,
    /// Player records that the store does not have as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty: Option<usize>,
    /// How long the oldest of those has waited, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush_lag_ms: Option<u64>,
    /// How late its letters to other nodes are, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail_lag_ms: Option<u64>,
    /// Commands answered a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acks: Option<f64>,
    /// 99 acks in a hundred take no longer, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_p99_ms: Option<f64>,
    /// Memory in use, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processor time, in percent of one core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// The breakers of the store's servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breakers: Vec<BreakerView>,
    /// It serves shards from memory, without a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<bool>,
    /// It holds shards that it may not serve now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Whether it counts what it does (`metrics.record`): where it does not, it knows no rates and no alarm rings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<bool>,
    /// Where it falls short: what `/readyz` says there, beside what the store's settings do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortfalls: Vec<NodeShortfall>,
}

/// Where a node falls short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeShortfall {
    /// The setting that it is about, or `store`, or `process`.
    pub name: String,
    /// What of it, for people.
    pub text: String,
}

/// How a server of the store answers a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BreakerView {
    /// Which.
    pub endpoint: String,
    /// `closed`: as it should; `ramp`: it is only just back; `half_open` and `open`: it is in trouble.
    pub state: String,
}

/// The shards of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShardsOf {
    /// Which node.
    pub node: String,
    /// Those that it serves.
    pub serving: Vec<u16>,
    /// Those that come or go.
    pub changing: Vec<ShardChanging>,
}

/// A shard that comes or goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShardChanging {
    /// Its number.
    pub shard: u16,
    /// `taking`, `handing_over`, or `repairing`: it is written anew, because the store lost writes.
    pub state: String,
    /// The node that gets it, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// The store, as the nodes find it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoreOverview {
    /// `embedded`, `redis` or another.
    pub kind: String,
    /// `ok`, `slow` or `down`: as the node says that finds it worst.
    pub state: String,
    /// What its settings fall short of.
    pub shortfalls: Vec<StoreShortfall>,
}

/// A setting of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoreShortfall {
    /// Which.
    pub name: String,
    /// What of it, for people.
    pub text: String,
}

/// An alarm that is on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Alarm {
    /// `error_rate`, `latency`, `traffic`, `store_slow`, `store_down`, `store_lost`, `hot_room`, `login_flood`,
    /// `slow_readers`, `session_leak`, `node_lost`, `lease_lost`, `mail_lag` or `bad_client`; later versions may have more.
    pub name: String,
    /// The node that rings.
    pub node: String,
    /// `critical` or `warning`.
    pub severity: String,
    /// Since when (Unix ms).
    pub since: u64,
    /// What was measured last.
    pub value: f64,
    /// What it must not lie above.
    pub limit: f64,
    /// Of both.
    pub unit: String,
    /// What it is, for people.
    pub text: String,
    /// What to do about it, for people.
    pub r#do: String,
    /// What it is about holds no more: it ends in a moment, unless it comes back; value and text are from when it did.
    #[serde(default)]
    pub ending: bool,
}

/// The data of the event `alarm`: one that has begun, or has ended. What rings when somebody comes to follow is told as
/// begun, too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AlarmChange {
    /// `alarm_began` or `alarm_ended`.
    pub kind: String,
    /// When (Unix ms): of one that has begun its `since`, of one that has ended when that was seen by the node that tells it.
    pub at: u64,
    /// Why it has ended, where that is not because all is well again. `node_gone`: its node is no member any more, and
    /// nobody can say. `node_restarted`: another process of its name is there, and looks at everything anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The alarm; of one that has ended as it was seen last.
    #[serde(flatten)]
    pub alarm: Alarm,
}

/// A room that makes many pushes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TopRoom {
    /// Its name.
    pub room: String,
    /// How many are in it; absent where its home did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<usize>,
    /// Frames put into outboxes a second, all its members together.
    pub pushes: f64,
}

/// A session that reads too slowly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SlowConsumer {
    /// Whose.
    pub player: String,
    /// Which.
    pub session: String,
    /// Where it is.
    pub node: String,
    /// Pushes that waited for it.
    pub waiting: usize,
    /// Its link was closed for it.
    pub closed: bool,
}
