//! `sight`: what logs, metrics and traces cost, in instructions that the server executes for a change that is acked. Counted by
//! valgrind's callgrind, since CPU time on a shared machine drowns a few percent in noise. The same binary, twice: with all of it, and
//! with none.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::cores::Cores;
use super::driven::{Answers, Driven};
use super::figure::{Findings, Goal, Rounds};
use super::process::{Hearth, Persistence, Redis};
use super::swarm::Opening;
use super::words::Change;
use super::{BenchError, crowd, progress};

const LINKS: usize = 20;
/// A change as MessagePack.
const CHANGE_BYTES: usize = 64;
/// Of each count, of changes and of none.
const LASTS: Duration = Duration::from_secs(20);
const WARM_UP: Duration = Duration::from_secs(2);
/// How late the last answers of a count may be. Under callgrind a server is about fifty times as slow: if it is busy throughout, what
/// it does by itself comes late, and is not as much as in the time that is subtracted.
const LATE_MAX: Duration = Duration::from_secs(1);
/// What a collector hears in a round at least: less, and traces were not in what was counted.
const TRACES_BYTES_MIN: u64 = 50_000;

/// What a server has that runs under callgrind, in either case: nothing may take its slowness for trouble.
const PATIENT: [(&str, &str); 3] =
    [("watchdog.patience_ms", "120000"), ("home.lease_ttl_ms", "60000"), ("link.heartbeat_ms", "60000")];

pub(super) fn run(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let unit = "instructions";
    let without = "the same server with `log.level=off`, `metrics.record=false` and no traces";
    let mut patch = Rounds::of("state.patch, 1 in flight", unit, without, Goal::Ratio(1.05));
    let mut many = Rounds::of("state.patch, 16 in flight", unit, without, Goal::Ratio(1.05));
    let mut idle = Rounds::of("idle, a second", unit, without, Goal::None);
    let sink = Sink::start()?;
    let url = format!("http://{}/v1/traces", sink.addr);
    let on = [("log.level", "info"), ("trace.otlp_url", &url), ("trace.sample_ratio", "0.01")];
    let off = [("log.level", "off"), ("metrics.record", "false"), ("trace.otlp_url", "")];
    let mut taken = Vec::new();
    for round in 1..=rounds {
        progress(&format!("sight, round {round} of {rounds}"));
        let count = counted(cores, &off)?;
        patch.floor(count.one);
        many.floor(count.sixteen);
        idle.floor(count.idle_second);
        let taken_before = sink.taken();
        let count = counted(cores, &on)?;
        patch.ours(count.one);
        many.ours(count.sixteen);
        idle.ours(count.idle_second);
        taken.push(sink.taken() - taken_before);
    }
    let least = taken.iter().min().copied().unwrap_or(0);
    if least < TRACES_BYTES_MIN {
        return Err(BenchError::Setup(format!("a collector was sent {least} B of traces: too few to count")));
    }
    Ok(Findings {
        bench: "sight",
        method: "instructions of the server process (valgrind's callgrind, the kernel's not in them) for changes of 64 B, 20 links, \
                 `applied`, Redis store: on one link after the other 50 times a second, or 16 at once five times a second, for 20 s; the \
                 same server idle for as long is subtracted. With logs at `info`, metrics recorded and 1 % of \
                 traces sent to a collector, and with none of it; a new server each time",
        rows: [patch, many, idle].into_iter().map(Rounds::row).collect(),
        notes: vec![format!("the collector was sent {least} B of traces or more in each round")],
    })
}

/// Instructions of a server.
struct Count {
    /// For a change, with one on the way on each link.
    one: f64,
    /// The same with sixteen.
    sixteen: f64,
    /// In a second in which nothing is said: what goes by time and not by changes, as looking at oneself does.
    idle_second: f64,
}

fn counted(cores: Cores, settings: &[(&str, &str)]) -> Result<Count, BenchError> {
    let redis = Redis::start(cores, Persistence::None)?;
    let settings: Vec<_> = PATIENT.iter().chain(settings).copied().collect();
    let server = Hearth::start_under_callgrind(cores, &redis, &settings)?;
    let mut driven = Driven::start(server.clients, Opening::Upgrade, LINKS)?;
    crowd::enter(&mut driven.swarm, LINKS)?;
    let change = Change::state_patch(CHANGE_BYTES)?;
    drive(&mut driven, &change, SIXTEEN, WARM_UP)?;
    let idle = counting(&server, || {
        std::thread::sleep(LASTS);
        Ok(())
    })?;
    let mut a_change = |pace: Pace| -> Result<f64, BenchError> {
        let mut changes = 0;
        let busy = counting(&server, || {
            changes = drive(&mut driven, &change, pace, LASTS)?;
            Ok(())
        })?;
        Ok(busy.saturating_sub(idle) as f64 / changes as f64)
    };
    let (one, sixteen) = (a_change(ONE)?, a_change(SIXTEEN)?);
    Ok(Count { one, sixteen, idle_second: idle as f64 / LASTS.as_secs_f64() })
}

/// How changes are said: so many at once on each link, one link after the other has heard, and all of them again after a time.
/// So each is one wake-up of the server's: how many links it finds ready at once is the kernel's to say, and noise.
/// A quarter of what a server can do under callgrind.
#[derive(Clone, Copy)]
struct Pace {
    in_flight: u32,
    every: Duration,
}

const ONE: Pace = Pace { in_flight: 1, every: Duration::from_millis(20) };
const SIXTEEN: Pace = Pace { in_flight: 16, every: Duration::from_millis(200) };

/// Says changes for so long and hears their acks; how many.
fn drive(driven: &mut Driven, change: &Change, pace: Pace, lasts: Duration) -> Result<u64, BenchError> {
    let (mut change, began, mut rounds) = (change.clone(), Instant::now(), 0_u32);
    let mut due = Duration::ZERO;
    while due < lasts {
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        for link in 0..LINKS {
            driven.begin_on(link, &mut change, pace.in_flight)?;
            driven.drain(&mut change, Answers::Ack(3))?;
        }
        rounds += 1;
        due = pace.every * rounds;
    }
    std::thread::sleep(lasts.saturating_sub(began.elapsed()));
    let late = began.elapsed().saturating_sub(lasts);
    if late > LATE_MAX {
        return Err(BenchError::Void(format!("the server did not keep up: the last ack came {late:?} late")));
    }
    Ok(LINKS as u64 * u64::from(pace.in_flight) * u64::from(rounds))
}

/// What the server executes meanwhile.
fn counting(server: &Hearth, act: impl FnOnce() -> Result<(), BenchError>) -> Result<u64, BenchError> {
    tell_callgrind(server, "zero")?;
    act()?;
    let before = server.process.files("callgrind.out")?.len();
    tell_callgrind(server, "dump")?;
    let dumps = server.process.files("callgrind.out")?;
    let newest = dumps.last().filter(|_| dumps.len() > before);
    let text = newest.map(std::fs::read_to_string).transpose()?.unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    total.ok_or_else(|| BenchError::Setup("callgrind has not said how much it counted".into()))
}

fn tell_callgrind(server: &Hearth, command: &str) -> Result<(), BenchError> {
    let pid = format!("--pid={}", server.process.pid());
    let told = Command::new("vgdb").args([&pid, command]).output()?;
    if told.status.success() {
        return Ok(());
    }
    Err(BenchError::Setup(format!("vgdb {command}: {}", String::from_utf8_lossy(&told.stderr))))
}

/// A collector that takes whatever it is sent, until this program ends.
struct Sink {
    addr: SocketAddr,
    taken: Arc<AtomicU64>,
}

impl Sink {
    fn start() -> Result<Self, BenchError> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        let taken = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&taken);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let counter = Arc::clone(&counter);
                std::thread::spawn(move || take_all(BufReader::new(stream), &counter));
            }
        });
        Ok(Self { addr, taken })
    }

    /// Bytes of traces so far.
    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// Answers each request of one connection.
fn take_all(mut stream: BufReader<TcpStream>, taken: &AtomicU64) -> Option<()> {
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let (name, value) = line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok()?;
            }
        }
        taken.fetch_add(
            std::io::copy(&mut stream.by_ref().take(length), &mut std::io::sink()).ok()?,
            Ordering::Relaxed,
        );
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()?;
    }
}
