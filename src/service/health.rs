//! What probes and scrapers ask, without a key: `/healthz` whether the process is well, `/readyz` whether it can do
//! its work, `/metrics` what it counted. Readiness writes to the store, so it is judged at most once a second.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::ErrorCode;
use serde::Serialize;
use serde_json::json;

use super::cluster::ShortfallView;
use super::maintenance::View;
use super::problem::Problem;
use super::{Condition, Service};
use crate::clock::{self, millis};

/// How long the store may take for a write and a read.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

/// Whether the node can do its work, and why not.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Readiness {
    ready: bool,
    /// What stands in the way; empty when ready.
    reasons: Vec<String>,
    store: StoreReadiness,
    shards: ShardsReadiness,
    /// What makes `durable` mean less than it says, and what should be looked at; the node serves nevertheless.
    shortfalls: Vec<ShortfallView>,
}

#[derive(Serialize)]
struct WithMaintenance {
    #[serde(flatten)]
    readiness: Readiness,
    maintenance: View,
}

#[derive(Debug, Clone, Serialize)]
struct StoreReadiness {
    kind: &'static str,
    /// How long a write and a read took; absent when they failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_ms: Option<u64>,
}

#[derive(Debug, Clone, Serialize)]
struct ShardsReadiness {
    serving: usize,
    of: usize,
}

/// `GET /healthz`
pub(super) async fn healthz(State(service): State<Arc<Service>>) -> Response {
    match (service.condition)() {
        Condition::Well | Condition::Stopping => Json(json!({ "status": "ok" })).into_response(),
        Condition::Failed => failed().into_response(),
    }
}

fn failed() -> Problem {
    Problem::new(ErrorCode::Internal, "a vital part of this node has failed")
}

/// `GET /readyz`
pub(super) async fn readyz(State(service): State<Arc<Service>>) -> Response {
    let mut readiness = Readiness::clone(&*service.readiness.get(service.judge()).await);
    // Not kept for a second: whoever stops must get no more work at once.
    match (service.condition)() {
        Condition::Well => {}
        Condition::Stopping => readiness.reasons.push("the node is stopping".to_owned()),
        Condition::Failed => readiness.reasons.push("a vital part of this node has failed".to_owned()),
    }
    readiness.ready = readiness.reasons.is_empty();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Players not let in are no reason: services are answered, and the node is where it should be.
    let answer = WithMaintenance { readiness, maintenance: service.maintenance_view() };
    (status, Json(answer)).into_response()
}

impl Service {
    async fn judge(&self) -> Readiness {
        let probed = self.home.probe_store(PROBE_DEADLINE).await;
        let now_ms = clock::now().mono_ms;
        // Those of other nodes are theirs to answer for.
        let shards = self.home.shards_placed();
        let serving = shards.iter().filter(|shard| shard.serves(now_ms)).count();
        let now = (self.settings.shortfalls_now)();
        let mut reasons = Vec::new();
        if let Err(error) = &probed {
            reasons.push(error.to_string());
        }
        if serving < shards.len() {
            reasons.push(format!("{} of {} shards do not serve", shards.len() - serving, shards.len()));
        }
        Readiness {
            ready: reasons.is_empty(),
            reasons,
            store: StoreReadiness { kind: self.home.store_kind(), probe_ms: probed.ok().map(millis) },
            shards: ShardsReadiness { serving, of: shards.len() },
            shortfalls: self
                .settings
                .shortfalls
                .iter()
                .chain(&now)
                .map(ShortfallView::of)
                .chain(self.peers.unreached().iter().map(ShortfallView::of_unreached))
                .collect(),
        }
    }
}

/// `GET /metrics`
pub(super) async fn metrics(State(service): State<Arc<Service>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (service.metrics)())
        .into_response()
}
