//! What is promised to services that follow the events: whatever happens to sessions and presences is told at least once,
//! over crashes of homes and of the node that tells it; what is missing is said.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use hearth::rig::ClusterPlan;
use serde_json::{Value, json};

use crate::harness::follower::{Follower, Told};
use crate::harness::nodes::{KEY as OPERATOR, nodes, players_of};
use crate::harness::patience::{PATIENCE, until};
use crate::harness::redis_server::RedisServer;
use crate::harness::redis_sets::{common, start_cluster};
use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::stages::{Stage, on_every_stage};

const KEY: &str = "s3cret-of-the-stories";

/// What was told of one player, each once, in words.
fn words<'a>(told: &'a [Told], player: &str) -> Vec<&'a str> {
    let mut ids = HashSet::new();
    let hers = told.iter().filter(|told| told.data["player"] == player && ids.insert(told.id()));
    hers.map(Told::word).collect()
}

fn is_of<'a>(player: &'a str, word: &'a str) -> impl Fn(&Told) -> bool + 'a {
    move |told| told.data["player"] == player && told.word() == word
}

on_every_stage! {
    async fn what_happens_to_sessions_and_presences_is_told_to_whoever_follows(stage) {
        let server = Server::on(stage).with("service_key", KEY).with_lease(2_000).start();
        let shop = Service::of(&server, KEY);
        let mut follower = Follower::at(server.service_url(), KEY, None).await;
        let mut ann = server.connect_for("ann").await;
        ann.login_with(json!({"token": "dev:ann", "device": "console"})).await;
        let session = ann.ready["session"].clone();
        ann.shows("playing").await;
        let away = ann.closes(1001).await;
        let mut told = follower.until(is_of("ann", "link_lost")).await;
        let mut ann = server.resume(&away).await;
        let kick = json!({"reason": "lobby closed", "code": 4800});
        assert_eq!(shop.post("/v1/players/ann/kick", kick).await.0, 200);
        ann.expect_close(4800).await;
        told.extend(follower.until(is_of("ann", "offline")).await);
        let expected = ["opened", "online", "playing", "link_lost", "resumed", "ended", "offline"];
        assert_eq!(words(&told, "ann"), expected, "{told:?}");
        for one in &told {
            let is_presence = one.data["kind"] == "presence";
            assert_eq!(one.event, if is_presence { "presence" } else { "session" }, "{one:?}");
            assert_eq!(one.data["session"], if is_presence { Value::Null } else { session.clone() }, "{one:?}");
            assert!(one.data["shard"].is_u64() && one.data["at"].is_u64() && one.data["node"].is_string());
        }
        let ended = told.iter().find(|one| one.word() == "ended").unwrap();
        assert_eq!((&ended.data["why"], &ended.data["code"]), (&json!("kicked"), &json!(4800)));
        // A player who hides says nothing of what she shows; that she has a session is no secret to services.
        let mut bea = server.connect_for("bea").await;
        bea.login_with(json!({"token": "dev:bea", "status": "invisible"})).await;
        bea.does("presence.set", json!({"status": "invisible", "activity": {"map": "docks"}})).await;
        bea.does("logout", json!({})).await;
        let told = follower.until(is_of("bea", "ended")).await;
        assert_eq!(words(&told, "bea"), ["opened", "ended"], "{told:?}");
    }

    async fn who_comes_back_with_a_checkpoint_has_missed_nothing(stage) {
        let mut server = Server::on(stage).with("service_key", KEY).with_lease(2_000).start();
        let mut follower = Follower::at(server.service_url(), KEY, None).await;
        let mut names = Vec::new();
        for number in 0..12 {
            let name = format!("ann-{number}");
            let mut player = server.login(&name).await;
            player.does("logout", json!({})).await;
            names.push(name);
        }
        let mut told = follower.until(is_of("ann-5", "ended")).await;
        told.extend(follower.until_checkpoint().await);
        let checkpoint = follower.checkpoint.clone();
        drop(follower);
        server.kill9();
        server.restart();
        let mut late = server.login("bob").await;
        late.does("logout", json!({})).await;
        let mut follower = Follower::at(server.service_url(), KEY, Some(&checkpoint)).await;
        let rest = follower.until(is_of("bob", "ended")).await;
        // In what order shards are told is nobody's promise: bob may come before the others.
        told.extend(rest);
        while let Some(late) = names.iter().find(|name| !words(&told, name).contains(&"offline")) {
            told.extend(follower.until(is_of(late, "offline")).await);
        }
        assert!(told.iter().all(|one| matches!(one.event.as_str(), "session" | "presence")), "{told:?}");
        for name in &names {
            assert_eq!(words(&told, name), ["opened", "online", "ended", "offline"], "{name}");
        }
        // All that there is, from the beginning.
        let mut follower = Follower::at(server.service_url(), KEY, Some("oldest")).await;
        let told = follower.until(is_of("bob", "ended")).await;
        assert!(told.iter().all(|one| one.event != "gap"), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_said() {
    let mut server = Server::on(Stage::Redis).with("service_key", KEY).with("cluster.shards", 1).start();
    let url = server.service_url().to_owned();
    let mut follower = Follower::at(&url, KEY, None).await;
    let visits = async |server: &Server, name: &str| {
        let mut player = server.login(name).await;
        player.does("logout", json!({})).await;
    };
    visits(&server, "ann").await;
    let told = follower.until(is_of("ann", "offline")).await;
    assert_eq!(told.len(), 4, "{told:?}");
    follower.until_checkpoint().await;
    let checkpoint = follower.checkpoint.clone();
    drop(follower);
    visits(&server, "bob").await;
    visits(&server, "cem").await;
    let streams: Vec<String> = server.redis().query(&["KEYS", "*:ev"]);
    let [stream] = &streams[..] else { panic!("{streams:?}") };
    let metas: Vec<String> = server.redis().query(&["KEYS", "*.s0}:m"]);
    let [meta] = &metas[..] else { panic!("{metas:?}") };

    // Bob's four and two of cem's are cut off.
    assert_eq!(server.redis().query::<u64>(&["XTRIM", stream, "MAXLEN", "2"]), 10);
    let mut follower = Follower::at(&url, KEY, Some(&checkpoint)).await;
    let told = follower.until(is_of("cem", "offline")).await;
    assert_eq!(
        (told[0].event.as_str(), &told[0].data),
        ("gap", &json!({"shard": 0, "missed": 6})),
        "{told:?}"
    );
    assert_eq!(words(&told, "cem"), ["ended", "offline"], "{told:?}");
    let mut from_the_start = Follower::at(&url, KEY, Some("oldest")).await;
    let told = from_the_start.until(is_of("cem", "offline")).await;
    assert_eq!((told[0].event.as_str(), &told[0].data["missed"]), ("gap", &json!(10)), "{told:?}");

    // The store has lost what it had: it counts anew.
    follower.until_checkpoint().await;
    let checkpoint = follower.checkpoint.clone();
    server.redis().query::<()>(&["DEL", stream]);
    server.redis().query::<()>(&["HSET", meta, "ev", "0"]);
    let mut ahead = Follower::at(&url, KEY, Some(&checkpoint)).await;
    let lost = ahead.until(|told| told.event == "resync").await;
    assert_eq!(lost[0].data, json!({"shard": 0}), "a checkpoint ahead of its stream: {lost:?}");
    visits(&server, "dan").await;
    let told = ahead.until(is_of("dan", "offline")).await;
    assert_eq!(words(&told, "dan"), ["opened", "online", "ended", "offline"], "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_follow_as_may_and_what_is_no_checkpoint_is_refused() {
    let server =
        Server::on(Stage::Embedded).with("service_key", KEY).with("limits.event_consumers_max", 1).start();
    let url = server.service_url();
    for after in ["x", "AQ", "Oldest", "%00"] {
        let (status, problem) = Follower::try_at(url, KEY, Some(after)).await.err().expect("refused");
        assert_eq!((status, &problem["code"]), (400, &json!("bad_request")), "{after}: {problem}");
    }
    assert_eq!(Follower::try_at(url, "wrong", None).await.err().unwrap().0, 401);
    let first = Follower::at(url, KEY, None).await;
    let (status, problem) = Follower::try_at(url, KEY, None).await.err().expect("refused");
    assert_eq!((status, &problem["code"]), (503, &json!("overloaded")), "{problem}");
    assert!(problem["retry_after_ms"].is_u64(), "{problem}");
    drop(first);
    let mut second =
        until("there is a place again", async || Follower::try_at(url, KEY, None).await.ok()).await;
    let _ann = server.login("ann").await;
    second.until(is_of("ann", "opened")).await;
    let metrics = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
    for name in ["hearth_event_consumers 1", "hearth_events_lag_seconds", "hearth_events_told_total"] {
        assert!(metrics.contains(name), "{name} is not in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_ends_what_it_tells_and_others_go_on_from_there() {
    let redis = RedisServer::start();
    let [here, mut there] = nodes(&redis, |node| node).await;
    let mut follower = Follower::at(there.service_url(), OPERATOR, None).await;
    let checkpoint = follower.checkpoint.clone();
    assert!(there.stop_gracefully().success());
    while follower.next().await.is_some() {}
    let _ann = here.login("ann").await;
    let mut follower = Follower::at(here.service_url(), OPERATOR, Some(&checkpoint)).await;
    follower.until(is_of("ann", "opened")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_home_had_written_is_told_at_least_once() {
    let redis = RedisServer::start();
    let [here, other, mut there] = nodes(&redis, |node| node).await;
    let mut far = Follower::at(here.service_url(), OPERATOR, None).await;
    // This one hears it from the node that dies.
    let mut near = Follower::at(there.service_url(), OPERATOR, None).await;
    let names: Vec<String> = players_of(&there).await.take(20).collect();
    let mut players = Vec::new();
    for name in &names {
        players.push(there.login(name).await);
    }
    let mut heard_near = near.until(|told| told.word() == "opened").await;
    let checkpoint = near.checkpoint.clone();
    there.kill9();
    while let Some(told) = near.next().await {
        heard_near.extend(told.is_of_players().then_some(told));
    }
    let mut back = Vec::new();
    for player in players {
        let credentials = player.drops();
        let again = until("a home for everybody", async || {
            let mut again = here.connect().await;
            again.try_resume_carried(&credentials).await.ok().map(|()| again)
        });
        back.push(again.await);
    }
    let mut from_there = Follower::at(other.service_url(), OPERATOR, Some(&checkpoint)).await;
    for (follower, mut told) in [(&mut far, Vec::new()), (&mut from_there, heard_near)] {
        while let Some(missing) = names.iter().find(|name| !words(&told, name).contains(&"resumed")) {
            told.extend(follower.until(is_of(missing, "resumed")).await);
        }
        for name in &names {
            // Whoever was let in is told, whoever died since; and what her new home did, too.
            let sessions: Vec<_> = told.iter().filter(|told| told.event == "session").cloned().collect();
            assert_eq!(words(&sessions, name), ["opened", "moved", "resumed"], "{name}: {told:?}");
        }
        assert!(told.iter().all(|one| matches!(one.event.as_str(), "session" | "presence")), "{told:?}");
    }
}

/// The next checkpoint that names these shards as unknown, or none.
async fn checkpoint_without(follower: &mut Follower, unknown: Option<&Value>) {
    let names = |told: &Told| match (unknown, told.data["unknown"].as_array()) {
        (Some(shard), Some(named)) => named.contains(shard),
        (None, named) => named.is_none(),
        _ => false,
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = follower.next().await.expect("a checkpoint");
        if told.event == "checkpoint" && names(&told) {
            return;
        }
        assert!(Instant::now() < deadline, "{unknown:?} is not what checkpoints name: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_the_store_that_does_not_answer_keeps_nobody_from_the_events_of_the_others() {
    let set = start_cluster(ClusterPlan { common: common(), replicas_each: 0, ..ClusterPlan::default() });
    for node in set.nodes() {
        node.query::<()>(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]).unwrap();
    }
    let server = Server::on_url(&set.url()).with("service_key", KEY).start();
    let mut follower = Follower::at(server.service_url(), KEY, None).await;
    let (mut players, mut homes) = (Vec::new(), Vec::new());
    for number in 0..12 {
        let name = format!("ann-{number}");
        players.push(server.login(&name).await);
        let told = follower.until(is_of(&name, "online")).await;
        let shard = told.last().unwrap().data["shard"].clone();
        let streams = format!("*.s{shard}}}:ev");
        let has =
            |node: &hearth::rig::Server| !node.query::<Vec<String>>(&["KEYS", &streams]).unwrap().is_empty();
        homes.push((shard, set.nodes().iter().position(has).expect("its stream lies somewhere")));
    }
    let (silent, dead) = homes[0].clone();
    let other = homes.iter().position(|(_, at)| *at != dead).expect("not all of them lie on one node");
    set.nodes()[dead].pause().unwrap();
    // What others do is told meanwhile, and who is missing is said.
    players[other].shows("busy").await;
    follower.until(is_of(&format!("ann-{other}"), "busy")).await;
    checkpoint_without(&mut follower, Some(&silent)).await;
    let checkpoint = follower.checkpoint.clone();
    // Whoever comes with a checkpoint goes on from there; where a new stream would begin is not known.
    let mut late = Follower::at(server.service_url(), KEY, Some(&checkpoint)).await;
    checkpoint_without(&mut late, Some(&silent)).await;
    let (status, problem) = Follower::try_at(server.service_url(), KEY, None).await.err().expect("refused");
    assert_eq!((status, &problem["code"]), (503, &json!("store_unavailable")), "{problem}");
    set.nodes()[dead].go_on().unwrap();
    let busy = json!({"status": "busy"});
    let deadline = Instant::now() + PATIENCE;
    while let Err(refused) = players[0].ask("presence.set", busy.clone()).await {
        assert!(Instant::now() < deadline, "she is not heard: {refused}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for follower in [&mut follower, &mut late] {
        follower.until(is_of("ann-0", "busy")).await;
        checkpoint_without(follower, None).await;
    }
}
