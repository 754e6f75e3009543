//! What a client claims to have seen: the history rule against the truth, through crashes, stores that forget, and
//! epochs without end.

use hearth::home::history::{HISTORY_MAX, Verdict};
use hearth::home::record::Record;
use hearth::ids::{Epoch, Stamp, Version};

/// A record with what really happened to it: at `lineage[n]` the change that made version `n + 1`.
#[derive(Clone)]
struct Line {
    record: Record,
    lineage: Vec<u32>,
}

impl Line {
    /// A player who has just logged in, which is a change: no record without one is ever stored.
    fn begun(epoch: u64, change: u32) -> Self {
        let mut record = Record::first(Epoch::of(epoch), Version::ZERO);
        record.version = record.version.next();
        Self { record, lineage: vec![change] }
    }
}

/// A stamp that some client was given, with what it stood for.
struct Given {
    stamp: Stamp,
    lineage: Vec<u32>,
    /// Take-overs so far: after more than the history holds, nobody need know any more.
    take_overs: usize,
    /// How often the store had been emptied.
    emptied: usize,
}

struct World {
    home: Line,
    stored: Vec<Line>,
    given: Vec<Given>,
    changes: u32,
    epoch: u64,
    take_overs: usize,
    emptied: usize,
}

/// Each byte is an event; at the end every stamp that was ever given is judged, and then any stamp at all.
pub fn stamps(bytes: &[u8]) {
    let first = Line::begun(10, 1);
    let mut world = World {
        stored: vec![first.clone()],
        home: first,
        given: Vec::new(),
        changes: 1,
        epoch: 10,
        take_overs: 0,
        emptied: 0,
    };
    // More events find nothing new: a history holds eight epochs.
    for event in bytes.iter().take(256) {
        world.happen(*event);
    }
    world.given.iter().for_each(|given| world.judge(given));
    for claim in bytes.chunks_exact(16) {
        world.judge_anything(claim);
    }
}

impl World {
    fn happen(&mut self, event: u8) {
        let which = usize::from(event >> 3);
        match event & 7 {
            0..=2 => {
                self.changes += 1;
                self.home.record.version = self.home.record.version.next();
                self.home.lineage.push(self.changes);
                self.give();
            }
            3 => self.stored.push(self.home.clone()),
            // A crash: the latest that was stored, or, when the store went back in time as well, an older one.
            4 => self.load(self.stored.len() - 1),
            5 => self.load(which % self.stored.len()),
            // Repair: memory is right, and goes on under a new epoch.
            6 => self.take_over(),
            _ if which == 31 => {
                self.emptied += 1;
                self.epoch += 2;
                self.changes += 1;
                self.home = Line::begun(self.epoch, self.changes);
                self.stored = vec![self.home.clone()];
            }
            _ => self.give(),
        }
    }

    fn load(&mut self, at: usize) {
        if let Some(line) = self.stored.get(at) {
            self.home = line.clone();
            self.stored.truncate(at + 1);
            self.take_over();
        }
    }

    fn take_over(&mut self) {
        self.epoch += 3;
        self.take_overs += 1;
        self.home.record.take_over(Epoch::of(self.epoch));
    }

    fn give(&mut self) {
        self.given.push(Given {
            stamp: self.home.record.stamp(),
            lineage: self.home.lineage.clone(),
            take_overs: self.take_overs,
            emptied: self.emptied,
        });
    }

    fn judge(&self, given: &Given) {
        let survived = self.home.lineage.starts_with(&given.lineage);
        match self.home.record.history.judge(self.home.record.stamp(), given.stamp) {
            Verdict::Reached => assert!(survived, "a lost stamp {} is called reached", given.stamp),
            Verdict::Behind => panic!("a stamp {} that was given lies ahead", given.stamp),
            Verdict::RolledBack(to) => {
                assert!(!survived, "a stamp {} that survived is called lost", given.stamp);
                let kept = usize::try_from(to.version.number()).unwrap_or(usize::MAX);
                assert!(kept < given.lineage.len(), "{to} is said to have survived of {}", given.stamp);
                let common = given.lineage.get(..kept);
                assert!(common.is_some_and(|common| self.home.lineage.starts_with(common)), "{to} did not");
            }
            Verdict::Unknown => {
                let forgotten = self.take_overs - given.take_overs >= HISTORY_MAX;
                let emptied = self.emptied > given.emptied;
                assert!(forgotten || emptied, "a stamp {} is not known any more", given.stamp);
            }
        }
    }

    /// A claim out of the blue: whatever is said of it, nothing ahead of the record counts as reached.
    fn judge_anything(&self, claim: &[u8]) {
        let (Some(epoch), Some(version)) = (claim.first_chunk::<8>(), claim.last_chunk::<8>()) else {
            return;
        };
        let at = self.home.record.stamp();
        let claim =
            Stamp::new(Epoch::of(u64::from_be_bytes(*epoch)), Version::of(u64::from_be_bytes(*version)));
        if self.home.record.history.judge(at, claim) == Verdict::Reached {
            assert!(claim.epoch <= at.epoch && claim.version <= at.version, "{claim} is ahead of {at}");
        }
    }
}
