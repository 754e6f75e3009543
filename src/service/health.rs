//! What probes and scrapers ask, without a key: `/healthz` whether the process is well, `/readyz` whether it can do
//! its work, `/metrics` what it counted. Readiness writes to the store, so it is judged at most once a second.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::ErrorCode;
use protocol::calls::{
    Health, MaintenanceView, NodeShortfall, Readiness, ShardsReadiness, Shortfall as ShortfallView,
    StoreReadiness,
};
use tokio::sync::watch;
use tokio::time::Instant;

use super::cluster::{shortfall_of_store, shortfall_of_unreached, shortfall_view};
use super::problem::Problem;
use super::{Condition, Service};
use crate::clock::{self, Now, millis};
use crate::home::shard::Shard;
use crate::home::{StoreError, lease};

/// How long the store may take for a write and a read.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// How long whoever asks waits for that: what the probe before came to is told then, for probers often wait no longer
/// than a second.
const PROBE_PATIENCE: Duration = Duration::from_millis(300);
/// How long changes may wait for a store that is there before the node is not ready.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

const FAILED: &str = "a vital part of this node has failed";

/// Probes of the store: one at a time, which goes on when nobody waits for it any more.
#[derive(Debug, Default)]
pub(super) struct Probes {
    turn: tokio::sync::Mutex<()>,
    latest: watch::Sender<Option<Probed>>,
}

/// What a probe came to.
#[derive(Debug, Clone)]
struct Probed {
    at: Instant,
    outcome: Result<Duration, StoreError>,
}

/// `GET /healthz`
pub(super) async fn healthz(State(service): State<Arc<Service>>) -> Response {
    match (service.condition)() {
        Condition::Well | Condition::Stopping | Condition::Full | Condition::Late { .. } => {
            Json(Health { status: "ok".to_owned() }).into_response()
        }
        Condition::Failed => failed().into_response(),
    }
}

fn failed() -> Problem {
    Problem::new(ErrorCode::Internal, FAILED)
}

/// What is wrong with the process, if anything is.
fn unwell(condition: Condition) -> Option<String> {
    match condition {
        Condition::Well | Condition::Stopping => None,
        Condition::Late { task, ms } => {
            Some(format!("the task {task} has not come round for {} s", ms / 1_000))
        }
        Condition::Full => Some("no file descriptor is left: raise ulimit -n".to_owned()),
        Condition::Failed => Some(FAILED.to_owned()),
    }
}

/// `GET /readyz`
pub(super) async fn readyz(State(service): State<Arc<Service>>) -> Response {
    let mut readiness = Readiness::clone(&*service.readiness.get(service.judge()).await);
    // Not kept for a second: whoever stops must get no more work at once.
    let condition = (service.condition)();
    if condition == Condition::Stopping {
        readiness.reasons.push("the node is stopping".to_owned());
    }
    readiness.reasons.extend(unwell(condition));
    readiness.ready = readiness.reasons.is_empty();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Players not let in are no reason: services are answered, and the node is where it should be.
    readiness.maintenance = service.maintenance_view();
    (status, Json(readiness)).into_response()
}

impl Service {
    /// What the latest probe of the store came to, and whether it was made now; starts one if none is under way.
    async fn probed(&self) -> (Option<Probed>, bool) {
        let mut news = self.probes.latest.subscribe();
        let (home, probes) = (Arc::clone(&self.home), Arc::clone(&self.probes));
        self.tasks.spawn("probe", async move {
            let Ok(_turn) = probes.turn.try_lock() else { return };
            let outcome = home.probe_store(PROBE_DEADLINE).await;
            probes.latest.send_replace(Some(Probed { at: Instant::now(), outcome }));
        });
        let is_new = tokio::time::timeout(PROBE_PATIENCE, news.changed()).await.is_ok();
        let latest = news.borrow().clone();
        (latest, is_new)
    }

    pub(super) async fn judge(&self) -> Readiness {
        let (probed, is_new) = self.probed().await;
        let age_ms = probed.as_ref().map(|probed| millis(probed.at.elapsed()));
        let waits = (!is_new).then(|| {
            let waited_ms = millis(PROBE_PATIENCE);
            let known = age_ms
                .map_or_else(String::new, |age_ms| format!(": what is told of it was so {age_ms} ms ago"));
            format!("the store has not answered a probe within {waited_ms} ms{known}")
        });
        let outcome = probed.map_or(Err(StoreError::Timeout), |probed| probed.outcome);
        let now = clock::now();
        // Those of other nodes are theirs to answer for.
        let shards = Stands::of(&self.home.shards_in_hand(now.mono_ms), now.mono_ms);
        let mut reasons = Vec::new();
        // A store that is known to be away is no reason while players are served without it.
        if let Some(error) = outcome.as_ref().err().filter(|_| shards.from_memory == 0) {
            reasons.push(error.to_string());
        }
        reasons.extend(shards.reason());
        reasons.extend(self.flush_is_stuck(now));
        Readiness {
            ready: reasons.is_empty(),
            reasons,
            store: StoreReadiness {
                kind: self.home.store_kind().to_owned(),
                probe_ms: outcome.ok().map(millis),
                probe_age_ms: age_ms,
            },
            shards: ShardsReadiness { serving: shards.serving, of: shards.of },
            shortfalls: (self.settings.store_shortfalls)()
                .iter()
                .map(shortfall_view)
                .chain(self.shortfalls_of_node(&shards, now))
                .chain(waits.map(shortfall_of_store))
                .collect(),
            // Told as it is when somebody asks.
            maintenance: MaintenanceView::default(),
        }
    }

    /// Where this node falls short, beside what the store's settings do: of files and certificates, of other nodes, of the
    /// store as it finds it.
    fn shortfalls_of_node(&self, shards: &Stands, now: Now) -> Vec<ShortfallView> {
        let files = (self.settings.shortfalls_now)();
        let told = files.iter().map(shortfall_view);
        told.chain(self.peers.unreached().iter().map(shortfall_of_unreached))
            .chain(shards.shortfalls().into_iter().map(shortfall_of_store))
            .chain(self.home.store_lost(now).map(lost).map(shortfall_of_store))
            .collect()
    }

    fn flush_is_stuck(&self, now: Now) -> Option<String> {
        let stuck = self.home.flush_stuck_for(FLUSH_PATIENCE, now)?;
        Some(format!("changes have waited {} s for a store that is there", stuck.as_secs()))
    }

    /// The same for the overview, and what else keeps the node from being ready but its shards, of which that tells by
    /// itself. Without a probe: the store is not asked because somebody looks.
    pub(super) fn shortfalls_here(&self, now: Now) -> Vec<NodeShortfall> {
        let shards = Stands::of(&self.home.shards_in_hand(now.mono_ms), now.mono_ms);
        let process =
            unwell((self.condition)()).map(|text| NodeShortfall { name: "process".to_owned(), text });
        let stuck = self.flush_is_stuck(now).map(|text| NodeShortfall { name: "store".to_owned(), text });
        let view = |view: ShortfallView| NodeShortfall { name: view.setting, text: view.message };
        let told = self.shortfalls_of_node(&shards, now).into_iter().map(view);
        process.into_iter().chain(stuck).chain(told).collect()
    }
}

/// How the shards that are this node's to answer for stand.
#[derive(Debug, Default, Clone, Copy)]
struct Stands {
    of: usize,
    serving: usize,
    /// Served while the store is away.
    from_memory: usize,
    /// Not served, because their leases have run out.
    paused: usize,
}

impl Stands {
    fn of(shards: &[&Arc<Shard>], now_ms: u64) -> Self {
        let count = |is_so: &dyn Fn(&Shard) -> bool| shards.iter().filter(|shard| is_so(shard)).count();
        let serves = |shard: &Shard| shard.serves(now_ms);
        Self {
            of: shards.len(),
            serving: count(&serves),
            from_memory: count(&|shard| serves(shard) && shard.is_cut_off()),
            paused: count(&|shard| !serves(shard) && shard.lease().0 == lease::State::Paused),
        }
    }

    /// Why the node is not ready. One that serves from memory is; so is one of whose shards some have lost their store, as
    /// long as the others are served: no other node could do more.
    fn reason(&self) -> Option<String> {
        let silent = self.of - self.serving;
        let is_ready = silent == 0 || (self.serving > 0 && silent == self.paused);
        (!is_ready).then(|| format!("{silent} of {} shards do not serve", self.of))
    }

    fn shortfalls(&self) -> Vec<String> {
        let memory = format!(
            "the store is away: {} of {} shards are served from memory, and what is acked of them is provisional",
            self.from_memory, self.of
        );
        let paused =
            format!("{} of {} shards are not served before their store is back", self.paused, self.of);
        let told = [(self.from_memory, memory), (self.paused, paused)];
        told.into_iter().filter_map(|(shards, told)| (shards > 0).then_some(told)).collect()
    }
}

/// What a store that lost writes means, for whoever did not see the log.
fn lost((shards, ago): (usize, Duration)) -> String {
    format!(
        "the store lost what it had acknowledged, last {} s ago: {shards} shards were written again from memory, and what \
         no node had in memory (messages kept for players who are away, what was remembered of them) is gone where the \
         store has lost it",
        ago.as_secs()
    )
}

/// `GET /metrics`
pub(super) async fn metrics(State(service): State<Arc<Service>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (service.metrics)())
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_serves_from_memory_is_ready_and_one_that_serves_nobody_is_not() {
        for (of, serving, from_memory, paused, is_ready, told) in [
            (4, 4, 0, 0, true, 0),
            (4, 4, 4, 0, true, 1),
            (4, 4, 2, 0, true, 1),
            (4, 2, 0, 2, true, 1),
            (4, 2, 2, 2, true, 2),
            (4, 0, 0, 4, false, 1),
            (4, 3, 0, 0, false, 0),
            (4, 2, 0, 1, false, 1),
            (0, 0, 0, 0, true, 0),
        ] {
            let stands = Stands { of, serving, from_memory, paused };
            assert_eq!(
                (stands.reason().is_none(), stands.shortfalls().len()),
                (is_ready, told),
                "{stands:?}"
            );
        }
    }
}
