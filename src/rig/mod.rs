//! Sets of real Redis servers on the loopback address, to try Hearth on every shape: one alone, one master with
//! replicas and the sentinels that watch them, or a Redis Cluster. Each server has a folder and ports of its own and ends
//! with whoever started it, however that ends. Used by tests and by `local`; never by a node that serves.

mod cluster;
mod sentinel;
mod server;
mod standalone;

use std::io;
use std::net::TcpListener;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use self::cluster::{ClusterPlan, ClusterSet};
pub use self::sentinel::{SentinelPlan, SentinelSet};
pub use self::server::{Server, TlsFiles};
pub use self::standalone::Standalone;

/// How long a server or a set may take until it can be used.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks whether it can.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Where free ports are looked for, how often, and how often what was to listen there is started.
const PORTS: Range<u16> = 10_000..32_000;
const TRIES_MAX: usize = 100;
const STARTS_MAX: usize = 5;

/// Why there is no set of servers.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// The program is not installed.
    #[error(
        "redis-server is missing: apt-get install redis-server (Debian, Ubuntu), brew install redis (macOS), version 7 or later"
    )]
    Missing,
    /// A folder, a port or a process cannot be had.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody else listens where a server was to.
    #[error("port {port} was taken by somebody else")]
    Taken {
        /// Where.
        port: u16,
    },
    /// A server refused a command.
    #[error("redis-server on port {port} refused {command}: {source}")]
    Refused {
        /// Which server.
        port: u16,
        /// What it was told.
        command: String,
        /// What it said.
        source: redis::RedisError,
    },
    /// It did not come about in time.
    #[error("waited in vain for {what}; its log ends with:\n{log}")]
    Late {
        /// What was waited for.
        what: String,
        /// The end of a log that may say why.
        log: String,
    },
}

/// Settings that every server of a set has, besides those that make the set.
#[derive(Debug, Clone, Default)]
pub struct Common {
    /// The set's folder; each server makes one of its own in it.
    pub dir: PathBuf,
    /// Lines of `redis.conf` for the servers that keep data.
    pub settings: Vec<(String, String)>,
    /// The password of the user `default`; servers of the set use it among themselves, too.
    pub password: Option<String>,
    /// With encryption: each server then also has a port with TLS, over which the set talks.
    pub tls: Option<TlsFiles>,
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> RigError {
    |source| RigError::System { what: what.into(), source }
}

/// Ports of the loopback address that nobody listens on, side by side. Nothing keeps them free: they lie below those that
/// systems give to outgoing connections, so that who takes one meanwhile has chosen it.
///
/// # Errors
/// [`RigError::System`] when there are not so many.
pub fn free_ports(count: usize) -> Result<Vec<u16>, RigError> {
    let count = u16::try_from(count).unwrap_or(u16::MAX).min(PORTS.end - PORTS.start);
    let mut last = None;
    for _ in 0..TRIES_MAX {
        let first = rand::random_range(PORTS.start..=PORTS.end - count);
        let ports: Vec<u16> = (first..first + count).collect();
        // Held together, so that they are free at one moment.
        let bound: io::Result<Vec<_>> =
            ports.iter().map(|port| TcpListener::bind(("127.0.0.1", *port))).collect();
        match bound {
            Ok(_) => return Ok(ports),
            Err(error) => last = Some(error),
        }
    }
    Err(failed("no ports are free")(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into())))
}

/// Starts something on so many free ports; on others if somebody else was faster.
fn on_free_ports<T>(count: usize, start: impl Fn(&[u16]) -> Result<T, RigError>) -> Result<T, RigError> {
    for _ in 1..STARTS_MAX {
        match start(&free_ports(count)?) {
            Err(RigError::Taken { .. }) => {}
            started => return started,
        }
    }
    start(&free_ports(count)?)
}

/// Looks until it is so.
fn wait_for(what: &str, on: &Server, mut is_so: impl FnMut() -> bool) -> Result<(), RigError> {
    let deadline = Instant::now() + READY_WITHIN;
    while !is_so() {
        if Instant::now() > deadline {
            return Err(RigError::Late { what: what.to_owned(), log: on.log_end() });
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
