//! What players say to each other, as `dispatch` carries it out: `send`, and the message that it becomes.

use std::sync::Arc;

use protocol::Value;
use protocol::codes::ErrorCode;
use protocol::reply::Sent;
use protocol::request::Send;

use super::{Carried, refused};
use crate::clock::Now;
use crate::home::HomeError;
use crate::home::record::{Admission, Record};
use crate::hub::{Push, PushKind};
use crate::ids::{PlayerId, RoomName};
use crate::session::answer::{Answer, Body, Waiting};
use crate::session::{Attachment, Sessions};
use crate::wire::RETRY_AFTER_MS;

impl Sessions {
    pub(super) fn send(&self, me: &Attachment, now: Now, send: &Send<'_>) -> Carried {
        if !self.settings.player_messages {
            return Ok(refused(ErrorCode::Forbidden, "players may not write to each other here"));
        }
        let Ok(player) = PlayerId::parse(send.player.as_str()) else {
            return Ok(refused(ErrorCode::BadRequest, "not a player id"));
        };
        let is_here = self.is_home_of(self.shard_of(&player));
        if !is_here && !self.presence.is_elsewhere(&player) {
            // Before it uses a number: nobody could be given it.
            return Err(HomeError::NotHome { retry_after_ms: RETRY_AFTER_MS });
        }
        let marked = self.home.apply(&me.cell, now, |record, ctx| record.mark(ctx, me.session, send.cseq))?;
        if marked.value == Admission::Repeat {
            return Ok(Answer::Ok(Body::Sent(Sent {
                delivered: 0,
                dup: Some(true),
                prov: me.provisional(),
            })));
        }
        let push = self.message_of(me, send.cseq, &send.data, None);
        let prov = me.provisional();
        Ok(match is_here.then(|| self.deliver(&player, &push)).flatten() {
            Some(delivered) => Answer::Ok(Body::Sent(Sent { delivered, dup: None, prov })),
            None => Answer::Later(Waiting::Carried { player, message: push, prov }),
        })
    }

    /// Puts a message into the mailboxes of a player whose home is here; `None` if it is on its way to or from another
    /// node, and not all of her mailboxes are here.
    fn deliver(&self, player: &PlayerId, push: &Arc<Push>) -> Option<u32> {
        let ids = |record: &Record| record.sessions.iter().map(|session| session.id).collect::<Vec<_>>();
        let sessions = self.home.find(player).and_then(|cell| cell.read(ids)).unwrap_or_default();
        let delivered = sessions.iter().filter(|session| self.hub.push(**session, push)).count();
        // What was put in before the home moved goes with it; a session without a mailbox has none anywhere.
        let are_all_here = !sessions.is_empty() && delivered == sessions.len();
        let is_told = are_all_here || self.home.has_all_of(self.shard_of(player));
        is_told.then(|| u32::try_from(delivered).unwrap_or(u32::MAX))
    }

    /// A message's id derives from (session, cseq), so that a repeat after a crash carries the same one.
    pub(super) fn message_of(
        &self,
        me: &Attachment,
        cseq: Option<u64>,
        data: &Value,
        room: Option<&RoomName>,
    ) -> Arc<Push> {
        let cseq = cseq.unwrap_or_else(rand::random);
        let named = [&me.session.as_bytes()[..], &cseq.to_be_bytes()].concat();
        let message = protocol::push::Message {
            id: format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&named)),
            data: data.clone(),
            player: Some(me.cell.player().as_str().to_owned()),
            room: room.map(|room| room.as_str().to_owned()),
            service: None,
        };
        let mut bytes = Vec::new();
        protocol::codec::encode_body(protocol::Encoding::MessagePack, &mut bytes, &message);
        Arc::new(Push::new(PushKind::Message, bytes.into()))
    }
}
