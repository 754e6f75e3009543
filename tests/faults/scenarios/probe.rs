//! Asks a node whether it is ready, over a connection that stands all the time: a node without descriptors takes no new one.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use crate::harness::server::Server;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
const ASK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a node may take to notice: the machine is slow.
const PATIENCE: Duration = Duration::from_secs(40);

/// A prober of one node.
pub(crate) struct Probe {
    url: String,
    http: reqwest::Client,
}

impl Probe {
    /// One that has asked once.
    pub(crate) async fn of(server: &Server) -> Self {
        let http = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).pool_max_idle_per_host(1).build();
        let probe = Self { url: format!("{}/readyz", server.service_url()), http: http.unwrap() };
        probe.ask().await;
        probe
    }

    /// Whether it is ready, and what stands in the way; none where nothing is answered.
    pub(crate) async fn ask(&self) -> Option<(bool, String)> {
        let answered = self.http.get(&self.url).send().await.ok()?;
        let is_ready = answered.status().as_u16() == 200;
        let told: Value = answered.json().await.ok()?;
        (told["ready"] == is_ready).then(|| (is_ready, told["reasons"].to_string()))
    }

    /// Waits until it says so; how long that took in ms, and what it said.
    pub(crate) async fn until(&self, is_ready: bool) -> (u64, String) {
        let began = Instant::now();
        loop {
            match self.ask().await {
                Some((told, why)) if told == is_ready => {
                    return (u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), why);
                }
                other => assert!(began.elapsed() < PATIENCE, "waited for ready {is_ready}: {other:?}"),
            }
            sleep(ASK_INTERVAL).await;
        }
    }
}
