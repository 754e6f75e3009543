//! What a command comes to: an answer now, later, or the end. Made by `dispatch`, written by `link`.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::reply::{Changed, Empty, ErrorBody, Pong, Presences, Refreshed, Roster, Sent, StateGot};
use protocol::request::{Ack, Op};
use tokio::sync::oneshot;

use super::opening::Absent;
use super::outbox::Outbox;
use crate::events::PresenceView;
use crate::home::record::rooms::Meta;
use crate::home::{Cell, Durability};
use crate::hub::{Mailbox, Push};
use crate::ids::{PlayerId, RoomName, SessionId, Stamp};
use crate::presence::{NoPlace, Place};

/// What a command comes to.
pub(super) enum Answer {
    /// `ok` with this body.
    Ok(Body),
    /// `error`.
    Error(Box<ErrorBody>),
    /// Later.
    Later(Waiting),
    /// `ok`, then the end of the session.
    Logout,
    /// The session is gone: the link has no more to do.
    Gone,
    /// The request was held, and can be carried out now.
    Again(Box<Again>),
}

/// A request that concerns a room whose home is elsewhere, or on its way. What comes behind it on its link waits, so
/// that all is carried out in order.
pub(super) enum Held {
    /// `room.join` of a player who needs a place.
    Join { player: PlayerId, join: Joining },
    /// `room.send` while nobody knows the home.
    Say(Saying),
}

/// The same when it has waited.
pub(super) enum Again {
    /// With the place, or why there is none.
    Join(Joining, Result<Place, NoPlace>),
    /// The home may be known by now.
    Say(Saying),
}

/// What `room.join` asks.
#[derive(Clone)]
pub(super) struct Joining {
    pub(super) room: RoomName,
    pub(super) meta: Option<Meta>,
    pub(super) cseq: Option<u64>,
}

/// What `room.send` asks.
#[derive(Clone)]
pub(super) struct Saying {
    pub(super) room: RoomName,
    pub(super) message: Arc<Push>,
    pub(super) cseq: Option<u64>,
}

/// The bodies of `ok`.
pub(super) enum Body {
    Empty(Empty),
    Pong(Pong),
    Refreshed(Refreshed),
    StateGot(StateGot),
    Changed(Changed),
    Presences(Presences),
    Sent(Sent),
    Roster(Roster),
}

/// What an answer waits for.
pub(super) enum Waiting {
    /// A change for its commit.
    Durable {
        /// Whose record it is.
        cell: Arc<Cell>,
        /// Hears of the commit.
        committed: oneshot::Receiver<Durability>,
        /// The answer when it succeeds.
        changed: Changed,
        /// The level asked for.
        ack: Ack,
    },
    /// A look at players whom the store or another node must be asked for.
    Lookup {
        /// All, in the order asked.
        asked: Vec<PlayerId>,
        /// Those to ask for.
        absent: Absent,
        /// Those found already.
        found: HashMap<PlayerId, PresenceView>,
        /// `watch`: who is told later of those that cannot be told now, and where the record stands.
        watcher: Option<(Arc<Mailbox>, Stamp)>,
    },
    /// A message for the node at which its player is at home.
    Carried {
        /// Whom it is for.
        player: PlayerId,
        /// The message.
        message: Arc<Push>,
        /// The answer says that it is provisional.
        prov: Option<bool>,
    },
    /// What must be known of a room's home before the request is carried out.
    Held(Box<Held>),
    /// The roster of a room elsewhere, for a session that has entered it.
    Entered {
        /// Which room.
        room: RoomName,
        /// Whose session.
        player: PlayerId,
        /// Which one.
        session: SessionId,
        /// The answer, but for the roster.
        roster: Box<Roster>,
    },
    /// A page of the roster of a room elsewhere.
    Members {
        /// Which room.
        room: RoomName,
        /// Behind whom.
        after: Option<String>,
        /// How many at most.
        limit: Option<usize>,
    },
    /// A logout for its commit: a session that ended must not come back.
    Farewell(oneshot::Receiver<Durability>),
}

/// The op and reference of an answer, with its body, for the outbox.
pub(super) fn add_answer(outbox: &mut Outbox, reference: u32, answer: &Answer) {
    let reference_wide = u64::from(reference);
    match answer {
        Answer::Error(body) => outbox.add(Op::Error, reference_wide, body.as_ref()),
        // A client that sent `ref` 0 asked for no answer unless the request fails.
        Answer::Later(_) | Answer::Gone | Answer::Again(_) => {}
        _ if reference == 0 => {}
        Answer::Logout => outbox.add(Op::Ok, reference_wide, &Empty {}),
        Answer::Ok(body) => match body {
            Body::Empty(body) => outbox.add(Op::Ok, reference_wide, body),
            Body::Pong(body) => outbox.add(Op::Ok, reference_wide, body),
            Body::Refreshed(body) => outbox.add(Op::Ok, reference_wide, body),
            Body::StateGot(body) => outbox.add(Op::Ok, reference_wide, body),
            Body::Changed(body) => outbox.add(Op::Ok, reference_wide, body),
            Body::Presences(body) => outbox.add(Op::Ok, reference_wide, body),
            Body::Sent(body) => outbox.add(Op::Ok, reference_wide, body),
            Body::Roster(body) => outbox.add(Op::Ok, reference_wide, body),
        },
    }
}
