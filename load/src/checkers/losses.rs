//! What was acknowledged and then lost, and whether it was told: figures for reports. C2 and C3 judge.
//! Pure; called by reports.

use super::lives::{self, Change, Life};
use crate::history::History;

/// A change that was acked and did not survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Whose.
    pub process: u32,
    /// Its number.
    pub cseq: u64,
    /// When it was acked, microseconds since the run began.
    pub acked_us: u64,
    /// When its loss showed.
    pub shown_us: u64,
    /// The server said so.
    pub told: bool,
    /// It was known to be durable.
    pub durable: bool,
}

/// All losses of a run.
#[must_use]
pub fn of(history: &History) -> Vec<Loss> {
    let lives = history.processes().flat_map(|(process, log)| lives::of(process, log));
    lives.flat_map(|life| of_life(&life)).collect()
}

fn of_life(life: &Life<'_>) -> Vec<Loss> {
    let at_us = |place: usize| life.log.get(place).map_or(0, |entry| entry.at_us);
    let loss = |change: &Change, shown: usize, told: bool| Loss {
        process: life.process,
        cseq: change.cseq,
        acked_us: at_us(change.answered),
        shown_us: at_us(shown),
        told,
        durable: change.durable_from.is_some_and(|from| from < shown),
    };
    let mut losses = Vec::new();
    for (before, segment) in life.segments.iter().skip(1).enumerate() {
        let lost = life.changes.iter().filter(|change| {
            change.acked_before(segment.start)
                && change.segment <= before
                && change.lives_in(life, before)
                && change.cseq > segment.survived
        });
        losses.extend(lost.map(|change| loss(change, segment.start, segment.told)));
    }
    // Of a session that is gone before its time nothing is left.
    if let Some(early) = life.ended_early() {
        let last = life.segments.len().saturating_sub(1);
        let lost =
            life.changes.iter().filter(|change| change.acked_before(early.at) && change.lives_in(life, last));
        losses.extend(lost.map(|change| loss(change, early.at, early.told)));
    }
    losses
}
