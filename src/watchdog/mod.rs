//! Whether what must live goes round, seen from outside the runtime: a plain thread that looks at the pulses of `tasks` and
//! says who is late. What is late for too long has failed; and whatever hangs then, the process ends. Started by `app`,
//! which says how it ends; asked by the readiness probe. Never waits for anything, not for the log either.

mod judge;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use crate::clock::{self, millis};
use crate::tasks::{self, Tasks, Vitals};
use crate::telemetry::metrics::{RUNTIME_STALL_SECONDS, RUNTIME_STALLS, VITAL_TASKS_LATE};
use judge::{Bounds, Judge, News, Reading};

pub use judge::Late;

/// How often the thread looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often the runtime shows that it turns.
const BEAT_EVERY: Duration = Duration::from_millis(100);
/// The runtime's own pulse.
const HEART: &str = "heart";
/// Lines that wait for the log. More are left out: then the log is what hangs.
const LINES_MAX: usize = 64;
/// How long the last line has.
const LAST_LINE: Duration = Duration::from_millis(500);

/// What the watchdog needs to know.
#[derive(Debug, Clone, Copy)]
pub struct WatchdogSettings {
    /// How long the runtime may stand still before the process ends; three times as long a vital task may hang. Zero: it is
    /// only told.
    pub patience: Duration,
    /// How long what is left may take once a vital task has died. Longer than `app` gives it.
    pub fall: Duration,
}

/// The thread, for as long as this lives.
pub struct Watchdog {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    late: Mutex<Vec<Late>>,
    is_over: AtomicBool,
    thread: OnceLock<thread::Thread>,
}

struct Meters {
    stalls: Counter,
    stall_seconds: Histogram,
    late: Gauge,
}

impl Watchdog {
    /// Starts the thread, and the runtime's pulse as one of `tasks`, to be stopped last. `end` ends the process at once.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn start(
        settings: WatchdogSettings,
        tasks: &Tasks,
        end: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let stop = tasks.clone();
        tasks.spawn_vital(HEART, async move {
            let mut ticks = tokio::time::interval(BEAT_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tasks::beat();
                tokio::select! {
                    biased;
                    () = stop.stopping() => return,
                    _ = ticks.tick() => {}
                }
            }
        });
        let meters = Meters {
            stalls: RUNTIME_STALLS.handle(),
            stall_seconds: RUNTIME_STALL_SECONDS.handle(),
            late: VITAL_TASKS_LATE.handle(),
        };
        let shared = Arc::<Shared>::default();
        let (log, lines) = sync_channel::<News>(LINES_MAX);
        // Who logs may have to wait for whoever reads the log.
        thread::Builder::new()
            .name("watchdog-log".into())
            .spawn(move || lines.into_iter().for_each(|news| tell(&news)))?;
        let patrol = Patrol { vitals: tasks.vitals().clone(), shared: Arc::clone(&shared), meters, log };
        let bounds = Bounds { patience_ms: millis(settings.patience), fall_ms: millis(settings.fall) };
        let thread = thread::Builder::new().name("watchdog".into()).spawn(move || patrol.run(bounds, end))?;
        shared.thread.get_or_init(|| thread.thread().clone());
        Ok(Self { shared })
    }

    /// Vital tasks that do not come round though they have work, now.
    #[must_use]
    pub fn late(&self) -> Vec<Late> {
        self.shared.late.lock().clone()
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.shared.thread.get() {
            thread.unpark();
        }
    }
}

/// What the thread holds.
struct Patrol {
    vitals: Vitals,
    shared: Arc<Shared>,
    meters: Meters,
    log: SyncSender<News>,
}

impl Patrol {
    fn run(self, bounds: Bounds, end: impl Fn()) {
        let mut judge = Judge::new(HEART, bounds, clock::now().mono_ms);
        loop {
            thread::park_timeout(LOOK_EVERY);
            if self.shared.is_over.load(Ordering::Relaxed) {
                return;
            }
            let pulses = self.vitals.pulses();
            let readings = pulses.iter().map(|pulse| Reading {
                task: pulse.name(),
                turns: pulse.turns(),
                polls: pulse.polls(),
            });
            let news = judge.look(clock::now().mono_ms, readings.collect(), self.vitals.has_failed());
            *self.shared.late.lock() = judge.late();
            self.meters.late.set(judge.late().len() as f64);
            for news in news {
                self.hear(news, &end);
            }
        }
    }

    fn hear(&self, news: News, end: &impl Fn()) {
        match &news {
            News::Stalled { .. } => self.meters.stalls.increment(1),
            News::StallOver { ms } => self.meters.stall_seconds.record(*ms as f64 / 1_000.0),
            _ => {}
        }
        let failed = match &news {
            News::Failed(cause) => Some(*cause),
            _ => None,
        };
        let is_last = matches!(news, News::End);
        let _ = self.log.try_send(news);
        if let Some(cause) = failed {
            // That is logged, too, and here nobody waits for the log.
            let vitals = self.vitals.clone();
            let _ = thread::Builder::new().spawn(move || vitals.fail(cause));
        }
        if is_last {
            thread::sleep(LAST_LINE);
            end();
        }
    }
}

fn tell(news: &News) {
    match news {
        News::Paused { ms } => tracing::warn!(
            operation = "watchdog",
            duration_ms = ms,
            "this process was stopped, or got no processor: nobody is judged by that time"
        ),
        News::Stalled { ms, within } => tracing::warn!(
            operation = "watchdog",
            duration_ms = ms,
            tasks = ?within,
            "the runtime stands still; of the vital tasks these hold it, if any"
        ),
        News::StallOver { ms } => {
            tracing::warn!(
                operation = "watchdog",
                duration_ms = ms,
                "the runtime stood still and turns again"
            );
        }
        News::Late(Late { task, ms }) => tracing::warn!(
            operation = "watchdog",
            task,
            duration_ms = ms,
            "a task that must live does not come round: the node is not ready"
        ),
        News::LateOver(Late { task, ms }) => {
            tracing::warn!(operation = "watchdog", task, duration_ms = ms, "the task came round again");
        }
        News::Failed(cause) => {
            tracing::error!(operation = "watchdog", status = %cause, "it is waited for no longer: the process ends");
        }
        News::End => {
            tracing::error!(operation = "watchdog", "the process does not end by itself: it is ended");
        }
    }
}
