//! Where hot state lives: one record a player, changed under its lock by pure commands, flushed behind the shard's
//! fence. Called by `session` and `service`; calls the store, and places shards on the nodes that `cluster` knows. Knows
//! no wire, no link and no watcher: what concerns them travels up as [`Events`].

pub mod history;
#[cfg(test)]
pub(crate) mod houses;
pub mod lease;
pub mod placement;
pub mod record;
pub mod records;
pub mod shard;
pub mod ticket;

mod accord;
mod agenda;
mod arrivals;
mod bans;
mod barring;
mod batch;
mod blind;
mod census;
mod cold;
mod entering;
mod erasure;
mod expiry;
mod falling;
mod faults;
mod flush;
mod following;
mod handover;
mod keeper;
mod known;
mod loading;
mod losing;
mod losses;
mod mending;
mod messages;
mod meters;
mod opening;
mod overtaken;
mod parcels;
mod pulling;
mod reading;
mod replicas;
mod revocations;
mod salvage;
mod stock;
mod store_time;
mod storing;
mod tidings;
mod timeline;
mod traced;
mod whereabouts;
mod whispers;
mod wishes;
mod yielding;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::{self, Now};
use crate::cluster::Members;
use crate::events::{Coalescing, EndReason, Events, LinkEnd, SessionEnded};
use crate::ids::{Epoch, Owner, PlayerId, RoomName, SessionId, ShardId};
use crate::near_cache::Terms;
use crate::store::{ClusterConfig, Store};
use crate::tasks::Tasks;

pub use barring::Barred;
pub use entering::Entering;
pub use erasure::BanAtErasure;
pub use falling::Fallen;
pub use handover::MOVED_WITHIN;
pub use messages::{Kept, MESSAGES_MAX};
pub use opening::{Login, Opened, Resume, Resumed};
pub use parcels::{Mailboxes, Neighbours, Parcel};
pub use reading::{COLD_WITHIN, Glance, Lookup};
pub use records::{Applied, Cell, Durability};
pub use shard::Serving;
pub use storing::Stored;
pub use timeline::Timeline;
pub use whereabouts::{Sight, Whereabouts, Word};

pub use crate::store::blobs::CONTENT_TYPE_BYTES_MAX;
pub use crate::store::{Blob, BlobQuota, BlobRemoved, BlobTag, BlobWritten, Precondition, Tags};
pub use crate::store::{Bound, Counted, CounterRequest, LockAcquired, LockOwner, LockRequest, LockToken};
pub use crate::store::{
    EVENT_SHARDS_MAX, EVENTS_PER_SHARD_MAX, EventPlace, EventsRead, ShardEvents, StoredEvent,
};
pub use crate::store::{RateRequest, RateTaken, Shortfall, StoreError};

use placement::Placement;
use record::{Context, Ended, Record, Refusal, Rules};
use records::{CellError, Records};
use shard::Shard;
use ticket::TicketKey;

/// Cold loads wait their turn in this many lines, by player: one load a player at a time.
const LOADING_LINES: usize = 256;
/// How often who waits for shards looks where they are placed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often a stop looks whether all shards are handed over.
const HANDED_OVER_LOOK: Duration = Duration::from_millis(20);
/// So long the store may take none of what is left: then a stop gives nothing away any more, and takes nothing on.
const HELD_BACK_MAX: Duration = Duration::from_secs(1);
/// How long a stop waits until the next homes have asked for what is laid out for them.
const ASKED_WITHIN: Duration = Duration::from_secs(1);
/// Reports from flush tasks to the keeper: one for each shard that there can be.
const REPORTS_MAX: usize = 4096;
/// When to ask again for who has left this node's memory: her next home is there, or will be in a moment.
const LEFT_MS: u64 = 100;

/// What `home` needs to know.
#[derive(Debug, Clone)]
pub struct HomeSettings {
    /// What records obey.
    pub rules: Rules,
    /// The longest that a change waits for its commit.
    pub flush_interval: Duration,
    /// How long the right to be home lasts without a renewal.
    pub lease_ttl: Duration,
    /// How long a request waits for a home that cannot answer yet.
    pub hold: Duration,
    /// How long a `durable` ack waits for the store before it is refused.
    pub durable_wait: Duration,
    /// How long a service-made session waits for its client.
    pub pending: Duration,
    /// Player records in memory.
    pub hot_records_max: usize,
    /// Banned players; and players whose revoked tokens are known in memory, too.
    pub bans_max: usize,
    /// How long a player is remembered after the last session.
    pub remember: Duration,
    /// How long a message waits for its player.
    pub messages_keep: Duration,
    /// How reads of players who are not in memory are kept near.
    pub cold: Terms,
    /// Commits in flight, each of another shard.
    pub commits_in_flight_max: usize,
    /// Turns the flush counter's guard off: only to prove that a checker notices.
    pub lost_writes_unchecked: bool,
}

/// Why `home` did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The record said no; nothing changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The shard cannot answer now; try again after this long.
    #[error("the home of this player cannot answer now")]
    NotHome {
        /// In ms.
        retry_after_ms: u64,
    },
    /// The store did not answer, or could not be asked; nothing was promised.
    #[error("{}", .0.in_short())]
    Store(#[source] StoreError),
    /// The store did not take the change in time; in memory it took effect.
    #[error("the store has not taken the change yet")]
    NotDurable,
    /// The store has the change, and too few of its replicas do.
    #[error("the store has the change, but not enough replicas have it yet")]
    NotReplicated,
    /// More hot players than the limit.
    #[error("too many players are here")]
    Overloaded,
    /// The stored record cannot be read.
    #[error("the stored record cannot be read")]
    Corrupt,
}

impl HomeError {
    /// The player has left this node's memory: whoever asks anew finds where she is.
    #[must_use]
    pub const fn left() -> Self {
        Self::NotHome { retry_after_ms: LEFT_MS }
    }
}

/// What came of handing over.
#[derive(Debug, Clone, Copy)]
pub struct HandOver {
    /// Shards that were held before.
    pub held: usize,
    /// Those that are held still.
    pub kept: usize,
    /// Whether another node takes shards.
    pub has_heirs: bool,
    /// Given up before its time, since the store takes no changes of any that are left.
    pub is_held_back: bool,
    /// What is left of the deadline.
    pub left: Duration,
}

/// Every shard of this node, its records and its tasks.
pub struct Home {
    settings: HomeSettings,
    placement: Placement,
    owner: Owner,
    members: Arc<Members>,
    cluster: ClusterConfig,
    tickets: TicketKey,
    store: Arc<dyn Store>,
    events: Arc<Events>,
    records: Records,
    bans: bans::Bans,
    revocations: revocations::Revocations,
    known: known::Known,
    cold: Arc<cold::Cold>,
    entering: Arc<entering::Threshold>,
    sightings: whereabouts::Sightings,
    whispers: whispers::Whispers,
    store_time: store_time::StoreTime,
    /// Messages that were seen and are to be forgotten.
    seen: Coalescing<PlayerId, Vec<u128>>,
    shards: Vec<Arc<Shard>>,
    expiry: expiry::Expiry,
    agenda: Arc<agenda::Agenda>,
    in_flight: flush::InFlight,
    loading: Vec<tokio::sync::Mutex<()>>,
    /// Where there can be other nodes.
    neighbours: Option<Neighbours>,
    parcels: parcels::Parcels,
    arrivals: arrivals::Arrivals,
    pulls: pulling::Turns,
    /// Wakes those who wait for a link.
    linked: tokio::sync::Notify,
    reports: mpsc::Sender<(ShardId, lease::Event)>,
    /// Told whenever a commit has written events.
    events_written: watch::Sender<()>,
    meters: meters::Meters,
    faults: faults::Faults,
    losses: losses::Losses,
    overtaken: overtaken::Overtaken,
    tasks: Tasks,
}

impl Home {
    /// Builds the room and starts its tasks: keeper, expiry, flush. `neighbours`: where there can be other nodes.
    ///
    /// # Errors
    /// The text says what about the cluster's configuration cannot be used.
    pub fn start(
        settings: HomeSettings,
        cluster: ClusterConfig,
        members: Arc<Members>,
        store: Arc<dyn Store>,
        events: Arc<Events>,
        neighbours: Option<Neighbours>,
        tasks: Tasks,
    ) -> Result<Arc<Self>, String> {
        let placement = Placement::of(cluster.shards)
            .ok_or_else(|| format!("the cluster has {} shards; 1 to 4096 can be", cluster.shards))?;
        let tickets = TicketKey::from_secret(&cluster.ticket_secret)
            .ok_or("the cluster's ticket secret is shorter than 16 bytes")?;
        let (reports, mail) = mpsc::channel(REPORTS_MAX);
        let agenda = Arc::new(agenda::Agenda::new(cluster.shards, settings.flush_interval));
        let shards = placement.all().map(|shard| Arc::new(Shard::new(shard, Arc::clone(&agenda)))).collect();
        let home = Arc::new(Self {
            agenda,
            shards,
            records: Records::new(settings.hot_records_max),
            bans: bans::Bans::new(settings.bans_max),
            revocations: revocations::Revocations::new(settings.bans_max),
            known: known::Known::nothing(cluster.shards),
            cold: cold::Cold::new(settings.cold, placement, Arc::clone(&store), &tasks),
            entering: Arc::default(),
            sightings: whereabouts::Sightings::of(cluster.shards),
            whispers: whispers::Whispers::of(usize::from(cluster.shards)),
            store_time: store_time::StoreTime::default(),
            seen: Coalescing::default(),
            in_flight: flush::InFlight::default(),
            settings,
            placement,
            owner: members.me().clone(),
            members,
            cluster,
            tickets,
            store,
            events,
            expiry: expiry::Expiry::new(),
            loading: (0..LOADING_LINES).map(|_| tokio::sync::Mutex::new(())).collect(),
            neighbours,
            parcels: parcels::Parcels::default(),
            arrivals: arrivals::Arrivals::default(),
            pulls: pulling::Turns::new(),
            linked: tokio::sync::Notify::new(),
            reports,
            events_written: watch::Sender::default(),
            meters: meters::Meters::new(),
            faults: faults::Faults::default(),
            losses: losses::Losses::default(),
            overtaken: overtaken::Overtaken::default(),
            tasks: tasks.clone(),
        });
        home.silenced_with(&tasks);
        tasks.spawn_vital("keeper", Arc::clone(&home).run_keeper(mail));
        tasks.spawn_vital("expiry", Arc::clone(&home).run_expiry());
        tasks.spawn_vital("known", Arc::clone(&home).run_known());
        tasks.spawn_vital("seen", Arc::clone(&home).run_seen());
        tasks.spawn_vital("flush", Arc::clone(&home).run_flush());
        tasks.spawn("census", Arc::clone(&home).run_census());
        Ok(home)
    }

    /// Waits until every shard that is placed here serves, at most `deadline`; says how many do not.
    pub async fn wait_owned(&self, deadline: Duration) -> usize {
        let until = tokio::time::Instant::now() + deadline;
        let mut waiting = 0;
        for shard in &self.shards {
            // Placed anew at each look: the cluster may change meanwhile.
            while self.is_placed_here(shard.id()) {
                let left = until.saturating_duration_since(tokio::time::Instant::now());
                if shard.wait_serving(left.min(LOOK_AGAIN)).await {
                    break;
                }
                if left.is_zero() {
                    waiting += 1;
                    break;
                }
            }
        }
        waiting
    }

    fn is_placed_here(&self, shard: ShardId) -> bool {
        wishes::place(&self.members.snapshot(), shard) == wishes::Place::Here
    }

    /// The shards that are placed here: those that this node serves, or is to serve in a moment.
    #[must_use]
    pub fn shards_placed(&self) -> Vec<&Arc<Shard>> {
        let snapshot = self.members.snapshot();
        let is_here = |shard: &&Arc<Shard>| wishes::place(&snapshot, shard.id()) == wishes::Place::Here;
        self.shards.iter().filter(is_here).collect()
    }

    /// The shards that are this node's to answer for: those that are placed here, and those that it serves still.
    #[must_use]
    pub fn shards_in_hand(&self, mono_ms: u64) -> Vec<&Arc<Shard>> {
        let snapshot = self.members.snapshot();
        let is_here = |shard: &Shard| wishes::place(&snapshot, shard.id()) == wishes::Place::Here;
        self.shards.iter().filter(|shard| is_here(shard) || shard.serves(mono_ms)).collect()
    }

    /// Hands all shards over to the other nodes, before a stop, as long as there are any and at most `deadline`, and waits
    /// a moment until they have asked for what is laid out for them. A store that takes nothing of what is left is not
    /// waited for: what were acked meanwhile would be lost with this process.
    pub async fn hand_over(&self, deadline: Duration) -> HandOver {
        use tokio::time::Instant;
        self.members.drain();
        let holding = || self.shards.iter().filter(|shard| shard.fence().is_some());
        let held = holding().count();
        let until = Instant::now() + deadline;
        let mut held_back_since = None;
        let outcome = loop {
            let (kept, has_heirs) = (holding().count(), self.members.snapshot().has_other_takers());
            held_back_since = holding()
                .all(|shard| shard.is_held_back())
                .then(|| held_back_since.unwrap_or_else(Instant::now));
            let is_held_back = held_back_since.is_some_and(|since| since.elapsed() >= HELD_BACK_MAX);
            let left = until.saturating_duration_since(Instant::now());
            if kept == 0 || !has_heirs || is_held_back || left.is_zero() {
                break HandOver { held, kept, has_heirs, is_held_back: is_held_back && kept > 0, left };
            }
            tokio::time::sleep(HANDED_OVER_LOOK).await;
        };
        self.until_asked().await;
        outcome
    }

    /// Waits a moment until the next homes have asked for what is laid out for them. Says whether they have asked for all
    /// that the store does not have: else it goes with this process.
    pub async fn until_asked(&self) -> bool {
        let until = tokio::time::Instant::now() + ASKED_WITHIN;
        while !self.parcels.is_empty() && tokio::time::Instant::now() < until {
            tokio::time::sleep(HANDED_OVER_LOOK).await;
        }
        !self.parcels.has_records_not_given()
    }

    /// Gives every lease back, after the last flush.
    pub async fn release(&self) {
        let releases = self.shards.iter().filter_map(|shard| {
            shard.serve_until(0);
            let fence = shard.fence()?;
            Some(self.store.lease_release(shard.id(), &self.owner, fence.epoch))
        });
        let failed =
            futures_util::future::join_all(releases).await.into_iter().filter(Result::is_err).count();
        if failed > 0 {
            tracing::warn!(
                operation = "release",
                shards = failed,
                "leases were not given back; they run out"
            );
        }
    }

    /// The settings in force.
    #[must_use]
    pub const fn settings(&self) -> &HomeSettings {
        &self.settings
    }

    /// Which shard a player belongs to.
    #[must_use]
    pub const fn placement(&self) -> Placement {
        self.placement
    }

    /// The epoch under which a room's roster counts: that of its home's lease. While that is lost the roster counts on
    /// under it, so that who sees the room never sees it run backwards.
    #[must_use]
    pub fn room_epoch(&self, room: &RoomName) -> Epoch {
        let shard = self.shards.get(usize::from(self.placement.shard_of_room(room).number()));
        shard.map_or(Epoch::ZERO, |shard| shard.last_epoch())
    }

    /// All shards, by number.
    #[must_use]
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// The hot records.
    #[must_use]
    pub const fn records(&self) -> &Records {
        &self.records
    }

    pub(crate) fn context(&self, now: Now) -> Context<'_> {
        Context { now, rules: &self.settings.rules }
    }

    fn shard(&self, id: ShardId) -> Result<&Arc<Shard>, HomeError> {
        self.shards.get(usize::from(id.number())).ok_or(HomeError::Refused(Refusal::NotResumable))
    }

    /// The times by which leases of this node go.
    fn terms(&self) -> lease::Terms {
        lease::Terms {
            ttl_ms: record::millis(self.settings.lease_ttl),
            member_ttl_ms: record::millis(self.members.ttl()),
        }
    }

    fn not_home(&self) -> HomeError {
        let quarter = record::millis(self.settings.lease_ttl) / 4;
        HomeError::NotHome { retry_after_ms: quarter + rand::random_range(0..=quarter) }
    }

    /// Waits until the shard may answer, at most the hold time.
    async fn serving(&self, shard: &Shard) -> Result<(), HomeError> {
        if shard.wait_serving(self.settings.hold).await { Ok(()) } else { Err(self.not_home()) }
    }

    /// Carries a command out on a hot record, and sees to all that follows from it.
    ///
    /// # Errors
    /// [`HomeError::Refused`] as the command says, [`HomeError::NotHome`] when the record left.
    pub fn apply<T>(
        &self,
        cell: &Arc<Cell>,
        now: Now,
        command: impl FnOnce(&mut Record, Context<'_>) -> Result<T, Refusal>,
    ) -> Result<Applied<T>, HomeError> {
        let applied = self.change(cell, now, command).map_err(|error| match error {
            CellError::Gone => HomeError::left(),
            CellError::Refused(refusal) => HomeError::Refused(refusal),
        })?;
        Ok(applied)
    }

    fn change<T>(
        &self,
        cell: &Arc<Cell>,
        now: Now,
        command: impl FnOnce(&mut Record, Context<'_>) -> Result<T, Refusal>,
    ) -> Result<Applied<T>, CellError> {
        let (applied, effects) = cell.change(self.context(now), &self.events, command)?;
        if effects.dirty {
            self.arm(cell, now);
        }
        if let Some(view) = effects.shown {
            self.events.shows(cell.player(), view);
        }
        Ok(applied)
    }

    /// Tells once more which rooms a player is in: one of her sessions has got a mailbox since.
    pub fn tell_rooms(&self, cell: &Cell) {
        cell.tell_rooms(&self.events);
    }

    /// Whether the records of all members of all rooms are in memory.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        use lease::State;
        self.shards.iter().all(|shard| {
            !matches!(shard.lease().0, State::Free | State::Pulling | State::Loading | State::Fenced)
        })
    }

    /// Whether all sessions of a shard are in this node's memory: not while it comes or goes, nor once another node is
    /// known to hold it.
    #[must_use]
    pub fn has_all_of(&self, shard: ShardId) -> bool {
        self.shard(shard).is_ok_and(|shard| shard.is_whole())
    }

    /// Starts a commit of the record's present version; the receiver hears of it.
    pub fn commit_soon(&self, cell: &Arc<Cell>) -> oneshot::Receiver<Durability> {
        cell.when_durable(clock::now().mono_ms)
    }

    /// Waits for the record's present version to be durable.
    ///
    /// # Errors
    /// [`HomeError::NotDurable`] when the store does not take it in time, or has been away for so long that nobody waits.
    /// [`HomeError::NotHome`] when the shard is lost.
    pub async fn durable(&self, cell: &Arc<Cell>) -> Result<(), HomeError> {
        if cell.shard().is_local() {
            return Err(HomeError::NotDurable);
        }
        match self.until_stored(cell, self.commit_soon(cell)).await {
            Stored::Committed => Ok(()),
            Stored::Fenced => Err(self.not_home()),
            Stored::Late => Err(HomeError::NotDurable),
        }
    }

    /// Ends a session and tells those above.
    ///
    /// # Errors
    /// [`HomeError::Refused`] when there is no such session.
    pub fn end(
        &self,
        cell: &Arc<Cell>,
        session: SessionId,
        reason: EndReason,
        now: Now,
    ) -> Result<(), HomeError> {
        let applied = self.apply(cell, now, |record, ctx| record.end(ctx, session, reason))?;
        self.ended(cell, vec![applied.value]);
        Ok(())
    }

    fn ended(&self, cell: &Cell, ended: Vec<Ended>) {
        for Ended { session, reason } in ended {
            self.records.unindex(session.id);
            self.entering.ended(session.id, &reason);
            let ended = SessionEnded { player: cell.player().clone(), reason, watches: session.watches };
            self.events.sessions.update(session.id, |event| event.ended = Some(ended));
        }
    }

    fn link_must_close(&self, session: SessionId, end: LinkEnd) {
        self.events.sessions.update(session, |event| event.link_end = Some(end));
    }

    /// Tells the keeper. Its channel is as deep as there can be shards with one batch in flight each, so a full one
    /// means that the keeper is stuck; then the flush task's next try reports again. Says whether it was told.
    fn tell_keeper(&self, shard: ShardId, event: lease::Event) -> bool {
        let is_told = self.reports.try_send((shard, event)).is_ok();
        // A keeper that is gone for good is told about once, and not here.
        if !is_told && !self.tasks.has_failed() {
            tracing::warn!(operation = "keeper", shard = shard.number(), "the keeper is behind");
        }
        is_told
    }

    fn loading_line(&self, player: &PlayerId) -> Option<&tokio::sync::Mutex<()>> {
        let line =
            ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(player.as_str()) as usize % LOADING_LINES;
        self.loading.get(line)
    }
}
