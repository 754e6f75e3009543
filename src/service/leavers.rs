//! Nodes that stop and do not answer any more: until their last shard is another node's, the overview tells of them, by the
//! store's word. Called by `overview`; those that still answer tell of themselves.

use std::collections::{BTreeMap, BTreeSet};

use protocol::calls::{NodeOverview, ShardChanging, ShardsOf};

use super::Service;
use super::others::SAID_WITHIN;
use crate::home::Sight;
use crate::home::placement::node_of;
use crate::ids::Owner;

/// What an operator is told of a node that stops.
pub(super) const STOPPING: &str = "stopping";

/// A node that stops, and does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaver {
    pub(super) node: String,
    /// What it holds still, as far as that is known.
    left: Vec<ShardChanging>,
    /// Whether there may be more.
    is_known: bool,
}

impl Leaver {
    #[cfg(test)]
    pub(super) fn with(node: &str, shards: &[u16], is_known: bool) -> Self {
        let left = |shard: &u16| ShardChanging { shard: *shard, state: "handing_over".to_owned(), to: None };
        Self { node: node.to_owned(), left: shards.iter().map(left).collect(), is_known }
    }

    /// Whether something is at home there of which nobody tells.
    pub(super) const fn may_hold(&self) -> bool {
        !self.is_known || !self.left.is_empty()
    }

    pub(super) fn overview(&self) -> NodeOverview {
        NodeOverview {
            node: self.node.clone(),
            state: STOPPING.to_owned(),
            shards_left: self.is_known.then_some(self.left.len()),
            ..NodeOverview::default()
        }
    }

    pub(super) fn into_shards(self) -> ShardsOf {
        ShardsOf { node: self.node, serving: Vec::new(), changing: self.left }
    }
}

impl Service {
    /// Those that stop, among the nodes that have not answered and among those that are no members any more. `told`: the
    /// shards of which those who answered have spoken. The store is asked only while one of the others is nobody's and
    /// somebody stops, or has stopped since this node began; it has half a second.
    pub(super) async fn leavers(&self, silent: &[Owner], told: &BTreeSet<u16>) -> Vec<Leaver> {
        let leaving = self.home.leaving();
        if leaving.is_empty() {
            return Vec::new();
        }
        // Of a store that takes longer nothing is known: the overview is for the time in which it does not answer, too.
        let asks = self.shards_beside(told) > 0;
        let asking = async { if asks { self.home.sights().await } else { Vec::new() } };
        let sights = tokio::time::timeout(SAID_WITHIN, asking).await;
        let is_told = sights.is_ok();
        let all = self.home.placement().all().zip(sights.unwrap_or_default());
        let untold: Vec<_> = all.filter(|(shard, _)| !told.contains(&shard.number())).collect();
        let is_known = is_told && untold.iter().all(|(_, sight)| *sight != Sight::Unknown);
        let mut left: BTreeMap<&str, Vec<ShardChanging>> = silent
            .iter()
            .filter(|node| leaving.contains(node))
            .map(|node| (node.node(), Vec::new()))
            .collect();
        let cluster = self.home.cluster();
        for (shard, sight) in &untold {
            let Sight::Of { holder, .. } = sight else { continue };
            if leaving.contains(holder) {
                left.entry(holder.node()).or_default().push(ShardChanging {
                    shard: shard.number(),
                    state: "handing_over".to_owned(),
                    to: node_of(*shard, cluster.takers()).map(str::to_owned),
                });
            }
        }
        left.into_iter().map(|(node, left)| Leaver { node: node.to_owned(), left, is_known }).collect()
    }
}
