//! Which losses a fault excuses: those of changes that were acked `applied` at a home that it took with it. Told they must be in
//! any case, and a `durable` one is never excused: C2 and C3 judge that. Pure; called by whoever weighs a run.

use std::collections::BTreeMap;

use crate::audit::Incident;
use crate::checkers::losses::{self, Loss};
use crate::history::{History, Notice, What};

use super::findings::{Findings, count};

/// So long after its node's end a client on a busy machine may take in what it had said.
const HEARD_LATE_US: u64 = 500_000;

/// The node at which a bot had its last link by then.
#[must_use]
pub fn node_of(history: &History, process: u32, at_us: u64) -> Option<&str> {
    life_of(history, process, at_us)?.split('#').next()
}

/// The same with its boot: `node#boot`.
fn life_of(history: &History, process: u32, at_us: u64) -> Option<&str> {
    let log = history.log(process).iter().take_while(|entry| entry.at_us <= at_us);
    let nodes = log.filter_map(|entry| match &entry.what {
        What::Notice { notice: Notice::Ready(opened) } => Some(opened.node.as_str()),
        _ => None,
    });
    nodes.last()
}

/// How long before the end of her home a lost change was acked, in microseconds; none for a loss that was no home's end.
/// `hits` says whether an incident was that home's.
fn age_us<'a>(
    loss: &Loss,
    history: &'a History,
    incidents: &[Incident],
    hits: impl Fn(&Incident, &str) -> bool,
    ends: &mut Ends<'a>,
) -> Option<u64> {
    let life = life_of(history, loss.process, loss.acked_us)?;
    let node = life.split('#').next()?;
    let ended = incidents.iter().filter(|incident| incident.loses_home && hits(incident, node));
    let ages = ended.filter_map(|end| {
        // A client may hear late what was on its way; what a node says once it goes on is another matter.
        let heard_until = end.healed_us.max(end.begun_us.max(end.broken_us) + HEARD_LATE_US);
        let is_after = loss.acked_us > heard_until || loss.shown_us < end.begun_us;
        let ended_us = || *ends.entry((end.begun_us, life)).or_insert_with(|| ended_us(history, life, end));
        (!is_after).then(ended_us).map(|ended_us| ended_us.saturating_sub(loss.acked_us))
    });
    ages.min()
}

/// When each life ended, by the beginning of the incident: a thousand losses have one end.
type Ends<'a> = BTreeMap<(u64, &'a str), u64>;

/// When a node's life ended in an incident: where breaking it took a while, with its last answer in that time.
fn ended_us(history: &History, life: &str, end: &Incident) -> u64 {
    let span = end.begun_us..=end.broken_us;
    let mut last = end.begun_us;
    if span.is_empty() {
        return last;
    }
    for (_, log) in history.processes() {
        let mut is_here = false;
        for entry in log.iter().take_while(|entry| entry.at_us <= end.broken_us) {
            match &entry.what {
                What::Notice { notice: Notice::Ready(opened) } => is_here = opened.node == life,
                What::Notice { notice: Notice::Down { .. } | Notice::Ended { .. } } => is_here = false,
                What::Ok { .. } if is_here && span.contains(&entry.at_us) => last = last.max(entry.at_us),
                _ => {}
            }
        }
    }
    last
}

/// Every loss was told, and is excused: not durable, and acked at most `window_ms` before its home's end.
pub fn weigh(
    findings: &mut Findings,
    history: &History,
    incidents: &[Incident],
    window_ms: u64,
    hits: impl Fn(&Incident, &str) -> bool,
) {
    let losses = losses::of(history);
    let mut ends = Ends::new();
    let age = |loss| age_us(loss, history, incidents, &hits, &mut ends);
    let ages: Vec<Option<u64>> = losses.iter().map(age).collect();
    let oldest = ages.iter().flatten().max().copied().unwrap_or(0);
    findings.at_most("the oldest lost ack before its node's end", oldest / 1_000, window_ms, "ms");
    let unexcused = losses.iter().zip(&ages).filter(|(loss, age)| loss.durable || age.is_none()).count();
    findings.at_most("losses that no fault excuses", count(unexcused), 0, "changes");
    let untold = losses.iter().filter(|loss| !loss.told).count();
    findings.at_most("losses that were not told", count(untold), 0, "changes");
}
