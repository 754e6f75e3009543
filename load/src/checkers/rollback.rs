//! C3: no silent rollback: an acked change is there in every later read, or a notice said that it is not.
//! Pure; called by [`super::judge`]; the reading of states serves C2, too.

use std::collections::HashMap;

use super::Verdict;
use super::lives::{Change, Life, Read};

/// Judges every life.
#[must_use]
pub fn check(lives: &[Life<'_>]) -> Verdict {
    let mut verdict = Verdict::new("C3", "no silent rollback");
    for life in lives {
        check_reads(&mut verdict, life, "acked", |_, _| true);
        check_counters(&mut verdict, life);
        check_readies(&mut verdict, life);
        check_ghosts(&mut verdict, life);
    }
    verdict
}

/// Every chosen write that was acked before a read was asked is in it: in its slot, or overwritten by a later one; and the
/// counter counts them all.
pub(super) fn check_reads(
    verdict: &mut Verdict,
    life: &Life<'_>,
    kind: &str,
    chosen: impl Fn(&Change, usize) -> bool,
) {
    for read in &life.reads {
        let expected: Vec<&Change> = life
            .changes
            .iter()
            .filter(|change| change.is_write && change.acked_before(read.invoked))
            .filter(|change| change.lives_in(life, read.segment) && chosen(change, read.invoked))
            .collect();
        let missing = missing_in_ring(read, &expected);
        let places = [missing.map_or(read.invoked, |write| write.answered), read.invoked, read.answered];
        verdict.check(missing.is_none(), life.process, life.log, &places, || {
            let k = missing.map_or(0, |write| write.k);
            format!(
                "{kind} write {k} is not in the state read later: its slot holds {}",
                read.in_slot(k % crate::history::RING_SLOTS)
            )
        });
        if let Some(base) = life.base {
            let least = base + i64::try_from(expected.len()).unwrap_or(i64::MAX);
            let places = [expected.last().map_or(read.invoked, |write| write.answered), read.answered];
            verdict.check(read.counter >= least, life.process, life.log, &places, || {
                format!("the counter is {}, though {least} {kind} writes came before", read.counter)
            });
        }
    }
}

/// The latest expected write of a slot that the slot does not show.
fn missing_in_ring<'a>(read: &Read<'_>, expected: &[&'a Change]) -> Option<&'a Change> {
    let mut latest: HashMap<u64, &Change> = HashMap::new();
    for write in expected {
        let of_slot = latest.entry(write.slot()).or_insert(write);
        if of_slot.k < write.k {
            *of_slot = write;
        }
    }
    latest.into_values().find(|write| read.in_slot(write.slot()) < write.k)
}

/// The counter in a write's own answer counts every write before it.
fn check_counters(verdict: &mut Verdict, life: &Life<'_>) {
    let Some(base) = life.base else { return };
    for write in life.changes.iter().filter(|change| change.is_write && !change.is_unknown) {
        let Some(counter) = write.counter else { continue };
        let least = base + life.rank(write.segment, write.cseq, write.k).0;
        verdict.check(counter >= least, life.process, life.log, &[write.answered], || {
            format!("write {} made the counter {counter}, though it is number {least}", write.k)
        });
    }
}

/// A `ready` that took less than was acked says so.
fn check_readies(verdict: &mut Verdict, life: &Life<'_>) {
    for segment in life.segments.iter().skip(1) {
        verdict.check(segment.told, life.process, life.log, &[segment.start], || {
            format!("changes above {} were acked; ready does not say that they are gone", segment.survived)
        });
    }
    for (at, opened) in &life.readies {
        let Some(claimed) = opened.claim.as_ref().and_then(|claim| claim.stamp) else { continue };
        let holds = opened.rolled_back.is_some() || opened.stamp >= claimed;
        verdict.check(holds, life.process, life.log, &[*at], || {
            format!("ready stands at {:?}, behind {claimed:?}, and says nothing of a loss", opened.stamp)
        });
    }
}

/// What was reported lost is not there: else the bot would do it again, and it would count twice.
fn check_ghosts(verdict: &mut Verdict, life: &Life<'_>) {
    for (index, segment) in life.segments.iter().enumerate().skip(1) {
        let Some(read) = life.reads.iter().find(|read| read.segment >= index) else { continue };
        let lost = |change: &&Change| {
            change.is_write
                && change.acked_before(segment.start)
                && change.lives_in(life, index - 1)
                && change.cseq > segment.survived
        };
        for change in life.changes.iter().filter(lost) {
            let holds = read.in_slot(change.slot()) != change.k;
            verdict.check(
                holds,
                life.process,
                life.log,
                &[change.answered, segment.start, read.answered],
                || format!("write {} was reported lost, yet it is there", change.k),
            );
        }
    }
}
