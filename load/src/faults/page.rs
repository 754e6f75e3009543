//! A report as one self-contained page, with a picture of the run: acks a second, refusals, links, which node serves how many
//! shards, how long changes wait for the store; faults as bands, moments as lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::report::{Report, took};
use super::timeline::Mark;
use crate::audit::{Audit, Incident, NodeWord};
use crate::checkers::Verdict;
use crate::history::{History, Notice, What};

/// What one step of the picture gathers.
const STEP_US: u64 = 250_000;
/// Bots begin in the first six seconds.
const BEGINNING_STEPS: usize = 24;
const WIDTH: f64 = 1_100.0;
const LEFT: f64 = 70.0;
const LANE_HEIGHT: f64 = 90.0;
const LANE_GAP: f64 = 34.0;
/// What the number of a mark takes, three digits and a blank, and in how many rows they stand at most.
const LABEL_WIDTH: f64 = 22.0;
const LABEL_HEIGHT: f64 = 11.0;
const LABEL_ROWS_MAX: usize = 6;
const COLOURS: [&str; 4] = ["#2f6f9f", "#d98c1f", "#4f9d57", "#b3404a"];
const STYLE: &str = "body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1180px;color:#222}\
table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top;\
border-bottom:1px solid #ddd}.bad{color:#b3404a;font-weight:600}.good{color:#3c7d45}svg text{font:11px system-ui,sans-serif}\
td.n{text-align:right}ol{columns:2;font-size:12px}";

/// One line of the picture: a name, and values by step; none where nothing was seen.
#[derive(Debug)]
struct Curve {
    name: String,
    values: Vec<Option<f64>>,
}

impl Curve {
    /// One that is known at every step.
    fn whole(name: &str, values: impl IntoIterator<Item = f64>) -> Self {
        Self { name: name.to_owned(), values: values.into_iter().map(Some).collect() }
    }

    /// Its parts without gaps: where each begins, and its values.
    fn parts(&self) -> Vec<(usize, Vec<f64>)> {
        let mut parts: Vec<(usize, Vec<f64>)> = Vec::new();
        let mut goes_on = false;
        for (at, value) in self.values.iter().enumerate() {
            match (value, parts.last_mut().filter(|_| goes_on)) {
                (Some(value), Some((_, part))) => part.push(*value),
                (Some(value), None) => parts.push((at, vec![*value])),
                (None, _) => {}
            }
            goes_on = value.is_some();
        }
        parts
    }
}

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
    let curves = curves.into_iter().map(|(name, values)| Curve::whole(name, values)).collect();
    Lane { title: "answers a second", curves }
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
    Lane { title: "links", curves: vec![Curve::whole("bots with a session on a link", values)] }
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
    nodes.into_iter().map(|(node, values)| Curve { name: name(node), values }).collect()
}

fn shards(audit: &Audit, steps: usize) -> Lane {
    let serving = |word: &NodeWord| word.shards.iter().map(|s| f64::from(u8::from(s.serving))).sum();
    Lane { title: "shards served", curves: by_node(audit, steps, serving) }
}

fn lag(audit: &Audit, steps: usize) -> Lane {
    let lag = |word: &NodeWord| float(word.flush_lag_ms()) / 1e3;
    Lane { title: "seconds that the oldest change waits for the store", curves: by_node(audit, steps, lag) }
}

/// The page.
#[must_use]
pub fn page(report: &Report, picture: &Picture) -> String {
    let mut out = String::new();
    let title = text(&format!("{} · {}", report.head.name, report.head.title));
    let (word, class) = if report.passed() { ("passed", "good") } else { ("failed", "bad") };
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>\
         <p class=\"{class}\">{word} · seed {} · TTL {} ms</p>",
        report.head.seed, report.head.ttl_ms
    );
    for fault in report.faults() {
        let _ = write!(out, "<p class=\"bad\">{}</p>", text(&fault));
    }
    svg(&mut out, picture, &report.incidents, &report.marks);
    out.push_str("<ol>");
    for mark in &report.marks {
        let _ = write!(out, "<li>{:.2} s: {}</li>", float(mark.at_us) / 1e6, text(&mark.what));
    }
    out.push_str("</ol><h2>Thresholds</h2><table><tr><th>what<th>found<th>bound<th></tr>");
    for t in &report.findings.thresholds {
        let (word, class) = if t.holds { ("holds", "good") } else { ("missed", "bad") };
        let [what, found, bound] = [&t.what, &t.found, &t.bound].map(|cell| text(cell));
        let _ = write!(out, "<tr><td>{what}<td>{found}<td>{bound}<td class=\"{class}\">{word}</tr>");
    }
    out.push_str("</table><h2>Recovery</h2><table>");
    for recovery in &report.findings.recoveries {
        let _ = write!(out, "<tr><td>{}<td>{}</tr>", text(&recovery.what), text(&took(recovery)));
    }
    let findings = &report.findings;
    let _ = write!(
        out,
        "</table><h2>Lost and told</h2><p>{} acked changes did not survive; {} of them were told.</p>",
        findings.lost, findings.reported
    );
    out.push_str("<h2>Exercised</h2><table>");
    for (name, count) in &findings.exercised {
        let _ = write!(out, "<tr><td>{}<td class=\"n\">{count}</tr>", text(name));
    }
    out.push_str("</table><h2>Checkers</h2><table><tr><th><th>promise<th>checks<th>broken</tr>");
    for verdict in &report.verdicts {
        out.push_str(&row(verdict));
    }
    out.push_str("</table></html>\n");
    out
}

/// What is promised, and why it could not be judged, if it could not.
fn row(verdict: &Verdict) -> String {
    let class = if verdict.broken > 0 { "n bad" } else { "n" };
    let why = verdict.remark().map_or_else(String::new, |why| format!("<br><em>{}</em>", text(&why)));
    format!(
        "<tr><td>{}<td>{}{why}<td class=\"n\">{}<td class=\"{class}\">{}</tr>",
        verdict.checker,
        text(verdict.promise),
        verdict.checks,
        verdict.broken
    )
}

fn text(raw: &str) -> String {
    raw.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn svg(out: &mut String, picture: &Picture, incidents: &[Incident], marks: &[Mark]) {
    let all_us = float(u64::try_from(picture.steps).unwrap_or(1) * STEP_US);
    let x = |at_us: u64| LEFT + (WIDTH - LEFT) * (float(at_us) / all_us).min(1.0);
    let lanes = u32::try_from(picture.lanes.len()).unwrap_or(0);
    let label_x = |at_us: u64| x(at_us).min(WIDTH - LABEL_WIDTH);
    let rows = label_rows(&marks.iter().map(|mark| label_x(mark.at_us)).collect::<Vec<_>>());
    let head = LABEL_HEIGHT * f64::from(rows.iter().flatten().max().map_or(1, |last| last + 1));
    let bottom = head + 10.0 + f64::from(lanes) * (LANE_HEIGHT + LANE_GAP);
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"timeline\">",
        bottom + 20.0
    );
    for incident in incidents {
        let (from, to) = (x(incident.begun_us), x(incident.healed_us));
        let width = (to - from).max(2.0);
        let _ = write!(
            out,
            "<rect x=\"{from:.1}\" y=\"{head:.0}\" width=\"{width:.1}\" height=\"{:.0}\" fill=\"#b3404a\" opacity=\".18\"><title>{}</title></rect>",
            bottom - head - 6.0,
            text(&incident.what)
        );
    }
    for ((number, mark), row) in marks.iter().enumerate().zip(rows) {
        let (at, what) = (x(mark.at_us), text(&mark.what));
        let _ = write!(
            out,
            "<line x1=\"{at:.1}\" y1=\"{head:.0}\" x2=\"{at:.1}\" y2=\"{:.0}\" stroke=\"#999\" stroke-dasharray=\"2 3\">\
             <title>{what}</title></line>",
            bottom - 6.0
        );
        // One for which there is no place is in the list below, as all are.
        if let Some(row) = row {
            let y = LABEL_HEIGHT * f64::from(row + 1) - 1.0;
            let (number, at) = (number + 1, label_x(mark.at_us));
            let _ = write!(
                out,
                "<text x=\"{at:.1}\" y=\"{y:.0}\" fill=\"#666\">{number}<title>{what}</title></text>"
            );
        }
    }
    let mut top = head + 10.0 + LANE_GAP / 2.0;
    for lane in &picture.lanes {
        draw(out, lane, top, picture.steps);
        top += LANE_HEIGHT + LANE_GAP;
    }
    let seconds = picture.steps / 4;
    let every = (seconds / 12).max(1);
    for second in (0..=seconds).step_by(every) {
        let at = x(u64::try_from(second).unwrap_or(0) * 1_000_000);
        let _ = write!(out, "<text x=\"{at:.1}\" y=\"{:.0}\" fill=\"#444\">{second} s</text>", bottom + 12.0);
    }
    out.push_str("</svg>");
}

/// In which row the number of each mark stands, so that no two overlap; none where even the last row is taken.
fn label_rows(at: &[f64]) -> Vec<Option<u32>> {
    let mut marks: Vec<(usize, f64)> = at.iter().copied().enumerate().collect();
    marks.sort_by(|(_, one), (_, other)| one.total_cmp(other));
    let (mut rows, mut free_from) = (vec![None; at.len()], [f64::MIN; LABEL_ROWS_MAX]);
    for (mark, at) in marks {
        let free = (0..).zip(&mut free_from).find(|(_, from)| **from <= at);
        if let (Some((row, from)), Some(place)) = (free, rows.get_mut(mark)) {
            *from = at + LABEL_WIDTH;
            *place = Some(row);
        }
    }
    rows
}

/// The highest value, without the first moments of those that go on longer: all bots begin in them, and never again.
fn scale(lane: &Lane) -> f64 {
    let later = lane.curves.iter().flat_map(|curve| curve.values.iter().skip(BEGINNING_STEPS)).flatten();
    let all = lane.curves.iter().flat_map(|curve| &curve.values).flatten();
    let most = |values: &mut dyn Iterator<Item = &f64>| values.copied().fold(0.0, f64::max);
    let (later, all) = (most(&mut { later }), most(&mut { all }));
    (if later > 0.0 { later } else { all }).max(1.0)
}

fn draw(out: &mut String, lane: &Lane, top: f64, steps: usize) {
    let most = scale(lane);
    let (base, step_width) = (top + LANE_HEIGHT, (WIDTH - LEFT) / float(u64::try_from(steps).unwrap_or(1)));
    let _ = write!(
        out,
        "<text x=\"{LEFT}\" y=\"{:.1}\" fill=\"#222\" font-weight=\"600\">{}</text>\
         <text x=\"4\" y=\"{:.1}\" fill=\"#444\">{most:.1}</text><text x=\"4\" y=\"{base:.1}\" fill=\"#444\">0</text>\
         <line x1=\"{LEFT}\" y1=\"{base:.1}\" x2=\"{WIDTH}\" y2=\"{base:.1}\" stroke=\"#bbb\"/>",
        top - 4.0,
        lane.title,
        top + 8.0
    );
    let mut name_at = LEFT + 330.0;
    for (curve, colour) in lane.curves.iter().zip(COLOURS.iter().cycle()) {
        for (first, part) in curve.parts() {
            let mut points = String::new();
            let mut at = LEFT + step_width * float(u64::try_from(first).unwrap_or(0));
            for value in &part {
                let _ = write!(points, "{at:.1},{:.1} ", base - LANE_HEIGHT * (value / most).min(1.0));
                at += step_width;
            }
            let _ = write!(
                out,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
            );
        }
        let _ = write!(
            out,
            "<text x=\"{name_at:.0}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
            top - 4.0,
            text(&curve.name)
        );
        name_at += 200.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_between_looks_is_drawn_as_a_gap() {
        let values = vec![None, Some(4.0), Some(4.0), None, None, Some(2.0), None];
        let curve = Curve { name: "node-1".to_owned(), values };
        assert_eq!(curve.parts(), [(1, vec![4.0, 4.0]), (5, vec![2.0])]);
        let lane = Lane { title: "shards served", curves: vec![curve] };
        let mut out = String::new();
        draw(&mut out, &lane, 0.0, 7);
        assert_eq!(out.matches("<polyline").count(), 2, "{out}");
        assert!(!out.contains(&format!(",{LANE_HEIGHT:.1} ")), "nothing falls to 0: {out}");
    }

    #[test]
    fn the_beginning_does_not_set_the_scale_and_a_name_is_not_said_twice() {
        let mut values = vec![Some(9.0); BEGINNING_STEPS];
        let lane = |values: &[Option<f64>]| Lane {
            title: "answers",
            curves: vec![Curve { name: "x".to_owned(), values: values.to_vec() }],
        };
        assert!((scale(&lane(&values)) - 9.0).abs() < 1e-9, "there is nothing else");
        values.extend([Some(3.0); 8]);
        assert!((scale(&lane(&values)) - 3.0).abs() < 1e-9);
        let mut out = String::new();
        draw(&mut out, &lane(&values), 0.0, values.len());
        assert!(!out.contains(",-"), "what is above is cut: {out}");
        let word = |node: &str| NodeWord { node: node.to_owned(), ..NodeWord::default() };
        let sample =
            |node| crate::audit::Sample { at_us: 0, since_us: 0, seen: crate::audit::Seen::Node(word(node)) };
        let audit = Audit { samples: vec![sample("node-1"), sample("a")] };
        let names: Vec<_> = by_node(&audit, 1, |_| 0.0).into_iter().map(|curve| curve.name).collect();
        assert_eq!(names, ["node a", "node-1"]);
    }

    #[test]
    fn the_number_of_a_mark_at_the_end_is_within_the_picture() {
        let picture = Picture { lanes: Vec::new(), steps: 40 };
        let mut out = String::new();
        svg(&mut out, &picture, &[], &[Mark { at_us: 10_000_000, what: "the end".to_owned() }]);
        let at = out.split("<text x=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(at.parse::<f64>().unwrap() <= WIDTH - LABEL_WIDTH, "{out}");
    }

    #[test]
    fn numbers_of_close_marks_stand_below_one_another() {
        let rows = label_rows(&[100.0, 300.0, 101.0, 125.0, 102.0, 301.0]);
        assert_eq!(rows, [Some(0), Some(0), Some(1), Some(0), Some(2), Some(1)]);
        let crowded = label_rows(&[5.0; 9]);
        assert_eq!(crowded.iter().flatten().count(), LABEL_ROWS_MAX);
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
        let told = row(&verdict);
        assert!(told.contains("nothing is lost") && told.contains("not judged: nobody moved"), "{told}");
        verdict.checks = 1;
        assert!(row(&verdict).contains("judged in part: nobody moved"));
        verdict.not_exercised = None;
        assert!(!row(&verdict).contains("judged"));
        verdict.left_out = Some("nobody spoke".to_owned());
        assert!(row(&verdict).contains("judged in part: nobody spoke"));
    }
}
