//! `ack`: CPU of the server for a change that is acked `applied`, on 200 links, each with one change in flight (floor: a
//! WebSocket echo) or sixteen (floor: the raw echo). The same client code drives floor and ours, so the same number of
//! bytes goes in the same way.

use std::time::{Duration, Instant};

use super::cores::Cores;
use super::driven::{Answers, Driven};
use super::figure::{Findings, Goal, Rounds, Series};
use super::process::{Floor, Hearth, Persistence, Process, Redis};
use super::swarm::Opening;
use super::words::Change;
use super::{BenchError, crowd, progress};

const LINKS: usize = 200;
/// A change as MessagePack.
const CHANGE_BYTES: usize = 64;
const WARM_UP: Duration = Duration::from_millis(300);
const WINDOW: Duration = Duration::from_secs(1);
/// A window ends here, too.
const CHANGES_MAX: u64 = 5_000_000;

pub(super) fn run(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let redis = Redis::start(cores, Persistence::None)?;
    let server = Hearth::start(cores, &redis, &[])?;
    let ws_floor = Floor::start(cores, "echo-tungstenite")?;
    let raw_floor = Floor::start(cores, "echo-epoll")?;
    let mut ours = Measured::start(&server.process, server.clients, Opening::Upgrade)?;
    let mut by_ws = Measured::start(&ws_floor.process, ws_floor.addr, Opening::Upgrade)?;
    let mut by_raw = Measured::start(&raw_floor.process, raw_floor.addr, Opening::Raw)?;
    crowd::enter(&mut ours.driven.swarm, LINKS)?;
    by_ws.driven.swarm.open(LINKS)?;
    by_raw.driven.swarm.open(LINKS)?;

    let (ws, raw) = ("tungstenite echo, the same buffers", "raw epoll echo");
    let mut patch_1 = row("state.patch, 1 in flight", ws, Goal::Ratio(1.3));
    let mut presence_1 = row("presence.set, 1 in flight", ws, Goal::Ratio(1.3));
    let mut patch_16 = row("state.patch, 16 in flight", raw, Goal::Ratio(2.0));
    let mut presence_16 = row("presence.set, 16 in flight", raw, Goal::Ratio(2.0));
    let mut patch_16_ws = row("state.patch, 16 in flight", ws, Goal::None);
    let (patch, presence) = (Change::state_patch(CHANGE_BYTES)?, Change::presence_set(CHANGE_BYTES)?);
    for round in 1..=rounds {
        progress(&format!("ack, round {round} of {rounds}"));
        let floor = by_ws.window(&patch, 1, Answers::Echo)?;
        patch_1.floor(floor);
        presence_1.floor(floor);
        patch_1.ours(ours.window(&patch, 1, Answers::Ack(3))?);
        presence_1.ours(ours.window(&presence, 1, Answers::Ack(2))?);
        let floor = by_raw.window(&patch, 16, Answers::Echo)?;
        patch_16.floor(floor);
        presence_16.floor(floor);
        let of_patches = ours.window(&patch, 16, Answers::Ack(3))?;
        patch_16.ours(of_patches);
        presence_16.ours(ours.window(&presence, 16, Answers::Ack(2))?);
        patch_16_ws.floor(by_ws.window(&patch, 16, Answers::Echo)?);
        patch_16_ws.ours(of_patches);
    }
    Ok(Findings {
        bench: "ack",
        method: "CPU of the server process over a window of 1 s, by the changes acked in it: 200 links, 64 B of MessagePack a \
                 change, `applied`, cseq given, Redis store without AOF, flushing on; nothing is subtracted",
        rows: [patch_1, presence_1, patch_16, presence_16, patch_16_ws]
            .into_iter()
            .map(Rounds::row)
            .collect(),
        notes: vec![format!(
            "busy share of the server's core (medians): ours {:.2}, tungstenite echo {:.2}, raw echo {:.2}",
            Series::of(ours.busy).median,
            Series::of(by_ws.busy).median,
            Series::of(by_raw.busy).median
        )],
    })
}

fn row(what: &str, floor_is: &'static str, goal: Goal) -> Rounds {
    Rounds::of(what, "µs of CPU", floor_is, goal)
}

/// A server that is kept busy, and how busy it was.
struct Measured<'a> {
    process: &'a Process,
    driven: Driven,
    /// The share of its windows that the server was busy.
    busy: Vec<f64>,
}

impl<'a> Measured<'a> {
    fn start(process: &'a Process, addr: std::net::SocketAddr, opening: Opening) -> Result<Self, BenchError> {
        Ok(Self { process, driven: Driven::start(addr, opening, LINKS)?, busy: Vec::new() })
    }

    /// µs of CPU a change, with so many in flight on each link.
    fn window(&mut self, change: &Change, in_flight: u32, answers: Answers) -> Result<f64, BenchError> {
        let mut change = change.clone();
        self.driven.begin(&mut change, in_flight)?;
        let warm = Instant::now() + WARM_UP;
        while Instant::now() < warm {
            self.driven.turn(&mut change, answers, true)?;
        }
        let (before, began, mut count) = (self.process.cpu_time()?, Instant::now(), 0);
        while began.elapsed() < WINDOW && count < CHANGES_MAX {
            count += self.driven.turn(&mut change, answers, true)?;
        }
        let used = self.process.cpu_time()?.saturating_sub(before);
        self.busy.push(used.as_secs_f64() / began.elapsed().as_secs_f64());
        self.driven.drain(&mut change, answers)?;
        Ok(used.as_secs_f64() * 1e6 / count as f64)
    }
}
