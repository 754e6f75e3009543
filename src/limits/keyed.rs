//! Limits of things that come and go without telling: addresses and service keys. `gate` and `service` ask. The
//! maps are capped, and forget whoever has been quiet; guards never leave governor.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::{DashMapStateStore, ShrinkableKeyedStateStore};

use super::RateLimited;
use super::address::Address;
use super::bucket::{Bucket, Clock, Limiter, Rate, quota};
use super::culprits::Culprits;
use crate::clock::Now;
use crate::config;

/// While a map is full, all that it does not know share one bucket, this many times as fast as one of them.
const STRANGERS_FACTOR: u32 = 100;
/// A full map is searched for the quiet at most this often: the search is as long as the map.
const FORGET_EVERY_MS: u64 = 1_000;

/// How often one address may connect and log in. IPv6 addresses count by their /64, which is what one customer gets.
#[derive(Debug)]
pub struct AddressLimits {
    connects: Keyed<Address>,
    logins: Keyed<Address>,
    refused: Arc<Culprits>,
    exempt_loopback: bool,
}

impl AddressLimits {
    /// Takes the rates from the settings.
    #[must_use]
    pub fn from_settings(settings: &config::Limits) -> Self {
        let keyed = |per_s, burst| Keyed::new(per_s, burst, settings.addresses_max);
        Self {
            connects: keyed(settings.connects_per_s, settings.connects_burst),
            logins: keyed(settings.logins_per_s, settings.logins_burst),
            refused: Arc::default(),
            exempt_loopback: settings.exempt_loopback,
        }
    }

    /// Who is refused.
    #[must_use]
    pub const fn refused(&self) -> &Arc<Culprits> {
        &self.refused
    }

    /// Counts one accepted connection.
    ///
    /// # Errors
    /// [`RateLimited`]: close it.
    pub fn connect(&self, ip: IpAddr, now: Now) -> Result<(), RateLimited> {
        self.check(&self.connects, ip, now)
    }

    /// Counts one login (never a resume).
    ///
    /// # Errors
    /// [`RateLimited`]: refuse it before the token is looked at.
    pub fn login(&self, ip: IpAddr, now: Now) -> Result<(), RateLimited> {
        self.check(&self.logins, ip, now)
    }

    /// Forgets addresses that have been quiet; worth a call every minute or so.
    pub fn forget_quiet(&self, now: Now) {
        self.connects.forget_quiet(now);
        self.logins.forget_quiet(now);
    }

    fn check(&self, limits: &Keyed<Address>, ip: IpAddr, now: Now) -> Result<(), RateLimited> {
        if self.exempt_loopback && ip.to_canonical().is_loopback() {
            return Ok(());
        }
        limits.check(&Address::of(ip), now).inspect_err(|_| self.refused.count(ip))
    }
}

/// How many requests one service key may make.
#[derive(Debug)]
pub struct KeyLimits {
    requests: Keyed<u64>,
    hasher: ahash::RandomState,
}

impl KeyLimits {
    /// Takes the rate from the settings.
    #[must_use]
    pub fn from_settings(settings: &config::Limits) -> Self {
        let (per_s, burst) = (settings.service_requests_per_s, settings.service_requests_burst);
        Self { requests: Keyed::new(per_s, burst, settings.addresses_max), hasher: ahash::RandomState::new() }
    }

    /// Counts a request with the key of this id (any text that tells keys apart; it is not kept) that costs as much as so
    /// many; one over the whole burst costs the burst.
    ///
    /// # Errors
    /// [`RateLimited`]: answer 429.
    pub fn check(&self, key_id: &str, requests: usize, now: Now) -> Result<(), RateLimited> {
        self.requests.check_many(&self.hasher.hash_one(key_id), requests, now)
    }
}

/// One rate for each of a capped number of keys.
#[derive(Debug)]
struct Keyed<K: Hash + Eq + Clone> {
    known: Arc<DashMapStateStore<K, ahash::RandomState>>,
    limiter: Limiter<K, Known<K>>,
    strangers: Rate,
    strangers_level: Bucket,
    keys_max: usize,
    burst: NonZeroU32,
    forgot_at_ms: AtomicU64,
}

impl<K: Hash + Eq + Clone> Keyed<K> {
    fn new(per_s: NonZeroU32, burst: NonZeroU32, keys_max: usize) -> Self {
        let clock = Clock::default();
        let known = Arc::new(DashMapStateStore::with_hasher(ahash::RandomState::new()));
        let many = |rate: NonZeroU32| NonZeroU32::saturating_mul(rate, factor());
        Self {
            strangers: Rate::new(many(per_s), many(burst), &clock),
            strangers_level: Bucket::default(),
            limiter: Limiter::new(quota(per_s, burst), Known(Arc::clone(&known)), clock),
            known,
            keys_max,
            burst,
            forgot_at_ms: AtomicU64::new(0),
        }
    }

    fn check(&self, key: &K, now: Now) -> Result<(), RateLimited> {
        let clock = self.limiter.clock();
        clock.tell(now);
        if self.is_full(now) && !self.known.contains_key(key) {
            return self.strangers.check(&self.strangers_level, now);
        }
        self.limiter.check_key(key).map_err(|refused| clock.wait(&refused))
    }

    fn check_many(&self, key: &K, times: usize, now: Now) -> Result<(), RateLimited> {
        let times = u32::try_from(times).unwrap_or(u32::MAX).min(self.burst.get());
        let Some(times) = NonZeroU32::new(times) else { return Ok(()) };
        let clock = self.limiter.clock();
        clock.tell(now);
        // Strangers of a full map count once, whatever it costs: they share one bucket.
        if self.is_full(now) && !self.known.contains_key(key) {
            return self.strangers.check(&self.strangers_level, now);
        }
        match self.limiter.check_key_n(key, times) {
            Ok(Err(refused)) => Err(clock.wait(&refused)),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// Whether there is no room for another key, after the quiet ones are forgotten.
    fn is_full(&self, now: Now) -> bool {
        if self.known.len() < self.keys_max {
            return false;
        }
        let forgot_at_ms = self.forgot_at_ms.load(Ordering::Relaxed);
        let due = forgot_at_ms == 0 || now.mono_ms >= forgot_at_ms.saturating_add(FORGET_EVERY_MS);
        let mine = due
            && self
                .forgot_at_ms
                .compare_exchange(forgot_at_ms, now.mono_ms.max(1), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if mine {
            self.forget_quiet(now);
        }
        self.known.len() >= self.keys_max
    }

    fn forget_quiet(&self, now: Now) {
        self.limiter.clock().tell(now);
        self.limiter.retain_recent();
    }
}

const fn factor() -> NonZeroU32 {
    match NonZeroU32::new(STRANGERS_FACTOR) {
        Some(factor) => factor,
        None => NonZeroU32::MIN,
    }
}

/// governor's map, shared so that we can ask whether a key is in it: governor itself only ever inserts.
#[derive(Debug)]
struct Known<K: Hash + Eq + Clone>(Arc<DashMapStateStore<K, ahash::RandomState>>);

impl<K: Hash + Eq + Clone> StateStore for Known<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, judge: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, judge)
    }
}

impl<K: Hash + Eq + Clone> ShrinkableKeyedStateStore<K> for Known<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        ShrinkableKeyedStateStore::retain_recent(self.0.as_ref(), drop_below);
    }

    fn shrink_to_fit(&self) {
        self.0.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn limits(toml: &str) -> AddressLimits {
        let settings = Settings::from_toml(&format!("[limits]\n{toml}")).expect("good settings");
        AddressLimits::from_settings(&settings.limits)
    }

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: 0 }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_are_limited_one_by_one() {
        let limits = limits("connects_per_s = 2\nconnects_burst = 1\nlogins_per_s = 1\nlogins_burst = 1");
        assert_eq!(limits.connect(ip("192.0.2.1"), at(0)), Ok(()));
        assert_eq!(limits.connect(ip("192.0.2.1"), at(0)), Err(RateLimited { retry_after_ms: 500 }));
        assert_eq!(limits.connect(ip("192.0.2.2"), at(0)), Ok(()));
        assert_eq!(limits.login(ip("192.0.2.1"), at(0)), Ok(()));
        assert_eq!(limits.login(ip("192.0.2.1"), at(0)), Err(RateLimited { retry_after_ms: 1_000 }));
        // Who was refused is known, and nobody else.
        let refused = limits.refused().take();
        let told: Vec<_> =
            refused.keys.iter().map(|(address, times)| (address.to_string(), *times)).collect();
        assert_eq!((refused.all, told), (2, vec![("192.0.2.1".to_owned(), 2)]));
    }

    #[test]
    fn one_network_of_ipv6_is_one_address() {
        let limits = limits("connects_per_s = 1\nconnects_burst = 1");
        assert!(limits.connect(ip("2001:db8:0:1::1"), at(0)).is_ok());
        assert!(limits.connect(ip("2001:db8:0:1:ffff::2"), at(0)).is_err());
        assert!(limits.connect(ip("2001:db8:0:2::1"), at(0)).is_ok());
        // The same IPv4 address, whichever way the socket names it.
        assert!(limits.connect(ip("192.0.2.1"), at(0)).is_ok());
        assert!(limits.connect(ip("::ffff:192.0.2.1"), at(0)).is_err());
    }

    #[test]
    fn loopback_is_spared_unless_told_otherwise() {
        let spared = limits("connects_per_s = 1\nconnects_burst = 1");
        let strict = limits("connects_per_s = 1\nconnects_burst = 1\nexempt_loopback = false");
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!((0..9).all(|_| spared.connect(ip(address), at(0)).is_ok()), "{address}");
        }
        assert!(strict.connect(ip("127.0.0.1"), at(0)).is_ok());
        assert!(strict.connect(ip("127.0.0.1"), at(0)).is_err());
    }

    #[test]
    fn a_million_addresses_take_no_more_than_the_cap() {
        let limits = limits("connects_per_s = 1\nconnects_burst = 1\naddresses_max = 1000");
        let mut passed = 0;
        for n in 0..1_000_000_u64 {
            let network = IpAddr::V6(std::net::Ipv6Addr::from(u128::from(n) << 64 | 0x2001 << 112));
            passed += u64::from(limits.connect(network, at(10 + n / 1_000)).is_ok());
            assert!(limits.connects.known.len() <= 1_000);
        }
        // A second's flood: the thousand that were there first, and the strangers' share of a burst and one second;
        // whoever comes first in the next second takes the room of those that went quiet.
        assert!(passed <= 2_000 + 2 * u64::from(STRANGERS_FACTOR), "{passed} passed");
    }

    #[test]
    fn who_is_known_keeps_a_full_rate_while_strangers_flood() {
        let limits = limits("connects_per_s = 1\nconnects_burst = 10\naddresses_max = 1");
        let known = ip("192.0.2.1");
        assert!(limits.connect(known, at(0)).is_ok());
        let stranger = |n: u32| IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n));
        let passed = (0..5_000).filter(|n| limits.connect(stranger(*n), at(1)).is_ok()).count();
        assert_eq!(passed, 10 * STRANGERS_FACTOR as usize);
        assert_eq!((0..20).filter(|_| limits.connect(known, at(1)).is_ok()).count(), 9);
    }

    #[test]
    fn the_quiet_make_room() {
        let limits = limits("connects_per_s = 1\nconnects_burst = 1\naddresses_max = 2");
        assert!(limits.connect(ip("192.0.2.1"), at(0)).is_ok());
        assert!(limits.connect(ip("192.0.2.2"), at(0)).is_ok());
        assert!(limits.connect(ip("192.0.2.3"), at(5_000)).is_ok());
        assert_eq!(limits.connects.known.len(), 1);
        limits.forget_quiet(at(60_000));
        assert_eq!(limits.connects.known.len(), 0);
    }

    #[test]
    fn service_keys_are_limited_one_by_one() {
        let settings =
            Settings::from_toml("[limits]\nservice_requests_per_s = 1\nservice_requests_burst = 2")
                .expect("good settings");
        let keys = KeyLimits::from_settings(&settings.limits);
        assert!(keys.check("matchmaker", 1, at(0)).is_ok());
        assert!(keys.check("matchmaker", 1, at(0)).is_ok());
        assert_eq!(keys.check("matchmaker", 1, at(0)), Err(RateLimited { retry_after_ms: 1_000 }));
        assert!(keys.check("shop", 1, at(0)).is_ok());
    }

    #[test]
    fn a_costly_request_counts_for_many_and_never_for_more_than_the_burst() {
        let settings =
            Settings::from_toml("[limits]\nservice_requests_per_s = 10\nservice_requests_burst = 20")
                .expect("good settings");
        let keys = KeyLimits::from_settings(&settings.limits);
        assert!(keys.check("shop", 0, at(0)).is_ok());
        assert!(keys.check("shop", 1_000_000, at(0)).is_ok());
        assert_eq!(keys.check("shop", 1, at(0)), Err(RateLimited { retry_after_ms: 100 }));
        assert_eq!(keys.check("shop", 10, at(0)), Err(RateLimited { retry_after_ms: 1_000 }));
        assert!(keys.check("shop", 10, at(1_000)).is_ok());
    }
}
