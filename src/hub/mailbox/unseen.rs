//! What a client may not have seen of her session's pushes, as it travels to the node that is her home from now on. Taken
//! out of a mailbox for good, and a mailbox is made of it there: numbers go on where they were. Nodes send it to each
//! other as MessagePack; what cannot have come out of a mailbox is not taken for one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Frame, Inner, LinkNo, Mailbox, remember};
use crate::hub::kept::Kept;
use crate::hub::push::RoomWord;
use crate::hub::{HubSettings, Push, PushKind};
use crate::ids::{Epoch, PlayerId, RoomName, SessionId, Stamp, Version};

/// What a push weighs in memory beside its bytes, about.
const PUSH_BYTES: usize = 64;
/// What numbers stay below, so that every client's doubles hold them.
const SEQ_MAX: u64 = 1 << 53;

/// All that was in a session's mailbox.
#[derive(Debug)]
pub struct Unseen {
    /// The number of the next frame.
    next_seq: u64,
    /// Pushes were forgotten, and the client has not shown yet that she heard of it.
    missed: bool,
    /// Frames that have their numbers, the last of them just below the next one's.
    numbered: VecDeque<Vec<Arc<Push>>>,
    /// What has none yet.
    waiting: Vec<Arc<Push>>,
    /// Messages that the store keeps, sent and seen.
    kept: Option<Box<Kept>>,
}

impl Mailbox {
    /// Takes everything out, for good: nothing is put in or numbered here any more, while the link still hears control.
    /// `None`: that was done before.
    pub(in crate::hub) fn seal(&self) -> Option<Unseen> {
        let mut inner = self.inner.lock();
        if std::mem::replace(&mut inner.is_sealed, true) {
            return None;
        }
        self.close();
        inner.replay_bytes = 0;
        let numbered = std::mem::take(&mut inner.replay).into_iter().map(|frame| frame.pushes).collect();
        Some(Unseen {
            next_seq: inner.next_seq,
            missed: inner.missed,
            numbered,
            waiting: inner.pending.take_all(),
            kept: inner.kept.take(),
        })
    }

    /// The mailbox of a session that comes from another home, as if its link had dropped here.
    pub(in crate::hub) fn of(
        session: SessionId,
        player: PlayerId,
        unseen: Unseen,
        settings: &HubSettings,
    ) -> Self {
        let numbered = u64::try_from(unseen.numbered.len()).unwrap_or(u64::MAX);
        let first_seq = unseen.next_seq.saturating_sub(numbered);
        let mailbox = Self::new(session, player, first_seq.saturating_sub(1));
        let inner = mailbox.inner.into_inner();
        let mut inner = Inner { missed: unseen.missed, kept: unseen.kept, ..inner };
        for pushes in unseen.numbered {
            let frame = Frame { seq: inner.next_seq, pushes };
            inner.next_seq = inner.next_seq.saturating_add(1);
            remember(&mut inner, frame, settings);
        }
        for push in unseen.waiting {
            inner.missed |= inner.pending.make_room(settings.outbox_items_max) > 0;
            inner.pending.push_back(push);
        }
        Self { inner: parking_lot::Mutex::new(inner), owes_looks: AtomicBool::new(true), ..mailbox }
    }

    /// The client is still to be told how those look whom she watches: something has come between.
    pub fn owe_looks(&self) {
        self.owes_looks.store(true, Ordering::Relaxed);
    }

    /// She has been told, through this link. What has come between since, a newer link is to tell: an older one says
    /// nothing about that.
    pub fn looks_told(&self, link: LinkNo) {
        let inner = self.inner.lock();
        if inner.link == link {
            self.owes_looks.store(false, Ordering::Relaxed);
        }
    }

    /// Whether the client is still to be told how those look whom she watches.
    #[must_use]
    pub fn owes_looks(&self) -> bool {
        self.owes_looks.load(Ordering::Relaxed)
    }
}

impl Unseen {
    /// What it weighs in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let pushes = self.numbered.iter().flatten().chain(&self.waiting);
        pushes.map(|push| PUSH_BYTES + push.bytes()).sum::<usize>() + size_of::<Self>()
    }

    /// As nodes send it.
    #[must_use]
    pub fn packed(&self) -> Bytes {
        let (sent, seen) = self.kept.as_ref().map(|kept| kept.all()).unwrap_or_default();
        let packed = Packed {
            next_seq: self.next_seq,
            missed: self.missed,
            numbered: self
                .numbered
                .iter()
                .map(|pushes| pushes.iter().map(|push| Item::of(push)).collect())
                .collect(),
            waiting: self.waiting.iter().map(|push| Item::of(push)).collect(),
            sent: sent.iter().map(|(seq, id)| (*seq, halves(*id))).collect(),
            seen: seen.iter().copied().map(halves).collect(),
        };
        // A value of these types always has its MessagePack.
        rmp_serde::to_vec(&packed).unwrap_or_default().into()
    }

    /// The same, read again; `None` if that is none.
    #[must_use]
    pub fn unpacked(bytes: &[u8]) -> Option<Self> {
        let packed: Packed = rmp_serde::from_slice(bytes).ok()?;
        let count = u64::try_from(packed.numbered.len()).ok()?;
        if packed.next_seq > SEQ_MAX || count >= packed.next_seq || packed.numbered.iter().any(Vec::is_empty)
        {
            return None;
        }
        let sent: Vec<_> = packed.sent.into_iter().map(|(seq, id)| (seq, whole(id))).collect();
        let seen: Vec<_> = packed.seen.into_iter().map(whole).collect();
        let kept = Kept::known(sent, seen)?;
        let read = |items: Vec<Item>| items.into_iter().map(Item::read).collect::<Option<Vec<_>>>();
        Some(Self {
            next_seq: packed.next_seq,
            missed: packed.missed,
            numbered: packed.numbered.into_iter().map(read).collect::<Option<_>>()?,
            waiting: read(packed.waiting)?,
            kept: (!kept.is_empty()).then(|| Box::new(kept)),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Packed {
    next_seq: u64,
    missed: bool,
    numbered: Vec<Vec<Item>>,
    waiting: Vec<Item>,
    sent: Vec<(u64, (u64, u64))>,
    seen: Vec<(u64, u64)>,
}

/// One push.
#[derive(Serialize, Deserialize)]
struct Item {
    kind: Kind,
    body: Bytes,
    kept: Option<(u64, u64)>,
}

#[derive(Serialize, Deserialize)]
enum Kind {
    Presence {
        player: String,
        ver: (u64, u64),
    },
    Whole {
        room: String,
    },
    /// With the body of the number that stands for it.
    Changes {
        room: String,
        number: Bytes,
    },
    Number {
        room: String,
    },
    Message,
}

impl Item {
    fn of(push: &Push) -> Self {
        let kind = match push.kind() {
            PushKind::Presence { player, ver } => Kind::Presence {
                player: player.as_str().to_owned(),
                ver: (ver.epoch.number(), ver.version.number()),
            },
            PushKind::Room { room, says } => {
                let room = room.as_str().to_owned();
                match says {
                    RoomWord::Whole => Kind::Whole { room },
                    RoomWord::Changes(number) => Kind::Changes { room, number: number.msgpack().clone() },
                    RoomWord::Number => Kind::Number { room },
                }
            }
            PushKind::Message => Kind::Message,
        };
        Self { kind, body: push.msgpack().clone(), kept: push.kept_id().map(halves) }
    }

    fn read(self) -> Option<Arc<Push>> {
        let about =
            |room: String, says: RoomWord| Some(PushKind::Room { room: RoomName::parse(&room).ok()?, says });
        let kind = match self.kind {
            Kind::Presence { player, ver: (epoch, version) } => {
                let ver = Stamp::new(Epoch::of(epoch), Version::of(version));
                PushKind::Presence { player: PlayerId::parse(&player).ok()?, ver }
            }
            Kind::Whole { room } => about(room, RoomWord::Whole)?,
            Kind::Changes { room, number } => {
                let number = Push::new(about(room.clone(), RoomWord::Number)?, number);
                about(room, RoomWord::Changes(Arc::new(number)))?
            }
            Kind::Number { room } => about(room, RoomWord::Number)?,
            Kind::Message => match self.kept {
                Some(id) => return Some(Arc::new(Push::kept(whole(id), self.body))),
                None => PushKind::Message,
            },
        };
        Some(Arc::new(Push::new(kind, self.body)))
    }
}

const fn halves(id: u128) -> (u64, u64) {
    ((id >> 64) as u64, id as u64)
}

const fn whole((high, low): (u64, u64)) -> u128 {
    (high as u128) << 64 | low as u128
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::mailbox::{LinkNo, Put, Wakes};
    use crate::ids::ShardId;
    use proptest::prelude::*;
    use std::time::Duration;

    const LINK: LinkNo = LinkNo(1);

    fn settings() -> HubSettings {
        HubSettings {
            heartbeat: Duration::from_secs(15),
            outbox_items_max: 6,
            slow_close_after: Duration::from_secs(10),
            replay_frames_max: 5,
            replay_bytes_max: 1_000,
        }
    }

    fn mailbox() -> Mailbox {
        let mailbox =
            Mailbox::new(SessionId::generate(ShardId::FIRST, 1), PlayerId::parse("ann").unwrap(), 0);
        mailbox.attach(LINK);
        mailbox
    }

    fn puts(mailbox: &Mailbox, push: &Arc<Push>) -> Put {
        mailbox.push_quietly(push, settings().outbox_items_max, &mut Wakes::default())
    }

    /// It goes to another node, over the wire.
    fn travels(mailbox: &Mailbox) -> Mailbox {
        let packed = mailbox.seal().unwrap().packed();
        Mailbox::of(mailbox.session, mailbox.player.clone(), Unseen::unpacked(&packed).unwrap(), &settings())
    }

    fn sent(mailbox: &Mailbox) -> Vec<(u64, Vec<Bytes>)> {
        let mut sent = Vec::new();
        let bodies = |frame: &Frame| frame.pushes.iter().map(|push| push.msgpack().clone()).collect();
        mailbox.take(LINK, &settings(), true, |frame| sent.push((frame.seq, bodies(frame))));
        sent
    }

    /// A push of any kind.
    fn push(kind: u8, number: u64) -> Arc<Push> {
        let (name, body) = (format!("p{}", kind % 2), Bytes::from(format!("{kind}-{number}")));
        let room = |says| PushKind::Room { room: RoomName::parse("hall").unwrap(), says };
        let number_of = || Arc::new(Push::new(room(RoomWord::Number), Bytes::from(format!("#{number}"))));
        let kind = match kind {
            0 | 1 => {
                let ver = Stamp::new(Epoch::of(1), Version::of(number));
                PushKind::Presence { player: PlayerId::parse(&name).unwrap(), ver }
            }
            2 => room(RoomWord::Whole),
            3 => room(RoomWord::Changes(number_of())),
            4 => room(RoomWord::Number),
            5 => return Arc::new(Push::kept(u128::from(number) << 70 | 1, body)),
            _ => PushKind::Message,
        };
        Arc::new(Push::new(kind, body))
    }

    #[test]
    fn nothing_comes_into_a_mailbox_that_is_sealed_and_nothing_gets_a_number_there() {
        let mailbox = mailbox();
        assert_eq!(puts(&mailbox, &push(6, 1)), Put::In { joined: 0 });
        let there = travels(&mailbox);
        assert_eq!(puts(&mailbox, &push(6, 2)), Put::Sealed);
        assert!(sent(&mailbox).is_empty() && mailbox.seal().is_none() && mailbox.is_closed());
        assert_eq!(puts(&there, &push(6, 2)), Put::In { joined: 0 });
        assert!(!there.is_closed() && there.owes_looks());
        there.attach(LINK);
        assert_eq!(sent(&there), [(1, vec![Bytes::from("6-1")]), (2, vec![Bytes::from("6-2")])]);
    }

    #[test]
    fn an_older_link_does_not_say_that_its_client_was_told_what_a_newer_one_owes() {
        let (mailbox, newer) = (mailbox(), LinkNo::of(2));
        mailbox.attach(LINK);
        mailbox.owe_looks();
        mailbox.attach(newer);
        mailbox.looks_told(LINK);
        assert!(mailbox.owes_looks());
        mailbox.looks_told(newer);
        assert!(!mailbox.owes_looks());
    }

    #[test]
    fn what_cannot_have_been_in_a_mailbox_is_not_taken() {
        let item = |kind| Item { kind, body: Bytes::from("x"), kept: None };
        let packed = |next_seq, numbered| {
            let (waiting, sent, seen) = Default::default();
            rmp_serde::to_vec(&Packed { next_seq, missed: false, numbered, waiting, sent, seen }).unwrap()
        };
        let message = || vec![item(Kind::Message)];
        assert!(Unseen::unpacked(&packed(2, vec![message()])).is_some());
        let forged = || vec![item(Kind::Whole { room: "no room\u{0}".to_owned() })];
        let wrong = [
            packed(1, vec![message()]),
            packed(3, vec![message(), Vec::new()]),
            packed(0, Vec::new()),
            packed(SEQ_MAX + 1, Vec::new()),
            packed(2, vec![forged()]),
            vec![0xc1],
        ];
        for bytes in wrong {
            assert!(Unseen::unpacked(&bytes).is_none(), "{bytes:?}");
        }
    }

    #[test]
    fn a_node_of_narrower_bounds_keeps_what_fits_and_tells_the_rest_as_missed() {
        let mailbox = mailbox();
        for number in 0..4 {
            puts(&mailbox, &push(6, number));
        }
        sent(&mailbox);
        let packed = mailbox.seal().unwrap().packed();
        let narrow = HubSettings { replay_frames_max: 2, ..settings() };
        let unseen = Unseen::unpacked(&packed).unwrap();
        let there = Mailbox::of(mailbox.session, mailbox.player.clone(), unseen, &narrow);
        assert!(!there.resume(2).missed);
        assert!(there.resume(1).missed);
    }

    proptest! {
        /// Whatever was pushed, written and seen before and after: a mailbox that has travelled answers a resume as one
        /// that has stayed.
        #[test]
        fn a_client_cannot_tell_whether_her_mailbox_has_travelled(
            steps in proptest::collection::vec((0_u8..12, 0_u64..6), 1..60),
            travel_at in 0_usize..60,
            seen_last in 0_u64..8,
        ) {
            let (stays, mut goes) = (mailbox(), mailbox());
            let (mut number, mut written) = (0, 0);
            for (at, (kind, seen)) in steps.into_iter().enumerate() {
                if at == travel_at {
                    goes = travels(&goes);
                    goes.attach(LINK);
                    stays.attach(LINK);
                    prop_assert_eq!(stays.resume(written), goes.resume(written));
                }
                match kind {
                    0..=6 => {
                        number += 1;
                        // Who is too slow in one is too slow in the other.
                        prop_assert_eq!(puts(&stays, &push(kind, number)), puts(&goes, &push(kind, number)));
                    }
                    7 | 8 => {
                        let frames = sent(&stays);
                        written = frames.last().map_or(written, |(seq, _)| *seq);
                        prop_assert_eq!(frames, sent(&goes));
                    }
                    9 => {
                        let seen = written.saturating_sub(seen);
                        stays.seen(seen);
                        goes.seen(seen);
                        prop_assert_eq!(stays.take_seen(), goes.take_seen());
                    }
                    _ => {
                        stays.settled(LINK);
                        goes.settled(LINK);
                    }
                }
            }
            let last_seq = written.saturating_sub(seen_last);
            for mailbox in [&stays, &goes] {
                mailbox.attach(LINK);
            }
            prop_assert_eq!(stays.resume(last_seq), goes.resume(last_seq));
            prop_assert_eq!(sent(&stays), sent(&goes));
        }
    }
}
