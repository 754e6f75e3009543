//! Three nodes of one cluster on a Redis, each hurt by its process id; where a scenario wants it, each node's link to Redis and
//! the links of other nodes to it lead over proxies of its own. Only does what it is told, and says nothing of when.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use hearth::rig::free_ports;
use load::faults::auditor::Target;
use load::proxy::Proxy;
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::{JoinSet, spawn_blocking};

use crate::harness::patience::until;
use crate::harness::server::{Server, Starting};
use crate::harness::service::Service;
use crate::line::Settings;
use crate::store::{Set, Shape, Store};

/// The cluster's name in Redis.
pub(crate) const CLUSTER: &str = "faults";
/// The key of its services.
pub(crate) const KEY: &str = "the key of an operator";
pub(crate) const SHARDS: u16 = 32;
/// The nodes' names.
pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];
/// How long a player is shown after her last link: short, so that truth is soon to be seen.
pub(crate) const PRESENCE_GRACE_MS: u64 = 1_000;

/// What a scenario wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    /// Each node's link to Redis leads over a proxy; of one server alone.
    pub(crate) proxied_store: bool,
    /// Links of other nodes lead to each node over a proxy.
    pub(crate) proxied_peers: bool,
    /// The lease is no shorter than this, whatever was asked for: where what is played is told in seconds.
    pub(crate) ttl_ms_min: u64,
    /// Faults that are planted in nodes a, b and c, in a build with the feature `sabotage`; SIGUSR2 lets them out.
    pub(crate) planted: [Option<&'static str>; 3],
    /// More settings of all nodes.
    pub(crate) settings: &'static [(&'static str, &'static str)],
    pub(crate) players: u32,
    pub(crate) write_interval_ms: u64,
    /// Between two links that a bot loses of its own will.
    pub(crate) drop_interval_ms: u64,
    /// Lasts as many minutes as the command line says. Bots then stay away for as long as their sessions last, too.
    pub(crate) is_long: bool,
}

impl Plan {
    /// Three hundred writes a second on one Redis, without proxies.
    pub(crate) const PLAIN: Self = Self {
        shape: Shape::Standalone,
        proxied_store: false,
        proxied_peers: false,
        ttl_ms_min: 0,
        planted: [None; 3],
        settings: &[],
        players: 60,
        write_interval_ms: 200,
        drop_interval_ms: 15_000,
        is_long: false,
    };
}

/// One node.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    /// Gone while it is being stopped or started.
    server: Option<Server>,
    /// Runs, is not stopped, and is not on its way out.
    pub(crate) is_up: bool,
    /// Before Redis, of this node alone.
    pub(crate) store: Option<Proxy>,
    /// Before this node, for all others.
    pub(crate) peer: Option<Proxy>,
}

/// The stage.
pub(crate) struct Stage {
    pub(crate) nodes: Vec<Node>,
    pub(crate) store: Store,
}

impl Stage {
    /// Starts everything; ends with the value.
    pub(crate) async fn set(plan: &Plan, settings: Settings) -> Self {
        let shape = plan.shape;
        let store = spawn_blocking(move || Store::start(shape)).await.unwrap();
        let mut starting = JoinSet::new();
        let nodes = if matches!(store.set, Set::Embedded(_)) { 1 } else { NAMES.len() };
        for (name, planted) in NAMES.into_iter().zip(plan.planted).take(nodes) {
            let (store_proxy, url) = if plan.proxied_store {
                assert!(matches!(store.set, Set::Standalone(_)), "others tell their addresses themselves");
                let target = SocketAddr::from(([127, 0, 0, 1], store.servers()[0].port()));
                let proxy = Proxy::to(target, settings.seed).await.unwrap();
                let url = format!("redis://{}", proxy.address());
                (Some(proxy), url)
            } else {
                (None, store.url())
            };
            let mut node = starting_node(name, &url, plan, settings.ttl_ms).without(planted);
            if let Set::Embedded(disk) = &store.set {
                node = disk.under(node);
            }
            let mut peer = None;
            if plan.proxied_peers {
                let address = SocketAddr::from(([127, 0, 0, 1], free_ports(1).unwrap()[0]));
                let proxy = Proxy::to(address, settings.seed).await.unwrap();
                node = node.with("peer_addr", address).with("peer_public_addr", proxy.address());
                peer = Some(proxy);
            }
            starting.spawn_blocking(move || {
                let server = Some(node.start());
                Node { name, server, is_up: true, store: store_proxy, peer }
            });
        }
        let mut nodes = starting.join_all().await;
        nodes.sort_by_key(|node| node.name);
        Self { nodes, store }
    }

    /// Where clients connect.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.server().url().to_owned()).collect()
    }

    /// What can be looked at: nodes that are up.
    pub(crate) fn targets(&self) -> BTreeMap<String, Target> {
        let up = self.nodes.iter().filter(|node| node.is_up);
        up.map(|node| {
            let (service_url, pid) = (node.server().service_url().to_owned(), Some(node.server().pid()));
            (node.name.to_owned(), Target { service_url, pid })
        })
        .collect()
    }

    /// Waits until the nodes serve all shards between them, each some.
    pub(crate) async fn each_shard_is_served(&self) {
        until("each shard has a home", async || {
            let mut served = 0;
            for node in &self.nodes {
                let (_, told) = Service::of(node.server(), KEY).get("/v1/cluster").await;
                let shards = told["shards"].as_array().unwrap();
                let here = shards.iter().filter(|shard| shard["serving"] == true).count();
                if here == 0 {
                    return None;
                }
                served += here;
            }
            (served == usize::from(SHARDS)).then_some(())
        })
        .await;
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].server_mut().kill9();
        self.nodes[node].is_up = false;
    }

    /// At once: a program that sends it would take its time on a busy machine.
    fn signal(&self, node: usize, signal: Signal) {
        let pid = i32::try_from(self.nodes[node].server().pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).unwrap();
    }

    /// Stops a node without ending it.
    pub(crate) fn pause(&mut self, node: usize) {
        self.signal(node, Signal::STOP);
        self.nodes[node].is_up = false;
    }

    /// Lets it go on.
    pub(crate) fn go_on(&mut self, node: usize) {
        self.signal(node, Signal::CONT);
        self.nodes[node].is_up = true;
    }

    /// Starts a node that has ended, and waits until it is ready.
    pub(crate) async fn start(&mut self, node: usize) {
        let mut server = self.nodes[node].server.take().unwrap();
        let again = spawn_blocking(move || {
            server.restart();
            server
        });
        self.nodes[node].server = Some(again.await.unwrap());
        self.nodes[node].is_up = true;
    }

    /// Lets the fault out that was planted in a node.
    pub(crate) fn strike(&mut self, node: usize) {
        self.signal(node, Signal::USR2);
        self.nodes[node].is_up = false;
    }

    /// Waits for the end of a node that ends by itself.
    pub(crate) async fn ends(&mut self, node: usize) -> ExitStatus {
        let mut server = self.nodes[node].server.take().unwrap();
        self.nodes[node].is_up = false;
        let ended = spawn_blocking(move || {
            let status = server.wait_for_end();
            (server, status)
        });
        let (server, status) = ended.await.unwrap();
        self.nodes[node].server = Some(server);
        status
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn drain(&mut self, node: usize) -> ExitStatus {
        let mut server = self.nodes[node].server.take().unwrap();
        self.nodes[node].is_up = false;
        let ended = spawn_blocking(move || {
            let status = server.stop_gracefully();
            (server, status)
        });
        let (server, status) = ended.await.unwrap();
        self.nodes[node].server = Some(server);
        status
    }
}

impl Node {
    /// Its process.
    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("a node that is not being stopped or started")
    }

    fn server_mut(&mut self) -> &mut Server {
        self.server.as_mut().expect("a node that is not being stopped or started")
    }
}

fn starting_node(name: &str, store: &str, plan: &Plan, ttl_ms: u64) -> Starting {
    let timeout_ms = (ttl_ms / 4).min(Duration::from_secs(1).as_millis() as u64);
    let node = Server::on_url(store)
        .with("cluster.name", CLUSTER)
        .with("cluster.shards", SHARDS)
        .with("node_id", name)
        .with("service_key", KEY)
        .with_lease(ttl_ms)
        .with("redis.response_timeout_ms", timeout_ms)
        .with("redis.connect_timeout_ms", timeout_ms)
        .with("presence.grace_ms", PRESENCE_GRACE_MS);
    plan.settings.iter().fold(node, |node, (setting, value)| node.with(setting, value))
}
