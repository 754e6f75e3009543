//! Redis that dies, comes back as it was or empty, or only stands still: F6 and F7.

use std::collections::BTreeMap;
use std::time::Duration;

use load::audit::Incident;
use load::checkers::backlog;
use load::faults::findings::{Findings, count};
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::run::Run;
use crate::scenario::{Scenario, Told};
use crate::stage::Plan;

/// How long Redis is stopped, told for a lease of 6 s.
const STOPS_MS: [u64; 2] = [5_000, 30_000];
/// How long a killed Redis is away, told for a lease of 6 s.
const AWAY_MS: u64 = 1_500;
/// The breaker opens so soon.
const OPEN_WITHIN_MS: u64 = 1_500;
/// How far apart the auditor's looks begin.
const LOOK_INTERVAL_MS: u64 = 200;
/// What has waited is written so soon.
const DRAINED_WITHIN_MS: u64 = 10_000;
/// The value of a breaker's state that is half open, or open: either way it has opened.
const OPEN: f64 = 2.0;

pub(crate) const F6: Scenario = Scenario {
    name: "F6",
    title: "Redis is killed and started again, with its log and then empty",
    plan: Plan::PLAIN,
    play: |run| Box::pin(kill_redis_twice(run)),
    weigh: weigh_killed,
    excused: &[],
    in_default: true,
    in_ci: false,
};

pub(crate) const F7: Scenario = Scenario {
    name: "F7",
    title: "Redis is stopped for 5 s and for 30 s",
    plan: Plan::PLAIN,
    play: |run| Box::pin(stop_redis_twice(run)),
    weigh: weigh_stopped,
    excused: &[],
    in_default: true,
    in_ci: false,
};

async fn kill_redis_twice(run: &mut Run) {
    for empties in [false, true] {
        kill_redis(run, empties).await;
        run.is_well_again().await;
    }
}

/// `kill -9`, and a start again on its log, or on nothing.
pub(crate) async fn kill_redis(run: &mut Run, empties: bool) {
    let begun = run.timeline.begin("kill -9 of Redis");
    if empties {
        run.timeline.store_forgets(begun);
    }
    block_in_place(|| run.stage.store.servers()[0].kill().unwrap());
    sleep(Duration::from_millis(run.settings.scaled_ms(AWAY_MS))).await;
    if empties {
        run.stage.store.empty(0);
    }
    block_in_place(|| run.stage.store.server_mut(0).start_again().unwrap());
    run.timeline.heal(begun, if empties { "Redis is there again, empty" } else { "Redis is there again" });
    run.commits_again().await;
    if empties {
        let anew = "shards are written anew";
        run.until_seen(anew, |run| run.auditor.sum("hearth_repairs_total", "") > 0.0).await;
    }
}

fn weigh_killed(told: &Told<'_>, findings: &mut Findings) {
    let audit = told.evidence.audit;
    let [with_log, empty] = told.evidence.incidents else {
        findings.vacuous.push("Redis was not killed twice".to_owned());
        return;
    };
    findings.must("shards written anew", audit.growth("hearth_repairs_total", ""));
    drained(told, findings);
    findings.at_most("rollback notices", told.load.figures.count("rollback_notices"), 0, "");
    // What shards stood under before, and whether any was written to under that in the empty store.
    let before = audit.stores().filter(|(sample, _)| sample.at_us < empty.begun_us).last();
    let epochs: BTreeMap<u16, u64> = before
        .map(|(_, word)| word.metas.iter().map(|meta| (meta.shard, meta.epoch)).collect())
        .unwrap_or_default();
    let after = || audit.stores().filter(|(sample, _)| sample.since_us > empty.healed_us);
    let old =
        after().flat_map(|(_, word)| &word.metas).filter(|meta| epochs.get(&meta.shard) >= Some(&meta.epoch));
    findings.at_most("looks at shards under their old epoch in the empty store", count(old.count()), 0, "");
    let players = count(told.evidence.shards.len());
    let records = after().last().map_or(0, |(_, word)| count(word.records.len()));
    findings.holds("hot records restored", records >= players, records.to_string(), format!("all {players}"));
    let restored = after().find(|(_, word)| count(word.records.len()) >= players);
    let restored = restored.map(|(sample, _)| (sample.at_us - empty.healed_us) / 1_000);
    findings.recovery("all hot records restored", restored.into_iter().collect());
    let felt = audit.samples.iter().any(|sample| {
        matches!(sample.seen, load::audit::Seen::Silent { .. }) && within(with_log, sample.at_us)
    });
    findings.must("looks that found no Redis", u64::from(felt));
}

pub(crate) fn within(incident: &Incident, at_us: u64) -> bool {
    (incident.begun_us..=incident.healed_us).contains(&at_us)
}

async fn stop_redis_twice(run: &mut Run) {
    for stop_ms in STOPS_MS {
        // However short the lease: the breakers have their time, and then it lasts.
        let stop_ms = run.settings.scaled_ms(stop_ms).max(2 * OPEN_WITHIN_MS);
        stop_redis(run, Duration::from_millis(stop_ms)).await;
        run.is_well_again().await;
    }
}

/// Stops the process for so long, and lets it go on.
pub(crate) async fn stop_redis(run: &mut Run, stop: Duration) {
    let begun = run.timeline.begin(format!("Redis is stopped for {:.1} s", stop.as_secs_f64()));
    block_in_place(|| run.stage.store.servers()[0].pause().unwrap());
    sleep(stop).await;
    block_in_place(|| run.stage.store.servers()[0].go_on().unwrap());
    run.timeline.heal(begun, "Redis goes on");
    run.commits_again().await;
}

fn weigh_stopped(told: &Told<'_>, findings: &mut Findings) {
    let audit = told.evidence.audit;
    drained(told, findings);
    for incident in told.evidence.incidents {
        let mut opened: BTreeMap<&str, u64> = BTreeMap::new();
        for (sample, word) in audit.nodes().filter(|(sample, _)| within(incident, sample.at_us)) {
            if word.metric("hearth_store_breaker_state", "") >= OPEN {
                opened.entry(&word.node).or_insert((sample.at_us - incident.begun_us) / 1_000);
            }
        }
        let opened =
            findings.recovery(&format!("breakers open ({})", incident.what), opened.into_values().collect());
        let all = count(opened.took_ms.len()) == 3;
        let slowest = opened.quantile_ms(100);
        let found =
            if all { format!("{slowest} ms") } else { format!("{} of 3 nodes", opened.took_ms.len()) };
        // One that opens just after a look is seen open by the next.
        let bound = OPEN_WITHIN_MS + LOOK_INTERVAL_MS;
        let holds = all && slowest <= bound;
        findings.holds("all breakers seen open", holds, found, format!("≤ {bound} ms"));
    }
    findings.must("provisional acks", told.load.figures.count("provisional_acks"));
    let without_answer = audit.growth("hearth_commits_total", "\"unknown\"");
    findings.must("commits without an answer", without_answer);
    findings.at_most("rollback notices", told.load.figures.count("rollback_notices"), 0, "");
}

/// How long the backlog took to be gone after each fault.
pub(crate) fn drained(told: &Told<'_>, findings: &mut Findings) {
    let took = |incident| backlog::drained_after_us(told.evidence.audit, incident).map(|us| us / 1_000);
    let took: Vec<Option<u64>> = told.evidence.incidents.iter().map(took).collect();
    let never = took.iter().filter(|took| took.is_none()).count();
    let recovery = findings.recovery("the backlog is drained", took.into_iter().flatten().collect());
    findings.at_most("backlogs that were never drained", count(never), 0, "");
    findings.within("drained", &recovery, 100, DRAINED_WITHIN_MS);
}
