//! How long to stay away after a lost link: what the server asked for, else full jitter. Pure; asked by the driver.

use std::time::Duration;

/// The mean of the first wait is half of this.
const BASE_MS: u64 = 500;
/// No wait is longer, unless the server asked for it.
const MAX_MS: u64 = 30_000;

/// Counts attempts that did not reach `ready`.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// `ready` was reached.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait before the next attempt; `random` is uniform in 0 to 1.
    pub(crate) fn next(&mut self, retry_after_ms: Option<u64>, random: f64) -> Duration {
        let bound = BASE_MS.saturating_mul(1 << self.failures.min(16)).min(MAX_MS);
        self.failures = self.failures.saturating_add(1);
        match retry_after_ms {
            Some(wait) => Duration::from_millis(wait),
            None => Duration::from_millis(bound).mul_f64(random.clamp(0.0, 1.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute_and_start_anew_after_ready() {
        let mut backoff = Backoff::default();
        let longest: Vec<u128> = (0..9).map(|_| backoff.next(None, 1.0).as_millis()).collect();
        assert_eq!(longest, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(backoff.next(None, 0.0), Duration::ZERO);
        backoff.reset();
        assert_eq!(backoff.next(None, 1.0).as_millis(), 500);
    }

    #[test]
    fn what_the_server_asks_for_counts() {
        assert_eq!(Backoff::default().next(Some(40_000), 0.0).as_millis(), 40_000);
    }
}
