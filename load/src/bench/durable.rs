//! `durable`: how long one change takes until it is acked `durable`, on a server that has nothing else to do, beside one
//! round trip to the same Redis over the same kind of connection. Both are taken change by change in turn.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use protocol::request::{Ack, Ping, Request, StatePatch};
use protocol::{Text, Value};

use super::cores::{self, Cores};
use super::figure::{Findings, Goal, Rounds, quantile};
use super::frames::{Frame, next_frame};
use super::process::{Hearth, Persistence, Redis, Resp};
use super::swarm::UPGRADE;
use super::words::{self, Answer};
use super::{BenchError, progress};

/// Exchanges of each kind in a round.
const EXCHANGES: usize = 400;
const WARM_UP: usize = 50;
/// Between two exchanges: long enough for everybody to fall asleep, as on an unloaded server.
const PAUSE: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let (unit, trip) = ("µs", "one Redis round trip (SET PX of 200 B), server's core to Redis's");
    let mut typical = Rounds::of("a durable ack, median", unit, trip, Goal::Ratio(2.0));
    let mut slow = Rounds::of("a durable ack, p99", unit, "p99 of the same round trip", Goal::None);
    let mut ping = Rounds::of("a ping to the server, median", unit, trip, Goal::None);
    let redis = Redis::start(cores, Persistence::None)?;
    let server = Hearth::start(cores, &redis, &[])?;
    let mut link = Plain::enter(&server)?;
    let mut resp = redis.connect()?;
    for round in 0..=rounds {
        progress(&format!("durable, round {round} of {rounds}"));
        let (mut trips, mut pings, mut acks) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..if round == 0 { WARM_UP } else { EXCHANGES } {
            trips.push(cores::on(&[cores.server], || round_trip(&mut resp))?);
            pings.push(link.ping()?);
            acks.push(link.durable()?);
        }
        // The first round warms up.
        if round == 0 {
            continue;
        }
        typical.floor(quantile(&mut trips, 0.5));
        typical.ours(quantile(&mut acks, 0.5));
        slow.floor(quantile(&mut trips, 0.99));
        slow.ours(quantile(&mut acks, 0.99));
        ping.floor(quantile(&mut trips, 0.5));
        ping.ours(quantile(&mut pings, 0.5));
    }
    Ok(Findings {
        bench: "durable",
        method: "one change in flight, a pause before each, Redis without AOF; TCP over loopback for all; a durable ack is the \
                 client's round trip to the server, the server's to Redis, and what both do in between",
        rows: [typical, slow, ping].into_iter().map(Rounds::row).collect(),
        notes: Vec::new(),
    })
}

/// µs of one exchange with Redis.
fn round_trip(resp: &mut Resp) -> Result<f64, BenchError> {
    std::thread::sleep(PAUSE);
    let began = Instant::now();
    resp.command(&[b"SET", b"{bench.s0}:round-trip", &[b'7'; 200], b"PX", b"3660000"])?;
    Ok(began.elapsed().as_secs_f64() * 1e6)
}

/// One blocking link with a session.
struct Plain {
    stream: TcpStream,
    bytes: Vec<u8>,
    n: u32,
}

impl Plain {
    fn enter(server: &Hearth) -> Result<Self, BenchError> {
        let mut stream = TcpStream::connect(server.clients)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(UPGRADE)?;
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let mut link = Self { stream, bytes: Vec::new(), n: 0 };
        link.exchange(&words::login("durable-player"), words::FIRST_REFERENCE)?;
        Ok(link)
    }

    /// µs of one durable change.
    fn durable(&mut self) -> Result<f64, BenchError> {
        self.n += 1;
        let reference = words::FIRST_REFERENCE + self.n;
        let set = [(Text::from("pos"), Value::Int(self.n.into()))].into();
        let (ack, cseq) = (Some(Ack::Durable), Some(self.n.into()));
        let patch = StatePatch { set: Some(set), ack, cseq, ..StatePatch::default() };
        std::thread::sleep(PAUSE);
        self.exchange(&words::request(reference, &Request::StatePatch(patch)), reference)
    }

    /// µs of one ping.
    fn ping(&mut self) -> Result<f64, BenchError> {
        std::thread::sleep(PAUSE);
        let ping = words::request(words::FIRST_REFERENCE, &Request::Ping(Ping::default()));
        self.exchange(&ping, words::FIRST_REFERENCE)
    }

    fn exchange(&mut self, request: &[u8], reference: u32) -> Result<f64, BenchError> {
        let began = Instant::now();
        self.stream.write_all(request)?;
        let mut chunk = [0; 4_096];
        loop {
            let count = self.stream.read(&mut chunk)?;
            self.bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
            if count == 0 {
                return Err(BenchError::Void("the link ended".into()));
            }
            while let Some((frame, rest)) = next_frame(&self.bytes) {
                let is_answer = answers(&frame, reference)?;
                let used = self.bytes.len() - rest.len();
                self.bytes.drain(..used);
                if is_answer {
                    return Ok(began.elapsed().as_secs_f64() * 1e6);
                }
            }
        }
    }
}

fn answers(frame: &Frame<'_>, reference: u32) -> Result<bool, BenchError> {
    Ok(matches!(words::judge(frame)?, Answer::Ok(number) | Answer::Ready(number) if number == reference))
}
