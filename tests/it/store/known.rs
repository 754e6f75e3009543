//! The contract of a store, continued: the filter of players ever seen. Whoever was committed as known is in it until it
//! has begun anew twice without her.

use std::time::Duration;

use hearth::store::layout::KNOWN_BITS;
use hearth::store::{Bits, CommitRecord, Holder, NextGeneration, Rotated};

use super::fixture::{Fixture, Home, LONG, for_each_store, live, player, remainder};
use crate::harness::patience::until;

for_each_store! {
    whoever_was_committed_as_known_is_in_the_filter
    a_take_over_finds_the_filter_as_it_was_left
    nobody_is_denied_who_was_committed_again_or_put_into_the_new_generation
    a_new_shards_filter_is_whole_from_the_start
}

fn holder(home: &Home) -> Holder {
    Holder { owner: home.owner.clone(), epoch: home.grant.epoch, generation: home.grant.generation }
}

async fn may_know(home: &Home, fixture: &Fixture, names: &[&str]) -> Vec<bool> {
    let stored = fixture.store.load_known(home.shard).await.unwrap();
    names.iter().map(|name| stored.filter.may_know(&player(name))).collect()
}

/// A generation of those who are kept for so long.
fn kept_for(keeps: Duration) -> NextGeneration {
    NextGeneration { keeps, ..NextGeneration::default() }
}

async fn ask(home: &Home, fixture: &Fixture, next: NextGeneration) -> Rotated {
    fixture.store.rotate_known(home.shard, holder(home), next).await.unwrap()
}

/// Has it count that nobody was ever seen, in a shard where nobody was.
async fn begin(home: &Home, fixture: &Fixture, keeps: Duration) {
    let next = NextGeneration { all: Some(Bits::default()), ..kept_for(keeps) };
    assert_eq!(ask(home, fixture, next).await, Rotated::Rotated);
}

/// Begins a new generation, whatever the age of the current one.
async fn rotate(home: &Home, fixture: &Fixture, first: &[&str]) {
    let mut bits = Bits::default();
    first.iter().for_each(|name| bits.add(&player(name)));
    until("a new generation", async || {
        let next = NextGeneration { first: bits.clone(), ..kept_for(Duration::ZERO) };
        (ask(home, fixture, next).await == Rotated::Rotated).then_some(())
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
    begin(&home, fixture, Duration::ZERO).await;
    home.commit(vec![remainder("ann", 0, 1), live("bea", 0, 1), remainder("cem", 0, 1)]).await;
    rotate(&home, fixture, &["cem"]).await;
    assert_eq!(may_know(&home, fixture, &["ann", "bea", "cem", "dan"]).await, [true, true, true, false]);
    home.commit(vec![CommitRecord { known: true, ..live("bea", 1, 2) }]).await;
    rotate(&home, fixture, &[]).await;
    assert_eq!(may_know(&home, fixture, &["bea", "cem", "dan"]).await, [true, true, false]);
}

async fn a_new_shards_filter_is_whole_from_the_start(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    assert!(fixture.store.load_known(home.shard).await.unwrap().is_whole);
    begin(&home, fixture, LONG).await;
    home.commit(vec![remainder("ann", 0, 1)]).await;
    let stored = fixture.store.load_known(home.shard).await.unwrap();
    assert!(stored.is_whole && stored.is_begun && stored.keeps_ms >= 600_000, "{stored:?}");
    assert_eq!(may_know(&home, fixture, &["ann", "bob"]).await, [true, false]);
}

const META: &str = "{c.s7}:m";
const KNOWN: &str = "{c.s7}:known";
const OLD: &str = "{c.s7}:known.old";
/// Bits that are no player's.
const MARK: u64 = hearth::store::layout::KNOWN_MARK_BITS;

#[tokio::test]
async fn on_redis_a_generation_is_a_bitmap_that_only_the_holder_and_only_age_replaces() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    let count = |key: &str| fixture.server().query::<u64>(&["BITCOUNT", key]);
    let loaded = async || fixture.store.load_known(home.shard).await.unwrap();
    assert_eq!((count(KNOWN), loaded().await.since_unix_ms), (0, None));
    let stranger = Holder { owner: hearth::ids::Owner::named("b#1"), ..holder(&home) };
    let asked = fixture.store.rotate_known(home.shard, stranger, kept_for(Duration::ZERO)).await;
    assert_eq!(asked.unwrap(), Rotated::Fenced);
    begin(&home, &fixture, Duration::ZERO).await;
    let since = loaded().await.since_unix_ms.unwrap();
    assert!(since.abs_diff(hearth::clock::now().unix_ms) < 60_000, "{since}");
    // The meta is lost, and with it how old it is.
    fixture.server().query::<()>(&["HDEL", META, "known_at"]);
    assert_eq!(ask(&home, &fixture, kept_for(Duration::ZERO)).await, Rotated::Young);
    assert!(loaded().await.since_unix_ms.is_some());
    home.commit(vec![remainder("ann", 0, 1)]).await;
    assert_eq!((count(KNOWN), count(OLD)), (MARK + 4, MARK));
    rotate(&home, &fixture, &[]).await;
    assert_eq!((count(KNOWN), count(OLD)), (MARK, MARK + 4));
    assert_eq!(may_know(&home, &fixture, &["ann"]).await, [true]);
    rotate(&home, &fixture, &["bea"]).await;
    assert_eq!((count(KNOWN), count(OLD)), (MARK + 4, MARK));
    assert_eq!(may_know(&home, &fixture, &["ann", "bea"]).await, [false, true], "twice without her");
    assert!(fixture.server().query::<u64>(&["STRLEN", KNOWN]) <= KNOWN_BITS / 8);
}

#[tokio::test]
async fn on_redis_who_was_to_be_kept_for_longer_is_not_denied_after_the_setting_was_lowered() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    begin(&home, &fixture, Duration::ZERO).await;
    assert_eq!(ask(&home, &fixture, kept_for(LONG)).await, Rotated::Young);
    assert_eq!(fixture.store.load_known(home.shard).await.unwrap().keeps_ms, 600_000);
    home.commit(vec![remainder("ann", 0, 1)]).await;
    // Nobody is in the old one: it makes way at once, and she becomes an old one.
    rotate(&home, &fixture, &[]).await;
    let stored = fixture.store.load_known(home.shard).await.unwrap();
    assert_eq!((stored.keeps_ms, stored.old_keeps_ms), (1, 600_000));
    assert_eq!(ask(&home, &fixture, kept_for(Duration::ZERO)).await, Rotated::Young, "she is kept");
    assert_eq!(may_know(&home, &fixture, &["ann"]).await, [true]);
    // Her time is over.
    fixture.server().query::<()>(&["HINCRBY", META, "known_at", "-600001"]);
    rotate(&home, &fixture, &[]).await;
    let stored = fixture.store.load_known(home.shard).await.unwrap();
    assert_eq!((stored.keeps_ms, stored.old_keeps_ms), (1, 1));
    assert_eq!(may_know(&home, &fixture, &["ann"]).await, [false]);
}

/// What a home reads of the filter: whether it may deny anybody, and whether the current generation counts.
async fn is_whole(home: &Home, fixture: &Fixture) -> (bool, bool) {
    let stored = fixture.store.load_known(home.shard).await.unwrap();
    (stored.is_whole, stored.is_begun)
}

#[tokio::test]
async fn on_redis_a_filter_that_was_lost_and_grew_again_denies_nobody_until_it_is_rebuilt() {
    for with_meta in [false, true] {
        let fixture = Fixture::redis().await;
        let mut home = Home::take(&fixture, "a#1").await;
        begin(&home, &fixture, LONG).await;
        home.commit(vec![remainder("ann", 0, 1), live("bea", 0, 1)]).await;
        assert_eq!(is_whole(&home, &fixture).await, (true, true));
        fixture.server().query::<()>(&["DEL", KNOWN]);
        assert_eq!(is_whole(&home, &fixture).await, (false, false), "it is gone");
        if with_meta {
            fixture.server().query::<()>(&["DEL", META, OLD]);
            home = Home::take(&fixture, "a#1").await;
            assert_eq!(is_whole(&home, &fixture).await, (false, false), "somebody is stored");
        }
        home.commit(vec![remainder("cem", 0, 1)]).await;
        assert_eq!(is_whole(&home, &fixture).await, (false, false), "it holds one of three");
        // It begins anew at once, and counts when the time of all who are not in it is over.
        assert_eq!(ask(&home, &fixture, kept_for(LONG)).await, Rotated::Rotated);
        assert_eq!(is_whole(&home, &fixture).await, (false, true));
        home.commit(vec![CommitRecord { known: true, ..live("bea", 1, 2) }]).await;
        assert_eq!(ask(&home, &fixture, kept_for(LONG)).await, Rotated::Young);
        fixture.server().query::<()>(&["HINCRBY", META, "known_at", "-600001"]);
        assert_eq!(ask(&home, &fixture, kept_for(LONG)).await, Rotated::Rotated);
        assert_eq!(is_whole(&home, &fixture).await, (true, true));
        assert_eq!(may_know(&home, &fixture, &["bea", "dan"]).await, [true, false]);
    }
}

#[tokio::test]
async fn on_redis_whoever_knows_all_who_were_seen_puts_back_what_was_lost() {
    for lost in [KNOWN, OLD] {
        let fixture = Fixture::redis().await;
        let mut home = Home::take(&fixture, "a#1").await;
        begin(&home, &fixture, LONG).await;
        home.commit(vec![remainder("ann", 0, 1)]).await;
        let all = fixture.store.load_known(home.shard).await.unwrap().filter.all();
        fixture.server().query::<()>(&["DEL", lost]);
        assert!(!is_whole(&home, &fixture).await.0, "{lost}");
        let next = NextGeneration { all: Some(all), ..kept_for(LONG) };
        assert_eq!(ask(&home, &fixture, next).await == Rotated::Rotated, lost == KNOWN);
        assert_eq!(is_whole(&home, &fixture).await, (true, true), "{lost}");
        assert_eq!(may_know(&home, &fixture, &["ann", "bob"]).await, [true, false]);
    }
}
