//! `GET /v1/cluster`: this node, its store, and where each shard stands.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::Service;
use super::door::Reader;
use crate::clock;
use crate::home::Shortfall;
use crate::home::lease;
use crate::home::shard::Shard;

#[derive(Serialize)]
pub(super) struct ClusterView {
    node: String,
    nodes: Vec<NodeView>,
    store: StoreView,
    records_hot: usize,
    shards: Vec<ShardView>,
}

#[derive(Serialize)]
struct NodeView {
    node: String,
    url: String,
    uptime_ms: u64,
}

#[derive(Serialize)]
struct StoreView {
    kind: &'static str,
    shortfalls: Vec<ShortfallView>,
}

/// What the store's settings fall short of.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ShortfallView {
    setting: String,
    message: String,
    fatal: bool,
}

impl ShortfallView {
    pub(super) fn of(shortfall: &Shortfall) -> Self {
        let Shortfall { setting, message, fatal } = shortfall.clone();
        Self { setting, message, fatal }
    }
}

#[derive(Serialize)]
struct ShardView {
    shard: u16,
    /// Absent while no node is known to hold it.
    #[serde(skip_serializing_if = "Option::is_none")]
    home: Option<String>,
    epoch: u64,
    state: &'static str,
    serving: bool,
    dirty: usize,
    flush_lag_ms: u64,
}

/// `GET /v1/cluster`
pub(super) async fn cluster(State(service): State<Arc<Service>>, _: Reader) -> Json<ClusterView> {
    let now_ms = clock::now().mono_ms;
    let node = &service.settings.node_id;
    Json(ClusterView {
        node: node.clone(),
        nodes: vec![NodeView {
            node: node.clone(),
            url: service.settings.client_url.clone(),
            uptime_ms: now_ms.saturating_sub(service.started_at_ms),
        }],
        store: StoreView {
            kind: service.home.store_kind(),
            shortfalls: service.settings.shortfalls.iter().map(ShortfallView::of).collect(),
        },
        records_hot: service.home.records().len(),
        shards: service.home.shards().iter().map(|shard| shard_view(shard, node, now_ms)).collect(),
    })
}

fn shard_view(shard: &Shard, node: &str, now_ms: u64) -> ShardView {
    let (state, epoch) = shard.lease();
    let is_ours = !matches!(state, lease::State::Free | lease::State::Fenced);
    ShardView {
        shard: shard.id().number(),
        home: is_ours.then(|| node.to_owned()),
        epoch: epoch.number(),
        state: state.name(),
        serving: shard.serves(now_ms),
        dirty: shard.dirty_records(),
        flush_lag_ms: shard.dirty_since_ms().map_or(0, |since_ms| now_ms.saturating_sub(since_ms)),
    }
}
