//! What is promised of watches across nodes: whoever watches sees every change wherever both are at home, also while
//! Redis is away; and a home that dies, moves or comes back is no end of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::nodes::{SHARDS, node_on, nodes, players_of, served_by};
use crate::harness::patience::until;
use crate::harness::player::{Credentials, Player};
use crate::harness::redis_server::RedisServer;
use crate::harness::server::{Server, Starting};
use crate::harness::socket::Encoding;

/// Changes of which the latency is measured.
const MEASURED: usize = 200;

/// Waits until a push shows somebody so; the item.
async fn is_told(watcher: &mut Player, who: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    loop {
        let push = watcher.next_push().await;
        let items = push.body["items"].as_array().cloned().unwrap_or_default();
        if let Some(item) = items.into_iter().find(|item| item["player"] == who && is_so(item)) {
            return item;
        }
    }
}

/// Waits until pushes have shown all of them so, in any order.
async fn are_told(watcher: &mut Player, players: &[(&str, &str)]) {
    let mut waiting = players.to_vec();
    while !waiting.is_empty() {
        let push = watcher.next_push().await;
        let items = push.body["items"].as_array().cloned().unwrap_or_default();
        waiting.retain(|(who, status)| {
            !items.iter().any(|item| item["player"] == *who && item["status"] == *status)
        });
    }
}

fn shows(status: &str) -> impl Fn(&Value) -> bool {
    move |item| item["status"] == status
}

/// Watches, and waits until she knows how they look.
async fn watches(watcher: &mut Player, players: &[&str]) {
    let answer = watcher.does("watch", json!({"players": players})).await;
    watcher.see(&answer["presences"]);
    let mut waiting = answer["unknown"].as_array().unwrap().clone();
    while !waiting.is_empty() {
        let push = watcher.next_push().await;
        let items = push.body["items"].as_array().cloned().unwrap_or_default();
        waiting.retain(|who| !items.iter().any(|item| item["player"] == *who));
    }
}

/// Resumes as a client does that was told to wait: again.
async fn resumed(url: &str, credentials: &Credentials) -> Player {
    until("the session is taken up again", async || {
        let mut player = Player::connect(url, Encoding::MessagePack).await;
        player.try_resume_carried(credentials).await.ok().map(|()| player)
    })
    .await
}

async fn changes_and_is_seen(bob: &mut Player, ann: &mut Player, who: &str, number: usize) -> Duration {
    let began = Instant::now();
    bob.does("presence.set", json!({"status": "playing", "activity": {"n": number}})).await;
    is_told(ann, who, |item| item["activity"]["n"] == number).await;
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_on_one_node_sees_every_change_on_another_also_while_redis_is_away() {
    let redis = RedisServer::start();
    let fast = |node: Starting| {
        let names = ["presence_per_s", "presence_burst"];
        let node = node.with_lease(12_000);
        names.iter().fold(node, |node, name| node.with(&format!("limits.{name}"), 100_000))
    };
    let [here, there] = nodes(&redis, fast).await;
    let (mine, his) = (players_of(&here).await.next().unwrap(), players_of(&there).await.next().unwrap());
    let (mut ann, mut bob) = (here.login(&mine).await, there.login(&his).await);
    let mut near = there.login(&players_of(&there).await.nth(1).unwrap()).await;
    watches(&mut ann, &[&his]).await;
    watches(&mut near, &[&his]).await;
    let (mut latencies, mut locally) = (Vec::new(), Vec::new());
    for number in 0..MEASURED {
        let began = Instant::now();
        latencies.push(changes_and_is_seen(&mut bob, &mut ann, &his, number).await);
        is_told(&mut near, &his, |item| item["activity"]["n"] == number).await;
        locally.push(began.elapsed());
    }
    latencies.sort();
    let p99 = latencies[MEASURED * 99 / 100];
    eprintln!("across nodes: median {:?}, p99 {p99:?} of {MEASURED}", latencies[MEASURED / 2]);
    assert!(p99 < Duration::from_millis(600), "{p99:?}");
    // Nothing of it needs the store while the lease is good.
    redis.pause();
    for number in 0..5 {
        changes_and_is_seen(&mut bob, &mut ann, &his, MEASURED + number).await;
    }
    redis.go_on();
    changes_and_is_seen(&mut bob, &mut ann, &his, MEASURED + 5).await;
    // Who no longer watches is told no more: the home has forgotten her node.
    ann.does("unwatch", json!({"players": [&his]})).await;
    bob.shows("busy").await;
    is_told(&mut near, &his, shows("busy")).await;
    watches(&mut ann, &[&mine]).await;
    ann.shows("away").await;
    assert_eq!(ann.expect_presence(&mine).await["status"], "away", "and of nobody else");
    // Both ends have compared a few times by now, and have meant the same.
    for node in [&here, &there] {
        assert!(!node.log().contains("it watches others than was heard"), "{}", node.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_home_dies_watchers_on_every_node_are_told_what_becomes_of_its_players() {
    let redis = RedisServer::start();
    let [one, two, mut three] = nodes(&redis, |node| node.with("presence.grace_ms", 700)).await;
    let mut theirs = players_of(&three).await;
    let (back, gone, never) = (theirs.next().unwrap(), theirs.next().unwrap(), theirs.next().unwrap());
    let mut back_there = three.login(&back).await;
    let mut gone_there = three.login(&gone).await;
    let mut watchers = Vec::new();
    for node in [&one, &two] {
        let mut watcher = node.login(&players_of(node).await.next().unwrap()).await;
        watches(&mut watcher, &[&back, &gone, &never]).await;
        watchers.push(watcher);
    }
    back_there.shows("playing").await;
    gone_there.shows("playing").await;
    for watcher in &mut watchers {
        is_told(watcher, &back, shows("playing")).await;
    }
    let credentials = back_there.credentials();
    let killed = Instant::now();
    three.kill9();
    let mut back_here = resumed(one.url(), &credentials).await;
    back_here.shows("busy").await;
    // No ghosts: who does not come back is gone after the lease, the grace, and a little.
    for watcher in &mut watchers {
        are_told(watcher, &[(&back, "busy"), (&gone, "offline")]).await;
    }
    let took = killed.elapsed();
    eprintln!("all was told {took:?} after the kill");
    assert!(took < Duration::from_millis(1_200 + 700 + 2_000 + 2_000), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_home_told_and_did_not_store_is_taken_back_on_every_node() {
    let redis = RedisServer::start();
    let slow = |node: Starting| node.with_lease(3_000).with("home.flush_interval_ms", 1_000);
    let [one, two, mut three] = nodes(&redis, slow).await;
    let his = players_of(&three).await.next().unwrap();
    let mut bob = three.login(&his).await;
    let mut watchers = Vec::new();
    for node in [&one, &two] {
        let mut watcher = node.login(&players_of(node).await.next().unwrap()).await;
        watches(&mut watcher, &[&his]).await;
        watchers.push(watcher);
    }
    bob.does("presence.set", json!({"status": "busy", "ack": "durable"})).await;
    bob.shows("playing").await;
    for watcher in &mut watchers {
        is_told(watcher, &his, shows("playing")).await;
    }
    three.kill9();
    // One of the two is his home now; he has not come back and nothing of him has changed since it was stored.
    for watcher in &mut watchers {
        is_told(watcher, &his, shows("busy")).await;
        assert_eq!(watcher.looks_at(&his).await["status"], "busy");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_go_on_when_a_node_joins_and_when_it_leaves() {
    let redis = RedisServer::start();
    let [one, two] = nodes(&redis, |node| node).await;
    let mut players: BTreeMap<String, Player> = BTreeMap::new();
    for node in [&one, &two] {
        for name in players_of(node).await.take(6) {
            let player = node.login(&name).await;
            players.insert(name, player);
        }
    }
    let names: Vec<String> = players.keys().cloned().collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    for player in players.values_mut() {
        watches(player, &all).await;
    }
    let three = node_on(&redis);
    let mut three = tokio::task::spawn_blocking(|| three.start()).await.unwrap();
    until("the third has its part", async || {
        let mut served = Vec::new();
        for node in [&one, &two, &three] {
            served.push(served_by(node).await.len());
        }
        (served.iter().sum::<usize>() == usize::from(SHARDS) && served[2] > 0).then_some(())
    })
    .await;
    let moved = come_to_their_homes(&mut players, &[&one, &two, &three]).await;
    assert!(moved > 0, "somebody had to move");
    all_see_all(&mut players, "busy").await;
    tokio::task::block_in_place(|| assert!(three.stop_gracefully().success()));
    let moved = come_to_their_homes(&mut players, &[&one, &two]).await;
    assert!(moved > 0, "somebody had to come back");
    all_see_all(&mut players, "away").await;
    // A node that comes again under the same name is another process.
    tokio::task::block_in_place(|| three.restart());
    until("it has its part again", async || (!served_by(&three).await.is_empty()).then_some(())).await;
    until("each shard has one home", async || {
        let served = [served_by(&one).await, served_by(&two).await, served_by(&three).await];
        (served.iter().map(Vec::len).sum::<usize>() == usize::from(SHARDS)).then_some(())
    })
    .await;
    come_to_their_homes(&mut players, &[&one, &two, &three]).await;
    all_see_all(&mut players, "playing").await;
}

/// Whoever is not at the home of her shard comes there; how many that were.
async fn come_to_their_homes(players: &mut BTreeMap<String, Player>, nodes: &[&Server]) -> usize {
    let mut moved = 0;
    for (name, player) in players.iter_mut() {
        if player.is_alive().await && !player.was_told("moved") {
            continue;
        }
        moved += 1;
        let home = home_of(name, nodes).await;
        *player = resumed(home.url(), &player.credentials()).await;
    }
    moved
}

async fn home_of<'a>(name: &str, nodes: &[&'a Server]) -> &'a Server {
    let placement = hearth::home::placement::Placement::of(SHARDS).unwrap();
    let shard = placement.shard_of(&hearth::ids::PlayerId::parse(name).unwrap()).number();
    for node in nodes {
        if served_by(node).await.contains(&u64::from(shard)) {
            return node;
        }
    }
    panic!("{name} has no home");
}

async fn all_see_all(players: &mut BTreeMap<String, Player>, status: &str) {
    for player in players.values_mut() {
        player.shows(status).await;
    }
    let names: Vec<String> = players.keys().cloned().collect();
    for player in players.values_mut() {
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), status)).collect();
        are_told(player, &all).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_home_cannot_be_reached_its_players_stay_as_they_were_seen() {
    let redis = RedisServer::start();
    let [here, there] = nodes(&redis, |node| node.with_lease(30_000)).await;
    let (mine, his) = (players_of(&here).await.next().unwrap(), players_of(&there).await.next().unwrap());
    let (mut ann, mut bob) = (here.login(&mine).await, there.login(&his).await);
    watches(&mut ann, &[&his]).await;
    bob.shows("playing").await;
    is_told(&mut ann, &his, shows("playing")).await;
    there.pause();
    until("the link is given up", async || here.log().contains("a peer link has ended").then_some(())).await;
    let look = ann.does("presence.get", json!({"players": [&his]})).await;
    assert_eq!(look["unknown"], json!([his]));
    let other = players_of(&here).await.nth(1).unwrap();
    let mut late = here.login(&other).await;
    let answer = late.does("watch", json!({"players": [&his]})).await;
    assert_eq!(answer["unknown"], json!([his]), "never guessed");
    assert!(!ann.was_told_news());
    there.go_on();
    // What nobody could be told is told, and so is what comes.
    is_told(&mut late, &his, shows("playing")).await;
    bob.shows("busy").await;
    is_told(&mut ann, &his, shows("busy")).await;
    is_told(&mut late, &his, shows("busy")).await;
}

/// Statuses without an order that a lucky test could follow.
const STATUSES: [&str; 4] = ["online", "busy", "playing", "away"];

/// Players who watch each other, wherever they are at home.
struct Crowd {
    players: BTreeMap<String, Player>,
    changes: usize,
}

impl Crowd {
    async fn of(nodes: &[&Server], each: usize) -> Self {
        let mut players = BTreeMap::new();
        for node in nodes {
            for name in players_of(node).await.take(each) {
                let player = node.login(&name).await;
                players.insert(name, player);
            }
        }
        let names: Vec<String> = players.keys().cloned().collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        for player in players.values_mut() {
            watches(player, &all).await;
            // A list that was not stored yet would go with its home, and she would be told so.
            player.patch_durably(json!({"set": {"watches": true}})).await;
        }
        Self { players, changes: 0 }
    }

    /// Everybody changes without waiting for an answer; whose link has ended stays as she was.
    async fn change(&mut self) {
        for player in self.players.values_mut() {
            self.changes += 1;
            let status = STATUSES[self.changes * 7 / 3 % 4];
            player.send("presence.set", json!({"status": status, "activity": {"n": self.changes}})).await;
        }
    }

    /// Whose link has ended, or is to end, comes back; this node carries her where she is at home now.
    async fn come_back(&mut self, by: &Server) {
        for player in self.players.values_mut() {
            if !player.is_alive().await || player.was_told("moved") {
                *player = resumed(by.url(), &player.credentials()).await;
            }
        }
    }

    /// Waits until everybody was told of everybody what is true; this node carries those back whose links end.
    async fn agrees(&mut self, by: &Server, when: &str) {
        let names: Vec<String> = self.players.keys().cloned().collect();
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let mut differs = Vec::new();
            for (name, player) in &mut self.players {
                let Ok(truth) = player.ask_or_end("presence.get", json!({"players": names})).await else {
                    *player = resumed(by.url(), &player.credentials()).await;
                    differs.push(format!("{name} has just come back"));
                    continue;
                };
                let truth = truth.unwrap_or_else(|_| json!({"presences": [], "unknown": names}));
                if truth["unknown"] != json!([]) {
                    differs.push(format!("{name} cannot be told: {truth}"));
                }
                for (who, item) in names.iter().zip(truth["presences"].as_array().unwrap()) {
                    let seen = player.sight_of(who);
                    let is_so = |seen: &Value| {
                        seen["status"] == item["status"] && seen["activity"] == item["activity"]
                    };
                    if !seen.is_some_and(is_so) {
                        differs.push(format!("{name} of {who}: {seen:?}, but {item}"));
                    }
                }
            }
            if differs.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{when}: {} differ: {:?}", differs.len(), differs[0]);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_any_trouble_everybody_sees_what_is_true() {
    let redis = RedisServer::start();
    let fast = |node: Starting| {
        let names = ["presence_per_s", "presence_burst", "query_per_s", "query_burst"];
        names.iter().fold(node, |node, name| node.with(&format!("limits.{name}"), 100_000))
    };
    let [one, two, mut three] = nodes(&redis, fast).await;
    let mut crowd = Crowd::of(&[&one, &two, &three], 4).await;
    crowd.change().await;
    crowd.agrees(&one, "in peace").await;
    for round in 0..3 {
        // A node that stands still long enough to lose its shards, while the others change.
        two.pause();
        crowd.change().await;
        until("the others have its shards", async || {
            let (one, three) = (served_by(&one).await, served_by(&three).await);
            (one.len() + three.len() == usize::from(SHARDS)).then_some(())
        })
        .await;
        two.go_on();
        crowd.come_back(&one).await;
        crowd.change().await;
        crowd.agrees(&one, &format!("after a pause, round {round}")).await;
        tokio::task::block_in_place(|| three.kill9());
        crowd.change().await;
        crowd.come_back(&one).await;
        crowd.change().await;
        crowd.agrees(&one, &format!("after a kill, round {round}")).await;
        tokio::task::block_in_place(|| three.restart());
        crowd.come_back(&one).await;
        crowd.change().await;
        crowd.come_back(&one).await;
        crowd.agrees(&one, &format!("after a start, round {round}")).await;
    }
}
