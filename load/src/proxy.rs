//! A TCP proxy for faults of the network: it delays, falls silent in either direction without a word to anybody, resets,
//! and cuts what it carries into slices; all of it switched while it runs. Used by whoever tries a server's patience.
//! Never looks into what it carries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks on their way in one direction of a link. Above it the proxy reads no more, as a full pipe would.
const CHUNKS_MAX: usize = 1_024;

/// How links are carried. What is not named is carried as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Weather {
    /// How long each chunk travels, in each direction.
    pub delay: Duration,
    /// And up to so much longer; order is kept.
    pub jitter: Duration,
    /// What clients say goes nowhere, and neither does their end. It arrives when this is over.
    pub holds_up: bool,
    /// The same for what the server says.
    pub holds_down: bool,
    /// The chance of a chunk from a client to reset its link, 0 to 1.
    pub reset_chance: f64,
    /// Chunks of fewer bytes than this reset nothing: those with which clients begin, before they ask for anything.
    pub reset_bytes_min: usize,
    /// The most bytes written at a time; 0 for no limit.
    pub slice_bytes: usize,
}

impl Weather {
    /// Nothing is carried, in either direction; nobody is told.
    #[must_use]
    pub fn blackhole() -> Self {
        Self { holds_up: true, holds_down: true, ..Self::default() }
    }
}

/// What a proxy has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Links that were made.
    pub links: u64,
    /// Bytes that arrived, both directions.
    pub bytes: u64,
    /// Chunks that were held or travelled longer than they had to.
    pub hindered: u64,
    /// Links that were reset.
    pub resets: u64,
}

/// A running proxy; its links end with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    seed: u64,
    weather: watch::Sender<Weather>,
    /// Links that stand are reset with this chance whenever the number changes.
    cut: watch::Sender<(u64, f64)>,
    links: AtomicU64,
    bytes: AtomicU64,
    hindered: AtomicU64,
    resets: AtomicU64,
}

impl Proxy {
    /// A proxy on a free port of the loopback address; the same seed makes the same choices.
    ///
    /// # Errors
    /// There is no port.
    pub async fn to(target: SocketAddr, seed: u64) -> std::io::Result<Self> {
        Self::on("127.0.0.1:0", target, seed).await
    }

    /// The same on this address, `HOST:PORT`.
    ///
    /// # Errors
    /// It cannot be listened at.
    pub async fn on(address: &str, target: SocketAddr, seed: u64) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            seed,
            weather: watch::Sender::default(),
            cut: watch::Sender::new((0, 0.0)),
            links: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            hindered: AtomicU64::new(0),
            resets: AtomicU64::new(0),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, _accepting: accepting })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on links are carried so.
    pub fn turn(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    /// From now on everything is carried as it comes; what was held arrives.
    pub fn heal(&self) {
        self.turn(Weather::default());
    }

    /// Resets this share of the links that stand.
    pub fn reset(&self, share: f64) {
        self.shared.cut.send_modify(|(times, chance)| (*times, *chance) = (*times + 1, share));
    }

    /// What it has carried.
    #[must_use]
    pub fn carried(&self) -> Carried {
        let Shared { links, bytes, hindered, resets, .. } = &*self.shared;
        Carried {
            links: links.load(Relaxed),
            bytes: bytes.load(Relaxed),
            hindered: hindered.load(Relaxed),
            resets: resets.load(Relaxed),
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                links.spawn(carry(client, Arc::clone(&shared)));
            }
            Some(_) = links.join_next() => {}
        }
    }
}

/// Carries one link to its end. Either side's end is the other's, unless it is held back.
async fn carry(client: TcpStream, shared: Arc<Shared>) {
    let number = shared.links.fetch_add(1, Relaxed);
    let Ok(server) = TcpStream::connect(shared.target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut rng = SmallRng::seed_from_u64(shared.seed ^ number.rotate_left(32));
    let (up_rng, down_rng) = (SmallRng::from_rng(&mut rng), SmallRng::from_rng(&mut rng));
    let mut client = client;
    let mut server = server;
    let is_reset = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let up = direction(&shared, &mut from_client, &mut to_server, Way::Up, up_rng);
        let down = direction(&shared, &mut from_server, &mut to_client, Way::Down, down_rng);
        tokio::select! {
            is_reset = up => is_reset,
            is_reset = down => is_reset,
            () = chosen(&shared, rng) => true,
        }
    };
    if is_reset {
        shared.resets.fetch_add(1, Relaxed);
        for end in [&client, &server] {
            // Closed with nothing lingering, a socket resets.
            let _ = socket2::SockRef::from(end).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Waits until this link is among those that are reset.
async fn chosen(shared: &Shared, mut rng: SmallRng) {
    let mut cut = shared.cut.subscribe();
    while cut.changed().await.is_ok() {
        let (_, chance) = *cut.borrow_and_update();
        if rng.random_bool(chance.clamp(0.0, 1.0)) {
            return;
        }
    }
    std::future::pending().await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// Carries one direction until it ends; whether it ends with a reset.
async fn direction(
    shared: &Shared,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    way: Way,
    mut rng: SmallRng,
) -> bool {
    // `None` is the end, which travels like all else.
    let (sender, mut receiver) = mpsc::channel::<(Instant, Option<Vec<u8>>)>(CHUNKS_MAX);
    let reading = async {
        let mut bytes = vec![0; CHUNK_BYTES];
        let mut last = Instant::now();
        loop {
            let chunk = match from.read(&mut bytes).await {
                Ok(count @ 1..) => bytes.get(..count).map(<[u8]>::to_vec),
                _ => None,
            };
            let weather = *shared.weather.borrow();
            let is_spared = chunk.as_ref().is_none_or(|bytes| bytes.len() < weather.reset_bytes_min);
            if way == Way::Up && !is_spared && rng.random_bool(weather.reset_chance.clamp(0.0, 1.0)) {
                return true;
            }
            let jitter = weather.jitter.mul_f64(rng.random());
            last = last.max(Instant::now() + weather.delay + jitter);
            let is_end = chunk.is_none();
            if sender.send((last, chunk)).await.is_err() || is_end {
                // The writer says when it is over.
                std::future::pending::<()>().await;
            }
        }
    };
    let writing = async {
        let mut weather = shared.weather.subscribe();
        while let Some((due, chunk)) = receiver.recv().await {
            let is_held = |weather: &Weather| match way {
                Way::Up => weather.holds_up,
                Way::Down => weather.holds_down,
            };
            if due > Instant::now() || is_held(&weather.borrow()) {
                shared.hindered.fetch_add(1, Relaxed);
            }
            sleep_until(due).await;
            // The sender lives as long as the links.
            let slice_bytes = match weather.wait_for(|weather| !is_held(weather)).await {
                Ok(weather) => weather.slice_bytes,
                Err(_) => return false,
            };
            let Some(chunk) = chunk else { return false };
            for slice in chunk.chunks(if slice_bytes == 0 { CHUNK_BYTES } else { slice_bytes }) {
                if to.write_all(slice).await.is_err() {
                    return false;
                }
            }
            shared.bytes.fetch_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX), Relaxed);
        }
        false
    };
    tokio::select! {
        is_reset = reading => is_reset,
        is_reset = writing => is_reset,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A proxy before an echo, and a client.
    async fn echo() -> (Proxy, TcpStream, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 1_024];
            while let Ok(count @ 1..) = socket.read(&mut bytes).await {
                if socket.write_all(&bytes[..count]).await.is_err() {
                    return;
                }
            }
        });
        let proxy = Proxy::to(target, 7).await.unwrap();
        let client = TcpStream::connect(proxy.address()).await.unwrap();
        (proxy, client, tasks)
    }

    async fn asks(client: &mut TcpStream, word: &[u8]) {
        client.write_all(word).await.unwrap();
    }

    async fn hears(client: &mut TcpStream, word: &[u8]) {
        let mut heard = vec![0; word.len()];
        timeout(PATIENCE, client.read_exact(&mut heard)).await.expect("an answer in time").unwrap();
        assert_eq!(heard, word);
    }

    #[tokio::test]
    async fn it_carries_and_delays() {
        let (proxy, mut client, _echo) = echo().await;
        asks(&mut client, b"one").await;
        hears(&mut client, b"one").await;
        proxy.turn(Weather { delay: SHORT, slice_bytes: 1, ..Weather::default() });
        let asked = Instant::now();
        asks(&mut client, b"two").await;
        hears(&mut client, b"two").await;
        assert!(asked.elapsed() >= SHORT * 2, "{:?}", asked.elapsed());
        assert!(proxy.carried().hindered >= 2 && proxy.carried().bytes >= 12);
    }

    #[tokio::test]
    async fn what_is_held_arrives_when_it_heals_and_nobody_is_told() {
        for weather in [
            Weather::blackhole(),
            Weather { holds_down: true, ..Weather::default() },
            Weather { holds_up: true, ..Weather::default() },
        ] {
            let (proxy, mut client, _echo) = echo().await;
            asks(&mut client, b"one").await;
            hears(&mut client, b"one").await;
            proxy.turn(weather);
            asks(&mut client, b"two").await;
            let mut byte = [0];
            assert!(timeout(SHORT, client.read(&mut byte)).await.is_err(), "something came: {weather:?}");
            proxy.heal();
            hears(&mut client, b"two").await;
        }
    }

    #[tokio::test]
    async fn it_resets_those_that_stand_and_those_that_speak() {
        let (proxy, mut client, _echo) = echo().await;
        asks(&mut client, b"one").await;
        hears(&mut client, b"one").await;
        proxy.reset(1.0);
        let mut byte = [0];
        let end = timeout(PATIENCE, client.read(&mut byte)).await.expect("an end");
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);

        let (other, mut client, _echo) = echo().await;
        other.turn(Weather { reset_chance: 1.0, reset_bytes_min: 4, ..Weather::default() });
        asks(&mut client, b"one").await;
        hears(&mut client, b"one").await;
        asks(&mut client, b"once").await;
        let end = timeout(PATIENCE, client.read(&mut byte)).await.expect("an end");
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!((proxy.carried().resets, other.carried().resets), (1, 1));
    }
}
