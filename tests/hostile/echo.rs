//! Sends every message back, over the socket code of the server's own client port: its request reader, its WebSocket
//! settings, its watch over fragments, its way to part. For `tests/hostile/autobahn` alone; never part of a server.
//!
//! What is wider here is the bounds: the suite sends messages of 16 MiB, and 4 MiB in pieces of 64 bytes.
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a tool for one test")]

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hearth::gate::listener::bind;
use hearth::gate::upgrade::{Taken, Upgrade, upgrade};
use hearth::session::{MessageBounds, closing_for, part};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

const BOUNDS: Upgrade = Upgrade {
    timeout: Duration::from_secs(5),
    head_bytes_max: 8_192,
    frame_bytes_max: 32 * 1024 * 1024,
    message: MessageBounds { fragments_max: 1_000_000, timeout: Duration::from_secs(120) },
};

#[tokio::main]
async fn main() {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    let listener = bind(([127, 0, 0, 1], port).into(), 128).expect("a free port");
    println!("ws://{}", listener.local_addr().expect("an address"));
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(serve(stream));
    }
}

async fn serve(stream: TcpStream) {
    let time_is_up = tokio::time::sleep(BOUNDS.timeout);
    let upgraded = upgrade(stream, &BOUNDS, time_is_up, |_| Ok(Taken { subprotocol: None, known: () })).await;
    let Ok((mut ws, ())) = upgraded else { return };
    while let Some(heard) = ws.next().await {
        let done = match heard {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => ws.send(message).await,
            Ok(_) => ws.flush().await,
            Err(error) => {
                if let Some(closing) = closing_for(&error) {
                    part(&mut ws, std::iter::empty(), closing.code, &closing.reason).await;
                }
                return;
            }
        };
        if done.is_err() {
            return;
        }
    }
}
