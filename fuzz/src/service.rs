//! What a game service sends: calls of the HTTP API, on a real server in this process.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hearth::config::{Flags, Settings, Sources};
use protocol::ErrorCode;
use serde_json::Value;

const KEY: &str = "the-key-of-the-fuzzer";
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
const TYPES: [&str; 4] = ["application/json", "application/msgpack", "text/plain", ""];
/// Above the longest that a call may wait.
const PATIENCE: Duration = Duration::from_secs(15);

/// Three bytes choose the method, the key and the type of the body; a line is the path, the rest the body. Whatever is
/// called, the server has no fault, each refusal is a problem that says what it should, and nothing opens without a key.
pub fn service(mut bytes: &[u8]) {
    let method = chosen(&METHODS, super::byte(&mut bytes));
    let has_key = !super::byte(&mut bytes).is_multiple_of(16);
    let kind = chosen(&TYPES, super::byte(&mut bytes));
    let (path, body) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => (bytes.get(..at).unwrap_or_default(), bytes.get(at + 1..).unwrap_or_default()),
        None => (bytes, &[][..]),
    };
    let path = written(path);
    let mut call = format!("{method} /{path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n", body.len());
    if !kind.is_empty() {
        let _ = write!(call, "Content-Type: {kind}\r\n");
    }
    if has_key {
        let _ = write!(call, "Authorization: Bearer {KEY}\r\n");
    }
    call.push_str("\r\n");
    judge(&answer(&[call.as_bytes(), body].concat()), has_key, &path);
}

fn judge(answer: &Answer, has_key: bool, path: &str) {
    let Answer { status, kind, body } = answer;
    let shown = String::from_utf8_lossy(body);
    let open = ["healthz", "readyz", "metrics", "openapi.json", "v1/openapi.json", "console"];
    // The root leads to the console.
    let is_open = open.iter().any(|open| path.starts_with(open)) || path.split('?').next() == Some("");
    assert!(has_key || is_open || *status >= 400, "/{path} answers {status} without a key: {shown}");
    match status {
        200..=299 if kind.starts_with("application/json") => {
            assert!(serde_json::from_slice::<Value>(body).is_ok(), "/{path}: {status} {shown}");
        }
        200..=299 => {}
        304 | 307 if is_open => {}
        // The HTTP library's own refusals: a path or a head that is too long.
        414 | 431 => {}
        503 if is_open => {}
        400..=499 | 501 | 503 => {
            assert!(kind.starts_with("application/problem+json"), "/{path}: {status} {kind} {shown}");
            let problem: Value = serde_json::from_slice(body).unwrap_or_default();
            let code = serde_json::from_value::<ErrorCode>(problem["code"].clone());
            assert!(code.is_ok_and(|code| code != ErrorCode::Internal), "/{path}: {status} {shown}");
            assert_eq!(problem["status"], *status, "/{path}: {shown}");
        }
        _ => panic!("/{path}: {status} {shown}"),
    }
}

fn chosen(among: &[&'static str], byte: u8) -> &'static str {
    among.get(usize::from(byte) % among.len()).copied().unwrap_or_default()
}

/// A path as HTTP takes it: what must not stand there is percent-encoded.
fn written(path: &[u8]) -> String {
    path.iter().fold(String::new(), |mut text, byte| {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => _ = write!(text, "%{byte:02X}"),
            b'!'..=b'~' => text.push(char::from(*byte)),
            _ => _ = write!(text, "%{byte:02X}"),
        }
        text
    })
}

struct Answer {
    status: u16,
    kind: String,
    body: Vec<u8>,
}

/// Calls over a connection that is kept; a second time over a new one if the server had closed it.
fn answer(call: &[u8]) -> Answer {
    static KEPT: Mutex<Option<BufReader<TcpStream>>> = Mutex::new(None);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let first = kept.take().map(|mut stream| (exchange(&mut stream, call), stream));
    let (answer, stream) = match first {
        Some((Ok(answer), stream)) => (answer, stream),
        _ => {
            let stream = TcpStream::connect(server()).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                Ok(BufReader::new(stream))
            });
            match stream.and_then(|mut stream| Ok((exchange(&mut stream, call)?, stream))) {
                Ok(answered) => answered,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    };
    *kept = Some(stream);
    answer
}

fn exchange(stream: &mut BufReader<TcpStream>, call: &[u8]) -> io::Result<Answer> {
    stream.get_mut().write_all(call)?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status: {line:?}")))?;
    let (mut kind, mut length) = (String::new(), None);
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name {
            "content-type" => value.clone_into(&mut kind),
            "content-length" => length = value.parse().ok(),
            _ => {}
        }
    }
    let mut body = vec![0; length.unwrap_or_default()];
    stream.read_exact(&mut body)?;
    Ok(Answer { status, kind, body })
}

/// The server, started when first asked for; it ends with the process.
fn server() -> SocketAddr {
    static STARTED: OnceLock<SocketAddr> = OnceLock::new();
    *STARTED.get_or_init(|| match start() {
        Ok(addr) => addr,
        Err(error) => panic!("no server: {error}"),
    })
}

fn start() -> io::Result<SocketAddr> {
    let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let data = std::env::temp_dir().join(format!("hearth-fuzz-{}", std::process::id()));
    let set = [
        ("client_addr", "127.0.0.1:0".to_owned()),
        ("service_addr", addr.to_string()),
        ("store", format!("embedded:{}", data.display())),
        ("service_key", KEY.to_owned()),
        ("cluster.shards", "4".to_owned()),
        // What the fuzzer makes goes by itself.
        ("session.pending_ms", "500".to_owned()),
        ("session.ttl_ms", "500".to_owned()),
        ("presence.grace_ms", "100".to_owned()),
        ("limits.service_requests_per_s", "1000000".to_owned()),
        ("limits.service_requests_burst", "1000000".to_owned()),
    ];
    let set = set.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let settings =
        Settings::from_sources(&Sources { flags: Flags { file: None, set }, ..Sources::default() })
            .map_err(io::Error::other)?;
    std::thread::spawn(move || {
        let ended = hearth::app::serve(settings);
        panic!("the server has ended: {ended:?}");
    });
    let deadline = Instant::now() + PATIENCE;
    let is_ready = || {
        let mut stream = BufReader::new(TcpStream::connect(addr).ok()?);
        stream.get_ref().set_read_timeout(Some(PATIENCE)).ok()?;
        exchange(&mut stream, b"GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n").ok()
    };
    while is_ready().is_none_or(|answer| answer.status != 200) {
        if Instant::now() > deadline {
            return Err(io::Error::other("it does not get ready"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // Open files outlive their names: nothing is left behind when the process ends.
    std::fs::remove_dir_all(data)?;
    Ok(addr)
}
