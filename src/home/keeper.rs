//! The thin shell around the lease machines: one task ticks every shard's machine, sends what they ask for to the store,
//! many together, and hands the answers back. A shard stops answering before anything else happens to it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::Home;
use super::accord::FRESH_MS;
use super::lease::{Action, Event, Grounds, Lease, State};
use super::placement::node_of;
use super::shard::{Fence, Serving, Shard};
use super::tidings::Tidings;
use super::traced::traced;
use super::wishes::Wishes;
use crate::clock;
use crate::cluster::Holds;
use crate::ids::{Epoch, Generation, ShardId};
use crate::store::{AcquireRequest, Acquired, COMMIT_RECORDS_MAX, Reach, Renewed, StoreError};
use crate::tasks;

/// How often the machines tick.
const TICK: Duration = Duration::from_millis(50);
/// Most lease calls that go together: more would keep those of others waiting.
const CALLS_MAX: usize = 256;
/// Most shards that are drained at a time.
const DRAINS_MAX: usize = 16;
/// Ticks that a shard's dirty records may take to fit into one commit before it is drained anyway.
const TIDY_TICKS_MAX: u32 = 20;
/// How long a shard is left alone after a drain that came to nothing.
const DRAIN_AGAIN_MS: u64 = 1_000;
/// Ticks between two times that the others are told what this node holds.
const HOLDS_TICKS: u32 = 10;
/// Ticks between two looks whether other nodes must hear something of the store.
const WHISPER_TICKS: u32 = 2;

type Call = Pin<Box<dyn Future<Output = Vec<(usize, Event)>> + Send>>;

/// When a shard may be drained.
#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    not_before_ms: u64,
    tidy_ticks: u32,
}

/// All leases of this node, and the calls under way: at most one lease call and one piece of work a shard.
struct Keeper {
    home: Arc<Home>,
    leases: Vec<Lease>,
    wishes: Wishes,
    turns: Vec<Turn>,
    /// How each shard was last said to be served.
    told: Vec<Serving>,
    calls: FuturesUnordered<Call>,
    tidings: Tidings,
    ticks: u32,
    ticked_at_ms: u64,
    /// Whether some server was away at the last tick.
    is_away: bool,
}

impl Home {
    /// The task.
    pub(super) async fn run_keeper(self: Arc<Self>, mut reports: mpsc::Receiver<(ShardId, Event)>) {
        let terms = self.terms();
        let ttl_ms = terms.ttl_ms;
        let now_ms = clock::now().mono_ms;
        let mut keeper = Keeper {
            leases: self.shards.iter().map(|_| Lease::new(terms, now_ms)).collect(),
            wishes: Wishes::new(Arc::clone(&self.members), self.placement, ttl_ms),
            turns: vec![Turn::default(); self.shards.len()],
            told: vec![Serving::Paused; self.shards.len()],
            home: Arc::clone(&self),
            calls: FuturesUnordered::new(),
            tidings: Tidings::of(self.shards.len()),
            ticks: 0,
            ticked_at_ms: now_ms,
            is_away: false,
        };
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tasks::beat();
            tokio::select! {
                biased;
                () = self.tasks.stopping() => return keeper.tell(true),
                // Nothing is renewed that is about to be given back.
                () = self.tasks.failed() => return keeper.tell(true),
                // Bad news first: a tick must not let a shard answer that a batch has found lost.
                Some((shard, event)) = reports.recv() => keeper.step(usize::from(shard.number()), event),
                _ = ticks.tick() => keeper.tick(),
                Some(events) = keeper.calls.next() => {
                    for (at, event) in events {
                        keeper.step(at, event);
                    }
                }
            }
        }
    }
}

impl Keeper {
    fn tick(&mut self) {
        let now_ms = clock::now().mono_ms;
        let reaches: Vec<_> =
            self.home.shards.iter().map(|shard| self.home.store.reach(shard.id())).collect();
        let grounds = self.look_at_store(&reaches, now_ms);
        let is_away = reaches.contains(&Reach::Away);
        if std::mem::replace(&mut self.is_away, is_away) && !is_away {
            self.wishes.returned(now_ms);
        }
        if self.wishes.look(now_ms) {
            for (lease, wish) in self.leases.iter_mut().zip(self.wishes.all()) {
                lease.wish(*wish, now_ms);
            }
        }
        let (mut wanted, mut held) = (Vec::new(), Vec::new());
        for at in 0..self.leases.len() {
            let Some(lease) = self.leases.get_mut(at) else { continue };
            let before = lease.state();
            let action = lease.tick(now_ms, grounds.get(at).copied().unwrap_or(Grounds::None));
            let after = lease.state();
            self.note(at, (before, after));
            self.publish(at);
            match action {
                Some(Action::Acquire { floor }) => wanted.push((at, floor)),
                Some(Action::Renew) => held.push(at),
                action => self.act(at, action),
            }
        }
        self.acquire(&wanted);
        self.renew(&held);
        self.look_back();
        self.drain(now_ms);
        self.tell(false);
        self.tell_holds(now_ms);
        self.home.parcels.forget_old(now_ms);
        self.home.meters.lease_states(self.leases.iter().map(Lease::state));
        self.home.meters.lease_age(self.leases.iter().filter_map(|lease| lease.age_ms(now_ms)).max());
        self.home.meters.serving(self.home.shards.iter().filter(|shard| shard.serves(now_ms)).count());
        let dirty = self.home.shards.iter().map(|shard| shard.dirty_records()).sum();
        self.home.meters.records(self.home.records.len(), dirty);
        self.home.meters.backlog(
            self.home.shards.iter().filter_map(|shard| shard.dirty_since_ms()).min(),
            self.home.shards.iter().filter(|shard| shard.is_held_back()).count(),
            now_ms,
        );
    }

    /// Takes note of how each shard's server answers and tells the other nodes; says what there is to say for serving each
    /// shard past its lease.
    fn look_at_store(&mut self, reaches: &[Reach], now_ms: u64) -> Vec<Grounds> {
        let home = &self.home;
        // Whoever did not run for so long knows nothing of now.
        let slept = now_ms.saturating_sub(std::mem::replace(&mut self.ticked_at_ms, now_ms)) >= FRESH_MS;
        if self.ticks.is_multiple_of(WHISPER_TICKS) {
            home.whisper(reaches, now_ms);
        }
        home.whispers.with(|accord| {
            if slept {
                accord.doubt(now_ms);
            }
            let look = |((shard, lease), reach): ((&Arc<Shard>, &Lease), &Reach)| {
                let is_held = !matches!(lease.state(), State::Free | State::Fenced);
                let reach = if is_held { *reach } else { Reach::Well };
                shard.reached(reach);
                match lease.state() {
                    State::Unsure | State::Local | State::Paused => {
                        home.grounds(accord, (shard.id(), lease.epoch()), reach, now_ms)
                    }
                    _ => Grounds::None,
                }
            };
            home.shards.iter().zip(&self.leases).zip(reaches).map(look).collect()
        })
    }

    /// Asks for shards, many in one call.
    fn acquire(&mut self, wanted: &[(usize, Epoch)]) {
        for wanted in wanted.chunks(CALLS_MAX) {
            let home = Arc::clone(&self.home);
            let request = |(at, floor): &(usize, Epoch)| Some((*at, home.acquire_request(*at, *floor)?));
            let requests: Vec<_> = wanted.iter().filter_map(request).collect();
            for (at, request) in &requests {
                self.tidings.asks(*at, request.generation_if_new);
            }
            self.calls.push(Box::pin(async move { home.acquire_all(requests).await }));
        }
    }

    /// Extends leases, many in one call.
    fn renew(&mut self, held: &[usize]) {
        for held in held.chunks(CALLS_MAX) {
            let (home, held) = (Arc::clone(&self.home), held.to_vec());
            self.calls.push(Box::pin(async move { home.renew_all(held).await }));
        }
    }

    /// Looks at what was opened without the store, where that is back.
    fn look_back(&mut self) {
        for (shard, lease) in self.home.shards.iter().zip(&self.leases) {
            if lease.state() == State::Owned && !shard.is_cut_off() && shard.has_blind() {
                let (home, shard) = (Arc::clone(&self.home), Arc::clone(shard));
                self.calls.push(Box::pin(async move {
                    home.look_back(&shard).await;
                    Vec::new()
                }));
            }
        }
    }

    /// Begins to give away what is placed elsewhere, a few shards at a time. What is dirty is committed first while the
    /// shard still answers, so that its last commit is a short one.
    fn drain(&mut self, now_ms: u64) {
        if !self.wishes.may_drain(now_ms) {
            return;
        }
        let mut under_way = self.leases.iter().filter(|lease| lease.state() == State::Draining).count();
        for at in 0..self.leases.len() {
            if under_way >= DRAINS_MAX {
                return;
            }
            let is_ours = self.leases.get(at).is_some_and(|lease| lease.state() == State::Owned);
            // What the store cannot take back now it could give to nobody: who is served stays served.
            let is_held_back = self.home.shards.get(at).is_none_or(|shard| shard.is_held_back());
            // Before what costs more: it may be asked of every shard at every tick.
            let is_early = self.turns.get(at).is_none_or(|turn| now_ms < turn.not_before_ms);
            if !is_ours || is_held_back || is_early || !self.wishes.is_elsewhere(at) {
                continue;
            }
            if self.is_kept(at, now_ms) || !self.is_drained_now(at, now_ms) {
                continue;
            }
            self.step(at, Event::Drain);
            under_way +=
                usize::from(self.leases.get(at).is_some_and(|lease| lease.state() == State::Draining));
        }
    }

    /// Whether a shard is better kept here for now, because its heir could not take it. A node that was cut off from its
    /// store counts as alive as soon as what it said before comes through, and tries its store again only later.
    fn is_kept(&self, at: usize, now_ms: u64) -> bool {
        // Who leaves cannot keep it.
        let leaves = self.home.members.drains();
        !leaves && self.home.shards.get(at).is_some_and(|shard| self.home.is_heir_away(shard.id(), now_ms))
    }

    /// Whether it is this shard's turn: if not, it is made ready for it.
    fn is_drained_now(&mut self, at: usize, now_ms: u64) -> bool {
        let (Some(turn), Some(shard)) = (self.turns.get_mut(at), self.home.shards.get(at)) else {
            return false;
        };
        if turn.tidy_ticks == 0 {
            let home = &self.home;
            home.tell_ahead(&home.records.of_shard(shard), clock::now());
        }
        if shard.dirty_records() > COMMIT_RECORDS_MAX && turn.tidy_ticks < TIDY_TICKS_MAX {
            turn.tidy_ticks += 1;
            shard.hurry(now_ms);
            return false;
        }
        *turn = Turn::default();
        true
    }

    /// What the others are to know of this node, for people.
    fn tell_holds(&mut self, now_ms: u64) {
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks % HOLDS_TICKS != 1 {
            return;
        }
        let (home, mut holds) = (&self.home, Holds::default());
        for (lease, shard) in self.leases.iter().zip(&home.shards) {
            if !matches!(lease.state(), State::Free | State::Fenced) {
                let epoch = lease.epoch().number();
                let (lowest, highest) = if holds.shards == 0 { (epoch, epoch) } else { holds.epochs };
                holds.epochs = (lowest.min(epoch), highest.max(epoch));
                holds.shards += 1;
            }
            let lag_ms = shard.dirty_since_ms().map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
            holds.flush_lag_ms = holds.flush_lag_ms.max(lag_ms);
            holds.records_dirty += u64::try_from(shard.dirty_records()).unwrap_or(u64::MAX);
        }
        holds.records_hot = u64::try_from(home.records.len()).unwrap_or(u64::MAX);
        home.members.holds(holds);
    }

    fn tell(&mut self, is_last: bool) {
        self.tidings.tell(&self.home, &self.leases, self.wishes.all(), is_last);
    }

    /// Notes what a step of a lease means to those who watch the node.
    fn note(&mut self, at: usize, (before, after): (State, State)) {
        if before == after {
            return;
        }
        let heir = || {
            let shard = self.home.shards.get(at)?;
            node_of(shard.id(), self.home.members.snapshot().takers()).map(Into::into)
        };
        let now_ms = clock::now().mono_ms;
        self.tidings.moved(at, (before, after), heir, &self.home.meters, now_ms);
    }

    fn step(&mut self, at: usize, event: Event) {
        let Some(lease) = self.leases.get_mut(at) else { return };
        self.tidings.heard(at, &event);
        let before = lease.state();
        let action = lease.on(event, clock::now().mono_ms, rand::random());
        let (after, epoch) = (lease.state(), lease.epoch());
        if before != after {
            tracing::debug!(operation = "lease", shard = at, %epoch, from = before.name(), to = after.name());
        }
        self.note(at, (before, after));
        if !matches!(action, Some(Action::Restore(_))) {
            self.publish(at);
        }
        self.act(at, action);
        self.publish(at);
    }

    /// Says until when the shard may answer.
    fn publish(&mut self, at: usize) {
        let (Some(lease), Some(shard), Some(told)) =
            (self.leases.get(at), self.home.shards.get(at), self.told.get_mut(at))
        else {
            return;
        };
        shard.stand(lease.state(), lease.epoch(), lease.serving_until_ms());
        // A drain is over in a moment, and its links are told where to go rather than that they must wait.
        if lease.state() == State::Draining {
            return;
        }
        // Compared with what was told last, not with the shard: that one stops serving by itself when time is up.
        let serving = match lease.serving_until_ms() {
            0 => Serving::Paused,
            _ if shard.is_held_back() => Serving::Local,
            _ => Serving::Normal,
        };
        if std::mem::replace(told, serving) != serving {
            self.home.events.mode.put(shard.id(), ());
        }
    }

    fn act(&mut self, at: usize, action: Option<Action>) {
        let Some(shard) = self.home.shards.get(at).map(Arc::clone) else { return };
        let home = Arc::clone(&self.home);
        let call: Call = match action {
            None => return,
            Some(Action::Acquire { floor }) => return self.acquire(&[(at, floor)]),
            Some(Action::Renew) => return self.renew(&[at]),
            Some(Action::Pull { grant, from }) => {
                let Some(asked) = home.begin_pull(&shard, &grant, from) else {
                    return self.step(at, Event::Pulled { epoch: grant.epoch });
                };
                Box::pin(async move {
                    let pull = home.pull(shard.id(), &grant, &asked);
                    traced("shard pull", (shard.id(), grant.epoch), pull, |()| None).await;
                    vec![(at, Event::Pulled { epoch: grant.epoch })]
                })
            }
            Some(Action::Load(grant)) => Box::pin(async move {
                let failed = |complete: &bool| (!complete).then_some("incomplete");
                let load = home.load(&shard, &grant);
                let complete = traced("shard take over", (shard.id(), grant.epoch), load, failed).await;
                vec![(at, Event::Loaded { epoch: grant.epoch, complete })]
            }),
            Some(Action::Restore(grant)) => {
                home.restore(&shard, &grant);
                Box::pin(async move {
                    home.mend_store(&shard, grant.epoch).await;
                    Vec::new()
                })
            }
            Some(Action::Free) => {
                let remains = home.free(&shard);
                self.tidings.lost_players(remains.players());
                Box::pin(async move {
                    home.tell_fenced(remains).await;
                    vec![(at, Event::Freed)]
                })
            }
            Some(Action::Drain) => {
                if let Some(turn) = self.turns.get_mut(at) {
                    turn.not_before_ms = clock::now().mono_ms.saturating_add(DRAIN_AGAIN_MS);
                }
                Box::pin(async move {
                    let failed = |event: &Option<Event>| match event {
                        Some(Event::Drained { released: true, .. }) => None,
                        _ => Some("not_stored"),
                    };
                    let place = (shard.id(), shard.lease().1);
                    let event = traced("shard hand over", place, home.drain(&shard), failed).await;
                    event.map(|event| (at, event)).into_iter().collect()
                })
            }
        };
        self.calls.push(call);
    }
}

/// The answer, if there was one; an error means unknown.
pub(super) fn answered<T>(
    shard: &Shard,
    operation: &'static str,
    answer: Result<T, StoreError>,
) -> Option<T> {
    let told =
        |error: &_| tracing::debug!(operation, shard = shard.id().number(), status = %error, "no answer");
    answer.inspect_err(told).ok()
}

impl Home {
    /// The same of a lease call: what the store says is kept, to be told once for all shards.
    fn lease_answer<T>(
        &self,
        shard: &Shard,
        operation: &'static str,
        answer: Result<T, StoreError>,
    ) -> Option<T> {
        answered(shard, operation, answer.inspect_err(|error| self.faults.leases.note(error)))
    }

    /// Players in memory whose shards nobody may be answered from.
    pub(super) fn players_paused(&self) -> usize {
        self.records.count(|cell| cell.shard().lease().0 == State::Paused)
    }

    /// How a shard is asked for. Who has it in memory remembers when it was founded.
    fn acquire_request(&self, at: usize, floor: Epoch) -> Option<AcquireRequest> {
        let shard = self.shards.get(at)?;
        let founded = || Generation::founded(clock::now().unix_ms);
        Some(AcquireRequest {
            shard: shard.id(),
            owner: self.owner.clone(),
            ttl: self.settings.lease_ttl,
            floor,
            generation_if_new: shard.fence().map_or_else(founded, |fence| fence.generation.anew()),
        })
    }

    async fn acquire_all(&self, requests: Vec<(usize, AcquireRequest)>) -> Vec<(usize, Event)> {
        let sent_at_ms = clock::now().mono_ms;
        let (wanted, requests): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        let answers = self.store.lease_acquire_all(requests).await.into_iter().inspect(|answer| {
            if let Ok(Acquired::Granted(grant)) = answer {
                self.store_time.granted(grant.epoch, sent_at_ms);
            }
        });
        let answers = answers.map(Some);
        let event = |answer| Event::Acquired { sent_at_ms, answer };
        wanted
            .into_iter()
            .zip(answers.chain(std::iter::repeat(None)))
            .filter_map(|(at, answer)| {
                let shard = self.shards.get(at)?;
                Some((at, event(answer.and_then(|answer| self.lease_answer(shard, "acquire", answer)))))
            })
            .collect()
    }

    async fn renew_all(&self, held: Vec<usize>) -> Vec<(usize, Event)> {
        let (sent_at_ms, ttl) = (clock::now().mono_ms, self.settings.lease_ttl);
        let held: Vec<_> = held
            .into_iter()
            .filter_map(|at| self.shards.get(at).map(|shard| (at, shard, shard.fence())))
            .collect();
        let leases: Vec<_> = held
            .iter()
            .filter_map(|(_, shard, fence)| fence.as_ref().map(|fence| (shard.id(), fence.epoch)))
            .collect();
        let count = leases.len();
        let call = self.store.lease_renew_all(&self.owner, leases, ttl);
        // A sixth of the TTL: a late answer is no answer.
        let answers = tokio::time::timeout(ttl / 6, call).await;
        let late = |_| std::iter::repeat_with(|| Err(StoreError::Timeout)).take(count).collect();
        let mut answers = answers.unwrap_or_else(late).into_iter();
        held.into_iter()
            .map(|(at, shard, fence)| {
                let answer = fence.as_ref().and_then(|_| answers.next());
                let answer = answer.and_then(|answer| self.lease_answer(shard, "renew", answer));
                let consistent = fence.is_none_or(|fence| self.is_consistent(answer, &fence));
                (at, Event::Renewed { sent_at_ms, answer, consistent })
            })
            .collect()
    }

    /// Whether a renewal found what was acknowledged.
    fn is_consistent(&self, answer: Option<Renewed>, fence: &Fence) -> bool {
        match answer {
            Some(
                Renewed::Renewed { flush_seq, generation } | Renewed::Regranted { flush_seq, generation },
            ) => {
                self.settings.lost_writes_unchecked
                    || (flush_seq >= fence.flush_seq_acked && generation == fence.generation)
            }
            _ => true,
        }
    }
}
