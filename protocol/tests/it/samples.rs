//! One named sample of everything that can be said: what the golden vectors pin and the README shows.
//! Called by `vectors`. Never uses a field's default where another value would show more.

use std::collections::BTreeMap;

use protocol::codes::ErrorCode;
use protocol::push::{self, Mode, PresenceItem};
use protocol::reply::{self, ErrorBody, Rollback};
use protocol::request::{
    Ack, Login, Op, Ping, Players, PresenceSet, Refresh, Request, Resume, RoomJoin, RoomLeave, RoomMembers,
    RoomMeta, RoomSend, Send, StateGet, StatePatch, Status, Visibility,
};
use protocol::{Encoding, Text, Value, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A sample in both encodings, and how to read a frame of it back to a frame.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) op: Op,
    pub(crate) frames: [Vec<u8>; 2],
    reread: fn(Encoding, &[u8]) -> Vec<u8>,
}

impl Sample {
    /// Decodes a frame and encodes what came out.
    pub(crate) fn reread(&self, encoding: Encoding, frame: &[u8]) -> Vec<u8> {
        (self.reread)(encoding, frame)
    }
}

fn request(name: &'static str, reference: u32, request: &Request<'_>) -> Sample {
    let encoded = |encoding| {
        let mut out = Vec::new();
        codec::encode_request(encoding, &mut out, reference, request);
        assert_eq!(codec::decode_request(encoding, &out).unwrap().0, reference, "{name}");
        out
    };
    let frames = [encoded(Encoding::MessagePack), encoded(Encoding::Json)];
    let (_, read) = codec::decode_request(Encoding::MessagePack, &frames[0]).unwrap();
    assert_eq!(&read, request, "{name} reads back as it was");
    let reread = |encoding, frame: &[u8]| {
        let (reference, request) = codec::decode_request(encoding, frame).unwrap();
        let mut out = Vec::new();
        codec::encode_request(encoding, &mut out, reference, &request);
        out
    };
    Sample { name, op: request.op(), frames, reread }
}

fn said<B>(name: &'static str, op: Op, reference: u64, body: &B) -> Sample
where
    B: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let encoded = |encoding| {
        let mut out = Vec::new();
        codec::encode(encoding, &mut out, op, reference, body);
        out
    };
    let frames = [encoded(Encoding::MessagePack), encoded(Encoding::Json)];
    let frame = codec::peek(Encoding::MessagePack, &frames[0]).unwrap();
    assert_eq!((frame.op, frame.reference), (Some(op), reference), "{name}");
    assert_eq!(&frame.read::<B>(Encoding::MessagePack).unwrap(), body, "{name} reads back as it was");
    let reread = |encoding, frame: &[u8]| {
        let frame = codec::peek(encoding, frame).unwrap();
        let mut out = Vec::new();
        codec::encode(
            encoding,
            &mut out,
            frame.op.unwrap(),
            frame.reference,
            &frame.read::<B>(encoding).unwrap(),
        );
        out
    };
    Sample { name, op, frames, reread }
}

fn keyed<K: Ord, V, const N: usize>(entries: [(K, V); N]) -> BTreeMap<K, V> {
    entries.into()
}

fn texts<const N: usize>(texts: [&'static str; N]) -> Vec<Text<'static>> {
    texts.map(Text::from).into()
}

const SESSION: &str = "0192f0c1-7a11-70d3-9b1e-5f2c8a6e4d01";

/// Everything that a client says.
pub(crate) fn requests() -> Vec<Sample> {
    let mut samples = of_the_handshake();
    samples.extend(of_state_and_presence());
    samples.extend(of_rooms_and_messages());
    samples
}

fn of_the_handshake() -> Vec<Sample> {
    let login = |device: Option<&'static str>, relay, status| {
        Request::Login(Login { token: "dev:ann".into(), device: device.map(Text::from), relay, status })
    };
    let resume = |stamp, relay| {
        Request::Resume(Resume {
            session: SESSION.into(),
            ticket: "AAAAAAAAAAIX0W9i".into(),
            last_seq: 41,
            stamp,
            relay,
        })
    };
    vec![
        request("login", 1, &login(None, None, None)),
        request("login with everything", 1, &login(Some("pc"), Some(false), Some(Status::Invisible))),
        request("resume", 1, &resume(None, None)),
        request("resume with everything", 1, &resume(Some((1_732_400_000_001, 96)), Some(true))),
        request("logout", 70_000, &Request::Logout),
        request("ping", 0, &Request::Ping(Ping::default())),
        request(
            "ping with everything",
            300,
            &Request::Ping(Ping { t: Some(Value::Int(1234)), seen: Some(41) }),
        ),
        request("refresh", 2, &Request::Refresh(Refresh { token: "dev:ann".into() })),
    ]
}

fn of_state_and_presence() -> Vec<Sample> {
    let values = Value::Map(keyed([
        ("bin".to_owned(), Value::Bin(vec![0, 255])),
        ("false".to_owned(), Value::Bool(false)),
        ("float".to_owned(), Value::Float(0.5)),
        ("list".to_owned(), Value::List(vec![Value::Int(-1), Value::Str("ü".to_owned())])),
        ("null".to_owned(), Value::Null),
        ("uint".to_owned(), Value::Uint(u64::MAX)),
    ]));
    let patch =
        StatePatch { incr: Some(keyed([("gold".into(), 5)])), cseq: Some(1), ..StatePatch::default() };
    let everything = StatePatch {
        set: Some(keyed([("bag".into(), values), ("zone".into(), Value::Str("harbour".to_owned()))])),
        unset: Some(texts(["quest"])),
        incr: Some(keyed([("gold".into(), -5), ("xp".into(), 1_000)])),
        if_state: Some((1_732_400_000_001, 95)),
        ack: Some(Ack::Durable),
        cseq: Some(2),
    };
    let presence = |status, activity, visibility, ack, cseq| {
        Request::PresenceSet(PresenceSet { status, activity, visibility, ack, cseq })
    };
    let activity = keyed([("map".into(), Value::Str("docks".to_owned())), ("score".into(), Value::Int(3))]);
    let players = || Players { players: texts(["bea", "çem", "玩家"]) };
    vec![
        request("state.get", 3, &Request::StateGet(StateGet::default())),
        request(
            "state.get with everything",
            3,
            &Request::StateGet(StateGet {
                keys: Some(texts(["gold"])),
                at_least: Some((1_732_400_000_001, 96)),
            }),
        ),
        request("state.patch", 4, &Request::StatePatch(patch)),
        request("state.patch with everything", 5, &Request::StatePatch(everything)),
        request("presence.set", 6, &presence(Status::Playing, None, None, None, Some(3))),
        request(
            "presence.set with everything",
            7,
            &presence(Status::Busy, Some(activity), Some(Visibility::Status), Some(Ack::Replicated), Some(4)),
        ),
        request(
            "presence.set that clears the activity",
            8,
            &presence(Status::Away, Some(BTreeMap::new()), Some(Visibility::Full), Some(Ack::Applied), None),
        ),
        request(
            "presence.set hidden",
            8,
            &presence(Status::Online, None, Some(Visibility::Hidden), None, Some(5)),
        ),
        request("presence.get", 9, &Request::PresenceGet(players())),
        request("watch", 10, &Request::Watch(players())),
        request("unwatch", 11, &Request::Unwatch(Players { players: texts(["bea"]) })),
    ]
}

fn of_rooms_and_messages() -> Vec<Sample> {
    let room = || Text::from("party:7");
    let meta = || keyed([("team".into(), Value::Str("red".to_owned()))]);
    let data = || Value::Map(keyed([("say".to_owned(), Value::Str("hi".to_owned()))]));
    vec![
        request("room.join", 12, &Request::RoomJoin(RoomJoin { room: room(), meta: None, cseq: Some(6) })),
        request(
            "room.join with everything",
            12,
            &Request::RoomJoin(RoomJoin { room: room(), meta: Some(meta()), cseq: Some(6) }),
        ),
        request("room.leave", 13, &Request::RoomLeave(RoomLeave { room: room(), cseq: Some(7) })),
        request("room.send", 14, &Request::RoomSend(RoomSend { room: room(), data: data(), cseq: Some(8) })),
        request(
            "room.members",
            15,
            &Request::RoomMembers(RoomMembers { room: room(), cursor: None, limit: None }),
        ),
        request(
            "room.members with everything",
            15,
            &Request::RoomMembers(RoomMembers { room: room(), cursor: Some("bea".into()), limit: Some(50) }),
        ),
        request("room.meta", 16, &Request::RoomMeta(RoomMeta { room: room(), meta: meta(), cseq: Some(9) })),
        request("send", 17, &Request::Send(Send { player: "bea".into(), data: data(), cseq: Some(10) })),
    ]
}

fn ann_playing() -> PresenceItem {
    PresenceItem {
        player: "ann".to_owned(),
        status: Status::Playing,
        activity: Some(keyed([("map".to_owned(), Value::Str("docks".to_owned()))])),
        ver: (1_732_400_000_001, 12),
        last_seen: None,
        devices: Some(vec!["mobile".to_owned(), "pc".to_owned()]),
    }
}

fn bea_offline() -> PresenceItem {
    PresenceItem {
        player: "bea".to_owned(),
        status: Status::Offline,
        activity: None,
        ver: (1_732_400_000_001, 7),
        last_seen: Some(1_732_400_100_000),
        devices: None,
    }
}

fn members() -> Vec<reply::Member> {
    vec![
        reply::Member {
            player: "ann".to_owned(),
            online: None,
            meta: Some(keyed([("team".to_owned(), Value::Str("red".to_owned()))])),
        },
        reply::Member { player: "bea".to_owned(), online: Some(false), meta: None },
    ]
}

/// Everything that a server answers.
pub(crate) fn answers() -> Vec<Sample> {
    let stamp = (1_732_400_000_001, 97);
    let changed = reply::Changed { stamp, ack: Some(Ack::Applied), ..Default::default() };
    let patched = reply::Changed {
        state_stamp: Some(stamp),
        ack: Some(Ack::Durable),
        state: Some(keyed([("gold".to_owned(), Value::Int(12))])),
        ..changed.clone()
    };
    let presences = reply::Presences {
        presences: vec![ann_playing(), bea_offline()],
        unknown: vec!["çem".to_owned()],
        stamp: None,
    };
    let roster = |cursor, partial| reply::Roster {
        ver: (1_732_400_000_001, 3),
        count: 2,
        members: members(),
        cursor,
        partial,
        ..Default::default()
    };
    let joined = |dup| reply::Roster { stamp: Some(stamp), dup, ..roster(None, None) };
    let mut samples = vec![
        said("ok to logout, unwatch", Op::Ok, 70_000, &reply::Empty {}),
        said(
            "ok to ping",
            Op::Ok,
            300,
            &reply::Pong { t: Some(Value::Int(1234)), now_ms: 1_732_400_123_456 },
        ),
        said("ok to refresh", Op::Ok, 2, &reply::Refreshed { expires_in_ms: 3_600_000 }),
        said(
            "ok to state.get",
            Op::Ok,
            3,
            &reply::StateGot {
                stamp,
                state: keyed([("gold".to_owned(), Value::Int(12))]),
                state_stamp: stamp,
            },
        ),
        said("ok to state.patch", Op::Ok, 5, &patched),
        said(
            "ok to state.patch while the store is away",
            Op::Ok,
            4,
            &reply::Changed { ack: Some(Ack::Applied), state: None, prov: Some(true), ..patched },
        ),
        said("ok to presence.set", Op::Ok, 6, &changed),
        said(
            "ok to a repeated change",
            Op::Ok,
            6,
            &reply::Changed { dup: Some(true), ack: None, ..changed.clone() },
        ),
        said("ok to presence.get and watch", Op::Ok, 10, &presences),
        said("ok to room.members", Op::Ok, 12, &roster(None, None)),
        said("ok to room.join", Op::Ok, 12, &joined(None)),
        said("ok to a repeated room.join", Op::Ok, 12, &joined(Some(true))),
        said("ok to room.leave, room.send, room.meta", Op::Ok, 13, &reply::Changed { ack: None, ..changed }),
        said("ok to room.members, a page", Op::Ok, 15, &roster(Some("bea".to_owned()), Some(true))),
        said("ok to send", Op::Ok, 17, &reply::Sent { delivered: 2, ..Default::default() }),
        said("ok to a repeated send", Op::Ok, 17, &reply::Sent { delivered: 2, dup: Some(true), prov: None }),
        said(
            "ok to a provisional send",
            Op::Ok,
            17,
            &reply::Sent { delivered: 2, dup: None, prov: Some(true) },
        ),
        said(
            "ok to a provisional room.join",
            Op::Ok,
            30,
            &reply::Roster { prov: Some(true), ..joined(None) },
        ),
    ];
    samples.extend(errors());
    samples.extend(readies());
    let redirect =
        reply::Redirect { url: "ws://10.0.0.2:7700/v1/connect".to_owned(), node: "b#4f2a".to_owned() };
    samples.push(said("redirect", Op::Redirect, 1, &redirect));
    samples
}

/// One of every code, with the fields that the code adds.
fn errors() -> Vec<Sample> {
    let stamp = Some((1_732_400_000_001, 97));
    let mut samples: Vec<Sample> = ErrorCode::ALL
        .iter()
        .map(|&code| {
            let mut body = ErrorBody::new(code, "for people");
            match code {
                ErrorCode::CseqGap => body.expected = Some(5),
                ErrorCode::StateConflict => body.state_stamp = stamp,
                ErrorCode::Behind => body.stamp = stamp,
                ErrorCode::RolledBack => body.to = Some(Some((1_732_400_000_001, 90))),
                ErrorCode::RateLimited | ErrorCode::NotHome | ErrorCode::Overloaded => {
                    body.retry_after_ms = Some(250);
                }
                ErrorCode::Maintenance => {
                    body.reason = Some("a new season".to_owned());
                    body.retry_after_ms = Some(600_250);
                }
                ErrorCode::Banned => body.reason = Some("cheating".to_owned()),
                _ => {}
            }
            said(code.name(), Op::Error, 9, &body)
        })
        .collect();
    let mut lost = ErrorBody::new(ErrorCode::RolledBack, "for people");
    lost.to = Some(None);
    samples.push(said("rolled_back to nobody knows where", Op::Error, 9, &lost));
    let mut applied = ErrorBody::new(ErrorCode::StoreUnavailable, "for people");
    applied.applied = Some(true);
    applied.stamp = stamp;
    let mut forgotten = ErrorBody::new(ErrorCode::NotResumable, "for people");
    forgotten.lost = Some(true);
    samples.push(said("not_resumable, lost with the store", Op::Error, 9, &forgotten));
    samples.push(said("store_unavailable, but applied in memory", Op::Error, 9, &applied));
    samples
}

fn readies() -> Vec<Sample> {
    let ready = reply::Ready {
        session: SESSION.to_owned(),
        ticket: "AAAAAAAAAAEr1p0q".to_owned(),
        player: "ann".to_owned(),
        stamp: (1_732_400_000_001, 97),
        heartbeat_ms: 15_000,
        resume_ms: 1_800_000,
        expires_in_ms: 86_400_000,
        now_ms: 1_732_400_123_456,
        node: "a#91c3".to_owned(),
        resumed: false,
        limits: keyed([("frame_bytes".to_owned(), 16_384), ("watches".to_owned(), 500)]),
        ..Default::default()
    };
    let resumed = reply::Ready {
        resumed: true,
        replayed: Some(3),
        cseq: 9,
        watching: Some(vec!["bea".to_owned(), "çem".to_owned()]),
        rooms: Some(vec!["party:7".to_owned()]),
        ..ready.clone()
    };
    let lost = |to| reply::Ready {
        replayed: Some(0),
        missed: Some(true),
        rolled_back: Some(Rollback { from: (1_732_400_000_001, 96), to, cseq: 7 }),
        cseq: 7,
        prov: Some(true),
        ..resumed.clone()
    };
    vec![
        said("ready to login", Op::Ready, 1, &ready),
        said("ready to resume", Op::Ready, 1, &resumed),
        said("ready to resume after a loss", Op::Ready, 1, &lost(Some((1_732_400_000_001, 90)))),
        said("ready to resume after a loss of unknown size", Op::Ready, 1, &lost(None)),
    ]
}

/// Everything that a server says unasked.
pub(crate) fn pushes() -> Vec<Sample> {
    let room = push::Room {
        room: "party:7".to_owned(),
        ver: (1_732_400_000_001, 4),
        joins: Some(members()),
        leaves: Some(vec!["çem".to_owned()]),
        updates: Some(vec![reply::Member { online: Some(true), ..Default::default() }]),
        count: 2,
        ..Default::default()
    };
    let larger_room = push::Room {
        room: "guild:9".to_owned(),
        ver: (1_732_400_000_001, 70_000),
        count: 20_000,
        partial: Some(true),
        ..Default::default()
    };
    let whole_room = push::Room {
        room: "party:7".to_owned(),
        ver: (1_732_400_000_001, 4),
        count: 3,
        members: Some(members()),
        cursor: Some("bea".to_owned()),
        ..Default::default()
    };
    let data = Value::Map(keyed([("say".to_owned(), Value::Str("hi".to_owned()))]));
    let message = push::Message { id: format!("{SESSION}-10"), data, ..Default::default() };
    let bye = push::Bye {
        code: 4000,
        reason: "the server restarts".to_owned(),
        resume: true,
        retry_after_ms: Some(800),
    };
    let gone = push::Bye { code: 4502, reason: "by request".to_owned(), resume: false, retry_after_ms: None };
    let lost = |to| push::RolledBack {
        from: (1_732_400_000_001, 96),
        to,
        cseq: 7,
        reason: "the store came back with older data".to_owned(),
    };
    vec![
        said("presence", Op::Presence, 42, &push::Presence { items: vec![ann_playing(), bea_offline()] }),
        said("room", Op::Room, 43, &room),
        said("room, more than is told", Op::Room, 44, &larger_room),
        said("room, a snapshot", Op::Room, 44, &whole_room),
        said(
            "message from a player",
            Op::Message,
            45,
            &push::Message { player: Some("ann".to_owned()), ..message.clone() },
        ),
        said(
            "message in a room",
            Op::Message,
            46,
            &push::Message {
                player: Some("ann".to_owned()),
                room: Some("party:7".to_owned()),
                ..message.clone()
            },
        ),
        said(
            "message from a service",
            Op::Message,
            47,
            &push::Message { service: Some("matchmaker".to_owned()), ..message },
        ),
        said(
            "moved",
            Op::Moved,
            0,
            &push::Moved {
                url: "ws://10.0.0.2:7700/v1/connect".to_owned(),
                node: "b#4f2a".to_owned(),
                within_ms: 5_000,
            },
        ),
        said("bye", Op::Bye, 0, &bye),
        said("bye for good", Op::Bye, 0, &gone),
        said("mode local", Op::Mode, 0, &push::ModeChanged { mode: Mode::Local, unflushed_ms: Some(1_200) }),
        said(
            "mode paused",
            Op::Mode,
            0,
            &push::ModeChanged { mode: Mode::Paused, unflushed_ms: Some(1_200) },
        ),
        said("mode normal", Op::Mode, 0, &push::ModeChanged { mode: Mode::Normal, unflushed_ms: None }),
        said("rolled_back", Op::RolledBack, 0, &lost(Some((1_732_400_000_001, 90)))),
        said("rolled_back to nobody knows where", Op::RolledBack, 0, &lost(None)),
        said("durable", Op::Durable, 0, &push::Durable { stamp: (1_732_400_000_001, 97), cseq: 9 }),
    ]
}
