//! A tiny Hearth in memory, honest unless told to bend one thing. Knows no TTL, no limits and no store; it serves the bots'
//! tests alone and says nothing about the real server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::{SinkExt, StreamExt};
use protocol::codes::ErrorCode;
use protocol::push::{Presence, PresenceItem};
use protocol::reply::{Changed, Empty, ErrorBody, Pong, Presences, Ready, StateGot};
use protocol::request::{Ack, Op, Request, StatePatch, Status};
use protocol::{Encoding, Value, codec};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request as Upgrade, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

/// What is wrong with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bent {
    Nothing,
    /// A read shows the state of a few changes ago.
    ReadsAreStale,
    /// Now and then a durable write is acked and not carried out.
    DurableWritesAreForgotten,
    /// Now and then an applied one is.
    AppliedWritesAreForgotten,
    /// Now and then an answer is lost with its link; what is sent again is carried out again.
    RepeatsAreCarriedOut,
    /// Now and then a resume is refused.
    SessionsEndEarly,
    /// No change of presence to `online` is told: the last one of every bot.
    PushesAreLost,
    EverybodyIsBanned,
}

/// The server; it ends with this.
pub(crate) struct Fake {
    pub(crate) url: String,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Player {
    session: String,
    ticket: u64,
    cseq: u64,
    version: u64,
    state: BTreeMap<String, Value>,
    stale: Vec<(u64, BTreeMap<String, Value>)>,
    status: Option<Status>,
    activity: BTreeMap<String, Value>,
    view: u64,
    watches: BTreeSet<String>,
    seq: u64,
    pushes: Vec<(u64, PresenceItem)>,
    link: Option<mpsc::Sender<Out>>,
}

/// What goes out on a link.
enum Out {
    Push(u64, PresenceItem),
    Close(u16),
}

struct World {
    bent: Bent,
    counted: u64,
    sessions: u64,
    players: BTreeMap<String, Player>,
}

/// One link's part of the world.
struct Seat {
    world: Arc<Mutex<World>>,
    encoding: Encoding,
    player: Option<String>,
    out: mpsc::Sender<Out>,
}

/// What a request asks of the link.
#[derive(Default)]
struct Answer {
    frames: Vec<Vec<u8>>,
    close: Option<u16>,
    is_cut: bool,
}

impl Fake {
    pub(crate) async fn start(bent: Bent) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/v1/connect", listener.local_addr().unwrap());
        let world = World { bent, counted: 0, sessions: 0, players: BTreeMap::new() };
        let world = Arc::new(Mutex::new(world));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut links = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                links.spawn(serve(tcp, Arc::clone(&world)));
            }
        });
        Self { url, _tasks: tasks }
    }
}

#[allow(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
async fn serve(tcp: TcpStream, world: Arc<Mutex<World>>) {
    let mut encoding = Encoding::MessagePack;
    let choose = |upgrade: &Upgrade, mut response: Response| -> Result<Response, ErrorResponse> {
        let offered = upgrade.headers()["sec-websocket-protocol"].clone();
        encoding = Encoding::of_subprotocol(offered.to_str().unwrap()).unwrap();
        response.headers_mut().insert("sec-websocket-protocol", offered);
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(tcp, choose).await else { return };
    let (out, mut outgoing) = mpsc::channel(4096);
    let mut seat = Seat { world, encoding, player: None, out };
    let message = |frame: Vec<u8>| match encoding {
        Encoding::MessagePack => Message::Binary(frame.into()),
        Encoding::Json => Message::Text(String::from_utf8(frame).unwrap().into()),
    };
    loop {
        let answer = tokio::select! {
            Some(out) = outgoing.recv() => match out {
                Out::Push(seq, item) => {
                    Answer { frames: vec![seat.frame(Op::Presence, seq, &Presence { items: vec![item] })], ..Answer::default() }
                }
                Out::Close(code) => Answer { close: Some(code), ..Answer::default() },
            },
            heard = socket.next() => match heard {
                Some(Ok(Message::Binary(bytes))) => seat.hear(&bytes),
                Some(Ok(Message::Text(text))) => seat.hear(text.as_bytes()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => Answer::default(),
            },
        };
        if answer.is_cut {
            return;
        }
        for frame in answer.frames {
            if socket.send(message(frame)).await.is_err() {
                return;
            }
        }
        if let Some(code) = answer.close {
            let _ = socket.close(Some(CloseFrame { code: code.into(), reason: "".into() })).await;
            return;
        }
    }
}

impl Seat {
    fn frame<B: Serialize>(&self, op: Op, reference: u64, body: &B) -> Vec<u8> {
        let mut out = Vec::new();
        codec::encode(self.encoding, &mut out, op, reference, body);
        out
    }

    fn ok<B: Serialize>(&self, reference: u32, body: &B) -> Answer {
        Answer { frames: vec![self.frame(Op::Ok, reference.into(), body)], ..Answer::default() }
    }

    fn refuse(&self, reference: u32, code: ErrorCode, close: Option<u16>) -> Answer {
        let body = ErrorBody::new(code, "fake");
        Answer { frames: vec![self.frame(Op::Error, reference.into(), &body)], close, is_cut: false }
    }

    fn hear(&mut self, bytes: &[u8]) -> Answer {
        let (reference, request) = codec::decode_request(self.encoding, bytes).unwrap();
        let world = Arc::clone(&self.world);
        let mut world = world.lock().unwrap();
        world.counted += 1;
        match request {
            Request::Login(_) if world.bent == Bent::EverybodyIsBanned => {
                self.refuse(reference, ErrorCode::Banned, Some(4503))
            }
            Request::Login(login) => {
                let player = login.token.as_str().strip_prefix("dev:").unwrap().to_owned();
                self.login(&mut world, reference, player)
            }
            Request::Resume(resume) => {
                let (session, ticket) =
                    (resume.session.as_str().to_owned(), resume.ticket.as_str().to_owned());
                self.resume(&mut world, reference, &session, &ticket, resume.last_seq)
            }
            Request::Ping(_) => self.ok(reference, &Pong { t: None, now_ms: 1 }),
            Request::StateGet(_) => self.read(&world, reference),
            Request::StatePatch(patch) => self.patch(&mut world, reference, &patch),
            Request::PresenceSet(set) => {
                let activity = set.activity.unwrap_or_default();
                let activity =
                    activity.into_iter().map(|(key, value)| (key.as_str().to_owned(), value)).collect();
                self.present(&mut world, reference, set.status, activity, set.cseq)
            }
            Request::Watch(watch) => {
                let names: Vec<String> = watch.players.iter().map(|name| name.as_str().to_owned()).collect();
                self.me(&mut world).watches.extend(names.iter().cloned());
                let presences = names.iter().map(|name| world.item(name)).collect();
                self.ok(reference, &Presences { presences, unknown: Vec::new(), stamp: None })
            }
            Request::Logout => {
                let name = self.player.take().unwrap();
                let view = world.players[&name].view;
                world.players.insert(name.clone(), Player { view, ..Player::default() });
                world.tell(&name);
                Answer { close: Some(1000), ..self.ok(reference, &Empty {}) }
            }
            other => panic!("bots do not say {other:?}"),
        }
    }

    fn me<'a>(&self, world: &'a mut MutexGuard<'_, World>) -> &'a mut Player {
        world.players.get_mut(self.player.as_ref().unwrap()).unwrap()
    }

    fn login(&mut self, world: &mut MutexGuard<'_, World>, reference: u32, player: String) -> Answer {
        world.sessions += 1;
        let session = format!("{player}/{}", world.sessions);
        let view = world.players.get(&player).map_or(0, |before| before.view);
        let link = Some(self.out.clone());
        let status = Some(Status::Online);
        world.players.insert(player.clone(), Player { session, view, link, status, ..Player::default() });
        self.player = Some(player.clone());
        world.tell(&player);
        let ready = self.ready(world, false);
        Answer { frames: vec![self.frame(Op::Ready, reference.into(), &ready)], ..Answer::default() }
    }

    fn resume(
        &mut self,
        world: &mut MutexGuard<'_, World>,
        reference: u32,
        session: &str,
        ticket: &str,
        last_seq: u64,
    ) -> Answer {
        let name = session.split('/').next().unwrap().to_owned();
        let is_gone = world.bent == Bent::SessionsEndEarly && world.counted.is_multiple_of(5);
        let Some(player) =
            world.players.get_mut(&name).filter(|player| player.session == session && !is_gone)
        else {
            return self.refuse(reference, ErrorCode::NotResumable, None);
        };
        // The reply to the last resume may have been lost.
        assert!(ticket.parse::<u64>().unwrap() + 1 >= player.ticket);
        player.ticket += 1;
        if let Some(old) = player.link.replace(self.out.clone()) {
            let _ = old.try_send(Out::Close(4001));
        }
        let replay: Vec<(u64, PresenceItem)> =
            player.pushes.iter().filter(|(seq, _)| *seq > last_seq).cloned().collect();
        self.player = Some(name);
        let ready = Ready { replayed: Some(replay.len().try_into().unwrap()), ..self.ready(world, true) };
        let mut frames = vec![self.frame(Op::Ready, reference.into(), &ready)];
        for (seq, item) in replay {
            frames.push(self.frame(Op::Presence, seq, &Presence { items: vec![item] }));
        }
        Answer { frames, ..Answer::default() }
    }

    fn ready(&self, world: &mut MutexGuard<'_, World>, resumed: bool) -> Ready {
        let name = self.player.clone().unwrap();
        let player = self.me(world);
        Ready {
            session: player.session.clone(),
            ticket: player.ticket.to_string(),
            player: name,
            stamp: (1, player.version),
            heartbeat_ms: 15_000,
            resume_ms: 60_000,
            resumed,
            cseq: player.cseq,
            watching: resumed.then(|| player.watches.iter().cloned().collect()),
            ..Ready::default()
        }
    }

    fn read(&self, world: &World, reference: u32) -> Answer {
        let player = &world.players[self.player.as_ref().unwrap()];
        let (version, state) = match player.stale.first() {
            Some((version, state)) if world.bent == Bent::ReadsAreStale => (*version, state.clone()),
            _ => (player.version, player.state.clone()),
        };
        self.ok(reference, &StateGot { stamp: (1, version), state, state_stamp: (1, version) })
    }

    fn patch(&self, world: &mut MutexGuard<'_, World>, reference: u32, patch: &StatePatch<'_>) -> Answer {
        let (bent, counted) = (world.bent, world.counted);
        let player = self.me(world);
        let ack = patch.ack.unwrap_or_default();
        let dup = patch.cseq.unwrap() <= player.cseq;
        let is_repeated = dup && bent == Bent::RepeatsAreCarriedOut;
        let is_forgotten = counted.is_multiple_of(7)
            && match ack {
                Ack::Durable => bent == Bent::DurableWritesAreForgotten,
                _ => bent == Bent::AppliedWritesAreForgotten,
            };
        if !dup || is_repeated {
            player.stale.push((player.version, player.state.clone()));
            if player.stale.len() > 3 {
                player.stale.remove(0);
            }
            player.version += 1;
            player.cseq = player.cseq.max(patch.cseq.unwrap());
            if !is_forgotten {
                player.carry_out(patch);
            }
        }
        let stamp = (1, player.version);
        let counter = player.state.get("n").cloned().unwrap_or(Value::Int(0));
        let body = Changed {
            stamp,
            state_stamp: Some(stamp),
            ack: Some(ack),
            state: Some([("n".to_owned(), counter)].into()),
            dup: (dup && !is_repeated).then_some(true),
            prov: None,
        };
        let is_cut = bent == Bent::RepeatsAreCarriedOut && !dup && counted.is_multiple_of(11);
        Answer { is_cut, ..self.ok(reference, &body) }
    }

    fn present(
        &self,
        world: &mut MutexGuard<'_, World>,
        reference: u32,
        status: Status,
        activity: BTreeMap<String, Value>,
        cseq: Option<u64>,
    ) -> Answer {
        let player = self.me(world);
        let dup = cseq.unwrap() <= player.cseq;
        if !dup {
            player.version += 1;
            player.cseq = cseq.unwrap();
            player.status = Some(status);
            player.activity = activity;
        }
        let body = Changed {
            stamp: (1, player.version),
            ack: Some(Ack::Applied),
            dup: dup.then_some(true),
            ..Changed::default()
        };
        if !dup && (world.bent != Bent::PushesAreLost || status != Status::Online) {
            world.tell(self.player.as_ref().unwrap());
        }
        self.ok(reference, &body)
    }
}

impl Player {
    fn carry_out(&mut self, patch: &StatePatch<'_>) {
        for (key, value) in patch.set.iter().flatten() {
            self.state.insert(key.as_str().to_owned(), value.clone());
        }
        for (key, by) in patch.incr.iter().flatten() {
            let Value::Int(number) = self.state.entry(key.as_str().to_owned()).or_insert(Value::Int(0))
            else {
                panic!("a counter")
            };
            *number += by;
        }
    }
}

impl World {
    fn item(&self, name: &str) -> PresenceItem {
        let player = self.players.get(name);
        PresenceItem {
            player: name.to_owned(),
            status: player.and_then(|player| player.status).unwrap_or(Status::Offline),
            activity: player.map(|player| player.activity.clone()).filter(|activity| !activity.is_empty()),
            ver: (1, player.map_or(0, |player| player.view)),
            last_seen: None,
            devices: None,
        }
    }

    /// Tells a player's watchers what they see now.
    fn tell(&mut self, name: &str) {
        self.players.get_mut(name).unwrap().view += 1;
        let item = self.item(name);
        for watcher in self.players.values_mut().filter(|watcher| watcher.watches.contains(name)) {
            watcher.seq += 1;
            watcher.pushes.push((watcher.seq, item.clone()));
            if let Some(link) = &watcher.link {
                let _ = link.try_send(Out::Push(watcher.seq, item.clone()));
            }
        }
    }
}
