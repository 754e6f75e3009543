//! A game service in a thread of its own that pushes numbered messages to players, one call after the other, while
//! links come and go. Used by `reconnect`, which checks that every number arrived once.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;

use super::BenchError;
use super::process::SERVICE_KEY;

/// Between two messages.
const INTERVAL: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(10);

/// The service at work.
#[derive(Debug)]
pub(super) struct Pusher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<u64>, BenchError>>,
}

impl Pusher {
    /// Begins to push to these players in turn; `sent` is how many each has been sent before.
    ///
    /// # Errors
    /// The service cannot be reached.
    pub(super) fn start(
        services: SocketAddr,
        players: Vec<String>,
        sent: Vec<u64>,
    ) -> Result<Self, BenchError> {
        let stream = TcpStream::connect(services)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || push(BufReader::new(stream), &players, sent, &stopped));
        Ok(Self { stop, thread })
    }

    /// Stops; how many messages each player has been sent by now.
    ///
    /// # Errors
    /// A message was refused or reached nobody.
    pub(super) fn stop(self) -> Result<Vec<u64>, BenchError> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| BenchError::Void("the pushing thread died".into()))?
    }
}

fn push(
    mut stream: BufReader<TcpStream>,
    players: &[String],
    mut sent: Vec<u64>,
    stopped: &AtomicBool,
) -> Result<Vec<u64>, BenchError> {
    for turn in 0.. {
        if stopped.load(Ordering::Acquire) {
            break;
        }
        let at = turn % players.len().max(1);
        if let (Some(player), Some(sent)) = (players.get(at), sent.get_mut(at)) {
            post(&mut stream, player, *sent + 1)?;
            *sent += 1;
        }
        std::thread::sleep(INTERVAL);
    }
    Ok(sent)
}

#[derive(Deserialize)]
struct Delivered {
    delivered: u32,
}

fn post(stream: &mut BufReader<TcpStream>, player: &str, n: u64) -> Result<(), BenchError> {
    let body = format!("{{\"data\":{{\"n\":{n}}}}}");
    let request = format!(
        "POST /v1/players/{player}/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SERVICE_KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.get_mut().write_all(request.as_bytes())?;
    let (mut status, mut line, mut len) = (String::new(), String::new(), 0);
    stream.read_line(&mut status)?;
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            len = value.trim().parse().unwrap_or(0);
        }
    }
    let mut answer = vec![0; len];
    stream.read_exact(&mut answer)?;
    match serde_json::from_slice::<Delivered>(&answer) {
        Ok(Delivered { delivered: 1 }) => Ok(()),
        _ => Err(BenchError::Void(format!(
            "a message to {player} did not reach her: {} {}",
            status.trim(),
            String::from_utf8_lossy(&answer)
        ))),
    }
}
