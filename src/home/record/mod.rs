//! All of one player, as a pure value: commands and time come in, the record changes or refuses, and what came of it
//! goes out. Called by `home` under the record's lock. Never does I/O, never reads a clock, never names the wire.

pub mod bars;
pub mod document;
pub mod notes;
pub mod policy;
pub mod presence;
pub mod rooms;
pub mod sessions;
pub mod state;
pub mod stored;
pub mod watches;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Now;
pub(crate) use crate::clock::millis;
use crate::events::{EndReason, PresenceView, Status};
use crate::home::history::History;
use crate::ids::{Epoch, PlayerId, RoomPattern, SessionId, Stamp, Version};

use bars::Bars;
use document::Document;
use notes::Notes;
pub use policy::LoginPolicy;
use rooms::Membership;

/// The settings that a record obeys.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How long a session outlives its link.
    pub session_ttl: Duration,
    /// What a second login does.
    pub login_policy: LoginPolicy,
    /// How long a player still shows after the last link dropped.
    pub presence_grace: Duration,
    /// Idle for this long shows as away; zero means never.
    pub away_after: Duration,
    /// Most bytes of a player's state.
    pub state_bytes_max: usize,
    /// Most players a session may watch.
    pub watches_max: usize,
    /// Most rooms a session may be in.
    pub rooms_max: usize,
    /// Rooms that every player may enter.
    pub room_grants: Vec<RoomPattern>,
    /// Turns the `cseq` guard off: only to prove that a checker notices.
    pub cseq_unchecked: bool,
}

/// What is true while a command is carried out.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The clock, read once a batch.
    pub now: Now,
    /// The settings.
    pub rules: &'a Rules,
}

/// Why a command was refused; the record is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The session is gone.
    #[error("the session is gone")]
    NoSession,
    /// The counter leaves a gap.
    #[error("cseq must be contiguous")]
    CseqGap {
        /// The next one that is taken.
        expected: u64,
    },
    /// The state is not the one that the client saw.
    #[error("the state has changed")]
    StateConflict {
        /// Where it stands.
        state_stamp: Stamp,
    },
    /// Over a limit.
    #[error("{0}")]
    TooLarge(&'static str),
    /// Makes no sense for this state.
    #[error("{0}")]
    BadRequest(&'static str),
    /// The login policy refuses one more session.
    #[error("the player has as many sessions as the login policy lets stand")]
    SessionLimit,
    /// The session cannot be resumed with this ticket.
    #[error("the session is gone, its time has run out, or the ticket is not its newest")]
    NotResumable,
    /// The session is of a time of which the store knows nothing any more, and no home has it in memory. Whether it had ended
    /// before, nobody can say.
    #[error("the store has lost its data since this session was made: what it held may have been lost")]
    LostWithStore,
    /// The login that made the session has run out.
    #[error("the token of this session has expired")]
    TokenExpired,
    /// The player is banned.
    #[error("the player is banned")]
    Banned {
        /// For people.
        reason: Arc<str>,
    },
    /// The session was ended by an operator or a service.
    #[error("the session was closed")]
    Kicked {
        /// The close code for the client.
        code: u16,
        /// For people.
        reason: Arc<str>,
    },
    /// The player is not banned.
    #[error("the player is not banned")]
    NotBanned,
    /// The token was good, but tokens issued when it was are refused by now.
    #[error("the token was revoked: it takes a newer one")]
    TokenRevoked,
    /// No right to it.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The room has no place for one more.
    #[error("the room is full")]
    RoomFull,
    /// More is being said in the room than it can tell.
    #[error("too much is being said in this room")]
    TooMuchTalk,
    /// The claimed stamp lies ahead of the record in its own epoch.
    #[error("the record has not reached this stamp")]
    Behind,
}

/// How a session hangs together with a link. Times are Unix ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Made by a service; waits for its client until then.
    Pending {
        /// The end of the wait.
        until: u64,
    },
    /// A link is up.
    Attached,
    /// No link since then.
    Detached {
        /// When the link dropped.
        since: u64,
    },
}

/// One login of one player on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Its device.
    pub device: Box<str>,
    /// The number of the latest ticket.
    pub ticket_n: u64,
    /// Whether the client has shown that it holds the latest ticket (not stored: after a crash, it has not).
    pub ticket_settled: bool,
    /// The highest counter applied.
    pub cseq: u64,
    /// What the client says it is doing.
    pub status: Status,
    /// Idle: shows as away until the next command.
    pub idle: bool,
    /// Rich activity: a MessagePack map.
    pub activity: Option<Box<[u8]>>,
    /// How much others see.
    pub visibility: Visibility,
    /// When its token runs out, Unix ms.
    pub token_expires_at: u64,
    /// Its link.
    pub link: LinkState,
    /// The last command that counts as activity, Unix ms.
    pub active_at: u64,
    /// Whom it watches.
    pub watches: Vec<PlayerId>,
    /// Rooms that its token opens.
    pub grants: Box<[RoomPattern]>,
}

/// How much of a session others see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Visibility {
    /// Everything.
    #[default]
    Full,
    /// The status only.
    Status,
    /// Nothing.
    Hidden,
}

/// All of one player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The epoch under which it is held.
    pub epoch: Epoch,
    /// Its count of accepted changes.
    pub version: Version,
    /// The epochs before.
    pub history: History,
    /// Its sessions, oldest first.
    pub sessions: Vec<Session>,
    /// The player's state, gone with the last session.
    pub state: Document,
    /// Where the state last changed.
    pub state_stamp: Stamp,
    /// What others see.
    pub view: PresenceView,
    /// What keeps the player out, if anything does.
    pub bars: Option<Box<Bars>>,
    /// The rooms that she is in, in the order in which she entered them.
    pub rooms: Vec<Membership>,
    /// The version at which watches or rooms last changed: what decides whether `w` is written.
    pub lists_version: Version,
    /// The version at which what rooms show of her last changed: what decides whether they are told.
    pub rooms_version: Version,
    /// What happened to the player and is not known to be stored.
    pub notes: Notes,
}

/// A session that ended under a command, for its link and its watches to be let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The session as it was.
    pub session: Session,
    /// Why.
    pub reason: EndReason,
}

/// Whether a change with a counter is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Carry it out.
    New,
    /// It took effect before.
    Repeat,
}

impl Record {
    /// A player without a record: its first version will lie above `version_max` of the shard.
    #[must_use]
    pub fn first(epoch: Epoch, version_max: Version) -> Self {
        Self {
            epoch,
            version: version_max,
            history: History::default(),
            sessions: Vec::new(),
            state: Document::default(),
            state_stamp: Stamp::new(epoch, version_max),
            // As of a player who was never here: until something is shown, nobody can tell the two apart.
            view: PresenceView::default(),
            bars: None,
            rooms: Vec::new(),
            lists_version: version_max,
            rooms_version: version_max,
            notes: Notes::default(),
        }
    }

    /// Where the record stands.
    #[must_use]
    pub const fn stamp(&self) -> Stamp {
        Stamp::new(self.epoch, self.version)
    }

    /// Holds the record under a new epoch: what it was is remembered, so that no loss is silent.
    pub fn take_over(&mut self, epoch: Epoch) {
        self.go_on(epoch, |history, at| history.append(at.epoch, at.version));
    }

    /// Goes on under a new epoch with what is in memory, because the store lost writes: what others were granted in
    /// between was lost with them.
    pub fn repair(&mut self, epoch: Epoch) {
        self.go_on(epoch, |history, at| history.append_repair(at.epoch, at.version, epoch));
    }

    fn go_on(&mut self, epoch: Epoch, remember: impl FnOnce(&mut History, Stamp)) {
        if epoch > self.epoch {
            let at = self.stamp();
            remember(&mut self.history, at);
            self.epoch = epoch;
            // Watchers may hold what was shown and lost: under the new epoch the surviving view is above it.
            if self.view.ver != Stamp::default() {
                self.view.ver.epoch = epoch;
            }
        }
    }

    /// The session with this id.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.iter().find(|session| session.id == id)
    }

    /// Whether both know a session: then they are of one line, and not two that met.
    #[must_use]
    pub fn shares_a_session_with(&self, other: &Self) -> bool {
        other.sessions.iter().any(|session| self.session(session.id).is_some())
    }

    pub(super) fn session_mut(&mut self, id: SessionId) -> Result<&mut Session, Refusal> {
        self.sessions.iter_mut().find(|session| session.id == id).ok_or(Refusal::NoSession)
    }

    /// Judges a change's counter; changes nothing. A change without one is always new.
    ///
    /// # Errors
    /// [`Refusal::CseqGap`], [`Refusal::NoSession`].
    pub fn admit(&self, ctx: Context<'_>, id: SessionId, cseq: Option<u64>) -> Result<Admission, Refusal> {
        let session = self.session(id).ok_or(Refusal::NoSession)?;
        let Some(cseq) = cseq else { return Ok(Admission::New) };
        if cseq == 0 {
            // As a repeat it would be acked and thrown away.
            return Err(Refusal::BadRequest("cseq counts from 1"));
        }
        if ctx.rules.cseq_unchecked {
            return Ok(Admission::New);
        }
        if cseq <= session.cseq {
            return Ok(Admission::Repeat);
        }
        let expected = session.cseq.saturating_add(1);
        if cseq == expected { Ok(Admission::New) } else { Err(Refusal::CseqGap { expected }) }
    }

    /// Counts one accepted change of a session: its counter, its activity and the version move together.
    pub(super) fn accept(
        &mut self,
        ctx: Context<'_>,
        id: SessionId,
        cseq: Option<u64>,
    ) -> Result<(), Refusal> {
        self.touch_activity(ctx, id)?;
        let session = self.session_mut(id)?;
        session.cseq = cseq.map_or(session.cseq, |cseq| cseq.max(session.cseq));
        self.version = self.version.next();
        Ok(())
    }

    /// Takes note of a command that shows a person at work: ends `idle`, settles the ticket.
    ///
    /// # Errors
    /// [`Refusal::NoSession`].
    pub fn touch_activity(&mut self, ctx: Context<'_>, id: SessionId) -> Result<(), Refusal> {
        let session = self.session_mut(id)?;
        session.active_at = ctx.now.unix_ms;
        session.ticket_settled = true;
        if std::mem::take(&mut session.idle) {
            self.show(ctx);
        }
        Ok(())
    }

    /// Counts a change that only uses a counter, such as a message to another player.
    ///
    /// # Errors
    /// As [`Record::admit`].
    pub fn mark(&mut self, ctx: Context<'_>, id: SessionId, cseq: Option<u64>) -> Result<Admission, Refusal> {
        let admission = self.admit(ctx, id, cseq)?;
        match (admission, cseq) {
            (Admission::New, Some(_)) => self.accept(ctx, id, cseq)?,
            _ => self.touch_activity(ctx, id)?,
        }
        Ok(admission)
    }

    /// Adds players to a session's watch list; those it has already are skipped.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] when the list would pass its limit, [`Refusal::NoSession`].
    pub fn watch(&mut self, ctx: Context<'_>, id: SessionId, players: &[PlayerId]) -> Result<(), Refusal> {
        let present = &self.session(id).ok_or(Refusal::NoSession)?.watches;
        let mut known: HashSet<&PlayerId, ahash::RandomState> = present.iter().collect();
        let new: Vec<PlayerId> = players.iter().filter(|player| known.insert(player)).cloned().collect();
        if present.len() + new.len() > ctx.rules.watches_max {
            return Err(Refusal::TooLarge("a session watches at most as many players as ready.limits says"));
        }
        self.touch_activity(ctx, id)?;
        if !new.is_empty() {
            let session = self.session_mut(id)?;
            session.watches.reserve_exact(new.len());
            session.watches.extend(new);
            self.lists_changed();
        }
        Ok(())
    }

    /// Takes players off a session's watch list.
    ///
    /// # Errors
    /// [`Refusal::NoSession`].
    pub fn unwatch(&mut self, ctx: Context<'_>, id: SessionId, players: &[PlayerId]) -> Result<(), Refusal> {
        self.touch_activity(ctx, id)?;
        let session = self.session_mut(id)?;
        let before = session.watches.len();
        let leaving: HashSet<&PlayerId, ahash::RandomState> = players.iter().collect();
        session.watches.retain(|player| !leaving.contains(player));
        if session.watches.len() < before {
            session.watches.shrink_to_fit();
            self.lists_changed();
        }
        Ok(())
    }

    pub(super) fn lists_changed(&mut self) {
        self.version = self.version.next();
        self.lists_version = self.version;
    }

    /// When the record must be looked at again (Unix ms), if ever.
    #[must_use]
    pub fn next_deadline(&self, ctx: Context<'_>) -> Option<u64> {
        self.sessions.iter().map(|session| session.next_deadline(ctx)).min()
    }
}

#[cfg(test)]
mod tests;
