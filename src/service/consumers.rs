//! Who follows the events of this node: how many there are, how far behind each is, and how something is said to one of
//! them, whose tasks never are more than a piece each ahead of what its socket takes. It ends with its key, and with a
//! minute in which it takes nothing. What is said is `following`'s and `ringing`'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::HeaderMap;
use metrics::{Counter, Gauge};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::following::Chunk;
use super::{Condition, Scope, Service};
use crate::clock;
use crate::telemetry::metrics as table;

/// How often the key is looked at.
const ADMIT_EVERY: Duration = Duration::from_secs(1);
/// How often a consumer that takes nothing is counted as further behind.
const STILL_WAITING: Duration = Duration::from_secs(1);
/// How long it may take nothing before it loses its place: it can go on from its checkpoint.
const WAITS_MAX: Duration = Duration::from_secs(60);

/// Those who follow, as this node sees them.
pub(super) struct Consumers {
    most: usize,
    /// How far behind each is, in ms, by its number.
    lags: Mutex<BTreeMap<u64, u64>>,
    consumers: Gauge,
    lag: Gauge,
    told: Counter,
    gaps: Counter,
}

impl Consumers {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            lags: Mutex::default(),
            consumers: table::EVENT_CONSUMERS.handle(),
            lag: table::EVENTS_LAG_SECONDS.handle(),
            told: table::EVENTS_TOLD.handle(),
            gaps: table::EVENT_GAPS.handle(),
        }
    }

    /// Takes a place, if there is one.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut lags = self.lags.lock();
        if lags.len() >= self.most {
            return None;
        }
        let number = lags.last_key_value().map_or(0, |(last, _)| last + 1);
        lags.insert(number, 0);
        self.show(&lags);
        Some(Place { number, consumers: Arc::clone(self) })
    }

    /// How far behind the one is that is furthest behind, in ms.
    #[cfg(test)]
    pub(super) fn lag_ms(&self) -> u64 {
        self.lags.lock().values().max().copied().unwrap_or(0)
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lags.lock().len()
    }

    #[allow(clippy::cast_precision_loss, reason = "a metric")]
    fn show(&self, lags: &BTreeMap<u64, u64>) {
        self.consumers.set(lags.len() as f64);
        self.lag.set(lags.values().max().copied().unwrap_or(0) as f64 / 1_000.0);
    }
}

/// One consumer's place, given back when it goes.
pub(super) struct Place {
    number: u64,
    consumers: Arc<Consumers>,
}

impl Place {
    fn lags(&self, lag_ms: u64) {
        let mut lags = self.consumers.lags.lock();
        if lags.insert(self.number, lag_ms) != Some(lag_ms) {
            self.consumers.show(&lags);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lags = self.consumers.lags.lock();
        lags.remove(&self.number);
        self.consumers.show(&lags);
    }
}

/// The consumer has gone, or the node goes.
pub(super) struct Over;

/// One consumer, as those see it who have something to say to it.
pub(super) struct Consumer {
    service: Arc<Service>,
    /// Of the call, with its key.
    headers: HeaderMap,
    place: Place,
    said: mpsc::Sender<Bytes>,
    /// When it last took something, whoever had said it.
    took_at: Mutex<Instant>,
    /// When the key was looked at.
    admitted_at: Mutex<Instant>,
}

impl Consumer {
    /// One who was just let in, and what it hears: one piece ahead of what it takes.
    pub(super) fn new(
        service: Arc<Service>,
        headers: HeaderMap,
        place: Place,
    ) -> (Self, mpsc::Receiver<Bytes>) {
        let (said, heard) = mpsc::channel(1);
        let now = Instant::now();
        let (took_at, admitted_at) = (Mutex::new(now), Mutex::new(now));
        (Self { service, headers, place, said, took_at, admitted_at }, heard)
    }

    /// Remembers how far behind it is.
    pub(super) fn lags(&self, lag_ms: u64) {
        self.place.lags(lag_ms);
    }

    /// A key that was taken away ends what it opened, and so does a node that may answer nothing.
    pub(super) fn admit(&self) -> Result<(), Over> {
        if (self.service.condition)() == Condition::Failed {
            return Err(Over);
        }
        let mut admitted_at = self.admitted_at.lock();
        if admitted_at.elapsed() < ADMIT_EVERY {
            return Ok(());
        }
        *admitted_at = Instant::now();
        if self.service.still_opens(&self.headers, Scope::Read) { Ok(()) } else { Err(Over) }
    }

    /// Says it when the consumer has taken what was said before, if that comes before its patience or its key ends.
    pub(super) async fn say(&self, chunk: Chunk) -> Result<(), Over> {
        if chunk.is_empty() {
            return Ok(());
        }
        let since = Instant::now();
        loop {
            match tokio::time::timeout(STILL_WAITING, self.said.reserve()).await {
                Ok(Ok(room)) => {
                    let consumers = &self.place.consumers;
                    consumers.told.increment(chunk.events as u64);
                    consumers.gaps.increment(chunk.gaps as u64);
                    room.send(chunk.text.into());
                    *self.took_at.lock() = Instant::now();
                    return Ok(());
                }
                Ok(Err(_)) => return Err(Over),
                Err(_) if self.took_at.lock().max(since).elapsed() > WAITS_MAX => return Err(Over),
                Err(_) => {}
            }
            // What is not of a time of its own says nothing of how far behind it is.
            if chunk.oldest_at.is_some() {
                self.lags(chunk.age_ms(clock::now().unix_ms));
            }
            self.admit()?;
        }
    }

    /// It has gone.
    pub(super) async fn gone(&self) -> Over {
        self.said.closed().await;
        Over
    }

    /// Says nothing for so long.
    pub(super) async fn pause(&self, pause: Duration) -> Result<(), Over> {
        tokio::select! {
            biased;
            over = self.gone() => Err(over),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}
