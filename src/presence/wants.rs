//! Whom the sessions of another node watch in the shards of this one, and how both ends tell in a few bytes whether they
//! mean the same. Pure; `peers` keeps one for each node.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::events::{PresenceView, Status};
use crate::ids::{PlayerId, Stamp};

/// Players of all shards together that one node may want; what is more is not told, and that is logged.
const WANTS_MAX: usize = 4_194_304;

/// How many players, and a sum of their names that does not depend on their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Digest {
    pub(super) count: u32,
    pub(super) sum: u64,
}

impl Digest {
    /// With one player more.
    pub(super) fn add(&mut self, player: &PlayerId) {
        self.add_sum(xxhash_rust::xxh3::xxh3_64(player.as_str().as_bytes()));
    }

    /// With one fewer.
    pub(super) fn remove(&mut self, player: &PlayerId) {
        self.remove_sum(xxhash_rust::xxh3::xxh3_64(player.as_str().as_bytes()));
    }

    /// With one more of whatever this stands for.
    pub(super) const fn add_sum(&mut self, sum: u64) {
        self.count = self.count.wrapping_add(1);
        self.sum ^= sum;
    }

    /// With one fewer.
    pub(super) const fn remove_sum(&mut self, sum: u64) {
        self.count = self.count.wrapping_sub(1);
        self.sum ^= sum;
    }
}

/// What all who watch a player have been told of her, at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) ver: Stamp,
    /// Some may see her as here.
    pub(super) shown: bool,
}

impl Told {
    pub(super) fn of(view: &PresenceView) -> Self {
        Self { ver: view.ver, shown: view.status != Status::Offline }
    }

    /// Whether a view is news to somebody who was told this.
    pub(super) fn is_behind(self, view: &PresenceView) -> bool {
        place(view.ver) > place(self.ver)
    }

    /// Whether a view is older than this.
    pub(super) fn is_past(self, view: &PresenceView) -> bool {
        place(view.ver) < place(self.ver)
    }

    /// One of those who watch has seen this view, which says nothing of what the others have seen.
    pub(super) fn looked(self, view: &PresenceView) -> Self {
        let seen = Self::of(view);
        let ver = if place(seen.ver) < place(self.ver) { seen.ver } else { self.ver };
        Self { ver, shown: self.shown || seen.shown }
    }
}

fn place(ver: Stamp) -> (u64, u64) {
    (ver.epoch.number(), ver.version.number())
}

/// What one node wants.
pub(super) struct Wants {
    shards: Vec<Want>,
    count: usize,
    is_beyond: bool,
}

#[derive(Clone, Default)]
struct Want {
    players: HashSet<PlayerId, ahash::RandomState>,
    digest: Digest,
}

impl Wants {
    pub(super) fn nothing(shards: u16) -> Self {
        Self { shards: vec![Want::default(); usize::from(shards)], count: 0, is_beyond: false }
    }

    /// Whether it wants a player of a shard.
    pub(super) fn has(&self, shard: u16, player: &PlayerId) -> bool {
        self.shards.get(usize::from(shard)).is_some_and(|want| want.players.contains(player))
    }

    /// It wants her; `false` when it wants more than it may.
    pub(super) fn add(&mut self, shard: u16, player: &PlayerId) -> bool {
        let Some(want) = self.shards.get_mut(usize::from(shard)) else { return false };
        if want.players.contains(player) {
            return true;
        }
        if self.count >= WANTS_MAX {
            self.is_beyond = true;
            return false;
        }
        self.count += 1;
        want.digest.add(player);
        want.players.insert(player.clone())
    }

    /// Not any more.
    pub(super) fn remove(&mut self, shard: u16, player: &PlayerId) {
        let Some(want) = self.shards.get_mut(usize::from(shard)) else { return };
        if want.players.remove(player) {
            self.count -= 1;
            want.digest.remove(player);
        }
    }

    /// It wants nobody of a shard.
    pub(super) fn clear(&mut self, shard: u16) {
        if let Some(want) = self.shards.get_mut(usize::from(shard)) {
            self.count -= want.players.len();
            *want = Want::default();
        }
    }

    /// Compares with what it says it wants: the shards in which that differs. It wants nobody of any other shard.
    pub(super) fn compare(&mut self, told: &[(u16, Digest)]) -> Vec<u16> {
        let named: HashSet<u16, ahash::RandomState> = told.iter().map(|(shard, _)| *shard).collect();
        for shard in (0..).take(self.shards.len()).filter(|shard| !named.contains(shard)) {
            self.clear(shard);
        }
        if self.is_beyond {
            // They differ for sure, and telling all once more would not help.
            self.is_beyond = false;
            return Vec::new();
        }
        let digest = |shard: &u16| self.shards.get(usize::from(*shard)).map(|want| want.digest);
        let differs = told.iter().filter(|(shard, told)| digest(shard).is_some_and(|heard| heard != *told));
        differs.map(|(shard, _)| *shard).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Version};
    use proptest::prelude::*;

    fn player(number: u8) -> PlayerId {
        PlayerId::parse(&format!("p{number}")).unwrap()
    }

    fn view(number: u64, status: Status) -> PresenceView {
        let ver = Stamp::new(Epoch::of(7), Version::of(number));
        PresenceView { status, ver, ..PresenceView::default() }
    }

    #[test]
    fn all_were_told_no_more_than_who_knows_least() {
        let told = Told::of(&view(5, Status::Offline));
        assert!(told.is_behind(&view(6, Status::Online)) && !told.is_behind(&view(5, Status::Online)));
        let looked = told.looked(&view(9, Status::Online));
        assert_eq!(looked, Told { shown: true, ..told }, "one knows more, the others do not");
        assert!(told.looked(&view(3, Status::Offline)).is_behind(&view(4, Status::Offline)));
    }

    proptest! {
        #[test]
        fn both_ends_agree_as_long_as_every_letter_arrives_and_notice_when_one_does_not(
            steps in proptest::collection::vec((0..3u16, 0..6u8, any::<bool>()), 1..60),
            lost in any::<prop::sample::Index>(),
        ) {
            let mut truth = vec![(HashSet::new(), Digest::default()); 3];
            let (mut heard, mut missed) = (Wants::nothing(3), Wants::nothing(3));
            let lost = lost.index(steps.len());
            for (at, (shard, name, comes)) in steps.into_iter().enumerate() {
                let player = player(name);
                let (wants, digest) = &mut truth[usize::from(shard)];
                match (comes, wants.contains(&player)) {
                    (true, false) => { wants.insert(player.clone()); digest.add(&player); }
                    (false, true) => { wants.remove(&player); digest.remove(&player); }
                    _ => {}
                }
                for (skips, end) in [(false, &mut heard), (at == lost, &mut missed)] {
                    match (skips, comes) {
                        (true, _) => {}
                        (false, true) => prop_assert!(end.add(shard, &player)),
                        (false, false) => end.remove(shard, &player),
                    }
                }
            }
            let told: Vec<_> = (0..).zip(&truth).map(|(shard, (_, digest))| (shard, *digest)).collect();
            prop_assert_eq!(heard.compare(&told), Vec::<u16>::new());
            let differs = missed.compare(&told);
            for (shard, (wants, _)) in (0..).zip(&truth) {
                let same = (0..6).all(|name| missed.has(shard, &player(name)) == wants.contains(&player(name)));
                prop_assert_eq!(differs.contains(&shard), !same);
            }
            // What is not named is not wanted.
            prop_assert!(heard.compare(&told[1..]).is_empty());
            prop_assert!((0..6).all(|name| !heard.has(0, &player(name))));
        }
    }
}
