//! Whether all that must live does: a pulse for each vital task, and one alarm for all of them. The alarm silences first
//! and tells then, all of it before the task that died has even been unwound. Rung by `tasks` and `watchdog`; `home` says
//! what is silenced.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Poll;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Why nothing may be answered any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A task that must live has ended or panicked.
    Ended(&'static str),
    /// One has hung for too long.
    Hung(&'static str),
    /// The runtime stood still for too long.
    Stalled,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(task) => write!(f, "the task {task}, which must live, has ended"),
            Self::Hung(task) => write!(f, "the task {task}, which must live, hangs"),
            Self::Stalled => write!(f, "the runtime stands still"),
        }
    }
}

type Silencer = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Inner {
    cause: OnceLock<Cause>,
    failed: CancellationToken,
    silencers: Mutex<Vec<Silencer>>,
    pulses: Mutex<Vec<Weak<Pulse>>>,
}

/// The vital tasks of one house, whichever stage they are of; cheap to clone.
#[derive(Clone, Default)]
pub struct Vitals(Arc<Inner>);

impl fmt::Debug for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vitals").field("cause", &self.cause()).finish_non_exhaustive()
    }
}

impl Vitals {
    /// To be called when they fail, by whoever finds it and before anything else is done: must be short, must not wait, and
    /// may be called twice.
    pub fn when_failed(&self, silence: impl Fn() + Send + Sync + 'static) {
        let silence: Silencer = Box::new(silence);
        let mut silencers = self.0.silencers.lock();
        if self.cause().is_some() {
            silence();
        }
        silencers.push(silence);
    }

    /// From now on nothing may be answered. The first cause stays.
    pub fn fail(&self, cause: Cause) {
        if self.0.cause.set(cause).is_ok() {
            // Before a word of it: who logs may have to wait.
            self.0.silencers.lock().iter().for_each(|silence| silence());
            self.0.failed.cancel();
            tracing::error!(operation = "task", status = %cause, "nothing is answered any more");
        }
    }

    /// Why they have failed, if they have.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.0.cause.get().copied()
    }

    /// Whether they have failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.0.failed.is_cancelled()
    }

    /// Resolves when they have failed, with the cause.
    pub async fn failed(&self) -> Cause {
        self.0.failed.cancelled().await;
        // It is set before that.
        self.cause().unwrap_or(Cause::Stalled)
    }

    /// The pulses of those that live.
    #[must_use]
    pub fn pulses(&self) -> Vec<Arc<Pulse>> {
        let mut pulses = self.0.pulses.lock();
        pulses.retain(|pulse| pulse.strong_count() > 0);
        pulses.iter().filter_map(Weak::upgrade).collect()
    }

    /// The task with a pulse, and with an alarm for when it panics, or ends before `may_end` says that it may.
    pub(super) fn watch<E, F>(
        &self,
        name: &'static str,
        may_end: E,
        task: F,
    ) -> impl Future<Output = ()> + Send + use<E, F>
    where
        E: Fn() -> bool + Send,
        F: Future<Output = ()> + Send,
    {
        let pulse = Arc::new(Pulse { name, turns: AtomicU64::new(0), polls: AtomicU64::new(0) });
        self.0.pulses.lock().push(Arc::downgrade(&pulse));
        let mut task = Box::pin(PULSE.scope(Arc::clone(&pulse), task));
        let vitals = self.clone();
        poll_fn(move |cx| {
            let alarm = Alarm { vitals: &vitals, name };
            #[cfg(feature = "sabotage")]
            if crate::sabotage::strikes(name) {
                pulse.turns.fetch_or(1, Ordering::Relaxed);
                alarm.disarm();
                return Poll::Pending;
            }
            pulse.polls.fetch_add(1, Ordering::Relaxed);
            let polled = task.as_mut().poll(cx);
            pulse.polls.fetch_add(1, Ordering::Relaxed);
            if polled == Poll::Pending || may_end() {
                alarm.disarm();
            }
            polled
        })
    }

    /// The task with an alarm for when it panics.
    pub(super) fn guard<F>(&self, name: &'static str, task: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future<Output = ()> + Send,
    {
        let (mut task, vitals) = (Box::pin(task), self.clone());
        poll_fn(move |cx| {
            let alarm = Alarm { vitals: &vitals, name };
            let polled = task.as_mut().poll(cx);
            alarm.disarm();
            polled
        })
    }

    /// Runs what must not panic and is no task: the loop of a thread.
    pub fn guarded(&self, name: &'static str, work: impl FnOnce()) {
        let alarm = Alarm { vitals: self, name };
        work();
        alarm.disarm();
    }
}

/// Rings unless it is disarmed, also when the stack unwinds.
struct Alarm<'a> {
    vitals: &'a Vitals,
    name: &'static str,
}

impl Alarm<'_> {
    fn disarm(self) {
        // It owns nothing.
        std::mem::forget(self);
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.vitals.fail(Cause::Ended(self.name));
    }
}

/// What shows that a vital task goes round. Both counters are odd while it is at something, which must not last.
#[derive(Debug)]
pub struct Pulse {
    name: &'static str,
    /// Of its loop; even while that waits for something to do, or has never said anything.
    turns: AtomicU64,
    /// Of its future.
    polls: AtomicU64,
}

impl Pulse {
    /// The task's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// How often its loop came round; even while it waits for something to do.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// How often its future was entered or left; odd while it is within.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }
}

tokio::task_local! {
    static PULSE: Arc<Pulse>;
}

/// The loop of the vital task that says so has come round once more, and is at work until it says so again or
/// [`rest`]s. For nobody, outside a vital task.
pub fn beat() {
    // Only the task itself writes.
    let _ = PULSE.try_with(|pulse| pulse.turns.store((pulse.turns() | 1) + 2, Ordering::Relaxed));
}

/// The loop of the vital task that says so waits for something to do, for as long as that takes.
pub fn rest() {
    let _ = PULSE.try_with(|pulse| pulse.turns.store((pulse.turns() + 2) & !1, Ordering::Relaxed));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_shows_whether_it_is_at_work() {
        let vitals = Vitals::default();
        let (seen, told) = (vitals.clone(), Vitals::default());
        let look = move || seen.pulses().first().map(|pulse| (pulse.turns(), pulse.polls()));
        let task = async {
            assert_eq!(look(), Some((0, 1)), "who has said nothing is not watched");
            beat();
            beat();
            assert_eq!(look(), Some((5, 1)));
            rest();
            assert_eq!(look(), Some((6, 1)));
            tokio::task::yield_now().await;
            beat();
            assert_eq!(look(), Some((9, 3)));
        };
        vitals.watch("fanout", || true, task).await;
        assert!(vitals.pulses().is_empty() && !vitals.has_failed());
        beat();
        drop(told);
    }

    #[tokio::test]
    async fn whoever_is_silenced_is_so_before_anybody_hears_of_the_failure() {
        let vitals = Vitals::default();
        let (order, known) = (Arc::new(Mutex::new(Vec::new())), vitals.clone());
        let silenced = Arc::clone(&order);
        vitals.when_failed(move || silenced.lock().push(known.has_failed()));
        vitals.fail(Cause::Stalled);
        vitals.fail(Cause::Ended("late"));
        assert_eq!((order.lock().as_slice(), vitals.cause()), (&[false][..], Some(Cause::Stalled)));
        let late = Arc::clone(&order);
        vitals.when_failed(move || late.lock().push(true));
        assert_eq!(order.lock().as_slice(), [false, true], "who comes later is silenced at once");
        vitals.failed().await;
    }

    #[test]
    fn a_thread_that_panics_is_noticed() {
        let vitals = Vitals::default();
        vitals.guarded("store-writer", || {});
        assert!(!vitals.has_failed());
        let thread = {
            let vitals = vitals.clone();
            std::thread::spawn(move || vitals.guarded("store-writer", || panic!("planted")))
        };
        assert!(thread.join().is_err());
        assert_eq!(vitals.cause(), Some(Cause::Ended("store-writer")));
    }
}
