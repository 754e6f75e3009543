//! One room at its home: the roster, and which node says of each member that she is in; places kept for those who are
//! about to enter; what is to be said. A plain value that `room` keeps behind its lock. Guesses nothing: a member is
//! one as long as nobody who may say so says that she is not.

use std::collections::VecDeque;
use std::sync::Arc;

use super::listeners::Says;
use super::roster::{Diff, Page, Roster};
use crate::hub::Push;
use crate::ids::{Epoch, Owner, PlayerId, Stamp};

/// What is noted of a member: who says that she is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) node: Owner,
    /// The epoch of her record there: what another says of a lower one is old.
    pub(super) epoch: Epoch,
    /// How many sessions of hers are in.
    pub(super) sessions: u32,
}

/// A room at its home.
pub(super) struct Seat {
    roster: Roster<Claim>,
    sessions: usize,
    /// Places kept for those who are about to enter.
    reserved: Vec<PlayerId>,
    messages: VecDeque<Arc<Push>>,
}

impl Seat {
    pub(super) const fn new(floor: Stamp, changes_max: usize) -> Self {
        Self {
            roster: Roster::new(floor, changes_max),
            sessions: 0,
            reserved: Vec::new(),
            messages: VecDeque::new(),
        }
    }

    /// Whether nobody is in, and nobody about to be.
    pub(super) fn is_empty(&self) -> bool {
        self.roster.count() == 0 && self.reserved.is_empty()
    }

    pub(super) const fn ver(&self) -> Stamp {
        self.roster.ver()
    }

    pub(super) fn count(&self) -> usize {
        self.roster.count()
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

    /// A node says that a player is in, and how she looks. What another says who has her by a newer epoch stands.
    pub(super) fn claim(&mut self, player: &PlayerId, node: &Owner, says: Says, epoch: Epoch) {
        let old = self.roster.note_of(player);
        if old.is_some_and(|old| old.epoch > says.epoch) {
            return;
        }
        let claim = Claim { node: node.clone(), epoch: says.epoch, sessions: says.sessions };
        self.sessions += says.sessions as usize;
        if let Some(old) = self.roster.set(player, says.member, claim, epoch) {
            self.sessions -= old.sessions as usize;
        }
    }

    /// A node says that a player whose record it has by this epoch is not in.
    pub(super) fn leave(&mut self, player: &PlayerId, said_by: Epoch, epoch: Epoch) {
        if self.roster.note_of(player).is_some_and(|claim| claim.epoch <= said_by) {
            self.remove(player, epoch);
        }
    }

    fn remove(&mut self, player: &PlayerId, epoch: Epoch) {
        if let Some(claim) = self.roster.remove(player, epoch) {
            self.sessions -= claim.sessions as usize;
        }
    }

    pub(super) fn page(&mut self, after: Option<&str>, limit: usize) -> Page {
        self.roster.page(after, limit)
    }

    /// To how many sessions a message goes.
    pub(super) const fn sessions(&self) -> usize {
        self.sessions
    }

    /// Puts a message in line, if there is room for it.
    pub(super) fn speak(&mut self, message: Arc<Push>, waiting_max: usize) -> bool {
        let has_place = self.messages.len() < waiting_max;
        if has_place {
            self.messages.push_back(message);
        }
        has_place
    }

    /// Takes what has changed since the last time.
    pub(super) fn diff(&mut self) -> Option<Diff> {
        self.roster.diff()
    }

    /// Takes what is to be said.
    pub(super) fn messages(&mut self) -> VecDeque<Arc<Push>> {
        std::mem::take(&mut self.messages)
    }
}
