//! Whole runs against a tiny server in the test: honest, every promise holds; with one thing bent, the checker named for it
//! finds it in what real bots wrote down.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says so by panicking"
)]

mod crowd;
mod fake;
mod floors;
mod scenarios;

use std::time::Duration;

use clap::Parser;
use fake::{Bent, Fake};
use load::options::Options;
use load::report::Report;
use load::run;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

async fn lived(bent: Bent, scenario: &str) -> Report {
    let fake = Fake::start(bent).await;
    let line = format!(
        "load {scenario} --players 6 --seconds 3 --write-interval-ms 40 --drop-interval-ms 700 --durable-share 0.3 \
         --encoding mixed --quiet --url {}",
        fake.url
    );
    let options = Options::try_parse_from(line.split_whitespace()).unwrap();
    let (report, history) = run::run(options).await.unwrap();
    assert_eq!(history.logs.len(), 6);
    report
}

/// The names of the checkers that found something.
fn broken(report: &Report) -> Vec<&str> {
    report.verdicts.iter().filter(|verdict| verdict.broken > 0).map(|verdict| verdict.checker).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_server_passes_every_scenario_and_each_exercises_something() {
    for scenario in ["steady", "churn", "fanout", "reconnect"] {
        let report = lived(Bent::Nothing, scenario).await;
        assert!(report.passed, "{scenario}: {}", report.text());
        for count in ["writes", "resumes", "durable_acks", "items"] {
            assert!(report.figures.count(count) > 0, "{scenario}: no {count}");
        }
        for checker in ["C1", "C2", "C3", "C4", "pushes"] {
            let verdict = report.verdicts.iter().find(|verdict| verdict.checker == checker).unwrap();
            assert!(verdict.checks > 0, "{scenario}: {checker} checked nothing");
        }
        let told: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert_eq!((&told["passed"], &told["scenario"]), (&true.into(), &scenario.into()));
    }
}

async fn finds(bent: Bent, checker: &str) {
    let report = lived(bent, "steady").await;
    assert!(!report.passed);
    assert!(broken(&report).contains(&checker), "{bent:?}: {}", report.text());
    let page = report.page();
    assert!(
        page.contains("✗ FAILED") && page.contains("broken promises</h2><p>") && page.contains("<details>")
    );
    let faults = report.faults();
    assert!(
        faults.contains(&format!("{checker}: ")) && faults.contains("bot ") && faults.contains("FAILED: "),
        "{faults}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_finds_stale_reads() {
    finds(Bent::ReadsAreStale, "C1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c2_finds_durable_writes_that_are_forgotten() {
    finds(Bent::DurableWritesAreForgotten, "C2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c3_finds_applied_writes_that_are_forgotten() {
    finds(Bent::AppliedWritesAreForgotten, "C3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_finds_repeats_that_are_carried_out() {
    finds(Bent::RepeatsAreCarriedOut, "C4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c9_finds_sessions_that_end_early() {
    finds(Bent::SessionsEndEarly, "C9").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_pushes_are_found() {
    finds(Bent::PushesAreLost, "pushes").await;
}

async fn refused(url: &str) -> String {
    let line = format!("load steady --players 6 --seconds 3 --quiet --url {url}");
    let options = Options::try_parse_from(line.split_whitespace()).unwrap();
    // A run that went on would take the bots' last words, too: half a minute and more.
    let run = tokio::time::timeout(Duration::from_secs(20), run::run(options));
    run.await.expect("it gives up at once").unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_a_server_is_given_up_and_says_where_it_looked() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let told = refused(&format!("ws://{nobody}/v1/connect")).await;
    assert!(
        told.contains(&nobody.to_string()) && told.contains("refused") && told.contains("--url"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_against_something_else_is_given_up_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/v1/connect", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let _ = tcp.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    let told = refused(&url).await;
    assert!(told.contains(&url) && told.contains("404"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_sends_everybody_away_fails_the_run() {
    let report = lived(Bent::EverybodyIsBanned, "steady").await;
    assert!(!report.passed);
    assert_eq!(report.vacuous, ["no write", "no resume", "no push compared"]);
    assert_eq!((report.unfinished, report.sent_away.values().sum::<u64>()), (6, 6));
    let faults = report.faults();
    for told in ["sent away: ", "not finished: bots 6", "vacuous: no write", "FAILED: the run proves nothing"]
    {
        assert!(faults.contains(told), "{told} is not in\n{faults}");
    }
}

#[test]
fn a_key_in_the_environment_makes_no_scenario_of_another_command() {
    let out = tempfile::tempdir().unwrap();
    let mut load = std::process::Command::new(env!("CARGO_BIN_EXE_load"));
    load.env("HEARTH_SERVICE_KEY", "a key").args([
        "chaos",
        "--url",
        "ws://a",
        "--service",
        "http://a",
        "--out",
    ]);
    let done = load.arg(out.path()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(2) && said.contains("nothing may be broken"), "{said}");
}
