//! What is promised about watch lists that a service sets: all sessions of the player have them, are told at once, and
//! keep them like lists of their own.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::patience::until;
use crate::harness::server::{Server, Starting};
use crate::harness::service::Service;
use crate::harness::stages::{Stage, on_every_redis, on_every_stage};

const KEY: &str = "s3cret-of-the-stories";
const PATH: &str = "/v1/players/ann/watches";

fn with_key(stage: Stage) -> Starting {
    Server::on(stage).with("service_key", KEY).with_lease(2_000)
}

on_every_stage! {
    async fn who_is_put_on_a_list_is_told_at_once_and_followed(stage) {
        let server = with_key(stage).with("session.login_policy", "many(2)").start();
        let shop = Service::of(&server, KEY);
        let mut bea = server.login("bea").await;
        let (mut pc, mut phone) = (server.login("ann").await, server.login("ann").await);
        let (status, listed) = shop.put(PATH, json!({"set": ["bea"]})).await;
        assert_eq!((status, &listed["sessions"], &listed["unknown"]), (200, &json!(2), &json!([])), "{listed}");
        for link in [&mut pc, &mut phone] {
            assert_eq!(link.expect_presence("bea").await["status"], "online");
        }
        bea.shows("playing").await;
        for link in [&mut pc, &mut phone] {
            assert_eq!(link.expect_presence("bea").await["status"], "playing");
        }
        // Taken off again, she is followed no longer.
        assert_eq!(shop.put(PATH, json!({"remove": ["bea"], "add": ["cem"]})).await.0, 200);
        for link in [&mut pc, &mut phone] {
            assert_eq!(link.expect_presence("cem").await["status"], "offline");
        }
        bea.shows("busy").await;
        let mut watcher = server.login("dan").await;
        watcher.sees("bea", "busy").await;
        for link in [&mut pc, &mut phone] {
            link.pings().await;
            assert!(!link.was_told_news());
        }
    }

    async fn a_list_of_a_service_outlives_a_crash(stage) {
        let mut server = with_key(stage).start();
        let ann = server.login("ann").await;
        let shop = Service::of(&server, KEY);
        assert_eq!(shop.put(PATH, json!({"add": ["bea", "cem"]})).await.0, 200);
        let away = ann.drops();
        server.kill9();
        server.restart();
        let ann = server.resume(&away).await;
        assert_eq!(ann.ready["watching"], json!(["bea", "cem"]));
    }

    async fn a_session_that_waits_for_its_client_gets_the_list_with_its_first_link(stage) {
        let server = with_key(stage).start();
        let shop = Service::of(&server, KEY);
        let mut bea = server.login("bea").await;
        let (_, made) = shop.post("/v1/sessions", json!({"player": "ann"})).await;
        assert_eq!(shop.put(PATH, json!({"set": ["bea"]})).await.0, 200);
        let mut ann = server.connect().await;
        let resume = json!({"session": made["session"], "ticket": made["ticket"], "last_seq": 0});
        let ready = ann.does("resume", resume).await;
        assert_eq!(ready["watching"], json!(["bea"]));
        assert_eq!(ann.expect_presence("bea").await["status"], "online");
        bea.shows("busy").await;
        assert_eq!(ann.expect_presence("bea").await["status"], "busy");
    }

    async fn a_list_that_cannot_be_set_as_asked_changes_nothing(stage) {
        let server = with_key(stage).with("presence.watches_max", 3).start();
        let shop = Service::of(&server, KEY);
        let code = |answer: (u16, Value)| (answer.0, answer.1["code"].clone());
        let put = |body: Value| shop.call(Method::PUT, PATH, Some(body));
        assert_eq!(code(put(json!({"set": ["bea"]})).await), (404, json!("not_found")));
        let ann = server.login("ann").await;
        assert_eq!(put(json!({"set": ["a", "b", "c", "a"]})).await.0, 200);
        assert_eq!(code(put(json!({"add": ["d"]})).await), (413, json!("too_large")));
        let many: Vec<String> = (0..1_001).map(|n| format!("p{n}")).collect();
        assert_eq!(code(put(json!({"remove": many})).await), (413, json!("too_large")));
        for wrong in [
            json!({}),
            json!({"set": ["a"], "add": ["b"]}),
            json!({"set": ["a\nb"]}),
            json!({"set": "a"}),
        ] {
            assert_eq!(code(put(wrong.clone()).await), (400, json!("bad_request")), "{wrong}");
        }
        let ann = server.resume(&ann.drops()).await;
        assert_eq!(ann.ready["watching"], json!(["a", "b", "c"]));
    }
}

on_every_redis! {
    /// Only Redis can be slow: a login waits for its commit while a service sets the list.
    async fn a_list_that_is_set_during_a_login_is_followed_by_the_newcomer(stage) {
        // A login waits for 2 s; who looks for a home asks the store first, and then does without.
        let starting = with_key(stage).with_lease(20_000).with("redis.response_timeout_ms", 1_000);
        let mut server = starting.with("session.login_policy", "many(2)").start();
        let shop = Service::of(&server, KEY);
        let (mut bea, mut pc, mut phone) =
            (server.login("bea").await, server.login("ann").await, server.connect().await);
        server.redis().pause();
        let list = async {
            until("both sessions", || async {
                let (_, ann) = shop.get("/v1/players/ann").await;
                (ann["sessions"].as_array()?.len() == 2).then_some(())
            })
            .await;
            let told = async {
                pc.expect_presence("bea").await;
                server.redis().go_on();
            };
            let (listed, ()) = tokio::join!(shop.put(PATH, json!({"set": ["bea"]})), told);
            assert_eq!((listed.0, &listed.1["sessions"]), (200, &json!(2)), "{listed:?}");
        };
        let (came, ()) = tokio::join!(phone.ask("login", json!({"token": "dev:ann"})), list);
        came.expect("a session");
        phone.sees("bea", "online").await;
        bea.shows("busy").await;
        phone.sees("bea", "busy").await;
    }
}
