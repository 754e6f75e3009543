//! Golden vectors of the one hash: xxh3-64, seed 0, over the UTF-8 bytes of a player or a room.
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
