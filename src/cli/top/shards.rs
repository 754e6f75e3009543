//! Which shards are served, which change hands and which are nobody's, as the nodes say together. Pure.

use std::collections::{BTreeMap, BTreeSet};

use protocol::calls::Overview;

use super::words::{UNKNOWN, ranges};

/// How the shards are held.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Held {
    pub(super) serving: usize,
    pub(super) changing: usize,
    /// Those that no node serves or takes; 0 where a node did not answer, which may have them.
    pub(super) homeless: usize,
    /// What changes hands, those of one kind together.
    pub(super) changes: Vec<Change>,
}

/// Shards that come or go in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// In words.
    pub(super) what: String,
    /// From where to where, as far as is known.
    pub(super) way: String,
    pub(super) shards: Vec<u16>,
}

impl Change {
    /// Their numbers.
    pub(super) fn numbers(&self) -> String {
        ranges(&self.shards)
    }
}

impl Held {
    pub(super) fn of(overview: &Overview) -> Self {
        // Who gives knows more than who takes.
        let mut changing: BTreeMap<u16, (&str, Option<&str>, Option<&str>)> = BTreeMap::new();
        for of in &overview.shards {
            for change in &of.changing {
                let (state, to) = (change.state.as_str(), change.to.as_deref());
                if state == "taking" {
                    changing.entry(change.shard).or_insert((state, None, to.or(Some(&of.node))));
                } else {
                    changing.insert(change.shard, (state, Some(&of.node), to));
                }
            }
        }
        let serving: BTreeSet<u16> =
            overview.shards.iter().flat_map(|of| of.serving.iter().copied()).collect();
        let is_partial = !overview.unknown_nodes.is_empty();
        let known = serving.iter().chain(changing.keys()).collect::<BTreeSet<_>>().len();
        let mut groups: BTreeMap<(String, String), Vec<u16>> = BTreeMap::new();
        for (shard, (state, from, to)) in &changing {
            groups.entry((said(state), way(*from, *to))).or_default().push(*shard);
        }
        Self {
            serving: serving.len(),
            changing: changing.len(),
            homeless: if is_partial { 0 } else { overview.shards_total.saturating_sub(known) },
            changes: groups.into_iter().map(|((what, way), shards)| Change { what, way, shards }).collect(),
        }
    }
}

fn said(state: &str) -> String {
    match state {
        "taking" => "being taken".to_owned(),
        "handing_over" => "being handed over".to_owned(),
        "repairing" => "being written again".to_owned(),
        other => other.replace('_', " "),
    }
}

fn way(from: Option<&str>, to: Option<&str>) -> String {
    match (from, to) {
        (Some(from), Some(to)) if from != to => format!("{from} → {to}"),
        (Some(at), _) => format!("at {at}"),
        (None, to) => format!("→ {}", to.unwrap_or(UNKNOWN)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::calls::{ShardChanging, ShardsOf};

    fn of(node: &str, serving: &[u16], changing: &[(u16, &str, Option<&str>)]) -> ShardsOf {
        let changing = changing.iter().map(|(shard, state, to)| ShardChanging {
            shard: *shard,
            state: (*state).to_owned(),
            to: to.map(str::to_owned),
        });
        ShardsOf { node: node.to_owned(), serving: serving.to_vec(), changing: changing.collect() }
    }

    #[test]
    fn a_shard_on_its_way_is_told_once_by_who_knows_most() {
        let overview = Overview {
            shards_total: 10,
            shards: vec![
                of(
                    "a",
                    &[0, 3],
                    &[(1, "handing_over", Some("b")), (2, "handing_over", Some("b")), (4, "repairing", None)],
                ),
                of("b", &[5], &[(2, "taking", Some("b")), (6, "taking", None)]),
            ],
            ..Overview::default()
        };
        let held = Held::of(&overview);
        assert_eq!((held.serving, held.changing, held.homeless), (3, 4, 3));
        let told: Vec<_> = held
            .changes
            .iter()
            .map(|change| format!("{} {} {}", change.what, change.way, change.numbers()))
            .collect();
        assert_eq!(told, ["being handed over a → b 1–2", "being taken → b 6", "being written again at a 4"]);
        let partial = Overview { unknown_nodes: vec!["c".to_owned()], ..overview };
        assert_eq!(Held::of(&partial).homeless, 0);
    }
}
