//! What is promised of what nodes keep near of players at home elsewhere: it says how old it is, a change at home ends it at
//! once, and nothing is kept of a home that cannot be heard.

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::nodes::{KEY, nodes, players_of};
use crate::harness::patience::until;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::harness::service::Service;

/// The metric of looks into what is kept near, and that of looks into the store.
const NEAR: &str = "hearth_near_reads_total";
const COLD: &str = "hearth_cold_reads_total";
/// So long that nothing but a change ends what is kept.
const LONG_MS: u64 = 600_000;

async fn query(node: &Server, player: &str, max_age_ms: u64) -> Value {
    let asked = json!({"players": [player], "max_age_ms": max_age_ms});
    let (status, told) = Service::of(node, KEY).post("/v1/presence/query", asked).await;
    assert_eq!(status, 200, "{told}");
    told
}

async fn near(node: &Server, outcome: &str) -> u64 {
    node.metric(NEAR, &format!("outcome=\"{outcome}\"")).await
}

/// Waits until a node is told of a player by her home, and keeps it.
async fn is_kept(node: &Server, player: &str, status: &str) -> Value {
    until("it is told by her home", async || {
        let told = query(node, player, LONG_MS).await;
        (told["presences"][0]["status"] == status).then_some(told)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_near_says_how_old_it_is_and_ends_with_a_change_at_home() {
    let redis = RedisServer::start();
    let [one, two, home] = nodes(&redis, |node| node.with("near.views_ttl_ms", LONG_MS)).await;
    let mut theirs = players_of(&home).await;
    let (ann, never) = (theirs.next().unwrap(), theirs.next().unwrap());
    let mut ann_there = home.login(&ann).await;
    is_kept(&one, &ann, "online").await;
    let kept_at = Instant::now();
    is_kept(&two, &ann, "online").await;
    assert_eq!(is_kept(&one, &never, "offline").await["presences"][0]["ver"], json!([0, 0]));

    let (fresh, loaded) = (near(&one, "fresh").await, near(&one, "loaded").await);
    let waited_ms = u64::try_from(kept_at.elapsed().as_millis()).unwrap();
    let again = query(&one, &ann, LONG_MS).await;
    assert_eq!((near(&one, "fresh").await, near(&one, "loaded").await), (fresh + 1, loaded));
    let (item, as_of) = (&again["presences"][0], again["as_of"].as_u64().unwrap());
    // A millisecond for each clock that is read in whole ones.
    assert!(item["age_ms"].as_u64().unwrap() + 2 >= waited_ms, "read {waited_ms} ms ago: {again}");
    let from_home = query(&one, &ann, 0).await;
    assert_eq!(from_home["presences"][0]["age_ms"], Value::Null, "{from_home}");
    assert!(from_home["as_of"].as_u64().unwrap() >= as_of);

    for status in ["playing", "busy", "away"] {
        ann_there.does("presence.set", json!({"status": status})).await;
        // Nothing else ends what is kept: the home has told.
        is_kept(&one, &ann, status).await;
        is_kept(&two, &ann, status).await;
    }
    let _never = home.login(&never).await;
    is_kept(&one, &never, "online").await;
    home.until_metric("hearth_near_invalidations_total", "why=\"again\"", 7).await;
    assert!(near(&one, "fresh").await > fresh);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stale_is_served_with_its_age_while_one_call_brings_it_anew() {
    let redis = RedisServer::start();
    let [one, home] = nodes(&redis, |node| {
        node.with("near.views_ttl_ms", 300)
            .with("near.views_stale_ms", LONG_MS)
            .with("near.jitter_percent", 10)
    })
    .await;
    let ann = players_of(&home).await.next().unwrap();
    let _ann = home.login(&ann).await;
    is_kept(&one, &ann, "online").await;
    let stale = until("it is stale", async || {
        let told = query(&one, &ann, LONG_MS).await;
        (near(&one, "stale").await > 0).then_some(told)
    })
    .await;
    assert!(stale["presences"][0]["age_ms"].as_u64().unwrap() >= 270, "{stale}");
    // The one that found it stale had it loaded anew.
    until("it is newer", async || {
        let told = query(&one, &ann, LONG_MS).await;
        (told["as_of"].as_u64() > stale["as_of"].as_u64()).then_some(())
    })
    .await;
    // Who takes nothing that old waits for the home.
    let told = query(&one, &ann, 1).await;
    assert!(told["presences"][0]["age_ms"].as_u64().unwrap_or(0) <= 1_000, "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_home_that_cannot_be_heard_nothing_is_kept() {
    let redis = RedisServer::start();
    let [one, mut home] = nodes(&redis, |node| node.with("near.views_ttl_ms", LONG_MS)).await;
    let ann = players_of(&home).await.next().unwrap();
    let ann_there = home.login(&ann).await;
    is_kept(&one, &ann, "online").await;
    drop(ann_there);
    home.kill9();
    until("nobody is guessed", async || {
        let told = query(&one, &ann, LONG_MS).await;
        (told["unknown"] == json!([ann])).then_some(())
    })
    .await;
    // Her home is this node, once the dead one's lease is over: what it says is its own.
    until("she is at home here", async || {
        let told = query(&one, &ann, LONG_MS).await;
        (told["unknown"] == json!([]) && told["presences"][0]["age_ms"].is_null()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_ask_at_once_for_one_cold_player_cause_one_read_of_the_store() {
    let redis = RedisServer::start();
    let [one, home] = nodes(&redis, |node| {
        node.with("limits.service_requests_per_s", 100_000).with("limits.service_requests_burst", 100_000)
    })
    .await;
    let mut theirs = players_of(&home).await;
    for (asked, max_age_ms) in [(&home, 0), (&one, LONG_MS), (&one, 0)] {
        let ann = theirs.next().unwrap();
        home.login(&ann).await.does("logout", json!({})).await;
        let stored = home.metric(COLD, "outcome=\"stored\"").await;
        let answers = join_all((0..200).map(|_| query(asked, &ann, max_age_ms))).await;
        for told in answers {
            // On a busy machine not all of them get a turn in time; nobody guesses.
            let is_unknown = told["unknown"] == json!([ann]);
            assert!(is_unknown || told["presences"][0]["last_seen"].is_u64(), "{told}");
        }
        until("she is told of", async || {
            query(asked, &ann, max_age_ms).await["presences"][0]["last_seen"].as_u64()
        })
        .await;
        assert_eq!(home.metric(COLD, "outcome=\"stored\"").await, stored + 1);
    }
}
