//! What is promised while a server of the store is stopped, full or slow: it is left alone but for probes, whoever asks
//! hears at once, and when it is back all that is dirty is stored within seconds.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::patience::{PATIENCE, until};
use crate::harness::player::Player;
use crate::harness::server::Server;
use crate::harness::slow_road::SlowRoad;
use crate::harness::stages::Stage;

const STATE: &str = "hearth_store_breaker_state";
const TURNS: &str = "hearth_store_breaker_turns_total";
const OPENED: &str = "state=\"open\"";
const KEY: &str = "s3cret-of-the-stories";

/// Changes of many players, all of them acked from memory.
async fn change_all(players: &mut [Player], n: u64) {
    for player in &mut *players {
        let answer = player.does("state.patch", json!({"set": {"n": n}})).await;
        assert!(answer["ack"] == "applied", "{answer}");
    }
}

async fn until_all_is_stored(server: &Server) {
    until("nothing to be dirty", async || {
        (server.metric("hearth_records_dirty", "").await == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stops_under_load_is_left_alone_and_all_is_stored_soon_after_it_goes_on() {
    // The leases outlast the stop, so that the players play on, as fast as this test goes.
    let starting = Server::on(Stage::Redis).with_lease(20_000);
    let fast = ["link_frames_per_s", "link_frames_burst", "state_per_s", "state_burst"];
    let starting =
        fast.iter().fold(starting, |starting, limit| starting.with(&format!("limits.{limit}"), 100_000));
    let mut server = starting.start();
    let mut players = Vec::new();
    for number in 0..24 {
        players.push(server.login(&format!("p{number}")).await);
    }
    change_all(&mut players, 1).await;
    server.redis().pause();
    let stopped = Instant::now();
    let mut n = 1;
    while server.metric(TURNS, OPENED).await == 0 {
        n += 1;
        change_all(&mut players, n).await;
    }
    // How soon is for F7 to hold, which has the machine for itself: here hundreds of others are at work.
    println!("opened after {:?}", stopped.elapsed());
    assert!(stopped.elapsed() < PATIENCE, "the players' own waits are over");
    // Nobody waits for the deadline of a call that is not sent: all go at once.
    let held_back = server.metric("hearth_store_calls_held_back_total", "").await;
    change_all(&mut players, n + 1).await;
    server.until_metric("hearth_store_calls_held_back_total", "", held_back + 3).await;
    server.redis().go_on();
    let went_on = Instant::now();
    until_all_is_stored(&server).await;
    println!("drained after {:?}", went_on.elapsed());
    players[0].patch_durably(json!({"set": {"after": true}})).await;
    server.until_metric(TURNS, "state=\"closed\"", 1).await;
    assert_eq!(server.metric(STATE, "").await, 0);
    // The second copy is gone: Redis alone must know all.
    server.kill9();
    server.restart();
    for player in players {
        let mut player = server.resume(&player.drops()).await;
        assert_eq!(player.ready["rolled_back"], json!(null));
        assert_eq!(player.state().await["n"], json!(n + 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_keeps_its_leases_and_takes_what_waited_when_it_has_room() {
    let mut server = Server::on(Stage::Redis).with("service_key", KEY).with_lease(1_500).start();
    let mut players = Vec::new();
    for number in 0..8 {
        players.push(server.login(&format!("p{number}")).await);
    }
    let (url, client) = (server.service_urls().remove(0).to_owned(), reqwest::Client::new());
    let call = |method: Method, path: &str| client.request(method, format!("{url}{path}")).bearer_auth(KEY);
    let (lock, blob) = ("/v1/locks/shop", "/v1/players/p0/blobs/save");
    let taken = call(Method::POST, lock).json(&json!({"ttl_ms": 600_000})).send().await.unwrap();
    let taken: Value = serde_json::from_str(&taken.text().await.unwrap()).unwrap();
    assert_eq!(call(Method::PUT, blob).body("x").send().await.unwrap().status(), 201);
    let _: String = server.redis().query(&["CONFIG", "SET", "maxmemory", "1"]);
    change_all(&mut players, 2).await;
    server.until_metric(TURNS, OPENED, 1).await;
    // Three leases' time: they are renewed, and the players play on.
    let full = Instant::now();
    while full.elapsed() < Duration::from_millis(4_500) {
        change_all(&mut players, 3).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.metric("hearth_leases_run_out_total", "").await, 0);
    assert!(server.metric(STATE, "").await > 0);
    let refused =
        server.connect().await.is_refused("login", json!({"token": "dev:late"}), "store_unavailable").await;
    assert_eq!(refused["temporary"], true);
    // Who holds a lock keeps it and may give it back, and what takes room may go.
    let held = |method| call(method, lock).header("lock-secret", taken["secret"].as_str().unwrap());
    let renewed = held(Method::PUT).json(&json!({"ttl_ms": 600_000})).send().await.unwrap();
    assert_eq!(renewed.status(), 200);
    assert_eq!(call(Method::DELETE, blob).send().await.unwrap().status(), 204);
    assert_eq!(held(Method::DELETE).send().await.unwrap().status(), 204);
    let _: String = server.redis().query(&["CONFIG", "SET", "maxmemory", "0"]);
    until_all_is_stored(&server).await;
    players[0].patch_durably(json!({"set": {"after": true}})).await;
    server.login("late").await;
    server.until_metric(TURNS, "state=\"closed\"", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_road_is_gone_on_and_one_that_is_too_slow_is_closed_until_it_is_quicker() {
    let redis = crate::harness::redis_server::RedisServer::builder().on_tcp().start();
    let road = SlowRoad::to(redis.address()).await;
    let server = Server::on_url(&format!("redis://{}", road.address())).start();
    let mut players = Vec::new();
    for number in 0..8 {
        players.push(server.login(&format!("p{number}")).await);
    }
    road.takes(Duration::from_millis(400));
    for n in 0..120 {
        change_all(&mut players, n).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(server.metric(TURNS, "").await, 0);
    road.takes(Duration::from_millis(650));
    let slow = Instant::now();
    let mut n = 200;
    while server.metric(TURNS, OPENED).await == 0 {
        n += 1;
        assert!(slow.elapsed() < Duration::from_secs(20), "it is not opened");
        for player in &mut players {
            // Where nothing may be answered for the moment, that is what is heard.
            let _ = player.ask("state.patch", json!({"set": {"n": n}})).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // It is not closed while it is as slow.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(server.metric(TURNS, "state=\"closed\"").await, 0);
    road.takes(Duration::ZERO);
    server.until_metric(TURNS, "state=\"closed\"", 1).await;
    until_all_is_stored(&server).await;
    players[0].patch_durably(json!({"set": {"after": true}})).await;
}
