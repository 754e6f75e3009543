//! The contract of a store, continued: locks. One holder at a time, by the store's clock; a token above all before,
//! whatever became of them; and only who holds it renews it or gives it back.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hearth::clock;
use hearth::ids::KeyName;
use hearth::store::locks::GONE_MAX;
use hearth::store::{LockAcquired, LockOwner, LockRequest, LockToken};

use super::fixture::{Fixture, LONG, SHORT, for_each_store};
use crate::harness::patience::until;

for_each_store! {
    a_lock_has_one_holder
    of_many_at_once_one_gets_it
    whoever_has_it_may_ask_again
    a_lock_that_ran_out_is_free_and_its_holder_has_lost_it
    a_renewal_keeps_it_beyond_its_first_time
    only_its_holder_renews_it_and_gives_it_back
    tokens_rise_over_ends_and_releases
    who_gives_up_gives_it_back_if_she_has_it
    locks_share_nothing
}

fn named(name: &str, owner: u128, ttl: Duration) -> LockRequest {
    LockRequest { name: KeyName::parse(name).unwrap(), owner: LockOwner::of(owner), ttl }
}

fn by(owner: u128, ttl: Duration) -> LockRequest {
    named("shop", owner, ttl)
}

async fn asks(fixture: &Fixture, request: LockRequest) -> LockAcquired {
    fixture.store.lock_acquire(request).await.unwrap()
}

/// The token of a lock that must be free.
async fn takes(fixture: &Fixture, request: LockRequest) -> LockToken {
    match asks(fixture, request).await {
        LockAcquired::Acquired(token) => token,
        held @ LockAcquired::Held { .. } => panic!("{held:?}"),
    }
}

async fn releases(fixture: &Fixture, owner: u128) -> bool {
    let name = KeyName::parse("shop").unwrap();
    fixture.store.lock_release(name, LockOwner::of(owner)).await.unwrap()
}

async fn gives_up(fixture: &Fixture, owner: u128) -> bool {
    let name = KeyName::parse("shop").unwrap();
    fixture.store.lock_cancel(name, LockOwner::of(owner)).await.unwrap()
}

async fn who_gives_up_gives_it_back_if_she_has_it(fixture: &Fixture) {
    let first = takes(fixture, by(1, LONG)).await;
    assert!(!gives_up(fixture, 2).await);
    assert!(matches!(asks(fixture, by(3, LONG)).await, LockAcquired::Held { .. }), "it is the first one's");
    assert!(gives_up(fixture, 1).await);
    assert!(!gives_up(fixture, 1).await);
    assert!(takes(fixture, by(3, LONG)).await > first);
}

async fn a_lock_has_one_holder(fixture: &Fixture) {
    let before_us = clock::now().unix_ms * 1_000;
    let token = takes(fixture, by(1, LONG)).await;
    // The store's clock, which a restart of the test's process cannot have moved by an hour.
    assert!(token.number().abs_diff(before_us) < 3_600_000_000, "{token:?}");
    match asks(fixture, by(2, SHORT)).await {
        LockAcquired::Held { remaining } => {
            assert!(remaining <= LONG && remaining > LONG / 2, "{remaining:?}")
        }
        taken => panic!("{taken:?}"),
    }
    assert!(releases(fixture, 1).await);
    assert!(takes(fixture, by(2, LONG)).await > token);
}

async fn of_many_at_once_one_gets_it(fixture: &Fixture) {
    let asked = join_all((1..=30).map(|owner| asks(fixture, by(owner, LONG)))).await;
    let got = asked.iter().filter(|answer| matches!(answer, LockAcquired::Acquired(_))).count();
    assert_eq!(got, 1, "{asked:?}");
}

async fn whoever_has_it_may_ask_again(fixture: &Fixture) {
    let token = takes(fixture, by(1, Duration::from_secs(60))).await;
    assert_eq!(takes(fixture, by(1, LONG)).await, token);
    let LockAcquired::Held { remaining } = asks(fixture, by(2, LONG)).await else { panic!("it was free") };
    assert!(remaining > Duration::from_secs(60), "{remaining:?}: asked again, it lasts from then on");
}

async fn a_lock_that_ran_out_is_free_and_its_holder_has_lost_it(fixture: &Fixture) {
    let began = Instant::now();
    let token = takes(fixture, by(1, SHORT)).await;
    let next = until("it has run out", async || match asks(fixture, by(2, LONG)).await {
        LockAcquired::Acquired(next) => Some(next),
        LockAcquired::Held { remaining } => {
            assert!(remaining <= SHORT, "{remaining:?}");
            None
        }
    })
    .await;
    // Two clocks, each in whole milliseconds.
    assert!(began.elapsed() >= SHORT - Duration::from_millis(2), "{:?}", began.elapsed());
    assert!(next > token);
    assert_eq!(fixture.store.lock_renew(by(1, LONG)).await.unwrap(), None);
    assert!(!releases(fixture, 1).await);
    assert!(
        matches!(asks(fixture, by(3, LONG)).await, LockAcquired::Held { .. }),
        "the next one has it still"
    );
}

async fn a_renewal_keeps_it_beyond_its_first_time(fixture: &Fixture) {
    let began = Instant::now();
    let ttl = Duration::from_secs(3);
    let token = takes(fixture, by(1, ttl)).await;
    while began.elapsed() < ttl + SHORT {
        assert_eq!(fixture.store.lock_renew(by(1, ttl)).await.unwrap(), Some(token));
        assert!(matches!(asks(fixture, by(2, LONG)).await, LockAcquired::Held { .. }));
        tokio::time::sleep(SHORT).await;
    }
    // Once it is not renewed any more it runs out, which nobody may say was renewed.
    assert_eq!(fixture.store.lock_renew(by(1, SHORT)).await.unwrap(), Some(token));
    until("it has run out", async || {
        matches!(asks(fixture, by(2, LONG)).await, LockAcquired::Acquired(next) if next > token).then_some(())
    })
    .await;
}

async fn only_its_holder_renews_it_and_gives_it_back(fixture: &Fixture) {
    assert_eq!(fixture.store.lock_renew(by(1, LONG)).await.unwrap(), None, "nobody has it");
    assert!(!releases(fixture, 1).await);
    let token = takes(fixture, by(1, LONG)).await;
    assert_eq!(fixture.store.lock_renew(by(2, LONG)).await.unwrap(), None);
    assert!(!releases(fixture, 2).await);
    assert_eq!(fixture.store.lock_renew(by(1, LONG)).await.unwrap(), Some(token));
    assert!(releases(fixture, 1).await);
    assert!(!releases(fixture, 1).await, "given back once");
    assert_eq!(fixture.store.lock_renew(by(1, LONG)).await.unwrap(), None);
}

async fn tokens_rise_over_ends_and_releases(fixture: &Fixture) {
    let mut last = LockToken::of(0);
    for owner in 1..=50 {
        let token = takes(fixture, by(owner, LONG)).await;
        assert!(token > last, "{token:?} after {last:?}");
        last = token;
        if owner % 10 == 0 {
            fixture.store.lock_renew(by(owner, Duration::from_millis(1))).await.unwrap();
            until("it has run out", async || (!releases(fixture, owner).await).then_some(())).await;
        } else {
            assert!(releases(fixture, owner).await);
        }
    }
}

async fn locks_share_nothing(fixture: &Fixture) {
    for (owner, name) in (1..).zip(["a", "a}", "}", "{a}", "a:b", "é", "a b"]) {
        takes(fixture, named(name, owner, LONG)).await;
    }
    assert!(matches!(asks(fixture, named("}", 9, LONG)).await, LockAcquired::Held { .. }));
}

/// What stands in Redis: other nodes and later versions read it. And what a store that has lost everything still knows.
#[tokio::test]
async fn a_lock_is_stored_as_the_design_says_and_its_token_outlives_the_loss_of_all_data() {
    let fixture = Fixture::redis().await;
    let server = fixture.server();
    let token = takes(&fixture, by(0xabc, Duration::from_secs(60))).await;
    let stored: Vec<String> = server.query(&["HMGET", "c:lock:{shop}", "token", "owner", "ttl"]);
    assert_eq!(stored, [token.number().to_string(), format!("{:032x}", 0xabc), "60000".to_owned()]);
    let left_ms: u64 = server.query(&["PTTL", "c:lock:{shop}"]);
    assert!(left_ms <= 3_660_000 && left_ms > 3_600_000, "{left_ms}");
    assert!(releases(&fixture, 0xabc).await);
    assert_eq!(server.query::<Vec<String>>(&["HKEYS", "c:lock:{shop}"]), ["token"]);
    let left_ms: u64 = server.query(&["PTTL", "c:lock:{shop}"]);
    assert!(left_ms <= 3_600_000 && left_ms > 3_540_000, "{left_ms}");
    server.query::<()>(&["FLUSHALL"]);
    assert!(takes(&fixture, by(1, LONG)).await > token);
}

/// As if the server's clock had been set back by an hour and less, or by a year.
#[tokio::test]
async fn a_clock_that_was_set_back_keeps_nobody_out_and_makes_no_token_fall() {
    let fixture = Fixture::redis().await;
    let server = fixture.server();
    let token = takes(&fixture, by(1, SHORT)).await;
    let ahead = token.number() + 1_800_000_000;
    server.query::<()>(&["HSET", "c:lock:{shop}", "token", &ahead.to_string()]);
    let year_ahead_ms = clock::now().unix_ms + 365 * 86_400_000;
    server.query::<()>(&["HSET", "c:lock:{shop}", "until", &year_ahead_ms.to_string()]);
    let LockAcquired::Held { remaining } = asks(&fixture, by(2, LONG)).await else { panic!("it was free") };
    assert!(remaining <= SHORT, "{remaining:?}");
    let next = until("it has run out", async || match asks(&fixture, by(2, LONG)).await {
        LockAcquired::Acquired(next) => Some(next),
        LockAcquired::Held { .. } => None,
    })
    .await;
    assert_eq!(next.number(), ahead + 1);
}

/// A full Redis takes no new lock, and keeps nobody from keeping hers and from giving it back.
#[tokio::test]
async fn a_full_redis_renews_locks_and_takes_them_back() {
    let fixture = Fixture::redis().await;
    let server = fixture.server();
    let token = takes(&fixture, by(1, LONG)).await;
    server.query::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = fixture.store.lock_acquire(named("other", 1, LONG)).await;
    assert!(matches!(refused, Err(hearth::store::StoreError::Refused(_))), "{refused:?}");
    assert_eq!(fixture.store.lock_renew(by(1, LONG)).await.unwrap(), Some(token));
    assert!(releases(&fixture, 1).await);
    server.query::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    assert!(takes(&fixture, by(2, LONG)).await > token);
}

#[tokio::test]
async fn who_has_given_up_never_gets_it_however_late_what_she_asked_arrives() {
    let fixture = Fixture::redis().await;
    let nobodys = LockAcquired::Held { remaining: Duration::ZERO };
    // Given back before it was asked for: the call lay in a connection that was given up.
    assert!(!gives_up(&fixture, 1).await);
    assert_eq!(asks(&fixture, by(1, LONG)).await, nobodys);
    let token = takes(&fixture, by(2, LONG)).await;
    assert_eq!(asks(&fixture, by(1, LONG)).await, nobodys);
    // Sent twice, and the second copy comes when all is over.
    assert!(gives_up(&fixture, 2).await);
    assert_eq!(asks(&fixture, by(2, LONG)).await, nobodys);
    assert!(takes(&fixture, by(3, LONG)).await > token);
    for owner in 0..GONE_MAX as u128 + 9 {
        assert!(!gives_up(&fixture, 100 + owner).await);
    }
    let gone: String = fixture.server().query(&["HGET", "c:lock:{shop}", "gone"]);
    assert_eq!(gone.len(), 32 * GONE_MAX, "the last ones");
    assert!(gone.starts_with(&format!("{:032x}", 109)), "{gone}");
    assert!(fixture.server().query::<u64>(&["PTTL", "c:lock:{shop}"]) > 3_600_000, "who has it keeps it");
}
