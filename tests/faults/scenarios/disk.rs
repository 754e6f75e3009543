//! One node on the embedded store, on a disk that is full, does not sync, and is torn off in the middle of a write: F19.

use std::time::Duration;

use load::checkers::losses;
use load::faults::findings::{Findings, count};
use rand::Rng as _;
use serde_json::json;
use tokio::time::sleep;

use crate::failing_disk::{FailingDisk, Fault};
use crate::harness::player::Player;
use crate::harness::socket::Encoding;
use crate::probe::Probe;
use crate::run::Run;
use crate::scenario::{Scenario, Told};
use crate::stage::Plan;
use crate::store::{Set, Shape};

/// How often the process dies in the middle of a write, and at any moment.
const KILLS: u32 = 20;
/// Writes of the disk before the torn one: some commits' worth.
const WRITES_MAX: u32 = 400;
/// Up to so long after the bots are at work the process is killed.
const MOMENT_MS: u64 = 1_000;
/// How long the disk fails, told for a lease of 6 s.
const LASTS_MS: u64 = 6_000;

pub(crate) const F19: Scenario = Scenario {
    name: "F19",
    title: "the disk under the embedded store is full, does not sync, and is torn off in mid-write",
    plan: Plan { shape: Shape::Embedded, ..Plan::PLAIN },
    play: |run| Box::pin(hurt_the_disk(run)),
    weigh: weigh_disk,
    excused: &[],
    in_default: false,
    in_ci: false,
};

async fn hurt_the_disk(run: &mut Run) {
    let mut gold = 0;
    let mut ann = Player::connect(run.stage.nodes[0].server().url(), Encoding::Json).await;
    ann.login("a-witness").await;
    for (fault, what) in [(Fault::Full, "the disk is full"), (Fault::NoSync, "the disk does not sync")] {
        gold += 1;
        fail_for_a_while(run, &mut ann, fault, what, gold).await;
        run.is_well_again().await;
    }
    let credentials = ann.drops();
    let mut torn = 0;
    for kill in 0..2 * run.settings.times(KILLS) {
        if kill % 2 == 0 {
            let fault = Fault::Torn(run.rng.random_range(0..WRITES_MAX));
            let begun = run.timeline.begin("node a dies in the middle of a write");
            disk(run).fails(fault);
            let exit = run.node_ends(0, begun).await;
            assert_eq!(exit.code, None, "it was not killed");
            disk(run).heals(fault);
            torn += 1;
        } else {
            let moment = run.rng.random_range(0..MOMENT_MS);
            sleep(Duration::from_millis(moment)).await;
            run.kill_node(0);
        }
        run.start_node(0).await;
        run.at_work().await;
    }
    // What she was told to be durable before all of that.
    let mut ann = Player::connect(run.stage.nodes[0].server().url(), Encoding::Json).await;
    ann.resume(&credentials).await;
    let state = ann.state().await;
    let findings = &mut run.findings;
    findings.must("writes that were torn", torn);
    findings.holds(
        "what was durable is there after all kills",
        state == json!({ "gold": gold }) && !ann.was_told("rolled_back"),
        state.to_string(),
        format!("{gold} gold"),
    );
}

/// `durable` is refused and remembered, readiness says why, state is served from memory; and all is stored once it is over.
async fn fail_for_a_while(run: &mut Run, ann: &mut Player, fault: Fault, what: &str, gold: u64) {
    let probe = Probe::of(run.stage.nodes[0].server()).await;
    let begun = run.timeline.begin(what);
    disk(run).fails(fault);
    let change = json!({"incr": {"gold": 1}, "ack": "durable", "cseq": gold});
    let refused = ann.ask("state.patch", change.clone()).await;
    let (unready_ms, why) = probe.until(false).await;
    run.timeline.mark(format!("it is not ready: {why}"));
    sleep(Duration::from_millis(run.settings.scaled_ms(LASTS_MS))).await;
    let served = ann.state().await;
    let is_still_unready = probe.ask().await.is_some_and(|(is_ready, _)| !is_ready);
    disk(run).heals(fault);
    run.timeline.heal(begun, format!("no longer: {what}"));
    let again = ann.until_durable(change).await;
    let (ready_ms, _) = probe.until(true).await;
    run.timeline.mark("it is ready again");
    let findings = &mut run.findings;
    let code = refused.as_ref().map_or_else(|refused| refused["code"].to_string(), ToString::to_string);
    let is_refused = refused.is_err_and(|why| why["code"] == "store_unavailable" && why["applied"] == true);
    findings.holds(&format!("`durable` is refused ({what})"), is_refused, code, "store_unavailable, applied");
    let is_served = served == json!({ "gold": gold });
    findings.holds(&format!("state is kept ({what})"), is_served, served.to_string(), format!("{gold} gold"));
    findings.holds(&format!("not ready to the end ({what})"), is_still_unready, why, "not ready");
    findings.holds(&format!("stored then, once ({what})"), again["dup"] == true, again.to_string(), "dup");
    findings.recovery(&format!("not ready ({what})"), vec![unready_ms]);
    findings.recovery(&format!("ready again ({what})"), vec![ready_ms]);
}

fn disk(run: &Run) -> &FailingDisk {
    match &run.stage.store.set {
        Set::Embedded(disk) => disk,
        Set::Standalone(_) | Set::Sentinel(_) | Set::Cluster(_) => {
            panic!("the plan wants the embedded store")
        }
    }
}

fn weigh_disk(told: &Told<'_>, findings: &mut Findings) {
    findings.must("durable acks", told.load.figures.count("durable_acks"));
    let losses = losses::of(told.evidence.history);
    let untold = losses.iter().filter(|loss| !loss.told).count();
    findings.at_most("losses that were not told", count(untold), 0, "changes");
    let deaths = told.evidence.incidents.iter().filter(|incident| incident.what.contains("node a"));
    findings.must("deaths of the process", count(deaths.count()));
}
