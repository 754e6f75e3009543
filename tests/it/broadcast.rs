//! What is promised about messages of a service to many players and to all: one message, once, to everybody it names.

use serde_json::json;

use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::stages::{Stage, on_every_stage};

const KEY: &str = "the key of a service";

on_every_stage! {
    async fn a_message_to_many_reaches_each_of_them_once(stage) {
        let server = Server::on(stage).with("service_key", KEY).start();
        let service = Service::of(&server, KEY);
        let (mut ann, mut bea, mut cem) =
            (server.login("ann").await, server.login("bea").await, server.login("cem").await);
        let body = json!({"players": ["ann", "bea", "ann", "nobody"], "data": {"event": "dragon"}});
        let (status, pushed) = service.post("/v1/messages", body).await;
        assert_eq!((status, &pushed["delivered"], pushed.get("unknown")), (200, &json!(2), None));
        for player in [&mut ann, &mut bea] {
            let message = player.expect_push("message").await;
            assert_eq!((&message["id"], &message["data"]), (&pushed["id"], &json!({"event": "dragon"})));
            assert_eq!(message["service"], "bootstrap");
            player.pings().await;
            assert!(!player.was_told("message"), "named twice, told once");
        }
        cem.pings().await;
        assert!(!cem.was_told("message"));
    }

    async fn a_message_to_all_reaches_everybody_also_those_who_come_back(stage) {
        let server = Server::on(stage).with("service_key", KEY).start();
        let service = Service::of(&server, KEY);
        let (mut ann, bea) = (server.login("ann").await, server.login("bea").await);
        let bea = bea.drops();
        let body = json!({"all": true, "data": "the end is near", "idempotency_key": "tonight"});
        let (status, first) = service.post("/v1/messages", body.clone()).await;
        assert_eq!((status, &first["delivered"]), (200, &json!(2)));
        // The same key again: the same answer, and no second message.
        assert_eq!(service.post("/v1/messages", body).await, (200, first.clone()));
        let mut bea = server.resume(&bea).await;
        for player in [&mut ann, &mut bea] {
            assert_eq!(player.expect_push("message").await["id"], first["id"]);
            player.pings().await;
            assert!(!player.was_told("message"));
        }
    }
}

#[tokio::test]
async fn a_message_to_many_that_cannot_be_is_refused_and_reaches_nobody() {
    let server = Server::on(Stage::Embedded).with("service_key", KEY).start();
    let service = Service::of(&server, KEY);
    let mut ann = server.login("ann").await;
    let too_many: Vec<String> = (0..1_001).map(|n| format!("p{n}")).collect();
    for (body, status, named) in [
        (json!({"data": 1}), 400, "players"),
        (json!({"players": ["ann"], "all": true, "data": 1}), 400, "players"),
        (json!({"all": false, "data": 1}), 400, "players"),
        (json!({"players": too_many, "data": 1}), 413, "1000"),
        (json!({"players": ["ann", "a\nb"], "data": 1}), 400, "players[1]"),
        (json!({"all": true}), 400, "`data`"),
        (json!({"all": true, "data": 1, "ack": "durable"}), 400, "ack"),
        (json!({"all": true, "data": 1, "idempotency_key": ""}), 400, "idempotency_key"),
        (json!({"all": true, "data": "x".repeat(16_385)}), 413, "16384"),
    ] {
        let (answered, problem) = service.post("/v1/messages", body).await;
        assert_eq!(answered, status, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(named), "{named}: {problem}");
    }
    ann.pings().await;
    assert!(!ann.was_told("message"));
}

#[tokio::test]
async fn a_message_to_many_counts_for_many_calls() {
    let starting = Server::on(Stage::Embedded).with("service_key", KEY);
    let starting =
        starting.with("limits.service_requests_per_s", 1).with("limits.service_requests_burst", 20);
    let server = starting.start();
    let service = Service::of(&server, KEY);
    let players: Vec<String> = (0..150).map(|n| format!("p{n}")).collect();
    let body = json!({"players": players, "data": 1});
    assert_eq!(service.post("/v1/messages", body.clone()).await.0, 200);
    let (status, problem) = service.post("/v1/messages", body).await;
    assert_eq!((status, &problem["code"]), (429, &json!("rate_limited")));
    assert!(problem["retry_after_ms"].as_u64().unwrap() > 1_000, "{problem}");
}
