//! Which nodes keep near how a player looks whose home is here: those that read within the time for which they keep it. They
//! are told of every change, and once more a moment later. Pure; `peers` keeps it. Bounded: where too many are kept, those
//! that were read longest ago are taken back from those that keep them, many at a time, so that it costs no letter for each.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::near::LETTER_PLAYERS;
use crate::ids::{Epoch, Owner, PlayerId, Version};
use crate::near_cache::Ver;

/// The longest that a node may keep what it read, whatever it asks for.
const LIFE_MS_MAX: u64 = 3_600_000;
/// The part of all places that is made free at a time, where there is no room: as many as fill a letter at most.
const ROOM_PART: usize = 16;
/// Above whatever is kept: what is told to be so new is dropped.
pub(super) const NEWEST: Ver = (Epoch::of(u64::MAX), Version::of(u64::MAX));

/// What is to be told to each node: players and where they stand now.
pub(super) type News = BTreeMap<Owner, Vec<(PlayerId, Ver)>>;

/// All of them.
pub(super) struct Readers {
    most: usize,
    again_ms: u64,
    by_player: HashMap<PlayerId, Vec<(Owner, u64)>, ahash::RandomState>,
    /// Every player of `by_player`, once, about in the order in which they run out.
    order: VecDeque<PlayerId>,
    /// What is told once more, and when.
    again: VecDeque<(u64, PlayerId, Ver)>,
}

impl Readers {
    /// Nobody. Players at a time, and after what time all is told once more.
    pub(super) fn none(most: usize, again_ms: u64) -> Self {
        let (by_player, order, again) = (HashMap::default(), VecDeque::new(), VecDeque::new());
        Self { most, again_ms, by_player, order, again }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_player.is_empty()
    }

    /// How many players are kept near by others.
    pub(super) fn len(&self) -> usize {
        self.by_player.len()
    }

    /// A node reads a player and keeps what it is told for so long; `dropped` grows by what others must drop to make room.
    pub(super) fn reads(
        &mut self,
        node: &Owner,
        player: &PlayerId,
        life_ms: u64,
        now_ms: u64,
        dropped: &mut News,
    ) {
        let until_ms = now_ms + life_ms.min(LIFE_MS_MAX);
        let nodes = self.by_player.entry(player.clone()).or_insert_with(|| {
            self.order.push_back(player.clone());
            Vec::new()
        });
        match nodes.iter_mut().find(|(known, _)| known == node) {
            Some((_, until)) => *until = until_ms.max(*until),
            None => nodes.push((node.clone(), until_ms)),
        }
        self.tidy(now_ms);
        if self.by_player.len() > self.most {
            self.make_room(now_ms, dropped);
        }
    }

    fn make_room(&mut self, now_ms: u64, dropped: &mut News) {
        let left = self.most.saturating_sub((self.most / ROOM_PART).min(LETTER_PLAYERS).saturating_sub(1));
        while self.by_player.len() > left {
            let Some(oldest) = self.order.pop_front() else { break };
            let nodes = self.by_player.remove(&oldest).unwrap_or_default().into_iter();
            for (node, _) in nodes.filter(|(_, until_ms)| *until_ms > now_ms) {
                dropped.entry(node).or_default().push((oldest.clone(), NEWEST));
            }
        }
    }

    /// Forgets a few whose time is over.
    fn tidy(&mut self, now_ms: u64) {
        for _ in 0..4 {
            let Some(oldest) = self.order.front().cloned() else { return };
            let Some(nodes) = self.by_player.get_mut(&oldest) else {
                self.order.pop_front();
                continue;
            };
            nodes.retain(|(_, until_ms)| *until_ms > now_ms);
            if !nodes.is_empty() {
                return;
            }
            self.by_player.remove(&oldest);
            self.order.pop_front();
        }
    }

    /// Players look otherwise than before: whom to tell now.
    pub(super) fn moved(&mut self, moved: Vec<(PlayerId, Ver)>, now_ms: u64) -> News {
        let mut news = News::new();
        for (player, ver) in moved {
            if self.tell(&player, ver, now_ms, &mut news) {
                self.again.push_back((now_ms + self.again_ms, player, ver));
            }
        }
        // Rather too early than never.
        while self.again.len() > self.most
            && let Some((_, player, ver)) = self.again.pop_front()
        {
            self.tell(&player, ver, now_ms, &mut news);
        }
        news
    }

    /// When something is to be told once more.
    pub(super) fn next_again_ms(&self) -> Option<u64> {
        self.again.front().map(|(due_ms, _, _)| *due_ms)
    }

    /// What is to be told once more by now.
    pub(super) fn again(&mut self, now_ms: u64) -> News {
        let mut news = News::new();
        while self.again.front().is_some_and(|(due_ms, _, _)| *due_ms <= now_ms)
            && let Some((_, player, ver)) = self.again.pop_front()
        {
            self.tell(&player, ver, now_ms, &mut news);
        }
        news
    }

    /// Says whether anybody keeps her.
    fn tell(&self, player: &PlayerId, ver: Ver, now_ms: u64, news: &mut News) -> bool {
        let nodes = self.by_player.get(player).into_iter().flatten();
        let keep = nodes.filter(|(_, until_ms)| *until_ms > now_ms);
        keep.fold(false, |_, (node, _)| {
            news.entry(node.clone()).or_default().push((player.clone(), ver));
            true
        })
    }

    /// A node cannot be told any more: it drops all by itself.
    pub(super) fn forget_node(&mut self, node: &Owner) {
        self.by_player.retain(|_, nodes| {
            nodes.retain(|(known, _)| known != node);
            !nodes.is_empty()
        });
        self.order.retain(|player| self.by_player.contains_key(player));
    }

    /// These are another home's now: who keeps them hears it from there.
    pub(super) fn forget(&mut self, is_so: impl Fn(&PlayerId) -> bool) {
        self.by_player.retain(|player, _| !is_so(player));
        self.order.retain(|player| self.by_player.contains_key(player));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn player(number: u64) -> PlayerId {
        PlayerId::parse(&format!("player-{number}")).unwrap()
    }

    fn ver(number: u64) -> Ver {
        (Epoch::of(1), Version::of(number))
    }

    /// What others must drop for a node that reads a player.
    fn reads(readers: &mut Readers, node: &Owner, number: u64, life_ms: u64, now_ms: u64) -> News {
        let mut dropped = News::new();
        readers.reads(node, &player(number), life_ms, now_ms, &mut dropped);
        dropped
    }

    fn told(news: News) -> Vec<String> {
        let lines = news.into_iter().flat_map(|(node, players)| {
            players
                .into_iter()
                .map(move |(player, (_, version))| format!("{}: {player} {}", node.node(), version.number()))
        });
        lines.collect()
    }

    #[test]
    fn a_node_that_read_is_told_of_every_change_and_once_more_until_its_time_is_over() {
        let mut readers = Readers::none(10, 100);
        let (one, two) = (Owner::named("one#1"), Owner::named("two#1"));
        assert!(reads(&mut readers, &one, 1, 1_000, 0).is_empty());
        assert!(reads(&mut readers, &two, 1, 2_000, 500).is_empty());
        assert!(reads(&mut readers, &one, 2, 1_000, 0).is_empty());
        let news = readers.moved(vec![(player(1), ver(7)), (player(3), ver(1))], 600);
        assert_eq!(told(news), ["one: player-1 7", "two: player-1 7"]);
        assert_eq!(readers.next_again_ms(), Some(700));
        assert!(readers.again(699).is_empty());
        assert_eq!(told(readers.again(700)), ["one: player-1 7", "two: player-1 7"]);
        assert_eq!((readers.next_again_ms(), told(readers.again(9_000)).len()), (None, 0));
        assert_eq!(told(readers.moved(vec![(player(1), ver(8))], 1_000)), ["two: player-1 8"]);
        assert_eq!(told(readers.moved(vec![(player(1), ver(9))], 2_500)), Vec::<String>::new());
        reads(&mut readers, &one, 1, 1_000, 2_600);
        readers.forget_node(&one);
        assert!(readers.moved(vec![(player(1), ver(10))], 2_700).is_empty());
    }

    #[test]
    fn where_too_many_are_kept_the_oldest_is_taken_back() {
        let mut readers = Readers::none(3, 100);
        let one = Owner::named("one#1");
        for number in 1..=3 {
            assert!(reads(&mut readers, &one, number, 1_000, number).is_empty());
        }
        let dropped = reads(&mut readers, &one, 4, 1_000, 10);
        assert_eq!(dropped[&one], [(player(1), NEWEST)]);
        // Whose time is over makes room for nothing.
        for number in 5..=100 {
            assert!(reads(&mut readers, &one, number, 10, 2_000 + 20 * number).is_empty(), "{number}");
            assert!(readers.len() <= 3 && readers.order.len() <= 3);
        }
        readers.forget(|_| true);
        assert!(readers.is_empty() && readers.order.is_empty());
    }

    #[test]
    fn room_for_many_is_made_with_few_letters_and_none_for_whose_time_is_over() {
        let mut readers = Readers::none(16_000, 100);
        let [one, two] = [Owner::named("one#1"), Owner::named("two#1")];
        for number in 0..16_000 {
            assert!(reads(&mut readers, &one, number, 1_000_000, 0).is_empty());
        }
        // As many again, one by one.
        let dropped = (16_000..32_000).map(|number| reads(&mut readers, &two, number, 1_000_000, 1));
        let letters: Vec<_> = dropped.filter(|dropped| !dropped.is_empty()).collect();
        assert!(letters.len() <= 16_000 / LETTER_PLAYERS + 1, "{}", letters.len());
        assert!(readers.len() <= 16_000 && readers.len() > 16_000 - LETTER_PLAYERS, "{}", readers.len());
        let count: usize = letters.iter().flat_map(News::values).map(Vec::len).sum();
        assert_eq!(count + readers.len(), 32_000, "each who is not kept any more is told");
        assert!(letters.iter().flat_map(News::values).all(|players| players.len() <= LETTER_PLAYERS));
        let mut over = Readers::none(100, 100);
        for number in 0..200 {
            assert!(reads(&mut over, &one, number, 10, 100 * number).is_empty());
        }
    }

    #[test]
    fn what_is_to_be_told_once_more_is_bounded_and_told_early_rather_than_not() {
        let mut readers = Readers::none(3, 100);
        let one = Owner::named("one#1");
        reads(&mut readers, &one, 1, 1_000, 0);
        for number in 1..=5 {
            let news = told(readers.moved(vec![(player(1), ver(number))], 0));
            assert_eq!(news.len(), if number > 3 { 2 } else { 1 });
        }
        assert_eq!(told(readers.again(100)).len(), 3);
    }
}
