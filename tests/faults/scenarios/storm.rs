//! Everybody of a dead node comes back at once, while strangers log in as fast as they can: F18.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use load::faults::findings::{Findings, count};
use rand::Rng as _;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::harness::socket::{Encoding, Heard, Line, Socket};
use crate::nodes::{named, waited_for_a_home};
use crate::run::Run;
use crate::scenario::{Scenario, Told};
use crate::stage::{NAMES, Plan};

/// Strangers who log in at a time, again and again, each under some names.
const STRANGERS: usize = 12;
const NAMES_EACH: u64 = 40;
const LOGIN_WITHIN: Duration = Duration::from_secs(5);
/// All are back so long after the leases have run out.
const BACK_WITHIN_MS: u64 = 5_000;
/// Who honours `retry_after` is sent away no more often than this until she is back, on average.
const REFUSALS_MAX: u64 = 4;

pub(crate) const F18: Scenario = Scenario {
    name: "F18",
    title: "every client of a dead node comes back at once, in a flood of logins",
    plan: Plan { players: 240, write_interval_ms: 1_000, drop_interval_ms: 60_000, ..Plan::PLAIN },
    play: |run| Box::pin(storm(run)),
    weigh: weigh_storm,
    excused: &[],
    in_default: false,
    in_ci: false,
};

async fn storm(run: &mut Run) {
    let node = run.rng.random_range(0..NAMES.len());
    let others = run.stage.nodes.iter().filter(|other| other.name != NAMES[node]);
    let urls: Vec<String> = others.map(|other| other.server().url().to_owned()).collect();
    let logins = Arc::new(AtomicU64::new(0));
    let mut flood = JoinSet::new();
    for stranger in 0..STRANGERS {
        flood.spawn(log_in_again_and_again(
            urls[stranger % urls.len()].clone(),
            stranger,
            Arc::clone(&logins),
        ));
    }
    let before = logins.load(Relaxed);
    run.until("strangers to log in", |_| logins.load(Relaxed) > before + count(STRANGERS)).await;
    run.kill_node(node);
    run.until_seen("the others serve all shards", Run::is_served).await;
    run.at_work().await;
    flood.shutdown().await;
    run.timeline.mark(format!("{} logins of strangers", logins.load(Relaxed)));
    run.is_well_again().await;
    run.start_node(node).await;
}

/// A link, a login, its answer, the end of the link.
async fn log_in_again_and_again(url: String, stranger: usize, logins: Arc<AtomicU64>) {
    for number in 0.. {
        let Some(mut socket) = Socket::try_open_over(Line::Plain, &url, Encoding::Json).await else { return };
        let token = format!("dev:stranger-{stranger}-{}", number % NAMES_EACH);
        socket.send("login", 1, &json!({"token": token, "relay": true})).await;
        if let Some(Heard::Frame(answer)) = socket.hear_within(LOGIN_WITHIN).await {
            if answer.op == "ready" {
                logins.fetch_add(1, Relaxed);
            } else {
                // Her home is the dead node: there are others.
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn weigh_storm(told: &Told<'_>, findings: &mut Findings) {
    let evidence = &told.evidence;
    let killed = &evidence.incidents[0];
    let dead = named(&killed.what).unwrap_or_default();
    let waited = waited_for_a_home(evidence.history, dead, killed.begun_us);
    let players = count(waited.len());
    findings.must("players of the dead node", players);
    let back = findings.recovery("players are served elsewhere", waited);
    findings.within("the last is back", &back, 100, told.settings.ttl_ms + BACK_WITHIN_MS);
    let logins = evidence.audit.growth("hearth_logins_total", "\"ok\"");
    findings.must("logins", logins.saturating_sub(count(evidence.shards.len())));
    let refused = evidence.audit.growth("hearth_resumes_total", "\"not_home\"");
    findings.exercised.insert("resumes refused for now".to_owned(), refused);
    findings.at_most("resumes refused a player", refused / players.max(1), REFUSALS_MAX, "");
    let untold = load::checkers::losses::of(evidence.history).iter().filter(|loss| !loss.told).count();
    findings.at_most("losses that were not told", count(untold), 0, "changes");
}
