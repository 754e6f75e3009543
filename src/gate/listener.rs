//! The client port: accepts, counts, and gives every connection a handshake task of its own. With too many in their
//! handshake it lets the others wait outside; above its other caps it closes at once; out of descriptors it waits
//! rather than spins. Never reads a byte itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::auth::Authenticator;
use super::crowd::{Crowd, Patience};
use super::handshake;
use super::origin::OriginPolicy;
use super::peers::Peers;
use super::tls::Certificates;
use super::upgrade::Upgrade;
use crate::clock;
use crate::limits::{AddressLimits, Culprits, Descriptors};
use crate::maintenance::Maintenance;
use crate::session::{LinkSocket, Sessions};
use crate::tasks::{self, Tasks};
use crate::telemetry::metrics as table;
use crate::telemetry::watch::{is_bad_close, is_bad_handshake};

/// How long to wait when the system has no descriptor left.
pub(super) const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);
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
    pub tls: Option<Arc<Certificates>>,
    /// Whether players are let in at all.
    pub maintenance: Arc<Maintenance>,
    /// Limits by address.
    pub addresses: AddressLimits,
    /// Where links live.
    pub sessions: Arc<Sessions>,
    /// Tasks of handshakes and links.
    pub links: Tasks,
    /// A place for each link that there may be, whichever port it comes in at.
    pub room: Arc<Semaphore>,
    /// Connections at a time that are not logged in yet.
    pub handshakes_max: usize,
    /// Whether any are left.
    pub descriptors: Arc<Descriptors>,
    /// How nodes know each other.
    pub peers: Peers,
    /// What comes to nothing is counted.
    pub meters: Meters,
    /// And who it is that does not keep to the protocol, or shows what is no good.
    pub misbehaving: Arc<Culprits>,
}

/// The room's handles, made once.
#[derive(Debug)]
pub struct Meters {
    /// Handshakes that came to nothing, by why.
    pub(super) failures: table::Family<Counter>,
    /// Connections refused for being too many from one address.
    pub(super) connects_limited: Counter,
    /// Logins refused for the same.
    pub(super) logins_limited: Counter,
}

impl Default for Meters {
    /// All of them, so that each is counted from zero on.
    fn default() -> Self {
        Self {
            failures: table::HANDSHAKE_FAILURES.by("reason", table::HANDSHAKE_REASONS, &[]),
            connects_limited: table::RATE_LIMITED.with(&[("kind", "connect")]),
            logins_limited: table::RATE_LIMITED.with(&[("kind", "login")]),
        }
    }
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
    pub async fn run(self: Arc<Self>, listener: TcpListener, stop: Tasks) {
        let crowd = Crowd::new(self.handshakes_max, self.upgrade.timeout, stop.clone());
        // So that it is there before anybody is carried.
        let _ = table::RELAYED_OPEN.handle();
        let Meters { failures, connects_limited, .. } = &self.meters;
        let mut forget = tokio::time::interval(FORGET_EVERY);
        let mut is_exhausted = false;
        loop {
            let accepted = async {
                let place = crowd.place().await;
                listener.accept().await.map(|(stream, peer)| (stream, peer.ip().to_canonical(), place))
            };
            tasks::rest();
            let accepted = tokio::select! {
                biased;
                () = stop.stopping() => return,
                _ = forget.tick() => {
                    self.addresses.forget_quiet(clock::now());
                    continue;
                }
                accepted = accepted => accepted,
            };
            tasks::beat();
            match accepted {
                Ok((stream, ip, place)) => {
                    is_exhausted = false;
                    if self.addresses.connect(ip, clock::now()).is_err() {
                        failures.of("connect_rate").increment(1);
                        connects_limited.increment(1);
                        continue;
                    }
                    match Arc::clone(&self.room).try_acquire_owned() {
                        Ok(permit) => self.begin(stream, ip, permit, place.taken()),
                        Err(_) => failures.of("links_max").increment(1),
                    }
                }
                Err(error) => {
                    failures.of("accept").increment(1);
                    self.descriptors.refused(&error, clock::now());
                    if !std::mem::replace(&mut is_exhausted, true) {
                        tracing::warn!(operation = "accept", status = %error, "cannot accept");
                    }
                    tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
                }
            }
        }
    }

    /// The handshake lives in a task of its own, so that its memory is gone when the link begins.
    fn begin(
        self: &Arc<Self>,
        stream: TcpStream,
        ip: IpAddr,
        permit: OwnedSemaphorePermit,
        mut patience: Patience,
    ) {
        let _ = stream.set_nodelay(true);
        let gate = Arc::clone(self);
        self.links.spawn("handshake", async move {
            match &gate.tls {
                None => gate.shake(stream, ip, &mut patience, permit).await,
                Some(certificates) => {
                    let accepting = TlsAcceptor::from(certificates.config()).accept(stream);
                    match patience.within(accepting).await {
                        Some(Ok(stream)) => gate.shake(stream, ip, &mut patience, permit).await,
                        Some(Err(_)) | None => gate.comes_to_nothing("tls", ip),
                    }
                }
            }
        });
    }

    pub(super) async fn shake<S: LinkSocket>(
        self: &Arc<Self>,
        stream: S,
        ip: IpAddr,
        patience: &mut Patience,
        permit: OwnedSemaphorePermit,
    ) {
        if let Some(link) = handshake::shake(self, stream, ip, patience).await {
            link.spawn(self, ip, permit);
        }
    }

    /// Counts a handshake that came to nothing, and who it was if no client of ours would make it.
    pub(super) fn comes_to_nothing(&self, reason: &'static str, ip: IpAddr) {
        self.meters.failures.of(reason).increment(1);
        if is_bad_handshake(reason) {
            self.misbehaving.count(ip);
        }
    }

    /// Counts who it was whose link was closed under this code, if for no good manners.
    pub(super) fn has_closed(&self, code: u16, ip: IpAddr) {
        if is_bad_close(code) {
            self.misbehaving.count(ip);
        }
    }
}
