//! One room on a node, as far as that node's own players are in it: what it says of them to the room's home, and the
//! mailboxes of their sessions with what each knows of the roster. A plain value that `room` keeps behind its lock;
//! takes no other lock than a mailbox's flags.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::roster::Member;
use crate::hub::{Mailbox, Push};
use crate::ids::{Epoch, PlayerId, SessionId, Stamp};

/// What a home elsewhere has told of one room and was not pushed yet, at most; past it everybody is owed a snapshot.
const ARRIVED_MAX: usize = 1_024;

/// Under which tenure of the room's home a session knows the roster of: it knows it no longer when the home has moved, or
/// was out of reach for a moment. None is zero.
pub(super) type Tenure = u64;

/// A session that is told what happens in the room.
struct Receiver {
    mailbox: Arc<Mailbox>,
    /// Has seen the roster, so that a diff is enough; else a snapshot is owed.
    knows: Tenure,
    /// Where the roster stood that it has seen; what was told since it has heard.
    seen: (u64, u64),
}

/// What a node says of a player of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Says {
    pub(super) member: Member,
    /// The epoch of her record.
    pub(super) epoch: Epoch,
    /// How many sessions of hers are in.
    pub(super) sessions: u32,
}

struct Own {
    says: Says,
    receivers: Vec<Receiver>,
}

/// Who is to be told, by what they know.
#[derive(Default)]
pub(super) struct Audience {
    /// Who knows the roster.
    pub(super) told: Vec<Arc<Mailbox>>,
    /// Who did not, and gets a snapshot.
    pub(super) newcomers: Vec<Arc<Mailbox>>,
    /// Who does not, and waits for one: hears what is said, and no more.
    pub(super) waiting: Vec<Arc<Mailbox>>,
}

/// What a home elsewhere has told of the room at one moment.
pub(super) struct Words {
    /// Under which tenure.
    pub(super) tenure: Tenure,
    /// Where the roster stood that was told before: a diff is not enough for who knows less.
    pub(super) since: Stamp,
    /// Where it stands.
    pub(super) ver: Stamp,
    /// For those who know the roster.
    pub(super) changes: Option<Arc<Push>>,
    /// For those who do not.
    pub(super) whole: Option<Arc<Push>>,
    /// For everybody, behind the other two.
    pub(super) messages: Vec<Arc<Push>>,
}

/// What concerns a home elsewhere.
#[derive(Default)]
struct Afar {
    /// Where the roster stood that was told last.
    heard: (u64, u64),
    /// Where it stood at the last diff that those who know the roster were given.
    followed: (u64, u64),
    arrived: VecDeque<Words>,
    /// What was said here and is not told yet, as far as this node knows.
    unsaid: VecDeque<Arc<Push>>,
    /// The home knows, by this tenure, that somebody here is owed a snapshot.
    asked: Tenure,
    /// The home, by this tenure, was sent what is unsaid.
    sent: Tenure,
}

/// The node's own players in the room.
#[derive(Default)]
pub(super) struct Listeners {
    players: HashMap<PlayerId, Own, ahash::RandomState>,
    /// Most often there is none.
    afar: Option<Box<Afar>>,
}

const fn place_of(ver: Stamp) -> (u64, u64) {
    (ver.epoch.number(), ver.version.number())
}

impl Listeners {
    /// Whether nobody is in, and nothing that was said here waits.
    pub(super) fn is_empty(&self) -> bool {
        self.players.is_empty() && self.afar.as_ref().is_none_or(|afar| afar.unsaid.is_empty())
    }

    /// What is said of all players.
    pub(super) fn says(&self) -> impl Iterator<Item = (&PlayerId, &Says)> {
        self.players.iter().map(|(player, own)| (player, &own.says))
    }

    /// What is said of a player now, with the mailboxes of her sessions; what was said before.
    pub(super) fn set(
        &mut self,
        player: &PlayerId,
        says: Says,
        mailboxes: Vec<Arc<Mailbox>>,
    ) -> Option<Says> {
        let old = self.players.remove(player);
        let (old, before) = old.map_or((None, Vec::new()), |own| (Some(own.says), own.receivers));
        let knows = |mailbox: &Arc<Mailbox>| {
            let same = |receiver: &&Receiver| Arc::ptr_eq(&receiver.mailbox, mailbox);
            before.iter().find(same).map(|receiver| (receiver.knows, receiver.seen)).unwrap_or_default()
        };
        let receiver = |mailbox| {
            let (knows, seen) = knows(&mailbox);
            Receiver { mailbox, knows, seen }
        };
        let receivers: Vec<Receiver> = mailboxes.into_iter().map(receiver).collect();
        self.players.insert(player.clone(), Own { says, receivers });
        old
    }

    /// The node says nothing more of a player.
    pub(super) fn remove(&mut self, player: &PlayerId) -> Option<Says> {
        self.players.remove(player).map(|own| own.says)
    }

    /// A session knows the roster as it stood at `ver`, or (tenure zero) is owed a snapshot of it.
    pub(super) fn knows(&mut self, player: &PlayerId, session: SessionId, tenure: Tenure, ver: Stamp) {
        let receivers = self.players.get_mut(player).map(|own| &mut own.receivers).into_iter().flatten();
        for receiver in receivers.filter(|receiver| receiver.mailbox.session() == session) {
            (receiver.knows, receiver.seen) = (tenure, place_of(ver));
        }
    }

    /// Whether somebody does not know the roster.
    pub(super) fn owes(&self, tenure: Tenure) -> bool {
        self.receivers().any(|receiver| receiver.knows != tenure)
    }

    /// Sorts all by what they know, and takes it that who gets a snapshot, if there is one, knows it as it stands. Those
    /// who know are asked for only where there is news.
    pub(super) fn audience(&mut self, tenure: Tenure, is_news: bool, snapshot: Option<Stamp>) -> Audience {
        let mut audience = Audience::default();
        for receiver in self.players.values_mut().flat_map(|own| &mut own.receivers) {
            let to = match (receiver.knows == tenure, snapshot) {
                (true, _) if is_news => &mut audience.told,
                (true, _) => continue,
                (false, Some(ver)) => {
                    (receiver.knows, receiver.seen) = (tenure, place_of(ver));
                    &mut audience.newcomers
                }
                (false, None) => &mut audience.waiting,
            };
            to.push(Arc::clone(&receiver.mailbox));
        }
        audience
    }

    /// A home elsewhere tells of the room; whether there was place for it.
    pub(super) fn hear(&mut self, words: Words) -> bool {
        let afar = self.afar.get_or_insert_default();
        afar.heard = afar.heard.max(place_of(words.ver));
        let has_place = afar.arrived.len() < ARRIVED_MAX;
        if has_place {
            afar.arrived.push_back(words);
        } else {
            (afar.arrived, afar.asked) = (VecDeque::new(), 0);
            self.players.values_mut().flat_map(|own| &mut own.receivers).for_each(|own| own.knows = 0);
        }
        has_place
    }

    /// Whether more was told of the room than what stood at this place.
    pub(super) fn heard_beyond(&self, ver: Stamp) -> bool {
        self.afar.as_ref().is_some_and(|afar| afar.heard > place_of(ver))
    }

    /// Where the roster stood that a home elsewhere has told last.
    pub(super) fn heard(&self) -> (u64, u64) {
        self.afar.as_ref().map(|afar| afar.heard).unwrap_or_default()
    }

    /// Takes what a home elsewhere has told, each with those who are to hear it: who knew the room under another tenure
    /// does not know it now, nor does who was not told what stood before.
    pub(super) fn arrived(&mut self, tenure: Tenure) -> Vec<(Words, Audience)> {
        let arrived = self.afar.as_mut().map(|afar| std::mem::take(&mut afar.arrived)).unwrap_or_default();
        let mut all = Vec::with_capacity(arrived.len());
        for mut words in arrived {
            if words.tenure == tenure {
                self.follow(&words);
            } else {
                (words.changes, words.whole) = (None, None);
            }
            let is_news = words.changes.is_some() || !words.messages.is_empty();
            if let Some(afar) = self.afar.as_mut().filter(|_| words.whole.is_some()) {
                afar.asked = 0;
            }
            let snapshot = words.whole.as_ref().map(|_| words.ver);
            let audience = self.audience(tenure, is_news, snapshot);
            all.push((words, audience));
        }
        all
    }

    /// A home tells only nodes whose players it knows to be in. A snapshot that was on its way when the last of them left
    /// may be given to one of whom it has not heard yet: what it tells then does not follow on what she has seen.
    fn follow(&mut self, words: &Words) {
        let Some(afar) = &mut self.afar else { return };
        let since = place_of(words.since);
        if since > afar.followed {
            let receivers = self.players.values_mut().flat_map(|own| &mut own.receivers);
            receivers.filter(|receiver| receiver.seen < since).for_each(|receiver| receiver.knows = 0);
        }
        if words.changes.is_some() {
            afar.followed = afar.followed.max(place_of(words.ver));
        }
    }

    /// Whether the home elsewhere is to be told now that somebody here is owed a snapshot: once.
    pub(super) fn asks(&mut self, tenure: Tenure) -> bool {
        if !self.owes(tenure) {
            return false;
        }
        std::mem::replace(&mut self.afar.get_or_insert_default().asked, tenure) != tenure
    }

    /// Something is said here for a home elsewhere, if there is place for it.
    pub(super) fn say(&mut self, message: Arc<Push>, waiting_max: usize) -> bool {
        let unsaid = &mut self.afar.get_or_insert_default().unsaid;
        let has_place = unsaid.len() < waiting_max;
        if has_place {
            unsaid.push_back(message);
        }
        has_place
    }

    /// This was said here while the home was, and is not told yet: before what has been said since.
    pub(super) fn say_again(&mut self, messages: impl DoubleEndedIterator<Item = Arc<Push>>) {
        let mut messages = messages.rev().peekable();
        if messages.peek().is_some() {
            let unsaid = &mut self.afar.get_or_insert_default().unsaid;
            messages.for_each(|message| unsaid.push_front(message));
        }
    }

    /// What is to be sent to a home elsewhere: what was said last, or all that is unsaid where the home has moved.
    pub(super) fn unsent(&mut self, tenure: Tenure) -> Vec<Arc<Push>> {
        let Some(afar) = &mut self.afar else { return Vec::new() };
        if std::mem::replace(&mut afar.sent, tenure) == tenure {
            afar.unsaid.back().into_iter().cloned().collect()
        } else {
            afar.unsaid.iter().cloned().collect()
        }
    }

    /// Whether something is unsaid that this home was not sent.
    pub(super) fn is_unsent(&self, tenure: Tenure) -> bool {
        self.afar.as_ref().is_some_and(|afar| afar.sent != tenure && !afar.unsaid.is_empty())
    }

    /// So many of those messages are told, that the home was sent under this tenure.
    pub(super) fn said(&mut self, tenure: Tenure, count: usize) {
        if let Some(afar) = self.afar.as_mut().filter(|afar| afar.sent == tenure) {
            afar.unsaid.drain(..count.min(afar.unsaid.len()));
        }
    }

    /// The home elsewhere is told all anew, and does not know what it was asked before.
    pub(super) fn begin_anew(&mut self) {
        if let Some(afar) = &mut self.afar {
            afar.asked = 0;
        }
    }

    /// This node is the room's home: what is unsaid is its own to say.
    pub(super) fn take_unsaid(&mut self) -> VecDeque<Arc<Push>> {
        self.afar.as_mut().map(|afar| std::mem::take(&mut afar.unsaid)).unwrap_or_default()
    }

    fn receivers(&self) -> impl Iterator<Item = &Receiver> {
        self.players.values().flat_map(|own| &own.receivers)
    }
}
