//! What is promised about blobs: read as written at any node, changed only in the place of what is known, gone with the
//! player who is erased, and never guessed.

use futures_util::future::join_all;
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

use crate::harness::patience::until;
use crate::harness::server::{Server, Starting};
use crate::harness::stages::{Stage, on_every_redis, on_every_stage};

const KEY: &str = "s3cret-of-the-stories";
const PATH: &str = "/v1/players/ann/blobs/save.bin";

fn with_key(stage: Stage) -> Starting {
    Server::on(stage).with("service_key", KEY).with_lease(2_000)
}

/// A service at one node.
struct Shop {
    url: String,
    client: Client,
}

impl Shop {
    /// One at each node.
    fn everywhere(server: &Server) -> Vec<Self> {
        let at = |url: &str| Self { url: url.to_owned(), client: Client::new() };
        server.service_urls().into_iter().map(at).collect()
    }

    async fn call(&self, method: Method, path: &str, if_match: Option<&str>, body: Vec<u8>) -> Response {
        let request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(KEY);
        let request = request.header("content-type", "game/save").body(body);
        let request = match if_match {
            Some(tag) => request.header("if-match", tag),
            None => request,
        };
        request.send().await.unwrap()
    }

    async fn reads(&self) -> (u16, String, Vec<u8>) {
        let answer = self.call(Method::GET, PATH, None, Vec::new()).await;
        let tag = answer.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
        let status = answer.status().as_u16();
        if status == 200 {
            assert_eq!(answer.headers()["content-type"], "game/save");
        }
        (status, tag.unwrap_or_default(), answer.bytes().await.unwrap().to_vec())
    }

    async fn puts(&self, if_match: Option<&str>, body: Vec<u8>) -> u16 {
        self.call(Method::PUT, PATH, if_match, body).await.status().as_u16()
    }
}

async fn problem(answer: Response) -> Value {
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

on_every_stage! {
    async fn a_blob_is_read_as_it_was_written_at_any_node_and_after_a_crash(stage) {
        let mut server = with_key(stage).start();
        // As large as may be: larger than any other body.
        let large: Vec<u8> = (0..1_048_576_u32).map(|n| (n % 251) as u8).collect();
        let shops = Shop::everywhere(&server);
        assert_eq!(shops[0].puts(None, large.clone()).await, 201);
        let mut tags = Vec::new();
        for shop in &shops {
            let (status, tag, body) = shop.reads().await;
            assert!(status == 200 && body == large, "{status}, {} bytes", body.len());
            tags.push(tag);
        }
        let mut more = large.clone();
        more.push(7);
        let refused = shops[0].call(Method::PUT, PATH, None, more).await;
        assert_eq!(problem(refused).await["code"], "too_large");
        server.kill9();
        server.restart();
        let (status, tag, body) = Shop::everywhere(&server)[0].reads().await;
        assert!(status == 200 && body == large && tags.iter().all(|before| *before == tag), "{status} {tag} {tags:?}");
    }

    async fn writers_at_all_nodes_who_go_by_what_they_read_lose_nothing(stage) {
        let server = with_key(stage).start();
        let shops = Shop::everywhere(&server);
        assert_eq!(shops[0].puts(None, b"0".to_vec()).await, 201);
        let adds = (0..12).map(|n| {
            let shop = &shops[n % shops.len()];
            async move {
                loop {
                    let (_, tag, body) = shop.reads().await;
                    let sum: u32 = String::from_utf8(body).unwrap().parse().unwrap();
                    match shop.puts(Some(&tag), (sum + 1).to_string().into_bytes()).await {
                        204 => return,
                        status => assert_eq!(status, 412),
                    }
                }
            }
        });
        join_all(adds).await;
        assert_eq!(shops[0].reads().await.2, b"12");
    }

    async fn an_erased_player_has_no_blobs_at_any_node(stage) {
        let server = with_key(stage).start();
        let shops = Shop::everywhere(&server);
        let _ann = server.login("ann").await;
        assert_eq!(shops[0].puts(None, b"1".to_vec()).await, 201);
        let last = shops.last().unwrap();
        let erased = last.call(Method::DELETE, "/v1/players/ann", None, Vec::new()).await;
        assert_eq!(erased.status(), 204);
        for shop in &shops {
            assert_eq!(shop.reads().await.0, 404);
        }
    }
}

on_every_redis! {
    async fn a_store_that_is_away_is_said_to_be_and_no_blob_is_guessed(stage) {
        let mut server = with_key(stage).start();
        let shop = Shop::everywhere(&server).remove(0);
        assert_eq!(shop.puts(None, b"1".to_vec()).await, 201);
        let (_, tag, _) = shop.reads().await;
        server.redis().pause();
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let answer = shop.call(method, PATH, Some("\"0\""), b"2".to_vec()).await;
            assert_eq!(answer.status(), 503);
            assert_eq!(problem(answer).await["code"], json!("store_unavailable"));
        }
        server.redis().go_on();
        let read = until("it is read again", async || {
            let read = shop.reads().await;
            (read.0 == 200).then_some(read)
        })
        .await;
        assert_eq!((read.1, read.2), (tag, b"1".to_vec()), "what its precondition refuses was never written");
    }
}
