//! Somebody who follows the events and reads none of them: she falls behind, that can be seen, and nobody waits for her.

use axum::body::{Body, to_bytes};
use axum::http::{Method, StatusCode};
use tower::ServiceExt as _;

use super::{House, KEY, Keys, Secret, until, with_key};
use crate::clock;
use crate::events::EndReason;
use crate::service::router;

#[tokio::test]
async fn who_reads_no_events_falls_behind_and_slows_nobody() {
    let house = House::with_keys(Keys::bootstrap(Some(&Secret::new(KEY))), "event_consumers_max = 2").await;
    let follow = async || {
        let request = with_key(Method::GET, "/v1/events").body(Body::empty()).unwrap();
        let answer = router(house.service.clone()).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.into_body()
    };
    let slow = follow().await;
    let comes_and_goes = async |name: &str| {
        let opened = house.log_in(name, "pc").await;
        house.home.end(&opened.cell, opened.session, EndReason::Logout, clock::now()).unwrap();
    };
    // Her first checkpoint lies before her; what happens now is one answer ahead, and she takes neither.
    comes_and_goes("ann").await;
    until("she is behind", || house.service.consumers.lag_ms() >= 1_000).await;
    let behind_ms = house.service.consumers.lag_ms();
    let names: Vec<_> = (0..20).map(|number| format!("player-{number}")).collect();
    for name in &names {
        comes_and_goes(name).await;
    }
    until("she is further behind", || house.service.consumers.lag_ms() > behind_ms).await;
    let is_stored = || house.home.flush_stuck_for(std::time::Duration::ZERO, clock::now()).is_none();
    until("all is stored", is_stored).await;
    // All of it is there for her when she reads; the stream ends with the server.
    let stops = async {
        until("she has caught up", || house.service.consumers.lag_ms() == 0).await;
        house.tasks.stop(std::time::Duration::from_secs(5)).await;
    };
    let (read, ()) = tokio::join!(to_bytes(slow, usize::MAX), stops);
    let read = String::from_utf8(read.unwrap().to_vec()).unwrap();
    for name in names.iter().map(String::as_str).chain(["ann"]) {
        let hers = format!("\"player\":\"{name}\"");
        assert_eq!(read.matches(&hers).count(), 4, "{name}: opened, online, ended, offline in {read}");
    }
    assert_eq!(house.service.consumers.count(), 0, "her place is free");
}
