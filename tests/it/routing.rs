//! A client at the wrong node: told where her home is, or carried there, and served as if she had found it by herself.
//! What other nodes may ask at the peer port, and nobody else.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::harness::nodes::{KEY, node_on, nodes, players_of, served_by, two_nodes};
use crate::harness::patience::{PATIENCE, until};
use crate::harness::player::{Credentials, Player};
use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::socket::{Encoding, Heard, Socket};

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::MessagePack];

/// What is answered to a first frame, and how the link ends if it does.
async fn first_answer(
    node: &Server,
    encoding: Encoding,
    op: &str,
    body: Value,
) -> (String, Value, Option<u16>) {
    let mut socket = Socket::open(node.url(), encoding).await;
    socket.send(op, 1, &body).await;
    let Heard::Frame(answer) = socket.hear().await else { panic!("no answer") };
    loop {
        match socket.hear_within(Duration::from_secs(2)).await {
            Some(Heard::Closed(code)) => return (answer.op, answer.body, code),
            Some(Heard::Frame(frame)) => assert_eq!(frame.op, "bye"),
            None => return (answer.op, answer.body, None),
        }
    }
}

#[tokio::test]
async fn a_client_at_the_wrong_node_is_told_where_her_home_is() {
    let redis = RedisServer::start();
    let [here, there] = two_nodes(&redis).await;
    let name = players_of(&there).await.next().unwrap();
    for encoding in ENCODINGS {
        let login = json!({"token": format!("dev:{name}")});
        let (op, told, code) = first_answer(&here, encoding, "login", login).await;
        assert_eq!((op.as_str(), code), ("redirect", Some(4002)), "{told}");
        assert_eq!(told["url"], there.url());
        let ann = there.login(&name).await;
        let credentials = ann.drops();
        let resume = json!({"session": credentials.session, "ticket": credentials.ticket, "last_seq": credentials.last_seq});
        let (op, told, code) = first_answer(&here, encoding, "resume", resume).await;
        assert_eq!((op.as_str(), code), ("redirect", Some(4002)), "{told}");
        let mut ann = there.resume(&credentials).await;
        ann.does("logout", json!({})).await;
    }
    // Whose token is bad is told so, and not where somebody lives.
    let (op, told, _) = first_answer(&here, Encoding::Json, "login", json!({"token": "nonsense"})).await;
    assert_eq!((op.as_str(), &told["code"]), ("error", &json!("unauthorized")));
}

#[tokio::test]
async fn nobody_is_sent_to_a_home_that_was_killed_but_told_when_to_come_again() {
    let redis = RedisServer::start();
    let [here, mut there] = nodes(&redis, |node| node.with_lease(6_000)).await;
    let ann = there.login(&players_of(&there).await.next().unwrap()).await;
    let credentials = ann.credentials();
    let Credentials { session, ticket, last_seq, .. } = &credentials;
    let resume = json!({"session": session, "ticket": ticket, "last_seq": last_seq});
    there.kill9();
    until("the link is seen to break", async || {
        (here.metric("hearth_peer_links", "").await == 0).then_some(())
    })
    .await;
    let mut socket = Socket::open(here.url(), Encoding::Json).await;
    socket.send("resume", 1, &resume).await;
    let Heard::Frame(told) = socket.hear().await else { panic!("no answer") };
    assert_eq!((told.op.as_str(), &told.body["code"]), ("error", &json!("not_home")), "{told:?}");
    let wait = Duration::from_millis(told.body["retry_after_ms"].as_u64().unwrap());
    assert!(wait > Duration::from_millis(500) && wait <= Duration::from_millis(6_250), "{wait:?}");
    // Whoever has waited so long is let in soon.
    tokio::time::sleep(wait).await;
    until("the session is taken up again", async || here.connect().await.try_resume(&credentials).await.ok())
        .await;
}

#[tokio::test]
async fn a_client_who_asks_for_it_is_carried_to_her_home() {
    let redis = RedisServer::start();
    let [here, there] = two_nodes(&redis).await;
    let mut names = players_of(&there).await;
    for encoding in ENCODINGS {
        let (name, watched) = (names.next().unwrap(), names.next().unwrap());
        let mut ann = Player::connect(here.url(), encoding).await;
        ann.login_with(json!({"token": format!("dev:{name}"), "relay": true})).await;
        // Many frames at once, and large ones, in both directions.
        let mut asked = Vec::new();
        for n in 1..=40 {
            let body = json!({"set": {"n": n, "text": "x".repeat(1_500)}, "cseq": n});
            asked.push(ann.feed("state.patch", body).await);
        }
        ann.pings().await;
        for reference in asked {
            ann.answer(reference).await.unwrap();
        }
        assert_eq!(ann.patch_durably(json!({"incr": {"n": 1}, "cseq": 41})).await["ack"], "durable");
        assert_eq!(ann.state().await["n"], 41);
        ann.watches(&[&watched]).await;
        let bob = there.login(&watched).await;
        ann.sees(&watched, "online").await;
        drop(bob);
        // The home sees one session of hers, attached.
        let (_, told) = Service::of(&there, KEY).get(&format!("/v1/players/{name}")).await;
        assert_eq!(told["sessions"].as_array().unwrap().len(), 1, "{told}");
        let credentials = ann.drops();
        let mut ann = Player::connect(here.url(), encoding).await;
        ann.try_resume_carried(&credentials).await.unwrap();
        assert_eq!(ann.state().await["n"], 41);
        ann.does("logout", json!({})).await;
    }
}

#[tokio::test]
async fn what_a_client_says_before_ready_is_carried_too() {
    let redis = RedisServer::start();
    let [here, there] = two_nodes(&redis).await;
    let name = players_of(&there).await.next().unwrap();
    let mut ann = Player::connect(here.url(), Encoding::MessagePack).await;
    let mut asked = vec![ann.feed("login", json!({"token": format!("dev:{name}"), "relay": true})).await];
    for t in 0..30 {
        asked.push(ann.feed("ping", json!({"t": t})).await);
    }
    ann.pings().await;
    for reference in asked {
        ann.answer(reference).await.unwrap();
    }
}

#[tokio::test]
async fn when_the_home_dies_a_carried_client_is_told_to_come_back() {
    let redis = RedisServer::start();
    let [here, mut there] = two_nodes(&redis).await;
    let name = players_of(&there).await.next().unwrap();
    let mut ann = Player::connect(here.url(), Encoding::Json).await;
    ann.login_with(json!({"token": format!("dev:{name}"), "relay": true})).await;
    ann.patch_durably(json!({"set": {"kept": true}})).await;
    let credentials = ann.credentials();
    there.kill9();
    ann.expect_close(4000).await;
    // The node that carried her is her home now, once the dead one's lease is over.
    let mut ann = until("she is let in", async || {
        let mut ann = Player::connect(here.url(), Encoding::Json).await;
        ann.try_resume_carried(&credentials).await.ok().map(|()| ann)
    })
    .await;
    assert_eq!(ann.state().await["kept"], true);
}

#[tokio::test]
async fn a_service_calls_any_node() {
    let redis = RedisServer::start();
    let [here, there] = two_nodes(&redis).await;
    let name = players_of(&there).await.next().unwrap();
    let mut ann = there.login(&name).await;
    let service = Service::of(&here, KEY);
    let path = |rest: &str| format!("/v1/players/{name}{rest}");
    let (status, told) = service.get(&path("")).await;
    assert_eq!((status, &told["presence"]["status"]), (200, &json!("online")), "{told}");
    let (status, told) = service
        .call(Method::PATCH, &path("/state"), Some(json!({"set": {"gold": 7}, "ack": "durable"})))
        .await;
    assert_eq!(status, 200, "{told}");
    assert_eq!(ann.state().await["gold"], 7);
    let session = ann.ready["session"].as_str().unwrap().to_owned();
    let (status, told) = service.get(&format!("/v1/sessions/{session}")).await;
    assert_eq!((status, &told["player"]), (200, &json!(name)), "{told}");
    let (status, told) = service.post(&path("/messages"), json!({"data": "hello"})).await;
    assert_eq!((status, &told["delivered"]), (200, &json!(1)), "{told}");
    assert_eq!(ann.wait_for_push("message").await["data"], "hello");
    // A session that is made at the wrong node is taken up at the right one.
    let other = players_of(&there).await.nth(1).unwrap();
    let (status, made) = service.post("/v1/sessions", json!({"player": other})).await;
    assert_eq!((status, &made["url"]), (201, &json!(there.url())), "{made}");
    // What is refused there is refused here, in the same words.
    let wrong = json!({"set": 5});
    let (status, refused) = service.call(Method::PATCH, &path("/state"), Some(wrong.clone())).await;
    assert_eq!(
        (status, &refused),
        (400, &Service::of(&there, KEY).call(Method::PATCH, &path("/state"), Some(wrong)).await.1)
    );
    let (status, _) = Service::of(&here, "another key").get(&path("")).await;
    assert_eq!(status, 401);
    let (status, told) = service.post(&path("/kick"), json!({"reason": "bye"})).await;
    assert_eq!(status, 200, "{told}");
    ann.expect_close(4502).await;
    // One line for each change, where it was made.
    until("the line", async || there.log().contains("operation=\"kick\"").then_some(())).await;
    assert_eq!(there.log().matches("operation=\"kick\"").count(), 1);
    assert_eq!(here.log().matches("operation=\"kick\"").count(), 0);
}

#[tokio::test]
async fn maintenance_is_in_force_on_every_node() {
    let redis = RedisServer::start();
    let [here, there] = two_nodes(&redis).await;
    let name = players_of(&there).await.next().unwrap();
    let mut ann = there.login(&name).await;
    let (status, told) =
        Service::of(&here, KEY).post("/v1/maintenance", json!({"reason": "new season"})).await;
    assert_eq!(status, 200, "{told}");
    ann.expect_close(4507).await;
    // Opened at the other one, and it stays open.
    assert_eq!(Service::of(&there, KEY).delete("/v1/maintenance").await.0, 204);
    until("open everywhere", async || {
        let (_, told) = Service::of(&here, KEY).get("/v1/maintenance").await;
        (told["closed"] == false).then_some(())
    })
    .await;
    there.login(&name).await;
    // Who comes later is told.
    let (status, _) = Service::of(&here, KEY).post("/v1/maintenance", json!({"reason": "again"})).await;
    assert_eq!(status, 200);
    let third = tokio::task::spawn_blocking({
        let starting = node_on(&redis);
        || starting.start()
    });
    let third = third.await.unwrap();
    let (_, told) = Service::of(&third, KEY).get("/v1/maintenance").await;
    assert_eq!((&told["closed"], &told["reason"]), (&json!(true), &json!("again")));
}

/// What the peer port says to a request with these headers: the status.
async fn status_at(addr: &str, path: &str, headers: &str) -> u16 {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: hearth.v1.json\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_peer_port_opens_to_members_and_the_client_port_to_no_node() {
    let redis = RedisServer::start();
    let [here, _there] = two_nodes(&redis).await;
    let (_, told) = Service::of(&here, KEY).get("/v1/cluster").await;
    let me =
        told["nodes"].as_array().unwrap().iter().find(|node| node["node"] == told["node"]).unwrap().clone();
    let peer = me["peer"].as_str().expect("an address for other nodes").to_owned();
    let words = "hearth-node: a#1\r\nhearth-shard: 1\r\nhearth-client: 127.0.0.1\r\n";
    for path in ["/v1/relay", "/v1/peer"] {
        assert_eq!(status_at(&peer, path, "").await, 403, "{path}");
        let forged = format!("{words}hearth-pass: 1700000000000.AAAA.AAAA\r\n");
        assert_eq!(status_at(&peer, path, &forged).await, 403, "{path}");
        assert_eq!(status_at(here.host(), path, &forged).await, 404, "{path}");
    }
    assert_eq!(status_at(&peer, "/v1/connect", "").await, 404);
}

/// The first answer to a login there; `None` where nobody answers.
async fn answer_to_login(url: &str, player: &str) -> Option<(String, Value)> {
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "hearth.v1.json".parse().unwrap());
    let asking = async {
        let (mut ws, _) = tokio_tungstenite::connect_async(request).await.ok()?;
        let login = json!(["login", 1, {"token": format!("dev:{player}")}]).to_string();
        ws.send(Message::text(login)).await.ok()?;
        let answer = ws.next().await?.ok()?.into_text().ok()?;
        let [op, _, body] = serde_json::from_str::<[Value; 3]>(&answer).ok()?;
        Some((op.as_str()?.to_owned(), body))
    };
    timeout(PATIENCE, asking).await.ok()?
}

/// Logs in at one of these nodes and follows every `redirect` at once; how many there were in a row, at most. Whoever is
/// refused or finds nobody begins anew.
async fn redirects_in_a_row(urls: &[String], player: &str) -> usize {
    let (mut url, mut others) = (urls[0].clone(), urls.iter().cycle().skip(1));
    let (mut row, mut most) = (0, 0);
    loop {
        match answer_to_login(&url, player).await {
            Some((op, _)) if op == "ready" => return most,
            Some((op, told)) if op == "redirect" => {
                url = told["url"].as_str().unwrap().to_owned();
                row += 1;
                most = most.max(row);
            }
            _ => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                (url, row) = (others.next().unwrap().clone(), 0);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_moves_sends_nobody_round_in_circles() {
    let redis = RedisServer::start();
    let [here, mut there] = two_nodes(&redis).await;
    let urls = [here.url().to_owned(), there.url().to_owned()];
    let (moves, moved) = tokio::sync::watch::channel(0);
    let mut logins = tokio::task::JoinSet::new();
    for worker in 0..6 {
        let (urls, moved) = (urls.clone(), moved.clone());
        logins.spawn(async move {
            let mut most = 0;
            for n in 0.. {
                if *moved.borrow() == 3 {
                    break;
                }
                let mut urls = urls.clone();
                urls.rotate_left(n % 2);
                most = most.max(redirects_in_a_row(&urls, &format!("w{worker}-{}", n % 16)).await);
            }
            most
        });
    }
    for _ in 0..3 {
        there = tokio::task::spawn_blocking(|| {
            there.stop_gracefully();
            there.restart();
            there
        })
        .await
        .unwrap();
        until("both serve", async || (!served_by(&there).await.is_empty()).then_some(())).await;
        moves.send_modify(|moves| *moves += 1);
    }
    let most = logins.join_all().await.into_iter().max().unwrap();
    assert!((1..=4).contains(&most), "{most} redirects in a row");
}
