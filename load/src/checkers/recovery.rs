//! C12: latency is what it was, soon after a fault.
//! Pure; called by [`super::judge_faults`].

use std::collections::{BTreeMap, HashMap};

use super::{Evidence, Verdict};
use crate::history::{Entry, History, Notice, Operation, What};

/// How many times the latency of before, and how much on top of it, is still the same: the machine has others to serve. Where
/// more threads of others want to run after than before, it may be longer by as much.
const FACTOR: u64 = 5;
const SLACK_US: u64 = 250_000;
/// Fewer answers have no p99.
const ANSWERS_MIN: usize = 200;
/// Latency is compared by windows of this length, the median of them: a moment in which the machine stood still is none of
/// the server's.
const WINDOW_US: u64 = 1_000_000;

/// Judges the whole run: before the first incident, and after the last one's players had to be served again.
#[must_use]
pub fn check(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::new("C12", "latency recovers");
    let first = evidence.incidents.iter().map(|incident| incident.begun_us).min().unwrap_or(u64::MAX);
    let last = evidence.incidents.iter().map(|incident| incident.healed_us).max().unwrap_or(u64::MAX);
    let settled = last.saturating_add(evidence.bounds.served_within_ms * 1_000);
    let before = typical_p99_us(evidence.history, 0, first);
    let after = typical_p99_us(evidence.history, settled, u64::MAX);
    let (Some(before), Some(after)) = (before, after) else {
        verdict.not_exercised =
            Some(format!("fewer than {ANSWERS_MIN} writes before the first fault, or after the last"));
        return verdict;
    };
    let busier = evidence.audit.busier(0..first, settled..u64::MAX);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a bound in microseconds"
    )]
    let most = ((before * FACTOR + SLACK_US) as f64 * busier) as u64;
    verdict.hold(after <= most, || {
        let ms = |us: u64| us / 1_000;
        let (before, after, most) = (ms(before), ms(after), ms(most));
        format!("p99 of writes was {before} ms before, and {after} ms after, on a machine {busier:.1} times as busy; {most} are allowed")
    });
    verdict
}

/// The median of the p99 of each window, of writes that were due in this time and found their link standing; in microseconds,
/// and none of too few. One that lost its link on the way waits on, unless the bot did that itself; one that was never answered
/// took until the end of its log.
#[must_use]
pub fn typical_p99_us(history: &History, from_us: u64, to_us: u64) -> Option<u64> {
    let mut windows: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (due, took) in waits_within(history, from_us, to_us)? {
        windows.entry(due / WINDOW_US).or_default().push(took);
    }
    let mut p99s: Vec<u64> = windows.into_values().filter_map(p99_of).collect();
    p99s.sort_unstable();
    p99s.get(p99s.len() / 2).copied()
}

/// The p99 of all these writes together, in which a moment shows that most windows do not have; in microseconds, and none of too
/// few.
#[must_use]
pub fn p99_us(history: &History, from_us: u64, to_us: u64) -> Option<u64> {
    p99_of(waits_within(history, from_us, to_us)?.into_iter().map(|(_, took)| took).collect())
}

fn p99_of(mut took: Vec<u64>) -> Option<u64> {
    took.sort_unstable();
    took.get(took.len() * 99 / 100).copied()
}

/// Of each write that was due in this time: when, and how long it took. None of too few.
fn waits_within(history: &History, from_us: u64, to_us: u64) -> Option<Vec<(u64, u64)>> {
    let all = history.processes().flat_map(|(_, log)| waits(log));
    let chosen: Vec<(u64, u64)> = all.filter(|(due, _)| (from_us..to_us).contains(due)).collect();
    (chosen.len() >= ANSWERS_MIN).then_some(chosen)
}

/// Of each write that found its link standing: when it was due, and how long it took.
fn waits(log: &[Entry]) -> Vec<(u64, u64)> {
    let mut waits = Vec::new();
    let mut asked: HashMap<u64, u64> = HashMap::new();
    let mut is_up = false;
    for entry in log {
        match &entry.what {
            What::Invoke { id, operation: Operation::Write { .. } } if is_up => {
                asked.insert(*id, entry.at_us);
            }
            What::Ok { id, .. } => {
                waits.extend(asked.remove(id).map(|due| (due, entry.at_us.saturating_sub(due))));
            }
            // Refused, or given up: no answer whose time would count.
            What::Fail { id, .. } | What::Unknown { id, .. } => _ = asked.remove(id),
            What::Notice { notice: Notice::Ready(_) } => is_up = true,
            What::Notice { notice: Notice::Down { on_purpose, .. } } => {
                is_up = false;
                if on_purpose.is_some() {
                    asked.clear();
                }
            }
            _ => {}
        }
    }
    let end_us = log.last().map_or(0, |entry| entry.at_us);
    waits.extend(asked.into_values().map(|due| (due, end_us.saturating_sub(due))));
    waits
}
