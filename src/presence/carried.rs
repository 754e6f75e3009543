//! Messages to players whose home is another node: carried there by a question, and put into her mailboxes there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::peers::Peers;
use super::words::{self, MESSAGE_BYTES_MAX, Name, Question};
use crate::cluster::Topic;
use crate::hub::{Push, PushKind};
use crate::ids::PlayerId;

/// How long another node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// How often it is tried, and the pause between: a home that moves is told within it.
const TRIES_MAX: usize = 4;
const AGAIN: Duration = Duration::from_millis(250);

impl Peers {
    /// Brings a message, as MessagePack, to the home of a player; to how many of her sessions. `None`: nobody knows
    /// whether it has arrived. It may arrive twice: who receives it tells by its id.
    pub(super) async fn carry(&self, player: &PlayerId, body: &Bytes) -> Option<u32> {
        let shard = self.homes.shard_of(player);
        let question = Question::Message { player: Name(player.clone()), body: body.clone() };
        let question = words::write(&question);
        for turn in 0..TRIES_MAX {
            if turn > 0 {
                tokio::time::sleep(AGAIN).await;
            }
            let Some(home) = self.home_of(shard) else {
                // Her home may be this node by now.
                match self.deliver(player, body) {
                    None => continue,
                    delivered => return delivered,
                }
            };
            match self.links.call(&home, Topic::Presence, question.clone(), ANSWER_WITHIN).await {
                Ok(answer) => return words::read(&answer),
                Err(error) => tracing::debug!(operation = "carry", %home, status = %error),
            }
        }
        None
    }

    /// Puts a message into the mailboxes of a player whose home is here; `None` if it is not.
    pub(super) fn deliver(&self, player: &PlayerId, body: &Bytes) -> Option<u32> {
        let sessions = self.homes.sessions(player)?;
        if body.len() > MESSAGE_BYTES_MAX {
            return None;
        }
        let push = Arc::new(Push::new(PushKind::Message, body.clone()));
        let delivered = sessions.iter().filter(|session| self.hub.push(**session, &push)).count();
        // A home that has moved meanwhile took along what was in the mailboxes, and nothing that came later. One that went
        // between two looks has no sessions to show.
        let are_all_here = !sessions.is_empty() && delivered == sessions.len();
        let is_told = are_all_here || self.homes.sessions(player).is_some();
        is_told.then(|| u32::try_from(delivered).unwrap_or(u32::MAX))
    }
}
