//! A store under test and a home that writes to it: the vocabulary of the store's stories.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hearth::ids::{Epoch, FlushSeq, Generation, Owner, PlayerId, ShardId, Version};
use hearth::store::{
    AcquireRequest, Acquired, BanMark, Commit, CommitRecord, Committed, Entry, Goes, Grant, Keep, LivePage,
    OpenOptions, RecordStatus, Store, StoreError, StoredRecord, open,
};
use tempfile::TempDir;

use crate::harness::redis_server::RedisServer;
use crate::harness::redis_sets;

/// Makes a test of each store, and of each shape of Redis, out of one promise.
macro_rules! for_each_store {
    ($($promise:ident)*) => {
        for_each_store! { @on embedded: $($promise)* }
        for_each_store! { @on redis: $($promise)* }
        for_each_store! { @on sentinel: $($promise)* }
        for_each_store! { @on cluster: $($promise)* }
    };
    (@on $store:ident: $($promise:ident)*) => {
        mod $store {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::$promise(&super::Fixture::$store().await).await;
            })*
        }
    };
}
pub(crate) use for_each_store;

/// Long enough to run out in no test.
pub(crate) const LONG: Duration = Duration::from_secs(600);
/// Runs out while a test waits for it.
pub(crate) const SHORT: Duration = Duration::from_millis(150);

/// A store, and what must live as long.
pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn Store>,
    /// The Redis behind it, if it is one.
    pub(crate) server: Option<RedisServer>,
    _folder: Option<TempDir>,
}

impl Fixture {
    pub(crate) async fn embedded() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&embedded_url(&folder), OpenOptions::default()).await.unwrap();
        Self { store, server: None, _folder: Some(folder) }
    }

    pub(crate) async fn redis() -> Self {
        let server = RedisServer::start();
        // What stands there then is the store's own.
        server.query::<()>(&["FLUSHALL"]);
        Self::on(server).await
    }

    /// On the master that the shared sentinels name, under a cluster's name of its own.
    pub(crate) async fn sentinel() -> Self {
        Self::under_a_new_name(&redis_sets::sentinels().url()).await
    }

    /// On the shared Redis Cluster, under a cluster's name of its own, so that the shards lie elsewhere each time.
    pub(crate) async fn cluster() -> Self {
        Self::under_a_new_name(&redis_sets::cluster().url()).await
    }

    async fn under_a_new_name(url: &str) -> Self {
        static NAMES: AtomicU32 = AtomicU32::new(0);
        let name = format!("c{}", NAMES.fetch_add(1, Ordering::Relaxed));
        let store = open(url, in_cluster(&name)).await.unwrap_or_else(|error| panic!("{error}"));
        Self { store, server: None, _folder: None }
    }

    /// A store on this server.
    pub(crate) async fn on(server: RedisServer) -> Self {
        let store = open(&server.url(), in_cluster("c")).await.unwrap();
        Self { store, server: Some(server), _folder: None }
    }

    /// The Redis, for looking behind the store's back.
    pub(crate) fn server(&self) -> &RedisServer {
        self.server.as_ref().expect("a Redis fixture")
    }
}

/// The options of a cluster of this name.
pub(crate) fn in_cluster(name: &str) -> OpenOptions {
    OpenOptions { cluster: name.into(), ..OpenOptions::default() }
}

pub(crate) fn embedded_url(folder: &TempDir) -> String {
    format!("embedded:{}", folder.path().display())
}

pub(crate) fn shard(number: u16) -> ShardId {
    ShardId::numbered(number).unwrap()
}

pub(crate) fn player(name: &str) -> PlayerId {
    PlayerId::parse(name).unwrap()
}

/// Asks for shard 7.
pub(crate) fn request(owner: &str, ttl: Duration) -> AcquireRequest {
    AcquireRequest {
        shard: shard(7),
        owner: Owner::named(owner),
        ttl,
        floor: Epoch::ZERO,
        generation_if_new: Generation::of(rand::random()),
    }
}

/// A live record with a body that names its version.
pub(crate) fn live(name: &str, base: u64, version: u64) -> CommitRecord {
    CommitRecord {
        player: player(name),
        base: Version::of(base),
        version: Version::of(version),
        keep: Keep::Live { expires_at_unix_ms: 1_000 + version },
        ttl: LONG,
        restore: false,
        known: base == 0,
        p: Bytes::from(format!("{name} at {version}")),
        w: None,
        ban: BanMark::Unmoved,
        entries: Vec::new(),
    }
}

/// The same with an entry that says this and goes there.
pub(crate) fn telling(record: CommitRecord, goes: Goes, body: &str) -> CommitRecord {
    let mut record = record;
    record.entries.push(Entry { version: record.version, goes, body: Bytes::from(body.to_owned()) });
    record
}

/// What is left of an ended record.
pub(crate) fn remainder(name: &str, base: u64, version: u64) -> CommitRecord {
    CommitRecord { keep: Keep::Remainder, ..live(name, base, version) }
}

pub(crate) fn restoring(record: CommitRecord) -> CommitRecord {
    CommitRecord { restore: true, ..record }
}

/// A home of one shard, which numbers its batches as a home does.
pub(crate) struct Home {
    store: Arc<dyn Store>,
    pub(crate) shard: ShardId,
    pub(crate) owner: Owner,
    pub(crate) grant: Grant,
    pub(crate) sent: FlushSeq,
    pub(crate) acked: FlushSeq,
}

impl Home {
    /// Takes shard 7, which must be free or run out.
    pub(crate) async fn take(fixture: &Fixture, owner: &str) -> Self {
        Self::ask(&fixture.store, request(owner, LONG)).await
    }

    pub(crate) async fn ask(store: &Arc<dyn Store>, request: AcquireRequest) -> Self {
        let (shard, owner) = (request.shard, request.owner.clone());
        let grant = match store.lease_acquire(request).await.unwrap() {
            Acquired::Granted(grant) => grant,
            other => panic!("{owner} was not granted {shard}: {other:?}"),
        };
        let (sent, acked) = (grant.flush_seq, grant.flush_seq);
        Self { store: Arc::clone(store), shard, owner, grant, sent, acked }
    }

    /// Releases the shard and takes it again under the name `owner`: a take-over without waiting.
    pub(crate) async fn succeeded_by(self, owner: &str) -> Self {
        self.store.lease_release(self.shard, &self.owner, self.grant.epoch).await.unwrap();
        Self::ask(&self.store, AcquireRequest { shard: self.shard, ..request(owner, LONG) }).await
    }

    /// The next batch, not sent yet.
    pub(crate) fn batch(&mut self, records: Vec<CommitRecord>) -> Commit {
        self.sent = self.sent.next();
        Commit {
            shard: self.shard,
            owner: self.owner.clone(),
            epoch: self.grant.epoch,
            generation: self.grant.generation,
            flush_seq: self.sent,
            flush_seq_acked: self.acked,
            remember: LONG,
            records,
        }
    }

    /// Commits a batch of its own behind a fence that must hold.
    pub(crate) async fn store_commit(&mut self, batch: Commit) {
        let committed = self.store.commit(batch).await.unwrap();
        assert!(matches!(committed, Committed::Done(_)), "{committed:?}");
        self.acked = self.sent;
    }

    pub(crate) async fn try_commit(&mut self, records: Vec<CommitRecord>) -> Result<Committed, StoreError> {
        let batch = self.batch(records);
        let committed = self.store.commit(batch).await;
        if matches!(committed, Ok(Committed::Done(_))) {
            self.acked = self.sent;
        }
        committed
    }

    /// Commits behind a fence that must hold.
    pub(crate) async fn commit(&mut self, records: Vec<CommitRecord>) -> Vec<RecordStatus> {
        match self.try_commit(records).await.unwrap() {
            Committed::Done(statuses) => statuses,
            other => panic!("{other:?}"),
        }
    }

    /// Commits one record behind a fence that must hold.
    pub(crate) async fn commit_one(&mut self, record: CommitRecord) -> RecordStatus {
        self.commit(vec![record]).await.remove(0)
    }

    pub(crate) async fn load(&self, name: &str) -> Option<StoredRecord> {
        self.store.load_players(self.shard, vec![player(name)]).await.unwrap().remove(0)
    }

    /// Version and body of a player that must be stored.
    pub(crate) async fn body(&self, name: &str) -> (u64, String) {
        let stored = self.load(name).await.expect("stored");
        (stored.version.number(), String::from_utf8(stored.p.to_vec()).unwrap())
    }

    /// All live players in the index's order, read in pages of this size; and how many names had no record.
    pub(crate) async fn live_players(&self, page_size: usize) -> (Vec<String>, usize) {
        let (mut names, mut missing, mut after) = (Vec::new(), 0, None);
        loop {
            let LivePage { records, missing: lost, next } =
                self.store.load_live(self.shard, after, page_size).await.unwrap();
            assert!(records.len() + lost <= page_size);
            names.extend(records.into_iter().map(|(player, _)| player.to_string()));
            missing += lost;
            match next {
                Some(next) => after = Some(next),
                None => return (names, missing),
            }
        }
    }
}
