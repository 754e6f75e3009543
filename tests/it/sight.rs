//! What is told to whoever operates the nodes: a few true lines when something changes, numbers, and what to do.

use serde_json::{Value, json};

use crate::harness::nodes::{KEY, SHARDS, node_on, nodes, players_of, two_nodes};
use crate::harness::patience::until;
use crate::harness::player::Player;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::socket::{Encoding, Socket};
use crate::harness::stages::Stage;

/// The lines of its log with these words.
fn lines_with(server: &Server, words: &str) -> Vec<String> {
    server.log().lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
}

/// Waits until such a line is there, and gives the first.
async fn line_with(server: &Server, words: &str) -> String {
    until(&format!("a line with {words:?}"), async || lines_with(server, words).into_iter().next()).await
}

#[tokio::test]
async fn a_redis_that_goes_away_is_told_in_a_few_lines_that_say_what_it_means() {
    let mut server = Server::on(Stage::Redis).with_lease(1_000).with("home.hold_ms", 300).start();
    let (mut ann, _bea) = (server.login("ann").await, server.login("bea").await);
    server.loses_majority().await;
    server.redis().pause();
    ann.until_mode("paused").await;
    let failing = line_with(&server, "lease calls fail").await;
    assert!(
        failing.contains("WARN") && failing.contains("status=\"the store did not answer in time\""),
        "{failing}"
    );
    let paused = line_with(&server, "leases have run out").await;
    assert!(paused.contains("WARN") && paused.contains("players="), "{paused}");
    server.until_metric("hearth_leases_run_out_total", "", 2).await;
    // Each is held for a while: long enough for a line of each shard and try to show.
    for _ in 0..4 {
        ann.is_refused("state.get", json!({}), "not_home").await;
    }
    server.redis().go_on();
    ann.until_mode("normal").await;
    line_with(&server, "lease calls are answered again").await;
    let again = line_with(&server, "leases stand again").await;
    assert!(again.contains("players are served") && again.contains("paused_ms="), "{again}");
    assert_eq!(lines_with(&server, "lease calls fail").len(), 1);
    let told = lines_with(&server, "operation=\"lease\"");
    assert!(told.len() <= 8, "{told:#?}");
}

#[tokio::test]
async fn whoever_took_or_gave_shards_says_so_in_a_line_and_names_the_other_node() {
    let redis = RedisServer::start();
    let [here, mut there] = nodes(&redis, |node| node).await;
    let serving = line_with(&here, " serving ").await;
    for field in ["node=", "cluster=", "clients=", "services=", "peers=", "shards="] {
        assert!(serving.contains(field), "{serving}");
    }
    assert!(there.stop_gracefully().success());
    let done = line_with(&there, "all shards were handed over").await;
    assert!(done.contains("kept=0") && !done.contains("handed_over=0"), "{done}");
    assert!(
        lines_with(&there, " to=").iter().any(|line| line.contains("shards were handed over")),
        "{}",
        there.log()
    );
    let left = line_with(&here, "left=").await;
    assert!(left.contains("INFO") && !left.contains("vanished"), "{left}");
    let ended = line_with(&here, "a peer link has ended").await;
    assert!(ended.contains("the other node closed it: it stops"), "{ended}");
    until("the shards' new home to say so", async || {
        let taken = lines_with(&here, "shards were taken");
        taken.iter().any(|line| line.contains("from=")).then_some(())
    })
    .await;
    assert_eq!(here.metric("hearth_members_gone_total", "how=\"left\"").await, 1);
    here.until_metric("hearth_shards_serving", "", SHARDS.into()).await;
    assert_eq!(here.metric("hearth_members", "").await, 1);
}

#[tokio::test]
async fn a_killed_node_and_shards_that_were_lost_are_told_as_what_they_are() {
    let redis = RedisServer::start();
    let [here, mut there] = two_nodes(&redis).await;
    here.until_metric("hearth_peer_links", "", 1).await;
    // As long as a stopped virtual machine: its leases run out, and are others' when it goes on.
    there.pause();
    let vanished = line_with(&here, "vanished=").await;
    assert!(vanished.contains("WARN") && vanished.contains("gone without having said so"), "{vanished}");
    here.until_metric("hearth_shards_serving", "", SHARDS.into()).await;
    there.go_on();
    let lost = line_with(&there, "shards were lost").await;
    assert!(lost.contains("WARN") && lost.contains("players="), "{lost}");
    assert!(!there.log().contains("lease calls fail"), "it did answer");
    assert!(there.metric("hearth_shards_lost_total", "").await > 0);
    there.until_metric("hearth_shards_serving", "", 1).await;
    there.kill9();
    until("both absences to be counted", async || {
        (here.metric("hearth_members_gone_total", "how=\"vanished\"").await == 2).then_some(())
    })
    .await;
    assert!(here.log().contains("it broke off without a word"));
}

#[tokio::test]
async fn a_live_node_that_cannot_be_reached_is_told_wherever_one_looks() {
    let redis = RedisServer::start();
    // Nobody listens there. Whoever comes first in the alphabet dials.
    let here = node_on(&redis).with("node_id", "a").start();
    let there = node_on(&redis).with("node_id", "b").with("peer_public_addr", "127.0.0.1:1").start();
    for (node, other) in [(&here, "b"), (&there, "a")] {
        let told = line_with(node, "a live node cannot be reached").await;
        assert!(told.contains("WARN") && told.contains(&format!("node=\"{other}\"")), "{told}");
        assert!(told.contains("peer_public_addr"), "{told}");
        node.until_metric("hearth_peers_unreached", "", 1).await;
        let (_, cluster) = Service::of(node, KEY).get("/v1/cluster").await;
        let links: Vec<&Value> =
            cluster["nodes"].as_array().unwrap().iter().map(|node| &node["link"]).collect();
        assert!(links.contains(&&json!("down")) && links.contains(&&Value::Null), "{cluster}");
        let mut faults = cluster["nodes"].as_array().unwrap().iter().map(|node| &node["link_fault"]);
        let is_why = |fault: &str| fault.contains("refused") || fault.contains("has not connected");
        assert!(faults.any(|fault| fault.as_str().is_some_and(is_why)), "{cluster}");
        until("a shortfall in readiness", async || {
            let answer = reqwest::get(format!("{}/readyz", node.service_url())).await.unwrap();
            let told: Value = answer.json().await.unwrap();
            let mut shortfalls = told["shortfalls"].as_array().unwrap().iter();
            let unreached = shortfalls.find(|shortfall| shortfall["setting"] == "peer_public_addr")?;
            // No key is asked for here: where the other one is stays between the two and their operators.
            assert!(!unreached.to_string().contains("127.0.0.1"), "{unreached}");
            Some(())
        })
        .await;
    }
    assert!(line_with(&here, "a live node cannot be reached").await.contains("127.0.0.1:1"));
}

#[tokio::test]
async fn clients_who_are_sent_on_or_carried_are_counted() {
    let redis = RedisServer::start();
    let [here, there] = two_nodes(&redis).await;
    let name = players_of(&there).await.next().unwrap();
    let login = json!({"token": format!("dev:{name}"), "relay": true});
    let mut sent_on = Socket::open(here.url(), Encoding::Json).await;
    sent_on.send("login", 1, &json!({"token": format!("dev:{name}")})).await;
    here.until_metric("hearth_closes_total", "code=\"4002\"", 1).await;
    let mut ann = Player::connect(here.url(), Encoding::Json).await;
    ann.login_with(login).await;
    assert_eq!(here.metric("hearth_relayed_links_open", "").await, 1);
    drop(ann);
    until("nobody to be carried any more", async || {
        (here.metric("hearth_relayed_links_open", "").await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_is_told_though_it_answers() {
    let mut server = Server::on(Stage::Redis).with_lease(20_000).start();
    let mut ann = server.login("ann").await;
    let set = |server: &mut Server, limit: &str| {
        server.redis().query::<()>(&["CONFIG", "SET", "maxmemory", limit]);
    };
    set(&mut server, "1");
    ann.patch(json!({"set": {"zone": "docks"}, "cseq": 1})).await;
    let failing = line_with(&server, "commits fail").await;
    assert!(
        failing.contains("WARN") && failing.contains("shards=1") && failing.contains("maxmemory"),
        "{failing}"
    );
    set(&mut server, "0");
    line_with(&server, "commits are taken again").await;
    assert_eq!(lines_with(&server, "commits fail").len(), 1);
    assert!(lines_with(&server, "lease calls fail").is_empty());
}
