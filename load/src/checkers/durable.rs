//! C2: what was acked `durable`, or was told durable by a notice, is never lost, told or not.
//! Pure; called by [`super::judge`].

use super::Verdict;
use super::lives::{Change, End, Life};
use crate::history::Notice;

/// Judges every life.
#[must_use]
pub fn check(lives: &[Life<'_>]) -> Verdict {
    let mut verdict = Verdict::new("C2", "no durable write is lost");
    for life in lives {
        check_rollbacks(&mut verdict, life);
        super::rollback::check_reads(&mut verdict, life, "durable", |change, at| {
            change.durable_from.is_some_and(|from| from < at)
        });
        check_end(&mut verdict, life);
    }
    verdict
}

/// No rollback reaches below a durable change.
fn check_rollbacks(verdict: &mut Verdict, life: &Life<'_>) {
    for (before, segment) in life.segments.iter().skip(1).enumerate() {
        let lost = |change: &&Change| {
            change.durable_from.is_some_and(|from| from < segment.start)
                && change.lives_in(life, before)
                && change.cseq > segment.survived
        };
        let first = life.changes.iter().filter(lost).min_by_key(|change| change.cseq);
        let places = [first.map_or(segment.start, |change| change.answered), segment.start];
        verdict.check(first.is_none(), life.process, life.log, &places, || {
            format!(
                "change {} was durable, yet only {} survived",
                first.map_or(0, |change| change.cseq),
                segment.survived
            )
        });
    }
}

/// A session with durable changes does not end before its time.
fn check_end(verdict: &mut Verdict, life: &Life<'_>) {
    let End::Turned(at, Notice::Turned { claim: Some(_), .. }) = life.end else { return };
    let Some(durable) = life.changes.iter().rev().find(|change| change.durable_from.is_some()) else {
        return;
    };
    verdict.check(life.ended_early().is_none(), life.process, life.log, &[durable.answered, at], || {
        format!("durable changes up to {} went with a session that still had time", durable.cseq)
    });
}
