//! Before there is a WebSocket, and before there is a session: connections that say nothing, requests that never end
//! or mean two things, and links without a login.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::patience::{PATIENCE, until};
use crate::harness::player::Player;
use crate::harness::server::Server;
use crate::harness::socket::Encoding;
use crate::harness::stages::Stage;
use crate::raw::{FIN, Raw, TEXT, UPGRADE, frame, text};
use crate::siege::Siege;

/// A short patience, so that the tests need little of it.
const HASTE: &[(&str, &str)] = &[("link.handshake_timeout_ms", "600")];
/// Connections of one attack at a time.
const MANY: usize = 100;

/// So many at once, each living its life.
async fn crowd<F: Future<Output = ()>>(many: usize, life: impl Fn(usize) -> F) {
    futures_util::future::join_all((0..many).map(life)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_are_closed_in_time() {
    let siege = Siege::lay(HASTE).await;
    let attack = async || {
        crowd(MANY, async |_| {
            let mut raw = Raw::connect(&siege.server).await;
            assert_eq!(raw.rest().await, b"", "nothing was asked, nothing is answered");
        })
        .await;
    };
    siege.under("silent connections", 8, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_drips_is_answered_408_in_time() {
    let siege = Siege::lay(HASTE).await;
    let attack = async || {
        crowd(MANY, async |_| {
            let mut raw = Raw::connect(&siege.server).await;
            let began = Instant::now();
            for byte in UPGRADE.bytes().cycle() {
                // Well below what the request may be long, whatever the clock does.
                if began.elapsed() > Duration::from_millis(700) || !raw.say(&[byte]).await {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(raw.answer().await.0, 408);
            assert!(began.elapsed() < PATIENCE / 2);
        })
        .await;
    };
    siege.under("slowloris", 8, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_are_answered_431() {
    let siege = Siege::lay(&[]).await;
    let attack = async || {
        crowd(20, async |n| {
            let mut raw = Raw::connect(&siege.server).await;
            raw.say(UPGRADE.as_bytes()).await;
            match n % 3 {
                0 => while raw.say(b"X-Endless: and so on\r\n").await && !raw.is_answered().await {},
                1 => drop(raw.say(format!("X-Huge: {}", "x".repeat(60_000)).as_bytes()).await),
                _ => drop(raw.say("a:b\r\n".repeat(130).as_bytes()).await),
            }
            raw.say(b"\r\n").await;
            assert_eq!(raw.answer().await.0, 431);
        })
        .await;
    };
    siege.under("huge or endless headers", 8, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_page_is_answered_403() {
    let siege = Siege::lay(&[("auth.origins_allowed", "https://game.example.com")]).await;
    let origins = ["https://evil.example.com", "null", "https://game.example.com.evil.example", "\u{1f}", ""];
    let attack = async || {
        for origin in origins {
            let mut raw = Raw::connect(&siege.server).await;
            raw.say(format!("{UPGRADE}Origin: {origin}\r\n\r\n").as_bytes()).await;
            let expected = if origin == "\u{1f}" { 400 } else { 403 };
            assert_eq!(raw.answer().await.0, expected, "{origin:?}");
        }
    };
    siege.under("foreign Origin", 8, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_address_is_refused_and_not_used() {
    let siege = Siege::lay(&[]).await;
    let attack = async || {
        for query in ["token=dev:ann", "x=1&Access_Token=dev:ann", "ticket=abc", "jwt=", "authorization=a"] {
            let mut raw = Raw::connect(&siege.server).await;
            raw.say(UPGRADE.replace("/v1/connect", &format!("/v1/connect?{query}")).as_bytes()).await;
            raw.say(b"\r\n").await;
            let (status, answer) = raw.answer().await;
            assert_eq!(status, 400, "{answer}");
            assert!(!answer.contains("dev:ann"), "{answer}");
        }
    };
    siege.under("token in the URL", 8, attack).await;
    assert!(!siege.server.log().contains("dev:ann"), "the log keeps no token");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_upgrade_is_answered_in_http() {
    let siege = Siege::lay(&[]).await;
    let good = || format!("{UPGRADE}\r\n");
    let requests = [
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 404),
        ("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 404),
        ("GET /v1/connect HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 426),
        (good().replace("websocket", "h2c"), 426),
        (good().replace("Version: 13", "Version: 8"), 426),
        (good().replace("Version: 13", "Version: 99999999999999999999"), 426),
        (good().replace("HTTP/1.1", "HTTP/1.0"), 505),
        (good().replace("GET", "POST"), 405),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
        (good().replace("dGhl", "!!!!"), 400),
        (good().replace("Host: localhost\r\n", ""), 400),
        (good().replace("hearth.v1.json", "mqtt"), 400),
        ("\u{16}\u{3}\u{1}\u{2}\n\n".to_owned(), 400),
    ];
    let attack = async || {
        for (request, expected) in &requests {
            let mut raw = Raw::connect(&siege.server).await;
            raw.say(request.as_bytes()).await;
            let (status, answer) = raw.answer().await;
            assert_eq!(status, *expected, "{request}\n{answer}");
            assert!(answer.contains("Connection: close\r\n") && answer.ends_with('\n'), "{answer}");
        }
    };
    siege.under("bad upgrade, version, HTTP/1.0", 8, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_behind_a_request() {
    let siege = Siege::lay(&[]).await;
    let second = "GET /v1/connect HTTP/1.1\r\nHost: inner\r\n\r\n";
    let tails = [
        format!("Content-Length: {}\r\n\r\n{second}", second.len()),
        format!("Content-Length: 0\r\nContent-Length: {}\r\n\r\n{second}", second.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{second}"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{second}"),
        format!("\r\n{second}"),
        format!("X: y\nTransfer-Encoding: chunked\r\n\r\n{second}"),
        format!("X: y\r\n Transfer-Encoding: chunked\r\n\r\n{second}"),
        format!("Transfer-Encoding : chunked\r\n\r\n{second}"),
        format!("Host: other\r\n\r\n{second}"),
    ];
    let attack = async || {
        for tail in &tails {
            let mut raw = Raw::connect(&siege.server).await;
            raw.say(format!("{UPGRADE}{tail}").as_bytes()).await;
            let (status, answer) = raw.answer().await;
            assert_eq!((status, answer.matches("HTTP/1.1 4").count()), (400, 1), "{tail}\n{answer}");
        }
    };
    siege.under("request smuggling", 8, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_logs_in_is_closed_4252_and_who_only_talks_4501() {
    let siege = Siege::lay(HASTE).await;
    let attack = async || {
        crowd(MANY / 2, async |n| {
            let mut raw = Raw::open(&siege.server).await;
            if n % 2 == 0 {
                return raw.ends_with(4252, "silence").await;
            }
            raw.say(&text(r#"["ping", 1, {}]"#).repeat(16)).await;
            raw.ends_with(4501, "16 pings").await;
        })
        .await;
    };
    siege.under("no login", 8, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_never_log_in_keep_nobody_out() {
    // A fair share of this patience is 800 ms; without it, whoever waits would wait for all of it, again and again.
    let few = [("link.handshakes_max", "16"), ("link.handshake_timeout_ms", "4000")];
    let siege = Siege::lay(&few).await;
    let attack = async || {
        let flood = crowd(64, async |_| {
            loop {
                let mut raw = Raw::connect(&siege.server).await;
                raw.rest().await;
            }
        });
        let guest = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mut bea = Player::connect(siege.server.url(), Encoding::Json).await;
            bea.login("bea").await;
            bea.pings().await;
        };
        tokio::select! {
            () = flood => {}
            () = guest => {}
        }
    };
    siege.under("half-open connections over their number", 8, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upgraded_links_that_never_hear_goodbye_keep_nobody_out() {
    // A fair share is 200 ms: 16 places come free 80 times a second. Were they held until each goodbye is given up after
    // a second, it would be 13 times, and whoever comes last would wait for 18 seconds.
    let few = [("link.handshakes_max", "16"), ("link.handshake_timeout_ms", "1000")];
    let siege = Siege::lay(&few).await;
    let attack = async || {
        let mut silent = Vec::new();
        for _ in 0..240 {
            let mut raw = Raw::connect(&siege.server).await;
            raw.say(format!("{UPGRADE}\r\n").as_bytes()).await;
            silent.push(raw);
        }
        let began = Instant::now();
        let mut bea = Raw::connect(&siege.server).await.upgraded().await;
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(10), "the door opened after {waited:?}");
        bea.say(&text(r#"["login", 1, {"token": "dev:bea"}]"#)).await;
        drop(silent);
    };
    siege.under("silent links over their number", 8, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_wait_for_the_store_keep_resumes_and_others_in() {
    // Time enough for the store, so that all four still wait when the fifth comes.
    let starting = Server::on(Stage::Redis).with_lease(20_000).with("link.handshakes_max", 4);
    let mut server = starting.with("link.handshake_timeout_ms", 20_000).start();
    let ann = server.login("ann").await;
    server.redis().pause();
    let mut waiting = Vec::new();
    for n in 0..4 {
        let mut raw = Raw::open(&server).await;
        raw.say(&text(&format!(r#"["login", 1, {{"token": "dev:waits-{n}"}}]"#))).await;
        waiting.push(raw);
    }
    // The fifth is told at once.
    let mut fifth = server.connect().await;
    let refused = fifth.is_refused("login", json!({"token": "dev:fifth"}), "overloaded").await;
    assert!(refused["retry_after_ms"].as_u64().is_some(), "{refused}");
    fifth.expect_close(4000).await;
    let mut ann = server.resume(&ann.drops()).await;
    ann.pings().await;
    server.redis().go_on();
    drop(waiting);
    // The store has what waited to answer first.
    let mut bea = until("a login after the wait", async || {
        let mut bea = server.connect().await;
        bea.ask("login", json!({"token": "dev:bea"})).await.is_ok().then_some(bea)
    })
    .await;
    bea.pings().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_is_not_taken_up() {
    let siege = Siege::lay(&[]).await;
    let offers = [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits; server_no_context_takeover",
        "x-webkit-deflate-frame, permessage-bzip2",
    ];
    let attack = async || {
        for offer in offers {
            let mut raw = Raw::connect(&siege.server).await;
            raw.say(format!("{UPGRADE}Sec-WebSocket-Extensions: {offer}\r\n\r\n").as_bytes()).await;
            let (status, answer) = raw.answer().await;
            assert_eq!(status, 101, "{answer}");
            assert!(!answer.to_ascii_lowercase().contains("extensions"), "{answer}");
            // A frame that says it is compressed: 1 KiB of it could be a mebibyte.
            raw.say(&frame(FIN | 0x40 | TEXT, &[0xca, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00])).await;
            raw.ends_with(1002, "a compressed frame").await;
        }
    };
    siege.under("compression offered", 8, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_the_server_neither_spins_nor_forgets_its_players() {
    let siege = Siege::lay(HASTE).await;
    // A probe that keeps its connection: no other gets in.
    let probe = reqwest::Client::new();
    let reasons = async || {
        let asked = probe.get(format!("{}/readyz", siege.server.service_url())).send().await.unwrap();
        asked.json::<serde_json::Value>().await.unwrap()["reasons"].to_string()
    };
    assert_eq!(reasons().await, "[]");
    // As `ulimit -n` would, but while it runs: the others' links and a few more.
    let limit = siege.descriptors() + 16;
    let pid = siege.server.pid().to_string();
    let set =
        std::process::Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}")]).status();
    assert!(set.expect("prlimit, of util-linux").success());
    let attack = async || {
        let (began, used) = (Instant::now(), siege.processor_time());
        let come = crowd(MANY, async |_| {
            let mut raw = Raw::connect(&siege.server).await;
            tokio::time::timeout(Duration::from_secs(1), raw.rest()).await.unwrap_or_default();
        });
        let told =
            until("the probe to be told", async || reasons().await.contains("descriptor").then_some(()));
        tokio::join!(come, told);
        let share = (siege.processor_time() - used).as_secs_f64() / began.elapsed().as_secs_f64();
        assert!(share < 0.8, "it spins: {share:.2} of a core");
    };
    siege.under("descriptors exhausted", 8, attack).await;
    let refused = siege.server.metric("hearth_handshake_failures_total", "reason=\"accept\"").await;
    assert!(refused > 0, "the descriptors were never exhausted");
    assert!(siege.server.log().matches("cannot accept").count() < 20, "it is said, not sung");
    until("the probe to find all well", async || (reasons().await == "[]").then_some(())).await;
    siege.server.login("bea").await.pings().await;
}
