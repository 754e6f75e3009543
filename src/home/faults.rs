//! Trouble with the store, as something that begins and ends, however many shards it concerns: what the store said last is
//! kept by whoever asked, and `tidings` tells it. Never decides anything.

use parking_lot::Mutex;

use crate::store::StoreError;

/// So long calls fail before it is told: one that fails alone is nobody's trouble.
const TELL_AFTER_MS: u64 = 500;

/// What the store said last to a call that came to nothing.
#[derive(Default)]
pub(super) struct Fault(Mutex<Option<StoreError>>);

impl Fault {
    /// That calls are held back is no trouble of its own: what the store said last before is.
    pub(super) fn note(&self, error: &StoreError) {
        let mut last = self.0.lock();
        if last.is_none() || !matches!(error, StoreError::HeldBack { .. }) {
            *last = Some(error.clone());
        }
    }

    /// As it was said.
    pub(super) fn last(&self) -> Option<StoreError> {
        self.0.lock().clone()
    }

    /// The trouble is over: the next one has words of its own.
    pub(super) fn clear(&self) {
        *self.0.lock() = None;
    }

    /// In words; empty if nothing failed.
    pub(super) fn words(&self) -> String {
        self.0.lock().as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

/// The last word about each kind of call.
#[derive(Default)]
pub(super) struct Faults {
    /// About leases, and what is read under a new one.
    pub(super) leases: Fault,
    /// About commits.
    pub(super) commits: Fault,
}

/// Whether a kind of call fails, as it was told.
#[derive(Debug, Default)]
pub(super) struct Failing {
    since_ms: Option<u64>,
    is_told: bool,
}

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Begun,
    Over,
}

impl Failing {
    /// Calls of so many shards fail now.
    pub(super) fn look(&mut self, shards: usize, now_ms: u64) -> Option<Change> {
        if shards == 0 {
            self.since_ms = None;
            return std::mem::take(&mut self.is_told).then_some(Change::Over);
        }
        let since_ms = *self.since_ms.get_or_insert(now_ms);
        let is_due = now_ms.saturating_sub(since_ms) >= TELL_AFTER_MS && !self.is_told;
        self.is_told |= is_due;
        is_due.then_some(Change::Begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_once_when_it_has_lasted_and_once_when_it_is_over() {
        let mut failing = Failing::default();
        let told: Vec<_> = (0..3_000).step_by(50).filter_map(|now_ms| failing.look(7, now_ms)).collect();
        assert_eq!(told, [Change::Begun]);
        assert_eq!(failing.look(0, 3_000), Some(Change::Over));
        assert_eq!(failing.look(0, 3_050), None);
        // What is over at once is not told.
        for (shards, now_ms) in [(1, 4_000), (0, 4_400), (1, 4_450), (2, 4_900), (0, 4_940)] {
            assert_eq!(failing.look(shards, now_ms), None, "at {now_ms}");
        }
    }
}
