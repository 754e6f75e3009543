//! `hearth shards`: asks a running server for its cluster and prints who holds what. Called by the command line alone.

use std::fmt::Write as _;

use serde::Deserialize;

use super::ask::{AskError, Asked};

#[derive(Deserialize)]
struct Cluster {
    nodes: Vec<Node>,
    shards: Vec<Shard>,
}

#[derive(Deserialize)]
struct Node {
    node: String,
    url: String,
    draining: bool,
    /// Whether the node that answers has a link to it; it has none to itself.
    link: Option<String>,
    age_ms: u64,
    holds: Holds,
}

#[derive(Deserialize)]
struct Holds {
    epochs: (u64, u64),
    records_hot: u64,
    records_dirty: u64,
    flush_lag_ms: u64,
}

#[derive(Deserialize)]
struct Shard {
    shard: u16,
    home: Option<String>,
    /// Who says where it is; nobody, where that is not known.
    home_by: Option<String>,
    home_age_ms: Option<u64>,
}

/// The table that this server tells.
pub(super) fn table(asked: &Asked) -> Result<String, AskError> {
    Ok(render(&asked.get("/v1/cluster")?))
}

fn render(cluster: &Cluster) -> String {
    let held = |node: &str| {
        let is_its = |shard: &&Shard| shard.home.as_deref() == Some(node);
        cluster.shards.iter().filter(is_its).count()
    };
    let head = ["node", "shards", "epochs", "hot", "dirty", "lag ms", "heard ms ago", "link", "address"];
    let mut rows = vec![head.map(str::to_owned)];
    for Node { node, url, draining, link, age_ms, holds } in &cluster.nodes {
        let Holds { epochs: (lowest, highest), records_hot, records_dirty, flush_lag_ms } = holds;
        rows.push([
            node.clone(),
            held(node).to_string(),
            if *highest == 0 { "-".to_owned() } else { format!("{lowest}..{highest}") },
            records_hot.to_string(),
            records_dirty.to_string(),
            flush_lag_ms.to_string(),
            age_ms.to_string(),
            link.clone().unwrap_or_else(|| "-".to_owned()),
            format!("{url}{}", if *draining { " (leaving)" } else { "" }),
        ]);
    }
    let mut table = String::new();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(at, cell)| {
            let width = rows.iter().filter_map(|row| row.get(at)).map(String::len).max().unwrap_or_default();
            // Names and addresses to the left, numbers to the right.
            if at == 0 || at + 1 == row.len() { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(table, "{}", line.trim_end());
    }
    notes(&mut table, cluster);
    table
}

/// So many of them, in words.
fn shards(count: usize) -> String {
    if count == 1 { "1 shard".to_owned() } else { format!("{count} shards") }
}

/// What is to be said of some shards: what is not known is never said to be nowhere.
fn notes(table: &mut String, cluster: &Cluster) {
    let lives = |home: &str| cluster.nodes.iter().any(|node| node.node == home);
    let (mut by_nodes, mut before, mut oldest_ms) = (0, 0, 0);
    let (mut unknown, mut homeless) = (Vec::new(), Vec::new());
    for Shard { shard, home, home_by, home_age_ms } in &cluster.shards {
        match home_by.as_deref() {
            None => unknown.push(shard.to_string()),
            Some("store_before") => {
                before += 1;
                oldest_ms = oldest_ms.max(home_age_ms.unwrap_or(0));
            }
            Some(_) if !home.as_deref().is_some_and(lives) => homeless.push(shard.to_string()),
            Some("nodes") => by_nodes += 1,
            Some(_) => {}
        }
    }
    if by_nodes > 0 {
        let _ = writeln!(table, "as their nodes say, and not the store: {}", shards(by_nodes));
    }
    if before > 0 {
        let _ = writeln!(
            table,
            "as the store said {oldest_ms} ms ago, when it last answered: {}",
            shards(before)
        );
    }
    for (words, shards) in
        [("not known, since the store does not answer", unknown), ("on no live node", homeless)]
    {
        if !shards.is_empty() {
            let _ = writeln!(table, "{words}: {}", shards.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ask::tests::{answering, well};

    #[test]
    fn a_table_names_every_node_and_every_shard_without_one() {
        let told = serde_json::json!({
            "nodes": [
                {"node": "a", "url": "ws://a", "draining": false, "age_ms": 0,
                 "holds": {"epochs": [7, 19], "records_hot": 120, "records_dirty": 3, "flush_lag_ms": 40}},
                {"node": "long-name", "url": "ws://b", "draining": true, "link": "down", "age_ms": 250,
                 "holds": {"epochs": [0, 0], "records_hot": 0, "records_dirty": 0, "flush_lag_ms": 0}},
            ],
            "shards": [
                {"shard": 0, "home": "a", "home_by": "self"}, {"shard": 1, "home": "a", "home_by": "self"},
                {"shard": 2, "home_by": "store"}, {"shard": 3, "home": "dead", "home_by": "store"},
            ],
        });
        let table = render(&serde_json::from_value(told).unwrap());
        assert_eq!(
            table,
            "node       shards  epochs  hot  dirty  lag ms  heard ms ago  link  address\n\
             a               2   7..19  120      3      40             0     -  ws://a\n\
             long-name       0       -    0      0       0           250  down  ws://b (leaving)\n\
             on no live node: 2, 3\n"
        );
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        let hostile = "n\u{1b}[2J\u{9b}1m\u{202e}\r\n";
        let told = serde_json::json!({
            "nodes": [{"node": hostile, "url": hostile, "draining": false, "link": hostile, "age_ms": 0,
                "holds": {"epochs": [7, 7], "records_hot": 0, "records_dirty": 0, "flush_lag_ms": 0}}],
            "shards": [{"shard": 0, "home": hostile, "home_by": "store"}],
        });
        let table = table(&answering(well(&told))).unwrap();
        assert!(!table.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{table:?}");
        assert_eq!(table.lines().count(), 2, "{table}");
        assert!(table.lines().all(|line| line.starts_with('n')) && table.contains("n[2J1m"), "{table}");
    }

    #[test]
    fn what_is_not_known_is_not_said_to_be_nowhere() {
        let holds =
            serde_json::json!({"epochs": [7, 7], "records_hot": 0, "records_dirty": 0, "flush_lag_ms": 0});
        let node = |name| serde_json::json!({"node": name, "url": "ws://a", "draining": false, "age_ms": 0, "holds": holds});
        let told = serde_json::json!({
            "nodes": [node("a"), node("b")],
            "shards": [
                {"shard": 0, "home": "a", "home_by": "self"}, {"shard": 1, "home": "b", "home_by": "nodes"},
                {"shard": 2, "home": "b", "home_by": "store_before", "home_age_ms": 4_200}, {"shard": 3},
            ],
        });
        let table = render(&serde_json::from_value(told).unwrap());
        let (_, notes) = table.split_once("ws://a\nb").unwrap();
        assert_eq!(
            notes.split_once('\n').unwrap().1,
            "as their nodes say, and not the store: 1 shard\n\
             as the store said 4200 ms ago, when it last answered: 1 shard\n\
             not known, since the store does not answer: 3\n"
        );
        assert!(notes.split_whitespace().next() == Some("2"), "both are counted as that node's: {table}");
    }
}
