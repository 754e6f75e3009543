//! The contract of a store, continued: what it keeps for players who are not here. The list of the banned moves with
//! their records; messages wait behind the shard's lease, each once, until they are removed or run out.

use std::time::Duration;

use bytes::Bytes;
use hearth::store::{
    BAN_END_MAX, BanMark, CommitRecord, Holder, Keep, QUEUE_BYTES_MAX, QueueAdded, QueuedMessage,
    RecordStatus, Which,
};

use super::fixture::{Fixture, Home, SHORT, for_each_store, live, player, remainder, restoring};
use crate::harness::patience::until;

for_each_store! {
    the_list_of_the_banned_moves_with_their_records
    what_was_not_written_moves_nobody_in_the_list
    the_banned_come_in_pages
    a_banned_player_whose_record_ran_out_is_not_told
    messages_wait_in_the_order_in_which_they_came
    a_message_waits_once
    no_more_wait_than_may
    no_more_bytes_wait_than_may
    a_message_that_ran_out_is_gone_and_makes_room
    what_was_seen_is_removed_and_the_rest_stays
    all_of_a_players_messages_can_be_removed
    only_the_holder_of_the_shard_writes_queues
    messages_outlive_a_take_over
}

/// A remainder with this place in the list.
fn marked(name: &str, base: u64, version: u64, ban: BanMark) -> CommitRecord {
    CommitRecord { ban, ..remainder(name, base, version) }
}

async fn banned(home: &Home, fixture: &Fixture, page_size: usize) -> Vec<String> {
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = fixture.store.load_banned(home.shard, after, page_size).await.unwrap();
        assert!(page.records.len() + page.missing <= page_size);
        names.extend(page.records.into_iter().map(|(player, _)| player.to_string()));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    names.sort_unstable();
    names
}

async fn the_list_of_the_banned_moves_with_their_records(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    home.commit(vec![
        marked("ann", 0, 1, BanMark::Until(9_000_000_000_000)),
        marked("bea", 0, 1, BanMark::Until(BAN_END_MAX)),
        marked("cem", 0, 1, BanMark::Until(u64::MAX)),
        remainder("dan", 0, 1),
    ])
    .await;
    assert_eq!(banned(&home, fixture, 10).await, ["ann", "bea", "cem"]);
    let page = fixture.store.load_banned(home.shard, None, 10).await.unwrap();
    assert!(page.records.iter().all(|(name, stored)| stored.p == format!("{name} at 1")));
    // A record that says nothing of it leaves the place as it is, a touch included.
    home.commit(vec![remainder("ann", 1, 2)]).await;
    home.commit(vec![remainder("ann", 2, 2)]).await;
    home.commit(vec![marked("bea", 1, 2, BanMark::Lifted), marked("cem", 1, 2, BanMark::Lifted)]).await;
    assert_eq!(banned(&home, fixture, 10).await, ["ann"]);
    home.commit_one(CommitRecord { keep: Keep::Erase, ..marked("ann", 2, 3, BanMark::Lifted) }).await;
    assert!(banned(&home, fixture, 10).await.is_empty());
}

async fn what_was_not_written_moves_nobody_in_the_list(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    let ban = BanMark::Until(BAN_END_MAX);
    assert_eq!(home.commit_one(marked("ann", 4, 5, ban)).await, RecordStatus::Gone);
    assert!(banned(&home, fixture, 10).await.is_empty());
    assert_eq!(home.commit_one(restoring(marked("ann", 4, 5, ban))).await, RecordStatus::Restored);
    assert_eq!(banned(&home, fixture, 10).await, ["ann"]);
    let mut next = home.succeeded_by("b#1").await;
    let exists = next.commit_one(marked("ann", 0, 9, BanMark::Lifted)).await;
    assert!(matches!(exists, RecordStatus::Exists(_)));
    assert_eq!(banned(&next, fixture, 10).await, ["ann"]);
}

async fn the_banned_come_in_pages(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    let names: Vec<String> = (0..25).map(|n| format!("p{n:02}")).collect();
    let marks = [BanMark::Until(BAN_END_MAX), BanMark::Until(9_000_000_000_000)];
    let records = names.iter().enumerate().map(|(n, name)| marked(name, 0, 1, marks[n % 2])).collect();
    home.commit(records).await;
    for page_size in [1, 7, 25, 100] {
        assert_eq!(banned(&home, fixture, page_size).await, names);
    }
}

async fn a_banned_player_whose_record_ran_out_is_not_told(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    home.commit_one(CommitRecord { ttl: SHORT, ..marked("ann", 0, 1, BanMark::Until(BAN_END_MAX)) }).await;
    until("the record runs out", || async { banned(&home, fixture, 10).await.is_empty().then_some(()) })
        .await;
}

const FAR: u64 = 9_000_000_000_000;

fn message(id: u128) -> QueuedMessage {
    QueuedMessage { id, expires_at_unix_ms: FAR, body: Bytes::from(format!("body {id}\0\r\n")) }
}

fn holder(home: &Home) -> Holder {
    Holder { owner: home.owner.clone(), epoch: home.grant.epoch, generation: home.grant.generation }
}

async fn add(home: &Home, fixture: &Fixture, message: QueuedMessage, most: usize) -> QueueAdded {
    fixture.store.queue_add(home.shard, holder(home), player("ann"), message, most).await.unwrap()
}

async fn waiting(home: &Home, fixture: &Fixture) -> Vec<u128> {
    let messages = fixture.store.queue_read(home.shard, player("ann")).await.unwrap();
    messages.into_iter().map(|message| message.id).collect()
}

async fn messages_wait_in_the_order_in_which_they_came(fixture: &Fixture) {
    let home = Home::take(fixture, "a#1").await;
    assert!(waiting(&home, fixture).await.is_empty());
    for id in [u128::MAX, 0, 7] {
        assert_eq!(add(&home, fixture, message(id), 100).await, QueueAdded::Added);
    }
    let read = fixture.store.queue_read(home.shard, player("ann")).await.unwrap();
    assert_eq!(read, [message(u128::MAX), message(0), message(7)]);
    assert!(fixture.store.queue_read(home.shard, player("an")).await.unwrap().is_empty());
}

async fn a_message_waits_once(fixture: &Fixture) {
    let home = Home::take(fixture, "a#1").await;
    add(&home, fixture, message(7), 1).await;
    // Also where there is no more room: a repeat is told as one.
    assert_eq!(add(&home, fixture, message(7), 1).await, QueueAdded::Repeat);
    assert_eq!(waiting(&home, fixture).await, [7]);
}

async fn no_more_wait_than_may(fixture: &Fixture) {
    let home = Home::take(fixture, "a#1").await;
    for id in 0..3 {
        assert_eq!(add(&home, fixture, message(id), 3).await, QueueAdded::Added);
    }
    assert_eq!(add(&home, fixture, message(3), 3).await, QueueAdded::Full);
    assert_eq!(waiting(&home, fixture).await, [0, 1, 2]);
}

async fn no_more_bytes_wait_than_may(fixture: &Fixture) {
    let home = Home::take(fixture, "a#1").await;
    let of_bytes = |id: u128, bytes: usize| QueuedMessage { body: vec![7; bytes].into(), ..message(id) };
    for id in 0..15 {
        let added = add(&home, fixture, of_bytes(id, QUEUE_BYTES_MAX / 16), 100).await;
        assert_eq!(added, QueueAdded::Added);
    }
    assert_eq!(add(&home, fixture, of_bytes(15, QUEUE_BYTES_MAX / 16 + 1), 100).await, QueueAdded::Full);
    assert_eq!(add(&home, fixture, of_bytes(15, QUEUE_BYTES_MAX / 16), 100).await, QueueAdded::Added);
    assert_eq!(add(&home, fixture, of_bytes(16, 1), 100).await, QueueAdded::Full);
    assert_eq!(add(&home, fixture, of_bytes(15, QUEUE_BYTES_MAX / 16), 100).await, QueueAdded::Repeat);
    assert_eq!(waiting(&home, fixture).await, (0..16).collect::<Vec<_>>());
}

async fn a_message_that_ran_out_is_gone_and_makes_room(fixture: &Fixture) {
    let home = Home::take(fixture, "a#1").await;
    let soon = hearth::clock::now().plus_ms(200).unix_ms;
    add(&home, fixture, QueuedMessage { expires_at_unix_ms: soon, ..message(1) }, 2).await;
    add(&home, fixture, message(2), 2).await;
    until("the first has run out", || async { (waiting(&home, fixture).await == [2]).then_some(()) }).await;
    assert_eq!(add(&home, fixture, message(1), 2).await, QueueAdded::Added);
    assert_eq!(waiting(&home, fixture).await, [2, 1]);
}

async fn what_was_seen_is_removed_and_the_rest_stays(fixture: &Fixture) {
    let home = Home::take(fixture, "a#1").await;
    for id in 0..4 {
        add(&home, fixture, message(id), 100).await;
    }
    let remove = |ids: Vec<u128>| {
        fixture.store.queue_remove(home.shard, holder(&home), player("ann"), Which::These(ids))
    };
    assert!(remove(Vec::new()).await.unwrap(), "none is not all");
    assert_eq!(waiting(&home, fixture).await, [0, 1, 2, 3]);
    assert!(remove(vec![2, 0, 99]).await.unwrap());
    assert_eq!(waiting(&home, fixture).await, [1, 3]);
    add(&home, fixture, message(0), 100).await;
    assert_eq!(waiting(&home, fixture).await, [1, 3, 0]);
}

async fn all_of_a_players_messages_can_be_removed(fixture: &Fixture) {
    let home = Home::take(fixture, "a#1").await;
    for id in 0..4 {
        add(&home, fixture, message(id), 100).await;
    }
    fixture.store.queue_add(home.shard, holder(&home), player("bea"), message(1), 9).await.unwrap();
    let removed = fixture.store.queue_remove(home.shard, holder(&home), player("ann"), Which::All);
    assert!(removed.await.unwrap());
    assert!(waiting(&home, fixture).await.is_empty());
    assert_eq!(fixture.store.queue_read(home.shard, player("bea")).await.unwrap(), [message(1)]);
}

async fn only_the_holder_of_the_shard_writes_queues(fixture: &Fixture) {
    let old = Home::take(fixture, "a#1").await;
    add(&old, fixture, message(1), 100).await;
    let late = holder(&old);
    let shard = old.shard;
    let new = old.succeeded_by("b#1").await;
    let strangers = [
        late,
        Holder { owner: hearth::ids::Owner::named("c#1"), ..holder(&new) },
        Holder { generation: hearth::ids::Generation::of(1), ..holder(&new) },
    ];
    for stranger in strangers {
        let added = fixture.store.queue_add(shard, stranger.clone(), player("ann"), message(2), 100);
        assert_eq!(added.await.unwrap(), QueueAdded::Fenced);
        let removed = fixture.store.queue_remove(shard, stranger, player("ann"), Which::These(vec![1]));
        assert!(!removed.await.unwrap());
    }
    assert_eq!(waiting(&new, fixture).await, [1]);
}

async fn messages_outlive_a_take_over(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    add(&home, fixture, message(1), 100).await;
    // Nor do they end with the record.
    home.commit_one(live("ann", 0, 1)).await;
    home.commit_one(CommitRecord { ttl: Duration::from_secs(600), ..remainder("ann", 1, 2) }).await;
    let home = home.succeeded_by("b#1").await;
    assert_eq!(add(&home, fixture, message(1), 100).await, QueueAdded::Repeat);
    assert_eq!(waiting(&home, fixture).await, [1]);
}
