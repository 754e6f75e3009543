//! One Redis alone, as the smallest set.

use super::server::Server;
use super::{Common, RigError, on_free_ports};

/// A running server of its own.
pub struct Standalone {
    scheme: &'static str,
    server: Server,
}

impl Standalone {
    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// [`RigError`]; what was started is ended then.
    pub fn start(common: &Common) -> Result<Self, RigError> {
        let scheme = if common.tls.is_some() { "rediss" } else { "redis" };
        let server = on_free_ports(2, |ports| {
            let (port, tls_port) = (ports.first().copied(), ports.last().copied());
            let ports = (port.unwrap_or_default(), tls_port.unwrap_or_default());
            Server::start(common, false, ports, &[])
        })?;
        Ok(Self { scheme, server })
    }

    /// Its URL, for Hearth.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.server.client_port())
    }

    /// The server.
    #[must_use]
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// The same, to start it again.
    pub const fn server_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}
