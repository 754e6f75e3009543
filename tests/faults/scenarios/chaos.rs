//! Mixed faults for as long as one likes, one after the other: each begins when the one before has healed and presence was
//! looked at. Not one of the plan's numbers, but a loop over the same faults and checks.

use std::collections::BTreeMap;
use std::time::Duration;

use load::faults::findings::Findings;
use load::proxy::Weather;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use tokio::time::{Instant, sleep, sleep_until};

use crate::nodes::weigh_losses;
use crate::run::{Play, Run};
use crate::scenario::{Scenario, Told};
use crate::stage::{NAMES, Plan};
use crate::store_faults::{kill_redis, stop_redis};

/// Faults begin so far apart at least.
const APART: Duration = Duration::from_secs(10);
/// So many a minute there must be: 120 an hour.
const FAULTS_A_MINUTE_MIN: u64 = 2;
/// Operations a second, from the first login to the end, faults and all.
const OPERATIONS_A_SECOND_MIN: u64 = 500;
/// In a run of so many minutes every kind must have come.
const ALL_KINDS_MINUTES: u64 = 30;

pub(crate) const CHAOS: Scenario = Scenario {
    name: "chaos",
    title: "mixed faults, one after the other",
    plan: Plan {
        proxied_store: true,
        proxied_peers: true,
        players: 200,
        write_interval_ms: 250,
        drop_interval_ms: 120_000,
        // So short that sessions run out within the run. Who was away for long says at once what has piled up.
        settings: &[
            ("session.ttl_ms", "60000"),
            ("limits.link_frames_per_s", "1000"),
            ("limits.link_frames_burst", "1000"),
            ("limits.state_per_s", "1000"),
            ("limits.state_burst", "1000"),
            ("limits.presence_per_s", "100"),
            ("limits.presence_burst", "100"),
        ],
        is_long: true,
        ..Plan::PLAIN
    },
    play: |run| Box::pin(chaos(run)),
    weigh: weigh_chaos,
    excused: &[],
    in_default: false,
    in_ci: false,
};

/// Kinds of faults: each is done and healed when it returns.
const KINDS: [Play; 8] = [
    |run| Box::pin(kill_a_node(run)),
    |run| Box::pin(stop_a_node(run)),
    |run| Box::pin(drain_a_node(run)),
    |run| Box::pin(kill_redis(run, false)),
    |run| Box::pin(stop_redis_for_a_while(run)),
    |run| Box::pin(turn_redis_link(run, Weather::blackhole(), "carries nothing")),
    |run| Box::pin(turn_redis_link(run, slow(), "is slow")),
    |run| Box::pin(turn_peer_link(run)),
];

async fn chaos(run: &mut Run) {
    let end = Instant::now() + Duration::from_secs(60 * run.settings.minutes);
    // Each kind once, then as it comes.
    let mut kinds = KINDS.iter();
    while Instant::now() < end {
        let next = Instant::now() + APART;
        let kind = kinds.next().or_else(|| KINDS.choose(&mut run.rng)).expect("a kind of fault");
        kind(run).await;
        run.is_well_again().await;
        sleep_until(next).await;
    }
    run.calls_all_in().await;
}

fn slow() -> Weather {
    Weather { delay: Duration::from_millis(40), jitter: Duration::from_millis(40), ..Weather::default() }
}

fn any_node(run: &mut Run) -> usize {
    run.rng.random_range(0..NAMES.len())
}

/// Between a fifth of a lease and two of them.
fn a_while(run: &mut Run) -> Duration {
    Duration::from_millis(run.settings.ttl_ms).mul_f64(run.rng.random_range(0.2..2.0))
}

async fn kill_a_node(run: &mut Run) {
    let node = any_node(run);
    run.kill_node(node);
    run.until_seen("the others serve all shards", Run::is_served).await;
    run.start_node(node).await;
}

async fn stop_a_node(run: &mut Run) {
    let (node, long) = (any_node(run), a_while(run));
    let begun = run.stop_node(node);
    sleep(long).await;
    run.continue_node(node, begun);
}

async fn drain_a_node(run: &mut Run) {
    let node = any_node(run);
    run.drain_node(node).await;
    run.start_node(node).await;
}

async fn stop_redis_for_a_while(run: &mut Run) {
    let long = a_while(run);
    stop_redis(run, long).await;
}

async fn turn_redis_link(run: &mut Run, weather: Weather, what: &str) {
    let (node, long) = (any_node(run), a_while(run));
    let begun = run.turn_redis_link(node, weather, what);
    sleep(long).await;
    run.heal_redis_link(node, begun);
}

async fn turn_peer_link(run: &mut Run) {
    let (node, long) = (any_node(run), a_while(run));
    let begun = run.turn_peer_link(node, Weather::blackhole(), "carries nothing");
    sleep(long).await;
    run.heal_peer_link(node, begun);
}

fn weigh_chaos(told: &Told<'_>, findings: &mut Findings) {
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for incident in told.evidence.incidents {
        let is_kind =
            |word: &&str| !NAMES.contains(word) && !word.starts_with(|first: char| first.is_ascii_digit());
        let kind = incident.what.split_whitespace().filter(is_kind).collect::<Vec<_>>().join(" ");
        *kinds.entry(kind).or_default() += 1;
    }
    let faults: u64 = kinds.values().sum();
    let minutes = told.settings.minutes;
    findings.must("faults", faults);
    let least = minutes * FAULTS_A_MINUTE_MIN;
    findings.holds("faults", faults >= least, faults.to_string(), format!("≥ {least}"));
    let rate = told.load.figures.count("operations") * 1_000 / told.evidence.run_ms.max(1);
    let bound = format!("≥ {OPERATIONS_A_SECOND_MIN}");
    findings.holds("operations a second", rate >= OPERATIONS_A_SECOND_MIN, rate.to_string(), bound);
    if minutes >= ALL_KINDS_MINUTES {
        findings.holds(
            "kinds",
            kinds.len() >= KINDS.len(),
            kinds.len().to_string(),
            format!("all {}", KINDS.len()),
        );
    }
    findings.exercised.extend(kinds);
    weigh_losses(told, findings);
}
