//! What others see of a player: the merge over her sessions, and when its counter moves. Pure; part of the record.
//! An invisible session leaks nothing: the view's counter stands still whatever she does unseen.

use super::notes::What;
use super::{Admission, Context, LinkState, Record, Refusal, Session, Visibility, millis};
use crate::events::{PresenceView, Status};
use crate::ids::{SessionId, Stamp, Version};

/// A change of a session's presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceChange {
    /// What the session is doing.
    pub status: Status,
    /// `Some(None)` clears; `None` keeps.
    pub activity: Option<Option<Box<[u8]>>>,
    /// `None` keeps.
    pub visibility: Option<Visibility>,
}

impl Record {
    /// Sets a session's presence.
    ///
    /// # Errors
    /// [`Refusal::CseqGap`], [`Refusal::NoSession`].
    pub fn set_presence(
        &mut self,
        ctx: Context<'_>,
        id: SessionId,
        change: PresenceChange,
        cseq: Option<u64>,
    ) -> Result<Admission, Refusal> {
        if self.admit(ctx, id, cseq)? == Admission::Repeat {
            self.touch_activity(ctx, id)?;
            return Ok(Admission::Repeat);
        }
        self.accept(ctx, id, cseq)?;
        let session = self.session_mut(id)?;
        session.status = change.status;
        if let Some(activity) = change.activity {
            session.activity = activity;
        }
        if let Some(visibility) = change.visibility {
            session.visibility = visibility;
        }
        self.show(ctx);
        Ok(Admission::New)
    }

    /// Works the view out again. The version moves with it, because the view is part of the record.
    pub(super) fn show(&mut self, ctx: Context<'_>) {
        let merged = self.merged(ctx);
        if self.view.shows_the_same(&merged) {
            return;
        }
        self.version = self.version.next();
        if merged.status != self.view.status {
            self.note(ctx.now.unix_ms, None, What::Presence(merged.status));
        }
        let gone = merged.status == Status::Offline;
        // The counter never passes the version, so it starts above whatever was shown before and forgotten.
        let before = self.view.ver.version;
        let counter = if before == Version::ZERO { self.version } else { before.next() };
        self.view = PresenceView {
            ver: Stamp::new(self.epoch, counter),
            last_seen_unix_ms: if gone { self.left_at(ctx) } else { self.view.last_seen_unix_ms },
            ..merged
        };
    }

    /// Nothing is to be seen of the player any more, nor that she was ever seen: whoever keeps near how she looks hears of it.
    pub(super) fn forget_view(&mut self) {
        let before = self.view.ver.version;
        if before > Version::ZERO {
            self.view =
                PresenceView { ver: Stamp::new(self.epoch, before.next()), ..PresenceView::default() };
        }
    }

    /// Whether the view shows what is over: a grace ran out while no home let time do its work.
    #[must_use]
    pub fn is_shown_late(&self, ctx: Context<'_>) -> bool {
        !self.view.shows_the_same(&self.merged(ctx))
    }

    fn merged(&self, ctx: Context<'_>) -> PresenceView {
        let visible: Vec<&Session> = self.sessions.iter().filter(|session| session.is_seen(ctx)).collect();
        let Some(most_active) = visible.iter().max_by_key(|session| session.shown_status()) else {
            return PresenceView::default();
        };
        let mut devices: Vec<Box<str>> = visible
            .iter()
            .filter(|session| session.visibility == Visibility::Full)
            .map(|session| session.device.clone())
            .collect();
        devices.sort_unstable();
        devices.dedup();
        let activity = visible
            .iter()
            .filter(|session| session.visibility == Visibility::Full && session.activity.is_some())
            .max_by_key(|session| session.shown_status())
            .and_then(|session| session.activity.clone());
        PresenceView { status: most_active.shown_status(), activity, devices, ..PresenceView::default() }
    }

    /// When the player was last here: the latest drop of a link, or now.
    fn left_at(&self, ctx: Context<'_>) -> u64 {
        let dropped = self.sessions.iter().filter_map(|session| match session.link {
            LinkState::Detached { since } if !session.is_hidden() => Some(since),
            _ => None,
        });
        match dropped.max() {
            Some(since) if self.sessions.iter().all(|session| session.link != LinkState::Attached) => since,
            _ => ctx.now.unix_ms,
        }
    }
}

impl Session {
    /// Whether others see it now: attached, or dropped less than the grace ago, and not hidden.
    pub(super) fn is_seen(&self, ctx: Context<'_>) -> bool {
        !self.is_hidden() && self.is_present(ctx)
    }

    /// Attached, or dropped less than the grace ago.
    pub(super) fn is_present(&self, ctx: Context<'_>) -> bool {
        match self.link {
            LinkState::Attached => true,
            LinkState::Detached { since } => {
                ctx.now.unix_ms < since.saturating_add(millis(ctx.rules.presence_grace))
            }
            LinkState::Pending { .. } => false,
        }
    }

    fn is_hidden(&self) -> bool {
        self.status == Status::Invisible || self.visibility == Visibility::Hidden
    }

    fn shown_status(&self) -> Status {
        if self.idle && self.status == Status::Online { Status::Away } else { self.status }
    }
}
