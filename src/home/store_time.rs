//! What time it is at the store, as far as its grants tell: an epoch is never below the store's clock in ms, so what a grant
//! says, and the monotonic clock since, is a bound from above. Which epochs a store can have given is judged by it and not
//! by this machine's wall clock, which need not agree. Pure. Told by `keeper`, asked by `yielding` and `whispers`.

use parking_lot::Mutex;

use crate::clock::Now;
use crate::ids::Epoch;

/// How far ahead of the store's clock an epoch may be: `lease_acquire.lua` grants nothing above a floor that is further
/// ahead of it.
pub(super) const AHEAD_MS_MAX: u64 = 86_400_000;

/// The store's clock.
#[derive(Debug, Default)]
pub(super) struct StoreTime {
    /// A grant that was least ahead: its epoch, and when it was asked for (monotonic ms).
    grant: Mutex<Option<(u64, u64)>>,
}

impl StoreTime {
    /// The store has given this epoch to a call that was sent then (monotonic ms).
    pub(super) fn granted(&self, epoch: Epoch, sent_at_ms: u64) {
        let mut grant = self.grant.lock();
        let known_ms = grant.map(|grant| store_ms(grant, sent_at_ms));
        // The least is the nearest: an epoch may be above a floor far ahead. Unless the store's own clock was set forward.
        let is_nearer = |known_ms: u64| {
            epoch.number() < known_ms || epoch.number() > known_ms.saturating_add(AHEAD_MS_MAX)
        };
        if known_ms.is_none_or(is_nearer) {
            *grant = Some((epoch.number(), sent_at_ms));
        }
    }

    /// Whether a store can have given this epoch by now. Who was never granted anything goes by the wall clock: there is
    /// nothing to be taken from it.
    pub(super) fn may_have_given(&self, epoch: u64, now: Now) -> bool {
        let known_ms = self.grant.lock().map_or(now.unix_ms, |grant| store_ms(grant, now.mono_ms));
        epoch <= known_ms.saturating_add(AHEAD_MS_MAX)
    }
}

/// What the store's clock says at most, by this grant.
const fn store_ms((epoch, sent_at_ms): (u64, u64), now_ms: u64) -> u64 {
    epoch.saturating_add(now_ms.saturating_sub(sent_at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = AHEAD_MS_MAX;
    /// At the store, when this process was 1000 ms old.
    const STORE_MS: u64 = 1_795_000_000_000;

    /// The latest epoch that is believed.
    fn latest(time: &StoreTime, now: Now) -> u64 {
        let (mut low, mut high) = (0_u64, 1 << 53);
        while low < high {
            let middle = (low + high).div_ceil(2);
            (low, high) = if time.may_have_given(middle, now) { (middle, high) } else { (low, middle - 1) };
        }
        low
    }

    #[test]
    fn what_a_store_can_have_given_is_judged_by_its_grants_and_not_by_the_wall_clock() {
        let time = StoreTime::default();
        // This machine's clock is two days behind.
        let now = |mono_ms| Now { mono_ms, unix_ms: STORE_MS - 2 * DAY };
        assert_eq!(latest(&time, now(1_000)), STORE_MS - DAY, "nothing else is known");
        time.granted(Epoch::of(STORE_MS), 1_000);
        assert_eq!(latest(&time, now(1_000)), STORE_MS + DAY);
        assert_eq!(latest(&time, now(6_000)), STORE_MS + 5_000 + DAY, "time passes there as here");
    }

    #[test]
    fn the_grant_that_is_least_ahead_counts_unless_the_stores_clock_was_set_forward() {
        let time = StoreTime::default();
        let now = |mono_ms| Now { mono_ms, unix_ms: 0 };
        // Above a floor that is hours ahead: no reason to believe in epochs that are ahead of that by a day again.
        time.granted(Epoch::of(STORE_MS + DAY / 2), 1_000);
        time.granted(Epoch::of(STORE_MS + 500), 1_500);
        time.granted(Epoch::of(STORE_MS + DAY / 2 + 1), 2_000);
        assert_eq!(latest(&time, now(2_000)), STORE_MS + 1_000 + DAY);
        time.granted(Epoch::of(STORE_MS + 3 * DAY), 3_000);
        assert_eq!(latest(&time, now(3_000)), STORE_MS + 4 * DAY);
    }
}
