//! The promises of CONSISTENCY, judged over a history: pure functions, one file a promise. Called at the end of a run.
//! Never asks the server; what a history does not show is not judged.

pub mod durable;
pub mod expiry;
pub mod guarantees;
pub mod lives;
pub mod once;
pub mod pushes;
pub mod rollback;
#[cfg(test)]
mod tests;

use serde::Serialize;

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
}

/// One broken promise.
#[derive(Debug, Clone, Serialize)]
pub struct Violation {
    /// Which bot.
    pub process: u32,
    /// What is wrong.
    pub what: String,
    /// What led to it, from the bot's own log.
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
            self.violations.push(Violation { process, what: what(), excerpt: excerpt(log, places) });
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
