//! The contract of a store, continued: counters. A change is made whole or not at all, whoever else changes meanwhile, and
//! no number is rounded.

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join_all;
use hearth::ids::KeyName;
use hearth::store::{Bound, Counted, CounterRequest};

use super::fixture::{Fixture, SHORT, for_each_store};
use crate::harness::patience::until;

for_each_store! {
    a_counter_starts_at_zero_and_is_looked_at_without_being_made
    a_change_beyond_a_bound_is_refused_and_says_where_the_counter_stands
    no_number_of_64_bits_is_rounded
    changes_at_once_are_each_made_once
    of_many_at_once_as_many_go_through_as_the_bound_allows
    a_counter_is_forgotten_after_its_time_counted_from_its_first_change
    a_counter_without_an_end_is_forgotten_at_zero
    counters_share_nothing
    a_change_that_comes_again_counts_once
}

fn by(by: i64) -> CounterRequest {
    CounterRequest {
        name: KeyName::parse("swords").unwrap(),
        by,
        min: None,
        max: None,
        ttl: None,
        once: None,
    }
}

fn within(change: i64, min: Option<i64>, max: Option<i64>) -> CounterRequest {
    CounterRequest { min, max, ..by(change) }
}

async fn counted(fixture: &Fixture, request: CounterRequest) -> Counted {
    fixture.store.counter(request).await.unwrap()
}

/// Where it stands after a change that must be made.
async fn at(fixture: &Fixture, request: CounterRequest) -> i64 {
    match counted(fixture, request).await {
        Counted::At { value, .. } => value,
        refused @ Counted::Refused { .. } => panic!("{refused:?}"),
    }
}

/// Where it stands after a change that must not be made, and why.
async fn refused(fixture: &Fixture, request: CounterRequest) -> (i64, Bound) {
    match counted(fixture, request).await {
        Counted::Refused { value, bound, .. } => (value, bound),
        made @ Counted::At { .. } => panic!("{made:?}"),
    }
}

async fn a_counter_starts_at_zero_and_is_looked_at_without_being_made(fixture: &Fixture) {
    let look = CounterRequest { ttl: Some(SHORT), ..by(0) };
    assert_eq!(counted(fixture, look).await, Counted::At { value: 0, expires_in: None });
    // Had the look made it, this would not give it its end.
    let made = counted(fixture, CounterRequest { ttl: Some(Duration::from_secs(600)), ..by(3) }).await;
    let Counted::At { value: 3, expires_in: Some(left) } = made else { panic!("{made:?}") };
    assert!(left <= Duration::from_secs(600) && left > Duration::from_secs(500), "{left:?}");
    assert_eq!(at(fixture, by(-5)).await, -2);
    assert_eq!(at(fixture, by(0)).await, -2);
}

async fn a_change_beyond_a_bound_is_refused_and_says_where_the_counter_stands(fixture: &Fixture) {
    assert_eq!(refused(fixture, within(-1, Some(0), None)).await, (0, Bound::Min));
    assert_eq!(at(fixture, within(4, None, Some(5))).await, 4);
    assert_eq!(refused(fixture, within(2, None, Some(5))).await, (4, Bound::Max));
    assert_eq!(at(fixture, within(1, None, Some(5))).await, 5);
    assert_eq!(refused(fixture, within(1, None, Some(5))).await, (5, Bound::Max));
    assert_eq!(refused(fixture, within(-6, Some(0), Some(5))).await, (5, Bound::Min));
    assert_eq!(at(fixture, within(-5, Some(0), Some(5))).await, 0);
    // Beyond a bound already: back is allowed, and a look is.
    assert_eq!(at(fixture, by(100)).await, 100);
    assert_eq!(at(fixture, within(-1, Some(-10), Some(5))).await, 99);
    assert_eq!(at(fixture, within(0, Some(200), Some(300))).await, 99);
    assert_eq!(refused(fixture, within(1, None, Some(5))).await, (99, Bound::Max));
}

async fn no_number_of_64_bits_is_rounded(fixture: &Fixture) {
    let large = i64::MAX - 2;
    assert_eq!(at(fixture, within(large, None, Some(large))).await, large);
    assert_eq!(refused(fixture, within(1, None, Some(large))).await, (large, Bound::Max));
    assert_eq!(at(fixture, within(1, None, Some(large + 1))).await, large + 1);
    assert_eq!(at(fixture, by(1)).await, i64::MAX);
    assert_eq!(refused(fixture, by(1)).await, (i64::MAX, Bound::Bits));
    assert_eq!(refused(fixture, by(i64::MAX)).await, (i64::MAX, Bound::Bits));
    assert_eq!(at(fixture, by(i64::MIN)).await, -1);
    assert_eq!(refused(fixture, by(i64::MIN)).await, (-1, Bound::Bits));
    assert_eq!(at(fixture, by(i64::MIN + 1)).await, i64::MIN);
    assert_eq!(refused(fixture, within(-1, Some(i64::MIN), None)).await, (i64::MIN, Bound::Min));
}

async fn changes_at_once_are_each_made_once(fixture: &Fixture) {
    let changes = (1..=50).map(|n| at(fixture, by(if n % 2 == 0 { n } else { -n })));
    join_all(changes).await;
    assert_eq!(at(fixture, by(0)).await, 25);
}

async fn of_many_at_once_as_many_go_through_as_the_bound_allows(fixture: &Fixture) {
    let taken = join_all((0..40).map(|_| counted(fixture, within(1, None, Some(7))))).await;
    let through = taken.iter().filter(|taken| matches!(taken, Counted::At { .. })).count();
    assert_eq!(through, 7, "{taken:?}");
    assert_eq!(at(fixture, by(0)).await, 7);
}

async fn a_counter_is_forgotten_after_its_time_counted_from_its_first_change(fixture: &Fixture) {
    let began = std::time::Instant::now();
    let short = |change| CounterRequest { ttl: Some(Duration::from_millis(400)), ..by(change) };
    assert_eq!(at(fixture, short(1)).await, 1);
    let changes = Cell::new(1);
    // Later changes do not move its end, whatever they ask for.
    until("it is forgotten", async || {
        let later = CounterRequest { ttl: Some(Duration::from_secs(600)), ..by(1) };
        changes.set(changes.get() + 1);
        (at(fixture, later).await < changes.get()).then_some(())
    })
    .await;
    assert!(began.elapsed() >= Duration::from_millis(399), "{:?}", began.elapsed());
}

async fn a_counter_without_an_end_is_forgotten_at_zero(fixture: &Fixture) {
    assert_eq!(at(fixture, by(2)).await, 2);
    assert_eq!(at(fixture, by(-2)).await, 0);
    // It is made anew, and so has an end now.
    let made = counted(fixture, CounterRequest { ttl: Some(Duration::from_secs(600)), ..by(1) }).await;
    assert!(matches!(made, Counted::At { value: 1, expires_in: Some(_) }), "{made:?}");
    // One that has an end stands at zero until then.
    let zero = counted(fixture, by(-1)).await;
    assert!(matches!(zero, Counted::At { value: 0, expires_in: Some(_) }), "{zero:?}");
}

async fn counters_share_nothing(fixture: &Fixture) {
    let named = |name: &str| CounterRequest { name: KeyName::parse(name).unwrap(), ..by(1) };
    for name in ["a", "a}", "}", "{a}", "a:b", "é", "a b"] {
        assert_eq!(at(fixture, named(name)).await, 1, "{name}");
    }
    assert_eq!(at(fixture, named("}")).await, 2);
}

async fn a_change_that_comes_again_counts_once(fixture: &Fixture) {
    // The second name would break a hash tag: what is remembered lies beside the counter all the same.
    for name in ["swords", "}{"] {
        let change = |amount, id| CounterRequest {
            name: KeyName::parse(name).unwrap(),
            once: Some(id),
            max: Some(9),
            ..by(amount)
        };
        let at = |value| Counted::At { value, expires_in: None };
        assert_eq!(counted(fixture, change(5, 1)).await, at(5));
        assert_eq!(counted(fixture, change(2, 2)).await, at(7));
        for _ in 0..2 {
            assert_eq!(counted(fixture, change(5, 1)).await, at(5), "what the first one was told");
        }
        // What was refused was not made: it is tried anew.
        assert!(matches!(counted(fixture, change(5, 3)).await, Counted::Refused { value: 7, .. }));
        assert_eq!(counted(fixture, change(-5, 4)).await, at(2));
        assert_eq!(counted(fixture, change(5, 3)).await, at(7));
        assert_eq!(counted(fixture, change(0, 1)).await, at(7), "a look");
    }
}
