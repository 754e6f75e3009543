//! A Redis Cluster of which a part fails: a master dies, a slot wanders to and fro, slots are nobody's for a while: F11. The
//! rest must not notice.

use std::time::Duration;

use hearth::rig::{ClusterSet, Server};
use load::audit::Incident;
use load::checkers::recovery::typical_p99_us;
use load::faults::findings::{Findings, count};
use load::history::History;
use rand::Rng as _;
use rand::seq::IteratorRandom as _;
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::harness::slots::{Move, told as times_told};
use crate::run::Run;
use crate::scenario::{Scenario, Told};
use crate::stage::{CLUSTER, NAMES, Plan, SHARDS};
use crate::store::{Set, Shape};

/// Commits that a master acknowledges and no replica has when it is killed.
const COMMITS_AHEAD: f64 = 100.0;
/// How often a slot goes there and back.
const WANDERS: u32 = 20;
/// Keys of it that go at a time, and commits between them: of its shard some find a part of their keys at each end.
const KEYS_AT_A_TIME: usize = 2;
const COMMITS_BETWEEN: f64 = 5.0;
/// How long slots are nobody's, told for a lease of 6 s.
const DOWN_MS: u64 = 20_000;
/// What other shards' p99 may grow by, and how much of it is nobody's fault at so few writes a window.
const GROWTH_PERCENT: u64 = 20;
const SLACK_US: u64 = 50_000;
const CODES: [&str; 4] = ["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"];
const NOTED: [&str; 4] = ["MOVED told", "ASK told", "TRYAGAIN told", "CLUSTERDOWN told"];
/// The shards of each incident's server or slot, by incident.
const HIT: [&str; 3] = ["shards of the dead master", "shard of the slot", "shards of the slots"];

pub(crate) const F11: Scenario = Scenario {
    name: "F11",
    title: "a master of a Redis Cluster is killed, a busy slot wanders to and fro, slots are nobody's for 20 s",
    plan: Plan { shape: Shape::Cluster, ..Plan::PLAIN },
    play: |run| Box::pin(fail_in_part(run)),
    weigh: weigh_parts,
    excused: &[],
    in_default: false,
    in_ci: true,
};

fn set(run: &Run) -> &ClusterSet {
    match &run.stage.store.set {
        Set::Cluster(set) => set,
        _ => panic!("the plan names a cluster"),
    }
}

/// The key of a shard's lease; all its keys share the slot.
fn meta(shard: u16) -> String {
    format!("{{{CLUSTER}.s{shard}}}:m")
}

/// The key of the members.
fn nodes_key() -> String {
    format!("{CLUSTER}:nodes")
}

/// The shards of which this server is the master.
fn shards_at(set: &ClusterSet, place: usize) -> Vec<u16> {
    block_in_place(|| (0..SHARDS).filter(|shard| set.holder_of(&meta(*shard)) == Some(place)).collect())
}

async fn fail_in_part(run: &mut Run) {
    let before = CODES.map(|code| block_in_place(|| times_told(set(run), code)));
    kill_a_master(run).await;
    run.is_well_again().await;
    wander(run).await;
    run.is_well_again().await;
    take_slots_away(run).await;
    for ((code, name), before) in CODES.into_iter().zip(NOTED).zip(before) {
        // A server that was started again counts from zero.
        let told = block_in_place(|| times_told(set(run), code)).saturating_sub(before);
        run.note(name, told);
    }
}

async fn kill_a_master(run: &mut Run) {
    let shard = run.rng.random_range(0..SHARDS);
    let dead = block_in_place(|| set(run).holder_of(&meta(shard))).expect("a master");
    // Replicas stand in the order of their masters.
    let replica = dead + 3;
    for shard in shards_at(set(run), dead) {
        run.note(HIT[0], shard.into());
    }
    block_in_place(|| {
        let nodes = set(run).nodes();
        nodes[replica].pause().unwrap();
        nodes[dead].query::<u64>(&["CLIENT", "KILL", "TYPE", "replica"]).unwrap();
    });
    run.commits_more(COMMITS_AHEAD).await;
    let begun = run.timeline.begin("kill -9 of a master of three");
    run.timeline.store_forgets(begun);
    block_in_place(|| {
        let nodes = set(run).nodes();
        nodes[dead].kill().unwrap();
        nodes[replica].go_on().unwrap();
    });
    run.until_seen("its replica is the master", |run| {
        block_in_place(|| set(run).holder_of(&meta(shard))) == Some(replica)
    })
    .await;
    run.until_seen("shards are written anew", |run| run.auditor.sum("hearth_repairs_total", "") > 0.0).await;
    block_in_place(|| run.stage.store.server_mut(dead).start_again().unwrap());
    run.until_seen("the old master follows", |run| {
        block_in_place(|| set(run).nodes()[replica].replicas_online() == 1)
    })
    .await;
    run.timeline.heal(begun, "all of the cluster is there");
}

/// The slot of the shard with the most players goes from its master to another and back.
async fn wander(run: &mut Run) {
    let players = |shard: u16| run.shards().iter().filter(|of_player| **of_player == shard).count();
    let busy = (0..SHARDS).max_by_key(|shard| players(*shard)).expect("shards");
    run.note(HIT[1], busy.into());
    let home = block_in_place(|| set(run).holder_of(&meta(busy))).expect("a master");
    let masters: Vec<usize> = block_in_place(|| {
        let is_master = |node: &Server| node.says(&["INFO", "replication"], "role:master");
        set(run).nodes().iter().enumerate().filter(|(_, node)| is_master(node)).map(|(at, _)| at).collect()
    });
    let away = masters.into_iter().filter(|place| *place != home).choose(&mut run.rng).expect("others");
    let begun = run.timeline.begin("a busy slot wanders to and fro");
    for _ in 0..run.settings.times(WANDERS) {
        for (from, to) in [(home, away), (away, home)] {
            let moving = block_in_place(|| Move::begin(set(run), from, to, &meta(busy)));
            while block_in_place(|| moving.some_keys(KEYS_AT_A_TIME)) > 0 {
                run.commits_more(COMMITS_BETWEEN).await;
            }
            block_in_place(|| moving.end());
        }
    }
    run.timeline.heal(begun, "the slot stays");
}

/// The slots of one master's shards, and that of the members' key, are taken out of the cluster.
async fn take_slots_away(run: &mut Run) {
    let holder = block_in_place(|| set(run).holder_of(&nodes_key())).expect("the holder of the members' key");
    let shards = shards_at(set(run), holder);
    for shard in &shards {
        run.note(HIT[2], (*shard).into());
    }
    let keys: Vec<String> = shards.iter().map(|shard| meta(*shard)).chain([nodes_key()]).collect();
    let slots: Vec<String> = block_in_place(|| {
        let node = &set(run).nodes()[holder];
        let slot = |key: &String| node.query::<u64>(&["CLUSTER", "KEYSLOT", key]).unwrap().to_string();
        keys.iter().map(slot).collect()
    });
    let command = |verb: &'static str, slot: &str| ["CLUSTER".to_owned(), verb.to_owned(), slot.to_owned()];
    let begun = run.timeline.begin("slots of a master are nobody's, the members' key among them");
    block_in_place(|| {
        let nodes = set(run).nodes();
        // First of all its own: what it claims others believe.
        for node in [&nodes[holder]].into_iter().chain(nodes) {
            for slot in &slots {
                // Who does not know of it has none to give up.
                let _ = node.query::<()>(&command("DELSLOTS", slot).each_ref().map(String::as_str));
            }
        }
    });
    let is_down = |run: &Run, shard: u16| block_in_place(|| set(run).holder_of(&meta(shard))).is_none();
    run.until_seen("CLUSTERDOWN", |run| shards.iter().all(|shard| is_down(run, *shard))).await;
    sleep(Duration::from_millis(run.settings.scaled_ms(DOWN_MS))).await;
    let members = run.auditor.latest().values().map(|word| word.metric("hearth_members", "")).sum::<f64>();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of nodes")]
    run.note("members known", members as u64);
    block_in_place(|| {
        let node = &set(run).nodes()[holder];
        for slot in &slots {
            node.query::<()>(&command("ADDSLOTS", slot).each_ref().map(String::as_str)).unwrap();
        }
    });
    run.timeline.heal(begun, "the slots are the master's again");
    run.commits_again().await;
}

fn weigh_parts(told: &Told<'_>, findings: &mut Findings) {
    let evidence = &told.evidence;
    for name in NOTED {
        findings.must(name, told.noted(name).iter().sum());
    }
    let [killed, wandered, down] = evidence.incidents else {
        findings.vacuous.push("not all three parts were played".to_owned());
        return;
    };
    let quiet_us = killed.begun_us;
    for (incident, hit) in [killed, wandered, down].into_iter().zip(HIT) {
        others_go_on(told, findings, (quiet_us, incident), hit);
    }
    let repairs = |incident: &Incident| {
        let grown =
            evidence.audit.growth_between("hearth_repairs_total", "", incident.begun_us, incident.healed_us);
        grown.values().sum::<u64>()
    };
    findings.must("shards written anew after the kill", repairs(killed));
    findings.at_most("shards written anew while a slot wandered", repairs(wandered), 0, "");
    let opened = evidence.audit.growth_between(
        "hearth_store_breaker_turns_total",
        "state=\"open\"",
        wandered.begun_us,
        wandered.healed_us,
    );
    findings.at_most("breakers opened while a slot wandered", opened.values().sum(), 0, "");
    let known: u64 = told.noted("members known").iter().sum();
    let all = count(NAMES.len() * NAMES.len());
    findings.holds("members known without their key", known == all, known.to_string(), format!("all {all}"));
    let taken = crate::nodes::taken_between(evidence.audit, down.begun_us, down.healed_us);
    findings.at_most("shards taken while slots were nobody's", taken, 0, "");
    let took = told.ms_until("its replica is the master", killed.begun_us);
    findings.recovery("its replica is the master", took.into_iter().collect());
    crate::store_faults::drained(told, findings);
    findings.at_most("lost", findings.lost, 0, "changes");
    findings.at_most("rollback notices", told.load.figures.count("rollback_notices"), 0, "");
}

/// How quick writes to other shards were, beside what they were before anything was done; as C12 does, more is allowed where
/// more threads of others want to run.
fn others_go_on(
    told: &Told<'_>,
    findings: &mut Findings,
    (quiet_us, incident): (u64, &Incident),
    hit: &'static str,
) {
    let evidence = &told.evidence;
    let hits = told.noted(hit);
    findings.must(hit, count(hits.len()));
    let is_other = |shard: &u16| !hits.contains(&u64::from(*shard));
    let logs = evidence.history.logs.iter().zip(evidence.shards);
    let logs = logs.filter(|(_, shard)| is_other(shard)).map(|(log, _)| log.clone()).collect();
    let others = History { logs };
    let before = typical_p99_us(&others, 0, quiet_us);
    let during = typical_p99_us(&others, incident.begun_us, incident.healed_us);
    let (Some(before), Some(during)) = (before, during) else {
        findings.vacuous.push(format!("too few writes to other shards ({})", incident.what));
        return;
    };
    let audit = evidence.audit;
    let busier = audit.busier(0..quiet_us, incident.begun_us..incident.healed_us);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a bound in microseconds"
    )]
    let most = ((before * (100 + GROWTH_PERCENT) / 100 + SLACK_US) as f64 * busier) as u64;
    let ms = |us: u64| us / 1_000;
    findings.holds(
        &format!("p99 of other shards ({})", incident.what),
        during <= most,
        format!("{} ms, {} ms before, on a machine {busier:.1} times as busy", ms(during), ms(before)),
        format!("≤ {} ms", ms(most)),
    );
}
