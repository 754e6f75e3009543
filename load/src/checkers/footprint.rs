//! C11: memory and descriptors of nodes are back where they were, soon after the last fault.
//! Pure; called by [`super::judge_faults`].

use std::collections::BTreeMap;

use super::Verdict;
use crate::audit::{Audit, Incident, Seen};

/// Resident memory may grow by half and by this much: allocators keep what they have, and a node that takes over has more to hold.
const RSS_SLACK_BYTES: u64 = 48 << 20;
/// Links come and go while one counts.
const DESCRIPTORS_SLACK: u64 = 64;
/// Looks that are compared before the first fault, and at the end.
const LOOKS: usize = 5;

/// Judges all nodes together, since links go from one to another: per node that lives at the end, as much as before.
#[must_use]
pub fn check(audit: &Audit, incidents: &[Incident]) -> Verdict {
    let mut verdict = Verdict::new("C11", "memory and descriptors are back to what they were");
    let first = incidents.iter().map(|incident| incident.begun_us).min().unwrap_or(u64::MAX);
    let last = incidents.iter().map(|incident| incident.healed_us).max().unwrap_or(0);
    let before = looks(audit, |at_us| at_us < first);
    let after = looks(audit, |at_us| at_us > last);
    if before.is_empty() || after.is_empty() {
        verdict.not_exercised = Some("nobody looked before and after".to_owned());
        return verdict;
    }
    for (name, of, slack) in [
        ("bytes of memory", (|look: &Look| look.0) as fn(&Look) -> u64, RSS_SLACK_BYTES),
        ("descriptors", |look: &Look| look.1, DESCRIPTORS_SLACK),
    ] {
        let sum = |looks: &BTreeMap<&str, Vec<Look>>| -> u64 {
            looks.values().map(|looks| looks.iter().map(of).min().unwrap_or(0)).sum()
        };
        let (was, is) = (sum(&before), sum(&after));
        let most = was + was / 2 + slack * u64::try_from(after.len()).unwrap_or(1);
        verdict.hold(is <= most, || format!("{is} {name} at the end, {was} before; {most} are allowed"));
    }
    verdict
}

/// Memory and descriptors.
type Look = (u64, u64);

/// The last looks at each node in this time.
fn looks(audit: &Audit, is_in: impl Fn(u64) -> bool) -> BTreeMap<&str, Vec<Look>> {
    let mut all: BTreeMap<&str, Vec<Look>> = BTreeMap::new();
    for sample in audit.samples.iter().rev().filter(|sample| is_in(sample.at_us)) {
        if let Seen::Process { node, rss_bytes, descriptors, .. } = &sample.seen {
            let looks = all.entry(node).or_default();
            if looks.len() < LOOKS {
                looks.push((*rss_bytes, *descriptors));
            }
        }
    }
    all
}
