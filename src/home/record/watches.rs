//! The watch list as a service sets it: of all of a player's sessions at once, whole or in part. Pure; part of the
//! record. What a client does to its own session's list is beside the record itself.

use std::collections::HashSet;

use super::{Context, Record, Refusal};
use crate::ids::{PlayerId, SessionId};

/// What a list is to become.
#[derive(Debug, Clone, Copy)]
pub enum WatchList<'a> {
    /// This.
    Set(&'a [PlayerId]),
    /// What it is, without some and with others.
    Change {
        /// Who comes, if she is not there.
        add: &'a [PlayerId],
        /// Who goes, if she is there.
        remove: &'a [PlayerId],
    },
}

/// What became of one session's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListMoved {
    /// Whose.
    pub session: SessionId,
    /// Who is watched now and was not.
    pub added: Vec<PlayerId>,
    /// Who was watched and is not any more.
    pub removed: Vec<PlayerId>,
}

impl WatchList<'_> {
    /// The list that becomes of this one, no name twice.
    fn of(self, present: &[PlayerId]) -> Vec<PlayerId> {
        let (before, coming, leaving) = match self {
            Self::Set(players) => (&[][..], players, &[][..]),
            Self::Change { add, remove } => (present, add, remove),
        };
        // Whoever leaves counts as seen, and so does everybody after the first time.
        let mut seen: HashSet<&PlayerId, ahash::RandomState> = leaving.iter().collect();
        before.iter().chain(coming).filter(|player| seen.insert(player)).cloned().collect()
    }
}

impl Record {
    /// Sets or changes the watch lists of all sessions, or of none.
    ///
    /// # Errors
    /// [`Refusal::NoSession`], [`Refusal::TooLarge`] when a list would pass its limit.
    pub fn list_watches(&mut self, ctx: Context<'_>, list: WatchList<'_>) -> Result<Vec<ListMoved>, Refusal> {
        if self.sessions.is_empty() {
            return Err(Refusal::NoSession);
        }
        let lists: Vec<_> = self.sessions.iter().map(|session| list.of(&session.watches)).collect();
        if lists.iter().any(|list| list.len() > ctx.rules.watches_max) {
            return Err(Refusal::TooLarge("a session watches at most as many players as ready.limits says"));
        }
        let mut moved = Vec::with_capacity(lists.len());
        for (session, mut list) in self.sessions.iter_mut().zip(lists) {
            let added = without(&list, &session.watches);
            let removed = without(&session.watches, &list);
            if !added.is_empty() || !removed.is_empty() {
                list.shrink_to_fit();
                session.watches = list;
                moved.push(ListMoved { session: session.id, added, removed });
            }
        }
        if !moved.is_empty() {
            self.lists_changed();
        }
        Ok(moved)
    }
}

/// Those of `players` who are not among the `others`.
fn without(players: &[PlayerId], others: &[PlayerId]) -> Vec<PlayerId> {
    let others: HashSet<&PlayerId, ahash::RandomState> = others.iter().collect();
    players.iter().filter(|player| !others.contains(player)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn players(names: &[&str]) -> Vec<PlayerId> {
        names.iter().map(|name| PlayerId::parse(name).unwrap()).collect()
    }

    #[test]
    fn a_list_is_set_or_changed_and_holds_nobody_twice() {
        let before = players(&["ann", "bea", "cem"]);
        let set = players(&["dan", "bea", "dan"]);
        assert_eq!(WatchList::Set(&set).of(&before), players(&["dan", "bea"]));
        assert_eq!(WatchList::Set(&[]).of(&before), []);
        let (add, remove) = (players(&["dan", "ann", "dan"]), players(&["bea", "eve"]));
        let change = WatchList::Change { add: &add, remove: &remove };
        assert_eq!(change.of(&before), players(&["ann", "cem", "dan"]));
        // Who is named on both sides goes.
        let both = players(&["ann"]);
        assert_eq!(WatchList::Change { add: &both, remove: &both }.of(&before), players(&["bea", "cem"]));
    }
}
