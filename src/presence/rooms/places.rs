//! Which node is the home of which shard, this one among them, and for how long; which shards' rooms are being made
//! anew here. Pure; `nodes` keeps it. Who serves under the highest epoch is believed, and a node without a link serves
//! nothing.

use std::collections::BTreeMap;

use crate::ids::{Epoch, Owner, ShardId};
use crate::presence::listeners::Tenure;

/// Where a shard is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::presence) struct Place {
    pub(in crate::presence) home: Option<Owner>,
    /// Whatever was known under another one is void.
    pub(in crate::presence) tenure: Tenure,
    /// Since when (monotonic ms).
    pub(in crate::presence) since_ms: u64,
    pub(in crate::presence) epoch: Epoch,
    /// The home, another node, was told all that is said here of its rooms.
    is_told: bool,
}

/// Rooms of a shard that are being made anew of what nodes say.
struct Rebuild {
    /// Every node is to tell all once more, with a number above this one.
    above: u64,
    /// Not longer than this (monotonic ms).
    until_ms: u64,
}

/// All shards.
pub(super) struct Places {
    places: Vec<Place>,
    rebuilds: BTreeMap<u16, Rebuild>,
    tenures: Tenure,
    /// How many shards have a home.
    known: usize,
}

impl Places {
    /// Nobody serves anything.
    pub(super) fn nowhere(shards: u16) -> Self {
        let nowhere = Place { home: None, tenure: 1, since_ms: 0, epoch: Epoch::ZERO, is_told: false };
        Self { places: vec![nowhere; usize::from(shards)], rebuilds: BTreeMap::new(), tenures: 1, known: 0 }
    }

    /// Where a shard is served.
    pub(super) fn of(&self, shard: ShardId) -> Option<&Place> {
        self.places.get(usize::from(shard.number()))
    }

    /// All of them, by number.
    pub(super) fn all(&self) -> &[Place] {
        &self.places
    }

    /// Whether every shard has a home.
    pub(super) const fn all_known(&self) -> bool {
        self.known == self.places.len()
    }

    /// A node serves a shard from now on, or says so again; whether that is taken for true.
    pub(super) fn begins(&mut self, node: &Owner, shard: u16, epoch: Epoch, now_ms: u64) -> bool {
        let Some(place) = self.places.get_mut(usize::from(shard)) else { return false };
        if epoch < place.epoch {
            return false;
        }
        self.tenures += 1;
        self.known += usize::from(place.home.is_none());
        let (home, tenure) = (Some(node.clone()), self.tenures);
        *place = Place { home, tenure, since_ms: now_ms, epoch, is_told: false };
        self.rebuilds.remove(&shard);
        true
    }

    /// A node does not serve a shard any more; whether it did.
    pub(super) fn ends(&mut self, node: &Owner, shard: u16) -> bool {
        let Some(place) = self.places.get_mut(usize::from(shard)) else { return false };
        let did = place.home.take_if(|home| home == node).is_some();
        if did {
            self.known -= 1;
            self.tenures += 1;
            place.tenure = self.tenures;
            self.rebuilds.remove(&shard);
        }
        did
    }

    /// A node cannot be reached, or tells everything anew.
    pub(super) fn forget(&mut self, node: &Owner) {
        for shard in (0..).take(self.places.len()) {
            self.ends(node, shard);
        }
    }

    /// Whether a shard's home was told all, since it is.
    pub(super) fn is_told(&self, shard: ShardId) -> bool {
        self.of(shard).is_some_and(|place| place.is_told)
    }

    /// A shard's home is told all.
    pub(super) fn told(&mut self, shard: ShardId) {
        if let Some(place) = self.places.get_mut(usize::from(shard.number())) {
            place.is_told = true;
        }
    }

    /// The rooms of a shard that is served here are to be made anew.
    pub(super) fn rebuild(&mut self, shard: u16, above: u64, until_ms: u64) {
        self.rebuilds.insert(shard, Rebuild { above, until_ms });
    }

    /// Whether the rooms of a shard are being made anew.
    pub(super) fn is_rebuilding(&self, shard: ShardId) -> bool {
        self.rebuilds.contains_key(&shard.number())
    }

    /// Takes the shards whose rooms are made: every one of these nodes has told all, and every player has a home, or
    /// that took too long. `told` is the number of a node's last telling of a shard.
    pub(super) fn rebuilt(
        &mut self,
        nodes: &[Owner],
        now_ms: u64,
        told: impl Fn(&Owner, u16) -> u64,
    ) -> Vec<u16> {
        let all_known = self.all_known();
        let is_made = |shard: u16, rebuild: &Rebuild| {
            now_ms >= rebuild.until_ms
                || (all_known && nodes.iter().all(|node| told(node, shard) > rebuild.above))
        };
        let made: Vec<u16> = self
            .rebuilds
            .iter()
            .filter(|(shard, rebuild)| is_made(**shard, rebuild))
            .map(|(shard, _)| *shard)
            .collect();
        for shard in &made {
            self.rebuilds.remove(shard);
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_of_home_is_a_tenure_of_its_own_and_who_was_overtaken_is_not_believed() {
        let (ann, bob) = (Owner::named("ann#1"), Owner::named("bob#1"));
        let mut places = Places::nowhere(2);
        let one = ShardId::numbered(1).unwrap();
        let seen = |places: &Places| {
            let place = places.of(one).unwrap();
            (place.home.clone(), place.tenure, place.since_ms)
        };
        assert!(places.begins(&ann, 1, Epoch::of(7), 10));
        let (first, tenure, since) = seen(&places);
        assert_eq!((first, since), (Some(ann.clone()), 10));
        assert!(places.begins(&bob, 1, Epoch::of(8), 20) && !places.begins(&ann, 1, Epoch::of(7), 30));
        assert!(!places.ends(&ann, 1), "it was not ann's to end");
        assert_eq!((seen(&places).0, seen(&places).2), (Some(bob.clone()), 20));
        assert!(seen(&places).1 > tenure);
        let before = seen(&places).1;
        places.forget(&bob);
        assert!(seen(&places).0.is_none() && seen(&places).1 > before);
        let before = seen(&places).1;
        assert!(places.begins(&bob, 1, Epoch::of(8), 40), "the same once more");
        assert!(seen(&places).1 > before);
        assert!(!places.begins(&bob, 2, Epoch::of(8), 40), "no such shard");
    }

    #[test]
    fn rooms_are_made_when_all_have_told_and_all_are_known_or_when_it_took_too_long() {
        let (me, bob) = (Owner::named("me#1"), Owner::named("bob#1"));
        let mut places = Places::nowhere(2);
        places.begins(&me, 0, Epoch::of(7), 10);
        places.rebuild(0, 5, 1_000);
        let nodes = [bob.clone()];
        assert!(places.rebuilt(&nodes, 20, |_, _| 6).is_empty(), "a shard has no home");
        places.begins(&bob, 1, Epoch::of(7), 30);
        assert!(places.rebuilt(&nodes, 40, |_, _| 5).is_empty(), "he has told before, not since");
        assert!(places.is_rebuilding(ShardId::FIRST));
        assert_eq!(places.rebuilt(&nodes, 50, |_, _| 6), [0]);
        assert!(!places.is_rebuilding(ShardId::FIRST));
        places.rebuild(0, 7, 1_000);
        assert_eq!(places.rebuilt(&nodes, 1_000, |_, _| 6), [0]);
        places.rebuild(0, 7, 2_000);
        assert!(places.ends(&me, 0), "and what is not served here is not made here");
        assert!(places.rebuilt(&nodes, 3_000, |_, _| 9).is_empty());
    }
}
