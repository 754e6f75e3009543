//! What the settings mean to each room: one function a room, no decision of its own. Called by the composition root
//! alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::DURABLE_WAIT;
use crate::clock::millis;
use crate::cluster::MemberSettings;
use crate::config::{LoginPolicy, Settings};
use crate::gate::upgrade::Upgrade;
use crate::home::record::{self, Rules};
use crate::home::{Home, HomeSettings};
use crate::hub::HubSettings;
use crate::ids::RoomPattern;
use crate::near_cache::Terms;
use crate::presence::{Ground, NearSettings, RoomSettings};
use crate::sabotage::{self, Guard};
use crate::service::{BlobBounds, LineBounds};
use crate::session::{MessageBounds, PLAYERS_PER_CALL_MAX, SessionSettings};
use crate::telemetry::watch::Limits;

/// What `home` needs to know. Also what a bench of the flush starts it with.
#[must_use]
pub fn home_settings(settings: &Settings) -> HomeSettings {
    HomeSettings {
        rules: Rules {
            session_ttl: settings.session.ttl,
            login_policy: match settings.session.login_policy {
                LoginPolicy::Replace => record::LoginPolicy::Replace,
                LoginPolicy::Reject => record::LoginPolicy::Reject,
                LoginPolicy::PerDevice => record::LoginPolicy::PerDevice,
                LoginPolicy::Many(most) => record::LoginPolicy::Many(most.into()),
            },
            presence_grace: settings.presence.grace,
            away_after: settings.presence.away_after,
            state_bytes_max: settings.session.state_bytes_max,
            watches_max: settings.presence.watches_max,
            rooms_max: settings.rooms.session_max,
            room_grants: room_grants(settings),
            cseq_unchecked: sabotage::is_off(Guard::Cseq),
        },
        flush_interval: settings.home.flush_interval,
        lease_ttl: settings.home.lease_ttl,
        hold: settings.home.hold,
        durable_wait: DURABLE_WAIT,
        pending: settings.session.pending,
        hot_records_max: settings.home.hot_records_max,
        bans_max: settings.home.bans_max,
        messages_keep: settings.home.messages_keep,
        remember: settings.home.remember,
        cold: cold_terms(settings),
        commits_in_flight_max: settings.home.commits_in_flight_max,
        lost_writes_unchecked: sabotage::is_off(Guard::FlushCounter),
    }
}

/// How reads of players who are not in memory are kept near. Never stale by more than it takes to ask the store: whoever
/// changes is in memory.
fn cold_terms(settings: &Settings) -> Terms {
    Terms {
        entries_max: settings.near.cold_records_max,
        ttl_ms: millis(settings.near.cold_ttl),
        negative_ttl_ms: millis(settings.near.negative_ttl),
        stale_ms: millis(settings.near.cold_ttl),
        jitter_percent: settings.near.jitter_percent,
    }
}

/// How views of players at home elsewhere are kept near.
pub(super) fn near_settings(settings: &Settings) -> NearSettings {
    let near = &settings.near;
    NearSettings {
        views: Terms {
            entries_max: near.views_max,
            ttl_ms: millis(near.views_ttl),
            negative_ttl_ms: millis(near.negative_ttl),
            stale_ms: millis(near.views_stale),
            jitter_percent: near.jitter_percent,
        },
        invalidate_again: near.invalidate_again,
        readers_max: near.readers_max,
    }
}

/// Rooms that everybody may enter: with development tokens, which name none, all of them unless some are configured.
fn room_grants(settings: &Settings) -> Vec<RoomPattern> {
    let grants = &settings.rooms.grants;
    if grants.is_empty() && settings.dev_tokens_taken() {
        return vec![RoomPattern::all()];
    }
    // What is configured is a pattern: `config` has looked.
    grants.iter().filter_map(|grant| RoomPattern::parse(grant.as_str()).ok()).collect()
}

pub(super) fn member_settings(settings: &Settings) -> MemberSettings {
    MemberSettings { ttl: settings.member_ttl() }
}

pub(super) fn room_settings(settings: &Settings) -> RoomSettings {
    RoomSettings {
        tick: settings.presence.tick,
        members_max: settings.rooms.members_max,
        rooms_max: settings.rooms.rooms_max,
        page_members_max: settings.rooms.page_members_max,
        diff_members_max: settings.rooms.diff_members_max,
        meta_keys_max: settings.rooms.meta_keys_max,
        meta_bytes_max: settings.rooms.meta_bytes_max,
        messages_waiting_max: settings.rooms.messages_waiting_max,
    }
}

/// What `presence` must know of `home`, though it does not know `home`.
pub(super) fn room_ground(home: &Arc<Home>) -> Ground {
    let (epochs, records) = (Arc::clone(home), Arc::clone(home));
    Ground {
        epoch_of: Box::new(move |room| epochs.room_epoch(room)),
        is_whole: Box::new(move || records.is_whole()),
    }
}

/// What the hub needs to know. Also what a bench of a mailbox starts it with.
#[must_use]
pub fn hub_settings(settings: &Settings) -> HubSettings {
    HubSettings {
        heartbeat: settings.link.heartbeat,
        outbox_items_max: settings.link.outbox_items_max,
        slow_close_after: settings.link.slow_close_after,
        replay_frames_max: settings.session.replay_frames_max,
        replay_bytes_max: settings.session.replay_bytes_max,
    }
}

pub(super) fn blob_bounds(settings: &Settings) -> BlobBounds {
    let (blobs, wide) = (&settings.blobs, |number: usize| u64::try_from(number).unwrap_or(u64::MAX));
    BlobBounds {
        bytes_max: blobs.bytes_max,
        player_bytes_max: wide(blobs.player_bytes_max),
        player_count_max: wide(blobs.player_count_max),
        in_flight_max: blobs.in_flight_max,
    }
}

pub(super) const fn lock_waiters(settings: &Settings) -> LineBounds {
    let locks = &settings.locks;
    LineBounds { waiters_max: locks.waiters_max, lock_waiters_max: locks.lock_waiters_max }
}

/// Where alarms begin.
pub(super) fn watch_limits(settings: &Settings) -> Limits {
    let alarm = &settings.alarm;
    let share = |percent: u32| f64::from(percent) / 100.0;
    Limits {
        error_share: share(alarm.error_percent),
        latency_s: alarm.latency.as_secs_f64(),
        latency_factor: share(alarm.latency_percent),
        latency_floor_s: alarm.latency_floor.as_secs_f64(),
        traffic_factor: share(alarm.traffic_percent),
        traffic_floor_per_s: alarm.traffic_floor_per_s.into(),
        commit_s: alarm.commit.as_secs_f64(),
        flush_interval_s: settings.home.flush_interval.as_secs_f64(),
        hot_room_share: share(alarm.hot_room_percent),
        hot_room_floor_per_s: alarm.hot_room_floor_per_s.into(),
        logins_refused_per_s: alarm.logins_refused_per_s.into(),
        slow_readers: alarm.slow_readers.into(),
        leak_window_ms: millis(alarm.leak_window),
        leak_floor: alarm.leak_floor.into(),
        mail_lag_s: alarm.mail_lag.as_secs_f64(),
        bad_clients_per_s: alarm.bad_clients_per_s.into(),
        begins_after: alarm.begins_after,
        ends_after: alarm.ends_after,
    }
}

pub(super) const fn upgrade(settings: &Settings) -> Upgrade {
    let link = &settings.link;
    Upgrade {
        timeout: link.handshake_timeout,
        head_bytes_max: link.request_head_bytes_max,
        frame_bytes_max: link.frame_bytes_max,
        message: MessageBounds { fragments_max: link.fragments_max, timeout: link.message_timeout },
    }
}

pub(super) fn session_settings(settings: &Settings, node: &str) -> SessionSettings {
    let limits = [
        ("frame_bytes", settings.link.frame_bytes_max),
        ("fragments", usize::try_from(settings.link.fragments_max).unwrap_or(usize::MAX)),
        ("message_ms", usize::try_from(settings.link.message_timeout.as_millis()).unwrap_or(usize::MAX)),
        ("state_bytes", settings.session.state_bytes_max),
        ("watches", settings.presence.watches_max),
        ("players_per_call", PLAYERS_PER_CALL_MAX),
        ("durable_in_flight", settings.link.durable_in_flight_max),
        ("rooms", settings.rooms.session_max),
        ("room_members", settings.rooms.members_max),
        ("room_page_members", settings.rooms.page_members_max),
        ("room_meta_bytes", settings.rooms.meta_bytes_max),
        ("room_meta_keys", settings.rooms.meta_keys_max),
    ];
    let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    SessionSettings {
        node: node.to_owned(),
        heartbeat: settings.link.heartbeat,
        frame_bytes_max: settings.link.frame_bytes_max,
        durable_in_flight_max: settings.link.durable_in_flight_max,
        player_messages: settings.session.player_messages,
        limits: limits
            .into_iter()
            .map(|(name, most)| (name.to_owned(), wide(most)))
            .collect::<BTreeMap<_, _>>(),
    }
}
