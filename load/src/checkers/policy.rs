//! C8: the login policy holds over the whole cluster: no player has more links at a time than it allows.
//! Pure; called by whoever made links of one player meet.

use std::collections::BTreeMap;

use super::Verdict;

const PROMISE: &str = "the login policy holds over the cluster";

/// A link of a player, from `ready` to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stay {
    /// Whose.
    pub player: u32,
    /// When she was let in, in microseconds.
    pub came_us: u64,
    /// When she was told or saw the end; none if she was there to the last.
    pub left_us: Option<u64>,
}

/// Of bots, of whom each is a player of her own with one link at a time, nothing can be said.
#[must_use]
pub fn of_bots() -> Verdict {
    let alone = "each bot is a player of her own, with one link at a time";
    Verdict { not_exercised: Some(alone.to_owned()), ..Verdict::new("C8", PROMISE) }
}

/// No more than `most` links of a player at a time, but for `overlap_us` in which the older one may not have heard of it yet.
#[must_use]
pub fn check(stays: &[Stay], most: usize, overlap_us: u64) -> Verdict {
    let mut verdict = Verdict::new("C8", PROMISE);
    let mut players: BTreeMap<u32, Vec<&Stay>> = BTreeMap::new();
    for stay in stays {
        players.entry(stay.player).or_default().push(stay);
    }
    for (player, mut stays) in players {
        stays.sort_by_key(|stay| stay.came_us);
        for (number, stay) in stays.iter().enumerate() {
            let since = stay.came_us + overlap_us;
            let is_there = |other: &&&Stay| other.left_us.is_none_or(|left| left > since);
            let others = stays.iter().take(number).filter(is_there).count();
            // One that was over before the others had to know was none.
            let lasted = stay.left_us.is_none_or(|left| left > since);
            verdict.hold(others < most || !lasted, || {
                format!("player {player} had {} links {overlap_us} µs after {}", others + 1, stay.came_us)
            });
        }
    }
    verdict
}
