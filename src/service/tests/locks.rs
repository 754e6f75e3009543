//! Locks through the router: what is given, to whom, and what is refused.

use axum::http::Method;
use futures_util::poll;
use serde_json::{Value, json};

use super::*;
use crate::ids::KeyName;

const PATH: &str = "/v1/locks/shop";

fn waiting(house: &House) -> usize {
    house.service.lines.waiting_for(&KeyName::parse("shop").unwrap())
}

impl House {
    async fn with_secret(&self, method: Method, secret: &str, body: Value) -> Answer {
        let request = with_key(method, PATH).header("lock-secret", secret);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// Token and secret of a lock that must be free.
    async fn locks(&self) -> (u64, String) {
        let answer = self.post(PATH, json!({"ttl_ms": 60_000})).await;
        assert_eq!(answer.status, 201);
        let told = answer.json();
        assert_eq!(told["ttl_ms"], 60_000);
        (told["token"].as_u64().unwrap(), told["secret"].as_str().unwrap().to_owned())
    }
}

#[tokio::test]
async fn a_lock_is_its_holders_until_she_gives_it_back() {
    let house = House::new().await;
    let (token, secret) = house.locks().await;
    let problem = house.post(PATH, json!({"ttl_ms": 1_000})).await.problem(409, "lock_held");
    assert!((1..=60_000).contains(&problem["retry_after_ms"].as_u64().unwrap()), "{problem}");
    let renewed = house.with_secret(Method::PUT, &secret, json!({"ttl_ms": 30_000})).await;
    assert_eq!(renewed.ok(), json!({"token": token, "ttl_ms": 30_000}));
    let stranger = "0".repeat(32);
    house.with_secret(Method::PUT, &stranger, json!({"ttl_ms": 30_000})).await.problem(409, "lock_lost");
    house.with_secret(Method::DELETE, &stranger, Value::Null).await.problem(409, "lock_lost");
    assert_eq!(house.with_secret(Method::DELETE, &secret, Value::Null).await.status, 204);
    house.with_secret(Method::DELETE, &secret, Value::Null).await.problem(409, "lock_lost");
    house.with_secret(Method::PUT, &secret, json!({"ttl_ms": 30_000})).await.problem(409, "lock_lost");
    let (next, other) = house.locks().await;
    assert!(next > token && other != secret);
}

#[tokio::test]
async fn what_is_no_lock_call_is_named() {
    let house = House::new().await;
    for (body, field) in [
        (json!({}), "ttl_ms"),
        (json!({"ttl_ms": 99}), "ttl_ms"),
        (json!({"ttl_ms": 3_600_001}), "ttl_ms"),
        (json!({"ttl_ms": 1_000, "wait_ms": 60_001}), "wait_ms"),
        (json!({"ttl_ms": 1_000, "wait_ms": -1}), "wait_ms"),
    ] {
        let problem = house.post(PATH, body).await.problem(400, "bad_request");
        assert!(problem["detail"].as_str().unwrap().contains(field), "{problem}");
    }
    for method in [Method::PUT, Method::DELETE] {
        let problem =
            house.call(method.clone(), PATH, json!({"ttl_ms": 1_000})).await.problem(400, "bad_request");
        assert!(problem["detail"].as_str().unwrap().contains("Lock-Secret"), "{problem}");
        house.with_secret(method, "7", json!({"ttl_ms": 1_000})).await.problem(400, "bad_request");
    }
    house.post("/v1/locks/a%00b", json!({"ttl_ms": 1_000})).await.problem(400, "bad_request");
}

#[tokio::test]
async fn who_waits_is_told_when_it_is_given_back_and_no_more_wait_than_may() {
    let house = House::new().await;
    let (token, secret) = house.locks().await;
    let asked = json!({"ttl_ms": 60_000, "wait_ms": 60_000});
    let mut first = Box::pin(house.post(PATH, asked.clone()));
    let mut second = Box::pin(house.post(PATH, asked.clone()));
    while waiting(&house) < 2 {
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        tokio::task::yield_now().await;
    }
    let problem = house.post(PATH, asked).await.problem(503, "overloaded");
    assert!(problem["retry_after_ms"].is_u64(), "{problem}");
    assert_eq!(house.with_secret(Method::DELETE, &secret, Value::Null).await.status, 204);
    let got = first.await;
    assert_eq!(got.status, 201);
    assert!(got.json()["token"].as_u64().unwrap() > token);
    // It is not given back: the other one goes away, and her place with her.
    drop(second);
    assert_eq!(waiting(&house), 0);
}

#[tokio::test]
async fn a_wait_ends_in_time_and_at_a_stop() {
    let house = House::new().await;
    let _held = house.locks().await;
    let problem = house.post(PATH, json!({"ttl_ms": 1_000, "wait_ms": 30})).await.problem(409, "lock_held");
    assert!(problem["retry_after_ms"].as_u64().unwrap() > 1_000, "{problem}");
    house.service.end_waits();
    // It has asked nobody whose it is, and does not guess.
    house.post(PATH, json!({"ttl_ms": 1_000, "wait_ms": 60_000})).await.problem(503, "store_unavailable");
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_said_not_to_also_to_those_who_wait() {
    let house = House::new().await;
    let (_, secret) = house.locks().await;
    house.store.takes_writes.store(false, Ordering::Relaxed);
    for wait_ms in [0, 60_000] {
        let asked = json!({"ttl_ms": 1_000, "wait_ms": wait_ms});
        house.post(PATH, asked).await.problem(503, "store_unavailable");
    }
    house.with_secret(Method::PUT, &secret, json!({"ttl_ms": 1_000})).await.problem(503, "store_unavailable");
    house.with_secret(Method::DELETE, &secret, Value::Null).await.problem(503, "store_unavailable");
}

/// The store took it and its answer was lost: whoever asked was told that it is not known, so nobody may have it.
#[tokio::test]
async fn a_lock_of_which_nobody_heard_is_given_back() {
    let house = House::new().await;
    house.store.loses_answers.store(true, Ordering::Relaxed);
    let asked = json!({"ttl_ms": 3_600_000});
    house.post(PATH, asked.clone()).await.problem(503, "store_unavailable");
    // Not at the first try: that one is not answered either.
    house.store.takes_writes.store(false, Ordering::Relaxed);
    house.store.loses_answers.store(false, Ordering::Relaxed);
    tokio::task::yield_now().await;
    house.store.takes_writes.store(true, Ordering::Relaxed);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while house.post(PATH, asked.clone()).await.status != 201 {
        assert!(std::time::Instant::now() < deadline, "it was not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_takes_a_lock_gives_it_back_or_has_lost_it_is_on_record_and_not_that_she_goes_on() {
    let (lines, _here) = Lines::listen();
    let house = House::new().await;
    let (_, secret) = house.locks().await;
    for _ in 0..5 {
        house.with_secret(Method::PUT, &secret, json!({"ttl_ms": 30_000})).await.ok();
    }
    house
        .with_secret(Method::PUT, &"0".repeat(32), json!({"ttl_ms": 30_000}))
        .await
        .problem(409, "lock_lost");
    assert_eq!(house.with_secret(Method::DELETE, &secret, Value::Null).await.status, 204);
    let audit = lines.audit();
    let says = |line: &String, operation: &str, status: &str| {
        let quoted = [format!(" operation=\"{operation}\""), format!(" status=\"{status}\"")];
        quoted.iter().all(|part| line.contains(part.as_str()))
    };
    assert_eq!(audit.len(), 3, "{audit:?}");
    for (line, (operation, status)) in
        audit.iter().zip([("lock", "ok"), ("lock.renew", "refused"), ("lock.release", "ok")])
    {
        assert!(says(line, operation, status), "{operation} {status}: {line}");
    }
}
