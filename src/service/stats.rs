//! `GET /v1/stats`: how many players, sessions and links there are. A walk over memory, made at most once a second.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Service;
use super::door::Reader;
use super::maintenance::View;
use crate::clock;
use crate::events::{PresenceView, Status};

/// Records after which others get a turn.
const TURN: usize = 2_000;
/// Device names told apart; clients choose them, so the rest is counted together.
const DEVICES_MAX: usize = 64;
/// The name of the rest.
const OTHER_DEVICES: &str = "other";

/// How many there are.
#[derive(Debug, Default, Serialize)]
pub(super) struct Stats {
    players: Players,
    sessions: usize,
    links: usize,
    rooms: usize,
    maintenance: View,
    as_of: u64,
}

/// Players whom others see as here.
#[derive(Debug, Default, Serialize)]
struct Players {
    online: usize,
    by_status: ByStatus,
    by_device: BTreeMap<Box<str>, usize>,
}

#[derive(Debug, Default, Serialize)]
struct ByStatus {
    online: usize,
    away: usize,
    busy: usize,
    playing: usize,
}

impl Players {
    fn count(&mut self, view: &PresenceView) {
        let of_status = match view.status {
            Status::Offline | Status::Invisible => return,
            Status::Online => &mut self.by_status.online,
            Status::Away => &mut self.by_status.away,
            Status::Busy => &mut self.by_status.busy,
            Status::Playing => &mut self.by_status.playing,
        };
        *of_status += 1;
        self.online += 1;
        for device in &view.devices {
            if let Some(count) = self.by_device.get_mut(device) {
                *count += 1;
            } else {
                let has_room = self.by_device.len() < DEVICES_MAX;
                let name = if has_room { device.clone() } else { OTHER_DEVICES.into() };
                *self.by_device.entry(name).or_default() += 1;
            }
        }
    }
}

/// `GET /v1/stats`
pub(super) async fn stats(State(service): State<Arc<Service>>, _: Reader) -> Response {
    let stats = service.stats.get(service.count_all()).await;
    let body = serde_json::to_vec(&*stats).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

impl Service {
    async fn count_all(&self) -> Stats {
        let mut players = Players::default();
        for turn in self.home.records().all().chunks(TURN) {
            for cell in turn {
                cell.read(|record| players.count(&record.view));
            }
            tokio::task::yield_now().await;
        }
        Stats {
            players,
            sessions: self.home.records().sessions(),
            links: self.hub.links(),
            rooms: self.presence.rooms().count(),
            maintenance: self.maintenance_view(),
            as_of: clock::now().unix_ms,
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
            players.count(&view);
        }
        assert_eq!((players.online, players.by_status.playing, players.by_status.busy), (3, 1, 0));
        assert_eq!(players.by_device, [("pc".into(), 2), ("web".into(), 1)].into());
    }

    #[test]
    fn device_names_that_clients_invent_do_not_pile_up() {
        let mut players = Players::default();
        (0..1_000).for_each(|n| players.count(&view(Status::Online, &format!("d{n}"))));
        assert_eq!(players.by_device.len(), DEVICES_MAX + 1);
        assert_eq!(players.by_device[OTHER_DEVICES], 1_000 - DEVICES_MAX);
    }
}
