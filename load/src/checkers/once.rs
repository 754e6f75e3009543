//! C4: a change takes effect at most once: the counter moves exactly as often as distinct numbers took effect.
//! Pure; called by [`super::judge`].

use std::collections::HashMap;

use super::Verdict;
use super::lives::{Change, Life, Read};
use crate::history::RING_SLOTS;

/// Judges every life.
#[must_use]
pub fn check(lives: &[Life<'_>]) -> Verdict {
    let mut verdict = Verdict::new("C4", "effects at most once");
    for life in lives {
        check_numbers(&mut verdict, life);
        check_repeats(&mut verdict, life);
        check_counters(&mut verdict, life);
        for read in &life.reads {
            check_read(&mut verdict, life, read);
        }
    }
    verdict
}

/// Within a line no number belongs to two changes.
fn check_numbers(verdict: &mut Verdict, life: &Life<'_>) {
    let last = life.segments.len().saturating_sub(1);
    let mut owners: HashMap<u64, &Change> = HashMap::new();
    for change in life.changes.iter().filter(|change| !change.is_unknown && change.lives_in(life, last)) {
        let other = owners.insert(change.cseq, change);
        let places = [other.map_or(change.answered, |other| other.answered), change.answered];
        verdict.check(other.is_none(), life.process, life.log, &places, || {
            format!("two changes were acked under number {}", change.cseq)
        });
    }
}

/// What `ready` says has been applied is answered as a repeat.
fn check_repeats(verdict: &mut Verdict, life: &Life<'_>) {
    for change in life.changes.iter().filter(|change| !change.is_unknown && change.stamp.is_some()) {
        let holds = change.dup || change.cseq > change.ready_cseq;
        verdict.check(holds, life.process, life.log, &[change.invoked, change.answered], || {
            format!(
                "change {} was applied by ready ({}), and was carried out again",
                change.cseq, change.ready_cseq
            )
        });
    }
}

/// The counter in a write's own answer is not above its rank.
fn check_counters(verdict: &mut Verdict, life: &Life<'_>) {
    let Some(base) = life.base else { return };
    for write in life.changes.iter().filter(|change| change.is_write && !change.dup) {
        let Some(counter) = write.counter else { continue };
        let most = base + life.rank(write.segment, write.cseq, write.k).1;
        verdict.check(counter <= most, life.process, life.log, &[write.answered], || {
            format!("write {} made the counter {counter}, though it is number {most} at most", write.k)
        });
    }
}

/// A read shows no more than was asked, and nothing that was refused.
fn check_read(verdict: &mut Verdict, life: &Life<'_>, read: &Read<'_>) {
    let possible = |write: &&Change| {
        write.is_write
            && write.invoked < read.answered
            && (write.answered > read.answered || write.is_unknown || write.lives_in(life, read.segment))
    };
    if let Some(base) = life.base {
        let most = base + i64::try_from(life.changes.iter().filter(possible).count()).unwrap_or(i64::MAX);
        verdict.check(read.counter <= most, life.process, life.log, &[read.invoked, read.answered], || {
            format!("the counter is {}, though only {most} writes can have taken effect", read.counter)
        });
    }
    for refused in &life.refused {
        let holds = read.in_slot(refused % RING_SLOTS) != *refused;
        verdict.check(holds, life.process, life.log, &[read.answered], || {
            format!("write {refused} was refused, yet it is there")
        });
    }
}
