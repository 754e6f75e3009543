//! What a run of faults came to, besides the checkers: what was tried and how often, how long each took to be well again, which
//! trace each left, and whether what was lost is excused. Pure; called once, at the end.

use std::collections::{BTreeMap, BTreeSet};

use crate::audit::{Incident, Seen};
use crate::checkers::{Evidence, backlog, lives};
use crate::faults::excuses;
use crate::faults::findings::{Findings, count};
use crate::figures::Figures;
use crate::history::{Drop, Notice, Operation, What};

/// What was acked earlier than this before its home's end must not be lost with it, ms: some intervals of the flush, and a slow
/// moment.
const LOSS_WINDOW_MS: u64 = 1_000;
/// An answer shows a fault if it took half as long as that lasted, and so long at least.
const SLOW_US_MIN: u64 = 250_000;
const AT_WORK: &str = "bots at work again";
/// What moves only when something is wrong, or changes hands: the metric, and the labels that are meant.
const TELLING: [(&str, &str); 8] = [
    ("hearth_commits_total", "\"unknown\""),
    ("hearth_commits_total", "\"held_back\""),
    ("hearth_commits_total", "\"fenced\""),
    ("hearth_store_breaker_turns_total", ""),
    ("hearth_shards_taken_total", ""),
    ("hearth_shards_lost_total", ""),
    ("hearth_leases_run_out_total", ""),
    ("hearth_repairs_total", ""),
];

/// A fault that was done.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    /// What was done, without for how long: faults that are the same have the same.
    pub(super) what: String,
    /// The node whose process it was, if it was one.
    pub(super) node: Option<String>,
    /// From its mending until all shards were served, ms; none if that never came.
    pub(super) served_ms: Option<u64>,
    /// From its mending until bots were at work, ms; none if that never came.
    pub(super) at_work_ms: Option<u64>,
    /// What a link has hindered.
    pub(super) hindered: u64,
    /// It was broken, and not only tried.
    pub(super) is_done: bool,
}

/// Weighs a run; each trial is an incident, in order. `felt_ms` is how long after its mending a fault may still show.
pub(super) fn weigh(evidence: &Evidence<'_>, figures: &Figures, trials: &[Trial], felt_ms: u64) -> Findings {
    let mut findings = Findings::default();
    findings.take_in(evidence, figures);
    findings.must("faults", count(trials.iter().filter(|trial| trial.is_done).count()));
    let mut kinds: BTreeMap<&str, Vec<(&Trial, &Incident)>> = BTreeMap::new();
    for (number, (trial, incident)) in trials.iter().zip(evidence.incidents).enumerate() {
        if !trial.is_done {
            continue;
        }
        let next = evidence.incidents.get(number + 1).map_or(u64::MAX, |next| next.begun_us);
        let until_us = incident.healed_us.saturating_add(felt_ms * 1_000).min(next);
        let traces = traces(evidence, incident, until_us) + trial.hindered;
        if traces == 0 {
            let at_s = incident.begun_us / 1_000_000;
            findings.vacuous.push(format!("{} at {at_s} s left no trace", incident.what));
        }
        *findings.exercised.entry(format!("traces of: {}", trial.what)).or_default() += traces;
        kinds.entry(&trial.what).or_default().push((trial, incident));
    }
    for (what, done) in kinds {
        findings.exercised.insert(what.to_owned(), count(done.len()));
        let is_left = done.iter().all(|(_, incident)| incident.left_alone);
        let was_served = done.iter().any(|(trial, _)| trial.served_ms.is_some());
        let mut told = |what: String, took_ms: Vec<u64>| {
            let was_waited_for = was_served || !what.ends_with(AT_WORK);
            let not_judged = match (is_left, was_waited_for) {
                (true, _) => Some("the run was broken off"),
                (false, false) => Some("shards were not served again"),
                (false, true) => None,
            };
            let not_judged = not_judged.filter(|_| took_ms.is_empty());
            findings.recovery(&what, took_ms);
            if let Some(recovery) = findings.recoveries.last_mut() {
                recovery.not_judged = not_judged;
            }
        };
        let served = done.iter().filter_map(|(trial, _)| trial.served_ms);
        told(format!("{what}: shards served again"), served.collect());
        let at_work = done.iter().filter_map(|(trial, _)| trial.at_work_ms);
        told(format!("{what}: {AT_WORK}"), at_work.collect());
        let waited = done.iter().filter(|(_, incident)| !incident.left_alone);
        let drained = waited.filter_map(|(_, incident)| backlog::drained_after_us(evidence.audit, incident));
        told(format!("{what}: backlog drained"), drained.map(|us| us / 1_000).collect());
    }
    findings.exercised.insert("messages".to_owned(), figures.count("messages"));
    let untold = untold_while_a_node_lived(evidence);
    findings.at_most(
        "sessions gone before their time and not told so, though a node lived",
        untold,
        0,
        "sessions",
    );
    let hits = |incident: &Incident, node: &str| {
        let trial =
            evidence.incidents.iter().position(|other| other == incident).and_then(|at| trials.get(at));
        trial.is_some_and(|trial| trial.node.as_ref().is_none_or(|hit| hit == node))
    };
    excuses::weigh(&mut findings, evidence.history, evidence.incidents, LOSS_WINDOW_MS, hits);
    findings
}

/// Sessions that were refused before their time without a word of their loss, while a node lived that had been there when they
/// had their last link: README, "What is lost with the store".
fn untold_while_a_node_lived(evidence: &Evidence<'_>) -> u64 {
    let spoke = |boot: &str, is_then: &dyn Fn(u64) -> bool| {
        evidence.audit.nodes().any(|(sample, word)| word.boot == boot && is_then(sample.at_us))
    };
    let mut untold = 0;
    for (process, log) in evidence.history.processes() {
        for life in lives::of(process, log) {
            let Some(early) = life.ended_early().filter(|early| !early.told) else { continue };
            let at_us = log.get(early.at).map_or(0, |entry| entry.at_us);
            let linked_us = at_us.saturating_sub(early.away_ms * 1_000);
            let boots: BTreeSet<&str> = evidence.audit.nodes().map(|(_, word)| &*word.boot).collect();
            let lived = |boot: &&str| spoke(boot, &|us| us <= linked_us) && spoke(boot, &|us| us >= at_us);
            untold += u64::from(boots.iter().any(lived));
        }
    }
    untold
}

/// Whatever shows that the cluster, or a player, felt it.
fn traces(evidence: &Evidence<'_>, incident: &Incident, until_us: u64) -> u64 {
    let span = incident.begun_us..until_us;
    let samples = evidence.audit.samples.iter().filter(|sample| span.contains(&sample.at_us));
    let silent = count(samples.filter(|sample| matches!(sample.seen, Seen::Silent { .. })).count());
    let grown = |(name, label): (&str, &str)| -> u64 {
        evidence.audit.growth_between(name, label, incident.begun_us, until_us).values().sum()
    };
    let lasted_us = incident.healed_us.min(until_us).saturating_sub(incident.begun_us);
    let slow_us = (lasted_us / 2).max(SLOW_US_MIN);
    let felt = |process: u32| felt_by(evidence.history.log(process), incident.begun_us, until_us, slow_us);
    let processes = evidence.history.processes().map(|(process, _)| process);
    silent + TELLING.map(grown).iter().sum::<u64>() + processes.map(felt).sum::<u64>()
}

/// What one player felt: a link that ended unasked, a refusal, a provisional ack, a slow answer over a link that stood.
fn felt_by(log: &[crate::history::Entry], from_us: u64, until_us: u64, slow_us: u64) -> u64 {
    let mut asked: BTreeMap<u64, u64> = BTreeMap::new();
    let mut felt = 0;
    for entry in log.iter().take_while(|entry| entry.at_us < until_us) {
        let is_within = entry.at_us >= from_us;
        let shows = match &entry.what {
            What::Invoke { id, operation: Operation::Write { .. } | Operation::Read } => {
                asked.insert(*id, entry.at_us);
                false
            }
            What::Ok { id, prov, .. } => {
                let took_us = asked.remove(id).map_or(0, |asked| entry.at_us.saturating_sub(asked));
                *prov || took_us >= slow_us
            }
            What::Fail { .. } => true,
            What::Notice { notice: Notice::Down { on_purpose, .. } } => {
                // Whoever is away waits of her own will.
                asked.clear();
                !matches!(on_purpose, Some(Drop::Reset | Drop::Cut | Drop::Abandon))
            }
            _ => false,
        };
        felt += u64::from(shows && is_within);
    }
    felt
}

#[cfg(test)]
mod tests {
    use protocol::request::Ack;

    use super::*;
    use crate::audit::{Audit, Sample};
    use crate::checkers::Bounds;
    use crate::history::{Entry, History, Opened};

    const SECOND: u64 = 1_000_000;

    fn incident(begun_s: u64, loses_home: bool) -> Incident {
        let (begun_us, healed_us) = (begun_s * SECOND, (begun_s + 4) * SECOND);
        Incident { what: "x".into(), begun_us, healed_us, loses_home, ..Incident::default() }
    }

    fn trial(node: Option<&str>) -> Trial {
        let node = node.map(str::to_owned);
        Trial {
            what: "x".into(),
            node,
            served_ms: Some(30),
            at_work_ms: Some(900),
            hindered: 0,
            is_done: true,
        }
    }

    fn entry(at_us: u64, what: What) -> Entry {
        Entry { at_us, process: 0, session: None, what }
    }

    fn opens(at_us: u64, resumed: bool, cseq: u64) -> Entry {
        let opened = Opened { stamp: (1, 1), node: "a#1".into(), resumed, cseq, ..Opened::default() };
        entry(at_us, What::Notice { notice: Notice::Ready(Box::new(opened)) })
    }

    fn down(at_us: u64, on_purpose: Option<Drop>) -> Entry {
        entry(at_us, What::Notice { notice: Notice::Down { code: None, on_purpose, stay_ms: 0 } })
    }

    fn asks(at_us: u64, id: u64) -> Entry {
        entry(at_us, What::Invoke { id, operation: Operation::Write { k: id, ack: Ack::Applied } })
    }

    fn answered(at_us: u64, id: u64, prov: bool) -> Entry {
        let (cseq, stamp, ack) = (Some(id), Some((1, id)), Some(Ack::Applied));
        entry(at_us, What::Ok { id, cseq, stamp, ack, prov, dup: false, value: Default::default() })
    }

    fn weighed(log: Vec<Entry>, samples: Vec<Sample>, incidents: &[Incident], trials: &[Trial]) -> Findings {
        let (history, audit) = (History { logs: vec![log] }, Audit { samples });
        let bounds = Bounds {
            drained_within_ms: 1,
            converged_within_ms: 1,
            presence_grace_ms: 1,
            served_within_ms: 1,
        };
        let evidence =
            Evidence { history: &history, audit: &audit, incidents, shards: &[0], bounds, run_ms: 60_000 };
        weigh(&evidence, &crate::figures::of(&history), trials, 2_000)
    }

    #[test]
    fn a_run_without_a_fault_proves_nothing() {
        assert_eq!(weighed(Vec::new(), Vec::new(), &[], &[]).vacuous, ["no faults"]);
    }

    #[test]
    fn a_fault_that_nobody_felt_proves_nothing() {
        let quiet =
            vec![opens(SECOND, false, 0), asks(11 * SECOND, 1), answered(11 * SECOND + 900, 1, false)];
        let says = |log, samples| weighed(log, samples, &[incident(10, false)], &[trial(None)]).vacuous;
        assert_eq!(says(quiet.clone(), Vec::new()), ["x at 10 s left no trace"]);
        // What one does oneself, and what came before or long after, is no trace.
        for strange in [down(12 * SECOND, Some(Drop::Cut)), down(9 * SECOND, None), down(17 * SECOND, None)] {
            let log = [quiet.clone(), vec![strange]].concat();
            assert_eq!(says(log, Vec::new()).len(), 1);
        }
        for trace in [
            vec![down(12 * SECOND, None)],
            vec![asks(12 * SECOND, 2), answered(12 * SECOND + 9, 2, true)],
            vec![asks(11 * SECOND + 500_000, 2), answered(14 * SECOND, 2, false)],
        ] {
            assert!(says([quiet.clone(), trace].concat(), Vec::new()).is_empty());
        }
        let silent = Seen::Silent { who: "a".into(), why: "timeout".into() };
        assert!(
            says(quiet, vec![Sample { at_us: 15 * SECOND, since_us: 14 * SECOND, seen: silent }]).is_empty()
        );
    }

    #[test]
    fn each_trial_and_each_recovery_is_told() {
        let log = vec![opens(SECOND, false, 0), down(12 * SECOND, None), down(32 * SECOND, None)];
        let findings = weighed(
            log,
            Vec::new(),
            &[incident(10, false), incident(30, false)],
            &[trial(None), trial(None)],
        );
        assert_eq!((findings.exercised["x"], findings.exercised["traces of: x"]), (2, 2));
        let served = findings.recoveries.iter().find(|recovery| recovery.what == "x: shards served again");
        assert_eq!(served.unwrap().took_ms, [30, 30]);
    }

    #[test]
    fn only_the_end_of_her_home_excuses_what_a_player_lost() {
        // Two changes are acked; the second is gone when she comes back.
        let log = || {
            let mut log = vec![opens(SECOND, false, 0)];
            for (id, at_us) in [(1, 2 * SECOND), (2, 10 * SECOND - 50_000)] {
                log.extend([asks(at_us, id), answered(at_us + 900, id, false)]);
            }
            log.extend([down(10 * SECOND, None), opens(16 * SECOND, true, 1)]);
            log
        };
        let unexcused = |loses_home, node| {
            let findings = weighed(log(), Vec::new(), &[incident(10, loses_home)], &[trial(node)]);
            assert_eq!(findings.lost, 1);
            !findings.thresholds.iter().find(|t| t.what == "losses that no fault excuses").unwrap().holds
        };
        assert!(!unexcused(true, None) && !unexcused(true, Some("a")));
        assert!(unexcused(true, Some("b")) && unexcused(false, Some("a")) && unexcused(false, None));
    }

    #[test]
    fn what_nobody_waited_for_is_not_judged_and_what_was_not_broken_leaves_no_trace() {
        let mut left = incident(10, false);
        left.left_alone = true;
        let waited_for_nothing = Trial { served_ms: None, at_work_ms: None, ..trial(None) };
        let log = || vec![opens(SECOND, false, 0), down(12 * SECOND, None)];
        let findings = weighed(log(), Vec::new(), &[left.clone()], std::slice::from_ref(&waited_for_nothing));
        assert_eq!(findings.recoveries.len(), 3);
        for recovery in &findings.recoveries {
            assert_eq!(crate::faults::report::took(recovery), "not judged: the run was broken off");
        }
        let in_vain = [incident(10, false)];
        let findings = weighed(log(), Vec::new(), &in_vain, std::slice::from_ref(&waited_for_nothing));
        let told: Vec<_> = findings.recoveries.iter().map(crate::faults::report::took).collect();
        assert_eq!(told[..2], ["never", "not judged: shards were not served again"]);
        let never = Trial { is_done: false, ..waited_for_nothing };
        let findings = weighed(log(), Vec::new(), &[left], &[never]);
        assert_eq!(findings.exercised.get("traces of: x"), None);
        assert!(findings.recoveries.is_empty() && findings.vacuous == ["no faults"], "{findings:?}");
    }

    #[test]
    fn what_a_slow_break_took_with_it_is_as_old_as_at_the_nodes_last_word() {
        // The command takes 4 s; the node answers for 3 s of them, and what it acked 2.5 s before is gone.
        let mut log = vec![opens(SECOND, false, 0)];
        for (id, at_us) in [(1, 2 * SECOND), (2, 10 * SECOND + 500_000), (3, 13 * SECOND)] {
            log.extend([asks(at_us - 900, id), answered(at_us, id, false)]);
        }
        log.extend([down(13 * SECOND + 1, None), opens(19 * SECOND, true, 1)]);
        let mut slow = incident(10, true);
        (slow.broken_us, slow.healed_us) = (14 * SECOND, 16 * SECOND);
        let findings = weighed(log, Vec::new(), &[slow], &[trial(None)]);
        let oldest = findings.thresholds.iter().find(|t| t.what.starts_with("the oldest lost ack")).unwrap();
        assert_eq!((oldest.found.as_str(), oldest.holds), ("2500 ms", false));
    }

    #[test]
    fn a_durable_change_that_is_lost_is_excused_by_nothing() {
        let mut log = vec![opens(SECOND, false, 0), asks(9 * SECOND, 1)];
        let (cseq, stamp, value) = (Some(1), Some((1, 1)), Default::default());
        let what = What::Ok { id: 1, cseq, stamp, ack: Some(Ack::Durable), prov: false, dup: false, value };
        log.extend([entry(10 * SECOND - 1, what), down(10 * SECOND, None), opens(16 * SECOND, true, 0)]);
        let findings = weighed(log, Vec::new(), &[incident(10, true)], &[trial(None)]);
        let unexcused =
            findings.thresholds.iter().find(|t| t.what == "losses that no fault excuses").unwrap();
        assert_eq!(unexcused.found, "1 changes");
    }

    #[test]
    fn a_session_that_went_with_the_store_counts_and_must_be_told_where_a_node_lived() {
        let refused = |lost| {
            let claim = Some(crate::history::Claim { stamp: None, away_ms: 5_000, away_at_least_ms: 5_000 });
            let code = protocol::ErrorCode::NotResumable;
            entry(15 * SECOND, What::Notice { notice: Notice::Turned { code, claim, lost } })
        };
        let says = |boot: &str, at_us| {
            let word = crate::audit::NodeWord { boot: boot.into(), ..Default::default() };
            Sample { at_us, since_us: at_us, seen: Seen::Node(word) }
        };
        let both = || vec![says("b#1", SECOND), says("b#1", 16 * SECOND)];
        let restarted = vec![says("b#1", SECOND), says("b#2", 16 * SECOND)];
        for (lost, samples, reported, holds) in
            [(true, both(), 1, true), (false, both(), 0, false), (false, restarted, 0, true)]
        {
            let mut first = opens(SECOND, false, 0);
            if let What::Notice { notice: Notice::Ready(opened) } = &mut first.what {
                opened.resume_ms = 60_000;
            }
            let log = vec![
                first,
                asks(9 * SECOND, 1),
                answered(10 * SECOND - 1, 1, false),
                down(10 * SECOND, None),
                refused(lost),
                opens(15 * SECOND + 9, false, 0),
            ];
            let findings = weighed(log, samples, &[incident(10, true)], &[trial(None)]);
            assert_eq!((findings.lost, findings.reported), (1, reported));
            let told = findings.thresholds.iter().find(|t| t.what.starts_with("sessions gone")).unwrap();
            assert_eq!(told.holds, holds, "{lost}: {told:?}");
        }
    }
}
