//! This node among the others: one task says at every heartbeat that it lives, and keeps what the store answers. While
//! the store is away the last that was heard stays. Never decides who holds what: the store's leases do.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Snapshot;
use super::meters::MemberMeters;
use super::snapshot::Changes;
use crate::clock::{self, millis};
use crate::ids::Owner;
use crate::store::{Beat, Formats, Heartbeat, Holds, Member, Says, Seen, Store, StoreError};
use crate::tasks::{self, Tasks};

/// The longest between two heartbeats.
const BEAT_MAX: Duration = Duration::from_secs(1);
/// Heartbeats that a node may miss before it is taken for dead, and one.
const BEATS_PER_TTL: u32 = 6;
/// Processes that are remembered to have said goodbye: more than could be heard of long after they have.
const GONE_MAX: usize = 256;
/// How much longer than until its next heartbeat a node may take to hear what another one has said.
const HEARD_LATE: Duration = Duration::from_millis(150);

/// What the room needs to know.
#[derive(Debug, Clone)]
pub struct MemberSettings {
    /// How long a node counts as alive without a heartbeat.
    pub ttl: Duration,
}

impl MemberSettings {
    fn ttl_ms(&self) -> u64 {
        millis(self.ttl)
    }

    /// How often a node says that it lives.
    #[must_use]
    pub fn beat(&self) -> Duration {
        (self.ttl / BEATS_PER_TTL).min(BEAT_MAX)
    }
}

/// Why a node is not one of the cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// As many nodes as there may be.
    #[error("this cluster has {most} nodes already: that is the most there can be", most = crate::store::members::MEMBERS_MAX)]
    Full,
    /// It cannot live beside one that is there.
    #[error(
        "this version reads formats {} to {} and writes {}, node {node} reads {} to {} and writes {}: run a version \
         between the two first", mine.min, mine.max, mine.writes, theirs.min, theirs.max, theirs.writes
    )]
    Formats {
        /// The other node.
        node: String,
        /// Its formats.
        theirs: Formats,
        /// Ours.
        mine: Formats,
    },
}

/// The members of the cluster, this node among them.
pub struct Members {
    settings: MemberSettings,
    me: Owner,
    says: Mutex<Says>,
    /// Since when it says that it drains.
    drains_since: OnceLock<Instant>,
    store: Arc<dyn Store>,
    /// Processes that have said over their links that they end. What the store says of them is old: a heartbeat may lie in the
    /// socket of a server that stands still, and count when that goes on, long after its process.
    gone: Mutex<VecDeque<Owner>>,
    snapshot: watch::Sender<Snapshot>,
    /// Asks for a heartbeat out of turn.
    hurry: Notify,
    superseded: CancellationToken,
    meters: MemberMeters,
}

impl Members {
    /// Says for the first time that this node lives, hears who else does, and goes on so.
    ///
    /// # Errors
    /// [`JoinError`]; the node is then no member.
    pub async fn join(
        settings: MemberSettings,
        me: Member,
        store: Arc<dyn Store>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, JoinError> {
        let heartbeat = Heartbeat { member: me.clone(), joins: true, ttl: settings.ttl };
        let seen = match store.heartbeat(heartbeat).await? {
            Beat::Members(seen) => seen,
            Beat::Full | Beat::Superseded { .. } => return Err(JoinError::Full),
        };
        if let Err(error) = live_beside(&me, &seen) {
            // Who cannot stay must not be waited for.
            let _ = store.leave(&me.owner).await;
            return Err(error);
        }
        let members = Self::of(settings, me, store);
        members.hear(seen);
        tasks.spawn_vital("heartbeat", Arc::clone(&members).run(tasks.clone()));
        Ok(members)
    }

    /// A node that never hears of others: for tests and benches of what lies above.
    #[must_use]
    pub fn alone(me: Owner, store: Arc<dyn Store>) -> Arc<Self> {
        let settings = MemberSettings { ttl: Duration::from_secs(5) };
        Self::of(settings, Member { owner: me, says: Says::default() }, store)
    }

    fn of(settings: MemberSettings, me: Member, store: Arc<dyn Store>) -> Arc<Self> {
        let Member { owner, says } = me.clone();
        let (snapshot, _) = watch::channel(Snapshot::first(me, clock::now().mono_ms));
        Arc::new(Self {
            settings,
            me: owner,
            says: Mutex::new(says),
            drains_since: OnceLock::new(),
            store,
            gone: Mutex::default(),
            snapshot,
            hurry: Notify::new(),
            superseded: CancellationToken::new(),
            meters: MemberMeters::new(),
        })
    }

    /// This process.
    #[must_use]
    pub const fn me(&self) -> &Owner {
        &self.me
    }

    /// The cluster as it was last heard of.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// Hears of every change: who comes, goes, or begins to leave.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.subscribe()
    }

    /// How long a node counts as alive without a heartbeat.
    #[must_use]
    pub const fn ttl(&self) -> Duration {
        self.settings.ttl
    }

    /// How long it takes at most until all know what one says.
    #[must_use]
    pub fn heard_within(&self) -> Duration {
        self.settings.beat() + HEARD_LATE
    }

    /// What this node holds, to be told with the next heartbeat.
    pub fn holds(&self, holds: Holds) {
        self.says.lock().holds = holds;
    }

    /// Whether this node leaves.
    #[must_use]
    pub fn drains(&self) -> bool {
        self.says.lock().drains
    }

    /// From now on this node takes no shards: said at once, here and to the others.
    pub fn drain(&self) {
        self.says.lock().drains = true;
        self.drains_since.get_or_init(Instant::now);
        let present = self.snapshot();
        let seen = present.seen().iter().cloned().map(|mut seen| {
            seen.member.says.drains |= seen.member.owner == self.me;
            seen
        });
        self.hear(seen.collect());
        self.hurry.notify_one();
    }

    /// The same, and the others have been told when it returns, if the store could be told.
    pub async fn say_drains(&self) {
        self.drain();
        if let Err(error) = self.store.heartbeat(self.heartbeat()).await {
            tracing::warn!(operation = "members", status = %error, "the others are not told that this node leaves");
        }
    }

    /// Says that this node has left, once all can have heard that it is about to: who is gone and has not said so is
    /// waited for. Its tasks must have ended, or the next heartbeat takes it back.
    ///
    /// # Errors
    /// [`StoreError`]: the others hear of it when its time is over.
    pub async fn leave(&self) -> Result<(), StoreError> {
        if self.snapshot().has_others() && !self.superseded.is_cancelled() {
            if self.drains_since.get().is_none() {
                self.drain();
                self.store.heartbeat(self.heartbeat()).await?;
            }
            let since = *self.drains_since.get_or_init(Instant::now);
            tokio::time::sleep_until(since + self.heard_within()).await;
        }
        self.store.leave(&self.me).await
    }

    fn heartbeat(&self) -> Heartbeat {
        let member = Member { owner: self.me.clone(), says: self.says.lock().clone() };
        Heartbeat { member, joins: false, ttl: self.settings.ttl }
    }

    /// Resolves when a newer process has this node's name: this one must end.
    pub async fn superseded(&self) {
        self.superseded.cancelled().await;
    }

    /// The other processes that say that they leave, or have said over their links that they end: some of these may be gone
    /// for long.
    #[must_use]
    pub fn leaving(&self) -> BTreeSet<Owner> {
        let snapshot = self.snapshot();
        let drain = snapshot.seen().iter().filter(|seen| seen.member.says.drains);
        let mut leaving: BTreeSet<Owner> = drain.map(|seen| seen.member.owner.clone()).collect();
        leaving.extend(self.gone.lock().iter().cloned());
        leaving.remove(&self.me);
        leaving
    }

    /// A process has said over its link that it ends: it takes no shards from here on, and whatever else is heard of it does
    /// not count any more. The next one of its name is another.
    pub(super) fn says_goodbye(&self, owner: &Owner) {
        if *owner == self.me {
            return;
        }
        let mut gone = self.gone.lock();
        if gone.contains(owner) {
            return;
        }
        gone.truncate(GONE_MAX - 1);
        gone.push_front(owner.clone());
        drop(gone);
        self.snapshot.send_if_modified(|snapshot| {
            let Some(next) = snapshot.left_by(owner, clock::now().mono_ms) else { return false };
            let before = std::mem::replace(snapshot, next);
            self.tell_changes(snapshot, &snapshot.changes_since(&before));
            true
        });
    }

    fn hear(&self, mut seen: Vec<Seen>) {
        self.snapshot.send_if_modified(|snapshot| {
            // Behind the snapshot's lock: who says goodbye meanwhile is left out here, or leaves this snapshot after it.
            let gone = self.gone.lock();
            seen.retain(|seen| !gone.contains(&seen.member.owner));
            drop(gone);
            let (next, changed) = snapshot.followed_by(seen, self.settings.ttl_ms(), clock::now().mono_ms);
            let before = std::mem::replace(snapshot, next);
            if changed {
                self.tell_changes(snapshot, &snapshot.changes_since(&before));
            }
            self.meters.live.set(snapshot.seen().len() as f64);
            changed
        });
    }

    fn tell_changes(&self, now: &Snapshot, changes: &Changes) {
        let Changes { came, leaving, left, vanished } = changes;
        self.meters.left.increment(count(left));
        self.meters.vanished.increment(count(vanished));
        let nodes: Vec<_> = now.takers().collect();
        let [came, leaving, left, vanished] = [came, leaving, left, vanished].map(|names| named(names));
        if vanished.is_none() {
            tracing::info!(operation = "members", ?nodes, came, leaving, left, "the cluster has changed");
        } else {
            let what = "the cluster has changed: a node is gone without having said so";
            tracing::warn!(operation = "members", ?nodes, came, leaving, left, vanished, "{what}");
        }
    }

    async fn run(self: Arc<Self>, stop: Tasks) {
        let mut ticks = tokio::time::interval(self.settings.beat());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_heard = true;
        loop {
            tasks::rest();
            tokio::select! {
                biased;
                () = stop.stopping() => return,
                () = self.hurry.notified() => {}
                _ = ticks.tick() => {}
            }
            tasks::beat();
            let heartbeat = self.heartbeat();
            // How long the store takes is its settings' to bound.
            tasks::rest();
            let trouble = match self.store.heartbeat(heartbeat).await {
                Ok(Beat::Members(seen)) => {
                    self.hear(seen);
                    None
                }
                Ok(Beat::Superseded { by }) => {
                    tracing::error!(operation = "members", %by, "a newer process has this node's name: this one ends");
                    self.superseded.cancel();
                    tasks::rest();
                    return stop.stopping().await;
                }
                Ok(Beat::Full) => Some("the cluster is full".to_owned()),
                Err(error) => Some(error.to_string()),
            };
            // One line when it begins, and one when it is over.
            if std::mem::replace(&mut is_heard, trouble.is_none()) != trouble.is_none() {
                match trouble {
                    Some(status) => {
                        tracing::warn!(operation = "members", status, "this node's heartbeat is not heard");
                    }
                    None => tracing::info!(operation = "members", "this node's heartbeat is heard again"),
                }
            }
        }
    }
}

fn count(nodes: &[String]) -> u64 {
    u64::try_from(nodes.len()).unwrap_or(u64::MAX)
}

/// As a log line has them; nothing where there are none.
fn named(nodes: &[String]) -> Option<String> {
    (!nodes.is_empty()).then(|| nodes.join(","))
}

/// Whether this node can live beside all that are there.
fn live_beside(me: &Member, seen: &[Seen]) -> Result<(), JoinError> {
    let mine = me.says.formats;
    let stranger = seen.iter().find(|seen| !mine.lives_beside(seen.member.says.formats));
    stranger.map_or(Ok(()), |seen| {
        let node = seen.member.owner.node().to_owned();
        Err(JoinError::Formats { node, theirs: seen.member.says.formats, mine })
    })
}
