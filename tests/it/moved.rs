//! What is promised to those whose home moves: what was pushed to them and what they had not seen goes along, nothing gets
//! a number twice, and what changed on the way they are told. A home that was killed takes it with it, and that is said.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use hearth::home::placement::node_of;
use hearth::ids::ShardId;

use crate::harness::bridge::Bridge;
use crate::harness::nodes::{KEY, SHARDS, node_on, nodes, players_of, served_by};
use crate::harness::patience::until;
use crate::harness::player::{Credentials, Player};
use crate::harness::redis_server::RedisServer;
use crate::harness::server::{Server, Starting};
use crate::harness::service::Service;
use crate::harness::socket::Heard;

fn talkative(node: Starting) -> Starting {
    let fast = ["link_frames_per_s", "link_frames_burst", "send_per_s", "send_burst"];
    let node = node.with("session.player_messages", true);
    fast.iter().fold(node, |node, name| node.with(&format!("limits.{name}"), 100_000))
}

/// Says something until it has arrived: while a home is on its way it is refused, and not taken for said.
async fn says(ann: &mut Player, to: &str, data: &Value) {
    let deadline = std::time::Instant::now() + crate::harness::patience::PATIENCE;
    loop {
        match ann.ask("send", json!({"player": to, "data": data})).await {
            Ok(sent) => return assert_eq!(sent["delivered"], 1, "{sent}"),
            Err(refused) => {
                let is_unsaid = refused["code"] == "not_home" && refused["applied"].is_null();
                assert!(is_unsaid && std::time::Instant::now() < deadline, "{refused}");
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Says numbers to all of them, one after the other, until it is enough; who says so, and the last number.
async fn says_numbers(
    mut ann: Player,
    to: Vec<String>,
    from: u64,
    enough: watch::Receiver<bool>,
) -> (Player, u64) {
    let mut number = from;
    loop {
        for to in &to {
            says(&mut ann, to, &json!(number)).await;
        }
        if *enough.borrow() {
            return (ann, number);
        }
        number += 1;
    }
}

async fn name_of(node: &Server) -> String {
    let (_, told) = Service::of(node, KEY).get("/v1/cluster").await;
    told["node"].as_str().unwrap().to_owned()
}

/// A message as it is heard.
struct Message {
    seq: u64,
    body: Value,
}

/// What they say, each once: whoever sends a message again, because nobody told whether it had arrived, sends it under the
/// same id, and who hears it drops the repeat.
fn said(messages: impl IntoIterator<Item = Message>) -> Vec<Value> {
    let mut ids = HashSet::new();
    let news = messages.into_iter().filter(|message| ids.insert(message.body["id"].to_string()));
    news.map(|message| message.body["data"].clone()).collect()
}

/// Messages, as they are heard, until she is told where her home is.
async fn hears_until_moved(player: &mut Player) -> (Vec<Message>, Value) {
    let mut heard = Vec::new();
    loop {
        match player.hear().await {
            Heard::Frame(frame) if frame.op == "message" => {
                heard.push(Message { seq: frame.number, body: frame.body })
            }
            Heard::Frame(frame) if frame.op == "moved" => return (heard, frame.body),
            Heard::Frame(_) => {}
            Heard::Closed(code) => panic!("closed with {code:?} before `moved`"),
        }
    }
}

/// Messages until this one, whatever comes between.
async fn hears_messages_until(player: &mut Player, last: u64) -> Vec<Message> {
    let mut heard: Vec<Message> = Vec::new();
    while heard.last().is_none_or(|message| message.body["data"] != last) {
        let push = player.next_push().await;
        if push.op == "message" {
            heard.push(Message { seq: push.number, body: push.body });
        }
    }
    heard
}

/// Reads an old link to its end: from `moved` on nothing on it has a number.
async fn hears_no_more(mut player: Player) {
    loop {
        match player.hear().await {
            Heard::Frame(frame) => {
                let has_number = matches!(frame.op.as_str(), "message" | "presence" | "room");
                assert!(!has_number, "after `moved`: {frame:?}");
            }
            Heard::Closed(code) => return assert_eq!(code, Some(4001)),
        }
    }
}

/// A session whose home is this node by now, taken up again there: nothing of it is missed.
async fn resumes_whole(node: &Server, credentials: &Credentials) -> Player {
    let player = until("the session is taken up again", async || {
        let mut player = node.connect().await;
        player.try_resume_carried(credentials).await.ok().map(|()| player)
    })
    .await;
    assert_eq!(player.ready["missed"], Value::Null, "{}", player.ready);
    player
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<Value> {
    range.map(|number| json!(number)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_handed_over_hears_every_message_once_and_in_order() {
    let redis = RedisServer::start();
    let [here, mut there] = nodes(&redis, talkative).await;
    let (mine, mut theirs) = (players_of(&here).await.next().unwrap(), players_of(&there).await);
    let (attached, away) = (theirs.next().unwrap(), theirs.next().unwrap());
    let mut ann = here.login(&mine).await;
    let (mut bea, mut cem) = (there.login(&attached).await, there.login(&away).await);
    for number in 1..=5 {
        says(&mut ann, &away, &json!(number)).await;
        says(&mut ann, &attached, &json!(number)).await;
    }
    // He read five, but his program crashed over the third; three more wait for him.
    assert_eq!(said(hears_messages_until(&mut cem, 5).await), numbers(1..=5));
    let mut cem = cem.drops();
    cem.last_seq = 2;
    for number in 6..=8 {
        says(&mut ann, &away, &json!(number)).await;
        says(&mut ann, &attached, &json!(number)).await;
    }
    let (enough, is_enough) = watch::channel(false);
    let mut talk = JoinSet::new();
    talk.spawn(says_numbers(ann, vec![attached, away], 9, is_enough));
    there.ask_to_stop();
    let (mut heard, told) = hears_until_moved(&mut bea).await;
    assert_eq!(told["url"], here.url());
    // She has not got round to the last two.
    let mut credentials = bea.credentials();
    credentials.last_seq -= 2;
    heard.retain(|message| message.seq <= credentials.last_seq);
    let mut bea_here = resumes_whole(&here, &credentials).await;
    assert!(bea_here.ready["replayed"].as_u64().unwrap() >= 2, "{}", bea_here.ready);
    let mut cem_here = resumes_whole(&here, &cem).await;
    assert!(cem_here.ready["replayed"].as_u64().unwrap() >= 6, "{}", cem_here.ready);
    enough.send(true).unwrap();
    let (_ann, last) = talk.join_next().await.unwrap().unwrap();
    heard.extend(hears_messages_until(&mut bea_here, last).await);
    assert_eq!(said(heard), numbers(1..=last));
    assert_eq!(said(hears_messages_until(&mut cem_here, last).await), numbers(3..=last));
    hears_no_more(bea).await;
    assert!(there.wait_for_end().success());
    // Numbers go on, also over a resume at the new home.
    let cem = cem_here.drops();
    resumes_whole(&here, &cem).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_still_sent_to_the_home_before_is_refused_at_once_and_takes_effect_at_the_next_one() {
    let redis = RedisServer::start();
    let [here, mut there] = nodes(&redis, |node| node).await;
    let mut ann = there.login(&players_of(&there).await.next().unwrap()).await;
    let change = |cseq: u64| json!({"incr": {"n": 1}, "cseq": cseq});
    ann.patch(change(1)).await;
    there.ask_to_stop();
    hears_until_moved(&mut ann).await;
    let asked = Instant::now();
    let refused = ann.is_refused("state.patch", change(2), "not_home").await;
    assert!(asked.elapsed() < Duration::from_millis(1_500), "held for {:?}", asked.elapsed());
    assert!(refused["retry_after_ms"].as_u64().unwrap() <= 250, "{refused}");
    let mut ann_here = resumes_whole(&here, &ann.credentials()).await;
    assert_eq!(ann_here.ready["cseq"], 1);
    ann_here.patch(change(2)).await;
    assert_eq!(ann_here.state().await, json!({"n": 2}));
    hears_no_more(ann).await;
    assert!(there.wait_for_end().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_while_a_home_moves_reaches_those_who_watch() {
    let redis = RedisServer::start();
    let [here, mut there] = nodes(&redis, talkative).await;
    let (mut mine, mut theirs) = (players_of(&here).await, players_of(&there).await);
    let (near, other, watcher) = (mine.next().unwrap(), mine.next().unwrap(), theirs.next().unwrap());
    let (mut ann, mut dan) = (here.login(&near).await, here.login(&other).await);
    let (mut bea, mut cem) = (there.login(&watcher).await, there.login(&theirs.next().unwrap()).await);
    // Somebody here watches them, too: that one is told of every change before the others come.
    let mut eve = here.login(&mine.next().unwrap()).await;
    for player in [&mut bea, &mut cem, &mut eve] {
        player.watches(&[&near, &other]).await;
    }
    let cem = cem.drops();
    there.ask_to_stop();
    hears_until_moved(&mut bea).await;
    // Both are nowhere at home, or here by now, and have no link.
    ann.shows("busy").await;
    dan.shows("playing").await;
    let mut waiting = vec![(near.clone(), "busy"), (other.clone(), "playing")];
    while !waiting.is_empty() {
        let push = eve.next_push().await;
        let items = push.body["items"].as_array().cloned().unwrap_or_default();
        waiting.retain(|(who, status)| {
            !items.iter().any(|item| item["player"] == *who && item["status"] == *status)
        });
    }
    for credentials in [bea.credentials(), cem] {
        let mut player = resumes_whole(&here, &credentials).await;
        let mut waiting = vec![(near.clone(), "busy"), (other.clone(), "playing")];
        while !waiting.is_empty() {
            let push = player.next_push().await;
            let items = push.body["items"].as_array().cloned().unwrap_or_default();
            waiting.retain(|(who, status)| {
                !items.iter().any(|item| item["player"] == *who && item["status"] == *status)
            });
        }
        // From now on she hears as before.
        ann.shows("away").await;
        assert_eq!(player.expect_presence(&near).await["status"], "away");
        ann.shows("busy").await;
    }
    hears_no_more(bea).await;
    assert!(there.wait_for_end().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_and_goes_gets_and_gives_what_waits_for_its_players_however_much() {
    let redis = RedisServer::start();
    let [here, there] = nodes(&redis, talkative).await;
    let mut ann = here.login(&players_of(&here).await.next().unwrap()).await;
    // More than one answer of a home holds, on each shard.
    let large = "x".repeat(12_000);
    let mut away = Vec::new();
    for node in [&here, &there] {
        for name in players_of(node).await.skip(1).take(40) {
            let credentials = node.login(&name).await.drops();
            for number in 1..=8 {
                says(&mut ann, &name, &json!({"number": number, "pad": large})).await;
            }
            away.push((name, credentials));
        }
    }
    let names = vec![name_of(&here).await, name_of(&there).await];
    let places = |names: &[String], name: &str| -> Vec<u64> {
        let names: Vec<&str> = names.iter().map(String::as_str).chain([name]).collect();
        let shards = (0..SHARDS).map(|shard| ShardId::numbered(shard).unwrap());
        let placed = shards.filter(|shard| node_of(*shard, names.iter().copied()) == Some(name));
        placed.map(|shard| u64::from(shard.number())).collect()
    };
    let third = (0..).map(|n| format!("third-{n}")).find(|name| places(&names, name).len() > 3).unwrap();
    let (starting, theirs) = (talkative(node_on(&redis)).with("node_id", &third), places(&names, &third));
    let mut third = tokio::task::spawn_blocking(|| starting.start()).await.unwrap();
    until("the third has its part", async || (served_by(&third).await == theirs).then_some(())).await;
    let moved: Vec<_> = players_of(&third).await.take(40).collect();
    assert!(away.iter().filter(|(name, _)| moved.contains(name)).count() > 3);
    let (some, others): (Vec<_>, Vec<_>) = away.into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
    let all_comes = async |away: Vec<(usize, (String, Credentials))>| {
        for (_, (_, credentials)) in away {
            let mut player = resumes_whole(&here, &credentials).await;
            for number in 1..=8 {
                assert_eq!(player.expect_push("message").await["data"]["number"], number);
            }
        }
    };
    all_comes(some).await;
    // It goes again: what waits for those who were never there goes with it.
    assert!(third.stop_gracefully().success());
    all_comes(others).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_lost_its_redis_is_fenced_by_the_next_one_and_gives_what_waits() {
    let redis = RedisServer::builder().on_tcp().start();
    let bridge = Bridge::to(&redis.tcp_url()).await;
    let here = talkative(node_on(&redis)).start();
    let there =
        Server::on_url(&bridge.url).with_lease(1_200).with("service_key", KEY).with("cluster.shards", SHARDS);
    let there = tokio::task::spawn_blocking(|| talkative(there).start()).await.unwrap();
    until("each has its part", async || {
        let served = [served_by(&here).await.len(), served_by(&there).await.len()];
        (served.iter().sum::<usize>() == usize::from(SHARDS) && !served.contains(&0)).then_some(())
    })
    .await;
    let (mine, his) = (players_of(&here).await.next().unwrap(), players_of(&there).await.next().unwrap());
    let (mut ann, mut bob) = (here.login(&mine).await, there.login(&his).await);
    for number in 1..=3 {
        says(&mut ann, &his, &json!(number)).await;
    }
    assert_eq!(said(hears_messages_until(&mut bob, 3).await), numbers(1..=3));
    let mut credentials = bob.credentials();
    credentials.last_seq = 1;
    drop(bridge);
    until("the other one has all", async || {
        (served_by(&here).await.len() == usize::from(SHARDS)).then_some(())
    })
    .await;
    let mut bob_here = resumes_whole(&here, &credentials).await;
    assert_eq!(said(hears_messages_until(&mut bob_here, 3).await), numbers(2..=3));
    hears_no_more(bob).await;
    until("it tells that another node has its shards", async || {
        there.log().contains("another node has shards that were held here").then_some(())
    })
    .await;
    says(&mut ann, &his, &json!(4)).await;
    assert_eq!(said(hears_messages_until(&mut bob_here, 4).await), numbers(4..=4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_is_killed_takes_what_was_not_seen_with_it_and_that_is_said() {
    let redis = RedisServer::start();
    let [here, mut there] = nodes(&redis, talkative).await;
    let (mine, his) = (players_of(&here).await.next().unwrap(), players_of(&there).await.next().unwrap());
    let (mut ann, mut bob) = (here.login(&mine).await, there.login(&his).await);
    bob.watches(&[&mine]).await;
    bob.patch_durably(json!({"set": {"a": 1}})).await;
    for number in 1..=3 {
        says(&mut ann, &his, &json!(number)).await;
    }
    assert_eq!(said(hears_messages_until(&mut bob, 3).await), numbers(1..=3));
    let mut credentials = bob.credentials();
    credentials.last_seq = 1;
    there.kill9();
    let mut bob = until("the session is taken up again", async || {
        let mut bob = here.connect().await;
        bob.try_resume_carried(&credentials).await.ok().map(|()| bob)
    })
    .await;
    assert_eq!((&bob.ready["missed"], &bob.ready["replayed"]), (&json!(true), &json!(0)));
    assert_eq!(bob.expect_presence(&mine).await["status"], "online");
}
