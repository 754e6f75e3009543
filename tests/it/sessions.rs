//! What is promised about the life of a session: who may take it up again, what ends it and what does not.

use serde_json::json;

use crate::harness::player::Credentials;
use crate::harness::server::Server;
use crate::harness::socket::Encoding;
use crate::harness::stages::on_every_stage;

async fn not_resumable(server: &Server, credentials: &Credentials) {
    let refused = server.resume_refused(credentials).await;
    assert_eq!(
        (&refused["code"], &refused["temporary"]),
        (&json!("not_resumable"), &json!(false)),
        "{refused}"
    );
}

on_every_stage! {
    async fn a_login_says_what_a_client_must_know(stage) {
        let server = Server::on(stage).with("session.ttl_ms", 60_000).with("link.heartbeat_ms", 5_000).start();
        let ann = server.login("ann").await;
        let ready = &ann.ready;
        assert_eq!(ready["player"], "ann");
        assert_eq!(ready["resumed"], false);
        assert_eq!((&ready["resume_ms"], &ready["heartbeat_ms"]), (&json!(60_000), &json!(5_000)));
        assert_eq!(ready["cseq"], 0);
        for name in ["frame_bytes", "state_bytes", "watches", "players_per_call"] {
            assert!(ready["limits"][name].is_u64(), "{name}: {}", ready["limits"]);
        }
        let session = ready["session"].as_str().unwrap();
        assert_eq!(session.as_bytes()[14], b'7', "a UUID of version 7: {session}");
    }

    async fn a_ticket_is_good_until_the_next_one_was_used(stage) {
        let server = Server::on(stage).start();
        let first = server.login("ann").await.drops();
        // The answer to this resume is lost: the ticket that was used is good for one more try.
        let lost = server.resume(&first).await.drops();
        assert_ne!(lost.ticket, first.ticket);
        let mut ann = server.resume(&first).await;
        let newest = ann.credentials();
        not_resumable(&server, &first).await;
        // A frame shows that the client holds the newest ticket: the one before is worth nothing now.
        ann.state().await;
        not_resumable(&server, &lost).await;
        not_resumable(&server, &first).await;
        ann.pings().await;
        server.resume(&newest).await;
    }

    async fn a_forged_ticket_opens_nothing(stage) {
        let server = Server::on(stage).start();
        let ann = server.login("ann").await.drops();
        let bea = server.login("bea").await.drops();
        let mut forged = ann.clone();
        forged.ticket = bea.ticket.clone();
        not_resumable(&server, &forged).await;
        forged.ticket = ann.ticket.chars().rev().collect();
        not_resumable(&server, &forged).await;
        forged = ann.clone();
        forged.session = "not a session".to_owned();
        not_resumable(&server, &forged).await;
        // On the same link a login is still welcome.
        let mut link = server.connect_for("cem").await;
        link.try_resume(&forged).await.expect_err("forged");
        link.login("cem").await;
        server.resume(&ann).await;
    }

    async fn a_newer_login_replaces_the_older_session(stage) {
        let server = Server::on(stage).start();
        let mut old = server.login("ann").await;
        old.patch(json!({"set": {"zone": "harbour"}})).await;
        let mut new = server.login("ann").await;
        // The state is the player's, not the session's.
        assert_eq!(new.state().await, json!({"zone": "harbour"}));
        assert_ne!(old.ready["session"], new.ready["session"]);
        old.expect_close(4504).await;
        not_resumable(&server, &old.credentials()).await;
        new.pings().await;
        // One that is away is replaced, too.
        let away = new.drops();
        server.login("ann").await;
        not_resumable(&server, &away).await;
    }

    async fn under_reject_a_second_login_is_refused_until_the_first_has_left(stage) {
        let server =
            Server::on(stage).with("session.login_policy", "reject").with("presence.grace_ms", 300).start();
        let mut watcher = server.login("bea").await;
        watcher.watches(&["ann"]).await;
        let mut first = server.login("ann").await;
        assert_eq!(watcher.expect_presence("ann").await["status"], "online");
        let mut second = server.connect().await;
        let refused = second.is_refused("login", json!({"token": "dev:ann"}), "session_limit").await;
        assert_eq!(refused["temporary"], true);
        second.expect_close(4505).await;
        first.pings().await;
        let left = first.drops();
        // Dropped for less than the grace, she counts as present.
        let mut second = server.connect().await;
        second.is_refused("login", json!({"token": "dev:ann"}), "session_limit").await;
        assert_eq!(watcher.expect_presence("ann").await["status"], "offline");
        server.login("ann").await;
        not_resumable(&server, &left).await;
    }

    async fn a_resume_takes_the_session_from_a_link_that_still_looks_alive(stage) {
        let server = Server::on(stage).with("presence.grace_ms", 0).start();
        let mut watcher = server.login("bea").await;
        let mut old = server.login("ann").await;
        watcher.watches(&["ann"]).await;
        let mut new = server.resume(&old.credentials()).await;
        new.patch(json!({"set": {"here": "new"}})).await;
        old.expect_close(4001).await;
        drop(old);
        // The end of the old link did not touch the new one: nobody saw her leave.
        new.shows("busy").await;
        assert_eq!(watcher.expect_presence("ann").await["status"], "busy");
        assert_eq!(new.state().await, json!({"here": "new"}));
    }

    async fn a_logout_ends_the_session(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.login("ann").await;
        ann.does("logout", json!({})).await;
        ann.expect_close(1000).await;
        not_resumable(&server, &ann.credentials()).await;
    }

    async fn a_close_1000_ends_the_session_and_any_other_keeps_it(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.login("ann").await;
        ann.patch(json!({"set": {"zone": "harbour"}})).await;
        for code in [1001, 3000, 4999] {
            let credentials = ann.closes(code).await;
            ann = server.resume(&credentials).await;
            assert_eq!(ann.ready["resumed"], true);
            assert_eq!(ann.state().await, json!({"zone": "harbour"}), "after {code}");
        }
        let credentials = ann.drops();
        let ann = server.resume(&credentials).await;
        let credentials = ann.closes(1000).await;
        not_resumable(&server, &credentials).await;
    }

    async fn a_session_belongs_to_its_player_on_any_link_and_in_any_encoding(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.connect_in(Encoding::Json).await;
        ann.login("ann").await;
        ann.patch(json!({"set": {"zone": "harbour"}})).await;
        let credentials = ann.drops();
        let mut ann = server.connect_in(Encoding::MessagePack).await;
        ann.resume(&credentials).await;
        assert_eq!(ann.ready["player"], "ann");
        assert_eq!(ann.state().await, json!({"zone": "harbour"}));
    }
}
