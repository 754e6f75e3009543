//! What is promised of several nodes on one Redis: each shard has one home, a node that comes or goes moves its own part
//! and no other, and whatever was acked durable is found at the next home.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::patience::{PATIENCE, until};
use crate::harness::player::{Credentials, Player};
use crate::harness::redis_server::RedisServer;
use crate::harness::server::{Server, Starting};
use crate::harness::service::Service;
use crate::harness::socket::{Encoding, Heard};

const SHARDS: usize = 64;
const KEY: &str = "the key of an operator";
const LEASE_MS: u64 = 2_400;

fn node_on(redis: &RedisServer) -> Starting {
    let starting = Server::on_url(&redis.url()).with_lease(LEASE_MS).with("service_key", KEY);
    // Writers without a pause are no abuse here.
    let fast = ["link_frames_per_s", "link_frames_burst", "state_per_s", "state_burst"];
    let starting = starting.with("cluster.shards", SHARDS);
    fast.iter().fold(starting, |starting, name| starting.with(&format!("limits.{name}"), 100_000))
}

/// Starts a node without holding up the others.
async fn started(starting: Starting) -> Server {
    tokio::task::spawn_blocking(|| starting.start()).await.unwrap()
}

/// What a node says of the cluster.
async fn cluster_of(node: &Server) -> Value {
    let (status, told) = Service::of(node, KEY).get("/v1/cluster").await;
    assert_eq!(status, 200, "{told}");
    told
}

/// Its name.
async fn name_of(node: &Server) -> String {
    cluster_of(node).await["node"].as_str().unwrap().to_owned()
}

/// The shards that it serves.
async fn served_by(node: &Server) -> Vec<usize> {
    let told = cluster_of(node).await;
    let shards = told["shards"].as_array().unwrap().clone();
    let served = shards.iter().filter(|shard| shard["serving"] == true);
    served.map(|shard| usize::try_from(shard["shard"].as_u64().unwrap()).unwrap()).collect()
}

/// Waits until each shard is served, by one of these nodes; which, by shard.
async fn homes(nodes: &[&Server]) -> Vec<usize> {
    until("each shard has a home", async || {
        let mut homes = vec![None; SHARDS];
        for (number, node) in nodes.iter().enumerate() {
            for shard in served_by(node).await {
                // Looked at one after the other: a shard that moves meanwhile may be seen twice, and is asked again.
                if homes[shard].replace(number).is_some() {
                    return None;
                }
            }
        }
        homes.into_iter().collect()
    })
    .await
}

/// Waits until the shards lie where they stay: by how the live nodes place them.
async fn settled(nodes: &[&Server]) -> Vec<usize> {
    let mut names = Vec::new();
    for node in nodes {
        names.push(name_of(node).await);
    }
    let placed: Vec<usize> = (0..SHARDS)
        .map(|shard| {
            let shard = hearth::ids::ShardId::numbered(u16::try_from(shard).unwrap()).unwrap();
            let name = hearth::home::placement::node_of(shard, names.iter().map(String::as_str)).unwrap();
            names.iter().position(|known| known == name).unwrap()
        })
        .collect();
    until("the shards are where they are placed", async || (homes(nodes).await == placed).then_some(()))
        .await;
    placed
}

fn shard_of(player: &str) -> usize {
    let placement = hearth::home::placement::Placement::of(u16::try_from(SHARDS).unwrap()).unwrap();
    usize::from(placement.shard_of(&hearth::ids::PlayerId::parse(player).unwrap()).number())
}

fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("player-{number}"))
}

/// A player who writes without a pause, every change durable, until she is moved or her link ends.
struct Writer {
    name: String,
    player: Player,
    sent: u64,
    acked: u64,
    last_ack: Instant,
}

/// How her writing ended.
enum Ended {
    Moved(Value),
    Closed,
}

impl Writer {
    async fn at(node: &Server, name: String) -> Self {
        let player = node.login(&name).await;
        Self { name, player, sent: 0, acked: 0, last_ack: Instant::now() }
    }

    async fn write(&mut self) {
        self.sent += 1;
        let change = json!({"incr": {"n": 1}, "cseq": self.sent, "ack": "durable"});
        self.player.send("state.patch", change).await;
    }

    /// Until `for_how_long` is over and an answer has come, or she has to go.
    async fn writes(&mut self, for_how_long: Duration) -> Option<Ended> {
        let began = Instant::now();
        loop {
            self.write().await;
            loop {
                match self.player.hear().await {
                    Heard::Frame(frame) if frame.op == "ok" => {
                        assert_eq!(frame.body["ack"], "durable");
                        (self.acked, self.last_ack) = (self.acked + 1, Instant::now());
                        break;
                    }
                    Heard::Frame(frame) if frame.op == "moved" => return Some(Ended::Moved(frame.body)),
                    Heard::Frame(frame) if frame.op == "error" || frame.op == "rolled_back" => {
                        panic!("{}: {frame:?}", self.name);
                    }
                    Heard::Frame(_) => {}
                    Heard::Closed(_) => return Some(Ended::Closed),
                }
            }
            if began.elapsed() >= for_how_long {
                return None;
            }
        }
    }

    /// Comes back there: nothing acked is lost, nothing is there twice, and nobody speaks of a rollback.
    async fn resumes_at(&mut self, url: &str) {
        let credentials = self.player.credentials();
        self.player = resumed(url, &credentials).await;
        let ready = &self.player.ready;
        assert_eq!((&ready["resumed"], &ready["rolled_back"]), (&json!(true), &Value::Null), "{ready}");
        let survived = ready["cseq"].as_u64().unwrap();
        assert!(
            (self.acked..=self.sent).contains(&survived),
            "{survived} of {} acked, {} sent",
            self.acked,
            self.sent
        );
        assert_eq!(self.player.state().await["n"], survived);
        (self.sent, self.acked) = (survived, survived);
    }
}

/// Resumes as a client does: again, while she is told that it is too early.
async fn resumed(url: &str, credentials: &Credentials) -> Player {
    until("the session is taken up again", async || {
        let mut player = Player::connect(url, Encoding::MessagePack).await;
        match player.try_resume(credentials).await {
            Ok(()) => Some(player),
            Err(refused) => {
                assert_eq!(refused["code"], "not_home", "{refused}");
                None
            }
        }
    })
    .await
}

/// Writers at the homes of their shards.
async fn writers(nodes: &[&Server], homes: &[usize], count: usize) -> Vec<(usize, Writer)> {
    let mut writers = Vec::new();
    for name in names(count) {
        let home = homes[shard_of(&name)];
        writers.push((home, Writer::at(nodes[home], name).await));
    }
    writers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_share_the_shards_and_a_third_takes_its_part_while_players_write() {
    let redis = RedisServer::start();
    let (one, two) = (started(node_on(&redis)).await, started(node_on(&redis)).await);
    let before = settled(&[&one, &two]).await;
    let share = before.iter().filter(|home| **home == 0).count();
    assert!((SHARDS / 4..=SHARDS * 3 / 4).contains(&share), "{share} of {SHARDS}");

    let writers = writers(&[&one, &two], &before, 24).await;
    // Where each shard lies once all has settled.
    let (settles, settled_at) = tokio::sync::watch::channel(Vec::new());
    let mut writing = tokio::task::JoinSet::new();
    for (home, mut writer) in writers {
        let settled_at = settled_at.clone();
        writing.spawn(async move {
            let (mut moved, mut stays) = (None, false);
            while moved.is_none() && !stays {
                // Who has to go is told so a moment behind the move itself, on a busy machine.
                stays = settled_at.borrow().get(shard_of(&writer.name)) == Some(&home);
                match writer.writes(Duration::from_millis(20)).await {
                    Some(Ended::Moved(to)) => {
                        writer.resumes_at(to["url"].as_str().unwrap()).await;
                        let pause = writer.last_ack.elapsed();
                        assert_eq!(writer.player.ready["node"], to["node"]);
                        assert!(to["within_ms"].as_u64().unwrap() > 0);
                        moved = Some(pause);
                    }
                    Some(Ended::Closed) => panic!("{} was not told where to go", writer.name),
                    None => {}
                }
            }
            assert!(writer.writes(Duration::from_millis(20)).await.is_none());
            (home, moved, writer)
        });
    }
    let three = started(node_on(&redis)).await;
    let nodes = [&one, &two, &three];
    let after = settled(&nodes).await;
    settles.send(after.clone()).unwrap();
    let moves = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert!((SHARDS / 8..=SHARDS * 5 / 8).contains(&moves), "{moves} of {SHARDS}");
    for (before, after) in before.iter().zip(&after) {
        assert!(before == after || *after == 2, "a shard went from {before} to {after}");
    }
    let (mut pauses, mut stayed) = (Vec::new(), 0);
    while let Some(done) = tokio::time::timeout(PATIENCE, writing.join_next()).await.expect("all were told") {
        let (home, moved, writer) = done.unwrap();
        let goes = after[shard_of(&writer.name)];
        assert_eq!(moved.is_some(), goes != home, "{} of {home} is at {goes}", writer.name);
        match moved {
            Some(pause) => pauses.push(pause),
            None => stayed += 1,
        }
    }
    assert!(!pauses.is_empty() && stayed > 0);
    pauses.sort();
    eprintln!(
        "{moves} shards and {} players moved, pauses of {:?} to {:?}",
        pauses.len(),
        pauses[0],
        pauses[pauses.len() - 1]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_asked_to_stop_hands_its_players_over() {
    let redis = RedisServer::start();
    let (one, two, mut three) =
        (started(node_on(&redis)).await, started(node_on(&redis)).await, started(node_on(&redis)).await);
    let before = settled(&[&one, &two, &three]).await;
    let writers = writers(&[&one, &two, &three], &before, 24).await;
    let (stayers, leavers): (Vec<_>, Vec<_>) = writers.into_iter().partition(|(home, _)| *home != 2);
    assert!(!stayers.is_empty() && !leavers.is_empty());
    let urls: BTreeMap<String, usize> = [(one.url().to_owned(), 0), (two.url().to_owned(), 1)].into();
    let mut writing = tokio::task::JoinSet::new();
    for (_, mut writer) in leavers {
        let urls = urls.clone();
        writing.spawn(async move {
            let to = loop {
                match writer.writes(Duration::from_secs(60)).await {
                    Some(Ended::Moved(to)) => break to,
                    Some(Ended::Closed) => panic!("{} was not told where to go", writer.name),
                    None => {}
                }
            };
            let (url, left) = (to["url"].as_str().unwrap(), writer.last_ack);
            let home = urls[url];
            writer.resumes_at(url).await;
            (home, left.elapsed(), writer)
        });
    }
    // They write by now.
    three.until_metric("hearth_commits_total", "done", 50).await;
    three.ask_to_stop();
    let (mut players, mut longest) = (Vec::new(), Duration::ZERO);
    while let Some(done) = writing.join_next().await {
        let (home, pause, writer) = done.unwrap();
        longest = longest.max(pause);
        players.push((home, writer));
    }
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    assert!(three.wait_for_end().success(), "{}", three.log());
    let after = settled(&[&one, &two]).await;
    for (before, after) in before.iter().zip(&after).filter(|(before, _)| **before != 2) {
        assert_eq!(before, after, "what was not the leaver's stays where it was");
    }
    for (home, mut writer) in players {
        assert_eq!(home, after[shard_of(&writer.name)]);
        assert!(writer.writes(Duration::ZERO).await.is_none());
    }
    for (_, mut writer) in stayers {
        assert!(writer.writes(Duration::ZERO).await.is_none(), "who was not the leaver's is not disturbed");
    }
    eprintln!("the longest pause was {longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shards_of_a_node_that_was_killed_are_taken_when_its_leases_end() {
    let redis = RedisServer::start();
    let (one, mut two) = (started(node_on(&redis)).await, started(node_on(&redis)).await);
    let before = settled(&[&one, &two]).await;
    let writers = writers(&[&one, &two], &before, 16).await;
    let mut orphans = Vec::new();
    for (home, mut writer) in writers {
        assert!(writer.writes(Duration::ZERO).await.is_none());
        if home == 1 {
            orphans.push(writer);
        }
    }
    assert!(!orphans.is_empty());
    let killed = Instant::now();
    two.kill9();
    until("the survivor serves all", async || (served_by(&one).await.len() == SHARDS).then_some(())).await;
    let taken = killed.elapsed();
    assert!(taken <= Duration::from_millis(LEASE_MS + 1_000), "{taken:?}");
    for mut writer in orphans {
        writer.resumes_at(one.url()).await;
        assert!(writer.writes(Duration::ZERO).await.is_none());
    }
    eprintln!("taken after {taken:?} of a lease of {LEASE_MS} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_store_its_last_changes_keeps_its_shards() {
    let redis = RedisServer::start();
    let one = started(node_on(&redis)).await;
    let homes = settled(&[&one]).await;
    let mut writers = writers(&[&one], &homes, 8).await;
    for (_, writer) in &mut writers {
        assert!(writer.writes(Duration::ZERO).await.is_none());
    }
    // Nothing may be written any more, while leases are renewed: a Redis that is full.
    redis.query::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    for (_, writer) in &mut writers {
        writer.sent += 1;
        writer.acked += 1;
        let change = json!({"incr": {"n": 1}, "set": {"pad": "x".repeat(512)}, "cseq": writer.sent});
        writer.player.patch(change).await;
    }
    // Another node comes that is to have some of them; membership is heard of in a full Redis, too.
    let soon = hearth::clock::now().unix_ms + 600_000;
    let says = json!({"url": "ws://other", "formats": {"min": 1, "max": 9, "writes": 2}});
    let join = "#!lua flags=allow-oom\nreturn redis.call('HSET', KEYS[1], 'other', ARGV[1])";
    redis.query::<()>(&["EVAL", join, "1", "test:nodes", &format!("{soon} {soon} other#1 {says}")]);
    // Or is not even begun, where the node knows by then that the store takes nothing.
    until("a drain has come to nothing", async || {
        let knows =
            one.log().contains("came=\"other\"") && one.metric("hearth_shards_held_back", "").await > 0;
        (knows || one.log().contains("shards stay")).then_some(())
    })
    .await;
    redis.query::<()>(&["HDEL", "test:nodes", "other"]);
    until("the node is alone again", async || {
        (cluster_of(&one).await["nodes"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    redis.query::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(settled(&[&one]).await, homes);
    until("what was dirty is stored", async || {
        (one.metric("hearth_records_dirty", "").await == 0).then_some(())
    })
    .await;
    for (_, mut writer) in writers {
        if !writer.player.is_alive().await || writer.player.was_told("moved") {
            // Her last change was stored before Redis was full.
            writer.resumes_at(one.url()).await;
        }
        assert_eq!(writer.player.state().await["n"], writer.sent);
        assert!(writer.writes(Duration::ZERO).await.is_none());
    }
}

/// What `hearth shards` prints, line by line, word by word.
fn printed_by(arguments: &[&str], key: &str) -> (Option<i32>, Vec<Vec<String>>) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hearth"));
    let done = command.arg("shards").args(arguments).env("HEARTH_SERVICE_KEY", key).output().unwrap();
    let out = String::from_utf8(done.stdout).unwrap();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    (done.status.code(), out.lines().map(words).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_tells_who_holds_what() {
    let redis = RedisServer::start();
    let (one, two) = (started(node_on(&redis)).await, started(node_on(&redis)).await);
    let homes = settled(&[&one, &two]).await;
    let names = [name_of(&one).await, name_of(&two).await];
    let count = |home: usize| homes.iter().filter(|shard| **shard == home).count();
    for node in [&one, &two] {
        let told = until("all homes are known", async || {
            let told = cluster_of(node).await;
            let known: Vec<_> =
                told["shards"].as_array().unwrap().iter().map(|shard| shard["home"].clone()).collect();
            let meant: Vec<_> = homes.iter().map(|home| json!(names[*home])).collect();
            (known == meant).then_some(told)
        })
        .await;
        let nodes = told["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 2, "{told}");
        for (server, name) in [(&one, &names[0]), (&two, &names[1])] {
            let view = nodes.iter().find(|view| view["node"] == **name).unwrap();
            assert_eq!((&view["url"], &view["draining"]), (&json!(server.url()), &json!(false)));
            assert!(
                view["age_ms"].as_u64().unwrap() < 10_000 && view["boot"].as_str().unwrap().len() == 16,
                "{view}"
            );
        }
        let url = node.service_url().to_owned();
        let (code, lines) = printed_by(&["--service-url", &url], KEY);
        assert_eq!((code, lines.len()), (Some(0), 3), "{lines:?}");
        for (home, name) in names.iter().enumerate() {
            let line = lines.iter().find(|line| line[0] == *name).unwrap();
            assert_eq!(line[1], count(home).to_string(), "{lines:?}");
        }
        assert_eq!(printed_by(&["--service-url", &url], "another key").0, Some(64));
    }
    assert_eq!(printed_by(&["--service-url", "http://127.0.0.1:1"], KEY).0, Some(69));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_of_one_name_the_older_one_ends_and_says_why() {
    let redis = RedisServer::start();
    let named = || node_on(&redis).with("node_id", "twin");
    let mut older = started(named()).await;
    let mut ann = older.login("ann").await;
    ann.patch_durably(json!({"set": {"a": 1}})).await;
    let newer = started(named()).await;
    assert_eq!(older.wait_for_end().code(), Some(64));
    let told = older.log();
    assert!(
        told.lines()
            .any(|line| line.starts_with("hearth: ") && line.contains("twin") && line.contains("node_id")),
        "{told}"
    );
    let mut ann = newer.resume(&ann.credentials()).await;
    assert_eq!(ann.state().await, json!({"a": 1}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_live_side_by_side_that_read_each_other_and_no_others() {
    let redis = RedisServer::start();
    let one = started(node_on(&redis)).await;
    let format: u32 = redis.query(&["HGET", "test:cfg", "format_max"]);
    let soon = hearth::clock::now().unix_ms + 600_000;
    let other = |min: u32, max: u32, writes: u32| {
        let says = json!({"url": "ws://other", "formats": {"min": min, "max": max, "writes": writes}, "drains": true});
        let entry = format!("{soon} {soon} other#1 {says}");
        redis.query::<()>(&["HSET", "test:nodes", "other", &entry]);
    };
    // A newer version that reads more, and writes what all read.
    other(format, format + 1, format);
    let two = started(node_on(&redis)).await;
    settled(&[&one, &two]).await;
    // One that writes what we do not read.
    other(format, format + 1, format + 1);
    let exit = tokio::task::spawn_blocking({
        let starting = node_on(&redis);
        || starting.fails()
    });
    let exit = exit.await.unwrap();
    assert_eq!(exit.code, Some(64), "{exit:?}");
    assert!(exit.lines.len() == 1 && exit.lines[0].contains("other"), "{exit:?}");
    redis.query::<()>(&["HDEL", "test:nodes", "other"]);
    // A cluster that has been upgraded.
    redis.query::<()>(&["HSET", "test:cfg", "format_max", &(format + 1).to_string()]);
    let starting = node_on(&redis);
    let exit = tokio::task::spawn_blocking(|| starting.fails()).await.unwrap();
    assert_eq!(exit.code, Some(64), "{exit:?}");
    assert!(exit.lines.len() == 1 && exit.lines[0].contains("formats"), "{exit:?}");
    // Neither has disturbed those who live.
    settled(&[&one, &two]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_program_of_the_same_cluster_name_is_told_in_one_line() {
    let redis = RedisServer::start();
    redis.query::<()>(&[
        "HSET",
        "test:cfg",
        "shards",
        &SHARDS.to_string(),
        "format_min",
        "0",
        "format_max",
        "0",
    ]);
    let starting = node_on(&redis);
    let exit = tokio::task::spawn_blocking(|| starting.fails()).await.unwrap();
    assert_eq!(exit.code, Some(64), "{exit:?}");
    assert!(exit.lines.len() == 1 && exit.lines[0].contains("cluster.name"), "{exit:?}");
}

#[tokio::test]
async fn what_another_program_leaves_among_living_nodes_is_told_once_and_hides_nobody() {
    let redis = RedisServer::start();
    let nodes = crate::harness::nodes::two_nodes(&redis).await;
    redis.query::<()>(&["HSET", "test:nodes", "alien", "not ours"]);
    let told = |node: &Server| {
        let log = node.log();
        let lines = log.lines().filter(|line| line.contains("cannot be read"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let heard = |from: &str| redis.query::<String>(&["HGET", "test:nodes", from]);
    for node in &nodes {
        let (_, cluster) = Service::of(node, crate::harness::nodes::KEY).get("/v1/cluster").await;
        let name = cluster["node"].as_str().unwrap();
        until("it is told", async || (!told(node).is_empty()).then_some(())).await;
        for _ in 0..2 {
            let before = heard(name);
            until("another heartbeat", async || (heard(name) != before).then_some(())).await;
        }
        let lines = told(node);
        assert!(lines.len() == 1 && lines[0].contains("alien"), "{lines:?}");
        let (_, cluster) = Service::of(node, crate::harness::nodes::KEY).get("/v1/cluster").await;
        assert_eq!(cluster["nodes"].as_array().unwrap().len(), 2, "{cluster}");
    }
}
