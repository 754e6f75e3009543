//! Rooms, as `dispatch` carries them out: the record says who is in, then the room is looked at or spoken in. Where its
//! home is elsewhere, whoever needs a place there is held until it is kept, and what comes behind with her.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::codes::ErrorCode;
use protocol::reply::{Changed, ErrorBody, Roster};
use protocol::request::{RoomJoin, RoomLeave, RoomMembers, RoomMeta, RoomSend};
use protocol::{Text, Value};

use super::{Carried, answered, refused};
use crate::clock::Now;
use crate::home::record::rooms::{Join, Meta};
use crate::home::record::{Admission, Refusal};
use crate::home::{Applied, HomeError};
use crate::ids::RoomName;
use crate::presence::{NoPlace, NotSaid, Place};
use crate::session::answer::{Again, Answer, Body, Held, Joining, Saying, Waiting};
use crate::session::{Attachment, Sessions};
use crate::wire::{RETRY_AFTER_MS, wire_stamp};

impl Sessions {
    pub(super) fn room_join(&self, me: &Attachment, now: Now, join: &RoomJoin<'_>) -> Carried {
        let Ok(room) = RoomName::parse(join.room.as_str()) else { return Ok(not_a_name()) };
        let meta = match join.meta.as_ref().map(|meta| self.meta(meta)).transpose() {
            Ok(meta) => meta,
            Err(message) => return Ok(refused(ErrorCode::TooLarge, message)),
        };
        let (rooms, cseq) = (self.presence.rooms(), join.cseq);
        if rooms.is_here(&room) {
            // Kept until she is seen in the room, so that no other takes it meanwhile.
            let place = rooms.reserve(&room, me.cell.player());
            return self.join_with(me, now, Joining { room, meta, cseq }, place);
        }
        let judged =
            self.home.apply(&me.cell, now, |record, ctx| record.may_join(ctx, me.session, &room, cseq))?;
        let join = Joining { room, meta, cseq };
        if !judged.value {
            return self.join_in(me, now, join, true);
        }
        let player = me.cell.player().clone();
        Ok(Answer::Later(Waiting::Held(Box::new(Held::Join { player, join }))))
    }

    /// Enters a room in which a place is kept, or for which there is none.
    fn join_with(&self, me: &Attachment, now: Now, join: Joining, place: Result<Place, NoPlace>) -> Carried {
        if place.as_ref().err() == Some(&NoPlace::NoHome) {
            return Ok(no_home());
        }
        match (self.join_in(me, now, join, place.is_ok()), place) {
            (Err(HomeError::Refused(Refusal::RoomFull)), Err(NoPlace::TooManyRooms)) => {
                Err(HomeError::Overloaded)
            }
            (answer, _) => answer,
        }
    }

    fn join_in(&self, me: &Attachment, now: Now, join: Joining, has_place: bool) -> Carried {
        let Joining { room, meta, cseq } = join;
        let Applied { value: admission, stamp } = self.home.apply(&me.cell, now, |record, ctx| {
            record.join(ctx, me.session, Join { room: &room, meta, has_place, cseq })
        })?;
        let (rooms, player, session) = (self.presence.rooms(), me.cell.player(), me.session);
        let so_far = Roster {
            stamp: Some(wire_stamp(stamp)),
            dup: (admission == Admission::Repeat).then_some(true),
            prov: me.provisional(),
            ..Roster::default()
        };
        if !rooms.is_here(&room) {
            let (player, roster) = (player.clone(), Box::new(so_far));
            return Ok(Answer::Later(Waiting::Entered { room, player, session, roster }));
        }
        let page = rooms.enter(&room, player, session);
        let Roster { stamp, dup, prov, .. } = so_far;
        Ok(Answer::Ok(Body::Roster(Roster { stamp, dup, prov, ..rooms.wire_roster(&room, page) })))
    }

    /// Waits for what must be known of a room's home before the request is carried out.
    pub(super) async fn held(&self, held: Held) -> Again {
        let rooms = self.presence.rooms();
        match held {
            Held::Join { player, join } => {
                let place = rooms.keep_place(&join.room, &player).await;
                Again::Join(join, place)
            }
            Held::Say(saying) => {
                // Whether that was in vain is seen when it is said.
                let _ = rooms.seek(&saying.room).await;
                Again::Say(saying)
            }
        }
    }

    /// Carries out a request that was held.
    pub(in crate::session) fn go_on(&self, me: &Attachment, now: Now, again: Again) -> Answer {
        let carried = match again {
            Again::Join(join, place) => self.join_with(me, now, join, place),
            Again::Say(saying) => {
                self.say_in(me, now, &saying).map(|said| said.map_or_else(no_home, |said| changed(me, said)))
            }
        };
        answered(carried)
    }

    pub(super) fn room_leave(&self, me: &Attachment, now: Now, leave: &RoomLeave<'_>) -> Carried {
        let Ok(room) = RoomName::parse(leave.room.as_str()) else { return Ok(not_a_name()) };
        let applied = self
            .home
            .apply(&me.cell, now, |record, ctx| record.leave_room(ctx, me.session, &room, leave.cseq))?;
        Ok(changed(me, applied))
    }

    pub(super) fn room_meta(&self, me: &Attachment, now: Now, change: &RoomMeta<'_>) -> Carried {
        let Ok(room) = RoomName::parse(change.room.as_str()) else { return Ok(not_a_name()) };
        let meta = match self.meta(&change.meta) {
            Ok(meta) => meta,
            Err(message) => return Ok(refused(ErrorCode::TooLarge, message)),
        };
        let applied = self.home.apply(&me.cell, now, |record, ctx| {
            record.set_room_meta(ctx, me.session, &room, meta, change.cseq)
        })?;
        Ok(changed(me, applied))
    }

    pub(super) fn room_send(&self, me: &Attachment, now: Now, send: &RoomSend<'_>) -> Carried {
        let Ok(room) = RoomName::parse(send.room.as_str()) else { return Ok(not_a_name()) };
        let message = self.message_of(me, send.cseq, &send.data, Some(&room));
        let saying = Saying { room, message, cseq: send.cseq };
        Ok(match self.say_in(me, now, &saying)? {
            Some(said) => changed(me, said),
            None => Answer::Later(Waiting::Held(Box::new(Held::Say(saying)))),
        })
    }

    /// Says something in a room; `None` while nobody knows its home, and then nothing was done.
    fn say_in(
        &self,
        me: &Attachment,
        now: Now,
        saying: &Saying,
    ) -> Result<Option<Applied<Admission>>, HomeError> {
        let Saying { room, message, cseq } = saying;
        let (rooms, mut has_home) = (self.presence.rooms(), true);
        rooms.catch_up();
        let applied = self.home.apply(&me.cell, now, |record, ctx| {
            if record.may_speak(ctx, me.session, room, *cseq)? == Admission::New {
                // In line before the counter moves: what the room cannot take is refused, and uses no number.
                rooms.say(room, Arc::clone(message)).map_err(|why| {
                    has_home = why != NotSaid::NoHome;
                    Refusal::TooMuchTalk
                })?;
            }
            record.mark(ctx, me.session, *cseq)
        });
        if has_home { applied.map(Some) } else { Ok(None) }
    }

    pub(super) fn room_members(&self, me: &Attachment, now: Now, asked: &RoomMembers<'_>) -> Carried {
        let Ok(room) = RoomName::parse(asked.room.as_str()) else { return Ok(not_a_name()) };
        self.home.apply(&me.cell, now, |record, ctx| {
            record.touch_activity(ctx, me.session)?;
            if record.is_in_room(me.session, &room) || record.may_enter(ctx, me.session, &room) {
                Ok(())
            } else {
                Err(Refusal::Forbidden("only who may enter a room may look into it"))
            }
        })?;
        let limit = asked.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let (rooms, after) = (self.presence.rooms(), asked.cursor.as_ref().map(Text::as_str));
        if !rooms.is_here(&room) {
            let after = after.map(str::to_owned);
            return Ok(Answer::Later(Waiting::Members { room, after, limit }));
        }
        let page = rooms.page(&room, after, limit);
        Ok(Answer::Ok(Body::Roster(rooms.wire_roster(&room, page))))
    }

    fn meta(&self, meta: &BTreeMap<Text<'_>, Value>) -> Result<Meta, &'static str> {
        self.presence.rooms().packed_meta(meta)
    }
}

fn changed(me: &Attachment, applied: Applied<Admission>) -> Answer {
    Answer::Ok(Body::Changed(Changed {
        stamp: wire_stamp(applied.stamp),
        dup: (applied.value == Admission::Repeat).then_some(true),
        prov: me.provisional(),
        ..Changed::default()
    }))
}

/// A room whose home cannot be asked now: nothing was done.
pub(super) fn no_home() -> Answer {
    let body = ErrorBody::new(ErrorCode::NotHome, "the home of this room cannot be asked now");
    Answer::Error(Box::new(body.after(RETRY_AFTER_MS)))
}

fn not_a_name() -> Answer {
    refused(ErrorCode::BadRequest, "room: 1 to 64 bytes without control characters")
}

#[cfg(test)]
mod tests;
