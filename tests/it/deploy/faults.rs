//! Faults that are planted in real servers, and the alerts that they make fire, on what the servers showed meanwhile.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::recording::{Recording, WELL};
use crate::harness::nodes::{SHARDS, node_on, nodes};
use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::harness::slow_road::SlowRoad;
use crate::harness::stages::Stage;

/// Two nodes whose leases outlast a busy machine's pauses.
async fn two_nodes(redis: &RedisServer) -> [Server; 2] {
    let nodes = nodes(redis, |node| node.with_lease(3_000)).await;
    nodes[0].until_metric("hearth_peer_links", "", 1).await;
    nodes
}

/// Looks on until a metric of a node has come this far.
async fn until(
    recording: &mut Recording,
    nodes: &[&Server],
    (node, name, label, at_least): (&Server, &str, &str, u64),
) {
    let mut looks = 0;
    while node.metric(name, label).await < at_least {
        recording.look(nodes).await;
        looks += 1;
        assert!(looks < 60, "waited in vain for {name} {label} to reach {at_least}");
    }
    recording.looks(2, nodes).await;
}

#[tokio::test]
async fn a_store_that_is_away() {
    let mut recording = Recording::of("store_away");
    let mut server = Server::on(Stage::Redis).start();
    let mut ann = server.login("ann").await;
    recording.looks(WELL, &[&server]).await;
    server.redis().pause();
    ann.patch(json!({"set": {"zone": "docks"}, "cseq": 1})).await;
    until(&mut recording, &[&server], (&server, "hearth_store_breaker_state", "", 2)).await;
    until(&mut recording, &[&server], (&server, "hearth_flush_lag_seconds", "", 4)).await;
    until(&mut recording, &[&server], (&server, "hearth_lease_age_seconds", "", 5)).await;
    server.redis().go_on();
    recording.makes_fire(&["HearthStoreDown", "HearthFlushLags", "HearthLeaseNotRenewed"]);
}

// The road runs while the server is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_slow() {
    let mut recording = Recording::of("store_slow");
    let redis = RedisServer::builder().on_tcp().start();
    let road = SlowRoad::to(redis.address()).await;
    let server = Server::on_url(&format!("redis://{}", road.address())).start();
    // In all shards, or nearly: each has a commit of its own.
    let mut players = Vec::new();
    for n in 0..60 {
        players.push(server.login(&format!("ann-{n}")).await);
    }
    recording.looks(WELL, &[&server]).await;
    road.takes(Duration::from_millis(400));
    // Above the rule's one a second, over the two minutes that it looks at.
    let enough = server.metric("hearth_commits_total", "outcome=\"done\"").await + 200;
    let mut n = 0;
    while server.metric("hearth_commits_total", "outcome=\"done\"").await < enough {
        n += 1;
        assert!(n < 60, "too few commits");
        for player in &mut players {
            player.patch(json!({"set": {"n": n}, "cseq": n})).await;
        }
        recording.look(&[&server]).await;
    }
    recording.makes_fire(&["HearthStoreSlow"]);
}

#[tokio::test]
async fn a_store_that_lost_everything() {
    let mut recording = Recording::of("store_lost_writes");
    let mut server = Server::on(Stage::Redis).start();
    let mut ann = server.login("ann").await;
    ann.patch_durably(json!({"set": {"zone": "docks"}, "cseq": 1})).await;
    recording.looks(WELL, &[&server]).await;
    server.redis().query::<()>(&["FLUSHALL"]);
    until(&mut recording, &[&server], (&server, "hearth_repairs_total", "", 1)).await;
    recording.makes_fire(&["HearthStoreLostWrites"]);
}

#[tokio::test]
async fn a_node_that_is_killed() {
    let mut recording = Recording::of("node_killed");
    let redis = RedisServer::start();
    let [here, mut there] = two_nodes(&redis).await;
    recording.looks(WELL, &[&here, &there]).await;
    there.kill9();
    let gone = (&here, "hearth_members_gone_total", "how=\"vanished\"", 1);
    until(&mut recording, &[&here, &there], gone).await;
    recording.makes_fire(&["HearthNodeDown", "HearthNodeVanished"]);
}

#[tokio::test]
async fn a_node_that_stood_still_for_longer_than_its_leases() {
    let mut recording = Recording::of("node_stopped");
    let redis = RedisServer::start();
    let [here, there] = two_nodes(&redis).await;
    recording.looks(WELL, &[&here, &there]).await;
    there.pause();
    let gone = (&here, "hearth_members_gone_total", "how=\"vanished\"", 1);
    until(&mut recording, &[&here, &there], gone).await;
    here.until_metric("hearth_shards_serving", "", SHARDS.into()).await;
    there.go_on();
    until(&mut recording, &[&here, &there], (&there, "hearth_shards_lost_total", "", 1)).await;
    recording.makes_fire(&["HearthNodeVanished", "HearthShardsLost"]);
}

#[tokio::test]
async fn a_live_node_that_cannot_be_reached() {
    let mut recording = Recording::of("peers_unreached");
    let redis = RedisServer::start();
    // Nobody listens there. Whoever comes first in the alphabet dials.
    let here = node_on(&redis).with("node_id", "a").start();
    recording.looks(WELL, &[&here]).await;
    let there = node_on(&redis).with("node_id", "b").with("peer_public_addr", "127.0.0.1:1").start();
    until(&mut recording, &[&here, &there], (&here, "hearth_peers_unreached", "", 1)).await;
    recording.makes_fire(&["HearthPeersUnreached"]);
}

#[tokio::test]
async fn a_flood_of_logins_and_of_what_makes_no_sense() {
    let mut recording = Recording::of("floods");
    let starting = Server::on(Stage::Embedded).with("limits.exempt_loopback", false);
    let server = starting
        .with("limits.logins_per_s", 1)
        .with("limits.logins_burst", 1)
        .with("limits.connects_per_s", 1_000)
        .with("limits.connects_burst", 10_000)
        .start();
    let _ann = server.login("ann").await;
    recording.looks(WELL, &[&server]).await;
    // Above the rules' five a second, over the minute and the two that they look at.
    let flood = async {
        for _ in 0..20 {
            let logins = (0..20).map(async |n| {
                let mut flooding = server.connect().await;
                flooding.ask_or_end("login", json!({"token": format!("dev:bea-{n}")})).await
            });
            futures_util::future::join_all(logins).await;
        }
        for _ in 0..40 {
            let strangers = (0..20).map(async |_| {
                let mut stranger = tokio::net::TcpStream::connect(server.host()).await.unwrap();
                stranger.write_all(b"WHAT is this\r\n\r\n").await.unwrap();
                let _ = stranger.read_to_end(&mut Vec::new()).await;
            });
            futures_util::future::join_all(strangers).await;
        }
    };
    recording.during(&[&server], flood).await;
    until(&mut recording, &[&server], (&server, "hearth_handshake_failures_total", "upgrade", 700)).await;
    recording.makes_fire(&["HearthLoginFlood", "HearthBadClients"]);
}
