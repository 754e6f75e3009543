//! One room on this node: its seat, where this node is its home, and those of this node's players who are in it. A
//! plain value that `rooms` keeps behind a lock; it never pushes anything itself.

use std::collections::VecDeque;
use std::sync::Arc;

use super::listeners::{Audience, Listeners, Tenure};
use super::roster::{Diff, Page};
use super::seat::{Hearer, Seat};
use crate::hub::Push;
use crate::ids::{Owner, Stamp};

/// What is to be told at one moment, and to whom.
pub(super) struct Turn {
    /// Where the roster stood that was told before.
    pub(super) since: Stamp,
    /// Where the roster stands.
    pub(super) ver: Stamp,
    /// For those who know the roster.
    pub(super) diff: Option<Diff>,
    /// For those who do not.
    pub(super) snapshot: Option<Page>,
    /// For everybody, behind the other two.
    pub(super) messages: VecDeque<Arc<Push>>,
    /// Who is told here.
    pub(super) audience: Audience,
    /// Which other nodes are told.
    pub(super) hearers: Vec<Hearer>,
    /// How many of the messages were said by which other node.
    pub(super) said: Vec<(Owner, u32)>,
    /// Some nodes have to wait for their snapshots.
    pub(super) some_wait: bool,
}

/// A room.
#[derive(Default)]
pub(super) struct Room {
    /// The home's side.
    pub(super) seat: Option<Seat>,
    pub(super) listeners: Listeners,
    /// Out of the map: whoever holds it must look again.
    pub(super) gone: bool,
}

impl Room {
    /// Takes what is to be told, where this node is the room's home. While its roster is made anew (`is_held`) nothing
    /// is told of that, and nothing is said: nodes that have not told of their players yet would miss it. `page_max`
    /// bounds a snapshot; `may_get` says which node may get one now.
    pub(super) fn turn(
        &mut self,
        (me, tenure): (&Owner, Tenure),
        is_held: bool,
        page_max: usize,
        may_get: impl Fn(&Owner) -> bool,
    ) -> Option<Turn> {
        let seat = self.seat.as_mut()?;
        let since = seat.told_ver();
        let (diff, (messages, said)) =
            if is_held { Default::default() } else { (seat.diff(), seat.messages()) };
        let is_news = diff.is_some() || !messages.is_empty();
        let (hearers, some_wait) = seat.hearers(me, is_news, |node| !is_held && may_get(node));
        let owes_here = !is_held && self.listeners.owes(tenure);
        let is_owed = owes_here || hearers.iter().any(|hearer| hearer.owed);
        let snapshot = is_owed.then(|| seat.page(None, page_max));
        let ver = seat.ver();
        let audience = self.listeners.audience(tenure, is_news, owes_here.then_some(ver));
        let some_wait = some_wait && !is_held;
        Some(Turn { since, ver, diff, snapshot, messages, audience, hearers, said, some_wait })
    }
}
