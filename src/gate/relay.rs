//! A client on the wrong node whom `redirect` cannot help: her link is carried to the home, byte for byte. This side
//! opens a connection to the home's peer port, says her first frame again, and from then on copies what comes, in
//! both directions, without reading it. Called by `handshake`; the other side is `peers`.

use std::net::IpAddr;

use protocol::request::Op;
use protocol::{CloseCode, Encoding};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::tungstenite::Message;

use super::peers::Peers;
use crate::cluster::Member;
use crate::cluster::dial::{Asked, NoWay, RELAY_PATH, dial};
use crate::ids::ShardId;
use crate::session::{ClientSocket, GOODBYE, LinkSocket, Scan};
use crate::tasks::Tasks;

/// Read at a time and direction; held by every relayed link.
const PIECE_BYTES: usize = 2 * 1024;

/// A connection to the home, on which nothing was said yet.
pub(super) struct Way {
    home: TcpStream,
}

impl Way {
    /// Opens one, for a client who speaks `encoding` from `client`.
    pub(super) async fn open(
        peers: &Peers,
        to: &Member,
        shard: ShardId,
        encoding: Encoding,
        client: IpAddr,
    ) -> Result<Self, NoWay> {
        let (shard, client) = (shard.number().to_string(), client.to_string());
        let subprotocol = encoding.subprotocol();
        let asked = Asked { path: RELAY_PATH, subprotocol, shard: &shard, client: &client };
        Ok(Self { home: dial(&peers.key, &peers.me, to, asked).await? })
    }

    /// Takes the client over; `first` is what she said. `None` if her socket is in the middle of a frame.
    pub(super) async fn take<S: LinkSocket>(
        self,
        ws: ClientSocket<S>,
        first: &Message,
        encoding: Encoding,
        tasks: Tasks,
    ) -> Option<Relay<S>> {
        let Self { mut home } = self;
        let (client, early) = ws.into_inner().into_inner()?.into_parts()?;
        home.write_all(&masked(first)).await.ok()?;
        home.write_all(&early).await.ok()?;
        Some(Relay { client, home, encoding, tasks })
    }
}

/// A client's data frame as it came: RFC 6455, section 5.
fn masked(message: &Message) -> Vec<u8> {
    let (opcode, payload): (u8, &[u8]) = match message {
        Message::Text(text) => (1, text.as_bytes()),
        Message::Binary(bytes) => (2, bytes),
        _ => (2, &[]),
    };
    let mut frame = head(opcode, payload.len(), 0x80);
    let mask: [u8; 4] = rand::random();
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn head(opcode: u8, length: usize, mask: u8) -> Vec<u8> {
    let mut head = vec![0x80 | opcode];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => head.push(mask | short),
        (_, Ok(length)) => {
            head.push(mask | 126);
            head.extend(length.to_be_bytes());
        }
        _ => {
            head.push(mask | 127);
            head.extend((length as u64).to_be_bytes());
        }
    }
    head
}

/// A client carried to her home.
pub(super) struct Relay<S> {
    client: S,
    home: TcpStream,
    encoding: Encoding,
    tasks: Tasks,
}

impl<S: LinkSocket> Relay<S> {
    /// Copies until one side is done, or the house stops: then the client is told so between two frames, if the home is
    /// not in the middle of one.
    pub(super) async fn run(self, place: OwnedSemaphorePermit) {
        let Self { client, home, encoding, tasks } = self;
        let ((from_client, mut to_client), (from_home, to_home)) =
            (tokio::io::split(client), tokio::io::split(home));
        let mut scan = Scan::default();
        tokio::select! {
            () = copy(from_client, to_home) => {}
            () = down(from_home, &mut to_client, &mut scan) => {}
            () = tasks.stopping() => {}
        }
        // Nobody is left behind in silence: what ends here, ends with a reason wherever one can be said.
        if !scan.is_amid() && !scan.has_closed() {
            let _ = tokio::time::timeout(GOODBYE, to_client.write_all(&going_away(encoding))).await;
        }
        let _ = tokio::time::timeout(GOODBYE, to_client.shutdown()).await;
        drop(place);
    }
}

async fn copy<R: AsyncRead, W: AsyncWrite>(mut from: ReadHalf<R>, mut to: WriteHalf<W>) {
    let mut piece = [0; PIECE_BYTES];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        if to.write_all(piece.get(..read).unwrap_or_default()).await.is_err() {
            return;
        }
    }
}

/// The same towards the client, counting frames.
async fn down<S: AsyncWrite>(mut from: ReadHalf<TcpStream>, to: &mut WriteHalf<S>, scan: &mut Scan) {
    let mut piece = [0; PIECE_BYTES];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        let read = piece.get(..read).unwrap_or_default();
        scan.take(read);
        if to.write_all(read).await.is_err() {
            return;
        }
    }
}

/// `bye` and a close with 4000, as two frames.
fn going_away(encoding: Encoding) -> Vec<u8> {
    const REASON: &str = "the way to the home is gone";
    let code = CloseCode::GoingAway;
    let bye = protocol::push::Bye {
        code: code.number(),
        reason: REASON.into(),
        resume: true,
        ..protocol::push::Bye::default()
    };
    let mut body = Vec::new();
    protocol::encode(encoding, &mut body, Op::Bye, 0, &bye);
    let opcode = match encoding {
        Encoding::Json => 1,
        Encoding::MessagePack => 2,
    };
    let mut frames = head(opcode, body.len(), 0);
    frames.extend(body);
    frames.extend(head(8, 2 + REASON.len(), 0));
    frames.extend(code.number().to_be_bytes());
    frames.extend(REASON.as_bytes());
    frames
}
