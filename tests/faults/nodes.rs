//! Several nodes of one cluster, and bots that live at all of them.

use clap::Parser as _;
use load::history::History;
use load::options::Options;
use load::report::Report;
use load::run::{RunError, run};
use tokio::task::JoinSet;

use crate::harness::patience::until;
use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::server::{Starting, server_on};

/// The key of their services.
pub(crate) const KEY: &str = "the key of an operator";
const SHARDS: usize = 32;
/// How many more writes there are between everybody's return and the next fault.
const WRITES_BETWEEN: u64 = 500;

/// A node of a cluster on the store at this URL.
pub(crate) fn node_on(store: &str) -> Starting {
    server_on(store).with("service_key", KEY).with("cluster.shards", SHARDS)
}

/// Three of them that share the shards.
pub(crate) async fn three_nodes(store: &str, settings: impl Fn(Starting) -> Starting) -> Vec<Server> {
    let mut starting = JoinSet::new();
    for _ in 0..3 {
        let node = settings(node_on(store));
        starting.spawn_blocking(|| node.start());
    }
    let nodes = starting.join_all().await;
    each_shard_is_served(&nodes.iter().collect::<Vec<_>>()).await;
    nodes
}

/// Waits until the nodes serve all shards between them, each some.
pub(crate) async fn each_shard_is_served(nodes: &[&Server]) {
    until("each shard has a home", async || {
        let (mut served, mut all) = (0, 0);
        for node in nodes {
            let (_, told) = Service::of(node, KEY).get("/v1/cluster").await;
            let shards = told["shards"].as_array().unwrap();
            all = shards.len();
            let here = shards.iter().filter(|shard| shard["serving"] == true).count();
            if here == 0 {
                return None;
            }
            served += here;
        }
        (served == all).then_some(())
    })
    .await;
}

/// The sum of a metric over nodes.
pub(crate) async fn sum(nodes: &[&Server], name: &str, label: &str) -> u64 {
    let mut sum = 0;
    for node in nodes {
        sum += node.metric(name, label).await;
    }
    sum
}

/// Bots at all nodes.
pub(crate) struct Bots {
    players: u64,
    lives: JoinSet<Result<(Report, History), RunError>>,
}

impl Bots {
    /// They play, a tenth of their writes `durable`; `more` stands on the command line, too.
    pub(crate) fn live(players: u64, seconds: u64, nodes: &[&Server], more: &str) -> Self {
        let urls: String = nodes.iter().map(|node| format!(" --url {}", node.url())).collect();
        let line = format!(
            "load steady --quiet --players {players} --seconds {seconds} --durable-share 0.1 \
             --drop-interval-ms 10000 --encoding mixed{urls} {more}"
        );
        let options = Options::try_parse_from(line.split_whitespace()).unwrap();
        let mut lives = JoinSet::new();
        lives.spawn(run(options));
        Self { players, lives }
    }

    /// Waits until most have a link to one of these nodes and have written there for a while.
    pub(crate) async fn are_at_work(&self, nodes: &[&Server]) {
        until("most bots to have a link", async || {
            (sum(nodes, "hearth_links_open", "").await >= self.players * 3 / 4).then_some(())
        })
        .await;
        let written = sum(nodes, "hearth_commands_total", "state.patch").await;
        until("bots to write", async || {
            let now = sum(nodes, "hearth_commands_total", "state.patch").await;
            (now >= written + WRITES_BETWEEN).then_some(())
        })
        .await;
    }

    /// Waits for the end of their lives, which must lie ahead: a fault after it has hit nobody.
    pub(crate) async fn end(self) -> (Report, History) {
        let players = self.players;
        let (report, history) = self.end_whatever_was_lost().await;
        assert!(report.passed, "{}", report.text());
        let count = |name| report.figures.count(name);
        assert_eq!(count("logins"), players, "every session survives");
        assert!(count("durable_acks") > 0 && count("redirects") > 0);
        (report, history)
    }
    /// The same where not every promise can hold.
    pub(crate) async fn end_whatever_was_lost(mut self) -> (Report, History) {
        assert!(self.lives.try_join_next().is_none(), "the bots were gone before the last fault");
        let (report, history) = self.lives.join_next().await.unwrap().unwrap().unwrap();
        println!("{}", report.text());
        (report, history)
    }
}
