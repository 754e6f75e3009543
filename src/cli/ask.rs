//! One question to a running server: where it is, with which key, and what it answers. Shared by the commands that look at
//! one (`shards`, `top`). Speaks as much HTTP as that needs, and reads no more than an answer can have. What is answered
//! is others' text, and is shown on terminals: nobody gets it from here with anything in it that a terminal would obey.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV6, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::Settings;

/// How long a server may take for an answer, all of it, from when its name is an address: how long that takes is bounded by
/// the system's resolver alone.
const PATIENCE: Duration = Duration::from_secs(5);
/// An answer with its head. An overview of 4096 shards and 256 nodes, on each of which every alarm is on, is about a quarter
/// of it.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What is read at once.
const GULP_BYTES: usize = 64 * 1024;
/// A key is a line.
const KEY_BYTES_MAX: usize = 4 * 1024;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
/// How a URL begins that asks for TLS.
const HTTPS: &str = "https://";
/// That of a URL that names none.
const PORT: u16 = 80;

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
    /// It asks for what is not spoken here.
    #[error(
        "{0:?}: TLS is not supported here: name the service address itself, such as http://127.0.0.1:7701, on its host or through a tunnel"
    )]
    Tls(String),
    /// The key is none, since it is not one line: it could not be sent.
    #[error("HEARTH_SERVICE_KEY (service_key) must be one line, the key, without control characters")]
    Key,
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
    /// It answers with more than is read.
    #[error(
        "{0} answers with what is larger than {mib} MiB: is this its service address?",
        mib = ANSWER_BYTES_MAX / (1024 * 1024)
    )]
    Large(String),
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
        if url.get(..HTTPS.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(HTTPS)) {
            return Err(AskError::Tls(url.to_owned()));
        }
        let host = url.strip_prefix("http://").map(|host| host.trim_end_matches('/'));
        let host = host.and_then(host_in).ok_or_else(|| AskError::Url(url.to_owned()))?;
        let key = key.trim();
        // Whoever sent a line's end would send more than a key.
        if key.is_empty() || key.contains(char::is_control) {
            return Err(AskError::Key);
        }
        Ok(Self { url: format!("http://{host}"), host, key: key.to_owned() })
    }

    /// Where it is: `http://HOST:PORT`.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// What it answers to `GET path`, with nothing in it that a terminal would obey.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AskError> {
        let addresses: Vec<SocketAddr> =
            self.host.to_socket_addrs().map_err(|error| self.silent(error))?.take(ADDRESSES_MAX).collect();
        let deadline = Instant::now() + PATIENCE;
        let reached = first_of(&addresses, deadline, TcpStream::connect_timeout);
        let mut stream = reached.map_err(|error| self.silent(error))?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            self.host, self.key
        );
        let answer = exchange(&mut stream, request.as_bytes(), || left(deadline));
        let answer = answer.map_err(|error| self.silent(error))?;
        read(self.body_of(&answer)?).ok_or_else(|| self.strange())
    }

    fn silent(&self, source: io::Error) -> AskError {
        AskError::Silent { url: self.url.clone(), source }
    }

    fn strange(&self) -> AskError {
        AskError::Strange(self.url.clone())
    }

    /// What follows the head of a whole answer.
    fn body_of<'a>(&self, answer: &'a [u8]) -> Result<&'a [u8], AskError> {
        let cut_off = || io::Error::new(io::ErrorKind::UnexpectedEof, "its answer ends before it is whole");
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(AskError::Large(self.url.clone()));
        }
        if !answer.iter().zip(HTTP).all(|(one, other)| one == other) {
            return Err(self.strange());
        }
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let (head, body) =
            end.and_then(|end| answer.split_at_checked(end + 4)).ok_or_else(|| self.silent(cut_off()))?;
        let head = std::str::from_utf8(head).map_err(|_| self.strange())?;
        // `HTTP/1.1 200 OK`
        let status = head.get(HTTP.len() + 2..HTTP.len() + 5).and_then(|status| status.parse().ok());
        match status {
            Some(200) => {}
            Some(status @ (401 | 403)) => return Err(AskError::Refused { url: self.url.clone(), status }),
            // A proxy before a server that is away says so, too.
            Some(status @ (429 | 500..=599)) => return Err(AskError::Busy { url: self.url.clone(), status }),
            _ => return Err(self.strange()),
        }
        match length_in(head) {
            Some(length) if body.len() < length => Err(self.silent(cut_off())),
            _ => Ok(body),
        }
    }
}

/// What every answer begins with.
const HTTP: &[u8] = b"HTTP/1.";

/// How long the body is that follows this head, bytes, if it says so.
fn length_in(head: &str) -> Option<usize> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .find_map(|(_, value)| value.trim().parse().ok())
}

/// The host and the port of what follows `http://`: `HOST:PORT`.
fn host_in(text: &str) -> Option<String> {
    let is_plain = |c: char| !c.is_control() && !matches!(c, '/' | ' ' | '#' | '?' | '@');
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()?),
        _ => (text, PORT),
    };
    let host = format!("{name}:{port}");
    let is_name = !name.is_empty() && !name.contains([':', '[', ']']) && name.chars().all(is_plain);
    (is_name || host.parse::<SocketAddrV6>().is_ok()).then_some(host)
}

/// An answer's JSON, with nothing in it that a terminal would obey; none, if it is not of this kind.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_value(clean(serde_json::from_slice(body).ok()?)).ok()
}

/// Takes out of all text in an answer, names among it, what a terminal would obey or be misled by: control characters,
/// and those that turn the direction of what follows.
fn clean(told: Value) -> Value {
    match told {
        Value::String(text) => Value::String(cleaned(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(clean).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (cleaned(&name), clean(value))).collect())
        }
        plain => plain,
    }
}

/// One text of it.
fn cleaned(text: &str) -> String {
    let misleads = |c: char| matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    text.chars().filter(|c| !c.is_control() && !misleads(*c)).collect()
}

/// The one line of a file of a key.
fn key_in(path: &Path) -> Result<String, AskError> {
    let wrong = |why: String| AskError::KeyFile { path: path.display().to_string(), why };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    // One more, which tells that it is too long.
    let most = KEY_BYTES_MAX as u64 + 1;
    file.take(most).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    if text.len() > KEY_BYTES_MAX {
        return Err(wrong(format!("is longer than {KEY_BYTES_MAX} bytes: it must hold one line, the key")));
    }
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

/// The first of them that can be reached by `connect`, which is told where and how long it may take: what is left of the time
/// in equal shares for those that have not been tried, so that one that is silent takes none of them its turn.
fn first_of<T>(
    addresses: &[SocketAddr],
    deadline: Instant,
    connect: impl Fn(&SocketAddr, Duration) -> io::Result<T>,
) -> io::Result<T> {
    let mut why = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for (address, untried) in addresses.iter().zip((1..=ADDRESSES_MAX.min(addresses.len())).rev()) {
        let share = left(deadline)? / u32::try_from(untried).unwrap_or(u32::MAX);
        match connect(address, share) {
            Ok(reached) => return Ok(reached),
            Err(error) => why = error,
        }
    }
    Err(why)
}

/// Sends, and reads to the end, or to more than an answer can have. `left`: what is left of the time, never none.
fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    mut left: impl FnMut() -> io::Result<Duration>,
) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(request)?;
    let (mut answer, mut gulp) = (Vec::new(), vec![0; GULP_BYTES]);
    loop {
        stream.set_read_timeout(Some(left()?))?;
        let read = match stream.read(&mut gulp) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            read => read?,
        };
        answer.extend_from_slice(gulp.get(..read).unwrap_or_default());
        if read == 0 || answer.len() > ANSWER_BYTES_MAX {
            return Ok(answer);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    /// A server that answers this to the first question, whatever it is, and goes.
    pub(in crate::cli) fn answering(answer: impl Into<Vec<u8>>) -> Asked {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = answer.into();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.extend(byte);
            }
            // Whoever asked may have heard enough before.
            let _ = stream.write_all(&answer);
        });
        Asked::at(&url, "key").unwrap()
    }

    /// Its answer, if it is well.
    pub(in crate::cli) fn well(body: &Value) -> Vec<u8> {
        let body = body.to_string();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
    }

    #[test]
    fn what_is_no_address_of_ours_is_told() {
        for url in [
            "",
            "127.0.0.1:7701",
            "http://",
            "http://a b",
            "http://a/v1",
            "http://a\x1b[2J",
            "http://:7701",
            "http://a:",
            "http://a:seven",
            "http://a:70000",
            "http://::1",
            "http://[::1",
            "http://[a]:7701",
        ] {
            assert!(matches!(Asked::at(url, "key"), Err(AskError::Url(_))), "{url}");
        }
        for url in ["https://a", "HTTPS://a:7701/"] {
            assert!(matches!(Asked::at(url, "key"), Err(AskError::Tls(_))), "{url}");
        }
        for (url, is) in [
            ("http://a:1/", "http://a:1"),
            ("http://127.0.0.1:7701", "http://127.0.0.1:7701"),
            ("http://[::1]:7701", "http://[::1]:7701"),
            // As in any URL.
            ("http://a", "http://a:80"),
            ("http://[::1]/", "http://[::1]:80"),
        ] {
            assert_eq!(Asked::at(url, "key").map(|asked| asked.url).ok().as_deref(), Some(is));
        }
    }

    #[test]
    fn a_key_that_could_not_be_sent_is_told() {
        for key in ["one\ntwo", "one\r\nX-Other: two", "o\0ne", " \n"] {
            assert!(matches!(Asked::at("http://a", key), Err(AskError::Key)), "{key:?}");
        }
        // What a file's end leaves there is none of it.
        assert_eq!(Asked::at("http://a", "s3cret\n").map(|asked| asked.key).ok().as_deref(), Some("s3cret"));
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let asked = Asked::at("http://a", "key").unwrap();
        for status in [401, 403] {
            let refused = asked.body_of(format!("HTTP/1.1 {status} No\r\n\r\n{{}}").as_bytes()).err();
            assert!(matches!(refused, Some(AskError::Refused { status: told, .. }) if told == status));
        }
        for status in [429, 500, 502, 503, 504] {
            let busy = asked.body_of(format!("HTTP/1.1 {status} Oh\r\n\r\n{{}}").as_bytes()).err();
            assert!(
                matches!(&busy, Some(AskError::Busy { status: told, .. }) if *told == status),
                "{busy:?}"
            );
            assert!(busy.is_some_and(|error| error.is_outside()));
        }
        for strange in [
            &b"SSH-2.0\r\n\r\n"[..],
            b"SSH",
            b"HTTP/1.1 2\r\n\r\n",
            b"HTTP/1.1 404 No\r\n\r\n",
            b"HTTP/1.1 302 No\r\n\r\n",
        ] {
            let said = asked.body_of(strange);
            assert!(matches!(said, Err(AskError::Strange(_))), "{said:?}");
        }
        // A proxy of another age.
        assert!(matches!(asked.body_of(b"HTTP/1.0 200 OK\r\n\r\n{}"), Ok(b"{}")));
    }

    #[test]
    fn an_answer_that_is_cut_off_is_none() {
        for cut_off in [
            "",
            "HTT",
            "HTTP/1.1 200 OK\r\nContent-Le",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"node\":",
        ] {
            let said = answering(cut_off).get::<Value>("/v1/overview");
            let told = said.map_err(|error| (error.is_outside(), error.to_string()));
            let Err((true, told)) = told else { panic!("{cut_off:?}: {told:?}") };
            assert!(told.contains("does not answer (its answer ends before it is whole)"), "{told}");
        }
        let whole = answering(well(&serde_json::json!({"node": "a"}))).get::<Value>("/v1/overview");
        assert_eq!(whole.ok(), Some(serde_json::json!({"node": "a"})));
    }

    #[test]
    fn an_answer_without_an_end_is_read_to_a_bound() {
        let sent = |bytes: usize| {
            let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
            answer.resize(bytes - 2, b' ');
            answer.extend_from_slice(b"{}");
            answering(answer).get::<Value>("/v1/overview")
        };
        assert_eq!(sent(ANSWER_BYTES_MAX).ok(), Some(serde_json::json!({})));
        let told = sent(ANSWER_BYTES_MAX + 1).map_err(|error| (error.is_outside(), error.to_string()));
        let Err((false, told)) = told else { panic!("{told:?}") };
        assert!(told.contains("larger than 16 MiB"), "{told}");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let told = serde_json::json!({
            "nodes": [{"node": "a\x1b[2J\x07\u{9b}31m\r\n\tb", "x\x1by": 1}], "room": "\u{202e}txt\u{200f}", "n": 1.5,
        });
        assert_eq!(
            answering(well(&told)).get::<Value>("/v1/overview").ok(),
            Some(serde_json::json!({"nodes": [{"node": "a[2J31mb", "xy": 1}], "room": "txt", "n": 1.5}))
        );
    }

    #[test]
    fn every_address_of_a_name_has_its_share_of_the_time() {
        let addresses = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let (patience, tried) = (Duration::from_secs(60), RefCell::new(Vec::new()));
        let silent = first_of(&addresses, Instant::now() + patience, |address, share| {
            tried.borrow_mut().push((address.port(), share));
            Err::<(), _>(late())
        });
        assert_eq!(silent.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        let tried = tried.into_inner();
        let [(1, first), (2, second), (3, third)] = tried[..] else { panic!("{tried:?}") };
        assert!(first <= patience / 3 && second <= patience / 2 && third <= patience, "{tried:?}");
        assert!(!first.is_zero() && first < second && second < third, "{tried:?}");
        // The first that answers is it.
        let reached = first_of(&addresses, Instant::now() + patience, |address, _| {
            if address.port() == 2 { Ok(2) } else { Err(late()) }
        });
        assert_eq!(reached.ok(), Some(2));
        assert_eq!(
            first_of(&[], Instant::now(), |_, _| Ok(())).map_err(|error| error.kind()),
            Err(io::ErrorKind::NotFound)
        );
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
        // Nothing of it is dropped without a word.
        let long = "k".repeat(KEY_BYTES_MAX);
        assert_eq!(key(&long).unwrap(), long);
        assert!(key(&(long + "k")).is_err_and(|error| error.to_string().contains("longer than 4096 bytes")));
    }

    /// A link, and its other end.
    fn link() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (stream, listener.accept().unwrap().0)
    }

    #[test]
    fn who_drips_her_answer_is_not_waited_for_past_the_deadline() {
        let (mut stream, mut far) = link();
        let (go, goes) = channel();
        let drips = std::thread::spawn(move || {
            // Whoever asked may be gone.
            while goes.recv() == Ok(()) && far.write_all(b"H").is_ok() {}
        });
        // A byte comes for each that is waited for, also past the deadline, which is at the fourth; if she is waited for then,
        // it is all of an answer in the end.
        let (mut looks, mut go) = (0, Some(go));
        let late = exchange(&mut stream, b"GET\r\n\r\n", || {
            looks += 1;
            match &go {
                _ if looks > 9 => go = None,
                // For the request.
                _ if looks == 1 => {}
                Some(go) => go.send(()).unwrap(),
                None => {}
            }
            if looks > 4 { Err(late()) } else { Ok(PATIENCE) }
        });
        assert_eq!(late.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        assert_eq!(looks, 5);
        drop((go, stream));
        drips.join().unwrap();
    }

    #[test]
    fn who_says_nothing_is_late() {
        // The other end is held, and says nothing.
        let (mut stream, _far) = link();
        let deadline = Instant::now() + Duration::from_millis(20);
        let late = exchange(&mut stream, b"GET\r\n\r\n", || left(deadline));
        assert_eq!(late.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        assert!(Instant::now() >= deadline);
    }
}
