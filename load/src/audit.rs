//! What was seen from outside while a run went on: what nodes say of themselves, what stands in the store, what the kernel
//! says of processes. Written by whoever audits a run, beside its history and on the same clock; read by checkers. Judges
//! nothing.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::history::Item;

/// One look at one thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Microseconds since the run began, when the answer was there.
    pub at_us: u64,
    /// When the look began: what was seen was so at some time between the two.
    pub since_us: u64,
    /// What.
    #[serde(flatten)]
    pub seen: Seen,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "look", rename_all = "snake_case")]
pub enum Seen {
    /// What a node says of itself.
    Node(NodeWord),
    /// What the kernel says of a node's process.
    Process {
        /// The node's name.
        node: String,
        /// Its process.
        pid: u32,
        /// Resident memory.
        rss_bytes: u64,
        /// Open descriptors.
        descriptors: u64,
    },
    /// What stands in a server of the store.
    Store(StoreWord),
    /// How a node shows players to services.
    Shown {
        /// The node's name.
        node: String,
        /// Whom it shows, and how.
        items: Vec<Item>,
    },
    /// How busy the machine is.
    Machine {
        /// Threads that run or want to, of all processes.
        runnable: u64,
        /// Those of them that are the run's own: of nodes, of the store, and of who plays and looks.
        #[serde(default)]
        own: u64,
    },
    /// No answer.
    Silent {
        /// The node's name, or the server of the store.
        who: String,
        /// Why.
        why: String,
    },
}

/// What a node says of itself: `GET /v1/cluster` and `/metrics`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeWord {
    /// Its name.
    pub node: String,
    /// Its life, `name#boot`.
    pub boot: String,
    /// The shards that it holds, serving or not.
    pub shards: Vec<ShardWord>,
    /// Metrics with their labels, as on the page; of each name only what auditors ask for.
    pub metrics: BTreeMap<String, f64>,
}

/// A shard, as its holder tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ShardWord {
    /// Which.
    pub shard: u16,
    /// The lease's epoch.
    pub epoch: u64,
    /// Whether it answers.
    pub serving: bool,
    /// Records that wait for their commit.
    pub dirty: u64,
    /// How long the oldest of them has waited.
    pub flush_lag_ms: u64,
}

/// What stands in a server of the store. Records were read before metas, in one go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoreWord {
    /// Which server.
    pub server: String,
    /// Metas of shards: shard, epoch, `f`, generation.
    pub metas: Vec<MetaWord>,
    /// Headers of records: process, epoch, version.
    pub records: Vec<(u32, u64, u64)>,
}

/// A shard's meta.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MetaWord {
    /// Which shard.
    pub shard: u16,
    /// The highest epoch granted.
    pub epoch: u64,
    /// The flush counter.
    pub f: u64,
    /// The generation.
    pub generation: String,
    /// Who holds the lease; empty when nobody does.
    pub holder: String,
}

impl NodeWord {
    /// The sum of a metric's series whose labels contain this; of all of them for an empty text.
    #[must_use]
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let of_name = |series: &str| {
            series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        };
        let chosen = self.metrics.iter().filter(|(series, _)| of_name(series) && series.contains(label));
        chosen.map(|(_, value)| value).sum()
    }

    /// How long the oldest record has waited for its commit, over all shards.
    #[must_use]
    pub fn flush_lag_ms(&self) -> u64 {
        self.shards.iter().map(|shard| shard.flush_lag_ms).max().unwrap_or(0)
    }
}

/// Something done to the cluster on purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// What.
    pub what: String,
    /// When, microseconds since the run began.
    pub begun_us: u64,
    /// When its cause was taken away: at once for a kill.
    pub healed_us: u64,
    /// The store may forget what it acknowledged: epochs and records may fall back.
    pub loses_store: bool,
    /// A home may take with it what it had not stored: changes that were acked `applied`, if that is told.
    pub loses_home: bool,
    /// Until when it was being broken, where that took a while: somewhere between the two a node has ended. 0: at once.
    #[serde(default)]
    pub broken_us: u64,
    /// The run was broken off before anybody waited for what comes after it.
    #[serde(default)]
    pub left_alone: bool,
}

/// All samples of a run, by time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Audit {
    /// The samples.
    pub samples: Vec<Sample>,
}

impl Audit {
    /// What nodes said, with the time.
    pub fn nodes(&self) -> impl Iterator<Item = (&Sample, &NodeWord)> {
        self.samples.iter().filter_map(|sample| match &sample.seen {
            Seen::Node(word) => Some((sample, word)),
            _ => None,
        })
    }

    /// What servers of the store held, with the time.
    pub fn stores(&self) -> impl Iterator<Item = (&Sample, &StoreWord)> {
        self.samples.iter().filter_map(|sample| match &sample.seen {
            Seen::Store(word) => Some((sample, word)),
            _ => None,
        })
    }

    /// How much a counter grew over the run, all nodes and all their lives together.
    #[must_use]
    pub fn growth(&self, name: &str, label: &str) -> u64 {
        let mut spans: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for (_, word) in self.nodes() {
            let now = word.metric(name, label);
            spans.entry(&word.boot).or_insert((now, now)).1 = now;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of events")]
        let sum = spans.values().map(|(first, last)| last - first).sum::<f64>().max(0.0) as u64;
        sum
    }

    /// How much a counter grew at each node in this time, all of a node's lives together; from the last look before it on.
    #[must_use]
    pub fn growth_between(&self, name: &str, label: &str, from_us: u64, to_us: u64) -> BTreeMap<&str, u64> {
        let mut spans: BTreeMap<(&str, &str), (f64, f64)> = BTreeMap::new();
        for (sample, word) in self.nodes().filter(|(sample, _)| sample.at_us < to_us) {
            let now = word.metric(name, label);
            let span = spans.entry((&word.node, &word.boot)).or_insert((now, now));
            if sample.at_us < from_us {
                span.0 = now;
            }
            span.1 = now;
        }
        let mut grown = BTreeMap::new();
        for ((node, _), (first, last)) in spans {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of events")]
            let more = (last - first).max(0.0) as u64;
            *grown.entry(node).or_default() += more;
        }
        grown
    }

    /// How many times as busy with others the machine was in the later time as in the earlier, 1 at least: threads that
    /// wanted to run then, and those that have come since and are not the run's own. A server that spins does not excuse
    /// itself.
    #[must_use]
    pub fn busier(&self, earlier: Range<u64>, later: Range<u64>) -> f64 {
        let (all, own_before) = self.runnable(earlier);
        let (all_later, own) = self.runnable(later);
        // The two are not of the same moment: a look may find more that are the run's own than there are.
        let others = (all_later - own) - (all - own_before);
        1.0 + others.max(0.0) / all.max(1.0)
    }

    /// How many threads wanted to run in this time on average, and how many that are the run's own.
    fn runnable(&self, time: Range<u64>) -> (f64, f64) {
        let looks = self.samples.iter().filter(|sample| time.contains(&sample.at_us));
        let counts = looks.filter_map(|sample| match sample.seen {
            Seen::Machine { runnable, own } => Some((runnable, own)),
            _ => None,
        });
        let (mut all, mut own, mut looks) = (0, 0, 0_u64);
        for (runnable, of_own) in counts {
            (all, own, looks) = (all + runnable, own + of_own, looks + 1);
        }
        #[allow(clippy::cast_precision_loss, reason = "means of small counts")]
        let mean = |sum: u64| sum as f64 / looks.max(1) as f64;
        (mean(all), mean(own))
    }

    /// Writes everything as JSON lines.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write(&self, mut out: impl std::io::Write) -> std::io::Result<()> {
        for sample in &self.samples {
            serde_json::to_writer(&mut out, sample)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(boot: &str, at_us: u64, taken: f64) -> Sample {
        let metrics = BTreeMap::from([("hearth_shards_taken_total".to_owned(), taken)]);
        let word = NodeWord { node: "a".into(), boot: boot.into(), shards: Vec::new(), metrics };
        Sample { at_us, since_us: at_us, seen: Seen::Node(word) }
    }

    #[test]
    fn a_sample_reads_back() {
        let seen = Seen::Silent { who: "a".into(), why: "timeout".into() };
        for sample in [word("a#1", 5, 3.0), Sample { at_us: 9, since_us: 8, seen }] {
            let text = serde_json::to_string(&sample).unwrap();
            assert_eq!(serde_json::from_str::<Sample>(&text).unwrap(), sample, "{text}");
        }
    }

    #[test]
    fn only_others_make_a_machine_busier() {
        let look =
            |at_us, runnable, own| Sample { at_us, since_us: at_us, seen: Seen::Machine { runnable, own } };
        let busier =
            |runnable, own| Audit { samples: vec![look(1, 4, 3), look(5, runnable, own)] }.busier(0..2, 4..9);
        assert!(busier(40, 39) <= 1.0, "the run's own threads excuse nothing");
        assert!((busier(8, 3) - 2.0).abs() < 1e-9, "four others beside four");
        assert!(busier(1, 1) >= 1.0, "a machine that has less to do demands no more");
        let samples = vec![look(1, 4, 3), look(5, 4, 8), look(6, 8, 2)];
        let busier = Audit { samples }.busier(0..2, 4..9);
        assert!(busier <= 1.0, "its own threads, seen a moment too early and a moment too late: {busier}");
    }

    #[test]
    fn growth_is_counted_life_by_life() {
        let samples =
            vec![word("a#1", 1, 4.0), word("a#1", 2, 6.0), word("a#2", 3, 0.0), word("a#2", 4, 5.0)];
        let audit = Audit { samples };
        assert_eq!(audit.growth("hearth_shards_taken_total", ""), 7);
        let between =
            |from_us, to_us| audit.growth_between("hearth_shards_taken_total", "", from_us, to_us)["a"];
        assert_eq!((between(2, 4), between(2, 5), between(5, 9)), (2, 7, 0));
    }
}
