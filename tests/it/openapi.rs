//! What is promised of the OpenAPI document: a server answers as it says, whatever it is asked. Schemathesis asks, with what
//! is well formed and with what is not; `tests/run --install` installs it. A missing one is a loud failure.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::player::Player;
use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::socket::Encoding;
use crate::harness::stages::{Stage, on_both_stores};

const KEY: &str = "s3cret-of-the-stories";

fn schemathesis() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    let found = cache.join("hearth/schemathesis/bin/st");
    assert!(found.exists(), "{} is missing: tests/run --install", found.display());
    found
}

/// A server that is asked as fast as it answers, and whose store may be slow: nothing here is about that.
fn served(stage: Stage) -> Server {
    let fast = Server::on(stage).with("service_key", KEY).with("limits.service_requests_per_s", 100_000);
    fast.with("limits.service_requests_burst", 100_000).with_lease(30_000).start()
}

/// Holds the server to its document; what schemathesis says of it.
async fn hold(server: &Server, settings: &str, session: &str) -> String {
    let asked_with = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi");
    // Where it leaves what it wants to remember.
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(schemathesis());
    command
        .current_dir(folder.path())
        .args([
            "--config-file",
            &format!("{asked_with}/{settings}"),
            "--no-color",
            "run",
            "--warnings",
            "off",
        ])
        .arg(format!("{}/v1/openapi.json", server.service_url()))
        .envs([("SERVICE_KEY", KEY), ("SESSION", session)])
        .envs([("SCHEMATHESIS_HOOKS", "hooks"), ("PYTHONPATH", asked_with), ("PYTHONDONTWRITEBYTECODE", "1")])
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// How many calls the document tells of.
fn calls() -> usize {
    let document: Value = serde_json::from_str(hearth::service::openapi()).unwrap();
    document["paths"].as_object().unwrap().values().map(|calls| calls.as_object().unwrap().len()).sum()
}

on_both_stores! {
    async fn whatever_is_asked_is_answered_as_the_document_says(stage) {
        let server = served(stage);
        let said = hold(&server, "strangers.toml", "").await;
        // All but the call that gave it the document.
        assert!(said.contains(&format!("Tested: {}\n", calls() - 1)), "{said}");
    }

    async fn the_same_of_a_player_who_is_here_and_of_what_is_kept(stage) {
        let server = served(stage);
        let mut ann = Player::connect(server.url(), Encoding::Json).await;
        ann.login("ann").await;
        let session = ann.ready["session"].as_str().unwrap();
        hold(&server, "ann.toml", session).await;
        let (status, told) = Service::of(&server, KEY).get("/v1/players/ann").await;
        assert_eq!((status, &told["sessions"][0]["session"]), (200, &ann.ready["session"]), "{told}");
    }
}
