//! Many who ask at once, and loads that are given up.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::*;
use crate::ids::{Epoch, Version};

const TERMS: Terms = Terms {
    entries_max: 1_000,
    ttl_ms: 60_000,
    negative_ttl_ms: 60_000,
    stale_ms: 60_000,
    jitter_percent: 50,
};

fn one_shard(_: &u8) -> ShardId {
    ShardId::FIRST
}

fn fill(number: u64) -> Fill<u64> {
    Fill { value: number, ver: (Epoch::ZERO, Version::of(number)), is_negative: false }
}

/// Loads everything as this number, once it is told to.
fn loader(number: u64, go: &Arc<Notify>, loads: &Arc<AtomicUsize>) -> impl Fn(Flight<u8, u64>) + use<> {
    let (go, loads) = (Arc::clone(go), Arc::clone(loads));
    move |flight| {
        loads.fetch_add(1, Ordering::Relaxed);
        let go = Arc::clone(&go);
        #[allow(clippy::disallowed_methods, reason = "a test's own task")]
        tokio::spawn(async move {
            go.notified().await;
            let loaded: Vec<_> = flight.keys().iter().map(|key| (*key, fill(number))).collect();
            flight.land(loaded);
        });
    }
}

#[tokio::test]
async fn a_thousand_who_ask_at_once_cause_one_load() {
    let near = NearCache::new(TERMS, one_shard);
    let (go, loads) = (Arc::<Notify>::default(), Arc::<AtomicUsize>::default());
    let load = loader(5, &go, &loads);
    let asked: Vec<_> = (0..1_000).map(|_| near.get(&[7], 0, &load)).collect();
    let opened = async {
        tokio::task::yield_now().await;
        go.notify_one();
    };
    let (got, ()) = tokio::join!(join_all(asked), opened);
    assert!(got.iter().all(|got| got.known.get(&7).is_some_and(|cached| cached.value == 5)));
    assert_eq!(loads.load(Ordering::Relaxed), 1);
    assert_eq!(got.iter().map(|got| got.joined).sum::<usize>(), 999);
    let got = near.get(&[7], 0, &load).await;
    assert_eq!((got.fresh, got.loaded, loads.load(Ordering::Relaxed)), (1, 0, 1));
}

#[tokio::test]
async fn a_load_that_an_invalidation_overtook_is_followed_by_another() {
    let near = NearCache::new(TERMS, one_shard);
    let (go, loads) = (Arc::<Notify>::default(), Arc::<AtomicUsize>::default());
    let (number, near_too) = (AtomicUsize::new(5), Arc::clone(&near));
    let load = |flight: Flight<u8, u64>| {
        let number = number.fetch_add(1, Ordering::Relaxed) as u64;
        if number == 5 {
            near_too.invalidate(&7, (Epoch::ZERO, Version::of(6)));
        }
        go.notify_one();
        loader(number, &go, &loads)(flight);
    };
    let got = near.get(&[7], 0, load).await;
    assert_eq!(got.known.get(&7).map(|cached| cached.value), Some(6));
    assert_eq!(loads.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_is_not_loaded_is_not_known_and_whoever_asks_next_tries_again() {
    let near = NearCache::<u8, u64>::new(TERMS, one_shard);
    let got = near.get(&[7, 8], 0, drop).await;
    assert!(got.known.is_empty() && near.is_empty());
    let got = near
        .get(&[7, 8], 0, |flight| {
            flight.land([(8, fill(1))]);
        })
        .await;
    assert_eq!((got.known.len(), got.loaded, near.len()), (1, 2, 1));
    // Who gives up waiting takes no load along.
    let (go, loads) = (Arc::<Notify>::default(), Arc::<AtomicUsize>::default());
    let given_up =
        tokio::time::timeout(std::time::Duration::from_millis(1), near.get(&[7], 0, loader(2, &go, &loads)));
    assert!(given_up.await.is_err());
    go.notify_one();
    let got = near.get(&[7], 0, loader(3, &go, &loads)).await;
    assert_eq!((got.known.get(&7).map(|cached| cached.value), loads.load(Ordering::Relaxed)), (Some(2), 1));
}
