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
    shard: ShardId,
}

#[derive(Default)]
struct Held {
    players: HashMap<PlayerId, HeldRevocation, ahash::RandomState>,
    by_age: BTreeSet<(u64, PlayerId)>,
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
        held.forget_player(player);
        held.players.insert(player.clone(), HeldRevocation { before, version, shard });
        held.by_age.insert((before, player.clone()));
        while held.players.len() > self.most {
            let Some((_, oldest)) = held.by_age.pop_first() else { return };
            held.players.remove(&oldest);
        }
    }

    /// A player's record has left memory, at this version.
    pub(super) fn left_at(&self, player: &PlayerId, version: Version) {
        if let Some(held) = self.held.lock().players.get_mut(player) {
            held.version = held.version.max(version);
        }
    }

    /// Nothing of a player is to be remembered. May be called under her record's lock.
    pub(super) fn forget(&self, player: &PlayerId) {
        self.held.lock().forget_player(player);
    }

    /// Tokens of a player that were issued before are refused (Unix ms); 0 if none is known to be.
    pub(super) fn of_player(&self, player: &PlayerId) -> u64 {
        self.held.lock().players.get(player).map_or(0, |held| held.before)
    }

    /// All of one shard, and where their records stood. Walks them all: for Repair only.
    pub(super) fn of_shard(&self, shard: ShardId) -> Vec<(PlayerId, Version)> {
        let held = self.held.lock();
        let ours = held.players.iter().filter(|(_, held)| held.shard == shard);
        ours.map(|(player, held)| (player.clone(), held.version)).collect()
    }

    /// The shard is somebody else's.
    pub(super) fn forget_shard(&self, shard: ShardId) {
        let mut held = self.held.lock();
        let Held { players, by_age } = &mut *held;
        players.retain(|_, held| held.shard != shard);
        by_age.retain(|(_, player)| players.contains_key(player));
    }
}

impl Held {
    fn forget_player(&mut self, player: &PlayerId) {
        if let Some(before) = self.players.remove(player) {
            self.by_age.remove(&(before.before, player.clone()));
        }
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
        let told = ["ann", "bea", "cem"].map(|name| revocations.of_player(&player(name)));
        assert_eq!(told, [40, 0, 30]);
        revocations.put(&player("dua"), ShardId::FIRST, 50, Version::of(1));
        assert_eq!(
            (revocations.of_player(&player("cem")), revocations.of_shard(ShardId::FIRST).len()),
            (0, 2)
        );
        revocations.forget(&player("ann"));
        assert_eq!(revocations.of_player(&player("ann")), 0);
    }

    #[test]
    fn it_stands_where_the_record_stood_last_and_goes_with_its_shard() {
        let (revocations, other) = (Revocations::new(9), ShardId::numbered(1).unwrap());
        revocations.put(&player("ann"), ShardId::FIRST, 20, Version::of(7));
        revocations.put(&player("bea"), other, 20, Version::of(7));
        for version in [12, 9] {
            revocations.left_at(&player("ann"), Version::of(version));
        }
        assert_eq!(revocations.of_shard(ShardId::FIRST), [(player("ann"), Version::of(12))]);
        revocations.forget_shard(other);
        assert_eq!((revocations.of_player(&player("ann")), revocations.of_player(&player("bea"))), (20, 0));
        revocations.put(&player("bea"), other, 30, Version::of(8));
        assert_eq!(revocations.of_player(&player("bea")), 30);
    }
}
