//! One player logs in at three nodes at once, a hundred times a second, through redirects and relays: the login policy
//! holds over the cluster, and whoever has to go is told why. A link that is half dead locks nobody out, and whatever
//! comes late from it touches nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::fates::{BETWEEN, Fate, ROUNDS, hold, lives, login_at, most_at_a_time, sessions, storm};
use crate::harness::patience::{PATIENCE, until};
use crate::harness::player::Player;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::socket::{Encoding, Heard};
use crate::nodes::{KEY, three_nodes};
use crate::relay::Relay;
use crate::server::{Starting, address};

/// How long a winner stays under a policy that refuses the others.
const STAY: Duration = Duration::from_millis(100);
/// A link is given up after twice this without a word; her place is free when the grace is over, too.
const HEARTBEAT_MS: u64 = 1_000;
const GRACE_MS: u64 = 500;

/// Three nodes of this login policy, with limits that are far away.
async fn nodes_under(redis: &RedisServer, policy: &str) -> Vec<Server> {
    nodes_with(redis, |node| node.with("session.login_policy", policy)).await
}

async fn nodes_with(redis: &RedisServer, more: impl Fn(Starting) -> Starting) -> Vec<Server> {
    let limits = ["connects_per_s", "connects_burst", "logins_per_s", "logins_burst"];
    let settings = |node: Starting| {
        let node = more(node).with_lease(4_000);
        limits.iter().fold(node, |node, limit| node.with(&format!("limits.{limit}"), 100_000))
    };
    three_nodes(&redis.url(), settings).await
}

/// The same, that soon find out that a link is dead.
async fn quick_nodes_under(redis: &RedisServer, policy: &str) -> Vec<Server> {
    nodes_with(redis, |node| {
        let node = node.with("presence.grace_ms", GRACE_MS).with("link.heartbeat_ms", HEARTBEAT_MS);
        node.with("session.login_policy", policy)
    })
    .await
}

/// All the time from her first login to the end somebody sees her as here.
async fn sees_her_all_the_time(node: Arc<str>, began: watch::Sender<bool>, mut end: watch::Receiver<bool>) {
    let login = json!({"token": "dev:watcher", "relay": true});
    let (mut socket, op, body) = login_at(&node, &login, Encoding::Json).await;
    assert_eq!(op, "ready", "{body}");
    socket.send("watch", 2, &json!({"players": ["ann"]})).await;
    let mut told = Vec::new();
    loop {
        tokio::select! {
            heard = socket.hear() => match heard {
                Heard::Frame(frame) if frame.op == "presence" => {
                    let items = frame.body["items"].as_array().unwrap();
                    told.extend(items.iter().map(|item| item["status"].as_str().unwrap().to_owned()));
                }
                Heard::Frame(frame) if frame.op == "ok" => _ = began.send_replace(true),
                Heard::Frame(_) => {}
                Heard::Closed(code) => panic!("the watcher's link ended with {code:?}"),
            },
            () = async { drop(end.wait_for(|ended| *ended).await) } => break,
        }
    }
    assert!(told.iter().all(|status| status == "online") && !told.is_empty(), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_replace_the_latest_login_stays_wherever_it_came_in() {
    let redis = RedisServer::start();
    let nodes = nodes_under(&redis, "replace").await;
    let ((began, mut begins), (ends, end)) = (watch::channel(false), watch::channel(false));
    let mut watcher = JoinSet::new();
    watcher.spawn(sees_her_all_the_time(nodes[1].url().into(), began, end));
    begins.wait_for(|began| *began).await.unwrap();
    let fates = storm(&nodes, ROUNDS, ["pc", "mobile", "web"], None, 1).await;
    assert_eq!(hold(&nodes, &fates, 4504, Some(4504)).await, 1);
    ends.send_replace(true);
    watcher.join_next().await.unwrap().unwrap();
    let came = fates.iter().filter(|fate| matches!(fate, Fate::Closed(..))).count();
    println!("{came} were let in and replaced");
    assert!(came > ROUNDS / 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_reject_one_is_let_in_at_a_time_wherever_it_came_in() {
    let redis = RedisServer::start();
    let nodes = nodes_under(&redis, "reject").await;
    let fates = storm(&nodes, ROUNDS, ["pc", "mobile", "web"], Some(STAY), 1).await;
    assert_eq!(hold(&nodes, &fates, 4505, None).await, 0);
    assert_eq!(most_at_a_time(&fates), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_many_so_many_are_let_in_at_a_time_wherever_they_came_in() {
    let redis = RedisServer::start();
    let nodes = nodes_under(&redis, "many(2)").await;
    let fates = storm(&nodes, ROUNDS, ["pc", "pc", "pc"], Some(STAY), 2).await;
    assert_eq!(hold(&nodes, &fates, 4505, None).await, 0);
    assert_eq!(most_at_a_time(&fates), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_per_device_the_latest_of_each_device_stays_wherever_it_came_in() {
    let redis = RedisServer::start();
    let nodes = nodes_under(&redis, "per_device").await;
    let fates = storm(&nodes, ROUNDS, ["pc", "mobile", "web"], None, 3).await;
    assert_eq!(hold(&nodes, &fates, 4504, Some(4504)).await, 3);
}

/// Her home dies in the storm. Until another one has its lease nobody gets in, and then one stands.
#[tokio::test(flavor = "multi_thread")]
async fn under_replace_one_stands_when_her_home_dies_in_the_storm() {
    let redis = RedisServer::start();
    let mut nodes = nodes_under(&redis, "replace").await;
    let mut first = Player::connect(nodes[0].url(), Encoding::Json).await;
    first.login_with(json!({"token": "dev:ann", "relay": true})).await;
    let mut home = nodes.remove(home_of_hers(&nodes).await);
    let (ends, end) = watch::channel(false);
    let mut logins = JoinSet::new();
    let mut ticks = tokio::time::interval(BETWEEN);
    for round in 0.. {
        ticks.tick().await;
        if round == ROUNDS {
            home.kill9();
        }
        // Until she is at home elsewhere, and for a while then.
        if round >= 2 * ROUNDS && round % 50 == 0 && is_at_home(&nodes[0]).await {
            break;
        }
        assert!(round < 20 * ROUNDS, "nobody takes her in");
        for node in &nodes {
            // Carried, since who is sent to a dead node finds nobody.
            logins.spawn(lives(node.url().into(), 2 * round, "pc", None, end.clone()));
        }
    }
    let mut fates = Vec::new();
    while logins.len() > 1 {
        let told = timeout(PATIENCE, logins.join_next()).await;
        fates.push(told.expect("who has to go is told").unwrap().unwrap());
    }
    ends.send_replace(true);
    fates.extend(logins.join_all().await);
    let (mut standing, mut not_home) = (Vec::new(), 0);
    for fate in fates {
        match fate {
            Fate::Stands(session, _) => standing.push(session),
            Fate::Closed(Some(4504 | 4000), ..) | Fate::Refused(_, Some(4504)) => {}
            Fate::Refused(code, None) if code == "not_home" => not_home += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(not_home > 0, "nobody noticed");
    assert_eq!(standing.len(), 1, "{standing:?}");
    for node in &nodes {
        let told = sessions(node).await;
        assert_eq!((told.len(), &told[0]["session"]), (1, &json!(standing[0])), "{told:?}");
    }
}

/// Whether somebody has been let in at her new home: what the dead one left in the store has no link.
async fn is_at_home(node: &Server) -> bool {
    let (status, told) = Service::of(node, KEY).get("/v1/players/ann").await;
    status == 200 && told["sessions"].as_array().unwrap().iter().any(|session| session["attached"] == true)
}

/// Which of these nodes is her home.
async fn home_of_hers(nodes: &[Server]) -> usize {
    let home = Service::of(&nodes[0], KEY).get("/v1/players/ann").await.1["home"]["node"].clone();
    for (place, node) in nodes.iter().enumerate() {
        if Service::of(node, KEY).get("/v1/cluster").await.1["node"] == home {
            return place;
        }
    }
    panic!("{home} is none of them")
}

/// Nodes; a player whose link leads over a relay to one of them that is not her home, and carried to her home.
struct HalfDead {
    nodes: Vec<Server>,
    old: Player,
    relay: Relay,
}

impl HalfDead {
    /// Both ends take her link for alive, and nothing comes through it; she has said goodbye into it.
    async fn under(redis: &RedisServer, policy: &str) -> Self {
        let nodes = quick_nodes_under(redis, policy).await;
        let relay = Relay::to(address(&nodes[0])).await;
        let mut old = Player::connect(&relay.url(), Encoding::Json).await;
        old.login_with(json!({"token": "dev:ann", "relay": true})).await;
        old.patch_durably(json!({"set": {"gold": 5}, "cseq": 1})).await;
        relay.fall_silent();
        old.send("state.patch", json!({"set": {"gold": 0}})).await;
        old.send("logout", json!({})).await;
        Self { nodes, old, relay }
    }

    /// What she said comes through at last, and then the link ends: it touches nobody.
    async fn comes_late(self, new: &mut Player) {
        let Self { nodes, mut old, relay } = self;
        relay.speak_again();
        assert!(matches!(old.expect_end().await, Some(4001 | 4004 | 4504) | None));
        drop((old, relay));
        for node in &nodes {
            let told = sessions(node).await;
            assert_eq!((told.len(), &told[0]["session"]), (1, &new.ready["session"]), "{told:?}");
            assert_eq!(told[0]["attached"], true, "{told:?}");
        }
        assert_eq!(new.state().await, json!({"gold": 5}));
        new.patch(json!({"incr": {"gold": 1}})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_dead_link_makes_way_for_a_newer_login_at_once() {
    for policy in ["replace", "per_device"] {
        let redis = RedisServer::start();
        let story = HalfDead::under(&redis, policy).await;
        let began = Instant::now();
        let mut new = Player::connect(story.nodes[1].url(), Encoding::MessagePack).await;
        new.login_with(json!({"token": "dev:ann", "relay": true})).await;
        assert!(began.elapsed() < Duration::from_millis(2 * HEARTBEAT_MS), "{:?}", began.elapsed());
        story.comes_late(&mut new).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_dead_link_makes_way_for_a_resume_at_once() {
    for policy in ["replace", "reject", "many(1)"] {
        let redis = RedisServer::start();
        let story = HalfDead::under(&redis, policy).await;
        let began = Instant::now();
        let mut new = Player::connect(story.nodes[2].url(), Encoding::MessagePack).await;
        new.try_resume_carried(&story.old.credentials()).await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(2 * HEARTBEAT_MS), "{:?}", began.elapsed());
        story.comes_late(&mut new).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_dead_link_keeps_a_login_out_no_longer_than_its_silence_and_the_grace() {
    for policy in ["reject", "many(1)"] {
        let redis = RedisServer::start();
        let story = HalfDead::under(&redis, policy).await;
        let began = Instant::now();
        let refusals = AtomicUsize::new(0);
        let mut new = until("her place is free", async || {
            let mut new = Player::connect(story.nodes[1].url(), Encoding::Json).await;
            match new.ask("login", json!({"token": "dev:ann", "relay": true})).await {
                Ok(_) => return Some(new),
                Err(refused) => assert_eq!(
                    (&refused["code"], &refused["temporary"]),
                    (&json!("session_limit"), &json!(true))
                ),
            }
            refusals.fetch_add(1, Ordering::Relaxed);
            None
        })
        .await;
        let allowed = Duration::from_millis(2 * HEARTBEAT_MS + GRACE_MS) + Duration::from_secs(2);
        let refusals = refusals.into_inner();
        assert!(refusals > 0 && began.elapsed() < allowed, "{refusals} refusals, {:?}", began.elapsed());
        story.comes_late(&mut new).await;
    }
}

/// The node in the middle stops, with her link and all that it was to carry; her home hears nothing and thinks the best.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_in_the_middle_locks_nobody_out() {
    let redis = RedisServer::start();
    let nodes = nodes_under(&redis, "replace").await;
    let mut first = Player::connect(nodes[0].url(), Encoding::Json).await;
    first.login_with(json!({"token": "dev:ann", "relay": true})).await;
    let home = home_of_hers(&nodes).await;
    let (middle, other) = (&nodes[(home + 1) % 3], &nodes[(home + 2) % 3]);
    let mut old = Player::connect(middle.url(), Encoding::Json).await;
    old.login_with(json!({"token": "dev:ann", "relay": true})).await;
    middle.pause();
    old.send("logout", json!({})).await;
    let mut new = Player::connect(other.url(), Encoding::Json).await;
    new.login_with(json!({"token": "dev:ann", "relay": true})).await;
    middle.go_on();
    assert!(matches!(old.expect_end().await, Some(4504 | 4000) | None));
    let told = sessions(other).await;
    assert_eq!((told.len(), &told[0]["session"]), (1, &new.ready["session"]), "{told:?}");
    assert_eq!(told[0]["attached"], true, "{told:?}");
    new.pings().await;
}
