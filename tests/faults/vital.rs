//! Tasks that must live die, hang, or stand still with the whole runtime, by a fault that `HEARTH_SABOTAGE` plants and
//! SIGUSR2 lets out: answers stop, other nodes get what is here, and the process ends with 70 to be started again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::nodes::{node_on, players_of, served_by};
use crate::harness::patience::until;
use crate::harness::player::Player;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::{Server, Starting};
use crate::harness::service::Service;
use crate::harness::socket::Encoding;
use crate::harness::stages::Stage;
use crate::server::started;

/// A bug of ours: sysexits' EX_SOFTWARE.
const SOFTWARE: Option<i32> = Some(70);
/// What a dying node gives other nodes, and a moment to stop.
const FALL: Duration = Duration::from_secs(8);

/// Two nodes of which the first has a fault planted, and a player at home there with a link to it.
async fn one_of_two(redis: &RedisServer, fault: &'static str) -> ([Server; 2], Player) {
    let node = || node_on(redis).with_lease(6_000).with("cluster.member_ttl_ms", 5_000);
    let [here, there] = [started(node().without(Some(fault))).await, started(node()).await];
    until("both to serve", async || {
        let shares = [served_by(&here).await.len(), served_by(&there).await.len()];
        (!shares.contains(&0) && shares.iter().sum::<usize>() == 32).then_some(())
    })
    .await;
    let name = players_of(&here).await.next().unwrap();
    let mut ann = Player::connect(here.url(), Encoding::MessagePack).await;
    ann.login(&name).await;
    ([here, there], ann)
}

/// The fault is let out; the link is closed as when a server goes away, and nothing that was asked since is answered.
async fn is_sent_away(here: &Server, ann: &mut Player) -> Instant {
    here.strike();
    let struck = Instant::now();
    ann.expect_close(4000).await;
    struck
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_renewing_task_panics_answers_stop_and_others_have_all_before_the_lease_is_over() {
    let redis = RedisServer::start();
    let ([mut here, there], mut ann) = one_of_two(&redis, "panic:keeper").await;
    ann.patch(json!({"set": {"zone": "docks"}, "cseq": 1})).await;
    let struck = is_sent_away(&here, &mut ann).await;
    let mut again = comes_back_at(&there, &ann).await;
    let took = struck.elapsed();
    assert_eq!(again.state().await["zone"], "docks");
    assert!(!again.was_told("rolled_back"));
    assert_eq!(here.wait_for_end().code(), SOFTWARE);
    assert!(struck.elapsed() < FALL + Duration::from_secs(4), "{:?}", struck.elapsed());
    println!("a panic of the renewing task: at her next home after {took:.1?}");
    let said = here.log();
    assert!(
        said.contains("the task keeper, which must live, has ended") && said.contains("asked_for="),
        "{said}"
    );
    let here = crate::server::restarted(here).await;
    until("its shards to come back", async || (!served_by(&here).await.is_empty()).then_some(())).await;
}

/// She comes back there, as soon as all that was at home elsewhere is so there.
async fn comes_back_at(there: &Server, ann: &Player) -> Player {
    until("the other node to have all", async || (served_by(there).await.len() == 32).then_some(())).await;
    let mut again = Player::connect(there.url(), Encoding::Json).await;
    again.resume(&ann.credentials()).await;
    again
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_flushing_task_panics_what_is_not_stored_is_there_or_told_as_lost() {
    let redis = RedisServer::start();
    let ([mut here, there], mut ann) = one_of_two(&redis, "panic:flush").await;
    ann.patch_durably(json!({"set": {"zone": "docks"}, "cseq": 1})).await;
    here.strike();
    // The task is called for this, and dies of it: nobody can be told that it is stored, nor that it is not.
    ann.send("state.patch", json!({"set": {"zone": "woods"}, "cseq": 2, "ack": "durable"})).await;
    ann.expect_end().await;
    let mut again = comes_back_at(&there, &ann).await;
    let zone = again.state().await["zone"].clone();
    assert!(zone == "docks" || zone == "woods", "{zone}");
    println!("a panic of the flushing task: {zone} is left of docks and woods");
    assert_eq!(here.wait_for_end().code(), SOFTWARE);
}

fn alone(fault: &'static str) -> Starting {
    Server::on(Stage::Embedded).without(Some(fault)).with("cluster.shards", 4)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_whose_task_dies_stores_what_it_can_and_is_whole_when_it_is_started_again() {
    let mut server = started(alone("panic:expiry").with("home.flush_interval_ms", 2_000)).await;
    let mut ann = server.login("ann").await;
    ann.patch(json!({"set": {"zone": "docks"}, "cseq": 1})).await;
    is_sent_away(&server, &mut ann).await;
    assert_eq!(server.wait_for_end().code(), SOFTWARE);
    let last = server.log().lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("that is a bug"), "{last}");
    server.restart();
    let mut again = server.resume(&ann.credentials()).await;
    assert_eq!(again.state().await["zone"], "docks");
    assert!(!again.was_told("rolled_back"));
}

/// What stands in the way of its readiness.
async fn reasons(server: &Server) -> Value {
    let (_, told) = Service::of(server, "").get("/readyz").await;
    told["reasons"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_hangs_makes_the_node_unready_though_it_lives_and_ends_it_in_the_end() {
    let mut server = started(alone("hang:fanout").with("watchdog.patience_ms", 3_000)).await;
    let (mut ann, mut bea) = (server.login("ann").await, server.login("bea").await);
    bea.watches(&["ann"]).await;
    server.strike();
    ann.shows("playing").await;
    until("the node not to be ready", async || {
        reasons(&server)
            .await
            .as_array()
            .unwrap()
            .iter()
            .any(|why| why.as_str().unwrap().contains("fanout"))
            .then_some(())
    })
    .await;
    let (status, _) = Service::of(&server, "").get("/healthz").await;
    assert_eq!((status, server.metric("hearth_vital_tasks_late", "").await), (200, 1));
    // Its sessions live on meanwhile.
    ann.pings().await;
    ann.expect_close(4000).await;
    assert_eq!(server.wait_for_end().code(), SOFTWARE);
    assert!(server.log().contains("the task fanout, which must live, hangs"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_stands_still_for_a_moment_is_told_with_how_long() {
    let server = started(alone("stall:2500")).await;
    let mut ann = server.login("ann").await;
    server.strike();
    server.until_metric("hearth_runtime_stalls_total", "", 1).await;
    server.until_metric("hearth_runtime_stall_seconds_count", "", 1).await;
    ann.pings().await;
    let said = server.log();
    let stood = said.lines().find(|line| line.contains("the runtime stood still")).unwrap();
    let ms = stood.split("duration_ms=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!((1_000..10_000).contains(&ms.parse::<u64>().unwrap()), "{stood}");
    assert!(said.contains("WARN") && said.contains("the runtime stands still"), "{said}");
    assert_eq!(reasons(&server).await, json!([]), "it is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_does_not_turn_again_is_ended_from_outside() {
    let mut server = started(alone("stall:600000").with("watchdog.patience_ms", 2_000)).await;
    server.login("ann").await.patch_durably(json!({"set": {"zone": "docks"}, "cseq": 1})).await;
    server.strike();
    assert_eq!(server.wait_for_end().code(), SOFTWARE);
    assert!(server.log().contains("the runtime stands still"), "{}", server.log());
    server.restart();
    server.login("ann").await.pings().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_stopped_and_goes_on_is_not_taken_for_one_that_hangs() {
    let server = started(alone("").with("watchdog.patience_ms", 2_000)).await;
    let mut ann = server.login("ann").await;
    server.pause();
    tokio::time::sleep(Duration::from_secs(7)).await;
    server.go_on();
    ann.pings().await;
    until("the pause to be told", async || server.log().contains("this process was stopped").then_some(()))
        .await;
    assert!(!server.log().contains("stands still"), "{}", server.log());
    assert_eq!(reasons(&server).await, json!([]));
}
