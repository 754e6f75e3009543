//! The result of a run: what it found, whether it passed, for machines (JSON) and for people. Pure but for the printing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::checkers::Verdict;
use crate::checkers::lives::Life;
use crate::figures::{Figures, Latency};
use crate::history::{History, Notice, What};
use crate::options::Options;

/// Everything that is told about a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Every promise held, and the run exercised them.
    pub passed: bool,
    /// What the bots did.
    pub scenario: String,
    /// How many bots.
    pub players: u32,
    /// How long they were to live, or did where somebody ended the run.
    pub seconds: u64,
    /// The schedule's seed.
    pub seed: u64,
    /// How long it took in all.
    pub took_ms: u64,
    /// Why it proves nothing, if it does not.
    pub vacuous: Vec<&'static str>,
    /// Bots whose last writes could not be read back: nothing says that these were kept.
    pub unfinished: u64,
    /// Bots that the server sent away for good, by reason.
    pub sent_away: BTreeMap<String, u64>,
    /// Operations shed because too many waited already.
    pub shed: u64,
    /// Broken promises in all.
    pub broken: u64,
    /// Each checker's findings.
    pub verdicts: Vec<Verdict>,
    /// Figures.
    pub figures: Figures,
}

impl Report {
    /// Puts a run's findings together.
    #[must_use]
    pub fn new(
        options: &Options,
        history: &History,
        figures: Figures,
        verdicts: Vec<Verdict>,
        shed: u64,
        took_ms: u64,
    ) -> Self {
        let broken = verdicts.iter().map(|verdict| verdict.broken).sum();
        let compared: u64 = verdicts.iter().map(|verdict| verdict.compared).sum();
        let vacuous: Vec<&'static str> = [
            ("no write", figures.count("writes")),
            ("no resume", figures.count("resumes")),
            ("no push compared", if options.watches == 0 { 1 } else { compared }),
            (
                "no session was taken up on another node",
                if options.expect_moves { figures.count("resumes_elsewhere") } else { 1 },
            ),
        ]
        .into_iter()
        .filter_map(|(reason, count)| (count == 0).then_some(reason))
        .collect();
        let bots = usize::try_from(options.players).unwrap_or(usize::MAX);
        let unfinished =
            history.processes().take(bots).filter(|(process, log)| !is_finished(*process, log)).count();
        let sent_away = sent_away(history);
        let unfinished = u64::try_from(unfinished).unwrap_or(u64::MAX);
        Self {
            passed: broken == 0 && vacuous.is_empty() && unfinished == 0 && sent_away.is_empty(),
            scenario: format!("{:?}", options.scenario).to_lowercase(),
            players: options.players,
            seconds: options.seconds,
            seed: options.seed,
            took_ms,
            vacuous,
            unfinished,
            sent_away,
            shed,
            broken,
            verdicts,
            figures,
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{} · {} players · {} s · seed {} · took {:.1} s",
            self.scenario,
            self.players,
            self.seconds,
            self.seed,
            std::time::Duration::from_millis(self.took_ms).as_secs_f64()
        );
        latencies(&mut out, "latency from due, ms", &self.figures.latency_ms);
        latencies(&mut out, "over a lost link, ms", &self.figures.latency_over_a_lost_link_ms);
        let counts = self.figures.counts.iter().filter(|(_, count)| **count > 0);
        let counts: Vec<String> = counts.map(|(name, count)| format!("{name} {count}")).collect();
        let _ = writeln!(out, "\n{}", counts.join(" · "));
        for (what, by_name) in [("links ended", &self.figures.downs), ("sent away", &self.sent_away)] {
            by(&mut out, what, by_name.iter().map(|(name, count)| (name.as_str(), *count)));
        }
        by(&mut out, "refused", self.figures.refused.iter().map(|(name, count)| (*name, *count)));
        by(&mut out, "not finished", [("bots", self.unfinished), ("shed", self.shed)].into_iter());
        let _ = writeln!(
            out,
            "\npromise                                                                   checks  broken"
        );
        for verdict in &self.verdicts {
            let _ = writeln!(
                out,
                "{:<8}{:<62}{:>10}{:>8}",
                verdict.checker, verdict.promise, verdict.checks, verdict.broken
            );
            if let Some(remark) = verdict.remark() {
                let _ = writeln!(out, "        {remark}");
            }
            violations(&mut out, verdict);
        }
        self.verdict(&mut out);
        out
    }

    /// What a run that did not pass has to say, and nothing else.
    #[must_use]
    pub fn faults(&self) -> String {
        let mut out = format!("{} · {} players · seed {}\n", self.scenario, self.players, self.seed);
        by(&mut out, "sent away", self.sent_away.iter().map(|(name, count)| (name.as_str(), *count)));
        by(&mut out, "not finished", [("bots", self.unfinished)].into_iter());
        for verdict in self.verdicts.iter().filter(|verdict| verdict.broken > 0) {
            let Verdict { checker, promise, checks, broken, .. } = verdict;
            let _ = writeln!(out, "{checker}: {promise}: {broken} broken of {checks} checks");
            violations(&mut out, verdict);
        }
        self.verdict(&mut out);
        out
    }

    fn verdict(&self, out: &mut String) {
        for reason in &self.vacuous {
            let _ = writeln!(out, "vacuous: {reason}");
        }
        let _ = match (self.passed, self.broken) {
            (true, _) => writeln!(out, "\nPASSED: 0 broken promises"),
            (false, 0) => {
                writeln!(out, "\nFAILED: the run proves nothing, though no promise was seen broken")
            }
            (false, broken) => writeln!(out, "\nFAILED: {broken} broken promises"),
        };
    }
}

fn violations(out: &mut String, verdict: &Verdict) {
    for violation in &verdict.violations {
        let who = violation.process.map_or_else(String::new, |process| format!("bot {process}: "));
        let _ = writeln!(out, "        {who}{}", violation.what);
    }
}

fn latencies(out: &mut String, title: &str, kinds: &BTreeMap<String, Latency>) {
    if kinds.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n{title:<22}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "count", "p50", "p90", "p99", "p99.9", "max"
    );
    for (kind, l) in kinds {
        let _ = writeln!(
            out,
            "{kind:<22}{:>9}{:>10.2}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
            l.count, l.p50, l.p90, l.p99, l.p999, l.max
        );
    }
}

fn by<'a>(out: &mut String, what: &str, counts: impl Iterator<Item = (&'a str, u64)>) {
    let counts: Vec<String> =
        counts.filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect();
    if !counts.is_empty() {
        let _ = writeln!(out, "{what}: {}", counts.join(" · "));
    }
}

/// The last life's last read was asked after its last change had its answer.
fn is_finished(process: u32, log: &[crate::history::Entry]) -> bool {
    let lives: Vec<Life<'_>> = crate::checkers::lives::of(process, log);
    lives.last().is_some_and(|life| {
        let changed = life.changes.iter().map(|change| change.answered).max().unwrap_or(0);
        life.reads.last().is_some_and(|read| read.invoked > changed)
    })
}

fn sent_away(history: &History) -> BTreeMap<String, u64> {
    let mut by_reason = BTreeMap::new();
    for entry in history.logs.iter().flatten() {
        if let What::Notice { notice: Notice::Ended { code, wanted: false, reason } } = &entry.what {
            let code = code.map_or_else(|| "no code".to_owned(), |code| code.to_string());
            *by_reason.entry(format!("{code} {reason}")).or_default() += 1;
        }
    }
    by_reason
}
