//! What is promised of a service key at several nodes: one rate for all of them, also when the store does not answer.

use std::time::Instant;

use tokio::task::JoinSet;

use crate::harness::nodes::{KEY, SHARDS, node_on};
use crate::harness::patience::until;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::harness::service::Service;

const PER_S: usize = 10;
const BURST: usize = 40;

/// So many calls at each node, four at a time; how many were answered.
async fn calls(nodes: &[&Server], each: usize) -> usize {
    let mut callers = JoinSet::new();
    for service in nodes.iter().flat_map(|node| std::iter::repeat_n(Service::of(node, KEY), 4)) {
        callers.spawn(async move {
            let mut answered = 0;
            for _ in 0..each / 4 {
                match service.get("/v1/players/nobody").await {
                    (429, problem) => assert!(problem["retry_after_ms"].as_u64().unwrap() > 0),
                    // What has passed and cannot be carried out has been counted, too.
                    _ => answered += 1,
                }
            }
            answered
        });
    }
    callers.join_all().await.into_iter().sum()
}

async fn serving(node: &Server) -> u64 {
    node.metric("hearth_shards_serving", "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_has_one_rate_at_all_nodes_together_and_shares_of_it_while_the_store_is_silent() {
    let redis = RedisServer::start();
    let nodes = [(); 2].map(|()| {
        let node = node_on(&redis).with("home.hold_ms", 50).with("limits.service_requests_per_s", PER_S);
        node.with("limits.service_requests_burst", BURST).start()
    });
    let both: Vec<&Server> = nodes.iter().collect();
    // By what asks for no key.
    until("each has its part", async || {
        let served = [serving(both[0]).await, serving(both[1]).await];
        (served.iter().sum::<u64>() == u64::from(SHARDS) && !served.contains(&0)).then_some(())
    })
    .await;
    let began = Instant::now();
    let answered = calls(&both, 60).await;
    let allowed = BURST as f64 + began.elapsed().as_secs_f64() * PER_S as f64;
    // What was taken ahead and lies at a node is lost to both.
    let ahead = 2 * (BURST / 8);
    assert!(answered as f64 <= allowed + 1.0 && answered >= BURST - ahead, "{answered} of {allowed}");

    redis.pause();
    let began = Instant::now();
    // What the store has said last holds for a moment; then each looks at what it counts itself.
    let mut answered = 0;
    for node in &both {
        answered +=
            until("it counts by itself", async || Some(calls(&[node], 4).await).filter(|some| *some > 0))
                .await;
    }
    answered += calls(&both, 60).await;
    redis.go_on();
    let allowed = BURST as f64 + began.elapsed().as_secs_f64() * PER_S as f64;
    assert!(answered as f64 <= allowed + 1.0 && answered >= BURST - 2, "{answered} of {allowed}");
}
