//! A run: proxies stand, bots live, an auditor looks, and one fault after the other is broken, mended, and waited for. Whatever ends
//! it, what is broken then is mended, and what was seen until then is judged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::ChaosError;
use super::cluster::Cluster;
use super::fault::{self, Deck, Fault, FaultError, Way};
use super::options::Options;
use super::sockets::{self, Sameness};
use super::weigh::{Trial, weigh};
use crate::board::Board;
use crate::bot;
use crate::checkers::backlog::DRAINED_LAG_MS;
use crate::checkers::{self, Bounds, Evidence, Verdict};
use crate::faults::auditor::{Auditor, Target};
use crate::faults::findings::Findings;
use crate::faults::patience::{self, InVain};
use crate::faults::report::{Head, Report, Sight};
use crate::faults::timeline::{Begun, Timeline};
use crate::history::History;
use crate::report::Report as LoadReport;
use crate::run::{RunError, live};
use crate::signals::Signals;

/// Faults begin so far apart at least.
const APART: Duration = Duration::from_secs(10);
/// How long all is watched at rest, before the first fault and after the last.
const REST: Duration = Duration::from_secs(4);
/// C10: all must know so soon.
const CONVERGED_WITHIN_MS: u64 = 5_000;
/// C7: the backlog is gone so soon.
const DRAINED_WITHIN_MS: u64 = 10_000;
/// After a lease, and this, whoever lost her home has another one.
const TAKEN_WITHIN_MS: u64 = 5_000;
/// Nodes that bots have logged in at know them so soon.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks at whether bots are let in.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// What does not mend at once is tried again.
const MEND_TRIES: u32 = 3;

/// When all is well.
const SERVED: &str = "each shard to be served by one node, and each node to serve some";

type Lives = JoinSet<Result<(LoadReport, History), RunError>>;

/// Why faults did not go on to the end.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("{0}")]
    Fault(#[from] FaultError),
    #[error("{0}")]
    InVain(#[from] InVain),
    #[error("it was told to end")]
    Told,
    #[error("the bots were gone before the last fault")]
    Alone,
    /// Before anything was broken.
    #[error("bots were sent away: {0}")]
    SentAway(String),
    /// Before anything was broken.
    #[error("services do not know the bots")]
    Elsewhere,
}

/// Breaks a cluster and judges what came of it. What it does is said line by line; who says it must not panic, else what is broken
/// then is not mended.
///
/// # Errors
/// [`ChaosError`]: nothing was broken. What was broken and did not hold is in the report.
pub async fn run(options: Options, say: fn(&str)) -> Result<Report, ChaosError> {
    let seed = options.seed.unwrap_or_else(|| rand::random_range(1..1_000_000));
    let mut signals = Signals::heard().map_err(|error| ChaosError::System(error.into()))?;
    let out = |source| ChaosError::Out { path: options.out.clone(), source };
    std::fs::create_dir_all(&options.out).map_err(out)?;
    let faults = fault::all(&options, seed).await?;
    // Who waits for a proxy may start now.
    let patience = if options.proxy.is_empty() { Duration::ZERO } else { options.patience() };
    for road in &options.proxy {
        say(&format!("link {}: {} leads to {}", road.name, road.listen, road.upstream));
    }
    let cluster = Cluster::at(&options.service, &options.key, patience).await?;
    say(&format!("chaos · {} nodes, {} shards · seed {seed}", cluster.nodes.len(), cluster.shards));
    for (name, pid) in options.pid.iter().filter(|(name, _)| cluster.nodes.contains_key(name)) {
        let (name, pid) = (name.clone(), *pid);
        match sockets::looked_at(pid, &name, &cluster.ports) {
            Sameness::Same => {}
            Sameness::Other { node, port } => return Err(ChaosError::OtherNode { pid, name, node, port }),
            Sameness::Unknown(why) => {
                say(&format!("warning: nobody can tell whether process {pid} is {name}: {why}"));
            }
        }
    }
    let may_push = cluster.may_push(&options.key, &format!("{}00000", options.player_prefix)).await;
    if !may_push {
        say(
            "warning: the key may not push (scope push): no messages are sent to the bots, and none are judged",
        );
    }
    for fault in faults.iter().filter(|fault| fault.pid().is_some()) {
        if !cluster.nodes.contains_key(&fault.name) {
            let nodes = cluster.nodes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            say(&format!(
                "warning: process {} has no node's name ({nodes}): it is not watched, and its end excuses no loss",
                fault.name
            ));
        }
    }
    let mut run = Run::begin(&options, seed, faults, cluster, (may_push, say))?;
    let mut lives: Lives = JoinSet::new();
    lives.spawn(live(Arc::clone(&run.board)));
    let stopped = tokio::select! {
        biased;
        () = signals.told() => Some(Stopped::Told),
        gone = lives.join_next() => {
            // Nobody was there to begin with.
            if let Some(Ok(Err(error))) = gone {
                return Err(error.into());
            }
            Some(Stopped::Alone)
        }
        played = run.play() => played.err(),
    };
    match stopped {
        Some(Stopped::SentAway(why)) => return Err(ChaosError::SentAway(why)),
        Some(Stopped::Elsewhere) => {
            let (urls, services) = (options.url.join(", "), options.service.join(", "));
            return Err(ChaosError::Elsewhere { urls, services });
        }
        _ => {}
    }
    let unmended = run.mend().await.err().map(Stopped::Fault);
    // What could not be mended matters more than what was waited for because of it.
    run.end(lives, unmended.or(stopped)).await
}

/// A run under way.
struct Run<'a> {
    options: &'a Options,
    seed: u64,
    rng: SmallRng,
    cluster: Cluster,
    faults: Vec<Fault>,
    board: Arc<Board>,
    players: Vec<String>,
    auditor: Auditor,
    timeline: Timeline,
    trials: Vec<Trial>,
    /// What is broken now.
    broken: Option<(usize, Begun)>,
    /// What is broken, or is still being waited for.
    pending: Option<Begun>,
    /// Nodes that serve shards when all is well.
    servers: BTreeSet<String>,
}

impl<'a> Run<'a> {
    fn begin(
        options: &'a Options,
        seed: u64,
        faults: Vec<Fault>,
        cluster: Cluster,
        (may_push, say): (bool, fn(&str)),
    ) -> Result<Self, ChaosError> {
        let system = |error: Box<dyn std::error::Error + Send + Sync>| ChaosError::System(error);
        // The last fault, and what comes after it.
        let longer = 3 * options.patience() + Duration::from_secs(900);
        let bots = options.bots(seed, longer, may_push).map_err(|error| system(error.into()))?;
        let board = Arc::new(Board::new(bots));
        // The run ends when the faults do, not when the last one who stays away for long comes back.
        board.call_in();
        let players = (0..options.players).map(|bot| bot::name_of(&board.options, bot)).collect();
        let names: Vec<String> = cluster.nodes.keys().cloned().collect();
        let minutes_max = board.options.seconds.div_ceil(60);
        let auditor = Auditor::of(&names, &options.key, board.began, minutes_max);
        let auditor = auditor.map_err(|error| system(error.into()))?;
        let run = Self {
            options,
            seed,
            rng: SmallRng::seed_from_u64(seed),
            cluster,
            faults,
            players,
            auditor,
            timeline: Timeline::of(board.began, say),
            board,
            trials: Vec::new(),
            broken: None,
            pending: None,
            servers: BTreeSet::new(),
        };
        run.follow();
        Ok(run)
    }

    /// Looks at each node, and at its process where a fault of its name is one.
    fn follow(&self) {
        let pid = |name: &str| self.faults.iter().find(|fault| fault.name == name).and_then(Fault::pid);
        let target = |(name, url): (&String, &String)| {
            (name.clone(), Target { service_url: url.clone(), pid: pid(name) })
        };
        self.auditor.follow(self.cluster.nodes.iter().map(target).collect());
    }

    /// Fault after fault.
    async fn play(&mut self) -> Result<(), Stopped> {
        tokio::select! {
            biased;
            why = self.sent_away() => return Err(Stopped::SentAway(why)),
            well = self.is_well_at_first() => well?,
        }
        let before = self.stored();
        sleep(REST).await;
        if !self.cluster.knows_any(&self.options.key, &self.players, KNOWN_WITHIN).await {
            return Err(Stopped::Elsewhere);
        }
        self.reaches_the_store(before).await?;
        let latest = self.auditor.latest();
        self.servers =
            latest.into_iter().filter(|(_, word)| !word.shards.is_empty()).map(|(name, _)| name).collect();
        self.timeline.mark("all bots are at work");
        let end = Instant::now() + self.options.minutes;
        // Each thing comes as often as any other, however many ways there are to break it.
        let mut things = Deck::of(self.faults.len());
        loop {
            let next = Instant::now() + APART;
            let thing = things.deal(&mut self.rng);
            self.one(thing).await?;
            if next.max(Instant::now()) >= end {
                break;
            }
            sleep_until(next).await;
        }
        // C12 compares what comes after all had to be served again.
        let mended_us = self.timeline.incidents().last().map_or(0, |last| last.healed_us);
        let served = Duration::from_micros(mended_us) + Duration::from_millis(self.served_within_ms());
        sleep(served.saturating_sub(Duration::from_micros(self.timeline.now_us())) + REST).await;
        Ok(())
    }

    async fn is_well_at_first(&self) -> Result<(), InVain> {
        self.until_served(0).await?;
        patience::at_work(&self.board, self.options.patience()).await
    }

    /// Waits until a bot is sent away for good: why. For ever, if none is.
    async fn sent_away(&self) -> String {
        loop {
            if let Some(why) = self.board.sent_away() {
                return why.to_owned();
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Breaks one thing, mends it, and waits until all is well.
    async fn one(&mut self, thing: usize) -> Result<(), Stopped> {
        let Some(fault) = self.faults.get_mut(thing) else { return Ok(()) };
        let (way, for_ms) = fault.next(&mut self.rng);
        let (what, before) = (fault.says(way), fault.hindered(way));
        let node = fault.pid().and(self.cluster.nodes.contains_key(&fault.name).then(|| fault.name.clone()));
        let ends_memory = fault.ends_memory(way, for_ms, self.options.lease_ms, node.is_some());
        let lasting = Duration::from_millis(for_ms);
        let begun = self.timeline.begin(what.clone());
        if ends_memory {
            self.timeline.home_forgets(begun);
        }
        (self.broken, self.pending) = (Some((thing, begun)), Some(begun));
        let (served_ms, at_work_ms) = (None, None);
        self.trials.push(Trial { what, node, served_ms, at_work_ms, hindered: 0, is_done: false });
        fault.breaks(way).await?;
        if way == Way::Commands {
            self.timeline.broken(begun);
        }
        self.trials.last_mut().into_iter().for_each(|trial| trial.is_done = true);
        sleep(lasting).await;
        self.mend().await?;
        self.follow();
        self.is_well_again().await?;
        let after = self.faults.get(thing).and_then(|fault| fault.hindered(way));
        if let Some(trial) = self.trials.last_mut() {
            trial.hindered = after.unwrap_or(0).saturating_sub(before.unwrap_or(0));
        }
        self.pending = None;
        Ok(())
    }

    /// Mends what is broken, if anything is; tries more than once.
    async fn mend(&mut self) -> Result<(), FaultError> {
        let Some((thing, begun)) = self.broken else { return Ok(()) };
        let Some(fault) = self.faults.get_mut(thing) else { return Ok(()) };
        let before = fault.pid();
        for tried in 1..=MEND_TRIES {
            match fault.mends().await {
                Ok(()) => break,
                Err(error) if tried == MEND_TRIES => return Err(error),
                Err(_) => sleep(REST / 4).await,
            }
        }
        let now = fault.pid().filter(|pid| Some(*pid) != before);
        let now = now.map_or_else(String::new, |pid| format!(", and is process {pid} now"));
        match self.trials.last().filter(|trial| trial.is_done) {
            Some(trial) => {
                let what = trial.what.clone();
                let lasted = format!("{:.1} s", self.timeline.lasted(begun).as_secs_f64());
                self.timeline.heal(begun, format!("mended after {lasted}: {}{now}", fault.name));
                self.timeline.call(begun, format!("{what} for {lasted}"));
            }
            None => self.timeline.heal(begun, format!("undone, as far as it was done: {}{now}", fault.name)),
        }
        self.broken = None;
        Ok(())
    }

    /// Waits until all is well, and when presence must be known everywhere asks each node for it.
    async fn is_well_again(&mut self) -> Result<(), InVain> {
        let mended_us = self.timeline.now_us();
        let since = |at_us: u64| Some(at_us.saturating_sub(mended_us) / 1_000);
        self.until_served(mended_us).await?;
        let served_us = self.timeline.mark("all shards are served");
        patience::at_work(&self.board, self.options.patience()).await?;
        let at_work_us = self.timeline.mark("bots are at work again");
        if let Some(trial) = self.trials.last_mut() {
            (trial.served_ms, trial.at_work_ms) = (since(served_us), since(at_work_us));
        }
        let before = self.stored();
        sleep(Duration::from_millis(CONVERGED_WITHIN_MS + self.options.presence_grace_ms)).await;
        self.reaches_the_store(before).await?;
        let settled_us = self.timeline.now_us();
        self.until_served(settled_us).await?;
        let (mark, options) = (self.board.mark, &self.board.options);
        self.auditor.ask_presence(&self.players, mark, |player| bot::number_of(options, player)).await;
        Ok(())
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<(), InVain> {
        patience::until(what, self.options.patience(), || is_so(self)).await
    }

    /// Waits until all is well; who is not, is named where that is in vain.
    async fn until_served(&self, since_us: u64) -> Result<(), InVain> {
        let waited = self.until(SERVED, |run| run.is_served(since_us)).await;
        waited.map_err(|vain| InVain { what: format!("{}: {}", vain.what, self.lacks()), ..vain })
    }

    /// What keeps all from being well.
    fn lacks(&self) -> String {
        let (latest, silent) = (self.auditor.latest(), self.auditor.silent());
        let mut lacks: Vec<String> = silent.iter().map(|node| self.does_not_answer(node)).collect();
        for (name, word) in latest.iter().filter(|(name, _)| !silent.contains(name)) {
            if word.node != *name {
                let url = self.cluster.nodes.get(name).map_or("", String::as_str);
                lacks.push(format!("{} answers at {url}, not {name}", word.node));
            } else if self.servers.contains(name) && !word.shards.iter().any(|shard| shard.serving) {
                lacks.push(format!("{name} serves no shard"));
            }
        }
        let serving = latest.values().flat_map(|word| &word.shards).filter(|shard| shard.serving).count();
        lacks.push(format!("{serving} of {} shards are served", self.cluster.shards));
        lacks.join(", ")
    }

    fn does_not_answer(&self, node: &str) -> String {
        let url = self.cluster.nodes.get(node).map_or("", String::as_str);
        let process = self.faults.iter().find(|fault| fault.name == node).and_then(Fault::pid);
        let process = process.map_or_else(String::new, |pid| format!(" (process {pid})"));
        format!("{node}{process} does not answer at {url}")
    }

    /// What is still broken now that all is over; of nodes that only do not answer where the run came to no end.
    fn left_broken(&self, is_broken_off: bool) -> Vec<String> {
        let mut left = Vec::new();
        let mut told: BTreeSet<&str> = BTreeSet::new();
        for (place, fault) in self.faults.iter().enumerate() {
            if let Some(wrong) = fault.wrong(self.broken.is_none_or(|(thing, _)| thing != place)) {
                told.insert(&fault.name);
                left.push(wrong);
            }
        }
        let silent = if is_broken_off { self.auditor.silent() } else { Vec::new() };
        let silent = silent.into_iter().filter(|node| !told.contains(node.as_str()));
        left.extend(silent.map(|node| self.does_not_answer(&node)));
        left
    }

    /// By looks that began then or later.
    fn is_served(&self, since_us: u64) -> bool {
        let latest = self.auditor.latest();
        let serves =
            |name: &String| latest.get(name).is_some_and(|word| word.shards.iter().any(|s| s.serving));
        let is_itself = latest.iter().all(|(name, word)| word.node == *name);
        let is_served = self.auditor.is_served(usize::from(self.cluster.shards), since_us);
        is_served && is_itself && self.servers.iter().all(serves)
    }

    /// Commits that came through so far.
    fn stored(&self) -> f64 {
        self.auditor.sum("hearth_commits_total", "\"done\"")
    }

    /// Waits until there are more of them, and no backlog: who lives from memory alone serves, too.
    async fn reaches_the_store(&self, before: f64) -> Result<(), InVain> {
        self.until("changes to reach the store", |run| run.stored() > before && run.is_drained()).await
    }

    fn is_drained(&self) -> bool {
        self.auditor.latest().values().all(|word| word.flush_lag_ms() <= DRAINED_LAG_MS)
    }

    /// Sends the bots home and has everything judged.
    async fn end(self, mut lives: Lives, stopped: Option<Stopped>) -> Result<Report, ChaosError> {
        if let Some(begun) = self.pending.filter(|_| !matches!(stopped, None | Some(Stopped::InVain(_)))) {
            self.timeline.leave_alone(begun);
        }
        let mut broken_off = stopped.map(|stopped| {
            let why = self.explained(&stopped);
            // What a command said stands at the end, once.
            let first = why.lines().next().unwrap_or_default().trim_end_matches("; it said:");
            self.timeline.mark(format!("broken off: {first}"));
            why
        });
        self.timeline.mark("the bots go");
        self.board.fall();
        let (felt_ms, names_a_node) = (self.served_within_ms(), self.names_a_node());
        let head = Head {
            name: "chaos".to_owned(),
            title: "what may be broken is broken, one thing after the other".to_owned(),
            seed: self.seed,
            ttl_ms: self.options.lease_ms,
            again: format!("chaos --seed {}", self.seed),
            excused: &[],
        };
        let Some(Ok(lived)) = lives.join_next().await else {
            let why = broken_off.unwrap_or_else(|| "the bots have left nothing".to_owned());
            return Ok(Report::broken_off(head, why).leaving(self.left_broken(true)));
        };
        let (load, history) = lived?;
        let left_broken = self.left_broken(broken_off.is_some());
        let incidents = self.timeline.incidents();
        let audit = match self.auditor.end().await {
            Ok(audit) => audit,
            Err(outgrown) => {
                // What bots have seen is judged, and what nodes have said is kept.
                broken_off.get_or_insert_with(|| outgrown.to_string());
                let (done, audit) = ((self.timeline.marks(), incidents), outgrown.beginning);
                let verdicts = load.verdicts.clone();
                let told = (Findings::default(), broken_off);
                let report = Report::of(head, told, verdicts, load, done, Sight { history, audit });
                return Ok(report.leaving(left_broken));
            }
        };
        let shards: Vec<u16> = self.players.iter().map(|name| self.cluster.shard_of(name)).collect();
        let bounds = Bounds {
            drained_within_ms: DRAINED_WITHIN_MS,
            converged_within_ms: CONVERGED_WITHIN_MS,
            presence_grace_ms: self.options.presence_grace_ms,
            served_within_ms: felt_ms,
        };
        let (incidents_of, shards) = (&incidents[..], &shards[..]);
        let run_ms = load.took_ms;
        let evidence =
            Evidence { history: &history, audit: &audit, incidents: incidents_of, shards, bounds, run_ms };
        let verdicts: Vec<Verdict> =
            load.verdicts.iter().cloned().chain(checkers::judge_faults(&evidence)).collect();
        let mut findings = weigh(&evidence, &load.figures, &self.trials, felt_ms);
        if broken_off.is_none() {
            // C6 looks into the store, C8 wants several logins of one player, C9 sessions that run out, C11 a node's process.
            let may_be_silent = |checker: &str| match checker {
                "C6" | "C8" | "C9" => true,
                "C11" => !names_a_node,
                _ => false,
            };
            findings.vacuous.extend(checkers::silences(&verdicts, may_be_silent));
        }
        let done = (self.timeline.marks(), incidents);
        let told = (findings, broken_off);
        let report = Report::of(head, told, verdicts, load, done, Sight { history, audit });
        Ok(report.leaving(left_broken))
    }

    /// How long after a fault players may take to be served again.
    const fn served_within_ms(&self) -> u64 {
        self.options.lease_ms + TAKEN_WITHIN_MS
    }

    /// Whether a fault is a process of a node.
    fn names_a_node(&self) -> bool {
        self.faults.iter().any(|fault| fault.pid().is_some() && self.cluster.nodes.contains_key(&fault.name))
    }

    /// Why faults did not go on, and after which.
    fn explained(&self, stopped: &Stopped) -> String {
        match (stopped, self.trials.last()) {
            (Stopped::InVain(_), Some(trial)) => format!("{stopped}, after: {}", trial.what),
            _ => stopped.to_string(),
        }
    }
}
