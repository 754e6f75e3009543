//! Who lives in the cluster, as the store keeps it: what each node says of itself at every heartbeat, and what it hears
//! of the others. Kept by `cluster::Members`; the store forgets whoever has not been heard of for her own ttl.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ClusterConfig;
use crate::ids::Owner;

/// Most nodes of a cluster.
pub const MEMBERS_MAX: usize = 256;

/// A node, as it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Node and boot.
    pub owner: Owner,
    /// What else it says.
    pub says: Says,
}

/// What a node says of itself, besides who it is. Grows: what a newer version says more is not read here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Says {
    /// Where clients connect.
    pub url: String,
    /// Where other nodes connect, if it listens to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The storage formats that it reads.
    pub formats: Formats,
    /// It is about to leave: nothing is placed on it any more.
    #[serde(default)]
    pub drains: bool,
    /// It reads of which trace a question is a part: who does not would give the link up.
    #[serde(default)]
    pub traces: bool,
    /// How much it holds.
    #[serde(default)]
    pub holds: Holds,
}

/// The storage formats of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Formats {
    /// The oldest that it reads.
    pub min: u32,
    /// The newest that it reads.
    pub max: u32,
    /// The one that it writes.
    pub writes: u32,
}

/// What a node holds, for people: nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Holds {
    /// Shards that it serves.
    pub shards: u64,
    /// The lowest and the highest of their epochs.
    pub epochs: (u64, u64),
    /// Player records in memory.
    pub records_hot: u64,
    /// Records that wait for a commit.
    pub records_dirty: u64,
    /// For how long the oldest of them has waited.
    pub flush_lag_ms: u64,
}

/// A live node, as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who.
    pub member: Member,
    /// How long ago it was heard of, by the store's clock.
    pub age: Duration,
}

/// A sign of life.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// Who lives.
    pub member: Member,
    /// This process's first one: it takes the place of an older process of the same node.
    pub joins: bool,
    /// For how long it counts.
    pub ttl: Duration,
}

/// The answer to [`super::Store::heartbeat`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beat {
    /// All live members, whoever asked among them.
    Members(Vec<Seen>),
    /// A newer process has this node's name; nothing was written.
    Superseded {
        /// That process.
        by: Owner,
    },
    /// [`MEMBERS_MAX`] others live; nothing was written.
    Full,
}

/// Who holds a shard, and for how long still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Who.
    pub owner: Owner,
    /// How long the lease runs; zero when it has run out.
    pub remaining: Duration,
}

impl Formats {
    /// Whether it reads this format.
    #[must_use]
    pub const fn reads(self, format: u32) -> bool {
        self.min <= format && format <= self.max
    }

    /// Whether a node of this version may live beside one of that: each reads what the other writes. So a cluster is
    /// upgraded node by node: first to a version that reads a new format, then to one that writes it.
    #[must_use]
    pub const fn lives_beside(self, other: Self) -> bool {
        self.reads(other.writes) && other.reads(self.writes)
    }
}

impl ClusterConfig {
    /// Whether a version of these formats may join: it must read whatever is stored, and write nothing newer than what
    /// was agreed.
    ///
    /// # Errors
    /// One line that says what to do.
    pub fn admits(&self, mine: Formats) -> Result<(), String> {
        let Self { format_min: oldest, format_max: newest, .. } = *self;
        let Formats { min, max, writes } = mine;
        if oldest > newest || oldest == 0 {
            return Err(format!(
                "the cluster's configuration says formats {oldest} to {newest}: another program uses this \
                 cluster.name, choose another one"
            ));
        }
        if !mine.reads(oldest) || !mine.reads(newest) {
            return Err(format!(
                "the store's records have formats {oldest} to {newest}, this version reads {min} to {max}: run a \
                 version that reads them all"
            ));
        }
        if writes > newest {
            return Err(format!(
                "this version writes format {writes}, the cluster's newest is {newest}: run one that writes {newest}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(format_min: u32, format_max: u32) -> ClusterConfig {
        ClusterConfig { shards: 256, format_min, format_max, ticket_secret: Vec::new() }
    }

    fn version(min: u32, max: u32, writes: u32) -> Formats {
        Formats { min, max, writes }
    }

    #[test]
    fn a_version_joins_that_reads_all_that_is_stored_and_writes_nothing_newer() {
        for (oldest, newest, mine, admitted) in [
            (2, 2, version(2, 2, 2), true),
            (2, 2, version(2, 3, 2), true),
            (2, 3, version(2, 3, 3), true),
            (2, 3, version(1, 4, 3), true),
            // It would meet records that it cannot read.
            (2, 3, version(2, 2, 2), false),
            (2, 3, version(3, 4, 3), false),
            (1, 1, version(2, 2, 2), false),
            // Others would.
            (2, 2, version(2, 3, 3), false),
            // Nobody of ours wrote that.
            (3, 2, version(1, 4, 2), false),
            (0, 0, version(0, 2, 0), false),
        ] {
            let told = stored(oldest, newest).admits(mine);
            assert_eq!(told.is_ok(), admitted, "{oldest} to {newest}, {mine:?}: {told:?}");
            assert!(told.err().is_none_or(|line| !line.contains('\n') && line.len() > 40));
        }
    }

    #[test]
    fn versions_live_side_by_side_that_read_what_the_other_writes() {
        let (old, reader, writer, new) =
            (version(2, 2, 2), version(2, 3, 2), version(2, 3, 3), version(3, 3, 3));
        for (one, other, beside) in [
            (old, old, true),
            (old, reader, true),
            (reader, writer, true),
            (writer, new, true),
            (old, writer, false),
            (reader, new, false),
        ] {
            assert_eq!(one.lives_beside(other), beside, "{one:?} {other:?}");
            assert_eq!(other.lives_beside(one), beside, "{other:?} {one:?}");
        }
    }

    #[test]
    fn what_a_newer_version_says_more_is_not_read() {
        let newer = r#"{"url":"ws://a","formats":{"min":2,"max":3,"writes":2,"best":3},"mood":"good"}"#;
        let says: Says = serde_json::from_str(newer).unwrap();
        let formats = version(2, 3, 2);
        assert_eq!(says, Says { url: "ws://a".to_owned(), formats, ..Says::default() });
        assert!(!says.traces, "who does not say that it reads traces is not sent any");
    }
}
