//! Where a shard is served: here, at another node, or nowhere for the moment. The store's word on who holds it counts; how
//! the members are placed counts where the store does not answer, or nobody holds it yet. For routing alone: who may
//! write is the lease's to say.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::Home;
use super::lease::State;
use super::placement::node_of;
use super::record::millis;
use crate::clock;
use crate::cluster::{Member, Snapshot};
use crate::ids::{Owner, SessionId, ShardId};
use crate::store::Held;

/// How long what the store said of a holder is good for.
const GOOD_FOR_MS: u64 = 500;
/// For so long it is taken for good though somebody found otherwise.
const FRESH_MS: u64 = 20;
/// Longer than a dead node's lease: how much later somebody may ask again.
const LATER_MS: u64 = 250;
/// A renewal counts as later than something here if it is by so much: the store's answer was on its way for a while.
const SLACK_MS: u64 = 100;

/// Where a shard is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// On this node, now or in a moment.
    Here,
    /// On that one.
    At(Member),
    /// Nowhere; ask again after this long.
    Nowhere {
        /// In ms.
        retry_after_ms: u64,
    },
}

/// Who is known to serve a shard: for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// That one.
    Of {
        /// Who.
        holder: Owner,
        /// By whose word.
        by: Word,
    },
    /// Nobody, says the store.
    Nobody,
    /// The store has not answered, and no node that can be heard says that it serves the shard.
    Unknown,
}

/// Who said who serves a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The store, a moment ago.
    Store,
    /// That node itself, over its link to this one, where the store does not answer or knows of nobody.
    Nodes,
    /// The store, when it last answered; who has taken the shard since is not known.
    StoreBefore {
        /// How long ago.
        age_ms: u64,
    },
}

/// What the store last said of each shard's holder; a shard is asked about once, however many want to know.
#[derive(Default)]
pub(super) struct Sightings {
    by_shard: Vec<Mutex<Option<Sighting>>>,
    all: Mutex<Option<Overview>>,
}

/// The holders of all shards.
#[derive(Clone)]
struct Overview {
    /// When the store was last asked and answered, or did not.
    at_ms: u64,
    /// When it last answered.
    heard_ms: u64,
    /// What it said then.
    held: Arc<Vec<Option<Held>>>,
}

#[derive(Clone)]
struct Sighting {
    /// When the store was asked: how old what it said is.
    at_ms: u64,
    /// When it answered.
    heard_ms: u64,
    /// `None`: the store did not answer.
    holder: Option<Option<Held>>,
}

impl Sightings {
    pub(super) fn of(shards: u16) -> Self {
        Self { by_shard: (0..shards).map(|_| Mutex::default()).collect(), all: Mutex::default() }
    }
}

impl Home {
    /// The shard of a session of which this is a ticket, of whichever number; `None` if it is none.
    #[must_use]
    pub fn shard_of_ticket(&self, session: SessionId, ticket: &str) -> Option<ShardId> {
        self.tickets.open(session, ticket)?;
        Some(session.shard()).filter(|shard| self.shard(*shard).is_ok())
    }

    /// Whether this node is a shard's home, or is about to be.
    #[must_use]
    pub fn is_home_of(&self, shard: ShardId) -> bool {
        // While it is drained, whoever comes is held here for a moment: elsewhere nobody could take her yet.
        let is_ours = |state| !matches!(state, State::Free | State::Fenced);
        self.shard(shard).is_ok_and(|shard| is_ours(shard.lease().0))
    }

    /// What the store said of a shard's holder has proved wrong. One that was heard a moment ago stays: many may find so.
    pub async fn forget_whereabouts(&self, shard: ShardId) {
        if let Some(place) = self.sightings.by_shard.get(usize::from(shard.number())) {
            let now_ms = clock::now().mono_ms;
            place.lock().await.take_if(|sighting| now_ms > sighting.heard_ms + FRESH_MS);
        }
    }

    /// Where a shard is served. Asks the store at most twice a second for a shard, unless its answer proves wrong or the
    /// shard is on its way here.
    pub async fn whereabouts(&self, shard: ShardId) -> Whereabouts {
        if self.is_home_of(shard) {
            return Whereabouts::Here;
        }
        let snapshot = self.members.snapshot();
        // A shard that is on its way here may be given back at any moment. Who is sent to its old home then, by what was true
        // a moment ago, is sent back at once.
        let is_heir = node_of(shard, snapshot.takers()) == Some(snapshot.me().node());
        let (holder, age_ms) = self.sighting(shard, if is_heir { 0 } else { GOOD_FOR_MS }).await;
        // While the store cannot say, the nodes themselves do.
        if holder.is_none()
            && let Some(member) =
                self.holder_by_hearsay(shard).as_ref().and_then(|held| snapshot.member(held))
        {
            return Whereabouts::At(member.clone());
        }
        let unheard_ms = clock::now().mono_ms.saturating_sub(snapshot.taken_at_ms());
        let ttl_ms = millis(self.settings.lease_ttl);
        let news_ms = ttl_ms.saturating_sub(unheard_ms);
        let told = judge(&snapshot, shard, holder.as_ref().map(Option::as_ref), age_ms, news_ms);
        let (Whereabouts::At(member), Some(held)) = (&told, holder) else { return told };
        let left_ms = held
            .filter(|held| held.owner == member.owner)
            .map_or(0, |held| millis(held.remaining).saturating_sub(age_ms));
        let asked_ms = clock::now().mono_ms;
        let Some(neighbours) = &self.neighbours else { return told };
        match neighbours.links.refused_since_ms(member).await {
            Some(since_ms) if !lives(left_ms, ttl_ms, since_ms, asked_ms) => {
                Whereabouts::Nowhere { retry_after_ms: left_ms + LATER_MS }
            }
            _ => told,
        }
    }

    /// What the store says of a shard's holder, and how long ago it said so: since this was asked, or not longer ago than
    /// `good_for_ms`. All who wait for one answer share it.
    async fn sighting(&self, shard: ShardId, good_for_ms: u64) -> (Option<Option<Held>>, u64) {
        let Some(place) = self.sightings.by_shard.get(usize::from(shard.number())) else { return (None, 0) };
        let come_ms = clock::now().mono_ms;
        let mut sighting = place.lock().await;
        let asked_ms = clock::now().mono_ms;
        let is_good = |known: &&Sighting| {
            // A store that does not answer is left alone for a while.
            let good_for_ms = if known.holder.is_none() { GOOD_FOR_MS } else { good_for_ms };
            known.at_ms > come_ms || asked_ms < known.heard_ms + good_for_ms
        };
        if let Some(known) = sighting.as_ref().filter(is_good) {
            return (known.holder.clone(), asked_ms.saturating_sub(known.at_ms));
        }
        let holder = match self.store.holders(vec![shard]).await {
            Ok(holders) => holders.into_iter().next(),
            Err(error) => {
                tracing::debug!(operation = "whereabouts", shard = shard.number(), status = %error);
                None
            }
        };
        // Good for a while from now on, however long the store took: those who wait for this answer ask nothing.
        let heard_ms = clock::now().mono_ms;
        *sighting = Some(Sighting { at_ms: asked_ms, heard_ms, holder: holder.clone() });
        (holder, heard_ms - asked_ms)
    }

    /// Who serves each shard, by number, as far as the store says, or else the nodes themselves; for people.
    pub async fn sights(&self) -> Vec<Sight> {
        let Overview { at_ms, heard_ms, held } = self.overview().await;
        let before_ms = (heard_ms < at_ms).then(|| clock::now().mono_ms.saturating_sub(heard_ms));
        let of = |shard: ShardId| {
            let said = held.get(usize::from(shard.number())).map(Option::as_ref);
            sight(said, before_ms, self.holder_by_hearsay(shard))
        };
        self.placement.all().map(of).collect()
    }

    /// What the store says of all shards, asked at most twice a second.
    async fn overview(&self) -> Overview {
        let mut all = self.sightings.all.lock().await;
        let asked_ms = clock::now().mono_ms;
        if let Some(known) = all.as_ref().filter(|known| asked_ms < known.at_ms + GOOD_FOR_MS) {
            return known.clone();
        }
        let told = self.store.holders(self.placement.all().collect()).await;
        let at_ms = clock::now().mono_ms;
        let overview = match told {
            Ok(held) => Overview { at_ms, heard_ms: at_ms, held: Arc::new(held) },
            Err(error) => {
                tracing::debug!(operation = "overview", status = %error);
                let nothing = || Overview { at_ms, heard_ms: 0, held: Arc::default() };
                Overview { at_ms, ..all.take().unwrap_or_else(nothing) }
            }
        };
        *all = Some(overview.clone());
        overview
    }

    /// The other processes that leave, or have left.
    #[must_use]
    pub fn leaving(&self) -> BTreeSet<Owner> {
        self.members.leaving()
    }

    /// The cluster as it was last heard of.
    #[must_use]
    pub fn cluster(&self) -> Snapshot {
        self.members.snapshot()
    }
}

/// Whether a home at whose peer address nothing has listened since then lives nevertheless: it has renewed its lease after
/// that. Then only the way between nodes is closed, and its clients are right to go there.
const fn lives(left_ms: u64, ttl_ms: u64, refuses_since_ms: u64, now_ms: u64) -> bool {
    let renewed_at_ms = (now_ms + left_ms).saturating_sub(ttl_ms);
    left_ms > 0 && renewed_at_ms > refuses_since_ms + SLACK_MS
}

/// Where a shard is served, as members and the store's word of `age_ms` ago say (`None`: it did not answer). A lease
/// with `news_ms` left or more was renewed after the members were heard of.
fn judge(
    snapshot: &Snapshot,
    shard: ShardId,
    holder: Option<Option<&Held>>,
    age_ms: u64,
    news_ms: u64,
) -> Whereabouts {
    let placed = || match node_of(shard, snapshot.takers()) {
        Some(node) if node == snapshot.me().node() => Whereabouts::Here,
        Some(node) => {
            snapshot.named(node).map_or(Whereabouts::Nowhere { retry_after_ms: LATER_MS }, |member| {
                Whereabouts::At(member.clone())
            })
        }
        None => Whereabouts::Nowhere { retry_after_ms: LATER_MS },
    };
    let Some(Some(held)) = holder else { return placed() };
    let left_ms = millis(held.remaining).saturating_sub(age_ms);
    match snapshot.member(&held.owner) {
        _ if left_ms == 0 => placed(),
        // It was ours a moment ago.
        Some(member) if member.owner == *snapshot.me() => placed(),
        Some(member) => Whereabouts::At(member.clone()),
        // Who renewed it since the members were heard of has perhaps just come: the next heartbeat tells.
        None if left_ms >= news_ms => Whereabouts::Nowhere { retry_after_ms: LATER_MS },
        None => Whereabouts::Nowhere { retry_after_ms: left_ms + LATER_MS },
    }
}

/// Who serves a shard: what the store said of its holder (`None`: it never spoke), how many ms ago if it does not answer
/// now, and the node that says so itself.
fn sight(said: Option<Option<&Held>>, before_ms: Option<u64>, hearsay: Option<Owner>) -> Sight {
    let held = said.flatten();
    let live = held.filter(|held| before_ms.is_none() && !held.remaining.is_zero());
    match (live, hearsay, held, said, before_ms) {
        (Some(held), ..) => Sight::Of { holder: held.owner.clone(), by: Word::Store },
        (None, Some(holder), ..) => Sight::Of { holder, by: Word::Nodes },
        (None, None, Some(held), _, Some(age_ms)) => {
            Sight::Of { holder: held.owner.clone(), by: Word::StoreBefore { age_ms } }
        }
        (None, None, _, Some(_), None) => Sight::Nobody,
        _ => Sight::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Says, Seen};
    use std::time::Duration;

    fn member(owner: &str, drains: bool) -> Member {
        let says = Says { url: format!("ws://{owner}"), drains, ..Says::default() };
        Member { owner: Owner::named(owner), says }
    }

    /// No lease is newer than the members.
    const NO_NEWS: u64 = u64::MAX;

    /// The cluster as node `a` sees it.
    fn cluster(others: &[Member]) -> Snapshot {
        let seen = |member: &Member| Seen { member: member.clone(), age: Duration::ZERO };
        let all: Vec<_> = [member("a#1", false)].iter().chain(others).map(seen).collect();
        Snapshot::of(Owner::named("a#1"), all)
    }

    fn held(owner: &str, remaining_ms: u64) -> Held {
        Held { owner: Owner::named(owner), remaining: Duration::from_millis(remaining_ms) }
    }

    /// A shard that is placed on this node of two.
    fn placed_on(node: &str) -> ShardId {
        let is_there = |shard: &ShardId| node_of(*shard, ["a", "b"]) == Some(node);
        (0..64).filter_map(ShardId::numbered).find(is_there).unwrap()
    }

    #[test]
    fn what_the_store_does_not_say_is_as_the_nodes_say_and_nothing_is_made_up() {
        let (b, c) = (held("b#1", 3_000), held("c#1", 0));
        let of = |holder: &str, by| Sight::Of { holder: Owner::named(holder), by };
        let hearsay = || Some(Owner::named("d#1"));
        for (said, before_ms, hearsay, expected) in [
            (Some(Some(&b)), None, None, of("b#1", Word::Store)),
            (Some(Some(&b)), None, hearsay(), of("b#1", Word::Store)),
            // Its lease has run out, or it has just lost all that it knew.
            (Some(Some(&c)), None, None, Sight::Nobody),
            (Some(Some(&c)), None, hearsay(), of("d#1", Word::Nodes)),
            (Some(None), None, hearsay(), of("d#1", Word::Nodes)),
            (Some(None), None, None, Sight::Nobody),
            // It does not answer any more.
            (Some(Some(&b)), Some(700), hearsay(), of("d#1", Word::Nodes)),
            (Some(Some(&b)), Some(700), None, of("b#1", Word::StoreBefore { age_ms: 700 })),
            (Some(None), Some(700), None, Sight::Unknown),
            (None, Some(700), None, Sight::Unknown),
            (None, Some(700), hearsay(), of("d#1", Word::Nodes)),
        ] {
            let told = sight(said, before_ms, hearsay.clone());
            assert_eq!(told, expected, "{said:?} {before_ms:?} {hearsay:?}");
        }
    }

    #[test]
    fn the_holder_is_where_the_store_says_wherever_it_is_placed() {
        let (b, two) = (member("b#1", false), cluster(&[member("b#1", false)]));
        for node in ["a", "b"] {
            let holder = held("b#1", 3_000);
            assert_eq!(
                judge(&two, placed_on(node), Some(Some(&holder)), 0, NO_NEWS),
                Whereabouts::At(b.clone())
            );
        }
        // It serves until it has handed over.
        let leaving = cluster(&[member("b#1", true)]);
        let told = judge(&leaving, placed_on("a"), Some(Some(&held("b#1", 3_000))), 0, NO_NEWS);
        assert_eq!(told, Whereabouts::At(member("b#1", true)));
    }

    #[test]
    fn what_nobody_holds_is_where_it_is_placed() {
        let (b, two) = (member("b#1", false), cluster(&[member("b#1", false)]));
        let (ran_out, ours) = (held("c#1", 400), held("a#1", 3_000));
        for nobody in [None, Some(None), Some(Some(&ran_out)), Some(Some(&ours))] {
            assert_eq!(judge(&two, placed_on("a"), nobody, 400, NO_NEWS), Whereabouts::Here, "{nobody:?}");
            assert_eq!(
                judge(&two, placed_on("b"), nobody, 400, NO_NEWS),
                Whereabouts::At(b.clone()),
                "{nobody:?}"
            );
        }
    }

    #[test]
    fn a_holder_who_has_come_since_the_last_heartbeat_is_not_taken_for_dead() {
        let told = |left_ms| {
            let holder = held("c#1", left_ms);
            judge(&cluster(&[]), placed_on("a"), Some(Some(&holder)), 0, 5_000)
        };
        assert_eq!(told(5_900), Whereabouts::Nowhere { retry_after_ms: LATER_MS });
        assert_eq!(told(4_900), Whereabouts::Nowhere { retry_after_ms: 4_900 + LATER_MS });
    }

    #[test]
    fn who_lets_no_node_in_lives_if_the_lease_was_renewed_since() {
        // Granted or renewed at 7,000 for 6,000 ms; nothing has listened since 8,000.
        assert!(!lives(4_000, 6_000, 8_000, 9_000));
        assert!(!lives(0, 6_000, 8_000, 20_000), "and nobody has renewed it");
        // Renewed at 9,000.
        assert!(lives(5_500, 6_000, 8_000, 9_500));
        assert!(!lives(5_000, 6_000, 8_000, 9_050), "as good as at the same time");
    }

    #[test]
    fn what_a_dead_node_holds_is_nowhere_until_its_lease_ends() {
        // An older process of b is not the one that lives.
        for dead in ["c#1", "b#0"] {
            let told = judge(
                &cluster(&[member("b#1", false)]),
                placed_on("a"),
                Some(Some(&held(dead, 3_000))),
                400,
                NO_NEWS,
            );
            assert_eq!(told, Whereabouts::Nowhere { retry_after_ms: 2_600 + LATER_MS }, "{dead}");
        }
    }
}
