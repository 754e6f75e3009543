//! Hearth on Redis in its other shapes: what players were promised holds while a master dies, and no server is started
//! again for it; and `replicated` means that a replica has it.

use std::time::{Duration, Instant};

use hearth::rig::{ClusterPlan, SentinelPlan};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::patience::PATIENCE;
use crate::harness::player::Player;
use crate::harness::redis_sets::{common, start_cluster, start_sentinels};
use crate::harness::server::Server;
use crate::harness::service::Service;

/// A player who counts durably: each step is sent until it was taken, and counts once.
struct Counting {
    player: Player,
    steps: u64,
    refusals: Vec<Value>,
}

impl Counting {
    async fn step(&mut self) {
        let started = Instant::now();
        let step = json!({"incr": {"steps": 1}, "cseq": self.steps + 1, "ack": "durable"});
        while let Err(refused) = self.player.ask("state.patch", step.clone()).await {
            assert!(refused["temporary"] == true && started.elapsed() < PATIENCE, "{refused}");
            self.refusals.push(refused);
            // A store that is known to be away is told at once: whoever asked on and on would be sent away herself.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.steps += 1;
    }
}

async fn players_count_on_while(server: &Server, kill: impl FnOnce()) {
    let mut players = Vec::new();
    for name in ["ann", "bob", "cem", "dan", "eve", "fay"] {
        players.push(Counting { player: server.login(name).await, steps: 0, refusals: Vec::new() });
    }
    for counting in &mut players {
        counting.step().await;
    }
    kill();
    let killed = Instant::now();
    for _ in 0..3 {
        for counting in &mut players {
            counting.step().await;
        }
    }
    assert!(killed.elapsed() > Duration::from_millis(300), "nobody noticed");
    for mut counting in players {
        assert_eq!(counting.player.state().await, json!({"steps": 4}), "{:?}", counting.refusals);
        let mut again = server.resume(&counting.player.drops()).await;
        assert_eq!(again.state().await, json!({"steps": 4}));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_go_on_when_the_master_dies_and_sentinels_name_another() {
    let set =
        start_sentinels(SentinelPlan { common: common(), down_after_ms: 500, ..SentinelPlan::default() });
    let server = Server::on_url(&set.url()).start();
    players_count_on_while(&server, || set.servers()[0].kill().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_go_on_when_a_master_of_the_cluster_dies() {
    let set = start_cluster(ClusterPlan { common: common(), ..ClusterPlan::default() });
    let server = Server::on_url(&set.url()).start();
    players_count_on_while(&server, || set.nodes()[0].kill().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicated_means_that_a_replica_has_it() {
    let set = start_sentinels(SentinelPlan { common: common(), sentinels: 1, ..SentinelPlan::default() });
    let server = Server::on_url(&set.url()).with("service_key", "k").start();
    let service = Service::of(&server, "k");
    let mut ann = server.login("ann").await;
    let replicated = |step: u64| json!({"set": {"step": step}, "ack": "replicated"});
    let patch = |step: u64| service.call(Method::PATCH, "/v1/players/ann/state", Some(replicated(step)));
    let started = Instant::now();
    let acked = loop {
        match ann.ask("state.patch", replicated(1)).await {
            Ok(acked) => break acked,
            Err(refused) => assert!(started.elapsed() < PATIENCE, "{refused}"),
        }
    };
    assert_eq!(acked["ack"], "replicated");
    let (status, answer) = patch(2).await;
    assert_eq!((status, &answer["ack"]), (200, &json!("replicated")), "{answer}");

    set.servers()[1].pause().unwrap();
    let refused = ann.is_refused("state.patch", replicated(3), "store_unavailable").await;
    assert_eq!((&refused["applied"], &refused["temporary"]), (&json!(true), &json!(true)), "{refused}");
    let (status, answer) = patch(4).await;
    assert_eq!((status, &answer["applied"]), (503, &json!(true)), "{answer}");
    // Whoever asks for less waits for nobody.
    assert_eq!(ann.patch_durably(json!({"set": {"step": 5}})).await["ack"], "durable");

    set.servers()[1].go_on().unwrap();
    assert_eq!(ann.state().await, json!({"step": 5}));
    let started = Instant::now();
    while let Err(refused) = ann.ask("state.patch", replicated(6)).await {
        assert!(started.elapsed() < PATIENCE, "{refused}");
    }
    // A replica that is gone for good is known to be: nothing is changed then.
    set.servers()[1].kill().unwrap();
    let started = Instant::now();
    loop {
        let (status, answer) = patch(7).await;
        assert_eq!((status, &answer["code"]), (503, &json!("store_unavailable")), "{answer}");
        if answer.get("applied").is_none() {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{answer}");
    }
}

#[test]
fn a_node_of_a_cluster_that_is_spoken_to_alone_is_told_how_to_be() {
    let set = crate::harness::redis_sets::cluster();
    let url = format!("redis://127.0.0.1:{}", set.nodes()[0].port());
    let exit = Server::on_url(&url).fails();
    assert_eq!(exit.code, Some(69), "{:?}", exit.lines);
    assert!(exit.lines.iter().any(|line| line.contains("redis+cluster://")), "{:?}", exit.lines);
}
