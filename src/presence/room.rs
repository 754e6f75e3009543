//! One room: its roster, the mailboxes of its members' sessions, and what waits to be told. A plain value that
//! `rooms` keeps behind a lock; it never pushes anything itself, and takes no other lock than a mailbox's flags.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::roster::{Diff, Member, Page, Roster};
use crate::hub::{Mailbox, Push};
use crate::ids::{Epoch, PlayerId, SessionId, Stamp};

/// A session that is told what happens in the room.
struct Receiver {
    mailbox: Arc<Mailbox>,
    /// Has seen the roster, so that a diff is enough; else a snapshot is owed.
    knows: bool,
}

/// What is to be told at one moment, and to whom.
pub(super) struct Turn {
    /// For those who know the roster.
    pub(super) diff: Option<Diff>,
    /// For those who do not.
    pub(super) snapshot: Option<Page>,
    /// For everybody, behind the other two.
    pub(super) messages: VecDeque<Arc<Push>>,
    /// Who knows the roster.
    pub(super) told: Vec<Arc<Mailbox>>,
    /// Who does not.
    pub(super) newcomers: Vec<Arc<Mailbox>>,
}

/// A room.
pub(super) struct Room {
    roster: Roster,
    /// By player; one without a session here has no entry.
    receivers: HashMap<PlayerId, Vec<Receiver>, ahash::RandomState>,
    /// Places kept for those who are about to enter.
    reserved: Vec<PlayerId>,
    messages: VecDeque<Arc<Push>>,
    /// Out of the map: whoever holds it must look again.
    pub(super) gone: bool,
}

impl Room {
    pub(super) fn new(floor: Stamp, changes_max: usize) -> Self {
        Self {
            roster: Roster::new(floor, changes_max),
            receivers: HashMap::default(),
            reserved: Vec::new(),
            messages: VecDeque::new(),
            gone: false,
        }
    }

    /// Whether nobody is in, and nobody about to be.
    pub(super) fn is_empty(&self) -> bool {
        self.roster.count() == 0 && self.reserved.is_empty()
    }

    pub(super) const fn ver(&self) -> Stamp {
        self.roster.ver()
    }

    pub(super) fn has(&self, player: &PlayerId) -> bool {
        self.roster.has(player)
    }

    /// Keeps a place for one who is about to enter, if there is one.
    pub(super) fn reserve(&mut self, player: &PlayerId, members_max: usize) -> bool {
        let coming = self.reserved.iter().filter(|coming| !self.roster.has(coming)).count();
        let has_place = self.roster.has(player) || self.roster.count() + coming < members_max;
        if has_place {
            self.reserved.push(player.clone());
        }
        has_place
    }

    /// She has entered, or has not: the place is no longer kept.
    pub(super) fn release(&mut self, player: &PlayerId) {
        if let Some(at) = self.reserved.iter().position(|coming| coming == player) {
            self.reserved.swap_remove(at);
        }
    }

    /// A member as she is now, and the mailboxes of her sessions in the room.
    pub(super) fn set(
        &mut self,
        player: &PlayerId,
        member: Member,
        mailboxes: Vec<Arc<Mailbox>>,
        epoch: Epoch,
    ) {
        self.roster.set(player, member, epoch);
        let before = self.receivers.remove(player).unwrap_or_default();
        let knows = |mailbox: &Arc<Mailbox>| {
            before.iter().any(|receiver| receiver.knows && Arc::ptr_eq(&receiver.mailbox, mailbox))
        };
        let receivers: Vec<Receiver> =
            mailboxes.into_iter().map(|mailbox| Receiver { knows: knows(&mailbox), mailbox }).collect();
        if !receivers.is_empty() {
            self.receivers.insert(player.clone(), receivers);
        }
    }

    /// Somebody is no member any more.
    pub(super) fn remove(&mut self, player: &PlayerId, epoch: Epoch) {
        self.roster.remove(player, epoch);
        self.receivers.remove(player);
    }

    /// A session knows the roster from now on, or is owed a snapshot of it.
    pub(super) fn knows(&mut self, player: &PlayerId, session: SessionId, knows: bool) {
        let receivers = self.receivers.get_mut(player).into_iter().flatten();
        for receiver in receivers.filter(|receiver| receiver.mailbox.session() == session) {
            receiver.knows = knows;
        }
    }

    pub(super) fn page(&mut self, after: Option<&str>, limit: usize) -> Page {
        self.roster.page(after, limit)
    }

    /// Puts a message in line, if there is room for it.
    pub(super) fn speak(&mut self, message: Arc<Push>, waiting_max: usize) -> bool {
        let has_place = self.messages.len() < waiting_max;
        if has_place {
            self.messages.push_back(message);
        }
        has_place
    }

    /// To how many sessions a message goes.
    pub(super) fn listeners(&self) -> usize {
        self.receivers.values().map(Vec::len).sum()
    }

    /// Takes what is to be told. `page_max` bounds a snapshot.
    pub(super) fn turn(&mut self, page_max: usize) -> Turn {
        let (diff, messages) = (self.roster.diff(), std::mem::take(&mut self.messages));
        let (mut told, mut newcomers) = (Vec::new(), Vec::new());
        let is_news = diff.is_some() || !messages.is_empty();
        for receiver in self.receivers.values_mut().flatten() {
            if !std::mem::replace(&mut receiver.knows, true) {
                newcomers.push(Arc::clone(&receiver.mailbox));
            } else if is_news {
                told.push(Arc::clone(&receiver.mailbox));
            }
        }
        let snapshot = (!newcomers.is_empty()).then(|| self.roster.page(None, page_max));
        Turn { diff, snapshot, messages, told, newcomers }
    }
}
