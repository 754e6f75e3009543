//! What operators look at and say: maintenance, figures, the cluster, health.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Text;

/// `POST /v1/maintenance`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Close<'a> {
    /// Told to players: 1 to 256 bytes.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 256)))]
    pub reason: Text<'a>,
    /// Until when (Unix ms, in the future); absent until somebody opens it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// Whether players are let in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MaintenanceView {
    /// Whether they are not.
    pub closed: bool,
    /// Since when (Unix ms).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Until when (Unix ms); absent until somebody opens it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Why, as players are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many links there were when it was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<u64>,
}

/// `PUT /v1/log`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogChange<'a> {
    /// What is logged: `info`, or directives such as `info,hearth::home=debug`; 1 to 1024 bytes.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 1024)))]
    pub level: Text<'a>,
    /// For so many seconds, 1 to 86 400; absent for 600. Then it is as the settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 86400)))]
    pub for_s: Option<u32>,
}

/// What a node logs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogView {
    /// Which one: the one that was asked.
    pub node: String,
    /// The directives in force.
    pub level: String,
    /// Those of its settings.
    pub configured: String,
    /// Until when the first are in force, where they are not those of the settings for good (Unix ms).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// How many there are in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stats {
    /// Players whom others see as here.
    pub players: OnlinePlayers,
    /// Sessions.
    pub sessions: usize,
    /// Links.
    pub links: usize,
    /// Rooms with members.
    pub rooms: usize,
    /// The nodes that did not answer: what they hold is not counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_nodes: Vec<String>,
    /// For how many shards nobody has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_shards: Option<usize>,
    /// When it was counted (Unix ms).
    pub as_of: u64,
    /// Whether players are let in now.
    pub maintenance: MaintenanceView,
}

/// Players whom others see as here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OnlinePlayers {
    /// All of them.
    pub online: usize,
    /// By what they are doing.
    pub by_status: OnlineByStatus,
    /// By device; one on two counts twice. Rare names are counted together as `other`.
    pub by_device: BTreeMap<Box<str>, usize>,
}

/// Players by what they are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OnlineByStatus {
    /// Here.
    pub online: usize,
    /// Here, but idle.
    pub away: usize,
    /// Here, not to be disturbed.
    pub busy: usize,
    /// In a game.
    pub playing: usize,
}

/// The nodes, the store, and where each shard stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cluster {
    /// The node that answered.
    pub node: String,
    /// All that live.
    pub nodes: Vec<Node>,
    /// The store of the one that answered.
    pub store: Store,
    /// How many player records it has in memory.
    pub records_hot: usize,
    /// All shards, as they stand on it.
    pub shards: Vec<Shard>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Node {
    /// Its name.
    pub node: String,
    /// Its process.
    pub boot: String,
    /// Where clients connect.
    pub url: String,
    /// Where other nodes connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// It hands its shards over and stops.
    pub draining: bool,
    /// `up` or `down`: whether the node that answered can speak with it; absent for that one itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Why not, once that has lasted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_fault: Option<String>,
    /// How long ago it was heard of, ms.
    pub age_ms: u64,
    /// The storage formats that it reads, the oldest and the newest; and the one that it writes.
    pub formats: [u32; 3],
    /// What it held at its last heartbeat.
    pub holds: Held,
    /// Of the node that answered: since when it runs, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_ms: Option<u64>,
}

/// What a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Held {
    /// Shards.
    pub shards: u64,
    /// The lowest and the highest epoch of them.
    pub epochs: (u64, u64),
    /// Player records in memory.
    pub records_hot: u64,
    /// Player records that the store does not have as they are.
    pub records_dirty: u64,
    /// How long the oldest of those has waited, ms.
    pub flush_lag_ms: u64,
}

/// A node's store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Store {
    /// `embedded`, `redis` or another.
    pub kind: String,
    /// What its settings fall short of.
    pub shortfalls: Vec<Shortfall>,
}

/// What should be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shortfall {
    /// Which setting.
    pub setting: String,
    /// What of it, for people.
    pub message: String,
    /// A server would refuse to start with it; not that this one fails.
    pub fatal: bool,
}

/// A shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shard {
    /// Its number.
    pub shard: u16,
    /// The node that holds it; absent while none is known to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// Who says so, or that nobody does: `self`, `store`, `nodes`, `store_before`; absent while nobody can say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home_by: Option<String>,
    /// How long ago that was, where it is not now, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home_age_ms: Option<u64>,
    /// Of its lease.
    pub epoch: u64,
    /// How its lease stands.
    pub state: String,
    /// Whether it is served here.
    pub serving: bool,
    /// Its store is away or takes no changes: what is acked is provisional.
    pub provisional: bool,
    /// Player records that the store does not have as they are.
    pub dirty: usize,
    /// How long the oldest of those has waited, ms.
    pub flush_lag_ms: u64,
}

/// Whether the process is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Health {
    /// `ok`.
    pub status: String,
}

/// Whether a node can do its work, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Readiness {
    /// Whether it can.
    pub ready: bool,
    /// What stands in the way; empty when ready.
    pub reasons: Vec<String>,
    /// Its store.
    pub store: StoreReadiness,
    /// Its shards.
    pub shards: ShardsReadiness,
    /// What makes `durable` mean less than it says, and what should be looked at; the node serves nevertheless.
    pub shortfalls: Vec<Shortfall>,
    /// Whether players are let in; that they are not is no reason not to be ready.
    pub maintenance: MaintenanceView,
}

/// How the store answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoreReadiness {
    /// `embedded`, `redis` or another.
    pub kind: String,
    /// How long a write and a read took, ms; absent when they failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_ms: Option<u64>,
    /// How long ago that was, ms; absent while the store was never probed to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_age_ms: Option<u64>,
}

/// The shards that are the node's to answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShardsReadiness {
    /// How many are served.
    pub serving: usize,
    /// Of how many.
    pub of: usize,
}
