//! The cluster at one glance: what a node does shows as rates and percentiles, and what breaks rings by name, in the
//! overview, in the log and in the metrics, until it is mended.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::nodes::{KEY, SHARDS, nodes, served_by};
use crate::harness::patience::{trying_until, until};
use crate::harness::redis_server::RedisServer;
use crate::harness::server::{Server, Starting};
use crate::harness::service::Service;
use crate::harness::slow_road::SlowRoad;
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
async fn a_store_that_loses_what_it_acknowledged_rings_and_its_node_says_what_was_lost() {
    let mut server = Server::on(Stage::Redis).with("service_key", KEY).start();
    let mut ann = server.login("ann").await;
    ann.patch_durably(json!({"incr": {"steps": 1}})).await;
    assert_eq!(alarm(&server, "store_lost").await, None);
    server.redis().query::<()>(&["FLUSHALL"]);
    let rung = trying_until("store_lost to ring", async || {
        let _ = ann.ask("state.patch", json!({"incr": {"steps": 1}})).await;
        alarm(&server, "store_lost").await
    })
    .await;
    assert_eq!((&rung["severity"], &rung["unit"]), (&json!("critical"), &json!("shards")), "{rung}");
    assert!(rung["value"].as_f64() > Some(0.0) && rung["do"].as_str().unwrap().contains("blobs"), "{rung}");
    assert_eq!(lines(&server, "an alarm begins", "store_lost"), 1, "{}", server.log());
    // All that readiness says is said of the node, with the number as it is now.
    let told = overview(&server).await;
    let [shortfall] = told["nodes"][0]["shortfalls"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!(shortfall["name"], "store");
    assert!(shortfall["text"].as_str().unwrap().contains("written again from memory"), "{shortfall}");
}

/// What the overview says of this node.
async fn seen_of(server: &Server, node: &str) -> (Value, Value) {
    let told = overview(server).await;
    let seen = told["nodes"].as_array().unwrap().iter().find(|seen| seen["node"] == node);
    (seen.cloned().unwrap_or_default(), told)
}

/// Two nodes of which the second reaches the store by this road, with these settings; and how many shards it has.
async fn two_of_which_one_stops(redis: &RedisServer, road: &SlowRoad, drain_ms: u64) -> ([Server; 2], usize) {
    let node = |url: &str, name: &str| {
        let node = Server::on_url(url).with_lease(20_000).with("service_key", KEY).with("node_id", name);
        let node = node.with("cluster.shards", SHARDS).with("cluster.drain_ms", drain_ms);
        node.with("redis.response_timeout_ms", 5_000).start()
    };
    let here = node(&redis.tcp_url(), "here");
    let there = node(&format!("redis://{}", road.address()), "there");
    let nodes = [here, there];
    let shards = until("each has its part", async || {
        let served = [served_by(&nodes[0]).await.len(), served_by(&nodes[1]).await.len()];
        (served.iter().sum::<usize>() == usize::from(SHARDS) && !served.contains(&0)).then_some(served[1])
    })
    .await;
    until("it is known to be up", async || {
        let (seen, _) = seen_of(&nodes[0], "there").await;
        (seen["state"] == "up" && seen["shards"] == shards && seen.get("shards_left").is_none()).then_some(())
    })
    .await;
    (nodes, shards)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_is_said_to_with_the_shards_that_it_holds_still() {
    let redis = RedisServer::builder().on_tcp().start();
    let road = SlowRoad::to(redis.address()).await;
    let ([here, mut there], shards) = two_of_which_one_stops(&redis, &road, 10_000).await;
    // What it gives back takes its time.
    road.takes(Duration::from_secs(2));
    there.ask_to_stop();
    let told = until("it to be said", async || {
        let (seen, told) = seen_of(&here, "there").await;
        (seen["state"] == "stopping").then_some((seen, told))
    })
    .await;
    let (seen, told) = told;
    assert_eq!((&seen["shards_left"], &told["unknown_nodes"]), (&json!(shards), &json!([])), "{told}");
    assert!(seen["version"].is_string(), "it answers: {seen}");
    let (seen, told) = until("all of it to be here", async || {
        let (seen, told) = seen_of(&here, "there").await;
        let serving = told["shards"].as_array().unwrap().iter().find(|of| of["node"] == "here").unwrap();
        let has_all = serving["serving"].as_array().unwrap().len() == usize::from(SHARDS);
        has_all.then_some((seen, told))
    })
    .await;
    // It waits a moment for those who ask, and for goodbyes; then it is gone.
    assert!(seen.is_null() || (seen["state"] == "stopping" && seen["shards_left"] == 0), "{told}");
    assert_eq!(told["unknown_nodes"], json!([]), "{told}");
    assert!(there.wait_for_end().success());
    until("it to be gone", async || seen_of(&here, "there").await.0.is_null().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_and_answers_no_more_is_said_to_until_its_last_shard_has_moved() {
    let redis = RedisServer::builder().on_tcp().start();
    let road = SlowRoad::to(redis.address()).await;
    // It hands nothing over, and gives its leases back as the last thing that it does.
    let ([here, mut there], shards) = two_of_which_one_stops(&redis, &road, 0).await;
    road.takes(Duration::from_secs(3));
    there.ask_to_stop();
    let (seen, told) = until("it to answer no more", async || {
        let (seen, told) = seen_of(&here, "there").await;
        let is_up = seen["state"] == "up" || seen["version"].is_string();
        (!is_up).then_some((seen, told))
    })
    .await;
    assert_eq!(seen, json!({"node": "there", "state": "stopping", "shards_left": shards}), "{told}");
    assert_eq!(told["unknown_nodes"], json!(["there"]), "what it holds is not counted: {told}");
    let left = told["shards"].as_array().unwrap().iter().find(|of| of["node"] == "there").unwrap();
    assert_eq!(
        (&left["serving"], left["changing"].as_array().unwrap().len()),
        (&json!([]), shards),
        "{left}"
    );
    assert_eq!(
        (&left["changing"][0]["state"], &left["changing"][0]["to"]),
        (&json!("handing_over"), &json!("here"))
    );
    assert!(there.wait_for_end().success());
    until("all of it to be here", async || {
        let (seen, told) = seen_of(&here, "there").await;
        let serving = told["shards"].as_array().unwrap().iter().find(|of| of["node"] == "here").unwrap();
        let has_all = serving["serving"].as_array().unwrap().len() == usize::from(SHARDS);
        (has_all && seen.is_null()).then_some(())
    })
    .await;
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
