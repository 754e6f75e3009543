//! The promises of CONSISTENCY, judged over a history, and for a run under faults over what was seen from outside, too: pure
//! functions, one file a promise. Called at the end of a run. Never asks the server; what is not shown is not judged.

pub mod backlog;
pub mod durable;
pub mod expiry;
pub mod fence;
pub mod footprint;
pub mod guarantees;
pub mod homes;
pub mod lives;
pub mod losses;
pub mod once;
pub mod policy;
pub mod pushes;
pub mod recovery;
pub mod rollback;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_faults;
pub mod truth;

use serde::Serialize;

use crate::audit::{Audit, Incident};
use crate::history::{Entry, History};
use lives::Life;

/// Violations kept with their excerpt, a checker; further ones are only counted.
const VIOLATIONS_KEPT: usize = 10;
/// Entries of a log shown around each place of a violation.
const EXCERPT_AROUND: usize = 2;
/// Entries shown of one violation.
const EXCERPT_MAX: usize = 30;

/// What a checker found.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// `C1` and so on.
    pub checker: &'static str,
    /// What is promised.
    pub promise: &'static str,
    /// Comparisons made.
    pub checks: u64,
    /// How many of them held what one process was told against what another did.
    #[serde(skip_serializing_if = "is_zero")]
    pub compared: u64,
    /// How many failed.
    pub broken: u64,
    /// The first of them.
    pub violations: Vec<Violation>,
    /// Why it could not be judged, if it could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_exercised: Option<String>,
    /// Which part of the promise nothing was compared of, and why, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
}

/// One broken promise.
#[derive(Debug, Clone, Serialize)]
pub struct Violation {
    /// Which bot; none where it was seen from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    /// What is wrong.
    pub what: String,
    /// What led to it, from the bot's own log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excerpt: Vec<Entry>,
}

impl Verdict {
    fn new(checker: &'static str, promise: &'static str) -> Self {
        Self {
            checker,
            promise,
            checks: 0,
            compared: 0,
            broken: 0,
            violations: Vec::new(),
            not_exercised: None,
            left_out: None,
        }
    }

    /// Why it says nothing of the run, if it does not.
    #[must_use]
    pub fn silence(&self) -> Option<&str> {
        self.not_exercised.as_deref().or_else(|| (self.checks == 0).then_some("nothing was compared"))
    }

    /// What of it was not judged and why, for people.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        let part = self.not_exercised.as_ref().filter(|_| self.checks > 0).or(self.left_out.as_ref());
        match (&self.not_exercised, part) {
            (Some(why), None) => Some(format!("not judged: {why}")),
            (_, Some(why)) => Some(format!("judged in part: {why}")),
            (None, None) => None,
        }
    }

    /// Makes one comparison. `places` are positions in the log that show it.
    fn check(
        &mut self,
        holds: bool,
        process: u32,
        log: &[Entry],
        places: &[usize],
        what: impl FnOnce() -> String,
    ) {
        self.checks += 1;
        if holds {
            return;
        }
        self.broken += 1;
        if self.violations.len() < VIOLATIONS_KEPT {
            let (process, excerpt) = (Some(process), excerpt(log, places));
            self.violations.push(Violation { process, what: what(), excerpt });
        }
    }

    /// Makes one comparison of what was seen from outside.
    fn hold(&mut self, holds: bool, what: impl FnOnce() -> String) {
        self.checks += 1;
        if holds {
            return;
        }
        self.broken += 1;
        if self.violations.len() < VIOLATIONS_KEPT {
            self.violations.push(Violation { process: None, what: what(), excerpt: Vec::new() });
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if wants a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn excerpt(log: &[Entry], places: &[usize]) -> Vec<Entry> {
    let shown = |at: &usize| places.iter().any(|place| at.abs_diff(*place) <= EXCERPT_AROUND);
    (0..log.len()).filter(shown).filter_map(|at| log.get(at).cloned()).take(EXCERPT_MAX).collect()
}

/// How far a run under faults may depart from a quiet one.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// C7: how long after healing the backlog may be there, ms.
    pub drained_within_ms: u64,
    /// C10: how long after a change all must know of it, ms.
    pub converged_within_ms: u64,
    /// How long a player stays online to others after her last link, ms.
    pub presence_grace_ms: u64,
    /// How long after a fault its players may take to be served again: leases must run out first, ms. Latency is compared
    /// after that.
    pub served_within_ms: u64,
}

/// All that is known of a run under faults.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// What bots saw.
    pub history: &'a History,
    /// What was seen from outside, on the same clock.
    pub audit: &'a Audit,
    /// What was done, in order.
    pub incidents: &'a [Incident],
    /// The shard of each bot's player; the place is the process's number.
    pub shards: &'a [u16],
    /// What is allowed.
    pub bounds: Bounds,
    /// How long the run was.
    pub run_ms: u64,
}

/// Judges a history: every checker over every log. `run_ms` is how long the run was.
#[must_use]
pub fn judge(history: &History, run_ms: u64) -> Vec<Verdict> {
    let lives: Vec<Life<'_>> =
        history.processes().flat_map(|(process, log)| lives::of(process, log)).collect();
    vec![
        guarantees::check(&lives),
        durable::check(&lives),
        rollback::check(&lives),
        once::check(&lives),
        expiry::check(&lives, run_ms),
        pushes::check(history, &lives),
    ]
}

/// Why a run proves nothing: each checker that had nothing to check, but for those that may be silent there.
#[must_use]
pub fn silences(verdicts: &[Verdict], may_be_silent: impl Fn(&str) -> bool) -> Vec<String> {
    let demanded = verdicts.iter().filter(|verdict| !may_be_silent(verdict.checker));
    demanded
        .filter_map(|verdict| verdict.silence().map(|why| format!("{} says nothing: {why}", verdict.checker)))
        .collect()
}

/// Judges what happened under faults: the checkers that need more than the history. [`judge`] has judged that.
#[must_use]
pub fn judge_faults(evidence: &Evidence<'_>) -> Vec<Verdict> {
    vec![
        homes::check(evidence),
        fence::check(evidence.audit, evidence.incidents, evidence.shards),
        backlog::check(evidence),
        policy::of_bots(),
        truth::check(evidence),
        footprint::check(evidence.audit, evidence.incidents),
        recovery::check(evidence),
    ]
}
