//! Faults of those who connect: too many logins, no good manners, and sessions that nobody ends.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::socket::{Encoding, Socket};
use crate::harness::stages::Stage;
use crate::stage::{KEY, ends, is_calm, rings, watched};

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
    rings(&server, "login_flood", async || {
        number += 1;
        let mut socket = Socket::open(server.url(), Encoding::Json).await;
        socket.send("login", 1, &json!({"token": format!("dev:flood-{number}")})).await;
        socket.hear().await;
    })
    .await;
    ends(&server, "login_flood").await;
}

#[tokio::test]
async fn clients_without_manners() {
    let server = watched(Server::on(Stage::Embedded)).start();
    is_calm(&server, "bad_client").await;
    rings(&server, "bad_client", async || {
        let mut stream = TcpStream::connect(server.host()).await.unwrap();
        stream.write_all(b"HELO there\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
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
