//! The embedded store: one node, one folder, one redb file, no server to run. The same contract as the Redis store,
//! by the same rules (`judge`). Opened by `store::open`; nobody else may open the folder while it lives.

mod blobs;
mod entries;
#[cfg(test)]
mod failing_disk;
mod file;
mod queues;
mod stock;
mod tables;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{ReadTransaction, ReadableDatabase};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use self::entries::{last_events, read_events, read_timeline};
use self::file::{Folder, Opener};
use self::queues::{banned_names, read_queue};
use self::stock::{StockAnswer, StockAsk};
use self::tables::{ReadTables, WriteTables, read_cluster};
use self::writer::{Answer, Ask, Op, QUEUE_OPS_MAX, Shared, Writer};
use super::blobs::BLOB_BYTES_MAX;
use super::{
    AcquireRequest, Acquired, Agreed, Bits, Blob, BlobKey, BlobPut, BlobRemoved, BlobWritten, ClusterConfig,
    Commit, Committed, Counted, CounterRequest, EventPlace, EventsRead, Filter, Held, Holder, LIVE_PAGE_MAX,
    LOAD_PLAYERS_MAX, LiveCursor, LivePage, LockAcquired, LockOwner, LockRequest, LockToken, NextGeneration,
    OpenError, Precondition, QueueAdded, QueuedMessage, Released, Renewed, Rotated, Shortfall, Stance, Store,
    StoreError, StoreFuture, StoredFilter, StoredRecord, Which, entries::check_count, judge,
};
use crate::clock;
use crate::ids::{Epoch, KeyName, Owner, PlayerId, ShardId};
use crate::tasks::Vitals;

/// A write waits for the disk, and a busy disk may take seconds to sync; there is no other store to ask.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// The layout of the tables. A file of another format is not opened.
const FORMAT: &[u8] = b"1";

/// One node's store in one folder.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Op>,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, making the folder and the file if they are missing. Blocks: a file that a crash left
    /// behind is read through once.
    ///
    /// # Errors
    /// [`OpenError`] says whether the folder is in use, cannot be used, or holds what cannot be read.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_under(dir, Vitals::default())
    }

    /// The same; these are told if its thread dies.
    pub(in crate::store) fn open_under(dir: &Path, vitals: Vitals) -> Result<Self, OpenError> {
        Self::open_on(dir, file::on_disk(), vitals)
    }

    fn open_on(dir: &Path, opener: Opener, vitals: Vitals) -> Result<Self, OpenError> {
        let folder = Folder::lock(dir, opener)?;
        let database = folder.open()?;
        let unreadable =
            |error: redb::Error| OpenError::Damaged { file: dir.to_owned(), reason: error.to_string() };
        let format = make_tables(&database).map_err(unreadable)?;
        if format != FORMAT {
            let reason = format!("it has format {}", String::from_utf8_lossy(&format));
            return Err(OpenError::Damaged { file: dir.to_owned(), reason });
        }
        let shared = Shared::of(database).map_err(unreadable)?;
        let (queue, asked) = mpsc::channel(QUEUE_OPS_MAX);
        let writer = Writer::new(folder, Arc::clone(&shared));
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || vitals.guarded("store-writer", || writer.run(asked)))
            .map_err(|source| OpenError::Folder { dir: dir.to_owned(), source })?;
        Ok(Self { shared, queue })
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        let answered = tokio::time::timeout(WRITE_DEADLINE, async {
            self.queue.send(Op { ask, reply }).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        });
        answered.await.map_err(|_| StoreError::Timeout)?
    }

    async fn ask_stock(&self, ask: StockAsk) -> Result<StockAnswer, StoreError> {
        match self.ask(Ask::Stock(ask)).await? {
            Answer::Stock(answer) => Ok(answer),
            _ => Err(mixed_up()),
        }
    }

    /// Reads on a thread that may block: a page that is not cached costs a disk access, and a live page of 256
    /// records a millisecond, which a worker thread of tokio would take from every other task.
    async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let reading = tokio::task::spawn_blocking(move || {
            let database = shared.database.read();
            let Some(database) = database.as_ref() else {
                return Err(StoreError::Unreachable("its file is closed".into()));
            };
            let txn = database.begin_read().map_err(|error| unreadable(&error.into()))?;
            read(&txn).map_err(|error| unreadable(&error))
        });
        match tokio::time::timeout(READ_DEADLINE, reading).await {
            Ok(Ok(read)) => read,
            Ok(Err(broken)) => Err(StoreError::Unreachable(broken.to_string())),
            Err(_) => Err(StoreError::Timeout),
        }
    }
}

/// Makes what is missing in a new file, and returns the format of the file.
fn make_tables(database: &redb::Database) -> Result<Vec<u8>, redb::Error> {
    let txn = database.begin_write()?;
    let format = WriteTables::open(&txn)?.agree("format", FORMAT)?;
    stock::make(&txn)?;
    txn.commit()?;
    Ok(format)
}

fn ended() -> StoreError {
    StoreError::Unreachable("the embedded store is closed".into())
}

fn unreadable(error: &redb::Error) -> StoreError {
    match error {
        redb::Error::Corrupted(_) => StoreError::Corrupt(error.to_string()),
        _ => StoreError::Unreachable(error.to_string()),
    }
}

fn mixed_up() -> StoreError {
    StoreError::Corrupt("the writer answered another question".into())
}

/// [`ClusterConfig`] as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredConfig {
    shards: u16,
    format_min: u32,
    format_max: u32,
    ticket_secret: Vec<u8>,
}

impl From<ClusterConfig> for StoredConfig {
    fn from(config: ClusterConfig) -> Self {
        let ClusterConfig { shards, format_min, format_max, ticket_secret } = config;
        Self { shards, format_min, format_max, ticket_secret }
    }
}

impl From<StoredConfig> for ClusterConfig {
    fn from(config: StoredConfig) -> Self {
        let StoredConfig { shards, format_min, format_max, ticket_secret } = config;
        Self { shards, format_min, format_max, ticket_secret }
    }
}

impl Store for EmbeddedStore {
    fn lease_acquire(&self, request: AcquireRequest) -> StoreFuture<'_, Acquired> {
        Box::pin(async {
            match self.ask(Ask::Acquire(request)).await? {
                Answer::Acquired(acquired) => Ok(acquired),
                _ => Err(mixed_up()),
            }
        })
    }

    /// Answered from memory, by design without the disk: while it is full or slow, leases renew and sessions live.
    fn lease_renew(
        &self,
        shard: ShardId,
        owner: &Owner,
        epoch: Epoch,
        ttl: Duration,
    ) -> StoreFuture<'_, Renewed> {
        if self.queue.is_closed() {
            return Box::pin(std::future::ready(Err(ended())));
        }
        let mut metas = self.shared.metas.lock();
        let (renewed, changed) = judge::renew(metas.get(&shard), owner, epoch, ttl, clock::now().unix_ms);
        if let Some(meta) = changed {
            metas.insert(shard, meta);
        }
        Box::pin(std::future::ready(Ok(renewed)))
    }

    fn lease_release(&self, shard: ShardId, owner: &Owner, epoch: Epoch) -> StoreFuture<'_, Released> {
        if self.queue.is_closed() {
            return Box::pin(std::future::ready(Err(ended())));
        }
        let mut metas = self.shared.metas.lock();
        let (released, changed) = judge::release(metas.get(&shard), owner, epoch, clock::now().unix_ms);
        if let Some(meta) = changed {
            metas.insert(shard, meta);
        }
        Box::pin(std::future::ready(Ok(released)))
    }

    fn holders(&self, shards: Vec<ShardId>) -> StoreFuture<'_, Vec<Option<Held>>> {
        let (metas, now_ms) = (self.shared.metas.lock(), clock::now().unix_ms);
        let holders = shards.iter().map(|shard| judge::holder(metas.get(shard), now_ms)).collect();
        Box::pin(std::future::ready(Ok(holders)))
    }

    fn commit(&self, commit: Commit) -> StoreFuture<'_, Committed> {
        Box::pin(async {
            commit.check()?;
            match self.ask(Ask::Commit(commit)).await? {
                Answer::Committed(committed) => Ok(committed),
                _ => Err(mixed_up()),
            }
        })
    }

    fn load_players(
        &self,
        shard: ShardId,
        players: Vec<PlayerId>,
    ) -> StoreFuture<'_, Vec<Option<StoredRecord>>> {
        Box::pin(async move {
            if players.len() > LOAD_PLAYERS_MAX {
                return Err(StoreError::Refused(format!("at most {LOAD_PLAYERS_MAX} players a call")));
            }
            let now_ms = clock::now().unix_ms;
            self.read(move |txn| {
                let tables = ReadTables::open(txn)?;
                players.iter().map(|player| tables.player(shard, player.as_str(), now_ms)).collect()
            })
            .await
        })
    }

    fn load_live(
        &self,
        shard: ShardId,
        after: Option<LiveCursor>,
        limit: usize,
    ) -> StoreFuture<'_, LivePage> {
        let limit = limit.clamp(1, LIVE_PAGE_MAX);
        let now_ms = clock::now().unix_ms;
        Box::pin(self.read(move |txn| ReadTables::open(txn)?.live_page(shard, after.as_ref(), limit, now_ms)))
    }

    fn load_banned(
        &self,
        shard: ShardId,
        after: Option<LiveCursor>,
        limit: usize,
    ) -> StoreFuture<'_, LivePage> {
        let limit = limit.clamp(1, LIVE_PAGE_MAX);
        let now_ms = clock::now().unix_ms;
        Box::pin(self.read(move |txn| {
            let (names, next) = banned_names(txn, shard, after.as_ref(), limit)?;
            ReadTables::open(txn)?.page_of(shard, &names, next, now_ms)
        }))
    }

    /// Made anew of the names of all whom the file remembers: nobody who was forgotten is in it.
    fn load_known(&self, shard: ShardId) -> StoreFuture<'_, StoredFilter> {
        let now_ms = clock::now().unix_ms;
        Box::pin(self.read(move |txn| {
            let known = ReadTables::open(txn)?.known(shard, now_ms)?;
            Ok(StoredFilter {
                filter: Filter::of(known, Bits::default()),
                is_whole: true,
                is_begun: true,
                since_unix_ms: Some(now_ms),
                // It looks at what is remembered, and for how long that was said to be.
                keeps_ms: u64::MAX,
                old_keeps_ms: 0,
            })
        }))
    }

    /// There is nothing to rotate: the next look finds who is remembered then.
    fn rotate_known(&self, _: ShardId, _: Holder, _: NextGeneration) -> StoreFuture<'_, Rotated> {
        Box::pin(std::future::ready(Ok(Rotated::Rotated)))
    }

    fn queue_add(
        &self,
        shard: ShardId,
        holder: Holder,
        player: PlayerId,
        message: QueuedMessage,
        most: usize,
    ) -> StoreFuture<'_, QueueAdded> {
        Box::pin(async move {
            match self.ask(Ask::QueueAdd { shard, holder, player, message, most }).await? {
                Answer::Queued(added) => Ok(added),
                _ => Err(mixed_up()),
            }
        })
    }

    fn queue_read(&self, shard: ShardId, player: PlayerId) -> StoreFuture<'_, Vec<QueuedMessage>> {
        let now_ms = clock::now().unix_ms;
        Box::pin(self.read(move |txn| read_queue(txn, shard, &player, now_ms)))
    }

    fn queue_remove(
        &self,
        shard: ShardId,
        holder: Holder,
        player: PlayerId,
        which: Which,
    ) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            match self.ask(Ask::QueueRemove { shard, holder, player, which }).await? {
                Answer::Removed(held) => Ok(held),
                _ => Err(mixed_up()),
            }
        })
    }

    fn counter(&self, request: CounterRequest) -> StoreFuture<'_, Counted> {
        Box::pin(async {
            match self.ask_stock(StockAsk::Count(request)).await? {
                StockAnswer::Counted(counted) => Ok(counted),
                _ => Err(mixed_up()),
            }
        })
    }

    fn blob_put(&self, put: BlobPut) -> StoreFuture<'_, BlobWritten> {
        Box::pin(async {
            if put.blob.body.len() > BLOB_BYTES_MAX {
                return Err(blobs::too_large());
            }
            match self.ask_stock(StockAsk::PutBlob(put)).await? {
                StockAnswer::Put(written) => Ok(written),
                _ => Err(mixed_up()),
            }
        })
    }

    fn blob_read(&self, key: BlobKey) -> StoreFuture<'_, Option<Blob>> {
        Box::pin(self.read(move |txn| blobs::read(txn, &key)))
    }

    fn blob_remove(&self, key: BlobKey, precondition: Precondition) -> StoreFuture<'_, BlobRemoved> {
        Box::pin(async {
            match self.ask_stock(StockAsk::RemoveBlob(key, precondition)).await? {
                StockAnswer::Removed(removed) => Ok(removed),
                _ => Err(mixed_up()),
            }
        })
    }

    fn blobs_erase(&self, shard: ShardId, player: PlayerId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            match self.ask_stock(StockAsk::EraseBlobs(shard, player)).await? {
                StockAnswer::Erased => Ok(()),
                _ => Err(mixed_up()),
            }
        })
    }

    fn lock_acquire(&self, request: LockRequest) -> StoreFuture<'_, LockAcquired> {
        Box::pin(async {
            match self.ask_stock(StockAsk::Acquire(request)).await? {
                StockAnswer::Acquired(acquired) => Ok(acquired),
                _ => Err(mixed_up()),
            }
        })
    }

    fn lock_renew(&self, request: LockRequest) -> StoreFuture<'_, Option<LockToken>> {
        Box::pin(async {
            match self.ask_stock(StockAsk::Renew(request)).await? {
                StockAnswer::Renewed(renewed) => Ok(renewed),
                _ => Err(mixed_up()),
            }
        })
    }

    /// What was asked before is done before: nothing is on its way any more.
    fn lock_cancel(&self, name: KeyName, owner: LockOwner) -> StoreFuture<'_, bool> {
        self.lock_release(name, owner)
    }

    fn lock_release(&self, name: KeyName, owner: LockOwner) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            match self.ask_stock(StockAsk::Release(name, owner)).await? {
                StockAnswer::Released(released) => Ok(released),
                _ => Err(mixed_up()),
            }
        })
    }

    fn timeline(&self, shard: ShardId, player: PlayerId) -> StoreFuture<'_, Vec<Bytes>> {
        let now_ms = clock::now().unix_ms;
        Box::pin(self.read(move |txn| read_timeline(txn, shard, &player, now_ms)))
    }

    fn events_after(&self, after: Vec<(ShardId, EventPlace)>) -> StoreFuture<'_, EventsRead> {
        Box::pin(async move {
            check_count(after.len())?;
            let found = self.read(move |txn| read_events(txn, &after)).await?;
            Ok(EventsRead { found, unanswered: Vec::new() })
        })
    }

    fn events_last(&self, shards: Vec<ShardId>) -> StoreFuture<'_, Vec<Option<EventPlace>>> {
        Box::pin(async move {
            check_count(shards.len())?;
            let last = self.read(move |txn| last_events(txn, &shards)).await?;
            Ok(last.into_iter().map(Some).collect())
        })
    }

    fn agree_config(&self, proposal: ClusterConfig, _: Stance, _: Duration) -> StoreFuture<'_, Agreed> {
        Box::pin(async {
            let proposal = rmp_serde::to_vec_named(&StoredConfig::from(proposal))
                .map_err(|error| StoreError::Corrupt(error.to_string()))?;
            match self.ask(Ask::Agree { name: "config", proposal }).await? {
                Answer::Agreed(stored) => rmp_serde::from_slice::<StoredConfig>(&stored)
                    // One process has the folder: nobody else can know better.
                    .map(|config| Agreed { config: config.into(), founded_in: Duration::ZERO })
                    .map_err(|error| StoreError::Corrupt(error.to_string())),
                _ => Err(mixed_up()),
            }
        })
    }

    /// None is stored as nothing.
    fn notice(&self) -> StoreFuture<'_, Option<Bytes>> {
        Box::pin(async {
            let stored = self.read(|txn| read_cluster(txn, "notice")).await?;
            Ok(stored.filter(|stored| !stored.is_empty()).map(Bytes::from))
        })
    }

    fn set_notice(&self, notice: Option<Bytes>) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let value = notice.unwrap_or_default().to_vec();
            match self.ask(Ask::Put { name: "notice", value }).await? {
                Answer::Done => Ok(()),
                _ => Err(mixed_up()),
            }
        })
    }

    fn probe(&self) -> StoreFuture<'_, Duration> {
        Box::pin(async {
            let started = Instant::now();
            let nonce = rand::random::<[u8; 8]>().to_vec();
            self.ask(Ask::Put { name: "probe", value: nonce.clone() }).await?;
            // Another probe may have written meanwhile: that one was read back, which proves as much.
            match self.read(|txn| read_cluster(txn, "probe")).await? {
                Some(_) => Ok(started.elapsed()),
                None => Err(StoreError::Corrupt("it does not remember what it was told".into())),
            }
        })
    }

    fn shortfalls(&self) -> StoreFuture<'_, Vec<Shortfall>> {
        // Every commit is synced before it is answered, and nothing is ever evicted.
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn kind(&self) -> &'static str {
        "embedded"
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            match self.ask(Ask::Close).await? {
                Answer::Done => Ok(()),
                _ => Err(mixed_up()),
            }
        })
    }
}
