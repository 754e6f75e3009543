//! Random requests, asked of a real store and of the pure rules: they must never disagree. The seed is printed when
//! they do; `HEARTH_TEST_SEED` runs it again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hearth::ids::{Epoch, FlushSeq, Generation, Owner, Version};
use hearth::store::judge::{self, Meta, Verdict};
use hearth::store::{
    AcquireRequest, Acquired, BAN_END_MAX, BanMark, Commit, CommitRecord, Committed, Entry, EventCount,
    EventPlace, Goes, Keep, RecordStatus, StoredEvent, StoredRecord, TIMELINE_MAX,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::fixture::{Fixture, LONG, player, request, shard};

const OPERATIONS: usize = 2_500;
const OWNERS: [&str; 3] = ["a#1", "b#1", "c#1"];
const PLAYERS: [&str; 5] = ["ann", "bob", "{c.s7}:p:cat", "dée", "-"];

/// One shard, as the rules say that it is.
#[derive(Default)]
struct Model {
    meta: Option<Meta>,
    records: BTreeMap<&'static str, ModelRecord>,
    /// Who is on the list of the banned.
    banned: BTreeSet<&'static str>,
    /// What commits wrote beside the records.
    events: Vec<StoredEvent>,
    count: EventCount,
    /// Whether the store may lose batches, and leaves out the numbers of their events.
    leaves_out: bool,
    timelines: BTreeMap<&'static str, Vec<Bytes>>,
    /// How often each answer was seen: a run that never met a branch proves nothing about it.
    seen: BTreeMap<String, usize>,
}

struct ModelRecord {
    stored: StoredRecord,
    score: Option<u64>,
}

impl Model {
    fn saw(&mut self, what: &str) {
        *self.seen.entry(what.to_owned()).or_default() += 1;
    }

    fn commit(&mut self, commit: &Commit) -> Committed {
        let meta = match judge::fence(self.meta.as_ref(), commit) {
            Ok(meta) => meta.clone(),
            Err(refusal) => {
                self.saw(format!("{refusal:?}").split([' ', '{']).next().unwrap());
                return refusal;
            }
        };
        if self.leaves_out {
            self.count = self.count.of_batch(meta.flush_seq, commit.flush_seq);
        }
        let mut meta = Meta { flush_seq: commit.flush_seq, ..meta };
        let mut statuses = Vec::new();
        for record in &commit.records {
            let name = PLAYERS.iter().find(|name| **name == record.player.as_str()).unwrap();
            let stored = self.records.get(name).map(|record| &record.stored);
            let verdict =
                judge::record(commit.epoch, record, stored.map(|stored| (stored.epoch, stored.version)));
            statuses.push(match verdict {
                Verdict::Applied => RecordStatus::Applied,
                Verdict::Same => RecordStatus::Same,
                Verdict::Repaired => RecordStatus::Repaired,
                Verdict::Restored => RecordStatus::Restored,
                Verdict::Gone => RecordStatus::Gone,
                Verdict::Exists => RecordStatus::Exists(stored.unwrap().clone()),
            });
            let known = stored.map(|stored| stored.version);
            self.saw(&format!("{verdict:?}"));
            let entries = record.entries.iter().filter(|entry| judge::writes_entry(verdict, entry, known));
            for entry in entries.cloned().collect::<Vec<_>>() {
                self.tell(name, commit.epoch, entry);
            }
            if verdict.writes() {
                meta.version_max = judge::version_max_after(meta.version_max, record);
                self.write(name, commit.epoch, record);
                self.mark(name, record);
            }
        }
        self.meta = Some(meta);
        Committed::Done(statuses)
    }

    fn tell(&mut self, name: &'static str, epoch: Epoch, entry: Entry) {
        self.saw(&format!("{:?}", entry.goes));
        let timeline = self.timelines.entry(name).or_default();
        match entry.goes {
            Goes::Forget => timeline.clear(),
            Goes::Timeline | Goes::Both => timeline.push(entry.body.clone()),
            Goes::Events => {}
        }
        timeline.drain(..timeline.len().saturating_sub(TIMELINE_MAX));
        if entry.goes.is_event() {
            let (number, after) = self.count.count();
            if after.is_some() {
                self.saw("Left out");
            }
            let place = EventPlace { epoch: epoch.number(), number };
            self.events.push(StoredEvent { place, player: player(name), body: entry.body, after });
        }
    }

    fn mark(&mut self, name: &'static str, record: &CommitRecord) {
        match record.ban {
            _ if record.keep == Keep::Unmoved => return,
            BanMark::Unmoved => return,
            BanMark::Until(_) => self.banned.insert(name),
            BanMark::Lifted => self.banned.remove(name),
        };
        self.saw("Marked");
    }

    fn write(&mut self, name: &'static str, epoch: Epoch, record: &CommitRecord) {
        let before = self.records.remove(name);
        let (w, score) = match record.keep {
            Keep::Erase => return,
            Keep::Unmoved => before.map_or((None, None), |before| (before.stored.w, before.score)),
            Keep::Remainder => (None, None),
            Keep::Live { expires_at_unix_ms } => {
                let sent = record.w.clone();
                let kept = before.and_then(|record| record.stored.w);
                (sent.or(kept).filter(|w| !w.is_empty()), Some(expires_at_unix_ms))
            }
        };
        let stored = StoredRecord { epoch, version: record.version, p: record.p.clone(), w };
        self.records.insert(name, ModelRecord { stored, score });
    }
}

pub(crate) async fn it_agrees_with_the_rules_on_random_requests(fixture: &Fixture) {
    let seed = std::env::var("HEARTH_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    println!("HEARTH_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let leaves_out = fixture.store.kind() == "redis";
    let mut model = Model { leaves_out, ..Model::default() };
    for step in 0..OPERATIONS {
        let place = format!("seed {seed}, step {step}");
        match random.random_range(0..100) {
            0..6 => acquire(fixture, &mut model, &mut random, &place).await,
            6..9 => release(fixture, &mut model, &mut random, &place).await,
            9..14 => renew(fixture, &mut model, &mut random, &place).await,
            _ => {
                let commit = random_commit(&model, &mut random);
                let expected = model.commit(&commit);
                let answer = fixture.store.commit(commit.clone()).await.unwrap();
                assert_eq!(answer, expected, "{place}: {commit:?}");
            }
        }
        if step % 10 == 0 {
            compare(fixture, &model, &place).await;
        }
    }
    compare(fixture, &model, &format!("seed {seed}, at the end")).await;
    for branch in [
        "Applied",
        "Same",
        "Repaired",
        "Restored",
        "Gone",
        "Exists",
        "Fenced",
        "Stale",
        "RolledBack",
        "Lost",
        "Marked",
        "Events",
        "Timeline",
        "Both",
        "Forget",
    ] {
        let count = model.seen.get(branch).copied().unwrap_or(0);
        assert!(count >= 5, "seed {seed}: {branch} was met {count} times: {:?}", model.seen);
    }
}

async fn acquire(fixture: &Fixture, model: &mut Model, random: &mut StdRng, place: &str) {
    let stored = model.meta.as_ref().map_or(0, |meta| meta.epoch.number());
    let floor = Epoch::of(*[0, stored, stored.saturating_sub(1), stored + 3].choose(random).unwrap());
    let asked = AcquireRequest { floor, ..request(OWNERS.choose(random).unwrap(), LONG) };
    let answer = fixture.store.lease_acquire(asked.clone()).await.unwrap();
    let now_ms = hearth::clock::now().unix_ms;
    let (expected, meta) = judge::acquire(model.meta.as_ref(), &asked, now_ms);
    match (&answer, expected) {
        // The store's clock is its own: its epoch is taken, once it lies where it must.
        (Acquired::Granted(grant), Acquired::Granted(expected)) => {
            assert!(grant.epoch > floor && grant.epoch.number() > stored, "{place}");
            let expected = hearth::store::Grant { epoch: grant.epoch, ..expected };
            assert_eq!(*grant, expected, "{place}");
            model.meta = meta.map(|meta| Meta { epoch: grant.epoch, ..meta });
        }
        (Acquired::Held { owner, .. }, Acquired::Held { owner: expected, .. }) => {
            assert_eq!(*owner, expected, "{place}");
        }
        (answer, expected) => {
            assert_eq!(*answer, expected, "{place}");
            model.meta = meta.or(model.meta.take());
        }
    }
}

async fn release(fixture: &Fixture, model: &mut Model, random: &mut StdRng, place: &str) {
    let (owner, epoch) = random_claim(model, random);
    let now_ms = hearth::clock::now().unix_ms;
    let (expected, meta) = judge::release(model.meta.as_ref(), &owner, epoch, now_ms);
    let answer = fixture.store.lease_release(shard(7), &owner, epoch).await.unwrap();
    assert_eq!(answer, expected, "{place}");
    model.meta = meta.or(model.meta.take());
}

async fn renew(fixture: &Fixture, model: &mut Model, random: &mut StdRng, place: &str) {
    let (owner, epoch) = random_claim(model, random);
    let now_ms = hearth::clock::now().unix_ms;
    let (expected, meta) = judge::renew(model.meta.as_ref(), &owner, epoch, LONG, now_ms);
    let answer = fixture.store.lease_renew(shard(7), &owner, epoch, LONG).await.unwrap();
    assert_eq!(answer, expected, "{place}");
    model.meta = meta.or(model.meta.take());
}

/// Mostly the holder and its epoch; sometimes somebody else, or an epoch before or after.
fn random_claim(model: &Model, random: &mut StdRng) -> (Owner, Epoch) {
    let meta = model.meta.as_ref();
    let held_by = meta.and_then(|meta| meta.holder.clone());
    let epoch = meta.map_or(1_790_000_000_000, |meta| meta.epoch.number());
    let owner = match held_by {
        Some(holder) if random.random_bool(0.93) => holder,
        _ => Owner::named(OWNERS.choose(random).unwrap()),
    };
    let epoch = match random.random_range(0..50) {
        0 => epoch - 1,
        1 => epoch + 1,
        _ => epoch,
    };
    (owner, Epoch::of(epoch))
}

fn random_commit(model: &Model, random: &mut StdRng) -> Commit {
    let (owner, epoch) = random_claim(model, random);
    let meta = model.meta.as_ref();
    let generation = meta.map_or(1, |meta| meta.generation.number());
    let stored = meta.map_or(0, |meta| meta.flush_seq.number());
    let flush_seq = match random.random_range(0..50) {
        0 => stored,
        1 => stored.saturating_sub(1),
        2 => stored + 7,
        _ => stored + 1,
    };
    let acked =
        if random.random_bool(0.03) { stored + 1 } else { stored.saturating_sub(random.random_range(0..3)) };
    let count = random.random_range(0..=PLAYERS.len());
    let names: Vec<_> = PLAYERS.choose_multiple(random, count).copied().collect();
    Commit {
        shard: shard(7),
        owner,
        epoch,
        generation: Generation::of(if random.random_bool(0.02) { generation ^ 1 } else { generation }),
        flush_seq: FlushSeq::of(flush_seq.max(acked)),
        flush_seq_acked: FlushSeq::of(acked),
        remember: LONG,
        records: names.into_iter().map(|name| random_record(model, random, name)).collect(),
    }
}

fn random_record(model: &Model, random: &mut StdRng, name: &'static str) -> CommitRecord {
    let stored = model.records.get(name).map_or(0, |record| record.stored.version.number());
    let base = match random.random_range(0..10) {
        0 => 0,
        // Now and then it is missing, although the home knows better.
        4..7 if stored == 0 => random.random_range(1..5),
        1 => stored.saturating_sub(1),
        2 => stored + 1,
        3 => stored.saturating_sub(2),
        _ => stored,
    };
    let version = base + [0, 1, 1, 1, 2, 3].choose(random).unwrap();
    let w = match random.random_range(0..4) {
        0 => Some(Bytes::new()),
        1 => Some(Bytes::from(format!("w{version}"))),
        _ => None,
    };
    let keep = match random.random_range(0..10) {
        0 => Keep::Remainder,
        1 => Keep::Erase,
        2..5 => Keep::Unmoved,
        _ => Keep::Live { expires_at_unix_ms: random.random_range(0..8) },
    };
    CommitRecord {
        player: player(name),
        base: Version::of(base),
        version: Version::of(version),
        keep,
        ttl: LONG,
        restore: random.random_bool(0.3),
        known: random.random_bool(0.3),
        p: Bytes::from(format!("{name} at {version}, {}", random.random::<u32>())),
        w,
        ban: match random.random_range(0..4) {
            0 => BanMark::Until(BAN_END_MAX),
            1 => BanMark::Lifted,
            _ => BanMark::Unmoved,
        },
        entries: (0..random.random_range(0..3))
            .map(|n| Entry {
                version: Version::of(version),
                goes: *[Goes::Events, Goes::Timeline, Goes::Both, Goes::Forget].choose(random).unwrap(),
                body: Bytes::from(format!("entry {n}")),
            })
            .collect(),
    }
}

/// Everything that can be read, against everything that the rules say.
async fn compare(fixture: &Fixture, model: &Model, place: &str) {
    let loaded = fixture.store.load_players(shard(7), PLAYERS.map(player).to_vec()).await.unwrap();
    for (name, loaded) in PLAYERS.iter().zip(loaded) {
        assert_eq!(loaded.as_ref(), model.records.get(name).map(|record| &record.stored), "{place}: {name}");
    }
    let mut live: Vec<_> =
        model.records.iter().filter_map(|(name, record)| Some((record.score?, *name))).collect();
    live.sort_unstable();
    let page = fixture.store.load_live(shard(7), None, 100).await.unwrap();
    let found: Vec<_> = page.records.iter().map(|(player, _)| player.as_str()).collect();
    assert_eq!(found, live.iter().map(|(_, name)| *name).collect::<Vec<_>>(), "{place}");
    assert_eq!(page.missing, 0, "{place}");
    for name in PLAYERS {
        let found = fixture.store.timeline(shard(7), player(name)).await.unwrap();
        let expected = model.timelines.get(name).cloned().unwrap_or_default();
        assert_eq!(found, expected, "{place}: {name}");
    }
    let last = model.events.last().map_or(EventPlace::START, |event| event.place);
    assert_eq!(fixture.store.events_last(vec![shard(7)]).await.unwrap(), [Some(last)], "{place}");
    let from = model.events.len().saturating_sub(10);
    let place_before = from.checked_sub(1).map_or(EventPlace::START, |before| model.events[before].place);
    let found = fixture.store.events_after(vec![(shard(7), place_before)]).await.unwrap();
    let found: Vec<_> = found.found.into_iter().flat_map(|found| found.events).collect();
    assert_eq!(found, model.events[from..], "{place}");
    let mut banned = Vec::new();
    let mut after = None;
    loop {
        let page = fixture.store.load_banned(shard(7), after, 2).await.unwrap();
        banned.extend(page.records);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    banned.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    // Who is on the list without a record is told to nobody.
    let expected: Vec<_> = (model.banned.iter())
        .filter_map(|name| Some((player(name), model.records.get(name)?.stored.clone())))
        .collect();
    assert_eq!(banned, expected, "{place}");
}
