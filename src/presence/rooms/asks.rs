//! What is asked of a room's home elsewhere: a place for one who is about to enter, a page of the roster. Questions and
//! answers are letters, so that a page stands where it was taken among what is told of the room. Whoever asks waits a
//! second at most, also for a home that is on its way.

use std::sync::Arc;
use std::time::Duration;

use protocol::reply::Roster as WireRoster;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::letters::{Answer, Ask, Letter, Named, PageTold};
use super::nodes::{Nodes, Seated};
use super::{NoPlace, Place, Rooms};
use crate::clock::millis;
use crate::ids::{Owner, PlayerId, RoomName, SessionId, Stamp};
use crate::presence::listeners::Tenure;
use crate::presence::roster::Page;
use crate::presence::telling::wire_page;
use crate::presence::words::Name;

/// How long whoever asks waits, at most.
const WITHIN: Duration = Duration::from_secs(1);
/// Questions of this node that wait for an answer.
const ASKED_MAX: usize = 16_384;
/// How long a place is kept for a player of another node: until her node says that she is in.
const KEPT: Duration = Duration::from_secs(5);
/// Places that are kept so.
const KEPT_MAX: usize = 65_536;

/// Nobody is known to be the room's home, or it does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoHome;

/// A question that waits; taken back however that ends.
struct Asked<'a> {
    nodes: &'a Nodes,
    id: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.nodes.asking.lock().remove(&self.id);
    }
}

impl Nodes {
    async fn ask(&self, home: &Owner, room: &RoomName, ask: Ask, until: Instant) -> Result<Answer, NoHome> {
        let (id, (sender, receiver)) = (self.number(), oneshot::channel());
        {
            let mut asking = self.asking.lock();
            if asking.len() >= ASKED_MAX {
                return Err(NoHome);
            }
            asking.insert(id, (home.clone(), sender));
        }
        let _asked = Asked { nodes: self, id };
        self.send(home, &Letter::Ask { id, room: Named(room.clone()), ask });
        match timeout_at(until, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            // A link that ended takes its questions with it.
            Ok(Err(_)) | Err(_) => Err(NoHome),
        }
    }

    /// Waits until a room has another home than this answer came from, if it does.
    async fn moved(&self, room: &RoomName, from: Tenure, until: Instant) -> Result<(), NoHome> {
        loop {
            let moved = self.moved.notified();
            let (Seated::Here(tenure) | Seated::At(_, tenure) | Seated::Nowhere(tenure)) =
                self.seated(self.shard_of(room));
            if tenure != from {
                return Ok(());
            }
            timeout_at(until, moved).await.map_err(|_| NoHome)?;
        }
    }
}

impl Rooms {
    /// Waits for a room's home to be known, not longer than whoever asks may wait.
    ///
    /// # Errors
    /// [`NoHome`].
    pub async fn seek(&self, name: &RoomName) -> Result<(), NoHome> {
        let Some(nodes) = &self.nodes else { return Ok(()) };
        let until = Instant::now() + WITHIN;
        while let Seated::Nowhere(tenure) = self.seated(name) {
            nodes.moved(name, tenure, until).await?;
        }
        Ok(())
    }

    /// Keeps a place for a player who is about to enter, wherever the room is at home.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub async fn keep_place(self: &Arc<Self>, name: &RoomName, player: &PlayerId) -> Result<Place, NoPlace> {
        let Some(nodes) = &self.nodes else { return self.reserve(name, player) };
        self.catch_up();
        let until = Instant::now() + WITHIN;
        loop {
            let tenure = match self.seated(name) {
                Seated::Here(_) => return self.reserve(name, player),
                Seated::Nowhere(tenure) => tenure,
                Seated::At(home, tenure) => {
                    let ask = Ask::Reserve { player: Name(player.clone()) };
                    match nodes.ask(&home, name, ask, until).await {
                        Ok(Answer::Kept { place: number }) => {
                            let (rooms, room) = (Arc::clone(self), name.clone());
                            return Ok(Place { rooms, room, number, kept_by: Some(home) });
                        }
                        Ok(Answer::RoomFull) => return Err(NoPlace::RoomFull),
                        Ok(Answer::TooManyRooms) => return Err(NoPlace::TooManyRooms),
                        Ok(Answer::NotHere | Answer::Page(_)) | Err(NoHome) => tenure,
                    }
                }
            };
            nodes.moved(name, tenure, until).await.map_err(|NoHome| NoPlace::NoHome)?;
        }
    }

    /// One page of a room's members, wherever the room is at home, as answers carry it.
    ///
    /// # Errors
    /// [`NoHome`].
    pub async fn look_at(
        &self,
        name: &RoomName,
        after: Option<&str>,
        limit: Option<usize>,
    ) -> Result<WireRoster, NoHome> {
        let (page, partial, _) = self.ask_page(name, after, limit).await?;
        Ok(wire_page(page, partial))
    }

    /// The roster for a session that has just entered a room whose home is elsewhere. To be awaited by whoever writes
    /// the answer: what the session is told next is told behind it.
    ///
    /// # Errors
    /// [`NoHome`]: she is in, and is told when the home can be asked.
    pub async fn enter_elsewhere(
        &self,
        name: &RoomName,
        player: &PlayerId,
        session: SessionId,
    ) -> Result<WireRoster, NoHome> {
        let (page, partial, tenure) = self.ask_page(name, None, None).await?;
        self.entered(name, player, session, (page.ver, tenure, partial));
        Ok(wire_page(page, partial))
    }

    /// A session has got this page. If more is known here by now than the page says, or all is not known there, it does
    /// not know the roster: it may have missed what is between, and is owed a snapshot.
    fn entered(
        &self,
        name: &RoomName,
        player: &PlayerId,
        session: SessionId,
        (ver, asked, partial): (Stamp, Tenure, bool),
    ) {
        self.with_room(name, |room| {
            let (Seated::Here(tenure) | Seated::At(_, tenure) | Seated::Nowhere(tenure)) = self.seated(name);
            let knows = !partial && asked == tenure && !room.listeners.heard_beyond(ver);
            room.listeners.knows(player, session, if knows { tenure } else { 0 }, ver);
        });
        self.owing.put(name.clone(), ());
    }

    async fn ask_page(
        &self,
        name: &RoomName,
        after: Option<&str>,
        limit: Option<usize>,
    ) -> Result<(Page, bool, Tenure), NoHome> {
        // What was changed here before is told before the question.
        self.catch_up();
        let until = Instant::now() + WITHIN;
        loop {
            let tenure = match (self.seated(name), &self.nodes) {
                (Seated::Here(tenure), _) => {
                    return Ok((self.page(name, after, limit), !self.is_whole(name), tenure));
                }
                (Seated::At(home, tenure), Some(nodes)) => {
                    let limit = limit.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX));
                    let ask = Ask::Page { after: after.map(str::to_owned), limit };
                    if let Ok(Answer::Page(told)) = nodes.ask(&home, name, ask, until).await {
                        let partial = told.partial;
                        return told.read().map(|page| (page, partial, tenure)).ok_or(NoHome);
                    }
                    tenure
                }
                (Seated::Nowhere(tenure) | Seated::At(_, tenure), _) => tenure,
            };
            let Some(nodes) = &self.nodes else { return Err(NoHome) };
            nodes.moved(name, tenure, until).await?;
        }
    }

    /// Behind what was told last of a room: for one who is told no more.
    pub(in crate::presence) fn heard_last(&self, name: &RoomName) -> protocol::Stamp {
        let heard = self.with_room(name, |room| room.listeners.heard()).unwrap_or_default();
        (heard.0, heard.1.saturating_add(1))
    }

    /// Answers another node's question.
    pub(super) fn hear_ask(&self, from: &Owner, id: u64, name: &RoomName, ask: Ask) {
        let Some(nodes) = &self.nodes else { return };
        let answer = match ask {
            _ if !nodes.is_here(nodes.shard_of(name)) => Answer::NotHere,
            // Pages can be asked for faster than a link carries them.
            Ask::Page { .. } if nodes.post.is_busy(from) => Answer::NotHere,
            Ask::Reserve { player: Name(player) } => self.keep_for(nodes, name, &player),
            Ask::Page { after, limit } => {
                let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
                let page = self.page(name, after.as_deref(), limit);
                Answer::Page(PageTold::of(&page, !self.is_whole(name)))
            }
        };
        nodes.send(from, &Letter::Answer { id, answer });
    }

    fn keep_for(&self, nodes: &Nodes, name: &RoomName, player: &PlayerId) -> Answer {
        let mut kept = nodes.kept.lock();
        if kept.len() >= KEPT_MAX {
            return Answer::TooManyRooms;
        }
        match self.reserve_place(name, player) {
            Ok(place) => {
                kept.push_back((nodes.post.now_ms() + millis(KEPT), name.clone(), place));
                Answer::Kept { place }
            }
            Err(NoPlace::RoomFull) => Answer::RoomFull,
            Err(NoPlace::TooManyRooms | NoPlace::NoHome) => Answer::TooManyRooms,
        }
    }

    /// Gives up places that were kept long enough.
    pub(super) fn release_kept(&self) {
        let Some(nodes) = &self.nodes else { return };
        let now_ms = nodes.post.now_ms();
        loop {
            let due = nodes.kept.lock().pop_front_if(|(until_ms, ..)| *until_ms <= now_ms);
            let Some((_, name, place)) = due else { return };
            self.release(&name, place);
        }
    }

    /// A place is not kept any longer.
    pub(super) fn release(&self, name: &RoomName, place: u64) {
        self.with_room(name, |room| room.seat.as_mut().map(|seat| seat.release(place)));
        self.drop_if_empty(name);
    }

    /// A home elsewhere has answered.
    pub(super) fn hear_answer(&self, from: &Owner, id: u64, answer: Answer) {
        let Some(nodes) = &self.nodes else { return };
        let asking = nodes.asking.lock().remove(&id);
        match asking {
            Some((asked, sender)) if asked == *from => drop(sender.send(answer)),
            // Nobody waits for it any more.
            _ => {
                if let Answer::Kept { .. } = answer {
                    tracing::debug!(operation = "rooms", %from, "a place was kept for nobody");
                }
            }
        }
    }
}
