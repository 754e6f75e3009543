//! What is promised about the end of a session's time: not before it is over, and gone soon after.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::player::Credentials;
use crate::harness::server::Server;
use crate::harness::stages::{on_every_redis, on_every_stage};

/// The promise is exact to the second; the rest is for a busy machine to notice a lost link.
const GONE_WITHIN: Duration = Duration::from_millis(1_200);
/// So long before the end a session must still be there.
const NOT_BEFORE: Duration = Duration::from_millis(400);

/// Time itself is what these stories wait for.
async fn wait_until(moment: Instant) {
    tokio::time::sleep_until(moment.into()).await;
}

async fn is_there(server: &Server, credentials: &Credentials) -> Credentials {
    server.resume(credentials).await.drops()
}

async fn is_gone(server: &Server, credentials: &Credentials) {
    assert_eq!(server.resume_refused(credentials).await["code"], "not_resumable");
}

on_every_stage! {
    async fn a_session_lives_for_its_ttl_after_its_link_and_no_longer(stage) {
        let ttl = Duration::from_secs(2);
        let server = Server::on(stage).with("session.ttl_ms", 2_000).with("presence.grace_ms", 0).start();
        let mut ann = server.login("ann").await;
        assert_eq!(ann.ready["resume_ms"], 2_000);
        ann.patch(json!({"set": {"zone": "harbour"}})).await;
        let (dropped, credentials) = (Instant::now(), ann.drops());
        wait_until(dropped + ttl - NOT_BEFORE).await;
        let credentials = is_there(&server, &credentials).await;
        // The time began anew.
        let dropped = Instant::now();
        wait_until(dropped + ttl - NOT_BEFORE).await;
        let mut ann = server.resume(&credentials).await;
        assert_eq!(ann.state().await, json!({"zone": "harbour"}));
        let (dropped, credentials) = (Instant::now(), ann.drops());
        wait_until(dropped + ttl + GONE_WITHIN).await;
        is_gone(&server, &credentials).await;
        // With the session went the state.
        assert_eq!(server.login("ann").await.state().await, json!({}));
    }

    async fn an_attached_session_does_not_run_out(stage) {
        let mut server = Server::on(stage).with_lease(1_200).with("session.ttl_ms", 1_500).start();
        let mut ann = server.login("ann").await;
        let came = Instant::now();
        while came.elapsed() < Duration::from_secs(4) {
            ann.pings().await;
            wait_until(Instant::now() + Duration::from_millis(100)).await;
        }
        ann.patch_durably(json!({"set": {"zone": "harbour"}})).await;
        // Nor by the store's time: what is attached counts from the take-over.
        server.kill9();
        server.restart();
        let mut ann = server.resume(&ann.drops()).await;
        assert_eq!(ann.state().await, json!({"zone": "harbour"}));
    }

    async fn the_time_runs_on_while_the_server_is_away(stage) {
        let ttl = Duration::from_secs(4);
        let mut server = Server::on(stage).with("session.ttl_ms", 4_000).start();
        let (ann, bea) = (server.login("ann").await, server.login("bea").await);
        let dropped = Instant::now();
        let (ann, bea) = (ann.drops(), bea.drops());
        assert!(server.stop_gracefully().success());
        server.restart();
        assert!(dropped.elapsed() < ttl - NOT_BEFORE, "this machine is too slow for this story");
        wait_until(dropped + ttl - NOT_BEFORE).await;
        is_there(&server, &ann).await;
        wait_until(dropped + ttl + GONE_WITHIN).await;
        is_gone(&server, &bea).await;
    }

    async fn the_time_runs_on_through_a_crash(stage) {
        let ttl = Duration::from_secs(5);
        let mut server = Server::on(stage).with_lease(1_200).with("session.ttl_ms", 5_000).start();
        let (mut ann, bea) = (server.login("ann").await, server.login("bea").await);
        let dropped = Instant::now();
        let bea = bea.drops();
        // Wait until the store knows that bea's link is down: her grace, told to ann, is after that.
        ann.watches(&["bea"]).await;
        wait_until(dropped + Duration::from_millis(600)).await;
        server.kill9();
        server.restart();
        let ann = server.resume(&ann.drops()).await;
        wait_until(dropped + ttl + GONE_WITHIN).await;
        is_gone(&server, &bea).await;
        is_there(&server, &ann.credentials()).await;
    }
}

on_every_redis! {
    /// The store's own expiry is no more than a backstop, and a touch keeps it away from a session that is here.
    async fn a_touch_keeps_the_record_of_an_idle_player_in_redis(stage) {
        use crate::harness::patience::until;
        let mut server = Server::on(stage).with("session.ttl_ms", 1_000).start();
        let mut ann = server.login("ann").await;
        let redis = server.redis();
        let keys: Vec<String> = redis.query(&["KEYS", "*:p:ann"]);
        let record = keys[0].as_str();
        let index = record.replace(":p:ann", ":x");
        let stored: Vec<u8> = redis.query(&["GET", record]);
        let mut due: u64 = redis.query(&["ZSCORE", &index, "ann"]);
        for touch in 1..=4 {
            ann.pings().await;
            let later = until("the next touch", || async {
                Some(redis.query::<u64>(&["ZSCORE", &index, "ann"])).filter(|score| *score > due)
            });
            due = later.await;
            let left_ms: u64 = redis.query(&["PTTL", record]);
            // Twice the TTL and a minute of slack, set anew.
            assert!((61_500..=62_000).contains(&left_ms), "touch {touch}: {left_ms}");
        }
        // It is the same version that was written again.
        assert_eq!(redis.query::<Vec<u8>>(&["GET", record])[..40], stored[..40]);
    }

    async fn a_player_is_remembered_for_so_many_days_after_her_last_session_and_no_longer(stage) {
        const DAY_MS: i64 = 86_400_000;
        let mut server = Server::on(stage).with("home.remember_days", 2).start();
        let mut ann = server.login("ann").await;
        ann.patch_durably(json!({"set": {"zone": "harbour"}})).await;
        // Answered when the store has it.
        ann.ask("logout", json!({})).await.unwrap();
        let redis = server.redis();
        let keys: Vec<String> = redis.query(&["KEYS", "*:p:ann"]);
        let [record] = keys.as_slice() else { panic!("one record: {keys:?}") };
        let left_ms: i64 = redis.query(&["PTTL", record]);
        assert!((2 * DAY_MS - 60_000..=2 * DAY_MS).contains(&left_ms), "{left_ms}");
    }
}
