//! What share of traces is kept: the share of the settings times a boost, which the anomaly watch raises while an alarm is
//! on. `traces` asks whenever something begins; asking costs one relaxed load, and a few shifts where the answer may be yes.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// The share that this process keeps.
pub static RATIO: Ratio = Ratio::of(0.0);

/// Drawn numbers have so many bits.
const BITS: u32 = 63;
/// The most that a share is multiplied by.
pub const BOOST_MAX: f64 = 1_000.0;

/// A share that can be changed while it is asked for.
#[derive(Debug)]
pub struct Ratio {
    /// The bits of an f64 each.
    base: AtomicU64,
    boost: AtomicU64,
    /// Numbers below it are kept.
    threshold: AtomicU64,
}

impl Ratio {
    /// This share, 0 to 1, without a boost.
    #[must_use]
    pub const fn of(base: f64) -> Self {
        let base = within(base, 0.0, 1.0);
        Self {
            base: AtomicU64::new(base.to_bits()),
            boost: AtomicU64::new(1.0_f64.to_bits()),
            threshold: AtomicU64::new(threshold(base)),
        }
    }

    /// The share of the settings, 0 to 1; what lies outside is taken for the nearer end.
    pub fn set_base(&self, ratio: f64) {
        self.base.store(within(ratio, 0.0, 1.0).to_bits(), Ordering::Relaxed);
        self.settle();
    }

    /// What it is multiplied by from now on, 1 to [`BOOST_MAX`]; 1 is as the settings say. A share of 0 stays 0.
    pub fn set_boost(&self, factor: f64) {
        self.boost.store(within(factor, 1.0, BOOST_MAX).to_bits(), Ordering::Relaxed);
        self.settle();
    }

    /// The share in force, 0 to 1.
    #[must_use]
    pub fn now(&self) -> f64 {
        let of = |bits: &AtomicU64| f64::from_bits(bits.load(Ordering::Relaxed));
        (of(&self.base) * of(&self.boost)).min(1.0)
    }

    /// Two who change it at once may leave it at either one's: the next change settles that.
    fn settle(&self) {
        self.threshold.store(threshold(self.now()), Ordering::Relaxed);
    }

    /// Whether this one is kept, by a number drawn at random: whoever draws the same decides the same.
    #[must_use]
    pub fn takes(&self, drawn: u64) -> bool {
        drawn >> 1 < self.threshold.load(Ordering::Relaxed)
    }

    /// Whether the next one is kept. Draws only where that is not known beforehand.
    #[must_use]
    pub fn takes_next(&self) -> bool {
        match self.threshold.load(Ordering::Relaxed) {
            0 => false,
            threshold => draw() >> 1 < threshold,
        }
    }
}

/// Of all numbers that can be drawn, so many are this share.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of 2^63, between 0 and that"
)]
const fn threshold(share: f64) -> u64 {
    let all = 1_u64 << BITS;
    if share >= 1.0 { all } else { (share * all as f64) as u64 }
}

const fn within(value: f64, min: f64, max: f64) -> f64 {
    if value.is_nan() { min } else { value.clamp(min, max) }
}

/// The next number of this thread: xorshift64*, good enough to pick some, and no secret: who knows one number knows the
/// next.
fn draw() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(rand::random::<u64>() | 1);
    }
    STATE.with(|state| {
        let mut next = state.get();
        next ^= next >> 12;
        next ^= next << 25;
        next ^= next >> 27;
        state.set(next);
        next.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(ratio: &Ratio) -> usize {
        (0..100_000).filter(|_| ratio.takes_next()).count()
    }

    #[test]
    fn about_as_many_are_kept_as_the_share_says() {
        let ratio = Ratio::of(0.0);
        assert_eq!((taken(&ratio), ratio.takes(0)), (0, false));
        ratio.set_base(1.0);
        assert_eq!((taken(&ratio), ratio.takes(u64::MAX)), (100_000, true));
        ratio.set_base(0.01);
        let some = taken(&ratio);
        assert!((700..1_400).contains(&some), "{some}");
        let drawn = (0..100_000).filter(|_| ratio.takes(rand::random())).count();
        assert!((700..1_400).contains(&drawn), "{drawn}");
    }

    #[test]
    fn a_boost_multiplies_within_bounds_and_goes_again() {
        let ratio = Ratio::of(0.0);
        ratio.set_base(0.01);
        ratio.set_boost(10.0);
        assert!((ratio.now() - 0.1).abs() < 1e-9);
        let more = taken(&ratio);
        assert!((9_000..11_000).contains(&more), "{more}");
        ratio.set_boost(f64::INFINITY);
        assert!(ratio.now() >= 1.0 && taken(&ratio) == 100_000);
        for none in [1.0, 0.0, -7.0, f64::NAN] {
            ratio.set_boost(none);
            assert!((ratio.now() - 0.01).abs() < 1e-9, "{none}");
        }
        ratio.set_base(0.0);
        ratio.set_boost(BOOST_MAX);
        assert_eq!(taken(&ratio), 0, "nothing stays nothing");
        for wrong in [f64::NAN, -1.0] {
            ratio.set_base(wrong);
            assert_eq!(taken(&ratio), 0, "{wrong}");
        }
    }
}
