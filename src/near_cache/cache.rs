//! What a near cache holds and what it may say: pure, `now` and chance are arguments. An entry is fresh for a time of its
//! own, stale for a while after that, and then gone; a load that was begun before an invalidation brings nothing that is
//! older than it. Bounded: what was not asked for lately makes room.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use crate::ids::{Epoch, ShardId, Version};

/// Where what is cached stood: the higher one is the newer one.
pub type Ver = (Epoch, Version);

/// Which shard's a key is: all that is kept of a shard is forgotten together.
pub(super) type ShardOf<K> = Box<dyn Fn(&K) -> ShardId + Send + Sync>;

/// The place of a key among those that are forgotten together, and how often they were when it was loaded.
type Life = (ShardId, u64);

/// Entries that are passed over, at most, in the search for one that was not asked for.
const SECOND_CHANCES_MAX: usize = 16;

/// How long entries are kept, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Entries at a time.
    pub entries_max: usize,
    /// How long an entry is fresh, on average.
    pub ttl_ms: u64,
    /// The same of one that says that there is nothing.
    pub negative_ttl_ms: u64,
    /// For how long after that it may be served, on average, while it is loaded anew.
    pub stale_ms: u64,
    /// By how much of a hundred these times are longer or shorter, so that what came together does not go together.
    pub jitter_percent: u32,
}

impl Terms {
    /// The longest that an entry may be served, counted from when its load was begun.
    #[must_use]
    pub const fn life_ms_max(&self) -> u64 {
        let longest = if self.ttl_ms > self.negative_ttl_ms { self.ttl_ms } else { self.negative_ttl_ms };
        let whole = longest.saturating_add(self.stale_ms);
        whole.saturating_add(whole / 100 * self.jitter_percent as u64).saturating_add(100)
    }

    /// A time with its jitter, for a chance from 0 to below 1.
    fn jittered(&self, ms: u64, chance: f64) -> u64 {
        let share = f64::from(self.jitter_percent) / 100.0 * (2.0 * chance - 1.0);
        (ms as f64 * (1.0 + share)) as u64
    }
}

/// What was loaded of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill<V> {
    /// It.
    pub value: V,
    /// Where it stood.
    pub ver: Ver,
    /// It says that there is nothing.
    pub is_negative: bool,
}

/// What is known of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached<V> {
    /// It.
    pub value: V,
    /// It was so at this time or later (monotonic ms): when its load was begun.
    pub as_of_ms: u64,
    /// Its time is over: it is about to be loaded anew.
    pub is_stale: bool,
    /// It says that there is nothing.
    pub is_negative: bool,
}

#[derive(Debug, Clone)]
struct Entry<V> {
    fill: Fill<V>,
    life: Life,
    begun_at_ms: u64,
    stale_at_ms: u64,
    gone_at_ms: u64,
    /// Asked for since it was last passed over.
    is_asked_for: bool,
}

impl<V: Clone> Entry<V> {
    fn asked_for(&mut self, now_ms: u64) -> Cached<V> {
        self.is_asked_for = true;
        Cached {
            value: self.fill.value.clone(),
            as_of_ms: self.begun_at_ms,
            is_stale: now_ms >= self.stale_at_ms,
            is_negative: self.fill.is_negative,
        }
    }
}

/// A load that is under way.
#[derive(Debug, Clone, Copy)]
struct Loading {
    number: u64,
    /// What is older than this was invalidated meanwhile.
    floor: Ver,
    /// If its shard was forgotten since, whatever it brings is not to be used.
    life: Life,
}

/// What a look for one key comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look<V> {
    /// To be answered with.
    Known(Cached<V>),
    /// The same, and the caller is to load it anew beside that.
    Refresh(Cached<V>),
    /// The caller is to load it.
    Load,
    /// The load of this number brings it: a second look follows that.
    Wait(u64),
}

/// The entries and the loads under way.
pub(super) struct Cache<K, V> {
    terms: Terms,
    shard_of: ShardOf<K>,
    /// How often each shard was forgotten. What was loaded before is not there any more, though it may still have its place: to
    /// forget a shard costs the same whatever it holds.
    forgotten: HashMap<ShardId, u64, ahash::RandomState>,
    entries: HashMap<K, Entry<V>, ahash::RandomState>,
    /// Every key of `entries`, once, and keys that are not there any more.
    order: VecDeque<K>,
    loading: HashMap<K, Loading, ahash::RandomState>,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// Nothing yet.
    pub(super) fn new(terms: Terms, shard_of: ShardOf<K>) -> Self {
        Self {
            terms,
            shard_of,
            forgotten: HashMap::default(),
            entries: HashMap::default(),
            order: VecDeque::new(),
            loading: HashMap::default(),
        }
    }

    /// How many entries there are: those of forgotten shards among them, until their places are needed.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many loads are under way.
    pub(super) fn loads(&self) -> usize {
        self.loading.len()
    }

    /// Looks for a key; nothing that was loaded before `not_before_ms` is good enough. Whoever is told to load begins the
    /// load of this number.
    pub(super) fn look(&mut self, key: &K, not_before_ms: u64, now_ms: u64, number: u64) -> Look<V> {
        let loading = self.loading.get(key).map(|loading| loading.number);
        let known = self.entries.get_mut(key).filter(|entry| {
            now_ms < entry.gone_at_ms
                && entry.begun_at_ms >= not_before_ms
                && is_now(&self.forgotten, entry.life)
        });
        let Some(entry) = known else {
            if let Some(loading) = loading {
                return Look::Wait(loading);
            }
            self.begin(key, number);
            return Look::Load;
        };
        let cached = entry.asked_for(now_ms);
        if !cached.is_stale || loading.is_some() {
            return Look::Known(cached);
        }
        self.begin(key, number);
        Look::Refresh(cached)
    }

    /// What is known of a key, without loading it.
    pub(super) fn peek(&mut self, key: &K, not_before_ms: u64, now_ms: u64) -> Option<Cached<V>> {
        let entry = self.entries.get_mut(key)?;
        let is_good = now_ms < entry.gone_at_ms
            && entry.begun_at_ms >= not_before_ms
            && is_now(&self.forgotten, entry.life);
        is_good.then(|| entry.asked_for(now_ms))
    }

    fn begin(&mut self, key: &K, number: u64) {
        let (floor, shard) = ((Epoch::ZERO, Version::ZERO), (self.shard_of)(key));
        let life = (shard, self.forgotten.get(&shard).copied().unwrap_or(0));
        self.loading.insert(key.clone(), Loading { number, floor, life });
    }

    /// A load is over that was begun then; whether what it brought may be used.
    pub(super) fn land(
        &mut self,
        key: &K,
        number: u64,
        fill: Option<Fill<V>>,
        begun_at_ms: u64,
        chance: f64,
    ) -> bool {
        let Some(loading) = self.end(key, number) else { return false };
        let is_good = |fill: &Fill<V>| is_now(&self.forgotten, loading.life) && fill.ver >= loading.floor;
        let Some(fill) = fill.filter(is_good) else { return false };
        let Terms { ttl_ms, negative_ttl_ms, stale_ms, .. } = self.terms;
        let fresh_ms = if fill.is_negative { negative_ttl_ms } else { ttl_ms };
        let entry = Entry {
            fill,
            life: loading.life,
            begun_at_ms,
            stale_at_ms: begun_at_ms + self.terms.jittered(fresh_ms, chance),
            gone_at_ms: begun_at_ms + self.terms.jittered(fresh_ms + stale_ms, chance),
            is_asked_for: false,
        };
        if self.entries.insert(key.clone(), entry).is_none() {
            self.order.push_back(key.clone());
            self.make_room();
        }
        true
    }

    /// A load has ended, or was given up.
    pub(super) fn give_up(&mut self, key: &K, number: u64) {
        self.end(key, number);
    }

    fn end(&mut self, key: &K, number: u64) -> Option<Loading> {
        let is_this = self.loading.get(key).is_some_and(|loading| loading.number == number);
        if is_this { self.loading.remove(key) } else { None }
    }

    /// There is something newer: what is older is not served any more, and not filled in by a load that is under way.
    /// Says whether anything was served until now.
    pub(super) fn invalidate(&mut self, key: &K, ver: Ver) -> bool {
        if let Some(loading) = self.loading.get_mut(key) {
            loading.floor = loading.floor.max(ver);
        }
        let is_old = self.entries.get(key).is_some_and(|entry| entry.fill.ver < ver);
        let old = if is_old { self.entries.remove(key) } else { None };
        old.is_some_and(|entry| is_now(&self.forgotten, entry.life))
    }

    /// Forgets all that is kept of a shard, and whatever loads of it will bring.
    pub(super) fn forget(&mut self, shard: ShardId) {
        *self.forgotten.entry(shard).or_default() += 1;
    }

    fn make_room(&mut self) {
        let mut chances = SECOND_CHANCES_MAX;
        while self.entries.len() > self.terms.entries_max {
            let Some(key) = self.order.pop_front() else { return };
            match self.entries.get_mut(&key) {
                Some(entry) if entry.is_asked_for && chances > 0 && is_now(&self.forgotten, entry.life) => {
                    entry.is_asked_for = false;
                    chances -= 1;
                    self.order.push_back(key);
                }
                _ => drop(self.entries.remove(&key)),
            }
        }
        // Names of what was invalidated stay behind; they are tidied before they are as many as the rest.
        if self.order.len() > self.terms.entries_max.saturating_mul(2).max(64) {
            let mut seen = std::collections::HashSet::<K, ahash::RandomState>::default();
            let entries = &self.entries;
            self.order.retain(|key| entries.contains_key(key) && seen.insert(key.clone()));
        }
    }
}

/// Whether a shard was not forgotten since.
fn is_now(forgotten: &HashMap<ShardId, u64, ahash::RandomState>, (shard, times): Life) -> bool {
    forgotten.get(&shard).copied().unwrap_or(0) == times
}

#[cfg(test)]
mod tests;
