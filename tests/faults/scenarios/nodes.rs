//! Nodes that are killed, or stopped and continued: F1 to F3.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use load::audit::{Audit, Incident};
use load::checkers::Evidence;
use load::faults::excuses;
use load::faults::findings::{Findings, count};
use load::history::{History, Notice, What};
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use tokio::time::{sleep, sleep_until};

use crate::run::Run;
use crate::scenario::{Scenario, Told};
use crate::stage::{NAMES, Plan};

/// A change is lost if it was acked less than this before its node died, in ms: a flush interval, a round trip, a slow moment.
const LOSS_WINDOW_MS: u64 = 250;

pub(crate) const F1: Scenario = Scenario {
    name: "F1",
    title: "kill -9 one of 3 nodes under load",
    // Whoever is away of her own will does not show how long she had to wait.
    plan: Plan { drop_interval_ms: 60_000, ..Plan::PLAIN },
    play: |run| Box::pin(kill_one(run)),
    weigh: weigh_kill,
    excused: &[],
    in_default: true,
    in_ci: false,
};

async fn kill_one(run: &mut Run) {
    let node = run.rng.random_range(0..NAMES.len());
    run.kill_node(node);
    run.until_seen("the others serve all shards", Run::is_served).await;
    run.is_well_again().await;
    run.start_node(node).await;
}

fn weigh_kill(told: &Told<'_>, findings: &mut Findings) {
    let evidence = &told.evidence;
    let killed_us = evidence.incidents[0].begun_us;
    let dead = named(&evidence.incidents[0].what).unwrap_or_default();
    let waited = waited_for_a_home(evidence.history, dead, killed_us);
    findings.must("players of the dead node", count(waited.len()));
    findings.must("resumes elsewhere", told.load.figures.count("resumes_elsewhere"));
    let back = findings.recovery("players are served elsewhere", waited);
    findings.within("take-over, p99", &back, 99, told.settings.ttl_ms + 2_000);
    weigh_losses(told, findings);
}

/// Every loss was told, and is young: acked less than 250 ms before its node was killed, or stopped.
pub(crate) fn weigh_losses(told: &Told<'_>, findings: &mut Findings) {
    let Evidence { history, incidents, .. } = told.evidence;
    let of_node = |incident: &Incident, node: &str| named(&incident.what) == Some(node);
    excuses::weigh(findings, history, incidents, LOSS_WINDOW_MS, of_node);
}

/// The node that an incident names: `… node a`, `node a …`.
pub(crate) fn named(what: &str) -> Option<&str> {
    what.split("node ").nth(1)?.split(' ').next()
}

pub(crate) const F2: Scenario = Scenario {
    name: "F2",
    title: "kill -9 two of three, 1 s apart",
    plan: Plan { drop_interval_ms: 60_000, ..Plan::PLAIN },
    play: |run| Box::pin(kill_two(run)),
    weigh: weigh_two,
    excused: &[],
    in_default: false,
    in_ci: false,
};

const SURVIVOR_SERVES: &str = "the survivor serves all shards";

async fn kill_two(run: &mut Run) {
    let mut nodes = [0, 1, 2];
    nodes.shuffle(&mut run.rng);
    let [first, second, _] = nodes;
    run.kill_node(first);
    sleep(Duration::from_secs(1)).await;
    run.kill_node(second);
    run.until_seen(SURVIVOR_SERVES, Run::is_served).await;
    run.is_well_again().await;
    run.start_node(first).await;
    run.start_node(second).await;
}

fn weigh_two(told: &Told<'_>, findings: &mut Findings) {
    let evidence = &told.evidence;
    let kills: Vec<_> = evidence
        .incidents
        .iter()
        .map(|incident| (named(&incident.what).unwrap_or_default(), incident.begun_us))
        .collect();
    let waited: Vec<u64> =
        kills.iter().flat_map(|(node, at_us)| waited_for_a_home(evidence.history, node, *at_us)).collect();
    findings.must("players of the dead nodes", count(waited.len()));
    findings.recovery("players are served elsewhere", waited);
    let last_us = kills.iter().map(|(_, at_us)| *at_us).max().unwrap_or(0);
    let took = told.ms_until(SURVIVOR_SERVES, last_us);
    findings.recovery(SURVIVOR_SERVES, took.into_iter().collect());
    let bound = told.settings.ttl_ms + 5_000;
    findings.at_most("all shards at the survivor", took.unwrap_or(u64::MAX), bound, "ms");
    weigh_losses(told, findings);
}

/// How long a home is stopped, told for a lease of 6 s, and how often for a part of its lease.
const STOP_MS: u64 = 60_000;
const SHORT_STOPS: u32 = 20;
/// The part of a lease that a home may always be stopped for: it was renewed a third of it ago, and a fifth of that.
const SHORT_STOP: f64 = 0.55;
/// The part of a lease after which others may have taken over, or may not.
const MIDDLING_STOP: f64 = 0.9;

pub(crate) const F3: Scenario = Scenario {
    name: "F3",
    title: "a home is stopped for 60 s and continued, and for parts of its lease",
    // A client notices that a home is silent only by its heartbeat.
    plan: Plan { settings: &[("link.heartbeat_ms", "1000")], ..Plan::PLAIN },
    play: |run| Box::pin(stop_a_home(run)),
    weigh: weigh_stops,
    excused: &[],
    in_default: false,
    in_ci: true,
};

async fn stop_a_home(run: &mut Run) {
    let node = run.rng.random_range(0..NAMES.len());
    let until = Instant::now() + Duration::from_millis(run.settings.scaled_ms(STOP_MS));
    let begun = run.stop_node(node);
    run.until_seen("the others serve all shards", Run::is_served).await;
    sleep_until(until.into()).await;
    run.continue_node(node, begun);
    let name = NAMES[node];
    run.until_seen("the node that was stopped serves again", |run| {
        run.is_served()
            && run.auditor.latest().get(name).is_some_and(|word| word.shards.iter().any(|s| s.serving))
    })
    .await;
    run.is_well_again().await;
    for part in [SHORT_STOP, MIDDLING_STOP] {
        for _ in 0..run.settings.times(SHORT_STOPS) {
            let node = run.rng.random_range(0..NAMES.len());
            let begun = run.stop_node(node);
            sleep(Duration::from_millis(run.settings.ttl_ms).mul_f64(part)).await;
            run.continue_node(node, begun);
            run.timeline.mark(format!("it was stopped for {part} of its lease"));
            run.until("all shards are served", Run::is_served).await;
            run.at_work().await;
        }
    }
}

fn weigh_stops(told: &Told<'_>, findings: &mut Findings) {
    let evidence = &told.evidence;
    let incidents = evidence.incidents;
    let Some((long, others)) = incidents.split_first() else { return };
    let (short, middling) = others.split_at(others.len() / 2);
    let taken = |from: usize, stops: usize| -> u64 {
        let since = |number: usize| incidents.get(number).map_or(u64::MAX, |incident| incident.begun_us);
        let counted = (from..from + stops)
            .map(|number| taken_between(evidence.audit, since(number), since(number + 1)));
        counted.sum()
    };
    findings.must("shards taken from a home that stood still", taken(0, 1));
    let waited = waited_for_a_home(evidence.history, named(&long.what).unwrap_or_default(), long.begun_us);
    findings.must("players of the home that stood still", count(waited.len()));
    findings.recovery("players are served elsewhere", waited);
    findings.must("short stops", count(short.len()));
    findings.at_most(
        &format!("shards taken in stops of {SHORT_STOP} of a lease"),
        taken(1, short.len()),
        0,
        "",
    );
    let of_middling = taken(1 + short.len(), middling.len());
    findings.exercised.insert(format!("shards taken in stops of {MIDDLING_STOP} of a lease"), of_middling);
    weigh_losses(told, findings);
}

/// How many shards were taken in this time, by nodes that were there before it.
pub(crate) fn taken_between(audit: &Audit, from_us: u64, to_us: u64) -> u64 {
    let mut spans: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (sample, word) in audit.nodes().filter(|(sample, _)| sample.at_us < to_us) {
        let taken = word.metric("hearth_shards_taken_total", "");
        let span = spans.entry(&word.boot).or_insert((taken, taken));
        if sample.at_us < from_us {
            span.0 = taken;
        }
        span.1 = taken;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let sum = spans.values().map(|(before, after)| after - before).sum::<f64>().max(0.0) as u64;
    sum
}

/// How long each player whose link stood at this node when it died had none, in ms.
pub(crate) fn waited_for_a_home(history: &History, node: &str, killed_us: u64) -> Vec<u64> {
    let mut waited = BTreeMap::new();
    for (process, log) in history.processes() {
        let mut here = None;
        for entry in log {
            match &entry.what {
                What::Notice { notice: Notice::Ready(opened) } if entry.at_us <= killed_us => {
                    here = opened.node.split('#').next();
                }
                What::Notice { notice: Notice::Ready(_) } if here == Some(node) => {
                    waited.entry(process).or_insert((entry.at_us - killed_us) / 1_000);
                }
                What::Notice { notice: Notice::Down { on_purpose: Some(_), .. } } => here = None,
                What::Notice { notice: Notice::Down { .. } } if entry.at_us <= killed_us => here = None,
                _ => {}
            }
        }
    }
    waited.into_values().collect()
}
