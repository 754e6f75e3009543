//! Nodes that are killed: F1.

use std::collections::BTreeMap;

use load::checkers::losses;
use load::history::{History, Notice, What};
use rand::Rng as _;

use crate::findings::{Findings, count};
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
    let dead = evidence.incidents[0].what.rsplit(' ').next().unwrap_or_default();
    let waited = waited_for_a_home(evidence.history, dead, killed_us);
    findings.must("players of the dead node", count(waited.len()));
    findings.must("resumes elsewhere", told.load.figures.count("resumes_elsewhere"));
    let back = findings.recovery("players are served elsewhere", waited);
    findings.at_most("take-over, p99", back.quantile_ms(99), told.settings.ttl_ms + 2_000, "ms");
    weigh_losses(told, findings, &[killed_us]);
}

/// Every loss was told, and is young: acked less than 250 ms before a kill.
fn weigh_losses(told: &Told<'_>, findings: &mut Findings, kills_us: &[u64]) {
    let losses = losses::of(told.evidence.history);
    let age_us = |acked_us: u64| {
        let before = kills_us.iter().filter(|killed| acked_us <= **killed);
        before.map(|killed| killed - acked_us).min().unwrap_or(0)
    };
    let oldest = losses.iter().map(|loss| age_us(loss.acked_us)).max().unwrap_or(0);
    findings.at_most("the oldest lost ack before the kill", oldest / 1_000, LOSS_WINDOW_MS, "ms");
    let untold = losses.iter().filter(|loss| !loss.told).count();
    findings.at_most("losses that were not told", count(untold), 0, "changes");
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
