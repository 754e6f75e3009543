//! What is promised while the server is closed for players: they are told, services are served, and nothing is lost.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::harness::patience::until;
use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::stages::{Stage, on_every_redis, on_every_stage};

const KEY: &str = "the key of an operator";

fn unix_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn server(stage: Stage) -> Server {
    Server::on(stage).with("service_key", KEY).start()
}

on_every_stage! {
    async fn closed_for_maintenance_keeps_players_out_and_their_sessions_alive(stage) {
        let mut server = server(stage);
        let operator = Service::of(&server, KEY);
        assert_eq!(operator.get("/v1/maintenance").await, (200, json!({"closed": false})));
        let mut ann = server.login("ann").await;
        ann.patch_durably(json!({"set": {"gold": 5}})).await;

        let (status, closed) = operator.post("/v1/maintenance", json!({"reason": "a new season"})).await;
        assert_eq!((status, &closed["closed"], &closed["links"]), (200, &json!(true), &json!(1)));
        let bye = ann.expect_close(4507).await;
        assert_eq!((&bye["reason"], &bye["retry_after_ms"]), (&json!("a new season"), &json!(null)));
        assert_eq!(bye["resume"], true, "her session waits for her");
        for (op, body) in [
            ("login", json!({"token": "dev:bea"})),
            ("resume", json!({"session": ann.ready["session"], "ticket": ann.ready["ticket"], "last_seq": 0})),
        ] {
            let mut kept_out = server.connect().await;
            let refused = kept_out.is_refused(op, body, "maintenance").await;
            assert_eq!((&refused["reason"], &refused["temporary"]), (&json!("a new season"), &json!(true)));
            kept_out.expect_close(4507).await;
        }

        // Services are served, and see that she will be back.
        let (status, seen) = operator.get("/v1/players/ann").await;
        assert_eq!((status, &seen["state"]["gold"], &seen["sessions"][0]["attached"]), (200, &json!(5), &json!(false)));
        let (status, readiness) = operator.get("/readyz").await;
        assert_eq!((status, &readiness["maintenance"]["closed"]), (200, &json!(true)));
        assert_eq!(operator.get("/v1/stats").await.1["maintenance"]["reason"], "a new season");

        // A restart opens nothing.
        assert!(server.stop_gracefully().success());
        server.restart();
        let operator = Service::of(&server, KEY);
        assert_eq!(operator.get("/v1/maintenance").await.1["since"], closed["since"]);
        let refused = server.resume_refused(&ann.credentials()).await;
        assert_eq!(refused["code"], "maintenance");

        assert_eq!(operator.delete("/v1/maintenance").await.0, 204);
        assert_eq!(operator.delete("/v1/maintenance").await.0, 204);
        let mut ann = server.resume(&ann.credentials()).await;
        assert_eq!(ann.state().await, json!({"gold": 5}));
        server.kill9();
        server.restart();
        server.login("bea").await;
    }

    async fn maintenance_ends_by_itself_when_it_said_so(stage) {
        let server = server(stage);
        let operator = Service::of(&server, KEY);
        let mut ann = server.login("ann").await;
        let ends_at = unix_ms() + 4_000;
        let body = json!({"reason": "a moment", "until": ends_at});
        assert_eq!(operator.post("/v1/maintenance", body).await.1["until"], ends_at);
        let bye = ann.expect_close(4507).await;
        // Told to come back after the end, and within the time over which all are spread.
        let retry_at = unix_ms() + bye["retry_after_ms"].as_u64().unwrap();
        assert!((ends_at - 50..ends_at + 26_000).contains(&retry_at), "{bye}");
        let credentials = ann.credentials();
        until("the end of the maintenance", async || {
            server.connect().await.try_resume(&credentials).await.ok()
        })
        .await;
        assert!(unix_ms() + 50 >= ends_at, "open before its time");
        until("nothing to be stored any more", async || {
            (operator.get("/v1/maintenance").await.1 == json!({"closed": false})).then_some(())
        })
        .await;
    }
}

on_every_redis! {
    async fn a_store_that_forgets_the_maintenance_is_told_again(stage) {
        let mut server = server(stage);
        let operator = Service::of(&server, KEY);
        assert_eq!(operator.post("/v1/maintenance", json!({"reason": "a new season"})).await.0, 200);
        server.redis().query::<()>(&["FLUSHALL"]);
        let stored = |server: &mut Server| server.redis().query::<i64>(&["HEXISTS", "test:cfg", "notice"]) == 1;
        let mut told = || {
            let is_stored = stored(&mut server);
            async move { is_stored.then_some(()) }
        };
        until("the store to be told again", &mut told).await;
        // What is taken back stays so.
        assert_eq!(operator.delete("/v1/maintenance").await.0, 204);
        assert!(!stored(&mut server));
        server.login("ann").await;
    }
}

#[tokio::test]
async fn a_maintenance_that_cannot_be_is_refused_by_name() {
    let server = server(Stage::Embedded);
    let operator = Service::of(&server, KEY);
    for (body, named) in [
        (json!({}), "`reason`"),
        (json!({"reason": ""}), "reason"),
        (json!({"reason": "x".repeat(257)}), "reason"),
        (json!({"reason": "r", "until": 1}), "until"),
        (json!({"reason": "r", "until": "noon"}), "until"),
    ] {
        let (status, problem) = operator.post("/v1/maintenance", body.clone()).await;
        assert_eq!((status, &problem["code"]), (400, &json!("bad_request")), "{body}");
        assert!(problem["detail"].as_str().unwrap().contains(named), "{body}: {problem}");
    }
    server.login("ann").await;
}
