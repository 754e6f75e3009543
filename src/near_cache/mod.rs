//! What is kept near of things that are loaded from afar: records of players who are not in memory (`home`), and how
//! players look whose home is another node (`presence`). Whatever is loaded is loaded once however many ask, and looked
//! for once more after the wait. It answers reads alone. `cache` is the pure part; here are the lock and the waiting.

mod cache;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

pub use cache::{Cached, Fill, Terms, Ver};

use crate::clock;
use crate::ids::ShardId;
use cache::{Cache, Look};

/// Keys whose loads are under way at a time. Above it a key is not known.
const LOADS_MAX: usize = 65_536;
/// Looks for one key, each after a load that was no good for it: begun too early, or overtaken by an invalidation.
const ROUNDS_MAX: usize = 4;

/// How a load ended: keys whose loads were overtaken are to be looked for again.
type Ended<K> = Option<Arc<HashSet<K, ahash::RandomState>>>;

struct Inner<K, V> {
    cache: Cache<K, V>,
    flights: HashMap<u64, (u64, watch::Receiver<Ended<K>>), ahash::RandomState>,
    next: u64,
}

/// A near cache.
pub struct NearCache<K, V> {
    inner: Mutex<Inner<K, V>>,
    terms: Terms,
}

/// What was asked for.
#[derive(Debug)]
pub struct Got<K, V> {
    /// What is known, by key.
    pub known: HashMap<K, Cached<V>, ahash::RandomState>,
    /// How many were there at once, and not stale.
    pub fresh: usize,
    /// How many were there at once, and are loaded anew beside.
    pub stale: usize,
    /// How many of these say that there is nothing.
    pub negative: usize,
    /// How many waited for loads of others.
    pub joined: usize,
    /// How many loads this caller began.
    pub loaded: usize,
}

/// Keys that are to be loaded, together. Whoever holds it loads them and says so; if it is dropped, nobody waits for it
/// any longer.
pub struct Flight<K: Hash + Eq + Clone, V: Clone> {
    near: Arc<NearCache<K, V>>,
    number: u64,
    begun_at_ms: u64,
    keys: Vec<K>,
    ended: watch::Sender<Ended<K>>,
}

impl<K: Hash + Eq + Clone, V: Clone> NearCache<K, V> {
    /// Nothing yet, of keys of which it is known which shard's they are.
    #[must_use]
    pub fn new(terms: Terms, shard_of: impl Fn(&K) -> ShardId + Send + Sync + 'static) -> Arc<Self> {
        let inner =
            Inner { cache: Cache::new(terms, Box::new(shard_of)), flights: HashMap::default(), next: 0 };
        Arc::new(Self { inner: Mutex::new(inner), terms })
    }

    /// How it keeps things.
    #[must_use]
    pub const fn terms(&self) -> Terms {
        self.terms
    }

    /// How many entries there are: those of forgotten shards among them, until their places are needed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.lock().cache.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// There is something newer than was loaded before; says whether that was still served.
    pub fn invalidate(&self, key: &K, ver: Ver) -> bool {
        self.inner.lock().cache.invalidate(key, ver)
    }

    /// Forgets all that is kept of a shard; costs the same whatever that is.
    pub fn forget(&self, shard: ShardId) {
        self.inner.lock().cache.forget(shard);
    }

    /// Looks for keys; nothing that was loaded before `not_before_ms` is good enough. What is not there is loaded: `load`
    /// starts a task that does it, which nobody who gives up waiting takes along. What is not known in the end could not be
    /// loaded.
    pub async fn get(
        self: &Arc<Self>,
        keys: &[K],
        not_before_ms: u64,
        load: impl Fn(Flight<K, V>),
    ) -> Got<K, V> {
        let known = HashMap::with_capacity_and_hasher(keys.len(), ahash::RandomState::default());
        let mut got = Got { known, fresh: 0, stale: 0, negative: 0, joined: 0, loaded: 0 };
        let mut wanted = keys.to_vec();
        for round in 0..ROUNDS_MAX {
            let (flight, waits) = self.look(&wanted, not_before_ms, round == 0, &mut got);
            if let Some(flight) = flight {
                load(flight);
            }
            wanted = Vec::new();
            for (keys, begun_at_ms, mut ended) in waits {
                let again = match ended.wait_for(Option::is_some).await {
                    Ok(ended) => ended.clone().unwrap_or_default(),
                    // Given up: nobody knows.
                    Err(_) => continue,
                };
                let is_early = begun_at_ms < not_before_ms;
                // Checked again after the wait: what was loaded is in the cache, unless it was overtaken.
                let mut inner = self.inner.lock();
                let now_ms = clock::now().mono_ms;
                for key in keys {
                    match inner.cache.peek(&key, not_before_ms, now_ms) {
                        Some(cached) => drop(got.known.insert(key, cached)),
                        None if is_early || again.contains(&key) => wanted.push(key),
                        None => {}
                    }
                }
            }
            if wanted.is_empty() {
                break;
            }
        }
        got
    }

    /// One look for many keys: what is there goes into `got`; a flight for what nobody loads; and whom to wait for.
    #[allow(clippy::type_complexity, reason = "taken apart at once by its one caller")]
    fn look(
        self: &Arc<Self>,
        keys: &[K],
        not_before_ms: u64,
        is_first: bool,
        got: &mut Got<K, V>,
    ) -> (Option<Flight<K, V>>, Vec<(Vec<K>, u64, watch::Receiver<Ended<K>>)>) {
        let now_ms = clock::now().mono_ms;
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let number = inner.next;
        inner.next += 1;
        let (mut to_load, mut waits) = (Vec::new(), HashMap::<u64, Vec<K>, ahash::RandomState>::default());
        for key in keys {
            if inner.cache.loads() >= LOADS_MAX {
                if let Some(cached) = inner.cache.peek(key, not_before_ms, now_ms) {
                    got.known.insert(key.clone(), cached);
                }
                continue;
            }
            match inner.cache.look(key, not_before_ms, now_ms, number) {
                Look::Known(cached) => {
                    got.fresh += usize::from(!cached.is_stale);
                    got.stale += usize::from(cached.is_stale);
                    got.negative += usize::from(cached.is_negative);
                    got.known.insert(key.clone(), cached);
                }
                Look::Refresh(cached) => {
                    got.stale += 1;
                    got.negative += usize::from(cached.is_negative);
                    got.loaded += 1;
                    got.known.insert(key.clone(), cached);
                    to_load.push(key.clone());
                }
                Look::Load => {
                    got.loaded += 1;
                    to_load.push(key.clone());
                    waits.entry(number).or_default().push(key.clone());
                }
                Look::Wait(number) => {
                    got.joined += usize::from(is_first);
                    waits.entry(number).or_default().push(key.clone());
                }
            }
        }
        let flight = (!to_load.is_empty()).then(|| {
            let (ended, waiting) = watch::channel(None);
            inner.flights.insert(number, (now_ms, waiting));
            Flight { near: Arc::clone(self), number, begun_at_ms: now_ms, keys: to_load, ended }
        });
        let waits = waits.into_iter().filter_map(|(number, keys)| {
            let (begun_at_ms, ended) = inner.flights.get(&number)?;
            Some((keys, *begun_at_ms, ended.clone()))
        });
        (flight, waits.collect())
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Flight<K, V> {
    /// What is to be loaded: each key once.
    #[must_use]
    pub fn keys(&self) -> &[K] {
        &self.keys
    }

    /// What was loaded; what is not among it is not known. Says how many were overtaken by an invalidation: they are not
    /// used.
    pub fn land(self, loaded: impl IntoIterator<Item = (K, Fill<V>)>) -> usize {
        let mut overtaken = HashSet::default();
        {
            let mut inner = self.near.inner.lock();
            for (key, fill) in loaded {
                let (at, chance) = (self.begun_at_ms, rand::random());
                if !inner.cache.land(&key, self.number, Some(fill), at, chance) {
                    overtaken.insert(key);
                }
            }
        }
        let count = overtaken.len();
        self.ended.send_replace(Some(Arc::new(overtaken)));
        count
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Drop for Flight<K, V> {
    fn drop(&mut self) {
        let mut inner = self.near.inner.lock();
        self.keys.iter().for_each(|key| inner.cache.give_up(key, self.number));
        inner.flights.remove(&self.number);
    }
}

#[cfg(test)]
mod tests;
