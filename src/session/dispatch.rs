//! The table of commands: one arm an op. Called by `link` with a request that passed the machine. What needs the store
//! is answered later.

use std::sync::Arc;

use protocol::codes::ErrorCode;
use protocol::reply::{Changed, Empty, ErrorBody, Pong, Refreshed, Sent, StateGot};
use protocol::request::{
    Ack, PresenceSet, Request, Send, StateGet, StatePatch, Visibility as WireVisibility,
};
use protocol::{Text, Value};

use super::answer::{Answer, Body, Waiting};
use super::words::{
    applied_only, error_of, house_stamp, house_status, packed_activity, player_list, presences, read_value,
    rolled_back, wire_stamp, write_value,
};
use super::{Attachment, Sessions, TokenRefused};
use crate::clock::Now;
use crate::events::EndReason;
use crate::home::history::Verdict;
use crate::home::record::presence::PresenceChange;
use crate::home::record::state::Patch;
use crate::home::record::{Admission, Refusal, Visibility};
use crate::home::{Durability, HomeError, Lookup};
use crate::hub::{Mailbox, Push, PushKind};
use crate::ids::{PlayerId, Stamp};

type Carried = Result<Answer, HomeError>;

impl Sessions {
    /// Carries one request out.
    pub(super) fn dispatch(&self, me: &Attachment, now: Now, request: &Request<'_>) -> Answer {
        let carried = match request {
            Request::Ping(ping) => {
                if let Some(seen) = ping.seen {
                    me.mailbox.seen(seen);
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
            Request::RoomJoin(_)
            | Request::RoomLeave(_)
            | Request::RoomSend(_)
            | Request::RoomMembers(_)
            | Request::RoomMeta(_) => Ok(refused(ErrorCode::UnknownOp, "this server has no rooms")),
        };
        match carried {
            Ok(answer) => answer,
            Err(HomeError::Refused(Refusal::NoSession)) => Answer::Gone,
            Err(error) => Answer::Error(Box::new(error_of(&error, None))),
        }
    }

    fn logout(&self, me: &Attachment, now: Now) -> Carried {
        self.home.end(&me.cell, me.session, EndReason::Logout, now)?;
        Ok(Answer::Later(Waiting::Farewell(self.home.commit_soon(&me.cell))))
    }

    fn refresh(&self, me: &Attachment, now: Now, token: &str) -> Carried {
        match (self.token_check)(token, now) {
            Ok(token) if token.player != *me.cell.player() => {
                Ok(refused(ErrorCode::Unauthorized, "the token is another player's"))
            }
            Ok(token) => {
                let (expires_at, issued_at) = (token.expires_at_unix_ms, token.issued_at_unix_ms);
                self.home.apply(&me.cell, now, |record, ctx| {
                    record.refresh(ctx, me.session, expires_at, issued_at)
                })?;
                let expires_in_ms = expires_at.saturating_sub(now.unix_ms);
                Ok(Answer::Ok(Body::Refreshed(Refreshed { expires_in_ms })))
            }
            Err(TokenRefused::Invalid) => Ok(refused(ErrorCode::Unauthorized, "the token is not good")),
            Err(TokenRefused::Expired) => Ok(refused(ErrorCode::TokenExpired, "the token has expired")),
        }
    }

    fn state_get(&self, me: &Attachment, now: Now, get: &StateGet<'_>) -> Carried {
        let at_least = get.at_least.map(house_stamp);
        let applied = self.home.apply(&me.cell, now, |record, ctx| {
            record.touch_activity(ctx, me.session)?;
            let verdict = at_least.map(|claim| record.history.judge(record.stamp(), claim));
            let owned = |key: &str, value: &[u8]| (key.to_owned(), Box::<[u8]>::from(value));
            let state: Vec<(String, Box<[u8]>)> = match &get.keys {
                None => record.state.entries().map(|(key, value)| owned(key, value)).collect(),
                Some(keys) => {
                    let found = |key: &Text<'_>| Some(owned(key.as_str(), record.state.get(key.as_str())?));
                    keys.iter().filter_map(found).collect()
                }
            };
            Ok((verdict, state, record.state_stamp))
        })?;
        let (verdict, state, state_stamp) = applied.value;
        let stamp = wire_stamp(applied.stamp);
        let mut error = match verdict {
            None | Some(Verdict::Reached) => {
                let state = state.into_iter().map(|(key, value)| (key, read_value(&value))).collect();
                let body = StateGot { stamp, state, state_stamp: wire_stamp(state_stamp) };
                return Ok(Answer::Ok(Body::StateGot(body)));
            }
            Some(Verdict::Behind) => {
                ErrorBody::new(ErrorCode::Behind, "the record has not reached this stamp")
            }
            Some(Verdict::RolledBack(to)) => rolled_back(Some(wire_stamp(to))),
            Some(Verdict::Unknown) => rolled_back(None),
        };
        error.stamp = Some(stamp);
        Ok(Answer::Error(Box::new(error)))
    }

    fn state_patch(&self, me: &Attachment, now: Now, patch: &StatePatch<'_>) -> Carried {
        let house = Patch {
            set: patch.set.iter().flatten().map(|(key, value)| (key.as_str(), write_value(value))).collect(),
            unset: patch.unset.iter().flatten().map(Text::as_str).collect(),
            incr: patch.incr.iter().flatten().map(|(key, by)| (key.as_str(), *by)).collect(),
            if_state: patch.if_state.map(house_stamp),
        };
        let applied = self
            .home
            .apply(&me.cell, now, |record, ctx| record.patch(ctx, me.session, &house, patch.cseq))?;
        let patched = applied.value;
        let counted = patched.counted.into_iter().map(|(key, count)| (key.into(), Value::Int(count)));
        let changed = Changed {
            stamp: wire_stamp(applied.stamp),
            state_stamp: Some(wire_stamp(patched.state_stamp)),
            state: (!house.incr.is_empty()).then(|| counted.collect()),
            ..Changed::default()
        };
        Ok(self.acked(me, changed, patch.ack, patched.admission))
    }

    fn presence_set(&self, me: &Attachment, now: Now, set: &PresenceSet<'_>) -> Carried {
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

    /// The ack of a change: at once, or when the store has it.
    fn acked(&self, me: &Attachment, mut changed: Changed, ack: Option<Ack>, admission: Admission) -> Answer {
        let ack = ack.unwrap_or_default();
        changed.dup = (admission == Admission::Repeat).then_some(true);
        changed.prov = me.cell.shard().commits_fail().then_some(true);
        match ack {
            Ack::Applied => {
                changed.ack = (admission == Admission::New).then_some(Ack::Applied);
                Answer::Ok(Body::Changed(changed))
            }
            Ack::Durable | Ack::Replicated => {
                changed.ack = Some(ack);
                Answer::Later(Waiting::Durable { committed: self.home.commit_soon(&me.cell), changed, ack })
            }
        }
    }

    fn presence_get(&self, me: &Attachment, now: Now, players: &[Text<'_>]) -> Carried {
        let players = match player_list(players) {
            Ok(players) => players,
            Err(error) => return Ok(Answer::Error(error)),
        };
        self.home.apply(&me.cell, now, |record, ctx| record.touch_activity(ctx, me.session))?;
        Ok(self.looked_up(players, None))
    }

    fn watch(&self, me: &Attachment, now: Now, players: &[Text<'_>]) -> Carried {
        let players = match player_list(players) {
            Ok(players) => players,
            Err(error) => return Ok(Answer::Error(error)),
        };
        let players: Vec<PlayerId> =
            players.into_iter().map(|player| self.presence.interned(player)).collect();
        let applied =
            self.home.apply(&me.cell, now, |record, ctx| record.watch(ctx, me.session, &players))?;
        // Registered first, looked at second: no change falls between, and `ver` tells a repeat.
        for player in &players {
            self.presence.watch(player, &me.mailbox);
        }
        Ok(self.looked_up(players, Some((Arc::clone(&me.mailbox), applied.stamp))))
    }

    fn unwatch(&self, me: &Attachment, now: Now, players: &[Text<'_>]) -> Carried {
        let players = match player_list(players) {
            Ok(players) => players,
            Err(error) => return Ok(Answer::Error(error)),
        };
        self.home.apply(&me.cell, now, |record, ctx| record.unwatch(ctx, me.session, &players))?;
        for player in &players {
            self.presence.unwatch(player, me.session);
        }
        Ok(Answer::Ok(Body::Empty(Empty {})))
    }

    fn looked_up(&self, asked: Vec<PlayerId>, watcher: Option<(Arc<Mailbox>, Stamp)>) -> Answer {
        let (found, cold) = self.lookup_hot(&asked);
        if found.len() == asked.len() {
            let stamp = watcher.map(|(_, stamp)| stamp);
            Answer::Ok(Body::Presences(presences(&asked, &found, stamp)))
        } else {
            Answer::Later(Waiting::Lookup { asked, cold, found, watcher })
        }
    }

    fn send(&self, me: &Attachment, now: Now, send: &Send<'_>) -> Carried {
        if !self.settings.player_messages {
            return Ok(refused(ErrorCode::Forbidden, "players may not write to each other here"));
        }
        let Ok(player) = PlayerId::parse(send.player.as_str()) else {
            return Ok(refused(ErrorCode::BadRequest, "not a player id"));
        };
        let marked = self.home.apply(&me.cell, now, |record, ctx| record.mark(ctx, me.session, send.cseq))?;
        if marked.value == Admission::Repeat {
            return Ok(Answer::Ok(Body::Sent(Sent { delivered: 0, dup: Some(true) })));
        }
        let push = self.message_of(me, send);
        let sessions: Vec<_> = self
            .home
            .find(&player)
            .and_then(|cell| cell.read(|record| record.sessions.iter().map(|session| session.id).collect()))
            .unwrap_or_default();
        let delivered = sessions.into_iter().filter(|session| self.hub.push(*session, &push)).count();
        let delivered = u32::try_from(delivered).unwrap_or(u32::MAX);
        Ok(Answer::Ok(Body::Sent(Sent { delivered, dup: None })))
    }

    /// A message's id derives from (session, cseq), so that a repeat after a crash carries the same one.
    fn message_of(&self, me: &Attachment, send: &Send<'_>) -> Arc<Push> {
        let cseq = send.cseq.unwrap_or_else(rand::random);
        let named = [&me.session.as_bytes()[..], &cseq.to_be_bytes()].concat();
        let message = protocol::push::Message {
            id: format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&named)),
            data: send.data.clone(),
            player: Some(me.cell.player().as_str().to_owned()),
            room: None,
            service: None,
        };
        let mut bytes = Vec::new();
        protocol::codec::encode_body(protocol::Encoding::MessagePack, &mut bytes, &message);
        Arc::new(Push::new(PushKind::Message, bytes.into()))
    }

    /// Waits for what an answer waits for.
    pub(super) async fn settle(self: &Arc<Self>, waiting: Waiting) -> Answer {
        match waiting {
            Waiting::Durable { committed, changed, ack } => {
                let outcome = tokio::time::timeout(self.home.settings().durable_wait, committed).await;
                match (outcome, ack) {
                    (Ok(Ok(Durability::Committed)), Ack::Applied | Ack::Durable) => {
                        Answer::Ok(Body::Changed(changed))
                    }
                    (Ok(Ok(Durability::Committed)), Ack::Replicated) => Answer::Error(Box::new(
                        applied_only(&changed, "this store has no replica to wait for"),
                    )),
                    (Ok(Ok(Durability::Fenced) | Err(_)), _) => Answer::Gone,
                    (Err(_), _) => Answer::Error(Box::new(applied_only(
                        &changed,
                        "the store has not taken the change yet",
                    ))),
                }
            }
            Waiting::Lookup { asked, cold, mut found, watcher } => {
                for (player, lookup) in self.home.presence_cold(&cold).await {
                    if let Lookup::Known(view) = lookup {
                        found.insert(player, view);
                    }
                }
                let stamp = watcher.as_ref().map(|(_, stamp)| *stamp);
                let answer = presences(&asked, &found, stamp);
                if let Some((mailbox, _)) = watcher.filter(|_| !answer.unknown.is_empty()) {
                    self.follow(
                        mailbox,
                        asked.into_iter().filter(|player| !found.contains_key(player)).collect(),
                    );
                }
                Answer::Ok(Body::Presences(answer))
            }
            Waiting::Farewell(committed) => {
                match tokio::time::timeout(self.home.settings().durable_wait, committed).await {
                    Ok(_) => Answer::Logout,
                    Err(_) => {
                        let body = ErrorBody::new(
                            ErrorCode::StoreUnavailable,
                            "the store has not taken the logout yet",
                        );
                        Answer::Error(Box::new(ErrorBody { applied: Some(true), ..body }))
                    }
                }
            }
        }
    }
}

fn refused(code: ErrorCode, message: &str) -> Answer {
    Answer::Error(Box::new(ErrorBody::new(code, message)))
}
