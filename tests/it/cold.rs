//! What is promised about players who are not here: nobody can hurt the store by asking for them.

use serde_json::{Value, json};

use crate::harness::nodes::KEY;
use crate::harness::patience::until;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::stages::{Stage, on_both_stores, on_every_stage};

/// The metric of looks at players who are not in memory.
const READS: &str = "hearth_cold_reads_total";

async fn query(server: &Server, players: &[String]) -> Value {
    let asked = json!({"players": players});
    let (status, told) = Service::of(server, KEY).post("/v1/presence/query", asked).await;
    assert_eq!(status, 200, "{told}");
    told
}

async fn reads(server: &Server, outcome: &str) -> u64 {
    server.metric(READS, &format!("outcome=\"{outcome}\"")).await
}

on_every_stage! {
    async fn who_was_never_seen_is_not_looked_for_in_the_store(stage) {
        let server = Server::on(stage).with("service_key", KEY).start();
        let _ann = server.login("ann").await;
        let (stored, filtered) = (reads(&server, "stored").await, reads(&server, "filtered").await);
        let strangers: Vec<_> = (0..1_000).map(|number| format!("stranger-{number}")).collect();
        let told = query(&server, &strangers).await;
        assert_eq!((told["presences"].as_array().unwrap().len(), &told["unknown"]), (1_000, &json!([])));
        assert!(told["presences"].as_array().unwrap().iter().all(|item| item["status"] == "offline"));
        let (status, _) = Service::of(&server, KEY).get("/v1/players/stranger-1").await;
        assert_eq!(status, 404);
        let (stored, filtered) =
            (reads(&server, "stored").await - stored, reads(&server, "filtered").await - filtered);
        assert!(stored <= 20 && stored + filtered == 1_001, "{stored} of the store, {filtered} without");
    }

    async fn who_was_here_once_is_found_after_any_restart(stage) {
        let mut server = Server::on(stage).with("service_key", KEY).start();
        let players: Vec<_> = (0..20).map(|number| format!("player-{number}")).collect();
        for player in &players {
            server.login(player).await.does("logout", json!({})).await;
        }
        for round in 0..2 {
            let told = query(&server, &players).await;
            for item in told["presences"].as_array().unwrap() {
                assert!(item["last_seen"].is_u64(), "round {round}: {item}");
            }
            assert_eq!(told["presences"].as_array().unwrap().len(), players.len());
            server.stop_gracefully();
            server.restart();
        }
    }
}

on_both_stores! {
    async fn a_banned_player_is_found_however_old_the_filter_is(stage) {
        let mut server = Server::on(stage).with("service_key", KEY).start();
        let service = Service::of(&server, KEY);
        let ban = json!({"reason": "cheating"});
        assert_eq!(service.put("/v1/players/mallory/ban", ban).await.0, 200);
        server.login("ann").await.does("logout", json!({})).await;
        let _bea = server.login("bea").await;
        let is_redis = server.store_url().starts_with("redis");
        for _ in 0..2 {
            server.stop_gracefully();
            if is_redis {
                grow_old(&mut server);
            }
            server.restart();
            if is_redis {
                let redis = server.redis();
                until("all shards have begun a new generation", async || all_are_new(redis).then_some(())).await;
            }
            let (status, told) = Service::of(&server, KEY).get("/v1/players/mallory").await;
            assert_eq!((status, &told["ban"]["reason"]), (200, &json!("cheating")));
        }
        let told = query(&server, &["bea".to_owned()]).await;
        assert_eq!(told["presences"][0]["status"], "online", "{told}");
    }
}

/// Makes every filter look as if it had been begun long ago.
fn grow_old(server: &mut Server) {
    let metas: Vec<String> = server.redis().query(&["KEYS", "{test.s*}:m"]);
    for meta in &metas {
        server.redis().query::<()>(&["HSET", meta, "known_at", "1000"]);
    }
}

fn all_are_new(redis: &RedisServer) -> bool {
    let metas: Vec<String> = redis.query(&["KEYS", "{test.s*}:m"]);
    metas.iter().all(|meta| redis.query::<u64>(&["HGET", meta, "known_at"]) > 1_000)
}

fn metas(redis: &RedisServer) -> Vec<String> {
    redis.query(&["KEYS", "{test.s*}:m"])
}

/// A filter's age that is over whatever setting is below it.
const SIXTY_DAYS_MS: u64 = 60 * 24 * 3_600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_remembered_for_long_is_found_after_the_setting_is_lowered() {
    let redis = RedisServer::start();
    let start = |days: u32| {
        Server::on_url(&redis.url()).with("service_key", KEY).with("home.remember_days", days).start()
    };
    let players: Vec<_> = (0..20).map(|number| format!("player-{number}")).collect();
    let mut server = start(3_000);
    for player in &players {
        server.login(player).await.does("logout", json!({})).await;
    }
    server.stop_gracefully();
    // The last shard that is looked at shows that all were: nobody is kept for long there.
    let last = "{test.s15}:m";
    for round in 0..2 {
        let begun = hearth::clock::now().unix_ms - SIXTY_DAYS_MS;
        for meta in metas(&redis) {
            redis.query::<()>(&["HSET", &meta, "known_at", &begun.to_string()]);
        }
        redis.query::<()>(&["HSET", last, "known_ttl_old", "1"]);
        let mut server = start(1);
        until("the filters were looked at", async || {
            (redis.query::<u64>(&["HGET", last, "known_at"]) > begun).then_some(())
        })
        .await;
        let told = query(&server, &players).await;
        for item in told["presences"].as_array().unwrap() {
            let key = format!("{{test.s15}}:p:{}", item["player"].as_str().unwrap());
            let is_last = redis.query::<u64>(&["EXISTS", &key]) == 1;
            assert!(is_last || item["last_seen"].is_u64(), "round {round}: {item}");
        }
        assert_eq!(told["presences"].as_array().unwrap().len(), players.len());
        server.stop_gracefully();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_was_here_is_found_though_redis_has_lost_the_filters() {
    let mut server = Server::on(Stage::Redis).with("service_key", KEY).start();
    let mut players: Vec<_> = (0..20).map(|number| format!("player-{number}")).collect();
    for player in &players {
        server.login(player).await.does("logout", json!({})).await;
    }
    let filters: Vec<String> = server.redis().query(&["KEYS", "{test.s*}:known"]);
    for filter in &filters {
        server.redis().query::<()>(&["DEL", filter]);
    }
    // They grow again, and hold those alone who come from now on.
    for number in 0..20 {
        let player = format!("late-{number}");
        server.login(&player).await.does("logout", json!({})).await;
        players.push(player);
    }
    server.stop_gracefully();
    server.restart();
    let told = query(&server, &players).await;
    assert_eq!(told["presences"].as_array().unwrap().len(), players.len(), "{told}");
    assert!(told["presences"].as_array().unwrap().iter().all(|item| item["last_seen"].is_u64()), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_filters_of_a_store_that_was_emptied_are_put_back_by_their_homes() {
    let mut server = Server::on(Stage::Redis).with("service_key", KEY).start();
    let _ann = server.login("ann").await;
    server.redis().query::<()>(&["FLUSHALL"]);
    let redis = server.redis();
    let mark = hearth::store::layout::KNOWN_MARK_BITS;
    until("each shard has its filter", async || {
        let filters: Vec<String> = redis.query(&["KEYS", "{test.s*}:known"]);
        let is_marked = |filter: &String| redis.query::<u64>(&["BITCOUNT", filter, "0", "7"]) == mark;
        (filters.len() == 16 && filters.iter().all(is_marked)).then_some(())
    })
    .await;
    server.stop_gracefully();
    server.restart();
    let filtered = reads(&server, "filtered").await;
    let strangers: Vec<_> = (0..100).map(|number| format!("stranger-{number}")).collect();
    query(&server, &strangers).await;
    assert!(reads(&server, "filtered").await >= filtered + 90);
}

/// How often Redis was called so since its statistics were reset.
fn calls(redis: &RedisServer, command: &str) -> u64 {
    let told: String = redis.query(&["INFO", "commandstats"]);
    let line = told.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_generation_that_the_store_finds_too_early_is_not_asked_for_again_at_once() {
    let mut server = Server::on(Stage::Redis).with("service_key", KEY).with_lease(1_200).start();
    server.stop_gracefully();
    for meta in metas(server.redis()) {
        // It lasts for ever by the store's reckoning, and this number no node can read.
        let old = ["HSET", &meta, "known_at", "1000", "known_ttl_old", "1e18"];
        server.redis().query::<()>(&old);
    }
    server.redis().query::<()>(&["CONFIG", "RESETSTAT"]);
    server.restart();
    let redis = server.redis();
    // Nothing else reads a part of a string while nobody is here.
    let asked = || calls(redis, "getrange");
    until("each was asked for", async || (asked() >= 16).then_some(())).await;
    until("nobody asks", async || {
        let (before, renewed) = (asked(), calls(redis, "hset"));
        until("a round of renewals", async || (calls(redis, "hset") >= renewed + 32).then_some(())).await;
        (asked() == before).then_some(())
    })
    .await;
}
