//! When refusals become abuse: strikes within a window. Lives in each link. Pure.

use crate::clock::Now;

/// Counts strikes in a window that opens with the first of them and closes a fixed time later; the next strike
/// opens another. So a link that draws fewer than the most in any window is never closed, and one that draws twice
/// the most always is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Abuse {
    strikes: u32,
    /// When the window opened: the low bits of the monotonic clock, which is enough to measure seconds.
    opened_ms: u32,
}

impl Abuse {
    /// Counts one strike; whether it is one too many: `strikes_max` within `window_ms`.
    #[must_use]
    pub fn strike(&mut self, strikes_max: u32, window_ms: u32, now: Now) -> bool {
        #[allow(clippy::cast_possible_truncation, reason = "the low bits are all that is wanted")]
        let now_ms = now.mono_ms as u32;
        if self.strikes == 0 || now_ms.wrapping_sub(self.opened_ms) >= window_ms {
            *self = Self { strikes: 0, opened_ms: now_ms };
        }
        self.strikes = self.strikes.saturating_add(1);
        self.strikes >= strikes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: 0 }
    }

    #[test]
    fn strikes_spread_over_windows_are_forgiven() {
        let mut abuse = Abuse::default();
        for n in 0..100 {
            assert!(!abuse.strike(3, 1_000, at(n * 500)), "strike {n}");
        }
    }

    #[test]
    fn the_last_strike_of_a_window_closes() {
        let mut abuse = Abuse::default();
        assert!(!abuse.strike(3, 1_000, at(0)));
        assert!(!abuse.strike(3, 1_000, at(500)));
        assert!(abuse.strike(3, 1_000, at(999)));
    }

    #[test]
    fn one_strike_may_be_enough() {
        assert!(Abuse::default().strike(1, 1_000, at(7)));
    }

    #[test]
    fn the_clock_may_pass_its_low_bits() {
        let mut abuse = Abuse::default();
        let end = u64::from(u32::MAX);
        assert!(!abuse.strike(2, 1_000, at(end)));
        assert!(abuse.strike(2, 1_000, at(end + 500)));
        let mut abuse = Abuse::default();
        assert!(!abuse.strike(2, 1_000, at(end)));
        assert!(!abuse.strike(2, 1_000, at(end + 1_001)));
    }
}
