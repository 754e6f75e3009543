//! C7: what waited for the store while it was away is written soon after it is back.
//! Pure; called by [`super::judge_faults`], and by reports for how long it took.

use std::collections::{BTreeMap, BTreeSet};

use super::{Evidence, Verdict};
use crate::audit::{Audit, Incident, NodeWord, Sample};

/// The oldest change waits no longer than this where there is no backlog: some intervals of the flush, ms.
pub const DRAINED_LAG_MS: u64 = 1_000;
/// Whoever is there speaks so soon, as a rule; and who had its hands full, so late.
const AT_ONCE_US: u64 = 1_000_000;
const SPEAKS_WITHIN_US: u64 = 30_000_000;

/// Judges each incident that no other one followed too soon. One that was over while another still lasted is judged with that.
#[must_use]
pub fn check(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::new("C7", "the backlog is drained");
    for (number, incident) in evidence.incidents.iter().enumerate() {
        let healed = incident.healed_us;
        let others = || evidence.incidents.iter().enumerate().filter(|(other, _)| *other != number);
        if incident.left_alone
            || others().any(|(_, other)| other.begun_us <= healed && healed < other.healed_us)
        {
            continue;
        }
        let next = others().map(|(_, other)| other.begun_us).filter(|begun| *begun > healed).min();
        let bound_us = evidence.bounds.drained_within_ms * 1_000;
        let took = drained_after_us(evidence.audit, incident);
        // Where the next one came too soon nobody knows when it would have been.
        let next = next.filter(|next| *next < healed.saturating_add(bound_us));
        if next.is_some_and(|next| took.is_none_or(|took| healed.saturating_add(took) > next)) {
            continue;
        }
        verdict.hold(took.is_some_and(|took| took <= bound_us), || {
            let what = &incident.what;
            match took {
                Some(took) => format!("after {what} the backlog was there for {} ms", took / 1_000),
                None => format!("after {what} the backlog was never drained"),
            }
        });
    }
    let is_left = evidence.incidents.iter().any(|incident| incident.left_alone);
    if is_left && verdict.checks > 0 {
        verdict.left_out = Some("the run was broken off after the last fault".to_owned());
    }
    if verdict.checks == 0 {
        let why = if is_left { "the run was broken off" } else { "no fault healed in time" };
        verdict.not_exercised = Some(why.to_owned());
    }
    verdict
}

/// How long after healing no node had a backlog any more, microseconds; none if that never came. A node counts if it speaks
/// within a second of healing, or later than that in the life that it had before: then it only did not get to it.
#[must_use]
pub fn drained_after_us(audit: &Audit, incident: &Incident) -> Option<u64> {
    let healed = incident.healed_us;
    let lived: BTreeSet<&str> =
        audit.nodes().filter(|(sample, _)| sample.at_us < healed).map(|(_, word)| &*word.boot).collect();
    let after = || audit.nodes().filter(|(sample, _)| sample.since_us >= healed);
    let is_due = |sample: &Sample, word: &NodeWord| {
        let since = sample.at_us.saturating_sub(healed);
        since <= AT_ONCE_US || since <= SPEAKS_WITHIN_US && lived.contains(&*word.boot)
    };
    let due = after().filter(|(sample, word)| is_due(sample, word));
    let mut lags: BTreeMap<&str, Option<u64>> = due.map(|(_, word)| (&*word.node, None)).collect();
    for (sample, word) in after() {
        lags.insert(&word.node, Some(word.flush_lag_ms()));
        if lags.values().all(|lag| lag.is_some_and(|lag| lag <= DRAINED_LAG_MS)) {
            return Some(sample.at_us - healed);
        }
    }
    None
}
