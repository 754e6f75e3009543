//! `query`: what a player costs in a query of a thousand, all of them online and in memory, as MessagePack; and how long
//! such a query takes while players change beside it.

use std::time::{Duration, Instant};

use protocol::{Encoding, codec};
use serde::Serialize;

use super::asking::{Asker, runtime};
use super::cores::Cores;
use super::figure::{Findings, Goal, Rounds, quantile};
use super::process::{Hearth, Persistence, Redis};
use super::swarm::{Opening, Swarm};
use super::words::Change;
use super::{BenchError, crowd, progress};

/// Players online, and in a query.
const PLAYERS: usize = 5_000;
const ASKED: usize = 1_000;
/// Queries in one round, without a load and beside one.
const QUERIES: usize = 400;
const QUERIES_BESIDE: usize = 200;
/// Changes beside each query, each of another player.
const CHANGES: usize = 20;
const _: () = assert!(CHANGES * QUERIES_BESIDE <= PLAYERS, "a player changes once a round");

#[derive(Serialize)]
struct Asked {
    players: Vec<String>,
}

pub(super) fn run(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let mut each = Rounds::of("a player, in a query of 1,000", "µs of CPU", "", Goal::Ours(0.5));
    let mut slow = Rounds::of("a query of 1,000 beside load, p99", "ms", "", Goal::Ours(2.0));
    let mut typical = Rounds::of("the same, median", "ms", "", Goal::None);
    let redis = Redis::start(cores, Persistence::None)?;
    let server = Hearth::start(cores, &redis, &[])?;
    let mut swarm = Swarm::new(server.clients, Opening::Upgrade)?;
    progress(&format!("query: {PLAYERS} players come"));
    crowd::enter(&mut swarm, PLAYERS)?;
    let body = |first: usize| {
        let players = (first..first + ASKED).map(|number| crowd::player(number % PLAYERS)).collect();
        let mut body = Vec::new();
        codec::encode_body(Encoding::MessagePack, &mut body, &Asked { players });
        body
    };
    let bodies: Vec<Vec<u8>> = (0..PLAYERS).step_by(ASKED).map(body).collect();
    let (asker, at, runtime) = (Asker::new()?, server.services, runtime()?);
    let ask = |number: usize| {
        let body = bodies.get(number % bodies.len()).map_or(&[][..], Vec::as_slice);
        runtime.block_on(asker.query_packed(at, body))
    };
    let (mut change, mut n) = (Change::presence_set(64)?, 0);
    for round in 0..=rounds {
        progress(&format!("query, round {round} of {rounds}"));
        let before = server.process.cpu_time()?;
        for number in 0..QUERIES {
            ask(number)?;
        }
        let used = server.process.cpu_time()? - before;
        let mut times = Vec::new();
        // Each of these links changes once a round, so their counters agree.
        n += 1;
        for number in 0..QUERIES_BESIDE {
            let first = number * CHANGES;
            for link in first..first + CHANGES {
                let mut frame = Vec::new();
                change.push(&mut frame, n);
                swarm.write(link, &frame)?;
            }
            let began = Instant::now();
            ask(number)?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            while swarm.hear(Duration::ZERO, |_, _, _| Ok(()))? > 0 {}
        }
        // The first round warms up.
        if round > 0 {
            each.ours(used.as_secs_f64() * 1e6 / (QUERIES * ASKED) as f64);
            slow.ours(quantile(&mut times, 0.99));
            typical.ours(quantile(&mut times, 0.5));
        }
    }
    Ok(Findings {
        bench: "query",
        method: "5,000 players online; 400 queries of 1,000 a round, one at a time, HTTP/1.1 and MessagePack, all of the server's CPU \
                 in it; then 200 more, 20 players changing their presence at the moment in which each is asked",
        rows: [each, slow, typical].into_iter().map(Rounds::row).collect(),
        notes: Vec::new(),
    })
}
