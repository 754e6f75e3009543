//! How values are spread over the steps of a histogram: what has come in between two looks, and below what so many of it
//! lie. Adds up over nodes as it does over time. Pure.

use serde::{Deserialize, Serialize};

/// How many values lie at or below each step, the lowest step first; the last step is infinity, and counts all.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Spread(Vec<(f64, u64)>);

impl Spread {
    /// Counts more at a step, as one series of a histogram says it.
    pub fn add(&mut self, step: f64, count: u64) {
        match self.0.iter_mut().find(|(known, _)| known.total_cmp(&step).is_eq()) {
            Some((_, present)) => *present = present.saturating_add(count),
            None => {
                let place = self.0.partition_point(|(known, _)| *known < step);
                self.0.insert(place, (step, count));
            }
        }
    }

    /// Counts others' as well, of the same steps.
    pub fn add_all(&mut self, others: &Self) {
        others.0.iter().for_each(|(step, count)| self.add(*step, *count));
    }

    /// What has come in since an older look.
    #[must_use]
    pub fn since(&self, older: &Self) -> Self {
        let before = |step: f64| {
            older.0.iter().find(|(known, _)| known.total_cmp(&step).is_eq()).map_or(0, |(_, count)| *count)
        };
        Self(self.0.iter().map(|(step, count)| (*step, count.saturating_sub(before(*step)))).collect())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.last().map_or(0, |(_, count)| *count)
    }

    /// How many lie above a limit, as far as steps tell: those of its own step are not counted.
    #[must_use]
    pub fn above(&self, limit: f64) -> u64 {
        let step = self.0.iter().find(|(step, _)| *step >= limit);
        self.count().saturating_sub(step.map_or(self.count(), |(_, count)| *count))
    }

    /// Below what this share of all lies, 0 to 1: between two steps as if they were spread evenly there, and above the
    /// last finite one as much as it. `None` if there are none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let rank = share.clamp(0.0, 1.0) * total as f64;
        let (mut below, mut floor) = (0, 0.0);
        for (step, count) in &self.0 {
            if !step.is_finite() {
                break;
            }
            if *count as f64 >= rank && *count > below {
                let part = (rank - below as f64) / (count - below) as f64;
                return Some(floor + (step - floor) * part.clamp(0.0, 1.0));
            }
            (below, floor) = (*count, *step);
        }
        Some(floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(counts: &[(f64, u64)]) -> Spread {
        let mut spread = Spread::default();
        // In any order.
        counts.iter().rev().for_each(|(step, count)| spread.add(*step, *count));
        spread
    }

    #[test]
    fn a_share_of_values_lies_below_what_is_told() {
        let told = spread(&[(0.1, 50), (0.2, 90), (0.5, 100), (f64::INFINITY, 100)]);
        assert_eq!(told.quantile(0.5), Some(0.1));
        assert!((told.quantile(0.7).unwrap() - 0.15).abs() < 1e-9);
        assert!((told.quantile(0.99).unwrap() - 0.47).abs() < 1e-9);
        assert_eq!((told.count(), told.above(0.2), told.above(0.15), told.above(0.5)), (100, 10, 10, 0));
        assert_eq!(Spread::default().quantile(0.5), None);
        let beyond = spread(&[(0.1, 0), (f64::INFINITY, 3)]);
        assert_eq!(beyond.quantile(0.5), Some(0.1), "at least");
        assert_eq!(spread(&[(0.1, 0), (0.2, 4), (f64::INFINITY, 4)]).quantile(0.0), Some(0.1));
    }

    #[test]
    fn what_came_in_between_two_looks_is_what_the_later_one_has_more() {
        let older = spread(&[(0.1, 1), (f64::INFINITY, 2)]);
        let newer = spread(&[(0.1, 4), (0.2, 5), (f64::INFINITY, 7)]);
        assert_eq!(newer.since(&older), spread(&[(0.1, 3), (0.2, 5), (f64::INFINITY, 5)]));
        assert_eq!(newer.since(&Spread::default()), newer);
    }

    #[test]
    fn two_nodes_together_are_as_one() {
        let (mut one, other) =
            (spread(&[(0.1, 1), (f64::INFINITY, 2)]), spread(&[(0.1, 3), (f64::INFINITY, 3)]));
        one.add_all(&other);
        assert_eq!(one, spread(&[(0.1, 4), (f64::INFINITY, 5)]));
    }
}
