//! One coarse timer wheel for what would else be a timer per session: expiry, grace, touch, heartbeats. Pure: `now`
//! is an argument. Used by `home::expiry` and `hub`. An entry is never cancelled: whoever takes it looks again.

use std::collections::BTreeMap;

/// Entries by the tick at which they are due.
#[derive(Debug)]
pub struct Wheel<T> {
    tick_ms: u64,
    slots: BTreeMap<u64, Vec<T>>,
}

impl<T> Wheel<T> {
    /// A wheel that rounds up to `tick_ms`.
    #[must_use]
    pub const fn new(tick_ms: u64) -> Self {
        Self { tick_ms, slots: BTreeMap::new() }
    }

    /// Due at `at_ms`, at the latest one tick later.
    pub fn insert(&mut self, at_ms: u64, entry: T) {
        self.slots.entry(at_ms.div_ceil(self.tick_ms)).or_default().push(entry);
    }

    /// Takes one slot of entries that are due, the oldest first; empty when none is.
    pub fn due(&mut self, now_ms: u64) -> Vec<T> {
        match self.slots.first_entry() {
            Some(slot) if *slot.key() <= now_ms / self.tick_ms => slot.remove(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_due_early_and_all_is_due_one_tick_late() {
        let mut wheel = Wheel::new(100);
        for at in [1, 100, 101, 250] {
            wheel.insert(at, at);
        }
        assert!(wheel.due(99).is_empty());
        assert_eq!(wheel.due(100), [1, 100]);
        assert!(wheel.due(199).is_empty());
        assert_eq!(wheel.due(1000), [101]);
        assert_eq!(wheel.due(1000), [250]);
        assert!(wheel.due(1000).is_empty());
    }
}
