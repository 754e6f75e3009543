//! What is promised when Redis is slow, gone, emptied or put back to an older day: a server says what it cannot give,
//! serves nothing it may not serve, and what it holds in memory comes back.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::nodes::{KEY, SHARDS, players_of, served_by, two_nodes};
use crate::harness::patience::until;
use crate::harness::player::Player;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::stages::{Stage, on_every_redis};

/// The record of a player as Redis holds it.
fn stored(redis: &RedisServer, player: &str) -> Option<Vec<u8>> {
    let keys: Vec<String> = redis.query(&["KEYS", &format!("*:p:{player}")]);
    redis.query(&["GET", keys.first()?])
}

fn holds(record: &[u8], bytes: &str) -> bool {
    record.windows(bytes.len()).any(|window| window == bytes.as_bytes())
}

/// Waits until Redis holds a record of this player with these bytes in it.
async fn until_stored(redis: &RedisServer, player: &str, bytes: &str) {
    until(&format!("{bytes} of {player} in Redis"), || async {
        stored(redis, player).filter(|record| holds(record, bytes))
    })
    .await;
}

on_every_redis! {
    async fn a_durable_write_that_redis_does_not_take_is_refused_but_not_forgotten(stage) {
        // The lease outlasts the stop, so that what is refused is the durability alone.
        let mut server =
            Server::on(stage).with_lease(20_000).with("redis.response_timeout_ms", 500).start();
        let mut ann = server.login("ann").await;
        server.redis().pause();
        let change = json!({"incr": {"n": 1}, "ack": "durable", "cseq": 1});
        let refused = ann.is_refused("state.patch", change.clone(), "store_unavailable").await;
        assert_eq!((&refused["applied"], &refused["temporary"]), (&json!(true), &json!(true)), "{refused}");
        let got = ann.does("state.get", json!({"at_least": refused["stamp"]})).await;
        assert_eq!(got["state"], json!({"n": 1}));
        server.redis().go_on();
        let again = ann.until_durable(change).await;
        assert_eq!((&again["dup"], &again["ack"]), (&json!(true), &json!("durable")));
        assert_eq!(ann.state().await, json!({"n": 1}));
    }

    async fn a_server_that_may_not_answer_says_so_and_answers_again_when_redis_is_back(stage) {
        let mut server = Server::on(stage).with_lease(1_000).with("home.hold_ms", 300).start();
        let (mut ann, mut bea) = (server.login("ann").await, server.login("bea").await);
        ann.patch(json!({"set": {"zone": "harbour"}, "cseq": 1})).await;
        server.loses_majority().await;
        server.redis().pause();
        ann.until_mode("paused").await;
        bea.until_mode("paused").await;
        for (op, body) in [
            ("state.patch", json!({"set": {"zone": "docks"}, "cseq": 2})),
            ("state.get", json!({})),
            ("presence.get", json!({"players": ["bea"]})),
        ] {
            let refused = ann.is_refused(op, body, "not_home").await;
            assert_eq!(refused["temporary"], true);
            assert!(refused["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0), "{refused}");
        }
        let mut cem = server.connect().await;
        cem.is_refused("login", json!({"token": "dev:cem"}), "not_home").await;
        server.redis().go_on();
        ann.until_mode("normal").await;
        bea.until_mode("normal").await;
        assert_eq!(ann.state().await, json!({"zone": "harbour"}));
        ann.patch_durably(json!({"set": {"zone": "docks"}, "cseq": 2})).await;
        cem.login("cem").await;
    }

    async fn a_request_is_held_while_the_server_may_not_answer_for_a_moment(stage) {
        let mut server = Server::on(stage).with_lease(1_000).with("home.hold_ms", 20_000).start();
        let mut ann = server.login("ann").await;
        ann.patch(json!({"set": {"n": 1}})).await;
        server.loses_majority().await;
        server.redis().pause();
        ann.until_mode("paused").await;
        let mut held = Vec::new();
        for n in 2..=4 {
            held.push(ann.send("state.patch", json!({"set": {"n": n}})).await);
        }
        let read = ann.send("state.get", json!({})).await;
        server.redis().go_on();
        for request in held {
            assert_eq!(ann.answer(request).await.unwrap()["ack"], "applied");
        }
        assert_eq!(ann.answer(read).await.unwrap()["state"], json!({"n": 4}));
    }

    async fn an_emptied_redis_is_filled_again_from_memory_under_load(stage) {
        let mut server = Server::on_durable_redis(stage).with_lease(1_200).start();
        let mut idle = server.login("idle").await;
        idle.watches(&["busy"]).await;
        idle.patch_durably(json!({"set": {"mark": "idle-mark"}, "cseq": 1})).await;
        let mut busy = server.login("busy").await;
        busy.patch_durably(json!({"incr": {"n": 1}, "cseq": 1})).await;
        let mut sent = Vec::new();
        for cseq in 2..=40 {
            if cseq == 20 {
                let _: String = server.redis().query(&["FLUSHALL"]);
            }
            let ack = if cseq % 10 == 0 { "durable" } else { "applied" };
            sent.push(busy.send("state.patch", json!({"incr": {"n": 1}, "cseq": cseq, "ack": ack})).await);
        }
        for change in sent {
            busy.answer(change).await.expect("every change is taken");
        }
        busy.patch_durably(json!({"incr": {"n": 1}, "set": {"mark": "busy-mark"}, "cseq": 41})).await;
        until_stored(server.redis(), "busy", "busy-mark").await;
        until_stored(server.redis(), "idle", "idle-mark").await;
        // The second copy is gone now: Redis alone must know all.
        server.kill9();
        server.restart();
        let mut idle = server.resume(&idle.drops()).await;
        assert_eq!((&idle.ready["rolled_back"], &idle.ready["watching"]), (&json!(null), &json!(["busy"])));
        assert_eq!(idle.state().await, json!({"mark": "idle-mark"}));
        let mut busy = server.resume(&busy.drops()).await;
        assert_eq!(busy.ready["rolled_back"], json!(null));
        assert_eq!(busy.state().await, json!({"n": 41, "mark": "busy-mark"}));
    }

    async fn an_older_copy_of_redis_is_found_out_and_repaired_from_memory(stage) {
        let mut server = Server::on_durable_redis(stage).with_lease(1_200).start();
        let (mut ann, mut idle) = (server.login("ann").await, server.login("idle").await);
        let mut left = server.login("left").await;
        ann.patch_durably(json!({"set": {"mark": "ann-old"}, "cseq": 1})).await;
        idle.patch_durably(json!({"set": {"mark": "idle-old"}, "cseq": 1})).await;
        left.patch_durably(json!({"set": {"mark": "left-old"}, "cseq": 1})).await;
        // The copy is taken here; what follows is in the newer data alone.
        let copy = tempfile::tempdir().unwrap();
        server.redis().kill();
        copy_folder(&server.redis().dir().join("appendonlydir"), copy.path());
        server.redis().start_again();
        ann.patch_durably(json!({"set": {"mark": "ann-new"}, "cseq": 2})).await;
        idle.patch_durably(json!({"set": {"mark": "idle-new"}, "cseq": 2})).await;
        left.patch_durably(json!({"set": {"mark": "left-new"}, "cseq": 2})).await;
        left.does("logout", json!({})).await;
        let left = left.credentials();
        let mut late = server.login("late").await;
        late.patch_durably(json!({"set": {"mark": "late-new"}, "cseq": 1})).await;
        // The end of a session is acked before it is durable: wait until it is.
        let redis = &*server.redis();
        until("the end of a session in Redis", || async {
            (!stored(redis, "left").is_some_and(|record| holds(&record, "left-new"))).then_some(())
        })
        .await;
        server.redis().kill();
        let data = server.redis().dir().join("appendonlydir");
        std::fs::remove_dir_all(&data).unwrap();
        copy_folder(copy.path(), &data);
        server.redis().start_again();
        until_stored(server.redis(), "ann", "ann-new").await;
        until_stored(server.redis(), "idle", "idle-new").await;
        until_stored(server.redis(), "late", "late-new").await;
        ann.patch_durably(json!({"set": {"after": true}, "cseq": 3})).await;
        server.kill9();
        server.restart();
        for (player, mark, cseq) in [(ann, "ann-new", 3), (idle, "idle-new", 2), (late, "late-new", 1)] {
            let mut player = server.resume(&player.drops()).await;
            assert_eq!(
                (&player.ready["rolled_back"], &player.ready["cseq"]),
                (&json!(null), &json!(cseq)),
                "{mark}"
            );
            assert_eq!(player.state().await["mark"], mark);
        }
        // The older copy held a session that has ended since: it did not come back.
        assert_eq!(server.resume_refused(&left).await["code"], "not_resumable");
    }

    async fn whatever_redis_does_not_take_is_acked_as_provisional(stage) {
        let starting = Server::on(stage).with_lease(20_000).with("redis.response_timeout_ms", 500);
        let mut server = starting.with("session.player_messages", true).start();
        let mut ann = server.login("ann").await;
        server.redis().pause();
        ann.is_refused("state.patch", json!({"incr": {"n": 1}, "ack": "durable"}), "store_unavailable").await;
        for (op, body) in [
            ("state.patch", json!({"incr": {"n": 1}})),
            ("room.join", json!({"room": "party"})),
            ("room.send", json!({"room": "party", "data": 1})),
            ("send", json!({"player": "ann", "data": 1})),
            ("room.leave", json!({"room": "party"})),
        ] {
            let answer = ann.does(op, body).await;
            assert_eq!(answer["prov"], true, "{op}: {answer}");
        }
        server.redis().go_on();
        ann.until_durable(json!({"incr": {"n": 1}})).await;
        assert_eq!(ann.does("room.join", json!({"room": "party"})).await["prov"], Value::Null);
    }
}

#[tokio::test]
async fn a_server_that_was_stopped_and_taken_over_changes_nothing_and_tells_its_clients() {
    let mut old = Server::on(Stage::Redis).with_lease(1_000).with("node_id", "old").start();
    let (mut ann, mut bea) = (old.login("ann").await, old.login("bea").await);
    ann.patch_durably(json!({"set": {"by": "old"}, "cseq": 1})).await;
    bea.patch_durably(json!({"set": {"by": "old"}, "cseq": 1})).await;
    // Acked, and never flushed: it waits in the stopped server's memory.
    let stale = json!({"set": {"by": "a zombie"}, "cseq": 2});
    let claimed = ann.patch(stale.clone()).await["stamp"].clone();
    old.pause();
    let new = Server::on_url(&old.store_url()).with_lease(1_000).with("node_id", "new").start();
    let mut moved = new.resume(&ann.credentials()).await;
    let survived = moved.ready["cseq"].as_u64().unwrap();
    // The flush may have been faster than the stop; either way nothing is lost in silence.
    assert_eq!(moved.ready["rolled_back"].is_null(), survived == 2, "{}", moved.ready);
    if survived == 1 {
        assert_eq!(moved.ready["rolled_back"]["from"], claimed);
    }
    moved.patch_durably(json!({"set": {"by": "new"}, "cseq": survived + 1})).await;
    // More that the zombie will find in its socket when it wakes.
    ann.send("state.patch", json!({"set": {"by": "a zombie"}, "cseq": 3, "ack": "durable"})).await;
    bea.send("state.get", json!({})).await;
    old.go_on();
    for client in [&mut ann, &mut bea] {
        expect_to_be_sent_away(client).await;
    }
    // The first is a node like others now, and gets its part again.
    until("both have their part", async || {
        let served = [&old, &new].map(|node| node.metric("hearth_shards_serving", ""));
        let served = futures_util::future::join_all(served).await;
        let shards = new.metric("hearth_shards", "").await;
        (!served.contains(&0) && served.iter().sum::<u64>() == shards).then_some(())
    })
    .await;
    let mut bea = back_at(&new, &bea).await;
    assert_eq!(bea.state().await["by"], "old");
    let mut moved = back_at(&new, &moved).await;
    moved.patch_durably(json!({"incr": {"more": 1}})).await;
    assert_eq!(moved.state().await["by"], "new");
    let stored = moved.credentials();
    drop(new);
    // Whoever takes over next finds what the second server wrote, and nothing of the zombie.
    old.kill9();
    old.restart();
    let mut again = old.resume(&stored).await;
    assert_eq!(again.state().await, json!({"by": "new", "more": 1}));
}

#[tokio::test]
async fn what_went_with_a_node_and_the_stores_data_is_told_as_lost_and_what_ended_is_not() {
    let redis = RedisServer::start();
    let [mut dies, lives]: [Server; 2] = two_nodes(&redis).await;
    let (lost, ended) = (players_of(&dies).await.next().unwrap(), players_of(&lives).await.next().unwrap());
    let mut lost = dies.login(&lost).await;
    lost.patch_durably(json!({"set": {"gold": 7}})).await;
    let mut ended = lives.login(&ended).await;
    ended.patch_durably(json!({"set": {"gold": 7}})).await;
    let gone = ended.credentials();
    ended.does("logout", json!({})).await;
    dies.kill9();
    redis.query::<()>(&["FLUSHALL"]);
    until("the other one serves all", async || {
        (served_by(&lives).await.len() == usize::from(SHARDS)).then_some(())
    })
    .await;
    let refused = lives.resume_refused(&lost.credentials()).await;
    assert_eq!((&refused["code"], &refused["lost"]), (&json!("not_resumable"), &json!(true)), "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("lost its data"), "{refused}");
    // Its home has lived on, and knows.
    let refused = lives.resume_refused(&gone).await;
    assert_eq!((&refused["code"], &refused["lost"]), (&json!("not_resumable"), &Value::Null), "{refused}");
    assert_eq!(lives.metric("hearth_sessions_lost_total", "").await, 1);
    // What the store alone had is gone, and whoever runs it is told so.
    let (_, ready) = Service::of(&lives, KEY).get("/readyz").await;
    let told = |one: &Value| one["message"].as_str().is_some_and(|said| said.contains("kept for players"));
    assert!(ready["shortfalls"].as_array().unwrap().iter().any(told), "{ready}");
    until("the log says it", async || {
        let log = lives.log();
        (log.contains("messages kept for players who are away") && log.contains("were told")).then_some(())
    })
    .await;
}

/// Her session, taken up again at this node or through it.
async fn back_at(node: &Server, player: &Player) -> Player {
    let credentials = player.credentials();
    until("she is back", async || {
        let mut player = node.connect().await;
        player.try_resume_carried(&credentials).await.ok().map(|()| player)
    })
    .await
}

/// The link must end with a close after which a client comes back, and nothing may be acked on it before.
async fn expect_to_be_sent_away(client: &mut Player) {
    use crate::harness::socket::Heard;
    let mut last = Value::Null;
    loop {
        match client.hear().await {
            Heard::Frame(frame) if frame.op == "ok" => panic!("a zombie answers: {frame:?}"),
            Heard::Frame(frame) => last = frame.body,
            Heard::Closed(code) => {
                assert!(code.is_some_and(|code| (4000..4250).contains(&code)), "{code:?} after {last}");
                assert_eq!(last["resume"], true, "{last}");
                return;
            }
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Under which expiry the store's index has this player (Unix ms).
fn filed_under(redis: &RedisServer, player: &str) -> Option<f64> {
    let indexes: Vec<String> = redis.query(&["KEYS", "*:x"]);
    indexes.iter().find_map(|index| redis.query(&["ZSCORE", index, player]))
}

#[tokio::test]
async fn what_a_busy_player_writes_leaves_her_place_in_the_index_alone_until_it_moves() {
    // An eighth of the lifetime is a quarter of an hour: nothing here takes as long.
    let mut server = Server::on(Stage::Redis).with("session.ttl_ms", 7_200_000).start();
    let mut ann = server.login("ann").await;
    let first = filed_under(server.redis(), "ann").expect("a login is filed");
    for n in 1..=5 {
        ann.patch_durably(json!({"set": {"n": n}})).await;
    }
    assert_eq!(filed_under(server.redis(), "ann"), Some(first));
    ann.watches(&["bea"]).await;
    ann.patch_durably(json!({"set": {"n": 6}})).await;
    let moved = filed_under(server.redis(), "ann").unwrap();
    assert!(moved > first, "watches were written: {moved}");
    // Whoever ends leaves the index, and is in it again with the next login, whatever was written in between.
    ann.does("logout", json!({})).await;
    assert_eq!(filed_under(server.redis(), "ann"), None);
    let mut ann = server.login("ann").await;
    assert!(filed_under(server.redis(), "ann").is_some_and(|again| again > moved));
    ann.patch_durably(json!({"set": {"n": 7}})).await;
    assert!(filed_under(server.redis(), "ann").is_some());
    let kept: Vec<String> = server.redis().query(&["KEYS", "*:p:ann"]);
    let expires_in_ms: i64 = server.redis().query(&["PTTL", &kept[0]]);
    assert!(
        (7_200_000..=14_460_000).contains(&expires_in_ms),
        "twice the lifetime and a minute: {expires_in_ms}"
    );
}

#[tokio::test]
async fn a_place_in_the_index_is_never_older_than_an_eighth_of_the_lifetime() {
    let starting = Server::on(Stage::Redis).with("session.ttl_ms", 8_000);
    let mut server =
        starting.with("limits.state_per_s", 100_000).with("limits.link_frames_per_s", 100_000).start();
    let mut ann = server.login("ann").await;
    let first = filed_under(server.redis(), "ann").unwrap();
    for n in 1.. {
        let before = unix_ms();
        ann.patch_durably(json!({"set": {"n": n}})).await;
        let filed = filed_under(server.redis(), "ann").unwrap();
        // Judged when the commit was gathered, after `before`.
        // The clocks of two processes may lie a little apart.
        assert!(filed > before + 7_000.0 - 100.0, "{filed} at {before}");
        if filed > first + 2_000.0 {
            break;
        }
    }
}

#[tokio::test]
async fn records_of_a_later_epoch_are_held_above_it_and_never_under_it() {
    let mut server = Server::on(Stage::Redis).with_lease(1_200).start();
    let mut ann = server.login("ann").await;
    ann.patch_durably(json!({"set": {"zone": "harbour"}, "cseq": 1})).await;
    let left = ann.drops();
    server.kill9();
    // So wrote a home that Redis has granted the shard to and forgotten: what it grants next lies below.
    let later = unix_ms() as u64 + 600_000;
    let keys: Vec<String> = server.redis().query(&["KEYS", "*:p:ann"]);
    let _: i64 = server.redis().query(&["SETRANGE", &keys[0], "0", &format!("{later:016x}")]);
    server.restart();
    let mut ann = server.resume(&left).await;
    let epoch = ann.ready["stamp"][0].as_u64().unwrap();
    assert!(epoch > later, "answered under the epoch of another home: {epoch}, {later}");
    ann.patch_durably(json!({"incr": {"n": 1}, "cseq": 2})).await;
    assert_eq!(ann.state().await, json!({"zone": "harbour", "n": 1}));
}

fn unix_ms() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_secs_f64() * 1000.0
}
