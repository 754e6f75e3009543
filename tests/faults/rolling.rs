//! Bots live at several nodes of one cluster while these are stopped in order and started again one after the other, or
//! one is killed. A stop in order loses nothing at all; a kill loses what was not durable, and says so.

use std::time::{Duration, Instant};

use load::figures::Latency;
use load::report::Report;
use tokio::task::spawn_blocking;

use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::nodes::{Bots, each_shard_is_served, three_nodes};
use crate::server::Starting;

/// How large a run is: small, unless the environment says otherwise. `load/README.md` has figures of large ones.
struct Size {
    players: u64,
    seconds: u64,
    rounds: u64,
    write_interval_ms: u64,
    lease_ms: u64,
    shards: u64,
}

impl Size {
    /// What the environment does not name is as given.
    fn lasting(seconds: u64) -> Self {
        let told = |name: &str, otherwise| match std::env::var(format!("ROLLING_{name}")) {
            Ok(told) => told.parse().unwrap_or_else(|_| panic!("ROLLING_{name} is a number")),
            Err(_) => otherwise,
        };
        Self {
            players: told("PLAYERS", 150),
            seconds: told("SECONDS", seconds),
            rounds: told("ROUNDS", 1),
            write_interval_ms: told("WRITE_INTERVAL_MS", 200),
            lease_ms: told("LEASE_MS", 3_000),
            shards: told("SHARDS", 32),
        }
    }

    async fn nodes(&self, redis: &RedisServer) -> Vec<Server> {
        let settings = |node: Starting| node.with_lease(self.lease_ms).with("cluster.shards", self.shards);
        three_nodes(&redis.url(), settings).await
    }

    fn bots(&self, nodes: &[Server]) -> Bots {
        let moves = if self.rounds > 0 { "--expect-moves" } else { "" };
        let expected = format!("{moves} --write-interval-ms {}", self.write_interval_ms);
        Bots::live(self.players, self.seconds, &nodes.iter().collect::<Vec<_>>(), &expected)
    }
}

/// How long it took until players were served by another node.
fn told(report: &Report) -> &Latency {
    let back = &report.figures.latency_ms["resume elsewhere"];
    println!(
        "{} were back after {} ms (p50), {} ms (p90), {} ms (p99), {} ms (last)",
        back.count, back.p50, back.p90, back.p99, back.max
    );
    back
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_restarted_one_after_the_other_lose_nothing() {
    let redis = RedisServer::builder().durable().start();
    let size = Size::lasting(40);
    let mut nodes = size.nodes(&redis).await;
    let bots = size.bots(&nodes);
    for _ in 0..size.rounds * 3 {
        bots.are_at_work(&nodes.iter().collect::<Vec<_>>()).await;
        let mut node = nodes.remove(0);
        let again = spawn_blocking(move || {
            let begun = Instant::now();
            assert!(node.stop_gracefully().success(), "{}", node.log());
            let stopped = begun.elapsed();
            node.restart();
            (node, stopped, Instant::now())
        });
        let (node, stopped, started) = again.await.unwrap();
        nodes.push(node);
        each_shard_is_served(&nodes.iter().collect::<Vec<_>>()).await;
        println!("stopped after {stopped:?}; all shards shared anew {:?} after the start", started.elapsed());
    }
    bots.are_at_work(&nodes.iter().collect::<Vec<_>>()).await;
    let (report, _) = bots.end().await;
    let count = |name| report.figures.count(name);
    assert_eq!(count("rollback_notices"), 0, "a stop in order loses nothing");
    assert_eq!(count("missed"), 0, "nor does anybody miss a push");
    if size.rounds == 0 {
        // Nobody was disturbed: for figures alone.
        return;
    }
    told(&report);
    assert!(count("moves") > 0 && count("resumes_elsewhere") >= size.players, "{} moves", count("moves"));
}

#[tokio::test(flavor = "multi_thread")]
async fn players_of_a_killed_node_are_back_when_its_leases_end() {
    let redis = RedisServer::builder().durable().start();
    let size = Size::lasting(20);
    let mut nodes = size.nodes(&redis).await;
    let bots = size.bots(&nodes);
    bots.are_at_work(&nodes.iter().collect::<Vec<_>>()).await;
    nodes[2].kill9();
    let killed = Instant::now();
    let left = [&nodes[0], &nodes[1]];
    each_shard_is_served(&left).await;
    println!("taken over after {:?} of a lease of {} ms", killed.elapsed(), size.lease_ms);
    bots.are_at_work(&left).await;
    let (report, _) = bots.end().await;
    let back = told(&report);
    assert!(back.count >= size.players / 6, "{} had their home there", back.count);
    let allowed = Duration::from_millis(size.lease_ms) + Duration::from_secs(2);
    let allowed_ms = allowed.as_secs_f64() * 1_000.0;
    // Of few the p99 is the last one, and she may have been away by herself at the worst moment.
    let most = if back.count >= 500 { back.p99 } else { back.p90 };
    assert!(most <= allowed_ms && back.max <= allowed_ms + 2_000.0, "{most} ms, {} ms", back.max);
}
