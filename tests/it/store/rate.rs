//! Limits of a cluster as a whole, as Redis keeps them: one burst and one rate for all who take from them.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use hearth::store::{RateRequest, RateTaken};

use super::fixture::Fixture;

/// Where the limit of these stories stands.
const KEY: &str = "c:rl:0000000000000007";

/// So slow that nothing comes back while a test runs, or so fast that something does.
fn wanted(per_s: u32, burst: u32, most: u32, least: u32) -> RateRequest {
    let number = |number| NonZeroU32::new(number).unwrap();
    RateRequest { subject: 7, per_s: number(per_s), burst: number(burst), most, least }
}

async fn takes(fixture: &Fixture, request: RateRequest) -> RateTaken {
    fixture.store.rate(request).await.unwrap()
}

#[tokio::test]
async fn a_burst_is_taken_once_by_all_together_and_the_last_part_of_it_as_it_is() {
    let fixture = Fixture::redis().await;
    for _ in 0..4 {
        assert_eq!(takes(&fixture, wanted(1, 100, 24, 1)).await, RateTaken::Taken(24));
    }
    assert_eq!(takes(&fixture, wanted(1, 100, 24, 1)).await, RateTaken::Taken(4));
    // The next comes after a second, and ten after ten.
    for (least, within_s) in [(1, 0..=1), (10, 8..=10)] {
        let RateTaken::Wait(wait) = takes(&fixture, wanted(1, 100, 24, least)).await else {
            panic!("more than the burst");
        };
        assert!(within_s.contains(&wait.as_secs()) && !wait.is_zero(), "{least} after {wait:?}");
    }
    let another = RateRequest { subject: 8, ..wanted(1, 100, 24, 1) };
    assert_eq!(takes(&fixture, another).await, RateTaken::Taken(24), "somebody else has a limit of her own");
}

#[tokio::test]
async fn too_little_is_left_where_it_is() {
    let fixture = Fixture::redis().await;
    assert_eq!(takes(&fixture, wanted(1, 10, 7, 7)).await, RateTaken::Taken(7));
    assert!(matches!(takes(&fixture, wanted(1, 10, 7, 7)).await, RateTaken::Wait(_)));
    assert_eq!(takes(&fixture, wanted(1, 10, 3, 3)).await, RateTaken::Taken(3), "nothing was taken in vain");
}

#[tokio::test]
async fn what_is_used_up_comes_back_at_its_rate_and_is_forgotten_when_all_is_there() {
    let fixture = Fixture::redis().await;
    let began = Instant::now();
    assert_eq!(takes(&fixture, wanted(1_000, 200, 200, 1)).await, RateTaken::Taken(200));
    let mut taken = 0;
    while taken < 300 {
        match takes(&fixture, wanted(1_000, 200, 50, 1)).await {
            RateTaken::Taken(some) => taken += some,
            RateTaken::Wait(wait) => tokio::time::sleep(wait).await,
        }
    }
    assert!(began.elapsed() >= Duration::from_millis(298), "{:?}", began.elapsed());
    let server = fixture.server.as_ref().unwrap();
    assert!((1..=201).contains(&server.query::<i64>(&["PTTL", KEY])));
    crate::harness::patience::until("it is forgotten", async || {
        (server.query::<i64>(&["EXISTS", KEY]) == 0).then_some(())
    })
    .await;
    assert_eq!(takes(&fixture, wanted(1_000, 200, 200, 200)).await, RateTaken::Taken(200));
}

/// As if the server's clock had been set back by a year.
#[tokio::test]
async fn a_clock_that_was_set_back_costs_one_burst_at_most() {
    let fixture = Fixture::redis().await;
    let server = fixture.server.as_ref().unwrap();
    let (seconds, _): (u64, u64) = server.query(&["TIME"]);
    let ahead = (seconds + 365 * 86_400) * 1_000_000;
    server.query::<()>(&["SET", KEY, &ahead.to_string()]);
    let RateTaken::Wait(wait) = takes(&fixture, wanted(100, 200, 1, 1)).await else { panic!("full") };
    assert!(wait <= Duration::from_millis(11), "{wait:?}");
}
