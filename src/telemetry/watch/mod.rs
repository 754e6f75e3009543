//! The anomaly watch: one reading of the node's numbers a second goes in, alarms come out. Pure: no clock, no task, no
//! lock but that of [`Board`], where `app` puts what was found and `service` looks. Every limit is a setting.

mod alarm;
mod baseline;
mod board;
mod finding;
mod leak;
mod reading;
mod rules;
mod spread;
mod switch;
mod totals;

pub use alarm::{Alarm, Change, Severity};
pub use board::{Board, Glance};
pub use reading::{Figures, ROOMS_MAX, Reading, Refused};
pub use spread::Spread;
pub use totals::{Totals, is_bad_close, is_bad_handshake};

use reading::Readings;
use rules::{Baselines, RULES, Sight};
use switch::{Level, Patience, Switch, Turn};

/// The alarms there are.
pub mod names {
    /// More requests fail by the server's fault than may.
    pub const ERROR_RATE: &str = "error_rate";
    /// Acks take too long, or longer than is usual.
    pub const LATENCY: &str = "latency";
    /// Much more comes in than is usual.
    pub const TRAFFIC: &str = "traffic";
    /// Commits take too long.
    pub const STORE_SLOW: &str = "store_slow";
    /// The store takes nothing.
    pub const STORE_DOWN: &str = "store_down";
    /// The store has lost what it had acknowledged.
    pub const STORE_LOST: &str = "store_lost";
    /// One room makes the better part of all pushes.
    pub const HOT_ROOM: &str = "hot_room";
    /// Logins are refused for being too many.
    pub const LOGIN_FLOOD: &str = "login_flood";
    /// Links are closed for reading too slowly.
    pub const SLOW_READERS: &str = "slow_readers";
    /// Sessions or descriptors grow without players.
    pub const SESSION_LEAK: &str = "session_leak";
    /// A node vanished.
    pub const NODE_LOST: &str = "node_lost";
    /// Leases ran out, or others were granted them.
    pub const LEASE_LOST: &str = "lease_lost";
    /// Letters to other nodes are late.
    pub const MAIL_LAG: &str = "mail_lag";
    /// Clients do not keep to the protocol.
    pub const BAD_CLIENT: &str = "bad_client";
    /// All of them.
    pub const ALL: &[&str] = &[
        ERROR_RATE,
        LATENCY,
        TRAFFIC,
        STORE_SLOW,
        STORE_DOWN,
        STORE_LOST,
        HOT_ROOM,
        LOGIN_FLOOD,
        SLOW_READERS,
        SESSION_LEAK,
        NODE_LOST,
        LEASE_LOST,
        MAIL_LAG,
        BAD_CLIENT,
    ];
}

/// Where alarms begin.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Failed requests, of all, 0 to 1.
    pub error_share: f64,
    /// The p99 of acks, in seconds.
    pub latency_s: f64,
    /// The same, times what is usual.
    pub latency_factor: f64,
    /// Whatever is usual, acks below this are quick, in seconds.
    pub latency_floor_s: f64,
    /// Requests, times what is usual.
    pub traffic_factor: f64,
    /// Whatever is usual, fewer a second are few.
    pub traffic_floor_per_s: f64,
    /// The p99 of commits, in seconds.
    pub commit_s: f64,
    /// How long a change may wait for its commit without anything being slow, in seconds.
    pub flush_interval_s: f64,
    /// What one room makes of all pushes, 0 to 1.
    pub hot_room_share: f64,
    /// Fewer pushes a second of a room are few.
    pub hot_room_floor_per_s: f64,
    /// Logins refused for being too many.
    pub logins_refused_per_s: f64,
    /// Links closed for reading too slowly within the window.
    pub slow_readers: u64,
    /// For how long sessions or descriptors must grow.
    pub leak_window_ms: u64,
    /// By how many.
    pub leak_floor: u64,
    /// How late letters may be, in seconds.
    pub mail_lag_s: f64,
    /// Clients that do not keep to the protocol.
    pub bad_clients_per_s: f64,
    /// Bad readings in a row before an alarm begins.
    pub begins_after: u32,
    /// Good ones before it ends.
    pub ends_after: u32,
}

/// One rule's state.
#[derive(Debug, Clone, Default)]
struct Post {
    switch: Switch,
    /// The latest second was bad.
    is_bad: bool,
    alarm: Option<Alarm>,
}

/// The watch over one node.
pub struct Watch {
    limits: Limits,
    readings: Readings,
    figures: Option<Figures>,
    baselines: Baselines,
    /// In the order of the rules.
    posts: Vec<Post>,
}

impl Watch {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            readings: Readings::default(),
            figures: None,
            baselines: Baselines::default(),
            posts: vec![Post::default(); RULES.len()],
        }
    }

    /// The numbers of one second, the next one; what they change.
    pub fn take(&mut self, reading: Reading) -> Vec<Change> {
        let (mono_ms, unix_ms) = (reading.mono_ms, reading.unix_ms);
        self.readings.put(reading);
        let (Some(now), Some(figures)) = (self.readings.newest(), self.readings.figures()) else {
            return Vec::new();
        };
        let sight = Sight {
            limits: &self.limits,
            now,
            readings: &self.readings,
            figures: &figures,
            baselines: &self.baselines,
        };
        let mut changes = Vec::new();
        for (rule, post) in RULES.iter().zip(&mut self.posts) {
            let found = (rule.judge)(&sight);
            let begins_after = if rule.at_once { 1 } else { self.limits.begins_after };
            let patience = Patience { begins_after, ends_after: self.limits.ends_after };
            let turn = post.switch.take(found.level, patience);
            post.is_bad = found.level == Level::Bad;
            // While it waits for its end it says what it said when it was bad.
            if turn == Some(Turn::On) || (post.switch.is_on() && found.level != Level::Good) {
                let since_unix_ms = post.alarm.as_ref().map_or(unix_ms, |alarm| alarm.since_unix_ms);
                post.alarm = Some(Alarm {
                    name: rule.name,
                    severity: rule.severity,
                    since_unix_ms,
                    value: found.value,
                    limit: found.limit,
                    unit: found.unit.unwrap_or(rule.unit),
                    text: (rule.text)(&found),
                    advice: rule.advice,
                    is_ending: false,
                });
            }
            if let Some(alarm) = &mut post.alarm {
                alarm.is_ending = found.level == Level::Good;
            }
            match turn {
                Some(Turn::On) => changes.extend(post.alarm.clone().map(Change::Began)),
                Some(Turn::Off) => changes.extend(post.alarm.take().map(Change::Ended)),
                None => {}
            }
        }
        // Nor from a bad second that is not believed yet.
        let is_unusual = |name: &str| {
            let mut posts = RULES.iter().zip(&self.posts);
            posts.any(|(rule, post)| rule.name == name && (post.is_bad || post.switch.is_on()))
        };
        self.baselines.learn(&figures, mono_ms, is_unusual);
        self.figures = Some(figures);
        changes
    }

    /// What the last ten seconds came to; nothing before there were two readings.
    #[must_use]
    pub const fn figures(&self) -> Option<&Figures> {
        self.figures.as_ref()
    }

    /// The latest reading.
    #[must_use]
    pub fn newest(&self) -> Option<&Reading> {
        self.readings.newest()
    }

    /// The alarms that are on, in the order of the rules.
    pub fn alarms(&self) -> impl Iterator<Item = &Alarm> {
        self.posts.iter().filter_map(|post| post.alarm.as_ref())
    }
}

#[cfg(test)]
mod tests;
