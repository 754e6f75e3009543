//! The figures of the cluster as lines: who is here, what happens a second, how long it takes, how the store is, and how
//! the two that matter most were over the last minutes. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::calls::{Overview, Percentiles};
use ratatui::text::{Line, Span};

use super::alarms::few;
use super::paint::{Paint, Tone};
use super::past::{Past, REACH, Sample};
use super::picture::Picture;
use super::words::{UNKNOWN, count, cut, many, padded, rate, span, width};

/// What a line is about.
const NAME: usize = 10;
/// The number beside a plot.
const NUMBER: usize = 9;
/// Shortfalls and breakers in trouble of the store that are told of, and shortfalls of nodes.
const STORE_LINES_MAX: usize = 6;
const NODE_LINES_MAX: usize = 4;
/// What nodes fall short of in the store is told of under this name.
const STORE: &str = "store";
/// Eighths of a row.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// From so many columns on, plots stand beside the rest.
pub(super) const WIDE: usize = 110;
/// Columns of the rest then.
const LEFT: usize = 62;

/// Parts of a line.
type Said = Vec<(String, Tone)>;

/// As many of the parts as there is room for, with a dot between them.
pub(super) fn joined(parts: &[(String, Tone)], columns: usize, paint: Paint) -> Vec<Span<'static>> {
    let (mut spans, mut left) = (Vec::new(), columns);
    for (at, (text, tone)) in parts.iter().enumerate() {
        let gap = if at == 0 { "" } else { " · " };
        if at > 0 && width(gap) + width(text) > left {
            break;
        }
        spans.push(paint.span(gap, Tone::Soft));
        spans.push(paint.span(cut(text, left), *tone));
        left = left.saturating_sub(width(gap) + width(text));
    }
    spans
}

fn named(name: &str, parts: &[(String, Tone)], columns: usize, paint: Paint) -> Line<'static> {
    let mut spans = vec![paint.span(padded(name, NAME, false), Tone::Soft)];
    spans.extend(joined(parts, columns.saturating_sub(NAME), paint));
    Line::from(spans)
}

/// So many lines of this width, those that matter most first; with plots, where somebody looks for longer than once.
pub(super) fn lines(
    picture: &Picture,
    now: Duration,
    (columns, rows): (usize, usize),
    paint: Paint,
) -> Vec<Line<'static>> {
    let overview = &picture.overview;
    if !picture.is_plain && is_wide(columns) && rows >= wide_rows(overview) {
        return beside(picture, now, (columns, rows), paint);
    }
    let mut lines = vec![players(overview, columns, paint)];
    lines.push(named("a second", &happens(overview), columns, paint));
    lines.push(takes(overview, columns, paint));
    lines.push(sessions(overview, columns, paint));
    lines.extend(store(overview, columns, paint));
    lines.extend(shortfalls(overview, columns, paint));
    if !picture.is_plain {
        let each = rows.saturating_sub(lines.len()) / 2;
        lines.extend(plots(picture, now, (columns, each.max(1)), paint));
    }
    lines.truncate(rows);
    lines
}

pub(super) const fn is_wide(columns: usize) -> bool {
    columns >= WIDE
}

/// How many lines there are where there is room for all of them, and plots of a row each.
pub(super) fn rows(picture: &Picture, columns: usize) -> usize {
    match picture.is_plain {
        false if is_wide(columns) => wide_rows(&picture.overview),
        false => 6 + told_rows(&picture.overview),
        true => 4 + told_rows(&picture.overview),
    }
}

fn wide_rows(overview: &Overview) -> usize {
    9 + told_rows(overview)
}

/// Those whose number is not always the same.
fn told_rows(overview: &Overview) -> usize {
    let paint = Paint::none();
    store(overview, usize::MAX, paint).len() + shortfalls(overview, usize::MAX, paint).len()
}

/// Figures to the left, with a table of how long things take; plots to the right.
fn beside(
    picture: &Picture,
    now: Duration,
    (columns, rows): (usize, usize),
    paint: Paint,
) -> Vec<Line<'static>> {
    let overview = &picture.overview;
    let mut left = vec![players(overview, LEFT, paint), sessions(overview, LEFT, paint)];
    // In two halves: it is long.
    let happens = happens(overview);
    let (first, second) = happens.split_at(happens.len().div_ceil(2));
    left.push(named("a second", first, LEFT, paint));
    left.push(named("", second, LEFT, paint));
    left.push(Line::from(
        paint.span(format!("{:NAME$}{:<18}{:>10}{:>10}", "takes", "last 10 s", "p50", "p99"), Tone::Soft),
    ));
    left.extend(waits(overview).map(|(_, name, took)| {
        let said = |ms: Option<f64>| ms.map_or_else(|| UNKNOWN.to_owned(), span);
        Line::from(vec![
            Span::raw(format!("{:NAME$}{name:<18}{:>10}", "", said(took.p50))),
            paint.span(format!("{:>10}", said(took.p99)), Tone::Strong),
        ])
    }));
    left.extend(store(overview, LEFT, paint));
    left.extend(shortfalls(overview, LEFT, paint));
    let right = plots(picture, now, (columns.saturating_sub(LEFT + 2), rows / 2), paint);
    let mut right = right.into_iter();
    left.resize(rows, Line::default());
    for line in &mut left {
        let gap = (LEFT + 2).saturating_sub(line.width());
        line.push_span(" ".repeat(gap));
        line.spans.extend(right.next().unwrap_or_default().spans);
    }
    left
}

fn players(overview: &Overview, columns: usize, paint: Paint) -> Line<'static> {
    let status = overview.players.by_status;
    let parts = [
        ("online", status.online),
        ("playing", status.playing),
        ("busy", status.busy),
        ("away", status.away),
    ]
    .map(|(name, players)| (format!("{name} {}", count(players)), Tone::Plain));
    let mut all = vec![(count(overview.players.online), Tone::Strong)];
    all.extend(parts);
    named("players", &all, columns, paint)
}

fn sessions(overview: &Overview, columns: usize, paint: Paint) -> Line<'static> {
    let parts = [
        count(overview.sessions),
        many(overview.links, "link", "links"),
        many(overview.rooms, "room", "rooms"),
    ];
    named("sessions", &parts.map(|part| (part, Tone::Plain)), columns, paint)
}

/// What happens a second: what matters most stays where the line is short.
fn happens(overview: &Overview) -> Said {
    let Some(rates) = overview.rates else {
        let is_counted = overview.nodes.iter().any(|node| node.counts != Some(false));
        let why = if is_counted || overview.nodes.is_empty() { "not known yet" } else { "not counted" };
        return vec![(why.to_owned(), Tone::Soft)];
    };
    let tone = |rate: f64| if rate > 0.0 { Tone::Warning } else { Tone::Plain };
    let parts = [
        ("acks", rates.acks, Tone::Strong),
        ("logins", rates.logins, Tone::Plain),
        ("refused", rates.refused, tone(rates.refused)),
        ("failed", rates.failed, tone(rates.failed)),
        ("resumes", rates.resumes, Tone::Plain),
        ("pushes", rates.pushes, Tone::Plain),
        ("calls", rates.service_calls, Tone::Plain),
    ];
    parts.map(|(name, value, tone)| (format!("{name} {}", rate(value)), tone)).into()
}

fn waits(overview: &Overview) -> impl Iterator<Item = (&'static str, &'static str, Percentiles)> {
    let told = overview.latency_ms;
    [
        ("applied", "applied acks", told.applied),
        ("durable", "durable acks", told.durable),
        ("commit", "commits", told.commit),
        ("calls", "service calls", told.service),
    ]
    .into_iter()
}

/// All of them in a line.
fn takes(overview: &Overview, columns: usize, paint: Paint) -> Line<'static> {
    let number = |ms: Option<f64>| match ms {
        None => UNKNOWN.to_owned(),
        Some(ms) if ms < 1.0 => format!("{ms:.2}"),
        Some(ms) => rate(if ms < 10.0 { ms } else { ms.round() }),
    };
    let parts: Vec<(String, Tone)> = waits(overview)
        .map(|(name, _, took)| (format!("{name} {}/{}", number(took.p50), number(took.p99)), Tone::Plain))
        .collect();
    named("p50/99 ms", &parts, columns, paint)
}

/// How it answers, then the breakers that are in trouble, and what its settings fall short of.
fn store(overview: &Overview, columns: usize, paint: Paint) -> Vec<Line<'static>> {
    let store = &overview.store;
    let (state, tone) = match store.state.as_str() {
        "ok" => ("answers", Tone::Good),
        "slow" => ("is slow", Tone::Warning),
        "down" => ("does not answer", Tone::Bad),
        "" => ("is not known", Tone::Soft),
        other => (other, Tone::Plain),
    };
    let mut troubled: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    let mut all = 0;
    for node in &overview.nodes {
        all += node.breakers.len();
        for breaker in node.breakers.iter().filter(|breaker| breaker.state != "closed") {
            troubled.entry((&breaker.endpoint, &breaker.state)).or_default().push(&node.node);
        }
    }
    let open: usize = troubled.values().map(Vec::len).sum();
    let kind = if store.kind.is_empty() { "it" } else { &store.kind };
    let mut parts = vec![(format!("{kind} {state}"), tone)];
    parts.push(match (all, open) {
        (0, _) => ("no breakers".to_owned(), Tone::Soft),
        (all, 0) => (format!("{} closed", many(all, "breaker", "breakers")), Tone::Plain),
        (all, open) => (format!("!{open} of {} in trouble", many(all, "breaker", "breakers")), Tone::Bad),
    });
    let found = short_of(overview, true);
    let short = store.shortfalls.len() + found.len();
    if short > 0 {
        parts.push((format!("!{}", many(short, "shortfall", "shortfalls")), Tone::Warning));
    }
    let mut lines = vec![named("store", &parts, columns, paint)];
    let breakers = troubled.iter().map(|((endpoint, state), nodes)| {
        (format!("!{endpoint} {} at {}", state.replace('_', " "), nodes.join(", ")), Tone::Bad)
    });
    let shortfalls =
        store.shortfalls.iter().map(|one| (format!("!{}: {}", one.name, one.text), Tone::Warning));
    let details: Said = breakers.chain(found).chain(shortfalls).collect();
    lines.extend(below(&details, STORE_LINES_MAX, columns, paint));
    lines
}

/// What stands below a line that is about the same: at most so many lines of it.
fn below(details: &Said, lines_max: usize, columns: usize, paint: Paint) -> Vec<Line<'static>> {
    let shown = if details.len() > lines_max { lines_max - 1 } else { details.len() };
    let one = |one| named("", std::slice::from_ref(one), columns, paint);
    let mut lines: Vec<_> = details.iter().take(shown).map(one).collect();
    if details.len() > shown {
        let more = (format!("and {} more", count(details.len() - shown)), Tone::Soft);
        lines.push(named("", &[more], columns, paint));
    }
    lines
}

/// What nodes say that they fall short of, in the store or in anything else: once what many say alike.
fn short_of(overview: &Overview, is_store: bool) -> Said {
    let mut found: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for node in &overview.nodes {
        for one in node.shortfalls.iter().filter(|one| (one.name == STORE) == is_store) {
            found.entry((&one.name, &one.text)).or_default().push(node.node.clone());
        }
    }
    let said = found.into_iter().map(|((name, text), nodes)| {
        let name = if is_store { String::new() } else { format!("{name}: ") };
        (format!("!{name}{text} (at {})", few(&nodes)), Tone::Warning)
    });
    said.collect()
}

/// How many shortfalls the nodes have beside the store's, and which; nothing where they have none.
fn shortfalls(overview: &Overview, columns: usize, paint: Paint) -> Vec<Line<'static>> {
    let found = short_of(overview, false);
    if found.is_empty() {
        return Vec::new();
    }
    let said = (format!("!{}", many(found.len(), "shortfall", "shortfalls")), Tone::Warning);
    let mut lines = vec![named("nodes", &[said], columns, paint)];
    lines.extend(below(&found, NODE_LINES_MAX, columns, paint));
    lines
}

/// Both of them, of so many rows each, one below the other.
fn plots(
    picture: &Picture,
    now: Duration,
    (columns, rows): (usize, usize),
    paint: Paint,
) -> Vec<Line<'static>> {
    let overview = &picture.overview;
    let acks = overview.rates.map(|rates| rate(rates.acks));
    let p99 = overview.latency_ms.applied.p99.map(span);
    let mut lines =
        plot(&picture.past, ("acks/s", acks, rate), now, (columns, rows), |sample| sample.acks, paint);
    let said = ("ack p99", p99, span as fn(f64) -> String);
    lines.extend(plot(&picture.past, said, now, (columns, rows), |sample| sample.applied_p99, paint));
    lines
}

/// The latest to the right, as high as the highest that is shown; nothing where nothing was told.
fn plot(
    past: &Past,
    (name, value, say): (&str, Option<String>, fn(f64) -> String),
    now: Duration,
    (columns, rows): (usize, usize),
    figure: impl Fn(&Sample) -> Option<f64>,
    paint: Paint,
) -> Vec<Line<'static>> {
    let reach = usize::try_from(REACH.as_secs()).unwrap_or(usize::MAX);
    let drawn = past.columns(columns.saturating_sub(NAME + NUMBER + 1).min(reach), now, figure);
    let most = drawn.iter().flatten().copied().fold(0.0, f64::max);
    let mut lines = Vec::new();
    for row in 0..rows {
        let (left, tone) = match row {
            0 => (padded(name, NAME, false), Tone::Soft),
            1 => (padded("  last", NAME, false), Tone::Soft),
            2 => (padded("  5 min", NAME, false), Tone::Soft),
            _ => (" ".repeat(NAME), Tone::Soft),
        };
        let number = match row {
            0 => padded(value.as_deref().unwrap_or(UNKNOWN), NUMBER, true),
            1 if most > 0.0 => padded(&format!("≤{}", say(most)), NUMBER, true),
            _ => " ".repeat(NUMBER),
        };
        let bars: String = drawn.iter().map(|value| bar(*value, most, rows, rows - 1 - row)).collect();
        lines.push(Line::from(vec![
            paint.span(left, tone),
            paint.span(number, if row == 0 { Tone::Strong } else { Tone::Soft }),
            Span::raw(" "),
            paint.span(bars, Tone::Plot),
        ]));
    }
    lines
}

/// What a column shows in a row, of so many, that has so many below it. What is told is seen, if it is nothing.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "eighths of a row"
)]
fn bar(value: Option<f64>, most: f64, rows: usize, below: usize) -> char {
    let Some(value) = value else { return ' ' };
    let eighths = if most > 0.0 { (value / most * (8 * rows) as f64).round() as usize } else { 0 };
    BARS.get(eighths.max(1).saturating_sub(8 * below).min(8)).copied().unwrap_or(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_what_they_show_and_nothing_is_drawn_where_nothing_was_told() {
        let drawn = |rows: usize| {
            let row =
                |below| [None, Some(0.0), Some(2.0), Some(4.0)].map(|value| bar(value, 4.0, rows, below));
            (0..rows).rev().map(|below| row(below).iter().collect::<String>()).collect::<Vec<_>>()
        };
        assert_eq!(
            (drawn(1), drawn(2)),
            (vec![" ▁▄█".to_owned()], vec!["   █".to_owned(), " ▁██".to_owned()])
        );
        assert_eq!(bar(Some(0.0), 0.0, 1, 0), '▁');
    }

    #[test]
    fn what_does_not_fit_is_left_out_as_a_whole() {
        let parts = ["one", "two", "three"].map(|part| (part.to_owned(), Tone::Plain));
        let told = |columns| {
            joined(&parts, columns, Paint::none()).iter().map(|span| span.content.clone()).collect::<String>()
        };
        assert_eq!(
            (told(20), told(16), told(9), told(2)),
            ("one · two · three".into(), "one · two".into(), "one · two".into(), "o…".into())
        );
    }
}
