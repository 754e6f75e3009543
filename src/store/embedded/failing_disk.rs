//! A disk that fails when it is told to, and what the embedded store must do then: refuse, keep its leases, stay
//! alive, and lose nothing that it acknowledged.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{Database, StorageBackend};

use super::*;
use crate::ids::{FlushSeq, Generation, Version};
use crate::store::{CommitRecord, Keep, RecordStatus};

#[derive(Debug, Default)]
struct Faults {
    no_sync: AtomicBool,
    no_room: AtomicBool,
    opened: AtomicU64,
}

#[derive(Debug)]
struct FailingDisk {
    file: FileBackend,
    faults: Arc<Faults>,
}

fn fail_if(switch: &AtomicBool, kind: std::io::ErrorKind) -> std::io::Result<()> {
    if switch.load(Ordering::SeqCst) { Err(kind.into()) } else { Ok(()) }
}

impl StorageBackend for FailingDisk {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        fail_if(&self.faults.no_room, std::io::ErrorKind::StorageFull)?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        fail_if(&self.faults.no_sync, std::io::ErrorKind::Other)?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        fail_if(&self.faults.no_room, std::io::ErrorKind::StorageFull)?;
        self.file.write(offset, data)
    }
    fn close(&self) -> std::io::Result<()> {
        self.file.close()
    }
}

fn failing(faults: &Arc<Faults>) -> Opener {
    let faults = Arc::clone(faults);
    Box::new(move |path: &Path| {
        faults.opened.fetch_add(1, Ordering::SeqCst);
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(redb::StorageError::Io)?;
        let file = FileBackend::new(file)?;
        Database::builder().create_with_backend(FailingDisk { file, faults: Arc::clone(&faults) })
    })
}

struct Home {
    store: EmbeddedStore,
    faults: Arc<Faults>,
    owner: Owner,
    grant: crate::store::Grant,
    sent: FlushSeq,
}

const TTL: Duration = Duration::from_secs(600);

impl Home {
    async fn in_folder(folder: &Path) -> Self {
        let faults = Arc::new(Faults::default());
        let store = EmbeddedStore::open_on(folder, failing(&faults), Vitals::default()).unwrap();
        let request = AcquireRequest {
            shard: shard(),
            owner: Owner::named("a#1"),
            ttl: TTL,
            floor: Epoch::ZERO,
            generation_if_new: Generation::of(7),
        };
        let Acquired::Granted(grant) = store.lease_acquire(request).await.unwrap() else { panic!("held") };
        Self { store, faults, owner: Owner::named("a#1"), sent: grant.flush_seq, grant }
    }

    async fn commit(&mut self, version: u64) -> Result<RecordStatus, StoreError> {
        self.sent = self.sent.next();
        let record = CommitRecord {
            player: ann(),
            base: Version::of(version - 1),
            version: Version::of(version),
            keep: Keep::Live { expires_at_unix_ms: 1 },
            ttl: TTL,
            restore: false,
            known: false,
            p: bytes::Bytes::from(vec![7; 5_000]),
            w: None,
            ban: crate::store::BanMark::Unmoved,
            entries: Vec::new(),
        };
        let commit = Commit {
            shard: shard(),
            owner: self.owner.clone(),
            epoch: self.grant.epoch,
            generation: self.grant.generation,
            flush_seq: self.sent,
            flush_seq_acked: self.grant.flush_seq,
            remember: TTL,
            records: vec![record],
        };
        match self.store.commit(commit).await? {
            Committed::Done(mut statuses) => Ok(statuses.remove(0)),
            other => panic!("{other:?}"),
        }
    }

    async fn renew(&self) -> Renewed {
        self.store.lease_renew(shard(), &self.owner, self.grant.epoch, TTL).await.unwrap()
    }

    async fn version(&self) -> u64 {
        let stored = self.store.load_players(shard(), vec![ann()]).await.unwrap().remove(0);
        stored.unwrap().version.number()
    }

    /// Commits until the store takes it again: it waits a moment between two tries of its own.
    async fn commit_when_healed(&mut self, version: u64) -> RecordStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.commit(version).await {
                Ok(status) => return status,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn shard() -> ShardId {
    ShardId::numbered(3).unwrap()
}

fn ann() -> PlayerId {
    PlayerId::parse("ann").unwrap()
}

#[tokio::test]
async fn a_failing_sync_refuses_and_the_store_lives_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut home = Home::in_folder(folder.path()).await;
    assert_eq!(home.commit(1).await.unwrap(), RecordStatus::Applied);

    home.faults.no_sync.store(true, Ordering::SeqCst);
    assert!(matches!(home.commit(2).await, Err(StoreError::Refused(_))));
    assert!(matches!(home.store.probe().await, Err(StoreError::Refused(_))), "readiness sees it");
    assert!(matches!(home.renew().await, Renewed::Renewed { .. }), "a lease costs no disk");

    home.faults.no_sync.store(false, Ordering::SeqCst);
    let status = home.commit_when_healed(2).await;
    // Whether the refused one reached the disk is unknown; either way this one did.
    assert!(matches!(status, RecordStatus::Applied | RecordStatus::Same), "{status:?}");
    assert_eq!(home.version().await, 2);
    assert!(home.faults.opened.load(Ordering::SeqCst) > 1, "it was opened again");
    home.store.close().await.unwrap();

    let home = Home::in_folder(folder.path()).await;
    assert_eq!(home.version().await, 2);
}

#[tokio::test]
async fn a_full_disk_refuses_and_keeps_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut home = Home::in_folder(folder.path()).await;
    for version in 1..=10 {
        assert_eq!(home.commit(version).await.unwrap(), RecordStatus::Applied);
    }
    home.faults.no_room.store(true, Ordering::SeqCst);
    for _ in 0..5 {
        let refused = home.commit(11).await.unwrap_err();
        assert!(matches!(refused, StoreError::Refused(_)));
        // Told once, and as what it is: readiness says it to operators.
        let said = refused.to_string();
        assert_eq!(said.matches("refuses").count(), 1, "{said}");
        assert!(!said.contains("corrupted"), "{said}");
        assert!(matches!(home.renew().await, Renewed::Renewed { .. }));
    }
    home.faults.no_room.store(false, Ordering::SeqCst);
    let status = home.commit_when_healed(11).await;
    assert_eq!(status, RecordStatus::Applied);
    home.store.close().await.unwrap();

    let home = Home::in_folder(folder.path()).await;
    assert_eq!(home.version().await, 11);
}

#[tokio::test]
async fn a_disk_that_never_heals_is_not_asked_all_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut home = Home::in_folder(folder.path()).await;
    home.commit(1).await.unwrap();
    home.faults.no_sync.store(true, Ordering::SeqCst);
    for _ in 0..200 {
        assert!(matches!(home.commit(2).await, Err(StoreError::Refused(_))));
    }
    let opened = home.faults.opened.load(Ordering::SeqCst);
    assert!(opened <= 6, "opened {opened} times in a burst of 200 tries");
}

#[tokio::test]
async fn a_commit_that_was_refused_before_the_disk_had_it_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut home = Home::in_folder(folder.path()).await;
    home.commit(1).await.unwrap();
    home.faults.no_room.store(true, Ordering::SeqCst);
    assert!(home.commit(2).await.is_err());
    home.store.close().await.ok();
    drop(home);
    let home = Home::in_folder(folder.path()).await;
    assert_eq!(home.version().await, 1);
}
