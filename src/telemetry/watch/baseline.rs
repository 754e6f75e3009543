//! What a number usually is: an average that forgets in minutes, and learns slowly while its alarm is on. Pure.

/// How long it takes to forget: a level that doubles within less than about this is news.
const FORGETS_IN_MS: f64 = 300_000.0;
/// How long it learns before it says anything: players who come back after a start are no news.
const LEARNS_FOR_MS: u64 = 300_000;
/// How much more the latest counts than those before it, at the beginning: a level that rises from nothing is followed
/// closely.
const EAGER: f64 = 3.0;
/// How many times as slowly it learns while its alarm is on.
const SLOWER: u64 = 10;
/// An alarm that has been on for so long is how it is now: the baseline begins anew.
const GIVES_UP_AFTER_MS: u64 = 600_000;
/// The most that one value counts for, however long ago the one before was: after a quiet night one of them is not all.
const STEP_MAX_MS: u64 = 2_000;

/// The baseline of one number.
#[derive(Debug, Clone, Default)]
pub(super) struct Baseline {
    value: f64,
    learnt_ms: u64,
    unusual_ms: u64,
    last_ms: Option<u64>,
}

impl Baseline {
    /// What the number usually is; `None` while too little is known.
    pub(super) fn value(&self) -> Option<f64> {
        (self.learnt_ms >= LEARNS_FOR_MS).then_some(self.value)
    }

    /// The number as it is now; whether its alarm is on, or may soon be.
    pub(super) fn learn(&mut self, value: f64, is_unusual: bool, now_ms: u64) {
        let passed_ms = self.last_ms.map_or(0, |last_ms| now_ms.saturating_sub(last_ms)).min(STEP_MAX_MS);
        self.last_ms = Some(now_ms);
        self.unusual_ms = if is_unusual { self.unusual_ms.saturating_add(passed_ms) } else { 0 };
        if self.unusual_ms >= GIVES_UP_AFTER_MS {
            *self = Self { last_ms: self.last_ms, ..Self::default() };
            return;
        }
        let passed_ms = if is_unusual { passed_ms / SLOWER } else { passed_ms };
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

    /// So many seconds of 100, from the first on.
    fn of_a_hundred(seconds: u64) -> Baseline {
        let mut baseline = Baseline::default();
        (0..=seconds).for_each(|second| baseline.learn(100.0, false, second * 1_000));
        baseline
    }

    #[test]
    fn it_says_nothing_before_it_has_learnt_and_forgets_in_minutes() {
        assert_eq!(of_a_hundred(299).value(), None);
        let mut baseline = of_a_hundred(300);
        assert_eq!(baseline.value(), Some(100.0));
        for second in 301..=2_500 {
            baseline.learn(200.0, false, second * 1_000);
        }
        assert!(baseline.value().unwrap() > 195.0, "{baseline:?}");
    }

    #[test]
    fn it_learns_a_tenth_as_fast_while_its_alarm_is_on() {
        let (mut calm, mut rung) = (of_a_hundred(900), of_a_hundred(900));
        (901..=930).for_each(|second| calm.learn(300.0, false, second * 1_000));
        (901..=1_200).for_each(|second| rung.learn(300.0, true, second * 1_000));
        let (calm, rung) = (calm.value().unwrap(), rung.value().unwrap());
        assert!(rung > 110.0 && (calm - rung).abs() < 1.0, "{calm} {rung}");
    }

    #[test]
    fn what_rings_for_ten_minutes_is_how_it_is_now() {
        let mut baseline = of_a_hundred(400);
        (401..=999).for_each(|second| baseline.learn(300.0, true, second * 1_000));
        assert!(baseline.value().is_some_and(|value| value < 200.0), "{baseline:?}");
        baseline.learn(300.0, true, 1_000_000);
        assert_eq!(baseline.value(), None);
        (1_001..=1_301).for_each(|second| baseline.learn(300.0, false, second * 1_000));
        assert_eq!(baseline.value(), Some(300.0));
    }

    #[test]
    fn one_value_after_a_quiet_night_is_not_all_of_it() {
        let mut baseline = of_a_hundred(900);
        baseline.learn(1_000.0, false, 30_000_000);
        assert!(baseline.value().is_some_and(|value| value < 110.0), "{baseline:?}");
    }
}
