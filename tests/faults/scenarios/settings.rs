//! A Redis that is full, that evicts, that forgets its scripts, and that forgets everything, while it runs: F12.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use load::audit::Incident;
use load::faults::findings::{Findings, count};
use load::history::{Notice, What};
use protocol::ErrorCode;
use serde_json::{Value, json};
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use crate::harness::service::Service;
use crate::harness::socket::{Encoding, Heard, Line, Socket};
use crate::run::Run;
use crate::scenario::{Scenario, Told};
use crate::stage::{KEY, Plan};
use crate::store_faults::within;

/// How long Redis is full, and how long its scripts are flushed; told for a lease of 6 s.
const FULL_MS: u64 = 20_000;
const FLUSHING_MS: u64 = 10_000;
const FLUSH_EVERY: Duration = Duration::from_millis(200);
/// Between two strangers who try to log in.
const STRANGER_EVERY: Duration = Duration::from_millis(250);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Keys that are evicted, at least, and how long that may take.
const EVICTED_MIN: u64 = 10;
const EVICTED_WITHIN: Duration = Duration::from_secs(30);
/// So much less than is used may be used while keys are evicted.
const EVICTED_BYTES: u64 = 40_000;
/// Nodes look at Redis's settings every ten seconds.
const NOTICED_WITHIN_MS: u64 = 15_000;
const LOOK_EVERY: Duration = Duration::from_millis(200);
const NOTICE_PATIENCE: Duration = Duration::from_secs(60);
const NOTICED: &str = "the policy is told in readiness";
const POLICY: &str = "maxmemory-policy";

pub(crate) const F12: Scenario = Scenario {
    name: "F12",
    title: "Redis is full, evicts, forgets its scripts, forgets everything",
    plan: Plan::PLAIN,
    play: |run| Box::pin(change_settings(run)),
    weigh: weigh_settings,
    excused: &[],
    in_default: false,
    in_ci: true,
};

async fn change_settings(run: &mut Run) {
    fill(run).await;
    run.is_well_again().await;
    evict(run).await;
    run.is_well_again().await;
    forget_scripts(run).await;
    run.is_well_again().await;
    let begun = run.timeline.strike("FLUSHALL");
    run.timeline.store_forgets(begun);
    tell_redis(run, &["FLUSHALL"]);
    run.commits_again().await;
}

fn tell_redis(run: &Run, words: &[&str]) {
    block_in_place(|| run.stage.store.servers()[0].query::<()>(words).unwrap());
}

fn configure(run: &Run, setting: &str, value: &str) {
    tell_redis(run, &["CONFIG", "SET", setting, value]);
}

/// A number of `INFO`.
fn number(run: &Run, name: &str) -> u64 {
    let info = block_in_place(|| run.stage.store.servers()[0].query::<String>(&["INFO"]).unwrap());
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|number| number.trim().parse().ok()).expect("a number")
}

async fn fill(run: &mut Run) {
    let begun = run.timeline.begin("Redis is full");
    configure(run, "maxmemory", "1");
    run.until_seen("what is acked is provisional", |run| {
        run.auditor.sum("hearth_shards_held_back", "") > 0.0
    })
    .await;
    let until = Instant::now() + Duration::from_millis(run.settings.scaled_ms(FULL_MS));
    let mut number = 0;
    while Instant::now() < until {
        let answer = log_in(run, number).await;
        number += 1;
        let is_temporary = answer["code"] == "store_unavailable" && answer["temporary"] == true;
        match (answer["session"].is_string(), is_temporary) {
            (true, _) => run.note("strangers let in", 1),
            (_, true) => run.note("strangers refused for now", 1),
            _ => {
                run.timeline.mark(format!("a stranger was told {answer}"));
                run.note("strangers told otherwise", 1);
            }
        }
        sleep(STRANGER_EVERY).await;
    }
    configure(run, "maxmemory", "0");
    run.timeline.heal(begun, "Redis has room");
    run.commits_again().await;
    let deadline = Instant::now() + NOTICE_PATIENCE;
    while !log_in(run, number).await["session"].is_string() {
        assert!(Instant::now() < deadline, "nobody new is let in");
        sleep(STRANGER_EVERY).await;
    }
    run.timeline.mark("a stranger is let in");
}

/// A login of somebody new, at one node after the other; the body of the answer.
async fn log_in(run: &Run, number: usize) -> Value {
    let nodes = &run.stage.nodes;
    let url = nodes[number % nodes.len()].server().url().to_owned();
    let mut socket = Socket::try_open_over(Line::Plain, &url, Encoding::Json).await.expect("a link");
    socket.send("login", 1, &json!({"token": format!("dev:stranger-{number}"), "relay": true})).await;
    match socket.hear_within(ANSWER_WITHIN).await {
        Some(Heard::Frame(frame)) => frame.body,
        other => json!({ "heard": format!("{other:?}") }),
    }
}

/// Whether every node tells of the policy.
async fn all_tell(run: &Run, is_told: bool) -> bool {
    for node in &run.stage.nodes {
        let (_, told) = Service::of(node.server(), KEY).get("/readyz").await;
        let shortfalls = told["shortfalls"].as_array().cloned().unwrap_or_default();
        if shortfalls.iter().any(|one| one["setting"] == POLICY) != is_told {
            return false;
        }
    }
    true
}

async fn until_all_tell(run: &Run, is_told: bool) {
    let deadline = Instant::now() + NOTICE_PATIENCE;
    while !all_tell(run, is_told).await {
        assert!(Instant::now() < deadline, "waited in vain: {NOTICED}");
        sleep(LOOK_EVERY).await;
    }
}

async fn evict(run: &mut Run) {
    let begun = run.timeline.begin("Redis's policy is allkeys-lru");
    run.timeline.store_forgets(begun);
    configure(run, POLICY, "allkeys-lru");
    until_all_tell(run, true).await;
    run.timeline.mark(NOTICED);
    let deadline = Instant::now() + EVICTED_WITHIN;
    let before = number(run, "evicted_keys");
    let most = number(run, "used_memory").saturating_sub(EVICTED_BYTES);
    configure(run, "maxmemory", &most.to_string());
    let evicted = loop {
        let evicted = number(run, "evicted_keys") - before;
        if evicted >= EVICTED_MIN || Instant::now() >= deadline {
            break evicted;
        }
        sleep(LOOK_EVERY).await;
    };
    run.note("keys evicted", evicted);
    configure(run, "maxmemory", "0");
    configure(run, POLICY, "noeviction");
    run.timeline.heal(begun, "Redis evicts no more");
    run.commits_again().await;
    until_all_tell(run, false).await;
    run.timeline.mark("the policy is told no more");
}

async fn forget_scripts(run: &mut Run) {
    let begun = run.timeline.begin("Redis forgets its scripts every 200 ms");
    let until = Instant::now() + Duration::from_millis(run.settings.scaled_ms(FLUSHING_MS));
    while Instant::now() < until {
        tell_redis(run, &["SCRIPT", "FLUSH", "SYNC"]);
        run.note("scripts flushed", 1);
        sleep(FLUSH_EVERY).await;
    }
    run.timeline.heal(begun, "Redis keeps its scripts");
}

fn weigh_settings(told: &Told<'_>, findings: &mut Findings) {
    let [full, evicting, flushing, emptied] = told.evidence.incidents else {
        findings.vacuous.push("not all four parts were played".to_owned());
        return;
    };
    weigh_full(told, findings, full);
    let noticed = told.ms_until(NOTICED, evicting.begun_us);
    let noticed = findings.recovery(NOTICED, noticed.into_iter().collect());
    findings.within(NOTICED, &noticed, 100, NOTICED_WITHIN_MS);
    findings.must("keys evicted", told.noted("keys evicted").iter().sum());
    weigh_flushing(told, findings, flushing);
    weigh_emptied(told, findings, emptied);
    crate::store_faults::drained(told, findings);
    findings.at_most("lost", findings.lost, 0, "changes");
    findings.at_most("rollback notices", told.load.figures.count("rollback_notices"), 0, "");
}

fn grown(told: &Told<'_>, incident: &Incident, name: &str, label: &str) -> u64 {
    let audit = told.evidence.audit;
    audit.growth_between(name, label, incident.begun_us, incident.healed_us).values().sum()
}

/// Leases are renewed, hot sessions live, whoever is new is refused for now, and players hear of it.
fn weigh_full(told: &Told<'_>, findings: &mut Findings, full: &Incident) {
    let sum = |what: &str| told.noted(what).iter().sum::<u64>();
    findings.must("strangers refused for now", sum("strangers refused for now"));
    findings.at_most("strangers let in while Redis was full", sum("strangers let in"), 0, "");
    findings.at_most("strangers told otherwise", sum("strangers told otherwise"), 0, "");
    let run_out = grown(told, full, "hearth_leases_run_out_total", "");
    findings.at_most("leases that ran out while Redis was full", run_out, 0, "");
    let lost = grown(told, full, "hearth_shards_lost_total", "");
    findings.at_most("shards lost while Redis was full", lost, 0, "");
    let (mut written, mut local, mut paused) = (0, BTreeSet::new(), 0);
    for (process, log) in told.evidence.history.processes() {
        for entry in log.iter().filter(|entry| within(full, entry.at_us)) {
            match &entry.what {
                What::Ok { prov: true, .. } => written += 1,
                What::Notice { notice: Notice::Mode { mode } } if mode == "local" => {
                    local.insert(process);
                }
                What::Notice { notice: Notice::Mode { mode } } => paused += u64::from(mode == "paused"),
                _ => {}
            }
        }
    }
    findings.must("provisional acks while Redis was full", written);
    findings.must("players told local", count(local.len()));
    findings.at_most("told paused while Redis was full", paused, 0, "");
}

/// Nobody notices.
fn weigh_flushing(told: &Told<'_>, findings: &mut Findings, flushing: &Incident) {
    findings.must("scripts flushed", told.noted("scripts flushed").iter().sum());
    findings.must(
        "commits while scripts were flushed",
        grown(told, flushing, "hearth_commits_total", "\"done\""),
    );
    let unknown = grown(told, flushing, "hearth_commits_total", "\"unknown\"");
    findings.at_most("commits without an answer while scripts were flushed", unknown, 0, "");
    let opened = grown(told, flushing, "hearth_store_breaker_turns_total", "");
    findings.at_most("changes of breakers while scripts were flushed", opened, 0, "");
    let logs = told.evidence.history.logs.iter().flatten().filter(|entry| within(flushing, entry.at_us));
    let is_refused = |what: &What| matches!(what, What::Fail { code: ErrorCode::StoreUnavailable, .. });
    let refused = logs.filter(|entry| is_refused(&entry.what)).count();
    findings.at_most("refused for the store's sake while scripts were flushed", count(refused), 0, "");
}

/// What is hot is written again, under another generation.
fn weigh_emptied(told: &Told<'_>, findings: &mut Findings, emptied: &Incident) {
    let audit = told.evidence.audit;
    let generations = |looks: Option<&load::audit::StoreWord>| -> BTreeMap<u16, String> {
        let metas = looks.map(|word| word.metas.clone()).unwrap_or_default();
        metas.into_iter().map(|meta| (meta.shard, meta.generation)).collect()
    };
    let before = audit.stores().filter(|(sample, _)| sample.at_us < emptied.begun_us).last();
    let last = audit.stores().last().map(|(_, word)| word);
    let (before, after) = (generations(before.map(|(_, word)| word)), generations(last));
    let same = after.iter().filter(|(shard, generation)| before.get(shard) == Some(generation)).count();
    findings.must("shards with a generation after FLUSHALL", count(after.len()));
    findings.at_most("shards with their old generation", count(same), 0, "");
    let players = count(told.evidence.shards.len());
    let records = last.map_or(0, |word| count(word.records.len()));
    findings.holds("hot records restored", records >= players, records.to_string(), format!("all {players}"));
    let is_whole = |word: &load::audit::StoreWord| count(word.records.len()) >= players;
    let mut after = audit.stores().filter(|(sample, _)| sample.since_us > emptied.begun_us);
    let restored = after.find(|(_, word)| is_whole(word));
    let restored = restored.map(|(sample, _)| (sample.at_us - emptied.begun_us) / 1_000);
    findings.recovery("all hot records restored", restored.into_iter().collect());
}
