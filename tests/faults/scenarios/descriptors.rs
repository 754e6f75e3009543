//! A node without file descriptors: F17.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use load::bench::usage;
use load::faults::excuses::node_of;
use load::faults::findings::{Findings, count};
use load::history::{Notice, What};
use rand::Rng as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{sleep, timeout};

use crate::fates::login_at;
use crate::harness::socket::Encoding;
use crate::probe::Probe;
use crate::run::Run;
use crate::scenario::{Scenario, Told};
use crate::stage::{NAMES, Plan};

/// `ulimit -n` of the node while it lasts, and what it has again then.
const FEW: u64 = 256;
/// Who connects and says nothing, each again as soon as the link has ended.
const SILENT: usize = 400;
const SILENT_FOR: Duration = Duration::from_secs(8);
/// How long it lasts, told for a lease of 6 s: several leases.
const LASTS_MS: u64 = 20_000;
/// How long the processor time of a node at rest is measured.
const AT_REST: Duration = Duration::from_secs(4);
/// So much of a core may it take besides: one that spins takes a whole one.
const SHARE_MAX_PERCENT: u64 = 40;
/// A player is let in so soon after.
const LET_IN_WITHIN_MS: u64 = 5_000;

pub(crate) const F17: Scenario = Scenario {
    name: "F17",
    title: "a node has no file descriptor left",
    // Whoever loses a link of her own will does not get in again meanwhile.
    plan: Plan { drop_interval_ms: 60_000, ..Plan::PLAIN },
    play: |run| Box::pin(run_out_of_descriptors(run)),
    weigh: weigh_descriptors,
    excused: &[],
    in_default: false,
    in_ci: false,
};

async fn run_out_of_descriptors(run: &mut Run) {
    let node = run.rng.random_range(0..NAMES.len());
    let server = run.stage.nodes[node].server();
    let (pid, url, address) = (server.pid(), server.url().to_owned(), server.host().parse().unwrap());
    let before = descriptor_limit(pid);
    let probe = Probe::of(server).await;
    let at_rest = processor_share(pid, AT_REST).await;
    set_descriptors(pid, FEW);
    let begun = run.timeline.begin(format!("node {} may open {FEW} descriptors", NAMES[node]));
    let mut crowd = JoinSet::new();
    for _ in 0..SILENT {
        crowd.spawn(say_nothing(address));
    }
    let (unready_ms, why) = probe.until(false).await;
    run.timeline.mark(format!("it is not ready: {why}"));
    let lasts = Duration::from_millis(run.settings.scaled_ms(LASTS_MS));
    let exhausted = processor_share(pid, lasts).await;
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    crowd.shutdown().await;
    set_descriptors(pid, before);
    run.timeline.heal(begun, "it may open as many as before, and the crowd has gone");
    let (ready_ms, _) = probe.until(true).await;
    run.timeline.mark("it is ready again");
    let began = Instant::now();
    let (_socket, op, body) =
        login_at(&url, &serde_json::json!({"token": "dev:a-new-player", "relay": true}), Encoding::Json)
            .await;
    assert_eq!(op, "ready", "{body}");
    let let_in_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let findings = &mut run.findings;
    findings.must("descriptors that were open, of those allowed", count(open));
    if count(open) + 8 < FEW {
        findings.vacuous.push(format!("only {open} of {FEW} descriptors were taken"));
    }
    findings.exercised.insert("percent of a core at rest".to_owned(), at_rest);
    findings.at_most("of a core besides", exhausted.saturating_sub(at_rest), SHARE_MAX_PERCENT, "%");
    findings.holds("readiness names it", why.contains("descriptor"), why, "descriptors");
    findings.recovery("the node says that it is not ready", vec![unready_ms]);
    findings.recovery("the node is ready again", vec![ready_ms]);
    findings.at_most("a new player is let in after", ready_ms + let_in_ms, LET_IN_WITHIN_MS, "ms");
}

fn weigh_descriptors(told: &Told<'_>, findings: &mut Findings) {
    let evidence = &told.evidence;
    let incident = &evidence.incidents[0];
    let node = crate::nodes::named(&incident.what).unwrap_or_default();
    let is_within = |at_us: u64| (incident.begun_us..incident.healed_us).contains(&at_us);
    let (mut here, mut fell, mut quiet, mut answers) = (0, 0, 0, 0);
    for (process, log) in evidence.history.processes() {
        if node_of(evidence.history, process, incident.begun_us) != Some(node) {
            continue;
        }
        let during: Vec<_> = log.iter().filter(|entry| is_within(entry.at_us)).collect();
        let is_down = |on_purpose: bool| {
            during.iter().any(|entry| matches!(&entry.what, What::Notice { notice: Notice::Down { on_purpose: why, .. } } if why.is_some() == on_purpose))
        };
        if is_down(true) {
            continue;
        }
        here += 1;
        fell += u64::from(is_down(false));
        let answered = during.iter().filter(|entry| matches!(entry.what, What::Ok { .. })).count();
        answers += answered;
        quiet += u64::from(answered == 0);
    }
    findings.must("players of the node", here);
    findings.must("answers of the node meanwhile", count(answers));
    findings.at_most("players who lost their link", fell, 0, "");
    findings.at_most("players without an answer", quiet, 0, "");
    let taken = crate::nodes::taken_between(evidence.audit, incident.begun_us, incident.healed_us);
    findings.at_most("shards that others took", taken, 0, "");
    findings.at_most("rollback notices", told.load.figures.count("rollback_notices"), 0, "");
    findings.at_most("lost", findings.lost, 0, "changes");
}

/// Connects, says nothing and hears the end; again and again.
async fn say_nothing(address: SocketAddr) {
    let mut bytes = [0; 64];
    loop {
        if let Ok(Ok(mut stream)) = timeout(SILENT_FOR, TcpStream::connect(address)).await {
            let _ = timeout(SILENT_FOR, stream.read(&mut bytes)).await;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// How much of a core a process takes in this time, in percent.
async fn processor_share(pid: u32, time: Duration) -> u64 {
    let (began, used) = (Instant::now(), usage::cpu_time(pid).unwrap());
    sleep(time).await;
    let used = usage::cpu_time(pid).unwrap().saturating_sub(used);
    u64::try_from(used.as_micros() * 100 / began.elapsed().as_micros().max(1)).unwrap_or(u64::MAX)
}

/// The soft limit of a process.
fn descriptor_limit(pid: u32) -> u64 {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

/// As `ulimit -n` would, while it runs; the hard limit stays.
fn set_descriptors(pid: u32, limit: u64) {
    let words = [format!("--pid={pid}"), format!("--nofile={limit}:")];
    let set = block_in_place(|| std::process::Command::new("prlimit").args(words).status());
    assert!(set.expect("prlimit, of util-linux").success());
}
