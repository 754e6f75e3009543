//! The bots' game service: pushes messages to players and queries presence over HTTP, on a schedule of its own.
//! Started by the runner where a service address and a key are given. Writes a log like a bot's; never judges.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::ErrorCode;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::board::Board;
use crate::bot;
use crate::history::{Entry, Operation, Value, What};

/// Between two queries of presence.
const QUERY_INTERVAL: Duration = Duration::from_secs(1);
/// Players a query names at most, by the protocol.
const QUERY_PLAYERS_MAX: u32 = 1_000;
/// One message a second for so many bots.
const BOTS_PER_MESSAGE: u32 = 50;
/// Calls under way at a time; what is due above it is shed.
const IN_FLIGHT_MAX: usize = 64;
/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A game service.
#[derive(Debug)]
pub struct Service {
    board: Arc<Board>,
    http: reqwest::Client,
    urls: Vec<String>,
    key: String,
    rng: SmallRng,
    log: Vec<Entry>,
    next_id: u64,
}

#[derive(Deserialize)]
struct Delivered {
    delivered: u32,
}

#[derive(Deserialize)]
struct Problem {
    code: ErrorCode,
}

impl Service {
    /// A service for the bots of a board; `None` where the options name no address or no key.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(board: Arc<Board>) -> Result<Option<Self>, reqwest::Error> {
        let options = &board.options;
        let Some(key) = options.common.service_key.clone().filter(|_| !options.common.service_url.is_empty())
        else {
            return Ok(None);
        };
        let urls =
            options.common.service_url.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        let http = reqwest::Client::builder().timeout(CALL_TIMEOUT).build()?;
        let rng = SmallRng::seed_from_u64(options.common.seed);
        Ok(Some(Self { board, http, urls, key, rng, log: Vec::new(), next_id: 1 }))
    }

    /// Calls until the run ends; returns what it saw.
    pub async fn run(mut self) -> Vec<Entry> {
        let per_second = (self.board.options.players / BOTS_PER_MESSAGE).clamp(1, 100);
        let message_interval = Duration::from_secs(1) / per_second;
        let (mut next_message, mut next_query) =
            (self.board.began + message_interval, self.board.began + QUERY_INTERVAL);
        let end = self.board.end();
        let board = Arc::clone(&self.board);
        let fallen = board.fallen();
        tokio::pin!(fallen);
        let mut calls: JoinSet<(u64, Instant, Result<Value, ErrorCode>)> = JoinSet::new();
        loop {
            let due = next_message.min(next_query);
            if due >= end {
                break;
            }
            tokio::select! {
                biased;
                () = &mut fallen => break,
                Some(Ok(done)) = calls.join_next() => self.answered(done),
                () = sleep_until(due.into()) => {
                    let call = if due == next_message {
                        next_message += message_interval;
                        self.message(due)
                    } else {
                        next_query += QUERY_INTERVAL;
                        self.query(due)
                    };
                    let (id, request) = call;
                    if calls.len() < IN_FLIGHT_MAX {
                        calls.spawn(async move { let came = answer(request).await; (id, Instant::now(), came) });
                    } else {
                        self.answered((id, Instant::now(), Err(ErrorCode::Overloaded)));
                    }
                }
            }
        }
        while let Some(Ok(done)) = calls.join_next().await {
            self.answered(done);
        }
        self.log
    }

    fn invoke(&mut self, due: Instant, operation: Operation) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.note(self.board.us(due), What::Invoke { id, operation });
        id
    }

    fn note(&mut self, at_us: u64, what: What) {
        self.log.push(Entry { at_us, process: self.board.options.players, session: None, what });
    }

    fn message(&mut self, due: Instant) -> (u64, reqwest::RequestBuilder) {
        let to = self.rng.random_range(0..self.board.options.players);
        let m = self.next_id;
        let id = self.invoke(due, Operation::Message { to, m });
        let player = bot::name_of(&self.board.options, to);
        // A server remembers the keys of the run before, and the same seed makes the same messages.
        let mark = self.board.mark;
        let body =
            json!({"data": {bot::MESSAGE: mark.number(m)}, "idempotency_key": format!("load-{mark}-{m}")});
        (id, self.post(&format!("/v1/players/{player}/messages"), &body))
    }

    fn query(&mut self, due: Instant) -> (u64, reqwest::RequestBuilder) {
        let players = self.board.options.players;
        let first = self.rng.random_range(0..players);
        let named: Vec<String> = (0..players.min(QUERY_PLAYERS_MAX))
            .map(|ahead| bot::name_of(&self.board.options, (first + ahead) % players))
            .collect();
        let id = self.invoke(due, Operation::Query);
        (id, self.post("/v1/presence/query", &json!({"players": named})))
    }

    fn post(&mut self, path: &str, body: &serde_json::Value) -> reqwest::RequestBuilder {
        // Which node is asked must not matter.
        let place = if self.urls.len() > 1 { self.rng.random_range(0..self.urls.len()) } else { 0 };
        let url = self.urls.get(place).map_or("", String::as_str);
        self.http.post(format!("{url}{path}")).bearer_auth(&self.key).json(body)
    }

    fn answered(&mut self, (id, at, came): (u64, Instant, Result<Value, ErrorCode>)) {
        let what = match came {
            Ok(value) => What::Ok { id, cseq: None, stamp: None, ack: None, prov: false, dup: false, value },
            Err(code) => What::Fail { id, cseq: None, code, applied: false },
        };
        self.note(self.board.us(at), what);
    }
}

/// A server that cannot be reached counts as `unavailable`: it may have done it or not, and nothing is judged by it.
async fn answer(request: reqwest::RequestBuilder) -> Result<Value, ErrorCode> {
    let response = request.send().await.map_err(|_| ErrorCode::StoreUnavailable)?;
    if !response.status().is_success() {
        return Err(response.json::<Problem>().await.map_or(ErrorCode::Internal, |problem| problem.code));
    }
    let body: serde_json::Value = response.json().await.map_err(|_| ErrorCode::Internal)?;
    Ok(Delivered::deserialize(&body).map_or(Value::None, |came| Value::Delivered(came.delivered)))
}
