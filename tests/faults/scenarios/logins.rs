//! One player logs in at three nodes at once, a hundred times a second: F15. How logins live, and what becomes of them, is
//! `../fates.rs`'s; `../logins.rs` tells more of it, under every policy.

use std::time::Instant;

use load::checkers::policy::{self, Stay};
use load::faults::findings::{Findings, count};

use crate::fates::{self, Fate};
use crate::harness::server::Server;
use crate::run::Run;
use crate::scenario::{Scenario, Told};
use crate::stage::Plan;

/// Rounds of three logins at once, 30 ms after each other: a hundred logins a second, for ten seconds.
const ROUNDS: usize = 333;
/// How often three logins meet alone, to see who of them wins.
const DUELS: u32 = 20;
const DEVICES: [&str; 3] = ["pc", "mobile", "web"];
/// Who was replaced is told so soon, on a busy machine: a client whose task waits for its turn takes itself for linked.
const TOLD_WITHIN_US: u64 = 1_000_000;

pub(crate) const F15: Scenario = Scenario {
    name: "F15",
    title: "one player logs in at three nodes a hundred times a second",
    plan: Plan::PLAIN,
    play: |run| Box::pin(log_in_everywhere(run)),
    weigh: weigh_logins,
    excused: &[],
    in_default: false,
    in_ci: true,
};

async fn log_in_everywhere(run: &mut Run) {
    let rounds = if run.settings.is_short { ROUNDS / 3 } else { ROUNDS };
    let began = Instant::now();
    let begun = run.timeline.begin("one player logs in at all nodes, 100 times a second");
    let nodes: Vec<&Server> = run.stage.nodes.iter().map(|node| node.server()).collect();
    // Looks at her sessions in between: never more than one.
    let mut storms = vec![fates::storm(&nodes, rounds, DEVICES, None, 1).await];
    // And as every node tells it, the one that stands is the one who thinks so.
    let mut winners = vec![fates::hold(&nodes, &storms[0], 4504, Some(4504)).await];
    run.timeline.heal(begun, "the storm is over");
    for _ in 0..run.settings.times(DUELS) {
        let met = fates::storm(&nodes, 1, DEVICES, None, 1).await;
        winners.push(fates::hold(&nodes, &met, 4504, Some(4504)).await);
        storms.push(met);
    }
    // Whoever stood when a storm was over has gone by the next one: each is judged for itself.
    let of = |(storm, fates): (u32, &Vec<Fate>)| -> Vec<Stay> {
        fates.iter().filter_map(|fate| stay(storm, fate, began)).collect()
    };
    let stays: Vec<Stay> = (0..).zip(&storms).flat_map(of).collect();
    let verdict = policy::check(&stays, 1, TOLD_WITHIN_US);
    let logins: usize = storms.iter().map(Vec::len).sum();
    let findings = &mut run.findings;
    findings.must("logins of one player", count(logins));
    findings
        .must("of them let in, and replaced by the next", count(stays.len().saturating_sub(winners.len())));
    findings.exercised.insert("of them too late, and refused".to_owned(), count(logins - stays.len()));
    let times = winners.len();
    let one = winners.iter().filter(|winners| **winners == 1).count();
    findings.holds("one winner each time", one == times, format!("{one} of {times}"), "all");
    let said = verdict.violations.first().map_or_else(|| "0".to_owned(), |violation| violation.what.clone());
    findings.holds("C8: links of hers beside another", verdict.broken == 0, said, "0");
}

/// As C8 wants it.
fn stay(storm: u32, fate: &Fate, began: Instant) -> Option<Stay> {
    let us = |at: Instant| u64::try_from(at.saturating_duration_since(began).as_micros()).unwrap_or(u64::MAX);
    let (came, left) = match fate {
        Fate::Refused(..) => return None,
        Fate::Closed(_, came, left) | Fate::Left(came, left) => (came, Some(left)),
        Fate::Stands(_, came) => (came, None),
    };
    Some(Stay { player: storm, came_us: us(*came), left_us: left.map(|left| us(*left)) })
}

fn weigh_logins(told: &Told<'_>, findings: &mut Findings) {
    findings.at_most("rollback notices", told.load.figures.count("rollback_notices"), 0, "");
    findings.at_most("lost", findings.lost, 0, "changes");
}
