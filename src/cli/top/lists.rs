//! What can be longer than its place, as lines: nodes, shards that change hands, rooms, slow consumers; from where somebody
//! has scrolled to. Pure.

use ratatui::text::Line;

use super::figures::joined;
use super::grid::{self, Cell, Column};
use super::nodes;
use super::paint::{Paint, Tone};
use super::picture::{List, Picture};
use super::words::{UNKNOWN, count, cut, rate};

/// From so many columns on, rooms and slow consumers stand beside each other.
pub(super) const BESIDE: usize = 64;

/// What stands over a list: its name, whether keys are its own, and which rows are shown where that is not all.
fn heading(picture: &Picture, list: List, name: &str, (offset, places): (usize, usize)) -> String {
    let mark = if picture.list == list && !picture.is_plain { "▸" } else { "" };
    let rows = picture.rows(list);
    match places < rows {
        true => format!("{mark}{name} {}–{}/{rows}", (offset + 1).min(rows), (offset + places).min(rows)),
        false => format!("{mark}{name}"),
    }
}

/// A list as a table: its head, and as many rows as there is room for, from where somebody has scrolled to.
fn table(
    picture: &mut Picture,
    list: List,
    name: &str,
    mut columns: Vec<Column>,
    (width, rows): (usize, usize),
    paint: Paint,
) -> Vec<Line<'static>> {
    let places = rows.saturating_sub(1);
    let offset = picture.placed(list, places);
    if let Some(first) = columns.first_mut() {
        let sign = if first.head.ends_with('▾') { "▾" } else { "" };
        first.head = heading(picture, list, &format!("{name}{sign}"), (offset, places));
    }
    for column in &mut columns {
        column.cells.drain(..offset.min(column.cells.len()));
        column.cells.truncate(places);
    }
    let (head, lines) = grid::lines(&columns, width, paint);
    std::iter::once(head).chain(lines).take(rows).collect()
}

pub(super) fn nodes(picture: &mut Picture, size: (usize, usize), paint: Paint) -> Vec<Line<'static>> {
    let columns = nodes::columns(&picture.overview.nodes, picture.sort, picture.overview.as_of);
    table(picture, List::Nodes, "node", columns, size, paint)
}

/// How the shards are held, and what changes hands now: in the same line where there is room for no more.
pub(super) fn changes(
    picture: &mut Picture,
    (columns, rows): (usize, usize),
    paint: Paint,
) -> Vec<Line<'static>> {
    if rows == 0 {
        return Vec::new();
    }
    let places = rows - 1;
    let offset = picture.placed(List::Changes, places);
    let held = &picture.held;
    let name =
        heading(picture, List::Changes, "shards", (offset, if places == 0 { usize::MAX } else { places }));
    let mut parts = vec![(format!("{name} {}", count(picture.overview.shards_total)), Tone::Plain)];
    parts.push((format!("{} served", count(held.serving)), Tone::Plain));
    let is_calm = held.changing == 0;
    let change = if is_calm {
        "none changes hands".to_owned()
    } else {
        format!("{} changing hands", count(held.changing))
    };
    parts.push((change, if is_calm { Tone::Soft } else { Tone::Strong }));
    if held.homeless > 0 {
        parts.push((format!("!{} without a home", count(held.homeless)), Tone::Warning));
    }
    let told =
        held.changes.iter().skip(offset).map(|one| format!("{} {}: {}", one.what, one.way, one.numbers()));
    if places == 0 {
        parts.extend(told.map(|one| (one, Tone::Plain)));
        return vec![Line::from(joined(&parts, columns, paint))];
    }
    let mut lines = vec![Line::from(joined(&parts, columns, paint))];
    lines.extend(told.take(places).map(|one| Line::from(cut(&format!("  {one}"), columns))));
    lines
}

/// How many rows rooms and slow consumers have together.
pub(super) fn rows(picture: &Picture, columns: usize) -> usize {
    let (rooms, slow) = (picture.rows(List::Rooms) + 1, picture.rows(List::Slow) + 1);
    if columns >= BESIDE { rooms.max(slow) } else { rooms + slow }
}

/// The busiest rooms, and whoever reads too slowly: beside each other where they can, or one below the other.
pub(super) fn rooms_and_slow(
    picture: &mut Picture,
    (columns, rows): (usize, usize),
    paint: Paint,
) -> Vec<Line<'static>> {
    if columns >= BESIDE {
        let half = (columns - 3) / 2;
        let mut left = rooms(picture, (half, rows), paint);
        let mut right = slow(picture, (half, rows), paint).into_iter();
        left.resize(rows, Line::default());
        for line in &mut left {
            line.push_span(" ".repeat((half + 3).saturating_sub(line.width())));
            line.spans.extend(right.next().unwrap_or_default().spans);
        }
        return left;
    }
    // What is chosen, where there is not room for both.
    let wished = [picture.rows(List::Rooms) + 1, picture.rows(List::Slow) + 1];
    let second = match picture.list {
        List::Slow => rows.min(wished[1]),
        _ if wished[0] < rows => rows - wished[0],
        _ => rows / 3,
    };
    let mut lines = rooms(picture, (columns, rows - second), paint);
    lines.extend(slow(picture, (columns, second), paint));
    lines
}

fn rooms(picture: &mut Picture, size: (usize, usize), paint: Paint) -> Vec<Line<'static>> {
    let rooms = &picture.overview.top_rooms;
    let members = |members: Option<usize>| members.map_or_else(|| UNKNOWN.to_owned(), count);
    let name = if rooms.is_empty() { "busiest rooms: nothing is said in any" } else { "busiest room" };
    let columns = vec![
        column("", false, rooms.iter().map(|room| room.room.clone())),
        column("pushes/s", true, rooms.iter().map(|room| rate(room.pushes))),
        column("members", true, rooms.iter().map(|room| members(room.members))),
    ];
    listed(picture, List::Rooms, name, columns, size, paint)
}

fn slow(picture: &mut Picture, size: (usize, usize), paint: Paint) -> Vec<Line<'static>> {
    let slow = &picture.overview.slow_consumers;
    let name = if slow.is_empty() { "slow consumers: none" } else { "slow consumer" };
    let columns = vec![
        column("", false, slow.iter().map(|one| one.player.clone())),
        column("waiting", true, slow.iter().map(|one| count(one.waiting))),
        column("link", false, slow.iter().map(|one| if one.closed { "closed" } else { "open" }.to_owned())),
        column("node", false, slow.iter().map(|one| cut(&one.node, 12))),
    ];
    listed(picture, List::Slow, name, columns, size, paint)
}

fn column(head: &str, is_number: bool, cells: impl Iterator<Item = String>) -> Column {
    Column { head: head.to_owned(), is_number, rank: 1, cells: cells.map(Cell::plain).collect() }
}

/// A list that may be empty, which its name says then.
fn listed(
    picture: &mut Picture,
    list: List,
    name: &str,
    columns: Vec<Column>,
    size: (usize, usize),
    paint: Paint,
) -> Vec<Line<'static>> {
    if picture.rows(list) > 0 {
        return table(picture, list, name, columns, size, paint);
    }
    vec![Line::from(paint.span(cut(name, size.0), Tone::Soft))].into_iter().take(size.1).collect()
}
