//! What the figures of a plot were over the last minutes: so many samples, and no more, in memory alone. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// How far back it reaches. Answers come once a second, so there are about as many samples as seconds.
pub(super) const REACH: Duration = Duration::from_secs(300);
/// However often somebody asks.
const SAMPLES_MAX: usize = 600;

/// The last minutes of a few figures.
#[derive(Debug, Clone, Default)]
pub(super) struct Past(VecDeque<Sample>);

/// What was told at one moment; what was not known is none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Sample {
    /// Since the first look.
    pub(super) at: Duration,
    pub(super) acks: Option<f64>,
    /// ms
    pub(super) applied_p99: Option<f64>,
}

impl Past {
    pub(super) fn add(&mut self, sample: Sample) {
        self.0.push_back(sample);
        while self.0.len() > SAMPLES_MAX
            || self.0.front().is_some_and(|first| sample.at.saturating_sub(first.at) > REACH)
        {
            self.0.pop_front();
        }
    }

    /// So many columns up to `now`, the latest last, of as many seconds each as are needed for all of the reach; the most
    /// that was told in each. None where nothing was.
    pub(super) fn columns(
        &self,
        columns: usize,
        now: Duration,
        figure: impl Fn(&Sample) -> Option<f64>,
    ) -> Vec<Option<f64>> {
        let each = seconds_of(columns);
        // Columns begin at whole multiples, so that what is drawn moves as a whole and does not flicker.
        let (last, count) = (now.as_secs() / each, u64::try_from(columns).unwrap_or(u64::MAX));
        let mut drawn = vec![None; columns];
        for sample in &self.0 {
            let back = last.saturating_sub(sample.at.as_secs() / each);
            let place =
                count.checked_sub(back + 1).and_then(|place| drawn.get_mut(usize::try_from(place).ok()?));
            if let (Some(place), Some(value)) = (place, figure(sample)) {
                *place = Some(place.map_or(value, |before: f64| before.max(value)));
            }
        }
        drawn
    }
}

/// How many seconds a column stands for.
fn seconds_of(columns: usize) -> u64 {
    REACH.as_secs().div_ceil(u64::try_from(columns).unwrap_or(u64::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_s: u64, acks: f64) -> Sample {
        Sample { at: Duration::from_secs(at_s), acks: Some(acks), applied_p99: None }
    }

    #[test]
    fn what_is_older_goes_however_often_somebody_asks() {
        let mut past = Past::default();
        (0..2_000).for_each(|at_s| past.add(sample(at_s, 1.0)));
        assert_eq!(past.0.len(), 301);
        (0..2_000).for_each(|_| past.add(sample(2_000, 1.0)));
        assert_eq!(past.0.len(), SAMPLES_MAX);
    }

    #[test]
    fn a_column_is_as_high_as_its_highest_second_and_empty_where_nothing_was_told() {
        let mut past = Past::default();
        [(0, 1.0), (1, 9.0), (2, 3.0), (20, 4.0), (30, 0.0)]
            .into_iter()
            .for_each(|(at_s, acks)| past.add(sample(at_s, acks)));
        let drawn = past.columns(30, Duration::from_secs(31), |sample| sample.acks);
        assert_eq!(drawn.get(26..), Some(&[Some(9.0), None, Some(4.0), Some(0.0)][..]));
        assert!(drawn.iter().take(26).all(Option::is_none));
        assert_eq!(past.columns(30, Duration::from_secs(31), |sample| sample.applied_p99), [None; 30]);
        assert!(past.columns(0, Duration::ZERO, |sample| sample.acks).is_empty());
    }
}
