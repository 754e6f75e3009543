//! A node of a cluster with a crowd of players in its own process, on links without sockets: so that rooms and watch lists are
//! measured at sizes for which a process may not open descriptors enough. Everything of the node is the server's own, and the
//! players speak to it by the protocol. Started by the benches, which tell it what to do on standard input, a line each, and
//! read what came of it from standard output, a line of JSON each. Never judges.
//!
//! `crowd --set NAME=VALUE…`, as `hearth` takes them.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt as _, stream};
use hearth::app;
use hearth::config::{Flags, Settings, Sources};
use hearth::gate::inside::Inside;
use hearth::telemetry::logs::{self, Lines};
use load::bench::figure::quantile;
use load::bench::frames::next_frame;
use load::bench::words::{self, Answer, FIRST_REFERENCE};
use protocol::request::{Op, Request, RoomJoin, RoomLeave};
use protocol::{Encoding, Text, codec};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};

/// The server's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Logins, and requests of the crowd, under way at a time.
const UNDER_WAY_MAX: usize = 64;
/// Bytes of one read: so much memory has each player who waits.
const READ_BYTES: usize = 1_024;
/// Lines that were told and not carried out yet.
const LINES_MAX: usize = 16;
/// How long one step of the crowd may take.
const PATIENCE: Duration = Duration::from_secs(120);
const UPGRADE: &str = "GET /v1/connect HTTP/1.1\r\nHost: crowd\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: hearth.v1.msgpack\r\n\r\n";

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let set =
        std::env::args().skip(1).filter(|word| word != "--set").map(|word| match word.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(format!("{word} is not NAME=VALUE")),
        });
    let flags = Flags { file: None, set: set.collect::<Result<_, _>>()? };
    let settings = Settings::from_sources(&Sources { chosen: Vec::new(), flags, environment: Vec::new() })
        .map_err(|error| format!("{error:?}"))?;
    let name = settings.node_name(0);
    let _logs = logs::start(Lines::Text, settings.log.level.as_str(), &name)?;
    let company = move |_: &app::Addresses, inside: Arc<Inside>, tasks: &hearth::tasks::Tasks| {
        let crowd = Crowd {
            name,
            inside,
            members: Vec::new(),
            heard: Arc::default(),
            numbers: 0..,
            tasks: tasks.clone(),
        };
        tasks.spawn("crowd", crowd.live());
    };
    app::serve_with(settings, Box::new(company))?;
    Ok(())
}

/// What came of the crowd's requests.
#[derive(Default)]
struct Heard {
    answers: AtomicU64,
    answered: Notify,
    /// A link ended, or something was refused: nothing that is measured from then on counts.
    is_void: AtomicBool,
}

impl Heard {
    fn void(&self, why: impl std::fmt::Display) {
        if !self.is_void.swap(true, Ordering::Relaxed) {
            eprintln!("crowd: {why}");
        }
        self.answered.notify_one();
    }
}

/// What one player has heard since it was last asked for.
#[derive(Default)]
struct Seen {
    answers: AtomicU64,
    presence_items: AtomicU64,
    presence_bytes: AtomicU64,
    room_pushes: AtomicU64,
    room_bytes: AtomicU64,
    /// Of the largest push of a room.
    room_push_bytes: AtomicU64,
    /// When the last push of presence came, by the system's clock.
    at_us: AtomicU64,
}

struct Member {
    says: WriteHalf<DuplexStream>,
    seen: Arc<Seen>,
}

struct Crowd {
    name: String,
    inside: Arc<Inside>,
    members: Vec<Member>,
    heard: Arc<Heard>,
    /// Of the names that nobody had yet.
    numbers: std::ops::RangeFrom<u32>,
    tasks: hearth::tasks::Tasks,
}

impl Crowd {
    /// Carries out line after line, until there are no more.
    async fn live(mut self) {
        let (tell, mut told) = mpsc::channel(LINES_MAX);
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if tell.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        while let Some(line) = told.recv().await {
            let done = self.does(&line).await;
            let done = done.unwrap_or_else(|error| json!({"fault": format!("{line}: {error}")}));
            let is_void = self.heard.is_void.load(Ordering::Relaxed);
            let told = if is_void { json!({"fault": "a link ended or was refused something"}) } else { done };
            let _ = writeln!(std::io::stdout(), "{told}");
        }
    }

    async fn does(&mut self, line: &str) -> Result<Value, Failure> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["enter", count] => self.enter(count.parse()?).await,
            ["watch", ref players @ ..] => {
                let frame = words::watch(players.iter().map(|player| (*player).to_owned()));
                self.all_say(self.members.len(), &frame).await
            }
            ["join", room, ref count @ ..] => {
                let count = count.first().map_or(Ok(self.members.len()), |count| count.parse())?;
                let join = RoomJoin { room: Text::from(room.to_owned()), meta: None, cseq: None };
                let frame = words::request(FIRST_REFERENCE, &Request::RoomJoin(join));
                self.all_say(count, &frame).await
            }
            ["leave", room, count] => {
                let leave = RoomLeave { room: Text::from(room.to_owned()), cseq: None };
                let frame = words::request(FIRST_REFERENCE, &Request::RoomLeave(leave));
                self.all_say(count.parse()?, &frame).await
            }
            ["forget"] => {
                self.forget();
                Ok(json!({}))
            }
            ["await", items] => self.all_heard(items.parse()?).await,
            ["tell"] => Ok(self.tell()),
            _ => Err("enter N, watch PLAYER…, join ROOM [N], leave ROOM N, forget, await ITEMS, tell".into()),
        }
    }

    /// Lets so many more players in: those whose home this node is, which the node says.
    async fn enter(&mut self, count: usize) -> Result<Value, Failure> {
        let (began, mut tried) = (Instant::now(), 0_usize);
        let (inside, heard) = (Arc::clone(&self.inside), Arc::clone(&self.heard));
        let (name, numbers) = (self.name.clone(), &mut self.numbers);
        // No name is used twice: some who are on their way when there are enough may still come in.
        let entering = stream::iter(numbers).map(|number| {
            let (inside, heard) = (Arc::clone(&inside), Arc::clone(&heard));
            let login = words::login(&format!("crowd-{name}-{number}"));
            entered(inside, heard, login)
        });
        let mut entering = std::pin::pin!(entering.buffer_unordered(UNDER_WAY_MAX));
        let wanted = self.members.len() + count;
        while self.members.len() < wanted {
            let Some(entered) = entering.next().await else { break };
            tried += 1;
            let Some((listens, says, seen)) = entered? else { continue };
            self.tasks.spawn("player", listen(listens, Arc::clone(&seen), Arc::clone(&heard)));
            self.members.push(Member { says, seen });
        }
        Ok(json!({"entered": count, "tried": tried, "ms": ms(began.elapsed())}))
    }

    /// The first so many say this, a few at a time, until each has her answer.
    async fn all_say(&mut self, count: usize, frame: &[u8]) -> Result<Value, Failure> {
        let (began, heard) = (Instant::now(), Arc::clone(&self.heard));
        let before = heard.answers.load(Ordering::Relaxed);
        let (mut said, mut asked_at, mut times) = (0, std::collections::VecDeque::new(), Vec::new());
        let count = count.min(self.members.len());
        let mut under_way: Vec<(Arc<Seen>, u64)> = Vec::new();
        while times.len() < count {
            while said < count && under_way.len() < UNDER_WAY_MAX {
                let Some(member) = self.members.get_mut(said) else { break };
                under_way.push((Arc::clone(&member.seen), member.seen.answers.load(Ordering::Relaxed)));
                asked_at.push_back(Instant::now());
                member.says.write_all(frame).await?;
                said += 1;
            }
            tokio::time::timeout(PATIENCE, heard.answered.notified()).await?;
            if heard.is_void.load(Ordering::Relaxed) {
                break;
            }
            let mut place = 0;
            while let Some((seen, answers)) = under_way.get(place) {
                if seen.answers.load(Ordering::Relaxed) > *answers {
                    under_way.swap_remove(place);
                    if let Some(at) = asked_at.swap_remove_back(place) {
                        times.push(ms(at.elapsed()));
                    }
                } else {
                    place += 1;
                }
            }
        }
        let answers = heard.answers.load(Ordering::Relaxed) - before;
        let total = ms(began.elapsed());
        Ok(json!({"said": said, "answers": answers, "total_ms": total, "ms": spread(&mut times)}))
    }

    /// Waits until each has heard of so many changes of presence; when each heard of the last.
    async fn all_heard(&self, items: u64) -> Result<Value, Failure> {
        let began = Instant::now();
        let is_late = |member: &&Member| member.seen.presence_items.load(Ordering::Relaxed) < items;
        while self.members.iter().any(|member| is_late(&member)) {
            if began.elapsed() > PATIENCE {
                let late = self.members.iter().filter(is_late).count();
                return Err(format!("{late} have not heard of it").into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let at = self.members.iter().map(|member| member.seen.at_us.load(Ordering::Relaxed) as f64);
        Ok(json!({"links": self.members.len(), "at_us": spread(&mut at.collect::<Vec<_>>())}))
    }

    fn forget(&self) {
        for Member { seen, .. } in &self.members {
            let presence = [&seen.presence_items, &seen.presence_bytes];
            let room = [&seen.room_pushes, &seen.room_bytes, &seen.room_push_bytes];
            presence.into_iter().chain(room).for_each(|count| count.store(0, Ordering::Relaxed));
        }
    }

    /// What each has heard since it was forgotten.
    fn tell(&self) -> Value {
        let all = |of: fn(&Seen) -> &AtomicU64| {
            let counts = self.members.iter().map(|member| of(&member.seen).load(Ordering::Relaxed) as f64);
            let mut counts: Vec<f64> = counts.collect();
            let sum: f64 = counts.iter().sum();
            let spread = spread(&mut counts);
            json!({"sum": sum, "each": spread})
        };
        json!({
            "presence_items": all(|seen| &seen.presence_items),
            "presence_bytes": all(|seen| &seen.presence_bytes),
            "room_pushes": all(|seen| &seen.room_pushes),
            "room_bytes": all(|seen| &seen.room_bytes),
            "room_push_bytes": all(|seen| &seen.room_push_bytes),
        })
    }
}

/// Median, 99th percentile and most.
fn spread(numbers: &mut [f64]) -> [f64; 3] {
    [0.5, 0.99, 1.0].map(|share| quantile(numbers, share))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

type Entered = (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>, Arc<Seen>);

/// Opens a link and logs a player in; `None` where her home is another node.
async fn entered(inside: Arc<Inside>, heard: Arc<Heard>, login: Vec<u8>) -> Result<Option<Entered>, Failure> {
    let mut pipe = inside.connect().await.ok_or("there are as many links as may be: link.links_max")?;
    pipe.write_all(UPGRADE.as_bytes()).await?;
    let mut left = Vec::new();
    while !left.ends_with(b"\r\n\r\n") {
        if pipe.read_buf(&mut left).await? == 0 {
            return Err("no upgrade".into());
        }
    }
    left.clear();
    pipe.write_all(&login).await?;
    loop {
        if let Some((frame, _)) = next_frame(&left) {
            let parts =
                codec::peek(Encoding::MessagePack, frame.payload).map_err(|error| error.to_string())?;
            match parts.op {
                Some(Op::Ready) => break,
                Some(Op::Redirect) => return Ok(None),
                _ => {
                    words::judge(&frame).map_err(|error| error.to_string())?;
                    return Err("neither ready nor redirect".into());
                }
            }
        }
        if pipe.read_buf(&mut left).await? == 0 {
            heard.void("a link ended before its login was answered");
            return Ok(None);
        }
    }
    let (listens, says) = tokio::io::split(pipe);
    Ok(Some((listens, says, Arc::default())))
}

/// Counts what one player hears, until her link ends.
async fn listen(mut listens: ReadHalf<DuplexStream>, seen: Arc<Seen>, heard: Arc<Heard>) {
    let mut left = Vec::new();
    loop {
        let mut bytes = [0; READ_BYTES];
        match listens.read(&mut bytes).await {
            Ok(0) | Err(_) => return heard.void("a link ended"),
            Ok(count) => left.extend_from_slice(bytes.get(..count).unwrap_or_default()),
        }
        let mut rest = &left[..];
        while let Some((frame, behind)) = next_frame(rest) {
            rest = behind;
            match words::judge(&frame) {
                Ok(Answer::Ok(_)) => {
                    seen.answers.fetch_add(1, Ordering::Relaxed);
                    heard.answers.fetch_add(1, Ordering::Relaxed);
                    heard.answered.notify_one();
                }
                Ok(Answer::Push(Op::Presence, _)) => {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    seen.at_us.store(u64::try_from(now.as_micros()).unwrap_or(0), Ordering::Relaxed);
                    seen.presence_bytes.fetch_add(frame.whole.len() as u64, Ordering::Relaxed);
                    let items = words::items_in(frame.payload) as u64;
                    seen.presence_items.fetch_add(items, Ordering::Relaxed);
                }
                Ok(Answer::Push(Op::Room, _)) => {
                    seen.room_pushes.fetch_add(1, Ordering::Relaxed);
                    seen.room_bytes.fetch_add(frame.whole.len() as u64, Ordering::Relaxed);
                    seen.room_push_bytes.fetch_max(frame.whole.len() as u64, Ordering::Relaxed);
                }
                Ok(_) => {}
                Err(error) => return heard.void(error),
            }
        }
        // Holds nothing while it waits.
        left = rest.to_vec();
    }
}
