//! Where Redis is: from the store's URL to a client of the one server that it names. Called when the store is opened.
//! Sentinel and Cluster are refused until they are spoken.

use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{Client, ConnectionInfo, IntoConnectionInfo, TlsCertificates};

use crate::store::OpenError;

const KEEPALIVE: Duration = Duration::from_secs(10);
/// Sent bytes that stay unacknowledged for this long end the connection: a silent server is noticed by the kernel.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// A client of the server at `url`, and the server's address without any password.
pub(super) fn standalone(url: &str, ca_pem: Option<&[u8]>) -> Result<(Client, String), OpenError> {
    let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
    if matches!(scheme, "redis+sentinel" | "rediss+sentinel" | "redis+cluster" | "rediss+cluster") {
        return Err(OpenError::NotYetSpoken { scheme: scheme.to_owned() });
    }
    let bad = |reason: String| OpenError::BadUrl { scheme: scheme.to_owned(), reason };
    let info: ConnectionInfo = url.into_connection_info().map_err(|error| bad(error.to_string()))?;
    let address = format!("{scheme}://{}", info.addr());
    let info = info.set_tcp_settings(tcp_settings());
    let client = match ca_pem {
        None => Client::open(info),
        Some(pem) => {
            let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) };
            Client::build_with_tls(info, certificates)
        }
    };
    Ok((client.map_err(|error| bad(error.to_string()))?, address))
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
        ] {
            let (_, shown) = standalone(url, None).unwrap();
            assert_eq!(shown, address);
        }
    }

    #[test]
    fn what_is_not_spoken_yet_is_refused_by_name() {
        for url in ["redis+sentinel://a:26379,b:26379/mymaster", "redis+cluster://a:7000,b:7000"] {
            let message = standalone(url, None).err().map(|error| error.to_string()).unwrap();
            let scheme = url.split_once(':').unwrap().0;
            assert!(message.contains(scheme) && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_url_that_is_none_is_refused_without_its_password() {
        for url in
            ["redis://:secret@host:port", "redis://:secret@0.0.0.0:1", "redis://user:secret@host/x", "redis:"]
        {
            let message = standalone(url, None).err().map(|error| error.to_string()).unwrap();
            assert!(!message.contains("secret") && !message.contains('\n'), "{message}");
        }
    }
}
