//! One room on this node: its seat, where this node is its home, and those of this node's players who are in it. A
//! plain value that `rooms` keeps behind a lock; it never pushes anything itself.

use std::collections::VecDeque;
use std::sync::Arc;

use super::listeners::{Audience, Listeners, Tenure};
use super::roster::{Diff, Page};
use super::seat::Seat;
use crate::hub::Push;

/// What is to be told at one moment, and to whom.
pub(super) struct Turn {
    /// For those who know the roster.
    pub(super) diff: Option<Diff>,
    /// For those who do not.
    pub(super) snapshot: Option<Page>,
    /// For everybody, behind the other two.
    pub(super) messages: VecDeque<Arc<Push>>,
    /// Who is told.
    pub(super) audience: Audience,
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
    /// Takes what is to be told, where this node is the room's home. `page_max` bounds a snapshot.
    pub(super) fn turn(&mut self, tenure: Tenure, page_max: usize) -> Option<Turn> {
        let seat = self.seat.as_mut()?;
        let (diff, messages) = (seat.diff(), seat.messages());
        let snapshot = self.listeners.owes(tenure).then(|| seat.page(None, page_max));
        let is_news = diff.is_some() || !messages.is_empty();
        let audience = self.listeners.audience(tenure, is_news, snapshot.is_some());
        Some(Turn { diff, snapshot, messages, audience })
    }
}
