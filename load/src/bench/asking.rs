//! A game service of a bench: makes sessions, asks for presence by the thousand, and reads what servers and Redis say of
//! themselves. Everything that is refused makes the bench void.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::BenchError;
use super::process::{Hearth, Redis, SERVICE_KEY};

/// Calls under way at a time while sessions are made.
const MAKING_MAX: usize = 64;
/// How long a call, or what is waited for, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was told of one player.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Item {
    /// Who.
    pub(super) player: String,
    /// What she is doing.
    #[serde(default)]
    pub(super) activity: Option<Value>,
}

/// An answer of a query.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Told {
    /// The players.
    pub(super) presences: Vec<Item>,
    /// Of whom nobody can tell.
    pub(super) unknown: Vec<String>,
}

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    http: reqwest::Client,
}

fn void(what: impl std::fmt::Display) -> BenchError {
    BenchError::Void(what.to_string())
}

impl Asker {
    /// One with connections of its own.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub(super) fn new() -> Result<Self, BenchError> {
        let http = reqwest::Client::builder().timeout(PATIENCE).build().map_err(void)?;
        Ok(Self { http })
    }

    /// Asks for players, who all must be told.
    ///
    /// # Errors
    /// It is refused, or somebody is unknown.
    pub(super) async fn query(
        &self,
        at: SocketAddr,
        players: &[String],
        max_age_ms: u64,
    ) -> Result<Told, BenchError> {
        let told = self.query_some(at, players, max_age_ms).await?;
        if !told.unknown.is_empty() || told.presences.len() != players.len() {
            return Err(void(format!("{} players of a query were unknown", told.unknown.len())));
        }
        Ok(told)
    }

    /// The same; on a machine that is busy with other things some may be unknown.
    ///
    /// # Errors
    /// It is refused.
    pub(super) async fn query_some(
        &self,
        at: SocketAddr,
        players: &[String],
        max_age_ms: u64,
    ) -> Result<Told, BenchError> {
        let body = json!({"players": players, "max_age_ms": max_age_ms});
        let call = self.http.post(format!("http://{at}/v1/presence/query")).bearer_auth(SERVICE_KEY);
        let answer = call.json(&body).send().await.map_err(void)?;
        let status = answer.status();
        if !status.is_success() {
            return Err(void(format!("a query was answered {status}")));
        }
        answer.json().await.map_err(void)
    }

    /// The same in MessagePack, of a body that is ready; how many bytes the answer has.
    ///
    /// # Errors
    /// It is refused.
    pub(super) async fn query_packed(&self, at: SocketAddr, body: &[u8]) -> Result<usize, BenchError> {
        let call = self.http.post(format!("http://{at}/v1/presence/query")).bearer_auth(SERVICE_KEY);
        let call = call.header("content-type", "application/msgpack").body(body.to_vec());
        let answer = call.send().await.map_err(void)?.error_for_status().map_err(void)?;
        Ok(answer.bytes().await.map_err(void)?.len())
    }

    /// Makes a session for each of these players, so that they are seen.
    ///
    /// # Errors
    /// One is refused.
    pub(super) async fn make_sessions(
        &self,
        at: SocketAddr,
        players: &[String],
    ) -> Result<Vec<String>, BenchError> {
        let calls = players.iter().map(|player| async move {
            let call = self.http.post(format!("http://{at}/v1/sessions")).bearer_auth(SERVICE_KEY);
            let answer = call.json(&json!({"player": player})).send().await.map_err(void)?;
            let answer = answer.error_for_status().map_err(void)?;
            let made: Value = answer.json().await.map_err(void)?;
            made.get("session")
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(|| void("a session without an id"))
        });
        let made: Vec<_> = futures_util::stream::iter(calls).buffered(MAKING_MAX).collect().await;
        made.into_iter().collect()
    }

    /// Ends a session: its player is stored and not in memory from then on.
    ///
    /// # Errors
    /// It is refused.
    pub(super) async fn end_session(&self, at: SocketAddr, session: &str) -> Result<(), BenchError> {
        let call = self.http.delete(format!("http://{at}/v1/sessions/{session}")).bearer_auth(SERVICE_KEY);
        call.send().await.map_err(void)?.error_for_status().map_err(void)?;
        Ok(())
    }

    /// The sum of a metric's series with this label.
    ///
    /// # Errors
    /// The server does not say.
    pub(super) async fn metric(&self, at: SocketAddr, name: &str, label: &str) -> Result<f64, BenchError> {
        let page = self.http.get(format!("http://{at}/metrics")).send().await.map_err(void)?;
        let page = page.text().await.map_err(void)?;
        let series = page.lines().filter(|line| {
            let of_name = line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
            of_name && line.contains(label)
        });
        Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Waits until each of these nodes can tell of players of every shard.
    ///
    /// # Errors
    /// It takes too long.
    pub(super) async fn until_all_know_all(&self, nodes: &[Hearth]) -> Result<(), BenchError> {
        let anybody: Vec<String> = (0..1_000).map(|number| format!("anybody-{number}")).collect();
        let until = Instant::now() + PATIENCE;
        for node in nodes {
            while let Err(error) = self.query(node.services, &anybody, 0).await {
                if Instant::now() > until {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }
}

/// Waits until nobody asks this Redis for records: a server that has just started reads its filters.
///
/// # Errors
/// It does not say, or it takes too long.
pub(super) async fn until_quiet(redis: &Redis) -> Result<(), BenchError> {
    let (until, mut before) = (Instant::now() + PATIENCE, u64::MAX);
    loop {
        let now = store_reads(redis)?;
        if now == before {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(void("the server does not stop reading the store"));
        }
        before = now;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// How often this Redis was asked for records of players.
///
/// # Errors
/// It does not say.
pub(super) fn store_reads(redis: &Redis) -> Result<u64, BenchError> {
    let info = redis.connect()?.command(&[b"INFO", b"commandstats"])?;
    let info = String::from_utf8_lossy(&info);
    let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_mget:calls="));
    Ok(line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0))
}

/// A runtime for the client's side, on the core of whoever calls.
///
/// # Errors
/// The system's.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, BenchError> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
