//! What a scenario found besides the checkers: what was exercised, how long each recovery took, and which thresholds held.
//! Filled by scenarios; told by reports.

use std::collections::BTreeMap;

use load::checkers::losses;
use serde::Serialize;

use crate::scenario::Told;

/// How long something took to be well again, each time.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Recovery {
    pub(crate) what: String,
    /// One a player, a shard or a fault, sorted.
    pub(crate) took_ms: Vec<u64>,
}

/// A bound of the plan.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Threshold {
    pub(crate) what: String,
    pub(crate) found: String,
    pub(crate) bound: String,
    pub(crate) holds: bool,
}

/// All findings of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Findings {
    pub(crate) exercised: BTreeMap<String, u64>,
    pub(crate) recoveries: Vec<Recovery>,
    pub(crate) thresholds: Vec<Threshold>,
    /// Why the run proves nothing, if it does not.
    pub(crate) vacuous: Vec<String>,
    /// Changes that were acked and did not survive, and how many of them were told.
    pub(crate) lost: u64,
    pub(crate) reported: u64,
}

impl Recovery {
    /// The value below which this share lies; 0 where there is none.
    pub(crate) fn quantile_ms(&self, percent: usize) -> u64 {
        let at = (self.took_ms.len() * percent / 100).min(self.took_ms.len().saturating_sub(1));
        self.took_ms.get(at).copied().unwrap_or(0)
    }
}

impl Findings {
    /// What every scenario tells.
    pub(crate) fn take_in(&mut self, told: &Told<'_>) {
        let losses = losses::of(told.evidence.history);
        self.lost = count(losses.len());
        self.reported = count(losses.iter().filter(|loss| loss.told).count());
        let figures = &told.load.figures;
        let audit = told.evidence.audit;
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
    pub(crate) fn must(&mut self, name: &str, count: u64) {
        self.exercised.insert(name.to_owned(), count);
        if count == 0 {
            self.vacuous.push(format!("no {name}"));
        }
    }

    /// A bound of the plan, in whatever unit.
    pub(crate) fn at_most(&mut self, what: &str, found: u64, bound: u64, unit: &str) {
        let said = |number: u64| format!("{number} {unit}").trim_end().to_owned();
        self.holds(what, found <= bound, said(found), format!("≤ {}", said(bound)));
    }

    /// A bound of the plan that is no number.
    pub(crate) fn holds(
        &mut self,
        what: &str,
        holds: bool,
        found: impl Into<String>,
        bound: impl Into<String>,
    ) {
        let (what, found, bound) = (what.to_owned(), found.into(), bound.into());
        self.thresholds.push(Threshold { what, found, bound, holds });
    }

    /// How long something took, each time.
    pub(crate) fn recovery(&mut self, what: &str, mut took_ms: Vec<u64>) -> Recovery {
        took_ms.sort_unstable();
        let recovery = Recovery { what: what.to_owned(), took_ms };
        self.recoveries.push(recovery.clone());
        recovery
    }
}

pub(crate) fn count(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}
