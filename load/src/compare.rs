//! `load compare A B`: two reports as JSON beside each other: what became slower or faster, and what is no more than runs differ
//! from moment to moment anyway. Pure but for the reading.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

/// A difference of so many standard errors is one.
const ERRORS: f64 = 3.0;
/// From the median of distances to the standard deviation, and from that of values to that of their median.
const OF_DISTANCES: f64 = 1.4826;
const OF_MEDIAN: f64 = 1.2533;
/// With fewer steps nobody knows how much they differ.
const STEPS_MIN: usize = 5;
/// The JSON that is understood.
const FORMAT: u32 = 1;

/// Compares two reports: of which kind of answer half, or all but one in a hundred, came later or sooner.
///
/// A difference is noise where a typical step of one run is like one of the other: within three standard errors of the steps'
/// medians. So a moment in which the machine was busy elsewhere makes nothing slower. Exit code 1: with --fail-over, something
/// became slower by more, as a whole and in a typical step, a kind of answer came no more, or the later run did not pass though the
/// earlier one did; or, with or without it, more promises are broken; 2: a report cannot be read.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The earlier report.json.
    pub before: PathBuf,
    /// The later one.
    pub after: PathBuf,
    /// By how many per cent something may become slower, such as 10%.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub fail_over: Option<f64>,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim().parse::<f64>() {
        Ok(percent) if (0.0..=10_000.0).contains(&percent) => Ok(percent),
        _ => Err("per cent, from 0 to 10000, such as 10%".to_owned()),
    }
}

/// Why reports cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// It cannot be read.
    #[error("{file}: {source}")]
    Read {
        /// Which.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no report.
    #[error("{file} is no report of `load`: {source}")]
    Malformed {
        /// Which.
        file: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// It is one of another version.
    #[error("{file} is of format {found}, not {FORMAT}")]
    Format {
        /// Which.
        file: String,
        /// What it is of.
        found: u32,
    },
}

/// What of a report is compared.
#[derive(Debug, Default, Deserialize)]
struct Told {
    format: u32,
    scenario: String,
    players: u32,
    took_ms: u64,
    passed: bool,
    broken: u64,
    figures: Figures,
    over_time: Series,
}

#[derive(Debug, Default, Deserialize)]
struct Figures {
    latency_ms: BTreeMap<String, Latency>,
    counts: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Latency {
    p50: f64,
    p99: f64,
}

#[derive(Debug, Default, Deserialize)]
struct Series {
    latency: BTreeMap<String, Steps>,
}

#[derive(Debug, Deserialize)]
struct Steps {
    p50_ms: Vec<Option<f64>>,
    p99_ms: Vec<Option<f64>>,
}

/// What a difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Noise,
    Slower,
    Faster,
    /// Nobody can tell: there are too few steps.
    Unknown,
}

impl Judgement {
    const fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Slower => "SLOWER",
            Self::Faster => "faster",
            Self::Unknown => "too short to tell",
        }
    }
}

/// One number, before and after.
#[derive(Debug, PartialEq)]
struct Row {
    what: String,
    before: f64,
    after: f64,
    judgement: Judgement,
    /// By how many per cent a typical step became slower.
    typical_percent: f64,
}

impl Row {
    fn percent(&self) -> f64 {
        percent_more(self.before, self.after)
    }
}

fn percent_more(before: f64, after: f64) -> f64 {
    if before > 0.0 { 100.0 * (after / before - 1.0) } else { 0.0 }
}

/// Compares; what came of it in words, and whether that is within what may be.
///
/// # Errors
/// [`CompareError`].
pub fn run(options: &Options) -> Result<(String, bool), CompareError> {
    let (before, after) = (read(&options.before)?, read(&options.after)?);
    Ok(told(&before, &after, options.fail_over))
}

fn read(path: &Path) -> Result<Told, CompareError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| CompareError::Read { file: file.clone(), source })?;
    let told: Result<Told, _> = serde_json::from_str(&text);
    let told = told.map_err(|source| CompareError::Malformed { file: file.clone(), source })?;
    if told.format != FORMAT {
        return Err(CompareError::Format { file, found: told.format });
    }
    Ok(told)
}

fn told(before: &Told, after: &Told, fail_over: Option<f64>) -> (String, bool) {
    let mut out = String::new();
    let head = |told: &Told| format!("{} · {} bots · {:.0} s", told.scenario, told.players, seconds(told));
    let _ = writeln!(out, "before  {}\nafter   {}", head(before), head(after));
    if (&before.scenario, before.players) != (&after.scenario, after.players) {
        let _ = writeln!(out, "these are runs of different kinds: what follows may come of that");
    }
    let _ = writeln!(out, "\n{:<34}{:>12}{:>12}{:>10}", "", "before", "after", "");
    let rows = rows(before, after);
    for row in &rows {
        let Row { what, before, after, judgement, .. } = row;
        let percent = format!("{:+.1} %", row.percent());
        let _ = writeln!(out, "{what:<34}{before:>12.2}{after:>12.2}{percent:>10}  {}", judgement.name());
    }
    let rate = |told: &Told| count(told, "operations") / seconds(told).max(0.001);
    let _ = writeln!(out, "{:<34}{:>12.0}{:>12.0}", "operations a second", rate(before), rate(after));
    let _ = writeln!(out, "{:<34}{:>12}{:>12}", "broken promises", before.broken, after.broken);
    let is_worse = |row: &&Row| {
        fail_over.is_some_and(|most| {
            row.judgement == Judgement::Slower && row.percent().min(row.typical_percent) > most
        })
    };
    let worse: Vec<&Row> = rows.iter().filter(is_worse).collect();
    let gone = gone(before, after);
    let passes_no_more = before.passed && !after.passed;
    let is_as_good = worse.is_empty() && gone.is_empty() && !passes_no_more;
    let is_within = (fail_over.is_none() || is_as_good) && after.broken <= before.broken;
    for row in worse {
        let most = fail_over.unwrap_or(0.0);
        let _ = writeln!(out, "{}: {:+.1} %, {most} % at most", row.what, row.percent());
    }
    for kind in gone {
        let _ = writeln!(out, "{kind}: none came");
    }
    if passes_no_more {
        let _ = writeln!(out, "it did not pass, as the one before did");
    }
    if after.broken > before.broken {
        let _ = writeln!(out, "more promises are broken");
    }
    (out, is_within)
}

#[allow(clippy::cast_precision_loss, reason = "seconds of a day")]
fn seconds(told: &Told) -> f64 {
    told.took_ms as f64 / 1e3
}

#[allow(clippy::cast_precision_loss, reason = "shown")]
fn count(told: &Told, name: &str) -> f64 {
    told.figures.counts.get(name).copied().unwrap_or(0) as f64
}

/// The kinds of which nothing came any more.
fn gone<'a>(before: &'a Told, after: &Told) -> Vec<&'a String> {
    let kinds = before.figures.latency_ms.keys();
    kinds.filter(|kind| !after.figures.latency_ms.contains_key(*kind)).collect()
}

/// Of each kind that both have: half, and all but one in a hundred.
fn rows(before: &Told, after: &Told) -> Vec<Row> {
    let kinds: BTreeSet<&String> = before.figures.latency_ms.keys().collect();
    let mut rows = Vec::new();
    for kind in kinds {
        let (Some(was), Some(is)) = (before.figures.latency_ms.get(kind), after.figures.latency_ms.get(kind))
        else {
            continue;
        };
        let steps = |told: &Told, of: fn(&Steps) -> &Vec<Option<f64>>| -> Vec<f64> {
            told.over_time
                .latency
                .get(kind)
                .map(|steps| of(steps).iter().flatten().copied().collect())
                .unwrap_or_default()
        };
        for (name, was, is, of) in [
            ("p50", was.p50, is.p50, (|steps: &Steps| &steps.p50_ms) as fn(&Steps) -> &Vec<Option<f64>>),
            ("p99", was.p99, is.p99, |steps: &Steps| &steps.p99_ms),
        ] {
            let (before, after) = (steps(before, of), steps(after, of));
            let typical_percent = percent_more(median(before.clone()), median(after.clone()));
            let judgement = judge(is - was, before, after);
            let what = format!("{kind}, {name} ms");
            rows.push(Row { what, before: was, after: is, judgement, typical_percent });
        }
    }
    rows
}

/// Whether a typical step differs by more than steps do anyway, and the whole in the same direction.
fn judge(by: f64, before: Vec<f64>, after: Vec<f64>) -> Judgement {
    if before.len() < STEPS_MIN || after.len() < STEPS_MIN {
        return Judgement::Unknown;
    }
    let typical = median(after.clone()) - median(before.clone());
    let error = error(before).hypot(error(after));
    match typical {
        typical if typical.abs() <= ERRORS * error || typical * by <= 0.0 => Judgement::Noise,
        typical if typical > 0.0 => Judgement::Slower,
        _ => Judgement::Faster,
    }
}

/// The standard error of the median, by how far values lie from it.
fn error(values: Vec<f64>) -> f64 {
    let count = u32::try_from(values.len()).map_or(f64::MAX, f64::from);
    let middle = median(values.clone());
    let distances = values.into_iter().map(|value| (value - middle).abs()).collect();
    OF_MEDIAN * OF_DISTANCES * median(distances) / count.sqrt()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report in which an applied write takes so long, more or less.
    fn report(p50: f64, wobble: f64, broken: u64) -> Told {
        let steps: Vec<Option<f64>> =
            [-1.0, 0.5, 0.0, 1.0, -0.5, 0.0, 0.8, -0.8].map(|by| Some(p50 + by * wobble)).into();
        let latency = [("write applied".to_owned(), Latency { p50, p99: 2.0 * p50 })].into();
        let doubled = steps.iter().flatten().map(|ms| Some(2.0 * ms)).collect();
        let of_steps = [("write applied".to_owned(), Steps { p50_ms: steps, p99_ms: doubled })].into();
        Told {
            format: FORMAT,
            scenario: "steady".to_owned(),
            took_ms: 10_000,
            passed: broken == 0,
            broken,
            figures: Figures { latency_ms: latency, counts: [("operations".to_owned(), 500)].into() },
            over_time: Series { latency: of_steps },
            ..Told::default()
        }
    }

    #[test]
    fn what_differs_no_more_than_moments_do_is_noise() {
        for (before, after, judgement, is_within) in [
            (report(10.0, 3.0, 0), report(11.5, 3.0, 0), Judgement::Noise, true),
            (report(10.0, 0.1, 0), report(11.5, 0.1, 0), Judgement::Slower, false),
            (report(10.0, 0.1, 0), report(10.5, 0.1, 0), Judgement::Slower, true),
            (report(10.0, 0.1, 0), report(5.0, 0.1, 0), Judgement::Faster, true),
            (report(10.0, 3.0, 0), report(10.0, 3.0, 1), Judgement::Noise, false),
        ] {
            let rows = rows(&before, &after);
            assert_eq!(rows[0].judgement, judgement, "{rows:?}");
            let (text, within) = told(&before, &after, Some(10.0));
            assert_eq!(within, is_within, "{text}");
            assert!(text.contains("write applied, p50 ms") && text.contains(judgement.name()), "{text}");
            let (_, within) = told(&before, &after, None);
            assert_eq!(within, after.broken == 0);
        }
    }

    #[test]
    fn what_comes_no_more_and_what_passes_no_more_is_worse() {
        let before = report(10.0, 3.0, 0);
        let mut silent = report(10.0, 3.0, 0);
        silent.figures.latency_ms.clear();
        let failed = Told { passed: false, ..report(10.0, 3.0, 0) };
        for (after, said) in [(silent, "write applied: none came"), (failed, "it did not pass")] {
            let (text, is_within) = told(&before, &after, Some(10.0));
            assert!(!is_within && text.contains(said), "{text}");
            assert!(told(&before, &after, None).1, "nobody has said what may be");
            assert!(told(&after, &after, Some(10.0)).1);
            assert!(told(&after, &before, Some(10.0)).1, "that is better");
        }
    }

    #[test]
    fn a_run_of_few_steps_says_nothing() {
        assert_eq!(judge(8.0, vec![1.0; 4], vec![9.0; 9]), Judgement::Unknown);
    }

    #[test]
    fn a_bad_moment_makes_nothing_slower() {
        let mut disturbed = report(10.0, 0.1, 0);
        if let Some(steps) = disturbed.over_time.latency.get_mut("write applied") {
            (steps.p50_ms[0], steps.p99_ms[0]) = (Some(900.0), Some(900.0));
        }
        if let Some(latency) = disturbed.figures.latency_ms.get_mut("write applied") {
            latency.p99 = 700.0;
        }
        let rows = rows(&report(10.0, 0.1, 0), &disturbed);
        assert!(rows.iter().all(|row| row.judgement == Judgement::Noise), "{rows:?}");
    }

    #[test]
    fn a_share_may_be_written_with_its_sign() {
        assert_eq!((percent("10%"), percent("2.5")), (Ok(10.0), Ok(2.5)));
        assert!(percent("much").is_err() && percent("-1").is_err());
    }

    #[test]
    fn what_is_no_report_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.json");
        assert!(matches!(read(&path), Err(CompareError::Read { .. })));
        std::fs::write(&path, "{}").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("other.json is no report of `load`"));
    }
}
