//! What a run under faults found besides the checkers: what was exercised, how long each recovery took, and which thresholds
//! held. Filled by whoever breaks things; told by reports.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::checkers::{Evidence, losses};
use crate::figures::Figures;

/// How long something took to be well again, each time.
#[derive(Debug, Clone, Serialize)]
pub struct Recovery {
    /// What was well again.
    pub what: String,
    /// One a player, a shard or a fault, sorted.
    pub took_ms: Vec<u64>,
    /// Why nobody knows how long, where nobody does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_judged: Option<&'static str>,
}

/// A bound of the plan.
#[derive(Debug, Clone, Serialize)]
pub struct Threshold {
    /// Of what.
    pub what: String,
    /// What it came to, with its unit.
    pub found: String,
    /// What is allowed, with its unit.
    pub bound: String,
    /// Whether it does.
    pub holds: bool,
}

/// All findings of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Findings {
    /// What happened, and how often.
    pub exercised: BTreeMap<String, u64>,
    /// How long what took to be well again.
    pub recoveries: Vec<Recovery>,
    /// Bounds, held or missed.
    pub thresholds: Vec<Threshold>,
    /// Why the run proves nothing, if it does not.
    pub vacuous: Vec<String>,
    /// Changes that were acked and did not survive.
    pub lost: u64,
    /// How many of them were told.
    pub reported: u64,
}

impl Recovery {
    /// The value below which this share lies, ms; 0 where there is none. [`Findings::within`] does not take that for quick.
    #[must_use]
    pub fn quantile_ms(&self, percent: usize) -> u64 {
        // Of two the median is the lower one: no share of them is told to have taken longer than it did.
        let at = (self.took_ms.len() * percent).div_ceil(100).saturating_sub(1);
        self.took_ms.get(at).copied().unwrap_or(0)
    }
}

impl Findings {
    /// What every run tells.
    pub fn take_in(&mut self, evidence: &Evidence<'_>, figures: &Figures) {
        let losses = losses::of(evidence.history);
        self.lost = count(losses.len());
        self.reported = count(losses.iter().filter(|loss| loss.told).count());
        let audit = evidence.audit;
        for (name, told) in [
            ("operations", figures.count("operations")),
            ("durable acks", figures.count("durable_acks")),
            ("provisional acks", figures.count("provisional_acks")),
            ("resumes elsewhere", figures.count("resumes_elsewhere")),
            ("rollback notices", figures.count("rollback_notices")),
            ("shards taken", audit.growth("hearth_shards_taken_total", "")),
            ("shards written anew", audit.growth("hearth_repairs_total", "")),
            ("fenced commits", audit.growth("hearth_commits_total", "\"fenced\"")),
            ("looks into the store", count(audit.stores().count())),
        ] {
            self.exercised.insert(name.to_owned(), told);
        }
    }

    /// Something that must have happened: without it the run proves nothing.
    pub fn must(&mut self, name: &str, count: u64) {
        self.exercised.insert(name.to_owned(), count);
        if count == 0 {
            self.vacuous.push(format!("no {name}"));
        }
    }

    /// A bound of the plan, in whatever unit.
    pub fn at_most(&mut self, what: &str, found: u64, bound: u64, unit: &str) {
        let said = |number: u64| format!("{number} {unit}").trim_end().to_owned();
        self.holds(what, found <= bound, said(found), format!("≤ {}", said(bound)));
    }

    /// A bound of the plan on how long a recovery took in this share of the cases, ms. One that never came is too late.
    pub fn within(&mut self, what: &str, recovery: &Recovery, percent: usize, bound_ms: u64) {
        let took_ms = recovery.quantile_ms(percent);
        let came = !recovery.took_ms.is_empty();
        let found = if came { format!("{took_ms} ms") } else { "never".to_owned() };
        self.holds(what, came && took_ms <= bound_ms, found, format!("≤ {bound_ms} ms"));
    }

    /// A bound of the plan that is no number.
    pub fn holds(&mut self, what: &str, holds: bool, found: impl Into<String>, bound: impl Into<String>) {
        let (what, found, bound) = (what.to_owned(), found.into(), bound.into());
        self.thresholds.push(Threshold { what, found, bound, holds });
    }

    /// How long something took, each time.
    pub fn recovery(&mut self, what: &str, mut took_ms: Vec<u64>) -> Recovery {
        took_ms.sort_unstable();
        let recovery = Recovery { what: what.to_owned(), took_ms, not_judged: None };
        self.recoveries.push(recovery.clone());
        recovery
    }
}

/// A length as a number that is told.
#[must_use]
pub fn count(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_that_never_came_is_not_quick() {
        let mut findings = Findings::default();
        for took_ms in [vec![], vec![9, 3], vec![3, 11]] {
            let recovery = findings.recovery("it is well again", took_ms);
            findings.within("it is well again", &recovery, 100, 10);
        }
        let holds: Vec<_> = findings.thresholds.iter().map(|t| (t.holds, t.found.as_str())).collect();
        assert_eq!(holds, [(false, "never"), (true, "9 ms"), (false, "11 ms")]);
    }

    #[test]
    fn a_share_of_a_few_is_the_one_that_it_ends_with() {
        let recovery = Findings::default().recovery("it", vec![5_018, 3_700]);
        let quantiles = [50, 51, 99, 100].map(|percent| recovery.quantile_ms(percent));
        assert_eq!(quantiles, [3_700, 5_018, 5_018, 5_018]);
        let hundred = Findings::default().recovery("it", (1..=100).collect());
        assert_eq!([0, 1, 50, 99, 100].map(|percent| hundred.quantile_ms(percent)), [1, 1, 50, 99, 100]);
    }

    #[test]
    fn what_must_have_happened_and_did_not_makes_a_run_vacuous() {
        let mut findings = Findings::default();
        findings.must("faults", 2);
        assert!(findings.vacuous.is_empty());
        findings.must("shards given back", 0);
        assert_eq!(findings.vacuous, ["no shards given back"]);
    }
}
