//! Every order of looks, loads, writes and their late news.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const TERMS: Terms =
    Terms { entries_max: 4, ttl_ms: 1_000, negative_ttl_ms: 100, stale_ms: 2_000, jitter_percent: 50 };

fn ver(number: u64) -> Ver {
    (Epoch::of(1), Version::of(number))
}

fn fill(number: u64) -> Fill<u64> {
    Fill { value: number, ver: ver(number), is_negative: number == 0 }
}

/// Nothing yet, of keys that are all one shard's.
fn empty<K: Hash + Eq + Clone>(terms: Terms) -> Cache<K, u64> {
    Cache::new(terms, Box::new(|_| ShardId::FIRST))
}

/// A cache with one key that was loaded at 10,000 ms, by chance in the middle.
fn filled(number: u64) -> Cache<u8, u64> {
    let mut cache = empty(TERMS);
    assert_eq!(cache.look(&7, 0, 10_000, 1), Look::Load);
    assert!(cache.land(&7, 1, Some(fill(number)), 10_000, 0.5));
    cache
}

#[track_caller]
fn known(look: Look<u64>, value: u64, is_stale: bool) {
    let (Look::Known(cached) | Look::Refresh(cached)) = &look else { panic!("{look:?}") };
    assert_eq!((cached.value, cached.is_stale, cached.as_of_ms), (value, is_stale, 10_000));
}

#[test]
fn an_entry_is_fresh_then_stale_while_one_loads_it_and_then_gone() {
    let mut cache = filled(5);
    known(cache.look(&7, 0, 10_999, 2), 5, false);
    let look = cache.look(&7, 0, 11_000, 3);
    assert!(matches!(look, Look::Refresh(_)), "{look:?}");
    known(look, 5, true);
    let look = cache.look(&7, 0, 11_000, 4);
    assert!(matches!(look, Look::Known(_)), "one loads it already: {look:?}");
    known(look, 5, true);
    known(cache.look(&7, 0, 12_999, 5), 5, true);
    assert_eq!(cache.look(&7, 0, 13_000, 6), Look::Wait(3), "too old to be served");
    cache.give_up(&7, 3);
    assert_eq!(cache.look(&7, 0, 13_000, 7), Look::Load);
}

#[test]
fn what_is_not_there_is_soon_looked_for_again() {
    let mut cache = filled(0);
    known(cache.look(&7, 0, 10_099, 2), 0, false);
    assert!(matches!(cache.look(&7, 0, 10_100, 3), Look::Refresh(_)));
}

#[test]
fn nothing_older_than_asked_for_is_served() {
    let mut cache = filled(5);
    known(cache.look(&7, 10_000, 10_500, 2), 5, false);
    assert_eq!(cache.look(&7, 10_001, 10_500, 3), Look::Load);
    assert_eq!(cache.look(&7, 10_001, 10_500, 4), Look::Wait(3));
    known(cache.look(&7, 0, 10_500, 5), 5, false);
}

#[test]
fn a_load_that_an_invalidation_overtook_brings_nothing_older() {
    let mut cache = filled(5);
    assert!(!cache.invalidate(&7, ver(5)), "no news");
    assert!(cache.invalidate(&7, ver(8)));
    assert!(!cache.invalidate(&7, ver(8)), "gone already");
    assert_eq!(cache.look(&7, 0, 10_500, 2), Look::Load);
    cache.invalidate(&7, ver(9));
    cache.invalidate(&7, ver(8));
    assert!(!cache.land(&7, 2, Some(fill(8)), 10_500, 0.5), "older than the last");
    assert_eq!(cache.look(&7, 0, 10_500, 3), Look::Load);
    assert!(cache.land(&7, 3, Some(fill(9)), 10_500, 0.5));
    assert!(!cache.land(&7, 3, Some(fill(10)), 10_500, 0.5), "it has landed");
}

#[test]
fn what_is_forgotten_is_not_brought_back_by_a_load_from_before() {
    let mut cache = filled(5);
    assert_eq!(cache.look(&8, 0, 10_000, 2), Look::Load);
    cache.forget(ShardId::FIRST);
    assert!(!cache.land(&8, 2, Some(fill(99)), 10_000, 0.5));
    assert_eq!((cache.peek(&7, 0, 10_000), cache.loads()), (None, 0));
    assert!(!cache.invalidate(&7, ver(8)), "it was not served any more");
    assert_eq!(cache.look(&8, 0, 10_000, 3), Look::Load);
    assert!(cache.land(&8, 3, Some(fill(5)), 10_000, 0.5));
    known(cache.look(&8, 0, 10_000, 4), 5, false);
}

#[test]
fn a_shard_is_forgotten_alone_and_its_places_are_the_first_to_be_taken() {
    let shard = |number: u8| ShardId::numbered(number.into()).unwrap();
    let mut cache = Cache::new(TERMS, Box::new(move |key: &u8| shard(key % 2)));
    let load = |cache: &mut Cache<u8, u64>, key: u8| {
        assert_eq!(cache.look(&key, 0, 10_000, 1), Look::Load, "{key}");
        assert!(cache.land(&key, 1, Some(fill(5)), 10_000, 0.5));
        known(cache.look(&key, 0, 10_000, 2), 5, false);
    };
    (0..4).for_each(|key| load(&mut cache, key));
    cache.forget(shard(1));
    for key in [0, 2] {
        known(cache.look(&key, 0, 10_000, 2), 5, false);
    }
    assert_eq!((cache.peek(&1, 0, 10_000), cache.peek(&3, 0, 10_000)), (None, None));
    // All were asked for alike.
    [4, 6].into_iter().for_each(|key| load(&mut cache, key));
    for key in [0, 2, 4, 6] {
        known(cache.look(&key, 0, 10_000, 2), 5, false);
    }
    assert_eq!(cache.len(), 4);
}

#[test]
fn what_is_asked_for_stays_and_what_is_not_makes_room() {
    let mut cache = filled(5);
    for key in 10..40 {
        known(cache.look(&7, 0, 10_500, 1), 5, false);
        assert_eq!(cache.look(&key, 0, 10_500, 2), Look::Load);
        assert!(cache.land(&key, 2, Some(fill(1)), 10_500, 0.5));
        assert!(cache.len() <= TERMS.entries_max);
    }
    // Names are kept in bounds, too, however often one comes and goes.
    for number in 0..1_000 {
        assert_eq!(cache.look(&9, 0, 10_500, number), Look::Load);
        assert!(cache.land(&9, number, Some(fill(1)), 10_500, 0.5));
        cache.invalidate(&9, ver(2));
        assert!(cache.order.len() <= 65);
    }
}

#[test]
fn what_came_together_does_not_go_together() {
    let mut cache = empty(Terms { entries_max: 10_000, ..TERMS });
    for key in 0..10_000 {
        assert_eq!(cache.look(&key, 0, 0, 1), Look::Load);
        let chance = (f64::from(key) * 0.618_033_988_7).fract();
        assert!(cache.land(&key, 1, Some(fill(5)), 0, chance));
    }
    let gone = |cache: &Cache<i32, u64>, now_ms: u64| {
        let entries = cache.entries.values();
        entries.fold((0, 0), |(stale, gone), entry| {
            (stale + i32::from(now_ms >= entry.stale_at_ms), gone + i32::from(now_ms >= entry.gone_at_ms))
        })
    };
    assert_eq!((gone(&cache, 499), gone(&cache, 1_499)), ((0, 0), (10_000, 0)));
    for at_ms in (500..5_000).step_by(100) {
        let (before, after) = (gone(&cache, at_ms), gone(&cache, at_ms + 100));
        // Each goes within the second around its time, and all after three times as long.
        assert!(after.0 - before.0 <= 1_050 && after.1 - before.1 <= 400, "at {at_ms}: {before:?} {after:?}");
    }
    assert_eq!(gone(&cache, TERMS.life_ms_max()), (10_000, 10_000));
}

#[derive(Debug, Clone)]
enum Step {
    /// A key changes at its source.
    Write(u8),
    /// News of the latest write arrive, late or again.
    News(u8),
    Look {
        key: u8,
        max_age_ms: u64,
    },
    /// The source is read by the load that is under way.
    Read(u8),
    Land(u8, f64),
    GiveUp(u8),
    /// All keys change, and nobody tells of each.
    Forget,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..6_u8;
    prop_oneof![
        2 => key.clone().prop_map(Step::Write),
        2 => key.clone().prop_map(Step::News),
        4 => (key.clone(), 0..5_000_u64).prop_map(|(key, max_age_ms)| Step::Look { key, max_age_ms }),
        3 => key.clone().prop_map(Step::Read),
        3 => (key.clone(), 0.0..1.0).prop_map(|(key, chance)| Step::Land(key, chance)),
        1 => key.prop_map(Step::GiveUp),
        1 => Just(Step::Forget),
        2 => (0..2_000_u64).prop_map(Step::Pass),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Load {
    number: u64,
    begun_at_ms: u64,
    read: Option<u64>,
}

proptest! {
    #[test]
    fn nothing_is_served_that_is_older_than_the_news_or_than_it_may_be(steps in vec(step(), 0..400)) {
        let mut cache = empty(TERMS);
        let (mut now_ms, mut number) = (10_000_u64, 0);
        let (mut truth, mut heard) = (HashMap::<u8, u64>::new(), HashMap::<u8, u64>::new());
        let mut loads = HashMap::<u8, Load>::new();
        for step in steps {
            match step {
                Step::Write(key) => *truth.entry(key).or_default() += 1,
                Step::News(key) => {
                    let news = truth.get(&key).copied().unwrap_or_default();
                    heard.insert(key, news);
                    cache.invalidate(&key, ver(news));
                }
                Step::Look { key, max_age_ms } => {
                    number += 1;
                    let not_before_ms = now_ms.saturating_sub(max_age_ms);
                    let look = cache.look(&key, not_before_ms, now_ms, number);
                    if matches!(look, Look::Load | Look::Refresh(_)) {
                        let load = Load { number, begun_at_ms: now_ms, read: None };
                        prop_assert!(loads.insert(key, load).is_none(), "one load a key at a time");
                    }
                    match look {
                        Look::Known(cached) | Look::Refresh(cached) => {
                            prop_assert!(cached.as_of_ms >= not_before_ms);
                            prop_assert!(now_ms - cached.as_of_ms < TERMS.life_ms_max());
                            prop_assert!(cached.value >= heard.get(&key).copied().unwrap_or_default());
                        }
                        Look::Wait(on) => prop_assert_eq!(loads.get(&key).map(|load| load.number), Some(on)),
                        Look::Load => {}
                    }
                }
                Step::Read(key) => {
                    if let Some(load) = loads.get_mut(&key) {
                        load.read.get_or_insert(truth.get(&key).copied().unwrap_or_default());
                    }
                }
                Step::Land(key, chance) => {
                    if let Some(load) = loads.remove(&key) {
                        cache.land(&key, load.number, load.read.map(fill), load.begun_at_ms, chance);
                    }
                }
                Step::GiveUp(key) => {
                    if let Some(load) = loads.remove(&key) {
                        cache.give_up(&key, load.number);
                    }
                }
                Step::Forget => {
                    for key in 0..6 {
                        let news = truth.entry(key).or_default();
                        *news += 1;
                        heard.insert(key, *news);
                    }
                    cache.forget(ShardId::FIRST);
                }
                Step::Pass(ms) => now_ms += ms,
            }
            prop_assert!(cache.len() <= TERMS.entries_max);
            prop_assert_eq!(cache.loads(), loads.len());
        }
    }
}
