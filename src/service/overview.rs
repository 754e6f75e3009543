//! `GET /v1/overview`: the cluster at one glance, for whoever looks at it all day. Each node says its part, at most once a
//! second however many ask; what they say together is put together here. Decides nothing: what rings is the watch's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use futures_util::future::join_all;
use protocol::calls::{
    Alarm, BreakerView, Latencies, NodeOverview, Overview, Percentiles, Rates, ShardChanging, ShardsOf,
    SlowConsumer, StoreOverview, StoreShortfall, TopRoom,
};
use serde::{Deserialize, Serialize};

use super::door::Reader;
use super::leavers::{Leaver, STOPPING};
use super::others::{Question, SAID_WITHIN};
use super::stats::Count;
use super::{Condition, Service};
use crate::clock;
use crate::home::lease::State as Lease;
use crate::home::placement::node_of;
use crate::home::shard::Shard;
use crate::ids::{Owner, RoomName};
use crate::telemetry::watch::{self, Figures, Glance, Spread, names};

/// Rooms that are told of.
const TOP_ROOMS_MAX: usize = watch::ROOMS_MAX;
/// Sessions that are told of for reading too slowly.
const SLOW_CONSUMERS_MAX: usize = 20;
/// A breaker's states by the number that its gauge has.
const BREAKERS: [&str; 4] = ["closed", "ramp", "half_open", "open"];
/// The states of the store, the worst last.
const STORE_STATES: [&str; 3] = ["ok", "slow", "down"];

/// What one node says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Part {
    count: Count,
    node: NodeOverview,
    shards: Option<ShardsOf>,
    rates: Option<Rates>,
    took: Took,
    store: StoreOverview,
    alarms: Vec<Alarm>,
    top_rooms: Vec<TopRoom>,
    slow_consumers: Vec<SlowConsumer>,
}

impl Part {
    /// The shards of which it tells.
    fn shards(&self) -> impl Iterator<Item = u16> {
        let changing = |of: &ShardsOf| of.changing.iter().map(|changing| changing.shard).collect::<Vec<_>>();
        self.shards.iter().flat_map(move |of| of.serving.iter().copied().chain(changing(of)))
    }
}

/// How long things took: as steps, since percentiles do not add up.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Took {
    applied: Spread,
    durable: Spread,
    commit: Spread,
    service: Spread,
}

/// `GET /v1/overview`
pub(super) async fn overview(State(service): State<Arc<Service>>, _: Reader) -> Json<Arc<Overview>> {
    Json(service.overview.get(service.look_at_all()).await)
}

impl Service {
    async fn look_at_all(&self) -> Overview {
        let others = self.others();
        let asked = others.iter().map(|node| self.ask::<Part>(node, &Question::Overview, SAID_WITHIN));
        let (mine, told) = tokio::join!(self.part(), join_all(asked));
        let said: Vec<_> = others.iter().zip(told.into_iter().map(Result::ok)).collect();
        let silent: Vec<Owner> =
            said.iter().filter(|(_, part)| part.is_none()).map(|(node, _)| (*node).clone()).collect();
        let shards = said.iter().filter_map(|(_, part)| part.as_ref()).chain([&*mine]).flat_map(Part::shards);
        let leavers = self.leavers(&silent, &shards.collect()).await;
        let said = said.into_iter().map(|(node, part)| (node.node().to_owned(), part));
        let mut overview = gather(Part::clone(&mine), said.collect(), leavers);
        overview.as_of = clock::now().unix_ms;
        overview.node.clone_from(&self.settings.node_id);
        env!("CARGO_PKG_VERSION").clone_into(&mut overview.version);
        overview.shards_total = self.home.shards().len();
        overview
    }

    /// What this node says, as of a second ago at most. Once it stops it says so at once: it is gone in a moment.
    pub(super) async fn part(&self) -> Arc<Part> {
        let is_stopping = self.is_stopping();
        let holds = |part: &Part| (part.node.state == STOPPING) == is_stopping;
        self.part.get_if(holds, self.look_here()).await
    }

    fn is_stopping(&self) -> bool {
        (self.condition)() == Condition::Stopping
    }

    async fn look_here(&self) -> Part {
        let count = self.count_here().await;
        let glance = self.settings.board.look();
        let now = clock::now();
        let rates = glance.figures.as_ref().map(rates);
        let figures = glance.figures.clone().unwrap_or_default();
        let shards = self.shards_here(now.mono_ms);
        let node = NodeOverview {
            shards: Some(shards.serving.len()),
            links: Some(count.links()),
            sessions: Some(count.sessions()),
            ..self.node_here(&glance, now)
        };
        Part {
            node,
            rates,
            store: self.store_here(&glance),
            alarms: self.alarms_here(&glance),
            top_rooms: figures.rooms.iter().map(|(room, pushes)| self.top_room(room, *pushes)).collect(),
            slow_consumers: self.slow_consumers(),
            shards: Some(shards),
            took: took(figures),
            count,
        }
    }

    fn node_here(&self, glance: &Glance, now: clock::Now) -> NodeOverview {
        let shards = self.home.shards();
        let (reading, figures) = (&glance.reading, glance.figures.as_ref());
        let oldest_ms = shards.iter().filter_map(|shard| shard.dirty_since_ms()).min();
        let is_stopping = self.is_stopping();
        let held = || shards.iter().filter(|shard| shard.fence().is_some()).count();
        let is_in = |state| shards.iter().any(|shard| shard.lease().0 == state);
        let breaker = |(endpoint, state): &(String, u8)| BreakerView {
            endpoint: endpoint.clone(),
            state: BREAKERS.get(usize::from(*state)).copied().unwrap_or("open").to_owned(),
        };
        NodeOverview {
            node: self.settings.node_id.clone(),
            state: if is_stopping { STOPPING } else { "up" }.to_owned(),
            shards_left: is_stopping.then(held),
            started_at: Some(now.unix_ms.saturating_sub(now.mono_ms.saturating_sub(self.started_at_ms))),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            records: Some(self.home.records().len()),
            dirty: Some(shards.iter().map(|shard| shard.dirty_records()).sum()),
            flush_lag_ms: Some(oldest_ms.map_or(0, |since_ms| now.mono_ms.saturating_sub(since_ms))),
            mail_lag_ms: figures.map(|_| reading.mail_lag_ms),
            acks: figures.map(|figures| figures.acks),
            applied_p99_ms: figures.and_then(|figures| ms(figures.applied.quantile(0.99))),
            memory_bytes: reading.process.memory_bytes,
            cpu_percent: figures.and_then(|figures| figures.cpu_percent),
            breakers: reading.totals.breakers.iter().map(breaker).collect(),
            local: Some(is_in(Lease::Local)),
            paused: Some(is_in(Lease::Paused)),
            counts: Some(!glance.is_blind),
            shortfalls: self.shortfalls_here(now),
            ..NodeOverview::default()
        }
    }

    fn shards_here(&self, mono_ms: u64) -> ShardsOf {
        let shards = self.home.shards().iter();
        let serving = shards.clone().filter(|shard| shard.serves(mono_ms)).map(|shard| shard.id().number());
        let changing = shards.filter_map(|shard| self.changing(shard));
        ShardsOf {
            node: self.settings.node_id.clone(),
            serving: serving.collect(),
            changing: changing.collect(),
        }
    }

    fn changing(&self, shard: &Shard) -> Option<ShardChanging> {
        let state = match shard.lease().0 {
            Lease::Pulling | Lease::Loading => "taking",
            Lease::Draining => "handing_over",
            Lease::Repair => "repairing",
            _ => return None,
        };
        let cluster = self.home.cluster();
        let to = match state {
            "taking" => Some(self.settings.node_id.clone()),
            "handing_over" => node_of(shard.id(), cluster.takers()).map(str::to_owned),
            _ => None,
        };
        Some(ShardChanging { shard: shard.id().number(), state: state.to_owned(), to })
    }

    fn store_here(&self, glance: &Glance) -> StoreOverview {
        let breaker = glance.reading.totals.breakers.iter().map(|(_, state)| *state).max().unwrap_or(0);
        let is_held_back =
            self.home.shards().iter().any(|shard| shard.fence().is_some() && shard.is_held_back());
        let is_slow = glance.alarms.iter().any(|alarm| alarm.name == names::STORE_SLOW && !alarm.is_ending);
        let state = match breaker {
            2.. => "down",
            _ if is_held_back => "down",
            1 => "slow",
            _ if is_slow => "slow",
            _ => "ok",
        };
        let shortfalls = (self.settings.store_shortfalls)().into_iter();
        StoreOverview {
            kind: self.home.store_kind().to_owned(),
            state: state.to_owned(),
            shortfalls: shortfalls
                .map(|shortfall| StoreShortfall { name: shortfall.setting, text: shortfall.message })
                .collect(),
        }
    }

    fn top_room(&self, room: &str, pushes: f64) -> TopRoom {
        let name = RoomName::parse(room).ok();
        let members = name.and_then(|name| self.presence.rooms().members_of(&name));
        TopRoom { room: room.to_owned(), members, pushes }
    }

    fn slow_consumers(&self) -> Vec<SlowConsumer> {
        let readers = self.hub.slow_readers().into_iter().take(SLOW_CONSUMERS_MAX);
        let told = readers.map(|reader| SlowConsumer {
            player: reader.player.as_str().to_owned(),
            session: reader.session.to_string(),
            node: self.settings.node_id.clone(),
            waiting: reader.waiting,
            closed: reader.closed,
        });
        told.collect()
    }
}

fn rates(figures: &Figures) -> Rates {
    Rates {
        acks: figures.acks,
        logins: figures.logins,
        resumes: figures.resumes,
        pushes: figures.pushes,
        refused: figures.refused,
        failed: figures.failed as f64 * 1_000.0 / figures.over_ms.max(1) as f64,
        service_calls: figures.service_calls,
    }
}

fn took(figures: Figures) -> Took {
    Took {
        applied: figures.applied,
        durable: figures.durable,
        commit: figures.commit,
        service: figures.service,
    }
}

/// In ms.
fn ms(seconds: Option<f64>) -> Option<f64> {
    seconds.map(|seconds| seconds * 1_000.0)
}

fn percentiles(spread: &Spread) -> Percentiles {
    Percentiles { p50: ms(spread.quantile(0.5)), p99: ms(spread.quantile(0.99)) }
}

/// What all of them say together; of those who said nothing, that they did not, or that they stop. A process that is gone says
/// nothing, and is not missed where the next one under its name has answered.
fn gather(mine: Part, others: Vec<(String, Option<Part>)>, mut leavers: Vec<Leaver>) -> Overview {
    let mut overview = Overview::default();
    let answered: HashSet<String> = std::iter::once(&mine)
        .chain(others.iter().filter_map(|(_, part)| part.as_ref()))
        .map(|part| part.node.node.clone())
        .collect();
    leavers.retain(|leaver| !answered.contains(&leaver.node));
    let stops = |node: &str| leavers.iter().any(|leaver| leaver.node == node);
    let (mut all, mut rooms) = (Part { store: mine.store.clone(), ..Part::default() }, HashMap::new());
    let said = std::iter::once((String::new(), Some(mine))).chain(others);
    for (node, part) in said {
        let Some(part) = part else {
            if answered.contains(&node) || stops(&node) || overview.unknown_nodes.contains(&node) {
                continue;
            }
            overview.nodes.push(NodeOverview {
                node: node.clone(),
                state: "unknown".to_owned(),
                ..NodeOverview::default()
            });
            overview.unknown_nodes.push(node);
            continue;
        };
        all.count.add(part.count);
        add_rates(&mut all.rates, part.rates);
        all.took.add(&part.took);
        worsen(&mut all.store, part.store);
        all.alarms.extend(part.alarms);
        all.slow_consumers.extend(part.slow_consumers);
        part.top_rooms.into_iter().for_each(|room| add_room(&mut rooms, room));
        overview.nodes.push(part.node);
        overview.shards.extend(part.shards);
    }
    for leaver in leavers {
        if leaver.may_hold() {
            overview.unknown_nodes.push(leaver.node.clone());
        }
        overview.nodes.push(leaver.overview());
        overview.shards.push(leaver.into_shards());
    }
    overview.nodes.sort_by(|one, other| one.node.cmp(&other.node));
    overview.shards.sort_by(|one, other| one.node.cmp(&other.node));
    let order = |alarm: &Alarm| (alarm.severity != "critical", alarm.since, alarm.name.clone());
    all.alarms.sort_by_key(order);
    // One whose home has moved is told of by both.
    let mut told = HashSet::new();
    all.slow_consumers.retain(|reader| told.insert(reader.session.clone()));
    all.slow_consumers.truncate(SLOW_CONSUMERS_MAX);
    let mut top_rooms: Vec<TopRoom> = rooms.into_values().collect();
    top_rooms
        .sort_by(|one, other| other.pushes.total_cmp(&one.pushes).then_with(|| one.room.cmp(&other.room)));
    top_rooms.truncate(TOP_ROOMS_MAX);
    Overview {
        sessions: all.count.sessions(),
        links: all.count.links(),
        rooms: all.count.rooms(),
        players: all.count.into_players(),
        rates: all.rates,
        latency_ms: all.took.percentiles(),
        store: all.store,
        alarms: all.alarms,
        top_rooms,
        slow_consumers: all.slow_consumers,
        ..overview
    }
}

impl Took {
    fn add(&mut self, others: &Self) {
        self.applied.add_all(&others.applied);
        self.durable.add_all(&others.durable);
        self.commit.add_all(&others.commit);
        self.service.add_all(&others.service);
    }

    fn percentiles(&self) -> Latencies {
        Latencies {
            applied: percentiles(&self.applied),
            durable: percentiles(&self.durable),
            commit: percentiles(&self.commit),
            service: percentiles(&self.service),
        }
    }
}

fn add_rates(all: &mut Option<Rates>, more: Option<Rates>) {
    let Some(more) = more else { return };
    let all = all.get_or_insert_default();
    all.acks += more.acks;
    all.logins += more.logins;
    all.resumes += more.resumes;
    all.pushes += more.pushes;
    all.refused += more.refused;
    all.failed += more.failed;
    all.service_calls += more.service_calls;
}

/// The store is as the node says that finds it worst; what it falls short of is told once.
fn worsen(store: &mut StoreOverview, others: StoreOverview) {
    let badness = |state: &str| STORE_STATES.iter().position(|known| *known == state);
    if badness(&others.state) > badness(&store.state) {
        store.state = others.state;
    }
    for shortfall in others.shortfalls {
        if !store.shortfalls.contains(&shortfall) {
            store.shortfalls.push(shortfall);
        }
    }
}

/// Each node tells the room's members who are at home there; how many there are in all is its home's to say.
fn add_room(rooms: &mut HashMap<String, TopRoom>, room: TopRoom) {
    match rooms.get_mut(&room.room) {
        Some(known) => {
            known.pushes += room.pushes;
            known.members = known.members.max(room.members);
        }
        None => {
            rooms.insert(room.room.clone(), room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(node: &str, acks: f64, slow: u64, state: &str) -> Part {
        let mut took = Took::default();
        took.applied.add(0.01, 100);
        took.applied.add(1.0, 100 + slow);
        took.applied.add(f64::INFINITY, 100 + slow);
        let alarm = |name: &str, severity: &str, since| Alarm {
            name: name.to_owned(),
            node: node.to_owned(),
            severity: severity.to_owned(),
            since,
            value: 2.0,
            limit: 1.0,
            unit: "seconds".to_owned(),
            text: "it is".to_owned(),
            r#do: "look".to_owned(),
            ending: false,
        };
        Part {
            node: NodeOverview { node: node.to_owned(), state: "up".to_owned(), ..NodeOverview::default() },
            rates: Some(Rates { acks, ..Rates::default() }),
            took,
            store: StoreOverview {
                kind: "redis".to_owned(),
                state: state.to_owned(),
                shortfalls: Vec::new(),
            },
            alarms: vec![alarm("latency", "warning", 1), alarm("store_down", "critical", 2)],
            top_rooms: vec![
                TopRoom { room: "guild".to_owned(), members: (node == "b").then_some(7), pushes: acks },
                TopRoom { room: format!("lobby of {node}"), members: Some(1), pushes: 1.0 },
            ],
            shards: Some(ShardsOf { node: node.to_owned(), serving: vec![1], changing: Vec::new() }),
            ..Part::default()
        }
    }

    #[test]
    fn what_nodes_say_is_put_together_and_who_says_nothing_is_named() {
        let others = vec![("b".to_owned(), Some(part("b", 20.0, 100, "down"))), ("c".to_owned(), None)];
        let told = gather(part("a", 10.0, 0, "ok"), others, Vec::new());
        let nodes: Vec<_> = told.nodes.iter().map(|node| (node.node.as_str(), node.state.as_str())).collect();
        assert_eq!(nodes, [("a", "up"), ("b", "up"), ("c", "unknown")]);
        assert_eq!(told.unknown_nodes, ["c"]);
        assert_eq!(told.rates.map(|rates| rates.acks), Some(30.0));
        assert_eq!((told.store.state.as_str(), told.shards.len()), ("down", 2));
        let alarms: Vec<_> = told.alarms.iter().map(|alarm| (&*alarm.name, &*alarm.node)).collect();
        assert_eq!(alarms, [("store_down", "a"), ("store_down", "b"), ("latency", "a"), ("latency", "b")]);
        let rooms: Vec<_> =
            told.top_rooms.iter().map(|room| (&*room.room, room.members, room.pushes)).collect();
        assert_eq!(
            rooms,
            [("guild", Some(7), 30.0), ("lobby of a", Some(1), 1.0), ("lobby of b", Some(1), 1.0)]
        );
        // A third of them all are slow, though of one node's none is.
        assert!(told.latency_ms.applied.p99.is_some_and(|p99| p99 > 900.0), "{:?}", told.latency_ms);
        assert_eq!(told.latency_ms.commit, Percentiles::default());
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!(json["nodes"][2], serde_json::json!({"node": "c", "state": "unknown"}));
        assert_eq!(
            (&json["alarms"][0]["do"], &json["latency_ms"]["commit"]),
            (&"look".into(), &serde_json::json!({}))
        );
    }

    #[test]
    fn a_process_that_is_gone_is_not_missed_where_the_next_one_has_answered() {
        let unknown = |node: &str| (node.to_owned(), None);
        let others = vec![
            unknown("a"),
            unknown("b"),
            ("b".to_owned(), Some(part("b", 1.0, 0, "ok"))),
            unknown("c"),
            unknown("c"),
        ];
        let told = gather(part("a", 1.0, 0, "ok"), others, Vec::new());
        let nodes: Vec<_> = told.nodes.iter().map(|node| (node.node.as_str(), node.state.as_str())).collect();
        assert_eq!(nodes, [("a", "up"), ("b", "up"), ("c", "unknown")]);
        assert_eq!(told.unknown_nodes, ["c"]);
    }

    #[test]
    fn who_stops_and_answers_no_more_is_told_with_what_is_left_unless_the_next_process_has_answered() {
        let others = ["b", "c", "d", "e"].map(|node| (node.to_owned(), None));
        let others = others.into_iter().chain([("f".to_owned(), Some(part("f", 1.0, 0, "ok")))]);
        let leavers = vec![
            Leaver::with("b", &[2, 3], true),
            Leaver::with("c", &[], true),
            Leaver::with("d", &[], false),
            Leaver::with("f", &[4], true),
        ];
        let told = gather(part("a", 1.0, 0, "ok"), others.collect(), leavers);
        let nodes: Vec<_> = told
            .nodes
            .iter()
            .map(|node| (node.node.as_str(), node.state.as_str(), node.shards_left))
            .collect();
        let expected = [
            ("a", "up", None),
            ("b", "stopping", Some(2)),
            ("c", "stopping", Some(0)),
            ("d", "stopping", None),
            ("e", "unknown", None),
            ("f", "up", None),
        ];
        assert_eq!(nodes, expected);
        // What c held is counted elsewhere by now.
        assert_eq!(told.unknown_nodes, ["e", "b", "d"]);
        let shards = |node: &str| {
            told.shards.iter().filter(|of| of.node == node).map(|of| of.changing.len()).sum::<usize>()
        };
        assert_eq!(["b", "c", "f"].map(shards), [2, 0, 0]);
    }

    #[test]
    fn a_session_that_reads_too_slowly_is_told_once() {
        let slow = |node: &str, sessions: &[&str]| {
            let reader = |session: &&str| SlowConsumer {
                player: "ann".to_owned(),
                session: (*session).to_owned(),
                node: node.to_owned(),
                waiting: 1,
                closed: true,
            };
            Part { slow_consumers: sessions.iter().map(reader).collect(), ..part(node, 1.0, 0, "ok") }
        };
        let told =
            gather(slow("a", &["1", "2"]), vec![("b".to_owned(), Some(slow("b", &["2", "3"])))], Vec::new());
        let told: Vec<_> =
            told.slow_consumers.iter().map(|reader| (&*reader.session, &*reader.node)).collect();
        assert_eq!(told, [("1", "a"), ("2", "a"), ("3", "b")]);
    }

    #[test]
    fn rates_are_absent_where_no_node_knows_them() {
        let blind = |node: &str| Part { rates: None, ..part(node, 10.0, 0, "ok") };
        let told = gather(blind("a"), vec![("b".to_owned(), Some(blind("b")))], Vec::new());
        assert!(serde_json::to_value(&told).unwrap().get("rates").is_none());
        let told = gather(blind("a"), vec![("b".to_owned(), Some(part("b", 20.0, 0, "ok")))], Vec::new());
        assert_eq!(told.rates.map(|rates| rates.acks), Some(20.0));
    }

    #[test]
    fn a_part_comes_over_a_peer_link_as_it_is() {
        let part = part("a", 10.0, 3, "slow");
        let told: Part = rmp_serde::from_slice(&rmp_serde::to_vec_named(&part).unwrap()).unwrap();
        assert_eq!(format!("{told:?}"), format!("{part:?}"));
    }
}
