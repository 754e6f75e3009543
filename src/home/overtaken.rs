//! Shards that other nodes asked for while they were still held here: noted by `yielding`, one by one, and told together by
//! `tidings`, for a node that is cut off loses all of them at once. Decides nothing.

use parking_lot::Mutex;

use crate::ids::{Owner, ShardId};

/// As many shards as there can be.
const SHARDS_MAX: usize = 4_096;

/// What was noted, until it is told.
#[derive(Debug, Default)]
pub(super) struct Overtaken(Mutex<Vec<(ShardId, Box<str>)>>);

impl Overtaken {
    /// Notes that this node has the shard now. What goes beyond as many as there can be is not told.
    pub(super) fn note(&self, shard: ShardId, by: &Owner) {
        let mut noted = self.0.lock();
        if noted.len() < SHARDS_MAX {
            noted.push((shard, by.node().into()));
        }
    }

    /// What is to be told, with the node's name.
    pub(super) fn take(&self) -> Vec<(ShardId, Box<str>)> {
        std::mem::take(&mut self.0.lock())
    }
}
