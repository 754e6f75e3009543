//! The way to a server through a proxy on the loopback address that takes its time: each direction keeps its order, and
//! what is sent meanwhile does not wait longer for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Pieces that are on their way in one direction of a link.
const UNDER_WAY_MAX: usize = 1_024;

/// The proxy; its links end with it.
pub(crate) struct SlowRoad {
    address: SocketAddr,
    /// From the client to the server; the way back takes none.
    delay_ms: Arc<AtomicU64>,
    _accepting: JoinSet<()>,
}

impl SlowRoad {
    /// A way to this server that takes no time yet.
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (delay_ms, mut accepting) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        let delays = Arc::clone(&delay_ms);
        accepting.spawn(async move {
            let mut links = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                links.spawn(link(client, server, Arc::clone(&delays)));
            }
        });
        Self { address, delay_ms, _accepting: accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it takes so long.
    pub(crate) fn takes(&self, delay: Duration) {
        self.delay_ms.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

async fn link(client: TcpStream, server: SocketAddr, delay_ms: Arc<AtomicU64>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let none = AtomicU64::new(0);
    tokio::select! {
        () = carry(from_client, to_server, &delay_ms) => {}
        () = carry(from_server, to_client, &none) => {}
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay_ms: &AtomicU64) {
    let (pieces, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY_MAX);
    let read = async move {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            let at = Instant::now() + Duration::from_millis(delay_ms.load(Ordering::Relaxed));
            if pieces.send((at, bytes[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((at, piece)) = due.recv().await {
            sleep_until(at).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}
