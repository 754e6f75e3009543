//! Many at once, each doing what is allowed: logins in turns, presence that flaps, addresses without number.

use std::cell::Cell;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use hearth::clock::Now;
use hearth::config::Settings;
use hearth::limits::AddressLimits;
use serde_json::json;

use crate::harness::player::Player;
use crate::harness::server::Server;
use crate::harness::socket::Encoding;
use crate::harness::stages::Stage;
use crate::raw::Raw;
use crate::siege::Siege;

#[tokio::test(flavor = "multi_thread")]
async fn logins_in_turns_end_one_another_and_leave_one_session() {
    let siege = Siege::lay(&[]).await;
    let attack = async || {
        let pairs = (0..4).map(async |n| {
            let name = format!("mallory-{n}");
            let mut older = siege.server.login(&name).await;
            for _ in 0..5 {
                let newer = siege.server.login(&name).await;
                older.expect_close(4504).await;
                older = newer;
            }
        });
        futures_util::future::join_all(pairs).await;
    };
    siege.under("login ping-pong", 8, attack).await;
    let sessions = siege.server.metric("hearth_sessions", "").await;
    assert!(sessions <= 8 + 4, "{sessions} sessions of 8 others and 4 who fight");
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_that_flaps_is_gathered_for_those_who_watch() {
    let tick = Duration::from_millis(200);
    let siege = Siege::lay(&[("presence.tick_ms", "200")]).await;
    let names: Vec<String> = (0..10).map(|n| format!("mallory-{n}")).collect();
    let mut watchers = Vec::new();
    for n in 0..5 {
        let mut watcher = siege.server.login(&format!("watcher-{n}")).await;
        watcher.does("watch", json!({"players": names})).await;
        watchers.push(watcher);
    }
    let watchers = tokio::sync::Mutex::new(watchers);
    let told = Cell::new(0);
    let attack = async || {
        let began = Instant::now();
        let flapping =
            names.iter().map(async |name| flaps(siege.server.login(name).await, &siege.server).await);
        let outcomes = futures_util::future::join_all(flapping).await;
        let (taken, refused): (Vec<usize>, Vec<usize>) = outcomes.into_iter().unzip();
        assert!(refused.iter().all(|refused| *refused > 0), "some flap as fast as they like: {refused:?}");
        let taken: usize = taken.iter().sum();
        for watcher in watchers.lock().await.iter_mut() {
            watcher.pings().await;
            // Each is told of once a tick, however often she changed; and once more for what an earlier attack left.
            let ticks = usize::try_from(began.elapsed().as_millis() / tick.as_millis()).unwrap() + 2;
            let mut items = 0;
            while watcher.was_told("presence") {
                items += watcher.wait_for_push("presence").await["items"].as_array().unwrap().len();
            }
            assert!(items <= names.len() * ticks, "{items} items of {taken} changes in {ticks} ticks");
            told.set(told.get() + items);
        }
    };
    siege.under("presence flapping", 8, attack).await;
    assert!(told.get() > 0, "nobody was told anything");
}

/// Sets a presence as fast as answers come, and drops the link now and then; how many were taken and refused.
async fn flaps(mut mallory: Player, server: &Server) -> (usize, usize) {
    let (mut taken, mut refused) = (0, 0);
    for n in 0..40 {
        let status = ["busy", "online", "invisible", "away"][n % 4];
        match mallory.ask("presence.set", json!({"status": status})).await {
            Ok(_) => taken += 1,
            Err(error) => {
                assert_eq!(error["code"], "rate_limited", "{error}");
                refused += 1;
            }
        }
        if n % 10 == 9 {
            mallory = server.resume(&mallory.drops()).await;
        }
    }
    (taken, refused)
}

/// The /64 with this number.
fn network(n: u64) -> IpAddr {
    Ipv6Addr::from(u128::from(0x2001_0db8_0000_0000 + n) << 64 | 1).into()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    memory.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_million_ipv6_addresses_fill_no_more_than_their_map() {
    let settings = Settings::from_toml("[limits]\nconnects_burst = 5\nconnects_per_s = 1").unwrap();
    let limits = AddressLimits::from_settings(&settings.limits);
    let at = |mono_ms| Now { mono_ms, unix_ms: 0 };
    let passed = |from: u64, per_ms: u64, of: &dyn Fn(u64) -> IpAddr| {
        (0..1_000_000).filter(|n| limits.connect(of(*n), at(from + n / per_ms)).is_ok()).count()
    };
    // A million addresses of one customer are one.
    let one = |n: u64| Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(n)).into();
    assert_eq!(passed(0, 1_000_000, &one), 5);
    // A million networks within a second: those that came first are known, all others share one limit.
    let before_kib = resident_kib();
    let many = passed(10_000, 1_000, &network);
    let grown_mib = resident_kib().saturating_sub(before_kib) / 1024;
    println!("a million networks: {many} passed, {grown_mib} MiB");
    assert!(many >= 100_000, "{many}: the first hundred thousand are welcome");
    // Known ones, the strangers' burst, and what quiet ones made room for in each second since.
    assert!(many <= 220_000, "{many} passed");
    assert!(grown_mib <= 32, "{grown_mib} MiB");
    // A minute later all are forgotten, and whoever comes is welcome.
    limits.forget_quiet(at(100_000));
    assert!(limits.connect(network(7), at(100_001)).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn over_ipv6_the_limit_is_by_network_and_those_within_it_stay() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        println!("this machine has no IPv6: what is left is the test above");
        return;
    }
    let starting = Server::on(Stage::Embedded)
        .with("client_addr", "[::1]:0")
        .with("limits.exempt_loopback", false)
        .with("limits.connects_burst", 20)
        .with("limits.connects_per_s", 1);
    let siege = Siege::on(starting).await;
    let attack = async || {
        for _ in 0..50 {
            // Closed at once: an upgrade is not looked at.
            let mut raw = Raw::connect(&siege.server).await;
            raw.say(b"GET /v1/connect HTTP/1.1\r\n").await;
            drop(raw);
        }
    };
    siege.under("connects over an address's limit, IPv6", 8, attack).await;
    let refused = siege.server.metric("hearth_handshake_failures_total", "reason=\"connect_rate\"").await;
    assert!(refused >= 50, "{refused} connections were refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_over_an_address_limit_are_refused_before_their_token_is_read() {
    let settings =
        [("limits.exempt_loopback", "false"), ("limits.logins_burst", "20"), ("limits.logins_per_s", "1")];
    let connects = [("limits.connects_burst", "100000"), ("limits.connects_per_s", "100000")];
    let siege = Siege::lay(&[&settings[..], &connects].concat()).await;
    let attack = async || {
        for _ in 0..20 {
            let mut mallory = Player::connect(siege.server.url(), Encoding::Json).await;
            let refused = mallory.ask("login", json!({"token": "not a token"})).await.unwrap_err();
            match refused["code"].as_str() {
                Some("rate_limited") => {
                    assert!(refused["retry_after_ms"].as_u64().is_some(), "{refused}");
                    mallory.expect_close(4000).await;
                }
                Some("unauthorized") => drop(mallory.expect_close(4500).await),
                _ => panic!("{refused}"),
            }
        }
    };
    siege.under("logins over an address's limit", 8, attack).await;
    let refused = siege.server.metric("hearth_logins_total", "outcome=\"rate_limited\"").await;
    assert!(refused > 0, "the limit was never reached");
}
