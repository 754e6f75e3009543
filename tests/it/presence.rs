//! What is promised about presence: who watches sees every change and no more than she may; short drops are not seen.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::patience::until;
use crate::harness::server::Server;
use crate::harness::stages::on_every_stage;

fn unix_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Whether a presence item's `ver` is the later one.
fn is_later(item: &Value, than: &Value) -> bool {
    let ver = |item: &Value| (item["ver"][0].as_u64().unwrap(), item["ver"][1].as_u64().unwrap());
    ver(item) > ver(than)
}

on_every_stage! {
    async fn a_watch_is_a_snapshot_and_then_every_change(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.connect().await;
        ann.login_with(json!({"token": "dev:ann", "device": "mobile"})).await;
        let mut bea = server.login("bea").await;
        let snapshot = bea.watches(&["ann", "cem"]).await;
        assert_eq!((&snapshot[0]["player"], &snapshot[0]["status"]), (&json!("ann"), &json!("online")));
        assert_eq!(snapshot[0]["devices"], json!(["mobile"]));
        assert_eq!((&snapshot[1]["player"], &snapshot[1]["status"]), (&json!("cem"), &json!("offline")));
        let mut latest = snapshot[0].clone();
        for (status, activity) in [
            ("playing", Some(json!({"map": "docks", "score": 7}))),
            ("busy", None),
            ("online", Some(json!({}))),
            ("away", None),
        ] {
            let mut set = json!({"status": status});
            if let Some(activity) = &activity {
                set["activity"] = activity.clone();
            }
            ann.does("presence.set", set).await;
            let item = bea.expect_presence("ann").await;
            assert_eq!(item["status"], status);
            assert!(is_later(&item, &latest), "{item} after {latest}");
            // Absent keeps it, an empty one clears it.
            let shown = if matches!(status, "playing" | "busy") {
                json!({"map": "docks", "score": 7})
            } else {
                json!(null)
            };
            assert_eq!(item["activity"], shown, "{status}");
            latest = item;
        }
        assert_eq!(bea.looks_at("ann").await, latest);
        ann.does("logout", json!({})).await;
        let gone = bea.expect_presence("ann").await;
        assert_eq!(gone["status"], "offline");
        let ago = unix_ms().abs_diff(gone["last_seen"].as_u64().unwrap());
        assert!(ago < 10_000, "{gone}");
        let cem = server.login("cem").await;
        assert_eq!(bea.expect_presence("cem").await["status"], "online");
        drop(cem);
        // A player who came back shows with a later `ver` than when she left.
        server.login("ann").await;
        assert!(is_later(&bea.expect_presence("ann").await, &gone));
    }

    async fn who_no_longer_watches_hears_no_more(stage) {
        let server = Server::on(stage).start();
        let (mut ann, mut cem) = (server.login("ann").await, server.login("cem").await);
        let mut bea = server.login("bea").await;
        bea.watches(&["ann", "cem"]).await;
        bea.watches(&["ann"]).await;
        bea.does("unwatch", json!({"players": ["ann", "never watched"]})).await;
        ann.shows("busy").await;
        cem.shows("busy").await;
        bea.expect_presence("cem").await;
        let credentials = bea.drops();
        let bea = server.resume(&credentials).await;
        assert_eq!(bea.ready["watching"], json!(["cem"]));
    }

    async fn a_session_watches_at_most_so_many(stage) {
        let server = Server::on(stage).with("presence.watches_max", 3).start();
        let mut bea = server.login("bea").await;
        bea.watches(&["p1", "p2"]).await;
        bea.is_refused("watch", json!({"players": ["p2", "p3", "p4"]}), "too_large").await;
        // Nothing of the refused call has happened.
        bea.watches(&["p1", "p5"]).await;
        let bea = server.resume(&bea.drops()).await;
        assert_eq!(bea.ready["watching"], json!(["p1", "p2", "p5"]));
    }

    async fn a_short_drop_is_not_seen(stage) {
        let server = Server::on(stage).with("presence.grace_ms", 2_000).start();
        let ann = server.login("ann").await;
        let mut bea = server.login("bea").await;
        bea.watches(&["ann"]).await;
        let credentials = ann.drops();
        assert_eq!(bea.looks_at("ann").await["status"], "online");
        let mut ann = server.resume(&credentials).await;
        ann.shows("busy").await;
        assert_eq!(bea.expect_presence("ann").await["status"], "busy");
    }

    async fn who_does_not_come_back_goes_offline_after_the_grace(stage) {
        let server = Server::on(stage).with("presence.grace_ms", 600).start();
        let ann = server.login("ann").await;
        let mut bea = server.login("bea").await;
        bea.watches(&["ann"]).await;
        let (dropped, dropped_ms) = (Instant::now(), unix_ms());
        let credentials = ann.drops();
        let item = bea.expect_presence("ann").await;
        assert_eq!(item["status"], "offline");
        assert!(dropped.elapsed() >= Duration::from_millis(600), "{:?}", dropped.elapsed());
        let late = item["last_seen"].as_u64().unwrap().abs_diff(dropped_ms);
        assert!(late < 500, "last seen when the link dropped, not when the grace was over: {late} ms");
        assert_eq!(item["devices"], json!(null));
        // Her session is there all the same.
        server.resume(&credentials).await;
        assert_eq!(bea.expect_presence("ann").await["status"], "online");
    }

    async fn whose_grace_ran_out_while_no_server_was_there_is_offline_at_once(stage) {
        // Longer than a server takes to be there and to have its shards.
        let grace = Duration::from_secs(8);
        let mut server = Server::on(stage).with_lease(1_200).with("presence.grace_ms", 8_000).start();
        let ann = server.login("ann").await;
        let dropped = Instant::now();
        ann.drops();
        // That she has no link is stored, and that she is shown is, too.
        sleep(Duration::from_millis(500)).await;
        until("nothing to be dirty", async || {
            (server.metric("hearth_records_dirty", "").await == 0).then_some(())
        })
        .await;
        server.kill9();
        sleep((grace + Duration::from_secs(1)).saturating_sub(dropped.elapsed())).await;
        // A grace that was granted anew would not be over before this.
        let deadline = Instant::now() + grace;
        server.restart();
        let mut bea = server.login("bea").await;
        loop {
            let seen = bea.looks_at("ann").await;
            assert!(Instant::now() < deadline, "she may have got another grace: {seen}");
            if seen["status"] == "offline" {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn nobody_can_tell_that_an_invisible_player_is_here(stage) {
        let server = Server::on(stage).with("presence.grace_ms", 0).start();
        let mut dot = server.login("dot").await;
        let mut bea = server.login("bea").await;
        let before = bea.watches(&["ann", "dot"]).await[0].clone();
        assert_eq!(before["status"], "offline");
        let mut ann = server.connect().await;
        ann.login_with(json!({"token": "dev:ann", "device": "pc", "status": "invisible"})).await;
        assert_eq!(bea.looks_at("ann").await, before);
        ann.patch_durably(json!({"set": {"zone": "harbour"}})).await;
        let set = json!({"status": "invisible", "activity": {"map": "docks"}, "ack": "durable"});
        ann.does("presence.set", set).await;
        assert_eq!(bea.looks_at("ann").await, before);
        let mut ann = server.resume(&ann.drops()).await;
        assert_eq!(bea.looks_at("ann").await, before);
        ann.does("logout", json!({})).await;
        ann.expect_close(1000).await;
        assert_eq!(bea.looks_at("ann").await, before);
        // No push came for any of it: the next one is about somebody else.
        dot.shows("busy").await;
        bea.expect_presence("dot").await;
    }

    async fn who_turns_invisible_looks_like_one_who_left(stage) {
        let server = Server::on(stage).start();
        let (mut ann, mut dot) = (server.login("ann").await, server.login("dot").await);
        let mut bea = server.login("bea").await;
        bea.watches(&["ann", "dot"]).await;
        ann.does("presence.set", json!({"status": "playing", "activity": {"map": "docks"}})).await;
        bea.expect_presence("ann").await;
        ann.shows("invisible").await;
        let left = bea.expect_presence("ann").await;
        assert_eq!(
            (&left["status"], &left["activity"], &left["devices"]),
            (&json!("offline"), &json!(null), &json!(null))
        );
        assert!(left["last_seen"].is_u64());
        // Whatever she does unseen, her item stands still.
        ann.does("presence.set", json!({"status": "invisible", "activity": {"map": "sewers"}})).await;
        ann.does("presence.set", json!({"status": "busy", "visibility": "hidden"})).await;
        ann.does("logout", json!({})).await;
        dot.shows("busy").await;
        bea.expect_presence("dot").await;
        assert_eq!(bea.looks_at("ann").await, left);
    }

    async fn visibility_says_how_much_others_see(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.connect().await;
        ann.login_with(json!({"token": "dev:ann", "device": "console"})).await;
        let mut bea = server.login("bea").await;
        bea.watches(&["ann"]).await;
        let activity = json!({"map": "docks"});
        ann.does("presence.set", json!({"status": "playing", "activity": activity})).await;
        let full = bea.expect_presence("ann").await;
        assert_eq!((&full["activity"], &full["devices"]), (&activity, &json!(["console"])));
        ann.does("presence.set", json!({"status": "playing", "visibility": "status"})).await;
        let less = bea.expect_presence("ann").await;
        assert_eq!(less["status"], "playing");
        assert_eq!((&less["activity"], &less["devices"]), (&json!(null), &json!(null)));
        ann.does("presence.set", json!({"status": "playing", "visibility": "hidden"})).await;
        assert_eq!(bea.expect_presence("ann").await["status"], "offline");
        ann.does("presence.set", json!({"status": "playing", "visibility": "full"})).await;
        assert_eq!(bea.expect_presence("ann").await["activity"], activity);
    }

    async fn an_idle_player_is_shown_away_until_she_does_something(stage) {
        let server = Server::on(stage).with("presence.away_after_ms", 400).start();
        let mut bea = server.login("bea").await;
        bea.watches(&["ann"]).await;
        let mut ann = server.login("ann").await;
        assert_eq!(bea.expect_presence("ann").await["status"], "online");
        // A ping is a sign of life, but nobody at work.
        ann.pings().await;
        let began = Instant::now();
        assert_eq!(bea.expect_presence("ann").await["status"], "away");
        assert!(began.elapsed() < Duration::from_secs(5));
        ann.pings().await;
        ann.state().await;
        assert_eq!(bea.expect_presence("ann").await["status"], "online");
        assert_eq!(bea.expect_presence("ann").await["status"], "away");
        // Only who is `online` is shown away by herself.
        ann.shows("busy").await;
        assert_eq!(bea.expect_presence("ann").await["status"], "busy");
    }

    async fn changes_within_a_tick_are_told_once_and_the_last_one_counts(stage) {
        let server = Server::on(stage).with("presence.tick_ms", 300).start();
        let mut ann = server.login("ann").await;
        let mut bea = server.login("bea").await;
        bea.watches(&["ann"]).await;
        for n in 1..=10 {
            ann.feed("presence.set", json!({"status": "playing", "activity": {"n": n}})).await;
        }
        ann.pings().await;
        assert_eq!(bea.expect_presence("ann").await["activity"], json!({"n": 10}));
        ann.shows("busy").await;
        assert_eq!(bea.expect_presence("ann").await["status"], "busy");
    }

    async fn an_activity_has_its_bounds(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.login("ann").await;
        let keys = |count: usize| -> Value { (0..count).map(|n| (format!("k{n}"), json!(n))).collect() };
        for (activity, fits) in [
            (keys(16), true),
            (keys(17), false),
            (json!({"k".repeat(64): 1}), true),
            (json!({"k".repeat(65): 1}), false),
            (json!({"k": "v".repeat(253)}), true),
            (json!({"k": "v".repeat(300)}), false),
        ] {
            let set = json!({"status": "playing", "activity": activity});
            if fits {
                ann.does("presence.set", set).await;
            } else {
                ann.is_refused("presence.set", set, "too_large").await;
            }
        }
    }

    async fn watches_live_through_a_resume(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.login("ann").await;
        let mut bea = server.login("bea").await;
        bea.watches(&["ann", "cem"]).await;
        let mut bea = server.resume(&bea.drops()).await;
        assert_eq!(bea.ready["watching"], json!(["ann", "cem"]));
        assert_eq!(bea.ready["missed"], json!(null));
        ann.shows("busy").await;
        assert_eq!(bea.expect_presence("ann").await["status"], "busy");
    }

    async fn watches_live_through_a_crash_and_snapshots_follow(stage) {
        let mut server = Server::on(stage).with_lease(1_200).start();
        let mut ann = server.login("ann").await;
        let mut bea = server.login("bea").await;
        bea.watches(&["ann", "cem"]).await;
        // Of the same record: what was before it is stored with it.
        bea.patch_durably(json!({"set": {"a": 1}})).await;
        ann.does("presence.set", json!({"status": "playing", "ack": "durable"})).await;
        assert_eq!(bea.expect_presence("ann").await["status"], "playing");
        server.kill9();
        server.restart();
        let mut ann = server.resume(&ann.drops()).await;
        let mut bea = server.resume(&bea.drops()).await;
        assert_eq!(bea.ready["watching"], json!(["ann", "cem"]));
        assert_eq!(bea.ready["missed"], true);
        // Their homes answer each for itself.
        let mut items = Vec::new();
        while items.len() < 2 {
            items.extend(bea.expect_push("presence").await["items"].as_array().unwrap().iter().cloned());
        }
        let status =
            |player: &str| items.iter().find(|item| item["player"] == player).unwrap()["status"].clone();
        assert_eq!((status("ann"), status("cem")), (json!("playing"), json!("offline")));
        ann.shows("busy").await;
        assert_eq!(bea.expect_presence("ann").await["status"], "busy");
    }
}
