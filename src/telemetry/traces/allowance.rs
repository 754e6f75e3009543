//! How many spans are kept only for what became of them: so many a second, and as many at once after a quiet second. Pure;
//! one relaxed exchange, and no lock (GCRA, the leaky bucket of ATM's I.371).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// So many a second.
pub(super) const A_SECOND: u64 = 200;
/// What one uses up, and what may be used up at once (ns).
const EACH: u64 = BURST / A_SECOND;
const BURST: u64 = 1_000_000_000;

/// What is left of them.
#[derive(Debug)]
pub(super) struct Allowance {
    began: Instant,
    /// When all that were taken are paid for (ns since it began).
    paid_at: AtomicU64,
}

impl Allowance {
    pub(super) const fn new(now: Instant) -> Self {
        Self { began: now, paid_at: AtomicU64::new(0) }
    }

    /// Takes one. `false`: there is none left now.
    pub(super) fn take(&self, now: Instant) -> bool {
        let since: Duration = now.saturating_duration_since(self.began);
        let now = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let pay = |paid_at: u64| {
            let next = paid_at.max(now).saturating_add(EACH);
            (next <= now.saturating_add(BURST)).then_some(next)
        };
        self.paid_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_taken_a_second_and_no_more_are_saved_up() {
        let began = Instant::now();
        let allowance = Allowance::new(began);
        let taken = |at: Duration| (0..1_000).filter(|_| allowance.take(began + at)).count();
        let second = Duration::from_secs(1);
        assert_eq!(taken(Duration::ZERO), 200);
        assert_eq!(taken(second / 2), 100);
        assert_eq!(taken(second / 2), 0);
        assert_eq!(taken(second * 60), 200);
        // A clock that was read a moment ago takes nothing away.
        assert_eq!(taken(second * 59), 0);
        assert_eq!(taken(second * 61), 200);
    }
}
