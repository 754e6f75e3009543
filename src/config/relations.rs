//! What must hold between settings, and what is allowed but should be said at start. `config::load` calls it with
//! settings that are each good by themselves. Pure.

use std::net::SocketAddr;
use std::time::Duration;

use super::choices::DevTokens;
use super::host;
use super::jwt::{self, SECRET_BYTES_MIN as JWT_SECRET_BYTES_MIN};
use super::sources::Reader;
use super::table::Settings;

/// A service key shorter than this can be guessed.
const SERVICE_KEY_BYTES_MIN: usize = 16;

impl Settings {
    /// Whether `dev:<player>` is a good token here.
    #[must_use]
    pub fn dev_tokens_taken(&self) -> bool {
        match self.auth.dev_tokens {
            DevTokens::On => true,
            DevTokens::Off => false,
            DevTokens::Auto => self.is_on_loopback() && !self.has_jwt_key(),
        }
    }

    /// Whether only this machine can connect.
    #[must_use]
    pub const fn is_on_loopback(&self) -> bool {
        self.client_addr.ip().to_canonical().is_loopback()
    }

    /// Whether tokens can be verified with a key.
    #[must_use]
    pub fn has_jwt_key(&self) -> bool {
        self.auth.jwt().has_key()
    }

    /// How long this node counts as alive without a heartbeat.
    #[must_use]
    pub fn member_ttl(&self) -> Duration {
        self.cluster.member_ttl.unwrap_or(self.home.lease_ttl / 6 * 5)
    }

    /// This node's name, where clients connect to this port.
    #[must_use]
    pub fn node_name(&self, client_port: u16) -> String {
        self.node_id.as_ref().map_or_else(|| host::node_name(client_port), |name| name.as_str().to_owned())
    }

    /// What is allowed but should be said loudly at start, a line each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.dev_tokens_taken() {
            lines.push(
                "auth.dev_tokens: anyone on this machine can log in as any player with dev:<player>".into(),
            );
        } else if !self.has_jwt_key() {
            lines.push(
                "auth: no JWT key is configured: only sessions that a service made can connect; set auth.jwt_secret, \
                 auth.jwt_key_file or auth.jwks_file"
                    .into(),
            );
        }
        if self.store.is_redis() && self.public_url.is_none() && self.client_addr.ip().is_unspecified() {
            lines.push(format!(
                "public_url: not set while client_addr is {}: other nodes cannot send players here",
                self.client_addr
            ));
        }
        let is_told = self.peer_public_addr.is_some();
        let peer_ip = self.peer_addr.map(|addr| addr.ip());
        if self.store.is_redis() && !is_told && peer_ip.is_some_and(|ip| ip.is_unspecified()) {
            lines.push(
                "peer_public_addr: not set while peer_addr is open to all: other nodes are told no address"
                    .into(),
            );
        }
        if self.store.is_redis() && peer_ip.is_none() && !self.client_addr.ip().to_canonical().is_loopback() {
            lines.push("peer_addr: not set: nodes on other machines cannot reach this one".into());
        }
        let short = |secret: &Option<super::Secret>, min: usize| {
            secret.as_ref().is_some_and(|secret| secret.expose().len() < min)
        };
        if short(&self.service_key, SERVICE_KEY_BYTES_MIN) {
            lines.push(format!("service_key: shorter than {SERVICE_KEY_BYTES_MIN} bytes, it can be guessed"));
        }
        for (name, secret) in
            [("auth.jwt_secret", &self.auth.jwt_secret), ("service.jwt_secret", &self.service.jwt_secret)]
        {
            if short(secret, JWT_SECRET_BYTES_MIN) {
                lines.push(format!("{name}: shorter than {JWT_SECRET_BYTES_MIN} bytes, it can be guessed"));
            }
        }
        lines
    }
}

/// Notes every broken relation.
pub(super) fn check(settings: &Settings, reader: &mut Reader) {
    addresses(settings, reader);
    dev_tokens(settings, reader);
    jwt::check(settings, reader);
    sizes(settings, reader);
    times(settings, reader);
    rates(settings, reader);
    if settings.store.is_redis() && settings.cluster.name.is_none() {
        reader.relation(
            &["cluster.name", "store"],
            "is required with Redis: give the cluster a name, so that two never share keys",
        );
    }
    if settings.tls.cert_file.is_some() != settings.tls.key_file.is_some() {
        reader.relation(
            &["tls.cert_file", "tls.key_file"],
            "tls.cert_file and tls.key_file go together: set both or none",
        );
    }
}

fn addresses(settings: &Settings, reader: &mut Reader) {
    // With the embedded store nobody listens for other nodes.
    let peer = settings.peer_addr.filter(|_| settings.store.is_redis());
    let (client, service) = (settings.client_addr, settings.service_addr);
    let clients = ("client_addr", client, "players");
    for (setting, addr, (other, taken, whose)) in [
        ("service_addr", Some(service), clients),
        ("peer_addr", peer, clients),
        ("peer_addr", peer, ("service_addr", service, "services")),
    ] {
        if addr.is_some_and(|addr| are_one_port(addr, taken)) {
            let who = if setting == "peer_addr" { "other nodes" } else { "services" };
            let why = format!("takes the port of {other} ({taken}): {whose} and {who} need one each");
            reader.relation(&[setting, other], &why);
        }
    }
}

/// Whether only one of two can listen.
fn are_one_port(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_ip
}

fn dev_tokens(settings: &Settings, reader: &mut Reader) {
    if settings.auth.dev_tokens == DevTokens::On && !settings.is_on_loopback() {
        reader.relation(
            &["auth.dev_tokens", "client_addr"],
            &format!(
                "must not be true while client_addr is {}: anyone could log in as anyone",
                settings.client_addr
            ),
        );
    }
}

fn sizes(settings: &Settings, reader: &mut Reader) {
    if settings.session.state_bytes_max > settings.link.frame_bytes_max {
        reader.relation(
            &["session.state_bytes_max", "link.frame_bytes_max"],
            &format!("must not exceed link.frame_bytes_max ({})", settings.link.frame_bytes_max),
        );
    }
}

/// Limits count in milliseconds, so a burst must carry what its rate allows in one.
fn rates(settings: &Settings, reader: &mut Reader) {
    let limits = &settings.limits;
    for (name, per_s, burst) in [
        ("link_frames", limits.link_frames_per_s, limits.link_frames_burst),
        ("state", limits.state_per_s, limits.state_burst),
        ("presence", limits.presence_per_s, limits.presence_burst),
        ("watch", limits.watch_per_s, limits.watch_burst),
        ("query", limits.query_per_s, limits.query_burst),
        ("send", limits.send_per_s, limits.send_burst),
        ("room", limits.room_per_s, limits.room_burst),
        ("room_send", limits.room_send_per_s, limits.room_send_burst),
        ("connects", limits.connects_per_s, limits.connects_burst),
        ("logins", limits.logins_per_s, limits.logins_burst),
        ("service_requests", limits.service_requests_per_s, limits.service_requests_burst),
    ] {
        let burst_min = per_s.get().div_ceil(1_000);
        if burst.get() < burst_min {
            reader.relation(
                &[&format!("limits.{name}_burst"), &format!("limits.{name}_per_s")],
                &format!("must be at least {burst_min}, a thousandth of limits.{name}_per_s ({per_s})"),
            );
        }
    }
}

fn times(settings: &Settings, reader: &mut Reader) {
    let home = &settings.home;
    if home.flush_interval * 3 > home.lease_ttl {
        reader.relation(
            &["home.flush_interval_ms", "home.lease_ttl_ms"],
            &format!("must not exceed a third of home.lease_ttl_ms ({})", home.lease_ttl.as_millis()),
        );
    }
    if settings.member_ttl() > home.lease_ttl {
        reader.relation(
            &["cluster.member_ttl_ms", "home.lease_ttl_ms"],
            &format!(
                "must not exceed home.lease_ttl_ms ({}): a dead node's shards would wait for their next home",
                home.lease_ttl.as_millis()
            ),
        );
    }
    let response = settings.redis.response_timeout;
    if settings.store.is_redis() && response.checked_mul(3).unwrap_or(Duration::MAX) > home.lease_ttl {
        reader.relation(
            &["redis.response_timeout_ms", "home.lease_ttl_ms"],
            &format!(
                "must not exceed a third of home.lease_ttl_ms ({}): a lease would run out over one slow answer",
                home.lease_ttl.as_millis()
            ),
        );
    }
}
