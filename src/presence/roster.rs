//! Who is in one room, as a pure value: members come, go and change, pages are read, and what has changed since the
//! last telling comes out as one diff. Called by `seat`, which keeps with each member what it must know of her. Knows no
//! link, no task and no wire; the order in which changes come in does not matter, because each says what is true now.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::ids::{Epoch, PlayerId, Stamp};

/// What a room shows of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Whether one of her sessions in the room has a link.
    pub online: bool,
    /// Her own meta: a MessagePack map.
    pub meta: Option<Arc<[u8]>>,
}

/// Members in the order of their ids, with what is needed to ask for more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where the roster stood.
    pub ver: Stamp,
    /// Members in all.
    pub count: usize,
    /// Some of them.
    pub members: Vec<(PlayerId, Member)>,
    /// Where the next page begins; `None` on the last.
    pub cursor: Option<PlayerId>,
}

/// What has changed since the last diff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// Where the roster stands now.
    pub ver: Stamp,
    /// Members in all.
    pub count: usize,
    /// What changed, unless that was more than a diff may hold.
    pub changes: Option<Changes>,
}

/// Changes of members, told by what became of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Who came.
    pub joins: Vec<(PlayerId, Member)>,
    /// Who went.
    pub leaves: Vec<PlayerId>,
    /// Who looks different.
    pub updates: Vec<(PlayerId, Member)>,
}

/// A roster, with a note of the caller's on each member, which is shown to nobody.
#[derive(Debug)]
pub struct Roster<N> {
    members: BTreeMap<PlayerId, (Member, N)>,
    ver: Stamp,
    /// Where it stood when something was told of it last.
    told_ver: Stamp,
    /// Who has changed since the last diff, with what was told of her then; `None`: that she is no member.
    told: BTreeMap<PlayerId, Option<Member>>,
    /// More have changed than a diff may hold.
    too_many: bool,
    /// Somebody has seen a page since the last diff, and with it what was not told yet: what was undone since then is
    /// news to her.
    was_read: bool,
    changes_max: usize,
}

impl<N> Roster<N> {
    /// An empty one that counts on above `floor`, so that a room that comes back does not count backwards; a diff of
    /// it holds at most `changes_max` members.
    #[must_use]
    pub const fn new(floor: Stamp, changes_max: usize) -> Self {
        Self {
            members: BTreeMap::new(),
            ver: floor,
            told_ver: floor,
            told: BTreeMap::new(),
            too_many: false,
            was_read: false,
            changes_max,
        }
    }

    /// Where it stands: grows with every change, also over epochs.
    #[must_use]
    pub const fn ver(&self) -> Stamp {
        self.ver
    }

    /// Where it stood at the last diff, or when it began: who knows less than that has missed something, and the next
    /// diff is not enough.
    #[must_use]
    pub const fn told_ver(&self) -> Stamp {
        self.told_ver
    }

    /// How many members there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// Whether somebody is a member.
    #[must_use]
    pub fn has(&self, player: &PlayerId) -> bool {
        self.members.contains_key(player)
    }

    /// What was noted of a member.
    #[must_use]
    pub fn note_of(&self, player: &PlayerId) -> Option<&N> {
        self.members.get(player).map(|(_, note)| note)
    }

    /// The same, to be changed.
    pub fn note_of_mut(&mut self, player: &PlayerId) -> Option<&mut N> {
        self.members.get_mut(player).map(|(_, note)| note)
    }

    /// What was noted of all members.
    pub fn notes(&self) -> impl Iterator<Item = (&PlayerId, &N)> {
        self.members.iter().map(|(player, (_, note))| (player, note))
    }

    /// Moves the counter into an epoch, though nothing else has changed: what it says from now on is later than what
    /// any other home has said before.
    pub fn lift(&mut self, epoch: Epoch) {
        self.ver = Stamp::new(self.ver.epoch.max(epoch), self.ver.version.next());
    }

    /// Makes somebody a member, or shows her as she is now; the note that this one replaces. `epoch` is the one under
    /// which the room is held.
    pub fn set(&mut self, player: &PlayerId, member: Member, note: N, epoch: Epoch) -> Option<N> {
        let Some(present) = self.members.get_mut(player) else {
            self.members.insert(player.clone(), (member, note));
            self.changed(player, None, epoch);
            return None;
        };
        let is_same = present.0 == member;
        let (before, old) = std::mem::replace(present, (member, note));
        if !is_same {
            self.changed(player, Some(before), epoch);
        }
        Some(old)
    }

    /// Takes somebody out; what was noted of her.
    pub fn remove(&mut self, player: &PlayerId, epoch: Epoch) -> Option<N> {
        let (before, note) = self.members.remove(player)?;
        self.changed(player, Some(before), epoch);
        Some(note)
    }

    fn changed(&mut self, player: &PlayerId, before: Option<Member>, epoch: Epoch) {
        self.lift(epoch);
        if self.too_many || self.told.contains_key(player) {
            return;
        }
        if self.told.len() >= self.changes_max {
            self.too_many = true;
            self.told = BTreeMap::new();
        } else {
            self.told.insert(player.clone(), before);
        }
    }

    /// At most `limit` members behind `after`, in the order of their ids. What it costs depends on the page alone.
    #[must_use]
    pub fn page(&mut self, after: Option<&str>, limit: usize) -> Page {
        self.was_read |= !self.told.is_empty();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.members.range::<str, _>((from, Bound::Unbounded));
        let owned = |(player, (member, _)): (&PlayerId, &(Member, N))| (player.clone(), member.clone());
        let members: Vec<_> = rest.by_ref().take(limit).map(owned).collect();
        let more = rest.next().is_some();
        let cursor = members.last().filter(|_| more).map(|(player, _)| player.clone());
        Page { ver: self.ver, count: self.count(), members, cursor }
    }

    /// What has changed since the last call, each member once and as she is now; `None` if everything is as it was
    /// told, or shown.
    pub fn diff(&mut self) -> Option<Diff> {
        let (ver, count, was_read) = (self.ver, self.count(), std::mem::take(&mut self.was_read));
        if std::mem::take(&mut self.too_many) {
            (self.told, self.told_ver) = (BTreeMap::new(), ver);
            return Some(Diff { ver, count, changes: None });
        }
        let mut changes = Changes::default();
        for (player, before) in std::mem::take(&mut self.told) {
            match (before, self.members.get(&player).map(|(member, _)| member)) {
                (None, Some(member)) => changes.joins.push((player, member.clone())),
                (Some(before), Some(member)) if was_read || before != *member => {
                    changes.updates.push((player, member.clone()));
                }
                (Some(_), None) => changes.leaves.push(player),
                (None, None) if was_read => changes.leaves.push(player),
                _ => {}
            }
        }
        if changes == Changes::default() {
            return None;
        }
        self.told_ver = ver;
        Some(Diff { ver, count, changes: Some(changes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Version;
    use proptest::prelude::*;

    const EPOCH: Epoch = Epoch::of(7);

    fn player(name: &str) -> PlayerId {
        PlayerId::parse(name).unwrap()
    }

    fn here() -> Member {
        Member { online: true, meta: None }
    }

    fn away() -> Member {
        Member { online: false, meta: None }
    }

    fn roster(changes_max: usize) -> Roster<()> {
        Roster::new(Stamp::new(Epoch::ZERO, Version::of(40)), changes_max)
    }

    #[test]
    fn a_diff_tells_each_member_once_and_as_she_is_now() {
        let mut roster = roster(100);
        let (ann, bea, cem) = (player("ann"), player("bea"), player("cem"));
        roster.set(&ann, here(), (), EPOCH);
        roster.set(&bea, here(), (), EPOCH);
        let first = roster.diff().unwrap();
        let changes = first.changes.unwrap();
        assert_eq!(changes.joins, [(ann.clone(), here()), (bea.clone(), here())]);
        assert_eq!((first.count, changes.leaves.len(), changes.updates.len()), (2, 0, 0));
        // Came and went, went and came back, and what is as it was: not worth a word.
        roster.set(&cem, here(), (), EPOCH);
        roster.remove(&cem, EPOCH);
        roster.remove(&ann, EPOCH);
        roster.set(&ann, here(), (), EPOCH);
        roster.set(&bea, here(), (), EPOCH);
        assert!(roster.ver().version > first.ver.version, "it has moved all the same");
        assert_eq!(roster.diff(), None);
        roster.remove(&ann, EPOCH);
        roster.set(&bea, away(), (), EPOCH);
        let changes = roster.diff().unwrap().changes.unwrap();
        assert_eq!(
            changes,
            Changes { leaves: vec![ann], updates: vec![(bea, away())], ..Changes::default() }
        );
        assert_eq!(roster.diff(), None);
    }

    #[test]
    fn more_than_a_diff_may_hold_is_told_by_number() {
        let mut roster = roster(3);
        for name in ["a", "b", "c", "d"] {
            roster.set(&player(name), here(), (), EPOCH);
        }
        let diff = roster.diff().unwrap();
        assert_eq!((diff.count, diff.changes), (4, None));
        roster.remove(&player("a"), EPOCH);
        assert_eq!(roster.diff().unwrap().changes.unwrap().leaves, [player("a")]);
    }

    #[test]
    fn the_counter_begins_above_its_floor_and_never_runs_backwards() {
        let mut roster = roster(9);
        roster.set(&player("a"), here(), (), Epoch::of(9));
        assert_eq!(roster.ver(), Stamp::new(Epoch::of(9), Version::of(41)));
        // Nobody holds its shard at this moment: it counts on under the last epoch that it knew.
        roster.set(&player("b"), here(), (), Epoch::ZERO);
        assert_eq!(roster.ver(), Stamp::new(Epoch::of(9), Version::of(42)));
    }

    #[test]
    fn pages_go_on_where_the_last_one_ended() {
        let mut roster = roster(99);
        for number in 0..7 {
            roster.set(&player(&format!("p{number}")), here(), (), EPOCH);
        }
        let page = roster.page(None, 3);
        assert_eq!((page.count, page.members.len(), page.cursor.as_ref()), (7, 3, Some(&player("p2"))));
        // The one behind whom the page ended may be gone.
        roster.remove(&player("p2"), EPOCH);
        let page = roster.page(Some("p2"), 3);
        assert_eq!(page.members[0].0, player("p3"));
        let last = roster.page(Some("p5"), 3);
        assert_eq!((last.members.len(), last.cursor), (1, None));
        let exact = roster.page(Some("p3"), 3);
        assert_eq!((exact.members.len(), exact.cursor), (3, None));
        let all = roster.page(None, 9);
        assert_eq!(roster.page(None, 0), Page { members: Vec::new(), cursor: None, ..all });
    }

    /// What a client knows that got a snapshot and then every diff.
    #[derive(Debug, Default, PartialEq)]
    struct Client(BTreeMap<PlayerId, Member>);

    impl Client {
        fn hears(&mut self, diff: Diff, roster: &mut Roster<()>) {
            match diff.changes {
                // She asks for pages.
                None => self.0 = roster.page(None, usize::MAX).members.into_iter().collect(),
                Some(changes) => {
                    for (player, member) in changes.joins.into_iter().chain(changes.updates) {
                        self.0.insert(player, member);
                    }
                    for player in changes.leaves {
                        self.0.remove(&player);
                    }
                }
            }
            assert_eq!(diff.count, roster.count());
        }
    }

    proptest! {
        #[test]
        fn who_hears_every_diff_knows_the_roster(
            steps in proptest::collection::vec((0..6u8, 0..4u8), 0..200),
            changes_max in 1..8usize,
            joins_at in 0..200usize,
        ) {
            let mut roster = roster(changes_max);
            let (mut old, mut new) = (Client::default(), None::<Client>);
            let mut ver = roster.ver();
            for (at, (who, what)) in steps.into_iter().enumerate() {
                if at == joins_at {
                    // Between two diffs: what she is told of twice does no harm.
                    new = Some(Client(roster.page(None, usize::MAX).members.into_iter().collect()));
                }
                let who = player(&format!("p{who}"));
                match what {
                    0 => { roster.set(&who, here(), (), EPOCH); },
                    1 => { roster.set(&who, away(), (), EPOCH); },
                    2 => { roster.remove(&who, EPOCH); },
                    _ => if let Some(diff) = roster.diff() {
                        prop_assert!(diff.ver.version > ver.version);
                        ver = diff.ver;
                        old.hears(diff.clone(), &mut roster);
                        new.iter_mut().for_each(|new| new.hears(diff.clone(), &mut roster));
                    }
                }
            }
            if let Some(diff) = roster.diff() {
                old.hears(diff.clone(), &mut roster);
                new.iter_mut().for_each(|new| new.hears(diff.clone(), &mut roster));
            }
            let truth = Client(roster.page(None, usize::MAX).members.into_iter().collect());
            prop_assert_eq!(&old, &truth);
            prop_assert!(new.is_none_or(|new| new == truth));
        }

        #[test]
        fn pages_cover_whoever_stays_once(
            members in proptest::collection::btree_set("[a-d]{1,3}", 0..40),
            churn in proptest::collection::vec(("[x-z]{1,2}", any::<bool>()), 0..40),
            limit in 1..7usize,
        ) {
            let mut roster = roster(1000);
            for name in &members {
                roster.set(&player(name), here(), (), EPOCH);
            }
            let (mut seen, mut cursor, mut churn) = (Vec::new(), None::<PlayerId>, churn.into_iter());
            loop {
                let page = roster.page(cursor.as_ref().map(PlayerId::as_str), limit);
                prop_assert!(page.members.len() <= limit);
                seen.extend(page.members.into_iter().map(|(player, _)| player.as_str().to_owned()));
                let Some(next) = page.cursor else { break };
                cursor = Some(next);
                for (name, comes) in churn.by_ref().take(3) {
                    if comes { roster.set(&player(&name), here(), (), EPOCH); } else { roster.remove(&player(&name), EPOCH); }
                }
            }
            seen.retain(|name| members.contains(name));
            prop_assert_eq!(seen, members.into_iter().collect::<Vec<_>>());
        }
    }
}
