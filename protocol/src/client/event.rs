//! What a client hears, in the order of the link: answers, pushes, and what became of the link itself.
//! Made by the driver, read by the client's user. Holds no logic but the reading of bodies.

use std::time::{Duration, Instant};

use super::link::DropKind;
use crate::codec::Frame;
use crate::codes::ErrorCode;
use crate::reply::{
    Changed, Empty, ErrorBody, Pong, Presences, Ready, Redirect, Refreshed, Roster, Sent, StateGot,
};
use crate::request::Op;
use crate::{Encoding, Stamp, push};

/// One event and the moment it was heard.
#[derive(Debug, Clone)]
pub struct Event {
    /// When the frame was read, or the link lost.
    pub at: Instant,
    /// What happened.
    pub what: Happened,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Happened {
    /// A session is open on a link: `ready.resumed` tells whether it is the old one.
    Ready {
        /// The frame.
        ready: Box<Ready>,
        /// What the `resume` claimed; `None` after a login.
        presented: Option<Presented>,
    },
    /// A `login` or `resume` was refused. What follows: another attempt, a login, or [`Happened::Ended`].
    Turned {
        /// The error.
        error: Box<ErrorBody>,
        /// What the `resume` claimed; `None` for a login.
        presented: Option<Presented>,
    },
    /// A [`super::Client::submit`] has its answer.
    Answered(Answered),
    /// The server spoke unasked.
    Push(Push),
    /// Pushes are missing, or one came again on the same link (`came` below `expected`; it is dropped): a fault of the server,
    /// unless `ready.missed` announced a gap (then this does not come).
    SeqGap {
        /// The `seq` that should have come.
        expected: u64,
        /// The one that came.
        came: u64,
    },
    /// The link is gone; the client goes on by itself.
    Down(Down),
    /// A server that is not the player's home said where that is; the client goes there by itself.
    Redirected(Redirect),
    /// No link could be made; the client tries again.
    Unreachable {
        /// What the system said.
        reason: String,
    },
    /// The client has stopped for good.
    Ended {
        /// The close code, where one was given.
        code: Option<u16>,
        /// For people.
        reason: String,
    },
}

/// What a `resume` claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// Which session.
    pub session: String,
    /// Pushes handled.
    pub last_seq: u64,
    /// The latest stamp known.
    pub stamp: Option<Stamp>,
    /// How long the session has been without a link at most; `None` for credentials from outside.
    pub away: Option<Duration>,
    /// How long at least: an attempt in between may have reached the server, though its answer did not come back.
    pub away_at_least: Option<Duration>,
}

/// How a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// The close code, where one was given.
    pub code: Option<u16>,
    /// What `bye` said, or the system.
    pub reason: String,
    /// How [`super::Client::drop_link`] did it, if it did.
    pub on_purpose: Option<DropKind>,
}

/// An unasked word of the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Push {
    /// Op 110, without the items that were no news.
    Presence {
        /// Its number.
        seq: u64,
        /// What is news by the rule of `ver`.
        items: Vec<push::PresenceItem>,
        /// How many items were not.
        stale: usize,
    },
    /// Op 111.
    Room {
        /// Its number.
        seq: u64,
        /// The change.
        room: push::Room,
    },
    /// Op 112.
    Message {
        /// Its number.
        seq: u64,
        /// The message.
        message: push::Message,
        /// Its id had come before: a user drops it.
        repeat: bool,
    },
    /// Op 113; the client moves by itself.
    Moved(push::Moved),
    /// Op 114.
    Bye(push::Bye),
    /// Op 115.
    Mode(push::ModeChanged),
    /// Op 116.
    RolledBack(push::RolledBack),
    /// Op 117.
    Durable(push::Durable),
}

/// The answer to one request.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The caller's own name for it ([`super::Client::submit`]).
    pub tag: u64,
    /// What was asked.
    pub op: Op,
    /// The change counter it went under last, if it is a change that was ever sent.
    pub cseq: Option<u64>,
    /// When what happened to it.
    pub timing: Timing,
    /// What came of it.
    pub outcome: Outcome,
}

/// The life of a request, for latencies free of coordinated omission: from `due`, not from `sent`.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// When the caller wanted it sent.
    pub due: Instant,
    /// When it was first sent; `None` if never.
    pub sent: Option<Instant>,
    /// When its answer was read, or hope given up.
    pub done: Instant,
    /// How often it was sent.
    pub sends: u32,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It was carried out.
    Ok(OkBody),
    /// It was refused.
    Refused(Box<ErrorBody>),
    /// Nobody knows: the session ended before the answer came.
    Unknown(&'static str),
}

/// The body of an `ok`, by the op it answers.
#[derive(Debug, Clone, PartialEq)]
pub enum OkBody {
    /// `logout`, `unwatch` and others.
    Empty,
    /// `ping`.
    Pong(Pong),
    /// `refresh`.
    Refreshed(Refreshed),
    /// `state.get`.
    State(StateGot),
    /// `state.patch`, `presence.set`, `room.leave`, `room.send`, `room.meta`.
    Changed(Changed),
    /// `presence.get`, `watch`.
    Presences(Presences),
    /// `room.join`, `room.members`.
    Roster(Roster),
    /// `send`.
    Sent(Sent),
}

impl OkBody {
    /// Reads the body of an `ok` to `op`.
    pub(crate) fn read(op: Op, frame: &Frame<'_>, encoding: Encoding) -> Result<Self, String> {
        Ok(match op {
            Op::Ping => Self::Pong(frame.read(encoding)?),
            Op::Refresh => Self::Refreshed(frame.read(encoding)?),
            Op::StateGet => Self::State(frame.read(encoding)?),
            Op::StatePatch | Op::PresenceSet | Op::RoomLeave | Op::RoomSend | Op::RoomMeta => {
                Self::Changed(frame.read(encoding)?)
            }
            Op::PresenceGet | Op::Watch => Self::Presences(frame.read(encoding)?),
            Op::RoomJoin | Op::RoomMembers => Self::Roster(frame.read(encoding)?),
            Op::Send => Self::Sent(frame.read(encoding)?),
            _ => frame.read::<Empty>(encoding).map(|Empty {}| Self::Empty)?,
        })
    }

    /// Where the record stood, if the answer says so.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::State(got) => Some(got.stamp),
            Self::Changed(changed) => Some(changed.stamp),
            Self::Roster(roster) => roster.stamp,
            _ => None,
        }
    }
}

/// Reads an `error`. One that this version cannot read (a code of a later one) is taken as a lasting fault.
pub(crate) fn read_error(frame: &Frame<'_>, encoding: Encoding) -> Box<ErrorBody> {
    Box::new(frame.read(encoding).unwrap_or_else(|fault| {
        let mut body = ErrorBody::new(ErrorCode::Internal, format!("an error that cannot be read: {fault}"));
        body.temporary = false;
        body
    }))
}
