//! Nodes that are cut off from each other while Redis is there, and players who join and leave rooms all the time: F13.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use load::audit::Audit;
use load::faults::findings::{Findings, count};
use load::proxy::Weather;
use rand::Rng as _;
use serde_json::json;
use tokio::time::sleep;

use crate::churn::{self, Churn, MEMBERS};
use crate::harness::service::Service;
use crate::run::Run;
use crate::scenario::{Scenario, Told};
use crate::stage::{KEY, NAMES, Plan};

/// How often nodes are cut off, and for how long, told for a lease of 6 s: more than one of them.
const CUTS: u32 = 4;
const CUT_MS: u64 = 15_000;
/// So long after the cut nodes know that they cannot reach each other: a link is silent for this at most.
const NOTICED_AFTER_MS: u64 = 9_000;
/// The churn goes on for so long after the healing.
const AFTER: Duration = Duration::from_secs(1);
/// All rosters are right so soon after all have their answers.
const CONVERGED_WITHIN_MS: u64 = 5_000;
const GIVEN_UP_AFTER_MS: u64 = 30_000;
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

pub(crate) const F13: Scenario = Scenario {
    name: "F13",
    title: "nodes are cut off from each other, while 200 players a second join and leave rooms",
    plan: Plan {
        proxied_peers: true,
        settings: &[("limits.room_per_s", "1000"), ("limits.room_burst", "1000")],
        ..Plan::PLAIN
    },
    play: |run| Box::pin(cut_nodes_off(run)),
    weigh: weigh_cuts,
    excused: &[],
    in_default: false,
    in_ci: false,
};

async fn cut_nodes_off(run: &mut Run) {
    let mut churn = Churn::begin(&run.stage.urls(), run.settings.seed);
    run.until("rooms to fill", |_| churn.counts().0 >= 600).await;
    let began = (Instant::now(), churn.counts().0);
    let mut took_ms = Vec::new();
    for _ in 0..run.settings.times(CUTS) {
        // Links lead from a to b and c, and from b to c.
        let (nodes, weather) = match run.rng.random_range(0..4) {
            0 => (vec![0, 1, 2], Weather::blackhole()),
            1 => (vec![2], Weather::blackhole()),
            2 => (vec![1, 2], Weather { holds_up: true, ..Weather::default() }),
            _ => (vec![1, 2], Weather { reset_chance: 1.0, ..Weather::default() }),
        };
        let names: Vec<_> = nodes.iter().map(|node| NAMES[*node]).collect();
        let how = if weather.reset_chance > 0.0 {
            "reset"
        } else if weather.holds_down {
            "silent"
        } else {
            "silent one way"
        };
        let begun = run.timeline.begin(format!("links of nodes to {} are {how}", names.join(", ")));
        let proxies = || nodes.iter().filter_map(|node| run.stage.nodes[*node].peer.as_ref());
        proxies().for_each(|proxy| {
            proxy.turn(weather);
            if weather.reset_chance > 0.0 {
                proxy.reset(1.0);
            }
        });
        sleep(Duration::from_millis(NOTICED_AFTER_MS)).await;
        let unknown = presence_while_cut(run).await;
        run.findings.must("players whose home could not be reached, and was not guessed", unknown);
        sleep(Duration::from_millis(run.settings.scaled_ms(CUT_MS))).await;
        let proxies = || nodes.iter().filter_map(|node| run.stage.nodes[*node].peer.as_ref());
        proxies().for_each(load::proxy::Proxy::heal);
        run.timeline.heal(begun, "links of nodes carry everything again");
        sleep(AFTER).await;
        took_ms.extend(rosters_are_right(run, &mut churn).await);
        run.is_well_again().await;
    }
    let (answered, refused, links) = churn.counts();
    let per_second = (answered + refused - began.1) / began.0.elapsed().as_secs().max(1);
    let findings = &mut run.findings;
    findings.must("joins and leaves", answered);
    findings.must("joins and leaves refused for now", refused);
    findings.must("joins and leaves a second", per_second);
    findings.exercised.insert("links of members".to_owned(), links);
    let found = findings.recovery("all rosters are right at all nodes", took_ms);
    let all = found.took_ms.len() == usize::try_from(run.settings.times(CUTS)).unwrap();
    let slowest = found.quantile_ms(100);
    let holds = all && slowest <= CONVERGED_WITHIN_MS;
    let said = if all { format!("{slowest} ms") } else { format!("{} times only", found.took_ms.len()) };
    run.findings.holds("rosters equal the truth", holds, said, format!("≤ {CONVERGED_WITHIN_MS} ms"));
}

/// How nodes show members who are all attached: none as offline. How many they would not guess.
async fn presence_while_cut(run: &mut Run) -> u64 {
    let players: Vec<String> = (0..MEMBERS).map(churn::player).collect();
    let (mut unknown, mut guessed) = (0, Vec::new());
    for node in &run.stage.nodes {
        let body = json!({"players": players});
        let (status, told) = Service::of(node.server(), KEY).post("/v1/presence/query", body).await;
        assert_eq!(status, 200, "{told}");
        unknown += count(told["unknown"].as_array().map_or(0, Vec::len));
        let shown = told["presences"].as_array().into_iter().flatten();
        let offline = shown.filter(|item| item["status"] == "offline");
        guessed.extend(offline.map(|item| format!("{} at {}", item["player"], node.name)));
    }
    let said = format!("{} such as {:?}", guessed.len(), guessed.first());
    run.findings.holds("players shown as offline who are here", guessed.is_empty(), said, "0");
    unknown
}

/// The churn rests, and every node soon shows every room as it is. How long that took in ms; none if it did not come.
async fn rosters_are_right(run: &mut Run, churn: &mut Churn) -> Option<u64> {
    let truth = churn.rests().await;
    let in_all: usize = truth.iter().map(BTreeSet::len).sum();
    run.timeline.mark(format!("the churn rests: {in_all} memberships"));
    let (began, mut is_late) = (Instant::now(), false);
    let took_ms = loop {
        let wrong = wrong_rosters(run, &truth).await;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if wrong.is_empty() {
            run.timeline.mark("all rosters are right at all nodes");
            break Some(took_ms);
        }
        if took_ms > CONVERGED_WITHIN_MS && !is_late {
            is_late = true;
            wrong.iter().take(5).for_each(|wrong| _ = run.timeline.mark(wrong.clone()));
        }
        if took_ms > GIVEN_UP_AFTER_MS {
            break None;
        }
        sleep(LOOK_INTERVAL).await;
    };
    churn.goes_on();
    took_ms
}

async fn wrong_rosters(run: &Run, truth: &[BTreeSet<String>]) -> Vec<String> {
    let nodes = run.stage.nodes.iter();
    let asked = nodes.flat_map(|node| {
        let service = Service::of(node.server(), KEY);
        truth
            .iter()
            .enumerate()
            .map(move |(number, truth)| wrong_roster(node.name, service.clone(), number, truth))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

async fn wrong_roster(
    node: &str,
    service: Service,
    number: usize,
    truth: &BTreeSet<String>,
) -> Option<String> {
    let path = format!("/v1/rooms/{}?limit={MEMBERS}", churn::room(number).replace(':', "%3A"));
    let (status, told) = service.get(&path).await;
    let members = told["members"].as_array().into_iter().flatten();
    let shown: BTreeSet<String> =
        members.filter_map(|member| member["player"].as_str()).map(str::to_owned).collect();
    if status == 200 && shown == *truth && told["count"] == truth.len() {
        return None;
    }
    let (more, missing) = (shown.difference(truth).count(), truth.difference(&shown).count());
    let (size, right, partial) = (&told["count"], truth.len(), &told["partial"]);
    Some(format!(
        "node {node} shows room {number} ({status}, partial {partial}) with {size} members of {right}: \
         {more} too many, {missing} missing"
    ))
}

fn weigh_cuts(told: &Told<'_>, findings: &mut Findings) {
    let audit = told.evidence.audit;
    let (first, last) = (epochs(audit, false), epochs(audit, true));
    let moved = first.iter().filter(|(shard, epoch)| last.get(*shard) != Some(*epoch)).count();
    findings.must("shards whose epoch is known", count(first.len()));
    findings.at_most("shards with another epoch than at the begin", count(moved), 0, "");
    for name in ["hearth_shards_taken_total", "hearth_shards_lost_total", "hearth_shards_given_total"] {
        findings.at_most(name, audit.growth(name, ""), 0, "");
    }
    findings.at_most("rollback notices", told.load.figures.count("rollback_notices"), 0, "");
    findings.at_most("lost", findings.lost, 0, "changes");
}

/// The epoch of each shard, as the store has it at the begin or at the end.
fn epochs(audit: &Audit, at_end: bool) -> BTreeMap<u16, u64> {
    let mut stores = audit.stores();
    let word = if at_end { stores.last() } else { stores.next() };
    word.map(|(_, word)| word.metas.iter().map(|meta| (meta.shard, meta.epoch)).collect()).unwrap_or_default()
}
