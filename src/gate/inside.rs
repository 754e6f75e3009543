//! A door for links that begin in this very process: the same handshake, the same rooms and bounds as at the client port, but
//! no socket, so no descriptor. For crowds larger than a process may open sockets for; `app` hands it to a server's company.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tokio::io::DuplexStream;

use super::crowd::Crowd;
use super::listener::Gate;
use crate::tasks::Tasks;

/// Bytes on their way in one direction at most.
const PIPE_BYTES_MAX: usize = 64 * 1024;

/// The door.
pub struct Inside {
    gate: Arc<Gate>,
    crowd: Crowd,
}

impl Inside {
    pub(crate) fn new(gate: Arc<Gate>, door: Tasks) -> Self {
        let crowd = Crowd::new(gate.handshakes_max, gate.upgrade.timeout, door);
        Self { gate, crowd }
    }

    /// The client's end of a new connection, on which nothing was said yet; `None` where there are as many links as may be.
    /// Waits while too many are in their handshake. It comes from no address, so limits by address do not count it.
    pub async fn connect(&self) -> Option<DuplexStream> {
        let place = self.crowd.place().await;
        let permit = Arc::clone(&self.gate.room).try_acquire_owned().ok()?;
        let (outer, inner) = tokio::io::duplex(PIPE_BYTES_MAX);
        let (gate, mut patience) = (Arc::clone(&self.gate), place.taken());
        self.gate.links.spawn("handshake", async move {
            gate.shake(inner, IpAddr::V4(Ipv4Addr::LOCALHOST), &mut patience, permit).await;
        });
        Some(outer)
    }
}
