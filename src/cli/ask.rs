//! One question to a running server: where it is, with which key, and what it answers. Shared by the commands that look at
//! one (`shards`, `top`). Speaks as much HTTP as that needs, and reads no more than an answer can have. What is answered
//! is others' text: whoever shows it on a terminal takes out of it what a terminal would obey.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use crate::config::Settings;

/// How long a server may take for an answer, all of it.
const PATIENCE: Duration = Duration::from_secs(5);
/// 4096 shards and 256 nodes are well below it.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What is read at once.
const GULP_BYTES: usize = 64 * 1024;
/// A key is a line.
const KEY_BYTES_MAX: u64 = 4 * 1024;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Where to ask, and with which key.
#[derive(Debug, Args)]
pub(super) struct AskFlags {
    /// Where the server answers services [default: http:// and service_addr]
    #[arg(long, value_name = "URL")]
    pub(super) service_url: Option<String>,
    /// The file that holds the service key [default: the key itself, from HEARTH_SERVICE_KEY]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The address is none.
    #[error("the service URL must be such as http://127.0.0.1:7701, not {0:?}")]
    Url(String),
    /// There is no key.
    #[error("set HEARTH_SERVICE_KEY to a key with the scope read, or name its file with --key-file")]
    NoKey,
    /// There is none in its file.
    #[error("--key-file: {path}: {why}")]
    KeyFile {
        /// Which.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody answers there.
    #[error("{url} does not answer ({source}): is the server running, and is this its service address?")]
    Silent {
        /// Where.
        url: String,
        /// What the system says.
        source: io::Error,
    },
    /// It answers that it cannot, now.
    #[error("{url} cannot answer now ({status})")]
    Busy {
        /// Where.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The key is not good for it.
    #[error("{url} refuses the key ({status}): it must be one with the scope read")]
    Refused {
        /// Where.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// Something else answers there.
    #[error("{0} does not answer as a hearth server does: is this its service address?")]
    Strange(String),
}

impl AskError {
    /// Whether it may be otherwise soon, with nothing changed here.
    pub(super) const fn is_outside(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Busy { .. })
    }
}

/// A server that can be asked.
#[derive(Clone)]
pub(super) struct Asked {
    url: String,
    /// `HOST:PORT`
    host: String,
    key: String,
}

impl Asked {
    /// As the command line and the settings name it.
    pub(super) fn named(flags: &AskFlags, settings: &Settings) -> Result<Self, AskError> {
        let url = flags.service_url.clone().unwrap_or_else(|| format!("http://{}", settings.service_addr));
        let key = match &flags.key_file {
            Some(path) => key_in(path)?,
            None => settings.service_key.as_ref().ok_or(AskError::NoKey)?.expose().to_owned(),
        };
        Self::at(&url, &key)
    }

    fn at(url: &str, key: &str) -> Result<Self, AskError> {
        let host = url.strip_prefix("http://").map(|host| host.trim_end_matches('/'));
        let is_plain = |c: char| !c.is_control() && !matches!(c, '/' | ' ' | '#' | '?' | '@');
        let host = host.filter(|host| !host.is_empty() && host.chars().all(is_plain));
        let host = host.ok_or_else(|| AskError::Url(url.to_owned()))?.to_owned();
        // No key holds a line's end: it could not be sent as a header.
        Ok(Self { url: format!("http://{host}"), host, key: key.trim().to_owned() })
    }

    /// Where it is: `http://HOST:PORT`.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The body of what it answers to `GET path`.
    pub(super) fn get(&self, path: &str) -> Result<Vec<u8>, AskError> {
        let deadline = Instant::now() + PATIENCE;
        let addresses: Vec<SocketAddr> =
            self.host.to_socket_addrs().map_err(|error| self.silent(error))?.take(ADDRESSES_MAX).collect();
        let mut stream = self.reach(&addresses, deadline)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            self.host, self.key
        );
        let answer = exchange(&mut stream, request.as_bytes(), deadline);
        self.body_of(&answer.map_err(|error| self.silent(error))?)
    }

    /// The first of them that can be reached.
    fn reach(&self, addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, AskError> {
        let mut why = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        for address in addresses {
            match left(deadline).and_then(|left| TcpStream::connect_timeout(address, left)) {
                Ok(stream) => return Ok(stream),
                Err(error) => why = error,
            }
        }
        Err(self.silent(why))
    }

    fn silent(&self, source: io::Error) -> AskError {
        AskError::Silent { url: self.url.clone(), source }
    }

    fn body_of(&self, answer: &[u8]) -> Result<Vec<u8>, AskError> {
        let strange = || AskError::Strange(self.url.clone());
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(strange)?;
        let (head, body) = answer.split_at_checked(end + 4).ok_or_else(strange)?;
        let head = std::str::from_utf8(head).map_err(|_| strange())?;
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        match status {
            Some(200) => Ok(body.to_vec()),
            Some(status @ (401 | 403)) => Err(AskError::Refused { url: self.url.clone(), status }),
            Some(status @ (429 | 503)) => Err(AskError::Busy { url: self.url.clone(), status }),
            _ => Err(strange()),
        }
    }
}

/// The one line of a file of a key.
fn key_in(path: &Path) -> Result<String, AskError> {
    let wrong = |why: String| AskError::KeyFile { path: path.display().to_string(), why };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    file.take(KEY_BYTES_MAX).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    let key = text.trim();
    if key.is_empty() || key.contains(char::is_control) {
        return Err(wrong("must hold one line, the key".to_owned()));
    }
    Ok(key.to_owned())
}

/// What is left of the time.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left) }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("not within {} s", PATIENCE.as_secs()))
}

/// Sends, and reads to the end, or to as much as an answer can have.
fn exchange(stream: &mut TcpStream, request: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request)?;
    let (mut answer, mut gulp) = (Vec::new(), vec![0; GULP_BYTES]);
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let read = match stream.read(&mut gulp) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            read => read?,
        };
        answer.extend_from_slice(gulp.get(..read).unwrap_or_default());
        if read == 0 || answer.len() >= ANSWER_BYTES_MAX {
            return Ok(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_of_ours_is_told() {
        for url in
            ["", "127.0.0.1:7701", "https://a", "http://", "http://a b", "http://a/v1", "http://a\x1b[2J"]
        {
            assert!(matches!(Asked::at(url, "key"), Err(AskError::Url(_))), "{url}");
        }
        assert_eq!(
            Asked::at("http://a:1/", "key").map(|asked| asked.url).ok().as_deref(),
            Some("http://a:1")
        );
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let asked = Asked::at("http://a", "key").unwrap();
        let refused = asked.body_of(b"HTTP/1.1 401 Unauthorized\r\n\r\n{}");
        assert!(matches!(refused, Err(AskError::Refused { status: 401, .. })));
        let busy = asked.body_of(b"HTTP/1.1 503 Service Unavailable\r\n\r\n{}");
        assert!(matches!(busy, Err(AskError::Busy { status: 503, .. })));
        for strange in [&b""[..], b"SSH-2.0\r\n\r\n", b"HTTP/1.1 500 Oh\r\n\r\n", b"HTTP/1.1 2\r\n\r\n"] {
            assert!(matches!(asked.body_of(strange), Err(AskError::Strange(_))));
        }
    }

    #[test]
    fn a_key_is_one_line_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = |text: &str| {
            std::fs::write(&path, text).unwrap();
            key_in(&path)
        };
        assert_eq!(key("  s3cret\r\n").unwrap(), "s3cret");
        for text in ["", " \n", "one\ntwo", "one\r\nX-Other: two"] {
            assert!(matches!(key(text), Err(AskError::KeyFile { .. })), "{text:?}");
        }
        assert!(matches!(key_in(&folder.path().join("none")), Err(AskError::KeyFile { .. })));
    }

    #[test]
    fn who_drips_her_answer_is_not_waited_for_past_the_deadline() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let drips = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Ends when whoever asked has gone.
            while stream.write_all(b"H").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let mut stream = TcpStream::connect(address).unwrap();
        let late = exchange(&mut stream, b"GET\r\n\r\n", Instant::now() + Duration::from_millis(60));
        assert_eq!(late.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        drop(stream);
        drips.join().unwrap();
    }
}
