//! `locks`: what a lock costs that is taken and given back, beside a call of the same API that asks no store; and what a
//! hundred who wait for one lock cost the store, and how soon the next of them has it.

use std::time::{Duration, Instant};

use protocol::service::{Lock, Service, ServiceError};
use tokio::task::JoinSet;

use super::cores::Cores;
use super::figure::{Findings, Goal, Rounds, quantile};
use super::process::{Hearth, Persistence, Redis, SERVICE_KEY};
use super::{BenchError, progress};

/// Locks of a round, one after the other.
const LOCKS: u32 = 500;
const WARM_UP: u32 = 50;
/// Who wait for one lock.
const WAITERS: u32 = 100;
/// For how long they do while their looks are counted.
const WATCHED: Duration = Duration::from_secs(5);
/// Ends in no round.
const TTL: Duration = Duration::from_secs(600);
const WAIT: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(20);
const WAITING: &str = "hearth_lock_waiters";
const LOOKS: &str = "hearth_lock_looks_total";

pub(super) fn run(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(cores, rounds))
}

async fn measure(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let calls = "two calls of GET /v1/maintenance, which ask no store";
    let mut server_cpu =
        Rounds::of("the server, a lock taken and given back", "µs of CPU", calls, Goal::None);
    let mut redis_cpu = Rounds::of("Redis, a lock taken and given back", "µs of CPU", "", Goal::None);
    let mut taken = Rounds::of("a lock is taken, median", "µs", "one such call, median", Goal::None);
    let mut looks = Rounds::of(
        format!("store calls, {WAITERS} who wait for one lock"),
        "calls a waiter a second",
        "",
        Goal::None,
    );
    let mut handed = Rounds::of("from given back to had by the next of them, median", "ms", "", Goal::None);
    let redis = Redis::start(cores, Persistence::None)?;
    let server = Hearth::start(cores, &redis, &[])?;
    let bench = Bench::of(&server)?;
    for round in 0..=rounds {
        progress(&format!("locks, round {round} of {rounds}"));
        let count = if round == 0 { WARM_UP } else { LOCKS };
        let before = server.process.cpu_time()?;
        let mut asked = bench.calls(2 * count).await?;
        let floor = server.process.cpu_time()? - before;
        let (before, before_redis) = (server.process.cpu_time()?, redis.process.cpu_time()?);
        let mut took = bench.locks(count).await?;
        let (ours, of_redis) =
            (server.process.cpu_time()? - before, redis.process.cpu_time()? - before_redis);
        // The first round warms up.
        if round == 0 {
            continue;
        }
        let a_lock = |used: Duration| used.as_secs_f64() * 1e6 / f64::from(count);
        server_cpu.floor(a_lock(floor));
        server_cpu.ours(a_lock(ours));
        redis_cpu.ours(a_lock(of_redis));
        taken.floor(quantile(&mut asked, 0.5));
        taken.ours(quantile(&mut took, 0.5));
        let (calls, mut times) = bench.crowd(round).await?;
        looks.ours(calls);
        handed.ours(quantile(&mut times, 0.5));
    }
    Ok(Findings {
        bench: "locks",
        method: "one client after the other, on connections that are kept, Redis without AOF; the client also renews what it holds, \
                 at a third of ten minutes; nothing is subtracted, so leases and heartbeats are in the CPU of server and Redis",
        rows: [server_cpu, redis_cpu, taken, looks, handed].into_iter().map(Rounds::row).collect(),
        notes: Vec::new(),
    })
}

/// A service and its server.
struct Bench {
    service: Service,
    http: reqwest::Client,
    url: String,
}

impl Bench {
    fn of(server: &Hearth) -> Result<Self, BenchError> {
        let url = format!("http://{}", server.services);
        let service = Service::at(&url, SERVICE_KEY).map_err(void)?;
        Ok(Self { service, http: reqwest::Client::new(), url })
    }

    /// µs of each call that asks no store.
    async fn calls(&self, count: u32) -> Result<Vec<f64>, BenchError> {
        let mut times = Vec::new();
        for _ in 0..count {
            let began = Instant::now();
            let call = self.http.get(format!("{}/v1/maintenance", self.url)).bearer_auth(SERVICE_KEY);
            let answer = call.send().await.and_then(reqwest::Response::error_for_status);
            answer.map_err(refused)?.bytes().await.map_err(refused)?;
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
        Ok(times)
    }

    /// µs until each lock was taken; each is given back.
    async fn locks(&self, count: u32) -> Result<Vec<f64>, BenchError> {
        let (mut times, mut last) = (Vec::new(), 0);
        for _ in 0..count {
            let began = Instant::now();
            let lock = self.service.lock("bench", TTL, Duration::ZERO).await.map_err(void)?;
            times.push(began.elapsed().as_secs_f64() * 1e6);
            if std::mem::replace(&mut last, lock.token()) >= lock.token() {
                return Err(BenchError::Void("a token did not rise".into()));
            }
            lock.release().await.map_err(void)?;
        }
        Ok(times)
    }

    /// A hundred wait for a lock that is held: store calls a waiter a second; then each gives it back as soon as she has it:
    /// ms from one to the next.
    async fn crowd(&self, round: u32) -> Result<(f64, Vec<f64>), BenchError> {
        let name = format!("crowd-{round}");
        let held = self.service.lock(&name, TTL, Duration::ZERO).await.map_err(void)?;
        let mut waiters = JoinSet::new();
        for _ in 0..WAITERS {
            let (service, name) = (self.service.clone(), name.clone());
            waiters.spawn(async move { has(service.lock(&name, TTL, WAIT).await).await });
        }
        let until = Instant::now() + PATIENCE;
        while self.metric(WAITING).await? < f64::from(WAITERS) {
            if Instant::now() > until {
                return Err(BenchError::Void("not all of them wait".into()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (before, began) = (self.metric(LOOKS).await?, Instant::now());
        tokio::time::sleep(WATCHED).await;
        let looks = self.metric(LOOKS).await? - before;
        let a_waiter_a_second = looks / f64::from(WAITERS) / began.elapsed().as_secs_f64();
        held.release().await.map_err(void)?;
        let mut times = vec![Instant::now()];
        while let Some(had) = waiters.join_next().await {
            times.push(had.map_err(|_| BenchError::Void("a waiter died".into()))?.map_err(void)?);
        }
        times.sort_unstable();
        let between = times.windows(2).filter_map(|pair| match pair {
            [one, next] => Some((*next - *one).as_secs_f64() * 1e3),
            _ => None,
        });
        Ok((a_waiter_a_second, between.collect()))
    }

    async fn metric(&self, name: &str) -> Result<f64, BenchError> {
        let answer = self.http.get(format!("{}/metrics", self.url)).send().await.map_err(refused)?;
        let text = answer.text().await.map_err(refused)?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        // What has never been counted is not told.
        Ok(value.unwrap_or(0.0))
    }
}

/// When it was had; it is given back at once.
async fn has(lock: Result<Lock, ServiceError>) -> Result<Instant, ServiceError> {
    let lock = lock?;
    let had = Instant::now();
    lock.release().await?;
    Ok(had)
}

fn void(error: ServiceError) -> BenchError {
    BenchError::Void(error.to_string())
}

fn refused(error: reqwest::Error) -> BenchError {
    BenchError::Void(error.to_string())
}
