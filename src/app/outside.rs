//! What a server needs from outside before any room is built: keys, certificates, addresses. Called by the composition
//! root alone, first of all: whatever fails here has left no trace.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;

use super::ServeError;
use crate::config::Settings;
use crate::files::{Fault, Named, Watched};
use crate::gate::auth::Authenticator;
use crate::gate::listener;
use crate::gate::tls::Certificates;
use crate::service::Keys;
use crate::store::Shortfall;
use crate::telemetry::traces::Collector;

/// All of it.
pub(super) struct Outside {
    pub(super) auth: Arc<Authenticator>,
    pub(super) tls: Option<Arc<Certificates>>,
    pub(super) keys: Keys,
    /// The files that are read again when they change.
    pub(super) watched: Vec<Arc<dyn Watched>>,
    pub(super) clients: TcpListener,
    pub(super) client_addr: SocketAddr,
    pub(super) services: TcpListener,
    pub(super) service_addr: SocketAddr,
    /// Where other nodes connect, where there can be any.
    pub(super) peers: Option<TcpListener>,
    /// The address that they are told.
    pub(super) peer_addr: Option<String>,
    /// Who takes traces, where anybody does.
    pub(super) collector: Option<Collector>,
}

impl Outside {
    pub(super) fn from_settings(settings: &Settings) -> Result<Self, ServeError> {
        let auth = Arc::new(Authenticator::from_settings(settings)?);
        let tls = Certificates::from_settings(&settings.tls)?;
        let keys = Keys::from_settings(settings)?;
        let collector = collector(settings)?;
        let watched = auth
            .file()
            .into_iter()
            .chain(keys.files())
            .chain(tls.clone().map(|tls| tls as Arc<dyn Watched>))
            .collect();
        let clients = bind("client_addr", settings.client_addr, settings.link.backlog)?;
        let client_addr = clients.local_addr().unwrap_or(settings.client_addr);
        let services = bind("service_addr", settings.service_addr, settings.link.backlog)?;
        let service_addr = services.local_addr().unwrap_or(settings.service_addr);
        let peers = listen_to_peers(settings)?;
        let peer_addr = peers.as_ref().and_then(|peers| told_to_peers(settings, peers));
        Ok(Self {
            auth,
            tls,
            keys,
            watched,
            clients,
            client_addr,
            services,
            service_addr,
            peers,
            peer_addr,
            collector,
        })
    }
}

/// Who takes traces, and with which headers.
pub(super) fn collector(settings: &Settings) -> Result<Option<Collector>, Fault> {
    let trace = &settings.trace;
    let Some(url) = &trace.otlp_url else { return Ok(None) };
    let fault = |setting: &str, message: String| Fault { setting: setting.to_owned(), message };
    let collector = Collector::at(url).map_err(|error| fault("trace.otlp_url", error.to_string()))?;
    let given = trace.headers.as_ref().map_or("", |headers| headers.expose());
    let collector =
        collector.with_headers(given).map_err(|error| fault("trace.headers", error.to_string()))?;
    let Some(file) = &trace.headers_file else { return Ok(Some(collector)) };
    let named = Named::new("trace.headers_file", file);
    let more = std::fs::read_to_string(file);
    let more = more.map_err(|error| named.fault(format!("cannot read {}: {error}", file.display())))?;
    collector.with_headers(&more).map(Some).map_err(|error| named.fault(error.to_string()))
}

/// With the embedded store there is nobody else.
fn listen_to_peers(settings: &Settings) -> Result<Option<TcpListener>, ServeError> {
    if !settings.store.is_redis() {
        return Ok(None);
    }
    let this_machine = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    bind("peer_addr", settings.peer_addr.unwrap_or(this_machine), settings.link.backlog).map(Some)
}

/// The address that others reach it at, if one is known.
fn told_to_peers(settings: &Settings, peers: &TcpListener) -> Option<String> {
    let public = settings.peer_public_addr.as_ref().map(|addr| addr.as_str().to_owned());
    let listened = peers.local_addr().ok().filter(|addr| !addr.ip().is_unspecified());
    public.or_else(|| listened.map(|addr| addr.to_string()))
}

fn bind(setting: &'static str, addr: SocketAddr, backlog: u32) -> Result<TcpListener, ServeError> {
    listener::bind(addr, backlog).map_err(|source| ServeError::Bind { addr, setting, source })
}

/// What stands in the way of files that have changed.
pub(super) fn shortfalls_of(watched: Vec<Arc<dyn Watched>>) -> Box<dyn Fn() -> Vec<Shortfall> + Send + Sync> {
    Box::new(move || {
        let faults = watched.iter().filter_map(|file| file.fault());
        faults
            .map(|fault| Shortfall { setting: fault.setting, message: fault.message, fatal: false })
            .collect()
    })
}
