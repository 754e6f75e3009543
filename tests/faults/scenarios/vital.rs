//! A task that must live panics: F16. In a build with the feature `sabotage`, which plants the panic; SIGUSR2 lets it out.
//! `../vital.rs` tells more of such tasks.

use std::time::Duration;

use load::audit::Incident;
use load::checkers::losses;
use load::faults::findings::{Findings, count};
use load::history::{History, Notice, What};
use tokio::time::sleep;

use crate::nodes::{named, waited_for_a_home};
use crate::run::Run;
use crate::scenario::{Scenario, Told};
use crate::stage::Plan;

const TASKS: [&str; 2] = ["renewing", "flushing"];
/// A bug of ours: sysexits' EX_SOFTWARE.
const SOFTWARE: i32 = 70;
/// The others have what was there so soon.
const SALVAGED_WITHIN_MS: u64 = 5_000;
/// The process ends so soon after: it gives others what they ask for, and stops.
const EXIT_MS: u64 = 10_000;
/// So long after its last word a client on a busy machine may take it in.
const HEARD_LATE_US: u64 = 500_000;
/// What a task's watch says as soon as it has ended.
const ENDED: &str = "which must live, has ended";

pub(crate) const F16: Scenario = Scenario {
    name: "F16",
    title: "the renewing and the flushing task of a node panic",
    plan: Plan {
        planted: [Some("panic:keeper"), Some("panic:flush"), None],
        drop_interval_ms: 60_000,
        ..Plan::PLAIN
    },
    play: |run| Box::pin(tasks_panic(run)),
    weigh: weigh_panics,
    excused: &[],
    in_default: false,
    in_ci: false,
};

async fn tasks_panic(run: &mut Run) {
    if !cfg!(feature = "sabotage") {
        panic!("no panic can be planted in this build: `tests/run faults F16` makes one in which it can");
    }
    // Which of them first is the seed's.
    let first = usize::from(rand::Rng::random_bool(&mut run.rng, 0.5));
    for node in [first, 1 - first] {
        let name = run.stage.nodes[node].name;
        let what = format!("the {} task panics at node {name}", TASKS[node]);
        let log = run.stage.nodes[node].server().log().len();
        run.stage.strike(node);
        run.auditor.follow(run.stage.targets());
        // The task panics at its next turn, and its watch says so.
        while !run.stage.nodes[node].server().log().get(log..).is_some_and(|said| said.contains(ENDED)) {
            sleep(Duration::from_millis(5)).await;
        }
        let begun = run.timeline.begin(what);
        run.until_seen("the others serve all shards", Run::is_served).await;
        run.node_ends(node, begun).await;
        run.is_well_again().await;
        run.start_node(node).await;
    }
}

fn weigh_panics(told: &Told<'_>, findings: &mut Findings) {
    let evidence = &told.evidence;
    let (mut waited, mut late) = (Vec::new(), 0);
    for incident in evidence.incidents {
        let dead = named(&incident.what).unwrap_or_default();
        waited.extend(waited_for_a_home(evidence.history, dead, incident.begun_us));
        late += answers_after(evidence.history, dead, incident);
    }
    findings.must("players of nodes whose task panicked", count(waited.len()));
    findings.recovery("players are served elsewhere", waited);
    findings.at_most("answers half a second after the panic", late, 0, "");
    let served = |incident: &Incident| told.ms_until("the others serve all shards", incident.begun_us);
    let served: Vec<Option<u64>> = evidence.incidents.iter().map(served).collect();
    let never = served.iter().filter(|served| served.is_none()).count();
    findings.at_most("panics after which the others did not serve all shards", count(never), 0, "");
    let served = findings.recovery("the others serve all shards", served.into_iter().flatten().collect());
    findings.within("salvaged, and served elsewhere", &served, 100, SALVAGED_WITHIN_MS);
    findings.must("shards whose old home was asked", evidence.audit.growth("hearth_pulls_total", "\"done\""));
    let exits = findings.recovery("processes end", told.exits.iter().map(|exit| exit.took_ms).collect());
    findings.within("exit", &exits, 100, EXIT_MS);
    let codes: Vec<_> = told.exits.iter().map(|exit| exit.code.unwrap_or(-1)).collect();
    let all = codes.len() == TASKS.len() && codes.iter().all(|code| *code == SOFTWARE);
    findings.holds("exit codes", all, format!("{codes:?}"), format!("{} × {SOFTWARE}", TASKS.len()));
    let untold = losses::of(evidence.history).iter().filter(|loss| !loss.told).count();
    findings.at_most("losses that were not told", count(untold), 0, "changes");
}

/// How many answers of this node its clients heard later than a slow one may.
fn answers_after(history: &History, node: &str, incident: &Incident) -> u64 {
    let from_us = incident.begun_us + HEARD_LATE_US;
    let mut answers = 0;
    for (_, log) in history.processes() {
        let mut is_here = false;
        for entry in log.iter().take_while(|entry| entry.at_us <= incident.healed_us) {
            match &entry.what {
                What::Notice { notice: Notice::Ready(opened) } => {
                    is_here = opened.node.split('#').next() == Some(node);
                }
                What::Notice { notice: Notice::Down { .. } } => is_here = false,
                What::Ok { .. } if is_here && entry.at_us > from_us => answers += 1,
                _ => {}
            }
        }
    }
    answers
}
