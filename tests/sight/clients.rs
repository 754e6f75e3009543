//! Faults of those who connect: too many logins, no good manners, and sessions that nobody ends.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::socket::{Encoding, Heard, Line, Socket};
use crate::harness::stages::Stage;
use crate::stage::{KEY, ends, is_calm, rings, watched};

/// The alarm says who it was, to whoever looks and in the log.
fn is_named(server: &Server, alarm: &Value, address: &str) {
    let named = |told: &str| told.contains(address);
    assert!(alarm["text"].as_str().is_some_and(named), "{alarm}");
    let log = server.log();
    assert!(log.lines().any(|line| line.contains("an alarm begins") && named(line)), "{log}");
}

#[tokio::test]
async fn a_flood_of_logins() {
    let server = watched(Server::on(Stage::Embedded))
        .with("limits.exempt_loopback", false)
        .with("limits.connects_per_s", 10_000)
        .with("limits.connects_burst", 10_000)
        .with("limits.logins_per_s", 1)
        .with("limits.logins_burst", 2)
        .start();
    is_calm(&server, "login_flood").await;
    let mut number = 0;
    let alarm = rings(&server, "login_flood", async || {
        number += 1;
        let mut socket = Socket::open(server.url(), Encoding::Json).await;
        socket.send("login", 1, &json!({"token": format!("dev:flood-{number}")})).await;
        socket.hear().await;
    })
    .await;
    is_named(&server, &alarm, "127.0.0.1: 100 % of them");
    ends(&server, "login_flood").await;
}

#[tokio::test]
async fn clients_without_manners() {
    let server = watched(Server::on(Stage::Embedded)).start();
    is_calm(&server, "bad_client").await;
    let from = async |last| {
        Socket::open_over(Line::From([127, 0, 0, last].into()), server.url(), Encoding::Json).await
    };
    let alarm = rings(&server, "bad_client", async || {
        // One who speaks something else, one whose token is no good, and one who forgets her manners once she is in.
        let mut stream = TcpStream::connect(server.host()).await.unwrap();
        stream.write_all(b"HELO there\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
        for (last, token) in [(2, "no token"), (3, "dev:ann")] {
            let mut socket = from(last).await;
            socket.send("login", 1, &json!({"token": token})).await;
            socket.hear().await;
            if last == 3 {
                // No client's frame is without a mask.
                socket.send_bytes(&[0x81, 1, b'x']).await;
            }
            while !matches!(socket.hear().await, Heard::Closed(_)) {}
        }
    })
    .await;
    for address in ["127.0.0.1: ", "127.0.0.2: ", "127.0.0.3: "] {
        is_named(&server, &alarm, address);
    }
    ends(&server, "bad_client").await;
}

#[tokio::test]
async fn sessions_that_nobody_ends() {
    let server = watched(Server::on(Stage::Embedded)).with("session.login_policy", "many(16)").start();
    let game = Service::of(&server, KEY);
    is_calm(&server, "session_leak").await;
    let mut made = 0;
    rings(&server, "session_leak", async || {
        // Sixteen of each player, one after the other: fifteen too many.
        let player = format!("forgotten-{}", made / 16);
        made += 1;
        let (status, told) = game.post("/v1/sessions", json!({"player": player})).await;
        assert_eq!(status, 201, "{told}");
    })
    .await;
    ends(&server, "session_leak").await;
}
