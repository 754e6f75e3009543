//! From "a room changed" to the mailboxes of its members: changes gather for one tick, are encoded once, and everybody
//! gets the same bytes. Messages do not wait for the tick. One task tells all rooms, so everybody hears what happens
//! in a room in one order. Like `fanout` one of the doors where wire types stop.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use protocol::push::Room as RoomBody;
use protocol::reply::{Member as WireMember, Roster as WireRoster};
use protocol::{Encoding, Text, Value};

use super::listeners::{Audience, Tenure, Words};
use super::rooms::{NoHome, Rooms, Seated};
use super::roster::{Diff, Member, Page};
use super::seat::Seat;
use super::tick::Tick;
use crate::hub::{Mailbox, Push, PushKind, RoomWord};
use crate::ids::{PlayerId, RoomName, SessionId, Stamp};
use crate::tasks::{self, Tasks};

/// What keeps a meta small.
const META_KEY_BYTES_MAX: usize = protocol::limits::META_KEY_BYTES_MAX;
/// Pushes after which others get a turn.
const TURN: usize = 2_000;

impl Rooms {
    pub(super) async fn run(self: Arc<Self>, stop: &Tasks) {
        let mut tick = Tick::default();
        loop {
            tasks::rest();
            tokio::select! {
                biased;
                () = stop.stopping() => return,
                () = self.speaking.filled() => {
                    tasks::beat();
                    for (room, ()) in self.speaking.take() {
                        self.tell(&room).await;
                    }
                }
                () = tick.end() => {}
                () = self.changed(), if !tick.is_under_way() => {}
            }
            tasks::beat();
            // After talk, too: who talks without a pause must not hold back what has changed.
            if let Some(began) = tick.has_ended() {
                self.catch_up();
                for (room, ()) in self.owing.take() {
                    self.tell(&room).await;
                }
                self.meters.fanout.told_since(began);
            } else if !tick.is_under_way() && self.changed().now_or_never().is_some() {
                tick.begins(self.settings.tick);
            }
        }
    }

    async fn changed(&self) {
        tokio::select! {
            () = self.events.rooms.filled() => {}
            () = self.owing.filled() => {}
        }
    }

    /// Tells what has happened in a room since the last time.
    async fn tell(&self, name: &RoomName) {
        let (Seated::Here(tenure) | Seated::At(_, tenure) | Seated::Nowhere(tenure)) = self.seated(name);
        self.tell_arrived(name, tenure).await;
        match self.seated(name) {
            Seated::Here(tenure) => self.tell_turn(name, tenure).await,
            Seated::At(home, tenure) => {
                self.send_rest(name, &home, tenure);
                self.ask_for_whole(name, &home, tenure);
            }
            Seated::Nowhere(_) => {}
        }
    }

    /// Where this node is the room's home: other nodes first, for they have to tell it in their turn.
    async fn tell_turn(&self, name: &RoomName, tenure: Tenure) {
        let (is_held, page_max) = (self.is_held(name), self.settings.page_members_max);
        let turn = self.with_room(name, |room| {
            let turn = room.turn((self.me(), tenure), is_held, page_max, |node| !self.is_busy(node))?;
            Some((turn, room.seat.as_ref().is_some_and(Seat::is_empty)))
        });
        let Some((turn, is_empty)) = turn.flatten() else { return };
        if is_empty {
            // All have left since they said that.
            self.drop_if_empty(name);
        }
        let words = Words {
            tenure,
            since: turn.since,
            ver: turn.ver,
            changes: turn.diff.map(|diff| self.diff_push(name, diff)),
            whole: turn.snapshot.map(|page| self.snapshot_push(name, page)),
            messages: turn.messages.into(),
        };
        self.meters.messages.increment(words.messages.len() as u64);
        self.tell_nodes(name, &turn.hearers, &words);
        for (node, count) in &turn.said {
            self.send_said(node, name, *count);
        }
        if turn.some_wait {
            self.owing.put(name.clone(), ());
        }
        self.push_words(name, &words, &turn.audience).await;
    }

    /// What a home elsewhere has told.
    async fn tell_arrived(&self, name: &RoomName, tenure: Tenure) {
        let arrived = self.with_room(name, |room| room.listeners.arrived(tenure)).unwrap_or_default();
        for (words, audience) in arrived {
            self.push_words(name, &words, &audience).await;
        }
    }

    async fn push_words(&self, name: &RoomName, words: &Words, audience: &Audience) {
        let with_messages = |first: &Option<Arc<Push>>| -> Vec<_> {
            first.iter().chain(&words.messages).map(Arc::clone).collect()
        };
        let told = self.push_all(&with_messages(&words.changes), &audience.told).await
            + self.push_all(&with_messages(&words.whole), &audience.newcomers).await
            + self.push_all(&words.messages, &audience.waiting).await;
        self.heat.add(name, told);
    }

    /// Says how many frames that was.
    async fn push_all(&self, pushes: &[Arc<Push>], mailboxes: &[Arc<Mailbox>]) -> u64 {
        if pushes.is_empty() || mailboxes.is_empty() {
            return 0;
        }
        let frames = (pushes.len() * mailboxes.len()) as u64;
        self.meters.deliveries.increment(frames);
        self.meters.fanout.reaches(mailboxes.len());
        for mailboxes in mailboxes.chunks(TURN / pushes.len().min(TURN)) {
            for mailbox in mailboxes {
                for push in pushes {
                    self.hub.push_to(mailbox, push);
                }
            }
            tasks::beat();
            tokio::task::yield_now().await;
        }
        frames
    }

    /// One whom a service took out hears of it, though she is told no more.
    pub async fn tell_taken_out(&self, name: &RoomName, player: &PlayerId, sessions: &[SessionId]) {
        // Whose home cannot be asked: later than whatever she was told.
        let now = self.look_at(name, None, Some(0)).await;
        let (ver, count) = now.map_or_else(|NoHome| (self.heard_last(name), 0), |now| (now.ver, now.count));
        let leaves = Some(vec![player.as_str().to_owned()]);
        let body = RoomBody { room: name.as_str().to_owned(), ver, count, leaves, ..RoomBody::default() };
        let push = push(name, &body, RoomWord::Whole);
        for session in sessions {
            self.hub.push(*session, &push);
        }
    }

    fn diff_push(&self, name: &RoomName, diff: Diff) -> Arc<Push> {
        let Diff { ver, count, changes } = diff;
        let by_number = RoomBody { partial: Some(true), ..body(name, ver, count) };
        let by_number = push(name, &by_number, RoomWord::Number);
        let Some(changes) = changes else {
            self.meters.counts.increment(1);
            return by_number;
        };
        self.meters.diffs.increment(1);
        let unless_empty = |members: Vec<_>| (!members.is_empty()).then(|| wire_members(members));
        let leaves: Vec<_> = changes.leaves.iter().map(|player| player.as_str().to_owned()).collect();
        let body = RoomBody {
            joins: unless_empty(changes.joins),
            leaves: (!leaves.is_empty()).then_some(leaves),
            updates: unless_empty(changes.updates),
            ..body(name, ver, count)
        };
        push(name, &body, RoomWord::Changes(by_number))
    }

    fn snapshot_push(&self, name: &RoomName, page: Page) -> Arc<Push> {
        self.meters.snapshots.increment(1);
        let Page { ver, count, members, cursor } = page;
        let body = RoomBody {
            members: Some(wire_members(members)),
            cursor: cursor.map(|cursor| cursor.as_str().to_owned()),
            partial: (!self.is_whole(name)).then_some(true),
            ..body(name, ver, count)
        };
        push(name, &body, RoomWord::Whole)
    }

    /// A member's meta as records keep it; the empty one is none.
    ///
    /// # Errors
    /// Which limit it is over, for people.
    pub fn packed_meta(&self, meta: &BTreeMap<Text<'_>, Value>) -> Result<Option<Arc<[u8]>>, &'static str> {
        if meta.is_empty() {
            return Ok(None);
        }
        if meta.len() > self.settings.meta_keys_max {
            return Err("meta has more keys than ready.limits says");
        }
        if meta.keys().any(|key| key.as_str().len() > META_KEY_BYTES_MAX) {
            return Err("a key of meta has at most 64 bytes");
        }
        let packed = rmp_serde::to_vec(meta).unwrap_or_default();
        if packed.len() > self.settings.meta_bytes_max {
            return Err("meta has more bytes than ready.limits says");
        }
        Ok(Some(packed.into()))
    }

    /// One page of a room whose home is here, as answers carry it.
    #[must_use]
    pub fn wire_roster(&self, name: &RoomName, page: Page) -> WireRoster {
        wire_page(page, !self.is_whole(name))
    }
}

/// One page as answers carry it.
pub(super) fn wire_page(page: Page, partial: bool) -> WireRoster {
    WireRoster {
        ver: wire_ver(page.ver),
        count: wire_count(page.count),
        members: wire_members(page.members),
        cursor: page.cursor.map(|cursor| cursor.as_str().to_owned()),
        partial: partial.then_some(true),
        ..WireRoster::default()
    }
}

fn body(name: &RoomName, ver: Stamp, count: usize) -> RoomBody {
    let room = name.as_str().to_owned();
    RoomBody { room, ver: wire_ver(ver), count: wire_count(count), ..RoomBody::default() }
}

fn push(name: &RoomName, body: &RoomBody, says: RoomWord) -> Arc<Push> {
    let mut bytes = Vec::new();
    protocol::codec::encode_body(Encoding::MessagePack, &mut bytes, body);
    Arc::new(Push::new(PushKind::Room { room: name.clone(), says }, bytes.into()))
}

const fn wire_ver(ver: Stamp) -> protocol::Stamp {
    (ver.epoch.number(), ver.version.number())
}

fn wire_count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn wire_members(members: Vec<(PlayerId, Member)>) -> Vec<WireMember> {
    let wire = |(player, member): (PlayerId, Member)| WireMember {
        player: player.as_str().to_owned(),
        online: (!member.online).then_some(false),
        meta: member.meta.as_deref().and_then(meta_of),
    };
    members.into_iter().map(wire).collect()
}

fn meta_of(packed: &[u8]) -> Option<BTreeMap<String, Value>> {
    rmp_serde::from_slice(packed).ok()
}
