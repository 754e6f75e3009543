//! A table in so many columns of a terminal: those that matter most stay when there is not room for all. Pure.

use ratatui::text::Line;

use super::paint::{Paint, Tone};
use super::words::{padded, width};

/// Columns that a name keeps however narrow the terminal is.
const NAME_MIN: usize = 12;
/// Between two columns.
const GAPS: [usize; 2] = [2, 1];

/// What stands in one place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tone: Tone,
}

impl Cell {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }

    pub(super) fn of(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

/// A column. The first one of a grid is the name: it always stays, and takes what is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) head: String,
    pub(super) is_number: bool,
    /// Which go first where there is no room: those with the highest.
    pub(super) rank: usize,
    pub(super) cells: Vec<Cell>,
}

impl Column {
    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| width(&cell.text));
        cells.chain([width(&self.head)]).max().unwrap_or_default()
    }
}

/// The head, and a line for each row.
pub(super) fn lines(
    columns: &[Column],
    columns_max: usize,
    paint: Paint,
) -> (Line<'static>, Vec<Line<'static>>) {
    let (widths, gap) = fitting(columns, columns_max);
    let shown: Vec<(&Column, usize)> =
        columns.iter().zip(&widths).filter_map(|(column, width)| Some((column, (*width)?))).collect();
    let put = |cell_of: &dyn Fn(&Column) -> Cell| {
        let mut spans = Vec::with_capacity(2 * shown.len());
        for (at, (column, width)) in shown.iter().enumerate() {
            let cell = cell_of(column);
            spans.push(" ".repeat(if at == 0 { 0 } else { gap }).into());
            spans.push(paint.span(padded(&cell.text, *width, column.is_number), cell.tone));
        }
        Line::from(spans)
    };
    let head = put(&|column| Cell::of(column.head.clone(), Tone::Soft));
    let rows = columns.first().map_or(0, |name| name.cells.len());
    let row = |at: usize| put(&|column| column.cells.get(at).cloned().unwrap_or_default());
    (head, (0..rows).map(row).collect())
}

/// How wide each column is, none for those without a place; and how wide the gaps are.
fn fitting(columns: &[Column], columns_max: usize) -> (Vec<Option<usize>>, usize) {
    let wished: Vec<usize> = columns.iter().map(Column::width).collect();
    let Some((name, others)) = wished.split_first() else { return (Vec::new(), 0) };
    let all = others.iter().sum::<usize>() + (*name).min(NAME_MIN);
    // Air where there is room for all with it.
    let gap = GAPS.into_iter().find(|gap| all + gap * others.len() <= columns_max).unwrap_or(1);
    let mut by_rank: Vec<(usize, &Column)> = columns.iter().enumerate().skip(1).collect();
    by_rank.sort_by_key(|(_, column)| column.rank);
    let mut widths: Vec<Option<usize>> = vec![None; columns.len()];
    let mut left = columns_max.saturating_sub((*name).min(NAME_MIN));
    for (at, _) in by_rank {
        let Some(wish) = wished.get(at).copied() else { continue };
        if wish + gap > left {
            // None that matters less takes the place of one that matters more.
            break;
        }
        left -= wish + gap;
        if let Some(width) = widths.get_mut(at) {
            *width = Some(wish);
        }
    }
    if let Some(width) = widths.first_mut() {
        *width = Some((*name).min((*name).min(NAME_MIN) + left).min(columns_max));
    }
    (widths, gap)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(head: &str, rank: usize, cells: &[&str]) -> Column {
        let cells = cells.iter().map(|text| Cell::plain(*text)).collect();
        Column { head: head.to_owned(), is_number: rank > 0, rank, cells }
    }

    #[test]
    fn what_matters_most_stays_when_there_is_not_room_for_all() {
        let columns = [
            column("node", 0, &["a-long-name-of-a-node", "b"]),
            column("links", 3, &["1,000", "2"]),
            column("state", 1, &["up", "paused"]),
            column("p99", 2, &["1.2 ms", "–"]),
        ];
        let told = |width| {
            let (head, rows) = lines(&columns, width, Paint::none());
            [vec![head], rows].concat().iter().map(|line| format!("{line}|")).collect::<Vec<_>>()
        };
        assert_eq!(
            told(50),
            [
                "node                   links   state     p99|",
                "a-long-name-of-a-node  1,000      up  1.2 ms|",
                "b                          2  paused       –|"
            ]
        );
        assert_eq!(
            told(32),
            [
                "node         links  state    p99|",
                "a-long-name… 1,000     up 1.2 ms|",
                "b                2 paused      –|"
            ]
        );
        assert_eq!(
            told(26),
            ["node          state    p99|", "a-long-name…     up 1.2 ms|", "b            paused      –|"]
        );
        assert_eq!(told(3), ["no…|", "a-…|", "b  |"]);
    }
}
