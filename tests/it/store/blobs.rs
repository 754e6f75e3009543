//! The contract of a store, continued: blobs. Each is kept byte for byte, changes only in the place of what its writer knows,
//! and a player has no more of them than she may, whoever writes at once.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use hearth::ids::BlobName;
use hearth::store::blobs::BLOB_BYTES_MAX;
use hearth::store::{
    Blob, BlobKey, BlobPut, BlobQuota, BlobRemoved, BlobTag, BlobUse, BlobWritten, Precondition, Reach,
    StoreError, Tags, open,
};

use super::fixture::{Fixture, for_each_store, in_cluster, player, shard};
use crate::harness::redis_server::RedisServer;
use crate::harness::slow_road::SlowRoad;

for_each_store! {
    a_blob_is_kept_byte_for_byte
    the_largest_blob_is_taken_and_no_larger_one
    a_blob_changes_only_in_the_place_of_what_its_writer_knows
    of_many_writers_who_know_the_same_one_wins
    a_player_has_no_more_than_her_quota_whoever_writes_at_once
    what_shrinks_is_taken_beyond_a_quota
    an_erased_player_has_none_and_others_have_theirs
}

const QUOTA: BlobQuota = BlobQuota { bytes_max: 100, count_max: 3 };

fn key(of: &str, name: &str) -> BlobKey {
    BlobKey { shard: shard(7), player: player(of), name: BlobName::parse(name).unwrap() }
}

fn blob(body: &'static [u8]) -> Blob {
    Blob::new("text/plain", Bytes::from_static(body))
}

fn put(name: &str, blob: Blob) -> BlobPut {
    let precondition = Precondition::default();
    BlobPut { key: key("ann", name), blob, precondition, quota: QUOTA }
}

fn instead_of(known: &Blob) -> Precondition {
    Precondition { is: Some(Tags::These(vec![known.tag])), is_not: None }
}

async fn writes(fixture: &Fixture, put: BlobPut) -> BlobWritten {
    fixture.store.blob_put(put).await.unwrap()
}

async fn reads(fixture: &Fixture, key: BlobKey) -> Option<Blob> {
    fixture.store.blob_read(key).await.unwrap()
}

async fn a_blob_is_kept_byte_for_byte(fixture: &Fixture) {
    assert_eq!(reads(fixture, key("ann", "a")).await, None);
    let binary = Blob::new("", Bytes::from((0..=255).collect::<Vec<u8>>()));
    let long_type = Blob::new(&"t".repeat(255), Bytes::new());
    let wide = BlobQuota { bytes_max: 1_000, count_max: 3 };
    for (name, blob) in [("a", blob(b"hi")), ("b", binary), ("c", long_type)] {
        let put = BlobPut { quota: wide, ..put(name, blob.clone()) };
        assert_eq!(writes(fixture, put).await, BlobWritten::Made);
        assert_eq!(reads(fixture, key("ann", name)).await, Some(blob));
    }
    assert_eq!(
        writes(fixture, BlobPut { quota: wide, ..put("a", blob(b"ho")) }).await,
        BlobWritten::Replaced
    );
    assert_eq!(reads(fixture, key("ann", "a")).await, Some(blob(b"ho")));
    // A player whose id looks like a key is another one.
    assert_eq!(reads(fixture, key("ann:a", "a")).await, None);
    let remove = || fixture.store.blob_remove(key("ann", "a"), Precondition::default());
    assert_eq!(remove().await.unwrap(), BlobRemoved::Removed);
    assert_eq!(remove().await.unwrap(), BlobRemoved::Missing);
    assert_eq!(reads(fixture, key("ann", "a")).await, None);
}

async fn the_largest_blob_is_taken_and_no_larger_one(fixture: &Fixture) {
    let large = |bytes: usize| Blob::new("a/b", Bytes::from(vec![b'x'; bytes]));
    let quota = BlobQuota { bytes_max: u64::MAX, count_max: 3 };
    let largest = large(BLOB_BYTES_MAX);
    assert_eq!(writes(fixture, BlobPut { quota, ..put("a", largest.clone()) }).await, BlobWritten::Made);
    assert_eq!(reads(fixture, key("ann", "a")).await, Some(largest));
    let larger = fixture.store.blob_put(BlobPut { quota, ..put("b", large(BLOB_BYTES_MAX + 1)) }).await;
    assert!(matches!(larger, Err(StoreError::Refused(_))), "{larger:?}");
    assert_eq!(reads(fixture, key("ann", "b")).await, None);
}

async fn a_blob_changes_only_in_the_place_of_what_its_writer_knows(fixture: &Fixture) {
    let (one, two) = (blob(b"1"), blob(b"2"));
    let new = Precondition { is: None, is_not: Some(Tags::Any) };
    let old = Precondition { is: Some(Tags::Any), is_not: None };
    let of_none = Precondition { is: Some(Tags::These(Vec::new())), is_not: None };
    let with = |blob: &Blob, precondition: &Precondition| BlobPut {
        precondition: precondition.clone(),
        ..put("a", blob.clone())
    };
    let unmet = |stored: Option<&Blob>| BlobWritten::Unmet { stored: stored.map(|blob| blob.tag) };
    assert_eq!(writes(fixture, with(&one, &old)).await, unmet(None));
    assert_eq!(writes(fixture, with(&one, &instead_of(&two))).await, unmet(None));
    assert_eq!(writes(fixture, with(&one, &new)).await, BlobWritten::Made);
    assert_eq!(writes(fixture, with(&two, &new)).await, unmet(Some(&one)));
    assert_eq!(writes(fixture, with(&two, &instead_of(&two))).await, unmet(Some(&one)));
    assert_eq!(writes(fixture, with(&two, &of_none)).await, unmet(Some(&one)));
    assert_eq!(reads(fixture, key("ann", "a")).await, Some(one.clone()));
    assert_eq!(writes(fixture, with(&two, &instead_of(&one))).await, BlobWritten::Replaced);
    let removed = fixture.store.blob_remove(key("ann", "a"), instead_of(&one)).await.unwrap();
    assert_eq!(removed, BlobRemoved::Unmet { stored: two.tag });
    let unless = Precondition { is: None, is_not: Some(Tags::These(vec![one.tag, two.tag])) };
    let removed = fixture.store.blob_remove(key("ann", "a"), unless).await.unwrap();
    assert_eq!(removed, BlobRemoved::Unmet { stored: two.tag });
    let removed = fixture.store.blob_remove(key("ann", "a"), instead_of(&two)).await.unwrap();
    assert_eq!(removed, BlobRemoved::Removed);
}

async fn of_many_writers_who_know_the_same_one_wins(fixture: &Fixture) {
    let first = blob(b"0");
    writes(fixture, put("a", first.clone())).await;
    let bodies = [b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8"];
    let all = bodies
        .map(|body| writes(fixture, BlobPut { precondition: instead_of(&first), ..put("a", blob(body)) }));
    let written = join_all(all).await;
    let won: Vec<_> = written.iter().zip(bodies).filter(|(one, _)| **one == BlobWritten::Replaced).collect();
    assert_eq!(won.len(), 1, "{written:?}");
    assert_eq!(reads(fixture, key("ann", "a")).await, Some(blob(won[0].1)));
}

async fn a_player_has_no_more_than_her_quota_whoever_writes_at_once(fixture: &Fixture) {
    let thirty = || Blob::new("a/b", Bytes::from(vec![b'x'; 30]));
    let names = ["a", "b", "c", "d", "e", "f"];
    let written = join_all(names.map(|name| writes(fixture, put(name, thirty())))).await;
    let made = written.iter().filter(|one| **one == BlobWritten::Made).count();
    assert_eq!(made, 3, "{written:?}");
    assert!(written.contains(&BlobWritten::Full(BlobUse { bytes: 120, count: 4 })), "{written:?}");
    let mut kept = Vec::new();
    for name in names {
        kept.extend(reads(fixture, key("ann", name)).await.map(|_| name));
    }
    assert_eq!(kept.len(), 3);
    // In the place of one there is room for what the others leave.
    let forty = || Blob::new("a/b", Bytes::from(vec![b'x'; 40]));
    assert_eq!(writes(fixture, put(kept[0], forty())).await, BlobWritten::Replaced);
    let full = BlobWritten::Full(BlobUse { bytes: 110, count: 3 });
    assert_eq!(writes(fixture, put(kept[1], forty())).await, full);
    // Somebody else's are her own.
    let others = BlobPut { key: key("bea", "a"), ..put("a", forty()) };
    assert_eq!(writes(fixture, others).await, BlobWritten::Made);
    fixture.store.blob_remove(key("ann", kept[0]), Precondition::default()).await.unwrap();
    assert_eq!(writes(fixture, put("z", forty())).await, BlobWritten::Made);
}

async fn what_shrinks_is_taken_beyond_a_quota(fixture: &Fixture) {
    let of = |bytes: usize| Blob::new("a/b", Bytes::from(vec![b'x'; bytes]));
    for name in ["a", "b", "c"] {
        writes(fixture, put(name, of(30))).await;
    }
    let lowered = BlobQuota { bytes_max: 10, count_max: 1 };
    let written = async |bytes| writes(fixture, BlobPut { quota: lowered, ..put("a", of(bytes)) }).await;
    assert_eq!(written(31).await, BlobWritten::Full(BlobUse { bytes: 91, count: 3 }));
    assert_eq!(written(30).await, BlobWritten::Replaced);
    assert_eq!(written(1).await, BlobWritten::Replaced);
}

async fn an_erased_player_has_none_and_others_have_theirs(fixture: &Fixture) {
    fixture.store.blobs_erase(shard(7), player("ann")).await.unwrap();
    let others = ["an", "annx", "ann:a", "{ann}"];
    for of in others.into_iter().chain(["ann"]) {
        for name in ["a", "b"] {
            writes(fixture, BlobPut { key: key(of, name), ..put(name, blob(b"hi")) }).await;
        }
    }
    fixture.store.blobs_erase(shard(7), player("ann")).await.unwrap();
    for name in ["a", "b"] {
        assert_eq!(reads(fixture, key("ann", name)).await, None);
        for of in others {
            assert_eq!(reads(fixture, key(of, name)).await, Some(blob(b"hi")), "{of}");
        }
    }
    // All of her quota is there again.
    let hundred = Blob::new("a/b", Bytes::from(vec![b'x'; 100]));
    assert_eq!(writes(fixture, put("a", hundred)).await, BlobWritten::Made);
}

/// What stands in Redis: other nodes and later versions read it.
#[tokio::test]
async fn a_blob_is_stored_as_the_design_says() {
    let fixture = Fixture::redis().await;
    let hi = blob(b"hi");
    writes(&fixture, put("save", hi.clone())).await;
    let server = fixture.server();
    let stored: String = server.query(&["GET", "{c.s7}:b:ann:save"]);
    assert_eq!(stored, format!("{:032x}0atext/plainhi", hi.tag.bits()));
    assert_eq!(server.query::<Vec<String>>(&["HGETALL", "{c.s7}:bs:ann"]), ["save", "2"]);
    fixture.store.blobs_erase(shard(7), player("ann")).await.unwrap();
    assert_eq!(server.query::<i64>(&["EXISTS", "{c.s7}:b:ann:save", "{c.s7}:bs:ann"]), 0);
}

/// A full Redis takes no blob, and lets go of those that fill it.
#[tokio::test]
async fn a_full_redis_lets_blobs_go() {
    let fixture = Fixture::redis().await;
    let server = fixture.server();
    for name in ["a", "b"] {
        writes(&fixture, put(name, blob(b"hi"))).await;
    }
    server.query::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = fixture.store.blob_put(put("c", blob(b"hi"))).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    let removed = fixture.store.blob_remove(key("ann", "a"), Precondition::default()).await;
    assert_eq!(removed.unwrap(), BlobRemoved::Removed);
    fixture.store.blobs_erase(shard(7), player("ann")).await.unwrap();
    server.query::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(reads(&fixture, key("ann", "b")).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_long_blobs_take_their_server_is_well_and_no_more_are_under_way_than_may_be() {
    let redis = RedisServer::builder().on_tcp().start();
    let road = SlowRoad::to(redis.address()).await;
    let store = open(&format!("redis://{}", road.address()), in_cluster("c")).await.unwrap();
    let body = Bytes::from(vec![b'b'; BLOB_BYTES_MAX]);
    let large = |n: usize| {
        let blob = Blob { tag: BlobTag::of(n as u128), content_type: "a/b".into(), body: body.clone() };
        let quota = BlobQuota { bytes_max: 1 << 40, count_max: 100 };
        BlobPut { quota, ..put(&format!("save-{n}"), blob) }
    };
    // Their connection stands before the way takes longer than any other call may.
    store.blob_put(put("small", blob(b"hi"))).await.unwrap();
    road.takes(Duration::from_millis(1_500));
    let answers = join_all((0..40).map(|n| store.blob_put(large(n)))).await;
    let (written, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    // 16 MiB, and whoever came late enough to find room again.
    assert!(written.len() >= 16 && !refused.is_empty(), "{}: {refused:?}", written.len());
    assert!(refused.iter().all(|refused| matches!(refused, Err(StoreError::Crowded))), "{refused:?}");
    // Enough for a breaker, each of them slow.
    assert_eq!(store.reach(shard(7)), Reach::Well);
    let reads = join_all((0..12).map(|n| store.blob_read(key("ann", &format!("save-{n}"))))).await;
    assert!(reads.iter().all(Result::is_ok), "{reads:?}");
    assert_eq!(store.reach(shard(7)), Reach::Well);
}
