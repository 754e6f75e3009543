//! C12: latency is what it was, soon after a fault.
//! Pure; called by [`super::judge_faults`].

use std::collections::HashMap;

use super::{Evidence, Verdict};
use crate::history::{History, Notice, Operation, What};

/// How many times the latency of before, and how much on top of it, is still the same: the machine has others to serve.
const FACTOR: u64 = 5;
const SLACK_US: u64 = 250_000;
/// Fewer answers have no p99.
const ANSWERS_MIN: usize = 200;

/// Judges the whole run: before the first incident, and after the last one's players had to be served again.
#[must_use]
pub fn check(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::new("C12", "latency recovers");
    let first = evidence.incidents.iter().map(|incident| incident.begun_us).min().unwrap_or(u64::MAX);
    let last = evidence.incidents.iter().map(|incident| incident.healed_us).max().unwrap_or(u64::MAX);
    let settled = last.saturating_add(evidence.bounds.served_within_ms * 1_000);
    let before = p99_us(evidence.history, 0, first);
    let after = p99_us(evidence.history, settled, u64::MAX);
    let (Some(before), Some(after)) = (before, after) else {
        verdict.not_exercised =
            Some(format!("fewer than {ANSWERS_MIN} writes before the first fault, or after the last"));
        return verdict;
    };
    verdict.hold(after <= before * FACTOR + SLACK_US, || {
        format!("p99 of writes was {} ms before, and {} ms after", before / 1_000, after / 1_000)
    });
    verdict
}

/// The p99 of writes that were due in this time and found their link standing, in microseconds; none of too few.
#[must_use]
pub fn p99_us(history: &History, from_us: u64, to_us: u64) -> Option<u64> {
    let mut took: Vec<u64> = Vec::new();
    for (_, log) in history.processes() {
        let mut asked: HashMap<u64, u64> = HashMap::new();
        for entry in log {
            match &entry.what {
                What::Invoke { id, operation: Operation::Write { .. } } => {
                    asked.insert(*id, entry.at_us);
                }
                What::Ok { id, .. } => {
                    let due = asked.remove(id).filter(|due| (from_us..to_us).contains(due));
                    took.extend(due.map(|due| entry.at_us.saturating_sub(due)));
                }
                What::Notice { notice: Notice::Ready(_) | Notice::Down { .. } } => asked.clear(),
                _ => {}
            }
        }
    }
    took.sort_unstable();
    (took.len() >= ANSWERS_MIN).then(|| took.get(took.len() * 99 / 100).copied()).flatten()
}
