//! Faults of the store: slow, dead, and back without its data.

use std::time::Duration;

use serde_json::json;

use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::harness::slow_road::SlowRoad;
use crate::harness::stages::Stage;
use crate::stage::{ends, is_calm, rings, watched};

// The road goes on while the server starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_slow() {
    let redis = RedisServer::builder().on_tcp().start();
    let road = SlowRoad::to(redis.address()).await;
    let starting = Server::on_url(&format!("redis://{}", road.address()));
    let server = watched(starting).with("alarm.commit_ms", 150).start();
    let mut ann = server.login("ann").await;
    is_calm(&server, "store_slow").await;
    // Not so slow that its breaker opens.
    road.takes(Duration::from_millis(300));
    let alarm = rings(&server, "store_slow", async || {
        ann.patch(json!({"incr": {"steps": 1}})).await;
    })
    .await;
    assert_eq!(alarm["severity"], "warning");
    road.takes(Duration::ZERO);
    ends(&server, "store_slow").await;
}

#[tokio::test]
async fn a_store_that_is_dead() {
    let mut server = watched(Server::on_durable_redis(Stage::Redis)).with_lease(3_000).start();
    let mut ann = server.login("ann").await;
    is_calm(&server, "store_down").await;
    server.redis().kill();
    let alarm = rings(&server, "store_down", async || {
        let _ = ann.ask("state.patch", json!({"incr": {"steps": 1}})).await;
    })
    .await;
    assert_eq!(alarm["severity"], "critical");
    server.redis().start_again();
    ends(&server, "store_down").await;
}

#[tokio::test]
async fn a_store_that_loses_its_data() {
    let mut server = watched(Server::on(Stage::Redis)).start();
    let mut ann = server.login("ann").await;
    ann.patch_durably(json!({"incr": {"steps": 1}})).await;
    is_calm(&server, "store_lost").await;
    server.redis().query::<()>(&["FLUSHALL"]);
    let alarm = rings(&server, "store_lost", async || {
        ann.patch(json!({"incr": {"steps": 1}})).await;
    })
    .await;
    assert_eq!((&alarm["severity"], &alarm["unit"]), (&json!("critical"), &json!("shards")));
}
