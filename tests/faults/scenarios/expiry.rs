//! Thousands of sessions whose time runs out in one second, while others play: F14.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hearth::home::placement::Placement;
use hearth::ids::{PlayerId, ShardId};
use hearth::store::layout::Layout;
use load::bot;
use load::checkers::recovery::p99_us;
use load::faults::findings::{Findings, count};
use rand::Rng as _;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::sleep;

use crate::crowd::Crowd;
use crate::harness::service::Service;
use crate::run::Run;
use crate::scenario::{Scenario, Told};
use crate::stage::{CLUSTER, KEY, NAMES, Plan, SHARDS};

/// Sessions that are due.
const SESSIONS: usize = 20_000;
/// How long a session lives after its link.
const TTL_MS: u64 = 30_000;
/// They are gone so soon after they were due: I8.
const GONE_WITHIN_MS: u64 = 35_000;
/// How long nodes may take to see that all links of a crowd have ended, on a busy machine: some two seconds of a core's
/// work in a debug build. Above it the sessions are not due in one moment, and all is done again; in the end the run proves
/// nothing.
const SEEN_WITHIN_MS: u64 = 5_000;
const TRIES: u32 = 3;
/// How long the store may take to list whoever has logged in before the run is given up.
const LISTED_WITHIN: Duration = Duration::from_secs(90);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// So long after the links have ended presence has been told, and others have the machine for themselves again.
const QUIET_AFTER_US: u64 = 6_000_000;
/// The latency of others may be longer by so much, and by this for the machine's own sake.
const LONGER_PERCENT: u64 = 20;
const SLACK_US: u64 = 10_000;
/// A latency is that of so much time at least.
const SPAN_MIN_US: u64 = 3_000_000;

const CUT: &str = "the links of the crowds end";
const DUE: &str = "all sessions of the crowds are due";
const GONE: &str = "all sessions of the crowds are gone";

pub(crate) const F14: Scenario = Scenario {
    name: "F14",
    title: "20,000 detached sessions are due in one second",
    plan: Plan {
        settings: &[
            ("session.ttl_ms", "30000"),
            ("link.heartbeat_ms", "300000"),
            // Who has waited for a busy machine says all at once: no limit is what is played here.
            ("limits.link_frames_per_s", "1000"),
            ("limits.link_frames_burst", "1000"),
            ("limits.state_per_s", "1000"),
            ("limits.state_burst", "1000"),
            ("limits.presence_per_s", "1000"),
            ("limits.presence_burst", "1000"),
            ("limits.query_per_s", "1000"),
            ("limits.query_burst", "1000"),
            ("limits.watch_per_s", "1000"),
            ("limits.watch_burst", "1000"),
        ],
        // As seldom as bots can lose a link of their own will: under this heartbeat one that is half dead looks alive for ten
        // minutes.
        drop_interval_ms: 3_600_000,
        // Beside builds nodes do not get to renew a short lease in time, and who loses a home is not what is played.
        ttl_ms_min: 6_000,
        ..Plan::PLAIN
    },
    play: |run| Box::pin(let_them_run_out(run)),
    weigh: weigh_expiry,
    excused: &[],
    in_default: false,
    in_ci: false,
};

async fn let_them_run_out(run: &mut Run) {
    let begun = run.timeline.begin(format!("{SESSIONS} players log in and lose their links"));
    let (of_bots, all) = (u64::from(run.board.options.players), count(SESSIONS));
    let mut listed = Listed::of(run);
    let (mut cut, mut seen_ms) = come_and_go(run, &mut listed).await;
    for _ in 1..TRIES {
        if seen_ms <= SEEN_WITHIN_MS {
            break;
        }
        run.timeline.mark("others have kept the machine busy: once more");
        (cut, seen_ms) = come_and_go(run, &mut listed).await;
    }
    let (due, mut fewest) = (cut + Duration::from_millis(TTL_MS), u64::MAX);
    while Instant::now() < due {
        let count = listed.crowds();
        // What was counted in time: a session may end at the moment that it is due.
        if Instant::now() < due {
            fewest = fewest.min(count);
        }
        sleep(LOOK_INTERVAL).await;
    }
    run.timeline.mark(DUE);
    let deadline = due + Duration::from_millis(GONE_WITHIN_MS) * 2;
    while listed.crowds() > 0 && Instant::now() < deadline {
        sleep(LOOK_INTERVAL).await;
    }
    let gone_ms = ms_since(due);
    run.timeline.mark(GONE);
    while in_memory(run).await > of_bots && Instant::now() < deadline {
        sleep(LOOK_INTERVAL).await;
    }
    let gone_in_memory_ms = ms_since(due);
    run.timeline.heal(begun, "and in memory");
    run.is_well_again().await;
    // Memory of those who have gone is in nobody's way, and all others are taken up elsewhere.
    let node = run.rng.random_range(0..NAMES.len());
    run.drain_node(node).await;
    run.until_seen("the others serve all shards", Run::is_served).await;
    run.start_node(node).await;
    let findings = &mut run.findings;
    findings.must("sessions that were due", count(SESSIONS));
    findings.recovery("nodes see that all links have ended", vec![seen_ms]);
    if seen_ms > SEEN_WITHIN_MS {
        findings.vacuous.push(format!("the links ended over {seen_ms} ms"));
    }
    let early = all.saturating_sub(fewest);
    findings.at_most("sessions that ended early", early, 0, "");
    findings.recovery("all are gone after they were due", vec![gone_ms]);
    findings.at_most("all gone", gone_in_memory_ms.max(gone_ms), GONE_WITHIN_MS, "ms");
}

/// The crowds log in, in place of whoever had their names, and lose their links: when, and how long it took nodes to see
/// that of all, in ms.
async fn come_and_go(run: &Run, listed: &mut Listed) -> (Instant, u64) {
    let mut crowds = enter(run).await;
    run.timeline.mark("all of the crowds are there");
    let deadline = Instant::now() + LISTED_WITHIN;
    while listed.crowds() < count(SESSIONS) {
        assert!(Instant::now() < deadline, "the store lists {} of them", listed.crowds());
        sleep(LOOK_INTERVAL).await;
    }
    run.timeline.mark(CUT);
    let cut = Instant::now();
    crowds.iter_mut().for_each(Crowd::kill);
    run.until("nodes to see that the links have ended", |run| {
        run.auditor.sum("hearth_links_open", "") <= 2.0 * f64::from(run.board.options.players)
    })
    .await;
    let seen_ms = ms_since(cut);
    run.timeline.mark("nodes have seen it");
    (cut, seen_ms)
}

/// The crowds, one for each node, of players who are at home there.
async fn enter(run: &Run) -> Vec<Crowd> {
    let placement = Placement::of(SHARDS).unwrap();
    let latest = run.auditor.latest();
    let home_of = |name: &str| {
        let shard = placement.shard_of(&PlayerId::parse(name).unwrap()).number();
        NAMES.iter().position(|node| {
            latest.get(*node).is_some_and(|word| word.shards.iter().any(|held| held.shard == shard))
        })
    };
    let mut names = [const { String::new() }; NAMES.len()];
    for number in 0..SESSIONS {
        let name = format!("crowd-{number}");
        let home = home_of(&name).expect("each shard has a home");
        names[home].push_str(&format!("{name}\n"));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut entering = JoinSet::new();
    for (node, names) in run.stage.nodes.iter().zip(names) {
        let address: SocketAddr = node.server().host().parse().unwrap();
        let file = folder.path().join(node.name);
        std::fs::write(&file, names).unwrap();
        entering.spawn_blocking(move || Crowd::enter(address, &file));
    }
    entering.join_all().await
}

/// Sessions that nodes hold.
async fn in_memory(run: &Run) -> u64 {
    let (status, told) = Service::of(run.stage.nodes[0].server(), KEY).get("/v1/stats").await;
    let is_whole = status == 200 && told["unknown_nodes"].is_null() && told["unknown_shards"].is_null();
    told["sessions"].as_u64().filter(|_| is_whole).unwrap_or(u64::MAX)
}

/// Players of the crowds whom the store lists as live.
struct Listed {
    connection: redis::Connection,
    ask: redis::Pipeline,
}

impl Listed {
    fn of(run: &Run) -> Self {
        let layout = Layout::of_cluster(CLUSTER).unwrap();
        let key = |shard| layout.shard(shard).expiry();
        let mut ask = redis::pipe();
        for shard in 0..SHARDS {
            ask.cmd("ZCARD").arg(key(ShardId::numbered(shard).unwrap()));
        }
        let placement = Placement::of(SHARDS).unwrap();
        for bot in 0..run.board.options.players {
            let name = bot::name_of(&run.board.options, bot);
            ask.cmd("ZSCORE").arg(key(placement.shard_of(&PlayerId::parse(&name).unwrap()))).arg(name);
        }
        let connection = redis::Client::open(run.stage.store.url()).unwrap().get_connection().unwrap();
        Self { connection, ask }
    }

    fn crowds(&mut self) -> u64 {
        let told: Vec<redis::Value> = block_in_place(|| self.ask.query(&mut self.connection)).unwrap();
        let (all, bots) = told.split_at(usize::from(SHARDS));
        let all: u64 = all.iter().map(|told| redis::from_redis_value_ref::<u64>(told).unwrap()).sum();
        all - count(bots.iter().filter(|told| !matches!(told, redis::Value::Nil)).count())
    }
}

fn ms_since(moment: Instant) -> u64 {
    u64::try_from(moment.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The latency of those who play while the others end: no more than a fifth longer than in the worst time as long before.
fn weigh_expiry(told: &Told<'_>, findings: &mut Findings) {
    // Of the last try.
    let moment = |what: &str| told.marks.iter().rfind(|mark| mark.what == what).map(|mark| mark.at_us);
    let (Some(cut), Some(due), Some(gone)) = (moment(CUT), moment(DUE), moment(GONE)) else {
        findings.vacuous.push("the sessions were never due".to_owned());
        return;
    };
    let (history, audit) = (told.evidence.history, told.evidence.audit);
    let span = (gone + 1_000_000).saturating_sub(due).max(SPAN_MIN_US);
    let mut before = Vec::new();
    let mut from = cut + QUIET_AFTER_US;
    while from + span <= due {
        before.extend(p99_us(history, from, from + span));
        from += span;
    }
    let during = p99_us(history, due, due + span);
    let (Some(worst), Some(during)) = (before.iter().max(), during) else {
        findings.vacuous.push("nobody wrote before the sessions ended, or while they did".to_owned());
        return;
    };
    let busier = audit.busier(cut + QUIET_AFTER_US..due, due..due + span);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a bound in microseconds"
    )]
    let most = ((worst + worst * LONGER_PERCENT / 100 + SLACK_US) as f64 * busier) as u64;
    let ms = |us: u64| us / 1_000;
    let typical = before.get(before.len() / 2).copied().unwrap_or(0);
    let found = format!(
        "{} ms; {} ms before, {} ms at worst, on a machine {busier:.1} times as busy",
        ms(during),
        ms(typical),
        ms(*worst)
    );
    findings.holds("p99 of others", during <= most, found, format!("≤ {} ms", ms(most)));
    findings.at_most("rollback notices", told.load.figures.count("rollback_notices"), 0, "");
    findings.at_most("lost", findings.lost, 0, "changes");
}
