//! Who lives, as Redis keeps it: signs of life, newer processes of one name, and what is not ours.

use std::time::Duration;

use hearth::ids::Owner;
use hearth::store::{Beat, Formats, Heartbeat, Member, Says, StoreError};

use super::fixture::{Fixture, LONG, SHORT};
use crate::harness::patience::until;

fn beat(owner: &str, ttl: Duration) -> Heartbeat {
    let says = Says {
        url: format!("ws://{owner}"),
        formats: Formats { min: 1, max: 2, writes: 1 },
        ..Says::default()
    };
    Heartbeat { member: Member { owner: Owner::named(owner), says }, joins: false, ttl }
}

fn first(owner: &str) -> Heartbeat {
    Heartbeat { joins: true, ..beat(owner, LONG) }
}

async fn owners(fixture: &Fixture, heartbeat: Heartbeat) -> Vec<String> {
    match fixture.store.heartbeat(heartbeat).await.unwrap() {
        Beat::Members(seen) => {
            let mut owners: Vec<_> = seen.iter().map(|seen| seen.member.owner.to_string()).collect();
            owners.sort();
            owners
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nodes_hear_of_each_other_what_each_says_of_itself() {
    let fixture = Fixture::redis().await;
    assert_eq!(owners(&fixture, first("a#1")).await, ["a#1"]);
    assert_eq!(owners(&fixture, first("b#1")).await, ["a#1", "b#1"]);
    let mut drains = beat("b#1", LONG);
    drains.member.says.drains = true;
    fixture.store.heartbeat(drains.clone()).await.unwrap();
    let Beat::Members(seen) = fixture.store.heartbeat(beat("a#1", LONG)).await.unwrap() else { panic!() };
    assert_eq!(seen[0].member, beat("a#1", LONG).member, "the caller comes first");
    assert_eq!(seen[1].member, drains.member);
    assert!(seen.iter().all(|seen| seen.age < Duration::from_secs(10)), "{seen:?}");
}

#[tokio::test]
async fn who_is_not_heard_of_any_more_or_leaves_is_forgotten() {
    let fixture = Fixture::redis().await;
    fixture.store.heartbeat(beat("a#1", SHORT)).await.unwrap();
    assert_eq!(owners(&fixture, first("b#1")).await, ["a#1", "b#1"]);
    until("a is forgotten", async || (owners(&fixture, beat("b#1", LONG)).await == ["b#1"]).then_some(()))
        .await;
    assert_eq!(fixture.server().query::<u64>(&["HLEN", "c:nodes"]), 1);
    // She lived all the time, and says so.
    assert_eq!(owners(&fixture, beat("a#1", LONG)).await, ["a#1", "b#1"]);
    fixture.store.leave(&Owner::named("b#1")).await.unwrap();
    assert_eq!(owners(&fixture, beat("a#1", LONG)).await, ["a#1"]);
}

#[tokio::test]
async fn a_newer_process_of_a_name_takes_the_place_of_the_older_one_which_hears_of_it() {
    let fixture = Fixture::redis().await;
    assert_eq!(owners(&fixture, first("a#old")).await, ["a#old"]);
    assert_eq!(owners(&fixture, first("a#new")).await, ["a#new"]);
    let told = fixture.store.heartbeat(beat("a#old", LONG)).await.unwrap();
    assert_eq!(told, Beat::Superseded { by: Owner::named("a#new") });
    // Nor does its farewell end the newer one.
    fixture.store.leave(&Owner::named("a#old")).await.unwrap();
    assert_eq!(owners(&fixture, beat("b#1", LONG)).await, ["a#new", "b#1"]);
}

#[tokio::test]
async fn a_redis_that_was_emptied_hears_of_all_again() {
    let fixture = Fixture::redis().await;
    fixture.store.heartbeat(first("a#1")).await.unwrap();
    fixture.store.heartbeat(first("b#1")).await.unwrap();
    fixture.server().query::<()>(&["FLUSHALL"]);
    assert_eq!(owners(&fixture, beat("a#1", LONG)).await, ["a#1"]);
    assert_eq!(owners(&fixture, beat("b#1", LONG)).await, ["a#1", "b#1"]);
}

#[tokio::test]
async fn there_are_no_more_nodes_than_may_be() {
    let fixture = Fixture::redis().await;
    for number in 0..hearth::store::members::MEMBERS_MAX {
        let told = fixture.store.heartbeat(first(&format!("n{number}#1"))).await.unwrap();
        assert!(matches!(told, Beat::Members(_)), "{number}");
    }
    assert_eq!(fixture.store.heartbeat(first("late#1")).await.unwrap(), Beat::Full);
    assert!(matches!(fixture.store.heartbeat(beat("n7#1", LONG)).await.unwrap(), Beat::Members(_)));
    fixture.store.leave(&Owner::named("n3#1")).await.unwrap();
    assert!(matches!(fixture.store.heartbeat(first("late#1")).await.unwrap(), Beat::Members(_)));
}

/// Puts something where a node's entry would stand.
fn put(fixture: &Fixture, name: &str, entry: impl AsRef<[u8]>) {
    let mut command = redis::cmd("HSET");
    command.arg("c:nodes").arg(name).arg(entry.as_ref());
    command.query::<()>(&mut fixture.server().connect()).unwrap();
}

#[tokio::test]
async fn nobody_begins_beside_what_cannot_be_read_and_it_is_left_alone() {
    let fixture = Fixture::redis().await;
    let soon = hearth::clock::now().unix_ms + 600_000;
    for foreign in ["not ours", &format!("{soon} 1 x#1 {{\"mood\":1}}")] {
        put(&fixture, "x", foreign);
        let told = fixture.store.heartbeat(first("a#1")).await;
        assert!(matches!(&told, Err(StoreError::Corrupt(text)) if text.contains("c:nodes")), "{told:?}");
        assert_eq!(fixture.server().query::<String>(&["HGET", "c:nodes", "x"]), foreign);
        assert_eq!(fixture.server().query::<u64>(&["HLEN", "c:nodes"]), 1, "nobody has joined");
    }
}

#[tokio::test]
async fn what_cannot_be_read_hides_nobody_who_lives_and_goes_when_its_time_is_over() {
    let fixture = Fixture::redis().await;
    assert_eq!(owners(&fixture, first("a#1")).await, ["a#1"]);
    assert_eq!(owners(&fixture, first("b#1")).await, ["a#1", "b#1"]);
    let now = hearth::clock::now().unix_ms;
    // Another program's, which has no time; one that says nonsense for a moment, one for longer; and bytes.
    put(&fixture, "alien", "not ours");
    put(&fixture, "mad", format!("{} {now} mad#1 {{\"mood\":1}}", now + 300));
    put(&fixture, "madder", format!("{} {now} madder#1 nonsense", now + 600_000));
    put(&fixture, "bytes", [format!("{} {now} ", now + 600_000).as_bytes(), &[1, 0xfe, b' ']].concat());
    put(&fixture, "a", "not ours either");
    for owner in ["b#1", "a#1"] {
        assert!(owners(&fixture, beat(owner, LONG)).await.contains(&owner.to_owned()));
    }
    let names = || {
        let mut names = fixture.server().query::<Vec<String>>(&["HKEYS", "c:nodes"]);
        names.sort();
        names
    };
    until("the one whose time is over is forgotten", async || {
        assert_eq!(owners(&fixture, beat("a#1", LONG)).await, ["a#1", "b#1"]);
        (names() == ["a", "alien", "b", "bytes", "madder"]).then_some(())
    })
    .await;
    assert_eq!(fixture.server().query::<String>(&["HGET", "c:nodes", "alien"]), "not ours");
}

/// However much of it there is, it takes nobody's place.
#[tokio::test]
async fn what_cannot_be_read_does_not_count_as_a_node() {
    let fixture = Fixture::redis().await;
    assert_eq!(owners(&fixture, first("a#1")).await, ["a#1"]);
    for number in 0..2 * hearth::store::members::MEMBERS_MAX {
        put(&fixture, &format!("x{number}"), "not ours");
    }
    assert_eq!(owners(&fixture, beat("b#1", LONG)).await, ["a#1", "b#1"]);
}

#[tokio::test]
async fn a_clock_that_was_set_back_keeps_nobody_alive_for_ever() {
    let fixture = Fixture::redis().await;
    fixture.store.heartbeat(first("dead#1")).await.unwrap();
    let entry = fixture.server().query::<String>(&["HGET", "c:nodes", "dead"]);
    let far = entry.replacen(&entry[..3], "999", 1);
    fixture.server().query::<()>(&["HSET", "c:nodes", "dead", &far]);
    until("the dead node is forgotten", async || {
        (owners(&fixture, beat("a#1", SHORT)).await == ["a#1"]).then_some(())
    })
    .await;
}
