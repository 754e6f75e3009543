//! How one node opens a connection to another's peer port: an HTTP upgrade with a pass. What is said on it afterwards
//! is the caller's: a relayed client, or a peer link. Called by `gate` and by `links`; the other side is `gate`.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use super::Member;
use super::pass::ClusterKey;
use crate::clock;
use crate::ids::Owner;

/// Where a relayed client comes in.
pub const RELAY_PATH: &str = "/v1/relay";
/// Where a node comes in.
pub const PEER_PATH: &str = "/v1/peer";
/// Names the node that asks, by node and boot.
pub const HEADER_NODE: &str = "hearth-node";
/// Names the shard that a relayed client is meant for.
pub const HEADER_SHARD: &str = "hearth-shard";
/// The address of a relayed client.
pub const HEADER_CLIENT: &str = "hearth-client";
/// The pass.
pub const HEADER_PASS: &str = "hearth-pass";

/// How long the other side may take to answer.
const OPENING: Duration = Duration::from_secs(2);
/// The answer fits it.
const ANSWER_BYTES_MAX: usize = 2 * 1024;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// [`RELAY_PATH`] or [`PEER_PATH`].
    pub path: &'a str,
    /// The subprotocol that is spoken.
    pub subprotocol: &'a str,
    /// The shard of a relayed client.
    pub shard: &'a str,
    /// Her address.
    pub client: &'a str,
}

impl<'a> Asked<'a> {
    /// What the pass says: who asks whom, for what.
    #[must_use]
    pub const fn words(&self, from: &'a str, to: &'a str) -> [&'a str; 5] {
        [from, to, self.path, self.shard, self.client]
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NoWay {
    /// It is not that shard's home, or not any more.
    #[error("it is not the home of this shard")]
    NotHome,
    /// It listens to no other node.
    #[error("it says no address for other nodes (setting peer_addr)")]
    NoAddress,
    /// It does not let us in.
    #[error("it does not let this node in: it answers {0}")]
    Refused(u16),
    /// It cannot be reached.
    #[error("it cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
}

/// Opens a connection on which nothing was said yet.
///
/// # Errors
/// [`NoWay`], after two seconds at the latest.
pub async fn dial(key: &ClusterKey, me: &Owner, to: &Member, asked: Asked<'_>) -> Result<TcpStream, NoWay> {
    let peer = to.says.peer.as_deref().ok_or(NoWay::NoAddress)?;
    let opening = async {
        let mut stream = TcpStream::connect(peer).await?;
        stream.set_nodelay(true)?;
        stream.write_all(request(key, me, to, peer, asked).as_bytes()).await?;
        match answer(&mut stream).await? {
            101 => Ok(stream),
            421 => Err(NoWay::NotHome),
            other => Err(NoWay::Refused(other)),
        }
    };
    let late = || NoWay::Unreachable(io::ErrorKind::TimedOut.into());
    tokio::time::timeout(OPENING, opening).await.unwrap_or_else(|_| Err(late()))
}

fn request(key: &ClusterKey, me: &Owner, to: &Member, peer: &str, asked: Asked<'_>) -> String {
    let Asked { path, subprotocol, shard, client } = asked;
    let pass = key.sign(&asked.words(me.as_str(), to.owner.as_str()), clock::now().unix_ms);
    let websocket_key = generate_key();
    format!(
        "GET {path} HTTP/1.1\r\nHost: {peer}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {websocket_key}\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n{HEADER_NODE}: {me}\r\n{HEADER_SHARD}: {shard}\r\n\
         {HEADER_CLIENT}: {client}\r\n{HEADER_PASS}: {pass}\r\n\r\n"
    )
}

/// The status of the answer; reads not a byte behind it.
async fn answer(stream: &mut TcpStream) -> io::Result<u16> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(stream.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
