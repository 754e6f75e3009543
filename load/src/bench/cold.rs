//! `unknown` and `one_flight`: what it costs the store when everybody asks for players who are not here. A million looks
//! for players who never were, past a filter as full as it may be; a thousand at once for one who was.

use std::time::Instant;

use futures_util::future::try_join_all;

use super::asking::{Asker, runtime, store_reads, until_quiet};
use super::cores::Cores;
use super::figure::{Findings, Goal, Rounds};
use super::process::{Hearth, Persistence, Redis};
use super::{BenchError, progress};

/// Players ever seen, all in one shard: what the design counts with.
const SEEN: usize = 50_000;
/// Looks in one round; five rounds are a million.
const LOOKS: usize = 200_000;
const PLAYERS_A_QUERY: usize = 1_000;
/// Who ask at once for one player.
const AT_ONCE: usize = 1_000;

const READS: &str = "hearth_cold_reads_total";

pub(super) fn unknown(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let share = |what: &str, goal| Rounds::of(what, "% of the looks", "", goal);
    let mut reads = share("players never seen who were looked for in the store", Goal::Never(2.0));
    let mut wrong = share("of these, whom the filter let pass and the store did not know", Goal::None);
    let mut calls = Rounds::of("calls to Redis for 1,000 looks", "calls", "", Goal::None);
    let mut cpu = Rounds::of("a look", "µs of CPU", "", Goal::None);
    let redis = Redis::start(cores, Persistence::None)?;
    let server = Hearth::start(cores, &redis, &[("cluster.shards", "1"), ("session.pending_ms", "3600000")])?;
    let (asker, at) = (Asker::new()?, server.services);
    runtime()?.block_on(async {
        progress(&format!("unknown: {SEEN} players come"));
        let seen: Vec<String> = (0..SEEN).map(|number| format!("seen-{number}")).collect();
        asker.make_sessions(at, &seen).await?;
        until_quiet(&redis).await?;
        for round in 0..rounds {
            progress(&format!("unknown, round {} of {rounds}", round + 1));
            let (stored, passed, mgets) = (
                asker.metric(at, READS, "outcome=\"stored\"").await?,
                asker.metric(at, "hearth_filter_false_positives_total", "").await?,
                store_reads(&redis)?,
            );
            let before = server.process.cpu_time()?;
            for query in 0..LOOKS / PLAYERS_A_QUERY {
                let first = round as usize * LOOKS + query * PLAYERS_A_QUERY;
                let never: Vec<String> =
                    (first..first + PLAYERS_A_QUERY).map(|number| format!("never-{number}")).collect();
                asker.query(at, &never, 0).await?;
            }
            cpu.ours((server.process.cpu_time()? - before).as_secs_f64() * 1e6 / LOOKS as f64);
            let of_looks = |count: f64| count * 100.0 / LOOKS as f64;
            reads.ours(of_looks(asker.metric(at, READS, "outcome=\"stored\"").await? - stored));
            wrong.ours(of_looks(asker.metric(at, "hearth_filter_false_positives_total", "").await? - passed));
            calls.ours((store_reads(&redis)? - mgets) as f64 * 1_000.0 / LOOKS as f64);
        }
        Ok::<_, BenchError>(())
    })?;
    Ok(Findings {
        bench: "unknown",
        method: "50,000 players seen, all in one shard; then 200,000 looks a round (five rounds: a million), each for another \
                 player who never was, 1,000 a query; reads of the store as the server counts them and as Redis does (MGET)",
        rows: [reads, wrong, calls, cpu].into_iter().map(Rounds::row).collect(),
        notes: Vec::new(),
    })
}

pub(super) fn one_flight(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let mut reads = Rounds::of("reads of the store, by Redis's count", "reads", "", Goal::Never(1.0));
    let mut counted = Rounds::of("the same, by the server's", "reads", "", Goal::Never(1.0));
    let mut joined = Rounds::of("who waited for another one's read", "queries", "", Goal::None);
    let mut took = Rounds::of("until the last was answered", "ms", "", Goal::None);
    let redis = Redis::start(cores, Persistence::None)?;
    let server = Hearth::start(cores, &redis, &[])?;
    let (asker, at) = (Asker::new()?, server.services);
    runtime()?.block_on(async {
        until_quiet(&redis).await?;
        for round in 1..=rounds {
            progress(&format!("one_flight, round {round} of {rounds}"));
            let player = [format!("popular-{round}")];
            for session in asker.make_sessions(at, &player).await? {
                asker.end_session(at, &session).await?;
            }
            // Connections first: they are not what is measured.
            let hot = ["nobody".to_owned()];
            try_join_all((0..AT_ONCE).map(|_| asker.query(at, &hot, 0))).await?;
            let count = |outcome| asker.metric(at, READS, outcome);
            let (stored, waited) = (count("outcome=\"stored\"").await?, count("outcome=\"joined\"").await?);
            let (mgets, began) = (store_reads(&redis)?, Instant::now());
            try_join_all((0..AT_ONCE).map(|_| asker.query(at, &player, 0))).await?;
            took.ours(began.elapsed().as_secs_f64() * 1e3);
            reads.ours((store_reads(&redis)? - mgets) as f64);
            counted.ours(count("outcome=\"stored\"").await? - stored);
            joined.ours(count("outcome=\"joined\"").await? - waited);
        }
        Ok::<_, BenchError>(())
    })?;
    if reads.least() < 1.0 {
        return Err(BenchError::Void("nobody read the store: she was not cold".into()));
    }
    Ok(Findings {
        bench: "one_flight",
        method: "a player comes and goes; then 1,000 queries at once for her, each on a connection of its own",
        rows: [reads, counted, joined, took].into_iter().map(Rounds::row).collect(),
        notes: Vec::new(),
    })
}
