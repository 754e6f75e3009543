//! The report as a page: what was done, how long it took, what was lost, over time and all told; made of the pieces of every
//! page. Pure.

use super::Report;
use crate::checkers::Verdict;
use crate::faults::page::{promises, threshold};
use crate::figures::{Latency, PRESENCE_TO_WATCHER, SAY_TO_MEMBER};
use crate::page::plot::{Curve, Plot, Shade, Strip, clock};
use crate::page::{Cell, Page, grouped, ms};
use crate::server::Look;

/// Kinds of answers in the order in which they matter.
const ACKS: [&str; 3] = ["write applied", "write durable", "write replicated"];
const WAYS: [&str; 2] = [PRESENCE_TO_WATCHER, SAY_TO_MEMBER];
const OTHERS: [&str; 3] = ["presence", "say", "read"];
const RETURNS: [&str; 3] = ["login", "resume", "join"];
/// Entries of the history shown of each violation.
const EXCERPT_LINES_MAX: usize = 30;

#[allow(clippy::cast_precision_loss, reason = "drawn")]
fn float(number: u64) -> f64 {
    number as f64
}

fn seconds(of_ms: u64) -> f64 {
    float(of_ms) / 1e3
}

/// The page.
pub(super) fn page(report: &Report) -> String {
    let title = format!("{} · {} bots", report.scenario, grouped(u64::from(report.players)));
    let below = format!(
        "{} · {} · seed {} · ended {}",
        report.title,
        clock(seconds(report.took_ms)),
        report.seed,
        utc(report.ended_ms)
    );
    let mut page = Page::new(&title, report.passed, &below);
    let broken = format!("✗ {} broken promises", grouped(report.broken));
    let wrong = if report.broken > 0 { broken.as_str() } else { "What went wrong" };
    page.alarm(wrong, &report.wrongs());
    page.tiles(&tiles(report));
    let rows = report.thresholds.iter().map(|t| threshold(&t.what, &t.found, &t.bound, t.holds));
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        page.section("Thresholds");
        page.table(&["what", "found", "bound", ""], &rows);
    }
    pictures(&mut page, report);
    tables(&mut page, report);
    page.section("Promises");
    promises(&mut page, &report.verdicts);
    report.verdicts.iter().for_each(|verdict| excerpts(&mut page, verdict));
    page.section("Play it again");
    page.words(&report.again);
    page.end(&format!(
        "Hearth load {} · all numbers stand in the JSON beside this page",
        env!("CARGO_PKG_VERSION")
    ))
}

fn tiles(report: &Report) -> Vec<(String, &'static str)> {
    let figures = &report.figures;
    let operations = figures.count("operations");
    let played_s = seconds(report.took_ms).max(0.001);
    let p99 = |kind: &str| figures.latency_ms.get(kind).map_or_else(|| "–".to_owned(), |l| ms(l.p99));
    let checks: u64 = report.verdicts.iter().map(|verdict| verdict.checks).sum();
    vec![
        (grouped(operations), "operations"),
        (format!("{:.0}", float(operations) / played_s), "a second, on average"),
        (p99("write applied"), "p99 of an applied ack"),
        (p99("write durable"), "p99 of a durable ack"),
        (p99(PRESENCE_TO_WATCHER), "p99 of presence to a watcher"),
        (grouped(figures.count("resumes")), "sessions taken up again"),
        (grouped(checks), "comparisons by the checkers"),
        (grouped(report.broken), "broken promises"),
    ]
}

fn pictures(page: &mut Page, report: &Report) {
    let until_s = seconds(report.took_ms);
    let shades: Vec<Shade> = report
        .phases
        .iter()
        .map(|span| Shade {
            from_s: seconds(span.from_ms),
            to_s: seconds(span.to_ms),
            name: span.name.clone(),
            is_fault: false,
        })
        .collect();
    page.section("Over time");
    page.strip(&Strip { until_s, shades: &shades, marks: &[] });
    let plot = |title, unit| Plot::over_time(title, unit, until_s, &shades);
    page.plots(&[
        latencies(report, plot("Acks of writes", "ms from when they were due").logarithmic(), &ACKS),
        latencies(report, plot("What others hear of it", "ms from when it was due").logarithmic(), &WAYS),
        latencies(report, plot("Other answers", "ms from when they were due").logarithmic(), &OTHERS),
        rates(report, plot("Answers", "a second")),
        pushes(report, plot("Pushes heard", "a second")),
        online(report, plot("Bots with a session on a link", "")),
        returns(report, plot("Logins and resumes", "a second")),
        latencies(report, plot("Until a session is open", "ms from the wish for it").logarithmic(), &RETURNS),
        closes(report, plot("Links that ended, by close code", "a second")),
        looks(
            report,
            plot("Memory", "MiB"),
            &[
                ("server", |look| look.memory_bytes.map(mebibytes)),
                ("bots", |look| look.bots_memory_bytes.map(mebibytes)),
            ],
        ),
        looks(
            report,
            plot("CPU", "cores busy"),
            &[("server", |look| look.cpu_cores), ("bots", |look| look.bots_cpu_cores)],
        ),
        looks(
            report,
            plot("Records that wait for their commit", ""),
            &[("records", |look| look.records_dirty.map(float))],
        ),
    ]);
    page.section("By percentile");
    page.plots(&[percentiles(report)]);
}

fn mebibytes(bytes: u64) -> f64 {
    float(bytes) / f64::from(1 << 20)
}

/// Of each kind the half and all but one in a hundred: one colour, p99 solid and p50 dashed.
fn latencies<'a>(report: &Report, plot: Plot<'a>, kinds: &[&str]) -> Plot<'a> {
    let series = &report.over_time;
    let step_s = seconds(series.step_ms);
    kinds.iter().enumerate().fold(plot, |plot, (colour, kind)| {
        let Some(steps) = series.latency.get(*kind) else { return plot };
        let short = kind.strip_prefix("write ").unwrap_or(kind);
        let curve = |name: &str, values: &[Option<f64>], dashes| {
            Curve::by_step(&format!("{short} {name}"), step_s, values).looking(colour, dashes)
        };
        plot.with(curve("p99", &steps.p99_ms, 0)).with(curve("p50", &steps.p50_ms, 2))
    })
}

fn rate(name: &str, report: &Report, counts: &[u64]) -> Curve {
    let step_s = seconds(report.over_time.step_ms);
    // The last step is no whole one.
    let whole = counts.len().saturating_sub(1).max(1);
    let values: Vec<_> = counts.iter().take(whole).map(|count| Some(float(*count) / step_s)).collect();
    Curve::by_step(name, step_s, &values)
}

fn rates<'a>(report: &Report, plot: Plot<'a>) -> Plot<'a> {
    let series = &report.over_time;
    let kinds = ACKS.iter().chain(&OTHERS);
    let plot = kinds
        .filter_map(|kind| series.answers.get_key_value(*kind))
        .fold(plot, |plot, (kind, counts)| plot.with(rate(kind, report, counts)));
    let is_refused = series.refused.iter().any(|count| *count > 0);
    plot.with_some(is_refused.then(|| rate("refused", report, &series.refused).looking(3, 1)))
}

fn pushes<'a>(report: &Report, plot: Plot<'a>) -> Plot<'a> {
    plot.with(rate("pushes", report, &report.over_time.pushes).filled())
}

fn online<'a>(report: &Report, plot: Plot<'a>) -> Plot<'a> {
    let series = &report.over_time;
    let values: Vec<_> = series.online.iter().map(|count| Some(float(*count))).collect();
    plot.with(Curve::by_step("online", seconds(series.step_ms), &values).filled())
}

fn returns<'a>(report: &Report, plot: Plot<'a>) -> Plot<'a> {
    let series = &report.over_time;
    plot.with(rate("logins", report, &series.logins)).with(rate("resumes", report, &series.resumes))
}

fn closes<'a>(report: &Report, plot: Plot<'a>) -> Plot<'a> {
    report.over_time.closes.iter().fold(plot, |plot, (code, counts)| {
        let name = match code.as_str() {
            "own" => "by the bot itself",
            "none" => "without a code",
            code => code,
        };
        plot.with(rate(name, report, counts))
    })
}

type Told = fn(&Look) -> Option<f64>;

fn looks<'a>(report: &Report, plot: Plot<'a>, curves: &[(&str, Told)]) -> Plot<'a> {
    curves.iter().enumerate().fold(plot, |plot, (colour, (name, told))| {
        let points = report.server.iter().map(|look| told(look).map(|value| (seconds(look.at_ms), value)));
        let curve = Curve::through(name, points.collect()).looking(colour, colour);
        plot.with(if colour == 0 { curve.filled() } else { curve })
    })
}

fn percentiles(report: &Report) -> Plot<'static> {
    let curves = &report.figures.quantiles;
    let kinds = || ACKS.iter().chain(&WAYS).chain(&OTHERS).filter_map(|kind| curves.get_key_value(*kind));
    let nines = kinds().filter_map(|(_, curve)| curve.iter().rev().nth(1)).map(|(q, _)| -(1.0 - q).log10());
    let nines = nines.fold(1.0, f64::max);
    let plot = Plot::over_nines("Latency by percentile", "ms from when it was due", nines).logarithmic();
    kinds().fold(plot, |plot, (kind, curve)| {
        plot.with(Curve::through(kind, curve.iter().copied().map(Some).collect()))
    })
}

fn tables(page: &mut Page, report: &Report) {
    let figures = &report.figures;
    let head = ["", ">count", ">p50", ">p90", ">p99", ">p99.9", ">max"];
    let row = |(kind, l): (&String, &Latency)| {
        let numbers = [l.p50, l.p90, l.p99, l.p999, l.max].map(|of| Cell::number(ms(of)));
        let mut row = vec![Cell::text(kind), Cell::number(grouped(l.count))];
        row.extend(numbers);
        row
    };
    page.section("Latencies from when it was due");
    page.table(&head, &figures.latency_ms.iter().map(row).collect::<Vec<_>>());
    if !figures.latency_over_a_lost_link_ms.is_empty() {
        page.section("Of what had to wait for a new link");
        page.table(&head, &figures.latency_over_a_lost_link_ms.iter().map(row).collect::<Vec<_>>());
    }
    page.section("Counts");
    let count = |name: &str, count: u64| vec![Cell::text(name), Cell::number(grouped(count))];
    let mut rows: Vec<_> =
        figures.counts.iter().filter(|(_, n)| **n > 0).map(|(name, n)| count(name, *n)).collect();
    rows.extend(figures.refused.iter().map(|(code, n)| count(&format!("refused: {code}"), *n)));
    rows.extend(figures.downs.iter().map(|(code, n)| count(&format!("links ended: {code}"), *n)));
    rows.extend([("shed", report.shed)].into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| count(name, n)));
    page.table(&["what", ">how often"], &rows);
}

/// What led to each broken promise, from the bot's own log.
fn excerpts(page: &mut Page, verdict: &Verdict) {
    for violation in verdict.violations.iter().filter(|violation| !violation.excerpt.is_empty()) {
        let who = violation.process.map_or_else(String::new, |process| format!("bot {process}: "));
        let lines = violation.excerpt.iter().take(EXCERPT_LINES_MAX);
        let lines: Vec<String> = lines.filter_map(|entry| serde_json::to_string(entry).ok()).collect();
        page.details(&format!("{} {who}{}", verdict.checker, violation.what), &lines);
    }
}

/// A moment for people.
fn utc(unix_ms: u64) -> String {
    let (days, seconds) = (unix_ms / 86_400_000, unix_ms / 1_000 % 86_400);
    let (year, month, day) = civil(days);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3_600, seconds / 60 % 60)
}

/// The day so many days after 1970 began, by the calendar of 400 years that begin with March.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_told_as_people_tell_them() {
        assert_eq!(
            [0, 59, 11_016, 20_785].map(civil),
            [(1970, 1, 1), (1970, 3, 1), (2000, 2, 29), (2026, 11, 28)]
        );
        assert_eq!(utc(1_795_853_400_000), "2026-11-28 08:10 UTC");
    }
}
