//! Looks at everything from outside, five times a second: what each node says of itself, what stands in each server of the
//! store, what the kernel says of each process. Writes samples down beside the history, and keeps the latest for whoever
//! waits for something. Never judges.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use load::audit::{Audit, NodeWord, Sample, Seen, ShardWord};
use load::bench::usage;
use load::history::Item;
use serde_json::Value;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use crate::stage::{KEY, NAMES, Stage};
use crate::store::Eye;

const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// A stopped node does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Samples that may be kept a minute: sixteen things at most are looked at five times a second.
const SAMPLES_A_MINUTE_MAX: u64 = 16 * 5 * 60;
/// Metrics that are kept, of each node.
const METRICS: [&str; 25] = [
    "hearth_links_open",
    "hearth_sessions",
    "hearth_logins_total",
    "hearth_resumes_total",
    "hearth_commands_total",
    "hearth_records_hot",
    "hearth_records_dirty",
    "hearth_shards",
    "hearth_shards_serving",
    "hearth_shards_taken_total",
    "hearth_shards_given_total",
    "hearth_shards_lost_total",
    "hearth_leases_run_out_total",
    "hearth_commits_total",
    "hearth_members",
    "hearth_peer_links",
    "hearth_sessions_moved_total",
    "hearth_repairs_total",
    "hearth_pulls_total",
    "hearth_salvaged_records_total",
    "hearth_shards_held_back",
    "hearth_pushes_dropped_total",
    "hearth_store_breaker_state",
    "hearth_store_breaker_turns_total",
    "hearth_store_calls_held_back_total",
];

/// A running auditor; ends with the value.
pub(crate) struct Auditor {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    began: Instant,
    /// Of nodes that run: where services call, and the process.
    targets: Mutex<BTreeMap<&'static str, (String, u32)>>,
    latest: Mutex<BTreeMap<&'static str, NodeWord>>,
    samples: Mutex<Vec<Sample>>,
    samples_max: usize,
    http: reqwest::Client,
}

impl Auditor {
    /// Begins to look, on this clock, for so many minutes at most.
    pub(crate) fn on(stage: &Stage, began: Instant, eye: Eye, minutes_max: u64) -> Self {
        let shared = Arc::new(Shared {
            began,
            targets: Mutex::default(),
            latest: Mutex::default(),
            samples: Mutex::default(),
            samples_max: usize::try_from(SAMPLES_A_MINUTE_MAX * minutes_max).unwrap_or(usize::MAX),
            http: reqwest::Client::builder().timeout(ANSWER_TIMEOUT).build().unwrap(),
        });
        let mut tasks = JoinSet::new();
        for name in NAMES {
            tasks.spawn(look_at_node(Arc::clone(&shared), name));
        }
        tasks.spawn(look_at_machine(Arc::clone(&shared)));
        for server in stage.store.servers() {
            tasks.spawn(look_at_store(Arc::clone(&shared), eye.clone(), server.port()));
        }
        let auditor = Self { shared, tasks };
        auditor.follow(stage);
        auditor
    }

    /// Looks from now on at the nodes that are up.
    pub(crate) fn follow(&self, stage: &Stage) {
        let up = stage.nodes.iter().filter(|node| node.is_up);
        let target =
            |server: &crate::harness::server::Server| (server.service_url().to_owned(), server.pid());
        let targets: BTreeMap<_, _> = up.map(|node| (node.name, target(node.server()))).collect();
        // Of a node that has gone or is another process now nothing is known.
        let before = std::mem::replace(&mut *lock(&self.shared.targets), targets.clone());
        lock(&self.shared.latest).retain(|name, _| before.get(name) == targets.get(name));
    }

    /// The latest word of each node that is up; none from one that has not spoken yet.
    pub(crate) fn latest(&self) -> BTreeMap<&'static str, NodeWord> {
        lock(&self.shared.latest).clone()
    }

    /// Nodes that are looked at.
    pub(crate) fn followed(&self) -> usize {
        lock(&self.shared.targets).len()
    }

    /// The sum of a metric over the nodes that are up.
    pub(crate) fn sum(&self, name: &str, label: &str) -> f64 {
        lock(&self.shared.latest).values().map(|word| word.metric(name, label)).sum()
    }

    /// Asks every node that is up how it shows these players.
    pub(crate) async fn ask_presence(&self, players: &[String], number_of: impl Fn(&str) -> Option<u32>) {
        let targets = lock(&self.shared.targets).clone();
        for (node, (url, _)) in targets {
            let since_us = self.shared.now_us();
            let body = serde_json::json!({"players": players});
            let asked =
                self.shared.http.post(format!("{url}/v1/presence/query")).bearer_auth(KEY).json(&body);
            let seen = match answer(asked).await {
                Ok(told) => {
                    let items = told["presences"].as_array().cloned().unwrap_or_default();
                    let items = items.iter().filter_map(|item| shown(item, &number_of)).collect();
                    Seen::Shown { node: node.to_owned(), items }
                }
                Err(why) => Seen::Silent { who: node.to_owned(), why },
            };
            self.shared.keep(since_us, seen);
        }
    }

    /// Ends it.
    pub(crate) async fn end(mut self) -> Audit {
        self.tasks.shutdown().await;
        let mut samples = std::mem::take(&mut *lock(&self.shared.samples));
        // Else what came last would pass without being judged.
        assert!(samples.len() <= self.shared.samples_max, "more was seen than a run of this length may see");
        samples.sort_by_key(|sample| sample.at_us);
        Audit { samples }
    }
}

impl Shared {
    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn keep(&self, since_us: u64, seen: Seen) {
        let mut samples = lock(&self.samples);
        // One too many shows at the end that there were more.
        if samples.len() <= self.samples_max {
            samples.push(Sample { at_us: self.now_us(), since_us, seen });
        }
    }

    fn target(&self, name: &str) -> Option<(String, u32)> {
        lock(&self.targets).get(name).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn look_at_node(shared: Arc<Shared>, name: &'static str) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some((url, pid)) = shared.target(name) else { continue };
        let since_us = shared.now_us();
        let seen = word_of(&shared.http, &url).await;
        // What another process says was asked of the one before it.
        if shared.target(name).is_none_or(|(_, now)| now != pid) {
            continue;
        }
        match seen {
            Ok(word) => {
                lock(&shared.latest).insert(name, word.clone());
                shared.keep(since_us, Seen::Node(word));
            }
            Err(why) => shared.keep(since_us, Seen::Silent { who: name.to_owned(), why }),
        }
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        if let Ok(rss_bytes) = usage::resident_bytes(pid) {
            let descriptors = u64::try_from(descriptors).unwrap_or(u64::MAX);
            shared.keep(since_us, Seen::Process { node: name.to_owned(), pid, rss_bytes, descriptors });
        }
    }
}

async fn look_at_machine(shared: Arc<Shared>) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // `0.20 0.18 0.12 3/270 4321`: those that are runnable, of all.
        let told = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let runnable = told.split(['/', ' ']).nth(3).and_then(|count| count.parse().ok());
        if let Some(runnable) = runnable {
            shared.keep(shared.now_us(), Seen::Machine { runnable });
        }
    }
}

async fn look_at_store(shared: Arc<Shared>, eye: Eye, port: u16) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let since_us = shared.now_us();
        let eye = eye.clone();
        match spawn_blocking(move || eye.look(port)).await {
            Ok(Ok(Some(word))) => shared.keep(since_us, Seen::Store(word)),
            Ok(Ok(None)) => {}
            Ok(Err(why)) => shared.keep(since_us, Seen::Silent { who: port.to_string(), why }),
            Err(_) => return,
        }
    }
}

async fn answer(asked: reqwest::RequestBuilder) -> Result<Value, String> {
    let answered = asked.send().await.and_then(reqwest::Response::error_for_status);
    let told = match answered {
        Ok(answered) => answered.json().await,
        Err(error) => Err(error),
    };
    told.map_err(|error| error.to_string())
}

async fn word_of(http: &reqwest::Client, url: &str) -> Result<NodeWord, String> {
    let told = answer(http.get(format!("{url}/v1/cluster")).bearer_auth(KEY)).await?;
    let page = http.get(format!("{url}/metrics")).send().await.map_err(|error| error.to_string())?;
    let page = page.text().await.map_err(|error| error.to_string())?;
    let node = told["node"].as_str().unwrap_or_default().to_owned();
    let nodes = told["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let mine = nodes.iter().find(|seen| seen["node"] == node.as_str() && !seen["uptime_ms"].is_null());
    let boot = format!("{node}#{}", mine.and_then(|seen| seen["boot"].as_str()).unwrap_or("?"));
    let number = |shard: &Value, name: &str| shard[name].as_u64().unwrap_or(0);
    let shards = told["shards"].as_array().map_or(&[][..], Vec::as_slice);
    let shards = shards.iter().filter(|shard| shard["home"] == node.as_str()).map(|shard| ShardWord {
        shard: u16::try_from(number(shard, "shard")).unwrap_or(u16::MAX),
        epoch: number(shard, "epoch"),
        serving: shard["serving"] == true,
        dirty: number(shard, "dirty"),
        flush_lag_ms: number(shard, "flush_lag_ms"),
    });
    Ok(NodeWord { boot, shards: shards.collect(), metrics: metrics_of(&page), node })
}

/// The series of a page that are kept.
fn metrics_of(page: &str) -> BTreeMap<String, f64> {
    let series = page.lines().filter(|line| {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        METRICS.contains(&name)
    });
    series
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

fn shown(item: &Value, number_of: &impl Fn(&str) -> Option<u32>) -> Option<Item> {
    let ver = item["ver"].as_array()?;
    Some(Item {
        subject: number_of(item["player"].as_str()?)?,
        ver: (ver.first()?.as_u64()?, ver.get(1)?.as_u64()?),
        status: serde_json::from_value(item["status"].clone()).ok()?,
        k: item["activity"]["k"].as_u64().unwrap_or(0),
    })
}
