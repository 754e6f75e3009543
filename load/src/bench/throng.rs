//! Nodes of one cluster that are measured together, on all cores: plain ones, and ones that have crowds of players in their own
//! process (`load/examples/crowd.rs`). Starts them, tells crowds what to do and reads what came of it; knows which node is
//! whose home. Called by the benches whose sizes go beyond the descriptors of a process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::BenchError;
use super::cores::Cores;
use super::process::{Hearth, Process, Redis, SERVICE_KEY};
use super::usage;

/// How long until every shard has its home.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What nodes of such sizes need beyond the defaults; none of it changes what an edge or a member costs.
pub(super) const SETTINGS: [(&str, &str); 3] =
    [("link.links_max", "100000"), ("link.heartbeat_ms", "300000"), ("cluster.shards", "64")];

/// Some nodes.
#[derive(Debug)]
pub(super) struct Throng {
    /// All of them.
    pub(super) nodes: Vec<Hearth>,
    /// So many of them, the first, have crowds.
    crowds: usize,
    /// The node of each shard, by its place in `nodes`.
    homes: Vec<usize>,
}

/// What a node says of the cluster.
#[derive(Debug, Deserialize)]
struct Told {
    shards: Vec<Shard>,
}

#[derive(Debug, Deserialize)]
struct Shard {
    serving: bool,
}

/// What a crowd answers to a request that all of it made.
#[derive(Debug, Default, Clone, Deserialize)]
pub(super) struct Said {
    /// Median, 99th percentile and most.
    pub(super) ms: [f64; 3],
}

/// When a crowd has heard of a change.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct HeardAt {
    /// Median, 99th percentile and last, in microseconds of the system's clock.
    pub(super) at_us: [f64; 3],
}

/// What a crowd has heard since it was told to forget.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Counts {
    pub(super) presence_bytes: Count,
    pub(super) room_pushes: Count,
    pub(super) room_bytes: Count,
    /// The largest push of a room that a player has heard.
    pub(super) room_push_bytes: Count,
}

/// Of all players together, and of each: median, 99th percentile and most.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Count {
    pub(super) sum: f64,
    pub(super) each: [f64; 3],
}

impl Throng {
    /// So many nodes with crowds, and so many plain ones behind them, that have shared the shards.
    ///
    /// # Errors
    /// One does not start, or the shards are not shared in time.
    pub(super) fn start(
        cores: Cores,
        redis: &Redis,
        crowds: usize,
        plain: usize,
    ) -> Result<Self, BenchError> {
        let mut nodes = Vec::new();
        for number in 0..crowds + plain {
            let name = format!("node-{number}");
            let settings: Vec<(&str, &str)> = SETTINGS.into_iter().chain([("node_id", &name[..])]).collect();
            nodes.push(if number < crowds {
                Hearth::start_crowd(cores, redis, &settings)?
            } else {
                Hearth::start_anywhere(cores, redis, &settings)?
            });
        }
        let mut throng = Self { nodes, crowds, homes: Vec::new() };
        throng.settle()?;
        Ok(throng)
    }

    /// Waits until every shard is served by one node, and each node has its part.
    ///
    /// # Errors
    /// It takes too long.
    pub(super) fn settle(&mut self) -> Result<(), BenchError> {
        let until = Instant::now() + PATIENCE;
        while !self.look()? {
            if Instant::now() > until {
                return Err(BenchError::Void("the shards are not shared in time".into()));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn look(&mut self) -> Result<bool, BenchError> {
        let runtime = super::asking::runtime()?;
        let (mut homes, mut served): (BTreeMap<usize, usize>, _) =
            (BTreeMap::new(), vec![0; self.nodes.len()]);
        let mut shards = 0;
        for (place, node) in self.nodes.iter().enumerate() {
            let told: Told = runtime.block_on(ask(node.services, "/v1/cluster"))?;
            shards = told.shards.len();
            for (shard, _) in told.shards.iter().enumerate().filter(|(_, shard)| shard.serving) {
                homes.insert(shard, place);
                if let Some(served) = served.get_mut(place) {
                    *served += 1;
                }
            }
        }
        self.homes = homes.values().copied().collect();
        // Served twice, a shard was on its way.
        Ok(homes.len() == shards && served.iter().sum::<usize>() == shards && !served.contains(&0))
    }

    /// The node that is the home of a player or a room, by its place.
    pub(super) fn home_of(&self, name: &str) -> usize {
        let shard = usize::try_from(xxh3_64(name.as_bytes()) % self.homes.len().max(1) as u64).unwrap_or(0);
        self.homes.get(shard).copied().unwrap_or(0)
    }

    /// So many names whose home a node is, `stem-N` each.
    pub(super) fn names_at(&self, node: usize, stem: &str, count: usize) -> Vec<String> {
        let names = (0..).map(|number| format!("{stem}-{number:06}"));
        names.filter(|name| self.home_of(name) == node).take(count).collect()
    }

    /// Each crowd carries out its line, all at a time; what came of each.
    ///
    /// # Errors
    /// One could not.
    pub(super) fn all<T: for<'de> Deserialize<'de>>(
        &mut self,
        line: impl Fn(usize) -> String,
    ) -> Result<Vec<T>, BenchError> {
        let crowds = self.crowds;
        for (number, node) in self.nodes.iter_mut().take(crowds).enumerate() {
            node.process.tell(&line(number))?;
        }
        self.nodes.iter_mut().take(crowds).map(|node| answer(&mut node.process)).collect()
    }

    /// CPU time of all nodes so far.
    ///
    /// # Errors
    /// One has ended.
    pub(super) fn cpu_time(&self) -> Result<Duration, BenchError> {
        self.nodes.iter().map(|node| node.process.cpu_time()).sum()
    }

    /// Resident memory of all nodes, as little as it is within some looks: what was freed goes back to the system later.
    ///
    /// # Errors
    /// One has ended.
    pub(super) fn resident_bytes(&self, looks: u32) -> Result<u64, BenchError> {
        let mut least = u64::MAX;
        for _ in 0..looks {
            std::thread::sleep(Duration::from_millis(500));
            let now = self.nodes.iter().map(|node| usage::resident_bytes(node.process.pid()));
            least = least.min(now.sum::<Result<u64, _>>()?);
        }
        Ok(least)
    }
}

fn answer<T: for<'de> Deserialize<'de>>(process: &mut Process) -> Result<T, BenchError> {
    // A server says where it is first.
    let line = loop {
        let line = process.line()?;
        if line.starts_with('{') {
            break line;
        }
    };
    let told: Value = serde_json::from_str(&line).map_err(|error| BenchError::Void(error.to_string()))?;
    match told.get("fault") {
        Some(fault) => Err(BenchError::Void(format!("a crowd: {fault}"))),
        None => serde_json::from_value(told).map_err(|error| BenchError::Void(format!("{error}: {line}"))),
    }
}

/// What a node answers to a `GET`.
///
/// # Errors
/// It refuses.
pub(super) async fn ask<T: for<'de> Deserialize<'de>>(at: SocketAddr, path: &str) -> Result<T, BenchError> {
    let void = |error: reqwest::Error| BenchError::Void(error.to_string());
    let call = reqwest::Client::new().get(format!("http://{at}{path}")).bearer_auth(SERVICE_KEY);
    let answer = call.timeout(PATIENCE).send().await.map_err(void)?.error_for_status().map_err(void)?;
    answer.json().await.map_err(void)
}

/// The worst of what crowds tell, place by place.
pub(super) fn worst(all: impl Iterator<Item = [f64; 3]>) -> [f64; 3] {
    all.fold([0.0; 3], |[half, most, last], one| [half.max(one[0]), most.max(one[1]), last.max(one[2])])
}
