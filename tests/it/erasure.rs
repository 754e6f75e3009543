//! What is promised about players who are erased: nothing of them is left, and nothing that others know of them ever
//! seems to run backwards.

use serde_json::{Value, json};

use crate::harness::server::{Server, Starting};
use crate::harness::service::Service;
use crate::harness::stages::{Stage, on_every_stage};

const KEY: &str = "s3cret-of-the-stories";
const PATH: &str = "/v1/players/ann";

fn with_key(stage: Stage) -> Starting {
    Server::on(stage).with("service_key", KEY).with_lease(2_000)
}

on_every_stage! {
    async fn an_erased_player_is_forgotten_for_good(stage) {
        let mut server = with_key(stage).start();
        let shop = Service::of(&server, KEY);
        let mut ann = server.login("ann").await;
        ann.patch_durably(json!({"set": {"zone": "harbour"}})).await;
        ann.watches(&["bea"]).await;
        let message = json!({"data": 1, "ack": "durable"});
        assert_eq!(shop.post("/v1/players/ann/messages", message).await.0, 200);
        let kick = json!({"reason": "", "revoke_before": 1_700_000_000_000_u64});
        assert_eq!(shop.post("/v1/players/cem/kick", kick).await.0, 200);
        for path in [PATH, "/v1/players/cem"] {
            assert_eq!(shop.delete(path).await.0, 204, "{path}");
        }
        ann.expect_close(4502).await;
        // A crash right after brings nothing back.
        server.kill9();
        server.restart();
        let shop = Service::of(&server, KEY);
        for path in [PATH, "/v1/players/cem"] {
            assert_eq!(shop.get(path).await.0, 404, "{path}");
        }
        assert_eq!(server.resume_refused(&ann.credentials()).await["code"], "not_resumable");
        let mut ann = server.login("ann").await;
        assert_eq!(ann.state().await, json!({}));
        // All that waits would come before this.
        let (_, mark) = shop.post("/v1/players/ann/messages", json!({"data": "mark", "ack": "durable"})).await;
        assert_eq!(ann.wait_for_push("message").await["id"], mark["id"]);
        // Once more does no harm, nor does it to somebody of whom nothing is known.
        for path in [PATH, PATH, "/v1/players/nobody"] {
            assert_eq!(shop.delete(path).await.0, 204, "{path}");
        }
    }

    async fn what_watchers_know_of_an_erased_player_never_runs_backwards(stage) {
        let server = with_key(stage).start();
        let shop = Service::of(&server, KEY);
        let mut watcher = server.login("bea").await;
        watcher.watches(&["ann"]).await;
        let ver = |item: &Value| (item["ver"][0].as_u64().unwrap(), item["ver"][1].as_u64().unwrap());
        let mut ann = server.login("ann").await;
        for status in ["busy", "playing", "online"] {
            ann.shows(status).await;
        }
        let here = watcher.sees("ann", "online").await;
        assert_eq!(shop.delete(PATH).await.0, 204);
        loop {
            let item = watcher.expect_presence("ann").await;
            if item["status"] == "offline" {
                assert!(ver(&item) > ver(&here), "{item} after {here}");
                assert_eq!(item["last_seen"], Value::Null);
                break;
            }
        }
        let mut again = server.login("ann").await;
        let item = watcher.expect_presence("ann").await;
        assert_eq!(item["status"], "online");
        assert!(ver(&item) > ver(&here), "{item} after {here}");
        again.pings().await;
    }

    async fn a_banned_player_is_erased_only_as_asked(stage) {
        let server = with_key(stage).start();
        let shop = Service::of(&server, KEY);
        assert_eq!(shop.put("/v1/players/ann/ban", json!({"reason": "cheating"})).await.0, 200);
        let (status, problem) = shop.delete(PATH).await;
        assert_eq!((status, &problem["code"]), (409, &json!("banned")), "{problem}");
        assert_eq!(shop.delete(&format!("{PATH}?ban=perhaps")).await.0, 400);
        assert_eq!(shop.delete(&format!("{PATH}?ban=keep")).await.0, 204);
        let (_, seen) = shop.get(PATH).await;
        assert_eq!(seen["ban"]["reason"], "cheating", "{seen}");
        server.connect().await.is_refused("login", json!({"token": "dev:ann"}), "banned").await;
        assert_eq!(shop.delete(&format!("{PATH}?ban=lift")).await.0, 204);
        assert_eq!(shop.get(PATH).await.0, 404);
        server.login("ann").await;
    }
}
