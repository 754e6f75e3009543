//! The Redis store: every write through a fenced Lua script, every call with a deadline. Opened by `store::open`.
//! It decides nothing: the scripts compare, `home` decides.

mod blobs;
mod breaker;
mod cluster;
mod endpoint;
mod entries;
mod errors;
mod known;
mod lane;
mod lanes;
mod leases;
mod members;
mod replication;
mod reply;
mod routes;
mod scripts;
mod sentinel;
mod settings;
mod slots;
mod stock;
mod topology;
#[cfg(feature = "sabotage")]
mod unfenced;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use redis::Cmd;

use self::breaker::Breaker;
use self::lanes::Purpose;
use self::members::Oddities;
use self::replication::Terms;
use self::reply::Reply;
use self::routes::Routes;
use self::scripts::{Scripts, queued_message, stored_record};
use self::settings::Settings;
use self::slots::slot_of;
use super::layout::{Layout, ShardKeys};
use super::members::{Beat, Heartbeat};
use super::{
    AcquireRequest, Acquired, Agreed, Blob, BlobKey, BlobPut, BlobRemoved, BlobWritten, ClusterConfig,
    Commit, Committed, CommittedUpTo, Counted, CounterRequest, EventPlace, EventsRead, Held, Holder,
    LIVE_PAGE_MAX, LOAD_PLAYERS_MAX, LiveCursor, LivePage, LockAcquired, LockOwner, LockRequest, LockToken,
    NextGeneration, OpenError, OpenOptions, Precondition, QueueAdded, QueuedMessage, RateRequest, RateTaken,
    Reach, Released, Renewed, Rotated, Shortfall, Stance, Store, StoreError, StoreFuture, StoredFilter,
    StoredRecord, Which,
};
use crate::clock;
use crate::ids::{Epoch, KeyName, Owner, PlayerId, SHARDS_MAX, ShardId};

/// The field of the cluster's configuration that holds what operators said.
const NOTICE: &str = "notice";
/// What a probe writes is forgotten by itself.
const PROBE_TTL_MS: u64 = 60_000;

/// The store of a cluster on Redis, in any shape.
pub struct RedisStore {
    layout: Layout,
    scripts: Scripts,
    routes: Routes,
    replication: Terms,
    oddities: Oddities,
    /// The slot of each shard's meta key, in a cluster.
    slots: Box<[u16]>,
    /// Whether there are to be replicas: the shape says so, or there were some.
    has_had_replicas: AtomicBool,
}

impl RedisStore {
    /// Connects to what `url` names: one server, the master that sentinels name, or the nodes of a cluster.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong with the URL, the name or the servers.
    pub async fn open(url: &str, options: &OpenOptions) -> Result<Self, OpenError> {
        let layout = Layout::of_cluster(&options.cluster)
            .map_err(|source| OpenError::ClusterName { name: options.cluster.clone(), source })?;
        let routes = Routes::open(url, options).await?;
        // Less than a call may take: so an answer that too few have it comes in time.
        let replication = Terms { replicas: options.replicated_to, patience: options.response_deadline / 2 };
        let shards = (0..SHARDS_MAX).filter_map(ShardId::numbered);
        let slots = if routes.is_cluster() {
            shards.map(|shard| slot_of(&layout.shard(shard).meta())).collect()
        } else {
            Box::default()
        };
        let (scripts, oddities) = (Scripts::new(), Oddities::default());
        let has_had_replicas = AtomicBool::new(routes.is_replicated());
        Ok(Self { layout, scripts, routes, replication, oddities, slots, has_had_replicas })
    }

    /// What [`RedisStore::open`] would find without asking anybody.
    pub(super) fn check(url: &str, options: &OpenOptions) -> Result<(), OpenError> {
        Layout::of_cluster(&options.cluster)
            .map_err(|source| OpenError::ClusterName { name: options.cluster.clone(), source })?;
        topology::target(url, options.redis_ca_pem.as_deref()).map(|_| ())
    }

    async fn read(&self, key: &str, command: &Cmd) -> Result<Reply, StoreError> {
        Reply::of(self.routes.query(Purpose::Reads, key, command).await?)
    }

    /// Where the shard's meta lies; all slots are one where there is no cluster.
    fn slot(&self, shard: ShardId) -> u16 {
        self.slots.get(usize::from(shard.number())).copied().unwrap_or(0)
    }

    fn keys(&self, shard: ShardId) -> ShardKeys {
        self.layout.shard(shard)
    }

    async fn read_players(
        &self,
        keys: &ShardKeys,
        players: &[PlayerId],
    ) -> Result<Vec<Option<StoredRecord>>, StoreError> {
        if players.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("MGET");
        for player in players {
            command.arg(keys.record(player).concat()).arg(keys.watches(player).concat());
        }
        let mut reply = self.read(&keys.meta(), &command).await?;
        players
            .iter()
            .map(|_| match (reply.bytes()?, reply.bytes()?) {
                (None, _) => Ok(None),
                (p, w) => stored_record(p.as_ref(), w).map(Some),
            })
            .collect()
    }

    /// Names in an index with their scores, in its order, from the cursor on; and whether that is all.
    async fn live_names(
        &self,
        index: &str,
        after: Option<&LiveCursor>,
        limit: usize,
    ) -> Result<(Vec<(String, u64)>, bool), StoreError> {
        // Names of the cursor's own score come again, and are skipped. Asking for more from the same place, instead
        // of going on by offset, misses nobody when a name before the cursor leaves meanwhile.
        let mut count = limit.saturating_add(1);
        loop {
            let names = self.names_from(index, after.map_or(0, |cursor| cursor.after_unix_ms), count).await?;
            let is_all = names.len() < count;
            let mut new: Vec<_> = names.into_iter().filter(|name| is_after(after, name)).collect();
            if is_all || new.len() >= limit {
                let is_last = is_all && new.len() <= limit;
                new.truncate(limit);
                return Ok((new, is_last));
            }
            count = count.saturating_mul(2);
        }
    }

    /// The records of the players that an index names, by page.
    async fn page(
        &self,
        keys: &ShardKeys,
        index: &str,
        after: Option<LiveCursor>,
        limit: usize,
    ) -> Result<LivePage, StoreError> {
        let (names, is_last) = self.live_names(index, after.as_ref(), limit.clamp(1, LIVE_PAGE_MAX)).await?;
        let mut page = LivePage::default();
        if let Some((name, score)) = names.last().filter(|_| !is_last) {
            page.next = Some(LiveCursor { after_unix_ms: *score, after_player: name.clone() });
        }
        let players: Vec<_> = names.iter().filter_map(|(name, _)| PlayerId::parse(name).ok()).collect();
        for chunk in players.chunks(LOAD_PLAYERS_MAX) {
            let stored = self.read_players(keys, chunk).await?;
            let found = chunk.iter().cloned().zip(stored);
            page.records.extend(found.filter_map(|(player, stored)| Some((player, stored?))));
        }
        page.missing = names.len() - page.records.len();
        Ok(page)
    }

    async fn names_from(
        &self,
        index: &str,
        score: u64,
        count: usize,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let mut command: Cmd = redis::cmd("ZRANGE");
        command.arg(index).arg(score).arg("+inf").arg("BYSCORE");
        command.arg("LIMIT").arg(0).arg(count).arg("WITHSCORES");
        let mut reply = self.read(index, &command).await?;
        let mut names = Vec::with_capacity(reply.len() / 2);
        while reply.len() > 0 {
            names.push((reply.word()?, reply.number()?));
        }
        Ok(names)
    }
}

fn is_after(cursor: Option<&LiveCursor>, (name, score): &(String, u64)) -> bool {
    cursor.is_none_or(|cursor| (*score, name) > (cursor.after_unix_ms, &cursor.after_player))
}

impl Store for RedisStore {
    fn lease_acquire(&self, request: AcquireRequest) -> StoreFuture<'_, Acquired> {
        Box::pin(async move { self.scripts.lease_acquire(&self.routes, &self.layout, &request).await })
    }

    fn lease_renew(
        &self,
        shard: ShardId,
        owner: &Owner,
        epoch: Epoch,
        ttl: Duration,
    ) -> StoreFuture<'_, Renewed> {
        let owner = owner.clone();
        Box::pin(async move {
            let answer = self.scripts.lease_renew(&self.routes, &self.keys(shard), &owner, epoch, ttl).await;
            #[cfg(feature = "sabotage")]
            let answer = self.unfenced(shard, answer?).await;
            answer
        })
    }

    fn lease_release(&self, shard: ShardId, owner: &Owner, epoch: Epoch) -> StoreFuture<'_, Released> {
        let owner = owner.clone();
        Box::pin(
            async move { self.scripts.lease_release(&self.routes, &self.keys(shard), &owner, epoch).await },
        )
    }

    fn lease_acquire_all(
        &self,
        requests: Vec<AcquireRequest>,
    ) -> BoxFuture<'_, Vec<Result<Acquired, StoreError>>> {
        Box::pin(async move { self.acquire_all(&requests).await })
    }

    fn lease_renew_all(
        &self,
        owner: &Owner,
        leases: Vec<(ShardId, Epoch)>,
        ttl: Duration,
    ) -> BoxFuture<'_, Vec<Result<Renewed, StoreError>>> {
        let owner = owner.clone();
        Box::pin(async move {
            let answers = self.renew_all(&owner, &leases, ttl).await;
            #[cfg(feature = "sabotage")]
            let answers = self.unfenced_all(&leases, answers).await;
            answers
        })
    }

    fn holders(&self, shards: Vec<ShardId>) -> StoreFuture<'_, Vec<Option<Held>>> {
        Box::pin(async move { self.look_at_all(&shards).await })
    }

    fn heartbeat(&self, heartbeat: Heartbeat) -> StoreFuture<'_, Beat> {
        Box::pin(async move { self.beat(&heartbeat).await })
    }

    fn leave(&self, owner: &Owner) -> StoreFuture<'_, ()> {
        let owner = owner.clone();
        Box::pin(async move { self.bid_farewell(&owner).await })
    }

    fn commit(&self, commit: Commit) -> StoreFuture<'_, Committed> {
        Box::pin(async move {
            let answer = self.commit_all(vec![commit]).await.pop();
            answer.unwrap_or_else(|| Err(StoreError::Corrupt("a commit without an answer".into())))
        })
    }

    fn commit_all(&self, commits: Vec<Commit>) -> BoxFuture<'_, Vec<Result<Committed, StoreError>>> {
        Box::pin(async move {
            #[cfg(feature = "sabotage")]
            let commits = self.adopt_all(commits).await;
            let mut answers: Vec<_> = commits.iter().map(|commit| commit.check().err().map(Err)).collect();
            let checked: Vec<_> = commits
                .iter()
                .zip(&answers)
                .filter(|(_, refused)| refused.is_none())
                .map(|(commit, _)| commit)
                .collect();
            let mut sent = self.scripts.commit_all(&self.routes, &self.layout, &checked).await.into_iter();
            answers.iter_mut().filter(|refused| refused.is_none()).for_each(|answer| *answer = sent.next());
            answers.into_iter().map(|answer| answer.unwrap_or(Err(StoreError::Timeout))).collect()
        })
    }

    fn replicated(&self, upto: CommittedUpTo) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let meta = self.keys(upto.shard).meta();
            let server = self.routes.server_of(&meta)?;
            let asked = server.replication().confirm(&self.scripts.confirm, self.replication, meta, upto);
            asked.await.map_err(|failure| failure.error)
        })
    }

    fn has_replicas(&self, shard: ShardId) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let server = self.routes.server_of(&self.keys(shard).meta())?;
            let settings = Settings::ask(server.of(Purpose::Reads)).await?;
            let needed = usize::try_from(self.replication.replicas).unwrap_or(usize::MAX);
            Ok(settings.replicas() >= needed)
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
            self.read_players(&self.keys(shard), &players).await
        })
    }

    fn load_live(
        &self,
        shard: ShardId,
        after: Option<LiveCursor>,
        limit: usize,
    ) -> StoreFuture<'_, LivePage> {
        let keys = self.keys(shard);
        Box::pin(async move { self.page(&keys, &keys.expiry(), after, limit).await })
    }

    fn load_banned(
        &self,
        shard: ShardId,
        after: Option<LiveCursor>,
        limit: usize,
    ) -> StoreFuture<'_, LivePage> {
        let keys = self.keys(shard);
        Box::pin(async move { self.page(&keys, &keys.bans(), after, limit).await })
    }

    fn load_known(&self, shard: ShardId) -> StoreFuture<'_, StoredFilter> {
        Box::pin(self.filter(shard))
    }

    fn rotate_known(&self, shard: ShardId, holder: Holder, next: NextGeneration) -> StoreFuture<'_, Rotated> {
        Box::pin(async move {
            let keys = self.keys(shard);
            self.scripts.known_rotate(&self.routes, &keys, &holder, &next).await
        })
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
            let keys = self.keys(shard);
            let (meta, queue) = (keys.meta(), keys.queue(&player));
            self.scripts.queue_add(&self.routes, (&meta, &queue), &holder, &message, most).await
        })
    }

    fn queue_read(&self, shard: ShardId, player: PlayerId) -> StoreFuture<'_, Vec<QueuedMessage>> {
        Box::pin(async move {
            let queue = self.keys(shard).queue(&player);
            let mut command = redis::cmd("LRANGE");
            command.arg(&queue).arg(0).arg(-1);
            let mut reply = self.read(&queue, &command).await?;
            let (mut messages, now_ms) = (Vec::with_capacity(reply.len()), clock::now().unix_ms);
            while reply.len() > 0 {
                let message = reply.bytes()?.as_ref().and_then(queued_message);
                let message =
                    message.ok_or_else(|| StoreError::Corrupt("a message without id and end".into()))?;
                if message.expires_at_unix_ms > now_ms {
                    messages.push(message);
                }
            }
            Ok(messages)
        })
    }

    fn queue_remove(
        &self,
        shard: ShardId,
        holder: Holder,
        player: PlayerId,
        which: Which,
    ) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let keys = self.keys(shard);
            let (meta, queue) = (keys.meta(), keys.queue(&player));
            self.scripts.queue_remove(&self.routes, (&meta, &queue), &holder, &which).await
        })
    }

    fn timeline(&self, shard: ShardId, player: PlayerId) -> StoreFuture<'_, Vec<Bytes>> {
        Box::pin(async move { self.read_timeline(shard, &player).await })
    }

    fn events_after(&self, after: Vec<(ShardId, EventPlace)>) -> StoreFuture<'_, EventsRead> {
        Box::pin(async move { self.read_events(&after).await })
    }

    fn events_last(&self, shards: Vec<ShardId>) -> StoreFuture<'_, Vec<Option<EventPlace>>> {
        Box::pin(async move { self.last_events(&shards).await })
    }

    fn rate(&self, request: RateRequest) -> StoreFuture<'_, RateTaken> {
        Box::pin(async move {
            self.scripts.rate(&self.routes, &self.layout.rate(request.subject), &request).await
        })
    }

    fn counter(&self, request: CounterRequest) -> StoreFuture<'_, Counted> {
        Box::pin(async move { self.count(&request).await })
    }

    fn lock_acquire(&self, request: LockRequest) -> StoreFuture<'_, LockAcquired> {
        Box::pin(async move { self.acquire_lock(&request).await })
    }

    fn lock_renew(&self, request: LockRequest) -> StoreFuture<'_, Option<LockToken>> {
        Box::pin(async move { self.renew_lock(&request).await })
    }

    fn lock_release(&self, name: KeyName, owner: LockOwner) -> StoreFuture<'_, bool> {
        Box::pin(async move { self.release_lock(&name, owner).await })
    }

    fn lock_cancel(&self, name: KeyName, owner: LockOwner) -> StoreFuture<'_, bool> {
        Box::pin(async move { self.cancel_lock(&name, owner).await })
    }

    fn blob_put(&self, put: BlobPut) -> StoreFuture<'_, BlobWritten> {
        Box::pin(async move { self.put_blob(&put).await })
    }

    fn blob_read(&self, key: BlobKey) -> StoreFuture<'_, Option<Blob>> {
        Box::pin(async move { self.read_blob(&key).await })
    }

    fn blob_remove(&self, key: BlobKey, precondition: Precondition) -> StoreFuture<'_, BlobRemoved> {
        Box::pin(async move { self.remove_blob(&key, &precondition).await })
    }

    fn blobs_erase(&self, shard: ShardId, player: PlayerId) -> StoreFuture<'_, ()> {
        Box::pin(async move { self.erase_blobs(shard, &player).await })
    }

    fn agree_config(
        &self,
        proposal: ClusterConfig,
        stance: Stance,
        founding: Duration,
    ) -> StoreFuture<'_, Agreed> {
        Box::pin(async move {
            let fields = [
                ("shards", proposal.shards.to_string().into_bytes()),
                ("format_min", proposal.format_min.to_string().into_bytes()),
                ("format_max", proposal.format_max.to_string().into_bytes()),
                ("ticket_secret", proposal.ticket_secret),
            ];
            let key = self.layout.config();
            let mut reply =
                self.scripts.config_agree(&self.routes, &key, (stance, founding), &fields).await?;
            let too_big = |_| StoreError::Corrupt(format!("{key} holds a number that cannot be"));
            let founded_in = Duration::from_millis(reply.number()?);
            let config = ClusterConfig {
                shards: reply.number()?.try_into().map_err(too_big)?,
                format_min: reply.number()?.try_into().map_err(too_big)?,
                format_max: reply.number()?.try_into().map_err(too_big)?,
                ticket_secret: reply.bytes()?.unwrap_or_default().to_vec(),
            };
            Ok(Agreed { config, founded_in })
        })
    }

    fn notice(&self) -> StoreFuture<'_, Option<Bytes>> {
        Box::pin(async move {
            let key = self.layout.config();
            let mut command = redis::cmd("HMGET");
            command.arg(&key).arg(NOTICE);
            self.read(&key, &command).await?.bytes()
        })
    }

    fn set_notice(&self, notice: Option<Bytes>) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let key = self.layout.config();
            let mut command = redis::cmd(if notice.is_some() { "HSET" } else { "HDEL" });
            command.arg(&key).arg(NOTICE);
            if let Some(notice) = &notice {
                command.arg(notice.as_ref());
            }
            self.routes.query(Purpose::Commits, &key, &command).await.map(drop)
        })
    }

    fn probe(&self) -> StoreFuture<'_, Duration> {
        Box::pin(async move {
            let started = Instant::now();
            let nonce = rand::random::<u64>().to_string();
            let key = self.layout.probe();
            let mut write = redis::cmd("SET");
            write.arg(&key).arg(&nonce).arg("PX").arg(PROBE_TTL_MS);
            self.routes.query(Purpose::Commits, &key, &write).await?;
            let mut read = redis::cmd("GET");
            read.arg(&key);
            // Another node's probe may have written meanwhile: that one read back proves as much.
            let mut reply = Reply::of(self.routes.query(Purpose::Commits, &key, &read).await?)?;
            reply.number().map(|_| started.elapsed())
        })
    }

    fn shortfalls(&self) -> StoreFuture<'_, Vec<Shortfall>> {
        Box::pin(async move {
            let servers = self.routes.servers();
            let is_cluster = self.routes.is_cluster();
            let asked = servers
                .iter()
                .map(async |(at, lanes)| Ok((at.as_str(), Settings::ask(lanes.of(Purpose::Reads)).await?)));
            let found: Result<Vec<_>, StoreError> = join_all(asked).await.into_iter().collect();
            let found = found?;
            if found.iter().any(|(_, settings)| settings.replicas() > 0) {
                self.has_had_replicas.store(true, Ordering::Relaxed);
            }
            let expects = self.has_had_replicas.load(Ordering::Relaxed);
            let replicas = if expects { self.replication.replicas } else { 0 };
            let short = found.iter().map(|(at, settings)| (*at, settings.shortfalls(is_cluster, replicas)));
            Ok(settings::together(short.collect()))
        })
    }

    fn reach(&self, shard: ShardId) -> Reach {
        let look = |breaker: Option<&Breaker>| breaker.map_or(Reach::Well, Breaker::reach);
        self.routes.at_breaker(self.slot(shard), look).unwrap_or(Reach::Away)
    }

    fn room(&self, shard: ShardId) -> usize {
        let look = |breaker: Option<&Breaker>| breaker.map_or(usize::MAX, Breaker::room);
        self.routes.at_breaker(self.slot(shard), look).unwrap_or(usize::MAX)
    }

    fn kind(&self) -> &'static str {
        "redis"
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.routes.close();
        Box::pin(std::future::ready(Ok(())))
    }
}
