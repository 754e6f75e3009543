//! What is promised of blobs, locks and counters when their store dies and comes back: what was answered is kept, what is
//! repeated under its key counts once, and no token goes backwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::harness::patience::PATIENCE;
use crate::harness::server::Server;
use crate::harness::service::{Answer, Service};
use crate::harness::stages::{Stage, on_every_redis};

const KEY: &str = "s3cret-of-the-stories";
const COUNTER: &str = "/v1/counters/swords";
const LOCK: &str = "/v1/locks/shop";
/// Services that count at a time, and what each of them counts.
const COUNTING: u64 = 4;
const STEPS: u64 = 15;
/// Between two tries: whoever is told that the store is away need not ask at once.
const AGAIN: Duration = Duration::from_millis(50);

/// A service that goes on until it is answered, and says when the store first does not do that.
#[derive(Clone)]
struct Shop {
    url: String,
    client: Client,
    refused: Arc<Notify>,
}

impl Shop {
    /// Calls until the answer is one of these; what else may come is that the store does not answer.
    async fn until_answered<F: Future<Output = Answer>>(
        &self,
        goes_on: &[u16],
        call: impl Fn() -> F,
    ) -> Answer {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            let (status, answer) = call().await;
            if goes_on.contains(&status) {
                return (status, answer);
            }
            assert_eq!((status, &answer["temporary"]), (503, &json!(true)), "{answer}");
            assert!(Instant::now() < deadline, "the store does not come back: {answer}");
            self.refused.notify_one();
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn service(&self) -> Service {
        Service::at(&self.url, KEY)
    }

    /// Each step once, and what it was told.
    async fn counts(self, number: u64) -> Vec<i64> {
        let (service, mut told) = (self.service(), Vec::new());
        for step in 0..STEPS {
            let asked = json!({"by": 1, "idempotency_key": format!("{number}-{step}")});
            let (_, answer) = self.until_answered(&[200], || service.post(COUNTER, asked.clone())).await;
            told.push(answer["value"].as_i64().unwrap());
        }
        told
    }

    /// Takes a lock and gives it back, again and again; the tokens.
    async fn locks(self) -> Vec<u64> {
        let (service, mut tokens) = (self.service(), Vec::new());
        let asked = json!({"ttl_ms": 60_000, "wait_ms": 20_000});
        while tokens.len() < STEPS as usize {
            let (status, held) = self.until_answered(&[201, 409], || service.post(LOCK, asked.clone())).await;
            if status == 409 {
                // Hers, of a call whose answer was lost: it is on its way back.
                continue;
            }
            tokens.push(held["token"].as_u64().unwrap());
            let secret = held["secret"].as_str().unwrap();
            // Not hers any more: the call before had given it back, and its answer was lost.
            self.until_answered(&[204, 409], || self.gives_back(secret)).await;
        }
        tokens
    }

    async fn gives_back(&self, secret: &str) -> Answer {
        let request = self.client.request(Method::DELETE, format!("{}{LOCK}", self.url)).bearer_auth(KEY);
        let answer = request.header("Lock-Secret", secret).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    /// Writes a blob, each time another one; the last one is what must be there.
    async fn writes(self, path: String) -> (String, Value) {
        let (service, mut last) = (self.service(), Value::Null);
        for step in 0..STEPS {
            last = json!({"step": step, "large": "x".repeat(20_000)});
            let body = last.clone();
            self.until_answered(&[201, 204], || service.put(&path, body.clone())).await;
        }
        (path, last)
    }
}

on_every_redis! {
    async fn what_was_answered_is_kept_over_the_death_of_the_store_and_nothing_counts_twice(stage) {
        let mut server = Server::on_durable_redis(stage).with("service_key", KEY).with_lease(2_000).start();
        let refused = Arc::new(Notify::new());
        let urls: Vec<String> = server.service_urls().into_iter().map(str::to_owned).collect();
        let shop = |number: usize| {
            let (url, refused) = (urls[number % urls.len()].clone(), Arc::clone(&refused));
            Shop { url, client: Client::new(), refused }
        };
        let (mut counting, mut locking, mut writing) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        for number in 0..COUNTING {
            counting.spawn(shop(number as usize).counts(number));
        }
        locking.spawn(shop(1).locks());
        for name in ["a", "b"] {
            writing.spawn(shop(2).writes(format!("/v1/players/ann/blobs/{name}")));
        }
        // In the midst of it, and it stays away until somebody has noticed.
        let here = Service::at(&urls[0], KEY);
        let began = Instant::now();
        while here.post(COUNTER, json!({"by": 0})).await.1["value"].as_i64().unwrap() < 3 {
            assert!(began.elapsed() < PATIENCE, "nobody counts");
        }
        server.redis().kill();
        tokio::time::timeout(PATIENCE, refused.notified()).await.expect("somebody is refused");
        server.redis().start_again();

        let told: Vec<i64> = counting.join_all().await.concat();
        let all: BTreeSet<i64> = told.iter().copied().collect();
        let most = i64::try_from(COUNTING * STEPS).unwrap();
        assert_eq!(all, (1..=most).collect(), "each step once: {told:?}");
        assert_eq!(told.len(), all.len(), "{told:?}");
        let (status, look) = here.post(COUNTER, json!({"by": 0})).await;
        assert_eq!((status, &look["value"]), (200, &json!(most)));
        let tokens = locking.join_all().await.concat();
        assert!(tokens.is_sorted_by(|one, next| one < next), "a token went backwards: {tokens:?}");
        for (path, last) in writing.join_all().await {
            assert_eq!(here.get(&path).await, (200, last), "{path}");
        }
    }
}

#[tokio::test]
async fn what_was_answered_is_kept_over_the_death_of_the_node_that_is_its_own_store() {
    let mut server = Server::on(Stage::Embedded).with("service_key", KEY).start();
    let refused = Arc::new(Notify::new());
    let blob = "/v1/players/ann/blobs/save";
    let step = json!({"by": 5, "idempotency_key": "once"});
    let (mut tokens, mut expected) = (Vec::new(), 0);
    for round in 0..3 {
        let here = Service::at(server.service_url(), KEY);
        // Under its key it has counted, in the life before, too.
        assert_eq!(here.post(COUNTER, step.clone()).await, (200, json!({"value": 5})));
        expected = if round == 0 { 5 } else { expected };
        let (_, told) = here.post(COUNTER, json!({"by": 1})).await;
        expected += 1;
        assert_eq!(told, json!({"value": expected}));
        let (status, held) = here.post(LOCK, json!({"ttl_ms": 600_000})).await;
        assert_eq!(status, 201, "{held}");
        tokens.push(held["token"].as_u64().unwrap());
        let content = json!({"round": round});
        assert!(matches!(here.put(blob, content.clone()).await.0, 201 | 204));
        server.kill9();
        server.restart();
        let here = Service::at(server.service_url(), KEY);
        let url = server.service_url().to_owned();
        let shop = Shop { url, client: Client::new(), refused: Arc::clone(&refused) };
        assert_eq!(here.get(blob).await, (200, content));
        assert_eq!(here.post(COUNTER, json!({"by": 0})).await.1["value"], expected);
        let (status, problem) = here.post(LOCK, json!({"ttl_ms": 600_000})).await;
        assert_eq!((status, &problem["code"]), (409, &json!("lock_held")), "{problem}");
        assert_eq!(shop.gives_back(held["secret"].as_str().unwrap()).await.0, 204);
    }
    assert!(tokens.is_sorted_by(|one, next| one < next), "a token went backwards: {tokens:?}");
}
