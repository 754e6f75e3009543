//! What is promised about credentials: who holds a good token gets in, and a link ends with its token.

use std::process::Command;

use serde_json::json;

use crate::harness::server::{Server, Starting};
use crate::harness::socket::{Encoding, Line};
use crate::harness::stages::{Stage, on_every_stage};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn with_jwt(stage: Stage) -> Starting {
    Server::on(stage).with("auth.jwt_secret", SECRET).with("auth.leeway_ms", 0)
}

/// A token as the program itself mints it.
fn token(secret: &str, player: &str, ttl_s: u32) -> String {
    let secret = format!("auth.jwt_secret={secret}");
    let minted = Command::new(env!("CARGO_BIN_EXE_hearth"))
        .args(["token", "--player", player, "--ttl-s", &ttl_s.to_string(), "--set", &secret])
        .output()
        .unwrap();
    assert!(minted.status.success(), "{}", String::from_utf8_lossy(&minted.stderr));
    String::from_utf8(minted.stdout).unwrap().trim().to_owned()
}

on_every_stage! {
    async fn a_signed_token_opens_a_session_and_no_other_does(stage) {
        let server = with_jwt(stage).start();
        let mut ann = server.connect().await;
        ann.login_with(json!({"token": token(SECRET, "ann", 60)})).await;
        assert_eq!(ann.ready["player"], "ann");
        let left_ms = ann.ready["expires_in_ms"].as_u64().unwrap();
        assert!((50_000..=60_000).contains(&left_ms), "{left_ms}");
        let foreign = token("another secret of thirty-two bytes", "ann", 60);
        for bad in [foreign.as_str(), "dev:ann"] {
            let mut other = server.connect().await;
            other.is_refused("login", json!({"token": bad}), "unauthorized").await;
            other.expect_close(4500).await;
        }
        ann.pings().await;
    }

    async fn a_link_ends_with_its_token_unless_it_was_refreshed(stage) {
        let server = with_jwt(stage).start();
        let short = |player| token(SECRET, player, 2);
        let (mut ann, mut bea) = (server.connect().await, server.connect().await);
        ann.login_with(json!({"token": short("ann")})).await;
        bea.login_with(json!({"token": short("bea")})).await;
        bea.is_refused("refresh", json!({"token": token(SECRET, "ann", 60)}), "unauthorized").await;
        bea.is_refused("refresh", json!({"token": "nonsense"}), "unauthorized").await;
        let refreshed = ann.does("refresh", json!({"token": token(SECRET, "ann", 60)})).await;
        assert!(refreshed["expires_in_ms"].as_u64().unwrap() > 50_000);
        bea.expect_close(4251).await;
        ann.state().await;
        // Nor does a resume help: a fresh login does.
        let mut again = server.connect().await;
        let refused = again.try_resume(&bea.credentials()).await.unwrap_err();
        assert_eq!(refused["code"], "token_expired");
        again.expect_close(4251).await;
        let expired = short("cem");
        tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
        let mut cem = server.connect().await;
        cem.is_refused("login", json!({"token": expired}), "token_expired").await;
        cem.expect_close(4251).await;
    }

    async fn a_player_may_come_over_tls(stage) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (cert_file, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::write(&cert_file, made.cert.pem()).unwrap();
        std::fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
        let starting = Server::on(stage).with("tls.cert_file", cert_file.display());
        let mut server = starting.with("tls.key_file", key_file.display()).start();
        assert!(server.url().starts_with("wss://"), "{}", server.url());
        let trusted = made.cert.der().clone();
        let mut ann = server.connect_over(Line::Tls(trusted.clone()), Encoding::Json).await;
        ann.login("ann").await;
        ann.patch_durably(json!({"set": {"zone": "harbour"}})).await;
        let credentials = ann.drops();
        let mut ann = server.connect_over(Line::Tls(trusted), Encoding::MessagePack).await;
        ann.resume(&credentials).await;
        assert_eq!(ann.state().await, json!({"zone": "harbour"}));
        // Who speaks in the clear is not understood, and disturbs nobody.
        let plain = tokio_tungstenite::connect_async(server.url().replace("wss://", "ws://")).await;
        assert!(plain.is_err());
        ann.pings().await;
        server.ask_to_stop();
        ann.expect_close(4000).await;
        assert!(server.wait_for_end().success());
    }
}
