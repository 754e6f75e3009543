//! The Lua scripts on a real Redis beside a model of what they do, under random operations: every answer and, afterwards,
//! every key must be the model's. A failure is shrunk and printed with its operations and its seed. Leases and commits
//! follow `hearth::store::judge`, as `tests/it/store/random` has them for all stores; here batches also come late and
//! again, and there are queues, members, the configuration, confirmations, counters, a lock and blobs. Nothing here depends on how time goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use hearth::ids::{BlobName, Epoch, FlushSeq, Generation, KeyName, Owner, PlayerId, ShardId, Version};
use hearth::store::counters::{self, Count, CountChange};
use hearth::store::judge::{self, Meta, Verdict};
use hearth::store::layout::{Layout, known_bits};
use hearth::store::locks::{self, Lock};
use hearth::store::{
    AcquireRequest, Acquired, BanMark, Beat, Blob, BlobKey, BlobPut, BlobQuota, BlobRemoved, BlobTag,
    BlobUse, BlobWritten, Bound, ClusterConfig, Commit, CommitRecord, Committed, Counted, CounterRequest,
    Entry, EventCount, Goes, Heartbeat, Holder, Keep, LockAcquired, LockOwner, LockRequest, Member,
    OpenOptions, Precondition, QueueAdded, QueuedMessage, RecordStatus, Says, Stance, Store, StoredRecord,
    Tags, Which, open,
};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::redis_server::RedisServer;

/// Runs out in no test.
const LONG: Duration = Duration::from_secs(600);
const OWNERS: [&str; 3] = ["a#1", "b#1", "c#1"];
const PLAYERS: [&str; 3] = ["ann", "{c.s0}:p:cat", "dée"];
const COUNTERS: [&str; 2] = ["stock", "}"];
const BLOBS: [&str; 4] = ["a", "b", "c", "d"];
const QUOTA: BlobQuota = BlobQuota { bytes_max: 100, count_max: 3 };
const MOST_WAITING: usize = 3;

/// Whether a claim is the holder's: mostly it is.
#[derive(Debug, Clone, Copy)]
struct Claim {
    owner: Option<usize>,
    epoch: i64,
    generation: bool,
}

#[derive(Debug, Clone)]
struct Written {
    player: usize,
    /// Beside what is stored.
    base: i64,
    ahead: u64,
    keep: u8,
    restore: bool,
    known: bool,
    w: Option<u8>,
    ban: u8,
    entries: Vec<Goes>,
}

#[derive(Debug, Clone)]
enum Op {
    Acquire {
        owner: usize,
        floor: i64,
    },
    Renew(Claim),
    Release(Claim),
    Look,
    Commit {
        claim: Claim,
        f: i64,
        acked: i64,
        records: Vec<Written>,
    },
    /// A batch of before, once more or at last.
    Late(usize),
    /// A batch that is sent later.
    Keep {
        claim: Claim,
        f: i64,
        records: Vec<Written>,
    },
    Confirm {
        claim: Claim,
        f: i64,
    },
    Wait {
        claim: Claim,
        player: usize,
        id: u128,
        bytes: usize,
        has_run_out: bool,
    },
    Seen {
        claim: Claim,
        player: usize,
        ids: Option<Vec<u128>>,
    },
    Agree {
        shards: u16,
        insists: bool,
        goes_on: bool,
    },
    Beat {
        node: usize,
        boot: u8,
        joins: bool,
    },
    Leave {
        node: usize,
        boot: u8,
    },
    Count {
        name: usize,
        by: i64,
        min: Option<i64>,
        max: Option<i64>,
        ends: bool,
        once: Option<u128>,
    },
    Lock {
        owner: u128,
    },
    RenewLock {
        owner: u128,
    },
    Unlock {
        owner: u128,
    },
    /// Gives up what may still arrive.
    CancelLock {
        owner: u128,
    },
    PutBlob {
        name: usize,
        bytes: usize,
        /// In the place of what: whatever there is, none, the stored one, or another.
        knows: u8,
    },
    RemoveBlob {
        name: usize,
        knows: u8,
    },
    EraseBlobs,
}

fn claim() -> impl Strategy<Value = Claim> {
    let owner = prop_oneof![12 => Just(None), 1 => (0..OWNERS.len()).prop_map(Some)];
    let epoch = prop_oneof![20 => Just(0i64), 1 => Just(-1), 1 => Just(1)];
    (owner, epoch, prop::bool::weighted(0.97)).prop_map(|(owner, epoch, generation)| Claim {
        owner,
        epoch,
        generation,
    })
}

fn goes() -> impl Strategy<Value = Goes> {
    prop_oneof![Just(Goes::Events), Just(Goes::Timeline), Just(Goes::Both), Just(Goes::Forget)]
}

fn written() -> impl Strategy<Value = Written> {
    let base = prop_oneof![6 => Just(0i64), 1 => -2..3i64, 1 => Just(i64::MIN)];
    (
        (0..PLAYERS.len(), base, 0..3u64, 0..8u8, prop::bool::weighted(0.3), any::<bool>()),
        (prop::option::of(0..3u8), 0..4u8, prop::collection::vec(goes(), 0..3)),
    )
        .prop_map(|((player, base, ahead, keep, restore, known), (w, ban, entries))| Written {
            player,
            base,
            ahead,
            keep,
            restore,
            known,
            w,
            ban,
            entries,
        })
}

fn records() -> impl Strategy<Value = Vec<Written>> {
    prop::collection::vec(written(), 0..4).prop_map(|mut records| {
        let mut met = BTreeSet::new();
        records.retain(|record| met.insert(record.player));
        records
    })
}

/// A small number, or one at the ends of what 64 bits hold, where doubles round.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![6 => -3..4i64, 1 => (0..3i64).prop_map(|n| i64::MAX - n), 1 => (0..3i64).prop_map(|n| i64::MIN + n)]
}

fn op() -> impl Strategy<Value = Op> {
    let f = || prop_oneof![12 => Just(1i64), 1 => -1..4i64];
    let acked = prop_oneof![12 => -2..1i64, 1 => Just(1i64)];
    let node = || (0..3usize, 1..3u8);
    prop_oneof![
        4 => (0..OWNERS.len(), prop_oneof![Just(i64::MIN), -1..4i64]).prop_map(|(owner, floor)| Op::Acquire { owner, floor }),
        2 => claim().prop_map(Op::Renew),
        3 => claim().prop_map(Op::Release),
        1 => Just(Op::Look),
        12 => (claim(), f(), acked, records())
            .prop_map(|(claim, f, acked, records)| Op::Commit { claim, f, acked, records }),
        4 => any::<usize>().prop_map(Op::Late),
        2 => (claim(), f(), records()).prop_map(|(claim, f, records)| Op::Keep { claim, f, records }),
        1 => (claim(), -1..2i64).prop_map(|(claim, f)| Op::Confirm { claim, f }),
        4 => (claim(), 0..PLAYERS.len(), 0..5u128, 0..200_000usize, prop::bool::weighted(0.2)).prop_map(
            |(claim, player, id, bytes, has_run_out)| Op::Wait { claim, player, id, bytes, has_run_out }
        ),
        2 => (claim(), 0..PLAYERS.len(), prop::option::of(prop::collection::vec(0..5u128, 0..3)))
            .prop_map(|(claim, player, ids)| Op::Seen { claim, player, ids }),
        2 => (1..4u16, any::<bool>(), any::<bool>())
            .prop_map(|(shards, insists, goes_on)| Op::Agree { shards, insists, goes_on }),
        3 => (node(), any::<bool>()).prop_map(|((node, boot), joins)| Op::Beat { node, boot, joins }),
        1 => node().prop_map(|(node, boot)| Op::Leave { node, boot }),
        5 => (
            (0..COUNTERS.len(), number(), prop::option::of(number()), prop::option::of(number()), any::<bool>()),
            prop::option::of(0..4u128),
        )
            .prop_map(|((name, by, min, max, ends), once)| Op::Count { name, by, min, max, ends, once }),
        3 => (1..4u128).prop_map(|owner| Op::Lock { owner }),
        1 => (1..4u128).prop_map(|owner| Op::RenewLock { owner }),
        2 => (1..4u128).prop_map(|owner| Op::Unlock { owner }),
        1 => (3..5u128).prop_map(|owner| Op::CancelLock { owner }),
        5 => (0..BLOBS.len(), 0..60usize, 0..5u8).prop_map(|(name, bytes, knows)| Op::PutBlob { name, bytes, knows }),
        2 => (0..BLOBS.len(), 0..5u8).prop_map(|(name, knows)| Op::RemoveBlob { name, knows }),
        1 => Just(Op::EraseBlobs),
    ]
}

#[derive(Debug, Default)]
struct ModelRecord {
    stored: Option<StoredRecord>,
    score: Option<u64>,
    /// In the list of the banned, with the end.
    banned: Option<u64>,
    waiting: Vec<QueuedMessage>,
    timeline: Vec<Bytes>,
}

/// The Redis, as it should be.
#[derive(Debug, Default)]
struct Model {
    meta: Option<Meta>,
    players: [ModelRecord; 3],
    /// The bits of the filter.
    known: BTreeSet<u64>,
    /// Each with its place, its body, and the one that it comes after where numbers were left out.
    events: Vec<(String, Bytes, Option<u64>)>,
    count: EventCount,
    kept: Vec<Commit>,
    config: Option<(ClusterConfig, bool)>,
    nodes: BTreeMap<usize, Owner>,
    counters: [Option<Count>; 2],
    /// What changes that have a name made.
    counted: BTreeMap<(usize, u128), i64>,
    lock: Option<Lock>,
    /// Who has given up, in the order in which they did.
    gone: Vec<u128>,
    blobs: [Option<Blob>; 4],
}

fn shard() -> ShardId {
    ShardId::FIRST
}

fn blob_key(at: usize) -> BlobKey {
    BlobKey { shard: shard(), player: player(1), name: BlobName::parse(BLOBS[at]).unwrap() }
}

/// What somebody asks for who knows that much of what is stored.
fn precondition(knows: u8, stored: Option<&Blob>) -> Precondition {
    let own = stored.map_or(BlobTag::of(7), |blob| blob.tag);
    match knows {
        0 => Precondition { is: None, is_not: Some(Tags::Any) },
        1 => Precondition { is: Some(Tags::These(vec![BlobTag::of(1), own])), is_not: None },
        2 => Precondition { is: Some(Tags::These(vec![BlobTag::of(1)])), is_not: None },
        3 => Precondition { is: Some(Tags::Any), is_not: Some(Tags::These(vec![BlobTag::of(1)])) },
        _ => Precondition::default(),
    }
}

fn lock_of(owner: u128) -> LockRequest {
    LockRequest { name: KeyName::parse("lock").unwrap(), owner: LockOwner::of(owner), ttl: LONG }
}

fn counter(at: usize) -> KeyName {
    KeyName::parse(COUNTERS[at]).unwrap()
}

/// An answer without the time, which goes on: whether there is an end.
fn whole(counted: Counted) -> (i64, Option<Bound>, bool) {
    match counted {
        Counted::At { value, expires_in } => (value, None, expires_in.is_some()),
        Counted::Refused { value, bound, expires_in } => (value, Some(bound), expires_in.is_some()),
    }
}

fn player(at: usize) -> PlayerId {
    PlayerId::parse(PLAYERS[at]).unwrap()
}

fn moved(number: u64, by: i64) -> u64 {
    if by == i64::MIN { 0 } else { number.saturating_add_signed(by) }
}

impl Model {
    fn claim(&self, claim: Claim) -> Holder {
        let meta = self.meta.as_ref();
        let holder = meta.and_then(|meta| meta.holder.clone());
        let owner = claim.owner.map(|at| Owner::named(OWNERS[at])).or(holder);
        let epoch = meta.map_or(1_790_000_000_000, |meta| meta.epoch.number());
        let generation = meta.map_or(1, |meta| meta.generation.number());
        Holder {
            owner: owner.unwrap_or_else(|| Owner::named(OWNERS[0])),
            epoch: Epoch::of(moved(epoch, claim.epoch)),
            generation: Generation::of(if claim.generation { generation } else { generation ^ 1 }),
        }
    }

    fn batch(&self, claim: Claim, f: i64, acked: i64, records: &[Written]) -> Commit {
        let Holder { owner, epoch, generation } = self.claim(claim);
        let stored = self.meta.as_ref().map_or(0, |meta| meta.flush_seq.number());
        let (f, acked) = (moved(stored, f), moved(stored, acked));
        Commit {
            shard: shard(),
            owner,
            epoch,
            generation,
            flush_seq: FlushSeq::of(f.max(acked)),
            flush_seq_acked: FlushSeq::of(acked),
            remember: LONG,
            records: records.iter().map(|written| self.record(written)).collect(),
        }
    }

    fn record(&self, written: &Written) -> CommitRecord {
        let stored = self.players[written.player].stored.as_ref().map_or(0, |stored| stored.version.number());
        let base = moved(stored, written.base);
        let version = base + written.ahead;
        CommitRecord {
            player: player(written.player),
            base: Version::of(base),
            version: Version::of(version),
            keep: match written.keep {
                0 => Keep::Remainder,
                1 => Keep::Erase,
                2..4 => Keep::Unmoved,
                keep => Keep::Live { expires_at_unix_ms: u64::from(keep) },
            },
            ttl: LONG,
            restore: written.restore,
            known: written.known,
            p: Bytes::from(format!("{} at {version}", PLAYERS[written.player])),
            w: written.w.map(|w| Bytes::from(vec![b'w'; usize::from(w)])),
            ban: match written.ban {
                0 => BanMark::Until(u64::MAX >> 11),
                1 => BanMark::Lifted,
                _ => BanMark::Unmoved,
            },
            entries: (0..)
                .zip(&written.entries)
                .map(|(n, goes)| Entry {
                    version: Version::of(version),
                    goes: *goes,
                    body: Bytes::from(format!("{version}.{n}")),
                })
                .collect(),
        }
    }

    fn commit(&mut self, commit: &Commit) -> Committed {
        let mut meta = match judge::fence(self.meta.as_ref(), commit) {
            Ok(meta) => {
                self.count = self.count.of_batch(meta.flush_seq, commit.flush_seq);
                Meta { flush_seq: commit.flush_seq, ..meta.clone() }
            }
            Err(refusal) => return refusal,
        };
        let mut statuses = Vec::new();
        for record in &commit.records {
            let at = PLAYERS.iter().position(|name| *name == record.player.as_str()).unwrap();
            let stored = self.players[at].stored.clone();
            let known = stored.as_ref().map(|stored| (stored.epoch, stored.version));
            let verdict = judge::record(commit.epoch, record, known);
            statuses.push(match verdict {
                Verdict::Applied => RecordStatus::Applied,
                Verdict::Same => RecordStatus::Same,
                Verdict::Repaired => RecordStatus::Repaired,
                Verdict::Restored => RecordStatus::Restored,
                Verdict::Gone => RecordStatus::Gone,
                Verdict::Exists => RecordStatus::Exists(stored.unwrap()),
            });
            let stored_version = known.map(|(_, version)| version);
            for entry in &record.entries {
                if judge::writes_entry(verdict, entry, stored_version) {
                    self.tell(at, commit.epoch, entry);
                }
            }
            if verdict.writes() {
                meta.version_max = judge::version_max_after(meta.version_max, record);
                self.write(at, commit.epoch, record);
            }
        }
        self.meta = Some(meta);
        Committed::Done(statuses)
    }

    fn tell(&mut self, at: usize, epoch: Epoch, entry: &Entry) {
        let timeline = &mut self.players[at].timeline;
        match entry.goes {
            Goes::Forget => timeline.clear(),
            Goes::Timeline | Goes::Both => timeline.push(entry.body.clone()),
            Goes::Events => {}
        }
        if entry.goes.is_event() {
            let (number, after) = self.count.count();
            self.events.push((format!("{}-{number}", epoch.number()), entry.body.clone(), after));
        }
    }

    fn write(&mut self, at: usize, epoch: Epoch, record: &CommitRecord) {
        let known = &mut self.players[at];
        let before = known.stored.take().and_then(|stored| stored.w);
        let (epoch, version, p) = (epoch, record.version, record.p.clone());
        let w = match record.keep {
            Keep::Unmoved => before,
            Keep::Live { .. } => record.w.clone().or(before).filter(|w| !w.is_empty()),
            Keep::Remainder | Keep::Erase => None,
        };
        known.stored = (record.keep != Keep::Erase).then_some(StoredRecord { epoch, version, p, w });
        match record.keep {
            Keep::Unmoved => return,
            Keep::Live { expires_at_unix_ms } => known.score = Some(expires_at_unix_ms),
            Keep::Remainder | Keep::Erase => known.score = None,
        }
        match record.ban {
            BanMark::Unmoved => {}
            BanMark::Until(until) => known.banned = Some(until),
            BanMark::Lifted => known.banned = None,
        }
        if record.known {
            self.known.extend(known_bits(&record.player));
        }
    }

    fn queue_add(&mut self, holder: &Holder, at: usize, message: &QueuedMessage, now_ms: u64) -> QueueAdded {
        if !judge::holds(self.meta.as_ref(), holder) {
            return QueueAdded::Fenced;
        }
        let waiting = &mut self.players[at].waiting;
        let live: Vec<_> = waiting.iter().filter(|one| one.expires_at_unix_ms > now_ms).cloned().collect();
        if live.iter().any(|one| one.id == message.id) {
            return QueueAdded::Repeat;
        }
        let bytes: usize = live.iter().chain([message]).map(|one| one.body.len()).sum();
        if live.len() >= MOST_WAITING || bytes > hearth::store::QUEUE_BYTES_MAX {
            return QueueAdded::Full;
        }
        *waiting = live;
        waiting.push(message.clone());
        // The list goes when the last of them has run out, which may be now.
        if waiting.iter().all(|one| one.expires_at_unix_ms <= now_ms) {
            waiting.clear();
        }
        QueueAdded::Added
    }

    fn agree(&mut self, proposal: &ClusterConfig, insists: bool, goes_on: bool) -> (ClusterConfig, bool) {
        let (config, is_founded) = match self.config.take() {
            None => (proposal.clone(), true),
            Some((_, true)) if insists => (proposal.clone(), true),
            Some(agreed) => agreed,
        };
        let agreed = (config, is_founded && goes_on);
        self.config = Some(agreed.clone());
        agreed
    }
}

/// A Redis, and the store on it.
struct Stage {
    server: RedisServer,
    runtime: Runtime,
    store: Arc<dyn Store>,
}

impl Stage {
    fn get() -> &'static Self {
        static STAGE: OnceLock<Stage> = OnceLock::new();
        STAGE.get_or_init(|| {
            let server = RedisServer::start();
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let options = OpenOptions {
                cluster: "c".into(),
                response_deadline: Duration::from_secs(20),
                ..OpenOptions::default()
            };
            let store = runtime.block_on(open(&server.url(), options)).unwrap();
            Self { server, runtime, store }
        })
    }
}

async fn goes_as_the_model(stage: &Stage, ops: &[Op]) -> Result<Model, TestCaseError> {
    let (store, mut model) = (&stage.store, Model::default());
    let mut connection = stage.server.connect();
    redis::cmd("FLUSHALL").query::<()>(&mut connection).unwrap();
    for (at, op) in ops.iter().enumerate() {
        let place = format!("operation {at}, {op:?}");
        let now_ms = hearth::clock::now().unix_ms;
        match op {
            Op::Acquire { owner, floor } => {
                let stored = model.meta.as_ref().map_or(0, |meta| meta.epoch.number());
                let request = AcquireRequest {
                    shard: shard(),
                    owner: Owner::named(OWNERS[*owner]),
                    ttl: LONG,
                    floor: Epoch::of(moved(stored, *floor)),
                    generation_if_new: Generation::of(7),
                };
                let answer = store.lease_acquire(request.clone()).await.unwrap();
                let (expected, meta) = judge::acquire(model.meta.as_ref(), &request, now_ms);
                match (answer, expected) {
                    (Acquired::Granted(grant), Acquired::Granted(expected)) => {
                        // The epoch holds the store's clock.
                        prop_assert!(grant.epoch.number() > stored && grant.epoch > request.floor, "{place}");
                        let epoch = grant.epoch;
                        prop_assert_eq!(grant, hearth::store::Grant { epoch, ..expected }, "{}", place);
                        model.meta = meta.map(|meta| Meta { epoch, ..meta });
                    }
                    (Acquired::Held { owner, .. }, Acquired::Held { owner: expected, .. }) => {
                        prop_assert_eq!(owner, expected, "{}", place);
                    }
                    (answer, expected) => {
                        prop_assert_eq!(answer, expected, "{}", place);
                        model.meta = meta.or(model.meta.take());
                    }
                }
            }
            Op::Renew(claim) => {
                let Holder { owner, epoch, .. } = model.claim(*claim);
                let answer = store.lease_renew(shard(), &owner, epoch, LONG).await.unwrap();
                let (expected, meta) = judge::renew(model.meta.as_ref(), &owner, epoch, LONG, now_ms);
                prop_assert_eq!(answer, expected, "{}", place);
                model.meta = meta.or(model.meta.take());
            }
            Op::Release(claim) => {
                let Holder { owner, epoch, .. } = model.claim(*claim);
                let answer = store.lease_release(shard(), &owner, epoch).await.unwrap();
                let (expected, meta) = judge::release(model.meta.as_ref(), &owner, epoch, now_ms);
                prop_assert_eq!(answer, expected, "{}", place);
                model.meta = meta.or(model.meta.take());
            }
            Op::Look => {
                let held = store.holders(vec![shard()]).await.unwrap().remove(0).map(|held| held.owner);
                let expected = judge::holder(model.meta.as_ref(), now_ms).map(|held| held.owner);
                prop_assert_eq!(held, expected, "{}", place);
            }
            Op::Commit { claim, f, acked, records } => {
                let commit = model.batch(*claim, *f, *acked, records);
                model.kept.push(commit.clone());
                let expected = model.commit(&commit);
                prop_assert_eq!(
                    store.commit(commit.clone()).await.unwrap(),
                    expected,
                    "{}: {:?}",
                    place,
                    commit
                );
            }
            Op::Keep { claim, f, records } => {
                let commit = model.batch(*claim, *f, 0, records);
                model.kept.push(commit);
            }
            Op::Late(at) if model.kept.is_empty() => {
                let _ = at;
            }
            Op::Late(at) => {
                let commit = model.kept[at % model.kept.len()].clone();
                let expected = model.commit(&commit);
                prop_assert_eq!(
                    store.commit(commit.clone()).await.unwrap(),
                    expected,
                    "{}: {:?}",
                    place,
                    commit
                );
            }
            Op::Confirm { claim, f } => {
                let (holder, meta) = (model.claim(*claim), model.meta.as_ref());
                let stored = meta.map_or(0, |meta| meta.flush_seq.number());
                let f = moved(stored, *f);
                let is_there = meta.is_some_and(|meta| {
                    (meta.epoch, meta.generation) == (holder.epoch, holder.generation) && stored >= f
                });
                let confirmed: bool = redis::Script::new(include_str!("../../src/store/lua/confirm.lua"))
                    .key(Layout::of_cluster("c").unwrap().shard(shard()).meta())
                    .arg(holder.epoch.number())
                    .arg(format!("{:016x}", holder.generation.number()))
                    .arg(f)
                    .invoke(&mut connection)
                    .unwrap();
                prop_assert_eq!(confirmed, is_there, "{}", place);
            }
            Op::Wait { claim, player: at, id, bytes, has_run_out } => {
                let holder = model.claim(*claim);
                let expires_at_unix_ms = if *has_run_out { 1 } else { now_ms + 600_000 };
                let message =
                    QueuedMessage { id: *id, expires_at_unix_ms, body: Bytes::from(vec![b'm'; *bytes]) };
                let expected = model.queue_add(&holder, *at, &message, now_ms);
                let answer =
                    store.queue_add(shard(), holder, player(*at), message, MOST_WAITING).await.unwrap();
                prop_assert_eq!(answer, expected, "{}", place);
            }
            Op::Seen { claim, player: at, ids } => {
                let holder = model.claim(*claim);
                let is_holder = judge::holds(model.meta.as_ref(), &holder);
                if is_holder {
                    let is_seen = |id: u128| ids.as_ref().is_none_or(|ids| ids.contains(&id));
                    model.players[*at].waiting.retain(|message| !is_seen(message.id));
                }
                let which = ids.clone().map_or(Which::All, Which::These);
                let answer = store.queue_remove(shard(), holder, player(*at), which).await.unwrap();
                prop_assert_eq!(answer, is_holder, "{}", place);
            }
            Op::Agree { shards, insists, goes_on } => {
                let proposal = ClusterConfig {
                    shards: *shards,
                    format_min: 1,
                    format_max: u32::from(*shards),
                    ticket_secret: vec![u8::try_from(*shards).unwrap(); 32],
                };
                let stance = if *insists { Stance::Insists } else { Stance::Founds };
                let founding = if *goes_on { LONG } else { Duration::ZERO };
                let agreed = store.agree_config(proposal.clone(), stance, founding).await.unwrap();
                let is_founded = agreed.founded_in > LONG / 2;
                let expected = model.agree(&proposal, *insists, *goes_on);
                prop_assert_eq!((agreed.config, is_founded), expected, "{}", place);
                if !*goes_on {
                    settles(&mut connection);
                }
            }
            Op::Beat { node, boot, joins } => {
                let owner = Owner::named(&format!("n{node}#{boot}"));
                let member = Member { owner: owner.clone(), says: Says::default() };
                let answer = store.heartbeat(Heartbeat { member, joins: *joins, ttl: LONG }).await.unwrap();
                match model.nodes.get(node).filter(|known| !joins && **known != owner).cloned() {
                    Some(by) => prop_assert_eq!(answer, Beat::Superseded { by }, "{}", place),
                    None => {
                        model.nodes.insert(*node, owner.clone());
                        let Beat::Members(seen) = answer else { panic!("{place}: {answer:?}") };
                        prop_assert_eq!(&seen[0].member.owner, &owner, "{}", place);
                        let mut seen: Vec<_> = seen.into_iter().map(|seen| seen.member.owner).collect();
                        seen.sort_unstable();
                        let all: Vec<_> = model.nodes.values().cloned().collect();
                        prop_assert_eq!(seen, all, "{}", place);
                    }
                }
            }
            Op::Leave { node, boot } => {
                let owner = Owner::named(&format!("n{node}#{boot}"));
                store.leave(&owner).await.unwrap();
                if model.nodes.get(node) == Some(&owner) {
                    model.nodes.remove(node);
                }
            }
            Op::Lock { owner } if model.gone.contains(owner) => {
                let answer = store.lock_acquire(lock_of(*owner)).await.unwrap();
                prop_assert_eq!(answer, LockAcquired::Held { remaining: Duration::ZERO }, "{}", place);
            }
            Op::Lock { owner } => {
                let answer = store.lock_acquire(lock_of(*owner)).await.unwrap();
                let before = model.lock.map_or(0, |lock| lock.token.number());
                match (answer, locks::acquire(model.lock.as_ref(), &lock_of(*owner), now_ms * 1_000)) {
                    (LockAcquired::Acquired(token), (LockAcquired::Acquired(_), Some(lock))) => {
                        // A new token holds the store's clock; asked again, it is the same.
                        let is_again = model.lock.is_some_and(|lock| lock.hold.is_some());
                        prop_assert!(
                            token.number() > before || is_again && token.number() == before,
                            "{place}"
                        );
                        model.lock = Some(Lock { token, ..lock });
                    }
                    (LockAcquired::Held { remaining }, (LockAcquired::Held { .. }, None)) => {
                        prop_assert!(remaining <= LONG && remaining > LONG / 2, "{place}");
                    }
                    (answer, expected) => prop_assert!(false, "{place}: {answer:?}, not {expected:?}"),
                }
            }
            Op::RenewLock { owner } => {
                let answer = store.lock_renew(lock_of(*owner)).await.unwrap();
                let (expected, lock) = locks::renew(model.lock.as_ref(), &lock_of(*owner), now_ms);
                prop_assert_eq!(answer, expected, "{}", place);
                model.lock = lock.or(model.lock);
            }
            Op::Unlock { owner } => {
                let answer = store.lock_release(lock_of(*owner).name, lock_of(*owner).owner).await.unwrap();
                let (expected, lock) = locks::release(model.lock.as_ref(), lock_of(*owner).owner, now_ms);
                prop_assert_eq!(answer, expected, "{}", place);
                model.lock = lock.or(model.lock);
            }
            Op::CancelLock { owner } => {
                let answer = store.lock_cancel(lock_of(*owner).name, lock_of(*owner).owner).await.unwrap();
                let (expected, lock) = locks::release(model.lock.as_ref(), lock_of(*owner).owner, now_ms);
                prop_assert_eq!(answer, expected, "{}", place);
                model.lock = lock.or(model.lock);
                if !model.gone.contains(owner) {
                    model.gone.push(*owner);
                }
            }
            Op::PutBlob { name: at, bytes, knows } => {
                let stored = model.blobs[*at].clone();
                let (key, quota) = (blob_key(*at), QUOTA);
                let blob = Blob::new("a/b", Bytes::from(vec![b'b'; *bytes]));
                let precondition = precondition(*knows, stored.as_ref());
                let tag = stored.as_ref().map(|blob| blob.tag);
                let size = |blob: &Blob| blob.body.len() as u64;
                let has = model.blobs.iter().flatten().fold(BlobUse::default(), |has, blob| BlobUse {
                    bytes: has.bytes + size(blob),
                    count: has.count + 1,
                });
                let (after, may_be) = has.with(*bytes as u64, stored.as_ref().map(size), QUOTA);
                let expected = match (precondition.holds(tag), may_be, tag) {
                    (false, _, stored) => BlobWritten::Unmet { stored },
                    (true, false, _) => BlobWritten::Full(after),
                    (true, true, None) => BlobWritten::Made,
                    (true, true, Some(_)) => BlobWritten::Replaced,
                };
                let put = BlobPut { key, blob: blob.clone(), precondition, quota };
                prop_assert_eq!(store.blob_put(put).await.unwrap(), expected, "{}", place);
                if matches!(expected, BlobWritten::Made | BlobWritten::Replaced) {
                    model.blobs[*at] = Some(blob);
                }
            }
            Op::RemoveBlob { name: at, knows } => {
                let stored = model.blobs[*at].clone();
                let precondition = precondition(*knows, stored.as_ref());
                let expected = match stored.map(|blob| blob.tag) {
                    None => BlobRemoved::Missing,
                    Some(stored) if !precondition.holds(Some(stored)) => BlobRemoved::Unmet { stored },
                    Some(_) => BlobRemoved::Removed,
                };
                let removed = store.blob_remove(blob_key(*at), precondition).await.unwrap();
                prop_assert_eq!(removed, expected, "{}", place);
                if expected == BlobRemoved::Removed {
                    model.blobs[*at] = None;
                }
            }
            Op::EraseBlobs => {
                store.blobs_erase(shard(), player(1)).await.unwrap();
                model.blobs = Default::default();
            }
            Op::Count { name: at, by, min, max, ends, once } => {
                let (by, min, max, ttl, once) = (*by, *min, *max, ends.then_some(LONG), *once);
                let request = CounterRequest { name: counter(*at), by, min, max, ttl, once };
                let answer = store.counter(request.clone()).await.unwrap();
                let once = request.remembered_as().map(|id| (*at, id));
                let first = once.and_then(|once| model.counted.get(&once).copied());
                let (expected, change) = counters::count(model.counters[*at], first, &request, now_ms);
                if let (Some(once), Counted::At { value, .. }, true) =
                    (once, expected, change != CountChange::Keep)
                {
                    model.counted.insert(once, value);
                }
                prop_assert_eq!(whole(answer), whole(expected), "{}", place);
                match change {
                    CountChange::Keep => {}
                    CountChange::Put(count) => model.counters[*at] = Some(count),
                    CountChange::Remove => model.counters[*at] = None,
                }
            }
        }
    }
    all_keys_are_the_models(&mut connection, &model)?;
    for (at, name) in PLAYERS.iter().enumerate() {
        let now_ms = hearth::clock::now().unix_ms;
        let live = model.players[at].waiting.iter().filter(|one| one.expires_at_unix_ms > now_ms).cloned();
        let read = store.queue_read(shard(), player(at)).await.unwrap();
        prop_assert_eq!(read, live.collect::<Vec<_>>(), "what waits for {}", name);
    }
    Ok(model)
}

/// A cluster is being founded for 1 ms at least.
fn settles(redis: &mut redis::Connection) {
    let mut now_us = || {
        let (seconds, us): (u64, u64) = redis::cmd("TIME").query(redis).unwrap();
        seconds * 1_000_000 + us
    };
    let began_us = now_us();
    while now_us() < began_us + 2_000 {}
}

type Pairs = Vec<(String, String)>;
type Entries = Vec<(String, Vec<Vec<u8>>)>;

/// Whatever stands in Redis, read behind the store's back.
fn all_keys_are_the_models(redis: &mut redis::Connection, model: &Model) -> Result<(), TestCaseError> {
    let layout = Layout::of_cluster("c").unwrap();
    let keys = layout.shard(shard());
    let mut expected = BTreeSet::new();
    if let Some(meta) = &model.meta {
        expected.insert(keys.meta());
        let stored: BTreeMap<String, String> = redis::cmd("HGETALL").arg(keys.meta()).query(redis).unwrap();
        let hex = |number: u64| format!("{number:016x}");
        let name = |owner: &Option<Owner>| owner.as_ref().map(|owner| owner.as_str().to_owned());
        let mut fields = BTreeMap::from([
            ("epoch", meta.epoch.number().to_string()),
            ("owner", meta.owner.as_str().to_owned()),
            ("prev", name(&meta.previous_owner).unwrap_or_default()),
            ("f", meta.flush_seq.number().to_string()),
            ("gen", hex(meta.generation.number())),
            ("vmax", hex(meta.version_max.number())),
        ]);
        fields.extend(name(&meta.holder).map(|holder| ("holder", holder)));
        let EventCount { number, last } = model.count;
        fields.extend((number > 0).then(|| ("ev", number.to_string())));
        fields.extend(last.map(|last| ("ev_last", last.to_string())));
        let mut found: BTreeMap<_, _> =
            stored.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        let until = found.remove("until").unwrap_or_default();
        prop_assert_eq!(until == "0", meta.until_ms == 0, "until {}", until);
        prop_assert_eq!(found, fields);
    }
    let (mut scores, mut bans) = (BTreeMap::new(), BTreeMap::new());
    for (at, known) in model.players.iter().enumerate() {
        let (id, name) = (player(at), PLAYERS[at]);
        scores.extend(known.score.map(|score| (name.to_owned(), score.to_string())));
        bans.extend(known.banned.map(|until| (name.to_owned(), until.to_string())));
        expected.extend((!known.waiting.is_empty()).then(|| keys.queue(&id)));
        let timeline = keys.timeline(&id).concat();
        let entries: Entries = redis::cmd("XRANGE").arg(&timeline).arg(&["-", "+"]).query(redis).unwrap();
        let bodies: Vec<_> = entries.into_iter().map(|(_, fields)| Bytes::from(fields[1].clone())).collect();
        prop_assert_eq!(&bodies, &known.timeline, "{}", timeline);
        expected.extend((!bodies.is_empty()).then_some(timeline));
        let Some(stored) = &known.stored else { continue };
        let (p, w) = (keys.record(&id).concat(), keys.watches(&id).concat());
        let mut record = Vec::new();
        hearth::store::layout::write_record(&mut record, stored.epoch, stored.version, &stored.p).unwrap();
        prop_assert_eq!(redis::cmd("GET").arg(&p).query::<Vec<u8>>(redis).unwrap(), record, "{}", p);
        expected.insert(p);
        if let Some(body) = &stored.w {
            prop_assert_eq!(
                redis::cmd("GET").arg(&w).query::<Vec<u8>>(redis).unwrap(),
                body.to_vec(),
                "{}",
                w
            );
            expected.insert(w);
        }
    }
    for (key, all) in [(keys.expiry(), scores), (keys.bans(), bans)] {
        let found: Pairs =
            redis::cmd("ZRANGE").arg(&key).arg(&[0, -1]).arg("WITHSCORES").query(redis).unwrap();
        prop_assert_eq!(found.into_iter().collect::<BTreeMap<_, _>>(), all.clone(), "{}", key);
        expected.extend((!all.is_empty()).then_some(key));
    }
    let events: Entries = redis::cmd("XRANGE").arg(keys.events()).arg(&["-", "+"]).query(redis).unwrap();
    let after = |fields: &[Vec<u8>]| {
        let at = fields.iter().position(|field| field == b"a").filter(|at| *at == 4)?;
        std::str::from_utf8(&fields[at + 1]).ok()?.parse().ok()
    };
    let events: Vec<_> =
        events.into_iter().map(|(id, fields)| (id, Bytes::from(fields[1].clone()), after(&fields))).collect();
    prop_assert_eq!(&events, &model.events);
    expected.extend((!events.is_empty()).then(|| keys.events()));
    let bits: usize = redis::cmd("BITCOUNT").arg(keys.known()).query(redis).unwrap();
    prop_assert_eq!(bits, model.known.len());
    for bit in &model.known {
        prop_assert!(redis::cmd("GETBIT").arg(keys.known()).arg(*bit).query::<bool>(redis).unwrap());
    }
    expected.extend((bits > 0).then(|| keys.known()));
    expected.extend(model.config.is_some().then(|| layout.config()));
    expected.extend((!model.nodes.is_empty()).then(|| layout.nodes()));
    let mut sizes = BTreeMap::new();
    for (at, blob) in model.blobs.iter().enumerate() {
        let Some(blob) = blob else { continue };
        let key = keys.blob(&player(1), &blob_key(at).name);
        let head = format!("{:032x}03a/b", blob.tag.bits()).into_bytes();
        let stored: Vec<u8> = redis::cmd("GET").arg(&key).query(redis).unwrap();
        prop_assert_eq!(stored, [head, blob.body.to_vec()].concat(), "{}", key);
        sizes.insert(BLOBS[at].to_owned(), blob.body.len().to_string());
        expected.insert(key);
    }
    let found: BTreeMap<String, String> =
        redis::cmd("HGETALL").arg(keys.blob_sizes(&player(1))).query(redis).unwrap();
    prop_assert_eq!(&found, &sizes);
    expected.extend((!sizes.is_empty()).then(|| keys.blob_sizes(&player(1))));
    if model.lock.is_some() || !model.gone.is_empty() {
        let key = layout.lock(&lock_of(1).name);
        let found: BTreeMap<String, String> = redis::cmd("HGETALL").arg(&key).query(redis).unwrap();
        let mut fields = BTreeMap::new();
        let gone: String = model.gone.iter().map(|owner| format!("{owner:032x}")).collect();
        fields.extend((!gone.is_empty()).then(|| ("gone".to_owned(), gone)));
        fields.extend(model.lock.map(|lock| ("token".to_owned(), lock.token.number().to_string())));
        if let Some(hold) = model.lock.and_then(|lock| lock.hold) {
            fields.insert("owner".to_owned(), format!("{:032x}", hold.owner.digest()));
            fields.insert("ttl".to_owned(), hold.ttl_ms.to_string());
            let until = found.get("until").cloned().unwrap_or_default();
            fields.insert("until".to_owned(), until);
        }
        prop_assert_eq!(found, fields);
        expected.insert(key);
    }
    for (at, count) in model.counters.iter().enumerate() {
        let (key, Some(count)) = (layout.counter(&counter(at)), count) else { continue };
        let stored: i64 = redis::cmd("GET").arg(&key).query(redis).unwrap();
        let left_ms: i64 = redis::cmd("PTTL").arg(&key).query(redis).unwrap();
        prop_assert_eq!((stored, left_ms > 0), (count.value, count.expires_at_ms.is_some()), "{}", key);
        expected.insert(key);
    }
    for ((at, id), value) in &model.counted {
        let key = layout.counted(&counter(*at), *id);
        prop_assert_eq!(redis::cmd("GET").arg(&key).query::<i64>(redis).unwrap(), *value, "{}", key);
        let left_ms: i64 = redis::cmd("PTTL").arg(&key).query(redis).unwrap();
        prop_assert!((1..=300_000).contains(&left_ms), "{key}: {left_ms}");
        expected.insert(key);
    }
    let found: BTreeSet<String> = redis::cmd("KEYS").arg("*").query(redis).unwrap();
    prop_assert_eq!(found, expected);
    Ok(())
}

/// As many cases as fit into some seconds; `PROPTEST_CASES` says otherwise.
fn cases() -> ProptestConfig {
    let is_told = std::env::var_os("PROPTEST_CASES").is_some();
    let config = ProptestConfig::default();
    ProptestConfig { cases: if is_told { config.cases } else { 256 }, ..config }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn on_any_operations_every_answer_and_every_key_is_the_models(ops in prop::collection::vec(op(), 1..60)) {
        let stage = Stage::get();
        stage.runtime.block_on(goes_as_the_model(stage, &ops))?;
    }
}
