//! The table of nodes: its columns, and by which of them it is sorted. Pure.

use protocol::calls::NodeOverview;

use super::grid::{Cell, Column};
use super::paint::Tone;
use super::words::{UNKNOWN, bytes, count, duration, percent, rate, span};

/// Above it a lag or a latency is worth a look, ms.
const LONG_MS: f64 = 1_000.0;

/// A column of the table.
struct Kind {
    head: &'static str,
    /// Which go first where there is no room: those with the highest.
    rank: usize,
    /// Of a node, now (Unix ms).
    cell: fn(&NodeOverview, u64) -> Cell,
    /// What it is sorted by, the highest first.
    weight: fn(&NodeOverview) -> Option<f64>,
}

/// All of them, as they stand beside each other; the name is the first, and what it is sorted by is itself.
const KINDS: [Kind; 15] = [
    Kind { head: "node", rank: 0, cell: |node, _| Cell::plain(node.node.clone()), weight: |_| None },
    Kind { head: "state", rank: 1, cell: |node, _| state(node).0, weight: |node| Some(state(node).1) },
    Kind {
        head: "shards",
        rank: 6,
        cell: |node, _| counted(node.shards),
        weight: |node| node.shards.map(float),
    },
    Kind {
        head: "links",
        rank: 7,
        cell: |node, _| counted(node.links),
        weight: |node| node.links.map(float),
    },
    Kind {
        head: "sess",
        rank: 5,
        cell: |node, _| counted(node.sessions),
        weight: |node| node.sessions.map(float),
    },
    Kind {
        head: "cpu",
        rank: 3,
        cell: |node, _| told(node.cpu_percent, percent),
        weight: |node| node.cpu_percent,
    },
    Kind {
        head: "memory",
        rank: 4,
        cell: |node, _| told(node.memory_bytes.map(long), bytes),
        weight: |node| node.memory_bytes.map(long),
    },
    Kind {
        head: "dirty",
        rank: 8,
        cell: |node, _| counted(node.dirty),
        weight: |node| node.dirty.map(float),
    },
    Kind {
        head: "flush",
        rank: 9,
        cell: |node, _| lag(node.flush_lag_ms.map(long)),
        weight: |node| node.flush_lag_ms.map(long),
    },
    Kind {
        head: "mail",
        rank: 10,
        cell: |node, _| lag(node.mail_lag_ms.map(long)),
        weight: |node| node.mail_lag_ms.map(long),
    },
    Kind {
        head: "p99",
        rank: 2,
        cell: |node, _| lag(node.applied_p99_ms),
        weight: |node| node.applied_p99_ms,
    },
    Kind { head: "acks/s", rank: 11, cell: |node, _| told(node.acks, rate), weight: |node| node.acks },
    Kind {
        head: "breakers",
        rank: 12,
        cell: |node, _| breakers(node),
        weight: |node| Some(float(troubled(node))),
    },
    Kind {
        head: "records",
        rank: 13,
        cell: |node, _| counted(node.records),
        weight: |node| node.records.map(float),
    },
    Kind {
        head: "up for",
        rank: 14,
        cell: |node, now| {
            let up = node.started_at.map(|at| duration(now.saturating_sub(at)));
            Cell::plain(up.unwrap_or_else(|| UNKNOWN.to_owned()))
        },
        // Who came last comes first.
        weight: |node| node.started_at.map(long),
    },
];

/// By which column they are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sort(usize);

impl Sort {
    /// By the next column, and behind the last one by the first again.
    pub(super) fn next(self) -> Self {
        Self((self.0 + 1) % KINDS.len())
    }

    pub(super) fn name(self) -> &'static str {
        KINDS.get(self.0).map_or("", |kind| kind.head)
    }

    /// In this order: by name where they are alike, those that do not say it last.
    pub(super) fn sort(self, nodes: &mut [NodeOverview]) {
        let weight = KINDS.get(self.0).map(|kind| kind.weight);
        let weight = |node: &NodeOverview| weight.and_then(|weight| weight(node)).unwrap_or(-1.0);
        nodes.sort_by(|one, other| {
            weight(other).total_cmp(&weight(one)).then_with(|| one.node.cmp(&other.node))
        });
    }
}

/// All columns of these nodes, which are in the order of `sort`. `now`: when they said so, by the server's clock, Unix ms.
pub(super) fn columns(nodes: &[NodeOverview], sort: Sort, now: u64) -> Vec<Column> {
    let column = |(at, kind): (usize, &Kind)| {
        let is_sorted_by = at == sort.0;
        Column {
            head: if is_sorted_by { format!("{}▾", kind.head) } else { kind.head.to_owned() },
            is_number: at > 1,
            // What they are sorted by is there to be seen.
            rank: if is_sorted_by { 0 } else { kind.rank },
            cells: nodes.iter().map(|node| (kind.cell)(node, now)).collect(),
        }
    };
    KINDS.iter().enumerate().map(column).collect()
}

/// What a node is doing, in a word; and how bad that is.
fn state(node: &NodeOverview) -> (Cell, f64) {
    let is_paused = node.paused == Some(true);
    match node.state.as_str() {
        // Whatever else it is, it is so for as long as others have yet to take its shards.
        "stopping" if let Some(left) = node.shards_left => {
            let (tone, weight) = if is_paused { (Tone::Bad, 3.0) } else { (Tone::Warning, 1.0) };
            (Cell::of(format!("stopping, {} to go", count(left)), tone), weight)
        }
        "unknown" => (Cell::of("no answer", Tone::Bad), 4.0),
        _ if is_paused => (Cell::of("paused", Tone::Bad), 3.0),
        _ if node.local == Some(true) => (Cell::of("from memory", Tone::Warning), 2.0),
        "stopping" => (Cell::of("stopping", Tone::Warning), 1.0),
        "up" => (Cell::of("up", Tone::Good), 0.0),
        other => (Cell::plain(other), 1.0),
    }
}

fn troubled(node: &NodeOverview) -> usize {
    node.breakers.iter().filter(|breaker| breaker.state != "closed").count()
}

fn breakers(node: &NodeOverview) -> Cell {
    match (node.breakers.len(), troubled(node)) {
        // It has not answered: whoever does says of which version it is.
        (0, _) if node.version.as_ref().is_none_or(String::is_empty) => Cell::plain(UNKNOWN),
        (0, _) => Cell::plain("none"),
        (all, 0) => Cell::plain(format!("{all} closed")),
        (all, troubled) => Cell::of(format!("!{troubled} of {all}"), Tone::Bad),
    }
}

fn counted(number: Option<usize>) -> Cell {
    Cell::plain(number.map_or_else(|| UNKNOWN.to_owned(), count))
}

fn told(value: Option<f64>, said: fn(f64) -> String) -> Cell {
    Cell::plain(value.map_or_else(|| UNKNOWN.to_owned(), said))
}

/// With a sign above what is worth a look.
fn lag(ms: Option<f64>) -> Cell {
    match ms {
        Some(ms) if ms > LONG_MS => Cell::of(format!("!{}", span(ms)), Tone::Warning),
        ms => told(ms, span),
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown")]
fn float(number: usize) -> f64 {
    number as f64
}

#[allow(clippy::cast_precision_loss, reason = "shown")]
fn long(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, state: &str, p99: Option<f64>) -> NodeOverview {
        NodeOverview {
            node: name.into(),
            state: state.into(),
            applied_p99_ms: p99,
            ..NodeOverview::default()
        }
    }

    #[test]
    fn they_are_sorted_by_what_is_chosen_and_who_does_not_say_it_comes_last() {
        let mut nodes = [node("b", "up", Some(1.0)), node("c", "unknown", None), node("a", "up", Some(9.0))];
        let mut sort = Sort::default();
        let mut orders = Vec::new();
        for _ in 0..KINDS.len() {
            sort.sort(&mut nodes);
            orders.push((sort.name(), nodes.iter().map(|node| node.node.clone()).collect::<String>()));
            sort = sort.next();
        }
        assert_eq!(sort, Sort::default());
        assert_eq!(orders.first(), Some(&("node", "abc".to_owned())));
        assert!(
            orders.contains(&("state", "cab".to_owned())) && orders.contains(&("p99", "abc".to_owned())),
            "{orders:?}"
        );
    }

    #[test]
    fn what_is_bad_is_said_by_a_word_or_a_sign() {
        let mut bad = node("a", "up", Some(1_500.0));
        bad.breakers = [("r:1", "open"), ("r:2", "closed")]
            .map(|(endpoint, state)| protocol::calls::BreakerView {
                endpoint: endpoint.into(),
                state: state.into(),
            })
            .into();
        assert_eq!((lag(bad.applied_p99_ms).text, breakers(&bad).text), ("!1.5 s".into(), "!1 of 2".into()));
        assert_eq!(state(&NodeOverview { local: Some(true), ..bad.clone() }).0.text, "from memory");
        assert_eq!(state(&NodeOverview { local: Some(true), paused: Some(true), ..bad }).0.text, "paused");
        let stopping = NodeOverview { shards_left: Some(1_234), ..node("a", "stopping", None) };
        assert_eq!(state(&stopping).0, Cell::of("stopping, 1,234 to go", Tone::Warning));
        let paused = NodeOverview { paused: Some(true), ..stopping };
        assert_eq!(state(&paused).0, Cell::of("stopping, 1,234 to go", Tone::Bad));
        assert_eq!(state(&node("a", "stopping", None)).0, Cell::of("stopping", Tone::Warning));
    }

    #[test]
    fn breakers_that_nobody_told_of_are_not_known_to_be_none() {
        let told = |state, version: Option<&str>| {
            let node = NodeOverview { version: version.map(str::to_owned), ..node("a", state, None) };
            breakers(&node).text
        };
        assert_eq!(
            [told("unknown", None), told("stopping", None), told("stopping", Some("0.1.0"))],
            [UNKNOWN, UNKNOWN, "none"]
        );
    }
}
