//! The result of a run: what it found, whether it passed, for machines (JSON) and for people, as text and as a page. Pure but
//! for the writing.

mod page;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;

use crate::board::Board;
use crate::checkers::Verdict;
use crate::checkers::lives::Life;
use crate::faults::findings::Threshold;
use crate::figures::{Figures, Latency};
use crate::history::{History, Notice, What};
use crate::plan::Span;
use crate::series::{self, Series};
use crate::server::Look;

/// Grows whenever a field of the JSON goes, or means something else.
const FORMAT: u32 = 1;
/// A terminal's, as most are.
const COLUMNS: usize = 80;
/// Of these a promise has, its checker's name included.
const PROMISE_COLUMNS: usize = 62;
const INDENT: usize = 8;
/// Violations of each checker that are told at once; those that are kept all stand below.
const WRONGS_OF_EACH: usize = 4;

/// Everything that is told about a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Of which format it is, as JSON.
    pub format: u32,
    /// Every promise and every threshold held, and the run exercised them.
    pub passed: bool,
    /// What the bots did.
    pub scenario: String,
    /// In a line.
    pub title: String,
    /// When it ended, Unix ms.
    pub ended_ms: u64,
    /// How many bots.
    pub players: u32,
    /// How long they were to live, or did where somebody ended the run.
    pub seconds: u64,
    /// The schedule's seed.
    pub seed: u64,
    /// How long it took in all.
    pub took_ms: u64,
    /// Somebody has ended it before its time.
    pub cut_short: bool,
    /// What was to be so, and whether it is.
    pub thresholds: Vec<Threshold>,
    /// Why it proves nothing, if it does not.
    pub vacuous: Vec<&'static str>,
    /// Since when the server answered nobody any more, ms since the run began, where it did not to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_answer_since_ms: Option<u64>,
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
    /// When which phase was; what comes after the last one are the bots' last words.
    pub phases: Vec<Span>,
    /// The run over time.
    pub over_time: Series,
    /// How the server and the bots' own process did, about once a second.
    pub server: Vec<Look>,
    /// What plays it again.
    pub again: String,
}

impl Report {
    /// Puts a run's findings together.
    #[must_use]
    pub fn new(
        board: &Board,
        history: &History,
        figures: Figures,
        verdicts: Vec<Verdict>,
        took_ms: u64,
    ) -> Self {
        let (options, plan, shed) = (&board.options, &board.plan, board.shed.load(Relaxed));
        let (writes, resumes, pushes) = plan.demands();
        let broken = verdicts.iter().map(|verdict| verdict.broken).sum();
        let compared: u64 = verdicts.iter().map(|verdict| verdict.compared).sum();
        // When bots had gone, not when all was judged.
        let silence = board.silence(board.began + Duration::from_millis(took_ms));
        let vacuous: Vec<&'static str> = [
            ("the server answered nobody any more", u64::from(silence.is_none())),
            ("no write", if writes { figures.count("writes") } else { 1 }),
            ("no resume", if resumes { figures.count("resumes") } else { 1 }),
            ("no push compared", if pushes { compared } else { 1 }),
            (
                "no session was taken up on another node",
                if options.expect_moves { figures.count("resumes_elsewhere") } else { 1 },
            ),
            // What it saw is lost, and nobody judges it.
            ("a bot or the service failed", u64::from(board.failed.load(Relaxed) == 0)),
        ]
        .into_iter()
        .filter_map(|(reason, count)| (count == 0).then_some(reason))
        .collect();
        let bots = usize::try_from(options.players).unwrap_or(usize::MAX);
        let unfinished =
            history.processes().take(bots).filter(|(process, log)| !is_finished(*process, log)).count();
        let sent_away = sent_away(history);
        // Who never came has nothing to finish.
        let unfinished = u64::try_from(unfinished).unwrap_or(u64::MAX);
        let unfinished = unfinished.saturating_sub(board.absent.load(Relaxed));
        let thresholds: Vec<Threshold> =
            plan.thresholds.iter().map(|threshold| threshold.judge(&figures, broken, shed)).collect();
        let is_cut_short = board.is_cut_short();
        let is_whole = vacuous.is_empty() && unfinished == 0 && sent_away.is_empty() && !is_cut_short;
        // How long they might have lived is of no interest where somebody ended the run.
        let seconds = if board.has_fallen() { took_ms / 1_000 } else { plan.length().as_secs() };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self {
            format: FORMAT,
            passed: broken == 0 && is_whole && thresholds.iter().all(|threshold| threshold.holds),
            scenario: plan.name.clone(),
            title: plan.title.clone(),
            ended_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            players: options.players,
            seconds,
            seed: options.common.seed,
            took_ms,
            cut_short: is_cut_short,
            thresholds,
            vacuous,
            no_answer_since_ms: silence.map(|silence| board.us(silence.since) / 1_000),
            unfinished,
            sent_away,
            shed,
            broken,
            verdicts,
            figures,
            phases: lasted(plan.spans(), took_ms, board.has_fallen()),
            over_time: series::of(history, took_ms),
            server: board.looks_since(0),
            again: options.again(),
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
            Duration::from_millis(self.took_ms).as_secs_f64()
        );
        latencies(&mut out, "latency from due, ms", &self.figures.latency_ms);
        latencies(&mut out, "over a lost link, ms", &self.figures.latency_over_a_lost_link_ms);
        let counts = self.figures.counts.iter().filter(|(_, count)| **count > 0);
        let counts: Vec<String> = counts.map(|(name, count)| format!("{name} {count}")).collect();
        out.push('\n');
        wrapped(&counts.join(" · "), COLUMNS).iter().for_each(|line| {
            let _ = writeln!(out, "{line}");
        });
        for (what, by_name) in [("links ended", &self.figures.downs), ("sent away", &self.sent_away)] {
            by(&mut out, what, by_name.iter().map(|(name, count)| (name.as_str(), *count)));
        }
        by(&mut out, "refused", self.figures.refused.iter().map(|(name, count)| (*name, *count)));
        by(&mut out, "not finished", [("bots", self.unfinished), ("shed", self.shed)].into_iter());
        thresholds(&mut out, &self.thresholds);
        let _ = writeln!(out, "\n{:<PROMISE_COLUMNS$}{:>10}{:>8}", "promise", "checks", "broken");
        for verdict in &self.verdicts {
            let mut promise = wrapped(verdict.promise, PROMISE_COLUMNS - INDENT).into_iter();
            let first = promise.next().unwrap_or_default();
            let Verdict { checker, checks, broken, .. } = verdict;
            let named = format!("{checker:<INDENT$}{first}");
            let _ = writeln!(out, "{named:<PROMISE_COLUMNS$}{checks:>10}{broken:>8}");
            for line in promise.chain(wrapped(&verdict.remark().unwrap_or_default(), COLUMNS - INDENT)) {
                let _ = writeln!(out, "{:INDENT$}{line}", "");
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
        let missed: Vec<Threshold> = self.thresholds.iter().filter(|met| !met.holds).cloned().collect();
        thresholds(&mut out, &missed);
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
        if let Some(since_ms) = self.no_answer_since_ms {
            let since = Duration::from_millis(since_ms).as_secs_f64();
            let _ = writeln!(out, "the server does not answer since {since:.1} s after the run began");
        }
        if self.cut_short {
            let _ = writeln!(out, "cut short: it was told to end");
        }
        let missed = self.thresholds.iter().filter(|met| !met.holds).count();
        let _ = match (self.passed, self.broken) {
            (true, _) => writeln!(out, "\nPASSED: 0 broken promises"),
            (false, 0) if missed > 0 => {
                writeln!(out, "\nFAILED: {missed} thresholds missed, though no promise was seen broken")
            }
            (false, 0) if self.cut_short => {
                writeln!(out, "\nFAILED: cut short, though no promise was seen broken")
            }
            (false, 0) => {
                writeln!(out, "\nFAILED: the run proves nothing, though no promise was seen broken")
            }
            (false, broken) => writeln!(out, "\nFAILED: {broken} broken promises"),
        };
    }
}

impl Report {
    /// Everything that keeps it from passing, a line each.
    #[must_use]
    pub fn wrongs(&self) -> Vec<String> {
        let mut wrongs = Vec::new();
        for verdict in self.verdicts.iter().filter(|verdict| verdict.broken > 0) {
            let Verdict { checker, promise, checks, broken, violations, .. } = verdict;
            wrongs.push(format!("{checker}: {promise}: {broken} broken of {checks} checks"));
            wrongs.extend(violations.iter().take(WRONGS_OF_EACH).map(|violation| match violation.process {
                Some(process) => format!("    bot {process}: {}", violation.what),
                None => format!("    {}", violation.what),
            }));
        }
        let missed = self.thresholds.iter().filter(|met| !met.holds && met.bound != "0");
        wrongs.extend(missed.map(|t| format!("{}: {}, {} was to hold", t.what, t.found, t.bound)));
        wrongs.extend(self.vacuous.iter().map(|why| format!("it proves nothing: {why}")));
        wrongs
            .extend(self.sent_away.iter().map(|(why, count)| format!("{count} bots were sent away: {why}")));
        if self.unfinished > 0 {
            wrongs.push(format!("{} bots could not read their last writes back", self.unfinished));
        }
        if self.cut_short {
            wrongs.push("it was told to end before its time".to_owned());
        }
        wrongs
    }

    /// The page.
    #[must_use]
    pub fn page(&self) -> String {
        page::page(self)
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_json(&self, path: &Path) -> std::io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        serde_json::to_writer_pretty(&mut out, self)?;
        out.flush()
    }
}

/// The phases as far as they came, and what came after them.
fn lasted(mut spans: Vec<Span>, took_ms: u64, is_ended: bool) -> Vec<Span> {
    let planned_ms = spans.last().map_or(0, |last| last.to_ms);
    // When it was ended nobody has written down: the last words are part of the last phase then.
    let played_ms = if is_ended { took_ms.min(planned_ms) } else { planned_ms };
    spans.retain(|span| span.from_ms < played_ms);
    if let Some(last) = spans.last_mut() {
        last.to_ms = last.to_ms.min(played_ms);
    }
    if took_ms > played_ms {
        spans.push(Span { name: "last words".to_owned(), from_ms: played_ms, to_ms: took_ms });
    }
    spans
}

fn thresholds(out: &mut String, thresholds: &[Threshold]) {
    for Threshold { what, found, bound, holds } in thresholds {
        let word = if *holds { "holds " } else { "MISSED" };
        let _ = writeln!(out, "{word}  {what}: {found} ({bound})");
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
        "\n{title:<21}{:>8}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "count", "p50", "p90", "p99", "p99.9", "max"
    );
    for (kind, l) in kinds {
        let _ = writeln!(
            out,
            "{kind:<21}{:>8}{:>10.2}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
            l.count, l.p50, l.p90, l.p99, l.p999, l.max
        );
    }
}

/// Words in lines of so many columns; a word that is longer has one of its own.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::options::Options;
    use crate::{checkers, figures};

    fn board() -> Board {
        Board::new(Options::try_parse_from(["load", "steady", "--quiet", "--players", "2"]).unwrap())
    }

    fn report(board: &Board, took_ms: u64) -> Report {
        let history = History { logs: vec![Vec::new(); 2] };
        let mut figures = figures::of(&history);
        let latency = Latency { count: 18_877, p50: 1.0, p90: 9.0, p99: 99.0, p999: 999.0, max: 12_345.67 };
        figures.latency_ms.insert("presence to watcher".to_owned(), latency);
        figures.counts.values_mut().for_each(|count| *count = 12_345);
        Report::new(board, &history, figures, checkers::judge(&history, took_ms), took_ms)
    }

    #[test]
    fn a_text_fits_a_terminal_of_80_columns() {
        let text = report(&board(), 60_000).text();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}\n{text}");
        }
        assert!(text.contains("monotonic writes,") && text.contains("presence to watcher"), "{text}");
    }

    #[test]
    fn a_run_whose_server_is_gone_says_so_and_since_when() {
        let board = board();
        board.answers();
        assert_eq!(report(&board, 60_000).no_answer_since_ms, None);
        board.fails(board.began + Duration::from_millis(8_100), "connection refused");
        assert_eq!(report(&board, 9_000).no_answer_since_ms, None, "a moment is no silence");
        let report = report(&board, 60_000);
        assert!(!report.passed && report.no_answer_since_ms == Some(8_100));
        let told = "vacuous: the server answered nobody any more";
        for text in [report.text(), report.faults()] {
            assert!(text.contains(told) && text.contains("does not answer since 8.1 s"), "{text}");
        }
    }
}
