//! One address for clients in front of servers that come and go, so that a server started again need not find its old
//! port free. It turns to another server, cuts all links, falls silent, and swallows what servers say where a story
//! wants that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// How long a link that will swallow is honest.
const HONEST: Duration = Duration::from_millis(700);
/// How long it swallows what the server says, and carries what the client says, before it breaks.
const SWALLOWING: Duration = Duration::from_millis(300);

/// The relay; all its links end with it.
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

struct Shared {
    /// Links end when it changes.
    target: watch::Sender<SocketAddr>,
    /// While it is, links stay up and carry nothing.
    silent: watch::Sender<bool>,
    swallowing_links: AtomicUsize,
    swallowed_bytes: AtomicU64,
}

impl Relay {
    /// A relay to this server.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: watch::Sender::new(target),
            silent: watch::Sender::new(false),
            swallowing_links: AtomicUsize::new(0),
            swallowed_bytes: AtomicU64::new(0),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, _accepting: accepting }
    }

    /// Where it listens, for whoever is no client.
    #[allow(dead_code, reason = "only builds with switches cut a node off from its Redis")]
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients connect to.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}/v1/connect", self.address)
    }

    /// Cuts every link and leads those that come to this server.
    pub(crate) fn turn_to(&self, target: SocketAddr) {
        self.shared.target.send_replace(target);
    }

    /// Carries nothing any more, in neither direction, and cuts nothing: both ends take the other for alive.
    pub(crate) fn fall_silent(&self) {
        self.shared.silent.send_replace(true);
    }

    /// Carries what was said meanwhile, and what comes.
    pub(crate) fn speak_again(&self) {
        self.shared.silent.send_replace(false);
    }

    /// Each of the next `links` links loses, after a while, what the server says, and then breaks.
    pub(crate) fn swallow_on(&self, links: usize) {
        self.shared.swallowing_links.store(links, Ordering::Relaxed);
    }

    /// What was swallowed.
    pub(crate) fn swallowed_bytes(&self) -> u64 {
        self.shared.swallowed_bytes.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.unwrap();
                links.spawn(carry(client, Arc::clone(&shared)));
            }
            Some(_) = links.join_next() => {}
        }
    }
}

/// Carries one link to its end. Either side's end is the other's. Who finds no server waits for the next one: were she
/// sent away, her own patience would decide how long the story takes.
async fn carry(mut client: TcpStream, shared: Arc<Shared>) {
    let mut target = shared.target.subscribe();
    let mut server = loop {
        let address = *target.borrow_and_update();
        match TcpStream::connect(address).await {
            Ok(server) => break server,
            Err(_) => target.changed().await.unwrap(),
        }
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let take_one = |left: usize| left.checked_sub(1);
    let swallows =
        shared.swallowing_links.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one).is_ok();
    let honest_until = swallows.then(|| Instant::now() + HONEST);
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let (mut silent_up, mut silent_down) = (shared.silent.subscribe(), shared.silent.subscribe());
    let up = async {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
            silent_up.wait_for(|silent| !silent).await.unwrap();
            if to_server.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
        // An end is not heard either.
        silent_up.wait_for(|silent| !silent).await.unwrap();
    };
    let down = async {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
            silent_down.wait_for(|silent| !silent).await.unwrap();
            if honest_until.is_some_and(|until| Instant::now() >= until) {
                shared.swallowed_bytes.fetch_add(count as u64, Ordering::Relaxed);
            } else if to_client.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
        silent_down.wait_for(|silent| !silent).await.unwrap();
    };
    let breaks = async {
        match honest_until {
            Some(until) => sleep_until(until + SWALLOWING).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        () = breaks => {}
        _ = target.changed() => {}
    }
}
