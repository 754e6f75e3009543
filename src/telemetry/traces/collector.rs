//! Who takes spans: where it listens, with which headers, and one call at a time to it. A connection of its own for each
//! call, on the HTTP library that serves the service API: batches are few. Called by `exporter`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use bytes::Bytes;
use futures_util::FutureExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where traces go if the URL names no path (OTLP/HTTP).
const PATH: &str = "/v1/traces";
/// How long one call may take.
const POST_WITHIN: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The headers that are said already, or that say where a request ends.
const OURS: [HeaderName; 6] = [
    header::HOST,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
];

/// What is wrong with how a collector is named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectorError {
    /// The URL.
    #[error(
        "must be such as http://127.0.0.1:4318, with a path if it is not {PATH}, and without a user or a query"
    )]
    Url,
    /// The headers; never repeated, they may hold a secret.
    #[error("must be name=value, several of them with commas or on lines of their own")]
    Headers,
    /// A header that each request has by itself.
    #[error("take {0} out: each request says it by itself")]
    Ours(HeaderName),
}

/// A collector.
#[derive(Clone)]
pub struct Collector {
    host: String,
    port: u16,
    path: String,
    is_encrypted: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Made for the first call.
    tls: OnceLock<TlsConnector>,
}

/// Where it is; not what it is told in headers.
impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// What came of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Posted {
    /// Taken, but for so many spans.
    Taken {
        /// Spans that were refused.
        refused: usize,
    },
    /// Refused for good.
    Refused(String),
    /// Not now: to be tried again.
    Later(String),
}

impl Collector {
    /// The collector at this URL.
    ///
    /// # Errors
    /// [`CollectorError::Url`].
    pub fn at(url: &str) -> Result<Self, CollectorError> {
        let (is_encrypted, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(CollectorError::Url),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains(['@', '?', '#', '"']);
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an address of IPv6 are its own.
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| CollectorError::Url)?)
            }
            _ => (authority, if is_encrypted { 443 } else { 80 }),
        };
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        if !is_plain || host.is_empty() || port == 0 || host.contains(':') && !is_bracketed {
            return Err(CollectorError::Url);
        }
        let path = if matches!(path, "" | "/") { PATH } else { path };
        let (host, path) = (host.to_owned(), path.to_owned());
        Ok(Self { host, port, path, is_encrypted, headers: Vec::new(), tls: OnceLock::new() })
    }

    /// With these headers: `name=value`, apart by commas or lines.
    ///
    /// # Errors
    /// [`CollectorError::Headers`].
    pub fn with_headers(mut self, headers: &str) -> Result<Self, CollectorError> {
        for header in headers.split([',', '\n', '\r']).map(str::trim).filter(|header| !header.is_empty()) {
            let (name, value) = header.split_once('=').ok_or(CollectorError::Headers)?;
            let name: HeaderName = name.trim().parse().map_err(|_| CollectorError::Headers)?;
            if OURS.contains(&name) {
                return Err(CollectorError::Ours(name));
            }
            let mut value: HeaderValue = value.trim().parse().map_err(|_| CollectorError::Headers)?;
            value.set_sensitive(true);
            self.headers.push((name, value));
        }
        Ok(self)
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Gives it one request of OTLP.
    pub(super) async fn post(&self, body: Bytes) -> Posted {
        match tokio::time::timeout(POST_WITHIN, self.call(body)).await {
            Ok(Ok((status, answer))) => judge(status, &answer),
            Ok(Err(error)) => Posted::Later(error),
            Err(_) => Posted::Later("no answer in time".to_owned()),
        }
    }

    async fn call(&self, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, self.port)).await.map_err(told)?;
        if !self.is_encrypted {
            return self.speak(stream, body).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(told)?;
        let tls = match self.tls.get() {
            Some(made) => made,
            None => {
                let made = tls()?;
                self.tls.get_or_init(|| made)
            }
        };
        let stream = tls.connect(name, stream).await.map_err(told)?;
        self.speak(stream, body).await
    }

    async fn speak<S>(&self, stream: S, body: Bytes) -> Result<(StatusCode, Bytes), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
        let mut request = Request::post(&self.path)
            .header(header::HOST, self.authority())
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::USER_AGENT, concat!("hearth/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Body::from(body)).map_err(told)?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(told)?;
            let (status, body) = (answer.status(), Body::new(answer.into_body()));
            // Whatever it says beyond that is nobody's to read.
            Ok((status, axum::body::to_bytes(body, ANSWER_BYTES_MAX).await.unwrap_or_default()))
        };
        let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection.fuse()));
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // It has come to its end: what there is of an answer is here.
            _ = &mut connection => answer.await,
        }
    }
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The authorities that everybody trusts.
fn tls() -> Result<TlsConnector, String> {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(told)?.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What an answer means, as OTLP/HTTP has it.
fn judge(status: StatusCode, answer: &[u8]) -> Posted {
    match status.as_u16() {
        200..=299 => Posted::Taken { refused: super::otlp::refused(answer) },
        429 | 502 | 503 | 504 => Posted::Later(format!("it answers {status}")),
        _ => Posted::Refused(format!("it answers {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> String {
        format!("{:?}", Collector::at(url).expect(url))
    }

    #[test]
    fn a_url_names_where_a_collector_listens() {
        for (url, said) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://jaeger:4318/", "http://jaeger:4318/v1/traces"),
            ("http://jaeger", "http://jaeger:80/v1/traces"),
            ("https://collect.example.com", "https://collect.example.com:443/v1/traces"),
            (
                "https://collect.example.com:8443/otlp/v1/traces",
                "https://collect.example.com:8443/otlp/v1/traces",
            ),
            ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
            ("http://[::1]", "http://[::1]:80/v1/traces"),
        ] {
            assert_eq!(read(url), said);
        }
        for wrong in [
            "",
            "127.0.0.1:4318",
            "grpc://jaeger:4317",
            "http://",
            "http://:4318",
            "http://jaeger:0",
            "http://jaeger:x",
            "http://jaeger:70000",
            "http://user:secret@jaeger:4318",
            "http://jaeger:4318/?key=secret",
            "http://a b",
            "http://::1:4318",
            "http://jaeger:4318/\"x",
        ] {
            assert_eq!(Collector::at(wrong).err(), Some(CollectorError::Url), "{wrong}");
        }
    }

    #[test]
    fn headers_are_taken_apart_and_never_shown() {
        let at = || Collector::at("http://jaeger").expect("a URL");
        let collector = at()
            .with_headers("x-key=s3cret==, Authorization=Bearer t0ken\nx-team = games \n\n")
            .expect("headers");
        let told: Vec<_> =
            collector.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(told, [("x-key", "s3cret=="), ("authorization", "Bearer t0ken"), ("x-team", "games")]);
        let shown = format!("{collector:?} {:?}", collector.headers);
        assert!(!shown.contains("s3cret") && !shown.contains("t0ken"), "{shown}");
        assert!(at().with_headers("").expect("none").headers.is_empty());
        for wrong in ["s3cret", "=x", "a b=c", "x-key=\u{7f}"] {
            let error = at().with_headers(wrong).expect_err(wrong);
            assert!(!error.to_string().contains(wrong), "{error}");
        }
        for ours in ["x-key=a,Host=evil", "content-length=5", "Transfer-Encoding=chunked"] {
            assert!(matches!(at().with_headers(ours), Err(CollectorError::Ours(_))), "{ours}");
        }
    }

    #[test]
    fn what_may_go_well_later_is_told_from_what_will_not() {
        assert_eq!(judge(StatusCode::OK, b""), Posted::Taken { refused: 0 });
        for later in [429, 502, 503, 504] {
            assert!(matches!(judge(StatusCode::from_u16(later).unwrap(), b""), Posted::Later(_)), "{later}");
        }
        for never in [301, 400, 401, 404, 413, 500] {
            assert!(
                matches!(judge(StatusCode::from_u16(never).unwrap(), b""), Posted::Refused(_)),
                "{never}"
            );
        }
    }
}
