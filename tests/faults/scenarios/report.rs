//! The report of a run: what was tried, what it exercised, what was lost, what of it was told, how long each recovery took, which
//! thresholds held. For people as text and as a page, for machines as JSON; the histories stand beside it as JSON lines.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use load::audit::{Audit, Incident};
use load::checkers::Verdict;
use load::history::History;
use load::report::Report as LoadReport;
use serde::Serialize;

use crate::findings::{Findings, Recovery};
use crate::line::Settings;
use crate::page::{self, Picture};
use crate::scenario::Scenario;
use crate::timeline::Mark;

/// Everything that is told about a run.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) seed: u64,
    pub(crate) ttl_ms: u64,
    /// Every promise and every threshold held, and the run exercised them.
    is_passed: bool,
    /// Why it came to no end, if it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_off: Option<String>,
    pub(crate) findings: Findings,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) incidents: Vec<Incident>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<LoadReport>,
    excused: &'static [&'static str],
    #[serde(skip)]
    seen: Option<(History, Audit, Picture)>,
}

impl Report {
    /// Puts a run's findings together.
    pub(crate) fn new(
        scenario: &'static Scenario,
        settings: Settings,
        (findings, broken_off): (Findings, Option<String>),
        verdicts: Vec<Verdict>,
        load: LoadReport,
        (marks, incidents): (Vec<Mark>, Vec<Incident>),
        seen: (History, Audit, Picture),
    ) -> Self {
        let Scenario { name, title, excused, .. } = *scenario;
        let Settings { seed, ttl_ms, .. } = settings;
        let mut report = Self {
            name,
            title,
            seed,
            ttl_ms,
            is_passed: false,
            broken_off,
            findings,
            verdicts,
            marks,
            incidents,
            load: Some(load),
            excused,
            seen: Some(seen),
        };
        report.is_passed = report.faults().is_empty();
        report
    }

    /// The report of a run that came to no end.
    pub(crate) fn broken_off(scenario: &'static Scenario, settings: Settings, why: String) -> Self {
        let Scenario { name, title, excused, .. } = *scenario;
        let Settings { seed, ttl_ms, .. } = settings;
        Self {
            name,
            title,
            seed,
            ttl_ms,
            is_passed: false,
            broken_off: Some(why),
            findings: Findings::default(),
            verdicts: Vec::new(),
            marks: Vec::new(),
            incidents: Vec::new(),
            load: None,
            excused,
            seen: None,
        }
    }

    pub(crate) const fn passed(&self) -> bool {
        self.is_passed
    }

    /// Everything that keeps it from passing.
    pub(crate) fn faults(&self) -> Vec<String> {
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
        self.verdicts.iter().filter(|verdict| verdict.broken > 0 && !self.excused.contains(&verdict.checker))
    }

    /// Comparisons that checkers made.
    pub(crate) fn checks(&self) -> u64 {
        self.verdicts.iter().map(|verdict| verdict.checks).sum()
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
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
            if let Some(why) = &verdict.not_exercised {
                let _ = writeln!(out, "          not exercised: {why}");
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
        let _ = write!(out, "{word}  {} --seed {} --ttl-ms {}", self.name, self.seed, self.ttl_ms);
        out
    }

    /// Writes everything into a folder of its own in this one.
    pub(crate) fn write(&self, out: &Path) {
        let folder = out.join(format!("{}-{}", self.name, self.seed));
        let written = (|| -> std::io::Result<()> {
            std::fs::create_dir_all(&folder)?;
            let mut report = BufWriter::new(File::create(folder.join("report.json"))?);
            serde_json::to_writer_pretty(&mut report, self)?;
            report.flush()?;
            if let Some((history, audit, picture)) = &self.seen {
                history.write(BufWriter::new(File::create(folder.join("history.jsonl"))?))?;
                audit.write(BufWriter::new(File::create(folder.join("audit.jsonl"))?))?;
                std::fs::write(folder.join("report.html"), page::page(self, picture))?;
            }
            Ok(())
        })();
        match written {
            Ok(()) => println!("in {}", folder.display()),
            Err(error) => eprintln!("scenarios: the report could not be written: {error}"),
        }
    }
}

/// How long a recovery took, in words.
pub(crate) fn took(recovery: &Recovery) -> String {
    match recovery.took_ms.as_slice() {
        [] => "never".to_owned(),
        [one] => format!("{one} ms"),
        all => {
            let [p50, p99, max] = [50, 99, 100].map(|percent| recovery.quantile_ms(percent));
            format!("{} of them, {p50} ms (p50), {p99} ms (p99), {max} ms (last)", all.len())
        }
    }
}
