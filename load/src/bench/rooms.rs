//! `rooms`: a room of 20,000 members on three nodes, its home a fourth: what a join, a page and the news of others cost, how
//! large a push may become, and how soon the room is whole again when its home ends.

use std::time::{Duration, Instant};

use protocol::request::{Request, RoomMembers};
use protocol::{Encoding, Text, codec};
use serde::Deserialize;
use serde_json::Value;

use super::asking::runtime;
use super::cores::Cores;
use super::figure::{Findings, Goal, Rounds, quantile};
use super::process::{Persistence, Redis};
use super::swarm::{Opening, Swarm};
use super::throng::{Count, Counts, Said, Throng, ask, worst};
use super::words::{self, FIRST_REFERENCE};
use super::{BenchError, crowd, progress};

/// Nodes with members, each with a process of bots of its own: its own.
const NODES: usize = 3;
const MEMBERS: usize = 20_000;
/// Members who leave and come back in one round.
const RESTLESS: usize = 3_000;
/// Pages that are asked for.
const PAGES: u32 = 200;
/// How long nothing more comes, once all is told.
const QUIET: Duration = Duration::from_secs(2);
/// The server's tick: a member is told of a room at most so often.
const TICK_MS: f64 = 50.0;
/// Most bytes of one push: 200 members who came, their names and nothing else, with room to spare.
const PUSH_BYTES_MAX: f64 = 24_000.0;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Looked {
    count: u32,
    #[serde(default)]
    partial: bool,
}

pub(super) fn run(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let mut join = Rounds::of("a join, 99 of 100, 64 under way a node", "ms", "", Goal::Ours(1_000.0));
    let mut all_in = Rounds::of("until all 20,000 are in", "s", "", Goal::None);
    let mut pushes = Rounds::of(
        "pushes a tick, whoever hears most, while 3,000 leave and come back",
        "pushes",
        "",
        Goal::Never(1.0),
    );
    let mut bytes =
        Rounds::of("what a member is told then of each who leaves or comes", "bytes", "", Goal::None);
    let mut largest = Rounds::of("the largest push", "bytes", "", Goal::Never(PUSH_BYTES_MAX));
    let mut page =
        Rounds::of("a page of 100, 99 of 100, from a member on another node", "ms", "", Goal::Ours(20.0));
    let mut count =
        Rounds::of("the count alone, 99 of 100, from the service API", "ms", "", Goal::Ours(20.0));
    let mut rebuilt = Rounds::of(
        "until the room is whole at its new home",
        "s",
        "its home's end (SIGTERM) included",
        Goal::None,
    );
    let mut stored = Rounds::of("what the store holds under the room's name", "keys", "", Goal::Never(0.0));
    for round in 1..=rounds {
        progress(&format!("rooms, round {round} of {rounds}: players come"));
        let redis = Redis::start(cores, Persistence::None)?;
        let mut throng = Throng::start(cores, &redis, NODES, 1)?;
        let room = throng.names_at(NODES, "hall", 1).pop().unwrap_or_default();
        let here = |node: usize| MEMBERS / NODES + usize::from(node < MEMBERS % NODES);
        let _: Vec<Value> = throng.all(|node| format!("enter {}", here(node)))?;
        progress("rooms: they join");
        let (began, joins): (_, Vec<Said>) = (Instant::now(), throng.all(|_| format!("join {room}"))?);
        all_in.ours(began.elapsed().as_secs_f64());
        join.ours(worst(joins.iter().map(|said| said.ms))[1]);
        let at = throng.nodes.first().map(|node| (node.clients, node.services));
        let (clients, services) = at.ok_or(BenchError::Void("no node".into()))?;
        let path = format!("/v1/rooms/{room}?count_only=true");
        let runtime = runtime()?;
        if runtime.block_on(ask::<Looked>(services, &path))?.count as usize != MEMBERS {
            return Err(BenchError::Void("not all who joined are members".into()));
        }
        std::thread::sleep(QUIET);

        progress("rooms: some leave and come back");
        let _: Vec<Value> = throng.all(|_| "forget".to_owned())?;
        let began = Instant::now();
        let _: Vec<Said> = throng.all(|_| format!("leave {room} {}", RESTLESS / NODES))?;
        let _: Vec<Said> = throng.all(|_| format!("join {room} {}", RESTLESS / NODES))?;
        let took = began.elapsed().as_secs_f64() * 1e3 + TICK_MS;
        std::thread::sleep(QUIET);
        let counts: Vec<Counts> = throng.all(|_| "tell".to_owned())?;
        let most = |of: fn(&Counts) -> &Count| worst(counts.iter().map(|counts| of(counts).each))[2];
        pushes.ours(most(|counts| &counts.room_pushes) / (took / TICK_MS));
        largest.ours(most(|counts| &counts.room_push_bytes));
        let told: f64 = counts.iter().map(|counts| counts.room_bytes.sum).sum();
        bytes.ours(told / MEMBERS as f64 / (2 * RESTLESS) as f64);

        progress("rooms: pages");
        page.ours(pages(&throng, clients, &room)?);
        let mut times = Vec::new();
        for _ in 0..PAGES {
            let began = Instant::now();
            runtime.block_on(ask::<Looked>(services, &path))?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        count.ours(quantile(&mut times, 0.99));
        let keys = redis.connect()?.command(&[
            b"EVAL",
            b"return tostring(#redis.call('KEYS', '*' .. ARGV[1] .. '*'))",
            b"0",
            room.as_bytes(),
        ])?;
        stored.ours(String::from_utf8_lossy(&keys).trim().parse().unwrap_or(f64::NAN));

        progress("rooms: its home ends");
        let began = Instant::now();
        drop(throng.nodes.pop());
        loop {
            let looked = runtime.block_on(ask::<Looked>(services, &path));
            if looked.is_ok_and(|looked| looked.count as usize == MEMBERS && !looked.partial) {
                break;
            }
            if began.elapsed() > PATIENCE {
                return Err(BenchError::Void("the room is not whole again in time".into()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        rebuilt.ours(began.elapsed().as_secs_f64());
    }
    Ok(Findings {
        bench: "rooms",
        method: "four nodes: three with a third of 20,000 members each, in their own processes, and the room's home; a tick of 50 ms; \
                 1,000 of each node leave and come back; new nodes and a new Redis each round",
        rows: [join, all_in, pushes, bytes, largest, page, count, rebuilt, stored]
            .into_iter()
            .map(Rounds::row)
            .collect(),
        notes: Vec::new(),
    })
}

/// How long a page takes, 99 of 100, for somebody who is at home elsewhere.
fn pages(throng: &Throng, clients: std::net::SocketAddr, room: &str) -> Result<f64, BenchError> {
    let mut swarm = Swarm::new(clients, Opening::Upgrade)?;
    let names = throng.names_at(0, "reader", 1);
    crowd::enter_as(&mut swarm, 1, |_| names.first().cloned().unwrap_or_default())?;
    let (mut times, mut cursor) = (Vec::new(), None::<String>);
    for _ in 0..PAGES {
        let page =
            RoomMembers { room: Text::from(room), cursor: cursor.clone().map(Text::from), limit: Some(100) };
        let request = words::request(FIRST_REFERENCE, &Request::RoomMembers(page));
        let began = Instant::now();
        crowd::ask(
            &mut swarm,
            0..1,
            |_| request.clone(),
            |_, frame| {
                let parts = codec::peek(Encoding::MessagePack, frame.payload)
                    .map_err(|error| BenchError::Void(error.to_string()))?;
                let told: Value = parts.read(Encoding::MessagePack).map_err(BenchError::Void)?;
                cursor = told.get("cursor").and_then(Value::as_str).map(str::to_owned);
                Ok(())
            },
        )?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(quantile(&mut times, 0.99))
}
