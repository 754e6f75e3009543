//! `sight`: what logs, metrics and traces cost, in instructions that the server executes for a change that is acked. Counted by
//! valgrind's callgrind, since CPU time on a shared machine drowns a few percent in noise. The same binary, twice: with all of it, and
//! with none.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
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
/// Changes of one count. Under callgrind a server is about fifty times as slow.
const CHANGES: u64 = 10_000;
const WARM_UP: u64 = 2_000;

/// What a server has that runs under callgrind, in either case: nothing may take its slowness for trouble.
const PATIENT: [(&str, &str); 3] =
    [("watchdog.patience_ms", "120000"), ("home.lease_ttl_ms", "60000"), ("link.heartbeat_ms", "60000")];

pub(super) fn run(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let unit = "instructions";
    let without = "the same server with `log.level=off`, `metrics.record=false` and no traces";
    let mut patch = Rounds::of("state.patch, 1 in flight", unit, without, Goal::Ratio(1.05));
    let mut many = Rounds::of("state.patch, 16 in flight", unit, without, Goal::Ratio(1.05));
    let sink = Sink::start()?;
    let url = format!("http://{}/v1/traces", sink.addr);
    let on = [("log.level", "info"), ("trace.otlp_url", &url), ("trace.sample_ratio", "0.01")];
    let off = [("log.level", "off"), ("metrics.record", "false"), ("trace.otlp_url", "")];
    for round in 1..=rounds {
        progress(&format!("sight, round {round} of {rounds}"));
        let [one, sixteen] = counted(cores, &off)?;
        patch.floor(one);
        many.floor(sixteen);
        let [one, sixteen] = counted(cores, &on)?;
        patch.ours(one);
        many.ours(sixteen);
    }
    Ok(Findings {
        bench: "sight",
        method: "instructions of the server process (valgrind's callgrind, the kernel's not in them) for 10,000 changes of 64 B, 20 links, \
                 `applied`, Redis store; the same server idle for as long is subtracted. With logs at `info`, metrics recorded and 1 % of \
                 traces sent to a collector, and with none of it; a new server each time",
        rows: [patch, many].into_iter().map(Rounds::row).collect(),
        notes: Vec::new(),
    })
}

/// Instructions a change, with one and with sixteen on the way on each link.
fn counted(cores: Cores, settings: &[(&str, &str)]) -> Result<[f64; 2], BenchError> {
    let redis = Redis::start(cores, Persistence::None)?;
    let settings: Vec<_> = PATIENT.iter().chain(settings).copied().collect();
    let server = Hearth::start_under_callgrind(cores, &redis, &settings)?;
    let mut driven = Driven::start(server.clients, Opening::Upgrade, LINKS)?;
    crowd::enter(&mut driven.swarm, LINKS)?;
    let change = Change::state_patch(CHANGE_BYTES)?;
    drive(&mut driven, &change, 16, WARM_UP)?;
    let mut figures = [0.0; 2];
    for (figure, in_flight) in figures.iter_mut().zip([1, 16]) {
        let mut took = Duration::ZERO;
        let busy = counting(&server, || {
            let began = Instant::now();
            drive(&mut driven, &change, in_flight, CHANGES)?;
            took = began.elapsed();
            Ok(())
        })?;
        let idle = counting(&server, || {
            std::thread::sleep(took);
            Ok(())
        })?;
        *figure = busy.saturating_sub(idle) as f64 / CHANGES as f64;
    }
    Ok(figures)
}

/// Says so many changes and hears their acks.
fn drive(driven: &mut Driven, change: &Change, in_flight: u32, changes: u64) -> Result<(), BenchError> {
    let mut change = change.clone();
    driven.begin(&mut change, in_flight)?;
    let on_their_way = LINKS as u64 * u64::from(in_flight);
    let mut count = 0;
    while count + on_their_way < changes {
        count += driven.turn(&mut change, Answers::Ack(3), true)?;
    }
    driven.drain(&mut change, Answers::Ack(3))
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
}

impl Sink {
    fn start() -> Result<Self, BenchError> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || take_all(BufReader::new(stream)));
            }
        });
        Ok(Self { addr })
    }
}

/// Answers each request of one connection.
fn take_all(mut stream: BufReader<TcpStream>) -> Option<()> {
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
        std::io::copy(&mut stream.by_ref().take(length), &mut std::io::sink()).ok()?;
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()?;
    }
}
