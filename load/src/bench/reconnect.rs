//! `reconnect`: 5,000 links are reset at once and all come back at once, while a service pushes numbered messages to
//! some of them; once more while others log in as fast as they can. The floor is a WebSocket echo whose links come back
//! and say one thing.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use protocol::Value;
use protocol::push::Message;
use protocol::reply::Ready;
use protocol::request::Op;
use protocol::{Encoding, codec};

use super::cores::Cores;
use super::figure::{Findings, Goal, Rounds, quantile};
use super::frames::{Frame, push_frame};
use super::process::{Floor, Hearth, Persistence, Redis};
use super::pusher::Pusher;
use super::swarm::{Heard, Opening, Swarm, write};
use super::words::{self, Answer};
use super::{BenchError, crowd, progress};

const LINKS: usize = 5_000;
const WATCHES: usize = 20;
/// Every so many a player is sent messages.
const SENT_TO: usize = 10;
/// Links begun before what has come is heard.
const BEGUN: usize = 64;
/// Logins of the flood under way at a time.
const FLOOD: usize = 100;
/// Players of the flood; when all are in, those who came first come anew.
const FLOOD_PLAYERS: usize = 4_000;
/// How long a storm may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let echo = "tungstenite echo, upgrade and one message";
    let mut last = Rounds::of("the last of 5,000 resumed", "ms", echo, Goal::Ratio(2.0));
    let mut p99 = Rounds::of("p99 of them", "ms", echo, Goal::None);
    let mut flooded = Rounds::of("p99 during a flood of logins", "ms", "p99 without the flood", Goal::None);
    let mut flooded_last =
        Rounds::of("the last during a flood of logins", "ms", "without the flood", Goal::None);
    let mut faults = Rounds::of("messages lost or repeated", "messages", "", Goal::Never(0.0));
    let mut logins = Rounds::of("logins that the flood got done meanwhile", "logins", "", Goal::None);
    let mut pushed = Rounds::of("messages pushed during both storms", "messages", "", Goal::None);
    let redis = Redis::start(cores, Persistence::None)?;
    let server = Hearth::start(cores, &redis, &[("link.heartbeat_ms", "300000")])?;
    let floor = Floor::start(cores, "echo-tungstenite")?;
    let mut crowd = Crowd::enter(&server)?;
    let mut echoes = Swarm::new(floor.addr, Opening::Upgrade)?;
    echoes.open(LINKS)?;
    for round in 1..=rounds {
        progress(&format!("reconnect, round {round} of {rounds}"));
        let mut times = echo_storm(&mut echoes)?;
        last.floor(quantile(&mut times, 1.0));
        p99.floor(quantile(&mut times, 0.99));
        let before = crowd.sent();
        let calm = crowd.storm(&server)?;
        let flood = Flood::start(&server, round)?;
        let stormy = crowd.storm(&server);
        logins.ours(flood.stop()? as f64);
        let stormy = stormy?;
        last.ours(calm.last_ms);
        p99.ours(calm.p99_ms);
        flooded.floor(calm.p99_ms);
        flooded.ours(stormy.p99_ms);
        flooded_last.floor(calm.last_ms);
        flooded_last.ours(stormy.last_ms);
        faults.ours((calm.faults + stormy.faults) as f64);
        pushed.ours((crowd.sent() - before) as f64);
    }
    Ok(Findings {
        bench: "reconnect",
        method: "5,000 links are reset at once, begin anew at once and resume (20 watches, MessagePack); from the first reset to \
                 `ready`, as the client sees it; messages to 500 of them go on meanwhile and are checked by seq and number",
        rows: [last, p99, flooded, flooded_last, faults, logins, pushed]
            .into_iter()
            .map(Rounds::row)
            .collect(),
        notes: Vec::new(),
    })
}

/// What a storm came to.
struct Storm {
    last_ms: f64,
    p99_ms: f64,
    faults: usize,
}

/// One session: what it needs to come back, and what it has heard.
struct Session {
    ready: Ready,
    last_seq: u64,
    last_n: u64,
    faults: usize,
}

struct Crowd {
    swarm: Swarm,
    sessions: Vec<Session>,
    /// How many messages every tenth session has been sent.
    sent: Vec<u64>,
}

impl Crowd {
    fn enter(server: &Hearth) -> Result<Self, BenchError> {
        let mut swarm = Swarm::new(server.clients, Opening::Upgrade)?;
        let readies = crowd::enter(&mut swarm, LINKS)?;
        let friends = |at: usize| (1..=WATCHES).map(move |friend| crowd::player((at + friend * 97) % LINKS));
        crowd::ask(&mut swarm, 0..LINKS, |at| words::watch(friends(at)), |_, _| Ok(()))?;
        let session = |ready| Session { ready, last_seq: 0, last_n: 0, faults: 0 };
        let sessions = readies.into_iter().map(session).collect();
        Ok(Self { swarm, sessions, sent: vec![0; LINKS / SENT_TO] })
    }

    fn sent(&self) -> u64 {
        self.sent.iter().sum()
    }

    fn storm(&mut self, server: &Hearth) -> Result<Storm, BenchError> {
        let names = (0..LINKS).step_by(SENT_TO).map(crowd::player).collect();
        let pusher = Pusher::start(server.services, names, self.sent.clone())?;
        // Some are on their way when the links go.
        std::thread::sleep(Duration::from_millis(50));
        let (sessions, swarm) = (&mut self.sessions, &mut self.swarm);
        let mut times = storm(swarm, |at, stream, heard| match heard {
            Heard::Opened => {
                let session = sessions.get(at).ok_or_else(unknown)?;
                write(stream, &words::resume(&session.ready, session.last_seq)).map(|()| false)
            }
            Heard::Frames(frames) => {
                let session = sessions.get_mut(at).ok_or_else(unknown)?;
                let mut is_back = false;
                for frame in frames {
                    is_back |= session.hear(&frame)?;
                }
                Ok(is_back)
            }
            Heard::Ended => Err(BenchError::Void(format!("link {at} ended in the storm"))),
        })?;
        self.sent = pusher.stop()?;
        self.hear_the_rest()?;
        let faults = self.sessions.iter_mut().map(|session| std::mem::take(&mut session.faults)).sum();
        Ok(Storm { last_ms: quantile(&mut times, 1.0), p99_ms: quantile(&mut times, 0.99), faults })
    }

    /// Waits for what is still on its way; what does not come is lost.
    fn hear_the_rest(&mut self) -> Result<(), BenchError> {
        let until = Instant::now() + PATIENCE / 10;
        while self.missing() > 0 && Instant::now() < until {
            let sessions = &mut self.sessions;
            self.swarm.hear(Duration::from_millis(20), |at, _, heard| {
                let (Heard::Frames(frames), Some(session)) = (heard, sessions.get_mut(at)) else {
                    return Err(BenchError::Void(format!("link {at} ended after the storm")));
                };
                for frame in frames {
                    session.hear(&frame)?;
                }
                Ok(())
            })?;
        }
        let missing = self.missing();
        if let Some(session) = self.sessions.first_mut() {
            session.faults += usize::try_from(missing).unwrap_or(usize::MAX);
        }
        Ok(())
    }

    fn missing(&self) -> u64 {
        let heard = self.sessions.iter().step_by(SENT_TO).map(|session| session.last_n);
        self.sent.iter().zip(heard).map(|(sent, heard)| sent.saturating_sub(heard)).sum()
    }
}

impl Session {
    /// Whether this is what tells that the session is back.
    fn hear(&mut self, frame: &Frame<'_>) -> Result<bool, BenchError> {
        match words::judge(frame)? {
            Answer::Ready(_) => {
                self.ready = words::ready(frame)?;
                if !self.ready.resumed {
                    return Err(BenchError::Void("a session was not resumed".into()));
                }
                self.faults += usize::from(self.ready.missed == Some(true));
                Ok(true)
            }
            Answer::Push(op, seq) => {
                self.faults += usize::from(seq != self.last_seq + 1);
                self.last_seq = seq;
                if op == Op::Message {
                    let n = number(frame)?;
                    self.faults += usize::from(n != self.last_n + 1);
                    self.last_n = n;
                }
                Ok(false)
            }
            Answer::Ok(_) | Answer::Other => Ok(false),
        }
    }
}

/// The number in a message.
fn number(frame: &Frame<'_>) -> Result<u64, BenchError> {
    let read = |text: &str| BenchError::Void(format!("a message cannot be read: {text}"));
    let parts =
        codec::peek(Encoding::MessagePack, frame.payload).map_err(|error| read(&error.to_string()))?;
    let message: Message = parts.read(Encoding::MessagePack).map_err(|error| read(&error))?;
    match message.data {
        Value::Map(data) => match data.get("n") {
            Some(Value::Int(n)) => u64::try_from(*n).map_err(|_| read("its number is negative")),
            Some(Value::Uint(n)) => Ok(*n),
            _ => Err(read("it has no number")),
        },
        _ => Err(read("it has no map")),
    }
}

/// Resets all links of a swarm and begins all anew; ms from the first reset until each is back, which `on` says.
fn storm(
    swarm: &mut Swarm,
    mut on: impl FnMut(usize, &std::net::TcpStream, Heard<'_>) -> Result<bool, BenchError>,
) -> Result<Vec<f64>, BenchError> {
    let (began, mut times, mut next) = (Instant::now(), Vec::with_capacity(LINKS), 0);
    swarm.reset(0..LINKS);
    while times.len() < LINKS {
        for _ in 0..BEGUN.min(LINKS - next) {
            swarm.begin_again(next)?;
            next += 1;
        }
        let wait = if next < LINKS { Duration::ZERO } else { Duration::from_millis(20) };
        swarm.hear(wait, |at, stream, heard| {
            if on(at, stream, heard)? {
                times.push(began.elapsed().as_secs_f64() * 1e3);
            }
            Ok(())
        })?;
        if began.elapsed() > PATIENCE {
            return Err(BenchError::Void(format!("{} links did not come back", LINKS - times.len())));
        }
    }
    Ok(times)
}

fn echo_storm(swarm: &mut Swarm) -> Result<Vec<f64>, BenchError> {
    let mut message = Vec::new();
    push_frame(&mut message, &[7; 64]);
    storm(swarm, |at, stream, heard| match heard {
        Heard::Opened => write(stream, &message).map(|()| false),
        Heard::Frames(_) => Ok(true),
        Heard::Ended => Err(BenchError::Void(format!("link {at} of the floor ended in the storm"))),
    })
}

fn unknown() -> BenchError {
    BenchError::Void("a link that nobody made".into())
}

/// New players who log in as fast as they are let, in a thread of their own.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize, BenchError>>,
}

impl Flood {
    fn start(server: &Hearth, round: u32) -> Result<Self, BenchError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, addr) = (Arc::clone(&stop), server.clients);
        let thread = std::thread::spawn(move || flood(Swarm::new(addr, Opening::Upgrade)?, round, &stopped));
        Ok(Self { stop, thread })
    }

    /// How many logins it got done.
    fn stop(self) -> Result<usize, BenchError> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| BenchError::Void("the flood's thread died".into()))?
    }
}

/// Logs in until it is stopped: players keep their links, and come anew when there are no more of them.
fn flood(mut swarm: Swarm, round: u32, stopped: &AtomicBool) -> Result<usize, BenchError> {
    let (mut waiting, mut settled, mut done) = (HashSet::new(), VecDeque::new(), 0);
    while !stopped.load(Ordering::Acquire) {
        while waiting.len() < FLOOD {
            let at = if swarm.len() < FLOOD_PLAYERS {
                swarm.begin()?
            } else {
                let Some(at) = settled.pop_front() else { break };
                swarm.reset(at..at + 1);
                swarm.begin_again(at)?;
                at
            };
            waiting.insert(at);
        }
        swarm.hear(Duration::from_millis(10), |at, stream, heard| {
            let (is_in, is_over) = match heard {
                Heard::Opened => {
                    write(stream, &words::login(&format!("flood-{round}-{at}")))?;
                    (false, false)
                }
                // A login may be refused while resumes go first; then it is none.
                Heard::Frames(mut frames) => {
                    let is_in = frames.any(|frame| matches!(words::judge(&frame), Ok(Answer::Ready(_))));
                    (is_in, true)
                }
                Heard::Ended => (false, true),
            };
            if is_over && waiting.remove(&at) {
                done += usize::from(is_in);
                settled.push_back(at);
            }
            Ok(())
        })?;
    }
    swarm.reset(0..swarm.len());
    Ok(done)
}
