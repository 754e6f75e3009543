//! `watch`: what an edge costs in memory, at the watched player's home and at the watcher's node together; and how soon a
//! hundred thousand watchers of one player have heard of a change.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::cores::Cores;
use super::figure::{Findings, Goal, Rounds, quantile};
use super::frames::Frame;
use super::process::{Persistence, Redis};
use super::swarm::{Heard, Opening, Swarm};
use super::throng::{Counts, HeardAt, Said, Throng};
use super::words::{self, Answer, Change};
use super::{BenchError, crowd, progress};
use protocol::request::Op;

/// Nodes of the cluster.
const NODES: usize = 3;
/// Sessions whose watches are weighed, on each node, and whom each of them watches.
const SESSIONS: usize = 2_000;
const WATCHED: usize = 500;
/// One `watch` names so many.
const WATCHED_A_CALL: usize = 200;
/// Looks at the memory of all nodes, two a second, of which the least counts.
const LOOKS: u32 = 16;
/// Watchers of one player: on sockets, on each node, and without, in all.
const ON_SOCKETS: usize = 5_000;
const WITHOUT: usize = 100_000 - ON_SOCKETS * NODES;
/// Changes of a round.
const CHANGES: u32 = 10;
/// Who could not be told of within a call is pushed by then.
const FOLLOWED: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn run(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let mut edge = Rounds::of("an edge, at home and at the watcher's node", "bytes", "", Goal::Ours(48.0));
    let mut last = Rounds::of("100,000 have heard of a change, the last of them", "ms", "", Goal::None);
    let mut most = Rounds::of("the same, 99 of 100", "ms", "", Goal::None);
    let mut typical = Rounds::of("the same, half of them", "ms", "", Goal::None);
    let mut cpu =
        Rounds::of("a watcher who hears of a change, three nodes and crowds", "µs of CPU", "", Goal::None);
    let mut bytes = Rounds::of("what each of them is told", "bytes", "", Goal::None);
    for round in 1..=rounds {
        progress(&format!("watch, round {round} of {rounds}: {} edges", SESSIONS * NODES * WATCHED));
        edge.ours(bytes_an_edge(cores)?);
    }
    let redis = Redis::start(cores, Persistence::None)?;
    let mut throng = Throng::start(cores, &redis, NODES, 0)?;
    progress("watch: 100,000 watchers come");
    let mut watchers = Watchers::come(&mut throng)?;
    for round in 1..=rounds {
        progress(&format!("watch, round {round} of {rounds}: 100,000 watchers"));
        let told = watchers.hear(&mut throng)?;
        typical.ours(told.ms[0]);
        most.ours(told.ms[1]);
        last.ours(told.ms[2]);
        cpu.ours(told.cpu_us);
        bytes.ours(told.bytes);
    }
    Ok(Findings {
        bench: "watch",
        method: "three nodes. Memory: 6,000 sessions on sockets, each of which watches 500 of the others, on whichever node these are; \
                 what the three processes hold more than before, over 3,000,000, once clients have said that they have seen all. \
                 One player: 15,000 watchers on sockets, 85,000 in the nodes' own processes; ten changes a round, one after the \
                 other, both cores for everything",
        rows: [edge, last, most, typical, cpu, bytes].into_iter().map(Rounds::row).collect(),
        notes: Vec::new(),
    })
}

/// Watches of all sessions weighed, on nodes that are new.
fn bytes_an_edge(cores: Cores) -> Result<f64, BenchError> {
    let redis = Redis::start(cores, Persistence::None)?;
    let throng = Throng::start(cores, &redis, 0, NODES)?;
    let (mut all, mut swarms) = (Vec::new(), Vec::new());
    for (place, node) in throng.nodes.iter().enumerate() {
        let names = throng.names_at(place, "weighed", SESSIONS);
        let mut swarm = Swarm::new(node.clients, Opening::Upgrade)?;
        crowd::enter_as(&mut swarm, SESSIONS, |number| names.get(number).cloned().unwrap_or_default())?;
        all.extend(names);
        swarms.push(swarm);
    }
    let before = throng.resident_bytes(LOOKS)?;
    for (place, swarm) in swarms.iter_mut().enumerate() {
        for first in (0..WATCHED).step_by(WATCHED_A_CALL) {
            let call = |number: usize| {
                // Each watches others, and each is watched by as many.
                let me = place * SESSIONS + number;
                let watched = (first..WATCHED.min(first + WATCHED_A_CALL))
                    .map(|watched| all.get((me + 1 + watched * 11) % all.len()).cloned().unwrap_or_default());
                words::watch(watched)
            };
            crowd::ask(swarm, 0..SESSIONS, call, |_, _| Ok(()))?;
        }
    }
    // What is pushed meanwhile is kept for a resume until the client says that she has seen it: up to 64 KiB of a session,
    // however many it watches, and more of it the more looks of a busy machine are answered late.
    std::thread::sleep(FOLLOWED);
    for swarm in &mut swarms {
        crowd::ask(swarm, 0..SESSIONS, |_| words::all_seen(), |_, _| Ok(()))?;
    }
    let held = throng.resident_bytes(LOOKS)?;
    Ok((held as f64 - before as f64) / (SESSIONS * NODES * WATCHED) as f64)
}

/// Everybody who watches one player.
struct Watchers {
    on_sockets: Vec<Swarm>,
    watched: Swarm,
    changes: u32,
    change: Change,
}

/// What a round has shown, the middle one of its changes.
struct Round {
    /// Half of all, 99 of 100, and the last have heard.
    ms: [f64; 3],
    cpu_us: f64,
    bytes: f64,
}

impl Watchers {
    fn come(throng: &mut Throng) -> Result<Self, BenchError> {
        let watched_at = 0;
        let watched = throng.names_at(watched_at, "watched", 1).pop().unwrap_or_default();
        let come: Vec<serde_json::Value> = throng
            .all(|number| format!("enter {}", WITHOUT / NODES + usize::from(number < WITHOUT % NODES)))?;
        drop(come);
        let mut on_sockets = Vec::new();
        for (place, node) in throng.nodes.iter().enumerate() {
            let names = throng.names_at(place, "on-a-socket", ON_SOCKETS);
            let mut swarm = Swarm::new(node.clients, Opening::Upgrade)?;
            crowd::enter_as(&mut swarm, ON_SOCKETS, |number| names.get(number).cloned().unwrap_or_default())?;
            let call = |_| words::watch([watched.clone()].into_iter());
            crowd::ask(&mut swarm, 0..ON_SOCKETS, call, |_, _| Ok(()))?;
            on_sockets.push(swarm);
        }
        let _: Vec<Said> = throng.all(|_| format!("watch {watched}"))?;
        let clients = throng.nodes.get(watched_at).map(|node| node.clients);
        let mut swarm = Swarm::new(clients.ok_or(BenchError::Void("no node".into()))?, Opening::Upgrade)?;
        crowd::enter_as(&mut swarm, 1, |_| watched.clone())?;
        // Her coming is a change, too.
        std::thread::sleep(Duration::from_secs(3));
        let change = Change::presence_set(64)?;
        let mut watchers = Self { on_sockets, watched: swarm, changes: 0, change };
        watchers.drain()?;
        Ok(watchers)
    }

    fn drain(&mut self) -> Result<(), BenchError> {
        for swarm in &mut self.on_sockets {
            while swarm.hear(Duration::ZERO, |_, _, _| Ok(()))? > 0 {}
        }
        Ok(())
    }

    fn hear(&mut self, throng: &mut Throng) -> Result<Round, BenchError> {
        let (mut all, mut cpu, mut bytes) = ([(); 3].map(|()| Vec::new()), Vec::new(), Vec::new());
        for _ in 0..CHANGES {
            let _: Vec<serde_json::Value> = throng.all(|_| "forget".to_owned())?;
            let before = throng.cpu_time()?;
            self.changes += 1;
            let mut frame = Vec::new();
            self.change.push(&mut frame, self.changes);
            let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.watched.write(0, &frame)?;
            let mut times = self.heard_on_sockets()?;
            let crowds: Vec<HeardAt> = throng.all(|_| "await 1".to_owned())?;
            while self.watched.hear(Duration::ZERO, |_, _, _| Ok(()))? > 0 {}
            let used = throng.cpu_time()? - before;
            let sockets = [0.5, 0.99, 1.0].map(|share| quantile(&mut times, share));
            let began_us = began.as_secs_f64() * 1e6;
            let crowds = crowds.into_iter().map(|heard| heard.at_us.map(|at| (at - began_us) / 1e3));
            // Of each node's watchers, and of those on sockets: the worst of them counts.
            let worst = super::throng::worst(crowds.chain([sockets]));
            for (times, ms) in all.iter_mut().zip(worst) {
                times.push(ms);
            }
            cpu.push(used.as_secs_f64() * 1e6 / (WITHOUT + ON_SOCKETS * NODES) as f64);
            let counts: Vec<Counts> = throng.all(|_| "tell".to_owned())?;
            bytes.push(counts.iter().map(|count| count.presence_bytes.sum).sum::<f64>() / WITHOUT as f64);
        }
        let [half, most, last] = &mut all;
        let ms = [quantile(half, 0.5), quantile(most, 0.5), quantile(last, 0.5)];
        Ok(Round { ms, cpu_us: quantile(&mut cpu, 0.5), bytes: quantile(&mut bytes, 0.5) })
    }

    /// When each on a socket has heard, in milliseconds.
    fn heard_on_sockets(&mut self) -> Result<Vec<f64>, BenchError> {
        let (began, mut times) = (Instant::now(), Vec::new());
        let mut has_heard = vec![vec![false; ON_SOCKETS]; NODES];
        while times.len() < ON_SOCKETS * NODES {
            for (swarm, has_heard) in self.on_sockets.iter_mut().zip(&mut has_heard) {
                swarm.hear(Duration::from_millis(1), |at, _, heard| {
                    let Heard::Frames(frames) = heard else {
                        return Err(BenchError::Void("a watcher's link ended".into()));
                    };
                    for frame in frames {
                        let first =
                            has_heard.get_mut(at).is_some_and(|heard| !std::mem::replace(heard, true));
                        if is_presence(&frame)? && first {
                            times.push(began.elapsed().as_secs_f64() * 1e3);
                        }
                    }
                    Ok(())
                })?;
            }
            if began.elapsed() > PATIENCE {
                return Err(BenchError::Void(format!("only {} watchers on sockets have heard", times.len())));
            }
        }
        Ok(times)
    }
}

fn is_presence(frame: &Frame<'_>) -> Result<bool, BenchError> {
    Ok(matches!(words::judge(frame)?, Answer::Push(Op::Presence, _)))
}
