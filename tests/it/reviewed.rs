//! What reading and hostile use have found once, told as stories so that it stays mended.

use serde_json::json;

use crate::harness::server::Server;
use crate::harness::stages::on_every_stage;

on_every_stage! {
    async fn a_shard_with_more_to_write_than_one_batch_holds_commits_all_of_it(stage) {
        let large = "x".repeat(60_000);
        let server = Server::on(stage)
            .with("cluster.shards", 1)
            .with("session.state_bytes_max", 65_536)
            .with("link.frame_bytes_max", 131_072)
            .with("home.flush_interval_ms", 1_000)
            .start();
        let mut players = Vec::new();
        for n in 0..8 {
            let mut player = server.login(&format!("p{n}")).await;
            player.patch(json!({"set": {"large": large}})).await;
            players.push(player);
        }
        for player in &mut players {
            let changed = player.patch_durably(json!({"incr": {"n": 1}})).await;
            assert_eq!(changed["ack"], "durable");
        }
    }

    async fn a_logout_that_was_answered_survives_a_crash(stage) {
        let mut server = Server::on(stage).with_lease(1_800).with("home.flush_interval_ms", 600).start();
        let mut ann = server.login("ann").await;
        let credentials = ann.credentials();
        ann.does("logout", json!({})).await;
        server.kill9();
        server.restart();
        let refused = server.resume_refused(&credentials).await;
        assert_eq!(refused["code"], "not_resumable");
    }

    async fn the_order_of_answers_does_not_tell_who_hides(stage) {
        let server = Server::on(stage).start();
        let mut hidden = server.connect().await;
        hidden.login_with(json!({"token": "dev:hidden", "status": "invisible"})).await;
        let mut ann = server.login("ann").await;
        let got = ann.does("presence.get", json!({"players": ["cold", "hidden", "ann", "cold", "cool"]})).await;
        let order: Vec<_> = got["presences"].as_array().unwrap().iter().map(|item| item["player"].clone()).collect();
        assert_eq!(order, ["cold", "hidden", "ann", "cool"], "as asked, once however often named");
    }

    async fn logins_at_the_same_moment_end_in_one_session_and_a_word_for_the_others(stage) {
        let server = Server::on(stage).start();
        let mut links = Vec::new();
        for _ in 0..6 {
            links.push(server.connect().await);
        }
        let mut references = Vec::new();
        for link in &mut links {
            references.push(link.feed("login", json!({"token": "dev:ann"})).await);
        }
        for link in &mut links {
            link.socket.flush().await;
        }
        let ends = links.into_iter().zip(references).map(|(mut link, reference)| async move {
            match link.answer(reference).await {
                Err(_) => Some(link.expect_end().await),
                Ok(_) => tokio::time::timeout(std::time::Duration::from_millis(700), link.expect_end()).await.ok(),
            }
        });
        let ends = futures_util::future::join_all(ends).await;
        let codes: Vec<_> = ends.iter().flatten().collect();
        assert_eq!(ends.len() - codes.len(), 1, "{codes:?}");
        assert!(codes.iter().all(|code| **code == Some(4504)), "replaced, never refused for good: {codes:?}");
    }

    async fn a_patch_that_changes_nothing_leaves_the_state_where_it_stood(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.login("ann").await;
        let before = ann.patch(json!({"set": {"a": 1}})).await["state_stamp"].clone();
        assert_eq!(ann.patch(json!({"unset": ["nothing"]})).await["state_stamp"], before);
        ann.patch(json!({"set": {"a": 2}, "if_state": before})).await;
    }

    async fn a_watch_that_was_lost_in_a_crash_is_told_as_a_rollback(stage) {
        let mut server = Server::on(stage).with_lease(1_800).with("home.flush_interval_ms", 600).start();
        let mut ann = server.login("ann").await;
        let answer = ann.does("watch", json!({"players": ["bea"]})).await;
        assert!(answer["stamp"].is_array(), "{answer}");
        let credentials = ann.drops();
        server.kill9();
        server.restart();
        let ann = server.resume(&credentials).await;
        assert_eq!(ann.ready["watching"], json!([]));
        assert!(ann.ready["rolled_back"].is_object(), "{}", ann.ready);
    }
}
