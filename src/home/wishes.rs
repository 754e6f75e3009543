//! What this node wants of each shard, as the live members say: which to ask for, which to give away, and when. Asked
//! by `keeper` at every tick. Pure but for the news it reads.

use std::sync::Arc;

use tokio::sync::watch;

use super::lease::Wish;
use super::placement::{Placement, node_of};
use super::record::millis;
use crate::cluster::{Members, Snapshot};

/// The wishes of one node.
pub(super) struct Wishes {
    members: Arc<Members>,
    news: watch::Receiver<Snapshot>,
    placement: Placement,
    /// So long after a change of the members shards are on their way from one to the other.
    moving_ms: u64,
    moving_until_ms: u64,
    /// When this node last found its store again: others had its shards, and give them back.
    returned_at_ms: u64,
    wishes: Vec<Wish>,
    elsewhere: Vec<bool>,
    /// From when on shards may be given away.
    drain_from_ms: Option<u64>,
}

impl Wishes {
    pub(super) fn new(members: Arc<Members>, placement: Placement, lease_ttl_ms: u64) -> Self {
        let mut news = members.changes();
        news.mark_changed();
        Self {
            news,
            members,
            placement,
            moving_ms: lease_ttl_ms.saturating_mul(2),
            moving_until_ms: 0,
            returned_at_ms: 0,
            wishes: Vec::new(),
            elsewhere: Vec::new(),
            drain_from_ms: None,
        }
    }

    /// This node reaches its store again. It may not have heard that it was given up, so no news say that shards are on
    /// their way to it.
    pub(super) fn returned(&mut self, now_ms: u64) {
        (self.returned_at_ms, self.moving_until_ms) = (now_ms, now_ms);
    }

    /// Takes news in; says whether a wish may have changed.
    pub(super) fn look(&mut self, now_ms: u64) -> bool {
        let is_over = self.moving_until_ms > 0 && now_ms >= self.moving_until_ms;
        if !is_over && !self.news.has_changed().unwrap_or(false) {
            return false;
        }
        let snapshot = self.news.borrow_and_update().clone();
        let until_ms = snapshot.changed_at_ms().max(self.returned_at_ms).saturating_add(self.moving_ms);
        self.moving_until_ms = if now_ms < until_ms { until_ms } else { 0 };
        let wanted = if self.moving_until_ms > 0 { Wish::WantedSoon } else { Wish::Wanted };
        let places: Vec<_> = self.placement.all().map(|shard| place(&snapshot, shard)).collect();
        self.wishes =
            places.iter().map(|place| if *place == Place::Here { wanted } else { Wish::Unwanted }).collect();
        self.elsewhere = places.iter().map(|place| *place == Place::Elsewhere).collect();
        if self.members.drains() && self.drain_from_ms.is_none() {
            // Shards that are given back before anybody knows would be nobody's meanwhile.
            self.drain_from_ms = Some(now_ms + millis(self.members.heard_within()));
        }
        true
    }

    /// By shard.
    pub(super) fn all(&self) -> &[Wish] {
        &self.wishes
    }

    /// Whether another node is to have the shard.
    pub(super) fn is_elsewhere(&self, at: usize) -> bool {
        self.elsewhere.get(at).copied().unwrap_or(false)
    }

    /// Whether shards may be given away now.
    pub(super) fn may_drain(&self, now_ms: u64) -> bool {
        self.drain_from_ms.is_none_or(|from_ms| now_ms >= from_ms)
    }
}

/// Where a shard is to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On this node.
    Here,
    /// On another one.
    Elsewhere,
    /// There is no node that takes shards: whoever holds it keeps it.
    Nowhere,
}

/// Where the live members place a shard.
pub(super) fn place(snapshot: &Snapshot, shard: crate::ids::ShardId) -> Place {
    match node_of(shard, snapshot.takers()) {
        Some(node) if node == snapshot.me().node() => Place::Here,
        Some(_) => Place::Elsewhere,
        None => Place::Nowhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::ids::Owner;
    use crate::store::{self, OpenOptions};

    #[tokio::test]
    async fn shards_are_on_their_way_after_a_change_and_after_the_store_was_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("embedded:{}", dir.path().display());
        let store = store::open(&url, OpenOptions::default()).await.unwrap();
        let members = Members::alone(Owner::boot("node-1"), store);
        let (began_ms, ttl_ms) = (clock::now().mono_ms, 6_000);
        let mut wishes = Wishes::new(members, Placement::of(2).unwrap(), ttl_ms);
        assert!(wishes.look(began_ms));
        assert_eq!(wishes.all(), [Wish::WantedSoon; 2]);
        let later_ms = began_ms + 2 * ttl_ms;
        assert!(wishes.look(later_ms) && !wishes.look(later_ms + 50));
        assert_eq!(wishes.all(), [Wish::Wanted; 2]);
        wishes.returned(later_ms + 100);
        assert!(wishes.look(later_ms + 100) && !wishes.look(later_ms + 150));
        assert_eq!(wishes.all(), [Wish::WantedSoon; 2]);
        assert!(wishes.look(later_ms + 100 + 2 * ttl_ms));
        assert_eq!(wishes.all(), [Wish::Wanted; 2]);
    }
}
