//! What happened below finds its link: sessions that ended, links that must close, what became durable, and whether
//! the store is there. One task. Never waits for a link: it puts control into mailboxes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::CloseCode;
use tokio::time::{Instant, MissedTickBehavior};

use super::Sessions;
use super::modes::Modes;
use super::parting::closing_of;
use crate::clock;
use crate::events::{EndReason, LinkEnd, SessionEvent};
use crate::home::Serving;
use crate::hub::{Closing, Control, Mailbox, Mode};
use crate::ids::{PlayerId, SessionId, ShardId};
use crate::tasks;
use crate::wire::end_code;

/// How often `durable` is told at most.
const DURABLE_EVERY: Duration = Duration::from_secs(1);
/// Shards change together: their changes are told together.
const MODE_GATHER: Duration = Duration::from_millis(100);
/// Links closed at a time when the node stops, so that they do not come back all at once.
const CLOSE_BATCH: usize = 500;
/// The pause between two such batches.
const CLOSE_PAUSE: Duration = Duration::from_millis(20);

impl Sessions {
    pub(super) async fn run_notices(self: Arc<Self>) {
        let mut durable = tokio::time::interval(DURABLE_EVERY);
        let mut mode = tokio::time::interval(MODE_GATHER);
        let mut modes = Modes::default();
        durable.set_missed_tick_behavior(MissedTickBehavior::Delay);
        mode.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tasks::beat();
            tokio::select! {
                biased;
                () = self.tasks.stopping() => return,
                _ = durable.tick() => {
                    for (session, durable) in self.events.durable.take() {
                        if let Some(mailbox) = self.hub.mailbox(session) {
                            mailbox.tell(Control::Durable(durable));
                        }
                    }
                }
                _ = mode.tick() => {
                    self.close_parted(Some(Instant::now()));
                    self.tell_modes(&mut modes);
                }
                () = self.events.sessions.filled() => self.route_all(),
            }
        }
    }

    /// What has happened until now has found its link when this returns, whoever took it.
    fn route_all(&self) {
        let _turn = self.routing.lock();
        for (session, event) in self.events.sessions.take() {
            self.route(session, event);
        }
    }

    fn route(&self, session: SessionId, event: SessionEvent) {
        if let Some(ended) = event.ended {
            let (player, status) = (&ended.player, ended.reason.name());
            tracing::info!(operation = "session.end", status, %player, %session, "a session has ended");
            self.forget(session, &ended.watches, closing_for(&ended.reason));
            return;
        }
        let Some(mailbox) = self.hub.mailbox(session) else { return };
        if let Some(notice) = event.rolled_back {
            mailbox.tell(Control::RolledBack(notice));
        }
        match event.link_end {
            None => {}
            Some(LinkEnd::TokenExpired) => {
                mailbox.tell(Control::Close(closing_of(CloseCode::TokenExpired, "the token has expired")));
            }
            Some(LinkEnd::Moved) => {
                self.let_go(&mailbox, &event.watched);
                mailbox.tell(Control::Close(moved()));
            }
            // It has come back since: what is in the mailbox now is of its new life.
            Some(LinkEnd::HandedOver(_))
                if !mailbox.is_closed() && self.home.records().session(session).is_some() => {}
            Some(LinkEnd::HandedOver(home)) => {
                // Its mailbox is nobody's from here on: should the shard come back, its session gets another one.
                let due = Instant::now() + Duration::from_millis(home.within_ms);
                self.let_go(&mailbox, &event.watched);
                mailbox.tell(Control::Moved(home));
                if mailbox.is_linked() {
                    self.parting.lock().push_back((due, mailbox));
                }
            }
        }
    }

    /// Closes the links of players who were handed over long enough ago; all of them, if the node has no more time.
    fn close_parted(&self, now: Option<Instant>) {
        let due = |(due, _): &mut (Instant, Arc<Mailbox>)| now.is_none_or(|now| *due <= now);
        loop {
            // Not in the condition: the lock would be held while the mailbox is told.
            let next = self.parting.lock().pop_front_if(due);
            let Some((_, mailbox)) = next else { return };
            mailbox.tell(Control::Close(moved()));
        }
    }

    /// Waits until the links of all players who were handed over have had their time, at most `deadline`.
    pub async fn see_off(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        // The last ones were handed over a moment ago.
        self.route_all();
        while self.parting.lock().iter().any(|(_, mailbox)| mailbox.is_linked()) && Instant::now() < until {
            tokio::time::sleep(CLOSE_PAUSE).await;
        }
        self.close_parted(None);
    }

    /// Forgets the mailbox of a session whose home is elsewhere. Should it have come back a moment ago, its new mailbox
    /// stays, and so does what is watched through that.
    fn let_go(&self, mailbox: &Arc<Mailbox>, watched: &[PlayerId]) {
        if self.hub.remove_this(mailbox) {
            watched.iter().for_each(|player| self.presence.unwatch(player, mailbox.session()));
        }
    }

    fn forget(&self, session: SessionId, watched: &[PlayerId], closing: Closing) {
        if let Some(mailbox) = self.hub.remove(session) {
            mailbox.tell(Control::Close(closing));
        }
        for player in watched {
            self.presence.unwatch(player, session);
        }
    }

    /// Tells the players of shards that are served otherwise now, and no others.
    fn tell_modes(&self, modes: &mut Modes) {
        let changed: BTreeSet<ShardId> =
            self.events.mode.take().into_iter().map(|(shard, ())| shard).collect();
        modes.changed(changed.iter().copied());
        let now_ms = clock::now().mono_ms;
        let due = modes.due(now_ms);
        if changed.is_empty() && due.is_empty() {
            return;
        }
        let placement = self.home.placement();
        for mailbox in self.hub.all() {
            let shard = placement.shard_of(mailbox.player());
            if due.contains(&shard) {
                self.tell_mode(&mailbox, shard);
            }
            if changed.contains(&shard) && self.serving(shard, now_ms) != Serving::Paused {
                // A pause too short to be told may still have kept pushes back.
                mailbox.wake();
            }
        }
    }

    fn serving(&self, shard: ShardId, now_ms: u64) -> Serving {
        let shard = self.home.shards().get(usize::from(shard.number()));
        shard.map_or(Serving::Paused, |shard| shard.serving(now_ms))
    }

    /// Tells a mailbox how its shard is served now. Two may do so at once: the one that is late looks again.
    pub(super) fn tell_mode(&self, mailbox: &Mailbox, shard: ShardId) {
        let Some(home) = self.home.shards().get(usize::from(shard.number())) else { return };
        loop {
            let now_ms = clock::now().mono_ms;
            let serving = home.serving(now_ms);
            let lag_ms = || home.dirty_since_ms().map(|since_ms| now_ms.saturating_sub(since_ms));
            match serving {
                Serving::Normal => mailbox.tell_mode(Mode::Normal, None),
                Serving::Local => mailbox.tell_mode(Mode::Local, lag_ms()),
                Serving::Paused => mailbox.tell_mode(Mode::Paused, lag_ms()),
            }
            if home.serving(clock::now().mono_ms) == serving {
                return;
            }
        }
    }

    /// Closes every link as the node goes away, also those that a handshake under way still brings; their sessions
    /// can be resumed.
    pub async fn close_all(&self) {
        self.is_going_away.store(true, Ordering::SeqCst);
        for batch in self.hub.all().chunks(CLOSE_BATCH) {
            for mailbox in batch {
                mailbox.tell(going_away());
            }
            tokio::time::sleep(CLOSE_PAUSE).await;
        }
    }

    /// To be asked once a link is attached: the round of [`Sessions::close_all`] may have been too early for it.
    pub(super) fn close_if_going_away(&self, mailbox: &Mailbox) {
        if self.is_going_away.load(Ordering::SeqCst) {
            mailbox.tell(going_away());
        }
    }
}

fn moved() -> Closing {
    closing_of(CloseCode::Moved, "another node serves the player now")
}

fn going_away() -> Control {
    Control::Close(closing_of(CloseCode::GoingAway, "the server is going away"))
}

fn closing_for(reason: &EndReason) -> Closing {
    let told = match reason {
        EndReason::Logout => "logged out",
        EndReason::Expired => "the session's time ran out",
        EndReason::Replaced => "a newer login took this session's place",
        EndReason::SessionLimit => "the player has no place for one more session",
        EndReason::Banned { reason } => reason,
        EndReason::Kicked { reason, .. } => reason,
    };
    Closing { code: end_code(reason), reason: told.into(), retry_after_ms: None }
}
