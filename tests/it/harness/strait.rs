//! A narrow way to a server: a TCP relay in front of one Redis for one node, which can be closed without a word, both ends
//! taking the other for alive, and opened again.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The relay; all that goes through it ends with it.
pub(crate) struct Strait {
    port: u16,
    closed: Arc<watch::Sender<bool>>,
    _accepting: JoinSet<()>,
}

impl Strait {
    /// To this server of the loopback address.
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let closed = Arc::new(watch::Sender::new(false));
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, server, Arc::clone(&closed)));
        Self { port, closed, _accepting: accepting }
    }

    /// What the node connects to.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Nothing passes any more, in neither direction, and nobody is told.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// What was said meanwhile passes, and what comes.
    pub(crate) fn open(&self) {
        self.closed.send_replace(false);
    }
}

async fn accept(listener: TcpListener, server: u16, closed: Arc<watch::Sender<bool>>) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.unwrap();
                links.spawn(carry(client, server, closed.subscribe()));
            }
            Some(_) = links.join_next() => {}
        }
    }
}

async fn carry(client: TcpStream, server: u16, closed: watch::Receiver<bool>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = pass(from_client, to_server, closed.clone()) => {}
        () = pass(from_server, to_client, closed) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut closed: watch::Receiver<bool>) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if closed.wait_for(|closed| !closed).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    // An end is not heard either.
    let _ = closed.wait_for(|closed| !closed).await;
}
