//! `GET /v1/cluster`: the nodes, the store of this one, and where each shard stands: those of other nodes as far as the
//! store and their heartbeats say.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::calls::{
    Cluster as ClusterView, Held, Node as NodeView, Shard as ShardView, Shortfall as ShortfallView,
    Store as StoreView,
};

use super::Service;
use super::door::Reader;
use crate::clock;
use crate::cluster::{Holds, Member, Seen, Unreached};
use crate::home::lease;
use crate::home::record::millis;
use crate::home::shard::Shard;
use crate::home::{Shortfall, Sight, Word};

/// What the store's settings fall short of.
pub(super) fn shortfall_view(shortfall: &Shortfall) -> ShortfallView {
    let Shortfall { setting, message, fatal } = shortfall.clone();
    ShortfallView { setting, message, fatal }
}

/// What the store's being away means for now.
pub(super) fn shortfall_of_store(message: String) -> ShortfallView {
    ShortfallView { setting: "store".to_owned(), message, fatal: false }
}

/// For whoever asks without a key: where and why are in the log, and in `GET /v1/cluster`.
pub(super) fn shortfall_of_unreached(unreached: &Unreached) -> ShortfallView {
    let message = format!(
        "the live node {} cannot be reached; set peer_addr and peer_public_addr to what other nodes can connect to",
        unreached.node
    );
    ShortfallView { setting: "peer_public_addr".to_owned(), message, fatal: false }
}

/// `GET /v1/cluster`
pub(super) async fn cluster(State(service): State<Arc<Service>>, _: Reader) -> Json<ClusterView> {
    let sights = service.home.sights().await;
    let now_ms = clock::now().mono_ms;
    let node = &service.settings.node_id;
    let shards = service.home.shards().iter().zip(sights);
    Json(ClusterView {
        node: node.clone(),
        nodes: nodes(&service, now_ms),
        store: StoreView {
            kind: service.home.store_kind().to_owned(),
            shortfalls: (service.settings.store_shortfalls)().iter().map(shortfall_view).collect(),
        },
        records_hot: service.home.records().len(),
        shards: shards.map(|(shard, sight)| shard_view(shard, &sight, node, now_ms)).collect(),
    })
}

fn nodes(service: &Service, now_ms: u64) -> Vec<NodeView> {
    let cluster = service.home.cluster();
    let since_ms = now_ms.saturating_sub(cluster.taken_at_ms());
    let unreached = service.peers.unreached();
    let fault = |node: &str| unreached.iter().find(|unreached| unreached.node == node);
    let view = |seen: &Seen| {
        let Seen { member: Member { owner, says }, age } = seen;
        let is_me = owner == cluster.me();
        NodeView {
            node: owner.node().to_owned(),
            boot: owner.boot_id().to_owned(),
            // As it is told to clients, also before the first heartbeat.
            url: if is_me { service.settings.client_url.clone() } else { says.url.clone() },
            peer: says.peer.clone(),
            draining: says.drains,
            link: (!is_me).then(|| if service.peers.stands(owner) { "up" } else { "down" }.to_owned()),
            link_fault: fault(owner.node()).filter(|_| !is_me).map(|unreached| unreached.reason.clone()),
            age_ms: millis(*age).saturating_add(since_ms),
            formats: [says.formats.min, says.formats.max, says.formats.writes],
            holds: held(says.holds),
            uptime_ms: is_me.then(|| now_ms.saturating_sub(service.started_at_ms)),
        }
    };
    cluster.seen().iter().map(view).collect()
}

const fn held(holds: Holds) -> Held {
    let Holds { shards, epochs, records_hot, records_dirty, flush_lag_ms } = holds;
    Held { shards, epochs, records_hot, records_dirty, flush_lag_ms }
}

fn shard_view(shard: &Shard, sight: &Sight, node: &str, now_ms: u64) -> ShardView {
    let (state, epoch) = shard.lease();
    let is_ours = !matches!(state, lease::State::Free | lease::State::Fenced);
    let (home, home_by, home_age_ms) = match sight {
        // One that was silent here for too long is another node's by now, and it says so.
        Sight::Of { holder, by: Word::Nodes } if !is_ours || !shard.serves(now_ms) => {
            (Some(holder.node()), Some("nodes"), None)
        }
        _ if is_ours => (Some(node), Some("self"), None),
        Sight::Of { holder, by: Word::StoreBefore { age_ms } } if holder.node() != node => {
            (Some(holder.node()), Some("store_before"), Some(*age_ms))
        }
        // What was held here a moment ago is not any more, whatever was said before.
        Sight::Of { by: Word::StoreBefore { .. }, .. } | Sight::Unknown => (None, None, None),
        Sight::Of { holder, .. } => {
            (Some(holder.node()).filter(|holder| *holder != node), Some("store"), None)
        }
        Sight::Nobody => (None, Some("store"), None),
    };
    ShardView {
        shard: shard.id().number(),
        home: home.map(str::to_owned),
        home_by: home_by.map(str::to_owned),
        home_age_ms,
        epoch: epoch.number(),
        state: state.name().to_owned(),
        serving: shard.serves(now_ms),
        provisional: is_ours && shard.is_held_back(),
        dirty: shard.dirty_records(),
        flush_lag_ms: shard.dirty_since_ms().map_or(0, |since_ms| now_ms.saturating_sub(since_ms)),
    }
}
