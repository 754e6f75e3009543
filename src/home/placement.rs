//! The only hashing in the house: which shard a player (or a room) belongs to. Pure; golden vectors in
//! `protocol/vectors/hash.json` pin it, because every node of a cluster must agree for ever.

use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{PlayerId, RoomName, ShardId};

/// How many shards a cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    shards: u16,
}

impl Placement {
    /// A cluster of this many shards; `None` unless 1 to 4096.
    #[must_use]
    pub const fn of(shards: u16) -> Option<Self> {
        if shards >= 1 && shards <= crate::ids::SHARDS_MAX { Some(Self { shards }) } else { None }
    }

    /// How many.
    #[must_use]
    pub const fn shards(self) -> u16 {
        self.shards
    }

    /// All of them.
    pub fn all(self) -> impl Iterator<Item = ShardId> {
        (0..self.shards).filter_map(ShardId::numbered)
    }

    /// `xxh3-64(player, seed 0) mod shards`.
    #[must_use]
    pub fn shard_of(self, player: &PlayerId) -> ShardId {
        self.shard_of_name(player.as_str())
    }

    /// The same for a room: its home is the home of this shard.
    #[must_use]
    pub fn shard_of_room(self, room: &RoomName) -> ShardId {
        self.shard_of_name(room.as_str())
    }

    fn shard_of_name(self, name: &str) -> ShardId {
        let number = xxh3_64(name.as_bytes()) % u64::from(self.shards);
        // Below 4096 by construction.
        u16::try_from(number).ok().and_then(ShardId::numbered).unwrap_or_else(|| unreachable_shard(number))
    }
}

/// A remainder of a division by at most 4096 that is not below 4096.
#[cold]
fn unreachable_shard(number: u64) -> ShardId {
    debug_assert!(false, "{number} mod shards is out of range");
    ShardId::FIRST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_vectors_hold() {
        let vectors: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../protocol/vectors/hash.json")).unwrap();
        let (of_256, of_4096) = (Placement::of(256).unwrap(), Placement::of(4096).unwrap());
        let mut checked = 0;
        for vector in &vectors {
            // Some inputs are no player ids: rooms and nodes are hashed, too.
            let Ok(player) = PlayerId::parse(vector["input"].as_str().unwrap()) else { continue };
            assert_eq!(u64::from(of_256.shard_of(&player).number()), vector["shard_of_256"], "{vector}");
            assert_eq!(u64::from(of_4096.shard_of(&player).number()), vector["shard_of_4096"], "{vector}");
            checked += 1;
        }
        assert!(checked > 5);
    }

    #[test]
    fn players_spread_over_all_shards() {
        let placement = Placement::of(256).unwrap();
        let mut counts = vec![0u32; 256];
        for number in 0..100_000 {
            let player = PlayerId::parse(&format!("player-{number}")).unwrap();
            counts[usize::from(placement.shard_of(&player).number())] += 1;
        }
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(*least > 290 && *most < 510, "{least}..{most} of 390");
    }
}
