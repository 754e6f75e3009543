//! When refusals become abuse: strikes within a window. Lives in each link. Pure.
//! What was sent before the first refusal could be read is no defiance, so a row of refusals counts less than single ones,
//! and each of a row is told to wait for its turn behind the others: whoever does is refused no more.

use crate::clock::Now;

/// Refusals in a row that are one strike.
const ROW: u16 = 4;
/// The longest wait that is told, in ms.
const WAIT_MAX_MS: u32 = 10_000;

/// Counts strikes in a window that opens with the first of them and closes a fixed time later; the next strike
/// opens another. So a link that draws fewer than the most in any window is never closed, and one that draws twice
/// the most always is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Abuse {
    strikes: u16,
    /// Refusals since something was let through.
    row: u16,
    /// When the window opened: the low bits of the monotonic clock, which is enough to measure seconds.
    opened_ms: u32,
}

impl Abuse {
    /// Something was let through.
    pub const fn pass(&mut self) {
        self.row = 0;
    }

    /// How long the one that was refused last has to wait, if one alone had to wait for `alone_ms`.
    #[must_use]
    pub fn wait_ms(&self, alone_ms: u32) -> u32 {
        alone_ms.saturating_mul(self.row.max(1).into()).min(WAIT_MAX_MS.max(alone_ms))
    }

    /// Counts one refusal; whether it makes one strike too many: `strikes_max` within `window_ms`.
    #[must_use]
    pub fn strike(&mut self, strikes_max: u32, window_ms: u32, now: Now) -> bool {
        // However long a row is, each fourth counts.
        self.row = self.row.checked_add(1).unwrap_or(u16::MAX - ROW);
        if self.row % ROW != 1 {
            return false;
        }
        #[allow(clippy::cast_possible_truncation, reason = "the low bits are all that is wanted")]
        let now_ms = now.mono_ms as u32;
        if self.strikes == 0 || now_ms.wrapping_sub(self.opened_ms) >= window_ms {
            (self.strikes, self.opened_ms) = (0, now_ms);
        }
        self.strikes = self.strikes.saturating_add(1);
        u32::from(self.strikes) >= strikes_max
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
            abuse.pass();
            assert!(!abuse.strike(3, 1_000, at(n * 500)), "strike {n}");
        }
    }

    #[test]
    fn the_last_strike_of_a_window_closes() {
        let mut abuse = Abuse::default();
        for (at_ms, is_last) in [(0, false), (500, false), (999, true)] {
            abuse.pass();
            assert_eq!(abuse.strike(3, 1_000, at(at_ms)), is_last);
        }
    }

    #[test]
    fn a_row_of_refusals_counts_less_and_each_waits_behind_the_others() {
        let mut abuse = Abuse::default();
        let (mut waits, mut refused) = (Vec::new(), 0);
        while !abuse.strike(3, 1_000, at(0)) {
            refused += 1;
            waits.push(abuse.wait_ms(16));
        }
        assert_eq!((refused, &waits[..3]), (8, &[16, 32, 48][..]));
        abuse.pass();
        assert!(abuse.strike(3, 1_000, at(0)));
        assert_eq!(abuse.wait_ms(16), 16);
        assert_eq!((abuse.wait_ms(9_000), abuse.wait_ms(90_000)), (9_000, 90_000));
        let _ = abuse.strike(3, 1_000, at(0));
        assert_eq!(abuse.wait_ms(9_000), WAIT_MAX_MS);
    }

    #[test]
    fn one_strike_may_be_enough() {
        assert!(Abuse::default().strike(1, 1_000, at(7)));
    }

    #[test]
    fn the_clock_may_pass_its_low_bits() {
        let mut abuse = Abuse::default();
        let end = u64::from(u32::MAX);
        let strike = |abuse: &mut Abuse, at_ms| {
            abuse.pass();
            abuse.strike(2, 1_000, at(at_ms))
        };
        assert!(!strike(&mut abuse, end));
        assert!(strike(&mut abuse, end + 500));
        let mut abuse = Abuse::default();
        assert!(!strike(&mut abuse, end));
        assert!(!strike(&mut abuse, end + 1_001));
    }
}
