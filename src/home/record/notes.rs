//! What happened to a player, for her timeline and for the events: noted by the commands that do it, under the record's
//! lock, until a commit has brought it to the store. Pure; part of the record, but no part of what it says. Bounded: of
//! what is not stored yet the oldest goes first, and that is said.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Record;
use super::document::Blob;
use crate::events::{EndReason, Status};
use crate::ids::{Epoch, SessionId, Version};
use crate::store::{Entry, Goes};

/// Notes of one player that wait for the store: more than her timeline keeps, while the store is away.
pub const NOTES_MAX: usize = 64;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The epoch under which it happened.
    pub epoch: Epoch,
    /// The version of the record that it came with.
    pub version: Version,
    /// When, Unix ms.
    pub at: u64,
    /// To which session, if to one.
    pub session: Option<SessionId>,
    /// What.
    pub what: What,
    /// At which node, if not at this one.
    pub node: Option<Arc<str>>,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A session was opened, by a client or by a service for one.
    Opened {
        /// Its device.
        device: Box<str>,
    },
    /// The client of a service-made session came.
    Bound,
    /// A session was taken up again.
    Resumed,
    /// A session has no link any more.
    LinkLost {
        /// The close code that was said, by whoever closed it; 1005 = none, 1006 = the connection broke.
        code: u16,
    },
    /// Another node serves the player from now on.
    Moved {
        /// The node before, where it is known.
        from: Option<Arc<str>>,
    },
    /// A session is gone.
    Ended(EndReason),
    /// Others see another status.
    Presence(Status),
    /// What happened before is not known, or not all of it.
    Resync,
    /// All of it is to be forgotten.
    Forget,
}

impl What {
    const fn goes(&self) -> Goes {
        match self {
            Self::Presence(_) | Self::Resync => Goes::Events,
            Self::Forget => Goes::Forget,
            _ => Goes::Both,
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::Bound => "bound",
            Self::Resumed => "resumed",
            Self::LinkLost { .. } => "link_lost",
            Self::Moved { .. } => "moved",
            Self::Ended(_) => "ended",
            Self::Presence(_) => "presence",
            Self::Resync => "resync",
            Self::Forget => "forget",
        }
    }
}

/// What happened, as it is stored: an array of these fields, to which later versions may add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened<'a> {
    /// Which kind: `opened` `bound` `resumed` `link_lost` `moved` `ended` `presence` `resync`, or a later version's.
    pub kind: Cow<'a, str>,
    /// When, Unix ms.
    pub at: u64,
    /// The epoch under which it happened.
    pub epoch: u64,
    /// The version of the record that it came with.
    pub version: u64,
    session: Option<Blob>,
    /// At which node.
    pub node: Cow<'a, str>,
    /// The code of a link that was lost; of a session that was kicked.
    pub code: Option<u16>,
    /// Why a session ended: `logout` `expired` `replaced` `session_limit` `banned` `kicked`.
    pub why: Option<Cow<'a, str>>,
    /// For people, where somebody ended it; the device of one that was opened; the node before of one who moved.
    pub text: Option<Cow<'a, str>>,
    /// What others see.
    pub status: Option<Status>,
}

impl Happened<'_> {
    /// Reads what is stored; `None` for what is none of ours.
    #[must_use]
    pub fn read(body: &[u8]) -> Option<Happened<'static>> {
        rmp_serde::from_slice(body).ok()
    }

    /// As it is stored.
    #[must_use]
    pub fn body(&self) -> Bytes {
        rmp_serde::to_vec(self).unwrap_or_default().into()
    }

    /// To which session, if to one.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        let id: [u8; 16] = self.session.as_ref()?.0.as_ref().try_into().ok()?;
        Some(SessionId::from_bytes(id))
    }

    /// What tells it from all else that happened to its player: one change may end several sessions.
    #[must_use]
    pub fn id(&self) -> (u64, u64, &str, Option<SessionId>) {
        (self.epoch, self.version, &self.kind, self.session())
    }

    /// The note that it was made from; `None` for a kind that this version does not make.
    #[must_use]
    pub fn into_note(self) -> Option<Note> {
        let text = || self.text.as_deref().unwrap_or_default();
        let what = match self.kind.as_ref() {
            "opened" => What::Opened { device: text().into() },
            "bound" => What::Bound,
            "resumed" => What::Resumed,
            "link_lost" => What::LinkLost { code: self.code? },
            "moved" => What::Moved { from: self.text.as_deref().map(Arc::from) },
            "ended" => What::Ended(match self.why.as_deref()? {
                "logout" => EndReason::Logout,
                "expired" => EndReason::Expired,
                "replaced" => EndReason::Replaced,
                "session_limit" => EndReason::SessionLimit,
                "banned" => EndReason::Banned { reason: text().into() },
                "kicked" => EndReason::Kicked { code: self.code?, reason: text().into() },
                _ => return None,
            }),
            "presence" => What::Presence(self.status?),
            "resync" => What::Resync,
            "forget" => What::Forget,
            _ => return None,
        };
        Some(Note {
            epoch: Epoch::of(self.epoch),
            version: Version::of(self.version),
            at: self.at,
            session: self.session(),
            what,
            node: Some(self.node.as_ref().into()),
        })
    }
}

impl Note {
    /// As it is stored, by this node.
    #[must_use]
    pub fn happened<'a>(&'a self, here: &'a str) -> Happened<'a> {
        let (mut code, mut why, mut text, mut status) = (None, None, None, None);
        match &self.what {
            What::Opened { device } => text = Some(device.as_ref()),
            What::LinkLost { code: said } => code = Some(*said),
            What::Moved { from } => text = from.as_deref(),
            What::Presence(shown) => status = Some(*shown),
            What::Ended(reason) => {
                why = Some(match reason {
                    EndReason::Logout => "logout",
                    EndReason::Expired => "expired",
                    EndReason::Replaced => "replaced",
                    EndReason::SessionLimit => "session_limit",
                    EndReason::Banned { reason } => {
                        text = Some(reason.as_ref());
                        "banned"
                    }
                    EndReason::Kicked { code: said, reason } => {
                        (code, text) = (Some(*said), Some(reason.as_ref()));
                        "kicked"
                    }
                });
            }
            What::Bound | What::Resumed | What::Resync | What::Forget => {}
        }
        Happened {
            kind: self.what.kind().into(),
            at: self.at,
            epoch: self.epoch.number(),
            version: self.version.number(),
            session: self.session.map(|id| Blob((*id.as_bytes()).into())),
            node: self.node.as_deref().unwrap_or(here).into(),
            code,
            why: why.map(Cow::Borrowed),
            text: text.map(Cow::Borrowed),
            status,
        }
    }
}

/// What happened to a player and is not known to be stored, the oldest first. No room is taken while there is nothing.
#[derive(Debug, Clone, Default)]
pub struct Notes(Vec<Note>);

/// Two records say the same whatever is still to be told of how they came to it.
impl PartialEq for Notes {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Notes {}

impl Notes {
    /// Takes one down. Of what others see only the last counts that the store does not have; when there are too many, the
    /// oldest goes, and the events say so.
    fn push(&mut self, note: Note) {
        if matches!(note.what, What::Presence(_)) {
            self.0.retain(|waiting| !matches!(waiting.what, What::Presence(_)));
        }
        if self.0.len() >= NOTES_MAX {
            self.0.retain(|waiting| waiting.what != What::Resync);
            for _ in 0..2 {
                let oldest = self.0.iter().position(|waiting| waiting.what != What::Forget).unwrap_or(0);
                self.0.remove(oldest);
            }
            let resync = Note { session: None, what: What::Resync, ..note.clone() };
            self.0.push(resync);
        }
        // Most records have one at a time, and a push would make room for four.
        self.0.reserve_exact(1);
        self.0.push(note);
    }

    /// Takes in what another home had noted before.
    pub fn precede(&mut self, earlier: impl IntoIterator<Item = Note>) {
        let later = std::mem::take(&mut self.0);
        earlier.into_iter().chain(later).for_each(|note| self.push(note));
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Note> {
        self.0.iter()
    }

    /// What a commit of the record at this version writes. What is to be forgotten is not written before.
    #[must_use]
    pub fn entries(&self, version: Version, here: &str) -> Vec<Entry> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let told = || self.0.iter().filter(|note| note.version <= version);
        let forgotten = told().rposition_of_forget();
        let entries = told().enumerate().map(|(at, note)| {
            let goes = match note.what.goes() {
                Goes::Both if forgotten.is_some_and(|forget| at < forget) => Goes::Events,
                goes => goes,
            };
            let body = if goes == Goes::Forget { Bytes::new() } else { note.happened(here).body() };
            Entry { version: note.version, goes, body }
        });
        entries.collect()
    }

    /// The store has all up to this version.
    pub fn stored(&mut self, version: Version) {
        if !self.0.is_empty() {
            self.0.retain(|note| note.version > version);
            if self.0.is_empty() {
                self.0 = Vec::new();
            }
        }
    }

    /// What the timeline tells of them, and whether it tells nothing of before.
    #[must_use]
    pub fn timeline(&self, here: &str) -> (Vec<Happened<'static>>, bool) {
        let forgotten = self.0.iter().rposition_of_forget();
        let rest = self.0.iter().skip(forgotten.map_or(0, |at| at + 1));
        let told = rest.filter(|note| note.what.goes() == Goes::Both);
        (told.filter_map(|note| Happened::read(&note.happened(here).body())).collect(), forgotten.is_some())
    }

    /// Two records have met, and what is noted here comes with this version now.
    fn come_with(&mut self, version: Version) {
        self.0.iter_mut().for_each(|note| note.version = version);
    }
}

/// Where the last order to forget stands.
trait Forgets {
    fn rposition_of_forget(self) -> Option<usize>;
}

impl<'a, I: Iterator<Item = &'a Note>> Forgets for I {
    fn rposition_of_forget(self) -> Option<usize> {
        self.enumerate().filter(|(_, note)| note.what == What::Forget).map(|(at, _)| at).last()
    }
}

impl Record {
    /// Notes what came with the present version.
    pub(super) fn note(&mut self, at: u64, session: Option<SessionId>, what: What) {
        self.note_with(self.version, at, session, what);
    }

    /// Notes what moves no version: it is stored with the next one.
    pub(super) fn note_ahead(&mut self, at: u64, session: Option<SessionId>, what: What) {
        self.note_with(self.version.next(), at, session, what);
    }

    fn note_with(&mut self, version: Version, at: u64, session: Option<SessionId>, what: What) {
        self.notes.push(Note { epoch: self.epoch, version, at, session, what, node: None });
    }

    /// Notes that another node served the player before; nothing to do for one who has no session.
    pub fn note_move(&mut self, at: u64, from: Option<Arc<str>>) {
        if !self.sessions.is_empty() {
            self.note_ahead(at, None, What::Moved { from });
        }
    }

    /// What was noted ahead comes with a version of its own, for there may be no other one here. Says whether there was any.
    pub fn tell_ahead(&mut self) -> bool {
        let is_ahead = self.notes.iter().any(|note| note.version > self.version);
        if is_ahead {
            self.version = self.version.next();
        }
        is_ahead
    }

    /// The store has lost what it had: whoever follows the events is to look anew.
    pub fn note_loss(&mut self, at: u64) {
        self.note(at, None, What::Resync);
    }

    /// All notes come with the present version: it has met a record that the store holds.
    pub(super) fn renumber_notes(&mut self) {
        self.notes.come_with(self.version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    fn note(version: u64, what: What) -> Note {
        Note {
            epoch: Epoch::of(7),
            version: Version::of(version),
            at: version,
            session: None,
            what,
            node: None,
        }
    }

    fn kinds(entries: &[Entry]) -> Vec<(String, Goes)> {
        let kind = |entry: &Entry| {
            Happened::read(&entry.body).map_or("-".to_owned(), |happened| happened.kind.into_owned())
        };
        entries.iter().map(|entry| (kind(entry), entry.goes)).collect()
    }

    #[test]
    fn every_note_reads_back_as_it_was_made() {
        let session = Some(SessionId::generate(ShardId::FIRST, 1));
        let whats = [
            What::Opened { device: "pc".into() },
            What::Bound,
            What::Resumed,
            What::LinkLost { code: 4003 },
            What::Moved { from: Some("n1".into()) },
            What::Moved { from: None },
            What::Ended(EndReason::Logout),
            What::Ended(EndReason::Expired),
            What::Ended(EndReason::Replaced),
            What::Ended(EndReason::SessionLimit),
            What::Ended(EndReason::Banned { reason: "cheating".into() }),
            What::Ended(EndReason::Kicked { code: 4800, reason: "lobby closed".into() }),
            What::Presence(Status::Playing),
            What::Resync,
            What::Forget,
        ];
        for what in whats {
            let made = Note { session, ..note(3, what) };
            let stored = made.happened("n2").body();
            let read = Happened::read(&stored).unwrap();
            assert_eq!(read.session(), session);
            assert_eq!(read.into_note(), Some(Note { node: Some("n2".into()), ..made }));
        }
        assert_eq!(Happened::read(b"\x91\x01"), None);
    }

    #[test]
    fn notes_wait_until_the_store_has_their_version() {
        let mut notes = Notes::default();
        notes.push(note(3, What::Opened { device: "pc".into() }));
        notes.push(note(4, What::Presence(Status::Online)));
        notes.push(note(6, What::LinkLost { code: 1006 }));
        let both = |kind: &str| (kind.to_owned(), Goes::Both);
        let shown = ("presence".to_owned(), Goes::Events);
        assert_eq!(kinds(&notes.entries(Version::of(5), "n")), [both("opened"), shown.clone()]);
        notes.stored(Version::of(3));
        assert_eq!(kinds(&notes.entries(Version::of(6), "n")), [shown, both("link_lost")]);
        notes.stored(Version::of(6));
        assert!(notes.entries(Version::of(9), "n").is_empty() && notes.0.capacity() == 0);
    }

    #[test]
    fn what_was_noted_ahead_can_be_told_without_another_change() {
        let mut record = Record::first(Epoch::of(7), Version::of(3));
        assert!(!record.tell_ahead(), "nothing to tell");
        record.note_ahead(1, None, What::Resumed);
        assert!(record.notes.entries(record.version, "n").is_empty());
        let before = record.version;
        assert!(record.tell_ahead());
        assert_eq!(record.version, before.next());
        assert_eq!(record.notes.entries(record.version, "n").len(), 1);
        assert!(!record.tell_ahead(), "it goes with the next commit");
    }

    #[test]
    fn of_what_others_see_only_the_last_is_told_that_is_not_stored() {
        let mut notes = Notes::default();
        for (version, status) in [(1, Status::Online), (2, Status::Busy), (3, Status::Playing)] {
            notes.push(note(version, What::Presence(status)));
        }
        let entries = notes.entries(Version::of(3), "n");
        assert_eq!(entries.len(), 1);
        assert_eq!(Happened::read(&entries[0].body).unwrap().status, Some(Status::Playing));
    }

    #[test]
    fn an_order_to_forget_outlives_all_that_is_too_many() {
        let mut notes = Notes::default();
        notes.push(note(1, What::Ended(EndReason::Logout)));
        notes.push(note(1, What::Forget));
        for version in 2..=200 {
            notes.push(note(version, What::Resumed));
        }
        assert!(notes.iter().any(|note| note.what == What::Forget));
        assert!(notes.0.len() <= NOTES_MAX, "{}", notes.0.len());
    }

    #[test]
    fn when_there_are_too_many_the_oldest_go_and_the_events_say_so() {
        let mut notes = Notes::default();
        for version in 1..=200 {
            notes.push(note(version, What::Resumed));
        }
        assert!(notes.0.len() <= NOTES_MAX, "{}", notes.0.len());
        let resyncs: Vec<_> =
            notes.iter().filter(|note| note.what == What::Resync).map(|note| note.version).collect();
        assert_eq!(resyncs.len(), 1);
        assert_eq!(notes.0.last().map(|note| note.version.number()), Some(200));
        let (timeline, forgets) = notes.timeline("n");
        assert!(!forgets && timeline.len() >= crate::store::TIMELINE_MAX, "{}", timeline.len());
    }

    #[test]
    fn what_is_forgotten_is_told_by_the_events_and_not_by_the_timeline() {
        let mut notes = Notes::default();
        notes.push(note(1, What::Opened { device: "pc".into() }));
        notes.push(note(2, What::Ended(EndReason::Logout)));
        notes.push(note(2, What::Forget));
        notes.push(note(3, What::Opened { device: "web".into() }));
        let event = |kind: &str| (kind.to_owned(), Goes::Events);
        let entries = notes.entries(Version::of(3), "n");
        let expected = [
            event("opened"),
            event("ended"),
            ("-".to_owned(), Goes::Forget),
            ("opened".to_owned(), Goes::Both),
        ];
        assert_eq!(kinds(&entries), expected);
        let (timeline, forgets) = notes.timeline("n");
        assert!(forgets);
        assert_eq!(timeline.iter().map(|told| told.text.as_deref()).collect::<Vec<_>>(), [Some("web")]);
    }
}
