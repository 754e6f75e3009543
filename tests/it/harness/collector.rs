//! A collector of traces: `tests/otlp/collector.py`, which knows OTLP by its official messages and not by our code.
//! `tests/run --install` installs what it needs; a missing one is a loud failure. Ends with the value.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use super::patience::until;

/// How often a port is tried that somebody else has, and how long after one another.
const TRIES_MAX: usize = 40;
const TRY_INTERVAL: Duration = Duration::from_millis(250);

/// A collector that runs, and the spans that it was given.
pub(crate) struct Collector {
    child: Child,
    port: u16,
    told: Arc<Mutex<Vec<Value>>>,
}

fn python() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    let found = cache.join("hearth/otlp/bin/python");
    assert!(found.exists(), "{} is missing: tests/run --install", found.display());
    found
}

impl Collector {
    /// One on a free port that takes all.
    pub(crate) fn start() -> Self {
        Self::start_on(0, 200)
    }

    /// One on this port that answers so, as soon as nobody else has it.
    pub(crate) fn start_on(port: u16, status: u16) -> Self {
        for _ in 0..TRIES_MAX {
            if let Some(started) = Self::try_on(port, status) {
                return started;
            }
            std::thread::sleep(TRY_INTERVAL);
        }
        panic!("the collector does not start on port {port}");
    }

    fn try_on(port: u16, status: u16) -> Option<Self> {
        let mut command = Command::new(python());
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/otlp/collector.py"));
        command.args([port.to_string(), status.to_string()]).env("PYTHONDONTWRITEBYTECODE", "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(first) = lines.next() else {
            // Why, it has said itself.
            let _ = child.wait();
            return None;
        };
        let port = first.unwrap().strip_prefix("port ").unwrap().parse().unwrap();
        let told = Arc::<Mutex<Vec<Value>>>::default();
        let hears = Arc::clone(&told);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                hears.lock().push(serde_json::from_str(&line).unwrap());
            }
        });
        Some(Self { child, port, told })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All spans so far, none of which was garbled.
    pub(crate) fn spans(&self) -> Vec<Value> {
        let spans = self.told.lock().clone();
        assert!(!spans.iter().any(|span| span.get("fault").is_some()), "{spans:#?}");
        spans
    }

    /// Those of one trace.
    pub(crate) fn trace(&self, trace: &str) -> Vec<Value> {
        self.spans().into_iter().filter(|span| span["trace"] == trace).collect()
    }

    /// Waits for a span of which this holds.
    pub(crate) async fn until_span(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        until(what, async || self.spans().into_iter().find(&is_it)).await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what the collector was told\n{:#?}", self.told.lock());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
