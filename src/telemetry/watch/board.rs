//! Where the watch's latest word stands: `app` writes it once a second, whoever answers operators reads it. Holds one
//! glance, and nothing of what was before.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Alarm, Figures, Reading};

/// What there was to see a second ago at most.
#[derive(Debug, Clone, Default)]
pub struct Glance {
    /// The latest reading.
    pub reading: Reading,
    /// What the last ten seconds came to; `None` before there were two readings.
    pub figures: Option<Figures>,
    /// The alarms that are on.
    pub alarms: Vec<Alarm>,
    /// Nothing is counted, and none can ring.
    pub is_blind: bool,
}

/// The latest glance.
#[derive(Debug, Default)]
pub struct Board(Mutex<Arc<Glance>>);

impl Board {
    /// Takes the place of the one before.
    pub fn put(&self, glance: Glance) {
        *self.0.lock() = Arc::new(glance);
    }

    /// The latest.
    #[must_use]
    pub fn look(&self) -> Arc<Glance> {
        Arc::clone(&self.0.lock())
    }
}
