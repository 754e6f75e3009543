//! A client on the wrong node whom `redirect` cannot help: her link is carried to the home, byte for byte. This side
//! opens a connection to the home's peer port, says her first frame again, and from then on copies what comes, in
//! both directions, without reading it. Called by `handshake`; the other side is `peers`.

use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

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
use crate::session::{ClientSocket, GOODBYE, LinkSocket, Scan, linger};
use crate::tasks::Tasks;
use crate::telemetry::metrics;

/// Read at a time and direction; held by every relayed link.
const PIECE_BYTES: usize = 2 * 1024;
/// Whoever takes nothing for this long is given up: the home gives up slow readers earlier, by what waits for them.
const WRITE_MAX: Duration = Duration::from_secs(20);
/// A home that says nothing for this long is gone: it answers pings, and closes links that send none.
const SILENCE_MAX: Duration = Duration::from_secs(180);

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
    /// Copies until one side is done, or the house stops. Nobody is left behind in silence: where the home has not said
    /// why, the client is told to come back, if that fits between two frames.
    pub(super) async fn run(self, place: OwnedSemaphorePermit) {
        let Self { client, home, encoding, tasks } = self;
        let _counted = Counted::one();
        let ((mut from_client, mut to_client), (from_home, to_home)) =
            (tokio::io::split(client), tokio::io::split(home));
        let mut told = Told::default();
        {
            let mut up = pin!(up(&mut from_client, to_home));
            let mut down = pin!(down(from_home, &mut to_client, &mut told));
            tokio::select! {
                () = &mut down => {}
                // Whoever has said her last is still answered.
                () = &mut up => drop(tokio::time::timeout(GOODBYE, &mut down).await),
                () = tasks.stopping() => {}
            }
        }
        let mut client = from_client.unsplit(to_client);
        let parting = async {
            if told.may_add() {
                metrics::CLOSES.with(&[("code", "4000")]).increment(1);
                client.write_all(&going_away(encoding)).await?;
            }
            linger(&mut client).await;
            Ok::<(), std::io::Error>(())
        };
        let _ = tokio::time::timeout(GOODBYE, parting).await;
        drop(place);
    }
}

/// One more relayed link, as long as it is open.
struct Counted(::metrics::Gauge);

impl Counted {
    fn one() -> Self {
        let open = metrics::RELAYED_OPEN.handle();
        open.increment(1.0);
        Self(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// What the client has got of the home's frames.
#[derive(Default)]
struct Told {
    scan: Scan,
    /// A write was begun and not ended.
    is_cut: bool,
}

impl Told {
    /// Whether another frame fits behind what she has got, and says something new.
    const fn may_add(&self) -> bool {
        !self.is_cut && !self.scan.is_amid() && !self.scan.has_closed()
    }
}

/// From the client, until she is done; then the home hears so.
async fn up<R: AsyncRead>(from: &mut ReadHalf<R>, mut to: WriteHalf<TcpStream>) {
    let mut piece = [0; PIECE_BYTES];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        let writing = to.write_all(piece.get(..read).unwrap_or_default());
        if !matches!(tokio::time::timeout(WRITE_MAX, writing).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// From the home, counting frames; until it is done, says nothing for too long, or the client does not read.
async fn down<S: AsyncWrite>(mut from: ReadHalf<TcpStream>, to: &mut WriteHalf<S>, told: &mut Told) {
    let mut piece = [0; PIECE_BYTES];
    while let Ok(Ok(read @ 1..)) = tokio::time::timeout(SILENCE_MAX, from.read(&mut piece)).await {
        let read = piece.get(..read).unwrap_or_default();
        told.scan.take(read);
        told.is_cut = true;
        if !matches!(tokio::time::timeout(WRITE_MAX, to.write_all(read)).await, Ok(Ok(()))) {
            return;
        }
        told.is_cut = false;
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
