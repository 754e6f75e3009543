//! Nodes that are asked to stop: one after the other under load (F4), and while Redis is down (F5).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use load::checkers::losses;
use load::faults::findings::{Findings, count};
use load::history::{History, Notice, What};
use rand::Rng as _;
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::run::Run;
use crate::scenario::{Scenario, Told};
use crate::stage::{NAMES, Plan};
use crate::store::Returns;

const ROUNDS: u32 = 3;
/// How long a player may be without a session on a link while her home moves.
const PAUSE_MS: u64 = 500;
/// A node that is asked to stop has ended so soon.
const EXIT_MS: u64 = 10_000;
/// How long Redis is away in the middle of a drain: less than `cluster.drain_ms`.
const AWAY_MS: u64 = 1_500;
/// `hearth` ends with this where its store takes nothing.
const EXIT_UNAVAILABLE: i32 = 69;

pub(crate) const F4: Scenario = Scenario {
    name: "F4",
    title: "rolling restart of all nodes in order, under load",
    // Whoever is away of her own will does not show how long she had to wait.
    plan: Plan { drop_interval_ms: 60_000, ..Plan::PLAIN },
    play: |run| Box::pin(roll(run)),
    weigh: weigh_roll,
    excused: &[],
    in_default: false,
    in_ci: true,
};

pub(crate) const F5: Scenario = Scenario {
    name: "F5",
    title: "a node is asked to stop while Redis is down",
    plan: Plan::PLAIN,
    play: |run| Box::pin(drain_without_redis(run)),
    weigh: weigh_drain_without_redis,
    excused: &[],
    in_default: false,
    in_ci: false,
};

async fn roll(run: &mut Run) {
    for _ in 0..run.settings.times(ROUNDS) {
        for node in 0..NAMES.len() {
            run.drain_node(node).await;
            run.until_seen("the others serve all shards", Run::is_served).await;
            run.start_node(node).await;
            run.at_work().await;
        }
    }
}

fn weigh_roll(told: &Told<'_>, findings: &mut Findings) {
    let players = count(told.evidence.shards.len());
    let figures = &told.load.figures;
    findings.must("moves told", figures.count("moves"));
    findings.must("resumes elsewhere", figures.count("resumes_elsewhere"));
    let pauses = findings.recovery("players had no link", pauses_ms(told.evidence.history));
    // A short run has some hundred pauses, of which the second longest would decide, on whatever machine.
    let (what, percent) = if told.settings.is_short { ("pause, p95", 95) } else { ("pause, p99", 99) };
    findings.within(what, &pauses, percent, PAUSE_MS);
    let exits = findings.recovery("nodes end", told.exits.iter().map(|exit| exit.took_ms).collect());
    findings.within("exit", &exits, 100, EXIT_MS);
    let failed = told.exits.iter().filter(|exit| exit.code != Some(0)).count();
    findings.at_most("exit codes that are not 0", count(failed), 0, "");
    findings.at_most("lost", findings.lost, 0, "changes");
    findings.at_most("rollback notices", figures.count("rollback_notices"), 0, "");
    findings.at_most("sessions that did not survive", figures.count("logins").saturating_sub(players), 0, "");
}

/// How long players had no session on a link, each time that they did not mean it.
fn pauses_ms(history: &History) -> Vec<u64> {
    let mut pauses = Vec::new();
    for (_, log) in history.processes() {
        let mut since = None;
        for entry in log {
            match &entry.what {
                What::Notice { notice: Notice::Down { on_purpose: None, .. } } => since = Some(entry.at_us),
                What::Notice { notice: Notice::Ready(_) } => {
                    pauses.extend(since.take().map(|since| (entry.at_us - since) / 1_000));
                }
                _ => {}
            }
        }
    }
    pauses
}

async fn drain_without_redis(run: &mut Run) {
    let node = run.rng.random_range(0..NAMES.len());
    // Gone until long after: the node has nobody to give its changes to.
    let begun = run.timeline.begin("kill -9 of Redis");
    block_in_place(|| run.stage.store.servers()[0].kill().unwrap());
    sleep(Duration::from_millis(run.settings.ttl_ms / 4)).await;
    run.drain_node(node).await;
    block_in_place(|| run.stage.store.server_mut(0).start_again().unwrap());
    run.timeline.heal(begun, "Redis is there again");
    run.until_seen("the others serve all shards", Run::is_served).await;
    run.start_node(node).await;
    run.is_well_again().await;
    // Away for a moment: the drain waits for it.
    let node = (node + 1) % NAMES.len();
    let held: BTreeSet<u16> = run
        .auditor
        .latest()
        .get(NAMES[node])
        .map(|word| word.shards.iter().map(|shard| shard.shard).collect())
        .unwrap_or_default();
    let port = run.stage.store.servers()[0].port();
    let returns = block_in_place(|| Returns::heard_from(port)).unwrap();
    let begun = run.timeline.begin("Redis is stopped for a moment");
    block_in_place(|| run.stage.store.servers()[0].pause().unwrap());
    let redis_pid = run.stage.store.servers()[0].pid().to_owned();
    let timeline = std::sync::Arc::clone(&run.timeline);
    let mut going_on = tokio::task::JoinSet::new();
    going_on.spawn(async move {
        sleep(Duration::from_millis(AWAY_MS)).await;
        let status = std::process::Command::new("kill").args(["-s", "CONT", &redis_pid]).status();
        assert!(status.is_ok_and(|status| status.success()), "Redis goes on");
        timeline.heal(begun, "Redis goes on");
    });
    run.drain_node(node).await;
    going_on.join_all().await;
    let given = block_in_place(|| returns.shards());
    run.findings.must("shards of the node that waited for Redis", count(held.len()));
    run.findings.must("of them given back by it", count(given.intersection(&held).count()));
    run.until_seen("the others serve all shards", Run::is_served).await;
    run.start_node(node).await;
}

fn weigh_drain_without_redis(told: &Told<'_>, findings: &mut Findings) {
    let [without, meanwhile] = told.exits else {
        findings.vacuous.push("not both nodes have ended".to_owned());
        return;
    };
    let codes = |exit: &crate::run::Exit| format!("exit code {:?} after {} ms", exit.code, exit.took_ms);
    let is_told = matches!(without.code, Some(0 | EXIT_UNAVAILABLE));
    findings.holds("without Redis it ends in order", is_told, codes(without), "0 or 69");
    findings.holds("with Redis back in time it hands over", meanwhile.code == Some(0), codes(meanwhile), "0");
    let losses = losses::of(told.evidence.history);
    let untold = losses.iter().filter(|loss| !loss.told).count();
    findings.at_most("losses that were not told", count(untold), 0, "changes");
    let second = losses.iter().filter(|loss| loss.shown_us > meanwhile.asked_us).count();
    findings.at_most("lost by the drain that waited", count(second), 0, "changes");
    // A shard that was given back has no holder, under the epoch that its last one had. One with changes that no commit
    // took must run out instead.
    let looks = || told.evidence.audit.stores();
    let before = looks().filter(|(sample, _)| sample.at_us < without.asked_us).last();
    let held: BTreeMap<u16, u64> = before
        .map(|(_, word)| word.metas.iter().map(|meta| (meta.shard, meta.epoch)).collect())
        .unwrap_or_default();
    let given: BTreeSet<u16> = looks()
        .filter(|(sample, _)| sample.since_us >= without.asked_us)
        .flat_map(|(_, word)| &word.metas)
        .filter(|meta| meta.holder.is_empty() && held.get(&meta.shard) == Some(&meta.epoch))
        .map(|meta| meta.shard)
        .collect();
    let is_of_given = |loss: &&losses::Loss| {
        let place = usize::try_from(loss.process).unwrap_or(usize::MAX);
        told.evidence.shards.get(place).is_some_and(|shard| given.contains(shard))
    };
    let dirty = count(losses.iter().filter(is_of_given).count());
    findings.at_most("lost changes of shards that were given back", dirty, 0, "");
    findings.must("provisional acks", told.load.figures.count("provisional_acks"));
}
