//! Golden vectors of the one hash: xxh3-64, seed 0, over the UTF-8 bytes of a player, a room, or a node and a shard.
//! The server's placement reads the same file; it decides on which node a player lives, so it never changes.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::vectors::golden;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct HashVector {
    input: String,
    /// The hash as 16 lower-case hex digits: a JSON number would lose its low bits in many readers.
    xxh3: String,
    shard_of_256: u64,
    shard_of_4096: u64,
}

/// One input for each of the lengths at which xxh3 changes its way (0, 1-3, 4-8, 9-16, 17-128, 129-240, longer).
fn inputs() -> Vec<String> {
    let mut inputs: Vec<String> = [
        "",
        "a",
        "ann",
        "bea",
        "player",
        "bot-0001",
        "lobby",
        "party:7",
        "match/eu-west/0042",
        "Zoë",
        "çem",
        "玩家",
        "игрок",
        "🐉",
        "e\u{301}",
        "é",
        "{braces}",
        "a b",
        "0192f0c1-7a11-70d3-9b1e-5f2c8a6e4d01",
    ]
    .map(str::to_owned)
    .into();
    inputs.push("a".repeat(64));
    inputs.push("玩".repeat(21) + "!");
    inputs.push("guild:".to_owned() + &"0123456789".repeat(13));
    inputs.push("guild:".to_owned() + &"0123456789".repeat(26));
    inputs
}

#[test]
fn the_hash_of_a_name_never_changes() {
    let vectors: Vec<HashVector> = inputs()
        .into_iter()
        .map(|input| {
            let hash = xxh3_64(input.as_bytes());
            HashVector {
                xxh3: format!("{hash:016x}"),
                shard_of_256: hash % 256,
                shard_of_4096: hash % 4096,
                input,
            }
        })
        .collect();
    golden("hash.json", &vectors);
    // The value that xxHash itself publishes for the empty input: this is that function, and no other of its name.
    assert_eq!(vectors[0].xxh3, "2d06800538d394c2");
}

/// Where the first shards are placed among these nodes.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct RendezvousVector {
    nodes: Vec<String>,
    /// The node of each shard, from 0 on.
    shards: Vec<String>,
}

#[test]
fn the_node_of_a_shard_never_changes() {
    let groups: [&[&str]; 5] = [
        &["node-1"],
        &["node-1", "node-2"],
        &["node-1", "node-2", "node-3"],
        &["hearth-0.hearth", "hearth-1.hearth", "hearth-2.hearth", "hearth-3.hearth"],
        &["eu_west-a-7700", "eu_west-b-7700", "z"],
    ];
    let node_of = |shard: usize, nodes: &[&str]| {
        let weight = |node: &str| xxh3_64(format!("{node}/{shard}").as_bytes());
        nodes.iter().max_by_key(|node| weight(node)).unwrap().to_string()
    };
    let vectors: Vec<RendezvousVector> = groups
        .iter()
        .map(|nodes| RendezvousVector {
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            shards: (0..32).map(|shard| node_of(shard, nodes)).collect(),
        })
        .collect();
    golden("rendezvous.json", &vectors);
}
