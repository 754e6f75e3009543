//! C5: an epoch of a shard has one home. Judged on whose answers carry which epoch, and on who says that it serves.
//! Pure; called by [`super::judge_faults`].

use std::collections::BTreeMap;

use super::{Evidence, Verdict};
use crate::history::{Notice, What};

/// Judges a run.
#[must_use]
pub fn check(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::new("C5", "one home an epoch");
    let mut homes: BTreeMap<(u16, u64), &str> = BTreeMap::new();
    for (process, log) in evidence.history.processes() {
        let place = usize::try_from(process).unwrap_or(usize::MAX);
        let Some(shard) = evidence.shards.get(place) else { continue };
        let mut node = None;
        for (at, entry) in log.iter().enumerate() {
            let epoch = match &entry.what {
                What::Notice { notice: Notice::Ready(opened) } => {
                    node = Some(opened.node.as_str());
                    opened.stamp.0
                }
                What::Notice { notice: Notice::Down { .. } } => {
                    node = None;
                    continue;
                }
                What::Ok { stamp: Some((epoch, _)), .. } => *epoch,
                _ => continue,
            };
            let Some(node) = node else { continue };
            let home = *homes.entry((*shard, epoch)).or_insert(node);
            verdict.check(home == node, process, log, &[at], || {
                format!("shard {shard} was answered for by {home} and by {node} under epoch {epoch}")
            });
        }
    }
    // Clients are told a node's name, auditors also which of its lives it is.
    let mut lives: BTreeMap<(u16, u64), &str> = BTreeMap::new();
    for (_, word) in evidence.audit.nodes() {
        for shard in word.shards.iter().filter(|shard| shard.serving) {
            let key = (shard.shard, shard.epoch);
            let home = *homes.entry(key).or_insert(&word.node);
            let life = *lives.entry(key).or_insert(&word.boot);
            verdict.hold(home == word.node && life == word.boot, || {
                let (number, epoch) = (shard.shard, shard.epoch);
                format!(
                    "{} says that it serves shard {number} under epoch {epoch}, whose home is {home} ({life})",
                    word.boot
                )
            });
        }
    }
    verdict
}
