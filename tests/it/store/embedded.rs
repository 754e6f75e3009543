//! What only the embedded store promises: its folder, and that what it acknowledged is there after it was opened again.

use hearth::ids::Owner;
use hearth::store::{OpenError, OpenOptions, RecordStatus, Store, StoreError, open};
use std::io::{BufRead, BufReader};
use std::sync::Arc;

use super::fixture::{Fixture, Home, LONG, embedded_url, live, player, remainder, request, shard};

async fn open_folder(folder: &tempfile::TempDir) -> Arc<dyn Store> {
    open(&embedded_url(folder), OpenOptions::default()).await.unwrap()
}

#[tokio::test]
async fn what_was_committed_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_folder(&folder).await;
    let mut home = Home::ask(&store, request("a#1", LONG)).await;
    home.commit(vec![live("ann", 0, 1), remainder("bob", 0, 8)]).await;
    let (grant, acked) = (home.grant.clone(), home.acked);
    store.close().await.unwrap();

    let store = open_folder(&folder).await;
    // The lease went with the process that held it, so nobody waits for it.
    let mut home = Home::ask(&store, request("b#1", LONG)).await;
    assert!(home.grant.epoch > grant.epoch);
    assert_eq!((home.grant.generation, home.grant.flush_seq), (grant.generation, acked));
    assert_eq!(home.grant.version_max.number(), 8);
    assert_eq!(home.grant.previous_owner, Some(Owner::named("a#1")));
    assert_eq!(home.live_players(10).await, (vec!["ann".into()], 0));
    assert_eq!(home.body("bob").await.0, 8);
    assert_eq!(home.commit_one(live("ann", 1, 2)).await, RecordStatus::Applied);
}

#[tokio::test]
async fn a_folder_has_one_server_and_the_second_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_folder(&folder).await;
    let second = open(&embedded_url(&folder), OpenOptions::default()).await;
    let error = second.err().expect("locked");
    assert!(matches!(error, OpenError::FolderLocked { .. }));
    let message = error.to_string();
    assert!(message.contains(&*folder.path().to_string_lossy()), "{message}");
    assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
    assert!(message.contains("another hearth server") && !message.contains('\n'), "{message}");
    store.close().await.unwrap();
    open_folder(&folder).await;
}

#[tokio::test]
async fn a_file_that_is_no_store_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hearth.redb");
    std::fs::write(&file, vec![b'x'; 100_000]).unwrap();
    let opened = open(&embedded_url(&folder), OpenOptions::default()).await;
    let error = opened.err().expect("refused");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), vec![b'x'; 100_000]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "x").unwrap();
    let url = format!("embedded:{}/file/data", folder.path().display());
    let error = open(&url, OpenOptions::default()).await.err().expect("refused");
    assert!(matches!(error, OpenError::Folder { .. }), "{error}");
    assert!(error.to_string().contains("file/data"), "{error}");
}

#[tokio::test]
async fn a_closed_store_answers_that_it_is_closed() {
    let fixture = Fixture::embedded().await;
    let mut home = Home::take(&fixture, "a#1").await;
    fixture.store.close().await.unwrap();
    let unreachable = |error: &StoreError| matches!(error, StoreError::Unreachable(_));
    assert!(unreachable(&home.try_commit(vec![live("ann", 0, 1)]).await.unwrap_err()));
    assert!(unreachable(&fixture.store.load_players(shard(7), vec![player("ann")]).await.unwrap_err()));
    let renewed = fixture.store.lease_renew(home.shard, &home.owner, home.grant.epoch, LONG).await;
    assert!(unreachable(&renewed.unwrap_err()));
    assert!(unreachable(&fixture.store.probe().await.unwrap_err()));
}

#[tokio::test]
async fn the_embedded_store_falls_short_of_nothing() {
    let fixture = Fixture::embedded().await;
    assert_eq!(fixture.store.shortfalls().await.unwrap(), []);
    assert_eq!(fixture.store.kind(), "embedded");
}

/// Tells the process that is to be killed which store it commits to.
const TO_BE_KILLED: &str = "HEARTH_TEST_STORE";

/// Commits for ever and says which version it was told is durable.
async fn commit_until_killed(url: &str) {
    let store = open(url, OpenOptions::default()).await.unwrap();
    let mut home = Home::ask(&store, request("child#1", LONG)).await;
    let stored = home.load("ann").await.map_or(0, |record| record.version.number());
    for version in stored + 1.. {
        home.commit(vec![live("ann", version - 1, version), live(&format!("p{}", version % 50), 0, version)])
            .await;
        println!("durable {version}");
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_it_acknowledged() {
    // This test runs itself once more, as the process that it kills.
    if let Ok(url) = std::env::var(TO_BE_KILLED) {
        commit_until_killed(&url).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 1..=4 {
        acknowledged = commit_and_kill(&embedded_url(&folder), acknowledged + 15 * round);
        let store = open_folder(&folder).await;
        let home = Home::ask(&store, request("b#1", LONG)).await;
        let (version, body) = home.body("ann").await;
        assert!(version >= acknowledged, "{version} is there, {acknowledged} was acknowledged");
        assert_eq!(body, format!("ann at {version}"), "whole, not torn");
        assert!(home.grant.flush_seq.number() >= acknowledged);
        acknowledged = version;
        store.close().await.unwrap();
    }
}

/// Runs the process until it has told of this version, kills it, and returns the last one it told of.
fn commit_and_kill(url: &str, enough: u64) -> u64 {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::embedded::a_killed_process_loses_nothing_that_it_acknowledged",
            "--nocapture",
        ])
        .env(TO_BE_KILLED, url)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = 0;
    let mut killed = false;
    // The pipe holds what was told until the very end.
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((_, version)) = line.split_once("durable ") {
            told = version.parse().unwrap();
        }
        if told >= enough && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the process ended by itself after {told}");
    told
}
