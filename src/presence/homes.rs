//! Which other node serves which shard, as the nodes themselves tell over their links: the store need not be asked, and
//! is not missed while it is away. Pure; `peers` keeps it. A node without a link is never in it.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::events::PresenceView;
use crate::ids::{Epoch, Owner, PlayerId, RoomName, SessionId, ShardId};

/// What those below know of homes and of players; `app` tells, because this floor does not know `home`.
pub trait Homes: Send + Sync {
    /// How many shards there are.
    fn shards(&self) -> u16;
    /// Which one a player belongs to.
    fn shard_of(&self, player: &PlayerId) -> ShardId;
    /// Which one a room belongs to.
    fn shard_of_room(&self, room: &RoomName) -> ShardId;
    /// The epoch under which this node serves a shard at this moment, if it does.
    fn epoch_served(&self, shard: ShardId) -> Option<Epoch>;
    /// The same of every shard, by number.
    fn epochs_served(&self, each: &mut dyn FnMut(ShardId, Option<Epoch>));
    /// The sessions of a player, if her home is here and may answer.
    fn sessions(&self, player: &PlayerId) -> Option<Vec<SessionId>>;
    /// What others see of a player whose home is here.
    fn glance(&self, player: &PlayerId) -> Glance;
    /// The same of those who are not in memory; whoever is not in the answer cannot be told within this time.
    fn look_cold(
        &self,
        players: Vec<PlayerId>,
        within: Duration,
    ) -> BoxFuture<'static, Vec<(PlayerId, PresenceView)>>;
}

/// What a look into this node's memory came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Glance {
    /// She is in memory.
    Hot(PresenceView),
    /// The store must be asked.
    Cold,
    /// Her home is not here, or cannot answer now.
    Unknown,
}

/// Who serves which shard.
pub(super) struct ServedBy {
    shards: Vec<Served>,
}

#[derive(Clone, Default)]
struct Served {
    /// The highest that was told: who serves under a lower one has been overtaken and does not know it yet.
    epoch: Epoch,
    by: Option<Owner>,
}

impl ServedBy {
    /// Nobody has told anything.
    pub(super) fn nobody(shards: u16) -> Self {
        Self { shards: vec![Served::default(); usize::from(shards)] }
    }

    /// The node that serves a shard.
    pub(super) fn of(&self, shard: ShardId) -> Option<&Owner> {
        self.shards.get(usize::from(shard.number()))?.by.as_ref()
    }

    /// A node has begun to serve a shard, or says so again; whether that is taken for true.
    pub(super) fn begins(&mut self, node: &Owner, shard: u16, epoch: Epoch) -> bool {
        let Some(served) = self.shards.get_mut(usize::from(shard)) else { return false };
        let is_true = epoch >= served.epoch;
        if is_true {
            *served = Served { epoch, by: Some(node.clone()) };
        }
        is_true
    }

    /// A node does not serve a shard any more.
    pub(super) fn ends(&mut self, node: &Owner, shard: u16) {
        if let Some(served) = self.shards.get_mut(usize::from(shard)) {
            served.by.take_if(|by| by == node);
        }
    }

    /// A node cannot be reached, or tells everything anew.
    pub(super) fn forget(&mut self, node: &Owner) {
        self.shards.iter_mut().for_each(|served| drop(served.by.take_if(|by| by == node)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_overtaken_is_not_believed_and_who_is_gone_serves_nothing() {
        let (ann, bob) = (Owner::named("ann#1"), Owner::named("bob#1"));
        let mut served = ServedBy::nobody(2);
        let one = ShardId::numbered(1).unwrap();
        assert!(served.begins(&ann, 1, Epoch::of(7)));
        assert!(served.begins(&bob, 1, Epoch::of(8)), "a newer epoch");
        assert!(!served.begins(&ann, 1, Epoch::of(7)), "overtaken");
        served.ends(&ann, 1);
        assert_eq!(served.of(one), Some(&bob), "it was not ann's to end");
        served.forget(&bob);
        assert_eq!(served.of(one), None);
        assert!(!served.begins(&ann, 1, Epoch::of(7)), "still overtaken");
        assert!(served.begins(&bob, 1, Epoch::of(8)), "the same once more");
        assert!(!served.begins(&bob, 2, Epoch::of(8)), "no such shard");
    }
}
