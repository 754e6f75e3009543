//! The store of the model: a shard's meta and one player's record, on the rules that the embedded store runs on and the
//! Lua scripts are compared with (`hearth::store::judge`).

use std::time::Duration;

use bytes::Bytes;
use hearth::home::history::History;
use hearth::home::shard::Fence;
use hearth::ids::{Epoch, FlushSeq, Generation, Owner, PlayerId, ShardId, Stamp, Version};
use hearth::store::judge::{self, Meta, Verdict};
use hearth::store::{AcquireRequest, Acquired, BanMark, Commit, CommitRecord, Committed, Keep, Renewed};

use super::world::{Broken, Guards, TTL};

/// One player's record: its versions as they are stored, and, in place of a body, which changes are in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) epoch: Epoch,
    pub(crate) version: Version,
    pub(crate) history: History,
    /// Which login of the player's is in it.
    pub(crate) session: u8,
    /// One bit a change.
    pub(crate) changes: u8,
}

impl Record {
    pub(crate) const fn stamp(&self) -> Stamp {
        Stamp::new(self.epoch, self.version)
    }

    /// As `hearth::home::record::Record::take_over`.
    pub(crate) fn take_over(&mut self, epoch: Epoch) {
        if epoch > self.epoch {
            self.history.append(self.epoch, self.version);
            self.epoch = epoch;
        }
    }

    /// As `hearth::home::record::Record::repair`.
    pub(crate) fn repair(&mut self, epoch: Epoch) {
        if epoch > self.epoch {
            self.history.append_repair(self.epoch, self.version, epoch);
            self.epoch = epoch;
        }
    }
}

/// One batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Batch {
    pub(crate) owner: Owner,
    pub(crate) fence: Fence,
    pub(crate) base: Version,
    pub(crate) restore: bool,
    pub(crate) record: Record,
}

/// The answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Answered {
    /// The fence held.
    Done(Verdict, Option<Record>),
    /// A higher epoch is there.
    Fenced(Epoch),
    /// An old number.
    Stale(FlushSeq),
    /// The store lost writes.
    Lost,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Store {
    pub(crate) meta: Option<Meta>,
    pub(crate) record: Option<Record>,
}

impl Store {
    pub(crate) fn acquire(
        &mut self,
        owner: &Owner,
        floor: Epoch,
        generation: Generation,
        now_ms: u64,
    ) -> Acquired {
        let shard = ShardId::FIRST;
        let request =
            AcquireRequest { shard, owner: owner.clone(), ttl: TTL, floor, generation_if_new: generation };
        let (answer, meta) = judge::acquire(self.meta.as_ref(), &request, now_ms);
        self.meta = meta.or_else(|| self.meta.take());
        answer
    }

    pub(crate) fn renew(&mut self, owner: &Owner, epoch: Epoch, now_ms: u64) -> Renewed {
        let (answer, meta) = judge::renew(self.meta.as_ref(), owner, epoch, TTL, now_ms);
        self.meta = meta.or_else(|| self.meta.take());
        answer
    }

    /// Carries a batch out as `commit.lua` does. Says which promise that breaks, if a guard was off.
    pub(crate) fn commit(&mut self, batch: &Batch, guards: Guards) -> (Answered, Option<Broken>) {
        let commit = commit_of(batch);
        let judged = self.fence(&commit, guards);
        let meta = match judged {
            Ok(meta) => meta,
            Err(refusal) => return (answered(refusal), None),
        };
        let broken = self.must_be_refused(batch);
        let stored = self.record.as_ref().map(|record| (record.epoch, record.version));
        let [record] = commit.records.as_slice() else { unreachable!("one player") };
        let verdict = judge::record(commit.epoch, record, stored);
        let found = (verdict == Verdict::Exists).then(|| self.record.clone()).flatten();
        if verdict.writes() {
            self.record = Some(batch.record.clone());
        }
        self.meta = Some(Meta { flush_seq: commit.flush_seq, ..meta });
        (Answered::Done(verdict, found), broken)
    }

    /// The fence, without the guards that are off.
    fn fence(&self, commit: &Commit, guards: Guards) -> Result<Meta, Committed> {
        let mut asked = commit.clone();
        if let Some(meta) = &self.meta {
            if !guards.fence {
                (asked.epoch, asked.owner) = (meta.epoch, meta.holder.clone().unwrap_or(asked.owner));
            }
            if !guards.stale {
                asked.flush_seq = asked.flush_seq.max(meta.flush_seq.next());
            }
            if !guards.gap {
                asked.flush_seq_acked = asked.flush_seq_acked.min(meta.flush_seq);
            }
        }
        judge::fence(self.meta.as_ref(), &asked).cloned()
    }

    /// I3, said without the rule that keeps it.
    fn must_be_refused(&self, batch: &Batch) -> Option<Broken> {
        let meta = self.meta.as_ref()?;
        if batch.fence.epoch < meta.epoch {
            Some(Broken::BelowTheEpoch)
        } else if batch.fence.flush_seq <= meta.flush_seq {
            Some(Broken::OldNumber)
        } else {
            None
        }
    }

    /// The changes that it has.
    pub(crate) fn changes(&self) -> u8 {
        self.record.as_ref().map_or(0, |record| record.changes)
    }
}

fn commit_of(batch: &Batch) -> Commit {
    let record = CommitRecord {
        player: PlayerId::parse("ann").unwrap(),
        base: batch.base,
        version: batch.record.version,
        keep: Keep::Live { expires_at_unix_ms: 1 },
        ttl: Duration::from_secs(1),
        restore: batch.restore,
        known: false,
        p: Bytes::new(),
        w: None,
        ban: BanMark::Unmoved,
        entries: Vec::new(),
    };
    Commit {
        shard: ShardId::FIRST,
        owner: batch.owner.clone(),
        epoch: batch.fence.epoch,
        generation: batch.fence.generation,
        flush_seq: batch.fence.flush_seq,
        remember: Duration::from_secs(1),
        flush_seq_acked: batch.fence.flush_seq_acked,
        records: vec![record],
    }
}

fn answered(refusal: Committed) -> Answered {
    match refusal {
        Committed::Done(_) => unreachable!("a refusal"),
        Committed::Fenced { epoch } => Answered::Fenced(epoch),
        Committed::Stale { flush_seq } => Answered::Stale(flush_seq),
        Committed::RolledBack | Committed::Lost => Answered::Lost,
    }
}
