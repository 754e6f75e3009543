//! What bots see while they see it, summed up for whoever watches a run: latencies of the last seconds, closes, refusals, and
//! promises that are seen broken at once. Written by bots, read by the view. Judges nothing in the end: checkers do, over the
//! whole history.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

/// The longest latency told apart, as in the figures: ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;
/// What all that had to wait for a new link is called here, of whatever kind: the report tells it kind by kind.
pub(crate) const OVER_A_LOST_LINK: &str = "over a lost link";
/// Broken promises kept with who saw them; further ones are only counted.
const BROKEN_KEPT: usize = 50;

/// Shared by all bots of a run. A lock held for a few instructions: bots wait for the network, not for it.
#[derive(Debug, Default)]
pub struct Live {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    kinds: BTreeMap<&'static str, Tally>,
    closes: BTreeMap<String, u64>,
    refused: BTreeMap<&'static str, u64>,
    broken: u64,
    first_broken: Vec<(u32, String)>,
}

#[derive(Debug)]
struct Tally {
    count: u64,
    now: Histogram<u64>,
    before: Histogram<u64>,
}

/// One kind, as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Which.
    pub kind: &'static str,
    /// How many since the run began.
    pub count: u64,
    /// Of the last seconds, ms: half, nine in ten, all but one in a hundred were faster, and the slowest. None where nothing
    /// came.
    pub lately_ms: Option<[f64; 4]>,
}

/// All of it, as it is now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Look {
    /// By kind.
    pub rows: Vec<Row>,
    /// Links that ended, by close code; `own` where the bot did it, `none` without a code.
    pub closes: Vec<(String, u64)>,
    /// Refused, by code.
    pub refused: Vec<(&'static str, u64)>,
    /// Promises seen broken at once.
    pub broken: u64,
    /// The first of them: which bot, and what.
    pub first_broken: Vec<(u32, String)>,
}

impl Live {
    /// Something took so long.
    pub fn took(&self, kind: &'static str, us: u64) {
        let mut seen = self.lock();
        if !seen.kinds.contains_key(kind) {
            let made = || Histogram::new_with_bounds(1, LATENCY_US_MAX, 2);
            let (Ok(now), Ok(before)) = (made(), made()) else { return };
            seen.kinds.insert(kind, Tally { count: 0, now, before });
        }
        if let Some(tally) = seen.kinds.get_mut(kind) {
            tally.count += 1;
            tally.now.saturating_record(us);
        }
    }

    /// A link ended so.
    pub fn closes(&self, name: String) {
        *self.lock().closes.entry(name).or_default() += 1;
    }

    /// Something was refused.
    pub fn refuses(&self, code: &'static str) {
        *self.lock().refused.entry(code).or_default() += 1;
    }

    /// A promise is broken, and a bot has seen it.
    pub fn breaks(&self, bot: u32, what: String) {
        let mut seen = self.lock();
        seen.broken += 1;
        if seen.first_broken.len() < BROKEN_KEPT {
            seen.first_broken.push((bot, what));
        }
    }

    /// From now on what came before this and the last call counts no more for latencies.
    pub fn forget(&self) {
        for tally in self.lock().kinds.values_mut() {
            std::mem::swap(&mut tally.now, &mut tally.before);
            tally.now.reset();
        }
    }

    /// How all stands.
    #[must_use]
    pub fn look(&self) -> Look {
        let seen = self.lock();
        Look {
            rows: seen.kinds.iter().map(|(kind, tally)| tally.row(kind)).collect(),
            closes: seen.closes.iter().map(|(name, count)| (name.clone(), *count)).collect(),
            refused: seen.refused.iter().map(|(code, count)| (*code, *count)).collect(),
            broken: seen.broken,
            first_broken: seen.first_broken.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    #[allow(clippy::cast_precision_loss, reason = "microseconds of minutes")]
    fn row(&self, kind: &'static str) -> Row {
        let mut lately = self.now.clone();
        // Both have the same bounds.
        let _ = lately.add(&self.before);
        let ms = |quantile| lately.value_at_quantile(quantile) as f64 / 1e3;
        let lately_ms = (!lately.is_empty()).then(|| [0.5, 0.9, 0.99, 1.0].map(ms));
        Row { kind, count: self.count, lately_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_of_the_last_seconds_and_counts_of_all() {
        let live = Live::default();
        live.took("read", 90_000);
        live.forget();
        live.took("read", 1_000);
        let row = live.look().rows.remove(0);
        assert_eq!((row.count, row.lately_ms.map(|[.., max]| max > 80.0)), (2, Some(true)));
        live.forget();
        let row = live.look().rows.remove(0);
        assert!(row.lately_ms.is_some_and(|[_, _, p99, _]| (0.9..1.1).contains(&p99)), "{row:?}");
        assert!(row.lately_ms.is_some_and(|[.., max]| (0.9..1.1).contains(&max)), "{row:?}");
        live.forget();
        assert_eq!(live.look().rows.remove(0).lately_ms, None);
    }

    #[test]
    fn so_many_broken_promises_are_kept_and_all_are_counted() {
        let live = Live::default();
        (0..80).for_each(|bot| live.breaks(bot, "a push is missing".to_owned()));
        let look = live.look();
        assert_eq!((look.broken, look.first_broken.len()), (80, BROKEN_KEPT));
    }
}
