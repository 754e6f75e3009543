//! What is promised about players who are kept out: kicked with their tokens revoked, or banned; at once, over
//! restarts and crashes, and for as long as was asked.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::patience::until;
use crate::harness::player::Player;
use crate::harness::server::{Server, Starting};
use crate::harness::service::Service;
use crate::harness::stages::{Stage, on_every_redis, on_every_stage};

const KEY: &str = "s3cret-of-the-stories";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn with_key(stage: Stage) -> Starting {
    Server::on(stage).with("service_key", KEY)
}

fn with_jwt(stage: Stage) -> Starting {
    with_key(stage).with("auth.jwt_secret", SECRET)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

/// A token for ann that was issued then, or does not say when.
fn token(issued_at_ms: Option<u64>) -> String {
    let mut claims = json!({"sub": "ann", "exp": now_ms() / 1_000 + 3_600});
    if let Some(issued_at_ms) = issued_at_ms {
        claims["iat"] = json!(issued_at_ms as f64 / 1_000.0);
    }
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

async fn logs_in_with(server: &Server, token: &str) -> Player {
    let mut link = server.connect().await;
    link.login_with(json!({"token": token})).await;
    link
}

/// A login that is refused with this code, then the close.
async fn is_kept_out(server: &Server, token: &str, code: &str, close: u16) -> (Value, Value) {
    let mut link = server.connect().await;
    let refused = link.is_refused("login", json!({"token": token}), code).await;
    (refused, link.expect_close(close).await)
}

async fn is_banned(server: &Server, reason: &str) {
    let (refused, bye) = is_kept_out(server, "dev:ann", "banned", 4503).await;
    assert_eq!((&refused["reason"], &refused["temporary"]), (&json!(reason), &json!(false)));
    assert_eq!(bye["reason"], reason);
}

on_every_stage! {
    async fn a_kick_revokes_the_tokens_issued_before_and_no_later_ones(stage) {
        let server = with_jwt(stage).start();
        let shop = Service::of(&server, KEY);
        let (old, new) = (token(Some(now_ms() - 60_000)), token(Some(now_ms() - 1_000)));
        let mut ann = logs_in_with(&server, &old).await;
        let kick = json!({"reason": "changed hands", "revoke_before": now_ms() - 30_000});
        assert_eq!(shop.post("/v1/players/ann/kick", kick).await, (200, json!({"sessions": 1})));
        assert_eq!(ann.expect_close(4502).await["reason"], "changed hands");
        for revoked in [&old, &token(None)] {
            is_kept_out(&server, revoked, "token_expired", 4251).await;
        }
        let mut ann = logs_in_with(&server, &new).await;
        ann.is_refused("refresh", json!({"token": old}), "token_expired").await;
        ann.does("refresh", json!({"token": new})).await;
    }

    async fn a_revocation_outlives_sessions_crashes_and_restarts(stage) {
        let mut server = with_jwt(stage).with_lease(2_000).start();
        let old = token(Some(now_ms() - 60_000));
        let new = token(Some(now_ms()));
        // She was never here: the record is made for it.
        let kick = json!({"reason": "", "revoke_before": now_ms() - 30_000});
        let shop = Service::of(&server, KEY);
        assert_eq!(shop.post("/v1/players/ann/kick", kick).await, (200, json!({"sessions": 0})));
        server.kill9();
        server.restart();
        is_kept_out(&server, &old, "token_expired", 4251).await;
        let mut ann = logs_in_with(&server, &new).await;
        ann.does("logout", json!({})).await;
        server.stop_gracefully();
        server.restart();
        is_kept_out(&server, &old, "token_expired", 4251).await;
        let (_, seen) = Service::of(&server, KEY).get("/v1/players/ann").await;
        assert!(seen["revoked_before"].as_u64().unwrap() > 0, "{seen}");
    }

    async fn a_time_that_revokes_nothing_or_everything_is_a_mistake(stage) {
        let server = with_key(stage).start();
        let shop = Service::of(&server, KEY);
        let mut ann = server.login("ann").await;
        for wrong in [json!(now_ms() / 1_000), json!(now_ms() + 600_000), json!("yesterday"), json!(-1)] {
            let kick = json!({"reason": "", "revoke_before": wrong});
            let (status, problem) = shop.post("/v1/players/ann/kick", kick).await;
            assert_eq!((status, &problem["code"]), (400, &json!("bad_request")), "{wrong}");
        }
        ann.pings().await;
    }

    async fn a_service_whose_clock_goes_ahead_locks_nobody_out(stage) {
        let server = with_key(stage).start();
        let shop = Service::of(&server, KEY);
        let kick = json!({"reason": "", "revoke_before": now_ms() + 50_000});
        assert_eq!(shop.post("/v1/players/ann/kick", kick).await, (200, json!({"sessions": 0})));
        server.login("ann").await.pings().await;
    }

    async fn a_ban_cuts_every_session_and_keeps_her_out_with_its_reason(stage) {
        let server = with_key(stage).with("session.login_policy", "many(3)").start();
        let shop = Service::of(&server, KEY);
        let mut watcher = server.login("bea").await;
        watcher.watches(&["ann"]).await;
        let (mut pc, mut phone) = (server.login("ann").await, server.login("ann").await);
        let away = server.login("ann").await.drops();
        let (status, banned) = shop.put("/v1/players/ann/ban", json!({"reason": "cheating"})).await;
        assert_eq!((status, &banned["sessions"]), (200, &json!(3)), "{banned}");
        for link in [&mut pc, &mut phone] {
            assert_eq!(link.expect_close(4503).await["reason"], "cheating");
        }
        watcher.sees("ann", "offline").await;
        is_banned(&server, "cheating").await;
        let mut link = server.connect().await;
        let refused = link.try_resume(&away).await.unwrap_err();
        assert_eq!((&refused["code"], &refused["reason"]), (&json!("banned"), &json!("cheating")));
        link.expect_close(4503).await;
        let (status, problem) = shop.post("/v1/sessions", json!({"player": "ann"})).await;
        assert_eq!((status, &problem["code"]), (403, &json!("banned")));
        let (_, seen) = shop.get("/v1/players/ann").await;
        assert_eq!(seen["ban"]["reason"], "cheating", "{seen}");
        // Another player's session is no business of the ban.
        watcher.pings().await;
        assert_eq!(shop.delete("/v1/players/ann/ban").await.0, 204);
        assert_eq!(shop.delete("/v1/players/ann/ban").await.0, 404);
        server.login("ann").await;
        assert_eq!(server.resume_refused(&away).await["code"], "not_resumable");
    }

    async fn a_ban_holds_for_players_never_seen_and_over_crashes(stage) {
        let mut server = with_key(stage).with_lease(2_000).start();
        let shop = Service::of(&server, KEY);
        let away = server.login("bea").await.drops();
        for player in ["ann", "bea"] {
            let path = format!("/v1/players/{player}/ban");
            assert_eq!(shop.put(&path, json!({"reason": "bots"})).await.0, 200);
        }
        server.kill9();
        server.restart();
        is_banned(&server, "bots").await;
        let told = |refused: Value| assert_eq!(refused["reason"], "bots", "who comes back is told why: {refused}");
        told(server.resume_refused(&away).await);
        server.stop_gracefully();
        server.restart();
        is_banned(&server, "bots").await;
        told(server.resume_refused(&away).await);
    }

    async fn of_logins_at_the_moment_of_a_ban_none_stays(stage) {
        let server = with_key(stage).with("session.login_policy", "many(32)").start();
        let shop = Service::of(&server, KEY);
        let mut links = Vec::new();
        for _ in 0..12 {
            links.push(server.connect().await);
        }
        let logins = links.into_iter().map(|mut link| async {
            let came = link.ask("login", json!({"token": "dev:ann"})).await;
            (link, came)
        });
        let ban = shop.put("/v1/players/ann/ban", json!({"reason": "cheating"}));
        let ((status, _), logins) = futures_util::future::join(ban, futures_util::future::join_all(logins)).await;
        assert_eq!(status, 200);
        for (mut link, came) in logins {
            if let Err(refused) = came {
                assert_eq!(refused["code"], "banned");
            }
            link.expect_close(4503).await;
        }
        assert_eq!(shop.get("/v1/players/ann").await.1["sessions"], json!([]));
    }

    async fn a_ban_ends_by_itself(stage) {
        let server = with_key(stage).start();
        let shop = Service::of(&server, KEY);
        let ends_at = now_ms() + 4_000;
        let ban = json!({"reason": "a moment", "until": ends_at});
        assert_eq!(shop.put("/v1/players/ann/ban", ban).await.0, 200);
        is_banned(&server, "a moment").await;
        until("the ban ends", || async {
            let mut link = server.connect().await;
            link.ask("login", json!({"token": "dev:ann"})).await.ok()
        })
        .await;
        assert!(now_ms() + 50 >= ends_at, "over before its time");
        assert_eq!(shop.get("/v1/players/ann").await.1["ban"], Value::Null);
        let past = json!({"reason": "", "until": now_ms() - 1});
        assert_eq!(shop.put("/v1/players/ann/ban", past).await.0, 400);
    }
}

on_every_redis! {
    /// Only Redis can be away while the server lives.
    async fn a_ban_while_the_store_is_away_is_told_as_it_is(stage) {
        let mut server = with_key(stage).with("home.hold_ms", 100).start();
        let shop = Service::of(&server, KEY);
        let mut ann = server.login("ann").await;
        server.redis().pause();
        // Who is here is cut off at once, and the answer says that the store does not have it yet.
        let (status, problem) = shop.put("/v1/players/ann/ban", json!({"reason": "cheating"})).await;
        assert_eq!(status, 503, "{problem}");
        if problem["applied"] == true {
            ann.expect_close(4503).await;
        }
        // Nothing is known of this one, and nothing can be learnt: nothing was done.
        let (status, problem) = shop.put("/v1/players/bea/ban", json!({"reason": "cheating"})).await;
        assert_eq!((status, &problem["applied"]), (503, &Value::Null), "{problem}");
        server.redis().go_on();
        until("the ban is taken", || async {
            let (status, _) = shop.put("/v1/players/ann/ban", json!({"reason": "cheating"})).await;
            (status == 200).then_some(())
        })
        .await;
        // Her home may be another, and back a moment later.
        until("she is let in", || async {
            let mut link = server.connect().await;
            link.ask("login", json!({"token": "dev:bea"})).await.ok()
        })
        .await;
        is_banned(&server, "cheating").await;
    }

    /// A store that was emptied does not lift a ban: the home has a second copy.
    async fn a_ban_survives_a_store_that_forgot_everything(stage) {
        let mut server = with_key(stage).with_lease(2_000).start();
        let shop = Service::of(&server, KEY);
        assert_eq!(shop.put("/v1/players/ann/ban", json!({"reason": "cheating"})).await.0, 200);
        server.redis().query::<()>(&["FLUSHALL"]);
        until("the ban is in the store again", || {
            let keys: Vec<String> = server.redis().query(&["KEYS", "*:p:ann"]);
            async move { (!keys.is_empty()).then_some(()) }
        })
        .await;
        is_banned(&server, "cheating").await;
    }

    /// Nor does it let an old token in: that is known to the home that was told, and to one that took her shard since.
    async fn a_revocation_survives_a_store_that_forgot_everything(stage) {
        let mut server = with_jwt(stage).with_lease(2_000).start();
        let shop = Service::of(&server, KEY);
        let old = token(Some(now_ms() - 60_000));
        let kick = json!({"reason": "", "revoke_before": now_ms() - 30_000});
        assert_eq!(shop.post("/v1/players/ann/kick", kick).await, (200, json!({"sessions": 0})));
        for _ in 0..2 {
            server.redis().query::<()>(&["FLUSHALL"]);
            is_kept_out(&server, &old, "token_expired", 4251).await;
            until("the revocation is in the store again", || {
                let keys: Vec<String> = server.redis().query(&["KEYS", "*:p:ann"]);
                async move { (!keys.is_empty()).then_some(()) }
            })
            .await;
            is_kept_out(&server, &old, "token_expired", 4251).await;
            server.kill9();
            server.restart();
            is_kept_out(&server, &old, "token_expired", 4251).await;
        }
        logs_in_with(&server, &token(Some(now_ms()))).await;
    }

    /// Only Redis can be away. Her remainder is of the epoch under which she comes back, and must not be written over.
    async fn a_revocation_that_nobody_can_know_while_the_store_is_away_counts_again_afterwards(stage) {
        let mut server = with_jwt(stage).with_lease(2_400).with("home.bans_max", 1).start();
        let shop = Service::of(&server, KEY);
        let old = token(Some(now_ms() - 60_000));
        let kick = |before_ms| json!({"reason": "", "revoke_before": now_ms() - before_ms});
        assert_eq!(shop.post("/v1/players/ann/kick", kick(30_000)).await, (200, json!({"sessions": 0})));
        // Later ones push it out of memory, wherever her home is.
        for number in 0..16 {
            let path = format!("/v1/players/player-{number}/kick");
            assert_eq!(shop.post(&path, kick(10_000)).await.0, 200);
        }
        server.redis().pause();
        server.until_local().await;
        let mut ann = logs_in_with(&server, &old).await;
        assert_eq!(ann.ready["prov"], true, "{}", ann.ready);
        ann.patch(json!({"set": {"n": 1}})).await;
        server.redis().go_on();
        ann.until_mode("normal").await;
        ann.until_durable(json!({"set": {"n": 2}})).await;
        ann.does("logout", json!({})).await;
        is_kept_out(&server, &old, "token_expired", 4251).await;
        let (_, seen) = shop.get("/v1/players/ann").await;
        assert!(seen["revoked_before"].as_u64().unwrap() > 0, "{seen}");
    }

    async fn a_revocation_that_is_in_memory_counts_while_the_store_is_away(stage) {
        let mut server = with_jwt(stage).with_lease(2_400).start();
        let (shop, old) = (Service::of(&server, KEY), token(Some(now_ms() - 60_000)));
        let kick = json!({"reason": "", "revoke_before": now_ms() - 30_000});
        assert_eq!(shop.post("/v1/players/ann/kick", kick).await.0, 200);
        server.redis().pause();
        server.until_local().await;
        is_kept_out(&server, &old, "token_expired", 4251).await;
        server.redis().go_on();
    }

    /// Only Redis can be slow: a login waits for its commit while the player is kicked.
    async fn a_kick_during_a_login_is_told_the_newcomer_as_what_it_is(stage) {
        // A login waits for 2 s; who looks for a home asks the store first, and then does without.
        let starting = with_key(stage).with_lease(20_000).with("redis.response_timeout_ms", 1_000);
        let mut server = starting.with("session.login_policy", "many(2)").start();
        let shop = Service::of(&server, KEY);
        let (mut pc, mut phone) = (server.login("ann").await, server.connect().await);
        server.redis().pause();
        let kick = async {
            until("both sessions", || async {
                let (_, ann) = shop.get("/v1/players/ann").await;
                (ann["sessions"].as_array()?.len() == 2).then_some(())
            })
            .await;
            let told = async {
                pc.expect_close(4502).await;
                server.redis().go_on();
            };
            tokio::join!(shop.post("/v1/players/ann/kick", json!({"reason": "cheating"})), told);
        };
        let (came, ()) = tokio::join!(phone.ask("login", json!({"token": "dev:ann"})), kick);
        let refused = came.expect_err("she was kicked");
        assert_eq!(
            (&refused["code"], &refused["reason"]),
            (&json!("forbidden"), &json!("cheating")),
            "{refused}"
        );
        assert_eq!(phone.expect_close(4502).await["reason"], "cheating");
    }
}
