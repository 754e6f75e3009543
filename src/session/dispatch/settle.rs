//! Answers that had to wait: for a commit, for players whom the store or another node must be asked for, or for a
//! message to arrive there. Called by `link`.

use std::sync::Arc;

use protocol::codes::ErrorCode;
use protocol::reply::{ErrorBody, Roster, Sent};
use protocol::request::Ack;

use super::rooms::no_home;
use crate::home::Stored;
use crate::presence::NoHome;
use crate::session::Sessions;
use crate::session::answer::{Answer, Body, Waiting};
use crate::session::words::{applied_only, presences};
use crate::wire::{RETRY_AFTER_MS, house_stamp};

impl Sessions {
    /// Waits for what an answer waits for.
    pub(in crate::session) async fn settle(self: &Arc<Self>, waiting: Waiting) -> Answer {
        match waiting {
            Waiting::Durable { cell, committed, mut changed, ack } => {
                let stored = self.home.until_stored(&cell, committed).await;
                // Whatever was the matter when it was asked: the store has it.
                if stored == Stored::Committed {
                    changed.prov = None;
                }
                match stored {
                    Stored::Committed if ack == Ack::Replicated => {
                        match self.home.replicated(&cell, house_stamp(changed.stamp)).await {
                            Ok(()) => Answer::Ok(Body::Changed(changed)),
                            Err(error) => Answer::Error(Box::new(applied_only(&changed, &error.to_string()))),
                        }
                    }
                    Stored::Committed => Answer::Ok(Body::Changed(changed)),
                    Stored::Fenced => Answer::Gone,
                    Stored::Late => {
                        Answer::Error(Box::new(applied_only(&changed, cell.shard().not_stored())))
                    }
                }
            }
            Waiting::Lookup { asked, absent, mut found, watcher } => {
                self.lookup_absent(absent, &mut found).await;
                if watcher.is_some() {
                    self.note_looks(&found);
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
            Waiting::Carried { player, message, prov } => {
                match self.presence.carry(&player, &message).await {
                    Some(delivered) => Answer::Ok(Body::Sent(Sent { delivered, dup: None, prov })),
                    None => {
                        let body = ErrorBody::new(
                            ErrorCode::NotHome,
                            "her node does not say whether it has arrived",
                        );
                        Answer::Error(Box::new(ErrorBody {
                            applied: Some(true),
                            ..body.after(RETRY_AFTER_MS)
                        }))
                    }
                }
            }
            Waiting::Held(held) => Answer::Again(Box::new(self.held(*held).await)),
            Waiting::Entered { room, player, session, roster } => {
                match self.presence.rooms().enter_elsewhere(&room, &player, session).await {
                    Ok(told) => {
                        let Roster { stamp, dup, prov, .. } = *roster;
                        Answer::Ok(Body::Roster(Roster { stamp, dup, prov, ..told }))
                    }
                    Err(NoHome) => {
                        let body = ErrorBody::new(
                            ErrorCode::NotHome,
                            "the room's home does not tell who is in; it follows",
                        );
                        Answer::Error(Box::new(ErrorBody {
                            applied: Some(true),
                            ..body.after(RETRY_AFTER_MS)
                        }))
                    }
                }
            }
            Waiting::Members { room, after, limit } => {
                match self.presence.rooms().look_at(&room, after.as_deref(), limit).await {
                    Ok(roster) => Answer::Ok(Body::Roster(roster)),
                    Err(NoHome) => no_home(),
                }
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
