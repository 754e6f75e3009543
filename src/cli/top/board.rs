//! The picture on so many columns and rows: what matters most stays when there is not room for all, and lists that are
//! longer than their place can be scrolled. Pure: draws into a buffer, and knows no terminal.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::Widget as _;

use super::cards;
use super::figures::{self, joined};
use super::keys;
use super::lists;
use super::paint::{Paint, Tone};
use super::picture::{List, Picture};
use super::words::{clock, count, cut, duration, many, width, wrapped};

/// Lines of what is in the way.
const TROUBLE_MAX: usize = 2;
/// What is so old is not live.
const OLD: Duration = Duration::from_millis(3_500);

/// A part of the screen, from the top down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Title,
    Trouble,
    Alarms,
    Figures,
    Nodes,
    Changes,
    Lists,
    Foot,
}

const PARTS: [Part; 8] = [
    Part::Title,
    Part::Trouble,
    Part::Alarms,
    Part::Figures,
    Part::Nodes,
    Part::Changes,
    Part::Lists,
    Part::Foot,
];

/// Draws it, as it is `now`, since the first look.
pub(super) fn draw(buffer: &mut Buffer, picture: &mut Picture, now: Duration, paint: Paint) {
    let area = buffer.area;
    // A margin of one on both sides, where there is room for it.
    let margin = u16::from(area.width > 40);
    let area = Rect { x: area.x + margin, width: area.width.saturating_sub(2 * margin), ..area };
    let size = (usize::from(area.width), usize::from(area.height));
    let lines = if picture.has_help { help(picture, size, paint) } else { screen(picture, now, size, paint) };
    for (line, y) in lines.into_iter().zip(area.y..area.bottom()) {
        line.render(Rect { y, height: 1, ..area }, buffer);
    }
}

/// All of it as plain text, as long as it needs to be.
pub(super) fn text(picture: &mut Picture, columns: usize) -> String {
    picture.is_plain = true;
    let lines = screen(picture, picture.told_at, (columns, usize::MAX), Paint::none());
    let mut text = String::new();
    for line in lines {
        text.push_str(line.to_string().trim_end());
        text.push('\n');
    }
    text
}

/// All lines of a screen of this size.
fn screen(
    picture: &mut Picture,
    now: Duration,
    (columns, rows): (usize, usize),
    paint: Paint,
) -> Vec<Line<'static>> {
    let trouble = trouble(picture, now, columns, paint);
    let heights = allot(picture, (columns, rows), trouble.len());
    let mut spare = rows.saturating_sub(heights.iter().sum());
    let mut lines: Vec<Line<'static>> = Vec::new();
    for (part, height) in PARTS.into_iter().zip(heights) {
        let size = (columns, height);
        let mut drawn = match part {
            Part::Title => vec![title(picture, now, columns, paint)],
            Part::Trouble => trouble.clone(),
            Part::Alarms => cards::lines(picture, size, paint),
            Part::Figures => figures::lines(picture, now, size, paint),
            Part::Nodes => lists::nodes(picture, size, paint),
            Part::Changes => lists::changes(picture, size, paint),
            Part::Lists => lists::rooms_and_slow(picture, size, paint),
            Part::Foot => vec![foot(picture, columns, paint)],
        };
        drawn.truncate(height);
        // Air between the parts, as far as there is any.
        let is_apart = !drawn.is_empty() && !matches!(part, Part::Title | Part::Trouble | Part::Foot);
        if is_apart && spare > 0 {
            spare -= 1;
            lines.push(Line::default());
        }
        if part == Part::Foot && !picture.is_plain {
            lines.resize(rows.saturating_sub(drawn.len()).max(lines.len()), Line::default());
        }
        lines.extend(drawn);
    }
    lines
}

/// How many rows each part gets: first the least of what matters most, then more of it, as long as there are any.
fn allot(picture: &Picture, (columns, rows): (usize, usize), trouble: usize) -> [usize; PARTS.len()] {
    let (mut heights, mut left) = ([0; PARTS.len()], rows);
    let mut give = |part: Part, upto: usize| {
        let height = PARTS.iter().position(|known| *known == part).and_then(|at| heights.get_mut(at));
        let Some(height) = height else { return };
        let more = upto.saturating_sub(*height).min(left);
        *height += more;
        left -= more;
    };
    let ringing = picture.ringing.len();
    let told = cards::rows(picture, columns);
    let nodes = picture.rows(List::Nodes) + 1;
    let changes = picture.rows(List::Changes) + 1;
    let lists = lists::rows(picture, columns);
    let figures = figures::rows(picture, columns);
    give(Part::Title, 1);
    // Where none is on, why that is so.
    give(Part::Alarms, if ringing == 0 { told } else { ringing.min(3) });
    give(Part::Trouble, trouble);
    give(Part::Figures, 2);
    // What is chosen has a place, however small the screen is.
    match picture.list {
        List::Changes => give(Part::Changes, changes.min(3)),
        List::Rooms | List::Slow => give(Part::Lists, lists.min(3)),
        List::Alarms => give(Part::Alarms, told.min(3)),
        List::Nodes => {}
    }
    give(Part::Nodes, nodes.min(2));
    give(Part::Foot, usize::from(!picture.is_plain));
    give(Part::Figures, figures);
    give(Part::Nodes, nodes.min(4));
    give(Part::Changes, changes.min(2));
    give(Part::Lists, lists.min(4));
    give(Part::Alarms, told.min(3 * ringing).min(rows / 3));
    give(Part::Nodes, nodes.min(rows / 3));
    give(Part::Alarms, told);
    give(Part::Changes, changes.min(rows / 4));
    give(Part::Lists, lists);
    give(Part::Nodes, nodes);
    give(Part::Changes, changes);
    // Higher plots, where nothing else wants the rows.
    if !picture.is_plain {
        give(Part::Figures, figures + (rows.saturating_sub(30) / 2).min(8));
    }
    heights
}

/// Words to the left and words to the right of one line.
fn ends(
    left: Vec<(String, Tone)>,
    right: Vec<(String, Tone)>,
    columns: usize,
    paint: Paint,
) -> Line<'static> {
    let right = joined(&right, columns, paint);
    let taken: usize = right.iter().map(|span| span.width()).sum();
    let mut spans = joined(&left, columns.saturating_sub(taken + 1), paint);
    let gap = columns.saturating_sub(taken + spans.iter().map(|span| span.width()).sum::<usize>());
    spans.push(" ".repeat(gap).into());
    spans.extend(right);
    Line::from(spans)
}

fn title(picture: &Picture, now: Duration, columns: usize, paint: Paint) -> Line<'static> {
    let Picture { overview, url, .. } = picture;
    let host = url.strip_prefix("http://").unwrap_or(url);
    let mut left = vec![("Hearth".to_owned(), Tone::Strong), (host.to_owned(), Tone::Plain)];
    left.push((many(overview.nodes.len(), "node", "nodes"), Tone::Plain));
    if !overview.version.is_empty() {
        left.push((format!("version {}", overview.version), Tone::Soft));
    }
    let mut right = Vec::new();
    for is_critical in [true, false] {
        let of_grade = picture.ringing.iter().filter(|one| one.is_critical == is_critical);
        let (all, ending) =
            of_grade.fold((0, 0), |(all, ending), one| (all + 1, ending + usize::from(one.is_ending)));
        let (mut said, tone) = match is_critical {
            true => (format!("▲ {} critical", count(all)), Tone::Bad),
            false => (format!("! {}", many(all, "warning", "warnings")), Tone::Warning),
        };
        if ending > 0 && columns >= lists::BESIDE {
            said +=
                &if ending == all { ", ending".to_owned() } else { format!(", {} ending", count(ending)) };
        }
        // What is over but for its end is nothing to run for.
        if all > 0 {
            right.push((said, if ending == all { Tone::Soft } else { tone }));
        }
    }
    let age = now.saturating_sub(picture.told_at);
    right.push(match picture.is_plain {
        true => (format!("{} UTC", clock(overview.as_of)), Tone::Plain),
        false if age < OLD && picture.trouble.is_none() => ("live".to_owned(), Tone::Good),
        false => (format!("✗ {} old", aged(age)), Tone::Bad),
    });
    ends(left, right, columns, paint)
}

fn aged(age: Duration) -> String {
    duration(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

fn trouble(picture: &Picture, now: Duration, columns: usize, paint: Paint) -> Vec<Line<'static>> {
    let Some(trouble) = &picture.trouble else { return Vec::new() };
    let next = trouble.next.saturating_sub(now).as_secs_f64().ceil();
    let next = if next > 0.0 { format!("trying again in {next} s") } else { "trying again".to_owned() };
    let age = aged(now.saturating_sub(picture.told_at));
    let said = format!("✗ what you see is {age} old, {next}: {}", trouble.why);
    let mut lines = wrapped(&said, columns);
    lines.truncate(TROUBLE_MAX);
    lines.into_iter().map(|line| Line::from(paint.span(line, Tone::Critical))).collect()
}

fn foot(picture: &Picture, columns: usize, paint: Paint) -> Line<'static> {
    let keys = keys::foot().map(|key| (key, Tone::Soft)).collect();
    let Picture { overview, sort, .. } = picture;
    let by = (format!("nodes by {}", sort.name()), Tone::Soft);
    let told = (format!("told by {}, {} UTC", overview.node, clock(overview.as_of)), Tone::Soft);
    let right = if columns >= lists::BESIDE { vec![told, by] } else { Vec::new() };
    ends(keys, right, columns, paint)
}

/// What stands on the screen, and is not plain.
const WORDS: [(&str, &str); 14] = [
    ("acks", "commands answered a second"),
    ("refused failed", "as too much or too fast; at the server, by its own fault"),
    ("p50/99 ms", "half, and 99 in 100, of the last 10 s took no longer"),
    ("applied durable", "from a command to its ack"),
    ("commit calls", "commits of the store; calls of services"),
    ("sess", "sessions of a node"),
    ("dirty", "records that the store does not have as they are"),
    ("flush", "how long the oldest of those has waited"),
    ("mail", "how late letters to other nodes are"),
    ("p99 cpu", "of applied acks; of one core"),
    ("to go", "shards that others have yet to take from a node that stops"),
    ("from memory", "a node that serves without a lease: the store is away"),
    ("paused", "a node that holds shards that it may not serve now"),
    ("! ▲ ✗ – …", "worth a look; critical; not live; not known; if it lasts"),
];

fn help(picture: &mut Picture, (columns, rows): (usize, usize), paint: Paint) -> Vec<Line<'static>> {
    let words = WORDS.iter().map(|(name, said)| ((*name).to_owned(), *said));
    let all: Vec<(String, &str)> = keys::help().chain([(String::new(), "")]).chain(words).collect();
    let names = all.iter().map(|(name, _)| width(name)).max().unwrap_or_default() + 2;
    let mut told = Vec::new();
    for (name, said) in &all {
        // On a narrow terminal what it says goes on below it, as far in as there is room for.
        let wide = columns.saturating_sub(names);
        if width(said) <= wide {
            told.push(format!("{name}{}{said}", " ".repeat(names.saturating_sub(width(name)))));
            continue;
        }
        told.push(cut(name, columns));
        told.extend(wrapped(said, columns.saturating_sub(2)).into_iter().map(|line| format!("  {line}")));
    }
    let places = rows.saturating_sub(1);
    let offset = picture.placed_help(told.len(), places);
    let mut head = "hearth top: a running cluster, once a second".to_owned();
    if told.len() > places {
        let last = (offset + places).min(told.len());
        head = format!("help {}–{last}/{}, j/k scroll", (offset + 1).min(last), told.len());
    }
    let head = Line::from(paint.span(cut(&head, columns), Tone::Strong));
    std::iter::once(head).chain(told.into_iter().skip(offset).take(places).map(Line::from)).collect()
}

#[cfg(test)]
mod tests;
