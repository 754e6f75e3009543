//! Pushes: the latest presence of everybody watched has arrived and is true, messages arrive once, no number is missing,
//! no watch is forgotten. Pure; called by [`super::judge`].

use std::collections::{HashMap, HashSet};

use protocol::request::Status;

use super::Verdict;
use super::lives::{self, Life};
use crate::history::{Entry, History, Item, Notice, Operation, Value, What};

/// What became of a subject's presence.
struct Subject {
    /// What it set, by `k`.
    statuses: HashMap<u64, Status>,
    /// The `k` of its last acked change; 0 if there is none.
    last_acked: u64,
    /// Its changes were never lost, so their order is the order of their `k`.
    is_steady: bool,
    /// It stayed until everybody had looked.
    is_complete: bool,
}

/// What a watcher saw of a subject.
struct Seen {
    /// The latest item, and its place in the log.
    at: usize,
    item: Item,
    /// The highest `k` of all.
    k_max: u64,
}

/// Judges a whole run.
#[must_use]
pub fn check(history: &History, lives: &[Life<'_>]) -> Verdict {
    let mut verdict =
        Verdict::new("pushes", "watchers learn the latest, messages come once, no push is missing");
    let subjects: HashMap<u32, Subject> =
        history.processes().map(|(process, log)| (process, subject(process, log, lives))).collect();
    for (process, log) in history.processes() {
        check_watcher(&mut verdict, process, log, &subjects);
        check_numbers(&mut verdict, process, log);
        check_messages(&mut verdict, process, log);
    }
    check_words(&mut verdict, history);
    if !check_delivery(&mut verdict, history) {
        verdict.left_out =
            Some("no message was delivered, so none can have come twice or not at all".to_owned());
    }
    for life in lives {
        check_watching(&mut verdict, life);
    }
    verdict
}

fn subject(process: u32, log: &[Entry], lives: &[Life<'_>]) -> Subject {
    let mut mine = lives.iter().filter(|life| life.process == process);
    let last = lives.iter().rfind(|life| life.process == process);
    let last_acked = last
        .and_then(|life| {
            let acked = life.changes.iter().filter(|change| !change.is_write && !change.is_unknown);
            acked.map(|change| change.k).max()
        })
        .unwrap_or(0);
    Subject {
        statuses: lives::statuses(log),
        last_acked,
        is_steady: mine.all(|life| life.segments.len() == 1),
        // Its last read comes after its last change of presence, when its watchers had their time.
        is_complete: last.is_some_and(|life| {
            let read = life.reads.last().map_or(0, |read| read.invoked);
            life.changes
                .iter()
                .filter(|change| change.k == last_acked && !change.is_write)
                .any(|c| c.answered < read)
        }),
    }
}

/// What one watcher saw of each subject: true, in order, and up to the last.
fn check_watcher(verdict: &mut Verdict, process: u32, log: &[Entry], subjects: &HashMap<u32, Subject>) {
    let mut watched: HashSet<u32> = HashSet::new();
    let mut asked: HashMap<u64, &[u32]> = HashMap::new();
    let mut seen: HashMap<u32, Seen> = HashMap::new();
    for (at, entry) in log.iter().enumerate() {
        match &entry.what {
            What::Invoke { id, operation: Operation::Watch { subjects } } => {
                asked.insert(*id, subjects);
            }
            What::Ok { id, value: Value::Presences(items), .. } => {
                if let Some(named) = asked.get(id) {
                    watched.extend(*named);
                    items.iter().for_each(|item| see(verdict, process, log, at, item, subjects, &mut seen));
                }
            }
            What::Notice { notice: Notice::Presence { items, .. } } => {
                items.iter().for_each(|item| see(verdict, process, log, at, item, subjects, &mut seen));
            }
            What::Notice { notice: Notice::Ready(opened) } if !opened.resumed => watched.clear(),
            _ => {}
        }
    }
    let judged_itself = subjects.get(&process).is_some_and(|own| own.is_complete);
    for other in watched.into_iter().filter(|_| judged_itself) {
        let Some(subject) =
            subjects.get(&other).filter(|subject| subject.is_complete && subject.last_acked > 0)
        else {
            continue;
        };
        // Who has logged out since shows no number any more: what counts is that it was seen.
        let (at, latest) = seen.get(&other).map_or((0, 0), |seen| (seen.at, seen.k_max));
        verdict.compared += 1;
        verdict.check(latest >= subject.last_acked, process, log, &[at], || {
            format!(
                "bot {other} set presence {} and was acked; the latest seen here is {latest}",
                subject.last_acked
            )
        });
    }
}

/// One item arrives.
fn see(
    verdict: &mut Verdict,
    process: u32,
    log: &[Entry],
    at: usize,
    item: &Item,
    subjects: &HashMap<u32, Subject>,
    seen: &mut HashMap<u32, Seen>,
) {
    let Some(subject) = subjects.get(&item.subject) else { return };
    let before = seen.get(&item.subject);
    if before.is_some_and(|before| before.item.ver > item.ver) {
        // A snapshot may be older than the pushes that overtook it.
        return;
    }
    if item.k > 0 {
        let set = subject.statuses.get(&item.k);
        verdict.compared += 1;
        let is_true = set == Some(&item.status) || item.status == Status::Offline;
        verdict.check(is_true, process, log, &[at], || {
            format!(
                "bot {} shows {:?} with presence {}, which set {set:?}",
                item.subject, item.status, item.k
            )
        });
        if subject.is_steady
            && let Some(before) = before
        {
            // Also over one that shows none between them.
            verdict.check(before.k_max <= item.k, process, log, &[before.at, at], || {
                format!("bot {} went from presence {} back to {}", item.subject, before.k_max, item.k)
            });
        }
    }
    let k_max = before.map_or(0, |before| before.k_max).max(item.k);
    seen.insert(item.subject, Seen { at, item: item.clone(), k_max });
}

fn check_numbers(verdict: &mut Verdict, process: u32, log: &[Entry]) {
    for (at, entry) in log.iter().enumerate() {
        match &entry.what {
            What::Notice { notice: Notice::SeqGap { expected, came } } => {
                verdict.check(false, process, log, &[at], || {
                    let again = if came < expected { " again, on one link," } else { "" };
                    format!("push {came} came{again} where {expected} was due")
                });
            }
            What::Notice {
                notice: Notice::Presence { .. } | Notice::Message { .. } | Notice::Heard { .. },
            } => {
                verdict.check(true, process, log, &[at], String::new);
            }
            _ => {}
        }
    }
}

fn check_messages(verdict: &mut Verdict, process: u32, log: &[Entry]) {
    let mut came: HashMap<u64, usize> = HashMap::new();
    for (at, entry) in log.iter().enumerate() {
        let What::Notice { notice: Notice::Message { m, repeat: false, .. } } = &entry.what else { continue };
        if *m == 0 {
            continue;
        }
        let before = came.insert(*m, at);
        verdict.check(before.is_none(), process, log, &[before.unwrap_or(at), at], || {
            format!("message {m} came twice under two ids")
        });
    }
}

/// What is heard in a room was said by whom it is said to be from, and once. That all of it is heard nobody promises: what is
/// said faster than a node can tell its members may be lost.
fn check_words(verdict: &mut Verdict, history: &History) {
    // Each with whether it was said on one link: who had to say it again may have said it twice.
    let mut said: HashMap<(u32, u64), bool> = HashMap::new();
    for (process, log) in history.processes() {
        let mut asked: HashMap<u64, u64> = HashMap::new();
        for entry in log {
            match &entry.what {
                What::Invoke { id, operation: Operation::Say { s } } => {
                    asked.insert(*id, *s);
                    said.insert((process, *s), false);
                }
                What::Ok { id, .. } => {
                    if let Some(s) = asked.remove(id) {
                        said.insert((process, s), true);
                    }
                }
                What::Notice { notice: Notice::Ready(_) | Notice::Down { .. } | Notice::RolledBack(_) } => {
                    asked.clear();
                }
                _ => {}
            }
        }
    }
    for (process, log) in history.processes() {
        let mut came: HashMap<(u32, u64), usize> = HashMap::new();
        for (at, entry) in log.iter().enumerate() {
            match &entry.what {
                What::Notice { notice: Notice::Heard { from, s, repeat, .. } } => {
                    let word = (*from, *s);
                    verdict.compared += 1;
                    verdict.check(said.contains_key(&word), process, log, &[at], || {
                        format!("heard word {s} of bot {from}, which never said it")
                    });
                    if !repeat && said.get(&word) == Some(&true) {
                        let before = came.insert(word, at);
                        verdict.check(before.is_none(), process, log, &[before.unwrap_or(at), at], || {
                            format!("word {s} of bot {from} came twice under two ids")
                        });
                    }
                }
                // A client that is made anew knows no ids.
                What::Notice { notice: Notice::Ready(opened) } if !opened.resumed => came.clear(),
                _ => {}
            }
        }
    }
}

/// What a service was told to be delivered has arrived, unless pushes were announced as missed later. Whoever never came may
/// have a session of an earlier run to which it was delivered. Whether there was one.
fn check_delivery(verdict: &mut Verdict, history: &History) -> bool {
    let mut any = false;
    let mut arrived: HashMap<u32, (HashSet<u64>, u64)> = HashMap::new();
    for (process, log) in history.processes() {
        let (messages, excused_until) = arrived.entry(process).or_insert_with(|| (HashSet::new(), u64::MAX));
        for entry in log {
            match &entry.what {
                What::Notice { notice: Notice::Message { m, .. } } => {
                    messages.insert(*m);
                }
                What::Notice { notice: Notice::Ready(opened) } if opened.missed || !opened.resumed => {
                    *excused_until = entry.at_us;
                }
                _ => {}
            }
        }
    }
    for (process, log) in history.processes() {
        let mut asked: HashMap<u64, (u32, u64, u64)> = HashMap::new();
        for (at, entry) in log.iter().enumerate() {
            match &entry.what {
                What::Invoke { id, operation: Operation::Message { to, m } } => {
                    asked.insert(*id, (*to, *m, entry.at_us));
                }
                What::Ok { id, value: Value::Delivered(1..), .. } => {
                    let Some((to, m, asked_us)) = asked.get(id) else { continue };
                    let Some((messages, excused_until)) = arrived.get(to) else { continue };
                    any = true;
                    verdict.compared += 1;
                    let holds = messages.contains(m) || asked_us < excused_until;
                    verdict.check(holds, process, log, &[at], || {
                        format!("message {m} was delivered to bot {to}, where it never arrived")
                    });
                }
                _ => {}
            }
        }
    }
    any
}

/// After a resume the session watches whom it watched, unless changes were reported lost. An answer to `watch` carries no
/// stamp, so it counts from the next answer on that does: from then on a loss must be told.
fn check_watching(verdict: &mut Verdict, life: &Life<'_>) {
    let mut asked: HashMap<u64, &[u32]> = HashMap::new();
    let mut answered: HashSet<u32> = HashSet::new();
    let mut watched: HashSet<u32> = HashSet::new();
    let mut answered_at = 0;
    let mut invoked: HashMap<u64, usize> = HashMap::new();
    for (at, entry) in life.log.iter().enumerate().skip(life.start) {
        match &entry.what {
            What::Invoke { id, operation } => {
                invoked.insert(*id, at);
                if let Operation::Watch { subjects } = operation {
                    asked.insert(*id, subjects);
                }
            }
            What::Ok { id, stamp, .. } => {
                if let Some(subjects) = asked.get(id) {
                    answered.extend(*subjects);
                    answered_at = at;
                } else if stamp.is_some() && invoked.get(id).is_some_and(|invoked| *invoked > answered_at) {
                    watched.extend(&answered);
                }
            }
            What::Notice { notice: Notice::Ready(opened) } if opened.resumed => {
                if opened.rolled_back.is_some() {
                    watched.clear();
                }
                answered.clone_from(&watched);
                let kept = watched.iter().all(|subject| opened.watching.contains(subject));
                verdict.check(kept, life.process, life.log, &[at], || {
                    format!("{} were watched, ready names {}", watched.len(), opened.watching.len())
                });
            }
            What::Notice { notice: Notice::RolledBack(_) } => {
                watched.clear();
                answered.clear();
            }
            What::Notice { notice: Notice::Ready(_) } if at > life.start => return,
            _ => {}
        }
    }
}
