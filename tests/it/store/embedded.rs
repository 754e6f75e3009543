//! What only the embedded store promises: its folder, and that what it acknowledged is there after it was opened again.

use hearth::ids::Owner;
use hearth::store::{OpenError, OpenOptions, RecordStatus, Store, StoreError, open};
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
