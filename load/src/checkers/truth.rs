//! C10: presence equals the truth soon after a fault: who is attached is shown, who has been away is not, at every node
//! and to every watcher. Pure; called by [`super::judge_faults`].

use std::collections::HashMap;

use protocol::request::Status;

use super::{Evidence, Verdict};
use crate::audit::{Sample, Seen};
use crate::history::{Entry, Item, Notice, Operation, Value, What};

/// Whether a player had a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// All the time.
    There,
    /// Never.
    Away,
    /// Both.
    Changing,
}

/// Judges every look at what nodes show, and what watchers had been told by then.
#[must_use]
pub fn check(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::new("C10", "presence equals the truth");
    for sample in &evidence.audit.samples {
        let Seen::Shown { node, items } = &sample.seen else { continue };
        for item in items {
            compare(&mut verdict, evidence, sample, item, || format!("node {node}"));
        }
        watchers(&mut verdict, evidence, sample);
    }
    if verdict.checks == 0 {
        verdict.not_exercised = Some("nobody asked after a fault".to_owned());
    }
    verdict
}

/// What each watcher was last told of each whom she watches, where both have been there for long.
fn watchers(verdict: &mut Verdict, evidence: &Evidence<'_>, sample: &Sample) {
    let since_us = sample.since_us.saturating_sub(settle_us(evidence));
    for (process, log) in evidence.history.processes() {
        if link(log, since_us, sample.at_us) != Link::There {
            continue;
        }
        for item in told(log, sample.since_us).into_values() {
            compare(verdict, evidence, sample, &item, || format!("watcher {process}"));
        }
    }
}

/// The latest item of each subject that a log has by then.
fn told(log: &[Entry], at_us: u64) -> HashMap<u32, Item> {
    let mut latest: HashMap<u32, Item> = HashMap::new();
    for entry in log.iter().take_while(|entry| entry.at_us <= at_us) {
        let items: &[Item] = match &entry.what {
            What::Ok { value: Value::Presences(items), .. } => items,
            What::Notice { notice: Notice::Presence { items, .. } } => items,
            // A new session begins without watches.
            What::Notice { notice: Notice::Ready(opened) } if !opened.resumed => {
                latest.clear();
                continue;
            }
            _ => continue,
        };
        for item in items {
            if latest.get(&item.subject).is_none_or(|before| before.ver <= item.ver) {
                latest.insert(item.subject, item.clone());
            }
        }
    }
    latest
}

fn compare(
    verdict: &mut Verdict,
    evidence: &Evidence<'_>,
    sample: &Sample,
    item: &Item,
    who: impl FnOnce() -> String,
) {
    let log = evidence.history.log(item.subject);
    let since_us = sample.since_us.saturating_sub(settle_us(evidence));
    let truth = link(log, since_us, sample.at_us);
    let is_shown = item.status != Status::Offline;
    let holds = match truth {
        Link::There => is_shown && item.k >= last_acked(log, since_us),
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

/// Whether there was a link from the one time to the other.
fn link(log: &[Entry], from_us: u64, to_us: u64) -> Link {
    let (mut is_there, mut was_there, mut was_away) = (false, false, false);
    for entry in log.iter().take_while(|entry| entry.at_us <= to_us) {
        let now = match &entry.what {
            What::Notice { notice: Notice::Ready(_) } => true,
            What::Notice { notice: Notice::Down { .. } | Notice::Ended { .. } } => false,
            _ => continue,
        };
        if entry.at_us >= from_us {
            *(if is_there { &mut was_there } else { &mut was_away }) = true;
        }
        is_there = now;
    }
    *(if is_there { &mut was_there } else { &mut was_away }) = true;
    match (was_there, was_away) {
        (true, false) => Link::There,
        (false, true) => Link::Away,
        _ => Link::Changing,
    }
}

/// The last change of presence in the session that then stood, which was acked by then.
fn last_acked(log: &[Entry], at_us: u64) -> u64 {
    let mut asked: HashMap<u64, u64> = HashMap::new();
    let mut last = 0;
    for entry in log.iter().take_while(|entry| entry.at_us <= at_us) {
        match &entry.what {
            What::Invoke { id, operation: Operation::Presence { k, .. } } => {
                asked.insert(*id, *k);
            }
            What::Ok { id, .. } => last = asked.remove(id).unwrap_or(last),
            What::Notice { notice: Notice::Ready(opened) }
                if !opened.resumed || opened.rolled_back.is_some() =>
            {
                last = 0;
            }
            What::Notice { notice: Notice::RolledBack(_) } => last = 0,
            _ => {}
        }
    }
    last
}
