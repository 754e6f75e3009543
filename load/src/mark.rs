//! What tells one run's numbers from another's. A server may still hold the sessions of a run that was killed: their presence,
//! their words and what they have written bear numbers that count from 1 again in the next run. So each number goes out with
//! its run's mark. Made by the board, used by bots, services and whoever looks from outside. Pure but for its making.

use rand::Rng as _;

/// What is left for the number: more than a bot does in a day at any pace.
const NUMBER_BITS: u32 = 24;
/// The mark's: all told 53, so that whoever reads JSON's numbers as floats reads these, too.
const MARK_BITS: u32 = 29;

/// The mark of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u64);

impl Mark {
    /// A run's, unlike that of any other: two are the same once in 2²⁹.
    #[must_use]
    pub fn of_a_run() -> Self {
        Self(rand::rng().random_range(1..1 << MARK_BITS))
    }

    /// A number of this run, as it goes out; of `number` what fits into 24 bits.
    #[must_use]
    pub fn number(self, number: u64) -> u64 {
        (self.0 << NUMBER_BITS) | (number & ((1 << NUMBER_BITS) - 1))
    }

    /// The number behind one that came in; none if it is of no run, or of another one.
    #[must_use]
    pub const fn read(self, came: u64) -> Option<u64> {
        if came >> NUMBER_BITS == self.0 { Some(came & ((1 << NUMBER_BITS) - 1)) } else { None }
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_by_its_own_run_alone() {
        let (mine, other) = (Mark(5), Mark(6));
        assert_eq!(mine.read(mine.number(7)), Some(7));
        assert_eq!(mine.read(other.number(7)), None);
        assert_eq!(mine.read(7), None, "one without a mark is of no run");
        assert!(Mark((1 << MARK_BITS) - 1).number(u64::MAX) < 1 << 53);
    }
}
