//! One room on a node, as far as that node's own players are in it: what it says of them to the room's home, and the
//! mailboxes of their sessions with what each knows of the roster. A plain value that `room` keeps behind its lock;
//! takes no other lock than a mailbox's flags.

use std::collections::HashMap;
use std::sync::Arc;

use super::roster::Member;
use crate::hub::Mailbox;
use crate::ids::{Epoch, PlayerId, SessionId};

/// Under which tenure of the room's home a session knows the roster of: it knows it no longer when the home has moved, or
/// was out of reach for a moment. None is zero.
pub(super) type Tenure = u64;

/// A session that is told what happens in the room.
struct Receiver {
    mailbox: Arc<Mailbox>,
    /// Has seen the roster, so that a diff is enough; else a snapshot is owed.
    knows: Tenure,
}

/// What a node says of a player of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Says {
    pub(super) member: Member,
    /// The epoch of her record.
    pub(super) epoch: Epoch,
    /// How many sessions of hers are in.
    pub(super) sessions: u32,
}

struct Own {
    says: Says,
    receivers: Vec<Receiver>,
}

/// Who is to be told, by what they know.
#[derive(Default)]
pub(super) struct Audience {
    /// Who knows the roster.
    pub(super) told: Vec<Arc<Mailbox>>,
    /// Who did not, and gets a snapshot.
    pub(super) newcomers: Vec<Arc<Mailbox>>,
    /// Who does not, and waits for one: hears what is said, and no more.
    pub(super) waiting: Vec<Arc<Mailbox>>,
}

/// The node's own players in the room.
#[derive(Default)]
pub(super) struct Listeners {
    players: HashMap<PlayerId, Own, ahash::RandomState>,
}

impl Listeners {
    pub(super) fn is_empty(&self) -> bool {
        self.players.is_empty()
    }

    /// What is said of a player now, with the mailboxes of her sessions.
    pub(super) fn set(&mut self, player: &PlayerId, says: Says, mailboxes: Vec<Arc<Mailbox>>) {
        let before = self.players.remove(player).map(|own| own.receivers).unwrap_or_default();
        let knows = |mailbox: &Arc<Mailbox>| {
            let same = |receiver: &&Receiver| Arc::ptr_eq(&receiver.mailbox, mailbox);
            before.iter().find(same).map_or(0, |receiver| receiver.knows)
        };
        let receivers: Vec<Receiver> =
            mailboxes.into_iter().map(|mailbox| Receiver { knows: knows(&mailbox), mailbox }).collect();
        self.players.insert(player.clone(), Own { says, receivers });
    }

    /// The node says nothing more of a player.
    pub(super) fn remove(&mut self, player: &PlayerId) -> Option<Says> {
        self.players.remove(player).map(|own| own.says)
    }

    /// A session knows the roster from now on, or (zero) is owed a snapshot of it.
    pub(super) fn knows(&mut self, player: &PlayerId, session: SessionId, tenure: Tenure) {
        let receivers = self.players.get_mut(player).map(|own| &mut own.receivers).into_iter().flatten();
        for receiver in receivers.filter(|receiver| receiver.mailbox.session() == session) {
            receiver.knows = tenure;
        }
    }

    /// Whether somebody does not know the roster.
    pub(super) fn owes(&self, tenure: Tenure) -> bool {
        self.receivers().any(|receiver| receiver.knows != tenure)
    }

    /// Sorts all by what they know, and takes it that who gets a snapshot knows it. Those who know are asked for only
    /// where there is news.
    pub(super) fn audience(&mut self, tenure: Tenure, is_news: bool, has_snapshot: bool) -> Audience {
        let mut audience = Audience::default();
        for receiver in self.players.values_mut().flat_map(|own| &mut own.receivers) {
            let to = match receiver.knows == tenure {
                true if is_news => &mut audience.told,
                true => continue,
                false if has_snapshot => {
                    receiver.knows = tenure;
                    &mut audience.newcomers
                }
                false => &mut audience.waiting,
            };
            to.push(Arc::clone(&receiver.mailbox));
        }
        audience
    }

    fn receivers(&self) -> impl Iterator<Item = &Receiver> {
        self.players.values().flat_map(|own| &own.receivers)
    }
}
