//! Who is refused most, by address: counted where somebody is refused, and nowhere else. `gate` and the limits by address
//! count, `app` takes once a second for the watch. Never a label of a metric, and never kept longer than that.

use std::net::IpAddr;

use parking_lot::Mutex;

use super::address::Address;
use crate::telemetry::frequent::{Counted, Frequent};

/// Addresses counted at a time. One that makes more than this part of all refusals is always among them.
const ADDRESSES_MAX: usize = 64;
/// Addresses that are told.
const TOLD_MAX: usize = 10;

/// The addresses that were refused most since they were last taken.
#[derive(Debug)]
pub struct Culprits(Mutex<Frequent<Address>>);

impl Default for Culprits {
    fn default() -> Self {
        Self(Mutex::new(Frequent::of(ADDRESSES_MAX)))
    }
}

impl Culprits {
    /// Counts one refusal. While somebody else counts it is left out: a flood waits for nothing, and shares stay as they
    /// are.
    pub fn count(&self, ip: IpAddr) {
        if let Some(mut counts) = self.0.try_lock() {
            counts.add(&Address::of(ip), 1);
        }
    }

    /// Takes them out, the worst one first.
    #[must_use]
    pub fn take(&self) -> Counted<Address> {
        let mut counted = self.0.lock().take();
        counted.keys.truncate(TOLD_MAX);
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_address_is_found_among_many_and_few_are_told() {
        let culprits = Culprits::default();
        for n in 0..10_000_u32 {
            culprits.count(IpAddr::V4((0x0a00_0000 + n).into()));
            culprits.count("2001:db8:0:1::1".parse().unwrap());
            culprits.count(format!("2001:db8:0:1::{n:x}").parse().unwrap());
        }
        let Counted { all, keys } = culprits.take();
        assert_eq!((all, keys.len()), (30_000, TOLD_MAX));
        assert_eq!((keys[0].0.to_string(), keys[0].1), ("2001:db8:0:1::/64".to_owned(), 20_000));
        assert!(keys[1].1 <= 2, "{keys:?}");
        assert_eq!(culprits.take().all, 0);
    }

    #[test]
    fn whoever_counts_at_the_same_time_is_not_waited_for() {
        let culprits = Culprits::default();
        let held = culprits.0.lock();
        culprits.count("203.0.113.7".parse().unwrap());
        drop(held);
        assert_eq!(culprits.take().all, 0);
    }
}
