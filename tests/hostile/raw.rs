//! A client without manners: bytes over TCP, frames of any shape, and how the server ended it. Knows RFC 6455's frames
//! and nothing else.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::harness::patience::PATIENCE;
use crate::harness::server::Server;

pub(crate) const FIN: u8 = 0x80;
pub(crate) const CONTINUE: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The lines of an upgrade that is good, without the empty one.
pub(crate) const UPGRADE: &str = "GET /v1/connect HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                                  Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                                  Sec-WebSocket-Protocol: hearth.v1.json\r\n";

/// A frame as a client writes it: masked, with a mask of zeros.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// A text message.
pub(crate) fn text(message: &str) -> Vec<u8> {
    frame(FIN | TEXT, message.as_bytes())
}

/// How the server ended a link: what `bye` said, and the close frame.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) bye: Option<u16>,
    pub(crate) close: Option<u16>,
}

/// A connection.
pub(crate) struct Raw {
    tcp: TcpStream,
    heard: Vec<u8>,
}

impl Raw {
    /// Connects and says nothing.
    pub(crate) async fn connect(server: &Server) -> Self {
        Self { tcp: TcpStream::connect(server.host()).await.unwrap(), heard: Vec::new() }
    }

    /// The same with the smallest window that the system gives.
    pub(crate) async fn connect_narrow(server: &Server) -> Self {
        let address: SocketAddr = server.host().parse().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(1).unwrap();
        Self { tcp: socket.connect(address).await.unwrap(), heard: Vec::new() }
    }

    /// A JSON link without a session.
    pub(crate) async fn open(server: &Server) -> Self {
        Self::connect(server).await.upgraded().await
    }

    /// A JSON link with a session.
    pub(crate) async fn enter(server: &Server, player: &str) -> Self {
        let mut raw = Self::open(server).await;
        raw.logs_in(player).await;
        raw
    }

    pub(crate) async fn upgraded(mut self) -> Self {
        self.say(format!("{UPGRADE}\r\n").as_bytes()).await;
        let (status, answer) = self.answer().await;
        assert_eq!(status, 101, "{answer}");
        self
    }

    pub(crate) async fn logs_in(&mut self, player: &str) {
        self.say(&text(&format!(r#"["login", 1, {{"token": "dev:{player}"}}]"#))).await;
        let ready = self.message().await.expect("ready");
        assert_eq!(ready[0], "ready", "{ready}");
    }

    /// Sends bytes; whether the server still took them.
    pub(crate) async fn say(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(PATIENCE, self.tcp.write_all(bytes)).await.expect("a server that reads"), Ok(()))
    }

    /// Sends bytes to a server that may stop reading; whether all were taken within the time.
    pub(crate) async fn say_within(&mut self, deadline: Duration, bytes: &[u8]) -> bool {
        matches!(timeout(deadline, self.tcp.write_all(bytes)).await, Ok(Ok(())))
    }

    /// More bytes, or none at the end.
    async fn hear(&mut self) -> usize {
        let read = timeout(PATIENCE, self.tcp.read_buf(&mut self.heard)).await;
        read.expect("an answer or an end").unwrap_or(0)
    }

    /// An HTTP answer: its status, and all of its text. A refusal is read to its end, which must come.
    pub(crate) async fn answer(&mut self) -> (u16, String) {
        let end = loop {
            if let Some(end) = self.heard.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if self.hear().await == 0 {
                panic!("no whole answer: {:?}", String::from_utf8_lossy(&self.heard));
            }
        };
        let head = String::from_utf8_lossy(&self.heard[..end]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        if status == 101 {
            self.heard.drain(..end);
            return (status, head);
        }
        while self.hear().await > 0 {}
        (status, String::from_utf8_lossy(&self.heard).into_owned())
    }

    /// Whether an answer has begun to come by now.
    pub(crate) async fn is_answered(&mut self) -> bool {
        let read = timeout(Duration::from_millis(1), self.tcp.read_buf(&mut self.heard)).await;
        !self.heard.is_empty() || matches!(read, Ok(Ok(0) | Err(_)))
    }

    /// Whatever comes until the end.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.hear().await > 0 {}
        std::mem::take(&mut self.heard)
    }

    /// The next frame of the server: its opcode and payload; none at the end.
    pub(crate) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((opcode, from, to)) = whole_frame(&self.heard) {
                let payload = self.heard[from..to].to_vec();
                self.heard.drain(..to);
                return Some((opcode, payload));
            }
            if self.hear().await == 0 {
                return None;
            }
        }
    }

    /// The next JSON message; none at the end.
    pub(crate) async fn message(&mut self) -> Option<Value> {
        loop {
            match self.frame().await? {
                (TEXT, payload) => return Some(serde_json::from_slice(&payload).unwrap()),
                (CLOSE, _) => return None,
                _ => {}
            }
        }
    }

    /// How the server ends it; it must.
    pub(crate) async fn end(mut self) -> End {
        let mut end = End::default();
        while let Some((opcode, payload)) = self.frame().await {
            match opcode {
                TEXT => {
                    let message: Value = serde_json::from_slice(&payload).unwrap();
                    if message[0] == "bye" {
                        end.bye = message[2]["code"].as_u64().map(|code| code as u16);
                    }
                }
                CLOSE => {
                    end.close = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    // A client that hears a close frame closes.
                    return end;
                }
                _ => {}
            }
        }
        end
    }

    /// It must end with this code, said in `bye` and in the close frame.
    pub(crate) async fn ends_with(self, code: u16, after: &str) {
        let end = self.end().await;
        assert_eq!(end, End { bye: Some(code), close: Some(code) }, "{after}");
    }
}

/// Opcode, and where the payload of the first frame lies, once it is whole.
fn whole_frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert_eq!(second & 0x80, 0, "a server does not mask");
    let (len, from) = match second {
        126 => (usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize, 10),
        short => (usize::from(short), 2),
    };
    (bytes.len() >= from + len).then_some((first & 0x0f, from, from + len))
}
