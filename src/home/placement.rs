//! The only hashing in the house: which shard a player (or a room) belongs to, and which node a shard. Pure; golden
//! vectors in `protocol/vectors/hash.json` pin it, because every node of a cluster must agree for ever.

use std::fmt::Write as _;

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

/// On which of these nodes a shard is placed: where `xxh3-64("<node>/<shard>", seed 0)` is highest, and of two that tie
/// the node whose name comes first. `None` without a node. A node that leaves or joins moves no shard but those that
/// were on it or come to it. No node's name holds a slash, so no two pairs are hashed alike.
#[must_use]
pub fn node_of<'a>(shard: ShardId, nodes: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut pair = String::new();
    let mut weight = |node: &str| {
        pair.clear();
        let _ = write!(pair, "{node}/{shard}");
        xxh3_64(pair.as_bytes())
    };
    nodes.into_iter().map(|node| (weight(node), std::cmp::Reverse(node))).max().map(|(_, node)| node.0)
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
    fn the_golden_vectors_of_nodes_hold() {
        let vectors: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../protocol/vectors/rendezvous.json")).unwrap();
        for vector in &vectors {
            let nodes: Vec<&str> =
                vector["nodes"].as_array().unwrap().iter().map(|node| node.as_str().unwrap()).collect();
            for (number, node) in (0..).zip(vector["shards"].as_array().unwrap()) {
                let shard = ShardId::numbered(number).unwrap();
                assert_eq!(node_of(shard, nodes.iter().copied()), node.as_str(), "{shard} of {nodes:?}");
            }
        }
        assert!(vectors.len() > 2);
    }

    #[test]
    fn a_shard_is_on_the_same_node_in_whatever_order_they_are_named() {
        assert_eq!(node_of(ShardId::FIRST, []), None);
        let nodes = ["c", "a", "b"];
        for shard in Placement::of(256).unwrap().all() {
            let there = node_of(shard, nodes);
            assert_eq!(node_of(shard, ["a", "b", "c"]), there);
            // As a tie does: the same weight twice.
            assert_eq!(node_of(shard, ["a", "b", "c", "c", "b", "a"]), there);
        }
    }

    proptest::proptest! {
        /// Whoever is there and whoever leaves or, read backwards, joins: no shard moves but hers, and hers are about her
        /// share.
        #[test]
        fn who_leaves_or_joins_moves_her_own_shards_alone(
            nodes in proptest::collection::btree_set("[a-z0-9._-]{1,12}", 2..12),
            who in proptest::prelude::any::<proptest::sample::Index>(),
        ) {
            let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
            let leaver = nodes[who.index(nodes.len())];
            let mut hers = 0;
            for shard in Placement::of(4096).unwrap().all() {
                let before = node_of(shard, nodes.iter().copied()).unwrap();
                let after = node_of(shard, nodes.iter().copied().filter(|node| *node != leaver)).unwrap();
                hers += u32::from(before == leaver);
                proptest::prop_assert!(before == after || before == leaver, "{} went from {} to {}", shard, before, after);
            }
            let share = 4096 / u32::try_from(nodes.len()).unwrap();
            proptest::prop_assert!((share * 3 / 4..share * 5 / 4 + 1).contains(&hers), "{} of 4096, {} nodes", hers, nodes.len());
        }
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
