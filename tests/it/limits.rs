//! What is promised to clients that are too fast, too slow or silent: told first, closed then, and never in the way
//! of others.

use serde_json::json;

use crate::harness::server::Server;
use crate::harness::socket::{Encoding, Line};
use crate::harness::stages::on_every_stage;

on_every_stage! {
    async fn who_is_too_fast_is_told_how_long_to_wait_and_the_request_has_no_effect(stage) {
        let server = Server::on(stage).with("limits.state_per_s", 1).with("limits.state_burst", 3).start();
        let mut ann = server.login("ann").await;
        for cseq in 1..=3 {
            ann.patch(json!({"incr": {"n": 1}, "cseq": cseq})).await;
        }
        let next = json!({"incr": {"n": 1}, "cseq": 4});
        let refused = ann.is_refused("state.patch", next.clone(), "rate_limited").await;
        assert_eq!(refused["temporary"], true);
        let wait_ms = refused["retry_after_ms"].as_u64().unwrap();
        assert!((1..=1_000).contains(&wait_ms), "{refused}");
        // Other kinds have limits of their own.
        assert_eq!(ann.state().await, json!({"n": 3}));
        // A new link brings no new allowance; the time that was named does.
        let mut ann = server.resume(&ann.drops()).await;
        let refused = ann.is_refused("state.patch", next.clone(), "rate_limited").await;
        tokio::time::sleep(std::time::Duration::from_millis(refused["retry_after_ms"].as_u64().unwrap()))
            .await;
        ann.patch(next).await;
        assert_eq!(ann.state().await, json!({"n": 4}));
    }

    async fn a_link_has_a_limit_over_all_it_says(stage) {
        let starting =
            Server::on(stage).with("limits.link_frames_per_s", 1).with("limits.link_frames_burst", 5);
        let server = starting.start();
        let mut bea = server.login("bea").await;
        let mut ann = server.login("ann").await;
        let mut refused = 0;
        for _ in 0..40 {
            refused += usize::from(
                ann.ask("ping", json!({})).await.is_err_and(|error| error["code"] == "rate_limited"),
            );
        }
        // One to log in and four more; the rest is the allowance of whatever time this took.
        assert!((15..=36).contains(&refused), "{refused} of 40");
        bea.pings().await;
    }

    async fn who_goes_on_regardless_is_closed_4506(stage) {
        let starting = Server::on(stage).with("limits.state_per_s", 1).with("limits.state_burst", 1);
        let server = starting.with("limits.abuse_strikes_max", 5).start();
        let mut ann = server.login("ann").await;
        for _ in 0..40 {
            ann.feed("state.patch", json!({"incr": {"n": 1}})).await;
        }
        ann.socket.flush().await;
        ann.expect_close(4506).await;
        // The session is not the link: it is there, for whom it may concern.
        server.resume(&ann.credentials()).await;
    }

    async fn logins_from_one_address_are_limited_and_resumes_are_not(stage) {
        let starting = Server::on(stage).with("limits.logins_per_s", 1).with("limits.logins_burst", 2);
        let server = starting.with("limits.exempt_loopback", false).start();
        let mut ann = server.login("ann").await;
        server.login("bea").await;
        // A pause of this machine brings a second's allowance, not one for each of so many.
        let mut refused = None;
        for _ in 0..20 {
            let mut cem = server.connect().await;
            refused = refused.or(cem.ask("login", json!({"token": "dev:cem"})).await.err());
        }
        let refused = refused.expect("twenty logins are too many");
        assert_eq!(refused["code"], "rate_limited");
        assert!(refused["retry_after_ms"].is_u64());
        for _ in 0..5 {
            ann = server.resume(&ann.drops()).await;
        }
    }

    async fn silence_closes_4004_and_the_session_lives_on(stage) {
        let server = Server::on(stage).with("link.heartbeat_ms", 1_000).start();
        let (mut ann, mut bea) = (server.login("ann").await, server.login("bea").await);
        assert_eq!(ann.ready["heartbeat_ms"], 1_000);
        let began = std::time::Instant::now();
        let mut resumable = None;
        // Bea pings, ann is silent.
        while resumable.is_none() {
            bea.pings().await;
            if let Some(heard) = ann.socket.hear_within(std::time::Duration::from_millis(100)).await {
                let crate::harness::socket::Heard::Frame(bye) = heard else { panic!("closed without bye") };
                assert_eq!((bye.op.as_str(), &bye.body["code"]), ("bye", &json!(4004)));
                resumable = Some(ann.credentials());
            }
        }
        let after = began.elapsed();
        assert!(after.as_millis() >= 1_800, "closed after {after:?}: twice the heartbeat are 2 s");
        assert!(after.as_millis() < 10_000, "closed after {after:?}");
        assert_eq!(ann.expect_end().await, Some(4004));
        server.resume(&resumable.unwrap()).await;
        bea.pings().await;
    }

    async fn a_slow_reader_is_closed_4003_and_told_what_she_missed(stage) {
        let server = Server::on(stage)
            .with("session.player_messages", true)
            .with("presence.grace_ms", 0)
            .with("limits.send_per_s", 100_000)
            .with("limits.send_burst", 100_000)
            .with("limits.link_frames_per_s", 100_000)
            .with("limits.link_frames_burst", 100_000)
            .start();
        let mut ann = server.login("ann").await;
        let mut slow = server.connect_over(Line::Narrow, Encoding::MessagePack).await;
        slow.login("bea").await;
        ann.watches(&["bea"]).await;
        // Until what the kernel takes, what a mailbox takes and her patience are all used up.
        let data = json!("x".repeat(12_000));
        while !ann.was_told_news() {
            ann.tells("bea", data.clone()).await;
        }
        assert_eq!(ann.expect_presence("bea").await["status"], "offline");
        slow.expect_close(4003).await;
        let bea = server.resume(&slow.credentials()).await;
        assert_eq!(bea.ready["missed"], true);
        ann.pings().await;
    }

    async fn presence_waits_for_a_slow_reader_in_its_latest_form(stage) {
        let server = Server::on(stage)
            .with("presence.tick_ms", 1)
            .with("limits.presence_per_s", 100_000)
            .with("limits.presence_burst", 100_000)
            .with("limits.link_frames_per_s", 100_000)
            .with("limits.link_frames_burst", 100_000)
            .with("link.outbox_items_max", 8)
            .with("link.slow_close_after_ms", 60_000)
            .start();
        let mut ann = server.login("ann").await;
        let mut slow = server.connect_over(Line::Narrow, Encoding::MessagePack).await;
        slow.login("bea").await;
        slow.watches(&["ann"]).await;
        let filler: serde_json::Value = (0..16).map(|n| (format!("k{n}"), json!("x".repeat(250)))).collect();
        for n in 0..2_000 {
            let mut activity = filler.clone();
            activity["k0"] = json!(n);
            ann.does("presence.set", json!({"status": "playing", "activity": activity})).await;
        }
        // However much she slept through, she is not closed, and what she hears last is the latest.
        let mut heard = 0;
        while slow.expect_presence("ann").await["activity"]["k0"] != 1_999 {
            heard += 1;
        }
        assert!(heard < 1_999, "nothing was joined");
        slow.pings().await;
    }
}
