//! Where a lane's connections come from: one server that stays, a node of a cluster, or whoever is the master of a name.
//! Called by `lane`, which tells it when a server no longer seems to be the right one.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr};
use tokio::sync::Notify;

use super::errors::judge;
use super::sentinel::Sentinels;
use crate::store::StoreError;

/// A source of connections.
pub(super) enum Endpoint {
    /// One server.
    Fixed(Client),
    /// A node of a cluster; whoever keeps the cluster's map is told when it fails.
    Node { client: Client, suspected: Arc<Notify> },
    /// The master that sentinels name.
    Master(Arc<Sentinels>),
}

impl Endpoint {
    /// Which server it is: a connection made under another number leads to another server and must not be used.
    pub(super) fn serial(&self) -> u64 {
        match self {
            Self::Fixed(_) | Self::Node { .. } => 0,
            Self::Master(sentinels) => sentinels.serial(),
        }
    }

    /// A new connection, and the number under which it was made. Has no deadline.
    pub(super) async fn connect(&self) -> Result<(MultiplexedConnection, u64), StoreError> {
        match self {
            Self::Fixed(client) | Self::Node { client, .. } => Ok((connect(client).await?, 0)),
            Self::Master(sentinels) => sentinels.connect().await,
        }
    }

    /// Why a connection may take for ever.
    pub(super) fn late(&self) -> StoreError {
        let is_tls = match self {
            Self::Fixed(client) | Self::Node { client, .. } => {
                matches!(client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. })
            }
            Self::Master(sentinels) => sentinels.is_encrypted(),
        };
        let advice = if is_tls { ": does it speak TLS there, as rediss says?" } else { "" };
        StoreError::Unreachable(format!("connecting took too long{advice}"))
    }

    /// The server failed, or says that it is not the one to talk to.
    pub(super) fn suspect(&self) {
        match self {
            Self::Fixed(_) => {}
            Self::Node { suspected, .. } => suspected.notify_one(),
            Self::Master(sentinels) => sentinels.suspect(),
        }
    }
}

/// A new connection without any deadline of the library's: its response timeout of 500 ms would hide slow calls as
/// errors, so all deadlines are the caller's.
pub(super) async fn connect(client: &Client) -> Result<MultiplexedConnection, StoreError> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let connected = client.get_multiplexed_async_connection_with_config(&config).await;
    let is_plain = matches!(client.get_connection_info().addr(), ConnectionAddr::Tcp(..));
    connected.map_err(|error| match judge(&error).error {
        // A server that expects TLS hangs up on whoever speaks without.
        StoreError::Unreachable(why) if is_plain && why.contains("reset by peer") => {
            StoreError::Unreachable(format!("{why}: is it its port for TLS? then write rediss"))
        }
        other => other,
    })
}
