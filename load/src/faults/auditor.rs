//! Looks at everything from outside, five times a second: what each node says of itself, what stands in each server of the
//! store (for whoever can look there), what the kernel says of each process. Writes samples down beside the history, and keeps
//! the latest for whoever waits for something. Never judges.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::audit::{Audit, NodeWord, Sample, Seen, ShardWord, StoreWord};
use crate::bench::usage;
use crate::bot::PRESENCE;
use crate::history::Item;
use crate::mark::Mark;

const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// A stopped node does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Whom a node cannot tell of now it is asked for so many times more, so far apart.
const UNKNOWN_AGAIN_MAX: u32 = 3;
const UNKNOWN_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Who does not say how it shows players in this time does not know.
const PRESENCE_TIMEOUT: Duration = Duration::from_secs(5);
/// Samples of one thing in a minute.
const SAMPLES_A_MINUTE: u64 = 5 * 60;
/// Players that one query names at most, by the protocol.
const PLAYERS_A_QUERY_MAX: usize = 1_000;
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

/// A node that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where services call.
    pub service_url: String,
    /// Its process, if that is one of this machine.
    pub pid: Option<u32>,
}

/// There were more samples than a run of its length has: it would be judged by its beginning alone.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the audit outgrew its bound: {left_out} samples were not kept")]
pub struct Outgrown {
    left_out: u64,
    /// What was seen before: not to be judged.
    pub beginning: Audit,
}

/// A running auditor; ends with the value.
#[derive(Debug)]
pub struct Auditor {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    key: String,
    /// Nodes that run.
    targets: Mutex<BTreeMap<String, Target>>,
    latest: Mutex<BTreeMap<String, NodeWord>>,
    /// When the last look at each began, microseconds; of those that answered it.
    heard: Mutex<BTreeMap<String, u64>>,
    samples: Mutex<Vec<Sample>>,
    samples_max: AtomicU64,
    minutes_max: u64,
    left_out: AtomicU64,
    http: reqwest::Client,
}

impl Auditor {
    /// Begins to look at nodes of these names, with a key that may read, on this clock; for so many minutes at most.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn of(names: &[String], key: &str, began: Instant, minutes_max: u64) -> Result<Self, reqwest::Error> {
        let shared = Arc::new(Shared {
            began,
            key: key.to_owned(),
            targets: Mutex::default(),
            latest: Mutex::default(),
            heard: Mutex::default(),
            samples: Mutex::default(),
            samples_max: AtomicU64::new(0),
            minutes_max,
            left_out: AtomicU64::new(0),
            http: reqwest::Client::builder().timeout(ANSWER_TIMEOUT).build()?,
        });
        let mut tasks = JoinSet::new();
        for name in names {
            shared.makes_room(3);
            tasks.spawn(look_at_node(Arc::clone(&shared), name.clone()));
        }
        shared.makes_room(1);
        tasks.spawn(look_at_machine(Arc::clone(&shared)));
        Ok(Self { shared, tasks })
    }

    /// Looks into a server of the store, too. A look may block; it finds nothing in a server that is no master.
    pub fn look_into(
        &mut self,
        server: String,
        look: impl Fn() -> Result<Option<StoreWord>, String> + Clone + Send + 'static,
    ) {
        self.shared.makes_room(1);
        self.tasks.spawn(look_at_store(Arc::clone(&self.shared), server, look));
    }

    /// Looks from now on at these nodes, by name: those that are up.
    pub fn follow(&self, targets: BTreeMap<String, Target>) {
        // Of a node that has gone or is another process now nothing is known.
        let before = std::mem::replace(&mut *lock(&self.shared.targets), targets.clone());
        lock(&self.shared.latest).retain(|name, _| before.get(name) == targets.get(name));
    }

    /// The latest word of each node that is up; none from one that has not spoken yet.
    #[must_use]
    pub fn latest(&self) -> BTreeMap<String, NodeWord> {
        lock(&self.shared.latest).clone()
    }

    /// Whether all nodes that are looked at answer, and serve so many shards between them: by looks that began then, in
    /// microseconds since the run began, or later.
    #[must_use]
    pub fn is_served(&self, shards: usize, since_us: u64) -> bool {
        let targets = lock(&self.shared.targets);
        let (latest, heard) = (lock(&self.shared.latest), lock(&self.shared.heard));
        let serving: usize =
            latest.values().map(|word| word.shards.iter().filter(|shard| shard.serving).count()).sum();
        let answers = |name: &String| heard.get(name).is_some_and(|began_us| *began_us >= since_us);
        latest.len() == targets.len() && targets.keys().all(answers) && serving == shards
    }

    /// Nodes that are looked at and did not answer the last look.
    #[must_use]
    pub fn silent(&self) -> Vec<String> {
        let heard = lock(&self.shared.heard);
        lock(&self.shared.targets).keys().filter(|name| !heard.contains_key(*name)).cloned().collect()
    }

    /// The sum of a metric over the nodes that are up.
    #[must_use]
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        lock(&self.shared.latest).values().map(|word| word.metric(name, label)).sum()
    }

    /// Asks every node that is up how it shows these players, at most 1,000 at a time. One that does not answer shows nobody. Whom
    /// a node says it cannot tell of now, since a home did not answer it in time, it is asked for again, a few times: on a busy
    /// machine that is no fault, if it does not stay so.
    pub async fn ask_presence(
        &self,
        players: &[String],
        mark: Mark,
        number_of: impl Fn(&str) -> Option<u32>,
    ) {
        let targets = lock(&self.shared.targets).clone();
        for (node, target) in targets {
            let since_us = self.shared.now_us();
            let mut items = Vec::new();
            for players in players.chunks(PLAYERS_A_QUERY_MAX) {
                let mut asked = players.to_vec();
                for again in 0..=UNKNOWN_AGAIN_MAX {
                    match self.query(&target, &asked).await {
                        Ok(told) => {
                            let shown_here = list(&told, "presences").iter();
                            items.extend(shown_here.filter_map(|item| shown(item, mark, &number_of)));
                            let unknown = list(&told, "unknown").iter().filter_map(serde_json::Value::as_str);
                            asked = unknown.map(str::to_owned).collect();
                        }
                        Err(why) => {
                            self.shared.keep(since_us, Seen::Silent { who: node.clone(), why });
                            break;
                        }
                    }
                    if asked.is_empty() || again == UNKNOWN_AGAIN_MAX {
                        break;
                    }
                    sleep(UNKNOWN_AGAIN_AFTER).await;
                }
            }
            self.shared.keep(since_us, Seen::Shown { node, items });
        }
    }

    async fn query(&self, target: &Target, players: &[String]) -> Result<serde_json::Value, String> {
        let asked = self.shared.http.post(format!("{}/v1/presence/query", target.service_url));
        let asked = asked.timeout(PRESENCE_TIMEOUT).bearer_auth(&self.shared.key);
        answer(asked.json(&serde_json::json!({"players": players}))).await
    }

    /// Ends it.
    ///
    /// # Errors
    /// [`Outgrown`].
    pub async fn end(mut self) -> Result<Audit, Outgrown> {
        self.tasks.shutdown().await;
        let mut samples = std::mem::take(&mut *lock(&self.shared.samples));
        samples.sort_by_key(|sample| sample.at_us);
        match self.shared.left_out.load(Relaxed) {
            0 => Ok(Audit { samples }),
            left_out => Err(Outgrown { left_out, beginning: Audit { samples } }),
        }
    }
}

impl Shared {
    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// For what is kept of so many more things.
    fn makes_room(&self, things: u64) {
        self.samples_max.fetch_add(things * SAMPLES_A_MINUTE * self.minutes_max, Relaxed);
    }

    fn keep(&self, since_us: u64, seen: Seen) {
        let mut samples = lock(&self.samples);
        if crate::faults::findings::count(samples.len()) < self.samples_max.load(Relaxed) {
            samples.push(Sample { at_us: self.now_us(), since_us, seen });
        } else {
            self.left_out.fetch_add(1, Relaxed);
        }
    }

    fn target(&self, name: &str) -> Option<Target> {
        lock(&self.targets).get(name).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn look_at_node(shared: Arc<Shared>, name: String) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(target) = shared.target(&name) else { continue };
        let since_us = shared.now_us();
        let seen = word_of(&shared.http, &target.service_url, &shared.key).await;
        // What another process says was asked of the one before it.
        if shared.target(&name).as_ref() != Some(&target) {
            continue;
        }
        match seen {
            Ok(word) => {
                lock(&shared.heard).insert(name.clone(), since_us);
                lock(&shared.latest).insert(name.clone(), word.clone());
                shared.keep(since_us, Seen::Node(word));
            }
            Err(why) => {
                lock(&shared.heard).remove(&name);
                shared.keep(since_us, Seen::Silent { who: name.clone(), why });
            }
        }
        let Some(pid) = target.pid else { continue };
        // One that is just ending has none of either: it is no measure.
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
        if let (Ok(rss_bytes), Ok(descriptors)) = (usage::resident_bytes(pid), descriptors) {
            let descriptors = u64::try_from(descriptors).unwrap_or(u64::MAX);
            shared.keep(since_us, Seen::Process { node: name.clone(), pid, rss_bytes, descriptors });
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
            let nodes: BTreeSet<u32> = lock(&shared.targets).values().filter_map(|node| node.pid).collect();
            let own = usage::runnable_of_own(&nodes);
            shared.keep(shared.now_us(), Seen::Machine { runnable, own });
        }
    }
}

async fn look_at_store(
    shared: Arc<Shared>,
    server: String,
    look: impl Fn() -> Result<Option<StoreWord>, String> + Clone + Send + 'static,
) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let since_us = shared.now_us();
        match spawn_blocking(look.clone()).await {
            Ok(Ok(Some(word))) => shared.keep(since_us, Seen::Store(word)),
            Ok(Ok(None)) => {}
            Ok(Err(why)) => shared.keep(since_us, Seen::Silent { who: server.clone(), why }),
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

async fn word_of(http: &reqwest::Client, url: &str, key: &str) -> Result<NodeWord, String> {
    let told = answer(http.get(format!("{url}/v1/cluster")).bearer_auth(key)).await?;
    let page = http.get(format!("{url}/metrics")).send().await.map_err(|error| error.to_string())?;
    let page = page.text().await.map_err(|error| error.to_string())?;
    Ok(word(&told, &page))
}

/// What a node says of itself, from `GET /v1/cluster` and `/metrics`.
fn word(told: &Value, page: &str) -> NodeWord {
    let node = text(told, "node");
    let mine = list(told, "nodes")
        .iter()
        .find(|seen| text(seen, "node") == node && number(seen, "uptime_ms").is_some());
    let boot = format!("{node}#{}", mine.map_or("?", |seen| text(seen, "boot")));
    let here = list(told, "shards").iter().filter(|shard| text(shard, "home") == node);
    let shards = here.map(|shard| ShardWord {
        shard: number(shard, "shard").and_then(|number| number.try_into().ok()).unwrap_or(u16::MAX),
        epoch: number(shard, "epoch").unwrap_or(0),
        serving: shard.get("serving") == Some(&Value::Bool(true)),
        dirty: number(shard, "dirty").unwrap_or(0),
        flush_lag_ms: number(shard, "flush_lag_ms").unwrap_or(0),
    });
    NodeWord { boot, shards: shards.collect(), metrics: metrics_of(page), node: node.to_owned() }
}

fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(of: &Value, name: &str) -> Option<u64> {
    of.get(name).and_then(Value::as_u64)
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

fn shown(item: &Value, mark: Mark, number_of: &impl Fn(&str) -> Option<u32>) -> Option<Item> {
    let [epoch, version] = list(item, "ver") else { return None };
    let k = item.get("activity").and_then(|activity| number(activity, PRESENCE));
    Some(Item {
        subject: number_of(item.get("player")?.as_str()?)?,
        ver: (epoch.as_u64()?, version.as_u64()?),
        status: serde_json::from_value(item.get("status")?.clone()).ok()?,
        k: k.and_then(|came| mark.read(came)).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_nodes_word_holds_its_own_shards_and_the_metrics_that_are_asked_for() {
        let told = json!({
            "node": "a",
            "nodes": [
                {"node": "a", "boot": "old"},
                {"node": "a", "boot": "7", "uptime_ms": 5},
                {"node": "b", "boot": "8"},
            ],
            "shards": [
                {"shard": 3, "home": "a", "epoch": 9, "serving": true, "dirty": 2, "flush_lag_ms": 40},
                {"shard": 4, "home": "b", "epoch": 9, "serving": false},
                {"shard": 5, "epoch": 1, "serving": false},
            ],
        });
        let page = "# TYPE x counter\nhearth_shards 2\nhearth_commits_total{outcome=\"done\"} 5\nother 1\n";
        let word = word(&told, page);
        assert_eq!((word.node.as_str(), word.boot.as_str()), ("a", "a#7"));
        let shard = ShardWord { shard: 3, epoch: 9, serving: true, dirty: 2, flush_lag_ms: 40 };
        assert_eq!(word.shards, [shard]);
        assert_eq!(
            word.metrics.keys().collect::<Vec<_>>(),
            ["hearth_commits_total{outcome=\"done\"}", "hearth_shards"]
        );
        assert_eq!(word.metric("hearth_commits_total", "done"), 5.0);
    }

    #[test]
    fn an_item_without_its_parts_is_none() {
        let (mark, number_of) = (Mark::of_a_run(), |name: &str| (name == "bot-1").then_some(1));
        let item =
            json!({"player": "bot-1", "ver": [2, 3], "status": "playing", "activity": {"k": mark.number(4)}});
        let read = shown(&item, mark, &number_of).unwrap();
        assert_eq!((read.subject, read.ver, read.k), (1, (2, 3), 4));
        assert_eq!(shown(&item, Mark::of_a_run(), &number_of).unwrap().k, 0, "another run has set it");
        for broken in [json!({}), json!({"player": "x", "ver": [2, 3], "status": "playing"})] {
            assert!(shown(&broken, mark, &number_of).is_none(), "{broken}");
        }
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_shows_nobody() {
        let auditor = Auditor::of(&[], "", Instant::now(), 1).unwrap();
        // Nobody listens there.
        let nowhere = Target { service_url: "http://127.0.0.1:1".to_owned(), pid: None };
        auditor.follow(BTreeMap::from([("a".to_owned(), nowhere)]));
        auditor.ask_presence(&["bot-0".to_owned()], Mark::of_a_run(), |_| Some(0)).await;
        let audit = auditor.end().await.unwrap();
        let nobody = Seen::Shown { node: "a".to_owned(), items: Vec::new() };
        assert!(audit.samples.iter().any(|sample| sample.seen == nobody), "{audit:?}");
    }

    #[tokio::test]
    async fn who_cannot_be_told_of_now_is_asked_for_again_and_nobody_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service_url = format!("http://{}", listener.local_addr().unwrap());
        let node = async {
            let mut asked = Vec::new();
            for unknown in [vec!["bot-1"], vec![]] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = vec![0; 4_096];
                let mut said = String::new();
                while !said.ends_with('}') {
                    let read = stream.read(&mut bytes).await.unwrap();
                    said.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
                }
                let body: serde_json::Value =
                    serde_json::from_str(said.split("\r\n\r\n").last().unwrap()).unwrap();
                let players = list(&body, "players").iter().map(|name| name.as_str().unwrap().to_owned());
                let players: Vec<String> = players.collect();
                let known = players.iter().filter(|name| !unknown.contains(&name.as_str()));
                let shown: Vec<_> = known
                    .map(|name| json!({"player": name, "ver": [1, 1], "status": "online", "activity": {"k": 1}}))
                    .collect();
                let body = json!({"presences": shown, "unknown": unknown}).to_string();
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.unwrap();
                asked.push(players);
            }
            asked
        };
        let auditor = Auditor::of(&[], "", Instant::now(), 1).unwrap();
        lock(&auditor.shared.targets).insert("a".to_owned(), Target { service_url, pid: None });
        let players = ["bot-0".to_owned(), "bot-1".to_owned()];
        let asks =
            auditor.ask_presence(&players, Mark::of_a_run(), |name| name.strip_prefix("bot-")?.parse().ok());
        let (asked, ()) = tokio::time::timeout(PRESENCE_TIMEOUT, async { tokio::join!(node, asks) })
            .await
            .expect("she is asked for again");
        assert_eq!(asked, [&players[..], &players[1..]]);
        let audit = auditor.end().await.unwrap();
        let shown = audit.samples.iter().find_map(|sample| match &sample.seen {
            Seen::Shown { items, .. } => Some(items.iter().map(|item| item.subject).collect::<Vec<_>>()),
            _ => None,
        });
        assert_eq!(shown, Some(vec![0, 1]));
    }

    #[tokio::test]
    async fn an_audit_that_outgrows_its_bound_says_so() {
        let auditor = Auditor::of(&[], "", Instant::now(), 1).unwrap();
        auditor.shared.samples_max.store(1, Relaxed);
        for who in ["a", "b", "c"] {
            auditor.shared.keep(0, Seen::Silent { who: who.to_owned(), why: String::new() });
        }
        let outgrown = auditor.end().await.unwrap_err();
        assert!(outgrown.left_out >= 2 && outgrown.beginning.samples.len() == 1, "{outgrown:?}");
    }
}
