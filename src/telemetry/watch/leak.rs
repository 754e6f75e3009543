//! Whether sessions or descriptors leak: more and more of them, and not by players who come. Pure.

use super::finding::Finding;
use super::reading::Reading;
use super::rules::Sight;

/// Steps in which a leak must grow, each of them.
const STEPS: u64 = 6;
/// How much it must grow in all, of what was there.
const SHARE: f64 = 0.1;

/// How many there are, and how many of them belong to players who are here.
type Counts = (u64, u64);

/// Sessions beyond players, or descriptors beyond links: whichever grows more.
pub(super) fn session_leak(sight: &Sight<'_>) -> Finding {
    let floor = sight.limits.leak_floor as f64;
    let steps = sight.readings.spaced(sight.limits.leak_window_ms, STEPS).unwrap_or_default();
    let of = |what: &'static str, count: fn(&Reading) -> Option<Counts>| {
        let counts: Option<Vec<Counts>> = steps.iter().map(|reading| count(reading)).collect();
        grown(&counts.unwrap_or_default(), floor).of_whom(what).in_unit(what)
    };
    let (sessions, descriptors) = (of("sessions", sessions), of("descriptors", descriptors));
    if sessions.value / sessions.limit >= descriptors.value / descriptors.limit {
        sessions
    } else {
        descriptors
    }
}

#[allow(clippy::unnecessary_wraps, reason = "one of two kinds")]
const fn sessions(reading: &Reading) -> Option<Counts> {
    Some((reading.sessions, reading.players))
}

/// A client that is carried takes two.
fn descriptors(reading: &Reading) -> Option<Counts> {
    Some((reading.process.descriptors?, reading.links + 2 * reading.totals.relayed))
}

/// By how much those that belong to nobody have grown, if they have in each step. Each player who came may have brought
/// one: many have two devices.
fn grown(counts: &[Counts], floor: f64) -> Finding {
    let excess: Vec<u64> = counts.iter().map(|(all, of_players)| all.saturating_sub(*of_players)).collect();
    let grows = excess.windows(2).all(|pair| matches!(pair, [before, after] if after > before));
    match (counts.first(), counts.last(), excess.first(), excess.last()) {
        (Some((all, before)), Some((_, now)), Some(first), Some(last)) => {
            let brought = now.saturating_sub(*before);
            let more = if grows { last.saturating_sub(*first).saturating_sub(brought) } else { 0 };
            Finding::of(more as f64, floor.max(*all as f64 * SHARE))
        }
        _ => Finding::calm(floor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_in_each_step_and_by_enough_is_a_leak() {
        let of = |excess: &[u64], players: u64| {
            let counts: Vec<Counts> = excess.iter().map(|excess| (players + excess, players)).collect();
            let found = grown(&counts, 20.0);
            (found.value, found.value > found.limit)
        };
        assert_eq!(of(&[0, 10, 20, 30], 100), (30.0, true));
        assert_eq!(of(&[0, 10, 10, 30], 100), (0.0, false), "a step in which it did not grow");
        assert_eq!(of(&[0, 5, 10, 15], 100), (15.0, false), "few");
        assert_eq!(of(&[0, 10, 20, 30], 1_000), (30.0, false), "few of so many");
        assert_eq!(of(&[], 0), (0.0, false));
    }

    #[test]
    fn players_who_come_with_two_devices_are_no_leak() {
        let ramp = |sessions: u64| -> Vec<Counts> {
            (0..=STEPS).map(|step| (1_000 + step * sessions, 1_000 + step * 100)).collect()
        };
        assert_eq!(grown(&ramp(200), 20.0).value, 0.0);
        let leaks = grown(&ramp(300), 20.0);
        assert_eq!((leaks.value, leaks.value > leaks.limit), (600.0, true), "beside those who come");
        let leave: Vec<Counts> = (0..=STEPS).map(|step| (2_000 - step * 200, 1_000 - step * 100)).collect();
        assert_eq!(grown(&leave, 20.0).value, 0.0);
    }
}
