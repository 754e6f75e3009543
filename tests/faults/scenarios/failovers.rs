//! A master that sentinels replace, because it was killed or in order, with all homes alive and with one killed in the same
//! second: F10.

use std::time::Duration;

use hearth::rig::SentinelSet;
use load::checkers::losses;
use load::faults::findings::{Findings, count};
use load::history::{History, What};
use protocol::request::Ack;
use rand::Rng as _;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use crate::run::Run;
use crate::scenario::{Scenario, Told};
use crate::stage::{NAMES, Plan};
use crate::store::{Set, Shape};

const FAILOVERS: u32 = 5;
/// Commits that a master acknowledges and no replica has when it is killed.
const COMMITS_AHEAD: f64 = 100.0;
/// The sentinels may be busy with the failover before.
const ORDER_TAKEN_WITHIN: Duration = Duration::from_secs(60);
const FOLLOWS_WITHIN: Duration = Duration::from_secs(30);
const ORDER_AGAIN: Duration = Duration::from_millis(500);
const MASTER: &str = "the other is the master";
const HOME_DIES: &str = "with a home";

pub(crate) const F10: Scenario = Scenario {
    name: "F10",
    title: "sentinels replace a master that is killed, and one that is well; then each together with a home",
    plan: Plan { shape: Shape::Sentinel, ..Plan::PLAIN },
    play: |run| Box::pin(fail_over(run)),
    weigh: weigh_failovers,
    // What only a master and a home knew that died together is lost, and told (C3). What was durable before is held to in
    // `weigh`.
    excused: &["C2"],
    in_default: false,
    in_ci: true,
};

/// Why a master goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goes {
    Killed,
    InOrder,
}

async fn fail_over(run: &mut Run) {
    for goes in [Goes::Killed, Goes::InOrder] {
        for _ in 0..run.settings.times(FAILOVERS) {
            replace_master(run, goes, None).await;
            run.at_work().await;
        }
        run.is_well_again().await;
    }
    let first = run.rng.random_range(0..NAMES.len());
    for (number, goes) in [Goes::Killed, Goes::InOrder].into_iter().enumerate() {
        let home = (first + number) % NAMES.len();
        replace_master(run, goes, Some(home)).await;
        run.is_well_again().await;
        run.start_node(home).await;
    }
}

fn sentinels(run: &Run) -> &SentinelSet {
    match &run.stage.store.set {
        Set::Sentinel(set) => set,
        _ => panic!("the plan names sentinels"),
    }
}

fn is_master(run: &Run, place: usize) -> bool {
    block_in_place(|| sentinels(run).servers()[place].says(&["INFO", "replication"], "role:master"))
}

fn has_replica(run: &Run, place: usize) -> bool {
    block_in_place(|| sentinels(run).servers()[place].replicas_online() == 1)
}

/// The master goes, and one of the homes with it, if one is to; until another one is there, with the old one behind it.
async fn replace_master(run: &mut Run, goes: Goes, home: Option<usize>) {
    let master = usize::from(!is_master(run, 0));
    let replica = 1 - master;
    run.until("a replica that follows", |run| has_replica(run, master)).await;
    let with = home.map_or_else(String::new, |home| format!(" {HOME_DIES}, node {}", NAMES[home]));
    let begun = match goes {
        Goes::Killed => {
            gets_ahead_of_its_replica(run, master, replica).await;
            let begun = run.timeline.begin(format!("kill -9 of the master{with}"));
            block_in_place(|| sentinels(run).servers()[master].kill().unwrap());
            begun
        }
        Goes::InOrder => {
            let begun = run.timeline.begin(format!("failover of a healthy master{with}"));
            order_failover(run).await;
            run.until("it to be followed", |run| is_master(run, replica)).await;
            begun
        }
    };
    run.timeline.store_forgets(begun);
    if let Some(home) = home {
        run.kill_node(home);
    }
    if goes == Goes::Killed {
        block_in_place(|| sentinels(run).servers()[replica].go_on().unwrap());
        run.until_seen(MASTER, |run| is_master(run, replica)).await;
        block_in_place(|| run.stage.store.server_mut(master).start_again().unwrap());
    } else {
        run.until_seen(MASTER, |run| !is_master(run, master)).await;
    }
    run.timeline.heal(begun, "there is one master that can be written to");
    run.commits_again().await;
    old_master_follows(run, master, replica).await;
    run.until_seen("all shards are served", Run::is_served).await;
}

/// Sentinels see to it, as a rule within ten seconds; where they do not, an operator would.
async fn old_master_follows(run: &Run, old: usize, new: usize) {
    let patience = Instant::now() + FOLLOWS_WITHIN;
    while !has_replica(run, new) && Instant::now() < patience {
        sleep(ORDER_AGAIN).await;
    }
    if !has_replica(run, new) {
        run.timeline.mark("sentinels leave the old master alone: it is told whom to follow");
        block_in_place(|| {
            let servers = sentinels(run).servers();
            let port = servers[new].port().to_string();
            servers[old].query::<()>(&["REPLICAOF", "127.0.0.1", &port]).unwrap();
        });
    }
    run.until_seen("the old master follows", |run| has_replica(run, new)).await;
}

/// A master acknowledges writes that its replica, which is stopped, never gets.
async fn gets_ahead_of_its_replica(run: &Run, master: usize, replica: usize) {
    // What is on its way to a replica that is only stopped would still reach it.
    block_in_place(|| {
        let servers = sentinels(run).servers();
        servers[replica].pause().unwrap();
        servers[master].query::<u64>(&["CLIENT", "KILL", "TYPE", "replica"]).unwrap();
    });
    run.commits_more(COMMITS_AHEAD).await;
}

/// Sentinels refuse while they are busy, or do not know yet that the replica is well.
async fn order_failover(run: &Run) {
    let deadline = Instant::now() + ORDER_TAKEN_WITHIN;
    loop {
        let ordered =
            block_in_place(|| sentinels(run).sentinels()[0].query::<()>(&["SENTINEL", "FAILOVER", "hearth"]));
        match ordered {
            Ok(()) => return,
            Err(error) => assert!(Instant::now() < deadline, "no failover: {error}"),
        }
        sleep(ORDER_AGAIN).await;
    }
}

fn weigh_failovers(told: &Told<'_>, findings: &mut Findings) {
    let evidence = &told.evidence;
    let incidents = evidence.incidents;
    let of = |word: &str| incidents.iter().filter(|incident| incident.what.starts_with(word)).count();
    findings.must("masters killed", count(of("kill -9 of the master")));
    findings.must("masters replaced in order", count(of("failover of a healthy master")));
    let took = incidents.iter().filter_map(|incident| told.ms_until(MASTER, incident.begun_us));
    findings.recovery("the other is the master", took.collect());
    findings.recovery("nobody had a durable ack for, at most", vec![longest_outage_ms(evidence.history)]);
    findings.must("shards written anew", evidence.audit.growth("hearth_repairs_total", ""));
    // From then on a home has died, too.
    let double = incidents.iter().find(|incident| incident.what.contains(HOME_DIES));
    let double_us = double.map_or(u64::MAX, |incident| incident.begun_us);
    let lost = losses::of(evidence.history);
    let before = lost.iter().filter(|loss| loss.shown_us < double_us).count();
    findings.at_most("lost while all homes lived", count(before), 0, "changes");
    findings.must("changes lost with a master and a home", count(lost.len() - before));
    let untold = lost.iter().filter(|loss| !loss.told).count();
    findings.at_most("losses that were not told", count(untold), 0, "changes");
}

/// The longest time in which no bot had a `durable` write acknowledged.
fn longest_outage_ms(history: &History) -> u64 {
    let is_durable = |what: &What| matches!(what, What::Ok { ack: Some(Ack::Durable), dup: false, .. });
    let acked = history.logs.iter().flatten().filter(|entry| is_durable(&entry.what));
    let mut acked: Vec<u64> = acked.map(|entry| entry.at_us).collect();
    acked.sort_unstable();
    acked.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000).max().unwrap_or(0)
}
