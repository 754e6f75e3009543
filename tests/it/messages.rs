//! What is promised about messages from player to player: only where allowed, once, named after who sent them.

use serde_json::json;

use crate::harness::server::Server;
use crate::harness::stages::on_every_stage;

on_every_stage! {
    async fn players_may_not_write_to_each_other_unless_allowed(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.login("ann").await;
        let mut bea = server.login("bea").await;
        let send = json!({"player": "bea", "data": 1, "cseq": 1});
        ann.is_refused("send", send, "forbidden").await;
        // It used no number, and nothing reached bea.
        ann.patch(json!({"set": {"a": 1}, "cseq": 1})).await;
        bea.pings().await;
        assert!(!bea.was_told("message"));
    }

    async fn a_message_reaches_its_player_with_the_name_of_its_sender(stage) {
        let server = Server::on(stage).with("session.player_messages", true).start();
        let mut ann = server.login("ann").await;
        let mut bea = server.login("bea").await;
        assert_eq!(ann.tells("bea", json!({"say": "hi"})).await["delivered"], 1);
        let message = bea.expect_push("message").await;
        assert_eq!((&message["player"], &message["data"]), (&json!("ann"), &json!({"say": "hi"})));
        assert!(message["id"].as_str().is_some_and(|id| !id.is_empty()));
        // To oneself, too; to nobody, without a fault.
        assert_eq!(bea.tells("bea", json!(2)).await["delivered"], 1);
        assert_eq!(bea.expect_push("message").await["data"], 2);
        assert_eq!(ann.tells("nobody", json!(3)).await["delivered"], 0);
        ann.is_refused("send", json!({"player": "a\nb", "data": 1}), "bad_request").await;
        ann.is_refused("send", json!({"player": "bea"}), "bad_request").await;
    }

    async fn a_message_sent_again_is_a_repeat(stage) {
        let server = Server::on(stage).with("session.player_messages", true).start();
        let mut ann = server.login("ann").await;
        let mut bea = server.login("bea").await;
        let first = json!({"player": "bea", "data": "first", "cseq": 1});
        assert_eq!(ann.does("send", first.clone()).await, json!({"delivered": 1}));
        let again = ann.does("send", first).await;
        assert_eq!(again["dup"], true);
        ann.does("send", json!({"player": "bea", "data": "second", "cseq": 2})).await;
        ann.is_refused("send", json!({"player": "bea", "data": "fourth", "cseq": 4}), "cseq_gap").await;
        assert_eq!(bea.expect_push("message").await["data"], "first");
        assert_eq!(bea.expect_push("message").await["data"], "second");
    }

    /// The number was lost in a crash together with everything else since the last flush: the message goes out again,
    /// and its id tells the receiver that she has it.
    async fn a_message_sent_again_after_a_crash_has_the_same_id(stage) {
        let starting = Server::on(stage).with_lease(3_000).with("home.flush_interval_ms", 1_000);
        let mut server = starting.with("session.player_messages", true).start();
        let mut ann = server.login("ann").await;
        let mut bea = server.login("bea").await;
        let message = json!({"player": "bea", "data": "hi", "cseq": 1});
        ann.does("send", message.clone()).await;
        let id = bea.expect_push("message").await["id"].clone();
        server.kill9();
        server.restart();
        let mut ann = server.resume(&ann.drops()).await;
        assert_eq!(ann.ready["cseq"], 0, "the number was flushed before the server was killed");
        let mut bea = server.resume(&bea.drops()).await;
        assert_eq!(ann.does("send", message).await["delivered"], 1);
        assert_eq!(bea.expect_push("message").await["id"], id);
    }
}
