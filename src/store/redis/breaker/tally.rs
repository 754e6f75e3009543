//! Pure: what became of a server's last calls, counted in slots of a tenth of a second over ten seconds: bounded, however
//! many there are. Used by `machine`.

/// How much one slot holds.
const SLOT_MS: u64 = 100;
/// How far back it counts.
pub(super) const WINDOW_MS: u64 = 10_000;
/// The slots of the window, and the one that is filling.
const SLOTS: usize = 101;
/// After so long a call counts as one that nobody answered, whatever its own deadline is: a little before that, so that
/// a silence can be told when it has lasted for a second.
pub(super) const OVERDUE_MS: u64 = 800;
const PENDING_SLOTS: usize = 9;

/// Calls that ended in some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sum {
    pub(super) ended: u32,
    /// Of these, those that came to nothing,
    pub(super) failed: u32,
    /// those that took too long,
    pub(super) slow: u32,
    /// and those that did either.
    pub(super) bad: u32,
}

impl Sum {
    /// More than half of them.
    pub(super) const fn is_most(self, part: u32) -> bool {
        part.saturating_mul(2) > self.ended
    }
}

/// The calls of the last ten seconds.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    slots: [Sum; SLOTS],
    /// The number of the slot that is filling, since the clock's beginning.
    at: u64,
    /// Failures since the last answer.
    failed_in_a_row: u32,
    /// When something was answered last.
    answered_at_ms: u64,
}

impl Tally {
    /// Nothing has ended yet. The time before counts as answered.
    pub(super) fn new(now_ms: u64) -> Self {
        let at = now_ms / SLOT_MS;
        Self { slots: [Sum::default(); SLOTS], at, failed_in_a_row: 0, answered_at_ms: now_ms }
    }

    /// So many calls ended alike.
    pub(super) fn note(&mut self, count: u32, is_failed: bool, is_slow: bool, now_ms: u64) {
        self.advance(now_ms);
        let part = |is_part| if is_part { count } else { 0 };
        if let Some(slot) = self.slots.get_mut(place(self.at, SLOTS)) {
            slot.ended = slot.ended.saturating_add(count);
            slot.failed = slot.failed.saturating_add(part(is_failed));
            slot.slow = slot.slow.saturating_add(part(is_slow));
            slot.bad = slot.bad.saturating_add(part(is_failed || is_slow));
        }
        if is_failed {
            self.failed_in_a_row = self.failed_in_a_row.saturating_add(count);
        } else {
            self.answered(now_ms);
        }
    }

    /// What has failed was so many more in one: they count for a row of failures alone.
    pub(super) fn missed(&mut self, more: u32) {
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(more);
    }

    /// Something was answered, whatever it counts as.
    pub(super) fn answered(&mut self, now_ms: u64) {
        (self.failed_in_a_row, self.answered_at_ms) = (0, now_ms);
    }

    /// What ended in the last so many ms, to a slot.
    pub(super) fn last(&mut self, window_ms: u64, now_ms: u64) -> Sum {
        self.advance(now_ms);
        let slots = (window_ms / SLOT_MS).min(self.at);
        let numbers = (self.at - slots)..=self.at;
        numbers.filter_map(|number| self.slots.get(place(number, SLOTS))).fold(Sum::default(), |sum, slot| {
            Sum {
                ended: sum.ended.saturating_add(slot.ended),
                failed: sum.failed.saturating_add(slot.failed),
                slow: sum.slow.saturating_add(slot.slow),
                bad: sum.bad.saturating_add(slot.bad),
            }
        })
    }

    /// How many failed since the last answer.
    pub(super) const fn failed_in_a_row(&self) -> u32 {
        self.failed_in_a_row
    }

    /// For how long nothing was answered.
    pub(super) const fn silent_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.answered_at_ms)
    }

    fn advance(&mut self, now_ms: u64) {
        let now = now_ms / SLOT_MS;
        let passed = now.saturating_sub(self.at).min(SLOTS as u64);
        for number in 0..passed {
            if let Some(slot) = self.slots.get_mut(place(now - number, SLOTS)) {
                *slot = Sum::default();
            }
        }
        self.at = self.at.max(now);
    }
}

/// Calls under way, by the slot in which each began.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    slots: [u32; PENDING_SLOTS],
    at: u64,
}

impl Pending {
    pub(super) fn new(now_ms: u64) -> Self {
        Self { slots: [0; PENDING_SLOTS], at: now_ms / SLOT_MS }
    }

    /// One begins now; [`Self::overdue`] has been asked.
    pub(super) fn begin(&mut self, now_ms: u64) {
        if let Some(slot) = self.slots.get_mut(place(now_ms / SLOT_MS, PENDING_SLOTS)) {
            *slot = slot.saturating_add(1);
        }
    }

    /// A call that began then has ended: whether it was not overdue yet. One that was has been counted.
    pub(super) fn end(&mut self, began_ms: u64) -> bool {
        let number = began_ms / SLOT_MS;
        let is_known = number + PENDING_SLOTS as u64 > self.at;
        if is_known && let Some(slot) = self.slots.get_mut(place(number, PENDING_SLOTS)) {
            *slot = slot.saturating_sub(1);
        }
        is_known
    }

    /// How many have been under way for so long, to a slot; [`Self::overdue`] has been asked.
    pub(super) fn waiting(&self, at_least_ms: u64) -> u32 {
        let Some(youngest) = self.at.checked_sub(at_least_ms / SLOT_MS) else { return 0 };
        let oldest = (self.at + 1).saturating_sub(PENDING_SLOTS as u64);
        let slots = (oldest..=youngest).filter_map(|number| self.slots.get(place(number, PENDING_SLOTS)));
        slots.fold(0, |sum, slot| sum.saturating_add(*slot))
    }

    /// How many have become overdue.
    pub(super) fn overdue(&mut self, now_ms: u64) -> u32 {
        let now = now_ms / SLOT_MS;
        let passed = now.saturating_sub(self.at).min(PENDING_SLOTS as u64);
        let mut overdue = 0_u32;
        for number in 0..passed {
            if let Some(slot) = self.slots.get_mut(place(now - number, PENDING_SLOTS)) {
                overdue = overdue.saturating_add(std::mem::take(slot));
            }
        }
        self.at = self.at.max(now);
        overdue
    }
}

/// Where the slot of this number lies in a ring.
fn place(number: u64, slots: usize) -> usize {
    usize::try_from(number % slots as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_is_counted_for_ten_seconds_and_then_forgotten() {
        let mut tally = Tally::new(50_000);
        tally.note(3, true, true, 50_000);
        tally.note(2, false, true, 50_450);
        tally.note(1, false, false, 50_500);
        let all = Sum { ended: 6, failed: 3, slow: 5, bad: 5 };
        assert_eq!(tally.last(WINDOW_MS, 50_500), all);
        assert_eq!(tally.last(400, 50_500), Sum { ended: 3, failed: 0, slow: 2, bad: 2 });
        assert_eq!(tally.last(WINDOW_MS, 60_099), all);
        assert_eq!(tally.last(WINDOW_MS, 60_100), Sum { ended: 3, failed: 0, slow: 2, bad: 2 });
        assert_eq!(tally.last(WINDOW_MS, 60_600), Sum::default());
        tally.note(1, true, false, 90_000_000);
        assert_eq!(tally.last(WINDOW_MS, 90_000_000), Sum { ended: 1, failed: 1, slow: 0, bad: 1 });
    }

    #[test]
    fn an_answer_ends_a_row_of_failures_however_late_it_comes() {
        let mut tally = Tally::new(1_000);
        tally.note(2, true, false, 1_500);
        assert_eq!((tally.failed_in_a_row(), tally.silent_ms(2_000)), (2, 1_000));
        tally.note(1, false, true, 2_100);
        assert_eq!((tally.failed_in_a_row(), tally.silent_ms(2_100)), (0, 0));
    }

    #[test]
    fn what_is_under_way_waits_until_it_ends_or_is_overdue() {
        let mut pending = Pending::new(0);
        pending.begin(50);
        assert_eq!(pending.overdue(300), 0);
        pending.begin(300);
        assert_eq!(pending.overdue(550), 0);
        assert_eq!((pending.waiting(500), pending.waiting(200), pending.waiting(600)), (1, 2, 0));
        assert_eq!(pending.overdue(950), 1);
        assert_eq!(pending.waiting(500), 1);
        assert!(pending.end(300));
        assert_eq!(pending.waiting(0), 0);
    }

    #[test]
    fn a_call_is_overdue_once_and_after_its_time() {
        let mut pending = Pending::new(0);
        pending.begin(50);
        assert_eq!(pending.overdue(450), 0);
        pending.begin(450);
        assert_eq!(pending.overdue(849), 0);
        assert!(pending.end(450), "in time");
        assert_eq!(pending.overdue(900), 1);
        assert!(!pending.end(50), "counted already");
        assert_eq!(pending.overdue(9_999), 0);
        pending.begin(9_999);
        assert_eq!(pending.overdue(1_000_000), 1);
    }
}
