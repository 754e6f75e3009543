//! The cluster at one moment. Pure; made by `Members`, read by everybody.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::millis;
use crate::ids::Owner;
use crate::store::{Member, Seen};

/// All live members, as they were last heard of.
#[derive(Debug, Clone)]
pub struct Snapshot {
    me: Owner,
    seen: Arc<[Seen]>,
    /// When it was taken (monotonic ms).
    taken_at_ms: u64,
    /// When somebody last came, went or began to leave (monotonic ms).
    changed_at_ms: u64,
    /// Until then nobody is taken for gone who has not said so (monotonic ms).
    grace_until_ms: u64,
}

/// Who came and who went between two moments, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Changes {
    pub(super) came: Vec<String>,
    /// Who has begun to leave.
    pub(super) leaving: Vec<String>,
    /// Who is gone, and had said so.
    pub(super) left: Vec<String>,
    /// Who is gone without a word: killed, cut off, or stuck.
    pub(super) vanished: Vec<String>,
}

impl Snapshot {
    /// Nobody but this node.
    pub(super) fn first(me: Member, now_ms: u64) -> Self {
        let owner = me.owner.clone();
        let seen = Arc::from([Seen { member: me, age: std::time::Duration::ZERO }]);
        Self { me: owner, seen, taken_at_ms: now_ms, changed_at_ms: now_ms, grace_until_ms: 0 }
    }

    /// These members, as this process sees them at the beginning: for tests of what lies above.
    #[must_use]
    pub fn of(me: Owner, seen: Vec<Seen>) -> Self {
        Self { me, seen: seen.into(), taken_at_ms: 0, changed_at_ms: 0, grace_until_ms: 0 }
    }

    /// What was heard now, after this; and whether it places shards otherwise, or moves somebody. Who is not named any
    /// more and has not said that she leaves stays for one `ttl`, if she cannot have run out by herself or if nothing was
    /// heard for so long that all have: a store that was away or was emptied would else make the first node that it
    /// hears take everything from those who live.
    pub(super) fn followed_by(&self, mut seen: Vec<Seen>, ttl_ms: u64, now_ms: u64) -> (Self, bool) {
        let silent_ms = now_ms.saturating_sub(self.taken_at_ms);
        let grace_until_ms = if silent_ms > ttl_ms / 2 { now_ms + ttl_ms } else { self.grace_until_ms };
        let is_missing = |old: &&Seen| {
            let node = old.member.owner.node();
            !old.member.says.drains && seen.iter().all(|seen| seen.member.owner.node() != node)
        };
        let stays = |old: Seen| {
            let age = old.age + Duration::from_millis(silent_ms);
            (now_ms < grace_until_ms || millis(age) < ttl_ms).then_some(Seen { age, ..old })
        };
        let missed: Vec<_> = self.seen.iter().filter(is_missing).cloned().filter_map(stays).collect();
        seen.extend(missed);
        seen.sort_unstable_by(|one, other| one.member.owner.as_str().cmp(other.member.owner.as_str()));
        let matters = |seen: &Seen| {
            let Member { owner, says } = &seen.member;
            (owner.clone(), says.drains, says.url.clone())
        };
        let changed = !seen.iter().map(matters).eq(self.seen.iter().map(matters));
        let changed_at_ms = if changed { now_ms } else { self.changed_at_ms };
        let me = self.me.clone();
        (Self { me, seen: seen.into(), taken_at_ms: now_ms, changed_at_ms, grace_until_ms }, changed)
    }

    /// The same once a member has said over its link that it ends; nothing if it is none, or leaves already.
    pub(super) fn left_by(&self, owner: &Owner, now_ms: u64) -> Option<Self> {
        self.member(owner).filter(|member| !member.says.drains)?;
        let seen = self.seen.iter().cloned().map(|mut seen| {
            seen.member.says.drains |= seen.member.owner == *owner;
            seen
        });
        Some(Self { seen: seen.collect(), changed_at_ms: now_ms, ..self.clone() })
    }

    /// What has changed since an older one.
    pub(super) fn changes_since(&self, old: &Self) -> Changes {
        let (mut changes, name) = (Changes::default(), |seen: &Seen| seen.member.owner.node().to_owned());
        for seen in self.seen.iter() {
            match old.member(&seen.member.owner) {
                None => changes.came.push(name(seen)),
                Some(before) if seen.member.says.drains && !before.says.drains => {
                    changes.leaving.push(name(seen));
                }
                Some(_) => {}
            }
        }
        for seen in old.seen.iter().filter(|seen| self.member(&seen.member.owner).is_none()) {
            let gone = if seen.member.says.drains { &mut changes.left } else { &mut changes.vanished };
            gone.push(name(seen));
        }
        changes
    }

    /// All live members, this node among them, by name.
    #[must_use]
    pub fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// This process.
    #[must_use]
    pub const fn me(&self) -> &Owner {
        &self.me
    }

    /// When it was taken (monotonic ms).
    #[must_use]
    pub const fn taken_at_ms(&self) -> u64 {
        self.taken_at_ms
    }

    /// When somebody last came, went or began to leave (monotonic ms).
    #[must_use]
    pub const fn changed_at_ms(&self) -> u64 {
        self.changed_at_ms
    }

    /// The member that this process is, while it lives.
    #[must_use]
    pub fn member(&self, owner: &Owner) -> Option<&Member> {
        self.seen.iter().map(|seen| &seen.member).find(|member| member.owner == *owner)
    }

    /// The member of this name.
    #[must_use]
    pub fn named(&self, node: &str) -> Option<&Member> {
        self.seen.iter().map(|seen| &seen.member).find(|member| member.owner.node() == node)
    }

    /// The nodes that take shards: those that live and do not leave.
    pub fn takers(&self) -> impl Iterator<Item = &str> {
        let stays = |seen: &&Seen| !seen.member.says.drains;
        self.seen.iter().filter(stays).map(|seen| seen.member.owner.node())
    }

    /// Whether there is another node.
    #[must_use]
    pub fn has_others(&self) -> bool {
        self.seen.iter().any(|seen| seen.member.owner != self.me)
    }

    /// Whether another node takes shards.
    #[must_use]
    pub fn has_other_takers(&self) -> bool {
        self.takers().any(|node| node != self.me.node())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Says;
    use std::time::Duration;

    fn seen(owner: &str, drains: bool, age_ms: u64) -> Seen {
        let says = Says { url: format!("ws://{owner}"), drains, ..Says::default() };
        Seen { member: Member { owner: Owner::named(owner), says }, age: Duration::from_millis(age_ms) }
    }

    #[test]
    fn who_leaves_takes_no_shards_and_age_is_no_change() {
        let first = Snapshot::first(seen("b#1", false, 0).member, 10);
        let (two, changed) = first.followed_by(vec![seen("b#1", false, 0), seen("a#1", false, 0)], 1_000, 20);
        assert!(changed && two.has_other_takers());
        assert_eq!(two.takers().collect::<Vec<_>>(), ["a", "b"]);
        let (same, changed) =
            two.followed_by(vec![seen("a#1", false, 900), seen("b#1", false, 0)], 1_000, 30);
        assert_eq!((changed, same.changed_at_ms(), same.taken_at_ms()), (false, 20, 30));
        let (leaving, changed) =
            same.followed_by(vec![seen("a#1", true, 0), seen("b#1", false, 0)], 1_000, 40);
        assert!(changed && !leaving.has_other_takers());
        assert_eq!(leaving.takers().collect::<Vec<_>>(), ["b"]);
        let (again, changed) =
            leaving.followed_by(vec![seen("a#2", false, 0), seen("b#1", false, 0)], 1_000, 50);
        assert!(changed && again.member(&Owner::named("a#1")).is_none());
        assert_eq!(again.named("a").map(|member| member.owner.as_str()), Some("a#2"));
    }

    #[test]
    fn who_says_over_its_link_that_it_ends_takes_no_shards_and_nothing_was_heard_of_others() {
        let first = Snapshot::first(seen("a#1", false, 0).member, 0);
        let (two, _) = first.followed_by(vec![seen("a#1", false, 0), seen("b#1", false, 0)], 1_000, 100);
        assert!(two.left_by(&Owner::named("b#2"), 150).is_none(), "another process of its name");
        let left = two.left_by(&Owner::named("b#1"), 150).unwrap();
        assert_eq!((left.has_other_takers(), left.changed_at_ms(), left.taken_at_ms()), (false, 150, 100));
        assert!(left.left_by(&Owner::named("b#1"), 160).is_none(), "known");
    }

    #[test]
    fn it_is_known_who_came_who_left_and_who_vanished() {
        let of = |seen: Vec<Seen>| Snapshot::of(Owner::named("a#1"), seen);
        let a = || seen("a#1", false, 0);
        let two = of(vec![a(), seen("b#1", false, 0)]);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let came = Changes { came: names(&["b"]), ..Changes::default() };
        assert_eq!(two.changes_since(&of(vec![a()])), came);
        let leaving = of(vec![a(), seen("b#1", true, 0)]);
        let leaves = Changes { leaving: names(&["b"]), ..Changes::default() };
        assert_eq!(leaving.changes_since(&two), leaves);
        let left = Changes { left: names(&["b"]), ..Changes::default() };
        assert_eq!(of(vec![a()]).changes_since(&leaving), left);
        let vanished = Changes { vanished: names(&["b"]), ..Changes::default() };
        assert_eq!(of(vec![a()]).changes_since(&two), vanished);
        // Killed and started again before anybody noticed.
        let again = of(vec![a(), seen("b#2", false, 0)]);
        assert_eq!(again.changes_since(&two), Changes { came: names(&["b"]), ..vanished });
    }

    #[test]
    fn who_is_gone_from_a_store_that_was_emptied_stays_until_she_would_have_run_out() {
        let first = Snapshot::first(seen("a#1", false, 0).member, 0);
        let (two, _) = first.followed_by(vec![seen("a#1", false, 0), seen("b#1", false, 300)], 1_000, 100);
        let (kept, changed) = two.followed_by(vec![seen("a#1", false, 0)], 1_000, 300);
        assert!(!changed && kept.has_other_takers());
        let (gone, changed) = kept.followed_by(vec![seen("a#1", false, 0)], 1_000, 800);
        assert!(changed && !gone.has_other_takers(), "300 + 200 + 500 ms without a word");
        // Who said that she leaves, or came back as another process, is not waited for.
        let (left, _) = two.followed_by(vec![seen("a#1", false, 0), seen("b#1", true, 0)], 1_000, 200);
        let (left, changed) = left.followed_by(vec![seen("a#1", false, 0)], 1_000, 250);
        assert!(changed && left.named("b").is_none());
        let (new, _) = two.followed_by(vec![seen("a#1", false, 0), seen("b#2", false, 0)], 1_000, 200);
        assert_eq!(new.named("b").map(|member| member.owner.as_str()), Some("b#2"));
    }

    #[test]
    fn after_a_long_silence_of_the_store_everybody_has_time_to_be_heard() {
        let first = Snapshot::first(seen("a#1", false, 0).member, 0);
        let (two, _) = first.followed_by(vec![seen("a#1", false, 0), seen("b#1", false, 0)], 1_000, 100);
        let (back, changed) = two.followed_by(vec![seen("a#1", false, 0)], 1_000, 30_000);
        assert!(!changed && back.has_other_takers());
        let (back, _) = back.followed_by(vec![seen("a#1", false, 0)], 1_000, 30_400);
        assert!(back.has_other_takers());
        let mut last = back;
        for now_ms in [30_800, 31_200] {
            last = last.followed_by(vec![seen("a#1", false, 0)], 1_000, now_ms).0;
        }
        assert!(!last.has_other_takers(), "who has not come back in that time is dead");
    }
}
