//! What is promised to the players of a home that was cut off from its Redis: the next home asks it for what it could not
//! store, so nothing that was acked is lost, nothing takes effect twice, and who has left stays away. Where it cannot be
//! asked, each of them is told.

use std::time::Instant;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::bridge::{Bridge, Silence};
use crate::harness::nodes::{KEY, SHARDS, node_on, nodes, players_of, served_by};
use crate::harness::patience::until;
use crate::harness::player::{Credentials, Player};
use crate::harness::redis_server::RedisServer;
use crate::harness::server::{Server, Starting};
use crate::harness::socket::Heard;

/// Two nodes that share the shards; the second one's way to Redis is a bridge.
struct Cluster {
    here: Server,
    there: Server,
    bridge: Bridge,
    _redis: RedisServer,
}

impl Cluster {
    async fn with_lease(lease_ms: u64) -> Self {
        let redis = RedisServer::builder().on_tcp().start();
        let bridge = Bridge::to(&redis.tcp_url()).await;
        let fast = |node: Starting| {
            let fast = ["link_frames_per_s", "link_frames_burst"];
            fast.iter().fold(node, |node, name| node.with(&format!("limits.{name}"), 100_000))
        };
        let here = fast(node_on(&redis).with_lease(lease_ms)).start();
        let there = Server::on_url(&bridge.url).with_lease(lease_ms).with("service_key", KEY);
        let there = fast(there.with("cluster.shards", SHARDS));
        let there = tokio::task::spawn_blocking(|| there.start()).await.unwrap();
        until("each has its part", async || {
            let served = [served_by(&here).await.len(), served_by(&there).await.len()];
            (served.iter().sum::<usize>() == usize::from(SHARDS) && !served.contains(&0)).then_some(())
        })
        .await;
        Self { here, there, bridge, _redis: redis }
    }

    /// Nobody may change anything there any more, and everybody is at home here.
    async fn until_all_is_here(&self) {
        until("the other one has all", async || {
            (served_by(&self.here).await.len() == usize::from(SHARDS)).then_some(())
        })
        .await;
    }

    /// A session taken up again at its new home.
    async fn resumes(&self, credentials: &Credentials) -> Player {
        until("the session is taken up again", async || {
            let mut player = self.here.connect().await;
            player.try_resume_carried(credentials).await.ok().map(|()| player)
        })
        .await
    }

    async fn salvaged(&self, outcome: &str) -> u64 {
        let label = format!("outcome=\"{outcome}\"");
        self.here.metric("hearth_salvaged_records_total", &label).await
    }
}

fn change(cseq: u64) -> Value {
    json!({"incr": {"n": 1}, "cseq": cseq})
}

/// Reads an old link to its end: whether something was said to be lost, and whether she was sent elsewhere.
async fn hears_the_end(mut player: Player) -> (bool, bool) {
    let (mut is_lost, mut is_sent) = (false, false);
    loop {
        match player.hear().await {
            Heard::Frame(frame) => {
                is_lost |= frame.op == "rolled_back";
                is_sent |= frame.op == "moved";
            }
            Heard::Closed(code) => {
                assert_eq!(code, Some(4001));
                return (is_lost, is_sent);
            }
        }
    }
}

/// What was acked on a home whose Redis falls silent is there when its player comes back to the next one.
async fn nothing_is_lost_when_redis(silence: Silence) {
    let cluster = Cluster::with_lease(3_000).await;
    let mut theirs = players_of(&cluster.there).await;
    let (hers, other) = (theirs.next().unwrap(), theirs.next().unwrap());
    let mut ann = cluster.there.login(&hers).await;
    let mut bob = cluster.there.login(&other).await;
    ann.patch_durably(change(1)).await;
    bob.patch_durably(change(1)).await;
    cluster.bridge.falls_silent(silence);
    for cseq in 2..=4 {
        assert_eq!(ann.patch(change(cseq)).await["ack"], "applied");
    }
    let credentials = ann.credentials();
    cluster.until_all_is_here().await;
    let mut ann_here = cluster.resumes(&credentials).await;
    let ready = &ann_here.ready;
    assert_eq!((&ready["rolled_back"], &ready["cseq"]), (&Value::Null, &json!(4)), "{ready}");
    assert_eq!(ann_here.state().await, json!({"n": 4}));
    assert_eq!(ann_here.patch(change(4)).await["dup"], true, "it took effect there");
    ann_here.patch_durably(change(5)).await;
    assert_eq!(hears_the_end(ann).await, (false, true), "the old home knows that the next one has all");
    assert!(!hears_the_end(bob).await.0, "nothing of his was not stored");
    let known = [cluster.salvaged("taken").await, cluster.salvaged("stored").await];
    assert!(known.iter().sum::<u64>() > 0, "{known:?}");
    assert_eq!((cluster.salvaged("another").await, cluster.salvaged("refused").await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_hears_nothing_of_its_redis_gives_the_next_one_what_it_could_not_store() {
    nothing_is_lost_when_redis(Silence::BothWays).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_when_only_the_answers_of_its_redis_do_not_come() {
    nothing_is_lost_when_redis(Silence::Replies).await;
}

/// Changes her state as fast as she is answered, until her link ends: what was acked last, and asked for last.
async fn goes_on(mut player: Player) -> (Credentials, u64, u64) {
    let (mut acked, mut asked) = (0, 0);
    loop {
        asked = asked.max(acked + 1);
        let credentials = player.credentials();
        match player.ask_or_end("state.patch", change(acked + 1)).await {
            Ok(Ok(_)) => acked += 1,
            Ok(Err(refused)) => assert_eq!(refused["code"], "not_home", "{refused}"),
            // Or with an answer that could no longer leave.
            Err(code) => {
                assert!(matches!(code, Some(4000 | 4001)), "{code:?}");
                return (credentials, acked, asked);
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_hundred_players_at_work_on_a_home_that_is_cut_off_nobody_loses_anything() {
    let cluster = Cluster::with_lease(3_000).await;
    let mut players = JoinSet::new();
    for name in players_of(&cluster.there).await.take(200) {
        let player = cluster.there.login(&name).await;
        players.spawn(goes_on(player));
    }
    cluster.bridge.falls_silent(Silence::BothWays);
    let ended = players.join_all().await;
    assert_eq!(ended.len(), 200);
    let mut beyond = 0;
    for (credentials, acked, asked) in ended {
        let mut player = cluster.resumes(&credentials).await;
        let ready = player.ready.clone();
        assert_eq!(ready["rolled_back"], Value::Null, "{ready}");
        let survived = ready["cseq"].as_u64().unwrap();
        assert!(survived >= acked && survived <= asked, "{acked} acked, {asked} asked: {ready}");
        assert_eq!(player.state().await, json!({"n": survived}), "each once");
        assert_eq!(player.patch(change(survived)).await["dup"], true);
        beyond += survived - acked;
    }
    println!(
        "{} records came from the home before, {beyond} changes unanswered",
        cluster.salvaged("taken").await
    );
    assert!(cluster.salvaged("taken").await > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_is_asked_and_answers_too_late_gives_nothing_and_that_is_told() {
    let cluster = Cluster::with_lease(1_200).await;
    let mut ann = cluster.there.login(&players_of(&cluster.there).await.next().unwrap()).await;
    ann.patch_durably(change(1)).await;
    cluster.bridge.falls_silent(Silence::BothWays);
    ann.patch(change(2)).await;
    let credentials = ann.credentials();
    cluster.there.pause();
    cluster.until_all_is_here().await;
    let ann_here = cluster.resumes(&credentials).await;
    cluster.there.go_on();
    let ready = &ann_here.ready;
    assert_eq!((&ready["rolled_back"]["cseq"], &ready["cseq"]), (&json!(1), &json!(1)), "{ready}");
    assert_eq!(ready["rolled_back"]["from"], credentials.stamp);
    cluster.here.until_metric("hearth_salvaged_records_total", "outcome=\"late\"", 1).await;
    hears_the_end(ann).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_home_that_goes_on_tells_nothing_of_what_its_player_heard_at_the_next_one() {
    let redis = RedisServer::builder().on_tcp().start();
    // By the time that the lease ends the nodes have no link any more: the next home asks for nothing.
    let slow = |node: Starting| node.with_lease(5_000).with("home.flush_interval_ms", 1_000);
    let [here, there] = nodes(&redis, slow).await;
    let mut ann = there.login(&players_of(&there).await.next().unwrap()).await;
    ann.patch_durably(change(1)).await;
    for cseq in 2..=4 {
        assert_eq!(ann.patch(change(cseq)).await["ack"], "applied");
    }
    there.pause();
    let credentials = ann.credentials();
    let mut ann_here = until("the session is taken up again", async || {
        let mut player = here.connect().await;
        player.try_resume_carried(&credentials).await.ok().map(|()| player)
    })
    .await;
    assert_eq!(ann_here.ready["rolled_back"]["cseq"], 1, "{}", ann_here.ready);
    // What follows has the numbers of what was lost.
    for cseq in 2..=5 {
        ann_here.patch_durably(change(cseq)).await;
    }
    // A home that is asked while it wakes up knows of the next one, and sends her there.
    until("she is out of reach", async || (here.metric("hearth_peer_links", "").await == 0).then_some(()))
        .await;
    there.go_on();
    assert_eq!(hears_the_end(ann).await, (false, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_sent_away_by_a_home_that_could_not_say_so_stays_away() {
    let cluster = Cluster::with_lease(3_000).await;
    let mut ann = cluster.there.login(&players_of(&cluster.there).await.next().unwrap()).await;
    ann.patch_durably(change(1)).await;
    let credentials = ann.credentials();
    cluster.bridge.falls_silent(Silence::BothWays);
    // Her home waits for the store in vain before it says that she has left, but she has.
    ann.send("logout", json!({})).await;
    cluster.until_all_is_here().await;
    let mut again = cluster.here.connect().await;
    let refused = again.try_resume_carried(&credentials).await.unwrap_err();
    assert_eq!(refused["code"], "not_resumable", "{refused}");
    assert_eq!(cluster.salvaged("taken").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_was_cut_off_is_given_its_shards_back_when_it_can_take_them() {
    let cluster = Cluster::with_lease(3_000).await;
    cluster.bridge.falls_silent(Silence::BothWays);
    cluster.until_all_is_here().await;
    // Long enough that its store is tried again only now and then.
    cluster.there.until_metric("hearth_store_breaker_turns_total", "state=\"half_open\"", 3).await;
    cluster.there.until_metric("hearth_store_breaker_state", "", 3).await;
    // What it had said before comes through: it lives, and does not know yet that its store answers.
    cluster.bridge.falls_silent(Silence::None);
    let healed = Instant::now();
    until("something is given back", async || {
        (served_by(&cluster.here).await.len() < usize::from(SHARDS)).then_some(())
    })
    .await;
    let state = cluster.there.metric("hearth_store_breaker_state", "").await;
    assert!(state <= 1, "it cannot take any: {state}");
    until("each has its part", async || {
        let served = [served_by(&cluster.here).await.len(), served_by(&cluster.there).await.len()];
        (served.iter().sum::<usize>() == usize::from(SHARDS) && !served.contains(&0)).then_some(())
    })
    .await;
    println!("each has its part after {:?}", healed.elapsed());
}
