//! The contract of a store, continued: the filter of players ever seen. Whoever was committed as known is in it until it
//! has begun anew twice without her.

use std::time::Duration;

use hearth::store::layout::KNOWN_BITS;
use hearth::store::{Bits, CommitRecord, Holder, Rotated};

use super::fixture::{Fixture, Home, LONG, for_each_store, live, player, remainder};
use crate::harness::patience::until;

for_each_store! {
    whoever_was_committed_as_known_is_in_the_filter
    a_take_over_finds_the_filter_as_it_was_left
    nobody_is_denied_who_was_committed_again_or_put_into_the_new_generation
}

fn holder(home: &Home) -> Holder {
    Holder { owner: home.owner.clone(), epoch: home.grant.epoch, generation: home.grant.generation }
}

async fn may_know(home: &Home, fixture: &Fixture, names: &[&str]) -> Vec<bool> {
    let stored = fixture.store.load_known(home.shard).await.unwrap();
    names.iter().map(|name| stored.filter.may_know(&player(name))).collect()
}

/// Begins a new generation, whatever the age of the current one.
async fn rotate(home: &Home, fixture: &Fixture, first: &[&str]) {
    let mut bits = Bits::default();
    first.iter().for_each(|name| bits.add(&player(name)));
    until("a new generation", async || {
        let rotated =
            fixture.store.rotate_known(home.shard, holder(home), bits.clone(), Duration::ZERO).await;
        (rotated.unwrap() == Rotated::Rotated).then_some(())
    })
    .await;
}

async fn whoever_was_committed_as_known_is_in_the_filter(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    assert_eq!(may_know(&home, fixture, &["ann", "bob"]).await, [false, false]);
    home.commit(vec![live("ann", 0, 1), remainder("zoë", 0, 1)]).await;
    home.commit(vec![CommitRecord { known: true, ..live("ann", 1, 2) }]).await;
    assert_eq!(may_know(&home, fixture, &["ann", "zoë", "bob"]).await, [true, true, false]);
    let crowd: Vec<_> = (0..60).map(|n| format!("p{n}")).collect();
    home.commit(crowd.iter().map(|name| live(name, 0, 1)).collect()).await;
    let names: Vec<_> = crowd.iter().map(String::as_str).collect();
    assert!(may_know(&home, fixture, &names).await.into_iter().all(|known| known));
}

async fn a_take_over_finds_the_filter_as_it_was_left(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    home.commit(vec![live("ann", 0, 1)]).await;
    let home = home.succeeded_by("b#1").await;
    assert_eq!(may_know(&home, fixture, &["ann", "bob"]).await, [true, false]);
}

async fn nobody_is_denied_who_was_committed_again_or_put_into_the_new_generation(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    home.commit(vec![remainder("ann", 0, 1), live("bea", 0, 1), remainder("cem", 0, 1)]).await;
    rotate(&home, fixture, &["cem"]).await;
    assert_eq!(may_know(&home, fixture, &["ann", "bea", "cem", "dan"]).await, [true, true, true, false]);
    home.commit(vec![CommitRecord { known: true, ..live("bea", 1, 2) }]).await;
    rotate(&home, fixture, &[]).await;
    assert_eq!(may_know(&home, fixture, &["bea", "cem", "dan"]).await, [true, true, false]);
}

#[tokio::test]
async fn on_redis_a_generation_is_a_bitmap_that_only_the_holder_and_only_age_replaces() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    home.commit(vec![remainder("ann", 0, 1)]).await;
    let count = |key: &str| fixture.server().query::<u64>(&["BITCOUNT", key]);
    assert_eq!((count("{c.s7}:known"), count("{c.s7}:known.old")), (4, 0));
    assert_eq!(fixture.store.load_known(home.shard).await.unwrap().since_unix_ms, None);
    let ask = async |holder: Holder, min_age| {
        fixture.store.rotate_known(home.shard, holder, Bits::default(), min_age).await.unwrap()
    };
    let stranger = Holder { owner: hearth::ids::Owner::named("b#1"), ..holder(&home) };
    assert_eq!(ask(stranger, Duration::ZERO).await, Rotated::Fenced);
    assert_eq!(ask(holder(&home), Duration::ZERO).await, Rotated::Young, "nobody knows how old it is");
    let since = fixture.store.load_known(home.shard).await.unwrap().since_unix_ms.unwrap();
    assert!(since.abs_diff(hearth::clock::now().unix_ms) < 60_000, "{since}");
    assert_eq!(ask(holder(&home), LONG).await, Rotated::Young);
    rotate(&home, &fixture, &[]).await;
    assert_eq!((count("{c.s7}:known"), count("{c.s7}:known.old")), (0, 4));
    assert_eq!(may_know(&home, &fixture, &["ann"]).await, [true]);
    rotate(&home, &fixture, &["bea"]).await;
    assert_eq!((count("{c.s7}:known"), count("{c.s7}:known.old")), (4, 0));
    assert_eq!(may_know(&home, &fixture, &["ann", "bea"]).await, [false, true], "twice without her");
    assert!(fixture.server().query::<u64>(&["STRLEN", "{c.s7}:known"]) <= KNOWN_BITS / 8);
}
