//! What is promised while Redis is away: whoever has lost it together with most others goes on from memory, says so, and
//! stores all of it afterwards; whoever has lost it alone is silent, and what was hers is served elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::nodes::{KEY, SHARDS, node_on, players_of, served_by, two_nodes};
use crate::harness::patience::{PATIENCE, until};
use crate::harness::player::{Credentials, Player};
use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::socket::Encoding;
use crate::harness::stages::on_every_redis;
use crate::harness::strait::Strait;

on_every_redis! {
    async fn while_redis_is_away_players_are_served_from_memory_and_nothing_of_it_is_lost(stage) {
        let starting = Server::on_durable_redis(stage).with_lease(3_000).with("service_key", KEY);
        let mut server = starting.start();
        let mut ann = server.login("ann").await;
        let bea = server.login("bea").await;
        server.login("dan").await.does("logout", json!({})).await;
        ann.patch_durably(json!({"set": {"n": 1}, "cseq": 1})).await;
        server.redis().pause();
        let told = ann.until_mode("local").await;
        assert!(told["unflushed_ms"].is_null() || told["unflushed_ms"].is_u64(), "{told}");
        server.until_local().await;
        // Longer than any lease by now.
        for n in 2..=9 {
            let done = ann.patch(json!({"set": {"n": n}, "cseq": n})).await;
            assert_eq!((&done["ack"], &done["prov"]), (&json!("applied"), &json!(true)), "{done}");
        }
        assert_eq!(ann.state().await, json!({"n": 9}));
        let refused = ann.is_refused("state.patch", json!({"set": {"m": 1}, "ack": "durable"}), "store_unavailable").await;
        assert_eq!((&refused["applied"], &refused["temporary"]), (&json!(true), &json!(true)), "{refused}");
        // Who comes, and who comes back.
        let mut cem = server.login("cem").await;
        assert_eq!(cem.ready["prov"], true, "{}", cem.ready);
        assert_eq!(cem.until_mode("local").await["mode"], "local", "right behind `ready`");
        let mut bea = server.resume(&bea.drops()).await;
        assert_eq!((&bea.ready["resumed"], &bea.ready["prov"]), (&json!(true), &json!(true)), "{}", bea.ready);
        for player in [&mut bea, &mut cem] {
            assert_eq!(player.patch(json!({"set": {"by": "memory"}})).await["prov"], true);
        }
        ann.sees("cem", "online").await;
        let answer = ann.does("presence.get", json!({"players": ["dan", "nobody"]})).await;
        assert_eq!(answer["unknown"], json!(["dan"]), "the store would have to be asked");
        assert_eq!((&answer["presences"][0]["player"], &answer["presences"][0]["status"]), (&json!("nobody"), &json!("offline")));
        for url in server.service_urls() {
            let readiness = reqwest::get(format!("{url}/readyz")).await.unwrap();
            assert_eq!(readiness.status(), 200);
            let told = readiness.text().await.unwrap();
            assert!(told.contains("served from memory"), "{told}");
            // Nothing is said to be nowhere because the store does not answer.
            let homes = homes_of(url).await;
            assert!(homes.iter().all(|(home, _)| home.is_string()), "{homes:?}");
            let (_, patched) = Service::at(url, KEY)
                .call(reqwest::Method::PATCH, "/v1/players/ann/state", Some(json!({"incr": {"n": 0}})))
                .await;
            assert_eq!(patched["prov"], true, "services hear it as players do: {patched}");
        }

        server.redis().go_on();
        for player in [&mut ann, &mut bea, &mut cem] {
            player.until_mode("normal").await;
        }
        ann.until_durable(json!({"set": {"after": true}, "cseq": 10})).await;
        bea.until_durable(json!({"set": {"after": true}})).await;
        cem.until_durable(json!({"set": {"after": true}})).await;
        assert_eq!(ann.patch(json!({"set": {"last": true}, "cseq": 11})).await["prov"], Value::Null);
        ann.patch_durably(json!({"incr": {"n": 0}, "cseq": 12})).await;
        // Redis alone must know all of it.
        server.kill9();
        server.restart();
        let ann_knows = json!({"n": 9, "m": 1, "after": true, "last": true});
        let others_know = json!({"by": "memory", "after": true});
        for (player, knows) in [(ann, ann_knows), (bea, others_know.clone()), (cem, others_know)] {
            let mut player = server.resume(&player.drops()).await;
            assert_eq!(player.ready["rolled_back"], Value::Null, "{}", player.ready);
            assert_eq!(player.state().await, knows);
        }
    }
}

/// The home of every shard as this node says, and by whose word.
async fn homes_of(service_url: &str) -> Vec<(Value, Value)> {
    let (_, told) = Service::at(service_url, KEY).get("/v1/cluster").await;
    let shards = told["shards"].as_array().unwrap().iter();
    shards.map(|shard| (shard["home"].clone(), shard["home_by"].clone())).collect()
}

/// Three nodes, of which the last `cut` reach Redis over straits of their own.
async fn three_nodes(redis: &RedisServer, port: u16, cut: usize) -> (Vec<Server>, Vec<Strait>) {
    let (mut nodes, mut straits) = (Vec::new(), Vec::new());
    for number in 0..3 {
        let starting = if number < 3 - cut {
            node_on(redis)
        } else {
            let strait = Strait::to(port).await;
            let starting =
                Server::on_url(&strait.url()).with("service_key", KEY).with("cluster.shards", SHARDS);
            straits.push(strait);
            starting
        };
        let starting = starting.with_lease(2_400).with("node_id", format!("node-{number}"));
        nodes.push(tokio::task::spawn_blocking(|| starting.start()).await.unwrap());
    }
    until("all serve, and are linked", async || {
        let (mut served, mut links) = (Vec::new(), 0);
        for node in &nodes {
            served.push(served_by(node).await.len());
            links += node.metric("hearth_peer_links", "").await;
        }
        (served.iter().sum::<usize>() == usize::from(SHARDS) && !served.contains(&0) && links == 6)
            .then_some(())
    })
    .await;
    (nodes, straits)
}

async fn resumed_at(node: &Server, credentials: &Credentials) -> Player {
    until("her session is taken up again", async || {
        let mut player = Player::connect(node.url(), Encoding::MessagePack).await;
        player.try_resume(credentials).await.ok().map(|()| player)
    })
    .await
}

/// What becomes of players of nodes that have lost Redis while others have not.
async fn others_take_what_is_cut_off(cut: usize) {
    let redis = RedisServer::builder().on_tcp().start();
    let port = redis.tcp_url().rsplit(':').next().unwrap().parse().unwrap();
    let (nodes, straits) = three_nodes(&redis, port, cut).await;
    let (stay, go) = nodes.split_at(3 - cut);
    let mut players = Vec::new();
    for node in go {
        let mut player = node.login(&players_of(node).await.next().unwrap()).await;
        player.patch_durably(json!({"set": {"n": 1}, "cseq": 1})).await;
        players.push(player);
    }
    straits.iter().for_each(Strait::close);
    let was_local = AtomicU64::new(0);
    until("the others serve all", async || {
        for node in go {
            let local = node.metric("hearth_shards", "state=\"local\"").await;
            was_local.fetch_max(local, Ordering::Relaxed);
        }
        let mut served = 0;
        for node in stay {
            served += served_by(node).await.len();
        }
        (served == usize::from(SHARDS)).then_some(())
    })
    .await;
    if cut == 1 {
        assert_eq!(was_local.into_inner(), 0, "it alone has lost its store: nobody agrees");
    }
    // Those who are cut off know from the others themselves where all is.
    for node in go {
        until("it says where every shard is", async || {
            let homes = homes_of(node.service_url()).await;
            let is_there = |(home, by): &(Value, Value)| {
                let stays = (0..stay.len()).any(|number| *home == json!(format!("node-{number}")));
                stays && by == "nodes"
            };
            homes.iter().all(is_there).then_some(())
        })
        .await;
    }
    for player in players {
        let credentials = player.drops();
        let mut found = None;
        for node in stay {
            let shard = hearth::ids::SessionId::parse(&credentials.session).unwrap().shard();
            if served_by(node).await.contains(&u64::from(shard.number())) {
                found = Some(resumed_at(node, &credentials).await);
            }
        }
        let mut player = found.expect("one of them serves her");
        assert_eq!(player.state().await, json!({"n": 1}), "what was durable is there");
        player.patch_durably(json!({"set": {"n": 2}, "cseq": 2})).await;
    }
    // Back again, they take their part, and nobody writes who may not.
    straits.iter().for_each(Strait::open);
    until("each has its part again", async || {
        let mut served = Vec::new();
        for node in &nodes {
            served.push(served_by(node).await.len());
        }
        (served.iter().sum::<usize>() == usize::from(SHARDS) && !served.contains(&0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_alone_has_lost_redis_is_silent_and_its_players_are_served_elsewhere() {
    others_take_what_is_cut_off(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_that_have_lost_redis_give_way_to_the_one_that_has_not() {
    others_take_what_is_cut_off(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_asked_to_stop_without_redis_takes_no_more_on_and_stores_what_it_took_when_that_is_back()
 {
    let redis = RedisServer::start();
    let [here, mut there] = two_nodes(&redis).await;
    let mut ann = there.login(&players_of(&there).await.next().unwrap()).await;
    ann.patch_durably(json!({"incr": {"n": 1}, "cseq": 1})).await;
    redis.pause();
    there.until_local().await;
    assert_eq!(ann.patch(json!({"incr": {"n": 1}, "cseq": 2})).await["prov"], true);
    let credentials = ann.credentials();
    there.ask_to_stop();
    let asked = Instant::now();
    until("it has begun to stop", async || there.log().contains("stopping").then_some(())).await;
    let (status, told) = Service::of(&there, KEY).get("/readyz").await;
    assert_eq!(status, 503);
    assert!(told["reasons"].to_string().contains("the node is stopping"), "{told}");
    assert!(told["shards"]["serving"].as_u64().unwrap() > 0, "they are served still: {told}");
    ann.expect_close(4000).await;
    // Half of the time that it would take to hand over.
    assert!(asked.elapsed() < Duration::from_millis(2_500), "players were kept for {:?}", asked.elapsed());
    redis.go_on();
    assert!(there.wait_for_end().success(), "all is stored");
    let mut ann = resumed_at(&here, &credentials).await;
    assert_eq!((&ann.ready["rolled_back"], &ann.ready["cseq"]), (&Value::Null, &json!(2)), "{}", ann.ready);
    assert_eq!(ann.state().await, json!({"n": 2}));
}

/// What a player heard while she asked on and on.
struct Asked {
    /// The longest wait for an answer before and after Redis went on.
    longest: [Duration; 2],
    modes: Vec<String>,
}

/// Asks and asks. `went_on`: 0 until Redis goes on, 1 from then on, 2 when that was enough for whoever has heard that all is
/// normal.
async fn asks_on(mut player: Player, went_on: Arc<AtomicU64>) -> Asked {
    let (mut longest, mut modes) = ([Duration::ZERO; 2], Vec::new());
    let mut deadline = None;
    loop {
        let went_on = went_on.load(Ordering::Relaxed);
        let (began, longest) = (Instant::now(), &mut longest[usize::from(went_on > 0)]);
        player.patch(json!({"incr": {"n": 1}})).await;
        *longest = (*longest).max(began.elapsed());
        while player.was_told("mode") {
            modes.push(player.wait_for_push("mode").await["mode"].as_str().unwrap().to_owned());
        }
        if went_on == 2 {
            if modes.last().is_some_and(|mode| mode == "normal") {
                break;
            }
            assert!(Instant::now() < *deadline.get_or_insert(began + PATIENCE), "{modes:?}");
        }
        // As quickly as a player may.
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    Asked { longest, modes }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_redis_is_back_players_are_served_on_and_nobody_is_paused() {
    let redis = RedisServer::start();
    let (nodes, _) = three_nodes(&redis, 0, 0).await;
    let (went_on, mut asking) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
    for node in &nodes {
        for name in players_of(node).await.take(2) {
            asking.spawn(asks_on(node.login(&name).await, Arc::clone(&went_on)));
        }
    }
    redis.pause();
    for node in &nodes {
        node.until_local().await;
    }
    redis.go_on();
    went_on.store(1, Ordering::Relaxed);
    until("all leases stand again", async || {
        let mut owned = 0;
        for node in &nodes {
            owned += node.metric("hearth_shards", "state=\"owned\"").await;
        }
        (owned == u64::from(SHARDS)).then_some(())
    })
    .await;
    // Which is told late, of many shards at once.
    for node in &nodes {
        until("it is told", async || node.log().contains("served from memory until now").then_some(())).await;
    }
    went_on.store(2, Ordering::Relaxed);
    for Asked { longest: [away, back], modes } in asking.join_all().await {
        println!("at most {away:?} while it was away, {back:?} since it is back: {modes:?}");
        // What this machine takes for an answer from memory, it may take now, and a moment: less than a lease.
        assert!(back <= away + Duration::from_secs(2), "{back:?}, and {away:?} while it was away");
        assert!(!modes.iter().any(|mode| mode == "paused"), "{modes:?}");
    }
    for node in &nodes {
        assert_eq!(node.metric("hearth_leases_run_out_total", "").await, 0);
        let log = node.log();
        assert!(!log.contains("have run out"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_had_sent_before_it_ended_does_not_keep_it_alive() {
    let redis = RedisServer::start();
    let (mut nodes, _) = three_nodes(&redis, 0, 0).await;
    let mut ends = nodes.pop().unwrap();
    let alive: String = redis.query(&["HGET", "test:nodes", "node-2"]);
    redis.pause();
    tokio::task::block_in_place(|| ends.stop_gracefully());
    redis.go_on();
    // A heartbeat that lay in Redis's socket: it counts from now on, and here for longer than anybody waits.
    let said: Vec<_> = alive.splitn(3, ' ').collect();
    let now_ms = hearth::clock::now().unix_ms;
    let late = format!("{} {now_ms} {}", now_ms + 600_000, said[2]);
    redis.query::<()>(&["HSET", "test:nodes", "node-2", &late]);
    until("the others serve what it had", async || {
        let served = [served_by(&nodes[0]).await.len(), served_by(&nodes[1]).await.len()];
        (served.iter().sum::<usize>() == usize::from(SHARDS)).then_some(())
    })
    .await;
    for node in &nodes {
        until("it is forgotten", async || (node.metric("hearth_members", "").await == 2).then_some(())).await;
        assert!(!node.log().contains("a live node cannot be reached"));
    }
}
