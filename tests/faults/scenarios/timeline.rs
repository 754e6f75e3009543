//! What was done and when, on the history's clock: faults with their begin and their healing, and what was noticed between.
//! Written by the run; read by reports, pages and checkers (as incidents).

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use load::audit::Incident;
use serde::Serialize;

/// One moment.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Mark {
    pub(crate) at_us: u64,
    pub(crate) what: String,
}

/// A fault that has begun: what heals it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun(usize);

/// All marks and incidents so far.
pub(crate) struct Timeline {
    began: Instant,
    marks: Mutex<Vec<Mark>>,
    incidents: Mutex<Vec<Incident>>,
}

impl Timeline {
    /// A timeline of a run that began then.
    pub(crate) fn of(began: Instant) -> Self {
        Self { began, marks: Mutex::default(), incidents: Mutex::default() }
    }

    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Something is noticed.
    pub(crate) fn mark(&self, what: impl Into<String>) -> u64 {
        let (at_us, what) = (self.now_us(), what.into());
        #[allow(clippy::cast_precision_loss, reason = "seconds of minutes, for people")]
        let at_s = at_us as f64 / 1e6;
        println!("{at_s:8.3} s  {what}");
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).push(Mark { at_us, what });
        at_us
    }

    /// A fault begins. Until it is healed it lasts to the end.
    pub(crate) fn begin(&self, what: impl Into<String>) -> Begun {
        let what = what.into();
        let begun_us = self.mark(what.clone());
        let mut incidents = self.incidents.lock().unwrap_or_else(PoisonError::into_inner);
        incidents.push(Incident {
            what,
            begun_us,
            healed_us: u64::MAX,
            loses_store: false,
            loses_home: false,
        });
        Begun(incidents.len() - 1)
    }

    /// Its cause is taken away.
    pub(crate) fn heal(&self, begun: Begun, what: impl Into<String>) {
        let at_us = self.mark(what);
        self.incidents.lock().unwrap_or_else(PoisonError::into_inner)[begun.0].healed_us = at_us;
    }

    /// It is over as soon as it has begun: a kill.
    pub(crate) fn strike(&self, what: impl Into<String>) -> Begun {
        let begun = self.begin(what);
        let mut incidents = self.incidents.lock().unwrap_or_else(PoisonError::into_inner);
        incidents[begun.0].healed_us = incidents[begun.0].begun_us;
        begun
    }

    /// The store may have forgotten what it acknowledged.
    pub(crate) fn store_forgets(&self, begun: Begun) {
        self.incidents.lock().unwrap_or_else(PoisonError::into_inner)[begun.0].loses_store = true;
    }

    /// A home may have taken with it what was not stored.
    pub(crate) fn home_forgets(&self, begun: Begun) {
        self.incidents.lock().unwrap_or_else(PoisonError::into_inner)[begun.0].loses_home = true;
    }

    pub(crate) fn marks(&self) -> Vec<Mark> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn incidents(&self) -> Vec<Incident> {
        self.incidents.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
