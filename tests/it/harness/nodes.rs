//! Several servers on one Redis, and which player is at home at which of them.

use super::patience::until;
use super::redis_server::RedisServer;
use super::server::{Server, Starting};
use super::service::Service;

/// The key of their services.
pub(crate) const KEY: &str = "the key of an operator";

/// So many that of three nodes each has some, whatever they are called.
pub(crate) const SHARDS: u16 = 32;

/// A node on this Redis, about to start.
pub(crate) fn node_on(redis: &RedisServer) -> Starting {
    Server::on_url(&redis.url()).with_lease(1_200).with("service_key", KEY).with("cluster.shards", SHARDS)
}

/// Two nodes that have shared the shards between them.
pub(crate) async fn two_nodes(redis: &RedisServer) -> [Server; 2] {
    nodes(redis, |node| node).await
}

/// Nodes of these settings that have shared the shards between them.
pub(crate) async fn nodes<const N: usize>(
    redis: &RedisServer,
    settings: impl Fn(Starting) -> Starting,
) -> [Server; N] {
    let nodes = [(); N].map(|()| settings(node_on(redis)).start());
    until("all serve", async || {
        let mut served = Vec::new();
        for node in &nodes {
            served.push(served_by(node).await.len());
        }
        (served.iter().sum::<usize>() == usize::from(SHARDS) && !served.contains(&0)).then_some(())
    })
    .await;
    nodes
}

/// The shards that it serves.
pub(crate) async fn served_by(node: &Server) -> Vec<u64> {
    let (_, told) = Service::of(node, KEY).get("/v1/cluster").await;
    let shards = told["shards"].as_array().unwrap().clone();
    shards
        .iter()
        .filter(|shard| shard["serving"] == true)
        .map(|shard| shard["shard"].as_u64().unwrap())
        .collect()
}

/// Players whose home is this node.
pub(crate) async fn players_of(node: &Server) -> impl Iterator<Item = String> + use<> {
    let served = served_by(node).await;
    let placement = hearth::home::placement::Placement::of(SHARDS).unwrap();
    (0..).map(|number| format!("player-{number}")).filter(move |name| {
        let player = hearth::ids::PlayerId::parse(name).unwrap();
        served.contains(&u64::from(placement.shard_of(&player).number()))
    })
}
