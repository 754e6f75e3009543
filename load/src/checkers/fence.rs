//! C6: no fenced commit is accepted: in the store epochs of a shard never fall, no record stands above its shard's epoch,
//! and none falls back, unless the store itself was made to forget. Pure; called by [`super::judge_faults`].

use std::collections::BTreeMap;

use super::Verdict;
use crate::audit::{Audit, Incident};

/// What was seen at the last look, and when that began.
type Stood<T> = (u64, T);

/// Judges what stood in the store, server by server.
#[must_use]
pub fn check(audit: &Audit, incidents: &[Incident], shards: &[u16]) -> Verdict {
    let mut verdict = Verdict::new("C6", "no fenced commit is accepted");
    // The last look at each; a server that is not the master tells nothing, so each is compared with itself.
    let mut epochs: BTreeMap<(&str, u16), Stood<u64>> = BTreeMap::new();
    let mut records: BTreeMap<(&str, u32), Stood<(u64, u64)>> = BTreeMap::new();
    let forgets = |since_us: u64, until_us: u64| {
        incidents.iter().any(|i| i.loses_store && i.begun_us <= until_us && since_us <= i.healed_us)
    };
    for (sample, word) in audit.stores() {
        let (server, at) = (word.server.as_str(), sample.at_us);
        for meta in &word.metas {
            let before = epochs.insert((server, meta.shard), (sample.since_us, meta.epoch));
            let Some((since, epoch)) = before else { continue };
            verdict.hold(meta.epoch >= epoch || forgets(since, at), || {
                let (shard, now) = (meta.shard, meta.epoch);
                format!("the epoch of shard {shard} fell from {epoch} to {now} at {server}")
            });
        }
        // Records were read first. While a slot moves, the meta may be at the other server already.
        for (process, epoch, version) in &word.records {
            let now = (*epoch, *version);
            let shard = usize::try_from(*process).ok().and_then(|place| shards.get(place));
            let meta = word.metas.iter().find(|meta| Some(&meta.shard) == shard);
            if let Some(meta) = meta {
                verdict.hold(*epoch <= meta.epoch, || {
                    let (shard, granted) = (meta.shard, meta.epoch);
                    format!(
                        "bot {process}'s record stands under epoch {epoch}, above {granted} of shard {shard}"
                    )
                });
            }
            let before = records.insert((server, *process), (sample.since_us, now));
            let Some((since, stood)) = before else { continue };
            verdict.hold(now >= stood || forgets(since, at), || {
                format!("bot {process}'s record fell from {stood:?} to {now:?} at {server}")
            });
        }
    }
    if verdict.checks == 0 {
        verdict.not_exercised = Some("nobody looked into the store".to_owned());
    }
    verdict
}
