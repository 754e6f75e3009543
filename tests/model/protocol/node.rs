//! A node of the model: the real lease machine in a shell that does in a step what `home::keeper`, `loading`, `pulling`,
//! `batch` and `mending` do around it.

use hearth::home::lease::{Action, Event, Grounds, Lease, State, Terms};
use hearth::home::shard::Fence;
use hearth::ids::{Epoch, Owner, Version};
use hearth::store::judge::{self, Verdict};
use hearth::store::{Acquired, Renewed};

use super::Protocol;
use super::store::{Answered, Batch, Record};
use super::world::{Guards, Seen, TTL, World};

/// What a node may have under way at a time: one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// A call about the lease.
    Lease,
    /// A pull or a load.
    Work,
    /// A batch.
    Commit,
}

impl Part {
    pub(crate) const ALL: [Self; 3] = [Self::Lease, Self::Work, Self::Commit];
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    Acquire {
        owner: Owner,
        floor: Epoch,
        sent_at_ms: u64,
    },
    /// With the version that the store has acknowledged, for a promise to be judged by.
    Renew {
        owner: Owner,
        fence: Fence,
        base: Version,
        sent_at_ms: u64,
    },
    Commit(Batch),
    Load {
        epoch: Epoch,
    },
    /// Asked of a node.
    Pull {
        epoch: Epoch,
        from: Owner,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    Acquired(Acquired),
    Renewed(Renewed, bool),
    Committed(Answered),
    Loaded(Option<Record>),
    Pulled,
}

/// Something under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    pub(crate) ask: Ask,
    /// Once it was carried out.
    pub(crate) reply: Option<Reply>,
}

/// What is under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Calls {
    lease: Option<Call>,
    work: Option<Call>,
    commit: Option<Call>,
}

impl Calls {
    pub(crate) const fn get(&self, part: Part) -> Option<&Call> {
        match part {
            Part::Lease => self.lease.as_ref(),
            Part::Work => self.work.as_ref(),
            Part::Commit => self.commit.as_ref(),
        }
    }

    const fn slot(&mut self, part: Part) -> &mut Option<Call> {
        match part {
            Part::Lease => &mut self.lease,
            Part::Work => &mut self.work,
            Part::Commit => &mut self.commit,
        }
    }
}

/// The player's record in a home's memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub(crate) record: Record,
    /// The version that the store is known to have.
    pub(crate) base: Version,
    pub(crate) restore: bool,
    pub(crate) dirty: bool,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) owner: Owner,
    pub(crate) boot: u8,
    pub(crate) lease: Lease,
    pub(crate) fence: Option<Fence>,
    pub(crate) held: Option<Held>,
    pub(crate) calls: Calls,
    /// The highest epoch under which another node has asked this one and been answered.
    pub(crate) pulled_under: Epoch,
}

impl Node {
    pub(crate) fn new(at: usize, boot: u8, now_ms: u64) -> Self {
        let ttl_ms = u64::try_from(TTL.as_millis()).unwrap();
        Self {
            owner: Owner::named(&format!("n{at}#{boot}")),
            boot,
            lease: Lease::new(Terms { ttl_ms, member_ttl_ms: ttl_ms / 6 * 5 }, now_ms),
            fence: None,
            held: None,
            calls: Calls::default(),
            pulled_under: Epoch::ZERO,
        }
    }

    /// Whether it answers now: what `Shard::serves` says.
    pub(crate) fn serves(&self, now_ms: u64, guards: Guards) -> bool {
        if guards.validity {
            now_ms < self.lease.serving_until_ms()
        } else {
            matches!(self.lease.state(), State::Owned | State::Unsure)
        }
    }

    fn send(&mut self, part: Part, ask: Ask) {
        *self.calls.slot(part) = Some(Call { ask, reply: None });
    }
}

/// What `Home::is_consistent` says of a renewal.
pub(crate) fn is_consistent(answer: &Renewed, fence: &Fence, guards: Guards) -> bool {
    match answer {
        Renewed::Renewed { flush_seq, generation } | Renewed::Regranted { flush_seq, generation } => {
            !guards.gap || (*flush_seq >= fence.flush_seq_acked && *generation == fence.generation)
        }
        Renewed::Fenced { .. } | Renewed::RolledBack => true,
    }
}

/// Whether a renewal extends the lease.
pub(crate) const fn is_good(answer: &Renewed) -> bool {
    matches!(answer, Renewed::Renewed { .. } | Renewed::Regranted { .. })
}

impl World {
    /// A node that holds nothing asks when it may get the shard: to have asked before leads to nothing else.
    pub(crate) fn tick(&mut self, protocol: &Protocol, at: usize) -> bool {
        let (now_ms, node) = (self.now_ms(), &self.nodes[at]);
        let held = judge::holder(self.store.meta.as_ref(), self.store_now_ms());
        let is_held = held.is_some_and(|held| !held.remaining.is_zero() && held.owner != node.owner);
        if node.lease.state() == State::Free && is_held {
            return false;
        }
        let action = self.nodes[at].lease.tick(now_ms, Grounds::None);
        self.act(protocol, at, action);
        true
    }

    pub(crate) fn step(&mut self, protocol: &Protocol, at: usize, event: Event) {
        let now_ms = self.now_ms();
        let action = self.nodes[at].lease.on(event, now_ms, 0.5);
        self.act(protocol, at, action);
    }

    /// As `Keeper::act`.
    fn act(&mut self, protocol: &Protocol, at: usize, action: Option<Action>) {
        let sent_at_ms = self.now_ms();
        let node = &mut self.nodes[at];
        let owner = node.owner.clone();
        match action {
            None => {}
            Some(Action::Acquire { floor }) => {
                node.send(Part::Lease, Ask::Acquire { owner, floor, sent_at_ms });
            }
            Some(Action::Renew) => match node.fence {
                Some(fence) => {
                    // What goes out again whatever the store has is not counted on.
                    let held = node.held.as_ref().filter(|held| !held.restore);
                    let base = held.map_or(Version::ZERO, |held| held.base);
                    node.send(Part::Lease, Ask::Renew { owner, fence, base, sent_at_ms });
                }
                None => {
                    self.step(protocol, at, Event::Renewed { sent_at_ms, answer: None, consistent: true })
                }
            },
            Some(Action::Pull { grant, from }) => {
                node.fence = Some(Fence::of(&grant));
                let epoch = grant.epoch;
                match from.filter(|from| self.nodes.iter().any(|node| node.owner == *from)) {
                    Some(from) => self.nodes[at].send(Part::Work, Ask::Pull { epoch, from }),
                    None => self.step(protocol, at, Event::Pulled { epoch }),
                }
            }
            Some(Action::Load(grant)) => node.send(Part::Work, Ask::Load { epoch: grant.epoch }),
            Some(Action::Restore(grant)) => {
                node.fence = Some(Fence::of(&grant));
                if let Some(held) = &mut node.held {
                    held.record.repair(grant.epoch);
                    (held.restore, held.dirty) = (true, true);
                }
                protocol.saw(Seen::Repaired);
            }
            Some(Action::Free) => {
                (node.fence, node.held) = (None, None);
                *node.calls.slot(Part::Work) = None;
                self.player.loses_link_to(at);
                self.step(protocol, at, Event::Freed);
            }
            Some(Action::Drain) => unreachable!("nobody drains here"),
        }
    }

    /// As `Home::board` and `Home::snapshot`.
    pub(crate) fn flush(&mut self, at: usize) -> bool {
        let node = &mut self.nodes[at];
        if node.calls.commit.is_some() || node.lease.state() == State::Repair {
            return false;
        }
        let (Some(fence), Some(held)) = (&mut node.fence, &mut node.held) else { return false };
        if !held.dirty || held.record.epoch != fence.epoch {
            return false;
        }
        held.dirty = false;
        fence.flush_seq = fence.flush_seq.next();
        let batch = Batch {
            owner: node.owner.clone(),
            fence: *fence,
            base: held.base,
            restore: held.restore,
            record: held.record.clone(),
        };
        node.send(Part::Commit, Ask::Commit(batch));
        true
    }

    pub(crate) fn carry_out(&mut self, protocol: &Protocol, at: usize, part: Part) -> bool {
        let Some(call) = self.nodes[at].calls.get(part).filter(|call| call.reply.is_none()) else {
            return false;
        };
        let ask = call.ask.clone();
        let reply = match &ask {
            Ask::Pull { epoch, from } => {
                let Some(asked) = self.nodes.iter().position(|node| node.owner == *from) else {
                    return false;
                };
                self.give(protocol, asked, *epoch);
                Reply::Pulled
            }
            _ => self.ask_store(protocol, &ask),
        };
        if let Some(call) = self.nodes[at].calls.slot(part) {
            call.reply = Some(reply);
        }
        true
    }

    /// As `Home::give`: whoever is asked under a higher epoch is silent before it answers.
    fn give(&mut self, protocol: &Protocol, asked: usize, epoch: Epoch) {
        let node = &mut self.nodes[asked];
        if node.lease.epoch() > epoch {
            return;
        }
        node.pulled_under = node.pulled_under.max(epoch);
        let overtaken = node.fence.is_some_and(|fence| fence.epoch < epoch);
        if overtaken && protocol.guards.pull_fences {
            protocol.saw(Seen::Overtaken);
            self.step(protocol, asked, Event::Overtaken { epoch });
        }
    }

    pub(crate) fn answer(&mut self, protocol: &Protocol, at: usize, part: Part) -> bool {
        let slot = self.nodes[at].calls.slot(part);
        let Some(Call { ask, reply: Some(reply) }) = slot.take_if(|call| call.reply.is_some()) else {
            return false;
        };
        match (ask, reply) {
            (Ask::Acquire { sent_at_ms, .. }, Reply::Acquired(answer)) => {
                self.step(protocol, at, Event::Acquired { sent_at_ms, answer: Some(answer) });
            }
            (Ask::Renew { sent_at_ms, .. }, Reply::Renewed(answer, consistent)) => {
                self.step(protocol, at, Event::Renewed { sent_at_ms, answer: Some(answer), consistent });
            }
            (Ask::Commit(batch), Reply::Committed(answer)) => self.settle(protocol, at, &batch, Some(answer)),
            (Ask::Load { epoch }, Reply::Loaded(record)) => self.loaded(protocol, at, epoch, record),
            (Ask::Pull { epoch, .. }, Reply::Pulled) => self.step(protocol, at, Event::Pulled { epoch }),
            (ask, reply) => unreachable!("{reply:?} to {ask:?}"),
        }
        true
    }

    pub(crate) fn give_up(&mut self, protocol: &Protocol, at: usize, part: Part) -> bool {
        let Some(call) = self.nodes[at].calls.slot(part).take() else { return false };
        match &call.ask {
            Ask::Acquire { sent_at_ms, .. } => {
                self.step(protocol, at, Event::Acquired { sent_at_ms: *sent_at_ms, answer: None });
            }
            Ask::Renew { sent_at_ms, .. } => {
                self.step(
                    protocol,
                    at,
                    Event::Renewed { sent_at_ms: *sent_at_ms, answer: None, consistent: true },
                );
            }
            Ask::Commit(batch) => self.settle(protocol, at, batch, None),
            Ask::Load { epoch } => self.step(protocol, at, Event::Loaded { epoch: *epoch, complete: false }),
            Ask::Pull { epoch, .. } => self.step(protocol, at, Event::Pulled { epoch: *epoch }),
        }
        if call.reply.is_none() {
            self.leave_behind(call.ask);
        }
        true
    }

    /// As `Home::load` and `take_in`.
    fn loaded(&mut self, protocol: &Protocol, at: usize, epoch: Epoch, record: Option<Record>) {
        if let Some(by) = record.as_ref().map(|record| record.epoch)
            && by > epoch
            && protocol.guards.later
        {
            return self.step(protocol, at, Event::Overtaken { epoch: by });
        }
        let node = &mut self.nodes[at];
        let complete = node.fence.is_some_and(|fence| fence.epoch == epoch);
        if complete {
            node.held = record.map(|mut record| {
                let base = record.version;
                if protocol.guards.history {
                    record.take_over(epoch);
                } else {
                    record.epoch = epoch;
                }
                Held { record, base, restore: false, dirty: false }
            });
        }
        self.step(protocol, at, Event::Loaded { epoch, complete });
    }

    /// As `Home::settle`.
    fn settle(&mut self, protocol: &Protocol, at: usize, batch: &Batch, answer: Option<Answered>) {
        let sent = batch.fence.epoch;
        let event = match answer {
            Some(Answered::Done(verdict, found)) => {
                let node = &mut self.nodes[at];
                if let Some(fence) = node.fence.as_mut().filter(|fence| fence.epoch == sent) {
                    fence.flush_seq_acked = fence.flush_seq_acked.max(batch.fence.flush_seq);
                }
                return self.settle_one(at, batch, verdict, found);
            }
            Some(Answered::Stale(stored)) => {
                if let Some(fence) = self.nodes[at].fence.as_mut() {
                    fence.flush_seq = fence.flush_seq.max(stored);
                }
                None
            }
            Some(Answered::Fenced(epoch)) => Some(Event::CommitFenced { sent, epoch }),
            Some(Answered::Lost) => Some(Event::StoreLost { sent }),
            None => None,
        };
        if let Some(held) = &mut self.nodes[at].held {
            held.dirty = true;
        }
        if let Some(event) = event {
            self.step(protocol, at, event);
        }
    }

    /// As `Home::settle_one`, `committed` and `merge`.
    fn settle_one(&mut self, at: usize, batch: &Batch, verdict: Verdict, found: Option<Record>) {
        let node = &mut self.nodes[at];
        if verdict.writes() {
            if let Some(held) = node.held.as_mut().filter(|held| held.record.epoch == batch.fence.epoch) {
                held.base = held.base.max(batch.record.version);
                held.restore = false;
            }
            return self.player.hears_of_commit(at, batch, self.nodes[at].held.as_ref());
        }
        let Some(held) = &mut node.held else { return };
        held.dirty = true;
        let Some(stored) = found else {
            held.restore = true;
            return;
        };
        held.base = stored.version;
        let ours = stored.session == held.record.session;
        held.record.version = held.record.version.max(stored.version).next();
        if !ours {
            let mut history = stored.history.clone();
            history.append(stored.epoch, stored.version);
            held.record.history = history;
        }
    }
}
