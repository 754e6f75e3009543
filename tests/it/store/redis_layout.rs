//! What stands in Redis after a commit, byte for byte: keys, types, expiries, the filter, the stream. Other nodes and
//! later versions read it, so a change here is a change of format.

use std::time::Duration;

use bytes::Bytes;
use hearth::clock;
use hearth::ids::Version;
use hearth::store::layout::{KNOWN_BITS, known_bits};
use hearth::store::{
    CommitRecord, EVENTS_MAX, EVENTS_PER_BATCH_MAX, Entry, EventPlace, Goes, Keep, RecordStatus, Stance, open,
};

use crate::harness::patience::until;
use crate::harness::redis_server::RedisServer;

use super::fixture::{
    Fixture, Home, LONG, in_cluster, live, player, remainder, request, restoring, shard, telling,
};

/// All keys of the cluster of this name: a test's server has others founded beside it.
fn keys_of(server: &RedisServer, cluster: &str) -> Vec<String> {
    let own = [format!("{cluster}:"), format!("{{{cluster}.")];
    let mut keys: Vec<String> = server.query(&["KEYS", "*"]);
    keys.retain(|key| own.iter().any(|own| key.starts_with(own)));
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn keys_are_where_the_design_says() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "n1#0123456789abcdef").await;
    let record = CommitRecord {
        keep: Keep::Live { expires_at_unix_ms: 1_790_000_123_456 },
        ttl: Duration::from_millis(3_700_001),
        w: Some(Bytes::from("friends")),
        ..live("ann", 0, 255)
    };
    home.commit_one(telling(record, Goes::Both, "login")).await;
    fixture.store.probe().await.unwrap();

    let server = fixture.server();
    let keys = keys_of(server, "c");
    let expected = [
        "c:probe",
        "{c.s7}:ev",
        "{c.s7}:known",
        "{c.s7}:m",
        "{c.s7}:p:ann",
        "{c.s7}:t:ann",
        "{c.s7}:w:ann",
        "{c.s7}:x",
    ];
    assert_eq!(keys, expected);
    let epoch = home.grant.epoch.number();
    let p: String = server.query(&["GET", "{c.s7}:p:ann"]);
    assert_eq!(p, format!("{epoch:016x}00000000000000ffann at 255"));
    assert_eq!(server.query::<String>(&["GET", "{c.s7}:w:ann"]), "friends");
    for key in ["{c.s7}:p:ann", "{c.s7}:w:ann"] {
        let left_ms: u64 = server.query(&["PTTL", key]);
        assert!(left_ms <= 3_700_001 && left_ms > 3_600_000, "{key}: {left_ms}");
    }
    let index: Vec<String> = server.query(&["ZRANGE", "{c.s7}:x", "0", "-1", "WITHSCORES"]);
    assert_eq!(index, ["ann", "1790000123456"]);
    let meta = ["epoch", "holder", "owner", "prev", "f", "gen", "vmax"];
    let stored: Vec<String> = server.query(&[&["HMGET", "{c.s7}:m"], &meta[..]].concat());
    let generation = format!("{:016x}", home.grant.generation.number());
    let owner = home.owner.as_str();
    assert_eq!(stored, [&epoch.to_string(), owner, owner, "", "1", &generation, "0000000000000000"]);
    let until_ms: u64 = server.query(&["HGET", "{c.s7}:m", "until"]);
    let expected_ms = hearth::clock::now().unix_ms + 600_000;
    assert!(until_ms.abs_diff(expected_ms) < 60_000, "{until_ms} is not about {expected_ms}");
}

#[tokio::test]
async fn an_unmoved_record_keeps_its_expiry_to_the_millisecond() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    home.commit_one(CommitRecord { w: Some(Bytes::from("friends")), ..live("ann", 0, 1) }).await;
    let expiries =
        || ["{c.s7}:p:ann", "{c.s7}:w:ann"].map(|key| fixture.server().query::<i64>(&["PEXPIRETIME", key]));
    let before = expiries();
    assert!(before.iter().all(|at| *at > 0), "{before:?}");
    let sent = CommitRecord {
        keep: Keep::Unmoved,
        known: true,
        ttl: Duration::from_secs(9_000),
        ..live("ann", 1, 2)
    };
    assert_eq!(home.commit_one(sent.clone()).await, RecordStatus::Applied);
    assert_eq!(expiries(), before);
    let index: Vec<String> = fixture.server().query(&["ZRANGE", "{c.s7}:x", "0", "-1", "WITHSCORES"]);
    assert_eq!(index, ["ann", "1001"]);
    home.commit_one(CommitRecord { keep: Keep::Live { expires_at_unix_ms: 9 }, ..sent }).await;
    assert!(expiries().iter().zip(before).all(|(after, before)| *after > before + 8_000_000));
}

#[tokio::test]
async fn the_filter_knows_whoever_was_committed_with_its_flag() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    let known = |name, known| CommitRecord { known, ..live(name, 0, 1) };
    home.commit(vec![known("ann", true), known("bob", false), known("zoë", true)]).await;
    // Not written, so not marked.
    home.commit(vec![CommitRecord { known: true, ..live("cat", 4, 5) }]).await;
    let bits = |name: &str| {
        let player = player(name);
        known_bits(&player)
            .map(|bit| fixture.server().query::<u8>(&["GETBIT", "{c.s7}:known", &bit.to_string()]))
    };
    assert_eq!(bits("ann"), [1; 4]);
    assert_eq!(bits("zoë"), [1; 4]);
    assert_eq!(bits("bob"), [0; 4]);
    assert_eq!(bits("cat"), [0; 4]);
    assert_eq!(fixture.server().query::<u64>(&["BITCOUNT", "{c.s7}:known"]), 8);
    let bytes: u64 = fixture.server().query(&["STRLEN", "{c.s7}:known"]);
    assert!(bytes <= KNOWN_BITS / 8);
    home.commit(vec![restoring(CommitRecord { known: true, ..live("cat", 4, 5) })]).await;
    assert_eq!(bits("cat"), [1; 4]);
}

#[tokio::test]
async fn events_are_appended_once_and_only_with_their_change() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    let telling = |record: CommitRecord, event: &'static str| {
        telling(telling(record, Goes::Events, event), Goes::Events, "\0\r\n")
    };
    let statuses = home
        .commit(vec![
            telling(live("ann", 0, 1), "applied"),
            telling(live("bob", 4, 5), "gone"),
            telling(restoring(live("cat", 4, 5)), "restored"),
        ])
        .await;
    assert_eq!(statuses, [RecordStatus::Applied, RecordStatus::Gone, RecordStatus::Restored]);
    home.commit_one(telling(live("ann", 1, 1), "same")).await;
    home.commit_one(telling(restoring(live("ann", 3, 4)), "repaired")).await;
    home.commit_one(telling(remainder("ann", 4, 5), "ended")).await;
    let mut next = home.succeeded_by("b#1").await;
    next.commit_one(telling(live("ann", 0, 9), "exists")).await;

    type Entry = (String, Vec<(String, Vec<u8>)>);
    let entries: Vec<Entry> = fixture.server().query(&["XRANGE", "{c.s7}:ev", "-", "+"]);
    let told: Vec<_> = entries.iter().map(|(_, fields)| (&fields[0].0[..], &fields[0].1[..])).collect();
    let expected = ["applied", "restored", "repaired", "ended"];
    let expected: Vec<_> =
        expected.iter().flat_map(|event| [("e", event.as_bytes()), ("e", b"\0\r\n")]).collect();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn the_stream_is_capped() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    let mut version = 0;
    for _ in 0..EVENTS_MAX / 500 + 4 {
        version += 1;
        let entry =
            Entry { version: Version::of(version), goes: Goes::Events, body: Bytes::from_static(b"x") };
        let entries = vec![entry; 500];
        home.commit_one(CommitRecord { entries, ..live("ann", version - 1, version) }).await;
    }
    let length: u64 = fixture.server().query(&["XLEN", "{c.s7}:ev"]);
    // Cut by whole nodes of the stream, 100 entries each.
    assert!((EVENTS_MAX..=EVENTS_MAX + 200).contains(&length), "{length}");
}

#[tokio::test]
async fn an_erased_player_leaves_only_what_names_nobody() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    home.commit_one(CommitRecord { w: Some(Bytes::from("w")), ..live("ann", 0, 1) }).await;
    home.commit_one(CommitRecord { keep: Keep::Erase, ..live("ann", 1, 2) }).await;
    assert_eq!(keys_of(fixture.server(), "c"), ["{c.s7}:known", "{c.s7}:m"]);
}

#[tokio::test]
async fn clusters_on_one_redis_share_nothing() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    home.commit_one(live("ann", 0, 1)).await;
    let other = open(&fixture.server().url(), in_cluster("other")).await.unwrap();
    let neighbour = Home::ask(&other, request("b#1", LONG)).await;
    assert_eq!(neighbour.load("ann").await, None);
    assert_ne!(neighbour.grant.generation, home.grant.generation);
}

#[tokio::test]
async fn the_agreed_configuration_is_put_back_where_it_is_missing() {
    let fixture = Fixture::redis().await;
    let proposal = |shards| hearth::store::ClusterConfig {
        shards,
        format_min: 1,
        format_max: 3,
        ticket_secret: vec![0, 159, 146, 150],
    };
    let agree = async |shards, stance, founding_s| {
        let founding = Duration::from_secs(founding_s);
        let agreed = fixture.store.agree_config(proposal(shards), stance, founding).await.unwrap();
        assert!(agreed.founded_in <= founding.max(Duration::from_millis(1)), "{agreed:?}");
        (agreed.config, agreed.founded_in > Duration::from_secs(50))
    };
    assert_eq!(agree(256, Stance::Founds, 60).await, (proposal(256), true));
    let stored: Vec<Vec<u8>> =
        fixture.server().query(&["HMGET", "c:cfg", "shards", "format_min", "format_max", "ticket_secret"]);
    assert_eq!(stored, [b"256".to_vec(), b"1".to_vec(), b"3".to_vec(), vec![0, 159, 146, 150]]);
    fixture.server().query::<()>(&["HDEL", "c:cfg", "format_max"]);
    assert_eq!(agree(64, Stance::Founds, 60).await, (proposal(256), true));
    // Whoever has lived in the cluster knows better, for as long as it is being founded.
    assert_eq!(agree(32, Stance::Insists, 60).await, (proposal(32), true));
    assert_eq!(agree(64, Stance::Founds, 60).await, (proposal(32), true));
    // A clock that was an hour ahead makes nobody wait for longer than that, and only once.
    let ahead = (clock::now().unix_ms + 3_600_000).to_string();
    fixture.server().query::<()>(&["HSET", "c:cfg", "founded_at", &ahead]);
    until("it is founded", async || {
        let agreed =
            fixture.store.agree_config(proposal(64), Stance::Founds, Duration::from_millis(40)).await;
        agreed.unwrap().founded_in.is_zero().then_some(())
    })
    .await;
    assert_eq!(agree(64, Stance::Insists, 60).await, (proposal(32), false), "it is settled");
    // The first of those who live on puts it back, and the others may still find their leases gone.
    fixture.server().query::<()>(&["FLUSHALL"]);
    assert_eq!(agree(64, Stance::Insists, 60).await, (proposal(64), true));
    assert_eq!(agree(32, Stance::Founds, 60).await, (proposal(64), true));
}

#[tokio::test]
async fn what_is_not_ours_is_told_and_not_overwritten() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    let corrupt = |error: hearth::store::StoreError| {
        assert!(matches!(error, hearth::store::StoreError::Corrupt(_)), "{error}");
    };
    fixture.server().query::<()>(&[
        "SET",
        "{c.s7}:p:ann",
        "not a record at all, but long enough for a header",
    ]);
    let read = fixture.store.load_players(home.shard, vec![player("ann")]).await;
    corrupt(read.unwrap_err());
    corrupt(home.try_commit(vec![live("ann", 0, 1)]).await.unwrap_err());
    fixture.server().query::<()>(&["HSET", "{c.s7}:p:bob", "a", "hash"]);
    corrupt(home.try_commit(vec![live("cat", 0, 1), live("bob", 0, 1)]).await.unwrap_err());
    assert_eq!(home.load("cat").await, None, "decided first, written after");
}

#[tokio::test]
async fn a_record_of_a_later_epoch_is_never_written_over() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    // As after a Redis whose meta was evicted and whose clock was set back: the fence cannot know it.
    let later = format!("{:016x}{:016x}later", home.grant.epoch.next().number(), 2);
    fixture.server().query::<()>(&["SET", "{c.s7}:p:ann", &later]);
    for record in [live("ann", 2, 3), live("ann", 0, 3), restoring(live("ann", 3, 4)), live("ann", 2, 2)] {
        match home.commit_one(record).await {
            RecordStatus::Exists(stored) => assert_eq!(&stored.p[..], b"later"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fixture.server().query::<String>(&["GET", "{c.s7}:p:ann"]), later);
}

#[tokio::test]
async fn numbers_of_events_that_were_lost_with_their_batch_are_not_given_out_again() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    let told = |base, version| telling(live("ann", base, version), Goes::Events, &version.to_string());
    let read = async |after| {
        let mut found = fixture.store.events_after(vec![(shard(7), after)]).await.unwrap().found;
        found.pop().map_or(Vec::new(), |found| found.events)
    };
    home.commit_one(told(0, 1)).await;
    let keys = ["{c.s7}:m", "{c.s7}:ev", "{c.s7}:p:ann"];
    let kept = keys.map(|key| format!("{key}.kept"));
    for (key, kept) in keys.iter().zip(&kept) {
        fixture.server().query::<()>(&["COPY", key, kept]);
    }
    // Its answer is lost, its event is read, and then a failover loses it, too.
    fixture.store.commit(home.batch(vec![told(1, 2)])).await.unwrap();
    let reached = read(EventPlace::START).await.pop().unwrap().place;
    assert_eq!(reached.number, 2);
    for (key, kept) in keys.iter().zip(&kept) {
        fixture.server().query::<()>(&["RENAME", kept, key]);
    }
    // Others come before it does again: one that tells nothing, and one that does.
    home.commit_one(live("bob", 0, 1)).await;
    home.commit_one(telling(live("bob", 1, 2), Goes::Events, "bob")).await;
    home.commit_one(told(1, 3)).await;
    let all = read(EventPlace::START).await;
    let numbers: Vec<_> = all.iter().map(|event| (event.place.number, event.after)).collect();
    let jumped = EVENTS_PER_BATCH_MAX + 2;
    assert_eq!(numbers, [(1, None), (jumped, Some(1)), (jumped + 1, None)]);
    assert_eq!(read(reached).await, all[1..], "nothing is kept from whoever had read what was lost");
    assert_eq!(fixture.server().query::<u8>(&["HEXISTS", "{c.s7}:m", "ev_last"]), 0);
}
