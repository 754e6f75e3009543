//! One attached player: login and resume make an attachment, a link's task serves it, and notices from below find
//! their link. Called by `gate`, which made a socket into an identity. Never calls `service`, never holds a record.

mod answer;
mod dispatch;
mod fragments;
mod gulp;
mod link;
mod machine;
mod meters;
mod modes;
mod notices;
mod opening;
mod outbox;
mod parting;
mod traced;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::{self, Now};
use crate::events::Events;
use crate::home::{Cell, Home};
use crate::hub::{Hub, LinkNo, Mailbox};
use crate::ids::{PlayerId, RoomPattern, SessionId, ShardId};
use crate::limits::Rates;
use crate::presence::Presence;
use crate::tasks::Tasks;

pub use protocol::limits::PLAYERS_PER_CALL_MAX;

pub use crate::home::Whereabouts;
pub use crate::hub::Closing;
pub use fragments::{MessageBounds, Scan, WholeMessages};
pub use gulp::Gulp;
pub use link::{ClientSocket, Link, LinkSocket};
pub use opening::{EnterError, Entered};
pub use parting::{GOODBYE, closing_for, goodbye, linger, part};
pub use words::house_status;

/// Verifies a token on a live link: what it says, or whether it had been good.
pub type TokenCheck = dyn Fn(&str, Now) -> Result<Vouched, TokenRefused> + Send + Sync;

/// What a good token says.
#[derive(Debug, Clone)]
pub struct Vouched {
    /// Whose it is.
    pub player: PlayerId,
    /// When it runs out, Unix ms.
    pub expires_at_unix_ms: u64,
    /// When it was issued, Unix ms; 0 if it does not say.
    pub issued_at_unix_ms: u64,
    /// Rooms that it opens.
    pub rooms: Box<[RoomPattern]>,
}

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRefused {
    /// Not good.
    Invalid,
    /// Was good.
    Expired,
}

/// What the room needs to know.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// The node's name, as clients are told.
    pub node: String,
    /// Clients say something at least this often.
    pub heartbeat: Duration,
    /// Largest frame from a client.
    pub frame_bytes_max: usize,
    /// Commands of one link that may wait for the store.
    pub durable_in_flight_max: usize,
    /// Whether players may push to each other.
    pub player_messages: bool,
    /// This deployment's limits by name, for `ready`.
    pub limits: BTreeMap<String, u64>,
}

/// The room: everything that serving a link needs.
pub struct Sessions {
    settings: SessionSettings,
    home: Arc<Home>,
    hub: Arc<Hub>,
    presence: Arc<Presence>,
    events: Arc<Events>,
    rates: Arc<Rates>,
    token_check: Box<TokenCheck>,
    meters: meters::Meters,
    /// Held by who brings events to their links.
    routing: Mutex<()>,
    /// Links of players who were handed over, and when they close: one a session that was here.
    parting: Mutex<VecDeque<(Instant, Arc<Mailbox>)>>,
    /// Links that come now are closed at once.
    is_going_away: AtomicBool,
    tasks: Tasks,
}

impl Sessions {
    /// Builds the room and starts its notices.
    #[must_use]
    #[allow(clippy::too_many_arguments, reason = "the composition root hands each room below, once")]
    pub fn start(
        settings: SessionSettings,
        home: Arc<Home>,
        hub: Arc<Hub>,
        presence: Arc<Presence>,
        events: Arc<Events>,
        rates: Arc<Rates>,
        token_check: Box<TokenCheck>,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let sessions = Arc::new(Self {
            settings,
            home,
            hub,
            presence,
            events,
            rates,
            token_check,
            meters: meters::Meters::new(),
            routing: Mutex::default(),
            parting: Mutex::default(),
            is_going_away: AtomicBool::new(false),
            tasks: tasks.clone(),
        });
        tasks.spawn_vital("notices", Arc::clone(&sessions).run_notices());
        sessions
    }

    /// The tasks that links are spawned on.
    #[must_use]
    pub const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The settings in force.
    #[must_use]
    pub const fn settings(&self) -> &SessionSettings {
        &self.settings
    }

    /// Which shard a player belongs to.
    #[must_use]
    pub fn shard_of(&self, player: &PlayerId) -> ShardId {
        self.home.placement().shard_of(player)
    }

    /// The shard of a session of which this is a ticket; `None` if it is none.
    #[must_use]
    pub fn shard_of_ticket(&self, session: &str, ticket: &str) -> Option<ShardId> {
        self.home.shard_of_ticket(SessionId::parse(session).ok()?, ticket)
    }

    /// Counts a link that was closed before it was anybody's.
    pub fn count_close(&self, code: u16) {
        self.meters.closed(code);
    }

    /// Where a shard's home is.
    pub async fn whereabouts(&self, shard: ShardId) -> Whereabouts {
        self.home.whereabouts(shard).await
    }

    /// It is not where it was said to be: the store is asked anew.
    pub async fn forget_whereabouts(&self, shard: ShardId) {
        self.home.forget_whereabouts(shard).await;
    }

    /// Whether this node is a shard's home, or is about to be.
    #[must_use]
    pub fn is_home_of(&self, shard: ShardId) -> bool {
        self.home.is_home_of(shard)
    }
}

/// One session on one link.
pub struct Attachment {
    /// The player's record.
    pub(crate) cell: Arc<Cell>,
    /// The session.
    pub(crate) session: SessionId,
    /// Its mailbox.
    pub(crate) mailbox: Arc<Mailbox>,
    /// This link's number.
    pub(crate) link: LinkNo,
}

impl Attachment {
    /// What acks say while the store does not take the player's changes, or is not asked; else nothing.
    pub(crate) fn provisional(&self) -> Option<bool> {
        self.cell.shard().is_provisional().then_some(true)
    }
}

impl Sessions {
    /// The link is down, closed with this code: the session's time starts to run, unless a newer link has it. One lock
    /// decides which.
    pub(crate) fn leave(&self, attachment: &Attachment, code: u16) {
        let Attachment { cell, session, mailbox, link } = attachment;
        let left = self.home.apply(cell, clock::now(), |record, ctx| {
            if mailbox.detach(*link) { record.detach(ctx, *session, code).map(|()| true) } else { Ok(false) }
        });
        if left.as_ref().is_ok_and(|left| left.value) {
            let player = cell.player();
            tracing::info!(operation = "detach", status = code, %player, %session, "a link is down");
        }
        if left.is_err() {
            // The session is gone; so is its mailbox, unless it was made after the notice.
            mailbox.detach(*link);
            self.hub.remove_this(mailbox);
        }
        self.hub.link_down();
    }
}
