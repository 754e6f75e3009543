//! What is wrong, as lines: each alarm with how bad it is, where, since when, and with as much of what its nodes say and of
//! what to do as there is room for; or why there is none, and what that is worth. Pure.

use ratatui::text::Line;

use super::alarms::{Ringing, Said, few};
use super::figures::joined;
use super::paint::{Paint, Tone};
use super::picture::{List, Picture};
use super::words::{clock, count, cut, duration, many, measure, width, wrapped};

/// Lines of what is said where no alarm is on, or can be.
const CALM_MAX: usize = 3;

/// How many lines all of it is.
pub(super) fn rows(picture: &Picture, columns: usize) -> usize {
    let alarms = picture.ringing.iter().map(|one| details(one, columns, usize::MAX).len() + 1);
    alarms.sum::<usize>() + calm(picture, columns, Paint::none()).len()
}

/// One line of an alarm: how bad, what, where, since when, and the number. `now`: when it was said to be on, Unix ms.
fn headline(one: &Ringing, now: u64, columns: usize, paint: Paint) -> Line<'static> {
    let (sign, tone) = match (one.is_ending, one.is_critical) {
        (true, true) => ("▲ ENDING", Tone::Soft),
        (true, false) => ("! ENDING", Tone::Soft),
        (false, true) => ("▲ CRITICAL", Tone::Critical),
        (false, false) => ("! WARNING", Tone::Warning),
    };
    let plain = if one.is_ending { Tone::Soft } else { Tone::Plain };
    let mut parts = vec![(one.title.clone(), if one.is_ending { plain } else { Tone::Strong })];
    if !one.nodes.is_empty() {
        // It is another one that has vanished.
        let at = if one.name == "node_lost" { "seen by" } else { "at" };
        parts.push((format!("{at} {}", few(&one.nodes)), plain));
    }
    if let Some(since) = one.since {
        let lasts = duration(now.saturating_sub(since));
        parts.push((format!("since {} UTC, for {lasts}", clock(since)), plain));
    }
    if let Some((value, limit, unit)) = &one.measured {
        let is = match (one.is_ending, one.nodes.len()) {
            (true, _) => "was ",
            (false, 0 | 1) => "",
            (false, _) => "up to ",
        };
        parts.push((format!("{is}{}, limit {}", measure(*value, unit), measure(*limit, unit)), plain));
    }
    let mut spans = vec![paint.span(sign, tone), " ".into()];
    spans.extend(joined(&parts, columns.saturating_sub(width(sign) + 1), paint));
    Line::from(spans)
}

/// What somebody says of it.
fn told(said: &Said) -> String {
    match (&said.node, said.is_ending) {
        (_, _) if said.text.is_empty() => String::new(),
        (None, false) => said.text.clone(),
        (None, true) => format!("It said: {}", said.text),
        (Some(node), false) => format!("{node}: {}", said.text),
        (Some(node), true) => format!("{node}, ending: {}", said.text),
    }
}

/// What it is, and what to do: in one line (what to do), in more (a line for each node that says something of its own, as
/// many as there is room for), or in as many as all of it takes.
fn details(one: &Ringing, columns: usize, lines_max: usize) -> Vec<String> {
    let inner = columns.saturating_sub(4);
    let marked = |mark: &str, lines: Vec<String>| -> Vec<String> {
        let marks = std::iter::once(mark).chain(std::iter::repeat(" "));
        lines.into_iter().zip(marks).map(|(line, mark)| format!("  {mark} {line}")).collect()
    };
    let said: Vec<String> = one.said.iter().map(told).filter(|said| !said.is_empty()).collect();
    let all = said.iter().flat_map(|said| wrapped(said, inner)).collect();
    let whole = [marked(" ", all), marked("→", wrapped(&one.advice, inner))].concat();
    if whole.len() <= lines_max {
        return whole;
    }
    let advice = if one.advice.is_empty() { Vec::new() } else { vec![cut(&one.advice, inner)] };
    let advice = marked("→", advice.into_iter().take(lines_max).collect());
    let places = lines_max - advice.len();
    let shown = if said.len() > places && places > 1 { places - 1 } else { places };
    let mut brief: Vec<String> = said.iter().take(shown).map(|said| cut(said, inner)).collect();
    if shown < places && said.len() > shown {
        let left = said.len() - shown;
        brief.push(cut(&format!("and {}", many(left, "more node", "more nodes")), inner));
    }
    [marked(" ", brief), advice].concat()
}

/// How many lines of details each of these alarms gets: a line for each, then two, then one for each node too, then all of
/// it, as long as there are any. `is_read`: somebody has scrolled to the first one, which has all that it needs before.
fn detailed(all: &[Ringing], columns: usize, mut spare: usize, is_read: bool) -> Vec<usize> {
    let mut given = vec![0; all.len()];
    let first = usize::from(is_read).min(all.len());
    let whole = all.iter().enumerate().take(first).map(|(at, one)| (at, one, usize::MAX));
    let rounds = [1, 2, 0, usize::MAX].into_iter().flat_map(|most| {
        let most = move |one: &Ringing| if most == 0 { one.said.len() + 1 } else { most };
        all.iter().enumerate().map(move |(at, one)| (at, one, most(one)))
    });
    for (at, one, most) in whole.chain(rounds) {
        let Some(lines) = given.get_mut(at) else { continue };
        let needs = details(one, columns, most.min(*lines + spare)).len();
        if needs > *lines {
            spare -= needs - *lines;
            *lines = needs;
        }
    }
    given
}

/// Where none is on, what that is worth; and where none can be, beside those that are.
fn calm(picture: &Picture, columns: usize, paint: Paint) -> Vec<Line<'static>> {
    let is_calm = picture.ringing.is_empty();
    let blind = &picture.blind;
    let is_blind = !blind.is_empty() && blind.len() == picture.overview.nodes.len();
    let mut said = Vec::new();
    if is_calm && !picture.pending.is_empty() {
        let pending: Vec<String> = picture.pending.iter().map(Ringing::brief).collect();
        said.push(("…", Tone::Plain, pending.join(" · ")));
    }
    // None that is on is no sign where none can be.
    if is_blind {
        said.push((
            "–",
            Tone::Warning,
            "Nothing is counted (metrics.record=false): no alarm can ring.".to_owned(),
        ));
    } else if !blind.is_empty() {
        let at = few(blind);
        let is_well = is_calm && said.is_empty() && picture.trouble.is_none();
        let well = if is_well { " Nothing is wrong at the others." } else { "" };
        said.push((
            "–",
            Tone::Warning,
            format!("Nothing is counted at {at} (metrics.record=false): no alarm can ring there.{well}"),
        ));
    }
    if is_calm && said.is_empty() {
        said.push(match picture.trouble {
            Some(_) => ("–", Tone::Soft, "Nothing was wrong.".to_owned()),
            None => ("✓", Tone::Good, "Nothing is wrong.".to_owned()),
        });
    }
    let lines = said.into_iter().flat_map(|(sign, tone, text)| {
        let signs = std::iter::once(sign).chain(std::iter::repeat(" "));
        let lines = wrapped(&text, columns.saturating_sub(2)).into_iter().zip(signs);
        lines
            .map(|(line, sign)| Line::from(vec![paint.span(format!("{sign} "), tone), line.into()]))
            .collect::<Vec<_>>()
    });
    lines.take(CALM_MAX).collect()
}

/// The worst first; each with as much of what to do as there is room for.
pub(super) fn lines(
    picture: &mut Picture,
    (columns, rows): (usize, usize),
    paint: Paint,
) -> Vec<Line<'static>> {
    let calm = calm(picture, columns, paint);
    let all = picture.rows(List::Alarms);
    let offset = picture.placed(List::Alarms, if self::rows(picture, columns) <= rows { all } else { 1 });
    let ringing = from(&picture.ringing, offset);
    let is_read = picture.list == List::Alarms;
    // One line is for those that have none.
    let shown = if ringing.len() > rows { rows.saturating_sub(1) } else { ringing.len() };
    let left = ringing.len() - shown;
    let shown = ringing.get(..shown).unwrap_or_default();
    let spare = rows.saturating_sub(shown.len() + usize::from(left > 0));
    let calm: Vec<Line<'static>> = calm.into_iter().take(spare).collect();
    let mut lines = Vec::new();
    for (one, told) in shown.iter().zip(detailed(shown, columns, spare - calm.len(), is_read)) {
        lines.push(headline(one, picture.overview.as_of, columns, paint));
        let tone = if one.is_ending { Tone::Soft } else { Tone::Plain };
        lines.extend(details(one, columns, told).into_iter().map(|line| Line::from(paint.span(line, tone))));
    }
    if left > 0 {
        lines.push(Line::from(paint.span(format!("  and {} more", count(left)), Tone::Warning)));
    }
    lines.extend(calm);
    lines
}

/// Those that are left where so much of what is said is above what is shown.
fn from(all: &[Ringing], mut above: usize) -> Vec<Ringing> {
    let mut left = Vec::new();
    for one in all {
        let said = one.said.len().max(1);
        if above >= said {
            above -= said;
            continue;
        }
        let mut one = one.clone();
        one.said.drain(..above.min(one.said.len()));
        above = 0;
        left.push(one);
    }
    left
}
