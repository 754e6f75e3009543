//! How much of what happens is traced: a base that settings name, and more of it while an alarm is on, when there is
//! something to see. The watch says how much more, whoever begins a trace asks. Two numbers, no lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// The ratio of this process.
pub static RATIO: Ratio = Ratio::of(0.0);

/// A share of all traces: the base, times the boost, one at most.
#[derive(Debug)]
pub struct Ratio {
    /// The bits of a float, as those of the boost.
    base: AtomicU64,
    boost: AtomicU64,
}

impl Ratio {
    /// This base, and no boost.
    #[must_use]
    pub const fn of(base: f64) -> Self {
        Self { base: AtomicU64::new(base.to_bits()), boost: AtomicU64::new(1.0_f64.to_bits()) }
    }

    /// The share of traces that are to be sampled now, 0 to 1.
    #[must_use]
    pub fn now(&self) -> f64 {
        let of = |bits: &AtomicU64| f64::from_bits(bits.load(Ordering::Relaxed));
        (of(&self.base) * of(&self.boost)).clamp(0.0, 1.0)
    }

    /// The share while all is calm, 0 to 1.
    pub fn set_base(&self, base: f64) {
        self.base.store(base.to_bits(), Ordering::Relaxed);
    }

    /// How many times as much from now on; 1: no more than the base.
    pub fn set_boost(&self, boost: f64) {
        self.boost.store(boost.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_sampled_while_it_is_boosted_and_never_more_than_all() {
        let ratio = Ratio::of(0.01);
        assert!((ratio.now() - 0.01).abs() < 1e-12);
        ratio.set_boost(10.0);
        assert!((ratio.now() - 0.1).abs() < 1e-12);
        ratio.set_base(0.5);
        assert!((ratio.now() - 1.0).abs() < 1e-12);
        ratio.set_boost(1.0);
        assert!((ratio.now() - 0.5).abs() < 1e-12);
        assert!(Ratio::of(0.0).now().abs() < 1e-12);
    }
}
