//! `GET /v1/stats`: how many players, sessions and links there are in the cluster. Every node walks over its own memory,
//! at most once a second for each that asks; who does not answer is named.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use protocol::calls::{MaintenanceView, OnlinePlayers as Players, Stats};
use serde::{Deserialize, Serialize};

use super::Service;
use super::door::Reader;
use super::others::Question;
use crate::clock;
use crate::events::{PresenceView, Status};
use crate::ids::ShardId;

/// Records after which others get a turn.
const TURN: usize = 2_000;
/// Device names told apart; clients choose them, so the rest is counted together.
const DEVICES_MAX: usize = 64;
/// The name of the rest.
const OTHER_DEVICES: &str = "other";

/// How long another node may take to count.
const COUNTED_WITHIN: Duration = Duration::from_millis(500);

/// How many a node holds, or several.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Count {
    players: Players,
    sessions: usize,
    links: usize,
    rooms: usize,
    /// The shards that it serves.
    shards: BTreeSet<u16>,
}

/// Counts one more.
fn count(players: &mut Players, view: &PresenceView) {
    let of_status = match view.status {
        Status::Offline | Status::Invisible => return,
        Status::Online => &mut players.by_status.online,
        Status::Away => &mut players.by_status.away,
        Status::Busy => &mut players.by_status.busy,
        Status::Playing => &mut players.by_status.playing,
    };
    *of_status += 1;
    players.online += 1;
    for device in &view.devices {
        count_device(players, device, 1);
    }
}

fn count_device(all: &mut Players, device: &str, players: usize) {
    if let Some(count) = all.by_device.get_mut(device) {
        *count += players;
    } else {
        let has_room = all.by_device.len() < DEVICES_MAX;
        let name = if has_room { device } else { OTHER_DEVICES };
        *all.by_device.entry(name.into()).or_default() += players;
    }
}

/// Counts others' as well.
fn add(players: &mut Players, others: &Players) {
    players.online += others.online;
    let (mine, theirs) = (&mut players.by_status, &others.by_status);
    mine.online += theirs.online;
    mine.away += theirs.away;
    mine.busy += theirs.busy;
    mine.playing += theirs.playing;
    others.by_device.iter().for_each(|(device, count)| count_device(players, device, *count));
}

impl Count {
    /// Sessions.
    pub(super) const fn sessions(&self) -> usize {
        self.sessions
    }

    /// Links.
    pub(super) const fn links(&self) -> usize {
        self.links
    }

    /// Rooms with members.
    pub(super) const fn rooms(&self) -> usize {
        self.rooms
    }

    /// Players whom others see as here.
    pub(super) fn into_players(self) -> Players {
        self.players
    }

    /// Counts others' as well.
    pub(super) fn add(&mut self, others: Self) {
        add(&mut self.players, &others.players);
        self.sessions += others.sessions;
        self.links += others.links;
        self.rooms += others.rooms;
        self.shards.extend(others.shards);
    }
}

/// `GET /v1/stats`
pub(super) async fn stats(State(service): State<Arc<Service>>, _: Reader) -> Response {
    let stats = service.stats().await;
    // Whether players are let in is told as it is now.
    let answer = Stats { maintenance: service.maintenance_view(), ..Stats::clone(&stats) };
    let body = serde_json::to_vec(&answer).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

impl Service {
    /// How many there are in the cluster, as of a second ago at most.
    pub(super) async fn stats(&self) -> Arc<Stats> {
        self.stats.get(self.count_all()).await
    }

    async fn count_all(&self) -> Stats {
        let others = self.others();
        let asked = others.iter().map(|node| self.ask::<Count>(node, &Question::Count, COUNTED_WITHIN));
        let (mut count, told) = tokio::join!(self.count_here(), join_all(asked));
        let mut unknown_nodes = Vec::new();
        for (node, told) in others.iter().zip(told) {
            match told {
                Ok(told) => count.add(told),
                Err(_) => unknown_nodes.push(node.node().to_owned()),
            }
        }
        let unknown_shards = self.shards_beside(&count.shards);
        let Count { players, sessions, links, rooms, shards: _ } = count;
        Stats {
            players,
            sessions,
            links,
            rooms,
            unknown_nodes,
            unknown_shards: (unknown_shards > 0).then_some(unknown_shards),
            as_of: clock::now().unix_ms,
            maintenance: MaintenanceView::default(),
        }
    }

    /// What this node holds.
    pub(super) async fn count_here(&self) -> Count {
        let mut players = Players::default();
        for turn in self.home.records().all().chunks(TURN) {
            for cell in turn {
                cell.read(|record| count(&mut players, &record.view));
            }
            tokio::task::yield_now().await;
        }
        let all = self.home.placement().all().map(ShardId::number);
        Count {
            players,
            sessions: self.home.records().sessions(),
            links: self.hub.links(),
            rooms: self.presence.rooms().count(),
            shards: all.filter(|shard| self.serves(*shard)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(status: Status, device: &str) -> PresenceView {
        PresenceView { status, devices: vec![device.into()], ..PresenceView::default() }
    }

    #[test]
    fn only_those_whom_others_see_are_counted() {
        let mut players = Players::default();
        for view in [
            view(Status::Online, "pc"),
            view(Status::Playing, "pc"),
            view(Status::Away, "web"),
            view(Status::Offline, "pc"),
        ] {
            count(&mut players, &view);
        }
        assert_eq!((players.online, players.by_status.playing, players.by_status.busy), (3, 1, 0));
        assert_eq!(players.by_device, [("pc".into(), 2), ("web".into(), 1)].into());
    }

    #[test]
    fn what_two_nodes_count_is_what_one_would() {
        let all = [view(Status::Online, "pc"), view(Status::Busy, "web"), view(Status::Away, "pc")];
        let (mut one, mut other, mut both) = (Count::default(), Count::default(), Count::default());
        (one.sessions, other.sessions, both.sessions) = (2, 1, 3);
        (one.shards, other.shards, both.shards) = ([1].into(), [0, 2].into(), [0, 1, 2].into());
        all.iter().for_each(|view| count(&mut both.players, view));
        all.iter().take(2).for_each(|view| count(&mut one.players, view));
        all.iter().skip(2).for_each(|view| count(&mut other.players, view));
        let told = rmp_serde::to_vec_named(&other).unwrap();
        one.add(rmp_serde::from_slice(&told).unwrap());
        assert_eq!(format!("{one:?}"), format!("{both:?}"));
    }

    #[test]
    fn device_names_that_clients_invent_do_not_pile_up() {
        let mut players = Players::default();
        (0..1_000).for_each(|n| count(&mut players, &view(Status::Online, &format!("d{n}"))));
        assert_eq!(players.by_device.len(), DEVICES_MAX + 1);
        assert_eq!(players.by_device[OTHER_DEVICES], 1_000 - DEVICES_MAX);
    }
}
