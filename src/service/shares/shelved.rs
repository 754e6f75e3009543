//! What the shards at home here were given of messages to many, so that none is given one twice: not when its home paused
//! or was about to be handed over meanwhile, nor by a repeat. Bounded in number and time, the oldest go first.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::service::repeats::REMEMBERED_MS;

/// How many shards are remembered, of all messages together: a thousand messages to all of 256 shards.
const SHARDS_REMEMBERED_MAX: usize = 262_144;

/// What the shards at home here were given of messages to many: to how many sessions of each.
#[derive(Default)]
pub(in crate::service) struct Shelved {
    by_id: HashMap<u128, BTreeMap<u16, u32>, ahash::RandomState>,
    order: VecDeque<(u64, u128)>,
    /// Shards of all messages together.
    shards: usize,
}

impl Shelved {
    /// What was given of a message.
    pub(in crate::service) fn given(&mut self, id: u128, mono_ms: u64) -> BTreeMap<u16, u32> {
        self.forget(mono_ms, 0);
        self.by_id.get(&id).cloned().unwrap_or_default()
    }

    /// These shards have it now, too; the oldest messages make room.
    pub(in crate::service) fn remember(&mut self, id: u128, mono_ms: u64, given: BTreeMap<u16, u32>) {
        self.forget(mono_ms, given.len());
        let known = self.by_id.entry(id).or_insert_with(|| {
            self.order.push_back((mono_ms, id));
            BTreeMap::new()
        });
        let before = known.len();
        known.extend(given);
        self.shards += known.len() - before;
    }

    fn forget(&mut self, mono_ms: u64, more: usize) {
        while let Some((given_at_ms, id)) = self.order.front().copied() {
            let is_old = mono_ms.saturating_sub(given_at_ms) >= REMEMBERED_MS;
            if !is_old && self.shards + more <= SHARDS_REMEMBERED_MAX {
                return;
            }
            self.order.pop_front();
            self.shards -= self.by_id.remove(&id).map_or(0, |shards| shards.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_remembered_with_what_it_was_given_for_some_minutes() {
        let mut shelved = Shelved::default();
        shelved.remember(7, 0, [(1, 2), (2, 0)].into());
        shelved.remember(7, 9, [(3, 5)].into());
        assert_eq!(shelved.given(7, REMEMBERED_MS - 1), [(1, 2), (2, 0), (3, 5)].into());
        assert_eq!(shelved.given(8, 0), BTreeMap::new());
        assert_eq!(shelved.given(7, REMEMBERED_MS), BTreeMap::new());
        assert_eq!((shelved.shards, shelved.order.len(), shelved.by_id.len()), (0, 0, 0));
    }

    #[test]
    fn no_more_shards_are_remembered_than_the_cap() {
        let mut shelved = Shelved::default();
        let all: BTreeMap<u16, u32> = (0..4_096).map(|shard| (shard, 1)).collect();
        for id in 0..100 {
            shelved.remember(id, 0, all.clone());
            assert!(shelved.shards <= SHARDS_REMEMBERED_MAX);
        }
        assert_eq!(shelved.shards, shelved.by_id.len() * all.len());
        assert!(shelved.given(0, 0).is_empty() && shelved.given(99, 0) == all, "the oldest goes first");
    }
}
