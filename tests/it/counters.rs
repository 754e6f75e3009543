//! What is promised about counters of game services: each change counts once for all nodes together, and nothing is said
//! that is not so.

use std::cell::Cell;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::patience::until;
use crate::harness::server::{Server, Starting};
use crate::harness::service::Service;
use crate::harness::stages::{Stage, on_every_redis, on_every_stage};

const KEY: &str = "s3cret-of-the-stories";
const PATH: &str = "/v1/counters/swords%20of%20%7Btoday%7D";

fn with_key(stage: Stage) -> Starting {
    Server::on(stage).with("service_key", KEY).with_lease(2_000)
}

/// A service at each of its nodes.
fn everywhere(server: &Server) -> Vec<Service> {
    server.service_urls().into_iter().map(|url| Service::at(url, KEY)).collect()
}

on_every_stage! {
    async fn a_change_under_a_key_counts_once_however_often_it_comes(stage) {
        let server = with_key(stage).start();
        let shops = everywhere(&server);
        let asked = json!({"by": 3, "max": 10, "idempotency_key": "order-7"});
        let answers = join_all((0..8).map(|n| shops[n % shops.len()].post(PATH, asked.clone()))).await;
        assert_eq!(answers, vec![(200, json!({"value": 3})); 8]);
        assert_eq!(shops[0].post(PATH, json!({"by": 4, "idempotency_key": "order-8"})).await.1["value"], 7);
        assert_eq!(shops[0].post(PATH, asked.clone()).await, (200, json!({"value": 3})));
        assert_eq!(shops[0].post(PATH, json!({"by": 0})).await.1["value"], 7);
        // Another counter's keys are its own.
        assert_eq!(shops[0].post("/v1/counters/bows", asked).await.1["value"], 3);
        for key in [json!(""), json!("k".repeat(65)), json!(7)] {
            let (status, problem) = shops[0].post(PATH, json!({"by": 1, "idempotency_key": key})).await;
            assert_eq!((status, &problem["code"]), (400, &json!("bad_request")), "{problem}");
        }
    }

    async fn no_more_is_taken_than_there_is_whichever_nodes_are_asked(stage) {
        let server = with_key(stage).start();
        let shops = everywhere(&server);
        assert_eq!(shops[0].post(PATH, json!({"by": 9})).await, (200, json!({"value": 9})));
        let takes = (0..30).map(|n| shops[n % shops.len()].post(PATH, json!({"by": -1, "min": 0})));
        let answers = join_all(takes).await;
        let (taken, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|(status, _)| *status == 200);
        let mut left: Vec<i64> = taken.iter().map(|(_, told)| told["value"].as_i64().unwrap()).collect();
        left.sort_unstable();
        assert_eq!(left, (0..9).collect::<Vec<_>>(), "each of the nine once");
        for (status, problem) in refused {
            assert_eq!((*status, &problem["code"]), (409, &json!("out_of_bounds")), "{problem}");
            assert_eq!((&problem["value"], &problem["retry_after_ms"]), (&json!(0), &Value::Null), "{problem}");
        }
    }

    async fn so_many_in_a_time_and_then_again(stage) {
        let server = with_key(stage).start();
        let shop = &everywhere(&server)[0];
        let asked = json!({"by": 1, "max": 2, "ttl_ms": 1_500});
        for value in [1, 2] {
            let (status, told) = shop.post(PATH, asked.clone()).await;
            assert_eq!((status, &told["value"]), (200, &json!(value)), "{told}");
            assert!((1..=1_500).contains(&told["expires_in_ms"].as_u64().unwrap()), "{told}");
        }
        let refusals = Cell::new(0);
        until("the time is over", async || match shop.post(PATH, asked.clone()).await {
            (200, told) => {
                assert_eq!(told["value"], 1);
                Some(())
            }
            (status, problem) => {
                assert_eq!((status, &problem["value"]), (409, &json!(2)), "{problem}");
                assert!(problem["retry_after_ms"].as_u64().unwrap() <= 1_500, "{problem}");
                refusals.set(refusals.get() + 1);
                None
            }
        })
        .await;
        assert!(refusals.get() > 0, "three went through");
    }

    async fn a_counter_outlives_the_servers(stage) {
        let mut server = with_key(stage).start();
        assert_eq!(everywhere(&server)[0].post(PATH, json!({"by": i64::MAX})).await.0, 200);
        server.kill9();
        server.restart();
        let (_, told) = everywhere(&server)[0].post(PATH, json!({"by": 0})).await;
        assert_eq!(told["value"], i64::MAX);
    }
}

on_every_redis! {
    async fn a_store_that_is_away_is_said_to_be_and_nothing_is_guessed(stage) {
        let mut server = with_key(stage).start();
        let shops = everywhere(&server);
        assert_eq!(shops[0].post(PATH, json!({"by": 5})).await.0, 200);
        server.redis().pause();
        for shop in &shops {
            for asked in [json!({"by": 0}), json!({"by": 1, "max": 3})] {
                let (status, problem) = shop.post(PATH, asked).await;
                assert_eq!((status, &problem["code"]), (503, &json!("store_unavailable")), "{problem}");
            }
        }
        server.redis().go_on();
        for shop in &shops {
            let (_, told) = until("it answers again", async || {
                let answer = shop.post(PATH, json!({"by": 0})).await;
                (answer.0 == 200).then_some(answer)
            })
            .await;
            assert_eq!(told["value"], 5, "what its bound refuses was never added");
        }
    }
}
