//! What a session shows and whom it watches, as `dispatch` carries it out.

use std::sync::Arc;

use protocol::Text;
use protocol::codes::ErrorCode;
use protocol::reply::{Changed, Empty};
use protocol::request::{PresenceSet, Visibility as WireVisibility};

use super::{Carried, refused};
use crate::clock::Now;
use crate::home::record::Visibility;
use crate::home::record::presence::PresenceChange;
use crate::hub::Mailbox;
use crate::ids::{PlayerId, Stamp};
use crate::session::answer::{Answer, Body, Waiting};
use crate::session::words::{house_status, packed_activity, player_list, presences};
use crate::session::{Attachment, Sessions};
use crate::wire::wire_stamp;

impl Sessions {
    pub(super) fn presence_set(&self, me: &Attachment, now: Now, set: &PresenceSet<'_>) -> Carried {
        let status = match house_status(set.status) {
            Some(status) => status,
            None => return Ok(refused(ErrorCode::BadRequest, "only the server says offline")),
        };
        let activity = match &set.activity {
            None => None,
            Some(activity) => match packed_activity(activity) {
                Ok(packed) => Some(packed),
                Err(message) => return Ok(refused(ErrorCode::TooLarge, message)),
            },
        };
        let visibility = set.visibility.map(|visibility| match visibility {
            WireVisibility::Full => Visibility::Full,
            WireVisibility::Status => Visibility::Status,
            WireVisibility::Hidden => Visibility::Hidden,
        });
        let change = PresenceChange { status, activity, visibility };
        let applied = self
            .home
            .apply(&me.cell, now, |record, ctx| record.set_presence(ctx, me.session, change, set.cseq))?;
        let changed = Changed { stamp: wire_stamp(applied.stamp), ..Changed::default() };
        Ok(self.acked(me, changed, set.ack, applied.value))
    }

    pub(super) fn presence_get(&self, me: &Attachment, now: Now, players: &[Text<'_>]) -> Carried {
        let players = match player_list(players) {
            Ok(players) => players,
            Err(error) => return Ok(Answer::Error(error)),
        };
        self.home.apply(&me.cell, now, |record, ctx| record.touch_activity(ctx, me.session))?;
        Ok(self.looked_up(players, None))
    }

    pub(super) fn watch(&self, me: &Attachment, now: Now, players: &[Text<'_>]) -> Carried {
        let players = match player_list(players) {
            Ok(players) => players,
            Err(error) => return Ok(Answer::Error(error)),
        };
        let players: Vec<PlayerId> =
            players.into_iter().map(|player| self.presence.interned(player)).collect();
        // Registered with the record's change, in one step: a service may be changing the same list. Looked at after
        // that: no change falls between, and `ver` tells a repeat.
        let applied = self.home.apply(&me.cell, now, |record, ctx| {
            record.watch(ctx, me.session, &players)?;
            players.iter().for_each(|player| self.presence.watch(player, &me.mailbox));
            Ok(())
        })?;
        Ok(self.looked_up(players, Some((Arc::clone(&me.mailbox), applied.stamp))))
    }

    pub(super) fn unwatch(&self, me: &Attachment, now: Now, players: &[Text<'_>]) -> Carried {
        let players = match player_list(players) {
            Ok(players) => players,
            Err(error) => return Ok(Answer::Error(error)),
        };
        self.home.apply(&me.cell, now, |record, ctx| {
            record.unwatch(ctx, me.session, &players)?;
            players.iter().for_each(|player| self.presence.unwatch(player, me.session));
            Ok(())
        })?;
        Ok(Answer::Ok(Body::Empty(Empty {})))
    }

    fn looked_up(&self, asked: Vec<PlayerId>, watcher: Option<(Arc<Mailbox>, Stamp)>) -> Answer {
        let (found, absent) = self.lookup_hot(&asked);
        if found.len() == asked.len() {
            let stamp = watcher.map(|(_, stamp)| stamp);
            if stamp.is_some() {
                self.note_looks(&found);
            }
            Answer::Ok(Body::Presences(presences(&asked, &found, stamp)))
        } else {
            Answer::Later(Waiting::Lookup { asked, absent, found, watcher })
        }
    }
}
