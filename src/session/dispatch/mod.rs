//! The table of commands: one arm an op, carried out in this folder's files, one a noun. Called by `link` with a
//! request that passed the machine. What needs the store is answered later.

mod messages;
mod presence;
mod rooms;
mod settle;
mod state;

use std::sync::Arc;

use protocol::codes::ErrorCode;
use protocol::reply::{Changed, ErrorBody, Pong, Refreshed};
use protocol::request::{Ack, Request};

use super::answer::{Answer, Body, Waiting};
use super::words::applied_only;
use super::{Attachment, Sessions, TokenRefused, Vouched};
use crate::clock::Now;
use crate::events::EndReason;
use crate::home::HomeError;
use crate::home::record::{Admission, Refusal};
use crate::wire::error_of;

type Carried = Result<Answer, HomeError>;

impl Sessions {
    /// Carries one request out.
    pub(in crate::session) fn dispatch(&self, me: &Attachment, now: Now, request: &Request<'_>) -> Answer {
        let carried = match request {
            Request::Ping(ping) => {
                if let Some(seen) = ping.seen {
                    me.mailbox.seen(seen);
                    let kept = me.mailbox.take_seen();
                    if !kept.is_empty() {
                        self.home.messages_seen(me.cell.player(), kept);
                    }
                }
                Ok(Answer::Ok(Body::Pong(Pong { t: ping.t.clone(), now_ms: now.unix_ms })))
            }
            Request::Logout => self.logout(me, now),
            Request::Refresh(refresh) => self.refresh(me, now, refresh.token.as_str()),
            Request::StateGet(get) => self.state_get(me, now, get),
            Request::StatePatch(patch) => self.state_patch(me, now, patch),
            Request::PresenceSet(set) => self.presence_set(me, now, set),
            Request::PresenceGet(players) => self.presence_get(me, now, &players.players),
            Request::Watch(players) => self.watch(me, now, &players.players),
            Request::Unwatch(players) => self.unwatch(me, now, &players.players),
            Request::Send(send) => self.send(me, now, send),
            Request::Login(_) | Request::Resume(_) => {
                Ok(refused(ErrorCode::AlreadyLoggedIn, "this link has its session already"))
            }
            Request::RoomJoin(join) => self.room_join(me, now, join),
            Request::RoomLeave(leave) => self.room_leave(me, now, leave),
            Request::RoomSend(send) => self.room_send(me, now, send),
            Request::RoomMembers(asked) => self.room_members(me, now, asked),
            Request::RoomMeta(change) => self.room_meta(me, now, change),
        };
        answered(carried)
    }

    fn logout(&self, me: &Attachment, now: Now) -> Carried {
        self.home.end(&me.cell, me.session, EndReason::Logout, now)?;
        if me.cell.shard().is_local() {
            let body = ErrorBody::new(ErrorCode::StoreUnavailable, "the store has not taken the logout yet");
            return Ok(Answer::Error(Box::new(ErrorBody { applied: Some(true), ..body })));
        }
        Ok(Answer::Later(Waiting::Farewell(self.home.commit_soon(&me.cell))))
    }

    fn refresh(&self, me: &Attachment, now: Now, token: &str) -> Carried {
        match (self.token_check)(token, now) {
            Ok(token) if token.player != *me.cell.player() => {
                Ok(refused(ErrorCode::Unauthorized, "the token is another player's"))
            }
            Ok(Vouched { expires_at_unix_ms, issued_at_unix_ms, rooms, .. }) => {
                self.home.apply(&me.cell, now, |record, ctx| {
                    record.refresh(ctx, me.session, expires_at_unix_ms, issued_at_unix_ms, rooms)
                })?;
                let expires_in_ms = expires_at_unix_ms.saturating_sub(now.unix_ms);
                Ok(Answer::Ok(Body::Refreshed(Refreshed { expires_in_ms })))
            }
            Err(TokenRefused::Invalid) => Ok(refused(ErrorCode::Unauthorized, "the token is not good")),
            Err(TokenRefused::Expired) => Ok(refused(ErrorCode::TokenExpired, "the token has expired")),
        }
    }

    /// The ack of a change: at once, or when the store has it.
    fn acked(&self, me: &Attachment, mut changed: Changed, ack: Option<Ack>, admission: Admission) -> Answer {
        let ack = ack.unwrap_or_default();
        changed.dup = (admission == Admission::Repeat).then_some(true);
        changed.prov = me.provisional();
        match ack {
            Ack::Applied => {
                changed.ack = (admission == Admission::New).then_some(Ack::Applied);
                Answer::Ok(Body::Changed(changed))
            }
            // It has been away for so long that nothing would come of waiting.
            Ack::Durable | Ack::Replicated if me.cell.shard().is_local() => {
                Answer::Error(Box::new(applied_only(&changed, me.cell.shard().not_stored())))
            }
            Ack::Durable | Ack::Replicated => {
                changed.ack = Some(ack);
                let (cell, committed) = (Arc::clone(&me.cell), self.home.commit_soon(&me.cell));
                Answer::Later(Waiting::Durable { cell, committed, changed, ack })
            }
        }
    }
}

fn answered(carried: Carried) -> Answer {
    match carried {
        Ok(answer) => answer,
        Err(HomeError::Refused(Refusal::NoSession)) => Answer::Gone,
        Err(error) => Answer::Error(Box::new(error_of(&error))),
    }
}

fn refused(code: ErrorCode, message: &str) -> Answer {
    Answer::Error(Box::new(ErrorBody::new(code, message)))
}
