//! Which pushes are news: the rule of `seq`, the rule of `ver`, the rule of a message's `id`. Pure; asked by the driver.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::Stamp;
use crate::limits::WATCHES_MAX;
use crate::push::PresenceItem;

/// Message ids remembered: repeats come soon after, when a sender lost its link.
const MESSAGE_IDS_MAX: usize = 256;
/// Players whose `ver` is remembered: all that can be watched, and as many that were.
const VERS_MAX: usize = 2 * WATCHES_MAX;

/// What a push's `seq` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The next one.
    Next,
    /// Handled before this link: the server could not know.
    Repeat,
    /// Came before on this very link.
    Again {
        /// The one that should have come.
        expected: u64,
    },
    /// Some are missing before it.
    Gap {
        /// The one that should have come.
        expected: u64,
    },
}

/// What was heard so far in a session.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    last_seq: u64,
    /// The highest that came over the present link.
    on_link: u64,
    /// After `missed`: whatever comes next is the new beginning.
    any_next: bool,
    vers: HashMap<String, Stamp>,
    message_ids: HashSet<String>,
    message_order: VecDeque<String>,
}

impl Inbox {
    /// Goes on with a session of an earlier run.
    pub(crate) fn from_last_seq(last_seq: u64) -> Self {
        Self { last_seq, ..Self::default() }
    }

    /// The highest `seq` handled.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// `ready` came: a resume goes on, a login starts anew. Each player's `ver` goes on in both.
    pub(crate) fn opened(&mut self, resumed: bool, missed: bool) {
        if !resumed {
            self.last_seq = 0;
        }
        self.on_link = 0;
        self.any_next = resumed && missed;
    }

    /// Takes note of a numbered push.
    pub(crate) fn order(&mut self, seq: u64) -> Order {
        if seq <= self.on_link {
            return Order::Again { expected: self.on_link + 1 };
        }
        self.on_link = seq;
        if seq <= self.last_seq {
            return Order::Repeat;
        }
        let expected = self.last_seq + 1;
        self.last_seq = seq;
        if seq == expected || std::mem::take(&mut self.any_next) {
            self.any_next = false;
            return Order::Next;
        }
        Order::Gap { expected }
    }

    /// Keeps the items that are news.
    pub(crate) fn news(&mut self, items: Vec<PresenceItem>) -> Vec<PresenceItem> {
        if self.vers.len() > VERS_MAX {
            // Forgetting costs a repeat, never a loss.
            self.vers.clear();
        }
        items.into_iter().filter(|item| self.is_news(item)).collect()
    }

    fn is_news(&mut self, item: &PresenceItem) -> bool {
        match self.vers.get_mut(&item.player) {
            Some(known) if item.ver <= *known => false,
            Some(known) => {
                *known = item.ver;
                true
            }
            None => {
                self.vers.insert(item.player.clone(), item.ver);
                true
            }
        }
    }

    /// A snapshot taken at `watch`: the later pushes are judged against it.
    pub(crate) fn snapshot(&mut self, items: &[PresenceItem]) {
        for item in items {
            self.is_news(item);
        }
    }

    /// Whether a message with this id came before.
    pub(crate) fn is_repeat(&mut self, id: &str) -> bool {
        if !self.message_ids.insert(id.to_owned()) {
            return true;
        }
        self.message_order.push_back(id.to_owned());
        if self.message_order.len() > MESSAGE_IDS_MAX
            && let Some(oldest) = self.message_order.pop_front()
        {
            self.message_ids.remove(&oldest);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Status;

    fn item(player: &str, ver: Stamp) -> PresenceItem {
        PresenceItem {
            player: player.to_owned(),
            status: Status::Online,
            activity: None,
            ver,
            last_seen: None,
            devices: None,
        }
    }

    #[test]
    fn a_replayed_push_is_dropped_and_a_gap_told() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.order(1), Order::Next);
        assert_eq!(inbox.order(1), Order::Again { expected: 2 });
        assert_eq!(inbox.order(3), Order::Gap { expected: 2 });
        assert_eq!(inbox.order(4), Order::Next);
        inbox.opened(true, false);
        assert_eq!(inbox.order(3), Order::Repeat);
        assert_eq!(inbox.order(3), Order::Again { expected: 4 });
        assert_eq!(inbox.order(4), Order::Repeat);
        assert_eq!(inbox.order(6), Order::Gap { expected: 5 });
    }

    #[test]
    fn after_missed_any_seq_begins_anew_but_only_once() {
        let mut inbox = Inbox::from_last_seq(5);
        inbox.opened(true, true);
        assert_eq!(inbox.order(20), Order::Next);
        assert_eq!(inbox.order(22), Order::Gap { expected: 21 });
    }

    #[test]
    fn missed_counts_for_the_first_push_alone_even_if_it_is_the_next() {
        let mut inbox = Inbox::from_last_seq(5);
        inbox.opened(true, true);
        assert_eq!(inbox.order(6), Order::Next);
        assert_eq!(inbox.order(8), Order::Gap { expected: 7 });
    }

    #[test]
    fn a_new_session_counts_from_one() {
        let mut inbox = Inbox::from_last_seq(5);
        inbox.opened(false, false);
        assert_eq!(inbox.order(1), Order::Next);
    }

    #[test]
    fn an_older_item_is_no_news_within_an_epoch_and_across() {
        let mut inbox = Inbox::default();
        inbox.snapshot(&[item("bea", (5, 3))]);
        let came = inbox.news(vec![
            item("bea", (5, 2)),
            item("bea", (5, 3)),
            item("bea", (4, 9)),
            item("bea", (6, 1)),
            item("cem", (1, 1)),
        ]);
        assert_eq!(came, [item("bea", (6, 1)), item("cem", (1, 1))]);
    }

    #[test]
    fn a_message_comes_once_and_old_ids_are_forgotten() {
        let mut inbox = Inbox::default();
        assert!(!inbox.is_repeat("a"));
        assert!(inbox.is_repeat("a"));
        for n in 0..MESSAGE_IDS_MAX {
            assert!(!inbox.is_repeat(&n.to_string()));
        }
        assert!(!inbox.is_repeat("a"), "the memory is bounded");
        assert_eq!(inbox.message_ids.len(), inbox.message_order.len());
    }
}
