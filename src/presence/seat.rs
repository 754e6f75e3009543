//! One room at its home: the roster, and which node says of each member that she is in; places kept for those who are
//! about to enter; what is to be said. A plain value that `room` keeps behind its lock. Guesses nothing: a member is
//! one as long as nobody who may say so says that she is not.

use std::collections::VecDeque;
use std::sync::Arc;

use super::listeners::Says;
use super::roster::{Diff, Page, Roster};
use crate::hub::Push;
use crate::ids::{Epoch, Owner, PlayerId, Stamp};

/// Messages of another node that wait, at most: how many may, that node knows, and no setting allows more.
const SAID_MAX: u32 = 65_536;

/// What is noted of a member: who says that she is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) node: Owner,
    /// The epoch of her record there: what another says of a lower one is old.
    pub(super) epoch: Epoch,
    /// In which of that node's tellings: it grows each time that the node tells all anew.
    pub(super) telling: u64,
    /// How many sessions of hers are in.
    pub(super) sessions: u32,
    /// Stands for what was said of her, where nodes compare.
    pub(super) sum: u64,
}

/// Another says of the member what is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overtaken;

/// A node whose players are members, or which waits for a snapshot: it may have told of its players before or after
/// others did, and asks once.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    node: Owner,
    members: usize,
    /// Some of its sessions do not know the roster.
    owed: bool,
    /// It has had no members until now: what was told meanwhile it has not heard.
    is_new: bool,
}

/// A node that is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hearer {
    pub(super) node: Owner,
    /// And with a snapshot.
    pub(super) owed: bool,
}

/// A room at its home.
pub(super) struct Seat {
    roster: Roster<Claim>,
    sessions: usize,
    nodes: Vec<Node>,
    /// Places kept for those who are about to enter, each with its number.
    reserved: Vec<(u64, PlayerId)>,
    /// And whether it was said by this node's own.
    messages: VecDeque<(Arc<Push>, bool)>,
    /// How many of them come from which other node.
    said: Vec<(Owner, u32)>,
}

impl Seat {
    pub(super) const fn new(floor: Stamp, changes_max: usize) -> Self {
        Self {
            roster: Roster::new(floor, changes_max),
            sessions: 0,
            nodes: Vec::new(),
            reserved: Vec::new(),
            messages: VecDeque::new(),
            said: Vec::new(),
        }
    }

    /// Whether nobody is in, and nobody about to be, and nothing waits to be said.
    pub(super) fn is_empty(&self) -> bool {
        self.roster.count() == 0 && self.reserved.is_empty() && self.messages.is_empty()
    }

    pub(super) const fn ver(&self) -> Stamp {
        self.roster.ver()
    }

    /// Where the roster stood that was told last.
    pub(super) const fn told_ver(&self) -> Stamp {
        self.roster.told_ver()
    }

    pub(super) fn count(&self) -> usize {
        self.roster.count()
    }

    /// The room is held under another epoch: its counter moves, though nothing else may have.
    pub(super) fn lift(&mut self, epoch: Epoch) {
        self.roster.lift(epoch);
    }

    /// Keeps a place for one who is about to enter, if there is one.
    pub(super) fn reserve(&mut self, player: &PlayerId, number: u64, members_max: usize) -> bool {
        let coming = self.reserved.iter().filter(|(_, coming)| !self.roster.has(coming)).count();
        let has_place = self.roster.has(player) || self.roster.count() + coming < members_max;
        if has_place {
            self.reserved.push((number, player.clone()));
        }
        has_place
    }

    /// She has entered, or has not: the place is no longer kept.
    pub(super) fn release(&mut self, number: u64) {
        self.reserved.retain(|(kept, _)| *kept != number);
    }

    /// A node says that a player is in, and how she looks; what was said of her before.
    pub(super) fn claim(
        &mut self,
        player: &PlayerId,
        says: Says,
        (node, telling, sum): (&Owner, u64, u64),
        epoch: Epoch,
    ) -> Result<Option<Claim>, Overtaken> {
        if self.roster.note_of(player).is_some_and(|old| old.epoch > says.epoch) {
            return Err(Overtaken);
        }
        let claim = Claim { node: node.clone(), epoch: says.epoch, telling, sessions: says.sessions, sum };
        self.sessions += says.sessions as usize;
        // What it asked of a room that was not there yet, it has asked in vain.
        let is_first = self.nodes.is_empty();
        if let Some(present) = self.node(node) {
            present.owed |= is_first;
            present.is_new |= present.members == 0;
            present.members += 1;
        }
        let old = self.roster.set(player, says.member, claim, epoch);
        old.iter().for_each(|old| self.forget(old));
        Ok(old)
    }

    /// A node says that a player whose record it has by this epoch is not in; what was said of her.
    pub(super) fn leave(&mut self, player: &PlayerId, said_by: Epoch, epoch: Epoch) -> Option<Claim> {
        let is_new = self.roster.note_of(player).is_some_and(|claim| claim.epoch <= said_by);
        is_new.then(|| self.remove(player, epoch)).flatten()
    }

    /// Her record has gone from this node: she stays until the next home says otherwise.
    pub(super) fn orphan(&mut self, player: &PlayerId, me: &Owner) {
        if let Some(claim) = self.roster.note_of_mut(player).filter(|claim| claim.node == *me) {
            claim.telling = 0;
        }
    }

    /// Takes those out of whom this is so; what was said of them.
    pub(super) fn sweep(&mut self, epoch: Epoch, is_gone: impl Fn(&PlayerId, &Claim) -> bool) -> Vec<Claim> {
        let notes = self.roster.notes();
        let gone: Vec<_> = notes
            .filter(|(player, claim)| is_gone(player, claim))
            .map(|(player, _)| player.clone())
            .collect();
        gone.iter().filter_map(|player| self.remove(player, epoch)).collect()
    }

    fn remove(&mut self, player: &PlayerId, epoch: Epoch) -> Option<Claim> {
        let claim = self.roster.remove(player, epoch)?;
        self.forget(&claim);
        Some(claim)
    }

    fn forget(&mut self, claim: &Claim) {
        self.sessions -= claim.sessions as usize;
        if let Some(at) = self.nodes.iter().position(|present| present.node == claim.node)
            && let Some(present) = self.nodes.get_mut(at)
        {
            present.members -= 1;
            if present.members == 0 && !present.owed {
                self.nodes.swap_remove(at);
            }
        }
    }

    /// A node's entry, made if there is none.
    fn node(&mut self, node: &Owner) -> Option<&mut Node> {
        let at = self.nodes.iter().position(|present| present.node == *node).unwrap_or_else(|| {
            self.nodes.push(Node { node: node.clone(), members: 0, owed: false, is_new: false });
            self.nodes.len() - 1
        });
        self.nodes.get_mut(at)
    }

    pub(super) fn page(&mut self, after: Option<&str>, limit: usize) -> Page {
        self.roster.page(after, limit)
    }

    /// To how many sessions a message goes.
    pub(super) const fn sessions(&self) -> usize {
        self.sessions
    }

    /// Puts a message of this node in line, if there is room for it.
    pub(super) fn speak(&mut self, message: Arc<Push>, waiting_max: usize) -> bool {
        let of_others: u32 = self.said.iter().map(|(_, count)| count).sum();
        let has_place = self.messages.len() - (of_others as usize) < waiting_max;
        if has_place {
            self.messages.push_back((message, true));
        }
        has_place
    }

    /// The same of another node, which knows how much may wait.
    pub(super) fn speak_for(&mut self, node: &Owner, message: Arc<Push>) -> bool {
        let at = self.said.iter().position(|(said, _)| said == node).unwrap_or_else(|| {
            self.said.push((node.clone(), 0));
            self.said.len() - 1
        });
        let Some((_, count)) = self.said.get_mut(at).filter(|(_, count)| *count < SAID_MAX) else {
            return false;
        };
        *count += 1;
        self.messages.push_back((message, false));
        true
    }

    /// A node says that sessions of its players do not know the roster.
    pub(super) fn owe(&mut self, node: &Owner) {
        if let Some(present) = self.node(node) {
            present.owed = true;
        }
    }

    /// Takes what has changed since the last time.
    pub(super) fn diff(&mut self) -> Option<Diff> {
        self.roster.diff()
    }

    /// Takes what is to be said, and how much of it was said by which other node.
    pub(super) fn messages(&mut self) -> (VecDeque<Arc<Push>>, Vec<(Owner, u32)>) {
        let messages = self.messages.drain(..).map(|(message, _)| message).collect();
        (messages, std::mem::take(&mut self.said))
    }

    /// Takes what this node's own have said and was not told: for another home.
    pub(super) fn own_messages(&mut self) -> impl Iterator<Item = Arc<Push>> {
        self.said.clear();
        let all = std::mem::take(&mut self.messages).into_iter();
        all.filter(|(_, is_own)| *is_own).map(|(message, _)| message)
    }

    /// The other nodes that are to be told: all of them where there is news, those that are new, and those that are owed a
    /// snapshot, if they may get one now. Whether some have to wait for theirs.
    pub(super) fn hearers(
        &mut self,
        me: &Owner,
        is_news: bool,
        may_get: impl Fn(&Owner) -> bool,
    ) -> (Vec<Hearer>, bool) {
        let (mut hearers, mut some_wait) = (Vec::new(), false);
        for present in self.nodes.iter_mut().filter(|present| present.node != *me) {
            let owed = present.owed && may_get(&present.node);
            some_wait |= present.owed && !owed;
            present.owed &= !owed;
            let is_new = std::mem::take(&mut present.is_new);
            if owed || ((is_news || is_new) && present.members > 0) {
                hearers.push(Hearer { node: present.node.clone(), owed });
            }
        }
        self.nodes.retain(|present| present.members > 0 || present.owed && present.node != *me);
        (hearers, some_wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::PushKind;
    use crate::ids::Version;
    use crate::presence::roster::Member;

    const EPOCH: Epoch = Epoch::of(7);

    fn player(name: &str) -> PlayerId {
        PlayerId::parse(name).unwrap()
    }

    fn says(epoch: u64) -> Says {
        Says { member: Member { online: true, meta: None }, epoch: Epoch::of(epoch), sessions: 2 }
    }

    fn seat() -> Seat {
        Seat::new(Stamp::new(EPOCH, Version::of(40)), 10)
    }

    #[test]
    fn the_newest_epoch_of_a_record_has_the_word() {
        let (mut seat, ann, bob) = (seat(), Owner::named("ann#1"), Owner::named("bob#1"));
        let eve = player("eve");
        assert_eq!(seat.claim(&eve, says(5), (&ann, 1, 1), EPOCH), Ok(None));
        let old = seat.claim(&eve, says(6), (&bob, 1, 2), EPOCH).unwrap();
        assert_eq!(old.map(|claim| (claim.node, claim.sum)), Some((ann.clone(), 1)));
        assert_eq!(seat.claim(&eve, says(5), (&ann, 1, 1), EPOCH), Err(Overtaken));
        assert_eq!(seat.leave(&eve, Epoch::of(5), EPOCH), None, "ann's word is old");
        assert_eq!((seat.count(), seat.sessions()), (1, 2));
        assert_eq!(seat.leave(&eve, Epoch::of(6), EPOCH).map(|claim| claim.node), Some(bob.clone()));
        assert!(seat.is_empty() && seat.sessions() == 0);
    }

    #[test]
    fn places_are_kept_by_number_and_not_for_members() {
        let (mut seat, me) = (seat(), Owner::named("me#1"));
        assert!(seat.reserve(&player("a"), 1, 2) && seat.reserve(&player("b"), 2, 2));
        assert!(!seat.reserve(&player("c"), 3, 2));
        seat.claim(&player("a"), says(5), (&me, 1, 0), EPOCH).unwrap();
        assert!(!seat.reserve(&player("c"), 3, 2), "a has come, and b is about to");
        seat.release(2);
        seat.release(2);
        assert!(seat.reserve(&player("c"), 3, 2) && seat.reserve(&player("a"), 4, 2));
        [1, 3, 4].into_iter().for_each(|number| seat.release(number));
        assert!(!seat.is_empty());
        seat.leave(&player("a"), Epoch::of(5), EPOCH);
        assert!(seat.is_empty());
    }

    #[test]
    fn each_node_hears_what_it_needs_and_what_of_its_own_was_told() {
        let (mut seat, me) = (seat(), Owner::named("me#1"));
        let (ann, bob) = (Owner::named("ann#1"), Owner::named("bob#1"));
        for (name, node) in [("a", &ann), ("b", &bob), ("c", &me)] {
            seat.claim(&player(name), says(5), (node, 1, 0), EPOCH).unwrap();
        }
        seat.owe(&ann);
        seat.owe(&bob);
        // Her only member is another's by now; one of hers may be about to come.
        seat.leave(&player("a"), Epoch::of(5), EPOCH);
        let named = |hearers: Vec<Hearer>| -> Vec<_> {
            hearers.into_iter().map(|hearer| (hearer.node.node().to_owned(), hearer.owed)).collect()
        };
        let (hearers, some_wait) = seat.hearers(&me, false, |node| *node != bob);
        let new = ("bob".to_owned(), false);
        assert_eq!((named(hearers), some_wait), (vec![("ann".to_owned(), true), new], true));
        let (hearers, some_wait) = seat.hearers(&me, false, |node| *node != bob);
        assert_eq!((named(hearers), some_wait), (vec![], true), "it is new once");
        let (hearers, some_wait) = seat.hearers(&me, true, |_| true);
        assert_eq!((named(hearers), some_wait), (vec![("bob".to_owned(), true)], false));
        let message = || Arc::new(Push::new(PushKind::Message, Vec::new().into()));
        for _ in 0..3 {
            assert!(seat.speak_for(&ann, message()));
        }
        assert!(seat.speak(message(), 1) && !seat.speak(message(), 1), "what others say takes no place");
        let (messages, said) = seat.messages();
        assert_eq!((messages.len(), said), (4, vec![(ann, 3)]));
    }
}
