//! What was done and when, on the history's clock: faults with their begin and their healing, and what was noticed between.
//! Written by the run; read by reports, pages and checkers (as incidents).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::audit::Incident;

/// One moment.
#[derive(Debug, Clone, Serialize)]
pub struct Mark {
    /// When, microseconds since the run began.
    pub at_us: u64,
    /// What was done or noticed.
    pub what: String,
}

/// A fault that has begun: what heals it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun(usize);

/// All marks and incidents so far.
#[derive(Debug)]
pub struct Timeline {
    began: Instant,
    say: fn(&str),
    marks: Mutex<Vec<Mark>>,
    incidents: Mutex<Vec<Incident>>,
}

impl Timeline {
    /// A timeline of a run that began then. What happens is said, too, a line at a time.
    #[must_use]
    pub fn of(began: Instant, say: fn(&str)) -> Self {
        Self { began, say, marks: Mutex::default(), incidents: Mutex::default() }
    }

    /// Microseconds since the run began.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Something is noticed, and said. When, in microseconds since the run began.
    pub fn mark(&self, what: impl Into<String>) -> u64 {
        let (at_us, what) = (self.now_us(), what.into());
        #[allow(clippy::cast_precision_loss, reason = "seconds of minutes, for people")]
        let at_s = at_us as f64 / 1e6;
        (self.say)(&format!("{at_s:8.3} s  {what}"));
        lock(&self.marks).push(Mark { at_us, what });
        at_us
    }

    /// A fault begins. Until it is healed it lasts to the end.
    pub fn begin(&self, what: impl Into<String>) -> Begun {
        let what = what.into();
        let begun_us = self.mark(what.clone());
        let mut incidents = lock(&self.incidents);
        incidents.push(Incident { what, begun_us, healed_us: u64::MAX, ..Incident::default() });
        Begun(incidents.len() - 1)
    }

    /// Its cause is taken away.
    pub fn heal(&self, begun: Begun, what: impl Into<String>) {
        let at_us = self.mark(what);
        self.change(begun, |incident| incident.healed_us = at_us);
    }

    /// For how long it has lasted until now.
    pub fn lasted(&self, begun: Begun) -> Duration {
        let begun_us = lock(&self.incidents).get(begun.0).map_or(0, |incident| incident.begun_us);
        Duration::from_micros(self.now_us().saturating_sub(begun_us))
    }

    /// It is over as soon as it has begun: a kill.
    pub fn strike(&self, what: impl Into<String>) -> Begun {
        let begun = self.begin(what);
        self.change(begun, |incident| incident.healed_us = incident.begun_us);
        begun
    }

    /// The store may have forgotten what it acknowledged.
    pub fn store_forgets(&self, begun: Begun) {
        self.change(begun, |incident| incident.loses_store = true);
    }

    /// A home may have taken with it what was not stored.
    pub fn home_forgets(&self, begun: Begun) {
        self.change(begun, |incident| incident.loses_home = true);
    }

    /// Breaking it has taken until now.
    pub fn broken(&self, begun: Begun) {
        let at_us = self.now_us();
        self.change(begun, |incident| incident.broken_us = at_us);
    }

    /// It is called so, now that more is known of it.
    pub fn call(&self, begun: Begun, what: String) {
        self.change(begun, |incident| incident.what = what);
    }

    /// The run is broken off, and nobody waits for what comes after it.
    pub fn leave_alone(&self, begun: Begun) {
        self.change(begun, |incident| incident.left_alone = true);
    }

    fn change(&self, begun: Begun, change: impl FnOnce(&mut Incident)) {
        // Nothing is ever taken out.
        lock(&self.incidents).get_mut(begun.0).map(change);
    }

    /// What was done and noticed so far, in order.
    pub fn marks(&self) -> Vec<Mark> {
        lock(&self.marks).clone()
    }

    /// What was broken so far, in order.
    pub fn incidents(&self) -> Vec<Incident> {
        lock(&self.incidents).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
