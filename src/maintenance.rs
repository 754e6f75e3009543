//! Whether players are let in. An operator closes the server through `service`; `gate` asks at each login and resume.
//! Holds what is in force and nothing else: storing it, telling other nodes and closing links are `service`'s.

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::clock::Now;

/// Those who come back after the end are spread over at least this time, so that they do not come all at once.
const SPREAD_MS_MIN: u64 = 5_000;
/// And over so much more for each link that was closed.
const SPREAD_MS_PER_LINK: u64 = 2;

/// A closed server, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Since when (Unix ms).
    pub since: u64,
    /// Until when (Unix ms); without it until somebody opens it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Why, for players.
    pub reason: Box<str>,
    /// How many links there were.
    pub links: u64,
}

impl Closed {
    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self, now: Now) -> bool {
        self.until.is_some_and(|until| now.unix_ms >= until)
    }

    /// When a player may come back, each at a time of her own; unknown without an end.
    #[must_use]
    pub fn retry_after_ms(&self, now: Now) -> Option<u64> {
        let left_ms = self.until?.saturating_sub(now.unix_ms);
        let spread_ms = self.links.saturating_mul(SPREAD_MS_PER_LINK).max(SPREAD_MS_MIN);
        Some(left_ms.saturating_add(rand::random_range(0..spread_ms)))
    }
}

/// What was last said, and when: of two nodes' words the later one counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Word {
    /// How it is closed, if it is.
    pub closed: Option<Closed>,
    /// When that was said (Unix ms); zero if nothing was.
    pub said_at: u64,
}

/// What is in force.
#[derive(Debug, Default)]
pub struct Maintenance(RwLock<Word>);

impl Maintenance {
    /// Open, or closed as the store says.
    #[must_use]
    pub fn new(closed: Option<Closed>) -> Self {
        let said_at = closed.as_ref().map_or(0, |closed| closed.since);
        Self(RwLock::new(Word { closed, said_at }))
    }

    /// How it is closed, if it is. Its end is exact: nobody has to open the server then.
    #[must_use]
    pub fn closed(&self, now: Now) -> Option<Closed> {
        self.0.read().closed.clone().filter(|closed| !closed.is_over(now))
    }

    /// What was last said, for other nodes.
    #[must_use]
    pub fn word(&self) -> Word {
        self.0.read().clone()
    }

    /// Takes another node's word if it is the later one; whether it is.
    pub fn adopt(&self, word: Word) -> bool {
        let mut present = self.0.write();
        let is_later = word.said_at > present.said_at;
        if is_later {
            *present = word;
        }
        is_later
    }

    /// Closes it; says what is in force then. A second closing changes reason and end, not the beginning.
    pub fn close(&self, mut closed: Closed, now: Now) -> Closed {
        let mut present = self.0.write();
        if let Some(before) = present.closed.as_ref().filter(|before| !before.is_over(now)) {
            closed.since = before.since;
            closed.links = closed.links.max(before.links);
        }
        present.said_at = now.unix_ms.max(present.said_at.saturating_add(1));
        present.closed.insert(closed).clone()
    }

    /// Opens it; says whether it was closed.
    pub fn open(&self, now: Now) -> bool {
        let mut present = self.0.write();
        present.said_at = now.unix_ms.max(present.said_at.saturating_add(1));
        present.closed.take().is_some()
    }

    /// Opens it if its end has come; says whether it did. Every node sees that for itself.
    pub fn open_if_over(&self, now: Now) -> bool {
        self.0.write().closed.take_if(|closed| closed.is_over(now)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(unix_ms: u64) -> Now {
        Now { mono_ms: 0, unix_ms }
    }

    fn closed(since: u64, until: Option<u64>, links: u64) -> Closed {
        Closed { since, until, reason: "new season".into(), links }
    }

    #[test]
    fn it_is_closed_until_its_end_and_not_a_moment_longer() {
        let maintenance = Maintenance::new(Some(closed(1_000, Some(2_000), 0)));
        assert!(maintenance.closed(at(1_999)).is_some());
        assert!(maintenance.closed(at(2_000)).is_none());
        assert!(!maintenance.open_if_over(at(1_999)) && maintenance.open_if_over(at(2_000)));
        assert!(!maintenance.open(at(2_500)));
        maintenance.close(closed(3_000, None, 0), at(3_000));
        assert!(maintenance.closed(at(u64::MAX)).is_some(), "without an end until it is opened");
        assert!(maintenance.open(at(3_000)) && maintenance.closed(at(3_000)).is_none());
    }

    #[test]
    fn closing_again_changes_the_end_and_not_the_beginning() {
        let maintenance = Maintenance::default();
        maintenance.close(closed(1_000, Some(2_000), 7), at(1_000));
        assert_eq!(maintenance.close(closed(1_500, None, 0), at(1_500)), closed(1_000, None, 7));
        maintenance.close(closed(1_000, Some(2_000), 7), at(1_600));
        let anew = maintenance.close(closed(2_500, None, 0), at(2_500));
        assert_eq!(anew, closed(2_500, None, 0), "the first one was over");
    }

    #[test]
    fn of_two_nodes_words_the_later_one_counts() {
        let (one, other) = (Maintenance::default(), Maintenance::default());
        one.close(closed(1_000, None, 7), at(1_000));
        assert!(other.adopt(one.word()) && other.closed(at(1_001)).is_some());
        assert!(!one.adopt(Word::default()), "nothing was said there");
        // Opened at the same moment by a clock that stands still, or runs behind.
        assert!(other.open(at(900)));
        assert!(one.adopt(other.word()) && one.closed(at(1_001)).is_none());
        assert!(!one.adopt(other.word()), "heard already");
    }

    #[test]
    fn players_come_back_after_the_end_and_not_all_at_once() {
        let now = at(1_000);
        assert_eq!(closed(0, None, 0).retry_after_ms(now), None);
        let waits: Vec<u64> =
            (0..200).filter_map(|_| closed(0, Some(61_000), 19_000).retry_after_ms(now)).collect();
        assert!(waits.iter().all(|wait| (60_000..98_000).contains(wait)), "{waits:?}");
        let (least, most) = (waits.iter().min().expect("some"), waits.iter().max().expect("some"));
        assert!(most - least > 10_000, "spread over {} ms", most - least);
    }
}
