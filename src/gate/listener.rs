//! The client port: accepts, counts, and gives every connection a handshake task of its own. Above its caps it closes
//! at once; out of descriptors it waits rather than spins. Never reads a byte itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::auth::Authenticator;
use super::handshake::{self, Upgrade};
use super::origin::OriginPolicy;
use crate::clock;
use crate::limits::AddressLimits;
use crate::session::{LinkSocket, Sessions};
use crate::tasks::Tasks;
use crate::telemetry::metrics;

/// How long to wait when the system has no descriptor left.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);
/// How often quiet addresses are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// What the port needs to know.
pub struct Gate {
    /// Handshake, origin and frame bounds.
    pub upgrade: Upgrade,
    /// Who is whom.
    pub auth: Arc<Authenticator>,
    /// Which pages may connect.
    pub origins: OriginPolicy,
    /// Encryption, if configured.
    pub tls: Option<Arc<ServerConfig>>,
    /// Limits by address.
    pub addresses: AddressLimits,
    /// Where links live.
    pub sessions: Arc<Sessions>,
    /// Tasks of handshakes and links.
    pub links: Tasks,
    /// Links at a time.
    pub links_max: usize,
}

/// A listening socket with a backlog deeper than the usual 128: a reconnect storm must not lose a SYN.
///
/// # Errors
/// The system's, such as an address in use.
pub fn bind(addr: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

impl Gate {
    /// Accepts until asked to stop.
    pub async fn run(self: Arc<Self>, listener: TcpListener, tasks: Tasks) {
        let room = Arc::new(Semaphore::new(self.links_max));
        let failures =
            metrics::HANDSHAKE_FAILURES.by("reason", &["links_max", "connect_rate", "accept"], &[]);
        let mut forget = tokio::time::interval(FORGET_EVERY);
        loop {
            let accepted = tokio::select! {
                biased;
                () = tasks.stopping() => return,
                _ = forget.tick() => {
                    self.addresses.forget_quiet(clock::now());
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let ip = peer.ip().to_canonical();
                    if self.addresses.connect(ip, clock::now()).is_err() {
                        failures.of("connect_rate").increment(1);
                        continue;
                    }
                    match Arc::clone(&room).try_acquire_owned() {
                        Ok(permit) => self.begin(stream, ip, permit),
                        Err(_) => failures.of("links_max").increment(1),
                    }
                }
                Err(error) => {
                    failures.of("accept").increment(1);
                    tracing::warn!(operation = "accept", status = %error, "cannot accept");
                    tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
                }
            }
        }
    }

    /// The handshake lives in a task of its own, so that its memory is gone when the link begins.
    fn begin(self: &Arc<Self>, stream: TcpStream, ip: IpAddr, permit: OwnedSemaphorePermit) {
        let _ = stream.set_nodelay(true);
        let gate = Arc::clone(self);
        self.links.spawn("handshake", async move {
            let deadline = tokio::time::Instant::now() + gate.upgrade.timeout;
            match &gate.tls {
                None => gate.shake(stream, ip, deadline, permit).await,
                Some(config) => {
                    let accepting = TlsAcceptor::from(Arc::clone(config)).accept(stream);
                    match tokio::time::timeout_at(deadline, accepting).await {
                        Ok(Ok(stream)) => gate.shake(stream, ip, deadline, permit).await,
                        Ok(Err(_)) | Err(_) => {
                            metrics::HANDSHAKE_FAILURES.with(&[("reason", "tls")]).increment(1)
                        }
                    }
                }
            }
        });
    }

    async fn shake<S: LinkSocket>(
        self: &Arc<Self>,
        stream: S,
        ip: IpAddr,
        deadline: tokio::time::Instant,
        permit: OwnedSemaphorePermit,
    ) {
        if let Some(link) = handshake::shake(self, stream, ip, deadline).await {
            self.links.spawn("link", link.run(permit));
        }
    }
}
