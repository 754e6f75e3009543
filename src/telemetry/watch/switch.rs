//! When an alarm begins and ends: after so many bad seconds in a row, and so many good ones. What is neither keeps it as
//! it is, so that a number which stays about its limit rings once. Pure.

/// How a number stands to its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// Above it.
    Bad,
    /// Below it, and not by enough to be believed.
    Border,
    /// Well below it.
    Good,
}

/// How many seconds are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// Bad ones in a row before it begins: at least one.
    pub(super) begins_after: u32,
    /// Good ones in a row before it ends: at least one.
    pub(super) ends_after: u32,
}

/// What one second brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It begins.
    On,
    /// It ends.
    Off,
}

/// Whether an alarm is on.
#[derive(Debug, Clone, Default)]
pub(super) struct Switch {
    is_on: bool,
    /// Seconds in a row that speak for a turn.
    run: u32,
}

impl Switch {
    /// Whether it is on.
    pub(super) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// One second more.
    pub(super) fn take(&mut self, level: Level, patience: Patience) -> Option<Turn> {
        let (speaks, enough) = if self.is_on {
            (level == Level::Good, patience.ends_after)
        } else {
            (level == Level::Bad, patience.begins_after)
        };
        self.run = if speaks { self.run.saturating_add(1) } else { 0 };
        if self.run < enough.max(1) {
            return None;
        }
        self.run = 0;
        self.is_on = !self.is_on;
        Some(if self.is_on { Turn::On } else { Turn::Off })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience { begins_after: 3, ends_after: 5 };

    fn turns(levels: &[Level]) -> Vec<(usize, Turn)> {
        let mut switch = Switch::default();
        let turn = |(at, level): (usize, &Level)| Some((at, switch.take(*level, PATIENCE)?));
        levels.iter().enumerate().filter_map(turn).collect()
    }

    #[test]
    fn it_begins_after_bad_seconds_in_a_row_and_ends_after_good_ones() {
        use Level::{Bad, Border, Good};
        let told = turns(&[
            Bad, Bad, Good, Bad, Bad, Bad, // begins with the sixth
            Good, Good, Good, Good, Border, Good, Good, Good, Good, Good, // ends with the last
            Good,
        ]);
        assert_eq!(told, [(5, Turn::On), (15, Turn::Off)]);
    }

    #[test]
    fn who_stays_at_the_border_rings_once() {
        let border = [Level::Bad, Level::Bad, Level::Bad, Level::Border, Level::Bad, Level::Border];
        let levels: Vec<Level> = border.iter().copied().chain([Level::Border; 1_000]).collect();
        assert_eq!(turns(&levels), [(2, Turn::On)]);
    }

    proptest! {
        #[test]
        fn it_never_turns_more_often_than_its_patience_allows(
            levels in proptest::collection::vec(
                prop_oneof![Just(Level::Bad), Just(Level::Border), Just(Level::Good)], 0..400,
            ),
        ) {
            let told = turns(&levels);
            for pair in told.windows(2) {
                let apart = pair[1].0 - pair[0].0;
                let least = if pair[1].1 == Turn::Off { PATIENCE.ends_after } else { PATIENCE.begins_after };
                prop_assert!(apart >= least as usize && pair[0].1 != pair[1].1);
            }
            let rounds = (PATIENCE.begins_after + PATIENCE.ends_after) as usize;
            let begins = told.iter().filter(|(_, turn)| *turn == Turn::On).count();
            prop_assert!(begins <= levels.len() / rounds + 1);
        }
    }
}
