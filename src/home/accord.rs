//! Rule L: whether a shard may be served past its lease, because its server is away for most nodes and nobody is known to
//! hold it under a higher epoch. Pure: what the nodes say goes in (`whispers` carries it), the grounds come out. A word
//! counts while it is fresh; who is silent, or says nothing of a shard, reaches its server for all that is known.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::lease::Grounds;
use crate::ids::{Epoch, Owner, ShardId};

/// How long a word counts: nodes say it anew four times in that time.
pub(super) const FRESH_MS: u64 = 2_000;
/// How long a node that did not run does not believe itself: what it knew of the store is of before. Longer than a breaker
/// waits before it tries its server again, and than that takes.
pub(super) const DOUBT_MS: u64 = 7_000;
/// How long it hears nobody either: letters that had come before are read only now.
const DEAF_MS: u64 = 1_000;
/// Nodes whose words are kept: more than there can be members.
const SPEAKERS_MAX: usize = 512;

/// Shards, as runs of their numbers: a node's shards are many, and servers that are away few.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Runs(Vec<(u16, u16)>);

impl Runs {
    /// These shards, in the order of their numbers.
    pub(super) fn of(shards: impl IntoIterator<Item = u16>) -> Self {
        let mut runs: Vec<(u16, u16)> = Vec::new();
        for shard in shards {
            match runs.last_mut() {
                Some((_, last)) if u32::from(*last) + 1 == u32::from(shard) => *last = shard,
                _ => runs.push((shard, shard)),
            }
        }
        Self(runs)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn holds(&self, shard: u16) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < shard);
        self.0.get(at).is_some_and(|(first, _)| *first <= shard)
    }

    /// Whether they are in order and of a cluster of so many shards: what a node sends may be anything.
    fn are_sound(&self, shards: usize) -> bool {
        let in_order = self.0.windows(2).all(|pair| matches!(pair, [(_, last), (first, _)] if last < first));
        in_order && self.0.iter().all(|(first, last)| first <= last && usize::from(*last) < shards)
    }
}

/// What a node has said.
#[derive(Debug, Default)]
struct Word {
    away: Runs,
    at_ms: u64,
    /// The shards that it holds, and under which epoch.
    holds: HashMap<u16, Epoch>,
}

/// What all have said.
#[derive(Debug)]
pub(super) struct Accord {
    shards: usize,
    words: HashMap<Owner, Word>,
    /// The highest epoch of each shard that any node was ever said to hold it under.
    highest: Vec<Epoch>,
    /// Until then this node does not believe itself.
    doubts_until_ms: u64,
    /// Until then it hears nobody say that a server is away.
    deaf_until_ms: u64,
}

impl Accord {
    /// Nobody has said anything.
    pub(super) fn new(shards: usize) -> Self {
        Self {
            shards,
            words: HashMap::new(),
            highest: vec![Epoch::ZERO; shards],
            doubts_until_ms: 0,
            deaf_until_ms: 0,
        }
    }

    /// A node says which shards' servers are away. `false`: that makes no sense, and counts as nothing.
    pub(super) fn says_away(&mut self, node: &Owner, away: Runs, now_ms: u64) -> bool {
        if !away.are_sound(self.shards) {
            return false;
        }
        if now_ms >= self.deaf_until_ms
            && let Some(word) = self.word_of(node)
        {
            (word.away, word.at_ms) = (away, now_ms);
        }
        true
    }

    /// A node says which shards it holds, and which epochs it knows of others.
    pub(super) fn says_epochs(&mut self, node: &Owner, holds: &[(u16, u64)], knows: &[(u16, u64)]) {
        for (shard, epoch) in holds.iter().chain(knows) {
            if let Some(highest) = self.highest.get_mut(usize::from(*shard)) {
                *highest = (*highest).max(Epoch::of(*epoch));
            }
        }
        let of = |(shard, epoch): &(u16, u64)| (*shard, Epoch::of(*epoch));
        let holds = holds.iter().filter(|(shard, _)| usize::from(*shard) < self.shards).map(of).collect();
        if let Some(word) = self.word_of(node) {
            word.holds = holds;
        }
    }

    fn word_of(&mut self, node: &Owner) -> Option<&mut Word> {
        if self.words.len() >= SPEAKERS_MAX && !self.words.contains_key(node) {
            return None;
        }
        Some(self.words.entry(node.clone()).or_default())
    }

    /// There is no link to a node any more: what it said is not heard to change.
    pub(super) fn forget(&mut self, node: &Owner) {
        self.words.remove(node);
    }

    /// This node did not run for a while: what it knew is of before, and so is what it reads next.
    pub(super) fn doubt(&mut self, now_ms: u64) {
        self.doubts_until_ms = now_ms.saturating_add(DOUBT_MS);
        self.deaf_until_ms = now_ms.saturating_add(DEAF_MS);
        self.words.values_mut().for_each(|word| word.away = Runs::default());
    }

    /// The highest epoch that a shard is known to be held under.
    pub(super) fn highest(&self, shard: ShardId) -> Epoch {
        self.highest.get(usize::from(shard.number())).copied().unwrap_or(Epoch::ZERO)
    }

    /// All of them that are known, by number.
    pub(super) fn all_highest(&self) -> impl Iterator<Item = (u16, Epoch)> {
        let known = |(_, epoch): &(u16, Epoch)| *epoch > Epoch::ZERO;
        (0u16..).zip(self.highest.iter().copied()).filter(known)
    }

    /// The node that says that it holds a shard, under the highest epoch.
    pub(super) fn holder(&self, shard: ShardId) -> Option<&Owner> {
        let held = |word: &Word| word.holds.get(&shard.number()).copied();
        let all = self.words.iter().filter_map(|(node, word)| Some((held(word)?, node)));
        let (epoch, node) = all.max_by_key(|(epoch, _)| *epoch)?;
        (epoch >= self.highest(shard)).then_some(node)
    }

    /// What there is to say for serving a shard past its lease that this node holds under `epoch`, and whose server it finds
    /// away or not. Rule L holds while a majority of `members`, `me` among them, says freshly that the server is away, and
    /// no higher epoch is known. Who drains is a member still. It
    /// is back where this node finds it so, or where another one's last word does not call it away: such a word is not said over
    /// and over, and counts until the link ends. Where most are only silent nobody has said that it is back.
    pub(super) fn grounds<'a>(
        &self,
        (shard, epoch): (ShardId, Epoch),
        is_away: bool,
        members: impl Iterator<Item = &'a Owner>,
        me: &Owner,
        now_ms: u64,
    ) -> Grounds {
        if self.highest(shard) > epoch {
            return Grounds::None;
        }
        let is_awake = now_ms >= self.doubts_until_ms;
        let (mut all, mut agree, mut is_back) = (0, 0, !is_away);
        for member in members {
            all += 1;
            if member == me {
                agree += usize::from(is_awake);
            } else {
                agree += usize::from(self.is_away_for(member, shard, now_ms));
                is_back |= self.words.get(member).is_some_and(|word| !word.away.holds(shard.number()));
            }
        }
        match () {
            () if is_away && agree * 2 > all => Grounds::Away,
            () if is_awake && is_back => Grounds::Back,
            () => Grounds::None,
        }
    }

    /// Whether another node says, freshly, that it does not reach a shard's server.
    pub(super) fn is_away_for(&self, node: &Owner, shard: ShardId, now_ms: u64) -> bool {
        let word = self.words.get(node);
        word.is_some_and(|word| {
            now_ms.saturating_sub(word.at_ms) < FRESH_MS && word.away.holds(shard.number())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> Owner {
        Owner::named(&format!("node-{number}#1"))
    }

    fn shard(number: u16) -> ShardId {
        ShardId::numbered(number).unwrap()
    }

    const MINE: Epoch = Epoch::of(7);

    /// Whether node 0 of so many may go on with shard 3, at this time.
    fn goes_on(accord: &Accord, of: usize, now_ms: u64) -> bool {
        let members: Vec<_> = (0..of).map(node).collect();
        accord.grounds((shard(3), MINE), true, members.iter(), &node(0), now_ms) == Grounds::Away
    }

    /// The grounds of node 0 of three to go on with shard 3.
    fn grounds(accord: &Accord, is_away: bool, now_ms: u64) -> Grounds {
        let members: Vec<_> = (0..3).map(node).collect();
        accord.grounds((shard(3), MINE), is_away, members.iter(), &node(0), now_ms)
    }

    /// At 1000 so many others have said that shards 0 to 9 are away.
    fn heard(others: usize) -> Accord {
        let mut accord = Accord::new(16);
        for other in 1..=others {
            assert!(accord.says_away(&node(other), Runs::of(0..10), 1_000));
        }
        accord
    }

    #[test]
    fn it_takes_a_majority_of_all_members_with_oneself_among_them() {
        for (of, others) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3)] {
            assert!(goes_on(&heard(others), of, 1_100), "{others} others of {of}");
            if others > 0 {
                assert!(!goes_on(&heard(others - 1), of, 1_100), "{} others of {of}", others - 1);
            }
        }
        // Who is no member has no word, however many there are.
        let mut accord = heard(1);
        for stranger in 90..99 {
            accord.says_away(&node(stranger), Runs::of(0..10), 1_000);
        }
        assert!(!goes_on(&accord, 5, 1_100));
    }

    #[test]
    fn a_word_counts_while_it_is_fresh_and_its_speaker_linked() {
        let mut accord = heard(1);
        assert!(goes_on(&accord, 3, 1_000 + FRESH_MS - 1));
        assert!(!goes_on(&accord, 3, 1_000 + FRESH_MS), "stale, as after a stop of this process");
        accord.says_away(&node(1), Runs::of(0..10), 4_000);
        assert!(goes_on(&accord, 3, 4_100));
        accord.forget(&node(1));
        assert!(!goes_on(&accord, 3, 4_100));
        accord.says_away(&node(1), Runs::of(0..10), 4_200);
        accord.says_away(&node(1), Runs::default(), 4_300);
        assert!(!goes_on(&accord, 3, 4_400), "its server is back for the other one");
    }

    #[test]
    fn who_does_not_reach_a_server_is_known_while_the_word_is_fresh() {
        let mut accord = heard(1);
        let is_away = |accord: &Accord, number| accord.is_away_for(&node(1), shard(number), 1_100);
        assert!(is_away(&accord, 3) && !is_away(&accord, 12), "of one server");
        assert!(!accord.is_away_for(&node(2), shard(3), 1_100), "who has said nothing");
        assert!(!accord.is_away_for(&node(1), shard(3), 1_000 + FRESH_MS));
        accord.says_away(&node(1), Runs::default(), 1_050);
        assert!(!is_away(&accord, 3));
    }

    #[test]
    fn of_a_cluster_half_of_whose_servers_are_away_their_shards_alone_go_on() {
        let mut accord = Accord::new(16);
        for other in 1..3 {
            accord.says_away(&node(other), Runs::of((0..16).filter(|shard| shard % 2 == 0)), 1_000);
        }
        let members: Vec<_> = (0..3).map(node).collect();
        for number in 0..16 {
            let is_away = number % 2 == 0;
            let grounds = accord.grounds((shard(number), MINE), true, members.iter(), &node(0), 1_100);
            assert_eq!(grounds, if is_away { Grounds::Away } else { Grounds::Back }, "{number}");
        }
    }

    #[test]
    fn a_server_is_back_when_it_answers_this_node_or_somebody_says_so_and_not_when_all_are_silent() {
        let mut accord = heard(2);
        assert_eq!(grounds(&accord, true, 1_100), Grounds::Away);
        assert_eq!(grounds(&accord, false, 1_100), Grounds::Back, "it answers");
        assert_eq!(grounds(&accord, true, 1_000 + FRESH_MS), Grounds::None, "the others are silent");
        accord.says_away(&node(1), Runs::default(), 1_100);
        assert_eq!(grounds(&accord, true, 1_200), Grounds::Away, "two of three");
        accord.says_away(&node(2), Runs::default(), 1_200);
        assert_eq!(grounds(&accord, true, 1_300), Grounds::Back);
        // What is known of others counts for more, and so does a pause of this process.
        let mut overtaken = heard(2);
        overtaken.says_epochs(&node(1), &[(3, 8)], &[]);
        assert_eq!(grounds(&overtaken, false, 1_300), Grounds::None);
        accord.doubt(1_300);
        assert_eq!(grounds(&accord, false, 1_400), Grounds::None);
    }

    #[test]
    fn nobody_goes_on_with_a_shard_that_is_known_under_a_higher_epoch() {
        let mut accord = heard(2);
        accord.says_epochs(&node(1), &[(3, 7)], &[]);
        assert!(goes_on(&accord, 3, 1_100), "the same one");
        // By hearsay: the link to the node that holds it is down.
        accord.says_epochs(&node(2), &[], &[(3, 8)]);
        assert!(!goes_on(&accord, 3, 1_100));
        accord.forget(&node(2));
        assert!(!goes_on(&accord, 3, 1_100), "what was known once is not unknown again");
        assert_eq!(accord.all_highest().collect::<Vec<_>>(), [(3, Epoch::of(8))]);
    }

    #[test]
    fn who_says_that_it_holds_a_shard_is_believed_under_the_highest_epoch_alone() {
        let mut accord = Accord::new(16);
        accord.says_epochs(&node(1), &[(3, 8), (4, 8)], &[]);
        accord.says_epochs(&node(2), &[(3, 9), (99, 9)], &[]);
        assert_eq!((accord.holder(shard(3)), accord.holder(shard(4))), (Some(&node(2)), Some(&node(1))));
        accord.says_epochs(&node(2), &[], &[]);
        assert_eq!(accord.holder(shard(3)), None, "it was overtaken, and does not know");
    }

    #[test]
    fn a_node_that_did_not_run_does_not_believe_itself_for_a_while() {
        let mut accord = heard(2);
        accord.doubt(1_000);
        assert!(!goes_on(&accord, 3, 1_100), "what it had heard is of before");
        let says = |accord: &mut Accord, others: std::ops::RangeInclusive<usize>, now_ms| {
            others.for_each(|other| assert!(accord.says_away(&node(other), Runs::of(0..10), now_ms)));
        };
        says(&mut accord, 1..=2, 1_100);
        assert!(!goes_on(&accord, 3, 1_100), "so is what waited to be read");
        let heard_ms = 1_000 + DEAF_MS;
        says(&mut accord, 1..=1, heard_ms);
        assert!(!goes_on(&accord, 3, heard_ms), "one of three, and itself in doubt");
        says(&mut accord, 2..=2, heard_ms);
        assert!(goes_on(&accord, 3, heard_ms), "two others say so");
        assert!(!goes_on(&accord, 1, 1_000 + DOUBT_MS - 1), "alone");
        assert!(goes_on(&accord, 1, 1_000 + DOUBT_MS));
    }

    #[test]
    fn words_that_make_no_sense_count_as_none() {
        let mut accord = Accord::new(16);
        for senseless in [vec![(0, 16)], vec![(5, 4)], vec![(4, 6), (5, 9)], vec![(8, 9), (1, 2)]] {
            assert!(!accord.says_away(&node(1), Runs(senseless.clone()), 1_000), "{senseless:?}");
        }
        assert!(!goes_on(&accord, 2, 1_000));
        for speaker in 0..2 * SPEAKERS_MAX {
            accord.says_away(&node(speaker), Runs::default(), 1_000);
        }
        assert_eq!(accord.words.len(), SPEAKERS_MAX);
    }

    #[test]
    fn runs_hold_what_was_put_in() {
        let runs = Runs::of([0, 1, 2, 7, 9, 10, u16::MAX]);
        assert_eq!(runs.0, [(0, 2), (7, 7), (9, 10), (u16::MAX, u16::MAX)]);
        let held: Vec<_> = (0..=12).filter(|shard| runs.holds(*shard)).collect();
        assert_eq!(held, [0, 1, 2, 7, 9, 10]);
        assert!(runs.holds(u16::MAX) && !runs.holds(u16::MAX - 1));
        assert!(Runs::of([]).is_empty());
    }
}
