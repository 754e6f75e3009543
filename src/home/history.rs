//! The history rule: what a stamp means across epochs (after Kafka's KIP-101, for players). Pure. The only place
//! where stamps are compared; serves `resume`, `at_least` and `min_stamp` alike.

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Stamp, Version};
use crate::sabotage::{self, Guard};

/// How many former epochs a record remembers.
pub const HISTORY_MAX: usize = 8;

/// The former epochs of a record, oldest first: `(epoch, last version inherited from it)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct History(Vec<(u64, u64)>);

/// Where a claimed stamp stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The record contains it.
    Reached,
    /// The record will contain it, or the claim is false: same epoch, higher version.
    Behind,
    /// It was lost; this much of its line survived.
    RolledBack(Stamp),
    /// Too old, or of an epoch never seen: the client takes everything anew.
    Unknown,
}

impl History {
    /// Remembers that a new epoch begins with `version`, inherited from `epoch`.
    pub fn append(&mut self, epoch: Epoch, version: Version) {
        self.0.retain(|(known, _)| *known < epoch.number());
        if self.0.len() == HISTORY_MAX {
            self.0.remove(0);
        }
        self.0.push((epoch.number(), version.number()));
    }

    /// Remembers that a home went on in a new epoch with what it had in memory, because the store lost writes. Whatever was
    /// granted between its two epochs was lost with them: claims from there belong to other lines.
    pub fn append_repair(&mut self, epoch: Epoch, version: Version, next: Epoch) {
        self.append(epoch, version);
        if epoch.next() < next {
            self.append(epoch.next(), Version::ZERO);
        }
    }

    /// Judges a claim against a record that stands at `at`.
    #[must_use]
    pub fn judge(&self, at: Stamp, claim: Stamp) -> Verdict {
        if claim.epoch < at.epoch && sabotage::is_off(Guard::History) {
            return Verdict::Reached;
        }
        if claim.epoch == at.epoch {
            return if claim.version <= at.version { Verdict::Reached } else { Verdict::Behind };
        }
        if claim.epoch > at.epoch {
            return Verdict::Unknown;
        }
        let newest = self.0.iter().rev().find(|(epoch, _)| *epoch <= claim.epoch.number());
        match newest {
            None | Some((_, 0)) => Verdict::Unknown,
            // Nothing is left of the claim's epoch, which began where the one before ended. Below that it never stood, so
            // it was another line: its grant was lost by the store, and the line before went on without it.
            Some((epoch, limit)) if *epoch < claim.epoch.number() && claim.version.number() < *limit => {
                Verdict::Unknown
            }
            Some((_, limit)) if claim.version.number() <= *limit => Verdict::Reached,
            Some((epoch, limit)) => Verdict::RolledBack(Stamp::new(Epoch::of(*epoch), Version::of(*limit))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(epoch: u64, version: u64) -> Stamp {
        Stamp::new(Epoch::of(epoch), Version::of(version))
    }

    fn history(entries: &[(u64, u64)]) -> History {
        let mut history = History::default();
        for (epoch, version) in entries {
            history.append(Epoch::of(*epoch), Version::of(*version));
        }
        history
    }

    #[test]
    fn within_an_epoch_versions_decide() {
        let at = stamp(30, 12);
        assert_eq!(history(&[]).judge(at, stamp(30, 12)), Verdict::Reached);
        assert_eq!(history(&[]).judge(at, stamp(30, 13)), Verdict::Behind);
    }

    #[test]
    fn across_epochs_the_inherited_version_decides() {
        let (at, past) = (stamp(30, 12), history(&[(10, 5), (20, 9)]));
        assert_eq!(past.judge(at, stamp(20, 9)), Verdict::Reached);
        assert_eq!(past.judge(at, stamp(20, 10)), Verdict::RolledBack(stamp(20, 9)));
        assert_eq!(past.judge(at, stamp(10, 5)), Verdict::Reached);
        assert_eq!(past.judge(at, stamp(10, 6)), Verdict::RolledBack(stamp(10, 5)));
    }

    #[test]
    fn an_epoch_that_left_nothing_counts_as_the_one_before() {
        // Epoch 15 served but never committed: what it acked is gone, although epoch 20 went further.
        let (at, past) = (stamp(30, 12), history(&[(10, 5), (20, 9)]));
        assert_eq!(past.judge(at, stamp(15, 5)), Verdict::Reached);
        assert_eq!(past.judge(at, stamp(15, 7)), Verdict::RolledBack(stamp(10, 5)));
    }

    #[test]
    fn an_epoch_that_forked_off_before_the_one_before_ended_is_another_line() {
        // The store lost that 15 was granted at version 3; 10 went on to 5 and knows nothing of it.
        let (at, past) = (stamp(30, 12), history(&[(10, 5)]));
        assert_eq!(past.judge(at, stamp(15, 4)), Verdict::Unknown);
        assert_eq!(past.judge(at, stamp(10, 4)), Verdict::Reached);
    }

    #[test]
    fn what_was_granted_between_the_two_epochs_of_a_repair_is_another_line() {
        let mut past = history(&[(5, 1)]);
        past.append_repair(Epoch::of(10), Version::of(5), Epoch::of(30));
        let at = stamp(30, 5);
        assert_eq!(past.judge(at, stamp(10, 5)), Verdict::Reached);
        assert_eq!(past.judge(at, stamp(10, 6)), Verdict::RolledBack(stamp(10, 5)));
        for claim in [stamp(11, 5), stamp(20, 5), stamp(20, 6), stamp(29, 1)] {
            assert_eq!(past.judge(at, claim), Verdict::Unknown);
        }
        assert_eq!(past.judge(at, stamp(5, 1)), Verdict::Reached);
        past.append_repair(Epoch::of(30), Version::of(6), Epoch::of(31));
        assert_eq!(past.judge(stamp(31, 6), stamp(30, 6)), Verdict::Reached, "nothing lies between");
    }

    #[test]
    fn the_forgotten_and_the_never_seen_are_unknown() {
        let (at, past) = (stamp(30, 12), history(&[(10, 5)]));
        assert_eq!(past.judge(at, stamp(9, 1)), Verdict::Unknown);
        assert_eq!(past.judge(at, stamp(31, 1)), Verdict::Unknown);
    }

    #[test]
    fn only_the_last_eight_are_kept_and_an_epoch_stands_once() {
        let mut past = history(&(1..=9).map(|n| (n, n)).collect::<Vec<_>>());
        assert_eq!(past.judge(stamp(10, 10), stamp(1, 1)), Verdict::Unknown);
        assert_eq!(past.judge(stamp(10, 10), stamp(2, 2)), Verdict::Reached);
        past.append(Epoch::of(9), Version::of(11));
        assert_eq!(past.judge(stamp(12, 12), stamp(9, 11)), Verdict::Reached);
    }
}
