//! What is promised about pushes over a lost link: none is lost in silence, none comes twice under one number.

use serde_json::{Value, json};

use crate::harness::player::Player;
use crate::harness::server::{Server, Starting};
use crate::harness::stages::{Stage, on_every_stage};

fn with_messages(stage: Stage) -> Starting {
    Server::on(stage).with("session.player_messages", true).with("limits.send_burst", 1_000)
}

async fn says(ann: &mut Player, to: &str, numbers: std::ops::RangeInclusive<u32>) {
    for n in numbers {
        ann.tells(to, json!(n)).await;
    }
}

async fn expect_messages(bea: &mut Player, numbers: std::ops::RangeInclusive<u32>) {
    for n in numbers {
        assert_eq!(bea.expect_push("message").await["data"], n);
    }
}

/// The statuses in a push of presence, by player.
fn statuses(push: &Value) -> Vec<(String, String)> {
    let word = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
    let items = push["items"].as_array().unwrap().iter();
    let mut statuses: Vec<_> = items.map(|item| (word(item, "player"), word(item, "status"))).collect();
    statuses.sort();
    statuses
}

on_every_stage! {
    async fn pushes_missed_while_away_come_after_the_resume_without_a_gap(stage) {
        let server = with_messages(stage).start();
        let mut ann = server.login("ann").await;
        let mut bea = server.login("bea").await;
        bea.watches(&["ann"]).await;
        says(&mut ann, "bea", 1..=2).await;
        expect_messages(&mut bea, 1..=2).await;
        let credentials = bea.drops();
        says(&mut ann, "bea", 3..=5).await;
        ann.shows("playing").await;
        says(&mut ann, "bea", 6..=6).await;
        // The change of presence is told at the next tick: with the messages, or behind them.
        let mut bea = server.resume(&credentials).await;
        assert_eq!(bea.ready["missed"], json!(null));
        assert!(bea.ready["replayed"].as_u64().unwrap() >= 4, "{}", bea.ready);
        let mut messages = Vec::new();
        let mut presence = None;
        while messages.len() < 4 || presence.is_none() {
            let push = bea.next_push().await;
            match push.op.as_str() {
                "message" => messages.push(push.body["data"].clone()),
                "presence" => presence = Some(push.body["items"][0]["status"].clone()),
                _ => panic!("{push:?}"),
            }
        }
        assert_eq!(messages, [3, 4, 5, 6]);
        assert_eq!(presence, Some(json!("playing")));
    }

    async fn what_was_sent_but_not_handled_is_sent_again_under_the_same_number(stage) {
        let server = with_messages(stage).start();
        let mut ann = server.login("ann").await;
        let mut bea = server.login("bea").await;
        says(&mut ann, "bea", 1..=5).await;
        expect_messages(&mut bea, 1..=5).await;
        // She read five, but her program crashed over the third.
        let mut credentials = bea.drops();
        credentials.last_seq = 2;
        for _ in 0..2 {
            let mut bea = server.resume(&credentials).await;
            assert_eq!((&bea.ready["replayed"], &bea.ready["missed"]), (&json!(3), &json!(null)));
            expect_messages(&mut bea, 3..=5).await;
            credentials = bea.drops();
            assert_eq!(credentials.last_seq, 5);
            credentials.last_seq = 2;
        }
    }

    async fn what_the_client_has_seen_is_not_kept(stage) {
        let server = with_messages(stage).start();
        let mut ann = server.login("ann").await;
        let mut bea = server.login("bea").await;
        says(&mut ann, "bea", 1..=5).await;
        expect_messages(&mut bea, 1..=5).await;
        bea.does("ping", json!({"seen": 3})).await;
        let mut credentials = bea.drops();
        credentials.last_seq = 3;
        let mut bea = server.resume(&credentials).await;
        assert_eq!((&bea.ready["replayed"], &bea.ready["missed"]), (&json!(2), &json!(null)));
        expect_messages(&mut bea, 4..=5).await;
        // Who takes back what she said she had seen has lost it, and is told so.
        let mut credentials = bea.drops();
        credentials.last_seq = 2;
        let bea = server.resume(&credentials).await;
        assert_eq!(bea.ready["missed"], true);
    }

    async fn more_than_the_buffer_holds_is_told_as_missed_and_snapshots_follow(stage) {
        let server = with_messages(stage).with("session.replay_frames_max", 4).start();
        let mut ann = server.login("ann").await;
        let mut cem = server.login("cem").await;
        let mut bea = server.login("bea").await;
        bea.watches(&["ann", "cem"]).await;
        says(&mut ann, "bea", 1..=10).await;
        expect_messages(&mut bea, 1..=10).await;
        let mut credentials = bea.drops();
        credentials.last_seq = 3;
        cem.shows("busy").await;
        let mut bea = server.resume(&credentials).await;
        assert_eq!(bea.ready["missed"], true);
        assert_eq!(bea.ready["watching"], json!(["ann", "cem"]));
        let expected = [("ann".to_owned(), "online".to_owned()), ("cem".to_owned(), "busy".to_owned())];
        let mut seen: Vec<(String, String)> = Vec::new();
        while !expected.iter().all(|one| seen.contains(one)) {
            let push = bea.next_push().await;
            if push.op == "presence" {
                seen.extend(statuses(&push.body));
            }
        }
        // From here on nothing is missing.
        ann.tells("bea", json!("news")).await;
        while bea.next_push().await.body["data"] != "news" {}
    }

    async fn more_than_may_wait_while_away_is_told_as_missed(stage) {
        let server = with_messages(stage).with("link.outbox_items_max", 8).start();
        let mut ann = server.login("ann").await;
        let mut bea = server.login("bea").await;
        bea.watches(&["ann"]).await;
        let credentials = bea.drops();
        // She has left only when others see it: until then her link takes what is pushed.
        says(&mut ann, "bea", 1..=40).await;
        let mut bea = server.resume(&credentials).await;
        assert_eq!(bea.ready["missed"], true);
        loop {
            let push = bea.next_push().await;
            if push.op == "presence" {
                assert_eq!(statuses(&push.body), [("ann".to_owned(), "online".to_owned())]);
                break;
            }
        }
    }

    async fn a_new_session_counts_its_pushes_anew(stage) {
        let server = with_messages(stage).start();
        let mut ann = server.login("ann").await;
        let mut bea = server.login("bea").await;
        says(&mut ann, "bea", 1..=3).await;
        expect_messages(&mut bea, 1..=3).await;
        let mut bea = server.login("bea").await;
        says(&mut ann, "bea", 4..=4).await;
        let push = bea.next_push().await;
        assert_eq!((push.number, &push.body["data"]), (1, &json!(4)));
    }
}
