//! C10: presence equals the truth soon after a fault: who is attached is shown, who has been away is not, at every node
//! and to every watcher. A look asks for all players: who is not in the answer is not known there.
//! Pure; called by [`super::judge_faults`].

use std::collections::{HashMap, HashSet};

use protocol::request::Status;

use super::{Evidence, Verdict};
use crate::audit::{Sample, Seen};
use crate::history::{Drop, Entry, Item, Notice, Operation, Value, What};

/// A server gives a link up that was silent for so many heartbeats.
const SILENCES: u64 = 2;

/// Whether a player had a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// All the time.
    There,
    /// Never.
    Away,
    /// Both, or nobody can know: a link that is left open and says nothing is one until the server gives it up.
    Changing,
}

/// What became of a player, by time; read off her log once, since a long run asks often.
#[derive(Debug, Default)]
struct Truth {
    /// From when on she had a link, or had none.
    links: Vec<(u64, Link)>,
    /// From when on this was the last change of presence that was acked in the session that stood.
    acked: Vec<(u64, u64)>,
}

/// Judges every look at what nodes show, and what watchers had been told by then.
#[must_use]
pub fn check(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::new("C10", "presence equals the truth");
    let truths: Vec<Truth> = evidence.history.logs.iter().map(|log| Truth::of(log)).collect();
    let looks = || evidence.audit.samples.iter().filter(|sample| matches!(sample.seen, Seen::Shown { .. }));
    for sample in looks() {
        let Seen::Shown { node, items } = &sample.seen else { continue };
        for item in items {
            compare(&mut verdict, evidence, &truths, sample, item, || format!("node {node}"));
        }
        check_missing(&mut verdict, evidence, &truths, sample, (node, items));
    }
    for (process, log) in evidence.history.processes() {
        check_watcher(&mut verdict, evidence, &truths, (process, log), looks());
    }
    let healed = evidence.incidents.iter().map(|incident| incident.healed_us).max().unwrap_or(0);
    if verdict.checks == 0 || !looks().any(|sample| sample.since_us >= healed) {
        verdict.not_exercised = Some("nobody asked after the last fault".to_owned());
    }
    verdict
}

/// A node names everybody it is asked for.
fn check_missing(
    verdict: &mut Verdict,
    evidence: &Evidence<'_>,
    truths: &[Truth],
    sample: &Sample,
    (node, items): (&str, &[Item]),
) {
    let named: HashSet<u32> = items.iter().map(|item| item.subject).collect();
    let since_us = sample.since_us.saturating_sub(settle_us(evidence));
    // Bots come first; who else wrote a log is no player.
    for (subject, truth) in (0..).zip(truths).take(evidence.shards.len()) {
        if !named.contains(&subject) && truth.link(since_us, sample.at_us) == Link::There {
            verdict.hold(false, || {
                format!("node {node} does not know of bot {subject} at {} ms", sample.at_us / 1_000)
            });
        }
    }
}

/// What a watcher was last told of each whom she watches, where both have been there for long.
fn check_watcher<'a>(
    verdict: &mut Verdict,
    evidence: &Evidence<'_>,
    truths: &[Truth],
    (process, log): (u32, &[Entry]),
    looks: impl Iterator<Item = &'a Sample>,
) {
    let Some(own) = usize::try_from(process).ok().and_then(|place| truths.get(place)) else { return };
    let mut latest: HashMap<u32, &Item> = HashMap::new();
    let mut entries = log.iter().peekable();
    for sample in looks {
        while let Some(entry) = entries.next_if(|entry| entry.at_us <= sample.since_us) {
            hear(&mut latest, entry);
        }
        let since_us = sample.since_us.saturating_sub(settle_us(evidence));
        if own.link(since_us, sample.at_us) == Link::There {
            for item in latest.values() {
                compare(verdict, evidence, truths, sample, item, || format!("watcher {process}"));
            }
        }
    }
}

/// Takes in what a watcher is told.
fn hear<'a>(latest: &mut HashMap<u32, &'a Item>, entry: &'a Entry) {
    let items: &[Item] = match &entry.what {
        What::Ok { value: Value::Presences(items), .. } => items,
        What::Notice { notice: Notice::Presence { items, .. } } => items,
        // A new session begins without watches.
        What::Notice { notice: Notice::Ready(opened) } if !opened.resumed => {
            latest.clear();
            return;
        }
        _ => return,
    };
    for item in items {
        if latest.get(&item.subject).is_none_or(|before| before.ver <= item.ver) {
            latest.insert(item.subject, item);
        }
    }
}

fn compare(
    verdict: &mut Verdict,
    evidence: &Evidence<'_>,
    truths: &[Truth],
    sample: &Sample,
    item: &Item,
    who: impl FnOnce() -> String,
) {
    let Some(subject) = usize::try_from(item.subject).ok().and_then(|place| truths.get(place)) else {
        return;
    };
    let since_us = sample.since_us.saturating_sub(settle_us(evidence));
    let truth = subject.link(since_us, sample.at_us);
    let is_shown = item.status != Status::Offline;
    let holds = match truth {
        Link::There => is_shown && item.k >= subject.last_acked(since_us),
        Link::Away => !is_shown,
        Link::Changing => return,
    };
    verdict.compared += 1;
    verdict.hold(holds, || {
        let (subject, at_ms) = (item.subject, sample.at_us / 1_000);
        let (status, k) = (item.status, item.k);
        format!(
            "{} shows bot {subject} as {status:?} with presence {k} at {at_ms} ms, who was {truth:?}",
            who()
        )
    });
}

/// How long something must have been true to be known.
fn settle_us(evidence: &Evidence<'_>) -> u64 {
    (evidence.bounds.converged_within_ms + evidence.bounds.presence_grace_ms) * 1_000
}

impl Truth {
    fn of(log: &[Entry]) -> Self {
        let mut truth = Self::default();
        let mut asked: HashMap<u64, u64> = HashMap::new();
        let mut silence_us = 0;
        for Entry { at_us, what, .. } in log {
            // What would have come later does not, now that this has come.
            let is_link = matches!(
                what,
                What::Notice { notice: Notice::Ready(_) | Notice::Down { .. } | Notice::Ended { .. } }
            );
            if is_link {
                truth.links.truncate(truth.links.partition_point(|(at, _)| at <= at_us));
            }
            match what {
                What::Invoke { id, operation: Operation::Presence { k, .. } } => {
                    asked.insert(*id, *k);
                }
                What::Ok { id, .. } => {
                    truth.acked.extend(asked.remove(id).map(|k| (*at_us, k)));
                }
                What::Notice { notice: Notice::Ready(opened) } => {
                    // A node knows of her before she hears that she is in.
                    let asked_us = at_us.saturating_sub(opened.took_us);
                    let asked_us = truth.links.last().map_or(asked_us, |(before, _)| asked_us.max(*before));
                    truth.links.push((asked_us, Link::Changing));
                    truth.links.push((*at_us, Link::There));
                    silence_us = SILENCES * opened.heartbeat_ms * 1_000;
                    if !opened.resumed || opened.rolled_back.is_some() {
                        truth.acked.push((*at_us, 0));
                    }
                }
                What::Notice { notice: Notice::RolledBack(_) } => truth.acked.push((*at_us, 0)),
                What::Notice { notice: Notice::Down { on_purpose: Some(Drop::Abandon), .. } } => {
                    truth.links.push((*at_us, Link::Changing));
                    truth.links.push((at_us + silence_us, Link::Away));
                }
                What::Notice { notice: Notice::Down { .. } | Notice::Ended { .. } } => {
                    truth.links.push((*at_us, Link::Away));
                }
                _ => {}
            }
        }
        truth
    }

    /// Whether there was a link from the one time to the other.
    fn link(&self, from_us: u64, to_us: u64) -> Link {
        let place = |at_us: u64| self.links.partition_point(|(at, _)| *at <= at_us);
        let (first, last) = (place(from_us), place(to_us));
        let before = first.checked_sub(1).and_then(|place| self.links.get(place));
        let before = before.map_or(Link::Away, |(_, link)| *link);
        let within = self.links.get(first..last).unwrap_or(&[]);
        if within.iter().all(|(_, link)| *link == before) { before } else { Link::Changing }
    }

    /// The last change of presence that was acked by then.
    fn last_acked(&self, at_us: u64) -> u64 {
        let place = self.acked.partition_point(|(at, _)| *at <= at_us);
        place.checked_sub(1).and_then(|place| self.acked.get(place)).map_or(0, |(_, k)| *k)
    }
}
