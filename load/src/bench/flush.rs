//! `flush`: what a changed record costs on its way to Redis, Redis's CPU and our own. The driver changes players in
//! memory and flushes them through the house's own `home`, store and `commit.lua`; floors are plain pipelined `SET PX`
//! of the same bytes, and the least script that is fenced at all.

use std::time::Duration;

use serde::Deserialize;

use super::cores::{self, Cores};
use super::figure::{Findings, Goal, Rounds};
use super::process::{self, Persistence, Process, Redis};
use super::{BenchError, progress};

/// Flushes of all of the driver's players in one round.
const REPEATS: u32 = 8;
/// Records that a floor writes in one round, and in one batch.
const FLOOR_RECORDS: usize = 65_536;
const BATCH: usize = 64;
/// How long Redis is watched doing nothing, to know what it uses by itself.
const IDLE: Duration = Duration::from_millis(500);

/// Compares what is stored, then writes: a fence, and nothing of what makes it useful.
const LEAST_FENCE: &str = "#!lua\n\
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('fenced') end\n\
    for i = 2, #KEYS do\n\
      if redis.call('GETRANGE', KEYS[i], 0, 31) <= ARGV[2] then redis.call('SET', KEYS[i], ARGV[3], 'PX', '3660000') end\n\
    end\n\
    return 'OK'";

#[derive(Deserialize)]
struct Ready {
    record_bytes: usize,
}

#[derive(Deserialize)]
struct Driven {
    records: u32,
    cpu_ns: u64,
}

/// One Redis with its driver.
struct Side {
    redis: Redis,
    driver: Process,
    record_bytes: usize,
    by_plain: Rounds,
    by_fenced: Rounds,
    own: Rounds,
}

pub(super) fn run(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let mut sides = Vec::new();
    for (persistence, name, goal) in
        [(Persistence::None, "no AOF", 3.5), (Persistence::AofEverySecond, "AOF everysec", 5.0)]
    {
        sides.push(Side::start(cores, persistence, name, goal)?);
    }
    for round in 1..=rounds {
        progress(&format!("flush, round {round} of {rounds}"));
        for side in &mut sides {
            side.round(cores)?;
        }
    }
    let record_bytes = sides.first().map_or(0, |side| side.record_bytes);
    Ok(Findings {
        bench: "flush",
        method: "8,192 players changed in memory, then flushed through home, store and commit.lua in commits of 64, 8 times a \
                 round; CPU of redis-server less what it uses idle, and CPU of our process between the first commit and \
                 the last answer; floors write as many records of the same size in batches of 64",
        rows: sides
            .into_iter()
            .flat_map(|side| [side.by_plain.row(), side.by_fenced.row(), side.own.row()])
            .collect(),
        notes: vec![format!("a stored record has {record_bytes} B")],
    })
}

impl Side {
    fn start(cores: Cores, persistence: Persistence, name: &str, goal: f64) -> Result<Self, BenchError> {
        let redis = Redis::start(cores, persistence)?;
        let mut driver = process::start_driver(cores, &[format!("redis://{}", redis.addr)])?;
        let Ready { record_bytes } = heard(&driver.line()?)?;
        let unit = "µs of CPU";
        Ok(Self {
            redis,
            driver,
            record_bytes,
            by_plain: Rounds::of(format!("Redis, a record, {name}"), unit, "plain SET PX", Goal::Ours(goal)),
            by_fenced: Rounds::of(
                format!("Redis, a record, {name}, beside a fence"),
                unit,
                "the least fenced script, batches of 64",
                Goal::None,
            ),
            own: Rounds::of(format!("our process, a record, {name}"), unit, "", Goal::Ours(1.0)),
        })
    }

    fn round(&mut self, cores: Cores) -> Result<(), BenchError> {
        let record_bytes = self.record_bytes;
        let idle = self.redis_idle()?;
        let plain = self.redis_used(idle, |side| {
            cores::on(&[cores.server], || set_plainly(&side.redis, record_bytes))?;
            Ok(FLOOR_RECORDS)
        })?;
        let fenced = self.redis_used(idle, |side| {
            cores::on(&[cores.server], || set_fenced(&side.redis, record_bytes))?;
            Ok(FLOOR_RECORDS)
        })?;
        let (mut own_ns, mut records) = (0, 0);
        let ours = self.redis_used(idle, |side| {
            side.driver.tell(&REPEATS.to_string())?;
            let driven: Driven = heard(&side.driver.line()?)?;
            (own_ns, records) = (driven.cpu_ns, driven.records);
            Ok(usize::try_from(driven.records).unwrap_or(usize::MAX))
        })?;
        self.by_plain.floor(plain);
        self.by_plain.ours(ours);
        self.by_fenced.floor(fenced);
        self.by_fenced.ours(ours);
        self.own.ours(own_ns as f64 / 1e3 / f64::from(records));
        Ok(())
    }

    /// The share of a core that Redis uses while nothing is asked of it but leases.
    fn redis_idle(&self) -> Result<f64, BenchError> {
        let before = self.redis.process.cpu_time()?;
        std::thread::sleep(IDLE);
        let used = self.redis.process.cpu_time()?.saturating_sub(before);
        Ok(used.as_secs_f64() / IDLE.as_secs_f64())
    }

    /// µs of Redis's CPU for each of so many records.
    fn redis_used(
        &mut self,
        idle: f64,
        act: impl FnOnce(&mut Self) -> Result<usize, BenchError>,
    ) -> Result<f64, BenchError> {
        let (before, began) = (self.redis.process.cpu_time()?, std::time::Instant::now());
        let records = act(self)?;
        let used = self.redis.process.cpu_time()?.saturating_sub(before);
        let by_itself = idle * began.elapsed().as_secs_f64();
        Ok((used.as_secs_f64() - by_itself) * 1e6 / records as f64)
    }
}

fn heard<T: for<'a> Deserialize<'a>>(line: &str) -> Result<T, BenchError> {
    serde_json::from_str(line).map_err(|error| BenchError::Void(format!("the driver said {line:?}: {error}")))
}

fn key(number: usize) -> Vec<u8> {
    format!("{{bench.s{}}}:floor:bench-player-{:06}", number % 8, number % 8_192).into_bytes()
}

fn set_plainly(redis: &Redis, record_bytes: usize) -> Result<(), BenchError> {
    let (mut connection, value) = (redis.connect()?, vec![b'7'; record_bytes]);
    for batch in 0..FLOOR_RECORDS / BATCH {
        for number in batch * BATCH..(batch + 1) * BATCH {
            connection.add(&[b"SET", &key(number), &value, b"PX", b"3660000"]);
        }
        connection.exchange(BATCH)?;
    }
    Ok(())
}

fn set_fenced(redis: &Redis, record_bytes: usize) -> Result<(), BenchError> {
    let (mut connection, value) = (redis.connect()?, vec![b'7'; record_bytes]);
    let hash = connection.command(&[b"SCRIPT", b"LOAD", LEAST_FENCE.as_bytes()])?;
    let hash = hash.get(..40).unwrap_or_default().to_vec();
    connection.command(&[b"SET", b"{bench.s0}:floor-meta", b"epoch"])?;
    let count = (BATCH + 1).to_string();
    for batch in 0..FLOOR_RECORDS / BATCH {
        let keys: Vec<Vec<u8>> = (batch * BATCH..(batch + 1) * BATCH).map(key).collect();
        let mut words: Vec<&[u8]> = vec![b"EVALSHA", &hash, count.as_bytes(), b"{bench.s0}:floor-meta"];
        words.extend(keys.iter().map(Vec::as_slice));
        words.extend([&b"epoch"[..], value.get(..32).unwrap_or_default(), &value]);
        connection.command(&words)?;
    }
    Ok(())
}
