//! Links to Redis that are slow, break, or fall silent: of all nodes (F8), and of one (F9).

use std::collections::BTreeMap;
use std::time::Duration;

use load::audit::NodeWord;
use load::faults::findings::{Findings, count};
use load::history::{Notice, What};
use load::proxy::Weather;
use rand::Rng as _;
use tokio::time::sleep;

use crate::nodes::taken_between;
use crate::run::Run;
use crate::scenario::{Scenario, Told};
use crate::stage::{NAMES, Plan};

const TURNS: &str = "hearth_store_breaker_turns_total";
const OPENED: &str = "state=\"open\"";
const CLOSED: &str = "state=\"closed\"";
/// A breaker looks back for ten seconds: as long as this it sees nothing else, and must not change its mind.
const ROAD: Duration = Duration::from_secs(15);
/// It opens so soon: when the bad half of what it looks back on outweighs the good one.
const OPEN_WITHIN_MS: u64 = 15_000;
/// Five seconds until the next probe, ± 20 %, three probes, five seconds of ramp, and looks at them.
const CLOSED_WITHIN_MS: u64 = 20_000;
/// Fewer calls say nothing.
const COMMITS_MIN: u64 = 20;
/// What a connection begins with is shorter; a lease call is longer. So each call is hit with the same chance, and not
/// also each of the questions that come before it.
const ASKS_BYTES: usize = 150;

/// How links to Redis are for a while, and whether a breaker must open.
struct Road {
    what: &'static str,
    weather: Weather,
    opens: bool,
}

/// There and back in twice that.
const fn slow(ms: u64) -> Weather {
    Weather { delay: Duration::from_millis(ms / 2), ..GOOD }
}

const fn breaks(chance: f64) -> Weather {
    Weather { reset_chance: chance, reset_bytes_min: ASKS_BYTES, ..GOOD }
}

const GOOD: Weather = Weather {
    delay: Duration::ZERO,
    jitter: Duration::ZERO,
    holds_up: false,
    holds_down: false,
    reset_chance: 0.0,
    reset_bytes_min: 0,
    slice_bytes: 0,
};

const ROADS: [Road; 4] = [
    Road { what: "Redis answers after 450 ms", weather: slow(450), opens: false },
    Road { what: "Redis answers after 650 ms", weather: slow(650), opens: true },
    Road { what: "40 % of calls break their link to Redis", weather: breaks(0.4), opens: false },
    Road { what: "60 % of calls break their link to Redis", weather: breaks(0.6), opens: true },
];

pub(crate) const F8: Scenario = Scenario {
    name: "F8",
    title: "links to Redis are slow, and break: just bearably, and then not",
    // The bounds are in seconds, and a renewal must have the time that such a link takes: always the default lease.
    plan: Plan { proxied_store: true, ttl_ms_min: 6_000, ..Plan::PLAIN },
    play: |run| Box::pin(rough_roads(run)),
    weigh: weigh_roads,
    excused: &[],
    in_default: false,
    in_ci: false,
};

async fn rough_roads(run: &mut Run) {
    for road in &ROADS {
        let begun = run.timeline.begin(road.what);
        let opened = |run: &Run| run.auditor.sum(TURNS, OPENED);
        let before = opened(run);
        run.turn_all(road.weather);
        if road.opens {
            let all = before + f64::from(u8::try_from(NAMES.len()).unwrap());
            run.until_seen("breakers have opened", |run| opened(run) >= all).await;
        }
        sleep(ROAD).await;
        run.turn_all(GOOD);
        run.timeline.heal(begun, "links to Redis are good again");
        run.until_seen("all breakers are closed", |run| {
            let latest = run.auditor.latest();
            latest.len() == NAMES.len()
                && latest.values().all(|word| word.metric("hearth_store_breaker_state", "") <= 0.0)
        })
        .await;
        run.commits_again().await;
        run.is_well_again().await;
        // What is looked back on must not hold any of this.
        sleep(ROAD).await;
    }
    let broken = run.stage.nodes.iter().filter_map(|node| node.store.as_ref());
    let broken = broken.map(|proxy| proxy.carried().resets).sum();
    run.note("links broken", broken);
}

fn weigh_roads(told: &Told<'_>, findings: &mut Findings) {
    let audit = told.evidence.audit;
    findings.must("links broken", told.noted("links broken").iter().sum());
    for (road, incident) in ROADS.iter().zip(told.evidence.incidents) {
        let (from, to) = (incident.begun_us, incident.healed_us);
        let grown = |name, label| audit.growth_between(name, label, from, to);
        let done = grown("hearth_commits_total", "\"done\"");
        let unknown = grown("hearth_commits_total", "\"unknown\"");
        let of = |counts: &BTreeMap<&str, u64>, node| counts.get(node).copied().unwrap_or(0);
        let fewest = NAMES.iter().map(|node| of(&done, node) + of(&unknown, node)).min().unwrap_or(0);
        if fewest < COMMITS_MIN {
            findings.vacuous.push(format!("{fewest} commits of a node while {}", road.what));
        }
        let (done, unknown) = (done.values().sum::<u64>(), unknown.values().sum::<u64>());
        let failed = unknown * 100 / (done + unknown).max(1);
        findings.exercised.insert(format!("of 100 commits without an answer ({})", road.what), failed);
        let (opened, closed) = (grown(TURNS, OPENED), grown(TURNS, CLOSED));
        let mut at_most = |what: &str, found: u64, bound| {
            findings.at_most(&format!("{what} ({})", road.what), found, bound, "");
        };
        if road.opens {
            let stayed = count(NAMES.iter().filter(|node| of(&opened, node) == 0).count());
            at_most("breakers that stayed closed", stayed, 0);
            // Whoever closes in such weather has to open again: that is what flapping is.
            at_most("closed again meanwhile", closed.values().sum(), 0);
            let took = told.ms_until("breakers have opened", from);
            let took =
                findings.recovery(&format!("breakers open ({})", road.what), took.into_iter().collect());
            findings.within("breakers open", &took, 100, OPEN_WITHIN_MS);
        } else {
            at_most("breakers opened", opened.values().sum(), 0);
        }
        let closed = told.ms_until("all breakers are closed", to);
        let closed = findings.recovery("breakers closed after", closed.into_iter().collect());
        findings.within("breakers closed after", &closed, 100, CLOSED_WITHIN_MS);
    }
    findings.must("roads", u64::from(told.evidence.incidents.len() == ROADS.len()));
    crate::store_faults::drained(told, findings);
    findings.at_most("lost", findings.lost, 0, "changes");
}

/// What a link does that is silent.
const SILENCES: [(&str, Weather); 2] = [
    ("both ways", Weather { holds_up: true, holds_down: true, ..GOOD }),
    ("in its answers alone", Weather { holds_down: true, ..GOOD }),
];
const OTHERS_SERVE: &str = "the others serve all shards";

pub(crate) const F9: Scenario = Scenario {
    name: "F9",
    title: "one node's link to Redis falls silent, both ways and then in its answers alone",
    plan: Plan { proxied_store: true, ..Plan::PLAIN },
    play: |run| Box::pin(silent_link(run)),
    weigh: weigh_silence,
    excused: &[],
    in_default: false,
    in_ci: true,
};

async fn silent_link(run: &mut Run) {
    let first = run.rng.random_range(0..NAMES.len());
    for (number, (way, weather)) in SILENCES.into_iter().enumerate() {
        let node = (first + number) % NAMES.len();
        let name = NAMES[node];
        let begun = run.timeline.begin(format!("Redis is silent to node {name} {way}"));
        run.turn(node, weather);
        run.until_seen(OTHERS_SERVE, |run| {
            let latest = run.auditor.latest();
            let of_others = latest.iter().filter(|(other, _)| **other != name);
            let serving = of_others.map(|(_, word)| word.shards.iter().filter(|s| s.serving).count());
            serving.sum::<usize>() == usize::from(crate::stage::SHARDS)
        })
        .await;
        run.at_work().await;
        run.turn(node, GOOD);
        run.timeline.heal(begun, format!("Redis answers node {name} again"));
        run.until_seen("the node serves again", |run| {
            let serves = |word: &NodeWord| word.shards.iter().any(|shard| shard.serving);
            run.is_served() && run.auditor.latest().get(name).is_some_and(serves)
        })
        .await;
        run.is_well_again().await;
    }
}

fn weigh_silence(told: &Told<'_>, findings: &mut Findings) {
    let (audit, history) = (told.evidence.audit, told.evidence.history);
    let mut paused = 0;
    for incident in told.evidence.incidents {
        let name = crate::nodes::named(&incident.what).unwrap_or_default();
        let within = |at_us: u64| crate::store_faults::within(incident, at_us);
        let mut moved = 0;
        for (_, log) in history.processes() {
            for entry in log.iter().filter(|entry| within(entry.at_us)) {
                match &entry.what {
                    What::Notice { notice: Notice::Mode { mode } } => paused += u64::from(mode == "paused"),
                    What::Notice { notice: Notice::Moved { .. } } => moved += 1,
                    _ => {}
                }
            }
        }
        findings.must(&format!("told moved ({})", incident.what), moved);
        let taken = taken_between(audit, incident.begun_us, incident.healed_us);
        findings.must(&format!("shards taken ({})", incident.what), taken);
        let opened = audit.growth_between(TURNS, OPENED, incident.begun_us, incident.healed_us);
        let others: u64 = opened.iter().filter(|(node, _)| **node != name).map(|(_, turns)| turns).sum();
        findings.must(&format!("breaker opened ({})", incident.what), opened.get(name).copied().unwrap_or(0));
        findings.at_most(&format!("other nodes' breakers opened ({})", incident.what), others, 0, "");
        let took = told.ms_until(OTHERS_SERVE, incident.begun_us);
        let took =
            findings.recovery(&format!("others serve ({})", incident.what), took.into_iter().collect());
        let bound = told.evidence.bounds.served_within_ms;
        findings.within(&format!("others serve ({})", incident.what), &took, 100, bound);
    }
    // A sixth of a lease lies between the two: of a short one nobody may hear of it before others have the shard.
    findings.must("told paused", paused);
    findings.must("silences", u64::from(told.evidence.incidents.len() == SILENCES.len()));
    let salvaged = |outcome: &str| audit.growth("hearth_salvaged_records_total", outcome);
    findings.must("records salvaged", salvaged("\"taken\""));
    findings.at_most("salvaged records refused", salvaged("\"refused\""), 0, "");
    findings.at_most("lost", findings.lost, 0, "changes");
    findings.at_most("rollback notices", told.load.figures.count("rollback_notices"), 0, "");
}
