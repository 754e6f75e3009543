//! The harness's server, as these stories need it: on a store that outlives it, and started without holding up the
//! other stories, since on Redis it waits for every lease that its predecessor left.

use std::net::SocketAddr;

pub(crate) use crate::harness::server::{Server, Starting};

/// A server that is about to start on the store at this URL.
pub(crate) fn server_on(store: impl AsRef<str>) -> Starting {
    // Few shards: each is a lease to be taken and given back, which is most of what starting and stopping costs.
    Server::on_url(store.as_ref()).with("cluster.name", "faults").with("cluster.shards", 8)
}

/// Starts it and waits until it is ready.
pub(crate) async fn started(starting: Starting) -> Server {
    tokio::task::spawn_blocking(|| starting.start()).await.unwrap()
}

/// Starts an ended server again, on the same store with the same settings.
pub(crate) async fn restarted(mut server: Server) -> Server {
    let again = move || {
        server.restart();
        server
    };
    tokio::task::spawn_blocking(again).await.unwrap()
}

/// Where clients connect. Another one after a start, if somebody took the old one.
pub(crate) fn address(server: &Server) -> SocketAddr {
    server.host().parse().unwrap()
}
