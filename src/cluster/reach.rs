//! Which members are not reached: those that live, as the store says, and to which no link stands for longer than a
//! start takes. Pure; `links` notes what dialling came to and tells what has changed.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Snapshot;
use crate::ids::Owner;

/// So long a member may be without a link before that is told: starts, stops and a lost connection take less.
const PATIENCE: Duration = Duration::from_secs(5);

/// A member without a link.
#[derive(Debug)]
struct Silence {
    since: Instant,
    /// What dialling came to last, where it is ours to dial.
    fault: Option<String>,
    is_told: bool,
}

/// A live member to which no link stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// Its name.
    pub node: String,
    /// Where it says that other nodes find it.
    pub peer: Option<String>,
    /// Why, and what to look at.
    pub reason: String,
}

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    Unreached(Unreached),
    Reached { node: String, after: Duration },
}

/// All members without a link.
#[derive(Debug, Default)]
pub(super) struct Reach(HashMap<Owner, Silence>);

impl Reach {
    /// Notes why a member could not be reached.
    pub(super) fn failed(&mut self, peer: &Owner, fault: String, now: Instant) {
        let silence = self.0.entry(peer.clone());
        silence.or_insert(Silence { since: now, fault: None, is_told: false }).fault = Some(fault);
    }

    /// Looks who is without a link now, and says what has changed. Who leaves is not missed.
    pub(super) fn look(
        &mut self,
        snapshot: &Snapshot,
        stands: impl Fn(&Owner) -> bool,
        now: Instant,
    ) -> Vec<News> {
        let is_missed = |owner: &Owner| {
            let member = snapshot.member(owner).filter(|member| !member.says.drains);
            owner != snapshot.me() && member.is_some()
        };
        let mut news = Vec::new();
        self.0.retain(|owner, silence| {
            let stands = stands(owner);
            if stands && silence.is_told {
                news.push(News::Reached { node: owner.node().to_owned(), after: now - silence.since });
            }
            !stands && is_missed(owner)
        });
        for owner in snapshot.seen().iter().map(|seen| &seen.member.owner) {
            if is_missed(owner) && !stands(owner) {
                let new = || Silence { since: now, fault: None, is_told: false };
                let silence = self.0.entry(owner.clone()).or_insert_with(new);
                if now - silence.since >= PATIENCE && !std::mem::replace(&mut silence.is_told, true) {
                    news.extend(unreached(snapshot, owner, silence).map(News::Unreached));
                }
            }
        }
        news
    }

    /// Who is known not to be reached.
    pub(super) fn unreached(&self, snapshot: &Snapshot) -> Vec<Unreached> {
        let told = self.0.iter().filter(|(_, silence)| silence.is_told);
        told.filter_map(|(owner, silence)| unreached(snapshot, owner, silence)).collect()
    }
}

fn unreached(snapshot: &Snapshot, owner: &Owner, silence: &Silence) -> Option<Unreached> {
    let member = snapshot.member(owner)?;
    let peer = member.says.peer.clone();
    let my_address = snapshot.member(snapshot.me()).and_then(|me| me.says.peer.as_deref());
    let reason = match (&silence.fault, my_address, &peer) {
        (Some(fault), ..) => fault.clone(),
        (None, None, None) => "neither of the two says an address for other nodes".to_owned(),
        (None, None, Some(_)) => "this node says no address for other nodes".to_owned(),
        (None, Some(address), _) => format!("it has not connected to this node, which says {address}"),
    };
    Some(Unreached { node: owner.node().to_owned(), peer, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Member, Says, Seen};

    fn seen(owner: &str, peer: Option<&str>, drains: bool) -> Seen {
        let says = Says { peer: peer.map(str::to_owned), drains, ..Says::default() };
        Seen { member: Member { owner: Owner::named(owner), says }, age: Duration::ZERO }
    }

    fn cluster(others: Vec<Seen>) -> Snapshot {
        let me = seen("a#1", Some("a:7702"), false);
        let owner = me.member.owner.clone();
        Snapshot::of(owner, std::iter::once(me).chain(others).collect())
    }

    #[test]
    fn a_member_without_a_link_is_told_once_after_a_while_and_once_when_it_is_reached() {
        let (mut reach, began) = (Reach::default(), Instant::now());
        let snapshot = cluster(vec![seen("b#1", Some("b:7702"), false)]);
        let b = Owner::named("b#1");
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(reach.look(&snapshot, |_| false, at(0)), []);
        reach.failed(&b, "it cannot be reached: refused".to_owned(), at(1));
        assert_eq!(reach.look(&snapshot, |_| false, at(4)), []);
        assert_eq!(reach.unreached(&snapshot), []);
        let unreached = Unreached {
            node: "b".to_owned(),
            peer: Some("b:7702".to_owned()),
            reason: "it cannot be reached: refused".to_owned(),
        };
        assert_eq!(reach.look(&snapshot, |_| false, at(5)), [News::Unreached(unreached.clone())]);
        assert_eq!(reach.look(&snapshot, |_| false, at(6)), []);
        assert_eq!(reach.unreached(&snapshot), [unreached]);
        let back = News::Reached { node: "b".to_owned(), after: Duration::from_secs(9) };
        assert_eq!(reach.look(&snapshot, |_| true, at(9)), [back]);
        assert_eq!(reach.unreached(&snapshot), []);
        // From the beginning, if it is lost again.
        assert_eq!(reach.look(&snapshot, |_| false, at(10)), []);
        assert_eq!(reach.look(&snapshot, |_| true, at(14)), []);
    }

    #[test]
    fn nobody_misses_a_member_that_leaves_or_is_gone() {
        let (mut reach, began) = (Reach::default(), Instant::now());
        let later = began + PATIENCE;
        for others in [vec![seen("b#1", None, true)], vec![]] {
            let there = cluster(vec![seen("b#1", None, false)]);
            assert_eq!(reach.look(&there, |_| false, began), []);
            assert_eq!(reach.look(&cluster(others), |_| false, later), []);
            assert_eq!(reach.0.len(), 0);
        }
    }

    #[test]
    fn who_is_to_dial_and_does_not_is_told_with_the_address_that_it_was_given() {
        let (mut reach, began) = (Reach::default(), Instant::now());
        let snapshot = cluster(vec![seen("b#1", None, false)]);
        reach.look(&snapshot, |_| false, began);
        let news = reach.look(&snapshot, |_| false, began + PATIENCE);
        let [News::Unreached(unreached)] = news.as_slice() else { panic!("{news:?}") };
        assert!(unreached.reason.contains("has not connected to this node, which says a:7702"));
    }
}
