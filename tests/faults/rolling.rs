//! Bots live at several nodes of one cluster while these are stopped in order and started again one after the other, or
//! one is killed. A stop in order loses nothing at all; a kill loses what was not durable, and says so.

use std::time::{Duration, Instant};

use clap::Parser as _;
use load::history::History;
use load::options::Options;
use load::report::Report;
use load::run::{RunError, run};
use tokio::task::{JoinSet, spawn_blocking};

use crate::harness::patience::until;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::server::{Starting, server_on};

const PLAYERS: u64 = 150;
const SHARDS: usize = 32;
const LEASE_MS: u64 = 3_000;
const KEY: &str = "the key of an operator";
/// How many more writes there are between everybody's return and the next fault.
const WRITES_BETWEEN: u64 = 500;

fn node_on(redis: &RedisServer) -> Starting {
    let starting = server_on(redis.url()).with_lease(LEASE_MS).with("service_key", KEY);
    starting.with("cluster.shards", SHARDS)
}

async fn three_nodes(redis: &RedisServer) -> Vec<Server> {
    let mut starting = JoinSet::new();
    for _ in 0..3 {
        let node = node_on(redis);
        starting.spawn_blocking(|| node.start());
    }
    let nodes = starting.join_all().await;
    each_shard_is_served(&nodes.iter().collect::<Vec<_>>()).await;
    nodes
}

/// Waits until the nodes serve all shards between them, each some.
async fn each_shard_is_served(nodes: &[&Server]) {
    until("each shard has a home", async || {
        let mut served = 0;
        for node in nodes {
            let (_, told) = Service::of(node, KEY).get("/v1/cluster").await;
            let shards = told["shards"].as_array().unwrap();
            let here = shards.iter().filter(|shard| shard["serving"] == true).count();
            if here == 0 {
                return None;
            }
            served += here;
        }
        (served == SHARDS).then_some(())
    })
    .await;
}

/// Bots at all nodes.
struct Bots {
    lives: JoinSet<Result<(Report, History), RunError>>,
}

impl Bots {
    fn live(seconds: u64, nodes: &[Server]) -> Self {
        let urls: String = nodes.iter().map(|node| format!(" --url {}", node.url())).collect();
        let line = format!(
            "load steady --quiet --expect-moves --watches 0 --players {PLAYERS} --seconds {seconds} --durable-share 0.1 \
             --write-interval-ms 200 --drop-interval-ms 10000 --encoding mixed{urls}"
        );
        let options = Options::try_parse_from(line.split_whitespace()).unwrap();
        let mut lives = JoinSet::new();
        lives.spawn(run(options));
        Self { lives }
    }

    /// Waits until most have a link to one of these nodes and have written there for a while.
    async fn are_at_work(&self, nodes: &[&Server]) {
        let sum = async |name: &str, label: &str| {
            let mut sum = 0;
            for node in nodes {
                sum += node.metric(name, label).await;
            }
            sum
        };
        until("most bots to have a link", async || {
            (sum("hearth_links_open", "").await >= PLAYERS * 3 / 4).then_some(())
        })
        .await;
        let written = sum("hearth_commands_total", "state.patch").await;
        until("bots to write", async || {
            (sum("hearth_commands_total", "state.patch").await >= written + WRITES_BETWEEN).then_some(())
        })
        .await;
    }

    /// Waits for the end of their lives, which must lie ahead: a fault after it has hit nobody.
    async fn end(mut self) -> Report {
        assert!(self.lives.try_join_next().is_none(), "the bots were gone before the last fault");
        let (report, _) = self.lives.join_next().await.unwrap().unwrap().unwrap();
        println!("{}", report.text());
        assert!(report.passed, "{}", report.text());
        let count = |name| report.figures.count(name);
        assert_eq!(count("logins"), PLAYERS, "every session survives");
        assert!(count("durable_acks") > 0 && count("redirects") > 0);
        report
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_restarted_one_after_the_other_lose_nothing() {
    let redis = RedisServer::builder().durable().start();
    let mut nodes = three_nodes(&redis).await;
    let bots = Bots::live(40, &nodes);
    for _ in 0..nodes.len() {
        bots.are_at_work(&nodes.iter().collect::<Vec<_>>()).await;
        let mut node = nodes.remove(0);
        let again = spawn_blocking(move || {
            assert!(node.stop_gracefully().success(), "{}", node.log());
            node.restart();
            node
        });
        nodes.push(again.await.unwrap());
        each_shard_is_served(&nodes.iter().collect::<Vec<_>>()).await;
    }
    bots.are_at_work(&nodes.iter().collect::<Vec<_>>()).await;
    let report = bots.end().await;
    let count = |name| report.figures.count(name);
    assert_eq!(count("rollback_notices"), 0, "a stop in order loses nothing");
    assert!(count("moves") > 0 && count("resumes_elsewhere") >= PLAYERS, "{} moves", count("moves"));
}

#[tokio::test(flavor = "multi_thread")]
async fn players_of_a_killed_node_are_back_when_its_leases_end() {
    let redis = RedisServer::builder().durable().start();
    let mut nodes = three_nodes(&redis).await;
    let bots = Bots::live(20, &nodes);
    bots.are_at_work(&nodes.iter().collect::<Vec<_>>()).await;
    nodes[2].kill9();
    let killed = Instant::now();
    let left = [&nodes[0], &nodes[1]];
    each_shard_is_served(&left).await;
    println!("taken over after {:?} of a lease of {LEASE_MS} ms", killed.elapsed());
    bots.are_at_work(&left).await;
    let report = bots.end().await;
    let back = &report.figures.latency_ms["resume elsewhere"];
    println!("{} were back after {} ms (p50), {} ms (p99)", back.count, back.p50, back.p99);
    assert!(back.count >= PLAYERS / 6, "{} had their home there", back.count);
    let allowed = Duration::from_millis(LEASE_MS) + Duration::from_secs(2);
    assert!(back.p99 <= allowed.as_secs_f64() * 1_000.0, "{} ms", back.p99);
}
