//! What is promised when a process dies at once: what was acked durable is there, and what was lost is told.

use serde_json::{Value, json};

use crate::harness::patience::until;
use crate::harness::player::Player;
use crate::harness::server::Server;
use crate::harness::stages::{Stage, on_every_redis, on_every_stage};

/// Writes, every fifth one durable; what was acked durable last.
async fn writes(player: &mut Player, numbers: std::ops::RangeInclusive<u64>) -> u64 {
    let mut durable = 0;
    for n in numbers {
        let patch = json!({"set": {"n": n}, "incr": {"sum": 1}, "cseq": n});
        if n % 5 == 0 {
            player.patch_durably(patch).await;
            durable = n;
        } else {
            player.patch(patch).await;
        }
    }
    durable
}

/// The state of somebody who wrote [`writes`]: nothing durable lost, nothing twice, nothing lost in silence.
async fn expect_written(player: &mut Player, acked: u64, durable: u64) {
    let survived = player.ready["cseq"].as_u64().unwrap();
    assert!((durable..=acked).contains(&survived), "{survived} of {acked}, {durable} durable");
    assert_eq!(player.state().await, json!({"n": survived, "sum": survived}));
    let told = !player.ready["rolled_back"].is_null();
    assert_eq!(told, survived < acked, "{survived} of {acked}: {}", player.ready);
}

on_every_stage! {
    async fn no_durable_write_is_lost_when_the_server_is_killed(stage) {
        let mut server = Server::on(stage).with_lease(1_200).start();
        let mut players = Vec::new();
        for name in ["ann", "bea", "cem", "dot"] {
            let mut player = server.login(name).await;
            let durable = writes(&mut player, 1..=23).await;
            players.push((player, durable));
        }
        server.kill9();
        server.restart();
        for (player, durable) in players {
            let mut player = server.resume(&player.drops()).await;
            assert_eq!(player.ready["resumed"], true);
            expect_written(&mut player, 23, durable).await;
        }
    }

    async fn a_lost_write_is_told_and_sent_again_takes_effect_once(stage) {
        let starting = Server::on(stage).with_lease(3_000).with("home.flush_interval_ms", 1_000);
        let mut server = starting.start();
        let mut ann = server.login("ann").await;
        let change = |cseq: u64| json!({"incr": {"n": 1}, "cseq": cseq});
        let kept = ann.patch_durably(change(1)).await["stamp"].clone();
        ann.patch(change(2)).await;
        let lost = ann.patch(change(3)).await["stamp"].clone();
        server.kill9();
        server.restart();
        let mut ann = server.resume(&ann.drops()).await;
        assert_eq!(ann.ready["rolled_back"], json!({"from": lost, "to": kept, "cseq": 1}));
        assert_eq!(ann.ready["cseq"], 1);
        assert_eq!(ann.state().await, json!({"n": 1}));
        // A stamp of the lost line is not served as if nothing had happened.
        let refused = ann.is_refused("state.get", json!({"at_least": lost}), "rolled_back").await;
        assert_eq!(refused["to"], kept);
        for (cseq, dup) in [(2, json!(null)), (3, json!(null)), (3, json!(true)), (2, json!(true))] {
            assert_eq!(ann.patch(change(cseq)).await["dup"], dup, "{cseq}");
        }
        assert_eq!(ann.state().await, json!({"n": 3}));
        // Told once: the next resume has nothing to tell.
        let ann = server.resume(&ann.drops()).await;
        assert_eq!(ann.ready["rolled_back"], json!(null));
    }

    async fn who_lost_nothing_is_told_nothing(stage) {
        let mut server = Server::on(stage).with_lease(1_200).start();
        let mut ann = server.login("ann").await;
        for cseq in 1..=3 {
            ann.patch_durably(json!({"incr": {"n": 1}, "cseq": cseq})).await;
            server.kill9();
            server.restart();
            ann = server.resume(&ann.drops()).await;
            assert_eq!((&ann.ready["rolled_back"], &ann.ready["cseq"]), (&json!(null), &json!(cseq)));
            assert_eq!(ann.state().await, json!({"n": cseq}));
        }
    }

    async fn after_a_crash_pushes_go_on_without_a_gap_and_the_loss_is_told(stage) {
        let starting = Server::on(stage).with_lease(1_200).with("session.player_messages", true);
        let mut server = starting.start();
        let (mut ann, mut bea) = (server.login("ann").await, server.login("bea").await);
        for n in 1..=3 {
            ann.tells("bea", json!(n)).await;
            assert_eq!(bea.expect_push("message").await["data"], n);
        }
        server.kill9();
        server.restart();
        let mut ann = server.resume(&ann.drops()).await;
        assert_eq!(ann.ready["missed"], true, "what was pushed to her, nobody knows any more");
        let mut bea = server.resume(&bea.drops()).await;
        assert_eq!((&bea.ready["missed"], &bea.ready["replayed"]), (&json!(true), &json!(0)));
        ann.tells("bea", json!(4)).await;
        let push = bea.next_push().await;
        assert_eq!((push.number, &push.body["data"]), (4, &json!(4)));
    }

    async fn after_a_crash_the_tickets_of_before_are_good_until_the_first_resume(stage) {
        let mut server = Server::on(stage).with_lease(1_200).start();
        let first = server.login("ann").await.drops();
        let mut ann = server.resume(&first).await;
        ann.patch_durably(json!({"set": {"a": 1}})).await;
        let newest = ann.drops();
        server.kill9();
        server.restart();
        let mut ann = server.resume(&newest).await;
        ann.state().await;
        assert_eq!(server.resume_refused(&newest).await["code"], "not_resumable");
        assert_eq!(server.resume_refused(&first).await["code"], "not_resumable");
        ann.pings().await;
    }

    async fn a_session_that_ended_stays_ended_through_a_crash(stage) {
        let mut server = Server::on(stage).with_lease(1_200).start();
        let old = server.login("ann").await;
        // The newer login is acked when it is durable, and with it the end of the older session.
        let ann = server.login("ann").await;
        server.kill9();
        server.restart();
        assert_eq!(server.resume_refused(&old.drops()).await["code"], "not_resumable");
        server.resume(&ann.drops()).await;
    }

    async fn a_graceful_stop_loses_nothing_and_says_goodbye(stage) {
        // So that nothing but the last flush can have written it.
        let mut server = Server::on(stage).with_lease(6_000).with("home.flush_interval_ms", 2_000).start();
        let (mut ann, mut bea) = (server.login("ann").await, server.login("bea").await);
        for cseq in 1..=3 {
            ann.patch(json!({"incr": {"n": 1}, "cseq": cseq})).await;
        }
        bea.watches(&["ann"]).await;
        server.ask_to_stop();
        ann.expect_close(4000).await;
        bea.expect_close(4000).await;
        assert!(server.wait_for_end().success());
        let down = std::time::Instant::now();
        server.restart();
        assert!(down.elapsed().as_millis() < 4_000, "its leases were given back: {:?}", down.elapsed());
        let mut ann = server.resume(&ann.drops()).await;
        assert_eq!((&ann.ready["rolled_back"], &ann.ready["cseq"]), (&json!(null), &json!(3)));
        assert_eq!(ann.state().await, json!({"n": 3}));
        let bea = server.resume(&bea.drops()).await;
        assert_eq!(bea.ready["watching"], json!(["ann"]));
    }
}

fn on_durable_redis(stage: Stage) -> Server {
    Server::on_durable_redis(stage).with_lease(1_200).start()
}

async fn writer(server: &Server, name: &str) -> (Player, u64) {
    let mut player = server.login(name).await;
    let durable = writes(&mut player, 1..=12).await;
    (player, durable)
}

on_every_redis! {
    async fn no_durable_write_is_lost_when_redis_is_killed(stage) {
        let mut server = on_durable_redis(stage);
        let mut players = [writer(&server, "ann").await, writer(&server, "bea").await];
        server.redis().kill();
        server.redis().start_again();
        for (player, _) in &mut players {
            // The home outlived it: not even an applied write is lost, and links stay where they are.
            player.patch_durably(json!({"set": {"n": 13}, "incr": {"sum": 1}, "cseq": 13})).await;
            assert_eq!(player.state().await, json!({"n": 13, "sum": 13}));
        }
        server.kill9();
        server.restart();
        for (player, _) in players {
            let mut player = server.resume(&player.drops()).await;
            expect_written(&mut player, 13, 13).await;
        }
    }

    async fn no_durable_write_is_lost_when_server_and_redis_are_killed_together(stage) {
        let mut server = on_durable_redis(stage);
        let players = [writer(&server, "ann").await, writer(&server, "bea").await];
        server.redis().kill();
        server.kill9();
        server.redis().start_again();
        server.restart();
        for (player, durable) in players {
            let mut player = server.resume(&player.drops()).await;
            expect_written(&mut player, 12, durable).await;
        }
    }

    async fn a_player_who_never_was_stored_leaves_no_trace_of_a_login(stage) {
        // A login is acked when it is durable: one that Redis does not take is refused, and no session remains of it.
        let mut server = Server::on(stage).with_lease(12_000).start();
        let mut bea = server.login("bea").await;
        server.redis().query::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
        let mut ann = server.connect().await;
        let refused = ann.ask("login", json!({"token": "dev:ann"})).await.unwrap_err();
        assert_eq!(refused["temporary"], true, "{refused}");
        server.redis().query::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
        bea.sees("ann", "offline").await;
        bea.until_durable(json!({"set": {"n": 1}})).await;
        let ann = until("Redis to take logins again", async || {
            let mut ann = server.connect().await;
            ann.ask("login", json!({"token": "dev:ann"})).await.ok().map(|_| ann)
        })
        .await;
        let Value::String(_) = ann.ready["session"] else { panic!("{}", ann.ready) };
    }
}
