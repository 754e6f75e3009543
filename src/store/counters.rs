//! Counters of game services: what is asked and answered, and the rules as pure functions. The embedded store runs on
//! them; `counter.lua` says the same and is compared with them. Never reads a clock and never writes.

use std::time::Duration;

use crate::clock::millis;
use crate::ids::KeyName;

/// A change of a counter, or with `by` zero a look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterRequest {
    /// Which counter. One that nobody has changed yet stands at zero.
    pub name: KeyName,
    /// What is added. Zero changes nothing.
    pub by: i64,
    /// What it may not fall below. Bounds falling alone: whatever lies below may rise.
    pub min: Option<i64>,
    /// What it may not rise above. Bounds rising alone.
    pub max: Option<i64>,
    /// How long the counter lives, if this change makes it. Of one that is there it changes nothing.
    pub ttl: Option<Duration>,
    /// Names the change: one that comes again within [`CHANGE_REMEMBERED`] is not made again, and answered as the first one was.
    /// One that was refused may be tried anew, and a look is never remembered.
    pub once: Option<u128>,
}

/// How long a change that has a name is remembered, once it was made.
pub const CHANGE_REMEMBERED: Duration = Duration::from_secs(5 * 60);

/// What a change ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// [`CounterRequest::min`].
    Min,
    /// [`CounterRequest::max`].
    Max,
    /// What 64 bits hold.
    Bits,
}

/// The answer to [`super::Store::counter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Changed, or looked at.
    At {
        /// Where it stands now.
        value: i64,
        /// When it is forgotten, if ever.
        expires_in: Option<Duration>,
    },
    /// The change would have left its bounds; nothing was written.
    Refused {
        /// Where it stands.
        value: i64,
        /// Which bound.
        bound: Bound,
        /// When it is forgotten, if ever.
        expires_in: Option<Duration>,
    },
}

/// A counter as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Where it stands.
    pub value: i64,
    /// When it is forgotten (Unix ms by the store's clock), if ever.
    pub expires_at_ms: Option<u64>,
}

/// What is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountChange {
    /// Nothing.
    Keep,
    /// This.
    Put(Count),
    /// It stands at zero and has no end: as if it had never been.
    Remove,
}

impl CounterRequest {
    /// The lowest and the highest value from which the change stays within its bounds: comparing is all that is left
    /// to the store, whose own arithmetic may be less than ours. They may lie beyond 64 bits.
    #[must_use]
    pub fn from_within(&self) -> (i128, i128) {
        let (by, lowest, highest) = (i128::from(self.by), i128::from(i64::MIN), i128::from(i64::MAX));
        match self.by {
            1.. => (lowest, self.max.map_or(highest, i128::from) - by),
            0 => (lowest, highest),
            _ => (self.min.map_or(lowest, i128::from) - by, highest),
        }
    }

    /// The name under which this is remembered, if it changes anything.
    #[must_use]
    pub const fn remembered_as(&self) -> Option<u128> {
        if self.by == 0 { None } else { self.once }
    }

    /// Why a change from this value was refused.
    #[must_use]
    pub const fn bound(&self) -> Bound {
        match (self.by > 0, self.min, self.max) {
            (true, _, Some(_)) => Bound::Max,
            (false, Some(_), _) => Bound::Min,
            _ => Bound::Bits,
        }
    }
}

/// Carries out a change on what is stored and has not run out; `first` is what the same change made of it before.
#[must_use]
pub fn count(
    stored: Option<Count>,
    first: Option<i64>,
    request: &CounterRequest,
    now_ms: u64,
) -> (Counted, CountChange) {
    let value = stored.map_or(0, |count| count.value);
    let left = |at: Option<u64>| at.map(|at| Duration::from_millis(at.saturating_sub(now_ms)));
    if let Some(value) = first {
        let expires_in = left(stored.and_then(|count| count.expires_at_ms));
        return (Counted::At { value, expires_in }, CountChange::Keep);
    }
    let (lowest, highest) = request.from_within();
    let after = value.checked_add(request.by);
    let after = after.filter(|_| (lowest..=highest).contains(&i128::from(value)));
    let Some(after) = after else {
        let expires_in = left(stored.and_then(|count| count.expires_at_ms));
        return (Counted::Refused { value, bound: request.bound(), expires_in }, CountChange::Keep);
    };
    let expires_at_ms = match stored {
        Some(count) => count.expires_at_ms,
        None if request.by == 0 => None,
        None => request.ttl.map(|ttl| now_ms.saturating_add(millis(ttl))),
    };
    let change = match expires_at_ms {
        _ if request.by == 0 => CountChange::Keep,
        None if after == 0 => CountChange::Remove,
        expires_at_ms => CountChange::Put(Count { value: after, expires_at_ms }),
    };
    (Counted::At { value: after, expires_in: left(expires_at_ms) }, change)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(by: i64, min: Option<i64>, max: Option<i64>) -> CounterRequest {
        CounterRequest { name: KeyName::parse("stock").unwrap(), by, min, max, ttl: None, once: None }
    }

    fn at(value: i64) -> Option<Count> {
        Some(Count { value, expires_at_ms: None })
    }

    #[test]
    fn a_change_stays_within_its_bounds_or_is_none() {
        for (from, by, min, max, expected) in [
            (0, 5, None, Some(5), Ok(5)),
            (1, 5, None, Some(5), Err(Bound::Max)),
            (5, -5, Some(0), None, Ok(0)),
            (5, -6, Some(0), None, Err(Bound::Min)),
            // Who is outside may come back, step by step, and be looked at.
            (9, -1, None, Some(5), Ok(8)),
            (-9, 1, Some(0), None, Ok(-8)),
            (9, 1, None, Some(5), Err(Bound::Max)),
            (9, 0, Some(10), Some(5), Ok(9)),
            (i64::MAX, 1, None, None, Err(Bound::Bits)),
            (i64::MIN, -1, None, None, Err(Bound::Bits)),
            (i64::MAX, 1, None, Some(i64::MAX), Err(Bound::Max)),
            (-1, i64::MIN, None, None, Err(Bound::Bits)),
            (0, i64::MIN, None, None, Ok(i64::MIN)),
            (i64::MIN, i64::MAX, None, None, Ok(-1)),
        ] {
            let (counted, change) = count(at(from), None, &request(by, min, max), 7);
            match expected {
                Ok(value) => assert_eq!(counted, Counted::At { value, expires_in: None }, "{from} {by}"),
                Err(bound) => {
                    assert_eq!(
                        counted,
                        Counted::Refused { value: from, bound, expires_in: None },
                        "{from} {by}"
                    );
                    assert_eq!(change, CountChange::Keep);
                }
            }
        }
    }

    #[test]
    fn a_counter_lives_from_its_first_change_and_a_look_makes_none() {
        let ttl = |by| CounterRequest { ttl: Some(Duration::from_millis(10)), ..request(by, None, None) };
        assert_eq!(
            count(None, None, &ttl(0), 100),
            (Counted::At { value: 0, expires_in: None }, CountChange::Keep)
        );
        let made = Count { value: 1, expires_at_ms: Some(110) };
        let ten = Some(Duration::from_millis(10));
        assert_eq!(
            count(None, None, &ttl(1), 100),
            (Counted::At { value: 1, expires_in: ten }, CountChange::Put(made))
        );
        let (_, change) = count(Some(made), None, &ttl(1), 105);
        assert_eq!(change, CountChange::Put(Count { value: 2, expires_at_ms: Some(110) }));
        // At zero it stays until its end, and without one it is gone.
        let (_, change) = count(Some(made), None, &ttl(-1), 105);
        assert_eq!(change, CountChange::Put(Count { value: 0, expires_at_ms: Some(110) }));
        assert_eq!(count(at(1), None, &ttl(-1), 105).1, CountChange::Remove);
    }

    #[test]
    fn a_change_that_comes_again_says_what_it_made_and_makes_nothing() {
        let taken = request(-1, Some(0), None);
        let (again, change) = count(at(0), Some(4), &taken, 7);
        assert_eq!((again, change), (Counted::At { value: 4, expires_in: None }, CountChange::Keep));
        let (gone, _) = count(None, Some(4), &taken, 7);
        assert_eq!(gone, Counted::At { value: 4, expires_in: None });
    }
}
