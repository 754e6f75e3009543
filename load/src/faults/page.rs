//! A report as one self-contained page, with pictures of the run: acks a second, refusals, links, which node serves how many
//! shards, how long changes wait for the store; faults as bands, moments by their number.

use std::collections::BTreeMap;

use super::report::{Report, took};
use crate::audit::{Audit, NodeWord};
use crate::checkers::Verdict;
use crate::history::{History, Notice, What};
use crate::page::plot::{Curve, Plot, Shade, Strip};
use crate::page::{Cell, Page, grouped};

/// What one step of the picture gathers.
const STEP_US: u64 = 250_000;
/// Bots begin in the first six seconds.
const BEGINNING_S: f64 = 6.0;

/// Curves that share an axis.
#[derive(Debug)]
struct Lane {
    title: &'static str,
    curves: Vec<Curve>,
}

/// What is drawn of a run.
#[derive(Debug)]
pub struct Picture {
    lanes: Vec<Lane>,
    steps: usize,
}

impl Picture {
    /// Gathers it.
    #[must_use]
    pub fn of(history: &History, audit: &Audit) -> Self {
        let ends = history.logs.iter().filter_map(|log| log.last()).map(|entry| entry.at_us);
        let steps = step(ends.max().unwrap_or(0)) + 1;
        let lanes =
            vec![answers(history, steps), links(history, steps), shards(audit, steps), lag(audit, steps)];
        Self { lanes, steps }
    }
}

fn step(at_us: u64) -> usize {
    usize::try_from(at_us / STEP_US).unwrap_or(usize::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "drawn")]
fn float(number: u64) -> f64 {
    number as f64
}

fn seconds(at_us: u64) -> f64 {
    float(at_us) / 1e6
}

/// One that is known at every step.
fn whole(name: &str, values: impl IntoIterator<Item = f64>) -> Curve {
    Curve::by_step(name, seconds(STEP_US), &values.into_iter().map(Some).collect::<Vec<_>>())
}

fn answers(history: &History, steps: usize) -> Lane {
    let [mut acks, mut provisional, mut refused] = [(); 3].map(|()| vec![0.0; steps]);
    for entry in history.logs.iter().flatten() {
        let values = match &entry.what {
            What::Ok { prov: false, .. } => &mut acks,
            What::Ok { .. } => &mut provisional,
            What::Fail { .. } => &mut refused,
            _ => continue,
        };
        if let Some(value) = values.get_mut(step(entry.at_us)) {
            *value += 1e6 / float(STEP_US);
        }
    }
    let curves = [("acks a second", acks), ("provisional", provisional), ("refused", refused)];
    let curves = curves.into_iter().map(|(name, values)| whole(name, values)).collect();
    Lane { title: "Answers a second", curves }
}

fn links(history: &History, steps: usize) -> Lane {
    let mut change = vec![0.0; steps];
    for log in &history.logs {
        let mut is_there = false;
        for entry in log {
            let now = match &entry.what {
                What::Notice { notice: Notice::Ready(_) } => true,
                What::Notice { notice: Notice::Down { .. } | Notice::Ended { .. } } => false,
                _ => continue,
            };
            if let Some(change) = change.get_mut(step(entry.at_us)).filter(|_| now != is_there) {
                *change += if now { 1.0 } else { -1.0 };
                is_there = now;
            }
        }
    }
    let mut sum = 0.0;
    let values = change.iter().map(|change| {
        sum += change;
        sum
    });
    Lane { title: "Links", curves: vec![whole("bots with a session on a link", values)] }
}

/// By node, of what it says at each step; a gap while it says nothing.
fn by_node(audit: &Audit, steps: usize, of: impl Fn(&NodeWord) -> f64) -> Vec<Curve> {
    let mut nodes: BTreeMap<&str, Vec<Option<f64>>> = BTreeMap::new();
    for (sample, word) in audit.nodes() {
        let values = nodes.entry(&word.node).or_insert_with(|| vec![None; steps]);
        // A look comes about once a step.
        for at in step(sample.at_us)..=(step(sample.at_us) + 1) {
            if let Some(value) = values.get_mut(at) {
                *value = Some(of(word));
            }
        }
    }
    let name = |node: &str| if node.starts_with("node") { node.to_owned() } else { format!("node {node}") };
    nodes.into_iter().map(|(node, values)| Curve::by_step(&name(node), seconds(STEP_US), &values)).collect()
}

fn shards(audit: &Audit, steps: usize) -> Lane {
    let serving = |word: &NodeWord| word.shards.iter().map(|s| f64::from(u8::from(s.serving))).sum();
    Lane { title: "Shards served", curves: by_node(audit, steps, serving) }
}

fn lag(audit: &Audit, steps: usize) -> Lane {
    let lag = |word: &NodeWord| float(word.flush_lag_ms()) / 1e3;
    Lane { title: "Seconds that the oldest change waits for the store", curves: by_node(audit, steps, lag) }
}

/// The page.
#[must_use]
pub fn page(report: &Report, picture: &Picture) -> String {
    let (head, findings) = (&report.head, &report.findings);
    let below = format!("seed {} · TTL {} ms", head.seed, head.ttl_ms);
    let mut page = Page::new(&format!("{} · {}", head.name, head.title), report.passed(), &below);
    page.alarm("What went wrong", &report.faults());
    page.alarm("Still broken", &report.left_broken);
    pictures(&mut page, report, picture);
    page.section("Thresholds");
    let thresholds = findings.thresholds.iter().map(|t| threshold(&t.what, &t.found, &t.bound, t.holds));
    page.table(&["what", "found", "bound", ""], &thresholds.collect::<Vec<_>>());
    page.section("Recovery");
    let recoveries = findings.recoveries.iter();
    let recoveries = recoveries.map(|recovery| vec![Cell::text(&recovery.what), Cell::text(took(recovery))]);
    page.table(&["what", "took"], &recoveries.collect::<Vec<_>>());
    page.section("Lost and told");
    page.words(&format!(
        "{} acked changes did not survive; {} of them were told.",
        findings.lost, findings.reported
    ));
    page.section("Exercised");
    let exercised = findings.exercised.iter();
    let exercised = exercised.map(|(name, count)| vec![Cell::text(name), Cell::number(grouped(*count))]);
    page.table(&["what", ">how often"], &exercised.collect::<Vec<_>>());
    page.section("Checkers");
    promises(&mut page, &report.verdicts);
    page.end(&format!("play it again: {}", head.again))
}

fn pictures(page: &mut Page, report: &Report, picture: &Picture) {
    let until_s = seconds(u64::try_from(picture.steps).unwrap_or(1) * STEP_US);
    let shades: Vec<Shade> = report
        .incidents
        .iter()
        .map(|incident| Shade {
            from_s: seconds(incident.begun_us),
            to_s: seconds(incident.healed_us).min(until_s),
            name: incident.what.clone(),
            is_fault: true,
        })
        .collect();
    let marks: Vec<(f64, String)> =
        report.marks.iter().map(|mark| (seconds(mark.at_us), mark.what.clone())).collect();
    page.section("What happened");
    page.strip(&Strip { until_s, shades: &shades, marks: &marks });
    page.list(marks.iter().map(|(at_s, what)| format!("{at_s:.2} s: {what}")));
    let plot = |lane: &Lane| {
        let plot = Plot::over_time(lane.title, "", until_s, &shades).settling(BEGINNING_S);
        lane.curves.iter().cloned().fold(plot, Plot::with)
    };
    page.plots(&picture.lanes.iter().map(plot).collect::<Vec<_>>());
}

/// A bound, and whether it holds.
pub(crate) fn threshold(what: &str, found: &str, bound: &str, holds: bool) -> Vec<Cell> {
    let word = if holds { "✓ holds" } else { "✗ missed" };
    vec![Cell::text(what), Cell::text(found), Cell::text(bound), Cell::verdict(holds, word)]
}

/// What is promised, and why it could not be judged, if it could not.
pub(crate) fn promises(page: &mut Page, verdicts: &[Verdict]) {
    page.table(&["", "promise", ">checks", ">broken"], &verdicts.iter().map(row).collect::<Vec<_>>());
}

fn row(verdict: &Verdict) -> Vec<Cell> {
    vec![
        Cell::text(verdict.checker),
        Cell::text(verdict.promise).with(verdict.remark()),
        Cell::number(grouped(verdict.checks)),
        Cell::fault(verdict.broken),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_name_is_not_said_twice() {
        let word = |node: &str| NodeWord { node: node.to_owned(), ..NodeWord::default() };
        let sample =
            |node| crate::audit::Sample { at_us: 0, since_us: 0, seen: crate::audit::Seen::Node(word(node)) };
        let audit = Audit { samples: vec![sample("node-1"), sample("a")] };
        let curves = by_node(&audit, 1, |_| 0.0);
        let named = |name| Curve::by_step(name, 0.25, &[Some(0.0)]);
        assert_eq!(curves, [named("node a"), named("node-1")]);
    }

    #[test]
    fn a_promise_that_was_not_judged_is_told_with_why() {
        let mut verdict = Verdict {
            checker: "C8",
            promise: "nothing is lost",
            checks: 0,
            compared: 0,
            broken: 0,
            violations: Vec::new(),
            not_exercised: Some("nobody moved".to_owned()),
            left_out: None,
        };
        let told = |verdict: &Verdict| {
            let mut page = Page::new("", true, "");
            promises(&mut page, std::slice::from_ref(verdict));
            page.end("")
        };
        let page = told(&verdict);
        assert!(page.contains("nothing is lost") && page.contains("not judged: nobody moved"), "{page}");
        verdict.checks = 1;
        assert!(told(&verdict).contains("judged in part: nobody moved"));
        verdict.not_exercised = None;
        assert!(!told(&verdict).contains("judged"));
        verdict.left_out = Some("nobody spoke".to_owned());
        assert!(told(&verdict).contains("judged in part: nobody spoke"));
    }
}
