//! Which losses a fault excuses: those of changes that were acked `applied` at a home that it took with it. Told they must be in
//! any case, and a `durable` one is never excused: C2 and C3 judge that. Pure; called by whoever weighs a run.

use crate::audit::Incident;
use crate::checkers::losses::{self, Loss};
use crate::history::{History, Notice, What};

use super::findings::{Findings, count};

/// So long after its node's end a client on a busy machine may take in what it had said.
const HEARD_LATE_US: u64 = 500_000;

/// The node at which a bot had its last link by then.
#[must_use]
pub fn node_of(history: &History, process: u32, at_us: u64) -> Option<&str> {
    let log = history.log(process).iter().take_while(|entry| entry.at_us <= at_us);
    let nodes = log.filter_map(|entry| match &entry.what {
        What::Notice { notice: Notice::Ready(opened) } => opened.node.split('#').next(),
        _ => None,
    });
    nodes.last()
}

/// How long before the end of her home a lost change was acked, in microseconds; none for a loss that no incident excuses.
/// `hits` says whether an incident was that home's.
#[must_use]
pub fn age_us(
    loss: &Loss,
    history: &History,
    incidents: &[Incident],
    hits: impl Fn(&Incident, &str) -> bool,
) -> Option<u64> {
    let node = node_of(history, loss.process, loss.acked_us)?;
    let ends = incidents.iter().filter(|incident| incident.loses_home && hits(incident, node));
    let ages = ends.filter_map(|end| {
        // A client may hear late what was on its way; what a node says once it goes on is another matter.
        let heard_until = end.healed_us.max(end.begun_us + HEARD_LATE_US);
        let is_after = loss.acked_us > heard_until || loss.shown_us < end.begun_us;
        (!is_after).then(|| end.begun_us.saturating_sub(loss.acked_us))
    });
    ages.min()
}

/// Every loss was told, and is excused: acked at most `window_ms` before its home's end.
pub fn weigh(
    findings: &mut Findings,
    history: &History,
    incidents: &[Incident],
    window_ms: u64,
    hits: impl Fn(&Incident, &str) -> bool,
) {
    let losses = losses::of(history);
    let ages: Vec<Option<u64>> = losses.iter().map(|loss| age_us(loss, history, incidents, &hits)).collect();
    let oldest = ages.iter().flatten().max().copied().unwrap_or(0);
    findings.at_most("the oldest lost ack before its node's end", oldest / 1_000, window_ms, "ms");
    let unexcused = ages.iter().filter(|age| age.is_none()).count();
    findings.at_most("losses that no fault excuses", count(unexcused), 0, "changes");
    let untold = losses.iter().filter(|loss| !loss.told).count();
    findings.at_most("losses that were not told", count(untold), 0, "changes");
}
