//! Guessing: tokens, tickets and service keys, in bulk. Every wrong one is refused with the same words, and how wrong
//! it is cannot be told from how long the answer takes.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::harness::player::Player;
use crate::harness::server::Server;
use crate::harness::socket::Encoding;
use crate::siege::Siege;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const SERVICE_KEY: &str = "a service key of some length";
/// Guesses of each kind that are timed.
const GUESSES: usize = 120;

/// A token that would be good with the right secret and algorithm.
fn token(algorithm: Algorithm, secret: &str, claims: Value) -> String {
    encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// The same text with another letter at this place of its last part.
fn with_another(text: &str, place: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap()
}

/// What a wrong token is told: the error, and then the close.
async fn guess_token(server: &Server, token: &str) -> Value {
    let mut mallory = Player::connect(server.url(), Encoding::Json).await;
    let refused = mallory.ask("login", json!({"token": token})).await.expect_err(token);
    mallory.expect_close(4500).await;
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_token_is_refused_in_the_same_words() {
    let siege = Siege::lay(&[("auth.jwt_secret", SECRET), ("auth.dev_tokens", "true")]).await;
    let claims = json!({"sub": "ann", "exp": 4_000_000_000_u64});
    let good = token(Algorithm::HS256, SECRET, claims.clone());
    let mut ann = Player::connect(siege.server.url(), Encoding::Json).await;
    ann.login_with(json!({"token": good})).await;
    let signature = good.rfind('.').unwrap() + 1;
    let unsigned = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let wrong = [
        String::new(),
        "dev:".to_owned(),
        "....".to_owned(),
        "x".repeat(10_000),
        unsigned,
        good[..signature].to_owned(),
        good[..good.len() - 3].to_owned(),
        format!("{good}A"),
        with_another(&good, signature),
        with_another(&good, good.len() - 2),
        with_another(&good, signature - 4),
        token(Algorithm::HS256, "another secret of thirty-two bytes", claims.clone()),
        token(Algorithm::HS512, SECRET, claims),
        // Another secret, expired: that it has expired is not for everybody to know.
        token(Algorithm::HS256, "another secret of thirty-two bytes", json!({"sub": "ann", "exp": 1})),
        token(Algorithm::HS256, SECRET, json!({"sub": "ann"})),
        token(Algorithm::HS256, SECRET, json!({"exp": 4_000_000_000_u64})),
        token(Algorithm::HS256, SECRET, json!({"sub": "a\u{0}b", "exp": 4_000_000_000_u64})),
        token(
            Algorithm::HS256,
            SECRET,
            json!({"sub": "ann", "exp": 4_000_000_000_u64, "nbf": 3_900_000_000_u64}),
        ),
    ];
    let attack = async || {
        let guesses = wrong.iter().map(|wrong| guess_token(&siege.server, wrong));
        for (refused, wrong) in futures_util::future::join_all(guesses).await.iter().zip(&wrong) {
            let same =
                json!({"code": "unauthorized", "message": "the token is not good", "temporary": false});
            assert_eq!(*refused, same, "{wrong}");
        }
    };
    siege.under("wrong tokens in bulk", 8, attack).await;
    ann.pings().await;
}

/// Two kinds of guesses, in turns, must take as long as each other: their medians, which noise hardly moves. Noise that
/// does move them is another each time; a leak stays.
async fn take_as_long(guess: impl AsyncFn(usize) -> Duration) {
    let mut told = String::new();
    for _ in 0..5 {
        let mut taken = [Vec::new(), Vec::new()];
        for _ in 0..GUESSES {
            for kind in [0, 1] {
                taken[kind].push(guess(kind).await);
            }
        }
        let [first, last] = taken.map(|mut taken| {
            taken.sort_unstable();
            taken[GUESSES / 2]
        });
        told = format!("wrong early {first:?}, wrong late {last:?}");
        println!("{told}");
        if first.abs_diff(last) < first.max(last) / 5 + Duration::from_micros(50) {
            return;
        }
    }
    panic!("how wrong a guess is can be told: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_wrong_a_secret_is_takes_no_time_to_find_out() {
    let siege = Siege::lay(&[("auth.jwt_secret", SECRET), ("auth.dev_tokens", "true")]).await;
    let server = &siege.server;
    let good = token(Algorithm::HS256, SECRET, json!({"sub": "ann", "exp": 4_000_000_000_u64}));
    let signature = good.rfind('.').unwrap() + 1;
    let tokens = [with_another(&good, signature), with_another(&good, good.len() - 2)];
    take_as_long(async |kind| {
        let mut mallory = Player::connect(server.url(), Encoding::Json).await;
        let began = Instant::now();
        mallory.is_refused("login", json!({"token": tokens[kind]}), "unauthorized").await;
        began.elapsed()
    })
    .await;
    let ann = server.login("ann").await.credentials();
    let tickets = [with_another(&ann.ticket, 11), with_another(&ann.ticket, ann.ticket.len() - 2)];
    take_as_long(async |kind| {
        let mut mallory = Player::connect(server.url(), Encoding::Json).await;
        let guess = json!({"session": ann.session, "ticket": tickets[kind], "last_seq": 0});
        let began = Instant::now();
        mallory.is_refused("resume", guess, "not_resumable").await;
        began.elapsed()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_forged_ticket_is_refused_in_the_same_words() {
    let siege = Siege::lay(&[]).await;
    let ann = siege.server.login("ann").await.credentials();
    let old = ann.clone();
    let ann = siege.server.resume(&ann).await.credentials();
    let ann = siege.server.resume(&ann).await.credentials();
    let bea = siege.server.login("bea").await.credentials();
    let nobody = "00000000-0000-7000-8000-000000000000";
    let beyond = URL_SAFE_NO_PAD.encode([[0xff; 8].as_slice(), &[0; 32]].concat());
    let forged = [
        (ann.session.as_str(), String::new()),
        (&ann.session, "!!!!".to_owned()),
        (&ann.session, "A".repeat(10_000)),
        (&ann.session, beyond),
        (&ann.session, with_another(&ann.ticket, 0)),
        (&ann.session, with_another(&ann.ticket, ann.ticket.len() - 2)),
        (&ann.session, bea.ticket.clone()),
        // Used twice, long ago.
        (&ann.session, old.ticket),
        (nobody, ann.ticket.clone()),
        ("not a session", ann.ticket.clone()),
        ("", ann.ticket.clone()),
    ];
    let attack = async || {
        let mut mallory = Player::connect(siege.server.url(), Encoding::Json).await;
        for (session, ticket) in &forged {
            let guess = json!({"session": session, "ticket": ticket, "last_seq": 0});
            let refused = mallory.is_refused("resume", guess, "not_resumable").await;
            let first = json!({"session": nobody, "ticket": "", "last_seq": 0});
            let mut other = Player::connect(siege.server.url(), Encoding::Json).await;
            assert_eq!(
                other.is_refused("resume", first, "not_resumable").await,
                refused,
                "{session} {ticket}"
            );
        }
    };
    siege.under("forged tickets in bulk", 8, attack).await;
    siege.server.resume(&ann).await.pings().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_nothing_is_told_and_nothing_is_done() {
    let siege = Siege::lay(&[("service_key", SERVICE_KEY)]).await;
    let mut ann = siege.server.login("ann").await;
    let calls = [
        ("POST", "/v1/sessions"),
        ("GET", "/v1/sessions/00000000-0000-7000-8000-000000000000"),
        ("DELETE", "/v1/sessions/00000000-0000-7000-8000-000000000000"),
        ("GET", "/v1/players/ann"),
        ("DELETE", "/v1/players/ann"),
        ("PATCH", "/v1/players/ann/state"),
        ("POST", "/v1/players/ann/kick"),
        ("POST", "/v1/players/ann/messages"),
        ("PUT", "/v1/players/ann/ban"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/maintenance"),
        ("POST", "/v1/presence/query"),
        ("GET", "/v1/stats"),
        ("GET", "/v1/cluster"),
        ("GET", "/v1/no/such/path"),
    ];
    let long = "x".repeat(6_000);
    let nearly = &SERVICE_KEY[..SERVICE_KEY.len() - 1];
    let keys =
        [None, Some(""), Some("wrong"), Some(nearly), Some(long.as_str()), Some("Bearer"), Some("null")];
    // None of its own connections stays open, or it would look as if the server kept them.
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let attack = async || {
        for (method, path) in calls {
            for key in keys {
                let url = format!("{}{path}", siege.server.service_url());
                let call = client.request(method.parse().unwrap(), url).json(&json!({"reason": "x"}));
                let call = key.into_iter().fold(call, |call, key| call.bearer_auth(key));
                let answer = call.send().await.unwrap();
                let status = answer.status().as_u16();
                // Guessing is limited, too.
                assert!([401, 429].contains(&status), "{method} {path} {key:?}: {status}");
                let problem: Value = answer.json().await.unwrap();
                assert!(
                    ["unauthorized", "rate_limited"].contains(&problem["code"].as_str().unwrap()),
                    "{problem}"
                );
            }
        }
    };
    siege.under("admin calls without a key", 8, attack).await;
    ann.pings().await;
    let stats = client.get(format!("{}/v1/stats", siege.server.service_url())).bearer_auth(SERVICE_KEY);
    assert_eq!(stats.send().await.unwrap().status().as_u16(), 200, "who has the key is not shut out");
}
