//! C7: what waited for the store while it was away is written soon after it is back.
//! Pure; called by [`super::judge_faults`], and by reports for how long it took.

use std::collections::BTreeMap;

use super::{Evidence, Verdict};
use crate::audit::{Audit, Incident};

/// The oldest change waits no longer than this where there is no backlog: some intervals of the flush.
const DRAINED_LAG_MS: u64 = 1_000;

/// Judges each incident that no other one followed too soon.
#[must_use]
pub fn check(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::new("C7", "the backlog is drained");
    for (number, incident) in evidence.incidents.iter().enumerate() {
        let next = evidence.incidents.get(number + 1).map_or(u64::MAX, |next| next.begun_us);
        let bound_us = evidence.bounds.drained_within_ms * 1_000;
        let took = drained_after_us(evidence.audit, incident);
        // Where the next one came too soon nobody knows when it would have been.
        let came_too_soon = next < incident.healed_us.saturating_add(bound_us);
        if came_too_soon && took.is_none_or(|took| incident.healed_us.saturating_add(took) > next) {
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
    if verdict.checks == 0 {
        verdict.not_exercised = Some("no fault healed in time".to_owned());
    }
    verdict
}

/// How long after healing no node had a backlog any more, microseconds; none if that never came.
#[must_use]
pub fn drained_after_us(audit: &Audit, incident: &Incident) -> Option<u64> {
    let mut lags: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    for (sample, word) in audit.nodes().filter(|(sample, _)| sample.since_us >= incident.healed_us) {
        if sample.at_us <= incident.healed_us + 1_000_000 {
            lags.entry(&word.node).or_default();
        }
    }
    for (sample, word) in audit.nodes().filter(|(sample, _)| sample.since_us >= incident.healed_us) {
        lags.insert(&word.node, Some(word.flush_lag_ms()));
        if lags.values().all(|lag| lag.is_some_and(|lag| lag <= DRAINED_LAG_MS)) {
            return Some(sample.at_us - incident.healed_us);
        }
    }
    None
}
