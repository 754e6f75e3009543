//! The rooms that a player is in, as part of her record: who may enter, her meta, and which of her sessions are told
//! what happens there. Pure. A member is a player: her sessions share her meta, and she is gone with the last of them.
//! How many others are in a room is not known here: that a place is free is told by the caller.

use std::sync::Arc;

use super::{Admission, Context, LinkState, Record, Refusal};
use crate::events::{InRoom, RoomsOf};
use crate::ids::{RoomName, RoomPattern, SessionId};

/// What a session without the right to a room is told.
const NO_RIGHT: Refusal = Refusal::Forbidden("neither the token nor the configuration opens this room");

/// A member's own meta, a MessagePack map; `None` is the empty one.
pub type Meta = Option<Arc<[u8]>>;

/// A player in one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Which room.
    pub room: RoomName,
    /// Her meta, whichever of her sessions has set it.
    pub meta: Meta,
    /// Her sessions that are in it; never empty.
    pub sessions: Vec<SessionId>,
    /// A service put her in: that is a right to the room, as long as she stays.
    pub by_service: bool,
}

/// How a session enters a room.
#[derive(Debug, Clone)]
pub struct Join<'a> {
    /// Which room.
    pub room: &'a RoomName,
    /// Her meta from now on; `None` keeps what she has.
    pub meta: Option<Meta>,
    /// Whether the room has a place for her.
    pub has_place: bool,
    /// The client's counter.
    pub cseq: Option<u64>,
}

impl Record {
    /// The player's membership of a room.
    #[must_use]
    pub fn membership(&self, room: &RoomName) -> Option<&Membership> {
        self.rooms.iter().find(|membership| membership.room == *room)
    }

    /// Whether this session is in a room.
    #[must_use]
    pub fn is_in_room(&self, id: SessionId, room: &RoomName) -> bool {
        self.membership(room).is_some_and(|membership| membership.sessions.contains(&id))
    }

    /// The rooms that a session is in, in the order in which the player entered them.
    pub fn rooms_of(&self, id: SessionId) -> impl Iterator<Item = &RoomName> {
        self.rooms
            .iter()
            .filter(move |membership| membership.sessions.contains(&id))
            .map(|membership| &membership.room)
    }

    /// Whether a session may enter a room: by its token, by the configuration, or because a service put the player in.
    #[must_use]
    pub fn may_enter(&self, ctx: Context<'_>, id: SessionId, room: &RoomName) -> bool {
        let opens = |patterns: &[RoomPattern]| patterns.iter().any(|pattern| pattern.opens(room));
        opens(&ctx.rules.room_grants)
            || self.session(id).is_some_and(|session| opens(&session.grants))
            || self.membership(room).is_some_and(|membership| membership.by_service)
    }

    /// Judges whether a session may enter a room; changes nothing. Says whether its player needs a place there.
    ///
    /// # Errors
    /// [`Refusal::CseqGap`], [`Refusal::Forbidden`], [`Refusal::TooLarge`], [`Refusal::NoSession`].
    pub fn may_join(
        &self,
        ctx: Context<'_>,
        id: SessionId,
        room: &RoomName,
        cseq: Option<u64>,
    ) -> Result<bool, Refusal> {
        if self.admit(ctx, id, cseq)? == Admission::Repeat {
            return Ok(false);
        }
        if !self.may_enter(ctx, id, room) {
            return Err(NO_RIGHT);
        }
        self.has_place(ctx, &[id], room, true)?;
        Ok(self.membership(room).is_none())
    }

    /// Enters a room; one who is in it already only changes her meta.
    ///
    /// # Errors
    /// [`Refusal::CseqGap`], [`Refusal::Forbidden`], [`Refusal::RoomFull`], [`Refusal::TooLarge`],
    /// [`Refusal::NoSession`].
    pub fn join(&mut self, ctx: Context<'_>, id: SessionId, join: Join<'_>) -> Result<Admission, Refusal> {
        if self.admit(ctx, id, join.cseq)? == Admission::Repeat {
            self.touch_activity(ctx, id)?;
            return Ok(Admission::Repeat);
        }
        if !self.may_enter(ctx, id, join.room) {
            return Err(NO_RIGHT);
        }
        self.has_place(ctx, &[id], join.room, join.has_place)?;
        self.accept(ctx, id, join.cseq)?;
        self.enter(&[id], join.room, join.meta, false);
        Ok(Admission::New)
    }

    /// Leaves a room; no fault if the session is not in it.
    ///
    /// # Errors
    /// [`Refusal::CseqGap`], [`Refusal::NoSession`].
    pub fn leave_room(
        &mut self,
        ctx: Context<'_>,
        id: SessionId,
        room: &RoomName,
        cseq: Option<u64>,
    ) -> Result<Admission, Refusal> {
        if self.admit(ctx, id, cseq)? == Admission::Repeat {
            self.touch_activity(ctx, id)?;
            return Ok(Admission::Repeat);
        }
        self.accept(ctx, id, cseq)?;
        if self.is_in_room(id, room) {
            self.let_go(|session, of| session == id && of == room);
        }
        Ok(Admission::New)
    }

    /// Changes the player's meta in a room.
    ///
    /// # Errors
    /// [`Refusal::CseqGap`], [`Refusal::Forbidden`] for a session that is not in it, [`Refusal::NoSession`].
    pub fn set_room_meta(
        &mut self,
        ctx: Context<'_>,
        id: SessionId,
        room: &RoomName,
        meta: Meta,
        cseq: Option<u64>,
    ) -> Result<Admission, Refusal> {
        if self.admit(ctx, id, cseq)? == Admission::Repeat {
            self.touch_activity(ctx, id)?;
            return Ok(Admission::Repeat);
        }
        self.must_be_in(id, room)?;
        self.accept(ctx, id, cseq)?;
        self.enter(&[id], room, Some(meta), false);
        Ok(Admission::New)
    }

    /// Judges whether a session may speak in a room; changes nothing. The room is the caller's to tell, and the
    /// counter to mark.
    ///
    /// # Errors
    /// [`Refusal::CseqGap`], [`Refusal::Forbidden`] for a session that is not in it, [`Refusal::NoSession`].
    pub fn may_speak(
        &self,
        ctx: Context<'_>,
        id: SessionId,
        room: &RoomName,
        cseq: Option<u64>,
    ) -> Result<Admission, Refusal> {
        let admission = self.admit(ctx, id, cseq)?;
        if admission == Admission::New {
            self.must_be_in(id, room)?;
        }
        Ok(admission)
    }

    /// A service puts the player in, with all the sessions that she has.
    ///
    /// # Errors
    /// [`Refusal::NoSession`] when she has none, [`Refusal::RoomFull`], [`Refusal::TooLarge`].
    pub fn put_in(
        &mut self,
        ctx: Context<'_>,
        room: &RoomName,
        meta: Option<Meta>,
        has_place: bool,
    ) -> Result<(), Refusal> {
        let ids: Vec<SessionId> = self.sessions.iter().map(|session| session.id).collect();
        if ids.is_empty() {
            return Err(Refusal::NoSession);
        }
        self.has_place(ctx, &ids, room, has_place)?;
        self.version = self.version.next();
        self.enter(&ids, room, meta, true);
        Ok(())
    }

    /// A service takes the player out; the sessions that were in, none if she was not.
    pub fn take_out(&mut self, room: &RoomName) -> Vec<SessionId> {
        let sessions =
            self.membership(room).map(|membership| membership.sessions.clone()).unwrap_or_default();
        if !sessions.is_empty() {
            self.version = self.version.next();
            self.let_go(|_, of| of == room);
        }
        sessions
    }

    /// What rooms are told of the player: all that she is in.
    #[must_use]
    pub fn in_rooms(&self) -> RoomsOf {
        let has_link =
            |id: &SessionId| self.session(*id).is_some_and(|session| session.link == LinkState::Attached);
        let of = |membership: &Membership| InRoom {
            room: membership.room.clone(),
            online: membership.sessions.iter().any(has_link),
            meta: membership.meta.clone(),
            sessions: membership.sessions.clone(),
        };
        RoomsOf::Here { epoch: self.epoch, rooms: self.rooms.iter().map(of).collect() }
    }

    /// A session that is in rooms has got or lost its link: they show it.
    pub(super) fn link_moved(&mut self, id: SessionId) {
        if self.rooms_of(id).next().is_some() {
            self.rooms_version = self.version;
        }
    }

    /// A session is gone, and with it what it was in. The version has moved already.
    pub(super) fn leave_all_rooms(&mut self, id: SessionId) {
        if self.rooms_of(id).next().is_some() {
            self.let_go(|session, _| session == id);
        }
    }

    /// Takes in what the sessions of a stored record were in that this one met; those that did not stay are let go.
    /// The version has moved already.
    pub(super) fn take_in_rooms(&mut self, stored: Vec<Membership>) {
        if stored.is_empty() && self.rooms.is_empty() {
            return;
        }
        for Membership { room, meta, sessions, by_service } in stored {
            // What this record says of a room is the newer word.
            let meta = self.membership(&room).is_none().then_some(meta);
            self.enter(&sessions, &room, meta, by_service);
        }
        let here: Vec<SessionId> = self.sessions.iter().map(|session| session.id).collect();
        self.let_go(|session, _| !here.contains(&session));
    }

    fn must_be_in(&self, id: SessionId, room: &RoomName) -> Result<(), Refusal> {
        self.session(id).ok_or(Refusal::NoSession)?;
        if self.is_in_room(id, room) {
            Ok(())
        } else {
            Err(Refusal::Forbidden("only who is in a room may do this"))
        }
    }

    /// Whether one more room fits each session, and one more member the room.
    fn has_place(
        &self,
        ctx: Context<'_>,
        ids: &[SessionId],
        room: &RoomName,
        has_place: bool,
    ) -> Result<(), Refusal> {
        let is_full =
            |id: &SessionId| !self.is_in_room(*id, room) && self.rooms_of(*id).count() >= ctx.rules.rooms_max;
        if ids.iter().any(is_full) {
            return Err(Refusal::TooLarge("a session is in at most as many rooms as ready.limits says"));
        }
        if has_place || self.membership(room).is_some() { Ok(()) } else { Err(Refusal::RoomFull) }
    }

    /// Puts sessions in, and their player first if she is not. The version has moved already.
    fn enter(&mut self, ids: &[SessionId], room: &RoomName, meta: Option<Meta>, by_service: bool) {
        let at = self.rooms.iter().position(|membership| membership.room == *room);
        let at = at.unwrap_or_else(|| {
            let sessions = Vec::with_capacity(ids.len());
            self.rooms.push(Membership { room: room.clone(), meta: None, sessions, by_service: false });
            self.rooms.len() - 1
        });
        if let Some(membership) = self.rooms.get_mut(at) {
            for id in ids {
                if !membership.sessions.contains(id) {
                    membership.sessions.push(*id);
                }
            }
            if let Some(meta) = meta {
                membership.meta = meta;
            }
            membership.by_service |= by_service;
        }
        self.rooms_changed();
    }

    /// Takes sessions out, and the player where none is left.
    fn let_go(&mut self, leaves: impl Fn(SessionId, &RoomName) -> bool) {
        for Membership { room, sessions, .. } in &mut self.rooms {
            sessions.retain(|session| !leaves(*session, room));
        }
        self.rooms.retain(|membership| !membership.sessions.is_empty());
        if self.rooms.is_empty() {
            self.rooms = Vec::new();
        }
        self.rooms_changed();
    }

    fn rooms_changed(&mut self) {
        (self.lists_version, self.rooms_version) = (self.version, self.version);
    }
}

#[cfg(test)]
mod tests;
