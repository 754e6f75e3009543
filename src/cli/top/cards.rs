//! What is wrong, as lines: each alarm with how bad it is, where, since when, and with as much of what to do as there is
//! room for. Pure.

use std::time::Duration;

use ratatui::text::Line;

use super::alarms::Ringing;
use super::figures::joined;
use super::paint::{Paint, Tone};
use super::picture::{List, Picture};
use super::words::{clock, count, cut, duration, measure, width, wrapped};

/// Nodes of an alarm that are named.
const NODES_MAX: usize = 4;

/// How many lines all of it is.
pub(super) fn rows(picture: &Picture, columns: usize) -> usize {
    picture.ringing.iter().map(|one| details(one, columns, usize::MAX).len() + 1).sum()
}

/// One line of an alarm: how bad, what, where, since when, and the number.
fn headline(one: &Ringing, now: u64, columns: usize, paint: Paint) -> Line<'static> {
    let (sign, tone) =
        if one.is_critical { ("▲ CRITICAL", Tone::Critical) } else { ("! WARNING", Tone::Warning) };
    let mut parts = vec![(one.title.clone(), Tone::Strong)];
    if !one.nodes.is_empty() {
        let mut nodes = one.nodes.iter().take(NODES_MAX).cloned().collect::<Vec<_>>().join(", ");
        if one.nodes.len() > NODES_MAX {
            nodes = format!("{nodes} and {} more", one.nodes.len() - NODES_MAX);
        }
        parts.push((format!("at {nodes}"), Tone::Plain));
    }
    if let Some(since) = one.since {
        let lasts = duration(now.saturating_sub(since));
        parts.push((format!("since {} UTC, for {lasts}", clock(since)), Tone::Plain));
    }
    if let Some((value, limit, unit)) = &one.measured {
        parts.push((format!("{}, limit {}", measure(*value, unit), measure(*limit, unit)), Tone::Plain));
    }
    let mut spans = vec![paint.span(sign, tone), " ".into()];
    spans.extend(joined(&parts, columns.saturating_sub(width(sign) + 1), paint));
    Line::from(spans)
}

/// What it is, and what to do: in one line (what to do), in two, or in as many as that takes.
fn details(one: &Ringing, columns: usize, lines_max: usize) -> Vec<String> {
    let inner = columns.saturating_sub(4);
    let marked = |mark: &str, lines: Vec<String>| -> Vec<String> {
        let marks = std::iter::once(mark).chain(std::iter::repeat(" "));
        lines.into_iter().zip(marks).map(|(line, mark)| format!("  {mark} {line}")).collect()
    };
    let whole = [marked(" ", wrapped(&one.text, inner)), marked("→", wrapped(&one.advice, inner))].concat();
    if whole.len() <= lines_max {
        return whole;
    }
    let brief = |text: &str| if text.is_empty() { Vec::new() } else { vec![cut(text, inner)] };
    let (text, advice) = (marked(" ", brief(&one.text)), marked("→", brief(&one.advice)));
    match lines_max {
        0 => Vec::new(),
        1 => advice,
        _ => [text, advice].concat(),
    }
}

/// How many lines of details each of these alarms gets: a line for each, then two, then all of it, as long as there are
/// any. `is_read`: somebody has scrolled to the first one, which has all that it needs before.
fn detailed(all: &[Ringing], columns: usize, mut spare: usize, is_read: bool) -> Vec<usize> {
    let mut given = vec![0; all.len()];
    let first = usize::from(is_read).min(all.len());
    let turns = all.iter().enumerate();
    let whole = turns.clone().take(first).map(|(at, one)| (at, one, usize::MAX));
    let rounds =
        [1, 2, usize::MAX].into_iter().flat_map(|most| turns.clone().map(move |(at, one)| (at, one, most)));
    for (at, one, most) in whole.chain(rounds) {
        let Some(lines) = given.get_mut(at) else { continue };
        let needs = details(one, columns, most).len();
        if needs > *lines && needs - *lines <= spare {
            spare -= needs - *lines;
            *lines = needs;
        }
    }
    given
}

/// The worst first; each with as much of what to do as there is room for.
pub(super) fn lines(
    picture: &mut Picture,
    now: Duration,
    (columns, rows): (usize, usize),
    paint: Paint,
) -> Vec<Line<'static>> {
    let all = picture.ringing.len();
    if all == 0 {
        let said = if picture.trouble.is_some() { "Nothing was wrong." } else { "Nothing is wrong." };
        return vec![Line::from(vec![paint.span("✓ ", Tone::Good), said.into()])];
    }
    let offset = picture.placed(List::Alarms, if self::rows(picture, columns) <= rows { all } else { 1 });
    let ringing = picture.ringing.get(offset..).unwrap_or_default();
    let is_read = picture.list == List::Alarms;
    // One line is for those that have none.
    let shown = if ringing.len() > rows { rows.saturating_sub(1) } else { ringing.len() };
    let shown = ringing.get(..shown).unwrap_or_default();
    let server_now = picture.server_now(now);
    let spare = rows.saturating_sub(shown.len() + usize::from(shown.len() < ringing.len()));
    let mut lines = Vec::new();
    for (one, told) in shown.iter().zip(detailed(shown, columns, spare, is_read)) {
        lines.push(headline(one, server_now, columns, paint));
        lines.extend(details(one, columns, told).into_iter().map(Line::from));
    }
    if shown.len() < ringing.len() {
        let more = format!("  and {} more", count(ringing.len() - shown.len()));
        lines.push(Line::from(paint.span(more, Tone::Warning)));
    }
    lines
}
