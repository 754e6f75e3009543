//! `fanout`: CPU of the server for one presence item that reaches one watcher, 1,000 and 10,000 of them, one update a
//! tick or eight. Tick by tick: everybody must have heard before the next change is made, so that nothing coalesces
//! and every delivery is counted. The floor sends the very same frames to as many sockets.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::cores::Cores;
use super::figure::{Findings, Goal, Rounds, Series};
use super::process::{Floor, Hearth, Persistence, Process, Redis};
use super::swarm::{Heard, Opening, Swarm};
use super::words::{self, Answer, Change};
use super::{BenchError, crowd, progress};

/// Those who are watched; all of them change in a tick, or the first alone.
const STARS: usize = 8;
/// The default tick: the floor waits as long before it sends.
const TICK_MS: u32 = 50;
/// A change as MessagePack; it carries an activity.
const CHANGE_BYTES: usize = 64;
const WARM_UP_TICKS: u32 = 3;
/// A window has at least this many deliveries, and this many ticks.
const DELIVERIES_MIN: usize = 60_000;
const TICKS_MIN: usize = 6;
const TICKS_MAX: usize = 30;
/// How long the server is watched doing nothing.
const IDLE: Duration = Duration::from_secs(1);
/// How long one tick may take until all have heard.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) fn run(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let cases = [(1_000, 1, 1.25), (1_000, STARS, 1.5), (10_000, 1, 1.25), (10_000, STARS, 1.5)];
    let mut rows: Vec<Rounds> = Vec::new();
    for (watchers, updates, most) in cases {
        let what = format!("a delivery to {watchers} watchers, {updates} a tick");
        rows.push(Rounds::of(what, "µs of CPU", "send() of the same frames", Goal::Ratio(most)));
    }
    let (mut frames, mut subtracted) = (vec![Vec::new(); cases.len()], 0.0_f64);
    for round in 1..=rounds {
        for (at, crowds) in cases.chunks(2).enumerate() {
            let watchers = crowds.first().map_or(0, |(watchers, ..)| *watchers);
            progress(&format!("fanout, round {round} of {rounds}, {watchers} watchers"));
            let mut house = House::start(cores, watchers)?;
            let mut heard = Vec::new();
            let (of_crowd, counts) = (rows.iter_mut().skip(at * 2), frames.iter_mut().skip(at * 2));
            for ((row, count), (_, updates, _)) in of_crowd.zip(counts).zip(crowds) {
                let seen = house.window(*updates)?;
                row.ours(seen.net_us);
                subtracted = subtracted.max(1.0 - seen.net_us / seen.gross_us);
                count.push(seen.frames_a_tick / watchers as f64);
                heard.push(seen.frame);
            }
            drop(house);
            let mut floor = Floored::start(cores, watchers)?;
            for ((row, (_, updates, _)), frame) in rows.iter_mut().skip(at * 2).zip(crowds).zip(&heard) {
                row.floor(floor.window(*updates, frame)?);
            }
        }
    }
    Ok(Findings {
        bench: "fanout",
        method: "presence.set of 1 or 8 stars, then every watcher must have heard; CPU of the server process over such ticks, \
                 its acks and commits included, less what it uses while nothing happens (leases), by deliveries; the floor \
                 waits the same tick and writes the same bytes once to each socket",
        rows: rows.into_iter().map(Rounds::row).collect(),
        notes: vec![
            format!("frames that a watcher got in a tick, row by row: {}", told(frames)),
            format!("at most {:.1} % were subtracted", subtracted * 100.0),
        ],
    })
}

/// The medians.
fn told(series: Vec<Vec<f64>>) -> String {
    let medians = series.into_iter().map(|rounds| format!("{:.2}", Series::of(rounds).median));
    medians.collect::<Vec<_>>().join(" · ")
}

/// What a window of ours came to.
struct Seen {
    net_us: f64,
    gross_us: f64,
    frames_a_tick: f64,
    /// One frame as it came, for the floor to send.
    frame: Vec<u8>,
}

/// A server with its stars and those who watch them.
struct House {
    watchers: usize,
    stars: Swarm,
    crowd: Swarm,
    change: Change,
    /// How many changes each star has made.
    changes: [u32; STARS],
    server: Hearth,
    _redis: Redis,
}

impl House {
    fn start(cores: Cores, watchers: usize) -> Result<Self, BenchError> {
        let redis = Redis::start(cores, Persistence::None)?;
        let server = Hearth::start(cores, &redis, &[("link.heartbeat_ms", "300000")])?;
        let mut stars = Swarm::new(server.clients, Opening::Upgrade)?;
        crowd::enter(&mut stars, STARS)?;
        let mut crowd = Swarm::new(server.clients, Opening::Upgrade)?;
        crowd::enter_as(&mut crowd, watchers, |at| crowd::player(STARS + at))?;
        let of_stars = |_| words::watch((0..STARS).map(crowd::player));
        crowd::ask(&mut crowd, 0..watchers, of_stars, |_, _| Ok(()))?;
        let change = Change::presence_set(CHANGE_BYTES)?;
        Ok(Self { watchers, stars, crowd, change, changes: [0; STARS], server, _redis: redis })
    }

    fn window(&mut self, updates: usize) -> Result<Seen, BenchError> {
        for _ in 0..WARM_UP_TICKS {
            self.tick(updates)?;
        }
        let (idle_before, idle_began) = (self.server.process.cpu_time()?, Instant::now());
        std::thread::sleep(IDLE);
        let idle = self.server.process.cpu_time()?.saturating_sub(idle_before).as_secs_f64();
        let idle = idle / idle_began.elapsed().as_secs_f64();
        let ticks = ticks_for(self.watchers, updates);
        let (before, began) = (self.server.process.cpu_time()?, Instant::now());
        let (mut frames, mut frame) = (0, Vec::new());
        for _ in 0..ticks {
            let (count, longest) = self.tick(updates)?;
            (frames, frame) = (frames + count, longest);
        }
        let used = self.server.process.cpu_time()?.saturating_sub(before).as_secs_f64();
        let by_itself = idle * began.elapsed().as_secs_f64();
        let deliveries = (ticks * updates * self.watchers) as f64;
        Ok(Seen {
            net_us: (used - by_itself) * 1e6 / deliveries,
            gross_us: used * 1e6 / deliveries,
            frames_a_tick: frames as f64 / ticks as f64,
            frame,
        })
    }

    /// Every star (or the first) changes; returns once every watcher has heard of each: how many frames that took, and
    /// the longest of them.
    fn tick(&mut self, updates: usize) -> Result<(usize, Vec<u8>), BenchError> {
        let mut bytes = Vec::new();
        for (star, changes) in self.changes.iter_mut().enumerate().take(updates) {
            *changes += 1;
            bytes.clear();
            self.change.push(&mut bytes, *changes);
            self.stars.write(star, &bytes)?;
        }
        let (mut acks, mut items, mut frames, mut longest) = (0, 0, 0, Vec::new());
        let until = Instant::now() + PATIENCE;
        while acks < updates || items < updates * self.watchers {
            self.stars.hear(Duration::ZERO, |at, _, heard| {
                let Heard::Frames(heard) = heard else { return Err(ended(at)) };
                for frame in heard {
                    acks += usize::from(matches!(words::judge(&frame)?, Answer::Ok(_)));
                }
                Ok(())
            })?;
            self.crowd.hear(Duration::from_millis(10), |at, _, heard| {
                let Heard::Frames(heard) = heard else { return Err(ended(at)) };
                for frame in heard {
                    if let Answer::Push(..) = words::judge(&frame)? {
                        items += words::items_in(frame.payload);
                        frames += 1;
                        if frame.whole.len() > longest.len() {
                            longest = frame.whole.to_vec();
                        }
                    }
                }
                Ok(())
            })?;
            if Instant::now() > until {
                return Err(BenchError::Void(format!("{items} items of {} came", updates * self.watchers)));
            }
        }
        if items > updates * self.watchers {
            return Err(BenchError::Void("somebody heard the same twice".into()));
        }
        Ok((frames, longest))
    }
}

/// The floor with as many links.
struct Floored {
    watchers: usize,
    control: TcpStream,
    crowd: Swarm,
    process: Process,
}

impl Floored {
    fn start(cores: Cores, watchers: usize) -> Result<Self, BenchError> {
        let Floor { process, addr } = Floor::start(cores, "send-loop")?;
        let mut control = TcpStream::connect(addr)?;
        control.set_nodelay(true)?;
        control.set_read_timeout(Some(PATIENCE))?;
        let mut crowd = Swarm::new(addr, Opening::Raw)?;
        while crowd.len() < watchers {
            crowd.open((watchers - crowd.len()).min(1_000))?;
            // It takes what has come when it is told something.
            say(&mut control, 0, &[])?;
        }
        Ok(Self { watchers, control, crowd, process })
    }

    /// µs a delivery, where each frame carries so many.
    fn window(&mut self, updates: usize, frame: &[u8]) -> Result<f64, BenchError> {
        for _ in 0..WARM_UP_TICKS {
            self.tick(frame)?;
        }
        let ticks = ticks_for(self.watchers, updates);
        let before = self.process.cpu_time()?;
        for _ in 0..ticks {
            self.tick(frame)?;
        }
        let used = self.process.cpu_time()?.saturating_sub(before).as_secs_f64();
        Ok(used * 1e6 / (ticks * updates * self.watchers) as f64)
    }

    fn tick(&mut self, frame: &[u8]) -> Result<(), BenchError> {
        ask(&mut self.control, TICK_MS, frame)?;
        let (mut frames, until) = (0, Instant::now() + PATIENCE);
        while frames < self.watchers {
            self.crowd.hear(Duration::from_millis(10), |at, _, heard| {
                let Heard::Frames(heard) = heard else { return Err(ended(at)) };
                frames += heard.count();
                Ok(())
            })?;
            if Instant::now() > until {
                return Err(BenchError::Void("the floor does not send".into()));
            }
        }
        done(&mut self.control)
    }
}

fn say(control: &mut TcpStream, wait_ms: u32, frame: &[u8]) -> Result<(), BenchError> {
    ask(control, wait_ms, frame)?;
    done(control)
}

fn ask(control: &mut TcpStream, wait_ms: u32, frame: &[u8]) -> Result<(), BenchError> {
    let mut order = wait_ms.to_be_bytes().to_vec();
    order.extend(u32::try_from(frame.len()).unwrap_or(0).to_be_bytes());
    order.extend_from_slice(frame);
    Ok(control.write_all(&order)?)
}

fn done(control: &mut TcpStream) -> Result<(), BenchError> {
    Ok(control.read_exact(&mut [0])?)
}

fn ticks_for(watchers: usize, updates: usize) -> usize {
    DELIVERIES_MIN.div_ceil(watchers * updates).clamp(TICKS_MIN, TICKS_MAX)
}

fn ended(at: usize) -> BenchError {
    BenchError::Void(format!("link {at} ended"))
}
