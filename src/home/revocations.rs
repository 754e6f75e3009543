//! The latest revocations of this node's players in memory, beside their records: a second copy for a store that lost
//! writes. As `bans`, but bounded: services may revoke without end, and the oldest go first. Called by `home` alone.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;

use crate::ids::{PlayerId, ShardId, Version};

/// A revocation and where the record stood that carries it.
#[derive(Debug, Clone, Copy)]
struct HeldRevocation {
    /// No token that was issued before, Unix ms.
    before: u64,
    version: Version,
}

type Players = HashMap<PlayerId, HeldRevocation, ahash::RandomState>;

/// By shard: one that comes or goes costs what is held of it, and not of all others.
#[derive(Default)]
struct Held {
    shards: HashMap<ShardId, Players, ahash::RandomState>,
    by_age: BTreeSet<(u64, ShardId, PlayerId)>,
}

/// Those of the latest tokens.
pub(super) struct Revocations {
    held: Mutex<Held>,
    most: usize,
}

impl Revocations {
    /// Room for `most`: one more pushes out that of the oldest tokens, which the store alone knows from then on.
    pub(super) fn new(most: usize) -> Self {
        Self { held: Mutex::default(), most }
    }

    /// A player's tokens from before then are worth nothing. May be called under her record's lock.
    pub(super) fn put(&self, player: &PlayerId, shard: ShardId, before: u64, version: Version) {
        let mut held = self.held.lock();
        held.forget(shard, player);
        let players = held.shards.entry(shard).or_default();
        players.insert(player.clone(), HeldRevocation { before, version });
        held.by_age.insert((before, shard, player.clone()));
        while held.by_age.len() > self.most {
            let Some((_, shard, oldest)) = held.by_age.pop_first() else { return };
            held.remove(shard, &oldest);
        }
    }

    /// A player's record has left memory, at this version.
    pub(super) fn left_at(&self, player: &PlayerId, shard: ShardId, version: Version) {
        let mut held = self.held.lock();
        if let Some(held) = held.shards.get_mut(&shard).and_then(|players| players.get_mut(player)) {
            held.version = held.version.max(version);
        }
    }

    /// Nothing of a player is to be remembered. May be called under her record's lock.
    pub(super) fn forget(&self, player: &PlayerId, shard: ShardId) {
        self.held.lock().forget(shard, player);
    }

    /// Tokens of a player that were issued before are refused (Unix ms); 0 if none is known to be.
    pub(super) fn of_player(&self, player: &PlayerId, shard: ShardId) -> u64 {
        let held = self.held.lock();
        held.shards.get(&shard).and_then(|players| players.get(player)).map_or(0, |held| held.before)
    }

    /// All of one shard, and where their records stood.
    pub(super) fn of_shard(&self, shard: ShardId) -> Vec<(PlayerId, Version)> {
        let held = self.held.lock();
        let ours = held.shards.get(&shard).into_iter().flatten();
        ours.map(|(player, held)| (player.clone(), held.version)).collect()
    }

    /// The shard is somebody else's.
    pub(super) fn forget_shard(&self, shard: ShardId) {
        let mut held = self.held.lock();
        for (player, of_player) in held.shards.remove(&shard).into_iter().flatten() {
            held.by_age.remove(&(of_player.before, shard, player));
        }
    }
}

impl Held {
    fn forget(&mut self, shard: ShardId, player: &PlayerId) {
        if let Some(known) = self.remove(shard, player) {
            self.by_age.remove(&(known.before, shard, player.clone()));
        }
    }

    /// Out of its shard; its age is the caller's.
    fn remove(&mut self, shard: ShardId, player: &PlayerId) -> Option<HeldRevocation> {
        let players = self.shards.get_mut(&shard)?;
        let removed = players.remove(player);
        if players.is_empty() {
            self.shards.remove(&shard);
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn player(name: &str) -> PlayerId {
        PlayerId::parse(name).unwrap()
    }

    #[test]
    fn where_there_is_no_room_the_oldest_tokens_are_forgotten_first() {
        let revocations = Revocations::new(2);
        for (name, before) in [("ann", 20), ("bea", 10), ("cem", 30), ("ann", 40)] {
            revocations.put(&player(name), ShardId::FIRST, before, Version::of(before));
        }
        let told = ["ann", "bea", "cem"].map(|name| revocations.of_player(&player(name), ShardId::FIRST));
        assert_eq!(told, [40, 0, 30]);
        revocations.put(&player("dua"), ShardId::FIRST, 50, Version::of(1));
        assert_eq!(
            (
                revocations.of_player(&player("cem"), ShardId::FIRST),
                revocations.of_shard(ShardId::FIRST).len()
            ),
            (0, 2)
        );
        revocations.forget(&player("ann"), ShardId::FIRST);
        assert_eq!(revocations.of_player(&player("ann"), ShardId::FIRST), 0);
    }

    #[test]
    fn it_stands_where_the_record_stood_last_and_goes_with_its_shard() {
        let (revocations, other) = (Revocations::new(9), ShardId::numbered(1).unwrap());
        revocations.put(&player("ann"), ShardId::FIRST, 20, Version::of(7));
        revocations.put(&player("bea"), other, 20, Version::of(7));
        for version in [12, 9] {
            revocations.left_at(&player("ann"), ShardId::FIRST, Version::of(version));
        }
        assert_eq!(revocations.of_shard(ShardId::FIRST), [(player("ann"), Version::of(12))]);
        revocations.forget_shard(other);
        let told = || {
            [("ann", ShardId::FIRST), ("bea", other)]
                .map(|(name, shard)| revocations.of_player(&player(name), shard))
        };
        assert_eq!(told(), [20, 0]);
        revocations.put(&player("bea"), other, 30, Version::of(8));
        assert_eq!(told(), [20, 30]);
    }

    #[test]
    fn the_oldest_tokens_go_first_whatever_their_shard_and_what_went_with_its_shard_takes_no_room() {
        let (revocations, other) = (Revocations::new(2), ShardId::numbered(1).unwrap());
        let of = |name, shard| revocations.of_player(&player(name), shard);
        revocations.put(&player("ann"), other, 10, Version::of(1));
        revocations.put(&player("bea"), ShardId::FIRST, 20, Version::of(1));
        revocations.put(&player("cem"), ShardId::FIRST, 30, Version::of(1));
        assert_eq!([of("ann", other), of("bea", ShardId::FIRST), of("cem", ShardId::FIRST)], [0, 20, 30]);
        assert!(!revocations.held.lock().shards.contains_key(&other));
        revocations.forget_shard(ShardId::FIRST);
        revocations.put(&player("ann"), other, 1, Version::of(2));
        revocations.put(&player("dua"), other, 2, Version::of(2));
        assert_eq!([of("ann", other), of("dua", other), of("bea", ShardId::FIRST)], [1, 2, 0]);
        assert_eq!(revocations.held.lock().by_age.len(), 2);
    }
}
