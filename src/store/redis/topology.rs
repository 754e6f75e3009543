//! Where Redis is: from the store's URL to one server, to sentinels that name it, or to the nodes of a cluster, and how
//! each of them is reached. Called when the store is opened; it connects to nothing.

use std::fmt;
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisResult, TlsCertificates};

use crate::store::OpenError;

const KEEPALIVE: Duration = Duration::from_secs(10);
/// Sent bytes that stay unacknowledged for this long end the connection: a silent server is noticed by the kernel.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(5);
const SENTINEL_PORT: u16 = 26_379;
const SERVER_PORT: u16 = 6_379;
/// Most sentinels or nodes that a URL may name.
const ADDRESSES_MAX: usize = 64;
/// A parameter that does nothing would be taken for one that does.
const UNKNOWN_PARAMETER: &str = "it has a parameter that is not known";

/// Where one server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// Reads `HOST`, `HOST:PORT` or `[V6]:PORT`; `None` for anything that nobody can connect to.
    pub(super) fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
            }
            None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Some(default_port), |port| port.parse().ok())?;
        let is_wild = host.is_empty() || host == "0.0.0.0" || host == "::";
        let is_odd = host.chars().any(|c| c.is_whitespace() || c.is_control() || "/?#@,[]".contains(c));
        (!is_wild && !is_odd && port > 0).then(|| Self { host: host.to_owned(), port })
    }

    /// Reads the `HOST:PORT` of a redirection, in which an IPv6 host has no brackets and an unknown one is empty:
    /// then it is the host that was asked.
    pub(super) fn parse_redirection(text: &str, asked: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let host = if host.is_empty() || host == "?" { asked.host.clone() } else { host.to_owned() };
        Some(Self { host, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// How servers that share user, password, database and encryption are reached.
#[derive(Clone)]
pub(super) struct Access {
    like: Box<ConnectionInfo>,
    ca_pem: Option<Vec<u8>>,
}

impl Access {
    /// Whether they are spoken to with TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.like.addr(), ConnectionAddr::TcpTls { .. })
    }

    /// A client of the server there. Connects to nothing.
    pub(super) fn client(&self, at: &Address) -> RedisResult<Client> {
        let (host, port) = (at.host.clone(), at.port);
        let addr = match self.like.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                let (insecure, tls_params) = (*insecure, tls_params.clone());
                ConnectionAddr::TcpTls { host, port, insecure, tls_params }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        client(ConnectionInfo::clone(&self.like).set_addr(addr), self.ca_pem.as_deref())
    }
}

/// What a URL names.
pub(super) enum Shape {
    /// One server, wherever it is.
    Standalone(Client),
    /// The master of this name, wherever sentinels say that it is.
    Sentinel { sentinels: Vec<Address>, master: String, to_sentinels: Access, to_servers: Access },
    /// The cluster to which these nodes belong.
    Cluster { seeds: Vec<Address>, to_nodes: Access },
}

/// A URL, read.
pub(super) struct Target {
    pub(super) shape: Shape,
    /// The URL without any password.
    pub(super) shown: String,
}

/// Reads the store's URL: the one place that does.
pub(super) fn target(url: &str, ca_pem: Option<&[u8]>) -> Result<Target, OpenError> {
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    if ca_pem.is_some() && !matches!(scheme, "rediss" | "valkeys" | "rediss+sentinel" | "rediss+cluster") {
        return Err(OpenError::NotEncrypted { scheme: scheme.to_owned() });
    }
    let read = match scheme {
        "redis+sentinel" | "rediss+sentinel" => sentinel(scheme, rest, ca_pem),
        "redis+cluster" | "rediss+cluster" => cluster(scheme, rest, ca_pem),
        _ => standalone(scheme, url, ca_pem),
    };
    read.map_err(|reason| OpenError::BadUrl { scheme: scheme.to_owned(), reason, form: form(scheme) })
}

/// How a URL of this scheme is written.
fn form(scheme: &str) -> &'static str {
    match scheme.trim_start_matches("rediss").trim_start_matches("redis") {
        "+sentinel" => {
            "redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/MASTER[/DB][?sentinel_user=USER&sentinel_password=PASSWORD]"
        }
        "+cluster" => "redis+cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT",
        "+unix" => "redis+unix:///PATH[?db=DB&user=USER&pass=PASSWORD]",
        _ => "redis://[USER:PASSWORD@]HOST:PORT[/DB]",
    }
}

fn standalone(scheme: &str, url: &str, ca_pem: Option<&[u8]>) -> Result<Target, String> {
    let (_, rest) = url.split_once(':').unwrap_or((url, ""));
    if scheme.ends_with("unix") {
        judge_socket(rest)?;
    } else {
        judge_server(scheme, rest)?;
    }
    let info: ConnectionInfo = url.into_connection_info().map_err(|error| error.to_string())?;
    let shown = format!("{scheme}://{}", info.addr());
    let client = client(info, ca_pem).map_err(|error| error.to_string())?;
    Ok(Target { shape: Shape::Standalone(client), shown })
}

/// What the library would overlook in the URL of one server, or take for something else.
fn judge_server(scheme: &str, rest: &str) -> Result<(), String> {
    let is_tls = matches!(scheme, "rediss" | "valkeys");
    let rest = if is_tls { rest.strip_suffix("#insecure").unwrap_or(rest) } else { rest };
    let parts = Parts::of(rest, SERVER_PORT)?;
    if parts.addresses.len() > 1 {
        return Err(
            "it names several hosts: those of sentinels or of a cluster have schemes of their own".into()
        );
    }
    if !parts.query.is_empty() {
        return Err(UNKNOWN_PARAMETER.into());
    }
    judge_db(parts.path.trim_start_matches('/'))
}

/// The same of a socket's, which has everything but its path behind the question mark.
fn judge_socket(rest: &str) -> Result<(), String> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with("///") || path.len() < 4 || path.contains('#') {
        return Err("the path of the socket is missing".into());
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("db", db)) => judge_db(db)?,
            Some(("user" | "pass", value)) => judge_escapes(value)?,
            _ => return Err(UNKNOWN_PARAMETER.into()),
        }
    }
    Ok(())
}

fn judge_db(db: &str) -> Result<(), String> {
    let is_good =
        db.is_empty() || (db.parse::<u16>().is_ok() && db.bytes().all(|byte| byte.is_ascii_digit()));
    if is_good { Ok(()) } else { Err("its database is no number".into()) }
}

/// User and password as they stand before the @.
fn judge_login(login: &str) -> Result<(), String> {
    if !login.is_empty() && !login.contains(':') {
        return Err(
            "before the @ stands a user without a password: write USER:PASSWORD@ or :PASSWORD@".into()
        );
    }
    judge_escapes(login)
}

fn judge_escapes(text: &str) -> Result<(), String> {
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("there is a space in its user or password: write %20".into());
    }
    if text.split('%').skip(1).all(is_escape) {
        Ok(())
    } else {
        Err("a % in its user or password is written %25".into())
    }
}

fn sentinel(scheme: &str, rest: &str, ca_pem: Option<&[u8]>) -> Result<Target, String> {
    let parts = Parts::of(rest, SENTINEL_PORT)?;
    let (master, db) = parts.path.split_once('/').unwrap_or((parts.path, ""));
    if master.is_empty() {
        return Err("the name of the master is missing behind the sentinels".into());
    }
    let (mut user, mut password) = ("", "");
    for pair in parts.query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sentinel_user", value)) => user = value,
            Some(("sentinel_password", value)) => password = value,
            _ => return Err(UNKNOWN_PARAMETER.into()),
        }
    }
    judge_db(db)?;
    if password.is_empty() && !user.is_empty() {
        return Err("sentinel_user goes together with sentinel_password".into());
    }
    let login = if password.is_empty() { String::new() } else { format!("{user}:{password}") };
    judge_login(&login)?;
    let shown = format!("{scheme}://{}/{master}", listed(&parts.addresses));
    let shape = Shape::Sentinel {
        master: master.to_owned(),
        to_sentinels: access(scheme, &login, "", ca_pem)?,
        to_servers: access(scheme, parts.login, db, ca_pem)?,
        sentinels: parts.addresses,
    };
    Ok(Target { shape, shown })
}

fn cluster(scheme: &str, rest: &str, ca_pem: Option<&[u8]>) -> Result<Target, String> {
    let parts = Parts::of(rest, SERVER_PORT)?;
    if !matches!(parts.path, "" | "0") {
        return Err("a cluster has database 0 alone".into());
    }
    if !parts.query.is_empty() {
        return Err(UNKNOWN_PARAMETER.into());
    }
    let shown = format!("{scheme}://{}", listed(&parts.addresses));
    let to_nodes = access(scheme, parts.login, "", ca_pem)?;
    Ok(Target { shape: Shape::Cluster { seeds: parts.addresses, to_nodes }, shown })
}

/// A URL with several hosts, taken apart. What the library reads has one.
struct Parts<'a> {
    login: &'a str,
    addresses: Vec<Address>,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn of(rest: &'a str, default_port: u16) -> Result<Self, String> {
        let rest = rest.strip_prefix("//").ok_or("// is missing behind its colon")?;
        if rest.contains('#') {
            return Err("it has a #, which in a password is written %23".into());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        judge_login(login)?;
        let addresses: Option<Vec<_>> =
            hosts.split(',').map(|host| Address::parse(host, default_port)).collect();
        let addresses = addresses.ok_or("a host is missing, or what stands behind one is no port")?;
        if addresses.len() > ADDRESSES_MAX {
            return Err(format!("it names more than {ADDRESSES_MAX} hosts"));
        }
        Ok(Self { login, addresses, path: path.trim_end_matches('/'), query })
    }
}

fn listed(addresses: &[Address]) -> String {
    addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(",")
}

/// Reads user, password and database as the library does, from a URL with a host that nobody asks.
fn access(scheme: &str, login: &str, db: &str, ca_pem: Option<&[u8]>) -> Result<Access, String> {
    let plain = scheme.split_once('+').map_or(scheme, |(plain, _)| plain);
    let at = if login.is_empty() { "" } else { "@" };
    let url = format!("{plain}://{login}{at}localhost/{db}");
    let like = url.into_connection_info().map_err(|error| error.to_string())?;
    Ok(Access { like: Box::new(like), ca_pem: ca_pem.map(<[u8]>::to_vec) })
}

fn client(info: ConnectionInfo, ca_pem: Option<&[u8]>) -> RedisResult<Client> {
    let info = info.set_tcp_settings(tcp_settings());
    match ca_pem {
        None => Client::open(info),
        Some(pem) => {
            let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) };
            Client::build_with_tls(info, certificates)
        }
    }
}

fn tcp_settings() -> TcpSettings {
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE));
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(USER_TIMEOUT);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_where_and_keeps_the_password() {
        for (url, address) in [
            ("redis://:secret@10.0.0.1:7000/2", "redis://10.0.0.1:7000"),
            ("redis://user:secret@redis.example", "redis://redis.example:6379"),
            ("rediss://redis.example:6380", "rediss://redis.example:6380"),
            ("redis+unix:///run/redis.sock", "redis+unix:///run/redis.sock"),
            ("redis+unix:///run/redis.sock?db=2&user=u&pass=secret", "redis+unix:///run/redis.sock"),
            ("rediss://us%40er:secret%25@redis.example/15#insecure", "rediss://redis.example:6379"),
            (
                "redis+sentinel://user:secret@a:7,[::1]:8,c/main/3?sentinel_user=u&sentinel_password=secret",
                "redis+sentinel://a:7,[::1]:8,c:26379/main",
            ),
            ("rediss+cluster://:secret@a:7000,b/", "rediss+cluster://a:7000,b:6379"),
        ] {
            assert_eq!(target(url, None).unwrap_or_else(|error| panic!("{url}: {error}")).shown, address);
        }
    }

    #[test]
    fn sentinels_and_servers_have_logins_of_their_own() {
        let url = "rediss+sentinel://us%40er:pass%2Fword@a:7,b/main/3?sentinel_password=s%26cret";
        let Shape::Sentinel { sentinels, master, to_sentinels, to_servers } =
            target(url, None).unwrap().shape
        else {
            panic!("sentinels")
        };
        assert_eq!((sentinels.len(), master.as_str()), (2, "main"));
        let at = Address { host: "there".into(), port: 9 };
        let servers = to_servers.client(&at).unwrap();
        let settings = servers.get_connection_info().redis_settings();
        assert_eq!((settings.username(), settings.password()), (Some("us@er"), Some("pass/word")));
        assert_eq!(settings.db(), 3);
        let sentinels = to_sentinels.client(&at).unwrap();
        let settings = sentinels.get_connection_info().redis_settings();
        assert_eq!((settings.username(), settings.password()), (None, Some("s&cret")));
        assert_eq!(settings.db(), 0);
        for client in [servers, sentinels] {
            let addr = client.get_connection_info().addr();
            assert!(
                matches!(addr, ConnectionAddr::TcpTls { host, port: 9, insecure: false, .. } if host == "there")
            );
        }
    }

    #[test]
    fn a_url_that_is_none_is_refused_without_its_password_and_told_how_it_is_written() {
        for url in [
            "redis://:secret@host:port",
            "redis://:secret@0.0.0.0:1",
            "redis://user:secret@host/x",
            "redis://:secret@host/-1",
            "redis://:secret@host/1/2",
            "redis://:secret@host:70000",
            "redis://:secret@host:0",
            "redis://:secret@host?timeout=secret",
            "redis://secret@host",
            "redis://:sec%ret@host",
            "redis://:a secret@host",
            "redis://:a#secret@host",
            "redis://:a/secret@host",
            "redis://:secret@host#insecure",
            "redis://:secret@a:1,b:2",
            "redis+unix://",
            "redis+unix:///",
            "redis+unix:///run/redis.sock?db=x&pass=secret",
            "redis+unix:///run/redis.sock?password=secret",
            "redis:",
            "redis+sentinel:",
            "redis+sentinel://:secret@a:26379",
            "redis+sentinel://:secret@a:26379/",
            "redis+sentinel://:secret@a:26379/main/x",
            "redis+sentinel://:secret@a:26379/main?password=secret",
            "redis+sentinel://:secret@a:26379/main?sentinel_user=secret",
            "redis+sentinel://secret@a:26379/main",
            "redis+sentinel://:secret@a:26379,/main",
            "redis+sentinel://:secret@a:port/main",
            "redis+cluster://:secret@a:7000/1",
            "redis+cluster://:secret@a:7000?x=secret",
            "redis+cluster://:secret@",
            "rediss+cluster://:secret@0.0.0.0:7000",
        ] {
            let message = target(url, None).err().map(|error| error.to_string()).expect(url);
            assert!(!message.contains("secret") && !message.contains('\n'), "{message}");
            let form = message.rsplit_once("): write ").unwrap().1;
            let scheme = url.split_once(':').unwrap().0.replace("rediss", "redis");
            assert!(form.starts_with(&format!("{scheme}://")), "{url}: {message}");
        }
    }

    #[test]
    fn a_redirection_may_leave_the_host_out() {
        let asked = Address { host: "here".into(), port: 1 };
        for (text, found) in [
            ("10.0.0.7:6380", Some("10.0.0.7:6380")),
            (":6380", Some("here:6380")),
            ("?:6380", Some("here:6380")),
            ("fe80::1:6380", Some("[fe80::1]:6380")),
            ("host:0", None),
            ("host", None),
        ] {
            let address = Address::parse_redirection(text, &asked);
            assert_eq!(address.map(|address| address.to_string()).as_deref(), found, "{text}");
        }
    }
}
