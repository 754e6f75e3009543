//! `idle`: resident memory of a session that is logged in and does nothing. The slope between two crowds in the same
//! process, so that what the process needs by itself does not count; the floor is a WebSocket echo with as many links.

use std::time::{Duration, Instant};

use super::cores::Cores;
use super::crowd::{self, player};
use super::figure::{Findings, Goal, Rounds};
use super::process::{Floor, Hearth, Persistence, Process, Redis};
use super::swarm::{Opening, Swarm};
use super::{BenchError, frames, progress, words};

/// The two crowds.
const FEW: usize = 2_000;
const MANY: usize = 12_000;
/// What each session carries.
const STATE_BYTES: usize = 256;
const WATCHES: usize = 20;
const KIB: f64 = 1024.0;
/// How long memory may take to come to rest.
const REST: Duration = Duration::from_secs(10);

pub(super) fn run(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let goal = Goal::Ours(4.5);
    let mut memory = Rounds::of("a logged-in session", "KiB", "tungstenite echo, the same buffers", goal);
    let mut logins = Rounds::of("a login (development token, durable)", "ms of CPU", "", Goal::None);
    for round in 1..=rounds {
        progress(&format!("idle, round {round} of {rounds}"));
        memory.floor(floor_round(cores)?);
        let (kib, login_ms) = our_round(cores)?;
        memory.ours(kib);
        logins.ours(login_ms);
    }
    Ok(Findings {
        bench: "idle",
        method: "resident memory of the server process, slope from 2,000 to 12,000 links: presence online, 256 B of state, 20 \
                 watches within the same players, ticket, limiter, replay empty; MessagePack, Redis store; kernel memory of \
                 sockets is not part of it",
        rows: vec![memory.row(), logins.row()],
        notes: Vec::new(),
    })
}

fn floor_round(cores: Cores) -> Result<f64, BenchError> {
    let floor = Floor::start(cores, "echo-tungstenite")?;
    let mut swarm = Swarm::new(floor.addr, Opening::Upgrade)?;
    let mut message = Vec::new();
    frames::push_frame(&mut message, &[7; 64]);
    let grow = |swarm: &mut Swarm, to: usize| {
        let first = swarm.len();
        swarm.open(to - first)?;
        crowd::echo(swarm, first..to, &message)?;
        at_rest(&floor.process)
    };
    let few = grow(&mut swarm, FEW)?;
    let many = grow(&mut swarm, MANY)?;
    Ok(slope_kib(few, many))
}

/// KiB a session, and CPU ms a login.
fn our_round(cores: Cores) -> Result<(f64, f64), BenchError> {
    let redis = Redis::start(cores, Persistence::None)?;
    // No heartbeat falls due while it is measured.
    let server = Hearth::start(cores, &redis, &[("link.heartbeat_ms", "300000")])?;
    let mut swarm = Swarm::new(server.clients, Opening::Upgrade)?;
    let few = grow(&server, &mut swarm, FEW)?;
    let before = server.process.cpu_time()?;
    crowd::enter(&mut swarm, MANY - FEW)?;
    let logins = server.process.cpu_time()?.saturating_sub(before);
    let many = furnish(&server, &mut swarm, FEW..MANY)?;
    Ok((slope_kib(few, many), logins.as_secs_f64() * 1e3 / per_session()))
}

fn grow(server: &Hearth, swarm: &mut Swarm, to: usize) -> Result<u64, BenchError> {
    let first = swarm.len();
    crowd::enter(swarm, to - first)?;
    furnish(server, swarm, first..to)
}

/// Gives the newest sessions all that they carry; the memory at rest.
fn furnish(server: &Hearth, swarm: &mut Swarm, sessions: std::ops::Range<usize>) -> Result<u64, BenchError> {
    let among = sessions.end;
    crowd::ask(swarm, sessions.clone(), |_| words::state_of(STATE_BYTES), |_, _| Ok(()))?;
    // Everybody is watched by as many as she watches, and nobody is a neighbour.
    let friends = |at: usize| (1..=WATCHES).map(move |friend| player((at + friend * 97) % among));
    crowd::ask(swarm, sessions.clone(), |at| words::watch(friends(at)), |_, _| Ok(()))?;
    crowd::ask(swarm, sessions, |_| words::seen(u64::from(u32::MAX)), |_, _| Ok(()))?;
    at_rest(&server.process)
}

/// Resident memory once it has stopped to move: commits are done and their buffers given back.
fn at_rest(process: &Process) -> Result<u64, BenchError> {
    let until = Instant::now() + REST;
    let mut before = process.resident_bytes()?;
    std::thread::sleep(Duration::from_secs(1));
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = process.resident_bytes()?;
        if now.abs_diff(before) <= 64 * 1024 {
            return Ok(now);
        }
        if Instant::now() > until {
            return Err(BenchError::Void("memory does not come to rest".into()));
        }
        before = now;
    }
}

fn slope_kib(few: u64, many: u64) -> f64 {
    many.saturating_sub(few) as f64 / KIB / per_session()
}

fn per_session() -> f64 {
    (MANY - FEW) as f64
}
