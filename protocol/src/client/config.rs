//! What a client is told at its start. Read by the driver; never changes afterwards.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::request::Status;
use crate::{Encoding, Stamp};

/// Gives a token for each login: tokens run out, so none is kept.
pub type TokenSource = Arc<dyn Fn() -> String + Send + Sync>;

/// What is needed to take a session up again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The session's id.
    pub session: String,
    /// Its latest ticket: a secret.
    pub ticket: String,
    /// The highest `seq` handled; 0 if none.
    pub last_seq: u64,
    /// The latest stamp known.
    pub stamp: Option<Stamp>,
}

/// How a client connects and what it holds at most.
#[derive(Clone)]
pub struct Config {
    /// `ws://HOST:PORT/v1/connect`, tried in turn.
    pub urls: Vec<String>,
    /// How the link speaks. Default: MessagePack.
    pub encoding: Encoding,
    /// Asked at each login.
    pub token: TokenSource,
    /// `pc`, `mobile`, … as others see it.
    pub device: Option<String>,
    /// The status to start with.
    pub status: Option<Status>,
    /// A session to take up instead of the first login: one that a service made, or one of an earlier run.
    pub resume: Option<Credentials>,
    /// From connecting to the end of the upgrade. Default: 5 s.
    pub connect_timeout: Duration,
    /// From the upgrade to `ready`. Default: 10 s.
    pub ready_timeout: Duration,
    /// A request without an answer for this long has the link dropped and taken up anew. Default: 30 s.
    pub answer_timeout: Duration,
    /// Requests without an answer at a time; above it, further ones wait in the caller. Default: 256.
    pub in_flight_max: usize,
    /// Events that wait for their reader; above it the link is not read. Default: 256.
    pub events_max: usize,
}

impl Config {
    /// The defaults for one address.
    #[must_use]
    pub fn new(url: impl Into<String>, token: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self {
            urls: vec![url.into()],
            encoding: Encoding::default(),
            token: Arc::new(token),
            device: None,
            status: None,
            resume: None,
            connect_timeout: Duration::from_secs(5),
            ready_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            in_flight_max: 256,
            events_max: 256,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither token nor ticket.
        f.debug_struct("Config")
            .field("urls", &self.urls)
            .field("encoding", &self.encoding)
            .finish_non_exhaustive()
    }
}
