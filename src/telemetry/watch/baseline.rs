//! What a number usually is: an average that forgets in minutes, and does not learn while its alarm is on. Pure.

/// How long it takes to forget: a level that doubles within less than about this is news.
const FORGETS_IN_MS: f64 = 300_000.0;
/// How long it learns before it says anything.
const LEARNS_FOR_MS: u64 = 60_000;
/// How much more the latest counts than those before it, at the beginning: a level that rises from nothing is followed
/// closely.
const EAGER: f64 = 3.0;
/// An alarm that has been on for so long is how it is now: the baseline begins anew.
const GIVES_UP_AFTER_MS: u64 = 1_800_000;

/// The baseline of one number.
#[derive(Debug, Clone, Default)]
pub(super) struct Baseline {
    value: f64,
    learnt_ms: u64,
    frozen_ms: u64,
    last_ms: Option<u64>,
}

impl Baseline {
    /// What the number usually is; `None` while too little is known.
    pub(super) fn value(&self) -> Option<f64> {
        (self.learnt_ms >= LEARNS_FOR_MS).then_some(self.value)
    }

    /// The number as it is now; whether its alarm is on, or may soon be.
    pub(super) fn learn(&mut self, value: f64, is_unusual: bool, now_ms: u64) {
        let passed_ms = self.last_ms.map_or(0, |last_ms| now_ms.saturating_sub(last_ms));
        self.last_ms = Some(now_ms);
        if is_unusual {
            self.frozen_ms = self.frozen_ms.saturating_add(passed_ms);
            if self.frozen_ms >= GIVES_UP_AFTER_MS {
                *self = Self { last_ms: self.last_ms, ..Self::default() };
            }
            return;
        }
        self.frozen_ms = 0;
        self.learnt_ms = self.learnt_ms.saturating_add(passed_ms);
        let passed = passed_ms as f64;
        let weight = if self.learnt_ms == 0 {
            1.0
        } else {
            (passed / FORGETS_IN_MS).max(EAGER * passed / self.learnt_ms as f64).min(1.0)
        };
        self.value += (value - self.value) * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_nothing_before_it_has_learnt_and_forgets_in_minutes() {
        let mut baseline = Baseline::default();
        for second in 0..60 {
            baseline.learn(100.0, false, second * 1_000);
            assert_eq!(baseline.value(), None, "{second}");
        }
        baseline.learn(100.0, false, 60_000);
        assert_eq!(baseline.value(), Some(100.0));
        for second in 61..=2_000 {
            baseline.learn(200.0, false, second * 1_000);
        }
        assert!(baseline.value().unwrap() > 195.0, "{baseline:?}");
    }

    #[test]
    fn it_does_not_learn_while_its_alarm_is_on_unless_that_lasts_for_ever() {
        let mut baseline = Baseline::default();
        for second in 0..=100 {
            baseline.learn(100.0, false, second * 1_000);
        }
        for second in 101..=1_800 {
            baseline.learn(300.0, true, second * 1_000);
        }
        assert_eq!(baseline.value(), Some(100.0));
        for second in 1_801..=2_000 {
            baseline.learn(300.0, second < 1_902, second * 1_000);
        }
        assert_eq!(baseline.value(), Some(300.0));
    }
}
