//! What the machines of the model stand in: time, the store and what it may go back to, what is on its way, and what has
//! been seen so far for the promises to be judged by.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use hearth::ids::{Epoch, Generation, Owner};
use hearth::store::Acquired;
use hearth::store::judge::Verdict;

use super::Protocol;
use super::node::{Ask, Node, Part, Reply};
use super::player::Player;
use super::store::{Answered, Store};

/// Most nodes.
pub(crate) const NODES_MAX: usize = 3;
/// How long a lease is granted for.
pub(crate) const TTL: Duration = Duration::from_secs(6);
/// How far the store's clock goes on while the store is lost: more ms than grants were made in one, or epochs of before and
/// after would be the same. The model's ticks are coarse; real ones are not.
const LOSS_MS: u64 = 10;

/// How much of everything there may be on one way through the states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    pub(crate) nodes: usize,
    /// How long a tick is.
    pub(crate) tick_ms: u64,
    pub(crate) ticks: u8,
    pub(crate) writes: u8,
    /// How often the player comes to a node.
    pub(crate) comings: u8,
    /// How often an answer is not waited for.
    pub(crate) give_ups: u8,
    /// How often an answer is on its way for a while.
    pub(crate) slow: u8,
    /// How often something is carried out twice.
    pub(crate) repeats: u8,
    pub(crate) crashes: u8,
    /// How often the store is copied (it was once at the beginning), goes back to its copy, and is emptied.
    pub(crate) copies: u8,
    pub(crate) losses: u8,
    pub(crate) emptyings: u8,
}

/// The guards, to turn one off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Guards {
    /// Epoch and holder compared in every commit.
    pub(crate) fence: bool,
    /// The number of a batch compared with the stored one.
    pub(crate) stale: bool,
    /// The stored number compared with the last acknowledged one, by commits and renewals.
    pub(crate) gap: bool,
    /// Validity looked at before every answer.
    pub(crate) validity: bool,
    /// Who is asked for a shard is silent before it answers.
    pub(crate) pull_fences: bool,
    /// A home remembers what it inherited.
    pub(crate) history: bool,
    /// Whoever finds a record of a later epoch holds nothing of it.
    pub(crate) later: bool,
    /// A stamp is judged when its client comes back.
    pub(crate) stamps: bool,
}

impl Guards {
    pub(crate) const ALL: Self = Self {
        fence: true,
        stale: true,
        gap: true,
        validity: true,
        pull_fences: true,
        history: true,
        later: true,
        stamps: true,
    };
}

/// A promise that a step has broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Broken {
    /// I1: a grant was not above the one before, or not above the floor.
    EpochFell,
    /// I2: an epoch was granted to two.
    EpochShared,
    /// I3: a batch below the stored epoch was let in.
    BelowTheEpoch,
    /// I3: a batch with an old number was let in.
    OldNumber,
    /// I6: what was acked is gone and nobody said so.
    Silent,
    /// I6: the store said that all is well to a home of whose acknowledged writes it has lost some.
    Unnoticed,
    /// C2: what was `durable` is gone although the store never lost it.
    DurableLost,
    /// A loss was told that is none, by a store that has lost nothing.
    FalseAlarm,
    /// A home took an honest stamp for one that it has not reached.
    Behind,
}

/// What must have happened on some way, so that no promise holds because nothing ever happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    TakenOver,
    Fenced,
    Stale,
    Late,
    Told,
    Repaired,
    Overtaken,
    Restored,
    /// A change of a fork is taken for one of the line that survived: `README.md`, "What is known not to hold".
    Mistaken,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) tick_ms: u64,
    tick: u64,
    pub(crate) left: Bounds,
    pub(crate) store: Store,
    copy: Option<Store>,
    pub(crate) nodes: Vec<Node>,
    /// Asked of the store, and nobody waits for the answer. No order: any may come first.
    pub(crate) late: Vec<Ask>,
    pub(crate) player: Player,
    /// Every grant: its epoch and whose it is.
    granted: Vec<(Epoch, Owner)>,
    /// The last grant since the store last lost anything.
    last_grant: Epoch,
    /// How often the store lost something.
    pub(crate) losses: u8,
    /// Grants that it has lost.
    lost_grants: Vec<Epoch>,
    /// Changes that the store had and lost.
    pub(crate) lost_by_store: u8,
    pub(crate) broken: Option<Broken>,
}

impl World {
    /// Nobody holds the shard and nothing is stored.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            tick_ms: bounds.tick_ms,
            tick: 1,
            left: Bounds { comings: 1, ..bounds },
            store: Store::default(),
            copy: None,
            nodes: (0..bounds.nodes).map(|at| Node::new(at, 0, bounds.tick_ms)).collect(),
            late: Vec::new(),
            player: Player::default(),
            granted: Vec::new(),
            last_grant: Epoch::ZERO,
            losses: 0,
            lost_grants: Vec::new(),
            lost_by_store: 0,
            broken: None,
        }
    }

    /// From here on the bounds count.
    pub(crate) fn begin(&mut self, bounds: Bounds) {
        (self.left, self.copy) = (bounds, Some(self.store.clone()));
    }

    /// The clock of all nodes, which the store's follows.
    pub(crate) const fn now_ms(&self) -> u64 {
        self.tick * self.tick_ms
    }

    pub(crate) const fn store_now_ms(&self) -> u64 {
        self.now_ms() + self.losses as u64 * LOSS_MS
    }

    pub(crate) fn pass(&mut self) -> bool {
        self.tick += 1;
        true
    }

    pub(crate) fn breaks(&mut self, promise: Broken) {
        self.broken = self.broken.or(Some(promise));
    }

    /// Carries out what was asked of the store.
    pub(crate) fn ask_store(&mut self, protocol: &Protocol, ask: &Ask) -> Reply {
        let now_ms = self.store_now_ms();
        match ask {
            Ask::Acquire { owner, floor, .. } => {
                let generation = Generation::of(u64::from(self.losses) + 1);
                let answer = self.store.acquire(owner, *floor, generation, now_ms);
                if let Acquired::Granted(grant) = &answer {
                    self.granted(protocol, grant.epoch, owner, *floor);
                }
                Reply::Acquired(answer)
            }
            Ask::Renew { owner, fence, base, .. } => {
                let answer = self.store.renew(owner, fence.epoch, now_ms);
                let consistent = super::node::is_consistent(&answer, fence, protocol.guards);
                let stored = self.store.record.as_ref().map_or(0, |record| record.version.number());
                if consistent && super::node::is_good(&answer) && stored < base.number() {
                    self.breaks(Broken::Unnoticed);
                }
                Reply::Renewed(answer, consistent)
            }
            Ask::Commit(batch) => {
                let (answer, broken) = self.store.commit(batch, protocol.guards);
                if let Some(broken) = broken {
                    self.breaks(broken);
                }
                match answer {
                    Answered::Fenced(_) => protocol.saw(Seen::Fenced),
                    Answered::Stale(_) => protocol.saw(Seen::Stale),
                    Answered::Done(Verdict::Restored | Verdict::Repaired, _) => protocol.saw(Seen::Restored),
                    Answered::Done(..) | Answered::Lost => {}
                }
                Reply::Committed(answer)
            }
            Ask::Load { .. } => Reply::Loaded(self.store.record.clone()),
            Ask::Pull { .. } => unreachable!("asked of a node"),
        }
    }

    fn granted(&mut self, protocol: &Protocol, epoch: Epoch, owner: &Owner, floor: Epoch) {
        if epoch <= self.last_grant || epoch <= floor {
            self.breaks(Broken::EpochFell);
        }
        if self.granted.iter().any(|(known, by)| *known == epoch && by != owner) {
            self.breaks(Broken::EpochShared);
        }
        if self.granted.last().is_some_and(|(_, by)| by != owner) {
            protocol.saw(Seen::TakenOver);
        }
        self.granted.push((epoch, owner.clone()));
        self.last_grant = epoch;
    }

    /// The highest epoch that was ever granted.
    pub(crate) fn newest(&self) -> Epoch {
        self.granted.iter().map(|(epoch, _)| *epoch).max().unwrap_or(Epoch::ZERO)
    }

    /// Whether the store has lost this grant.
    pub(crate) fn has_lost(&self, epoch: Epoch) -> bool {
        self.lost_grants.contains(&epoch)
    }

    pub(crate) const fn has_lost_a_grant(&self) -> bool {
        !self.lost_grants.is_empty()
    }

    /// What nobody waits for any more is on its way still.
    pub(crate) fn leave_behind(&mut self, ask: Ask) {
        if matches!(ask, Ask::Load { .. } | Ask::Pull { .. }) {
            return;
        }
        self.late.push(ask);
        self.late.sort_by_cached_key(|ask| {
            let mut hasher = DefaultHasher::new();
            ask.hash(&mut hasher);
            hasher.finish()
        });
    }

    pub(crate) fn carry_out_late(&mut self, protocol: &Protocol, at: usize, again: bool) -> bool {
        let Some(ask) = self.late.get(at).cloned() else { return false };
        if !again {
            self.late.remove(at);
        }
        if matches!(ask, Ask::Commit(_)) {
            protocol.saw(Seen::Late);
        }
        let _ = self.ask_store(protocol, &ask);
        true
    }

    pub(crate) fn copy_store(&mut self) -> bool {
        self.copy = Some(self.store.clone());
        true
    }

    pub(crate) fn store_goes_back(&mut self) -> bool {
        let Some(copy) = self.copy.clone().filter(|copy| *copy != self.store) else { return false };
        self.store_becomes(copy)
    }

    pub(crate) fn store_is_emptied(&mut self) -> bool {
        self.store_becomes(Store::default())
    }

    fn store_becomes(&mut self, store: Store) -> bool {
        self.lost_by_store |= self.store.changes() & !store.changes();
        let kept = store.meta.as_ref().map_or(Epoch::ZERO, |meta| meta.epoch);
        self.lost_grants =
            self.granted.iter().map(|(epoch, _)| *epoch).filter(|epoch| *epoch > kept).collect();
        self.store = store;
        self.losses += 1;
        self.last_grant = Epoch::ZERO;
        true
    }

    /// `kill -9`, and a new start: memory is gone, and what was sent is on its way.
    pub(crate) fn crash(&mut self, at: usize) -> bool {
        let now_ms = self.now_ms();
        let node = &mut self.nodes[at];
        let boot = node.boot + 1;
        let node = std::mem::replace(node, Node::new(at, boot, now_ms));
        for part in Part::ALL {
            if let Some(call) = node.calls.get(part).filter(|call| call.reply.is_none()) {
                self.leave_behind(call.ask.clone());
            }
        }
        self.player.loses_link_to(at);
        true
    }
}
