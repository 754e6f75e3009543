//! Guessing: tokens, tickets and service keys, in bulk. Every wrong one is refused with the same words, and how wrong
//! it is cannot be told from how long the answer takes. And telling: what is nobody else's business stands in no log, at no
//! level, and in no trace.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::harness::collector::Collector;
use crate::harness::patience::until;
use crate::harness::player::Player;
use crate::harness::redis_server::RedisServer;
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

/// How a secret could stand in a text: as it is, escaped, in hex, in base64 at any place within more, as numbers.
fn forms(secret: &[u8]) -> Vec<String> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let percent = |plain: bool| -> String {
        let is_kept = |byte: &u8| plain && (byte.is_ascii_alphanumeric() || b"-._~".contains(byte));
        let one =
            |byte: &u8| if is_kept(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") };
        secret.iter().map(one).collect()
    };
    let numbers: Vec<String> = secret.iter().map(u8::to_string).collect();
    let mut forms =
        vec![hex.to_uppercase(), hex, percent(true), percent(false), numbers.join(", "), numbers.join(",")];
    if let Ok(text) = std::str::from_utf8(secret) {
        forms.push(text.to_owned());
        forms.push(serde_json::to_string(text).unwrap().trim_matches('"').to_owned());
        forms.push(format!("{text:?}").trim_matches('"').to_owned());
    }
    for before in 0..3 {
        // What of it depends on what stands before and behind is left out.
        let padded = [&vec![0; before][..], secret].concat();
        let whole = &padded[..padded.len() / 3 * 3];
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            forms.push(engine.encode(whole)[if before == 0 { 0 } else { 4 }..].to_owned());
        }
    }
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// Where a secret stands in a text, in whatever form.
fn told_in(text: &str, secret: &[u8]) -> Option<String> {
    forms(secret).into_iter().find_map(|form| {
        let at = text.find(&form)?;
        let line = text[..at].lines().count().saturating_sub(1);
        Some(format!("as {form} in: {}", text.lines().nth(line).unwrap_or_default()))
    })
}

#[test]
fn a_secret_is_found_in_whatever_form_it_stands() {
    let secret = "plant\u{e9}d \"s3cret\" 0192837465";
    let bytes = secret.as_bytes();
    for text in [
        format!("x{secret}x"),
        json!({"a": secret}).to_string(),
        format!("{secret:?}"),
        format!("{bytes:?}"),
        format!("{bytes:02x?}").replace(", ", ""),
        STANDARD_NO_PAD.encode(format!("1{secret}")),
        URL_SAFE_NO_PAD.encode(format!("12{secret}34")),
        STANDARD_NO_PAD.encode(secret),
        bytes.iter().map(|byte| format!("%{byte:02X}")).collect(),
    ] {
        assert!(told_in(&format!("a line\n{text}\nanother"), bytes).is_some(), "{text}");
    }
    assert_eq!(told_in("a line\nanother", bytes), None);
}

/// All that is nobody else's business, by what it is.
struct Planted {
    folder: tempfile::TempDir,
    secrets: Vec<(&'static str, Vec<u8>)>,
}

const REDIS_PASSWORD: &str = "planted-redis-p4ss";
const PLAYERS_SECRET: &str = "planted-secret-of-players-0123456789";
const SERVICES_SECRET: &str = "planted-secret-of-services-0123456789";
const FIRST_KEY: &str = "planted-first-service-key";
const FILE_KEY: &str = "planted-key-of-the-file";
const TRACE_KEY: &str = "planted-key-of-the-collector";
const WRONG_KEY: &str = "planted-wrong-service-key";
const STATE: &str = "planted-value-of-a-state";
const ACTIVITY: &str = "planted-activity";
const META: &str = "planted-meta-of-a-member";
const SAID: &str = "planted-words-in-a-room";
const SENT: &str = "planted-words-to-a-player";
const PUSHED: &str = "planted-words-of-a-service";
const BLOB: &[u8] = b"planted-bytes-of-a-blob-\xff\x00\xfe";
const BROKEN: &str = "planted-in-what-is-broken";

impl Planted {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys =
            format!("[[keys]]\nname = \"shop\"\nscopes = [\"read\", \"write\"]\nsecret = \"{FILE_KEY}\"\n");
        std::fs::write(folder.path().join("keys.toml"), keys).unwrap();
        let texts = [
            ("the password of Redis", REDIS_PASSWORD),
            ("the secret of players' tokens", PLAYERS_SECRET),
            ("the secret of services' tokens", SERVICES_SECRET),
            ("the first service key", FIRST_KEY),
            ("a service key of the file", FILE_KEY),
            ("the collector's key", TRACE_KEY),
            ("a wrong service key", WRONG_KEY),
            ("a value of a state", STATE),
            ("an activity", ACTIVITY),
            ("the meta of a member", META),
            ("words in a room", SAID),
            ("words to a player", SENT),
            ("words of a service", PUSHED),
            ("what is broken", BROKEN),
        ];
        let secrets = texts.map(|(what, text)| (what, text.as_bytes().to_vec()));
        Self { folder, secrets: [secrets.to_vec(), vec![("a blob", BLOB.to_vec())]].concat() }
    }

    fn plant(&mut self, what: &'static str, secret: impl Into<Vec<u8>>) {
        self.secrets.push((what, secret.into()));
    }

    fn server(&self, format: &str, redis: &RedisServer, collector: &Collector) -> Server {
        let at = format!("hearth:{REDIS_PASSWORD}@");
        let url = redis.tcp_url().replace("redis://", &format!("redis://{at}"));
        let starting =
            Server::on_url(&url).with_lease(20_000).with("log.level", "trace").with("log.format", format);
        starting
            .with("auth.jwt_secret", PLAYERS_SECRET)
            .with("service.jwt_secret", SERVICES_SECRET)
            .with("service_key", FIRST_KEY)
            .with("service.keys_file", self.folder.path().join("keys.toml").display())
            .with("session.player_messages", true)
            .with("rooms.grants", "*")
            .with("session.login_policy", "many(8)")
            .with("trace.otlp_url", collector.url())
            .with("trace.sample_ratio", 1)
            .with("trace.headers", format!("x-key={TRACE_KEY}"))
            .start()
    }
}

/// A player does all that there is, well and badly.
async fn plays(server: &Server, planted: &mut Planted, encoding: Encoding) {
    let token = token(Algorithm::HS256, PLAYERS_SECRET, json!({"sub": "ann", "exp": 4_000_000_000_u64}));
    planted.plant("a player's token", token.rsplit('.').next().unwrap());
    planted.plant("a player's claims", token.split('.').nth(1).unwrap());
    let mut ann = Player::connect(server.url(), encoding).await;
    ann.is_refused("login", json!({"token": format!("{token}x")}), "unauthorized").await;
    let mut ann = Player::connect(server.url(), encoding).await;
    ann.login_with(json!({"token": token, "device": "pc"})).await;
    planted.plant("a ticket", ann.credentials().ticket);
    ann.patch_durably(json!({"set": {"zone": STATE}, "cseq": 1})).await;
    ann.is_refused("state.patch", json!({"set": {"zone": STATE}, "cseq": 9}), "cseq_gap").await;
    ann.is_refused("state.patch", json!({"set": STATE}), "bad_request").await;
    ann.does("state.get", json!({})).await;
    ann.does("presence.set", json!({"status": "playing", "activity": {"map": ACTIVITY}, "cseq": 2})).await;
    ann.is_refused("presence.set", json!({"status": ACTIVITY}), "bad_request").await;
    ann.does("room.join", json!({"room": "hall", "meta": {"team": META}, "cseq": 3})).await;
    ann.does("room.send", json!({"room": "hall", "data": SAID, "cseq": 4})).await;
    ann.does("send", json!({"player": "ann", "data": SENT, "cseq": 5})).await;
    ann.is_refused("refresh", json!({"token": BROKEN}), "unauthorized").await;
    ann.does("refresh", json!({"token": token})).await;
    ann.is_refused("watch", json!({"players": BROKEN}), "bad_request").await;
    let credentials = ann.drops();
    let mut wrong = credentials.clone();
    wrong.ticket = with_another(&credentials.ticket, 11);
    server.resume_refused(&wrong).await;
    planted.plant("a wrong ticket", wrong.ticket);
    let mut back = Player::connect(server.url(), encoding).await;
    back.resume(&credentials).await;
    planted.plant("the next ticket", back.credentials().ticket);
    back.pings().await;
}

/// A service does all that there is, well and badly.
async fn serves(server: &Server, planted: &mut Planted) {
    let claims =
        json!({"sub": "shop-2", "scopes": ["read", "write", "push", "admin"], "exp": 4_000_000_000_u64});
    let token = token(Algorithm::HS256, SERVICES_SECRET, claims);
    planted.plant("a service's token", token.rsplit('.').next().unwrap());
    let client = reqwest::Client::new();
    let url = server.service_url();
    for key in [FIRST_KEY, FILE_KEY, WRONG_KEY, token.as_str()] {
        let calls = [
            ("PATCH", "/v1/players/ann/state", json!({"set": {"zone": STATE}, "ack": "durable"})),
            ("PATCH", "/v1/players/ann/state", json!({"set": STATE})),
            ("PATCH", "/v1/players/nobody/state", json!({"set": {"zone": STATE}})),
            ("POST", "/v1/players/ann/messages", json!({"data": PUSHED})),
            (
                "POST",
                "/v1/players/ann/messages",
                json!({"data": PUSHED, "ack": "durable", "idempotency_key": "k"}),
            ),
            ("POST", "/v1/players/ann/messages", json!({"data": PUSHED, "ack": PUSHED})),
            ("POST", "/v1/messages", json!({"all": true, "data": PUSHED})),
            ("POST", "/v1/rooms/hall/messages", json!({"data": PUSHED})),
            ("PUT", "/v1/rooms/hall/members/ann", json!({"meta": {"team": META}})),
            ("POST", "/v1/presence/query", json!({"players": ["ann", "bea"]})),
            ("POST", "/v1/sessions", json!({"player": "bea", "device": "pc"})),
            ("POST", "/v1/locks/gate", json!({"ttl_ms": 60_000})),
            ("GET", "/v1/players/ann", Value::Null),
            ("GET", "/v1/players/ann/timeline", Value::Null),
            ("GET", &format!("/v1/stats?key={BROKEN}"), Value::Null),
            ("PUT", "/v1/log", json!({"level": "trace", "for_s": 600})),
        ]
        .map(|(method, path, body)| (method, path.to_owned(), body));
        for (method, path, body) in calls {
            let call = client.request(method.parse().unwrap(), format!("{url}{path}")).bearer_auth(key);
            let call = if body.is_null() { call } else { call.json(&body) };
            let answer: Value = call.send().await.unwrap().json().await.unwrap_or_default();
            for (what, name) in [("a made session's ticket", "ticket"), ("a lock's secret", "secret")] {
                if let Some(secret) = answer[name].as_str() {
                    planted.plant(what, secret);
                }
            }
        }
        let put = client.put(format!("{url}/v1/players/ann/blobs/save")).bearer_auth(key).body(BLOB);
        put.header("content-type", "application/octet-stream").send().await.unwrap();
        let get = client.get(format!("{url}/v1/players/ann/blobs/save")).bearer_auth(key);
        get.send().await.unwrap();
        let broken =
            client.post(format!("{url}/v1/messages")).bearer_auth(key).body(format!("{{\"data\": {BROKEN}"));
        broken.header("content-type", "application/json").send().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nobody_elses_business_stands_in_no_log_at_any_level_and_in_no_trace() {
    for (format, encoding) in [("json", Encoding::MessagePack), ("text", Encoding::Json)] {
        let redis = RedisServer::builder().on_tcp().start();
        let password = format!(">{REDIS_PASSWORD}");
        redis.query::<()>(&["ACL", "SETUSER", "hearth", "on", &password, "~*", "&*", "+@all"]);
        let (mut planted, collector) = (Planted::new(), Collector::start());
        let server = planted.server(format, &redis, &collector);
        plays(&server, &mut planted, encoding).await;
        serves(&server, &mut planted).await;
        let secret: Vec<u8> = redis.query(&["HGET", "test:cfg", "ticket_secret"]);
        assert!(secret.len() >= 16, "{secret:?}");
        planted.plant("the secret of tickets", secret);
        // What the file cannot be read for is told, and what stands in it is not.
        let broken = format!("[[keys]]\nname = \"shop\"\nsecret = \"{BROKEN}\"\nscopes = {BROKEN}\n");
        std::fs::write(planted.folder.path().join("keys.toml"), broken).unwrap();
        until("the broken file to be told", async || server.log().contains("stays in force").then_some(()))
            .await;
        collector
            .until_span("the traces", |span| span["name"] == "PUT /v1/players/{player}/blobs/{name}")
            .await;
        let (log, spans) = (server.log(), collector.spans());
        // It is the whole log that is searched, and a talkative one.
        for told in ["DEBUG", "blob.put", "detach", "reread"] {
            assert!(log.contains(told), "{told}: {log}");
        }
        let traces: Vec<String> =
            spans.iter().map(|span| format!("{} {}", span["name"], span["attributes"])).collect();
        assert!(traces.len() > 40, "{traces:#?}");
        for (what, secret) in &planted.secrets {
            for (place, text) in [("the log", &log), ("the traces", &traces.join("\n"))] {
                assert_eq!(told_in(text, secret), None, "{what} in {place} ({format})");
            }
        }
    }
}
