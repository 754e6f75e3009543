//! What is promised across nodes: a player is seen from every node as from her own, and who cannot be asked is named.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::nodes::{KEY, nodes, players_of, two_nodes};
use crate::harness::patience::{PATIENCE, until};
use crate::harness::player::Player;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::harness::service::Service;

/// Waits until a player sees the other as she is, from wherever both are.
async fn is_seen(by: &mut Player, who: &str, status: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = by.does("presence.get", json!({"players": [who]})).await;
        if answer["presences"][0]["status"] == status {
            return answer["presences"][0].clone();
        }
        assert!(Instant::now() < deadline, "{who} never shows as {status}: {answer}");
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

async fn query(node: &Server, players: &[&str]) -> Value {
    let (status, told) = Service::of(node, KEY).post("/v1/presence/query", json!({"players": players})).await;
    assert_eq!(status, 200, "{told}");
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_is_seen_from_every_node() {
    let redis = RedisServer::start();
    let [here, mut there] = two_nodes(&redis).await;
    let (mine, mut theirs) = (players_of(&here).await.next().unwrap(), players_of(&there).await);
    let (bob, never, gone) = (theirs.next().unwrap(), theirs.next().unwrap(), theirs.next().unwrap());
    there.login(&gone).await.does("logout", json!({})).await;
    let mut bob_there = there.connect().await;
    bob_there.login_with(json!({"token": format!("dev:{bob}"), "device": "pc"})).await;
    // In the store when her node is killed below.
    let playing = json!({"status": "playing", "activity": {"map": "docks"}, "ack": "durable"});
    bob_there.does("presence.set", playing).await;
    let mut ann = here.login(&mine).await;
    let item = is_seen(&mut ann, &bob, "playing").await;
    assert_eq!((&item["activity"], &item["devices"]), (&json!({"map": "docks"}), &json!(["pc"])));
    assert_eq!(item, bob_there.looks_at(&bob).await, "the same from both nodes");
    let snapshot = ann.watches(&[&bob, &never, &mine]).await;
    assert_eq!(snapshot[0], item);
    assert_eq!((&snapshot[1]["status"], &snapshot[2]["status"]), (&json!("offline"), &json!("online")));
    let told = until("all are told", async || {
        let told = query(&here, &[&bob, &never, &mine]).await;
        (told["unknown"] == json!([])).then_some(told)
    })
    .await;
    assert_eq!(told["presences"][0], item);
    assert_eq!(told["presences"].as_array().unwrap().len(), 3);

    // What is in the memory of her home is told without the store, and who was never seen; who is stored there is named.
    until("who is gone is in the store alone", async || {
        (there.metric("hearth_records_hot", "").await == 1).then_some(())
    })
    .await;
    redis.pause();
    assert_eq!(ann.looks_at(&bob).await, item);
    let answer = ann.ask("presence.get", json!({"players": [&bob, &gone, &never]})).await.unwrap();
    assert_eq!((&answer["presences"][0], &answer["unknown"]), (&item, &json!([gone])));
    assert_eq!(answer["presences"][1]["player"], json!(never));
    redis.go_on();

    there.kill9();
    // Until its lease is over nobody else can say.
    let told = query(&here, &[&bob, &mine]).await;
    let answer = ann.does("presence.get", json!({"players": [&bob, &mine]})).await;
    for answer in [told, answer] {
        assert_eq!(answer["unknown"], json!([bob]), "{answer}");
        assert_eq!(answer["presences"][0]["player"], json!(mine), "{answer}");
    }
    // Her home is this node, once the dead one's lease is over; she had no time to say goodbye.
    is_seen(&mut ann, &bob, "playing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_answer_is_not_waited_for() {
    let redis = RedisServer::start();
    let [here, there] = two_nodes(&redis).await;
    let (mine, bob) = (players_of(&here).await.next().unwrap(), players_of(&there).await.next().unwrap());
    let _bob = there.login(&bob).await;
    let mut ann = here.login(&mine).await;
    is_seen(&mut ann, &bob, "online").await;
    there.pause();
    let asked = Instant::now();
    let answer = ann.ask("presence.get", json!({"players": [&bob, &mine]})).await.unwrap();
    assert_eq!((&answer["unknown"], &answer["presences"][0]["player"]), (&json!([bob]), &json!(mine)));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    there.go_on();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_finds_its_player_wherever_she_is_at_home() {
    let redis = RedisServer::start();
    let [here, mut there] = nodes(&redis, |node| node.with("session.player_messages", true)).await;
    let (mine, mut theirs) = (players_of(&here).await.next().unwrap(), players_of(&there).await);
    let (his, nobody) = (theirs.next().unwrap(), theirs.next().unwrap());
    let (mut ann, mut bob) = (here.login(&mine).await, there.login(&his).await);
    is_seen(&mut ann, &his, "online").await;
    is_seen(&mut ann, &nobody, "offline").await;
    let first = json!({"player": &his, "data": {"say": "hi"}, "cseq": 1});
    assert_eq!(ann.does("send", first.clone()).await, json!({"delivered": 1}));
    let message = bob.expect_push("message").await;
    assert_eq!((&message["player"], &message["data"]), (&json!(mine), &json!({"say": "hi"})));
    assert_eq!(ann.does("send", first).await["dup"], true, "once, however often it is asked for");
    assert_eq!(ann.tells(&nobody, json!(1)).await["delivered"], 0);
    // Many without waiting keep their order.
    let mut asked = Vec::new();
    for number in 2..12 {
        asked.push(ann.feed("send", json!({"player": &his, "data": number, "cseq": number})).await);
    }
    ann.pings().await;
    for reference in asked {
        assert_eq!(ann.answer(reference).await.unwrap()["delivered"], 1);
    }
    for number in 2..12 {
        assert_eq!(bob.expect_push("message").await["data"], number);
    }
    // Nobody knows where she is: the number is not used up, and the message arrives when it is sent again.
    let credentials = bob.credentials();
    there.kill9();
    let late = json!({"player": &his, "data": "late", "cseq": 12});
    until_log(&here, "a peer link has ended").await;
    let refused = ann.is_refused("send", late.clone(), "not_home").await;
    assert_eq!((&refused["temporary"], &refused["applied"]), (&json!(true), &Value::Null), "{refused}");
    let mut bob = until("she is at home here", async || {
        let mut bob = here.connect().await;
        bob.try_resume_carried(&credentials).await.ok().map(|()| bob)
    })
    .await;
    assert_eq!(ann.does("send", late).await, json!({"delivered": 1}));
    assert_eq!(bob.wait_for_push("message").await["data"], "late");
}

async fn until_log(node: &Server, words: &str) {
    until(words, async || node.log().contains(words).then_some(())).await;
}
