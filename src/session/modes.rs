//! When the players of a shard are told how it is served: at once, but not again within a second; then only what holds by
//! then, so that a store that comes and goes floods nobody. Pure; `notices` does the telling.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::ShardId;

/// The shortest between two times that one link hears of it.
const EVERY_MS: u64 = 1_000;

/// Shards whose players must hear something.
#[derive(Debug, Default)]
pub(super) struct Modes {
    waiting: BTreeSet<ShardId>,
    /// When their players were last told (monotonic ms); forgotten once that holds nothing up.
    told_at_ms: BTreeMap<ShardId, u64>,
}

impl Modes {
    /// These are served otherwise now.
    pub(super) fn changed(&mut self, shards: impl IntoIterator<Item = ShardId>) {
        self.waiting.extend(shards);
    }

    /// Those whose players are to be told now.
    pub(super) fn due(&mut self, now_ms: u64) -> BTreeSet<ShardId> {
        self.told_at_ms.retain(|_, at_ms| now_ms < at_ms.saturating_add(EVERY_MS));
        let (held_up, due) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|shard| self.told_at_ms.contains_key(shard));
        self.waiting = held_up;
        let due: BTreeSet<ShardId> = due;
        self.told_at_ms.extend(due.iter().map(|shard| (*shard, now_ms)));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_comes_and_goes_is_told_once_a_second_and_what_was_last_is_told_for_sure() {
        let (one, other) = (ShardId::numbered(1).unwrap(), ShardId::numbered(2).unwrap());
        let (mut modes, mut told) = (Modes::default(), Vec::new());
        for now_ms in (0..5_000).step_by(100) {
            if now_ms <= 2_500 {
                modes.changed([one]);
            }
            told.extend(modes.due(now_ms).into_iter().map(|_| now_ms));
        }
        assert_eq!(told, [0, 1_000, 2_000, 3_000], "and not again, since nothing has changed");
        modes.changed([one, other]);
        assert_eq!(modes.due(5_000).len(), 2, "who was told long ago waits no more than who never was");
        assert_eq!(modes.due(5_100).len(), 0);
        assert_eq!(modes.told_at_ms.len(), 2);
        assert_eq!((modes.due(9_000).len(), modes.told_at_ms.len()), (0, 0));
    }
}
