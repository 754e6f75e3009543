//! Links at their worst moments: answers that never arrive while the server is short with its clients, and a handshake
//! that is not over when the server stops.

use clap::Parser as _;
use load::options::Options;
use load::run::run;
use serde_json::json;

use crate::harness::player::Player;
use crate::harness::socket::Encoding;
use crate::relay::Relay;
use crate::server::{address, server_on, started};

/// What took effect and had no answer is sent again with its number. Where that is one request too many, the repetition
/// is refused, not the change: whoever took its number back would lose the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_that_is_refused_takes_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let starting = server_on(format!("embedded:{}", folder.path().join("data").display()));
    let short = starting.with("limits.state_per_s", 21).with("limits.state_burst", 2);
    let server = started(short.with("limits.abuse_strikes_max", 60_000)).await;
    let door = Relay::to(address(&server)).await;
    door.swallow_on(36);
    let line = format!(
        "load steady --quiet --players 12 --seconds 5 --url {} --durable-share 0.1 --write-interval-ms 50",
        door.url()
    );
    let (report, _) = run(Options::try_parse_from(line.split_whitespace()).unwrap()).await.unwrap();
    assert!(report.passed, "{}", report.text());
    assert!(door.swallowed_bytes() > 0, "no answer was lost");
    assert!(report.figures.refused.get("rate_limited").is_some_and(|count| *count > 0), "{}", report.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_comes_during_the_stop_is_sent_away_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = started(server_on(format!("embedded:{}", folder.path().join("data").display()))).await;
    let url = server.url().to_owned();
    let mut ann = Player::connect(&url, Encoding::Json).await;
    let mut bea = Player::connect(&url, Encoding::Json).await;
    ann.login("ann").await;
    bea.is_refused("state.get", json!({}), "not_logged_in").await;
    server.ask_to_stop();
    ann.expect_close(4000).await;
    // Whether she is still let in, or was told already that it is too late.
    bea.send("login", json!({"token": "dev:bea"})).await;
    bea.expect_close(4000).await;
    assert!(server.wait_for_end().success());
}
