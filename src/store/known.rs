//! The filter of players ever seen: a Bloom filter a shard, of two generations, so that who is forgotten leaves it in time.
//! Pure. The stores keep it, `home` asks it before it asks a store for a player whom nobody ever saw. It answers reads
//! alone: it may say that a player was here who never was, and never the other way round.

use std::collections::HashSet;
use std::time::Duration;

use super::layout::{KNOWN_BITS, KNOWN_BITS_PER_PLAYER, KNOWN_MARK_BITS, known_bits};
use crate::ids::PlayerId;

/// Bytes of a whole bitmap.
pub const KNOWN_BYTES: usize = (KNOWN_BITS / 8) as usize;
/// Most bits that are kept one by one: a thousand players take no more room so than as a bitmap, and fewer take less.
const FEW_MAX: usize = 4_096;

/// What a bitmap starts with that was begun as one: what grew bit by bit after it was lost does not.
const MARK: [u8; (KNOWN_MARK_BITS / 8) as usize] = [0xff; (KNOWN_MARK_BITS / 8) as usize];

/// Set bits of one generation, numbered as Redis numbers them: the first is the highest of the first byte. Those of the mark
/// are not kept: they are set in all.
#[derive(Debug, Clone)]
pub enum Bits {
    /// One by one.
    Few(HashSet<u32, ahash::RandomState>),
    /// As a bitmap, and how many are set.
    Many(Box<[u8]>, usize),
}

impl Default for Bits {
    fn default() -> Self {
        Self::Few(HashSet::default())
    }
}

impl Bits {
    /// Those of a bitmap, which may be shorter than a whole one.
    #[must_use]
    pub fn of_bitmap(bitmap: &[u8]) -> Self {
        let bitmap = bitmap.get(..KNOWN_BYTES).unwrap_or(bitmap);
        let bytes = || bitmap.iter().enumerate().skip(MARK.len());
        let count = bytes().map(|(_, byte)| byte.count_ones() as usize).sum();
        if count > FEW_MAX {
            let mut whole = vec![0; KNOWN_BYTES];
            whole.iter_mut().zip(bitmap).skip(MARK.len()).for_each(|(to, from)| *to = *from);
            return Self::Many(whole.into_boxed_slice(), count);
        }
        let bits =
            (0_u32..).zip(bitmap).skip(MARK.len()).filter(|(_, byte)| **byte != 0).flat_map(|(at, byte)| {
                (0..8).filter(move |bit| byte & (0x80 >> bit) != 0).map(move |bit| at * 8 + bit)
            });
        Self::Few(bits.collect())
    }

    /// Whether a bitmap was begun as one and is not what grew after it was lost.
    #[must_use]
    pub fn is_marked(bitmap: &[u8]) -> bool {
        bitmap.starts_with(&MARK)
    }

    /// A bitmap as Redis keeps it, marked: what lies behind the last byte with a bit is left out.
    #[must_use]
    pub fn to_bitmap(&self) -> Vec<u8> {
        let mut bitmap = self.clone().into_whole().into_vec();
        bitmap.iter_mut().zip(MARK).for_each(|(byte, mark)| *byte = mark);
        bitmap.truncate(bitmap.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        bitmap
    }

    /// Those of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let (mut all, other) = (self.clone().into_whole(), other.clone().into_whole());
        all.iter_mut().zip(other).for_each(|(byte, more)| *byte |= more);
        Self::of_bitmap(&all)
    }

    fn into_whole(self) -> Box<[u8]> {
        match self {
            Self::Many(bitmap, _) => bitmap,
            Self::Few(bits) => {
                let mut bitmap = vec![0; KNOWN_BYTES];
                for bit in bits {
                    set(&mut bitmap, bit);
                }
                bitmap.into_boxed_slice()
            }
        }
    }

    /// Sets a player's bits.
    pub fn add(&mut self, player: &PlayerId) {
        for bit in bits_of(player) {
            self.set(bit);
        }
    }

    fn set(&mut self, bit: u32) {
        if is_of_mark(bit) {
            return;
        }
        match self {
            Self::Many(bitmap, count) => *count += usize::from(set(bitmap, bit)),
            Self::Few(bits) => {
                bits.insert(bit);
                if bits.len() > FEW_MAX {
                    let count = bits.len();
                    *self = Self::Many(std::mem::take(self).into_whole(), count);
                }
            }
        }
    }

    fn has_all(&self, of: [u32; KNOWN_BITS_PER_PLAYER]) -> bool {
        of.iter().all(|bit| match self {
            _ if is_of_mark(*bit) => true,
            Self::Few(bits) => bits.contains(bit),
            Self::Many(bitmap, _) => {
                let (at, mask) = place(*bit);
                bitmap.get(at).is_some_and(|byte| byte & mask != 0)
            }
        })
    }

    /// How many are set.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Few(bits) => bits.len(),
            Self::Many(_, count) => *count,
        }
    }

    /// The share of players never seen who pass all the same, by how full it is.
    fn passes_wrongly(&self) -> f64 {
        (self.count() as f64 / KNOWN_BITS as f64).powi(KNOWN_BITS_PER_PLAYER as i32)
    }
}

fn bits_of(player: &PlayerId) -> [u32; KNOWN_BITS_PER_PLAYER] {
    // A bit's number is below `KNOWN_BITS`.
    known_bits(player).map(|bit| bit as u32)
}

const fn is_of_mark(bit: u32) -> bool {
    (bit as u64) < KNOWN_MARK_BITS
}

const fn place(bit: u32) -> (usize, u8) {
    (bit as usize / 8, 0x80 >> (bit % 8))
}

/// Says whether the bit was not set before.
fn set(bitmap: &mut [u8], bit: u32) -> bool {
    let (at, mask) = place(bit);
    bitmap.get_mut(at).is_some_and(|byte| {
        let is_new = *byte & mask == 0;
        *byte |= mask;
        is_new
    })
}

/// Two generations: who was seen since the last rotation, and who was seen in the time before. A rotation waits until the
/// store has forgotten all of the older one who were not seen since, so nobody who is remembered is in neither.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    current: Bits,
    old: Bits,
}

impl Filter {
    /// Of these generations.
    #[must_use]
    pub const fn of(current: Bits, old: Bits) -> Self {
        Self { current, old }
    }

    /// A player is seen.
    pub fn add(&mut self, player: &PlayerId) {
        self.current.add(player);
    }

    /// Everybody who is in it, in one generation.
    #[must_use]
    pub fn all(&self) -> Bits {
        self.current.and(&self.old)
    }

    /// A new generation begins, with whom must be in it from the start; the oldest is forgotten.
    pub fn rotate(&mut self, first: Bits) {
        self.old = std::mem::replace(&mut self.current, first);
    }

    /// Whether a player may have been seen: never false for one who was.
    #[must_use]
    pub fn may_know(&self, player: &PlayerId) -> bool {
        let bits = bits_of(player);
        self.current.has_all(bits) || self.old.has_all(bits)
    }

    /// The share of players never seen of whom it says that they may have been, as full as it is now.
    #[must_use]
    pub fn passes_wrongly(&self) -> f64 {
        let pass = |bits: &Bits| 1.0 - bits.passes_wrongly();
        1.0 - pass(&self.current) * pass(&self.old)
    }
}

/// The filter of one shard as a store holds it.
#[derive(Debug, Clone, Default)]
pub struct StoredFilter {
    /// It.
    pub filter: Filter,
    /// Nothing of it is lost: who is in neither generation was never seen, or is forgotten.
    pub is_whole: bool,
    /// Its current generation was begun as one: the next to look will know, should it be lost.
    pub is_begun: bool,
    /// Since when its current generation counts (Unix ms, by the store's clock); `None` where nobody has begun to count.
    pub since_unix_ms: Option<u64>,
    /// For how long the store keeps those of the current generation, at most, as [`NextGeneration::keeps`] has said (ms),
    pub keeps_ms: u64,
    /// and those of the old one: no sooner is the next rotation.
    pub old_keeps_ms: u64,
}

/// What a generation that is to begin has from the start.
#[derive(Debug, Clone, Default)]
pub struct NextGeneration {
    /// Whoever is to be in it, since she is kept longer than anybody else.
    pub first: Bits,
    /// Everybody who was seen, for what the store may have lost of the filter; `None` where nobody knows that.
    pub all: Option<Bits>,
    /// For how long the store keeps those who are committed from now on, at most: the longest of both generations counts,
    /// whatever was said later.
    pub keeps: Duration,
}

/// What became of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotated {
    /// A new generation has begun: after the time that those of the former one are kept, or in place of one that was lost.
    Rotated,
    /// The current one goes on. For how long the store keeps those in it has been noted, if that is longer than before.
    Young,
    /// The shard is not the holder's.
    Fenced,
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn player(number: u32) -> PlayerId {
        PlayerId::parse(&format!("player-{number}")).unwrap()
    }

    #[test]
    fn a_bitmap_is_as_redis_writes_it() {
        let mut bits = Bits::default();
        [64, 71, 72, 524_287].into_iter().for_each(|bit| bits.set(bit));
        let bitmap = bits.to_bitmap();
        assert_eq!((bitmap[8], bitmap[9], bitmap[KNOWN_BYTES - 1]), (0x81, 0x80, 1));
        assert_eq!(Bits::default().to_bitmap(), [0xff; 8]);
        assert_eq!(Bits::of_bitmap(&bitmap).count(), 4);
        assert_eq!(Bits::of_bitmap(&bitmap[..9]).count(), 2, "a short one ends with zeros");
        assert_eq!(Bits::of_bitmap(&[]).count(), 0);
    }

    #[test]
    fn what_was_begun_is_told_from_what_grew_bit_by_bit() {
        let mut grown = vec![0; KNOWN_BYTES];
        assert!(
            !Bits::is_marked(&grown)
                && !Bits::is_marked(&[])
                && Bits::is_marked(&Bits::default().to_bitmap())
        );
        (0..63).for_each(|bit| assert!(set(&mut grown, bit)));
        assert!(!Bits::is_marked(&grown), "but for one");
        // A player's bit that falls on the mark is as good as set, wherever it was lost or kept.
        let (mut few, mut many) = (Bits::default(), Bits::of_bitmap(&vec![0xff; KNOWN_BYTES]));
        for bits in [&mut few, &mut many] {
            let before = bits.count();
            bits.set(5);
            assert!(bits.has_all([5, 0, 63, 7]) && bits.count() == before);
        }
        assert!(!few.has_all([5, 0, 63, 64]) && many.has_all([5, 0, 63, 64]));
    }

    #[test]
    fn about_as_many_pass_wrongly_as_it_says() {
        let mut filter = Filter::default();
        (0..50_000).for_each(|number| filter.add(&player(number)));
        assert!((0..50_000).all(|number| filter.may_know(&player(number))));
        let passed = (1_000_000..1_200_000).filter(|number| filter.may_know(&player(*number))).count();
        let (told, seen) = (filter.passes_wrongly(), passed as f64 / 200_000.0);
        assert!(told < 0.012 && (told - seen).abs() < 0.001, "it says {told}, and it was {seen}");
        filter.rotate(Bits::default());
        assert!((told - filter.passes_wrongly()).abs() < 1e-9, "the old one still counts");
        filter.rotate(Bits::default());
        assert_eq!(filter.passes_wrongly(), 0.0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Seen(u32),
        Rotate(Vec<u32>),
        /// Written to a store and read again.
        Stored,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            20 => (0..3_000_u32).prop_map(Step::Seen),
            1 => vec(0..3_000_u32, 0..5).prop_map(Step::Rotate),
            1 => Just(Step::Stored),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn nobody_who_was_seen_within_two_generations_is_denied(steps in vec(step(), 0..2_000)) {
            let (mut filter, mut current, mut old) = (Filter::default(), HashSet::new(), HashSet::new());
            for step in steps {
                match step {
                    Step::Seen(number) => {
                        filter.add(&player(number));
                        current.insert(number);
                    }
                    Step::Rotate(first) => {
                        let mut bits = Bits::default();
                        first.iter().for_each(|number| bits.add(&player(*number)));
                        filter.rotate(bits);
                        old = std::mem::replace(&mut current, first.into_iter().collect());
                    }
                    Step::Stored => {
                        let again = |bits: &Bits| Bits::of_bitmap(&bits.to_bitmap());
                        filter = Filter::of(again(&filter.current), again(&filter.old));
                    }
                }
            }
            for number in current.union(&old) {
                prop_assert!(filter.may_know(&player(*number)));
            }
            for bits in [&filter.current, &filter.old] {
                prop_assert_eq!(bits.count(), Bits::of_bitmap(&bits.to_bitmap()).count());
            }
        }
    }
}
