//! Rooms, as `dispatch` carries them out: the record says who is in, then the room is looked at or spoken in.

use std::collections::BTreeMap;

use protocol::codes::ErrorCode;
use protocol::reply::Changed;
use protocol::request::{RoomJoin, RoomLeave, RoomMembers, RoomMeta, RoomSend};
use protocol::{Text, Value};

use super::{Carried, refused};
use crate::clock::Now;
use crate::home::record::rooms::{Join, Meta};
use crate::home::record::{Admission, Refusal};
use crate::home::{Applied, HomeError};
use crate::ids::RoomName;
use crate::presence::NoPlace;
use crate::session::answer::{Answer, Body};
use crate::session::{Attachment, Sessions};
use crate::wire::wire_stamp;

impl Sessions {
    pub(super) fn room_join(&self, me: &Attachment, now: Now, join: &RoomJoin<'_>) -> Carried {
        let Ok(room) = RoomName::parse(join.room.as_str()) else { return Ok(not_a_name()) };
        let meta = match join.meta.as_ref().map(|meta| self.meta(meta)).transpose() {
            Ok(meta) => meta,
            Err(message) => return Ok(refused(ErrorCode::TooLarge, message)),
        };
        let rooms = self.presence.rooms();
        // Kept until she is seen in the room, so that no other takes it meanwhile.
        let place = rooms.reserve(&room, me.cell.player());
        let has_place = place.is_ok();
        let applied = self.home.apply(&me.cell, now, |record, ctx| {
            record.join(ctx, me.session, Join { room: &room, meta, has_place, cseq: join.cseq })
        });
        let Applied { value: admission, stamp } = match (applied, &place) {
            (Err(HomeError::Refused(Refusal::RoomFull)), Err(NoPlace::TooManyRooms)) => {
                return Err(HomeError::Overloaded);
            }
            (applied, _) => applied?,
        };
        let page = rooms.enter(&room, me.cell.player(), me.session);
        let mut roster = rooms.wire_roster(page);
        roster.stamp = Some(wire_stamp(stamp));
        roster.dup = (admission == Admission::Repeat).then_some(true);
        roster.prov = me.provisional();
        Ok(Answer::Ok(Body::Roster(roster)))
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
        let rooms = self.presence.rooms();
        rooms.catch_up();
        let applied = self.home.apply(&me.cell, now, |record, ctx| {
            if record.may_speak(ctx, me.session, &room, send.cseq)? == Admission::New {
                // In line before the counter moves: what the room cannot take is refused, and uses no number.
                rooms.say(&room, message).map_err(|_| Refusal::TooMuchTalk)?;
            }
            record.mark(ctx, me.session, send.cseq)
        })?;
        Ok(changed(me, applied))
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
        let rooms = self.presence.rooms();
        let page = rooms.page(&room, asked.cursor.as_ref().map(Text::as_str), limit);
        Ok(Answer::Ok(Body::Roster(rooms.wire_roster(page))))
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

fn not_a_name() -> Answer {
    refused(ErrorCode::BadRequest, "room: 1 to 64 bytes without control characters")
}

#[cfg(test)]
mod tests;
