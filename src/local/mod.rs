//! `hearth cluster`: real Redis servers and several nodes on the loopback address, as processes of their own, so that one
//! command shows what several nodes do. `cli` starts it. Starts bottom-up, tells who dies, ends top-down; it restarts
//! nobody, and never speaks to a node but as an operator does: by signals and over the service API.

mod ask;
mod node;
mod redis;
mod table;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use crate::rig::{RigError, free_ports};
use node::Node;
use redis::Redis;
pub use redis::Shape;

/// Most nodes: each is a process, and the machine is one.
pub const NODES_MAX: u16 = 16;
/// Ports that each node has: clients, services, other nodes.
pub const PORTS_EACH: u16 = 3;
/// Settings that the cluster chooses for each of its nodes.
pub const CHOSEN: [&str; 9] = [
    "client_addr",
    "service_addr",
    "peer_addr",
    "public_url",
    "peer_public_addr",
    "store",
    "node_id",
    "service_key",
    "cluster.name",
];
/// What the cluster calls itself in Redis.
pub const NAME: &str = "local";

/// How long nodes may take until each shard has a home.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long nodes may take to end: to hand over, to say goodbye, and to flush.
const NODES_STOP: Duration = Duration::from_secs(20);
/// Between two looks at what is being waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between two looks whether all live.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// What to start.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many nodes.
    pub nodes: u16,
    /// On which Redis.
    pub shape: Shape,
    /// Where logs and data go.
    pub folder: PathBuf,
    /// Whether the folder goes when the cluster does.
    pub leaves_nothing: bool,
    /// The first of the nodes' ports, one after the other; free ones where none is given.
    pub port: Option<u16>,
    /// How many shards there are to be.
    pub shards: u16,
    /// A service key that every node takes.
    pub service_key: String,
    /// Whether `dev:<player>` is a good token.
    pub takes_any_name: bool,
    /// Settings of every node, besides those that are [`CHOSEN`].
    pub set: Vec<(String, String)>,
    /// What the nodes find in their environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// Why there is no cluster, or why it did not end well.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// No Redis.
    #[error(transparent)]
    Redis(#[from] RigError),
    /// A folder, a file or a process cannot be had.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// A node ended while the others started.
    #[error("{node} has ended ({how}); its log ends with:\n{log}")]
    Ended {
        /// Its name.
        node: String,
        /// Its exit code, or the signal.
        how: String,
        /// The exit code, if there is one.
        exit_code: Option<i32>,
        /// The end of its log.
        log: String,
    },
    /// It did not come about in time.
    #[error("not every shard has a home after {} s: {what}; the log of {node} ends with:\n{log}", READY_WITHIN.as_secs())]
    Late {
        /// What is missing.
        what: String,
        /// Who was waited for.
        node: String,
        /// The end of its log.
        log: String,
    },
    /// Nodes that ended otherwise than by exit code 0.
    #[error("{0}")]
    Unorderly(String),
}

impl LocalError {
    /// That of the node that ended; 69 for whatever else is missing outside.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Ended { exit_code: Some(64), .. } => 64,
            Self::Ended { exit_code: Some(70), .. } => 70,
            _ => 69,
        }
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> LocalError {
    |source| LocalError::System { what: what.into(), source }
}

/// Starts all, says where it is, and stays until it is asked to stop (SIGTERM, SIGINT); then ends all.
///
/// # Errors
/// [`LocalError`]; nothing is left running then.
pub fn run(plan: Plan) -> Result<(), LocalError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("the runtime does not start"))?;
    runtime.block_on(live(plan))
}

async fn live(plan: Plan) -> Result<(), LocalError> {
    let mut signals = Signals::listen()?;
    let plan = Arc::new(plan);
    let hurry = Arc::new(AtomicBool::new(false));
    let (of_start, gives_up) = (Arc::clone(&plan), Arc::clone(&hurry));
    let mut starting = spawn_blocking(move || Running::start(&of_start, &gives_up));
    let started = tokio::select! {
        biased;
        () = signals.asked() => {
            hurry.store(true, Relaxed);
            done(starting).await
        }
        started = &mut starting => joined(started),
    };
    let Some(mut running) = started?.filter(|_| !hurry.load(Relaxed)) else { return Ok(()) };
    say(&table::told(&plan, &running.nodes, &running.redis));
    let mut ticks = interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = signals.asked() => break,
            _ = ticks.tick() => running.watch().iter().for_each(|line| say(line)),
        }
    }
    say("\nthe nodes end, then Redis (again: at once)");
    let ends_at_once = Arc::clone(&hurry);
    let mut ending = spawn_blocking(move || running.end(&ends_at_once));
    tokio::select! {
        biased;
        () = signals.asked() => {
            hurry.store(true, Relaxed);
            done(ending).await
        }
        ended = &mut ending => joined(ended),
    }
}

async fn done<T>(task: JoinHandle<Result<T, LocalError>>) -> Result<T, LocalError> {
    joined(task.await)
}

fn joined<T>(task: Result<Result<T, LocalError>, tokio::task::JoinError>) -> Result<T, LocalError> {
    task.unwrap_or_else(|error| Err(failed("a task of the cluster failed")(io::Error::other(error))))
}

/// Who closed our standard output does not want to know.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, LocalError> {
        let listen = |kind| signal(kind).map_err(failed("signals cannot be heard"));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// All that runs. Fields are dropped in this order: no node outlives its Redis.
struct Running {
    nodes: Vec<Node>,
    redis: Redis,
    /// Servers of Redis that were found not to listen.
    silent: Vec<String>,
}

impl Running {
    /// Bottom-up; nothing if it was told to give up. What was started is ended where the rest does not come.
    fn start(plan: &Plan, gives_up: &AtomicBool) -> Result<Option<Self>, LocalError> {
        let folder = &plan.folder;
        std::fs::create_dir_all(folder).map_err(failed(format!("{} cannot be made", folder.display())))?;
        let redis = Redis::start(plan.shape, folder.join("redis"))?;
        let mut running = Self { nodes: Vec::new(), redis, silent: Vec::new() };
        let each = usize::from(PORTS_EACH);
        let ports = match plan.port {
            Some(first) => (first..first.saturating_add(plan.nodes * PORTS_EACH)).collect(),
            None => free_ports(usize::from(plan.nodes) * each)?,
        };
        let url = running.redis.url();
        for (number, ports) in (1..=plan.nodes).zip(ports.chunks_exact(each)) {
            if gives_up.load(Relaxed) {
                return Ok(None);
            }
            let ports = [0, 1, 2].map(|at| ports.get(at).copied().unwrap_or_default());
            running.nodes.push(Node::start(plan, number, ports, &url)?);
        }
        Ok(running.settles(plan, gives_up)?.then_some(running))
    }

    /// Waits until each shard is served where the nodes place it; not, if it was told to give up.
    fn settles(&mut self, plan: &Plan, gives_up: &AtomicBool) -> Result<bool, LocalError> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if gives_up.load(Relaxed) {
                return Ok(false);
            }
            for node in &mut self.nodes {
                if let Some(ended) = node.has_ended()? {
                    return Err(node.failed_by(ended));
                }
            }
            let (number, what) = match ask::unsettled(&mut self.nodes, plan) {
                None => return Ok(true),
                Some(missing) => missing,
            };
            if Instant::now() > deadline {
                let node = self.nodes.get(number);
                let name = node.map_or("a node", |node| node.name.as_str()).to_owned();
                return Err(LocalError::Late {
                    what,
                    node: name,
                    log: node.map(Node::log_end).unwrap_or_default(),
                });
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Who died since the last look, or came back; each once.
    fn watch(&mut self) -> Vec<String> {
        let mut news = Vec::new();
        for node in &mut self.nodes {
            if let Ok(Some(ended)) = node.has_ended_anew() {
                news.push(format!("{} has ended: {ended}; it is not started again", node.name));
            }
        }
        for (name, server) in self.redis.servers() {
            let known = self.silent.iter().position(|silent| *silent == name);
            match (server.listens(), known) {
                (false, None) => {
                    news.push(format!("{name} on port {} has ended; it is not started again", server.port()));
                    self.silent.push(name);
                }
                (true, Some(at)) => {
                    news.push(format!("{name} on port {} is back", server.port()));
                    self.silent.swap_remove(at);
                }
                _ => {}
            }
        }
        news
    }

    /// Top-down: the nodes by SIGTERM, then by SIGKILL whoever is late; then Redis.
    fn end(mut self, hurry: &AtomicBool) -> Result<(), LocalError> {
        let ended_before: Vec<bool> = self.nodes.iter_mut().map(|node| node.is_told()).collect();
        self.nodes.iter_mut().for_each(Node::ask_to_stop);
        let deadline = Instant::now() + NODES_STOP;
        let mut unorderly = Vec::new();
        for (node, ended_before) in self.nodes.iter_mut().zip(ended_before) {
            let ended = loop {
                match node.has_ended()? {
                    Some(ended) => break ended.success().then_some(()).ok_or_else(|| ended.to_string()),
                    None if Instant::now() > deadline => {
                        break Err(format!("not within {} s", NODES_STOP.as_secs()));
                    }
                    None if hurry.load(Relaxed) => break Err("killed".to_owned()),
                    None => std::thread::sleep(LOOK_EVERY),
                }
            };
            if let (Err(how), false) = (ended, ended_before) {
                unorderly.push(format!("{} did not end in order ({how}):\n{}", node.name, node.log_end()));
            }
        }
        drop(self);
        if unorderly.is_empty() { Ok(()) } else { Err(LocalError::Unorderly(unorderly.join("\n"))) }
    }
}
