//! What is promised about locks of game services: one holder at a time whichever nodes are asked, tokens that rise over
//! all that can happen, waits that end as soon as they can, and nothing guessed while the store is away.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::patience::until;
use crate::harness::server::{Server, Starting};
use crate::harness::service::Answer;
use crate::harness::stages::{Stage, on_every_redis, on_every_stage};

const KEY: &str = "s3cret-of-the-stories";
const WAITERS: &str = "hearth_lock_waiters";

fn with_key(stage: Stage) -> Starting {
    Server::on(stage).with("service_key", KEY).with_lease(2_000)
}

/// A service that takes locks at one node.
#[derive(Clone)]
struct Shop {
    url: String,
    client: Client,
}

/// What a holder has.
#[derive(Debug)]
struct Held {
    token: u64,
    secret: String,
}

impl Shop {
    /// One at each node.
    fn everywhere(server: &Server) -> Vec<Self> {
        let at = |url: &str| Self { url: url.to_owned(), client: Client::new() };
        server.service_urls().into_iter().map(at).collect()
    }

    async fn call(&self, method: Method, name: &str, secret: Option<&str>, body: Value) -> Answer {
        let url = format!("{}/v1/locks/{name}", self.url);
        let request = self.client.request(method, url).bearer_auth(KEY).json(&body);
        let request = match secret {
            Some(secret) => request.header("Lock-Secret", secret),
            None => request,
        };
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    async fn asks(&self, name: &str, body: Value) -> Answer {
        self.call(Method::POST, name, None, body).await
    }

    async fn takes(&self, name: &str, body: Value) -> Held {
        let (status, told) = self.asks(name, body).await;
        assert_eq!(status, 201, "{told}");
        Held { token: told["token"].as_u64().unwrap(), secret: told["secret"].as_str().unwrap().to_owned() }
    }

    async fn renews(&self, name: &str, held: &Held, ttl_ms: u64) -> Answer {
        self.call(Method::PUT, name, Some(&held.secret), json!({"ttl_ms": ttl_ms})).await
    }

    async fn releases(&self, name: &str, held: &Held) -> Answer {
        self.call(Method::DELETE, name, Some(&held.secret), Value::Null).await
    }
}

async fn waiters(server: &Server) -> u64 {
    server.metric(WAITERS, "").await
}

on_every_stage! {
    async fn a_lock_has_one_holder_whichever_nodes_are_asked_and_tokens_rise(stage) {
        let server = with_key(stage).start();
        let shops = Shop::everywhere(&server);
        // What the lock protects: it refuses whoever comes with a token that is not above the last.
        let guarded = std::sync::Arc::new(parking_lot::Mutex::new((0_u64, BTreeSet::new())));
        let mut workers = JoinSet::new();
        for number in 0..12 {
            let (shop, guarded) = (shops[number % shops.len()].clone(), std::sync::Arc::clone(&guarded));
            workers.spawn(async move {
                for _ in 0..3 {
                    let held = shop.takes("shop", json!({"ttl_ms": 20_000, "wait_ms": 60_000})).await;
                    {
                        let mut guarded = guarded.lock();
                        assert!(held.token > guarded.0, "{held:?} after {}", guarded.0);
                        guarded.0 = held.token;
                        assert!(guarded.1.is_empty(), "{:?} is in", guarded.1);
                        guarded.1.insert(number);
                    }
                    tokio::task::yield_now().await;
                    assert!(guarded.lock().1.remove(&number));
                    assert_eq!(shop.releases("shop", &held).await.0, 204);
                }
            });
        }
        while let Some(worked) = workers.join_next().await {
            worked.unwrap();
        }
    }

    async fn who_waits_has_it_as_soon_as_it_is_given_back_here(stage) {
        let server = with_key(stage).start();
        let shop = Shop::everywhere(&server).remove(0);
        let first = shop.takes("shop", json!({"ttl_ms": 600_000})).await;
        let mut waiting = JoinSet::new();
        let waiter = shop.clone();
        let asked = json!({"ttl_ms": 600_000, "wait_ms": 60_000});
        waiting.spawn(async move { waiter.takes("shop", asked).await });
        until("it waits", async || (waiters(&server).await == 1).then_some(())).await;
        assert_eq!(shop.releases("shop", &first).await.0, 204);
        let second = waiting.join_next().await.unwrap().unwrap();
        assert!(second.token > first.token);
        assert_eq!(shop.renews("shop", &first, 1_000).await.1["code"], "lock_lost");
        assert_eq!(shop.renews("shop", &second, 1_000).await.0, 200);
    }

    async fn who_goes_away_waits_no_longer_and_gets_nothing(stage) {
        let server = with_key(stage).start();
        let shop = Shop::everywhere(&server).remove(0);
        let held = shop.takes("shop", json!({"ttl_ms": 600_000})).await;
        let body = json!({"ttl_ms": 600_000, "wait_ms": 60_000}).to_string();
        let host = shop.url.trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(&host).await.unwrap();
        let head = format!(
            "POST /v1/locks/shop HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        until("it waits", async || (waiters(&server).await == 1).then_some(())).await;
        drop(stream);
        until("it has gone", async || (waiters(&server).await == 0).then_some(())).await;
        assert_eq!(shop.releases("shop", &held).await.0, 204);
        let next = shop.takes("shop", json!({"ttl_ms": 600_000})).await;
        assert!(next.token > held.token);
    }

    async fn a_lock_outlives_the_servers_and_so_do_its_tokens(stage) {
        let mut server = with_key(stage).start();
        let shop = Shop::everywhere(&server).remove(0);
        let held = shop.takes("shop", json!({"ttl_ms": 600_000})).await;
        let given_back = shop.takes("stall", json!({"ttl_ms": 600_000})).await;
        assert_eq!(shop.releases("stall", &given_back).await.0, 204);
        server.kill9();
        server.restart();
        let shop = Shop::everywhere(&server).remove(0);
        let (status, problem) = shop.asks("shop", json!({"ttl_ms": 1_000})).await;
        assert_eq!((status, &problem["code"]), (409, &json!("lock_held")), "{problem}");
        assert_eq!(shop.renews("shop", &held, 600_000).await.1["token"], held.token);
        assert!(shop.takes("stall", json!({"ttl_ms": 1_000})).await.token > given_back.token);
    }

    async fn a_stop_keeps_nobody_waiting(stage) {
        let mut server = with_key(stage).start();
        let shop = Shop::everywhere(&server).remove(0);
        let _held = shop.takes("shop", json!({"ttl_ms": 600_000})).await;
        let mut waiting = JoinSet::new();
        let asked = json!({"ttl_ms": 600_000, "wait_ms": 60_000});
        waiting.spawn(async move { shop.asks("shop", asked).await });
        until("it waits", async || (waiters(&server).await == 1).then_some(())).await;
        let began = Instant::now();
        assert!(server.stop_gracefully().success());
        let (status, problem) = waiting.join_next().await.unwrap().unwrap();
        assert_eq!((status, &problem["code"]), (409, &json!("lock_held")), "{problem}");
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    }
}

on_every_redis! {
    async fn a_store_that_is_away_is_said_to_be_and_who_waits_hears_it(stage) {
        let mut server = with_key(stage).start();
        let shop = Shop::everywhere(&server).remove(0);
        let held = shop.takes("shop", json!({"ttl_ms": 600_000})).await;
        let mut waiting = JoinSet::new();
        let waiter = shop.clone();
        let asked = json!({"ttl_ms": 1_000, "wait_ms": 60_000});
        waiting.spawn(async move { waiter.asks("shop", asked).await });
        until("it waits", async || (waiters(&server).await == 1).then_some(())).await;
        server.redis().pause();
        let (status, problem) = waiting.join_next().await.unwrap().unwrap();
        assert_eq!((status, &problem["code"]), (503, &json!("store_unavailable")), "{problem}");
        for (status, problem) in [
            shop.asks("stall", json!({"ttl_ms": 5_000})).await,
            shop.renews("shop", &held, 600_000).await,
        ] {
            assert_eq!((status, &problem["code"]), (503, &json!("store_unavailable")), "{problem}");
        }
        server.redis().go_on();
        until("it is renewed again", async || {
            (shop.renews("shop", &held, 600_000).await.0 == 200).then_some(())
        })
        .await;
        // Whoever was told that it is not known has not got it for long: what the store did late is taken back, or was
        // asked for a second.
        until("the other one can be had", async || {
            (shop.asks("stall", json!({"ttl_ms": 1_000})).await.0 == 201).then_some(())
        })
        .await;
    }
}
