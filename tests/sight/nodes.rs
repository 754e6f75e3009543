//! Faults of nodes among each other: one that is killed, one that loses its leases, and letters that do not come.

use crate::harness::nodes::nodes;
use crate::harness::redis_server::RedisServer;
use crate::harness::strait::Strait;
use crate::stage::{ends, is_calm, rings, watched};

#[tokio::test]
async fn a_node_that_is_killed() {
    let redis = RedisServer::start();
    let [here, mut there, third] = nodes(&redis, watched).await;
    is_calm(&here, "node_lost").await;
    there.kill9();
    let alarm = rings(&third, "node_lost", async || {}).await;
    assert_eq!(alarm["severity"], "critical");
}

#[tokio::test]
async fn a_lease_that_is_lost() {
    let redis = RedisServer::start();
    let [here, there] = nodes(&redis, watched).await;
    is_calm(&here, "lease_lost").await;
    // It stands still while the other one takes what was its own.
    there.pause();
    rings(&here, "node_lost", async || {}).await;
    there.go_on();
    let alarm = rings(&there, "lease_lost", async || {}).await;
    assert!(alarm["value"].as_f64().unwrap() >= 1.0, "{alarm}");
}

#[tokio::test]
async fn letters_that_do_not_come() {
    let redis = RedisServer::start();
    let ports = hearth::rig::free_ports(2).unwrap();
    let straits = [Strait::to(ports[0]).await, Strait::to(ports[1]).await];
    let number = std::cell::Cell::new(0);
    let [here, _there] = nodes(&redis, |node| {
        let at = number.replace(number.get() + 1);
        let told = straits[at].url().replace("redis://", "");
        watched(node).with("peer_addr", format!("127.0.0.1:{}", ports[at])).with("peer_public_addr", told)
    })
    .await;
    here.until_metric("hearth_peer_links", "", 1).await;
    is_calm(&here, "mail_lag").await;
    straits.iter().for_each(Strait::close);
    rings(&here, "mail_lag", async || {}).await;
    straits.iter().for_each(Strait::open);
    ends(&here, "mail_lag").await;
}
