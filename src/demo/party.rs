//! When a party of the demo plays and where: a function of its number and of the time, so that its members agree
//! without a word. Pure.

use std::time::Duration;

/// Members of a party.
const SIZE: u32 = 4;
/// Members of a hall.
const HALL: u32 = 100;
/// Between two matches, and how long one lasts; a party's own pace comes on top.
const LOBBY_S: u64 = 6;
const MATCH_S: u64 = 14;
const MAPS: [&str; 6] = ["harbour", "old mill", "glacier", "night market", "dunes", "sunken city"];

/// What a party does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for the next match.
    Lobby,
    /// Plays.
    Match {
        /// Which one since the start.
        number: u64,
        /// Where.
        map: &'static str,
    },
}

/// The party of a player.
pub(super) const fn party_of(number: u32) -> u32 {
    number / SIZE
}

/// The rooms of a player: her party, and a hall to chat in.
pub(super) fn rooms_of(number: u32) -> [String; 2] {
    [format!("party:{}", party_of(number)), format!("hall:{}", number / HALL)]
}

/// What a party does so long after the start.
pub(super) fn phase(party: u32, since_start: Duration) -> Phase {
    let own_pace_s = u64::from(party % 7);
    let (lobby_s, round_s) = (LOBBY_S, LOBBY_S + MATCH_S + own_pace_s);
    // Not all begin together.
    let at_s = since_start.as_secs() + u64::from(party % 5);
    if at_s % round_s < lobby_s {
        return Phase::Lobby;
    }
    let number = at_s / round_s + 1;
    let place = usize::try_from((u64::from(party) + number) % 6).unwrap_or_default();
    Phase::Match { number, map: MAPS.get(place).copied().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_party_waits_and_plays_in_turns() {
        for party in 0..50 {
            let phases: Vec<Phase> = (0..120).map(|s| phase(party, Duration::from_secs(s))).collect();
            let matches =
                phases.windows(2).filter(|pair| pair[0] == Phase::Lobby && pair[1] != pair[0]).count();
            assert!((3..=7).contains(&matches), "party {party}: {matches} matches in two minutes");
            assert!(phases[..8].iter().any(|phase| matches!(phase, Phase::Match { .. })), "it begins soon");
        }
    }

    #[test]
    fn a_match_has_one_map_for_its_whole_party() {
        let in_match = |s| match phase(3, Duration::from_secs(s)) {
            Phase::Match { number, map } => Some((number, map)),
            Phase::Lobby => None,
        };
        let seen: Vec<(u64, &str)> = (0..200).filter_map(in_match).collect();
        let mut matches = seen.clone();
        matches.dedup();
        let mut numbers: Vec<u64> = seen.iter().map(|(number, _)| *number).collect();
        numbers.dedup();
        assert_eq!(matches.len(), numbers.len(), "{matches:?}");
        assert_eq!((party_of(7), rooms_of(7)), (1, ["party:1".to_owned(), "hall:0".to_owned()]));
    }
}
