//! Bots live their ordinary life while the server or Redis is killed under them, again and again. Every checker must
//! pass, and every run must show that the fault was felt. A run in which nothing was lost proves nothing.

use clap::Parser as _;
use load::history::History;
use load::options::Options;
use load::report::Report;
use load::run::{RunError, run};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::harness::redis_server::RedisServer;
use crate::relay::Relay;
use crate::server::{Server, Starting, address, restarted, server_on, started};

const PLAYERS: u64 = 40;
const KILLS: usize = 5;
/// How many more writes there are between everybody's return and the next fault: above a second.
const WRITES_BETWEEN: u64 = 500;

/// Bots at work on what stands behind a relay.
struct Bots {
    lives: JoinSet<Result<(Report, History), RunError>>,
}

impl Bots {
    /// Everybody writes ten times a second, a tenth of it `durable`.
    fn live(seconds: u64, door: &Relay) -> Self {
        let line = format!(
            "load steady --quiet --players {PLAYERS} --seconds {seconds} --url {} --durable-share 0.1 \
             --write-interval-ms 100 --drop-interval-ms 10000 --encoding mixed",
            door.url()
        );
        let options = Options::try_parse_from(line.split_whitespace()).unwrap();
        let mut lives = JoinSet::new();
        lives.spawn(run(options));
        Self { lives }
    }

    /// Waits until most have a link (some are away of their own will) and have written for a while.
    async fn are_at_work(&self, server: &Server) {
        server.until_metric("hearth_links_open", "", PLAYERS * 3 / 4).await;
        let written = server.metric("hearth_commands_total", "state.patch").await;
        server.until_metric("hearth_commands_total", "state.patch", written + WRITES_BETWEEN).await;
    }

    /// Waits for the end of their lives, which must lie ahead: a fault after it has hit nobody.
    async fn end(mut self) -> Report {
        assert!(self.lives.try_join_next().is_none(), "the bots were gone before the last fault");
        let (report, _) = self.lives.join_next().await.unwrap().unwrap().unwrap();
        println!("{}", report.text());
        assert!(report.passed, "{}", report.text());
        report
    }
}

fn on_embedded(folder: &TempDir) -> Starting {
    server_on(format!("embedded:{}", folder.path().join("data").display()))
}

/// A Redis whose log is synced once a second, as operators run it, and a server with a short lease on it.
fn on_redis() -> (RedisServer, Starting) {
    let redis =
        RedisServer::builder().setting("appendonly", "yes").setting("appendfsync", "everysec").start();
    let starting = server_on(redis.url());
    (redis, starting.with("home.lease_ttl_ms", 2000).with("redis.response_timeout_ms", 600))
}

async fn kill_the_server_again_and_again(starting: Starting, seconds: u64) {
    let mut server = started(starting).await;
    let door = Relay::to(address(&server)).await;
    let bots = Bots::live(seconds, &door);
    for _ in 0..KILLS {
        bots.are_at_work(&server).await;
        server.kill9();
        server = restarted(server).await;
        door.turn_to(address(&server));
    }
    let report = bots.end().await;
    let count = |name| report.figures.count(name);
    assert!(count("rollback_notices") > 0, "no kill lost anything: nothing was shown");
    assert!(count("resumes") >= PLAYERS * KILLS as u64 / 2, "{} resumes", count("resumes"));
    assert!(count("durable_acks") > 0 && count("missed") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_the_server_loses_no_durable_write_on_the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    kill_the_server_again_and_again(on_embedded(&folder), 25).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_the_server_loses_no_durable_write_on_redis() {
    let (_redis, starting) = on_redis();
    kill_the_server_again_and_again(starting, 35).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_redis_loses_no_durable_write() {
    let (mut redis, starting) = on_redis();
    let server = started(starting).await;
    let door = Relay::to(address(&server)).await;
    let bots = Bots::live(25, &door);
    for _ in 0..KILLS {
        bots.are_at_work(&server).await;
        let felt = server.metric("hearth_commits_total", "unknown").await;
        redis.kill();
        server.until_metric("hearth_commits_total", "unknown", felt + 1).await;
        redis.start_again();
        let done = server.metric("hearth_commits_total", "done").await;
        server.until_metric("hearth_commits_total", "done", done + 1).await;
    }
    let report = bots.end().await;
    assert!(report.figures.count("durable_acks") > 0);
    assert_eq!(report.figures.count("rollback_notices"), 0, "the server lived, and had everything in memory");
}

async fn stop_and_start_again(starting: Starting) {
    let mut server = started(starting).await;
    let door = Relay::to(address(&server)).await;
    let bots = Bots::live(20, &door);
    for _ in 0..2 {
        bots.are_at_work(&server).await;
        assert!(server.stop_gracefully().success());
        server = restarted(server).await;
        door.turn_to(address(&server));
    }
    let report = bots.end().await;
    let count = |name| report.figures.count(name);
    assert!(count("resumes") >= PLAYERS, "{} resumes", count("resumes"));
    assert_eq!(count("rollback_notices"), 0, "a stop in order loses nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_order_loses_nothing_on_the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    stop_and_start_again(on_embedded(&folder)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_order_loses_nothing_on_redis() {
    let (_redis, starting) = on_redis();
    stop_and_start_again(starting).await;
}
