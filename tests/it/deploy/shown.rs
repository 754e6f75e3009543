//! What a server shows on `/metrics` is what the table says, and all that an operator is told to look at is there.

use std::collections::{BTreeMap, BTreeSet};

use hearth::telemetry::metrics::{self, Kind};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::expressions::{admits, row_of};
use crate::harness::doors::Way;
use crate::harness::patience::until;
use crate::harness::server::Server;
use crate::harness::stages::Stage;

/// A line of a scrape: name, labels and value.
type Series = (String, Vec<(String, String)>, f64);

/// The lines of a page, each as series, labels and value.
fn series(page: &str) -> Vec<Series> {
    let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let read = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let mut pieces = labels.trim_end_matches('}').split('"');
        let mut read = Vec::new();
        while let (Some(label), Some(value)) = (pieces.next(), pieces.next()) {
            read.push((label.trim_matches([',', '=']).to_owned(), value.to_owned()));
        }
        (name.to_owned(), read, value.parse().unwrap())
    };
    lines.map(read).collect()
}

/// Holds a page to the table.
fn is_as_declared(page: &str) {
    let mut values: BTreeMap<(&str, String), BTreeSet<String>> = BTreeMap::new();
    for (name, labels, _) in series(page) {
        let (row, is_bucket) = row_of(&name).unwrap_or_else(|| panic!("{name} is not in the table"));
        let own: Vec<_> = labels.into_iter().filter(|(label, _)| !(is_bucket && label == "le")).collect();
        let named: BTreeSet<&str> = own.iter().map(|(label, _)| label.as_str()).collect();
        let declared: BTreeSet<&str> = row.labels.iter().map(|(label, _)| *label).collect();
        assert_eq!(named, declared, "{name}");
        for (label, value) in own {
            assert!(admits(row, &label, &value), "{name}: {label} is {value}");
            values.entry((row.name, label)).or_default().insert(value);
        }
    }
    for ((name, label), values) in values {
        let row = metrics::row(name).unwrap();
        let (_, declared) = row.labels.iter().find(|(known, _)| *known == label).unwrap();
        assert!(
            values.len() <= declared.most() + 1,
            "{name}: {label} has {} values: {values:?}",
            values.len()
        );
    }
}

async fn page(url: &str) -> String {
    reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn nodes_show_what_the_table_says_and_nothing_that_clients_make_up() {
    let server = Server::on(Stage::WrongNode(Way::Redirected))
        .with("limits.state_per_s", 1)
        .with("limits.state_burst", 5)
        .start();
    let mut players = Vec::new();
    for n in 0..6 {
        players.push(server.login(&format!("p{n}")).await);
    }
    let names: Vec<String> = (0..6).map(|n| format!("p{n}")).collect();
    for player in &mut players {
        player.does("watch", json!({"players": names})).await;
        player.does("room.join", json!({"room": "lobby"})).await;
        player.patch_durably(json!({"set": {"zone": "docks"}, "cseq": 1})).await;
        player.shows("playing").await;
        // What makes no sense, and what is too fast.
        let _ = player.ask("no.such.op", json!({})).await;
        for _ in 0..10 {
            let _ = player.ask("state.patch", json!({"incr": {"n": 1}})).await;
        }
    }
    for n in 0..5 {
        // Who makes up tokens, paths and protocols.
        let mut stranger = server.connect().await;
        let answer = stranger.ask_or_end("login", json!({"token": format!("made-up-{n}")})).await;
        assert!(!matches!(answer, Ok(Ok(_))), "let in");
        reqwest::get(format!("{}/v1/made/up/{n}", server.service_url())).await.unwrap();
        let mut garbled = tokio::net::TcpStream::connect(server.host()).await.unwrap();
        garbled.write_all(format!("MADE up-{n}\r\n\r\n").as_bytes()).await.unwrap();
    }
    // Sessions are counted every ten seconds, letters answered within one.
    for (name, at_least) in [
        ("hearth_sessions", 6),
        ("process_resident_memory_bytes", 1),
        ("process_open_fds", 6),
        ("process_max_fds", 1),
        ("process_start_time_seconds", 1_000_000_000),
        ("hearth_flush_wait_seconds_count", 1),
        ("hearth_fanout_seconds_count", 1),
        ("hearth_fanout_receivers_count", 1),
        ("hearth_peer_mail_seconds_count", 1),
        ("hearth_handshake_failures_total", 5),
    ] {
        server.until_metric(name, "", at_least).await;
    }
    server.until_metric("hearth_rate_limited_total", "kind=\"state\"", 1).await;
    server.until_metric("hearth_fanout_seconds_count", "of=\"room\"", 1).await;
    server.until_metric("hearth_sessions", "state=\"attached\"", 6).await;
    for url in server.service_urls() {
        let page = page(url).await;
        is_as_declared(&page);
        let shown: BTreeSet<String> = series(&page).into_iter().map(|(name, ..)| name).collect();
        for row in metrics::table() {
            // A series with labels is there from its first use on; so is TLS' certificate.
            let is_there =
                shown.iter().any(|name| name == row.name || name == &format!("{}_count", row.name));
            let may_lack = !row.labels.is_empty() || row.name.starts_with("hearth_tls");
            assert!(is_there || may_lack || row.kind == Kind::Histogram, "{} is never set", row.name);
        }
    }
}

#[tokio::test]
async fn sessions_are_told_by_their_state() {
    let server = Server::on(Stage::Embedded).start();
    let (ann, _bea) = (server.login("ann").await, server.login("bea").await);
    server.until_metric("hearth_sessions", "state=\"attached\"", 2).await;
    let _ = ann.drops();
    server.until_metric("hearth_sessions", "state=\"detached\"", 1).await;
    until("one to be attached", async || {
        (server.metric("hearth_sessions", "state=\"attached\"").await == 1).then_some(())
    })
    .await;
}
