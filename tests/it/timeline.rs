//! What is promised to whoever asks why a player was disconnected: one call tells her latest comings and goings, from
//! memory and from the store, on any node, and no longer than she is known.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::nodes::{KEY as OPERATOR, nodes, players_of};
use crate::harness::patience::until;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::stages::{Stage, on_every_stage};

const KEY: &str = "s3cret-of-the-stories";

async fn told(shop: &Service, player: &str) -> Value {
    let (status, told) = shop.get(&format!("/v1/players/{player}/timeline")).await;
    assert_eq!((status, &told["player"]), (200, &json!(player)), "{told}");
    told
}

fn kinds(told: &Value) -> Vec<&str> {
    told["entries"].as_array().unwrap().iter().map(|entry| entry["kind"].as_str().unwrap()).collect()
}

/// Waits until the timeline's last entry is of this kind.
async fn until_last(shop: &Service, player: &str, kind: &str) -> Value {
    let what = format!("{kind} of {player}");
    until(&what, async || {
        let told = told(shop, player).await;
        (kinds(&told).last() == Some(&kind)).then_some(told)
    })
    .await
}

on_every_stage! {
    async fn why_a_player_was_disconnected_is_told_in_one_call(stage) {
        let mut server = Server::on(stage).with("service_key", KEY).with_lease(2_000).start();
        let shop = Service::of(&server, KEY);
        let mut ann = server.connect_for("ann").await;
        ann.login_with(json!({"token": "dev:ann", "device": "console"})).await;
        let session = ann.ready["session"].clone();
        let away = ann.closes(1001).await;
        let lost = until_last(&shop, "ann", "link_lost").await;
        assert_eq!(lost["entries"][1]["code"], 1001, "{lost}");
        let mut ann = server.resume(&away).await;
        let kick = json!({"reason": "lobby closed", "code": 4800});
        assert_eq!(shop.post("/v1/players/ann/kick", kick).await.0, 200);
        let kicked = told(&shop, "ann").await;
        ann.expect_close(4800).await;
        let seen: Vec<_> = kinds(&kicked);
        assert_eq!(seen, ["opened", "link_lost", "resumed", "ended"], "{kicked}");
        let entries = kicked["entries"].as_array().unwrap();
        for entry in entries {
            assert_eq!(entry["session"], session, "{entry}");
            assert!(entry["epoch"].as_u64() > Some(0) && entry["at"].as_u64() > Some(1_700_000_000_000), "{entry}");
            assert!(!entry["node"].as_str().unwrap().is_empty(), "{entry}");
        }
        let versions: Vec<_> = entries.iter().map(|entry| entry["version"].as_u64().unwrap()).collect();
        assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
        assert_eq!(entries[0]["device"], "console", "{kicked}");
        let end = &entries[3];
        assert_eq!((&end["why"], &end["code"]), (&json!("kicked"), &json!(4800)), "{end}");
        assert_eq!(end["reason"], "lobby closed", "{end}");
        // She is not here any more, and nobody who was: the store tells the same.
        server.kill9();
        server.restart();
        let shop = Service::of(&server, KEY);
        assert_eq!(told(&shop, "ann").await["entries"], kicked["entries"]);
        assert_eq!(shop.get("/v1/players/nobody/timeline").await.0, 404);
        assert_eq!(shop.call(Method::POST, "/v1/players/ann/timeline", None).await.0, 405);
        assert_eq!(Service::of(&server, "wrong").get("/v1/players/ann/timeline").await.0, 401);
    }

    async fn every_end_of_a_session_says_why(stage) {
        let server = Server::on(stage).with("service_key", KEY).with_lease(2_000).start();
        let shop = Service::of(&server, KEY);
        let mut first = server.login("ann").await;
        let mut second = server.login("ann").await;
        first.expect_close(4504).await;
        second.does("logout", json!({})).await;
        let mut third = server.login("ann").await;
        assert_eq!(shop.put("/v1/players/ann/ban", json!({"reason": "cheating"})).await.0, 200);
        third.expect_close(4503).await;
        let told = told(&shop, "ann").await;
        let ended = told["entries"].as_array().unwrap().iter().filter(|entry| entry["kind"] == "ended");
        let whys: Vec<_> = ended.map(|entry| (entry["why"].as_str().unwrap(), entry["code"].as_u64())).collect();
        assert_eq!(whys, [("replaced", Some(4504)), ("logout", Some(1000)), ("banned", Some(4503))], "{told}");
    }

    async fn an_erased_players_timeline_is_forgotten(stage) {
        let server = Server::on(stage).with("service_key", KEY).with_lease(2_000).start();
        let shop = Service::of(&server, KEY);
        let path = "/v1/players/ann/timeline";
        let mut ann = server.login("ann").await;
        assert_eq!(kinds(&told(&shop, "ann").await), ["opened"]);
        assert_eq!(shop.delete("/v1/players/ann").await.0, 204);
        ann.expect_close(4502).await;
        assert_eq!(shop.get(path).await.0, 404);
        let _again = server.login("ann").await;
        assert_eq!(kinds(&told(&shop, "ann").await), ["opened"]);
        // A ban that stays with the player keeps nothing else of her.
        assert_eq!(shop.put("/v1/players/ann/ban", json!({"reason": "cheating"})).await.0, 200);
        assert_eq!(kinds(&told(&shop, "ann").await), ["opened", "ended"]);
        assert_eq!(shop.delete("/v1/players/ann?ban=keep").await.0, 204);
        assert_eq!(told(&shop, "ann").await["entries"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_does_not_have_is_told_while_it_is_away() {
    let mut server = Server::on(Stage::Redis).with("service_key", KEY).start();
    let shop = Service::of(&server, KEY);
    let ann = server.login("ann").await;
    assert_eq!(told(&shop, "ann").await["partial"], Value::Null);
    server.redis().pause();
    let _away = ann.closes(4901).await;
    let lost = until_last(&shop, "ann", "link_lost").await;
    assert_eq!((&lost["partial"], lost["entries"].as_array().unwrap().len()), (&json!(true), 1), "{lost}");
    assert_eq!(lost["entries"][0]["code"], 4901, "{lost}");
    server.redis().go_on();
    let whole = until("the store is back", async || {
        let told = told(&shop, "ann").await;
        told["partial"].is_null().then_some(told)
    })
    .await;
    assert_eq!(kinds(&whole), ["opened", "link_lost"], "{whole}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_moved_by_a_crash_is_told_from_which_node() {
    let redis = RedisServer::start();
    let [here, mut there] = nodes(&redis, |node| node).await;
    let name = players_of(&there).await.next().unwrap();
    let bob = there.login(&name).await;
    let dead = told(&Service::of(&here, OPERATOR), &name).await["entries"][0]["node"].clone();
    there.kill9();
    let shop = Service::of(&here, OPERATOR);
    let _bob = until("his home is here", async || {
        let mut again = here.connect().await;
        again.try_resume(&bob.credentials()).await.ok().map(|()| again)
    })
    .await;
    let told = told(&shop, &name).await;
    assert_eq!(kinds(&told), ["opened", "moved", "resumed"], "{told}");
    let [moved, resumed] = [&told["entries"][1], &told["entries"][2]];
    assert_eq!(moved["from"], dead, "{told}");
    assert!(moved["node"] != dead && resumed["node"] == moved["node"], "{told}");
    assert!(moved["epoch"].as_u64() > told["entries"][0]["epoch"].as_u64(), "{told}");
}

async fn name_of(node: &Server) -> Value {
    let (_, told) = Service::of(node, OPERATOR).get("/v1/cluster").await;
    told["node"].clone()
}

/// The timeline once it says this, as a node tells it that is asked while homes move.
async fn until_kinds(node: &Server, player: &str, expected: &[&str]) -> Value {
    let shop = Service::of(node, OPERATOR);
    until(&format!("{expected:?} of {player}"), async || {
        let (status, told) = shop.get(&format!("/v1/players/{player}/timeline")).await;
        (status == 200 && kinds(&told) == expected).then_some(told)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_planned_move_of_a_player_who_does_nothing_is_told() {
    let redis = RedisServer::start();
    let mut nodes: Vec<_> = nodes::<3>(&redis, |node| node).await.into();
    let mut home = nodes.remove(2);
    let name = players_of(&home).await.next().unwrap();
    home.login(&name).await.closes(1001).await;
    let mut expected = vec!["opened", "link_lost"];
    until_kinds(&nodes[0], &name, &expected).await;
    while !nodes.is_empty() {
        let from = name_of(&home).await;
        assert!(home.stop_gracefully().success());
        expected.push("moved");
        let told = until_kinds(&nodes[0], &name, &expected).await;
        let last = told["entries"].as_array().unwrap().last().unwrap();
        assert_eq!(last["from"], from, "{told}");
        let mut at = 0;
        while name_of(&nodes[at]).await != last["node"] {
            at += 1;
        }
        home = nodes.remove(at);
    }
    // The last one goes by itself, and whoever comes next reads what it had noted.
    home.stop_gracefully();
    home.restart();
    let told = until("she is told of", async || {
        let (status, told) = Service::of(&home, OPERATOR).get(&format!("/v1/players/{name}/timeline")).await;
        (status == 200).then_some(told)
    })
    .await;
    assert_eq!(kinds(&told)[..4], ["opened", "link_lost", "moved", "moved"], "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_over_a_link_that_was_still_up_is_told_by_the_next_home() {
    let redis = RedisServer::start();
    let [here, mut there] = nodes(&redis, |node| node).await;
    let name = players_of(&there).await.next().unwrap();
    let first = there.login(&name).await;
    let second = there.resume(&first.credentials()).await;
    until_kinds(&there, &name, &["opened", "resumed"]).await;
    assert!(there.stop_gracefully().success());
    let told = until("her home is here", async || {
        let (status, told) = Service::of(&here, OPERATOR).get(&format!("/v1/players/{name}/timeline")).await;
        (status == 200 && kinds(&told).contains(&"moved")).then_some(told)
    })
    .await;
    assert_eq!(kinds(&told), ["opened", "resumed", "moved"], "{told}");
    drop((first, second));
}
