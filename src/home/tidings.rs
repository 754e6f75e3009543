//! What becomes of this node's shards and of its lease calls, told as one line for many: a store that goes away concerns
//! all shards at once, a node that comes or goes a share of them. `keeper` notes every step and asks at its ticks what
//! is due. Counts, and never decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Home;
use super::faults::{Change, Failing};
use super::lease::{Event, Lease, State, Wish};
use super::meters::Meters;
use super::shard::Shard;
use crate::clock;
use crate::ids::{Generation, ShardId};
use crate::store::{Acquired, Grant, Reach};

/// A line waits until nothing was added to it for this long,
const QUIET_MS: u64 = 500;
/// but no longer than this.
const GATHER_MS: u64 = 2_000;
/// A cluster's first shards are all founded within this time, as its nodes start; one that is founded later was known before.
const FOUNDING_MS: u64 = 60_000;
/// So many shards a line names, of those that it counts.
const SHARDS_NAMED_MAX: usize = 8;

/// What can become of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// Served from now on.
    Taken,
    /// Handed over.
    Given,
    /// To be handed over, and it could not.
    Kept,
    /// Another node asked for what is here of it, and has it.
    Overtaken,
    /// Others hold it.
    Lost,
    /// The lease ran out.
    RanOut,
    /// Served past it, since the store is away for most.
    Alone,
    /// Served so no more, and the store has not said whose it is.
    Hushed,
    /// The lease stands again, and nobody was answered meanwhile.
    Back,
    /// The lease stands again, and players were served from memory until then.
    Rejoined,
    /// The store has lost what it had acknowledged.
    Rewound,
    /// Written anew after that.
    Rewritten,
    /// Granted, and its records could not be read.
    Unread,
    /// Taken, and the store knows nothing of what was before.
    Blank,
    /// Not a shard: players came back to sessions that are gone with the store's data.
    Forgotten,
}

impl Fate {
    /// What a step of a lease means to those who watch the node.
    const fn of(before: State, after: State) -> Option<Self> {
        match (before, after) {
            (State::Loading, State::Owned) => Some(Self::Taken),
            (State::Loading, State::Fenced) => Some(Self::Unread),
            (State::Draining, State::Free) => Some(Self::Given),
            (State::Draining, State::Owned) => Some(Self::Kept),
            (
                State::Owned | State::Unsure | State::Local | State::Paused | State::Repair | State::Draining,
                State::Fenced,
            ) => Some(Self::Lost),
            (State::Owned | State::Unsure, State::Paused) => Some(Self::RanOut),
            (State::Local, State::Paused) => Some(Self::Hushed),
            (State::Unsure | State::Paused, State::Local) => Some(Self::Alone),
            (State::Paused, State::Owned) => Some(Self::Back),
            (State::Local, State::Owned) => Some(Self::Rejoined),
            (
                State::Owned | State::Unsure | State::Local | State::Paused | State::Draining,
                State::Repair,
            ) => Some(Self::Rewound),
            (State::Repair, State::Owned) => Some(Self::Rewritten),
            _ => None,
        }
    }
}

/// One line that waits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Gathered {
    shards: usize,
    players: usize,
    /// The first of them, where it matters which.
    named: Vec<u16>,
    first_ms: u64,
    last_ms: u64,
}

/// All that is not told yet, and what was told last.
#[derive(Default)]
pub(super) struct Tidings {
    /// By what happened and with which other node.
    gathered: BTreeMap<(Fate, Option<Box<str>>), Gathered>,
    /// Who held each shard before, as its last grant said.
    came_from: Vec<Option<Box<str>>>,
    /// What the store was offered last as the generation of each shard, if it knows none.
    offered: Vec<Option<Generation>>,
    /// Whether the store knew nothing of each shard when it was granted last, and should have.
    is_blank: Vec<bool>,
    /// When the first shard was founded of all that were granted to this node (Unix ms).
    first_founded_ms: Option<u64>,
    /// Whether the last call of each shard had no answer.
    unanswered: Vec<bool>,
    calls: Failing,
    commits: Failing,
    /// Since when nobody is answered of some shard that is held here.
    paused_since_ms: Option<u64>,
    /// Since when some shard is served past its lease.
    local_since_ms: Option<u64>,
}

impl Tidings {
    pub(super) fn of(shards: usize) -> Self {
        Self {
            came_from: vec![None; shards],
            offered: vec![None; shards],
            is_blank: vec![false; shards],
            unanswered: vec![false; shards],
            ..Self::default()
        }
    }

    /// Notes that a shard is asked for, and what the store is to take for its generation if it knows none.
    pub(super) fn asks(&mut self, at: usize, generation_if_new: Generation) {
        if let Some(offered) = self.offered.get_mut(at) {
            *offered = Some(generation_if_new);
        }
    }

    /// Notes what a call of this shard came to.
    pub(super) fn heard(&mut self, at: usize, event: &Event) {
        let is_unanswered = match event {
            Event::Acquired { answer, .. } => {
                if let Some(Acquired::Granted(grant) | Acquired::AlreadyMine(grant)) = answer
                    && let Some(from) = self.came_from.get_mut(at)
                {
                    *from = grant.previous_owner.as_ref().map(|owner| owner.node().into());
                }
                if let Some(Acquired::Granted(grant)) = answer {
                    self.granted(at, grant);
                }
                answer.is_none()
            }
            Event::Renewed { answer, .. } => answer.is_none(),
            _ => return,
        };
        if let Some(unanswered) = self.unanswered.get_mut(at) {
            *unanswered = is_unanswered;
        }
    }

    /// Notes whether the store should have known more of a shard: it was founded by this very call, long after others. One
    /// that was founded before was told then.
    fn granted(&mut self, at: usize, grant: &Grant) {
        let founded_ms = grant.generation.founded_unix_ms();
        let first_ms = self.first_founded_ms.map_or(founded_ms, |first_ms| first_ms.min(founded_ms));
        self.first_founded_ms = Some(first_ms);
        let is_new = self.offered.get(at).is_some_and(|offered| *offered == Some(grant.generation));
        if let Some(is_blank) = self.is_blank.get_mut(at) {
            *is_blank = is_new && founded_ms > first_ms.saturating_add(FOUNDING_MS);
        }
    }

    /// Notes a step of a lease; `heir` says who is to have the shard.
    pub(super) fn moved(
        &mut self,
        at: usize,
        (before, after): (State, State),
        heir: impl FnOnce() -> Option<Box<str>>,
        meters: &Meters,
        now_ms: u64,
    ) {
        let Some(fate) = Fate::of(before, after) else { return };
        let other = match fate {
            Fate::Taken => self.came_from.get_mut(at).and_then(Option::take),
            Fate::Given => heir(),
            _ => None,
        };
        match fate {
            Fate::RanOut | Fate::Hushed => _ = self.paused_since_ms.get_or_insert(now_ms),
            Fate::Alone => _ = self.local_since_ms.get_or_insert(now_ms),
            _ => {}
        }
        meters.turned(fate);
        self.gather(fate, other, (1, 0), now_ms);
        if fate == Fate::Taken && self.is_blank.get_mut(at).is_some_and(std::mem::take) {
            meters.turned(Fate::Blank);
            self.gather(Fate::Blank, None, (1, 0), now_ms);
        }
    }

    /// Notes that the memory of a lost shard held so many players.
    pub(super) fn lost_players(&mut self, players: usize) {
        // Beside the shard itself, which was noted a moment ago; none was lost of one that was not served yet.
        if let Some(line) = self.gathered.get_mut(&(Fate::Lost, None)) {
            line.players += players;
        }
    }

    fn overtaken(&mut self, shard: ShardId, by: Box<str>, now_ms: u64) {
        let line = self.gather(Fate::Overtaken, Some(by), (1, 0), now_ms);
        if line.named.len() < SHARDS_NAMED_MAX {
            line.named.push(shard.number());
        }
    }

    fn gather(
        &mut self,
        fate: Fate,
        other: Option<Box<str>>,
        (shards, players): (usize, usize),
        now_ms: u64,
    ) -> &mut Gathered {
        let line = self
            .gathered
            .entry((fate, other))
            .or_insert(Gathered { first_ms: now_ms, ..Gathered::default() });
        line.shards += shards;
        line.players += players;
        line.last_ms = now_ms;
        line
    }

    /// Tells what is due; at a stop, all of it.
    pub(super) fn tell(&mut self, home: &Home, leases: &[Lease], wishes: &[Wish], is_last: bool) {
        let now_ms = clock::now().mono_ms;
        self.tell_calls(home, leases, wishes, now_ms);
        self.tell_commits(home, leases, now_ms);
        let forgotten = home.losses.take_sessions();
        if forgotten > 0 {
            self.gather(Fate::Forgotten, None, (0, forgotten), now_ms);
        }
        for (shard, by) in home.overtaken.take() {
            self.overtaken(shard, by, now_ms);
        }
        let is_away = |(shard, lease): (&Arc<Shard>, &Lease)| {
            lease.state() == State::Local && home.store.reach(shard.id()) == Reach::Away
        };
        if !home.shards.iter().zip(leases).any(is_away) {
            self.outdated(Fate::Alone);
        }
        for ((fate, other), line) in self.due(now_ms, is_last) {
            self.tell_one(home, fate, other.as_deref(), line);
        }
        self.forget_times(leases);
    }

    /// What is not so any more before it was told is not told: how long it was so comes with what ended it.
    fn outdated(&mut self, fate: Fate) {
        self.gathered.remove(&(fate, None));
    }

    /// Times are of one trouble, until its end is told.
    fn forget_times(&mut self, leases: &[Lease]) {
        let lasts = |state, end| {
            leases.iter().any(|lease| lease.state() == state) || self.gathered.contains_key(&(end, None))
        };
        let (is_paused, is_local) = (lasts(State::Paused, Fate::Back), lasts(State::Local, Fate::Rejoined));
        self.paused_since_ms = self.paused_since_ms.filter(|_| is_paused);
        self.local_since_ms = self.local_since_ms.filter(|_| is_local);
    }

    /// The lines to which nothing was added for a while.
    fn due(&mut self, now_ms: u64, is_last: bool) -> BTreeMap<(Fate, Option<Box<str>>), Gathered> {
        let waits =
            |line: &Gathered| !is_last && now_ms < (line.last_ms + QUIET_MS).min(line.first_ms + GATHER_MS);
        let (waiting, due) =
            std::mem::take(&mut self.gathered).into_iter().partition(|(_, line)| waits(line));
        self.gathered = waiting;
        due
    }

    fn tell_calls(&mut self, home: &Home, leases: &[Lease], wishes: &[Wish], now_ms: u64) {
        let shards = self.unanswered(leases, wishes);
        let Some(change) = self.calls.look(shards, now_ms) else { return };
        let held = leases.iter().filter(|lease| is_held(lease)).count();
        match change {
            Change::Begun => tracing::warn!(
                operation = "lease",
                shards,
                held,
                status = home.faults.leases.words(),
                "lease calls fail: what this node holds is served until its leases run out"
            ),
            Change::Over => {
                home.faults.leases.clear();
                tracing::info!(operation = "lease", held, "lease calls are answered again");
            }
        }
    }

    /// Of how many shards the last call had no answer.
    fn unanswered(&mut self, leases: &[Lease], wishes: &[Wish]) -> usize {
        for ((unanswered, lease), wish) in self.unanswered.iter_mut().zip(leases).zip(wishes) {
            // Of a shard that is not asked for any more no answer will come.
            *unanswered &= is_held(lease) || *wish != Wish::Unwanted;
        }
        self.unanswered.iter().filter(|unanswered| **unanswered).count()
    }

    fn tell_commits(&mut self, home: &Home, leases: &[Lease], now_ms: u64) {
        let fails =
            home.shards.iter().zip(leases).filter(|(shard, lease)| is_held(lease) && shard.commits_fail());
        let (shards, dirty) =
            fails.fold((0, 0), |(shards, dirty), (shard, _)| (shards + 1, dirty + shard.dirty_records()));
        match self.commits.look(shards, now_ms) {
            Some(Change::Begun) => tracing::warn!(
                operation = "flush",
                shards,
                dirty,
                status = home.faults.commits.words(),
                "commits fail: acks are provisional and `durable` is refused; logins are refused only if the store answers and takes nothing"
            ),
            Some(Change::Over) => {
                home.faults.commits.clear();
                tracing::info!(operation = "flush", "commits are taken again");
            }
            None => {}
        }
    }

    fn tell_one(&self, home: &Home, fate: Fate, other: Option<&str>, line: Gathered) {
        let Gathered { shards, players, named, last_ms, .. } = line;
        let lasted_ms = |since_ms: Option<u64>| since_ms.map(|since_ms| last_ms.saturating_sub(since_ms));
        match fate {
            Fate::Taken => tracing::info!(operation = "shards", shards, from = other, "shards were taken"),
            Fate::Given => {
                tracing::info!(operation = "shards", shards, to = other, "shards were handed over")
            }
            Fate::Kept => tracing::warn!(
                operation = "shards",
                shards,
                "shards stay: the store does not take their last changes; handing over is tried again"
            ),
            Fate::Overtaken => tracing::warn!(
                operation = "pull",
                shards,
                by = other,
                first = numbers(&named, shards),
                "another node has shards that were held here"
            ),
            Fate::Lost => tracing::warn!(
                operation = "shards",
                shards,
                players,
                "shards were lost: others were granted them meanwhile; players are sent there and told what is stored"
            ),
            Fate::RanOut => tracing::warn!(
                operation = "lease",
                shards,
                players = home.players_paused(),
                "leases have run out: links are told `paused`, and nobody is answered until they are renewed"
            ),
            Fate::Alone => tracing::warn!(
                operation = "lease",
                shards,
                dirty = home.shards.iter().map(|shard| shard.dirty_records()).sum::<usize>(),
                "the store is away for most nodes: players are served from memory, and what they are acked is provisional"
            ),
            Fate::Hushed => tracing::warn!(
                operation = "lease",
                shards,
                players = home.players_paused(),
                "the store is not away for most nodes any more, and has not said whose these shards are: links are told \
                 `paused`, and nobody is answered until it has"
            ),
            Fate::Back => tracing::info!(
                operation = "lease",
                shards,
                paused_ms = lasted_ms(self.paused_since_ms),
                "leases stand again: players are served"
            ),
            Fate::Rejoined => tracing::info!(
                operation = "lease",
                shards,
                local_ms = lasted_ms(self.local_since_ms),
                "leases stand again: players were served from memory until now"
            ),
            Fate::Rewound => tracing::warn!(
                operation = "repair",
                shards,
                "the store has lost writes that it had acknowledged: shards are taken again and written anew from memory"
            ),
            Fate::Rewritten => {
                tracing::warn!(
                    operation = "repair",
                    shards,
                    "shards are held again, and written from memory: players who are here, bans and the latest revocations. \
                     What no node had in memory is gone where the store has lost it: messages kept for players who are \
                     away, and what was remembered of them"
                );
            }
            Fate::Blank => tracing::error!(
                operation = "shards",
                shards,
                "shards were taken of which the store knows nothing: it has lost its data, and what no node had in memory \
                 of them is gone. Players who come back to it are told (`not_resumable` with `lost`)"
            ),
            Fate::Forgotten => tracing::warn!(
                operation = "shards",
                players,
                "players came back to sessions that are gone with the store's data, and were told"
            ),
            Fate::Unread => tracing::warn!(
                operation = "load",
                shards,
                status = home.faults.leases.words(),
                "shards were granted and could not be loaded: tried again"
            ),
        }
    }
}

/// The numbers of some of so many shards, in words.
fn numbers(named: &[u16], of: usize) -> String {
    let numbers: Vec<_> = named.iter().map(u16::to_string).collect();
    let more = if of > named.len() { ", …" } else { "" };
    numbers.join(", ") + more
}

const fn is_held(lease: &Lease) -> bool {
    !matches!(lease.state(), State::Free | State::Fenced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::lease::Terms;
    use crate::ids::{Epoch, FlushSeq, Owner, Version};

    const TERMS: Terms = Terms { ttl_ms: 6_000, member_ttl_ms: 5_000 };

    fn granted(from: Option<&str>) -> Event {
        let grant = Grant {
            epoch: Epoch::of(7),
            flush_seq: FlushSeq::ZERO,
            generation: Generation::of(1),
            version_max: Version::ZERO,
            previous_owner: from.map(Owner::named),
        };
        Event::Acquired { sent_at_ms: 0, answer: Some(Acquired::Granted(grant)) }
    }

    fn lines(tidings: &mut Tidings, now_ms: u64) -> Vec<(Fate, Option<Box<str>>, usize)> {
        tidings
            .due(now_ms, false)
            .into_iter()
            .map(|((fate, other), line)| (fate, other, line.shards))
            .collect()
    }

    #[test]
    fn what_happens_to_many_shards_is_one_line_for_each_node_that_they_came_from() {
        let (mut tidings, meters) = (Tidings::of(6), Meters::new());
        for (at, from) in
            [Some("b#1"), Some("c#1"), None, Some("b#1"), Some("c#2"), None].into_iter().enumerate()
        {
            tidings.heard(at, &granted(from));
            tidings.moved(at, (State::Loading, State::Owned), || None, &meters, 100);
        }
        tidings.heard(0, &granted(Some("b#1")));
        tidings.moved(0, (State::Loading, State::Owned), || None, &meters, 350);
        let taken = |from: Option<&str>, shards| (Fate::Taken, from.map(Into::into), shards);
        assert_eq!(lines(&mut tidings, 599), []);
        assert_eq!(lines(&mut tidings, 600), [taken(None, 2), taken(Some("c"), 2)]);
        assert_eq!(lines(&mut tidings, 850), [taken(Some("b"), 3)]);
        assert_eq!(lines(&mut tidings, 9_000), []);
    }

    #[test]
    fn a_shard_that_is_founded_much_later_than_others_is_told_as_blank_and_once() {
        let (mut tidings, meters) = (Tidings::of(5), Meters::new());
        let start_ms = 1_790_000_000_000;
        let granted_as = |generation| {
            let Event::Acquired { sent_at_ms, answer: Some(Acquired::Granted(grant)) } = granted(None) else {
                unreachable!()
            };
            let grant = Grant { generation, ..grant };
            Event::Acquired { sent_at_ms, answer: Some(Acquired::Granted(grant)) }
        };
        let hour_ms = 3_600_000;
        let [first, soon, late] =
            [0, FOUNDING_MS, hour_ms].map(|after_ms| Generation::founded(start_ms + after_ms));
        let known = Generation::founded(start_ms + hour_ms);
        for (at, offered, generation) in
            [(0, first, first), (1, soon, soon), (2, late, known), (3, late, late)]
        {
            tidings.asks(at, offered);
            tidings.heard(at, &granted_as(generation));
            tidings.moved(at, (State::Loading, State::Owned), || None, &meters, 100);
        }
        assert_eq!(lines(&mut tidings, 9_000), [(Fate::Taken, None, 4), (Fate::Blank, None, 1)]);
        // It comes back from another node, and nothing was written of it yet.
        tidings.asks(3, Generation::founded(start_ms + 2 * hour_ms));
        tidings.heard(3, &granted_as(late));
        tidings.moved(3, (State::Loading, State::Owned), || None, &meters, 10_000);
        assert_eq!(lines(&mut tidings, 19_000), [(Fate::Taken, None, 1)]);
        // Who wrote it anew from memory remembers the time before.
        let anew = Generation::founded(start_ms).anew();
        assert_eq!(anew.founded_unix_ms(), start_ms);
        assert_ne!(anew, anew.anew());
    }

    #[test]
    fn shards_that_another_node_has_are_one_line_that_names_some() {
        let mut tidings = Tidings::of(64);
        for number in 0..20 {
            tidings.overtaken(ShardId::numbered(number).unwrap(), "b".into(), 100);
        }
        tidings.overtaken(ShardId::numbered(30).unwrap(), "c".into(), 100);
        let due: Vec<_> = tidings.due(600, false).into_iter().collect();
        let told = due.iter().map(|((_, by), line)| (by.as_deref(), numbers(&line.named, line.shards)));
        let expected = [(Some("b"), "0, 1, 2, 3, 4, 5, 6, 7, …".to_owned()), (Some("c"), "30".to_owned())];
        assert_eq!(told.collect::<Vec<_>>(), expected);
        assert_eq!(due[0].1.shards, 20);
    }

    #[test]
    fn what_goes_on_and_on_is_told_now_and_then() {
        let (mut tidings, meters, mut told) = (Tidings::of(1), Meters::new(), Vec::new());
        for now_ms in (0..10_000).step_by(100) {
            tidings.moved(0, (State::Loading, State::Fenced), || None, &meters, now_ms);
            told.extend(lines(&mut tidings, now_ms));
        }
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told.iter().all(|(fate, ..)| *fate == Fate::Unread));
    }

    #[test]
    fn every_step_has_the_name_of_what_it_means() {
        for (step, fate) in [
            ((State::Draining, State::Free), Some(Fate::Given)),
            ((State::Draining, State::Owned), Some(Fate::Kept)),
            ((State::Paused, State::Fenced), Some(Fate::Lost)),
            ((State::Unsure, State::Paused), Some(Fate::RanOut)),
            ((State::Unsure, State::Local), Some(Fate::Alone)),
            ((State::Local, State::Paused), Some(Fate::Hushed)),
            ((State::Paused, State::Owned), Some(Fate::Back)),
            ((State::Local, State::Owned), Some(Fate::Rejoined)),
            ((State::Local, State::Fenced), Some(Fate::Lost)),
            ((State::Local, State::Repair), Some(Fate::Rewound)),
            ((State::Owned, State::Repair), Some(Fate::Rewound)),
            ((State::Repair, State::Owned), Some(Fate::Rewritten)),
            ((State::Owned, State::Unsure), None),
            ((State::Fenced, State::Free), None),
        ] {
            assert_eq!(Fate::of(step.0, step.1), fate, "{step:?}");
        }
    }

    #[test]
    fn that_the_store_is_away_is_not_told_once_it_is_back() {
        let (mut tidings, meters) = (Tidings::of(1), Meters::new());
        tidings.moved(0, (State::Unsure, State::Local), || None, &meters, 100);
        tidings.outdated(Fate::Alone);
        tidings.moved(0, (State::Local, State::Owned), || None, &meters, 400);
        assert_eq!(lines(&mut tidings, 900), [(Fate::Rejoined, None, 1)]);
    }

    #[test]
    fn how_long_players_were_served_from_memory_is_told_and_counts_as_no_pause() {
        let (mut tidings, meters, leases) = (Tidings::of(2), Meters::new(), vec![Lease::new(TERMS, 0); 2]);
        tidings.moved(0, (State::Unsure, State::Local), || None, &meters, 1_000);
        tidings.moved(0, (State::Local, State::Owned), || None, &meters, 9_000);
        tidings.forget_times(&leases);
        assert_eq!((tidings.local_since_ms, tidings.paused_since_ms), (Some(1_000), None));
        lines(&mut tidings, 9_500);
        tidings.forget_times(&leases);
        assert_eq!(tidings.local_since_ms, None, "told");
    }

    #[test]
    fn a_shard_that_is_not_asked_for_any_more_waits_for_no_answer() {
        let (mut tidings, leases) = (Tidings::of(3), vec![Lease::new(TERMS, 0); 3]);
        let mut wishes = [Wish::Wanted, Wish::Wanted, Wish::Unwanted];
        let unanswered = Event::Acquired { sent_at_ms: 0, answer: None };
        (0..3).for_each(|at| tidings.heard(at, &unanswered));
        assert_eq!(tidings.unanswered(&leases, &wishes), 2);
        tidings.heard(0, &granted(None));
        assert_eq!(tidings.unanswered(&leases, &wishes), 1);
        wishes = [Wish::Wanted, Wish::Unwanted, Wish::Unwanted];
        assert_eq!(tidings.unanswered(&leases, &wishes), 0);
    }
}
