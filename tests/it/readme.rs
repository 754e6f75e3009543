//! What the README and the specification show works as it stands there: the page in a real browser, the service's
//! calls with curl, and the client that was written from `protocol/README.md` alone. Addresses are the only change.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A browser needs its time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const KEY: &str = "secret";

/// A server with a service key, on its own folder.
struct Server {
    child: Child,
    clients: String,
    services: String,
    _folder: TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("embedded:{}", folder.path().join("data").display());
        let mut child = Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args(["--client-addr", "127.0.0.1:0", "--service-addr", "127.0.0.1:0", "--store", &store])
            .env("HEARTH_SERVICE_KEY", KEY)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut said = |name: &str| {
            let line =
                lines.find(|line| line.trim_start().starts_with(name)).expect("the server says where it is");
            line.trim_start().trim_start_matches(name).trim().to_owned()
        };
        let (clients, services) = (said("clients"), said("services"));
        Self { child, clients, services, _folder: folder }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The fenced block of the README that starts with this word.
fn block(language: &str, word: &str) -> String {
    let readme = include_str!("../../README.md");
    let start = format!("```{language}\n{word}");
    let from =
        readme.find(&start).unwrap_or_else(|| panic!("the README has no block that starts with {word}"));
    let body = &readme[from + language.len() + 4..];
    body[..body.find("```").unwrap()].to_owned()
}

/// Answers one page to a browser and returns what the page posts back.
fn posted_by(page: &str, listener: &TcpListener) -> String {
    let deadline = Instant::now() + PATIENCE;
    listener.set_nonblocking(true).unwrap();
    while Instant::now() < deadline {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        if let Some(posted) = answer(stream, page) {
            return posted;
        }
    }
    panic!("the page did not report in time");
}

fn answer(mut stream: TcpStream, page: &str) -> Option<String> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if header.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let page = if first.starts_with("GET / ") { page } else { "" };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    )
    .ok()?;
    first.starts_with("POST").then(|| String::from_utf8(body).unwrap())
}

#[test]
fn the_page_of_the_readme_works_in_a_browser() {
    let server = Server::start();
    let snippet = block("html", "<pre").replace("ws://127.0.0.1:7700/v1/connect", &server.clients);
    // Reports what the page shows once the push has arrived. That she is online may be told in one of its own before.
    let report =
        "<script>const wait = setInterval(() => { const text = document.querySelector('#log').textContent;
        if (text.includes('harbour')) { clearInterval(wait); fetch('/seen', { method: 'POST', body: text }); }
    }, 20);</script>";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let profile = tempfile::tempdir().unwrap();
    let mut browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromium is missing: apt-get install chromium (tests/run does)");
    let seen = std::panic::catch_unwind(|| posted_by(&format!("{snippet}{report}"), &listener));
    let _ = browser.kill();
    let _ = browser.wait();
    let seen = seen.unwrap();
    assert!(seen.contains("ann is here, login 1"), "{seen}");
    assert!(seen.contains(r#"push presence {"items":[{"activity":{"map":"harbour"}"#), "{seen}");
}

#[test]
fn the_calls_of_the_readme_work_with_curl() {
    let server = Server::start();
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/client.py");
    // Somebody must be here to be kicked.
    let mut ann = Command::new("python3")
        .args(["-c", STAYS, python, &server.clients])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is missing");
    let mut lines = BufReader::new(ann.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("here"));
    let calls = block("sh", "curl").replace("http://127.0.0.1:7701", &server.services);
    let output =
        Command::new("sh").args(["-e", "-c", &calls.replace("\ncurl", "\necho; curl")]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{said}"))).collect();
    assert_eq!(answers.len(), 4, "{said}");
    assert_eq!(answers[0]["presence"]["status"], "online", "{said}");
    assert_eq!(answers[1]["presences"][1]["status"], "offline", "{said}");
    assert_eq!(answers[2]["delivered"], 1, "{said}");
    assert_eq!(answers[3]["sessions"], 1, "{said}");
    assert_eq!(lines.next().as_deref(), Some("message {'gift': 'sword'}"));
    assert_eq!(lines.next().as_deref(), Some("bye 4502 see you tomorrow"));
    let _ = ann.wait();
}

/// A player who logs in, says so, and tells the first message and the farewell. Uses the test's own client.
const STAYS: &str = r#"
import importlib.util, sys
spec = importlib.util.spec_from_file_location("client", sys.argv[1])
client = importlib.util.module_from_spec(spec)
spec.loader.exec_module(client)
link = client.Client(sys.argv[2], "json")
link.ask("login", token="dev:ann")
print("here", flush=True)
for op, _, body in iter(link.read, None):
    if op == "message":
        print("message", body["data"], flush=True)
    if op == "bye":
        print("bye", body["code"], body["reason"], flush=True)
        break
"#;

#[test]
fn a_client_written_from_the_specification_alone_works_in_both_encodings() {
    let server = Server::start();
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/client.py");
    let output = Command::new("python3")
        .args([python, "--url", &server.clients])
        .output()
        .expect("python3 is missing");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
