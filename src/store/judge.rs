//! The rules of leases and commits as pure functions: what a shard's meta and a stored record say to a request.
//! The embedded store runs on them; the Lua scripts say the same and are compared with them in the contract suite.
//! Never reads a clock and never writes: it returns the meta to write, or none when nothing may change.

use std::time::Duration;

use crate::ids::{Epoch, FlushSeq, Generation, Owner, Version};
use crate::store::{
    AcquireRequest, Acquired, Commit, CommitRecord, Committed, Entry, Grant, Held, Holder, Keep, Released,
    Renewed,
};

/// A floor further ahead of the store's clock than this is a lie: epochs are Unix milliseconds plus a few.
pub const FLOOR_AHEAD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A shard's meta.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Meta {
    /// The epoch of the last grant.
    pub epoch: Epoch,
    /// Who may write; none after a release.
    pub holder: Option<Owner>,
    /// When the holder's lease runs out, by the store's clock.
    pub until_ms: u64,
    /// Who was granted the epoch.
    pub owner: Owner,
    /// Who was granted the one before, if it was another owner: asked again, the same grant names the same one.
    pub previous_owner: Option<Owner>,
    /// The number of the last batch.
    pub flush_seq: FlushSeq,
    /// Random, from the first grant.
    pub generation: Generation,
    /// The highest version at which a record ended.
    pub version_max: Version,
}

impl Meta {
    fn grant(&self) -> Grant {
        Grant {
            epoch: self.epoch,
            flush_seq: self.flush_seq,
            generation: self.generation,
            version_max: self.version_max,
            previous_owner: self.previous_owner.clone(),
        }
    }

    fn is_held_by(&self, owner: &Owner) -> bool {
        self.holder.as_ref() == Some(owner)
    }
}

/// Grants a free or run-out lease. The meta to write comes along when something changes.
#[must_use]
pub fn acquire(meta: Option<&Meta>, request: &AcquireRequest, now_ms: u64) -> (Acquired, Option<Meta>) {
    if request.floor.number() > now_ms.saturating_add(millis(FLOOR_AHEAD_MAX)) {
        return (Acquired::FloorPoisoned, None);
    }
    let until_ms = now_ms.saturating_add(millis(request.ttl));
    if let Some(meta) = meta {
        if meta.is_held_by(&request.owner) && meta.epoch > request.floor {
            let extended = Meta { until_ms, ..meta.clone() };
            return (Acquired::AlreadyMine(extended.grant()), Some(extended));
        }
        // A lease that seems to run longer than one TTL is the work of a clock that was set back.
        let runs_until_ms = meta.until_ms.min(until_ms);
        if let Some(owner) = meta.holder.as_ref().filter(|owner| **owner != request.owner)
            && runs_until_ms > now_ms
        {
            let cut =
                (runs_until_ms < meta.until_ms).then(|| Meta { until_ms: runs_until_ms, ..meta.clone() });
            let remaining = Duration::from_millis(runs_until_ms - now_ms);
            return (Acquired::Held { owner: owner.clone(), remaining }, cut);
        }
    }
    let granted = grant_anew(meta, request, now_ms, until_ms);
    (Acquired::Granted(granted.grant()), Some(granted))
}

fn grant_anew(meta: Option<&Meta>, request: &AcquireRequest, now_ms: u64, until_ms: u64) -> Meta {
    let stored = meta.map_or(Epoch::ZERO, |meta| meta.epoch);
    let owner = request.owner.clone();
    Meta {
        epoch: stored.max(request.floor).max(Epoch::of(now_ms)).next(),
        holder: Some(owner.clone()),
        until_ms,
        previous_owner: meta.map(|meta| meta.owner.clone()).filter(|previous| *previous != owner),
        owner,
        flush_seq: meta.map_or(FlushSeq::ZERO, |meta| meta.flush_seq),
        generation: meta.map_or(request.generation_if_new, |meta| meta.generation),
        version_max: meta.map_or(Version::ZERO, |meta| meta.version_max),
    }
}

/// Extends a lease. The meta to write comes along when it was ours.
#[must_use]
pub fn renew(
    meta: Option<&Meta>,
    owner: &Owner,
    epoch: Epoch,
    ttl: Duration,
    now_ms: u64,
) -> (Renewed, Option<Meta>) {
    let Some(meta) = meta.filter(|meta| meta.epoch >= epoch) else {
        return (Renewed::RolledBack, None);
    };
    if meta.epoch > epoch || !meta.is_held_by(owner) {
        return (Renewed::Fenced { epoch: meta.epoch }, None);
    }
    let (flush_seq, generation) = (meta.flush_seq, meta.generation);
    let extended = Meta { until_ms: now_ms.saturating_add(millis(ttl)), ..meta.clone() };
    let renewed = if meta.until_ms > now_ms {
        Renewed::Renewed { flush_seq, generation }
    } else {
        Renewed::Regranted { flush_seq, generation }
    };
    (renewed, Some(extended))
}

/// Who holds a shard, and for how long still.
#[must_use]
pub fn holder(meta: Option<&Meta>, now_ms: u64) -> Option<Held> {
    let meta = meta?;
    let remaining = Duration::from_millis(meta.until_ms.saturating_sub(now_ms));
    Some(Held { owner: meta.holder.clone()?, remaining })
}

/// Gives a lease back. The meta to write comes along when it was ours.
#[must_use]
pub fn release(meta: Option<&Meta>, owner: &Owner, epoch: Epoch, now_ms: u64) -> (Released, Option<Meta>) {
    let Some(meta) = meta.filter(|meta| meta.epoch == epoch && meta.is_held_by(owner)) else {
        return (Released::NotMine, None);
    };
    let released = if meta.until_ms > now_ms { Released::Released } else { Released::RunOut };
    // Without a holder even a late renewal or batch of this owner finds the door closed.
    (released, Some(Meta { holder: None, until_ms: 0, ..meta.clone() }))
}

/// Whether the fence holds against this batch: `Err` is the answer that changes nothing.
///
/// # Errors
/// Every answer but [`Committed::Done`], checked in this order: lost, fenced, rolled back, stale, rolled back.
pub fn fence<'a>(meta: Option<&'a Meta>, commit: &Commit) -> Result<&'a Meta, Committed> {
    let Some(meta) = meta.filter(|meta| meta.generation == commit.generation) else {
        return Err(Committed::Lost);
    };
    if meta.epoch > commit.epoch {
        return Err(Committed::Fenced { epoch: meta.epoch });
    }
    if meta.epoch < commit.epoch {
        return Err(Committed::RolledBack);
    }
    if !meta.is_held_by(&commit.owner) {
        return Err(Committed::Fenced { epoch: meta.epoch });
    }
    if meta.flush_seq >= commit.flush_seq {
        return Err(Committed::Stale { flush_seq: meta.flush_seq });
    }
    if meta.flush_seq < commit.flush_seq_acked {
        return Err(Committed::RolledBack);
    }
    Ok(meta)
}

/// Whether the shard is the holder's to write: for what is written past a commit.
#[must_use]
pub fn holds(meta: Option<&Meta>, holder: &Holder) -> bool {
    meta.is_some_and(|meta| {
        meta.generation == holder.generation && meta.epoch == holder.epoch && meta.is_held_by(&holder.owner)
    })
}

/// What becomes of one record behind a fence that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Written over its base, or over our own timed-out batch.
    Applied,
    /// Written again: the stored version is this one. No entries.
    Same,
    /// Written although the stored one is behind its base.
    Repaired,
    /// Written although it is missing.
    Restored,
    /// Not written: lost by the store.
    Gone,
    /// Not written: what is there must be merged first.
    Exists,
}

impl Verdict {
    /// Whether the record's strings change.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Applied | Self::Same | Self::Repaired | Self::Restored)
    }
}

/// Whether an entry of a record with this verdict is written: not with a version that is stored already, whose entries
/// are, too. A batch whose answer was lost writes none of them twice.
#[must_use]
pub fn writes_entry(verdict: Verdict, entry: &Entry, stored: Option<Version>) -> bool {
    verdict.writes() && stored.is_none_or(|stored| stored < entry.version)
}

/// Judges one record of a batch of `epoch` against the epoch and version stored for its player.
#[must_use]
pub fn record(epoch: Epoch, record: &CommitRecord, stored: Option<(Epoch, Version)>) -> Verdict {
    if record.keep == Keep::Unmoved {
        return match stored {
            Some(stored) if stored == (epoch, record.version) && record.base <= record.version => {
                Verdict::Same
            }
            Some((by, version)) if by == epoch && record.base <= version && version < record.version => {
                Verdict::Applied
            }
            // This epoch wrote it, and that is lost.
            _ => Verdict::Gone,
        };
    }
    let Some((stored_epoch, stored_version)) = stored else {
        return match (record.base == Version::ZERO, record.restore) {
            (true, _) => Verdict::Applied,
            (false, true) => Verdict::Restored,
            (false, false) => Verdict::Gone,
        };
    };
    let is_older_epoch = stored_epoch < epoch;
    // Nobody behind this fence wrote it: whatever it is, it is not to be lost silently.
    let is_foreign = stored_epoch > epoch || stored_version > record.version;
    let is_first_over_older = record.base == Version::ZERO && is_older_epoch;
    if is_foreign || is_first_over_older {
        Verdict::Exists
    } else if stored_version < record.base {
        if record.restore { Verdict::Repaired } else { Verdict::Gone }
    } else if stored_version == record.version {
        Verdict::Same
    } else if stored_version > record.base && is_older_epoch && !record.restore {
        // Between base and new, and not ours: a change that the home has never seen.
        Verdict::Exists
    } else {
        Verdict::Applied
    }
}

/// The shard's `version_max` after a record of this batch was written.
#[must_use]
pub fn version_max_after(version_max: Version, record: &CommitRecord) -> Version {
    match record.keep {
        Keep::Unmoved | Keep::Live { .. } => version_max,
        Keep::Remainder | Keep::Erase => version_max.max(record.version),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::{PlayerId, ShardId};

    const NOW: u64 = 1_790_000_000_000;
    const TTL: Duration = Duration::from_secs(6);

    fn request(owner: &str, floor: u64) -> AcquireRequest {
        AcquireRequest {
            shard: ShardId::numbered(3).unwrap(),
            owner: Owner::named(owner),
            ttl: TTL,
            floor: Epoch::of(floor),
            generation_if_new: Generation::of(77),
        }
    }

    fn granted(meta: Option<&Meta>, owner: &str, floor: u64, now_ms: u64) -> Meta {
        let (answer, meta) = acquire(meta, &request(owner, floor), now_ms);
        assert!(matches!(answer, Acquired::Granted(_)), "{answer:?}");
        meta.unwrap()
    }

    #[test]
    fn the_first_grant_lies_above_the_clock_and_the_floor() {
        let meta = granted(None, "a#1", 0, NOW);
        assert_eq!((meta.epoch.number(), meta.generation.number()), (NOW + 1, 77));
        assert_eq!(granted(None, "a#1", NOW + 500, NOW).epoch.number(), NOW + 501);
        // A clock that went back: above the stored epoch all the same.
        assert_eq!(granted(Some(&Meta { holder: None, ..meta }), "b#1", 0, 5).epoch.number(), NOW + 2);
    }

    #[test]
    fn a_poisoned_floor_is_refused() {
        let day = 24 * 60 * 60 * 1000;
        assert_eq!(acquire(None, &request("a#1", NOW + day + 1), NOW), (Acquired::FloorPoisoned, None));
        granted(None, "a#1", NOW + day, NOW);
    }

    #[test]
    fn asking_again_brings_the_same_grant_until_the_floor_reaches_it() {
        let first = granted(None, "a#1", 0, NOW);
        let second = granted(Some(&first), "b#1", 0, NOW + 6_000);
        assert_eq!(second.previous_owner, Some(Owner::named("a#1")));
        let (again, extended) = acquire(Some(&second), &request("b#1", 0), NOW + 20_000);
        assert_eq!(again, Acquired::AlreadyMine(second.grant()));
        assert_eq!(extended.unwrap().until_ms, NOW + 26_000);
        let third = granted(Some(&second), "b#1", second.epoch.number(), NOW + 7_000);
        assert!(third.epoch > second.epoch);
        assert_eq!(third.previous_owner, None);
    }

    #[test]
    fn a_held_lease_is_held_for_one_ttl_at_most() {
        let meta = granted(None, "a#1", 0, NOW);
        let (answer, cut) = acquire(Some(&meta), &request("b#1", 0), NOW + 1_000);
        let held = |ms| Acquired::Held { owner: Owner::named("a#1"), remaining: Duration::from_millis(ms) };
        assert_eq!((answer, cut), (held(5_000), None));
        // The clock was set back by an hour: `until` is cut, and written so.
        let (answer, cut) = acquire(Some(&meta), &request("b#1", 0), NOW - 3_600_000);
        assert_eq!((answer, cut.unwrap().until_ms), (held(6_000), NOW - 3_600_000 + 6_000));
        granted(Some(&meta), "b#1", 0, NOW + 6_000);
    }

    #[test]
    fn a_renewal_extends_regrants_or_is_fenced() {
        let meta = granted(None, "a#1", 0, NOW);
        let (a, epoch) = (Owner::named("a#1"), meta.epoch);
        let (flush_seq, generation) = (FlushSeq::ZERO, Generation::of(77));
        let (answer, extended) = renew(Some(&meta), &a, epoch, TTL, NOW + 5_999);
        assert_eq!(answer, Renewed::Renewed { flush_seq, generation });
        assert_eq!(extended.unwrap().until_ms, NOW + 11_999);
        assert_eq!(
            renew(Some(&meta), &a, epoch, TTL, NOW + 6_000).0,
            Renewed::Regranted { flush_seq, generation }
        );
        let fenced = (Renewed::Fenced { epoch }, None);
        assert_eq!(renew(Some(&meta), &Owner::named("b#1"), epoch, TTL, NOW), fenced);
        assert_eq!(renew(Some(&meta), &a, Epoch::of(epoch.number() - 1), TTL, NOW), fenced);
        assert_eq!(renew(Some(&meta), &a, epoch.next(), TTL, NOW), (Renewed::RolledBack, None));
        assert_eq!(renew(None, &a, epoch, TTL, NOW), (Renewed::RolledBack, None));
    }

    #[test]
    fn after_a_release_nothing_of_its_owner_comes_in() {
        let meta = granted(None, "a#1", 0, NOW);
        let (a, epoch) = (Owner::named("a#1"), meta.epoch);
        assert_eq!(release(Some(&meta), &a, epoch, NOW + 6_000).0, Released::RunOut);
        let (answer, free) = release(Some(&meta), &a, epoch, NOW + 1);
        assert_eq!(answer, Released::Released);
        let free = free.unwrap();
        assert_eq!(renew(Some(&free), &a, epoch, TTL, NOW + 2), (Renewed::Fenced { epoch }, None));
        assert_eq!(release(Some(&free), &a, epoch, NOW + 2), (Released::NotMine, None));
        assert_eq!(fence(Some(&free), &commit_of(&meta, 1, 0)), Err(Committed::Fenced { epoch }));
        assert_eq!(granted(Some(&free), "b#1", 0, NOW + 3).previous_owner, Some(a));
    }

    fn commit_of(meta: &Meta, flush_seq: u64, acked: u64) -> Commit {
        Commit {
            shard: ShardId::numbered(3).unwrap(),
            owner: meta.owner.clone(),
            epoch: meta.epoch,
            generation: meta.generation,
            flush_seq: FlushSeq::of(flush_seq),
            flush_seq_acked: FlushSeq::of(acked),
            remember: TTL,
            records: Vec::new(),
        }
    }

    #[test]
    fn the_fence_answers_in_its_order() {
        let meta = Meta { flush_seq: FlushSeq::of(10), ..granted(None, "a#1", 0, NOW) };
        let epoch = meta.epoch;
        let stale = Err(Committed::Stale { flush_seq: FlushSeq::of(10) });
        let judge = |change: fn(&mut Commit)| {
            let mut commit = commit_of(&meta, 11, 10);
            change(&mut commit);
            fence(Some(&meta), &commit).map(|_| ())
        };
        assert_eq!(judge(|_| ()), Ok(()));
        assert_eq!(fence(None, &commit_of(&meta, 11, 10)), Err(Committed::Lost));
        assert_eq!(judge(|c| c.generation = c.generation.next()), Err(Committed::Lost));
        assert_eq!(judge(|c| c.epoch = Epoch::of(1)), Err(Committed::Fenced { epoch }));
        assert_eq!(judge(|c| c.owner = Owner::named("b#1")), Err(Committed::Fenced { epoch }));
        // An older meta belongs to whom it may: the store went back, and this home can repair it.
        assert_eq!(judge(|c| c.epoch = c.epoch.next()), Err(Committed::RolledBack));
        assert_eq!(
            judge(|c| (c.epoch, c.owner) = (c.epoch.next(), Owner::named("b#1"))),
            Err(Committed::RolledBack)
        );
        assert_eq!(judge(|c| c.flush_seq = FlushSeq::of(10)), stale);
        assert_eq!(judge(|c| (c.flush_seq, c.flush_seq_acked) = (FlushSeq::of(9), FlushSeq::of(8))), stale);
        assert_eq!(
            judge(|c| (c.flush_seq, c.flush_seq_acked) = (FlushSeq::of(13), FlushSeq::of(11))),
            Err(Committed::RolledBack)
        );
        assert_eq!(judge(|c| c.flush_seq = FlushSeq::of(20)), Ok(()), "timed-out batches leave gaps");
    }

    fn verdict(base: u64, version: u64, restore: bool, stored: Option<(u64, u64)>) -> Verdict {
        verdict_of(Keep::Remainder, base, version, restore, stored)
    }

    fn verdict_of(keep: Keep, base: u64, version: u64, restore: bool, stored: Option<(u64, u64)>) -> Verdict {
        let of_player = CommitRecord {
            player: PlayerId::parse("ann").unwrap(),
            base: Version::of(base),
            version: Version::of(version),
            keep,
            ttl: TTL,
            restore,
            known: false,
            p: Bytes::new(),
            w: None,
            ban: crate::store::BanMark::Unmoved,
            entries: Vec::new(),
        };
        record(Epoch::of(5), &of_player, stored.map(|(e, v)| (Epoch::of(e), Version::of(v))))
    }

    #[test]
    fn a_record_is_judged_by_what_is_stored() {
        use Verdict::{Applied, Exists, Gone, Repaired, Restored, Same};
        // base, new, stored (epoch, version) -> plain, with restore; our epoch is 5.
        let table = [
            (0, 3, None, Applied, Applied),
            (2, 3, None, Gone, Restored),
            (0, 3, Some((4, 1)), Exists, Exists),
            (0, 3, Some((4, 3)), Exists, Exists),
            (0, 3, Some((5, 2)), Applied, Applied),
            (0, 3, Some((5, 3)), Same, Same),
            (2, 3, Some((4, 2)), Applied, Applied),
            (2, 3, Some((5, 2)), Applied, Applied),
            (2, 4, Some((5, 3)), Applied, Applied),
            (2, 4, Some((4, 3)), Exists, Applied),
            (2, 3, Some((4, 3)), Same, Same),
            (3, 3, Some((4, 3)), Same, Same),
            (2, 3, Some((4, 1)), Gone, Repaired),
            (2, 3, Some((5, 1)), Gone, Repaired),
            (2, 3, Some((5, 4)), Exists, Exists),
            (2, 3, Some((4, 4)), Exists, Exists),
            (2, 3, Some((6, 2)), Exists, Exists),
            (2, 3, Some((6, 1)), Exists, Exists),
        ];
        for (base, version, stored, plain, restoring) in table {
            let row = format!("base {base}, version {version}, stored {stored:?}");
            assert_eq!(verdict(base, version, false, stored), plain, "{row}");
            assert_eq!(verdict(base, version, true, stored), restoring, "{row}, restore");
        }
    }
    #[test]
    fn an_unmoved_record_stands_as_this_epoch_left_it_or_is_gone() {
        use Verdict::{Applied, Gone, Same};
        // base, new, stored (epoch, version); our epoch is 5.
        let table = [
            (2, 3, Some((5, 2)), Applied),
            (2, 4, Some((5, 3)), Applied),
            (2, 3, Some((5, 3)), Same),
            (3, 3, Some((5, 3)), Same),
            (2, 3, None, Gone),
            (0, 3, None, Gone),
            (2, 3, Some((5, 1)), Gone),
            (2, 3, Some((5, 4)), Gone),
            (2, 3, Some((4, 2)), Gone),
            (2, 3, Some((4, 3)), Gone),
            (2, 3, Some((6, 2)), Gone),
        ];
        for (base, version, stored, expected) in table {
            for restore in [false, true] {
                let verdict = verdict_of(Keep::Unmoved, base, version, restore, stored);
                assert_eq!(verdict, expected, "base {base}, version {version}, stored {stored:?}, {restore}");
            }
        }
    }
}
