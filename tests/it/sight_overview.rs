//! The cluster at one glance: what a node does shows as rates and percentiles, and what breaks rings by name, in the
//! overview, in the log and in the metrics, until it is mended.

use serde_json::{Value, json};

use crate::harness::nodes::{KEY, nodes};
use crate::harness::patience::{trying_until, until};
use crate::harness::redis_server::RedisServer;
use crate::harness::server::{Server, Starting};
use crate::harness::service::Service;
use crate::harness::stages::{Stage, on_every_stage};

/// The cluster, as a node says it.
async fn overview(server: &Server) -> Value {
    let (status, told) = Service::of(server, KEY).get("/v1/overview").await;
    assert_eq!(status, 200, "{told}");
    told
}

/// The alarm of this name, if it is on anywhere.
async fn alarm(server: &Server, name: &str) -> Option<Value> {
    let told = overview(server).await;
    told["alarms"].as_array().unwrap().iter().find(|alarm| alarm["name"] == name).cloned()
}

/// The lines that say so of this alarm.
fn lines(server: &Server, said: &str, name: &str) -> usize {
    let alarm = format!("alarm=\"{name}\"");
    server.log().lines().filter(|line| line.contains(said) && line.contains(&alarm)).count()
}

/// What rings is believed soon, and so is its end.
fn soon(starting: Starting) -> Starting {
    starting.with("alarm.begins_after_s", 1).with("alarm.ends_after_s", 2)
}

on_every_stage! {
    async fn what_players_do_shows_as_rates_and_percentiles(stage) {
        let server = Server::on(stage).with("service_key", KEY).start();
        let (mut ann, mut bea) = (server.login("ann").await, server.login("bea").await);
        bea.watches(&["ann"]).await;
        let mut is_busy = false;
        let told = trying_until("all of it to show", async || {
            ann.patch_durably(json!({"incr": {"steps": 1}})).await;
            is_busy = !is_busy;
            // A rate is of the last ten seconds, and a busy machine may take longer for the rest.
            server.login("cid").await.drops();
            ann.shows(if is_busy { "busy" } else { "playing" }).await;
            let told = overview(&server).await;
            let latency = &told["latency_ms"];
            let took = ["applied", "durable", "commit", "service"].iter().all(|what| latency[what]["p99"].is_f64());
            let happens = ["acks", "logins", "pushes", "service_calls"]
                .iter()
                .all(|what| told["rates"][what].as_f64().is_some_and(|rate| rate > 0.0));
            (took && happens).then_some(told)
        })
        .await;
        assert!(told["latency_ms"]["applied"]["p50"].as_f64() <= told["latency_ms"]["applied"]["p99"].as_f64());
        let _cid = server.login("cid").await;
        let told = until("all three to be counted, once each", async || {
            let told = overview(&server).await;
            let counts = [&told["players"]["online"], &told["sessions"], &told["links"]];
            counts.iter().all(|count| **count == json!(3)).then_some(told)
        })
        .await;
        assert_eq!((&told["unknown_nodes"], &told["store"]["state"]), (&json!([]), &json!("ok")), "{told}");
        let nodes = told["nodes"].as_array().unwrap();
        let count = if matches!(stage, Stage::WrongNode(_)) { 3 } else { 1 };
        assert_eq!(nodes.len(), count, "{told}");
        for node in nodes {
            assert_eq!((&node["state"], &node["version"]), (&json!("up"), &told["version"]), "{node}");
            assert!(node["memory_bytes"].as_u64().unwrap() > 1_000_000, "{node}");
            assert!(node["cpu_percent"].is_f64() && node["started_at"].as_u64() <= told["as_of"].as_u64(), "{node}");
        }
        let serving = told["shards"].as_array().unwrap().iter().map(|of| of["serving"].as_array().unwrap().len());
        assert_eq!(json!(serving.sum::<usize>()), told["shards_total"], "{told}");
    }
}

#[tokio::test]
async fn a_room_that_is_busy_is_named_with_its_members() {
    let server = Server::on(Stage::Embedded).with("service_key", KEY).start();
    let (mut ann, mut bea) = (server.login("ann").await, server.login("bea").await);
    for player in [&mut ann, &mut bea] {
        player.does("room.join", json!({"room": "guild"})).await;
    }
    let room = trying_until("the room to be named", async || {
        let _ = ann.ask("room.send", json!({"room": "guild", "data": "hail"})).await;
        let told = overview(&server).await;
        told["top_rooms"].as_array().unwrap().first().cloned()
    })
    .await;
    assert_eq!((&room["room"], &room["members"]), (&json!("guild"), &json!(2)), "{room}");
    assert!(room["pushes"].as_f64().unwrap() > 0.0, "{room}");
}

#[tokio::test]
async fn a_store_that_is_gone_rings_everywhere_until_it_is_back() {
    let starting = Server::on_durable_redis(Stage::Redis).with("service_key", KEY);
    let mut server = soon(starting).with_lease(3_000).start();
    let mut ann = server.login("ann").await;
    assert_eq!(alarm(&server, "store_down").await, None);
    server.redis().kill();
    let rung = trying_until("store_down to ring", async || {
        let _ = ann.ask("state.patch", json!({"incr": {"steps": 1}})).await;
        alarm(&server, "store_down").await
    })
    .await;
    assert_eq!((&rung["severity"], &rung["limit"]), (&json!("critical"), &json!(0.0)), "{rung}");
    assert!(rung["text"].as_str().unwrap().contains("the store does not take"), "{rung}");
    assert!(!rung["do"].as_str().unwrap().is_empty() && rung["since"].as_u64().unwrap() > 0, "{rung}");
    assert_eq!(overview(&server).await["store"]["state"], "down");
    assert_eq!(server.metric("hearth_alarm", "name=\"store_down\"").await, 1);
    assert_eq!(lines(&server, "an alarm begins", "store_down"), 1, "{}", server.log());
    server.redis().start_again();
    until("store_down to end", async || alarm(&server, "store_down").await.is_none().then_some(())).await;
    until("the store to be well", async || (overview(&server).await["store"]["state"] == "ok").then_some(()))
        .await;
    assert_eq!(server.metric("hearth_alarm", "name=\"store_down\"").await, 0);
    assert!(lines(&server, "an alarm has ended", "store_down") >= 1, "{}", server.log());
    ann.pings().await;
}

#[tokio::test]
async fn a_node_that_is_killed_is_named_by_the_others() {
    let redis = RedisServer::start();
    let names = std::cell::Cell::new(0);
    let [here, mut there, third] = nodes(&redis, |node| {
        names.set(names.get() + 1);
        soon(node).with("node_id", format!("node-{}", names.get()))
    })
    .await;
    until("all three to answer for themselves", async || {
        let told = overview(&here).await;
        let up = told["nodes"].as_array().unwrap().iter().filter(|node| node["state"] == "up").count();
        (up == 3).then_some(())
    })
    .await;
    there.kill9();
    for node in [&here, &third] {
        let rung = until("node_lost to ring", async || alarm(node, "node_lost").await).await;
        assert!(rung["text"].as_str().unwrap().contains("node-2"), "{rung}");
        assert_eq!((&rung["value"], &rung["severity"]), (&json!(1.0), &json!("critical")), "{rung}");
    }
    let told = overview(&here).await;
    assert!(
        told["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|node| node["node"] != "node-2" || node["state"] == "unknown"),
        "{told}"
    );
}
