//! Counters through the router: what is taken and what is refused.

use axum::http::Method;
use serde_json::json;

use super::House;

const PATH: &str = "/v1/counters/stock";

#[tokio::test]
async fn a_counter_is_changed_and_refused_with_where_it_stands() {
    let house = House::new().await;
    assert_eq!(house.post(PATH, json!({"by": 3})).await.ok(), json!({"value": 3}));
    let problem = house.post(PATH, json!({"by": 3, "max": 5})).await.problem(409, "out_of_bounds");
    assert_eq!((&problem["value"], &problem["temporary"]), (&json!(3), &json!(true)));
    assert!(problem["detail"].as_str().unwrap().contains("above max"), "{problem}");
    house.post(PATH, json!({"by": i64::MAX})).await.problem(409, "out_of_bounds");
    assert_eq!(house.post(PATH, json!({"by": 0, "min": 9})).await.ok(), json!({"value": 3}));
}

#[tokio::test]
async fn what_is_no_change_of_a_counter_is_named() {
    let house = House::new().await;
    for (body, field) in [
        (json!({}), "by"),
        (json!({"by": "x"}), "by"),
        (json!({"by": 1.5}), "by"),
        (json!({"by": 9_223_372_036_854_775_808_u64}), "by"),
        (json!({"by": 1, "ttl_ms": 0}), "ttl_ms"),
        (json!({"by": 1, "ttl_ms": 31_536_000_001_u64}), "ttl_ms"),
        (json!({"by": 1, "min": 2, "max": 1}), "min"),
    ] {
        let problem = house.post(PATH, body).await.problem(400, "bad_request");
        assert!(problem["detail"].as_str().unwrap().contains(field), "{problem}");
    }
    let long = format!("/v1/counters/{}", "x".repeat(65));
    for path in ["/v1/counters/a%0Ab", "/v1/counters/%ff", &long] {
        house.post(path, json!({"by": 1})).await.problem(400, "bad_request");
    }
    house.call(Method::PUT, PATH, json!({"by": 1})).await.problem(405, "bad_request");
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_said_not_to() {
    let house = House::new().await;
    house.store.takes_writes.store(false, std::sync::atomic::Ordering::Relaxed);
    let problem = house.post(PATH, json!({"by": 0})).await.problem(503, "store_unavailable");
    assert!(problem["value"].is_null() && problem["retry_after_ms"].is_u64(), "{problem}");
}
