//! The watch's hands: once a second it gathers this node's numbers, and tells what the watch makes of them, in the log, in
//! the metrics, on the board that `service` reads, and to whoever samples traces. What rings is `telemetry::watch`'s to
//! say; nothing here changes how players are served, and if it fails it begins anew.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use metrics::Gauge;
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::cluster::{Links, Members};
use crate::home::Home;
use crate::hub::Hub;
use crate::limits::{Address, Culprits};
use crate::presence::Rooms;
use crate::tasks::{self, Tasks};
use crate::telemetry::frequent::Counted;
use crate::telemetry::logs;
use crate::telemetry::metrics::{ALARM, LOG_LINES_DROPPED, ROOM_HOTTEST_SHARE, Recorded};
use crate::telemetry::process::Process;
use crate::telemetry::sampling;
use crate::telemetry::watch::{
    Alarm, Board, Change, Figures, Glance, Limits, Reading, Refused, Totals, Watch, names,
};

/// How often the numbers are gathered.
const EVERY: Duration = Duration::from_secs(1);
/// How often the samples of histograms are taken into their buckets, whether or not anybody looks at them.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// How often the store is tried while much more comes in than is usual, and how long each try may take.
const TRY_EVERY_S: u64 = 5;
const TRY_WITHIN: Duration = Duration::from_secs(2);
/// For how long an alarm has more traces sampled: what lasts is in them by then, and they cost players time.
const BOOST_FOR_MS: u64 = 600_000;

/// Where the numbers come from, and where they go.
pub(super) struct Sight {
    pub(super) recorded: Recorded,
    pub(super) home: Arc<Home>,
    pub(super) hub: Arc<Hub>,
    pub(super) rooms: Arc<Rooms>,
    pub(super) peers: Arc<Links>,
    pub(super) members: Arc<Members>,
    /// Who is refused for being too fast, and who does not keep to the protocol.
    pub(super) culprits: [Arc<Culprits>; 2],
    pub(super) board: Arc<Board>,
    /// How many times as many traces are sampled while an alarm is new.
    pub(super) trace_boost: f64,
    pub(super) tasks: Tasks,
}

impl Sight {
    /// Watches until the tasks are asked to stop. Who only looks must not end what it looks at: after a panic it begins
    /// anew, and what it knew is gone.
    pub(super) async fn run(self, limits: Limits) {
        unless_stopped(&self.tasks, || {
            self.board.put(Glance::default());
            self.watch(limits.clone())
        })
        .await;
    }

    async fn watch(&self, limits: Limits) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut watch, mut company) = (Watch::new(limits), Company::default());
        let alarms = Gauges::new();
        let hottest = ROOM_HOTTEST_SHARE.handle();
        let (lines_dropped, mut lines_lost) = (LOG_LINES_DROPPED.handle(), logs::lost());
        let mut second = 0_u64;
        loop {
            tokio::select! {
                biased;
                () = self.tasks.stopping() => return,
                _ = ticks.tick() => {}
            }
            let lost = logs::lost();
            if lost > lines_lost {
                let lines = lost - std::mem::replace(&mut lines_lost, lost);
                lines_dropped.increment(lines);
                tracing::warn!(
                    operation = "log",
                    lines,
                    "lines were dropped: standard error is read too slowly"
                );
            }
            let reading = self.read(&mut company);
            if !self.recorded.counts() {
                // Rates of what is not counted are not known, and nothing can be judged by them.
                self.board.put(Glance { reading, is_blind: true, ..Glance::default() });
                continue;
            }
            let unix_ms = reading.unix_ms;
            let changes = watch.take(reading);
            changes.iter().for_each(|change| tell(change, &alarms));
            let on: Vec<Alarm> = watch.alarms().cloned().collect();
            sampling::RATIO.set_boost(if is_new(&on, unix_ms) { self.trace_boost } else { 1.0 });
            let figures = watch.figures().cloned();
            hottest.set(figures.as_ref().map_or(0.0, Figures::hottest_share));
            second = second.wrapping_add(1);
            if second.is_multiple_of(TRY_EVERY_S) && on.iter().any(|alarm| alarm.name == names::TRAFFIC) {
                self.try_store();
            }
            if let Some(reading) = watch.newest() {
                self.board.put(Glance { reading: reading.clone(), figures, alarms: on, is_blind: false });
            }
        }
    }

    /// This node's numbers as they are now.
    fn read(&self, company: &mut Company) -> Reading {
        let now = clock::now();
        let mail_lag_ms = clock::millis(self.peers.mail_lag());
        let process = Process::now();
        let totals = Totals::read(&self.recorded.render_with(&process));
        let present =
            self.members.snapshot().seen().iter().map(|seen| seen.member.owner.node().to_owned()).collect();
        let vanished = company.moved(present, totals.vanished);
        let [flooding, misbehaving] = self.culprits.each_ref().map(|culprits| refused(&culprits.take()));
        Reading {
            mono_ms: now.mono_ms,
            unix_ms: now.unix_ms,
            totals,
            process,
            sessions: wide(self.home.records().sessions()),
            players: wide(self.home.records().len()),
            links: wide(self.hub.links()),
            mail_lag_ms,
            vanished,
            store_lost_shards: wide(self.home.store_lost(now).map_or(0, |(shards, _)| shards)),
            flooding,
            misbehaving,
            rooms: self
                .rooms
                .hottest()
                .iter()
                .map(|(room, frames)| (room.as_str().into(), *frames))
                .collect(),
        }
    }

    /// Lets the store's breaker find out how it answers, before those who come in do.
    fn try_store(&self) {
        let home = Arc::clone(&self.home);
        self.tasks.spawn("try_store", async move {
            if let Err(error) = home.probe_store(TRY_WITHIN).await {
                tracing::warn!(target: "alarm", operation = "watch", status = %error, "more comes in, and the store does not answer");
            }
        });
    }
}

/// Does it until the tasks are asked to stop: once more after each panic, which is told by the panic's own hook, and at
/// most once in [`EVERY`].
async fn unless_stopped<F: Future<Output = ()>>(tasks: &Tasks, work: impl Fn() -> F) {
    while AssertUnwindSafe(async { work().await }).catch_unwind().await.is_err() {
        tracing::error!(operation = "watch", "the watch has failed, and begins anew");
        tokio::select! {
            biased;
            () = tasks.stopping() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Takes the samples of histograms into their buckets until the tasks are asked to stop, or they would pile up.
pub(super) async fn upkeep(recorded: Recorded, tasks: Tasks) {
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tasks::rest();
        tokio::select! {
            biased;
            () = tasks.stopping() => return,
            _ = ticks.tick() => {}
        }
        tasks::beat();
        recorded.upkeep();
    }
}

/// Who was there a second ago: the metrics count who vanished, and do not name them.
#[derive(Default)]
struct Company {
    present: BTreeSet<String>,
    /// How many had vanished by then; none before the first look, which comes late where the watch has begun anew.
    vanished: Option<u64>,
}

impl Company {
    /// Who is gone since the last time, if any vanished.
    fn moved(&mut self, present: BTreeSet<String>, vanished: u64) -> Vec<String> {
        let before = std::mem::replace(&mut self.present, present);
        if self.vanished.replace(vanished).is_none_or(|known| known >= vanished) {
            return Vec::new();
        }
        let mut gone: Vec<String> = before.difference(&self.present).cloned().collect();
        if gone.is_empty() {
            // It is back under its name already, as another process.
            gone.push("a node that has come back since".to_owned());
        }
        gone
    }
}

/// A gauge for each alarm there is: 0 from the start, so that a rule over it has something to look at.
struct Gauges(Vec<(&'static str, Gauge)>);

impl Gauges {
    fn new() -> Self {
        let gauges = Self(names::ALL.iter().map(|name| (*name, ALARM.with(&[("name", *name)]))).collect());
        names::ALL.iter().for_each(|name| gauges.set(name, 0.0));
        gauges
    }

    fn set(&self, name: &str, value: f64) {
        self.0.iter().filter(|(known, _)| *known == name).for_each(|(_, gauge)| gauge.set(value));
    }
}

/// Whether one of the alarms has begun lately.
fn is_new(alarms: &[Alarm], unix_ms: u64) -> bool {
    alarms.iter().any(|alarm| unix_ms.saturating_sub(alarm.since_unix_ms) < BOOST_FOR_MS)
}

fn refused(counted: &Counted<Address>) -> Refused {
    let addresses = counted.keys.iter().map(|(address, times)| (address.to_string().into(), *times));
    Refused { all: counted.all, addresses: addresses.collect() }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// One line when an alarm begins, and one when it ends.
fn tell(change: &Change, alarms: &Gauges) {
    match change {
        Change::Began(alarm) => {
            alarms.set(alarm.name, 1.0);
            let Alarm { name, severity, value, limit, unit, text, advice, .. } = alarm;
            tracing::warn!(
                target: "alarm",
                operation = "watch",
                alarm = name,
                severity = severity.name(),
                value,
                limit,
                unit,
                text,
                advice,
                "an alarm begins"
            );
        }
        Change::Ended(alarm) => {
            alarms.set(alarm.name, 0.0);
            let lasted_ms = clock::now().unix_ms.saturating_sub(alarm.since_unix_ms);
            tracing::info!(
                target: "alarm",
                operation = "watch",
                alarm = alarm.name,
                duration_ms = lasted_ms,
                text = alarm.text,
                "an alarm has ended"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::telemetry::watch::Severity;

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_panics_begins_anew_and_ends_nothing_else() {
        let (tasks, begun) = (Tasks::new(), Arc::new(AtomicU32::new(0)));
        let (inner, count) = (tasks.clone(), Arc::clone(&begun));
        tasks.spawn("sight", async move {
            let watches = || async {
                if count.fetch_add(1, Ordering::Relaxed) < 2 {
                    panic!("planted");
                }
                inner.stopping().await;
            };
            unless_stopped(&inner, watches).await;
        });
        tokio::time::sleep(EVERY * 5).await;
        assert_eq!((begun.load(Ordering::Relaxed), tasks.has_failed()), (3, false));
        assert!(tasks.stop(Duration::from_secs(60)).await.is_empty());
    }

    #[test]
    fn an_alarm_is_new_for_ten_minutes() {
        let since = |since_unix_ms| Alarm {
            name: names::STORE_SLOW,
            severity: Severity::Warning,
            since_unix_ms,
            value: 2.0,
            limit: 1.0,
            unit: "seconds",
            text: String::new(),
            advice: "",
            is_ending: false,
        };
        assert!(!is_new(&[], 5_000));
        assert!(is_new(&[since(5_000)], 5_000) && is_new(&[since(5_000)], 604_999));
        assert!(!is_new(&[since(5_000)], 605_000));
        assert!(is_new(&[since(5_000), since(600_000)], 605_000), "another one has begun");
    }

    fn nodes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn who_vanished_is_named_and_who_left_is_not() {
        let mut company = Company::default();
        assert!(company.moved(nodes(&["a", "b", "c"]), 7).is_empty(), "long ago");
        assert_eq!(company.moved(nodes(&["a", "c"]), 8), ["b"]);
        assert!(company.moved(nodes(&["a"]), 8).is_empty(), "c has left");
        assert_eq!(company.moved(nodes(&["a"]), 9), ["a node that has come back since"]);
    }
}
