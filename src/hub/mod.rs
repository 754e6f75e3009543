//! Who is connected here: one mailbox a session, from login to end, whatever its links do. Called by `session`,
//! `presence` and `service`. Who is too slow is decided here and nowhere else. Knows no wire: what is pushed is bytes.

mod kept;
mod mailbox;
mod pending;
mod push;
mod slow;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use metrics::{Counter, Gauge};
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use mailbox::Put;
pub use mailbox::{Closing, Control, Frame, LinkNo, Mailbox, Mode, Replay, Taken, Unseen, Wakes};
pub use push::{Push, PushKind, RoomWord};
pub use slow::SlowReader;
use slow::SlowReaders;

use crate::clock;
use crate::ids::{PlayerId, SessionId};
use crate::tasks::{self, Tasks};
use crate::telemetry::metrics::{LINKS_OPEN, PUSHES_COALESCED, PUSHES_DROPPED, SLOW_CLOSES};
use crate::wheel::Wheel;

/// How coarse the watch over silent and stuck links is.
const PULSE_MS: u64 = 250;
/// A write that is stuck for so long is told to whoever asks who reads slowly.
const STUCK_MS: u64 = 1_000;

/// What the hub needs to know.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// Silence of twice this ends a link.
    pub heartbeat: Duration,
    /// Pushes that wait for a slow reader, after joining.
    pub outbox_items_max: usize,
    /// How long one write may be stuck.
    pub slow_close_after: Duration,
    /// Frames kept for a resume.
    pub replay_frames_max: usize,
    /// Bytes kept for a resume.
    pub replay_bytes_max: usize,
}

/// Why a link is given up from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// No frame for twice the heartbeat.
    Silent,
    /// It does not read what it is sent.
    Slow,
    /// Its session has come back from another node, to a mailbox that knows no link.
    Outlived,
}

/// All mailboxes of this node.
pub struct Hub {
    settings: HubSettings,
    mailboxes: DashMap<SessionId, Arc<Mailbox>, ahash::RandomState>,
    pulse: Mutex<Wheel<(Weak<Mailbox>, LinkNo)>>,
    next_link: AtomicU64,
    links: AtomicUsize,
    links_open: Gauge,
    slow_closes: Counter,
    slow: SlowReaders,
    coalesced: Counter,
    dropped_linked: Counter,
    dropped_away: Counter,
}

impl Hub {
    /// Builds the room and starts its watch over links.
    #[must_use]
    pub fn start(settings: HubSettings, tasks: &Tasks) -> Arc<Self> {
        let hub = Arc::new(Self {
            settings,
            mailboxes: DashMap::default(),
            pulse: Mutex::new(Wheel::new(PULSE_MS)),
            next_link: AtomicU64::new(1),
            links: AtomicUsize::new(0),
            links_open: LINKS_OPEN.handle(),
            slow_closes: SLOW_CLOSES.handle(),
            slow: SlowReaders::default(),
            coalesced: PUSHES_COALESCED.handle(),
            dropped_linked: PUSHES_DROPPED.with(&[("link", "up")]),
            dropped_away: PUSHES_DROPPED.with(&[("link", "down")]),
        });
        let (watch, stop) = (Arc::clone(&hub), tasks.clone());
        tasks.spawn_vital("pulse", async move { watch.run_pulse(&stop).await });
        hub
    }

    /// The mailbox of a session.
    #[must_use]
    pub fn mailbox(&self, session: SessionId) -> Option<Arc<Mailbox>> {
        self.mailboxes.get(&session).map(|mailbox| Arc::clone(&mailbox))
    }

    /// The mailbox of a session, made if there is none: then `seq` goes on after `last_seq`, and what was before
    /// counts as missed unless `last_seq` is 0.
    pub fn mailbox_or_new(
        &self,
        session: SessionId,
        player: &PlayerId,
        last_seq: u64,
    ) -> (Arc<Mailbox>, bool) {
        let new = || Arc::new(Mailbox::new(session, player.clone(), last_seq));
        match self.mailboxes.entry(session) {
            // One that is closed and still here belongs to another node, and its notice is on its way.
            Entry::Occupied(present) if !present.get().is_closed() => (Arc::clone(present.get()), false),
            Entry::Occupied(mut closed) => {
                closed.insert(new()).give_up(GivenUp::Outlived);
                (Arc::clone(closed.get()), true)
            }
            Entry::Vacant(place) => (Arc::clone(&place.insert(new())), true),
        }
    }

    /// Takes out of a session's mailbox what its client may not have seen, for the node that is its home from now on.
    /// The link, if any, still hears control.
    pub fn seal(&self, session: SessionId) -> Option<Unseen> {
        self.mailbox(session)?.seal()
    }

    /// Makes the mailbox of a session that comes from another node, as if its link had dropped here.
    pub fn take_in(&self, session: SessionId, player: &PlayerId, unseen: Unseen) {
        let mailbox = Arc::new(Mailbox::of(session, player.clone(), unseen, &self.settings));
        if let Some(older) = self.mailboxes.insert(session, mailbox) {
            older.close();
            older.give_up(GivenUp::Outlived);
        }
    }

    /// Forgets a session's mailbox.
    pub fn remove(&self, session: SessionId) -> Option<Arc<Mailbox>> {
        let (_, mailbox) = self.mailboxes.remove(&session)?;
        mailbox.close();
        Some(mailbox)
    }

    /// Forgets this very mailbox, and says whether it was there; one that was made for the session since stays.
    pub fn remove_this(&self, mailbox: &Arc<Mailbox>) -> bool {
        let is_this = |_: &SessionId, present: &Arc<Mailbox>| Arc::ptr_eq(present, mailbox);
        let was_there = self.mailboxes.remove_if(&mailbox.session(), is_this).is_some();
        if was_there {
            mailbox.close();
        }
        was_there
    }

    /// A number for a new link. A mailbox listens to one link at a time.
    pub fn next_link(&self) -> LinkNo {
        LinkNo::of(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    /// Pushes to a session's mailbox; says whether the session is here.
    pub fn push(&self, session: SessionId, push: &Arc<Push>) -> bool {
        self.mailbox(session).is_some_and(|mailbox| self.push_quietly(&mailbox, push, &mut Wakes::default()))
    }

    /// Pushes to a mailbox. A full one closes its link as too slow, or, without a link, forgets its oldest push.
    pub fn push_to(&self, mailbox: &Mailbox, push: &Arc<Push>) {
        self.push_quietly(mailbox, push, &mut Wakes::default());
    }

    /// The same, but its link is called only with the others of `wakes`; says whether the session is still here.
    pub fn push_quietly(&self, mailbox: &Mailbox, push: &Arc<Push>, wakes: &mut Wakes) -> bool {
        let put = mailbox.push_quietly(push, self.settings.outbox_items_max, wakes);
        match put {
            Put::In { joined: 0 } | Put::Sealed => {}
            Put::In { joined } => self.coalesced.increment(joined as u64),
            Put::InForOthers { forgotten, is_linked } => {
                let dropped = if is_linked { &self.dropped_linked } else { &self.dropped_away };
                dropped.increment(forgotten as u64);
                if is_linked {
                    self.close_slow(mailbox);
                }
            }
        }
        put != Put::Sealed
    }

    fn close_slow(&self, mailbox: &Mailbox) {
        if mailbox.give_up(GivenUp::Slow) {
            self.slow_closes.increment(1);
        }
        self.slow.note(mailbox, true, clock::now().mono_ms);
    }

    /// Who lately read too slowly, the latest first: a few of them.
    #[must_use]
    pub fn slow_readers(&self) -> Vec<SlowReader> {
        self.slow.since(clock::now().mono_ms)
    }

    /// A link is up: from now on it is watched.
    pub fn watch_link(&self, mailbox: &Arc<Mailbox>, link: LinkNo) {
        self.links.fetch_add(1, Ordering::Relaxed);
        self.links_open.increment(1.0);
        let now_ms = clock::now().mono_ms;
        mailbox.heard(now_ms);
        self.pulse.lock().insert(self.next_look(now_ms, now_ms), (Arc::downgrade(mailbox), link));
    }

    /// A link is down.
    pub fn link_down(&self) {
        self.links.fetch_sub(1, Ordering::Relaxed);
        self.links_open.decrement(1.0);
    }

    /// Links that are up.
    #[must_use]
    pub fn links(&self) -> usize {
        self.links.load(Ordering::Relaxed)
    }

    /// All mailboxes. Walks the whole map: for stopping and for mode changes only.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Mailbox>> {
        self.mailboxes.iter().map(|mailbox| Arc::clone(&mailbox)).collect()
    }

    /// The settings in force.
    #[must_use]
    pub const fn settings(&self) -> &HubSettings {
        &self.settings
    }

    fn silence_max_ms(&self) -> u64 {
        u64::try_from(self.settings.heartbeat.as_millis()).unwrap_or(u64::MAX).saturating_mul(2)
    }

    fn slow_max_ms(&self) -> u64 {
        u64::try_from(self.settings.slow_close_after.as_millis()).unwrap_or(u64::MAX)
    }

    fn next_look(&self, heard_ms: u64, now_ms: u64) -> u64 {
        let silence = heard_ms.saturating_add(self.silence_max_ms());
        silence.min(now_ms.saturating_add(self.slow_max_ms())).max(now_ms + 1)
    }

    async fn run_pulse(self: Arc<Self>, stop: &Tasks) {
        let mut ticks = tokio::time::interval(Duration::from_millis(PULSE_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tasks::beat();
            tokio::select! {
                biased;
                () = stop.stopping() => return,
                _ = ticks.tick() => {}
            }
            loop {
                let now_ms = clock::now().mono_ms;
                let due = self.pulse.lock().due(now_ms);
                if due.is_empty() {
                    break;
                }
                for (mailbox, link) in due {
                    if let Some(mailbox) = mailbox.upgrade().filter(|mailbox| mailbox.is_linked_to(link)) {
                        self.look_at(&mailbox, link, now_ms);
                    }
                }
                tasks::beat();
                tokio::task::yield_now().await;
            }
        }
    }

    fn look_at(&self, mailbox: &Arc<Mailbox>, link: LinkNo, now_ms: u64) {
        let (heard_ms, writing_since_ms) = mailbox.signs_of_life();
        if writing_since_ms > 0 && now_ms.saturating_sub(writing_since_ms) >= self.slow_max_ms() {
            self.close_slow(mailbox);
        } else if now_ms.saturating_sub(heard_ms) >= self.silence_max_ms() {
            mailbox.give_up(GivenUp::Silent);
        } else {
            if writing_since_ms > 0 && now_ms.saturating_sub(writing_since_ms) >= STUCK_MS {
                self.slow.note(mailbox, false, now_ms);
            }
            self.pulse.lock().insert(self.next_look(heard_ms, now_ms), (Arc::downgrade(mailbox), link));
        }
    }
}
