//! Everything that outlives a node: the trait [`Store`], the Redis store and the embedded one. `home` calls it.
//! The store never decides, it compares: a commit either holds the fence (epoch, generation, flush counter) or
//! changes nothing. Bodies are opaque here: what a record means is `home`'s.

pub mod blobs;
pub mod counters;
pub mod embedded;
pub mod entries;
pub mod judge;
pub mod known;
pub mod layout;
pub mod locks;
pub mod members;
mod open;
pub mod redis;

use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};

pub use self::blobs::{
    Blob, BlobKey, BlobPut, BlobQuota, BlobRemoved, BlobTag, BlobUse, BlobWritten, Precondition, Tags,
};
pub use self::counters::{Bound, Counted, CounterRequest};
pub use self::entries::{
    EVENT_SHARDS_MAX, EVENTS_MAX, EVENTS_PER_BATCH_MAX, EVENTS_PER_SHARD_MAX, Entry, EventCount, EventPlace,
    EventsRead, Goes, ShardEvents, StoredEvent, TIMELINE_MAX,
};
pub use self::known::{Bits, Filter, NextGeneration, Rotated, StoredFilter};
pub use self::locks::{LockAcquired, LockOwner, LockRequest, LockToken};
pub use self::members::{Beat, Formats, Heartbeat, Held, Holds, Member, Says, Seen};
pub use self::open::{OpenError, OpenOptions, check, judge_authority, open};
use crate::ids::{Epoch, FlushSeq, Generation, KeyName, Owner, PlayerId, ShardId, Version};

/// Most records one commit may carry: 64 of 300 B cost Redis 2 to 3.5 ms; more gains nothing and blocks it longer.
pub const COMMIT_RECORDS_MAX: usize = 64;
/// Most bytes one commit may carry (one record alone may pass it).
pub const COMMIT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of bodies that cost Redis about what one entry beside a record does: a commit that ends a long outage must not block
/// it for long.
pub const ENTRY_BYTES: usize = 512;
/// Keys that are sent with a record, at most: its two strings, its timeline.
const RECORD_KEYS: usize = 3;
/// Bytes of one beside its player's id: the shard's tag with the name of a cluster, and how it is framed.
const KEY_BYTES: usize = 64;
/// Bytes of what else goes with a record: headers, times, the bits of the filter, all of it framed.
const RECORD_BYTES: usize = 256;
/// Most players one [`Store::load_players`] may name.
pub const LOAD_PLAYERS_MAX: usize = 256;
/// Most players in one [`LivePage`], whatever the caller's limit.
pub const LIVE_PAGE_MAX: usize = 1024;
/// Most bytes of bodies that wait for one player: they are read in one go, at each message that is added, too.
pub const QUEUE_BYTES_MAX: usize = 256 * 1024;

/// What a store call returns.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why the store did not answer. All of them but the last mean *unknown*, never *failed*: a timed-out script may still
/// run later.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No answer within the deadline. The call may still take effect.
    #[error("the store did not answer in time")]
    Timeout,
    /// The store cannot be reached, or the connection broke; it may still take effect.
    #[error("the store cannot be reached: {0}")]
    Unreachable(String),
    /// The store answered, but refuses this for now (full, read-only, loading, misconfigured). Nothing was written.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// What the store holds is not ours to read: another format, a broken record. Retrying will not help.
    #[error("the store holds what this version cannot read: {0}")]
    Corrupt(String),
    /// Nothing was sent: the server is in trouble and left alone for a moment, or only just back and takes few commits
    /// at a time ([`Reach::Well`]). Told at once, and the one that is known and not unknown.
    #[error("the store is {}: {cause}", how_held_back(*.reach))]
    HeldBack {
        /// How the server answers.
        reach: Reach,
        /// What its last calls came to.
        cause: Arc<str>,
    },
    /// Nothing was sent: as many bytes of blobs are under way to the server as may be.
    #[error("as many bytes of blobs are under way to the store as may be")]
    Crowded,
}

impl StoreError {
    /// The kind of trouble, for people who do not run the store: without a server's own words.
    #[must_use]
    pub const fn in_short(&self) -> &'static str {
        match self {
            Self::Timeout => "the store did not answer in time",
            Self::Unreachable(_) => "the store cannot be reached",
            Self::Refused(_) => "the store refuses this for now",
            Self::Corrupt(_) => "the store holds what this version cannot read",
            Self::HeldBack { reach: Reach::Well, .. } => {
                "the store is only just back, and takes few changes at a time"
            }
            Self::HeldBack { reach: Reach::Away, .. } => "the store is away",
            Self::HeldBack { reach: Reach::Full, .. } => "the store is full, and takes no changes",
            Self::Crowded => "as many bytes of blobs are under way to the store as may be",
        }
    }
}

const fn how_held_back(reach: Reach) -> &'static str {
    match reach {
        Reach::Well => "only just back, and takes few changes at a time",
        Reach::Away => "left alone for a moment",
        Reach::Full => "full, and takes no changes for a moment",
    }
}

/// How a server of the store answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// As it should.
    #[default]
    Well,
    /// Not at all, or too slowly: calls to it are held back, but for those that find out whether it is back.
    Away,
    /// It answers and takes no change (its memory is full): leases go on, changes are held back.
    Full,
}

/// Asks for a shard.
#[derive(Debug, Clone)]
pub struct AcquireRequest {
    /// Which shard.
    pub shard: ShardId,
    /// Who asks.
    pub owner: Owner,
    /// For how long the lease is granted.
    pub ttl: Duration,
    /// The highest epoch that this node (or a peer) has seen of the shard: the new epoch lies above it.
    pub floor: Epoch,
    /// The generation to write if the shard has no meta yet.
    pub generation_if_new: Generation,
}

/// What a granted lease brings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The epoch that every write must carry.
    pub epoch: Epoch,
    /// The flush counter to go on from.
    pub flush_seq: FlushSeq,
    /// The store's generation of this shard.
    pub generation: Generation,
    /// The highest version at which a record of the shard ever ended: a player's first record starts above it.
    pub version_max: Version,
    /// Who held the shard before, if another owner did.
    pub previous_owner: Option<Owner>,
}

/// The answer to [`Store::lease_acquire`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Acquired {
    /// A new epoch is ours.
    Granted(Grant),
    /// We hold it already, at an epoch above our floor.
    AlreadyMine(Grant),
    /// Another owner holds it for `remaining`.
    Held {
        /// Who.
        owner: Owner,
        /// How long its lease still runs.
        remaining: Duration,
    },
    /// The floor lies more than a day ahead of the store's clock: somebody lied.
    FloorPoisoned,
}

/// The answer to [`Store::lease_renew`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Renewed {
    /// Extended.
    Renewed {
        /// The stored flush counter, to compare with the last acknowledged one.
        flush_seq: FlushSeq,
        /// The stored generation.
        generation: Generation,
    },
    /// It had run out and nobody had come: granted again under the same epoch.
    Regranted {
        /// The stored flush counter.
        flush_seq: FlushSeq,
        /// The stored generation.
        generation: Generation,
    },
    /// Another owner or a higher epoch is there.
    Fenced {
        /// The stored epoch.
        epoch: Epoch,
    },
    /// The stored epoch lies below ours, or there is no meta: the store went back in time or was emptied.
    RolledBack,
}

/// The answer to [`Store::lease_release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// Given back.
    Released,
    /// It was ours but had run out; it is free now.
    RunOut,
    /// Another owner or epoch is there; nothing was changed.
    NotMine,
}

/// How a record is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// A live player that this home wrote as [`Keep::Live`] in this epoch, not long ago: only `p` is written; the store's
    /// own expiry, the place in the index and `w` stay as they are, and `ttl`, `w`, `restore` and `known` count for
    /// nothing. Costs the store half as much. A record that is not stored as this epoch left it is [`RecordStatus::Gone`].
    Unmoved,
    /// A live player: kept in the expiry index with this score (Unix ms), the store's own expiry set to the record's TTL.
    Live {
        /// When its last session runs out, unless it is touched before.
        expires_at_unix_ms: u64,
    },
    /// The last session ended: `p` is the remainder, `w` is removed, the player leaves the expiry index, and the
    /// shard's `version_max` is raised to the record's version.
    Remainder,
    /// Nothing is to be remembered: both strings are removed; otherwise as [`Keep::Remainder`].
    Erase,
}

/// Whether a record moves its player's place in the shard's list of who is kept out: banned, or lately revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BanMark {
    /// It does not: costs the store nothing.
    #[default]
    Unmoved,
    /// The player is to be listed until then (Unix ms, at most [`BAN_END_MAX`]).
    Until(u64),
    /// The player is not to be listed.
    Lifted,
}

/// The latest end of a ban that the list can hold, and what stands for never.
pub const BAN_END_MAX: u64 = (1 << 53) - 1;

/// One player record of a commit.
#[derive(Debug, Clone)]
pub struct CommitRecord {
    /// Whose.
    pub player: PlayerId,
    /// The version that the home knows to be stored; zero if it knows of none.
    pub base: Version,
    /// The version of this body.
    pub version: Version,
    /// Live, remainder or erased.
    pub keep: Keep,
    /// How long the store keeps the strings before its own expiry removes them: the backstop, later than any logical expiry.
    pub ttl: Duration,
    /// Write it whatever the store has lost (Repair), as long as no newer epoch is there.
    pub restore: bool,
    /// Set the filter's bits for this player (base zero, restore, first commit in this epoch).
    pub known: bool,
    /// The record: everything after epoch and version (the store writes those two first, as fixed-width hex).
    pub p: Bytes,
    /// Watches and rooms, only when they changed; an empty one removes the string.
    pub w: Option<Bytes>,
    /// The player's place in the list of the banned. Moves with the record, or not at all; counts for nothing where
    /// the record is [`Keep::Unmoved`].
    pub ban: BanMark,
    /// What is written beside it in the same step, in the order of their versions; of no version above the record's.
    pub entries: Vec<Entry>,
}

/// One batch of one shard behind one fence.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Which shard.
    pub shard: ShardId,
    /// Who writes.
    pub owner: Owner,
    /// The lease's epoch.
    pub epoch: Epoch,
    /// The generation that came with the lease.
    pub generation: Generation,
    /// This batch's number.
    pub flush_seq: FlushSeq,
    /// The last number that was acknowledged in this epoch (at first the one that came with the lease).
    pub flush_seq_acked: FlushSeq,
    /// How long a timeline is kept after its last entry.
    pub remember: Duration,
    /// At most [`COMMIT_RECORDS_MAX`] records and [`COMMIT_BYTES_MAX`] bytes.
    pub records: Vec<CommitRecord>,
}

impl Commit {
    /// Checks the batch against [`COMMIT_RECORDS_MAX`] and [`COMMIT_BYTES_MAX`], and that no player is in it twice.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for a batch that would block the store for too long, or whose records would have to be
    /// judged by one another; it was not sent.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.records.len() > COMMIT_RECORDS_MAX {
            return Err(StoreError::Refused(format!("a commit has at most {COMMIT_RECORDS_MAX} records")));
        }
        let bytes: usize = self.records.iter().map(CommitRecord::bytes).sum();
        if bytes > COMMIT_BYTES_MAX && self.records.len() > 1 {
            return Err(StoreError::Refused(format!("a commit has at most {COMMIT_BYTES_MAX} bytes")));
        }
        let mut players: Vec<&PlayerId> = self.records.iter().map(|record| &record.player).collect();
        players.sort_unstable();
        if players.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            return Err(StoreError::Refused("a commit has each player once".to_owned()));
        }
        Ok(())
    }
}

impl CommitRecord {
    /// What the record adds to [`COMMIT_BYTES_MAX`]: its strings, its entries, each of which costs what [`ENTRY_BYTES`] would,
    /// and what is sent along.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let entries: usize = self.entries.iter().map(|entry| entry.body.len() + ENTRY_BYTES).sum();
        let keys = RECORD_KEYS * (KEY_BYTES + self.player.as_str().len());
        self.p.len() + self.w.as_ref().map_or(0, Bytes::len) + entries + keys + RECORD_BYTES
    }
}

/// What became of one record of a commit that held the fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordStatus {
    /// Written over its base (or over our own timed-out batch).
    Applied,
    /// The stored version was this one already: written again with expiry and index, as a touch needs; no entries.
    Same,
    /// The stored one was behind its base; written because `restore` asked.
    Repaired,
    /// It was missing; written because `restore` asked.
    Restored,
    /// The store lost it (missing, or behind the base): nothing written; send again with `restore`, never ack.
    Gone,
    /// What is there must be merged first: base zero over a record of an older epoch, or a version above the base that
    /// is not ours. Nothing written; send again on the stored version as base, above both, never ack.
    Exists(StoredRecord),
}

/// The answer to [`Store::commit`]. Only [`Committed::Done`] wrote anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// The fence held: one status a record, in order.
    Done(Vec<RecordStatus>),
    /// Another owner or a higher epoch is there.
    Fenced {
        /// The stored epoch.
        epoch: Epoch,
    },
    /// The stored flush counter is at or above this batch's: an old batch came late. Unknown; send again under the next number.
    Stale {
        /// The stored flush counter.
        flush_seq: FlushSeq,
    },
    /// The stored flush counter lies below the last acknowledged one, or the stored epoch below ours: the store lost writes.
    RolledBack,
    /// The meta is missing or of another generation: the store was emptied or replaced.
    Lost,
}

/// All that was committed of a shard, up to one batch of an epoch.
#[derive(Debug, Clone, Copy)]
pub struct CommittedUpTo {
    /// Which shard.
    pub shard: ShardId,
    /// The lease's epoch.
    pub epoch: Epoch,
    /// The generation that came with the lease.
    pub generation: Generation,
    /// The number of the batch, which was acknowledged.
    pub flush_seq: FlushSeq,
}

/// One player's strings as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The epoch of the home that wrote it.
    pub epoch: Epoch,
    /// Its version then.
    pub version: Version,
    /// The record's body.
    pub p: Bytes,
    /// Watches and rooms.
    pub w: Option<Bytes>,
}

/// Live players of a shard, by page.
#[derive(Debug, Clone, Default)]
pub struct LivePage {
    /// The records that the expiry index names. A name whose string is missing (the store lost it) is left out and
    /// counted in `missing`.
    pub records: Vec<(PlayerId, StoredRecord)>,
    /// Names in the index without a record.
    pub missing: usize,
    /// Where to go on; `None` at the end.
    pub next: Option<LiveCursor>,
}

/// A place in the expiry index; opaque outside the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveCursor {
    /// Index score of the last player read.
    pub after_unix_ms: u64,
    /// The last player read (order within one score).
    pub after_player: String,
}

/// Who writes past a commit, behind the same lease.
#[derive(Debug, Clone)]
pub struct Holder {
    /// Who writes.
    pub owner: Owner,
    /// The lease's epoch.
    pub epoch: Epoch,
    /// The generation that came with the lease.
    pub generation: Generation,
}

/// Which of the messages that wait for a player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those with these ids.
    These(Vec<u128>),
}

/// A message that waits for a player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedMessage {
    /// Its id: one id waits once.
    pub id: u128,
    /// When it is forgotten, seen or not (Unix ms).
    pub expires_at_unix_ms: u64,
    /// What is pushed; opaque here.
    pub body: Bytes,
}

/// The answer to [`Store::queue_add`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueAdded {
    /// It waits now.
    Added,
    /// It waited already; nothing was written.
    Repeat,
    /// As many as may wait do, or as many bytes; nothing was written.
    Full,
    /// The shard is not the holder's; nothing was written.
    Fenced,
}

/// Asks for a part of a limit that holds for the cluster as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateRequest {
    /// Whose limit: a hash of the name.
    pub subject: u64,
    /// So many a second ...
    pub per_s: NonZeroU32,
    /// ... and at once.
    pub burst: NonZeroU32,
    /// As many as there are, up to this.
    pub most: u32,
    /// Fewer are of no use: then none is taken. At most the burst.
    pub least: u32,
}

/// The answer to [`Store::rate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateTaken {
    /// So many may go on.
    Taken(u32),
    /// There are enough after this long.
    Wait(Duration),
}

/// What every node of a cluster must agree on; written by the first, read by all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// How many shards; fixed when the cluster is made.
    pub shards: u16,
    /// The oldest storage format that some record may still have.
    pub format_min: u32,
    /// The newest storage format that some node may write.
    pub format_max: u32,
    /// Signs tickets.
    pub ticket_secret: Vec<u8>,
}

/// How a node proposes a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stance {
    /// It has just started, and knows of no other cluster than the store does.
    Founds,
    /// It has lived in the cluster: while that is being founded, what this node knows replaces what a founder proposed.
    Insists,
}

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// What it says.
    pub config: ClusterConfig,
    /// When it is settled: whoever has just started asks again then, and does nothing before. Zero: it is.
    pub founded_in: Duration,
}

/// One thing about the store's settings that makes `durable` mean less than it says, or that will lose data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// The setting, as the store names it.
    pub setting: String,
    /// A sentence of its own: the setting, what it is, what it should be, and what follows.
    pub message: String,
    /// Whether the node must not start with it (unless overridden).
    pub fatal: bool,
}

/// Everything that outlives a node. Every call has a deadline inside; an error means *unknown*.
///
/// Obligations of an implementation: a commit is atomic; calls of one shard take effect in some order that is the
/// same for all observers; the lease's clock is the store's own; [`Store::commit`] returns only when the batch is as
/// durable as this store can make it (see [`Store::shortfalls`]).
pub trait Store: Send + Sync + 'static {
    /// Grants a free or run-out lease with a new epoch, `max(stored, floor, store_time_ms) + 1`.
    fn lease_acquire(&self, request: AcquireRequest) -> StoreFuture<'_, Acquired>;
    /// Extends a lease, or grants it again under the same epoch if it ran out and nobody came.
    fn lease_renew(
        &self,
        shard: ShardId,
        owner: &Owner,
        epoch: Epoch,
        ttl: Duration,
    ) -> StoreFuture<'_, Renewed>;
    /// Asks for many shards together: an answer each, in their order.
    fn lease_acquire_all(
        &self,
        requests: Vec<AcquireRequest>,
    ) -> BoxFuture<'_, Vec<Result<Acquired, StoreError>>> {
        Box::pin(join_all(requests.into_iter().map(|request| self.lease_acquire(request))))
    }
    /// Extends many leases together: an answer each, in their order.
    fn lease_renew_all(
        &self,
        owner: &Owner,
        leases: Vec<(ShardId, Epoch)>,
        ttl: Duration,
    ) -> BoxFuture<'_, Vec<Result<Renewed, StoreError>>> {
        let owner = owner.clone();
        Box::pin(async move {
            let renewals =
                leases.into_iter().map(|(shard, epoch)| self.lease_renew(shard, &owner, epoch, ttl));
            join_all(renewals).await
        })
    }
    /// Who holds these shards, in their order; `None` where nobody does. Not for deciding who may write.
    fn holders(&self, shards: Vec<ShardId>) -> StoreFuture<'_, Vec<Option<Held>>>;
    /// Says that a node lives, and hears who else does. A store of one node knows of nobody else.
    fn heartbeat(&self, heartbeat: Heartbeat) -> StoreFuture<'_, Beat> {
        let me = Seen { member: heartbeat.member, age: Duration::ZERO };
        Box::pin(std::future::ready(Ok(Beat::Members(vec![me]))))
    }
    /// Says that a node has left; nothing is said of a newer process of its name.
    fn leave(&self, owner: &Owner) -> StoreFuture<'_, ()> {
        let _ = owner;
        Box::pin(std::future::ready(Ok(())))
    }
    /// Gives a lease back, only if it is ours.
    fn lease_release(&self, shard: ShardId, owner: &Owner, epoch: Epoch) -> StoreFuture<'_, Released>;
    /// Writes one batch behind the fence, or nothing.
    fn commit(&self, commit: Commit) -> StoreFuture<'_, Committed>;
    /// Writes batches of different shards together, each behind its own fence, at least one: an answer each, in their
    /// order. None waits for what another finds.
    fn commit_all(&self, commits: Vec<Commit>) -> BoxFuture<'_, Vec<Result<Committed, StoreError>>> {
        Box::pin(join_all(commits.into_iter().map(|commit| self.commit(commit))))
    }
    /// Waits until as many replicas of the store as were asked for have it; `false` if they do not in time, or if the
    /// store lost it since.
    fn replicated(&self, _: CommittedUpTo) -> StoreFuture<'_, bool> {
        Box::pin(std::future::ready(Ok(false)))
    }
    /// Whether that many replicas follow the shard's store now.
    fn has_replicas(&self, _: ShardId) -> StoreFuture<'_, bool> {
        Box::pin(std::future::ready(Ok(false)))
    }
    /// Reads players of one shard (at most 256 a call), in the order asked; `None` for those not stored.
    fn load_players(
        &self,
        shard: ShardId,
        players: Vec<PlayerId>,
    ) -> StoreFuture<'_, Vec<Option<StoredRecord>>>;
    /// Reads the live players of a shard in pages of at most `limit`, by expiry.
    fn load_live(&self, shard: ShardId, after: Option<LiveCursor>, limit: usize)
    -> StoreFuture<'_, LivePage>;
    /// Reads the players who are kept out of a shard in pages of at most `limit`: their records, in some order that stays.
    /// Players whose ban has ended may be among them.
    fn load_banned(
        &self,
        shard: ShardId,
        after: Option<LiveCursor>,
        limit: usize,
    ) -> StoreFuture<'_, LivePage>;
    /// The filter of players ever seen of a shard: everybody is in it who was committed as `known` since the rotation
    /// before the last, and whether the store has lost something of it.
    fn load_known(&self, shard: ShardId) -> StoreFuture<'_, StoredFilter>;
    /// Begins a new generation of the filter, if the store has forgotten all of the old one who were not seen since: the
    /// current one becomes the old one. Everybody who is to be remembered beyond that is in `next.first`, or committed as
    /// `known` again. Where the current one is lost, another one begins at once.
    fn rotate_known(&self, shard: ShardId, holder: Holder, next: NextGeneration) -> StoreFuture<'_, Rotated>;
    /// Keeps a message for a player, behind those that wait, if fewer than `most` do, [`QUEUE_BYTES_MAX`] is not
    /// passed, and it is not among them.
    fn queue_add(
        &self,
        shard: ShardId,
        holder: Holder,
        player: PlayerId,
        message: QueuedMessage,
        most: usize,
    ) -> StoreFuture<'_, QueueAdded>;
    /// The messages that wait for a player and have not run out, the oldest first.
    fn queue_read(&self, shard: ShardId, player: PlayerId) -> StoreFuture<'_, Vec<QueuedMessage>>;
    /// Forgets messages of a player. Says whether the shard is the holder's: else nothing was written.
    fn queue_remove(
        &self,
        shard: ShardId,
        holder: Holder,
        player: PlayerId,
        which: Which,
    ) -> StoreFuture<'_, bool>;
    /// The timeline of a player, the oldest entry first, at most [`TIMELINE_MAX`].
    fn timeline(&self, shard: ShardId, player: PlayerId) -> StoreFuture<'_, Vec<Bytes>>;
    /// The events of shards behind a place in each, at most [`EVENTS_PER_SHARD_MAX`] of each of at most
    /// [`EVENT_SHARDS_MAX`] shards; those that have none are left out. Never in the way of a player's calls. An error only
    /// where no shard's server answered.
    fn events_after(&self, after: Vec<(ShardId, EventPlace)>) -> StoreFuture<'_, EventsRead>;
    /// The place of the last event of each of at most [`EVENT_SHARDS_MAX`] shards, in their order;
    /// [`EventPlace::START`] for one without, `None` for one whose server did not answer. An error only where none did.
    fn events_last(&self, shards: Vec<ShardId>) -> StoreFuture<'_, Vec<Option<EventPlace>>>;
    /// Writes `proposal` if the cluster has no configuration yet, or none that is settled and the node insists; returns
    /// the one in force. Where there was none, the cluster is being founded for `founding` from now on: long enough for
    /// any node that lives to find its leases gone and to take them again.
    fn agree_config(
        &self,
        proposal: ClusterConfig,
        stance: Stance,
        founding: Duration,
    ) -> StoreFuture<'_, Agreed>;
    /// What the operators have said of the cluster as a whole, opaque here; kept beside its configuration.
    fn notice(&self) -> StoreFuture<'_, Option<Bytes>>;
    /// Says it, or takes it back; durable when it returns.
    fn set_notice(&self, notice: Option<Bytes>) -> StoreFuture<'_, ()>;
    /// Takes a part of a limit that holds for the cluster as a whole. A store of one node keeps none: that node's own
    /// limits are the cluster's.
    fn rate(&self, _: RateRequest) -> StoreFuture<'_, RateTaken> {
        let alone = "a store of one node keeps no limits of a cluster".to_owned();
        Box::pin(std::future::ready(Err(StoreError::Refused(alone))))
    }
    /// Changes a counter of game services within its bounds, or looks at it. After an error a change may have been made, or
    /// still be: one that has a name may be asked for again.
    fn counter(&self, request: CounterRequest) -> StoreFuture<'_, Counted>;
    /// Takes a lock of game services, if it is free or has run out. The same owner may ask again.
    fn lock_acquire(&self, request: LockRequest) -> StoreFuture<'_, LockAcquired>;
    /// Gives the holder of a lock more time, from now on; its token. `None`: it is not hers, or not any more.
    fn lock_renew(&self, request: LockRequest) -> StoreFuture<'_, Option<LockToken>>;
    /// Gives a lock back. `false`: it is not hers, or not any more; nothing was changed.
    fn lock_release(&self, name: KeyName, owner: LockOwner) -> StoreFuture<'_, bool>;
    /// Gives back a lock of which its asker has not heard whether it is hers. After that it never is: what she asked comes
    /// to nothing also where it is still on its way. Says whether it was hers.
    fn lock_cancel(&self, name: KeyName, owner: LockOwner) -> StoreFuture<'_, bool>;
    /// Writes a blob of a player, if its precondition holds and her quota has room.
    fn blob_put(&self, put: BlobPut) -> StoreFuture<'_, BlobWritten>;
    /// A blob of a player.
    fn blob_read(&self, key: BlobKey) -> StoreFuture<'_, Option<Blob>>;
    /// Removes a blob of a player, if the precondition holds.
    fn blob_remove(&self, key: BlobKey, precondition: Precondition) -> StoreFuture<'_, BlobRemoved>;
    /// Removes all blobs of a player.
    fn blobs_erase(&self, shard: ShardId, player: PlayerId) -> StoreFuture<'_, ()>;
    /// A real write and a real read, as readiness needs; returns how long both took.
    fn probe(&self) -> StoreFuture<'_, Duration>;
    /// Settings of the store that fall short of what Hearth promises; empty when all is well.
    fn shortfalls(&self) -> StoreFuture<'_, Vec<Shortfall>>;
    /// How the server that holds a shard answers, as far as this node has found. Asks nobody.
    fn reach(&self, _shard: ShardId) -> Reach {
        Reach::Well
    }
    /// How many commits that server would take at this moment: few while it is only just back, none while it is in
    /// trouble. What goes beyond is [`StoreError::HeldBack`]; asking first spares the making of it. Asks nobody.
    fn room(&self, _shard: ShardId) -> usize {
        usize::MAX
    }
    /// `embedded` or `redis`: for logs, metrics and `/v1/cluster`.
    fn kind(&self) -> &'static str;
    /// Flushes and lets go of files and connections.
    fn close(&self) -> StoreFuture<'_, ()>;
}
