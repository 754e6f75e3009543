//! What the bots of a run do, phase by phase: a scenario, read from TOML ([`file`]) or made from the options of a built-in one.
//! Asked by schedules; judged at the end by its [`threshold`]s. Holds no clock and no chance.

pub mod file;
pub mod threshold;

use std::time::Duration;

use serde::Deserialize;

use crate::options::{Options, Scenario, Speech};
use threshold::Threshold;

/// Between two changes of presence of a bot of the built-in scenarios, and of a star, and between two reads, ms.
const PRESENCE_MS: u64 = 10_000;
const STAR_MS: u64 = 500;
const READ_MS: u64 = 5_000;
/// From login to logout under the built-in `churn`, ms.
const RELOGIN_MS: u64 = 8_000;
/// All log in within this time under the built-in scenarios, seconds.
const LOGINS_WITHIN_S: f64 = 5.0;
/// The longest that a bot stays away after an ordinary drop, ms.
const AWAY_MS: u64 = 2_000;
/// Which share of the drops under the built-in scenarios lasts for most of a session's time, or past it.
const LONG_SHARE: f64 = 0.25;

/// A scenario.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What it is called: its file's name.
    #[serde(skip)]
    pub name: String,
    /// What it plays, in a line.
    pub title: String,
    /// How many bots, unless the command line says so.
    #[serde(default = "players")]
    pub players: u32,
    /// Whom a bot watches.
    #[serde(default)]
    pub watch: Watch,
    /// How many others a bot watches at most.
    #[serde(default = "watches")]
    pub watches: u32,
    /// Bots are in rooms of so many, neighbours by number; 0: in none.
    #[serde(default)]
    pub room_players: u32,
    /// Which share of the writes asks for `durable`.
    #[serde(default = "durable_share")]
    pub durable_share: f64,
    /// How links speak.
    #[serde(default = "encoding")]
    pub encoding: Speech,
    /// What must be so in the end, beside the promises.
    #[serde(default)]
    pub thresholds: Vec<Threshold>,
    /// One after the other.
    #[serde(rename = "phase")]
    pub phases: Vec<Phase>,
}

/// Whom a bot watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watch {
    /// The next ones by number.
    #[default]
    Next,
    /// Those of its own room.
    Room,
    /// The stars: one bot in a hundred, ten at most.
    Stars,
}

/// A part of a scenario in which bots do the same things at the same pace.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// What it is called.
    pub name: String,
    /// How long it lasts.
    pub seconds: f64,
    /// Which share of the bots is in at its end; without it as many as before, and all in the first phase.
    #[serde(default)]
    pub online: Option<f64>,
    /// Those who come or go do so one after the other within so many seconds of its beginning; without it over all of it.
    #[serde(default)]
    pub within_s: Option<f64>,
    /// Between two of the same kind of one bot, ms; what is not named is not done.
    #[serde(default)]
    pub every_ms: Every,
    /// Links that are lost now and then.
    #[serde(default)]
    pub drops: Option<Drops>,
    /// Links that are lost in the same moment.
    #[serde(default)]
    pub cut: Option<Cut>,
    /// What the members of a room do all at once.
    #[serde(default)]
    pub burst: Option<Burst>,
}

/// Think times, ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Every {
    /// `state.patch`.
    pub write: Option<u64>,
    /// `presence.set`.
    pub presence: Option<u64>,
    /// `presence.set` of a star, where stars are watched.
    pub star: Option<u64>,
    /// `state.get`.
    pub read: Option<u64>,
    /// `room.send` to the bot's room.
    pub say: Option<u64>,
    /// Log out, and in again.
    pub relogin: Option<u64>,
}

/// How a bot comes back after it lost its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Back {
    /// It takes its session up again.
    #[default]
    Resume,
    /// It has lost its ticket, too, and logs in anew.
    Login,
}

/// Links that are lost now and then, each at a time of its own.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drops {
    /// Which share of the bots loses its link in a minute.
    pub share_per_minute: f64,
    /// How they come back.
    #[serde(default)]
    pub back: Back,
    /// How long they stay away at most; how long is chance.
    #[serde(default = "away_ms")]
    pub away_ms: u64,
    /// Which share stays away for most of the time for which a session can be resumed, or past it, where the run is long enough.
    #[serde(default)]
    pub long_share: f64,
}

/// Links that are lost in the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// When, in seconds from the phase's beginning.
    pub at_s: f64,
    /// Which share of the bots.
    #[serde(default = "all")]
    pub share: f64,
    /// Again and again, so far apart; without it once.
    #[serde(default)]
    pub every_s: Option<f64>,
    /// How they come back.
    #[serde(default)]
    pub back: Back,
    /// How long they stay away at most.
    #[serde(default)]
    pub away_ms: u64,
}

/// What the members of a room do all at once: each room at a moment of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// Between two of them.
    pub every_ms: u64,
    /// How long one lasts.
    pub within_ms: u64,
    /// Changes of presence of each member in one.
    #[serde(default)]
    pub presence: u32,
    /// Messages of each member to the room in one.
    #[serde(default)]
    pub say: u32,
}

const fn players() -> u32 {
    100
}

const fn watches() -> u32 {
    20
}

const fn durable_share() -> f64 {
    0.1
}

const fn encoding() -> Speech {
    Speech::Mixed
}

const fn away_ms() -> u64 {
    AWAY_MS
}

const fn all() -> f64 {
    1.0
}

/// Seconds as a duration; none of what is no time.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

impl Phase {
    /// How long it lasts.
    #[must_use]
    pub fn length(&self) -> Duration {
        duration(self.seconds)
    }

    /// Within which time of its beginning bots come and go.
    #[must_use]
    pub fn within(&self) -> Duration {
        self.within_s.map_or(self.length(), duration).min(self.length())
    }
}

impl Cut {
    /// When, from the phase's beginning.
    #[must_use]
    pub fn at(&self) -> Duration {
        duration(self.at_s)
    }
}

/// When a phase was, for who tells of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Span {
    /// What it is called.
    pub name: String,
    /// From when on, ms since the run began.
    pub from_ms: u64,
    /// Until when.
    pub to_ms: u64,
}

impl Plan {
    /// The plan of a built-in scenario.
    #[must_use]
    pub fn built_in(options: &Options) -> Self {
        let scenario = options.scenario;
        #[allow(clippy::cast_precision_loss, reason = "a day of seconds at most")]
        let seconds = options.seconds as f64;
        let half_ms = options.seconds * 500;
        // A short run drops each link at least once.
        let drop_ms = options.drop_interval_ms.min(half_ms);
        #[allow(clippy::cast_precision_loss, reason = "an hour of milliseconds at most")]
        let drop_s = drop_ms as f64 / 1e3;
        let is_together = scenario == Scenario::Reconnect;
        let drops = Drops {
            share_per_minute: 60.0 / drop_s,
            back: Back::Resume,
            away_ms: AWAY_MS.min(drop_ms / 4),
            long_share: LONG_SHARE,
        };
        let cut =
            Cut { at_s: 0.9 * drop_s, share: 1.0, every_s: Some(drop_s), back: Back::Resume, away_ms: 0 };
        let every_ms = Every {
            write: Some(options.write_interval_ms),
            presence: Some(PRESENCE_MS.min(half_ms)),
            star: (scenario == Scenario::Fanout).then_some(STAR_MS.min(half_ms)),
            read: Some(READ_MS.min(half_ms)),
            say: None,
            relogin: (scenario == Scenario::Churn).then_some(RELOGIN_MS.min(half_ms)),
        };
        let (name, title) = scenario.says();
        let phase = Phase {
            name: name.to_owned(),
            seconds,
            online: None,
            within_s: Some(LOGINS_WITHIN_S.min(seconds / 10.0)),
            every_ms,
            drops: (!is_together).then_some(drops),
            cut: is_together.then_some(cut),
            burst: None,
        };
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            players: options.players,
            watch: if scenario == Scenario::Fanout { Watch::Stars } else { Watch::Next },
            watches: options.watches,
            room_players: 0,
            durable_share: options.durable_share,
            encoding: options.encoding,
            thresholds: Vec::new(),
            phases: vec![phase],
        }
    }

    /// The same, with every phase so many times as long. Paces stay as they are.
    #[must_use]
    pub fn scaled(mut self, by: f64) -> Self {
        for phase in &mut self.phases {
            phase.seconds *= by;
            phase.within_s = phase.within_s.map(|within| within * by);
            if let Some(cut) = &mut phase.cut {
                cut.at_s *= by;
            }
        }
        self
    }

    /// How long all phases last together.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.phases.iter().map(Phase::length).sum()
    }

    /// The phase of this number, when it begins, and which shares of the bots are in before it and at its end.
    #[must_use]
    pub fn phase(&self, number: usize) -> Option<(&Phase, Duration, f64, f64)> {
        let phase = self.phases.get(number)?;
        let earlier = self.phases.get(..number).unwrap_or(&[]);
        let begin = earlier.iter().map(Phase::length).sum();
        // Nobody is in before the first phase, and everybody comes in it if nothing is said.
        let before = match earlier {
            [] => 0.0,
            some => some.iter().rev().find_map(|phase| phase.online).unwrap_or(1.0),
        };
        let after = phase.online.unwrap_or(if number == 0 { 1.0 } else { before });
        Some((phase, begin, before, after))
    }

    /// When each phase is.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let ms = |at: Duration| u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let mut begin = Duration::ZERO;
        let span = |phase: &Phase| {
            let from = begin;
            begin += phase.length();
            Span { name: phase.name.clone(), from_ms: ms(from), to_ms: ms(begin) }
        };
        self.phases.iter().map(span).collect()
    }

    /// What must be seen of a run of it, else it proves nothing: whether a write, a resume, a push that is compared.
    #[must_use]
    pub fn demands(&self) -> (bool, bool, bool) {
        let writes = self.phases.iter().any(|phase| phase.every_ms.write.is_some());
        let drops = |phase: &Phase| {
            let now_and_then =
                phase.drops.is_some_and(|d| d.back == Back::Resume && d.share_per_minute > 0.0);
            now_and_then || phase.cut.is_some_and(|cut| cut.back == Back::Resume && cut.share > 0.0)
        };
        (writes, self.phases.iter().any(drops), self.watches > 0)
    }

    /// The room of a bot, where it is in one.
    #[must_use]
    pub fn room_of(&self, bot: u32) -> Option<u32> {
        bot.checked_div(self.room_players)
    }

    /// Whom a bot watches.
    #[must_use]
    pub fn subjects(&self, bot: u32) -> Vec<u32> {
        let (players, watches) = (self.players, usize::try_from(self.watches).unwrap_or(usize::MAX));
        match (self.watch, self.room_of(bot)) {
            (Watch::Stars, _) => (0..self.stars()).filter(|subject| *subject != bot).collect(),
            (Watch::Room, Some(room)) => {
                let first = room * self.room_players;
                let last = (first + self.room_players).min(players);
                (first..last).filter(|subject| *subject != bot).take(watches).collect()
            }
            _ => (1..players.min(self.watches + 1)).map(|ahead| (bot + ahead) % players).collect(),
        }
    }

    /// How many stars there are, if any: the first bots.
    #[must_use]
    pub fn stars(&self) -> u32 {
        if self.watch == Watch::Stars { (self.players / 100).clamp(1, 10) } else { 0 }
    }
}
