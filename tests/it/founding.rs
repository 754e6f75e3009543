//! What is promised when a store has lost everything and a node starts on it beside others that live: those know better.

use serde_json::json;

use crate::harness::nodes::{SHARDS, node_on, nodes, players_of, served_by};
use crate::harness::patience::until;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_on_an_emptied_store_takes_nothing_from_living_homes() {
    let redis = RedisServer::start();
    let two: [Server; 2] = nodes(&redis, |node| node.with_lease(2_000)).await;
    let (mut old, mut players) = (Vec::new(), Vec::new());
    for home in &two {
        let names: Vec<_> = players_of(home).await.take(12).collect();
        for name in names {
            let mut player = home.login(&name).await;
            player.patch_durably(json!({"set": {"gold": 7}})).await;
            if players.len() > old.len() { old.push(player.drops()) } else { players.push(player) }
        }
    }
    redis.query::<()>(&["FLUSHALL"]);
    let third = tokio::task::spawn_blocking({
        let starting = node_on(&redis).with_lease(2_000);
        move || starting.start()
    });
    let third = third.await.unwrap();
    until("all three serve", async || {
        let mut served = Vec::new();
        for node in two.iter().chain([&third]) {
            served.push(served_by(node).await.len());
        }
        (served.iter().sum::<usize>() == usize::from(SHARDS) && !served.contains(&0)).then_some(())
    })
    .await;
    // Wherever their home is now: each ticket is good at the newcomer, too, and nothing was lost.
    old.extend(players.into_iter().map(|player| player.credentials()));
    for credentials in old {
        let mut player = third.connect().await;
        player.try_resume_carried(&credentials).await.unwrap();
        assert_eq!(player.ready["resumed"], true, "{}", player.ready);
        assert_eq!(player.ready["rolled_back"], json!(null));
        assert_eq!(player.state().await, json!({"gold": 7}));
    }
}
