//! `query`: what a player costs in a query, all of them online and in memory, as MessagePack, beside a `GET` of Redis; and how
//! long a query of 500 friends takes while 2,000 bots write.

use std::time::{Duration, Instant};

use protocol::{Encoding, codec};
use serde::Serialize;

use super::asking::{Asker, runtime};
use super::cores::Cores;
use super::figure::{Findings, Goal, Rounds, quantile};
use super::process::{Hearth, Persistence, Redis, Resp};
use super::swarm::{Opening, Swarm};
use super::words::Change;
use super::{BenchError, crowd, progress};

/// Players online, and in a query.
const PLAYERS: usize = 5_000;
const ASKED: usize = 1_000;
const FRIENDS: usize = 500;
/// Queries in one round, without a load and beside one.
const QUERIES: usize = 400;
const QUERIES_BESIDE: usize = 1_000;
/// Players who change beside the queries, each once a second: so many with each query, which come so far apart.
const BOTS: usize = 2_000;
const CHANGES: usize = 10;
const APART: Duration = Duration::from_millis(5);
const PASS: usize = BOTS / CHANGES;
const _: () = assert!(QUERIES_BESIDE.is_multiple_of(PASS), "everybody changes as often as everybody else");
/// `GET`s in one pipeline, and pipelines of a round.
const GETS: usize = 500;
const PIPELINES: usize = 400;
/// A stored record has about so many bytes.
const VALUE_BYTES: usize = 188;

#[derive(Serialize)]
struct Asked {
    players: Vec<String>,
}

pub(super) fn run(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let get = "a GET of 188 B, 500 in a pipeline";
    let mut each = Rounds::of("a player, in a query of 1,000", "µs of CPU", get, Goal::Ours(0.5));
    let mut friend = Rounds::of("a player, in a query of 500", "µs of CPU", get, Goal::Ours(0.5));
    let mut slow = Rounds::of("a query of 500 while 2,000 write, p99", "ms", "", Goal::Ours(5.0));
    let mut typical = Rounds::of("the same, median", "ms", "", Goal::None);
    let redis = Redis::start(cores, Persistence::None)?;
    let floor = Redis::start(cores, Persistence::None)?;
    let server = Hearth::start(cores, &redis, &[])?;
    let mut swarm = Swarm::new(server.clients, Opening::Upgrade)?;
    progress(&format!("query: {PLAYERS} players come"));
    crowd::enter(&mut swarm, PLAYERS)?;
    let body = |first: usize, asked: usize| {
        let players = (first..first + asked).map(|number| crowd::player(number % PLAYERS)).collect();
        let mut body = Vec::new();
        codec::encode_body(Encoding::MessagePack, &mut body, &Asked { players });
        body
    };
    let bodies = |asked| (0..PLAYERS).step_by(asked).map(|first| body(first, asked)).collect::<Vec<_>>();
    let (thousands, friends) = (bodies(ASKED), bodies(FRIENDS));
    let (asker, at, runtime) = (Asker::new()?, server.services, runtime()?);
    let ask = |bodies: &[Vec<u8>], number: usize| {
        let body = bodies.get(number % bodies.len()).map_or(&[][..], Vec::as_slice);
        runtime.block_on(asker.query_packed(at, body))
    };
    let cpu_of = |bodies: &[Vec<u8>], asked: usize| {
        let before = server.process.cpu_time()?;
        for number in 0..QUERIES {
            ask(bodies, number)?;
        }
        let used = server.process.cpu_time()? - before;
        Ok::<_, BenchError>(used.as_secs_f64() * 1e6 / (QUERIES * asked) as f64)
    };
    let mut gets = Gets::new(&floor)?;
    let (mut change, mut n) = (Change::presence_set(64)?, 0);
    for round in 0..=rounds {
        progress(&format!("query, round {round} of {rounds}"));
        let a_get = gets.round()?;
        let (of_thousand, of_friends) = (cpu_of(&thousands, ASKED)?, cpu_of(&friends, FRIENDS)?);
        let (mut times, began) = (Vec::new(), Instant::now());
        for number in 0..QUERIES_BESIDE {
            let place = number % PASS;
            // Each of these links changes once a pass, so their counters agree.
            n += u32::from(place == 0);
            for link in place * CHANGES..(place + 1) * CHANGES {
                let mut frame = Vec::new();
                change.push(&mut frame, n);
                swarm.write(link, &frame)?;
            }
            let asked_at = Instant::now();
            ask(&friends, number)?;
            times.push(asked_at.elapsed().as_secs_f64() * 1e3);
            let due = began + APART * u32::try_from(number + 1).unwrap_or(u32::MAX);
            loop {
                swarm.hear(due.saturating_duration_since(Instant::now()), |_, _, _| Ok(()))?;
                if Instant::now() >= due {
                    break;
                }
            }
        }
        // The first round warms up.
        if round > 0 {
            each.floor(a_get);
            each.ours(of_thousand);
            friend.floor(a_get);
            friend.ours(of_friends);
            slow.ours(quantile(&mut times, 0.99));
            typical.ours(quantile(&mut times, 0.5));
        }
    }
    Ok(Findings {
        bench: "query",
        method: "5,000 players online; 400 queries of 1,000 and as many of 500 a round, one at a time, HTTP/1.1 and MessagePack, all of \
                 the server's CPU in it; Redis's CPU for a pipelined GET of a record's size, on a server of its own; then 1,000 queries of \
                 500, one every 5 ms, 10 of 2,000 players changing their presence at the moment in which each is asked",
        rows: [each, friend, slow, typical].into_iter().map(Rounds::row).collect(),
        notes: Vec::new(),
    })
}

/// Players' records on a Redis that does nothing else, asked for by the pipeline.
struct Gets<'a> {
    redis: &'a Redis,
    connection: Resp,
}

impl<'a> Gets<'a> {
    fn new(redis: &'a Redis) -> Result<Self, BenchError> {
        let mut connection = redis.connect()?;
        for number in 0..PLAYERS {
            let (player, record) = (crowd::player(number), "r".repeat(VALUE_BYTES));
            connection.add(&[b"SET", player.as_bytes(), record.as_bytes()]);
        }
        connection.exchange(PLAYERS)?;
        Ok(Self { redis, connection })
    }

    /// Microseconds of CPU for one.
    fn round(&mut self) -> Result<f64, BenchError> {
        let before = self.redis.process.cpu_time()?;
        for pipeline in 0..PIPELINES {
            for number in pipeline * GETS..(pipeline + 1) * GETS {
                self.connection.add(&[b"GET", crowd::player(number % PLAYERS).as_bytes()]);
            }
            self.connection.exchange(GETS)?;
        }
        let used = self.redis.process.cpu_time()? - before;
        Ok(used.as_secs_f64() * 1e6 / (PIPELINES * GETS) as f64)
    }
}
