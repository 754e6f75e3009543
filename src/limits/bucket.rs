//! governor's GCRA with its level kept where the caller wants it: eight bytes a bucket, the rate shared by all.
//! `limits` alone calls it. Never reads a clock: the time comes with each check.

use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::clock::Reference as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{NotUntil, Quota, RateLimiter};

use super::RateLimited;
use crate::clock::Now;

/// The latest time that any caller has told, since governor asks a clock rather than taking an argument. Callers
/// all read the house's monotonic clock, so another caller's later reading is a true one here, too.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock(Arc<AtomicU64>);

impl Clock {
    /// Moves the clock to `now`, unless it is there already.
    pub(super) fn tell(&self, now: Now) {
        // Nearly always nothing to write: readers of this line share it until the next millisecond.
        if self.0.load(Ordering::Relaxed) < now.mono_ms {
            self.0.fetch_max(now.mono_ms, Ordering::Relaxed);
        }
    }

    /// How long after the last told time a refused one may come.
    pub(super) fn wait(&self, refused: &NotUntil<Nanos>) -> RateLimited {
        use governor::clock::Clock as _;
        let wait_ns = refused.earliest_possible().duration_since(self.now()).as_u64();
        let wait_ms = wait_ns.div_ceil(1_000_000).max(1);
        RateLimited { retry_after_ms: u32::try_from(wait_ms).unwrap_or(u32::MAX) }
    }
}

impl governor::clock::Clock for Clock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(Ordering::Relaxed).saturating_mul(1_000_000))
    }
}

/// governor under our clock.
pub(super) type Limiter<K, S> = RateLimiter<K, S, Clock, NoOpMiddleware<Nanos>>;

/// A quota as governor takes it: `burst` at once, one more each `1/per_s` second.
pub(super) fn quota(per_s: NonZeroU32, burst: NonZeroU32) -> Quota {
    Quota::per_second(per_s).allow_burst(burst)
}

/// How full one bucket is.
#[derive(Debug, Default)]
pub(super) struct Bucket(Level);

/// A rate, for any number of buckets.
#[derive(Debug)]
pub(super) struct Rate {
    limiter: Limiter<Level, InPlace>,
}

impl Rate {
    /// A rate under a clock.
    pub(super) fn new(per_s: NonZeroU32, burst: NonZeroU32, clock: &Clock) -> Self {
        Self { limiter: RateLimiter::new(quota(per_s, burst), InPlace, clock.clone()) }
    }

    /// Counts one in `bucket`, or says how long to wait.
    pub(super) fn check(&self, bucket: &Bucket, now: Now) -> Result<(), RateLimited> {
        let clock = self.limiter.clock();
        clock.tell(now);
        self.limiter.check_key(&bucket.0).map_err(|refused| clock.wait(&refused))
    }
}

/// A "map" without entries: the key is the level itself.
#[derive(Debug)]
struct InPlace;

impl StateStore for InPlace {
    type Key = Level;

    fn measure_and_replace<T, F, E>(&self, level: &Level, judge: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        level.0.measure_and_replace(&NotKeyed::NonKey, judge)
    }
}

/// The level as a key. governor wants keys that can be compared, hashed and cloned, for maps; here nothing does it:
/// a level is equal to itself alone, and its clone is an empty bucket.
#[derive(Debug, Default)]
struct Level(InMemoryState);

impl PartialEq for Level {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Level {}

impl Hash for Level {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::ptr::from_ref(self).hash(state);
    }
}

impl Clone for Level {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_with_an_older_reading_takes_nothing_back() {
        let clock = Clock::default();
        let one = NonZeroU32::MIN;
        let (rate, bucket) = (Rate::new(one, one, &clock), Bucket::default());
        let at = |mono_ms| Now { mono_ms, unix_ms: 0 };
        assert_eq!(rate.check(&bucket, at(5_000)), Ok(()));
        assert_eq!(rate.check(&bucket, at(4_000)), Err(RateLimited { retry_after_ms: 1_000 }));
        assert_eq!(rate.check(&bucket, at(6_000)), Ok(()));
    }

    #[test]
    fn a_bucket_is_eight_bytes() {
        assert_eq!(size_of::<Bucket>(), 8);
    }
}
