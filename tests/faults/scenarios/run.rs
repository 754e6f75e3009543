//! A run of a scenario: sets the stage, lets bots live and an auditor look, has the scenario play, looks at presence when all
//! is well again, and has everything judged. Scenarios do their faults through it, so that each is on the timeline.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use clap::Parser as _;
use futures_util::FutureExt as _;
use hearth::home::placement::Placement;
use hearth::ids::PlayerId;
use load::audit::NodeWord;
use load::board::Board;
use load::bot;
use load::checkers::{self, Bounds, Evidence, Verdict};
use load::faults::auditor::Auditor;
use load::faults::findings::Findings;
use load::faults::patience;
use load::faults::report::{Report, Sight};
use load::faults::timeline::{Begun, Timeline};
use load::history::History;
use load::options::Options;
use load::proxy::{Proxy, Weather};
use load::report::Report as LoadReport;
use load::run::RunError;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::line::Settings;
use crate::scenario::{Scenario, Told};
use crate::stage::{KEY, NAMES, PRESENCE_GRACE_MS, Plan, SHARDS, Stage};
use crate::store::Eye;

/// How long bots live at most: a run ends them before. Below the life of a session, so that none stays away for that long.
const SECONDS_MAX: u64 = 1_500;
/// How long anything may take on a busy machine before the scenario gives up.
const PATIENCE: Duration = Duration::from_secs(90);
/// The same for those who are away for longer than a session lasts.
const STAY_PATIENCE: Duration = Duration::from_secs(180);
/// C10: all must know so soon.
const CONVERGED_WITHIN_MS: u64 = 5_000;
/// C7: the backlog is gone so soon.
const DRAINED_WITHIN_MS: u64 = 10_000;
/// How long all is watched at rest, before the first fault and after the last.
const REST: Duration = Duration::from_secs(4);

/// Something done to a run: a scenario, or one fault of it.
pub(crate) type Play = for<'a> fn(&'a mut Run) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// How a node ended that was asked to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exit {
    /// When it was asked, on the history's clock.
    pub(crate) asked_us: u64,
    pub(crate) took_ms: u64,
    /// Its exit code; none where a signal ended it.
    pub(crate) code: Option<i32>,
}

/// What a scenario has in hand.
pub(crate) struct Run {
    pub(crate) settings: Settings,
    pub(crate) rng: SmallRng,
    pub(crate) stage: Stage,
    pub(crate) auditor: Auditor,
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) board: Arc<Board>,
    /// Numbers that a scenario takes down for its own weighing.
    pub(crate) noted: BTreeMap<&'static str, Vec<u64>>,
    /// What the scenario itself found out while it played.
    pub(crate) findings: Findings,
    exits: Vec<Exit>,
    players: Vec<String>,
    lives: JoinSet<Result<(LoadReport, History), RunError>>,
}

/// Plays a scenario from beginning to end.
pub(crate) async fn play(scenario: &'static Scenario, settings: Settings) -> Report {
    let mut run = Run::begin(&scenario.plan, settings).await;
    let playing = async {
        (scenario.play)(&mut run).await;
        run.comes_to_rest().await;
    };
    // What was seen until a scenario gave up says why.
    let played = AssertUnwindSafe(playing).catch_unwind().await;
    let broken_off = played.err().map(said);
    run.end(scenario, broken_off).await
}

/// What a panic said.
pub(crate) fn said(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => {
            panic.downcast::<&str>().map_or_else(|_| "a panic".to_owned(), |text| (*text).to_owned())
        }
    }
}

impl Run {
    async fn begin(plan: &Plan, settings: Settings) -> Self {
        let stage = Stage::set(plan, settings).await;
        stage.each_shard_is_served().await;
        let board = Arc::new(Board::new(options(plan, &stage, settings)));
        let players: Vec<String> = (0..plan.players).map(|bot| bot::name_of(&board.options, bot)).collect();
        let placement = Placement::of(SHARDS).unwrap();
        let ids: Vec<PlayerId> = players.iter().map(|name| PlayerId::parse(name).unwrap()).collect();
        let eye = Eye::on(&ids, |player| placement.shard_of(player));
        let minutes_max = seconds_max(plan, settings).div_ceil(60);
        let mut auditor = Auditor::of(&NAMES.map(str::to_owned), KEY, board.began, minutes_max).unwrap();
        for server in stage.store.servers() {
            let (eye, port) = (eye.clone(), server.port());
            auditor.look_into(port.to_string(), move || eye.look(port));
        }
        auditor.follow(stage.targets());
        let timeline = Arc::new(Timeline::of(board.began, |line| println!("{line}")));
        let mut lives = JoinSet::new();
        lives.spawn(load::run::live(Arc::clone(&board)));
        let rng = SmallRng::seed_from_u64(settings.seed);
        let run = Self {
            settings,
            rng,
            stage,
            auditor,
            timeline,
            board,
            noted: BTreeMap::new(),
            findings: Findings::default(),
            exits: Vec::new(),
            players,
            lives,
        };
        run.at_work().await;
        sleep(REST).await;
        run.timeline.mark("all bots are at work");
        run
    }

    /// Waits until something is so; looks often, and gives up when nobody's patience would last so long.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        patience::until(what, PATIENCE, || is_so(self)).await.unwrap_or_else(|vain| panic!("{vain}"));
    }

    /// The same, and when it was so is on the timeline.
    pub(crate) async fn until_seen(&self, what: &str, is_so: impl Fn(&Self) -> bool) -> u64 {
        self.until(what, is_so).await;
        self.timeline.mark(what)
    }

    /// Waits until most bots have a session on a link (some are away of their own will) and go on working.
    pub(crate) async fn at_work(&self) {
        patience::at_work(&self.board, PATIENCE).await.unwrap_or_else(|vain| panic!("{vain}"));
    }

    /// Whether the nodes that are up serve all shards between them, as they last said.
    pub(crate) fn is_served(&self) -> bool {
        self.auditor.is_served(usize::from(SHARDS), 0)
    }

    /// Takes a number down.
    pub(crate) fn note(&mut self, what: &'static str, number: u64) {
        self.noted.entry(what).or_default().push(number);
    }

    /// Waits until commits come through at every node that is up.
    pub(crate) async fn commits_again(&self) {
        let done = |word: &NodeWord| word.metric("hearth_commits_total", "\"done\"");
        let before: BTreeMap<_, _> =
            self.auditor.latest().into_iter().map(|(name, word)| (name, done(&word))).collect();
        self.until_seen("every node's commits come through", |run| {
            let latest = run.auditor.latest();
            before.iter().all(|(name, before)| latest.get(name).is_some_and(|word| done(word) > *before))
        })
        .await;
    }

    /// Waits until so many more commits have been taken.
    pub(crate) async fn commits_more(&self, more: f64) {
        let done = |run: &Self| run.auditor.sum("hearth_commits_total", "\"done\"");
        let before = done(self);
        self.until("commits", |run| done(run) >= before + more).await;
    }

    /// From now on a node's link to Redis is so.
    pub(crate) fn turn(&self, node: usize, weather: Weather) {
        self.stage.nodes[node].store.as_ref().expect("a proxy before Redis").turn(weather);
    }

    /// The same of all nodes' links.
    pub(crate) fn turn_all(&self, weather: Weather) {
        (0..self.stage.nodes.len()).for_each(|node| self.turn(node, weather));
    }

    /// `kill -9` of a node.
    pub(crate) fn kill_node(&mut self, node: usize) -> Begun {
        let begun = self.timeline.strike(format!("kill -9 of node {}", self.stage.nodes[node].name));
        self.timeline.home_forgets(begun);
        self.stage.kill(node);
        self.auditor.follow(self.stage.targets());
        begun
    }

    /// SIGSTOP of a node. Nobody asks it anything until it goes on.
    pub(crate) fn stop_node(&mut self, node: usize) -> Begun {
        let begun = self.timeline.begin(format!("node {} is stopped", self.stage.nodes[node].name));
        // Others take its shards over while it cannot answer, and ask it for nothing.
        self.timeline.home_forgets(begun);
        self.stage.pause(node);
        self.auditor.follow(self.stage.targets());
        begun
    }

    /// SIGCONT of it.
    pub(crate) fn continue_node(&mut self, node: usize, begun: Begun) {
        self.stage.go_on(node);
        self.timeline.heal(begun, format!("node {} goes on", self.stage.nodes[node].name));
        self.auditor.follow(self.stage.targets());
    }

    /// SIGTERM of a node, and waits for its end.
    pub(crate) async fn drain_node(&mut self, node: usize) -> Exit {
        let name = self.stage.nodes[node].name;
        let asked_us = self.timeline.now_us();
        let begun = self.timeline.begin(format!("SIGTERM of node {name}"));
        let status = self.stage.drain(node).await;
        self.auditor.follow(self.stage.targets());
        self.timeline.heal(begun, format!("node {name} has ended: {status}"));
        let took_ms = (self.timeline.now_us() - asked_us) / 1_000;
        let exit = Exit { asked_us, took_ms, code: status.code() };
        self.exits.push(exit);
        exit
    }

    /// From now on this node's links to Redis are carried so; the plan must want proxies there.
    pub(crate) fn turn_redis_link(&mut self, node: usize, weather: Weather, what: &str) -> Begun {
        let begun = self.timeline.begin(format!("Redis link of node {} {what}", NAMES[node]));
        proxy(self.stage.nodes[node].store.as_ref()).turn(weather);
        begun
    }

    /// They carry everything again, and what was held.
    pub(crate) fn heal_redis_link(&mut self, node: usize, begun: Begun) {
        proxy(self.stage.nodes[node].store.as_ref()).heal();
        self.timeline.heal(begun, format!("Redis link of node {} is well", NAMES[node]));
    }

    /// From now on links of other nodes to this one are carried so; those that it made itself to others are not touched.
    pub(crate) fn turn_peer_link(&mut self, node: usize, weather: Weather, what: &str) -> Begun {
        let begun = self.timeline.begin(format!("peer link of node {} {what}", NAMES[node]));
        proxy(self.stage.nodes[node].peer.as_ref()).turn(weather);
        begun
    }

    /// They carry everything again, and what was held.
    pub(crate) fn heal_peer_link(&mut self, node: usize, begun: Begun) {
        proxy(self.stage.nodes[node].peer.as_ref()).heal();
        self.timeline.heal(begun, format!("peer link of node {} is well", NAMES[node]));
    }

    /// Waits for the end of a node that ends by itself.
    pub(crate) async fn node_ends(&mut self, node: usize, begun: Begun) -> Exit {
        let asked_us = self.timeline.now_us();
        let name = self.stage.nodes[node].name;
        let status = self.stage.ends(node).await;
        self.auditor.follow(self.stage.targets());
        self.timeline.heal(begun, format!("node {name} has ended: {status}"));
        let took_ms = (self.timeline.now_us() - asked_us) / 1_000;
        let exit = Exit { asked_us, took_ms, code: status.code() };
        self.exits.push(exit);
        exit
    }

    /// A node that ended is started again, and takes its part.
    pub(crate) async fn start_node(&mut self, node: usize) {
        self.timeline.mark(format!("node {} is started again", self.stage.nodes[node].name));
        self.stage.start(node).await;
        self.auditor.follow(self.stage.targets());
        let name = self.stage.nodes[node].name;
        self.until_seen("all shards are shared anew", |run| {
            let holds = |word: &NodeWord| word.shards.iter().any(|shard| shard.serving);
            run.is_served() && run.auditor.latest().get(name).is_some_and(holds)
        })
        .await;
    }

    /// Waits until all is well, and 5 s later asks how players are shown. Between any two faults of a long run, and at the
    /// end of each.
    pub(crate) async fn is_well_again(&self) {
        self.until_seen("all shards are served", Self::is_served).await;
        self.at_work().await;
        self.timeline.mark("bots are at work again");
        sleep(Duration::from_millis(CONVERGED_WITHIN_MS + PRESENCE_GRACE_MS)).await;
        let (mark, options) = (self.board.mark, &self.board.options);
        self.auditor.ask_presence(&self.players, mark, |player| bot::number_of(options, player)).await;
    }

    /// Has everybody come back who is away for long, and stay.
    pub(crate) async fn calls_all_in(&self) {
        self.board.call_in();
        let everybody = self.players.len();
        let all_are_in = || self.board.online.load(Relaxed) >= everybody;
        patience::until("everybody to have a link", STAY_PATIENCE, all_are_in)
            .await
            .unwrap_or_else(|vain| panic!("{vain}"));
    }

    /// The shard of each player.
    pub(crate) fn shards(&self) -> Vec<u16> {
        let placement = Placement::of(SHARDS).unwrap();
        let shard = |name: &String| placement.shard_of(&PlayerId::parse(name).unwrap()).number();
        self.players.iter().map(shard).collect()
    }

    async fn comes_to_rest(&self) {
        // Who was away when the bots go could not read back what she wrote.
        self.calls_all_in().await;
        self.is_well_again().await;
        // C12 compares what comes after all had to be served again.
        let last = self.timeline.incidents().iter().map(|incident| incident.healed_us).max().unwrap_or(0);
        let served = Duration::from_micros(last) + Duration::from_millis(served_within_ms(self.settings));
        let now = Duration::from_micros(self.timeline.now_us());
        sleep(served.saturating_sub(now) + REST).await;
    }

    async fn end(mut self, scenario: &'static Scenario, broken_off: Option<String>) -> Report {
        assert!(self.lives.try_join_next().is_none(), "the bots were gone before the last fault");
        if let Some(why) = &broken_off {
            self.timeline.mark(format!("broken off: {why}"));
        }
        self.timeline.mark("the bots go");
        self.board.fall();
        let lives = self.lives.join_next().await.expect("bots").expect("bots end");
        let (load, history) = lives.expect("a server was there");
        let shards = self.shards();
        let audit = self.auditor.end().await.unwrap();
        let incidents = self.timeline.incidents();
        let bounds = Bounds {
            drained_within_ms: DRAINED_WITHIN_MS,
            converged_within_ms: CONVERGED_WITHIN_MS,
            presence_grace_ms: PRESENCE_GRACE_MS,
            served_within_ms: served_within_ms(self.settings),
        };
        let evidence = Evidence {
            history: &history,
            audit: &audit,
            incidents: &incidents,
            shards: &shards,
            bounds,
            run_ms: load.took_ms,
        };
        let verdicts: Vec<Verdict> =
            load.verdicts.iter().cloned().chain(checkers::judge_faults(&evidence)).collect();
        let marks = self.timeline.marks();
        let (exits, noted) = (&self.exits[..], &self.noted);
        let told = Told { evidence, load: &load, marks: &marks, exits, noted, settings: self.settings };
        let mut findings = std::mem::take(&mut self.findings);
        findings.take_in(&evidence, &load.figures);
        if broken_off.is_none() {
            (scenario.weigh)(&told, &mut findings);
            let may_be_silent = |checker: &str| scenario.may_be_silent(checker, self.settings);
            findings.vacuous.extend(checkers::silences(&verdicts, may_be_silent));
        }
        let head = scenario.head(self.settings);
        let done = (marks, incidents);
        Report::of(head, (findings, broken_off), verdicts, load, done, Sight { history, audit })
    }
}

/// How long after a fault players may take to be served again.
const fn served_within_ms(settings: Settings) -> u64 {
    settings.ttl_ms + 5_000
}

fn proxy(of: Option<&Proxy>) -> &Proxy {
    of.expect("the scenario's plan wants proxies there")
}

fn options(plan: &Plan, stage: &Stage, settings: Settings) -> Options {
    let urls: String = stage.urls().iter().map(|url| format!(" --url {url}")).collect();
    let Plan { players, write_interval_ms, drop_interval_ms, .. } = plan;
    let line = format!(
        "load steady --quiet --players {players} --seconds {seconds} --seed {} --durable-share 0.1 \
         --write-interval-ms {write_interval_ms} --drop-interval-ms {drop_interval_ms} --encoding mixed{urls}",
        settings.seed,
        seconds = seconds_max(plan, settings)
    );
    Options::try_parse_from(line.split_whitespace()).unwrap()
}

/// How long a run lasts at most.
fn seconds_max(plan: &Plan, settings: Settings) -> u64 {
    SECONDS_MAX + if plan.is_long { 60 * settings.minutes } else { 0 }
}
