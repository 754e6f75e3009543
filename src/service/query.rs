//! `POST /v1/presence/query`: what others see of up to a thousand players. The hot ones are written straight from
//! their records into the answer, the cold ones loaded in one go, those at home elsewhere asked for there, or answered
//! from what is kept near where the caller says how old that may be. Nobody is guessed: who cannot be told is named.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use protocol::calls::Query;
use protocol::{Encoding, Text, codec};
use serde::Serialize;

use super::Service;
use super::body::{AnyBody, answer_encoding, players_of};
use super::door::Reader;
use super::problem::Problem;
use super::words::wire_status;
use crate::clock;
use crate::events::{PresenceView, Status};
use crate::home::{COLD_WITHIN, Glance, Lookup};
use crate::ids::PlayerId;
use crate::presence::NearView;
use crate::wire::wire_stamp;

/// How often those are looked for who turned cold between a look into memory and the answer.
const ROUNDS_MAX: usize = 3;
/// What one item takes, about: to make room for all of them at once.
const ITEM_BYTES: usize = 64;
/// What is told of a player, and how old it is (ms) if it was kept near.
type Aged<'a> = (&'a PresenceView, Option<u64>);

/// An activity without a key, as MessagePack.
const EMPTY_MAP: &[u8] = &[0x80];

/// `POST /v1/presence/query`
pub(super) async fn query(
    State(service): State<Arc<Service>>,
    _: Reader,
    headers: HeaderMap,
    AnyBody(body): AnyBody,
) -> Result<Response, Problem> {
    let encoding = answer_encoding(&headers, body.encoding);
    let asked: Query<'_> = body.read()?;
    let fields = asked.fields.as_deref().map_or(Ok(Fields::ALL), Fields::named)?;
    let players = players_of("players", &asked.players)?;
    let wants = Wants { fields, encoding, max_age_ms: asked.max_age_ms };
    let answer = service.presences(&players, wants).await;
    let content_type = match encoding {
        Encoding::Json => "application/json",
        Encoding::MessagePack => "application/msgpack",
    };
    Ok(([(header::CONTENT_TYPE, content_type)], answer.finish(encoding)).into_response())
}

/// What of an item is asked for; `player` and `ver` always come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fields {
    status: bool,
    activity: bool,
    last_seen: bool,
    devices: bool,
}

impl Fields {
    const ALL: Self = Self { status: true, activity: true, last_seen: true, devices: true };
    const NONE: Self = Self { status: false, activity: false, last_seen: false, devices: false };

    fn named(names: &[Text<'_>]) -> Result<Self, Problem> {
        names.iter().try_fold(Self::NONE, |fields, name| match name.as_str() {
            "status" => Ok(Self { status: true, ..fields }),
            "activity" => Ok(Self { activity: true, ..fields }),
            "last_seen" => Ok(Self { last_seen: true, ..fields }),
            "devices" => Ok(Self { devices: true, ..fields }),
            "player" | "ver" => Ok(fields),
            _ => Err(Problem::bad_request("fields: status, activity, devices, last_seen")),
        })
    }
}

/// How players are to be told.
#[derive(Debug, Clone, Copy)]
struct Wants {
    fields: Fields,
    encoding: Encoding,
    max_age_ms: u64,
}

/// What is known of a player who is not in this node's memory.
#[derive(Debug)]
struct Told {
    /// `None`: nobody can tell.
    view: Option<Arc<PresenceView>>,
    /// It was so then, or later (Unix ms).
    as_of: u64,
    /// It was kept near before it was asked for.
    is_near: bool,
}

/// Players who are not in this node's memory.
#[derive(Debug, Default)]
struct Absent {
    /// The store must be asked for them.
    cold: Vec<PlayerId>,
    /// Another node must be asked, if any.
    elsewhere: Vec<PlayerId>,
}

/// An answer in the making: items are written already, one after the other.
#[derive(Debug, Default)]
struct Answer<'a> {
    items: Vec<u8>,
    count: usize,
    unknown: Vec<&'a str>,
    as_of: u64,
}

impl Service {
    async fn presences<'a>(&self, players: &'a [PlayerId], wants: Wants) -> Answer<'a> {
        let mut told = HashMap::new();
        for _ in 0..ROUNDS_MAX {
            let (answer, absent) = self.write_known(players, &told, wants);
            if absent.cold.is_empty() && absent.elsewhere.is_empty() {
                return answer;
            }
            let Absent { cold, elsewhere } = absent;
            // What is told was so at some time after it was asked for.
            let as_of = clock::now().unix_ms;
            let (here, there) = tokio::join!(
                self.home.presence_cold(&cold, COLD_WITHIN),
                self.look_elsewhere(elsewhere, wants.max_age_ms)
            );
            told.extend(here.into_iter().map(|(player, lookup)| {
                let view = match lookup {
                    Lookup::Known(view) => Some(Arc::new(view)),
                    Lookup::Unknown => None,
                };
                (player, Told { view, as_of, is_near: false })
            }));
            told.extend(there);
        }
        let (mut answer, absent) = self.write_known(players, &told, wants);
        let is_absent =
            |player: &&PlayerId| absent.cold.contains(player) || absent.elsewhere.contains(player);
        answer.unknown.extend(players.iter().filter(is_absent).map(PlayerId::as_str));
        answer
    }

    /// Players whose homes are other nodes; who cannot be told is told as that.
    async fn look_elsewhere(&self, players: Vec<PlayerId>, max_age_ms: u64) -> Vec<(PlayerId, Told)> {
        let asked = clock::now();
        let mut told: HashMap<PlayerId, Told> = if max_age_ms == 0 {
            let seen = self.presence.look_elsewhere(&players).await.into_iter();
            let told = |view| Told { view: Some(Arc::new(view)), as_of: asked.unix_ms, is_near: false };
            seen.map(|(player, view)| (player, told(view))).collect()
        } else {
            let seen = self.presence.look_near(&players, max_age_ms).await.into_iter();
            let told = |near: NearView| Told {
                as_of: asked.unix_ms.saturating_sub(asked.mono_ms.saturating_sub(near.as_of_ms)),
                is_near: near.as_of_ms < asked.mono_ms,
                view: Some(near.value),
            };
            seen.map(|(player, near)| (player, told(near))).collect()
        };
        let or_unknown = |player: PlayerId| {
            let unknown = Told { view: None, as_of: asked.unix_ms, is_near: false };
            let told = told.remove(&player).unwrap_or(unknown);
            (player, told)
        };
        players.into_iter().map(or_unknown).collect()
    }

    /// Writes all that memory and others know, in the order asked; and says who is missing.
    fn write_known<'a>(
        &self,
        players: &'a [PlayerId],
        told: &HashMap<PlayerId, Told>,
        wants: Wants,
    ) -> (Answer<'a>, Absent) {
        let Wants { fields, encoding, .. } = wants;
        let now = clock::now();
        let items = Vec::with_capacity(players.len() * ITEM_BYTES);
        let mut answer = Answer { items, as_of: now.unix_ms, ..Answer::default() };
        let mut absent = Absent::default();
        for player in players {
            let Answer { items, count, unknown, as_of } = &mut answer;
            let mut write = |view: &PresenceView, age_ms: Option<u64>| {
                if encoding == Encoding::Json && *count > 0 {
                    items.push(b',');
                }
                write_item(items, encoding, player, (view, age_ms), fields);
                *count += 1;
            };
            match self.home.glance(player, now, |view| write(view, None)) {
                Glance::Hot(()) => {}
                glance => match (told.get(player), glance) {
                    (Some(told), _) => match &told.view {
                        Some(view) => {
                            *as_of = told.as_of.min(*as_of);
                            let age_ms = told.is_near.then(|| now.unix_ms.saturating_sub(told.as_of));
                            write(view, age_ms);
                        }
                        None => unknown.push(player.as_str()),
                    },
                    (None, Glance::Unknown) => absent.elsewhere.push(player.clone()),
                    (None, _) => absent.cold.push(player.clone()),
                },
            }
        }
        (answer, absent)
    }
}

impl Answer<'_> {
    /// The whole body: `{presences, as_of, unknown}`.
    fn finish(self, encoding: Encoding) -> Vec<u8> {
        let Self { items, count, unknown, as_of } = self;
        let mut body = Vec::with_capacity(items.len() + unknown.len() * ITEM_BYTES + ITEM_BYTES);
        match encoding {
            Encoding::MessagePack => {
                body.extend_from_slice(b"\x83\xa9presences");
                // Writing into a Vec cannot fail.
                let _ = rmp::encode::write_array_len(&mut body, u32::try_from(count).unwrap_or(u32::MAX));
                body.extend_from_slice(&items);
                body.extend_from_slice(b"\xa5as_of");
                codec::encode_body(encoding, &mut body, &as_of);
                body.extend_from_slice(b"\xa7unknown");
                codec::encode_body(encoding, &mut body, &unknown);
            }
            Encoding::Json => {
                body.extend_from_slice(b"{\"presences\":[");
                body.extend_from_slice(&items);
                body.extend_from_slice(b"],\"as_of\":");
                codec::encode_body(encoding, &mut body, &as_of);
                body.extend_from_slice(b",\"unknown\":");
                codec::encode_body(encoding, &mut body, &unknown);
                body.push(b'}');
            }
        }
        body
    }
}

/// Appends one item, as `presence::item` describes it, and how old it is if it was kept near. MessagePack is written without a detour, an activity being
/// MessagePack already; JSON, for people, takes the detour.
fn write_item(out: &mut Vec<u8>, encoding: Encoding, player: &PlayerId, told: Aged<'_>, fields: Fields) {
    match encoding {
        Encoding::MessagePack => write_msgpack_item(out, player, told, fields),
        Encoding::Json => write_json_item(out, player, told, fields),
    }
}

fn write_msgpack_item(out: &mut Vec<u8>, player: &PlayerId, (view, age_ms): Aged<'_>, fields: Fields) {
    let activity = view.activity.as_deref().filter(|activity| fields.activity && *activity != EMPTY_MAP);
    let is_offline = view.status == Status::Offline;
    let last_seen =
        (fields.last_seen && is_offline && view.last_seen_unix_ms > 0).then_some(view.last_seen_unix_ms);
    let devices = (fields.devices && !view.devices.is_empty()).then_some(&view.devices);
    let optional =
        [fields.status, activity.is_some(), last_seen.is_some(), devices.is_some(), age_ms.is_some()];
    let entries = 2 + optional.into_iter().filter(|there| *there).count();
    // Writing into a Vec cannot fail.
    let _ = rmp::encode::write_map_len(out, u32::try_from(entries).unwrap_or(2));
    out.extend_from_slice(b"\xa6player");
    let _ = rmp::encode::write_str(out, player.as_str());
    if fields.status {
        out.extend_from_slice(b"\xa6status");
        codec::encode_body(Encoding::MessagePack, out, &wire_status(view.status));
    }
    if let Some(activity) = activity {
        out.extend_from_slice(b"\xa8activity");
        out.extend_from_slice(activity);
    }
    out.extend_from_slice(b"\xa3ver\x92");
    let (epoch, number) = wire_stamp(view.ver);
    let _ = rmp::encode::write_uint(out, epoch);
    let _ = rmp::encode::write_uint(out, number);
    if let Some(last_seen) = last_seen {
        out.extend_from_slice(b"\xa9last_seen");
        let _ = rmp::encode::write_uint(out, last_seen);
    }
    if let Some(devices) = devices {
        out.extend_from_slice(b"\xa7devices");
        codec::encode_body(Encoding::MessagePack, out, devices);
    }
    if let Some(age_ms) = age_ms {
        out.extend_from_slice(b"\xa6age_ms");
        let _ = rmp::encode::write_uint(out, age_ms);
    }
}

#[derive(Serialize)]
struct JsonItem<'a> {
    player: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<protocol::request::Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    activity: Option<std::collections::BTreeMap<String, protocol::Value>>,
    ver: protocol::Stamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<u64>,
}

fn write_json_item(out: &mut Vec<u8>, player: &PlayerId, (view, age_ms): Aged<'_>, fields: Fields) {
    let item = crate::presence::item(player, view);
    let asked = JsonItem {
        player: &item.player,
        status: fields.status.then_some(item.status),
        activity: item.activity.filter(|_| fields.activity),
        ver: item.ver,
        last_seen: item.last_seen.filter(|_| fields.last_seen),
        devices: item.devices.filter(|_| fields.devices),
        age_ms,
    };
    codec::encode_body(Encoding::Json, out, &asked);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Stamp, Version};
    use protocol::push::PresenceItem;

    fn views() -> Vec<PresenceView> {
        let ver = Stamp::new(Epoch::of(1_790_000_000_000), Version::of(300));
        let activity = rmp_serde::to_vec(&std::collections::BTreeMap::from([("map", "docks")])).unwrap();
        let online = PresenceView {
            status: Status::Playing,
            activity: Some(activity.into_boxed_slice()),
            devices: vec!["pc".into(), "web".into()],
            ver,
            last_seen_unix_ms: 1_790_000_000_001,
        };
        let offline =
            PresenceView { status: Status::Offline, activity: None, devices: Vec::new(), ..online.clone() };
        let empty = PresenceView { activity: Some(EMPTY_MAP.into()), devices: Vec::new(), ..online.clone() };
        vec![online, offline, empty, PresenceView::default()]
    }

    #[test]
    fn an_item_is_what_a_watcher_would_be_told() {
        let player = PlayerId::parse("ann").unwrap();
        for view in views() {
            let expected = crate::presence::item(&player, &view);
            let (mut packed, mut json) = (Vec::new(), Vec::new());
            write_item(&mut packed, Encoding::MessagePack, &player, (&view, None), Fields::ALL);
            write_item(&mut json, Encoding::Json, &player, (&view, None), Fields::ALL);
            assert_eq!(rmp_serde::from_slice::<PresenceItem>(&packed).unwrap(), expected);
            assert_eq!(serde_json::from_slice::<PresenceItem>(&json).unwrap(), expected);
        }
    }

    #[test]
    fn fields_leave_out_what_is_not_named() {
        let player = PlayerId::parse("ann").unwrap();
        let keys = |fields: Fields, view: &PresenceView| {
            let (mut packed, mut json) = (Vec::new(), Vec::new());
            write_item(&mut packed, Encoding::MessagePack, &player, (view, None), fields);
            write_item(&mut json, Encoding::Json, &player, (view, None), fields);
            let packed: serde_json::Map<_, _> = rmp_serde::from_slice(&packed).unwrap();
            let json: serde_json::Map<_, _> = serde_json::from_slice(&json).unwrap();
            assert_eq!(packed, json);
            json.keys().cloned().collect::<Vec<_>>().join(" ")
        };
        let (online, offline) = (&views()[0], &views()[1]);
        assert_eq!(keys(Fields::NONE, online), "player ver");
        for (name, on, off) in [
            ("status", "player status ver", "player status ver"),
            ("activity", "activity player ver", "player ver"),
            ("devices", "devices player ver", "player ver"),
            ("last_seen", "player ver", "last_seen player ver"),
        ] {
            let fields = Fields::named(&[name.into()]).unwrap();
            assert_eq!((keys(fields, online).as_str(), keys(fields, offline).as_str()), (on, off), "{name}");
        }
        assert!(Fields::named(&["colour".into()]).is_err());
    }

    #[test]
    fn what_was_kept_near_says_how_old_it_is() {
        let player = PlayerId::parse("ann").unwrap();
        for view in views() {
            let (mut packed, mut json) = (Vec::new(), Vec::new());
            write_item(&mut packed, Encoding::MessagePack, &player, (&view, Some(70_000)), Fields::ALL);
            write_item(&mut json, Encoding::Json, &player, (&view, Some(70_000)), Fields::ALL);
            let packed: serde_json::Value = rmp_serde::from_slice(&packed).unwrap();
            assert_eq!(packed["age_ms"], 70_000);
            assert_eq!(packed, serde_json::from_slice::<serde_json::Value>(&json).unwrap());
        }
    }
}
