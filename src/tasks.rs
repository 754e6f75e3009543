//! One way to spawn and one way to stop: every task of the house has a name, sees the same stop signal and is
//! waited for. Called by every room that owns a task; `app` stops them. Never holds work itself.

mod vitals;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use vitals::{Cause, Pulse, Vitals, beat, rest};

/// The tasks of one stage of the house; cheap to clone.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    running: Arc<Mutex<Vec<(&'static str, usize)>>>,
    vitals: Vitals,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("running", &*self.running.lock()).finish_non_exhaustive()
    }
}

impl Tasks {
    /// No task yet, and an alarm of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No task yet; those that must live are among these.
    #[must_use]
    pub fn under(vitals: &Vitals) -> Self {
        Self { vitals: vitals.clone(), ..Self::default() }
    }

    /// Starts a task that may end when it likes: a link, a handshake.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let guard = Running::enter(&self.running, name);
        #[allow(clippy::disallowed_methods, reason = "this is the one place that spawns")]
        // Not an async block: that would hold the task's whole state twice, and there is one for each link.
        tokio::spawn(self.tracker.track_future(task.map(move |()| drop(guard))));
    }

    /// Starts a task that may end when it likes and must not panic: if it does, [`Tasks::failed`] says so. For those of
    /// whom others believe that they are still there.
    pub fn spawn_sound<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn(name, self.vitals.guard(name, task));
    }

    /// Starts a task that must live until the house stops: if it panics or ends early, [`Tasks::failed`] says so
    /// and the process must give no more answers. Its loop says [`beat`] and [`rest`], or nobody sees it hang.
    pub fn spawn_vital<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.spawn(name, self.vitals.watch(name, move || stop.is_cancelled(), task));
    }

    /// All that must live, whichever stage it is of.
    #[must_use]
    pub const fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    /// Resolves when the tasks are asked to stop.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Whether the tasks have been asked to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Resolves when a vital task has died, of this stage or another one of the house.
    pub async fn failed(&self) {
        self.vitals.failed().await;
    }

    /// Whether a vital task has died: from then on nothing may be answered.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.vitals.has_failed()
    }

    /// Asks all tasks to stop and waits, at most `deadline`; the names of those that are late are logged and returned.
    pub async fn stop(&self, deadline: Duration) -> Vec<&'static str> {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok() {
            return Vec::new();
        }
        let late: Vec<_> =
            self.running.lock().iter().filter(|(_, count)| *count > 0).map(|(name, _)| *name).collect();
        tracing::warn!(operation = "stop", ?late, "tasks are late");
        late
    }
}

/// Counts a running task by name for as long as it lives.
struct Running {
    running: Arc<Mutex<Vec<(&'static str, usize)>>>,
    name: &'static str,
}

impl Running {
    fn enter(running: &Arc<Mutex<Vec<(&'static str, usize)>>>, name: &'static str) -> Self {
        let mut counts = running.lock();
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
        Self { running: Arc::clone(running), name }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some((_, count)) = self.running.lock().iter_mut().find(|(known, _)| *known == self.name) {
            *count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_vital_task_that_panics_is_noticed() {
        let tasks = Tasks::new();
        tasks.spawn_vital("flush", async { panic!("planted") });
        tokio::time::timeout(Duration::from_secs(5), tasks.failed()).await.expect("the alarm");
        assert_eq!(tasks.vitals().cause(), Some(Cause::Ended("flush")));
    }

    #[tokio::test]
    async fn a_vital_task_that_ends_is_noticed_by_every_stage_of_its_house_and_one_that_is_stopped_is_not() {
        let vitals = Vitals::default();
        let (upper, lower) = (Tasks::under(&vitals), Tasks::under(&vitals));
        let stopping = upper.clone();
        upper.spawn_vital("notices", async move { stopping.stopping().await });
        assert!(upper.stop(Duration::from_secs(5)).await.is_empty());
        assert!(!lower.has_failed());
        lower.spawn_vital("keeper", async {});
        tokio::time::timeout(Duration::from_secs(5), upper.failed()).await.expect("the alarm");
        assert!(!Tasks::new().has_failed());
    }

    #[tokio::test]
    async fn a_sound_task_may_end_and_not_panic() {
        let tasks = Tasks::new();
        tasks.spawn_sound("peer_link", async {});
        tasks.stop(Duration::from_secs(5)).await;
        assert!(!tasks.has_failed());
        tasks.spawn_sound("peer_link", async { panic!("planted") });
        tokio::time::timeout(Duration::from_secs(5), tasks.failed()).await.expect("the alarm");
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_task_is_named() {
        let tasks = Tasks::new();
        tasks.spawn("prompt", async {});
        tasks.spawn("stuck", std::future::pending());
        assert_eq!(tasks.stop(Duration::from_secs(1)).await, ["stuck"]);
        assert!(!tasks.has_failed());
    }
}
