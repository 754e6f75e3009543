//! What is promised about messages that wait: none is lost before a client has seen it, whatever crashes, and none
//! waits for ever.

use serde_json::{Value, json};

use crate::harness::patience::until;
use crate::harness::player::Player;
use crate::harness::server::{Server, Starting};
use crate::harness::service::Service;
use crate::harness::stages::{Stage, on_every_redis, on_every_stage};

const KEY: &str = "s3cret-of-the-stories";
const PATH: &str = "/v1/players/ann/messages";

fn with_key(stage: Stage) -> Starting {
    Server::on(stage).with("service_key", KEY).with_lease(2_000)
}

/// Sends a message that is to be kept; its id and to how many sessions it went.
async fn keeps(shop: &Service, data: Value) -> (String, u64) {
    let (status, answer) = shop.post(PATH, json!({"data": data, "ack": "durable"})).await;
    assert_eq!((status, &answer["kept"]), (200, &json!(true)), "{answer}");
    (answer["id"].as_str().unwrap().to_owned(), answer["delivered"].as_u64().unwrap())
}

/// The next message; its id and what it says.
async fn hears(player: &mut Player) -> (String, Value) {
    let message = player.wait_for_push("message").await;
    assert_eq!(message["service"], "bootstrap");
    (message["id"].as_str().unwrap().to_owned(), message["data"].clone())
}

/// Tells the server what was seen, and waits until nothing waits any more: a session of another player's making.
async fn has_seen_all(server: &Server, player: &mut Player) {
    let seen = player.credentials().last_seq;
    player.does("ping", json!({"seen": seen})).await;
    until("what was seen is forgotten", || async {
        // A fresh login is told all that waits before its own first message.
        let shop = Service::of(server, KEY);
        let mut ann = server.login("ann").await;
        let (mark, _) = keeps(&shop, json!("mark")).await;
        let first = hears(&mut ann).await.0;
        let seen = ann.credentials().last_seq;
        ann.does("ping", json!({"seen": seen})).await;
        (first == mark).then_some(())
    })
    .await;
}

on_every_stage! {
    async fn a_message_waits_for_a_player_who_was_never_seen(stage) {
        let server = with_key(stage).start();
        let shop = Service::of(&server, KEY);
        let (first, delivered) = keeps(&shop, json!({"gift": "sword"})).await;
        assert_eq!(delivered, 0);
        let (second, _) = keeps(&shop, json!(2)).await;
        let mut ann = server.login("ann").await;
        assert_eq!(hears(&mut ann).await, (first, json!({"gift": "sword"})));
        assert_eq!(hears(&mut ann).await, (second, json!(2)));
    }

    async fn a_message_reaches_who_is_here_at_once_and_once(stage) {
        let server = with_key(stage).with("session.login_policy", "many(2)").start();
        let shop = Service::of(&server, KEY);
        let (mut pc, mut phone) = (server.login("ann").await, server.login("ann").await);
        let (id, delivered) = keeps(&shop, json!("hi")).await;
        assert_eq!(delivered, 2);
        for link in [&mut pc, &mut phone] {
            assert_eq!(hears(link).await, (id.clone(), json!("hi")));
            link.pings().await;
            assert!(!link.was_told("message"));
        }
    }

    async fn what_was_seen_is_gone_and_what_was_not_comes_again(stage) {
        let server = with_key(stage).start();
        let shop = Service::of(&server, KEY);
        let mut ann = server.login("ann").await;
        let (first, _) = keeps(&shop, json!(1)).await;
        assert_eq!(hears(&mut ann).await.0, first);
        // Sent, but never said to be seen: a new session is told again.
        let mut ann = server.login("ann").await;
        assert_eq!(hears(&mut ann).await.0, first);
        has_seen_all(&server, &mut ann).await;
    }

    async fn a_message_survives_the_crash_of_the_server(stage) {
        let mut server = with_key(stage).start();
        let shop = Service::of(&server, KEY);
        let mut ann = server.login("ann").await;
        let (first, _) = keeps(&shop, json!(1)).await;
        assert_eq!(hears(&mut ann).await.0, first);
        let away = ann.drops();
        let (second, _) = keeps(&shop, json!(2)).await;
        server.kill9();
        server.restart();
        // The server no longer knows what went under which number: both come again under their ids.
        let mut ann = server.resume(&away).await;
        assert_eq!(hears(&mut ann).await, (first, json!(1)));
        assert_eq!(hears(&mut ann).await, (second, json!(2)));
        has_seen_all(&server, &mut ann).await;
    }

    async fn last_seq_of_a_resume_says_what_was_seen(stage) {
        let server = with_key(stage).start();
        let shop = Service::of(&server, KEY);
        let mut ann = server.login("ann").await;
        keeps(&shop, json!(1)).await;
        hears(&mut ann).await;
        let mut ann = server.resume(&ann.drops()).await;
        let (second, _) = keeps(&shop, json!(2)).await;
        assert_eq!(hears(&mut ann).await.0, second, "the first was seen");
        has_seen_all(&server, &mut ann).await;
    }

    async fn the_same_key_queues_once_also_after_a_restart(stage) {
        let mut server = with_key(stage).start();
        let body = json!({"data": "gift", "ack": "durable", "idempotency_key": "order-7"});
        let (_, first) = Service::of(&server, KEY).post(PATH, body.clone()).await;
        server.kill9();
        server.restart();
        let (status, again) = Service::of(&server, KEY).post(PATH, body).await;
        assert_eq!((status, &again["id"]), (200, &first["id"]));
        let mut ann = server.login("ann").await;
        assert_eq!(hears(&mut ann).await.1, "gift");
        let (mark, _) = keeps(&Service::of(&server, KEY), json!("mark")).await;
        assert_eq!(hears(&mut ann).await.0, mark);
    }

    async fn what_was_only_pushed_does_not_stand_for_what_is_to_be_kept(stage) {
        let server = with_key(stage).start();
        let shop = Service::of(&server, KEY);
        let mut ann = server.login("ann").await;
        let body = |ack: &str| json!({"data": "gift", "ack": ack, "idempotency_key": "order-7"});
        let (_, pushed) = shop.post(PATH, body("applied")).await;
        assert_eq!((&pushed["delivered"], &pushed["kept"]), (&json!(1), &Value::Null));
        let (_, kept) = shop.post(PATH, body("durable")).await;
        assert_eq!((&kept["id"], &kept["kept"]), (&pushed["id"], &json!(true)));
        assert_eq!(hears(&mut ann).await.0, pushed["id"]);
        // She does not say that she has seen it: it waits.
        let mut ann = server.login("ann").await;
        assert_eq!(hears(&mut ann).await.0, pushed["id"]);
    }

    async fn no_more_than_a_hundred_wait(stage) {
        let server = with_key(stage).start();
        let shop = Service::of(&server, KEY);
        // As large as a hundred of them may be.
        let data = "x".repeat(2_400);
        for _ in 0..100 {
            keeps(&shop, json!(data)).await;
        }
        let (status, problem) = shop.post(PATH, json!({"data": 1, "ack": "durable"})).await;
        assert_eq!((status, &problem["code"]), (413, &json!("too_large")), "{problem}");
        // What need not wait is none of the queue's business.
        assert_eq!(shop.post(PATH, json!({"data": 1})).await.0, 200);
        let mut ann = server.login("ann").await;
        for _ in 0..100 {
            hears(&mut ann).await;
        }
        ann.pings().await;
    }

    async fn no_more_bytes_wait_than_may(stage) {
        let server = with_key(stage).start();
        let shop = Service::of(&server, KEY);
        let data = "x".repeat(16_000);
        for _ in 0..16 {
            keeps(&shop, json!(data)).await;
        }
        let (status, problem) = shop.post(PATH, json!({"data": data, "ack": "durable"})).await;
        assert_eq!((status, &problem["code"]), (413, &json!("too_large")), "{problem}");
        let mut ann = server.login("ann").await;
        for _ in 0..16 {
            hears(&mut ann).await;
        }
        ann.pings().await;
    }
}

on_every_redis! {
    /// A store that is away refuses; nobody is told that a message waits which does not.
    async fn a_message_that_the_store_did_not_take_is_not_told_as_kept(stage) {
        let mut server = with_key(stage).with("home.hold_ms", 100).start();
        let shop = Service::of(&server, KEY);
        server.redis().pause();
        let body = json!({"data": 1, "ack": "durable", "idempotency_key": "k"});
        let (status, problem) = shop.post(PATH, body.clone()).await;
        assert_eq!(status, 503, "{problem}");
        server.redis().go_on();
        let sent = until("the message is taken", || async {
            let (status, sent) = shop.post(PATH, body.clone()).await;
            (status == 200).then_some(sent)
        })
        .await;
        let mut ann = server.login("ann").await;
        assert_eq!(hears(&mut ann).await.0, sent["id"]);
        let (mark, _) = keeps(&shop, json!("mark")).await;
        assert_eq!(hears(&mut ann).await.0, mark, "taken late by the store or sent again: it waits once");
    }

    /// Redis with its file keeps them over its own end.
    async fn a_message_survives_the_end_of_redis(stage) {
        let mut server = Server::on_durable_redis(stage).with("service_key", KEY).with_lease(2_000).start();
        let (id, _) = keeps(&Service::of(&server, KEY), json!(1)).await;
        server.redis().kill();
        server.redis().start_again();
        let mut ann = until("a login", || async {
            let mut link = server.connect().await;
            link.ask("login", json!({"token": "dev:ann"})).await.ok().map(|_| link)
        })
        .await;
        assert_eq!(hears(&mut ann).await.0, id);
    }
}
