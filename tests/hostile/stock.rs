//! What services keep beside players, asked for by a service that means harm: names that are other places, bodies without an
//! end, preconditions that mean nothing, and a thousand who wait for one lock.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::patience::{PATIENCE, until};
use crate::harness::server::Server;
use crate::siege::Siege;

const KEY: &str = "a service key of some length";
const BLOB: &str = "/v1/players/ann/blobs/save";
const LOCK: &str = "/v1/locks/shop";
const COUNTER: &str = "/v1/counters/swords";
/// Who want a lock, how many of them may wait for it, and how many come together.
const COMERS: usize = 1_000;
const WAITERS: usize = 100;
const TOGETHER: usize = 100;

/// No rate in the way: the bounds themselves are what is attacked.
const SETTINGS: &[(&str, &str)] = &[
    ("service_key", KEY),
    ("limits.service_requests_per_s", "100000"),
    ("limits.service_requests_burst", "100000"),
];

/// One request as it is written, whatever a client would make of its address; the connection stays until it is dropped.
async fn asks(server: &Server, head: &str, body: &[u8]) -> TcpStream {
    let address: SocketAddr = server.service_url().trim_start_matches("http://").parse().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (line, fields) = head.split_once('\n').unwrap_or((head, ""));
    let mut request =
        format!("{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\n");
    for field in fields.lines() {
        request.push_str(field);
        request.push_str("\r\n");
    }
    if !fields.contains("Content-Length") && !fields.contains("Transfer-Encoding") {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    // A server that has heard enough closes.
    let _ = stream.write_all(&[request.as_bytes(), body].concat()).await;
    stream
}

/// The status that is answered, and the body.
async fn answered(mut stream: TcpStream) -> (u16, Value) {
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body = body.find('{').zip(body.rfind('}')).map_or("", |(from, to)| &body[from..=to]);
    (status.unwrap_or_else(|| panic!("no answer: {text:?}")), serde_json::from_str(body).unwrap_or_default())
}

async fn is_answered(server: &Server, head: &str, body: &[u8], expected: u16) {
    let (status, told) = answered(asks(server, head, body).await).await;
    assert_eq!(status, expected, "{head}: {told}");
}

const JSON: &str = "\nContent-Type: application/json";

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_other_places_are_refused_and_made_nowhere() {
    let siege = Siege::lay(SETTINGS).await;
    let long = "x".repeat(65);
    let attack = async || {
        for name in ["..", "%2E%2e", ".", "...", "%00", "a%0Ab", "%FF", "%C3%28", long.as_str()] {
            let calls = [
                (format!("GET /v1/players/ann/blobs/{name}"), ""),
                (format!("PUT /v1/players/ann/blobs/{name}"), "body"),
                (format!("DELETE /v1/players/ann/blobs/{name}"), ""),
                (format!("POST /v1/locks/{name}{JSON}"), r#"{"ttl_ms": 1000}"#),
                (format!("POST /v1/counters/{name}{JSON}"), r#"{"by": 1}"#),
            ];
            for (head, body) in calls {
                is_answered(&siege.server, &head, body.as_bytes(), 400).await;
            }
        }
        for name in ["a%2Fb", "%7Bc.s0%7D", "a%20b", "%C3%A9", "a:b"] {
            is_answered(&siege.server, &format!("PUT /v1/players/ann/blobs/{name}"), b"body", 400).await;
        }
    };
    siege.under("names of blobs, locks and counters that are other places", 8, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_without_an_end_and_numbers_without_a_bound_are_refused() {
    let siege = Siege::lay(&[SETTINGS, &[("blobs.bytes_max", "65536")]].concat()).await;
    let full = vec![b'b'; 64 * 1024];
    let chunked = |pieces: usize| {
        let piece = [format!("{:x}\r\n", full.len()).as_bytes(), &full, b"\r\n"].concat();
        piece.repeat(pieces)
    };
    let deep = format!(r#"{{"by": {}"#, "[".repeat(200_000));
    let large = format!(r#"{{"ttl_ms": 1000, "x": "{}"}}"#, "x".repeat(300_000));
    let attack = async || {
        let put = |fields: &str| format!("PUT {BLOB}\n{fields}");
        // Said, and not sent.
        is_answered(&siege.server, &put("Content-Length: 99999999999"), b"", 413).await;
        is_answered(&siege.server, &put("Transfer-Encoding: chunked"), &chunked(3), 413).await;
        is_answered(&siege.server, &put("Content-Range: bytes 0-9/100"), b"0123456789", 400).await;
        is_answered(&siege.server, &put("Content-Encoding: gzip"), b"packed", 415).await;
        is_answered(&siege.server, &put(&format!("Content-Type: a/{}", "b".repeat(254))), b"x", 400).await;
        for (path, body, expected) in [
            (LOCK, large.as_str(), 413),
            (COUNTER, deep.as_str(), 400),
            (COUNTER, r#"{"by": 9223372036854775808}"#, 400),
            (COUNTER, r#"{"by": 1e999}"#, 400),
            (COUNTER, r#"{"by": 1.5}"#, 400),
            (COUNTER, r#"{"by": 1, "min": 2, "max": 1}"#, 400),
            (COUNTER, r#"{"by": 1, "ttl_ms": 0}"#, 400),
            (LOCK, r#"{"ttl_ms": 18446744073709551615}"#, 400),
            (LOCK, r#"{"ttl_ms": 1000, "wait_ms": 99999999}"#, 400),
        ] {
            is_answered(&siege.server, &format!("POST {path}{JSON}"), body.as_bytes(), expected).await;
        }
    };
    siege.under("huge bodies of blobs, locks and counters", 32, attack).await;
    is_answered(&siege.server, &format!("GET {BLOB}"), b"", 404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn preconditions_and_secrets_that_mean_nothing_change_nothing() {
    let siege = Siege::lay(SETTINGS).await;
    is_answered(&siege.server, &format!("PUT {BLOB}"), b"as it was", 201).await;
    is_answered(&siege.server, &format!("POST {LOCK}{JSON}"), br#"{"ttl_ms": 3600000}"#, 201).await;
    let many = ["\"x\""; 33].join(",");
    let other = format!("\"{}\"", "0".repeat(32));
    let attack = async || {
        for (field, expected) in [
            (format!("If-Match: {many}"), 400),
            ("If-Match: \"open".to_owned(), 400),
            ("If-Match: *, *".to_owned(), 400),
            ("If-Match: ".to_owned(), 400),
            ("If-None-Match: W/".to_owned(), 400),
            (format!("If-Match: {other}"), 412),
            (format!("If-Match: W/{other}"), 412),
            ("If-Match: \"{c.s0}:b:bob:save\"".to_owned(), 412),
            ("If-None-Match: *".to_owned(), 412),
        ] {
            is_answered(&siege.server, &format!("PUT {BLOB}\n{field}"), b"mine", expected).await;
            is_answered(&siege.server, &format!("DELETE {BLOB}\n{field}"), b"", expected).await;
        }
        for (secret, expected) in [
            ("0".repeat(32), 409),
            ("f".repeat(32), 409),
            ("g".repeat(32), 400),
            ("0".repeat(31), 400),
            (String::new(), 400),
            ("*".to_owned(), 400),
        ] {
            let with = |method: &str| format!("{method} {LOCK}{JSON}\nLock-Secret: {secret}");
            is_answered(&siege.server, &with("PUT"), br#"{"ttl_ms": 1000}"#, expected).await;
            is_answered(&siege.server, &with("DELETE"), b"", expected).await;
        }
    };
    siege.under("preconditions and secrets that mean nothing", 8, attack).await;
    is_answered(&siege.server, &format!("GET {BLOB}"), b"", 200).await;
    is_answered(&siege.server, &format!("POST {LOCK}{JSON}"), br#"{"ttl_ms": 1000}"#, 409).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_who_wait_for_a_lock_as_many_wait_as_may_and_none_is_left_behind() {
    let most = WAITERS.to_string();
    let settings = [SETTINGS, &[("locks.lock_waiters_max", most.as_str())]].concat();
    let siege = Siege::lay(&settings).await;
    let server = &siege.server;
    let take = format!("POST {LOCK}{JSON}");
    let attack = async || {
        let (status, held) = answered(asks(server, &take, br#"{"ttl_ms": 600000}"#).await).await;
        assert_eq!(status, 201, "{held}");
        let (mut comers, mut refused) = (JoinSet::new(), 0);
        for together in 1..=COMERS / TOGETHER {
            for _ in 0..TOGETHER {
                let stream = asks(server, &take, br#"{"ttl_ms": 600000, "wait_ms": 60000}"#).await;
                comers.spawn(answered(stream));
            }
            // Each of them waits or has been told, before more come.
            while refused < (together * TOGETHER).saturating_sub(WAITERS) {
                let (status, problem) = comers.join_next().await.unwrap().unwrap();
                assert_eq!((status, problem["code"].as_str()), (503, Some("overloaded")), "{problem}");
                refused += 1;
            }
            let waits = (together * TOGETHER).min(WAITERS) as u64;
            until("they stand in line", async || {
                (server.metric("hearth_lock_waiters", "").await == waits).then_some(())
            })
            .await;
        }
        assert_eq!(refused, COMERS - WAITERS);
        // All at once they want it no more.
        drop(comers);
        until("nobody waits", async || (server.metric("hearth_lock_waiters", "").await == 0).then_some(()))
            .await;
        let secret = held["secret"].as_str().unwrap();
        is_answered(server, &format!("DELETE {LOCK}\nLock-Secret: {secret}"), b"", 204).await;
        let (_, again) = answered(asks(server, &take, br#"{"ttl_ms": 600000}"#).await).await;
        assert!(again["token"].as_u64() > held["token"].as_u64(), "nobody who has gone has it: {again}");
        let secret = again["secret"].as_str().unwrap();
        is_answered(server, &format!("DELETE {LOCK}\nLock-Secret: {secret}"), b"", 204).await;
    };
    siege.under("a thousand who wait for one lock", 48, attack).await;
}
