//! The report of a run: what was tried, what it exercised, what was lost, what of it was told, how long each recovery took, which
//! thresholds held. For people as text and as a page, for machines as JSON; the histories stand beside it as JSON lines.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::findings::{Findings, Recovery};
use super::page::{self, Picture};
use super::timeline::Mark;
use crate::audit::{Audit, Incident};
use crate::checkers::Verdict;
use crate::history::History;
use crate::report::Report as LoadReport;

/// Runs of one seed in one folder at most.
const FOLDERS_MAX: u32 = 10_000;

/// What a run is called.
#[derive(Debug, Clone, Serialize)]
pub struct Head {
    /// `F1`, `chaos`.
    pub name: String,
    /// What is tried.
    pub title: String,
    /// The same seed makes the same choices.
    pub seed: u64,
    /// The cluster's lease, ms.
    pub ttl_ms: u64,
    /// Words that play it again.
    pub again: String,
    /// Checkers whose promise does not cover what is done.
    pub excused: &'static [&'static str],
}

/// What a run has seen: it stands beside the report.
#[derive(Debug)]
pub struct Sight {
    /// What bots saw.
    pub history: History,
    /// What was seen from outside.
    pub audit: Audit,
}

/// Everything that is told about a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What it was.
    #[serde(flatten)]
    pub head: Head,
    /// Every promise and every threshold held, and the run exercised them.
    is_passed: bool,
    /// Why it came to no end, if it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken_off: Option<String>,
    /// What was found besides the checkers.
    pub findings: Findings,
    /// What the checkers found.
    pub verdicts: Vec<Verdict>,
    /// What was done and noticed.
    pub marks: Vec<Mark>,
    /// What was broken.
    pub incidents: Vec<Incident>,
    /// What is still broken, and what its owner can do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_broken: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<LoadReport>,
    #[serde(skip)]
    sight: Option<Sight>,
}

impl Report {
    /// The report of a run that came to no end.
    #[must_use]
    pub fn broken_off(head: Head, why: String) -> Self {
        Self {
            head,
            is_passed: false,
            broken_off: Some(why),
            findings: Findings::default(),
            verdicts: Vec::new(),
            marks: Vec::new(),
            incidents: Vec::new(),
            left_broken: Vec::new(),
            load: None,
            sight: None,
        }
    }

    /// The report of a run whose bots have gone.
    #[must_use]
    pub fn of(
        head: Head,
        (findings, broken_off): (Findings, Option<String>),
        verdicts: Vec<Verdict>,
        load: LoadReport,
        (marks, incidents): (Vec<Mark>, Vec<Incident>),
        sight: Sight,
    ) -> Self {
        let (load, sight) = (Some(load), Some(sight));
        let left_broken = Vec::new();
        let is_passed = false;
        let mut report = Self {
            head,
            is_passed,
            broken_off,
            findings,
            verdicts,
            marks,
            incidents,
            left_broken,
            load,
            sight,
        };
        report.is_passed = report.faults().is_empty();
        report
    }

    /// The same, of a run that leaves this broken: it has not passed.
    #[must_use]
    pub fn leaving(mut self, left_broken: Vec<String>) -> Self {
        self.left_broken = left_broken;
        self.is_passed = self.is_passed && self.left_broken.is_empty();
        self
    }

    /// Whether every promise and every threshold held, and the run exercised them.
    #[must_use]
    pub const fn passed(&self) -> bool {
        self.is_passed
    }

    /// Whether it came to its end, with every bot, and no checker found a promise broken. A run that failed all the same was too slow, or showed
    /// nothing.
    #[must_use]
    pub fn promises_held(&self) -> bool {
        let is_whole = |load: &LoadReport| load.unfinished == 0 && load.sent_away.is_empty();
        let has_ended = self.broken_off.is_none() && self.load.as_ref().is_some_and(is_whole);
        has_ended && self.broken_verdicts().next().is_none()
    }

    /// Everything that keeps it from passing.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.broken_off.iter().map(|why| format!("broken off: {why}")).collect();
        let missed = self.findings.thresholds.iter().filter(|threshold| !threshold.holds);
        faults.extend(missed.map(|t| format!("{}: {}, {} was to hold", t.what, t.found, t.bound)));
        faults.extend(self.findings.vacuous.iter().map(|why| format!("vacuous: {why}")));
        for verdict in self.broken_verdicts() {
            let first = verdict.violations.first().map_or("", |violation| &violation.what);
            faults.push(format!(
                "{}: {} of {} checks broken, such as: {first}",
                verdict.checker, verdict.broken, verdict.checks
            ));
        }
        if let Some(load) = &self.load {
            faults.extend(load.vacuous.iter().map(|why| format!("vacuous: {why}")));
            let sent =
                load.sent_away.iter().map(|(why, count)| format!("{count} bots were sent away: {why}"));
            faults.extend(sent);
            if load.unfinished > 0 {
                faults.push(format!("{} bots could not read their last writes back", load.unfinished));
            }
        }
        faults
    }

    fn broken_verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts
            .iter()
            .filter(|verdict| verdict.broken > 0 && !self.head.excused.contains(&verdict.checker))
    }

    /// Comparisons that checkers made.
    #[must_use]
    pub fn checks(&self) -> u64 {
        self.verdicts.iter().map(|verdict| verdict.checks).sum()
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let exercised = self.findings.exercised.iter().filter(|(_, count)| **count > 0);
        let exercised: Vec<_> = exercised.map(|(name, count)| format!("{name} {count}")).collect();
        let _ = writeln!(out, "exercised: {}", exercised.join(" · "));
        let Findings { lost, reported, .. } = self.findings;
        let _ = writeln!(out, "lost: {lost} acked changes · told: {reported}");
        for recovery in &self.findings.recoveries {
            let _ = writeln!(out, "{}: {}", recovery.what, took(recovery));
        }
        for threshold in &self.findings.thresholds {
            let word = if threshold.holds { "holds " } else { "MISSED" };
            let _ = writeln!(out, "  {word}  {}: {} ({})", threshold.what, threshold.found, threshold.bound);
        }
        for verdict in &self.verdicts {
            let Verdict { checker, promise, checks, broken, .. } = verdict;
            let _ = writeln!(out, "  {checker:<7} {promise:<76}{checks:>9} checks {broken:>5} broken");
            if let Some(remark) = verdict.remark() {
                let _ = writeln!(out, "          {remark}");
            }
            for violation in &verdict.violations {
                let who = violation.process.map_or_else(String::new, |process| format!("bot {process}: "));
                let _ = writeln!(out, "          {who}{}", violation.what);
            }
        }
        for fault in self.faults() {
            let _ = writeln!(out, "{fault}");
        }
        let word = if self.passed() { "PASSED" } else { "FAILED" };
        let _ = write!(out, "{word}  {}", self.head.again);
        // Last, since somebody has to do something.
        for wrong in &self.left_broken {
            let _ = write!(out, "\nstill broken: {wrong}");
        }
        out
    }

    /// Writes everything into a folder of its own in this one; which. It is called after the run and its seed, and numbered where
    /// an earlier run of that seed has left one.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, out: &Path) -> std::io::Result<PathBuf> {
        std::fs::create_dir_all(out)?;
        let folder = own_folder(out, &format!("{}-{}", self.head.name, self.head.seed))?;
        let mut report = BufWriter::new(File::create(folder.join("report.json"))?);
        serde_json::to_writer_pretty(&mut report, self)?;
        report.flush()?;
        if let Some(Sight { history, audit }) = &self.sight {
            history.write(BufWriter::new(File::create(folder.join("history.jsonl"))?))?;
            audit.write(BufWriter::new(File::create(folder.join("audit.jsonl"))?))?;
            let picture = Picture::of(history, audit);
            std::fs::write(folder.join("report.html"), page::page(self, &picture))?;
        }
        Ok(folder)
    }
}

/// A folder that was not there before.
fn own_folder(out: &Path, name: &str) -> std::io::Result<PathBuf> {
    let mut folder = out.join(name);
    for number in 2..=FOLDERS_MAX {
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                folder = out.join(format!("{name}-{number}"))
            }
            made => return made.map(|()| folder),
        }
    }
    std::fs::create_dir(&folder).map(|()| folder)
}

/// How long a recovery took, in words.
#[must_use]
pub fn took(recovery: &Recovery) -> String {
    match recovery.took_ms.as_slice() {
        [] => recovery.not_judged.map_or_else(|| "never".to_owned(), |why| format!("not judged: {why}")),
        [one] => format!("{one} ms"),
        all => {
            let [p50, p99, max] = [50, 99, 100].map(|percent| recovery.quantile_ms(percent));
            format!("{} of them, {p50} ms (p50), {p99} ms (p99), {max} ms (last)", all.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let head = Head {
            name: "chaos".to_owned(),
            title: String::new(),
            seed: 5,
            ttl_ms: 6_000,
            again: "chaos --seed 5".to_owned(),
            excused: &[],
        };
        Report::broken_off(head, "it was told to end".to_owned())
    }

    #[test]
    fn a_second_run_of_a_seed_leaves_the_first_ones_folder_alone() {
        let out = tempfile::tempdir().unwrap();
        let names: Vec<_> = (0..3).map(|_| report().write(&out.path().join("new")).unwrap()).collect();
        let names: Vec<_> =
            names.iter().map(|folder| folder.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["chaos-5", "chaos-5-2", "chaos-5-3"]);
    }

    #[test]
    fn what_is_still_broken_is_said_last() {
        let report = report().leaving(vec!["node-2 is not running; start it yourself".to_owned()]);
        assert!(report.text().ends_with("\nstill broken: node-2 is not running; start it yourself"));
        assert!(!report.passed());
    }
}
