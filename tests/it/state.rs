//! What is promised about a player's state: she reads what she wrote, each change takes effect once, whole, in order.

use serde_json::json;

use crate::harness::server::Server;
use crate::harness::stages::on_every_stage;

/// The largest text that fits into a state of 4,096 bytes under a key of one letter: three bytes announce the text,
/// two are the key, one is the map.
const FITS: usize = 4096 - 6;

on_every_stage! {
    async fn a_player_reads_her_own_writes_in_order_and_after_a_resume(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.login("ann").await;
        let mut reads = Vec::new();
        for n in 1..=20 {
            ann.feed("state.patch", json!({"set": {"n": n}, "incr": {"sum": n}})).await;
            reads.push(ann.feed("state.get", json!({"keys": ["n", "sum"]})).await);
        }
        ann.socket.flush().await;
        let mut sum = 0;
        for (read, n) in reads.into_iter().zip(1..) {
            sum += n;
            let got = ann.answer(read).await.unwrap();
            assert_eq!(got["state"], json!({"n": n, "sum": sum}));
        }
        let credentials = ann.drops();
        let mut ann = server.resume(&credentials).await;
        let got = ann.does("state.get", json!({"at_least": credentials.stamp})).await;
        assert_eq!(got["state"], json!({"n": 20, "sum": 210}));
    }

    async fn a_read_that_asks_for_more_than_there_is_yet_is_told_so(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.login("ann").await;
        let mut ahead = ann.patch(json!({"set": {"n": 1}})).await["stamp"].clone();
        ahead[1] = json!(ahead[1].as_u64().unwrap() + 1);
        let refused = ann.is_refused("state.get", json!({"at_least": ahead}), "behind").await;
        assert_eq!(refused["temporary"], true);
        ann.patch(json!({"set": {"n": 2}})).await;
        let got = ann.does("state.get", json!({"at_least": ahead})).await;
        assert_eq!(got["state"], json!({"n": 2}));
    }

    async fn a_change_takes_effect_once_however_often_it_is_sent(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.login("ann").await;
        let first = ann.patch(json!({"incr": {"gold": 5}, "cseq": 1})).await;
        assert_eq!((&first["dup"], &first["state"]), (&json!(null), &json!({"gold": 5})));
        let again = ann.patch(json!({"incr": {"gold": 5}, "cseq": 1})).await;
        assert_eq!((&again["dup"], &again["state"]), (&json!(true), &json!({"gold": 5})));
        assert_eq!(again["stamp"], first["stamp"]);
        let again = ann.patch_durably(json!({"incr": {"gold": 5}, "cseq": 1})).await;
        assert_eq!(again["dup"], true);
        let mut ann = server.resume(&ann.drops()).await;
        assert_eq!(ann.ready["cseq"], 1);
        let again = ann.patch(json!({"incr": {"gold": 5}, "cseq": 1})).await;
        assert_eq!((&again["dup"], &again["state"]), (&json!(true), &json!({"gold": 5})));
        assert_eq!(ann.state().await, json!({"gold": 5}));
    }

    async fn a_gap_in_cseq_is_refused_and_names_the_number_that_is_due(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.login("ann").await;
        ann.patch(json!({"incr": {"n": 1}, "cseq": 1})).await;
        for (op, body) in [
            ("state.patch", json!({"incr": {"n": 1}, "cseq": 3})),
            ("presence.set", json!({"status": "busy", "cseq": 3})),
        ] {
            let refused = ann.is_refused(op, body, "cseq_gap").await;
            assert_eq!((&refused["expected"], &refused["temporary"]), (&json!(2), &json!(false)));
        }
        assert_eq!(ann.looks_at("ann").await["status"], "online");
        ann.patch(json!({"incr": {"n": 1}, "cseq": 2})).await;
        assert_eq!(ann.state().await, json!({"n": 2}));
    }

    async fn a_refused_change_uses_no_cseq_and_those_behind_it_have_no_effect(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.login("ann").await;
        ann.patch(json!({"set": {"name": "Ann"}, "cseq": 1})).await;
        let refused = ann.feed("state.patch", json!({"set": {"x": 1}, "incr": {"name": 1}, "cseq": 2})).await;
        let behind = ann.send("state.patch", json!({"set": {"y": 1}, "cseq": 3})).await;
        assert_eq!(ann.answer(refused).await.unwrap_err()["code"], "bad_request");
        let behind = ann.answer(behind).await.unwrap_err();
        assert_eq!((&behind["code"], &behind["expected"]), (&json!("cseq_gap"), &json!(2)));
        assert_eq!(ann.state().await, json!({"name": "Ann"}));
        ann.patch(json!({"set": {"z": 1}, "cseq": 2})).await;
        assert_eq!(ann.state().await, json!({"name": "Ann", "z": 1}));
    }

    async fn a_patch_made_for_another_state_conflicts_and_changes_nothing(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.login("ann").await;
        let seen = ann.patch(json!({"set": {"zone": "harbour"}})).await["state_stamp"].clone();
        // A change of presence moves the record, but not the state.
        ann.shows("busy").await;
        let moved =
            ann.patch(json!({"set": {"zone": "docks"}, "if_state": seen})).await["state_stamp"].clone();
        let late = json!({"set": {"zone": "sea"}, "if_state": seen, "cseq": 1});
        let refused = ann.is_refused("state.patch", late, "state_conflict").await;
        assert_eq!((&refused["state_stamp"], &refused["temporary"]), (&moved, &json!(false)));
        assert_eq!(ann.state().await, json!({"zone": "docks"}));
    }

    async fn a_state_of_4_kib_fits_and_one_byte_more_does_not(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.login("ann").await;
        ann.patch(json!({"set": {"k": "x".repeat(FITS)}, "cseq": 1})).await;
        let more = json!({"set": {"k": "y".repeat(FITS + 1)}, "cseq": 2});
        ann.is_refused("state.patch", more, "too_large").await;
        let long_key = json!({"set": {"k".repeat(65): 1}, "unset": ["k"], "cseq": 2});
        ann.is_refused("state.patch", long_key, "too_large").await;
        assert_eq!(ann.state().await, json!({"k": "x".repeat(FITS)}));
        ann.patch(json!({"set": {"k".repeat(64): 1}, "unset": ["k"], "cseq": 2})).await;
    }

    async fn the_state_is_gone_with_the_last_session(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.login("ann").await;
        ann.patch_durably(json!({"set": {"zone": "harbour"}})).await;
        ann.does("logout", json!({})).await;
        let mut ann = server.login("ann").await;
        assert_eq!(ann.state().await, json!({}));
        assert_eq!(ann.ready["cseq"], 0);
    }
}
