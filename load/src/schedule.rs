//! What a bot does and when: made from the seed before anything happens, so that a slow server cannot slow the load down.
//! Pure; asked by the bot. Never knows an answer.

use std::time::Duration;

use protocol::request::Status;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::history::Drop;
use crate::options::{Options, Scenario};

/// Between two changes of presence.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(10);
/// Between two changes of presence of a star.
const STAR_INTERVAL: Duration = Duration::from_millis(500);
/// Between two reads.
const READ_INTERVAL: Duration = Duration::from_secs(5);
/// From login to logout under `churn`.
const CHURN_INTERVAL: Duration = Duration::from_secs(8);
/// All log in within this time.
const LOGINS_WITHIN: Duration = Duration::from_secs(5);
/// The longest that a bot stays away after an ordinary drop.
const AWAY_MAX: Duration = Duration::from_millis(2_000);

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    /// Write.
    Write {
        /// Ask for `durable`.
        durable: bool,
    },
    /// Change presence.
    Presence {
        /// To this status.
        status: Status,
    },
    /// Read everything.
    Read,
    /// Lose the link.
    Drop {
        /// In this way.
        how: Drop,
        /// As a share of what may be.
        away: Away,
    },
    /// Log out, and in again.
    Leave,
}

/// How long to stay away.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Away {
    /// So long.
    For(Duration),
    /// This part of the time for which the session can be resumed, if that fits into the run; else a moment.
    OfResume(f64),
    /// So long that even a server that forgets late must have forgotten the session, if that fits into the run.
    UntilForgotten,
}

/// A bot's schedule: a queue of one next time a kind.
#[derive(Debug)]
pub struct Schedule {
    rng: SmallRng,
    durable_share: f64,
    scenario: Scenario,
    /// Kind, next time, interval.
    next: Vec<(Kind, Duration, Duration)>,
    login_at: Duration,
    end: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Write,
    Presence,
    Read,
    Drop,
    Leave,
}

impl Schedule {
    /// The schedule of one bot.
    #[must_use]
    pub fn new(options: &Options, bot: u32) -> Self {
        let mut rng =
            SmallRng::seed_from_u64(options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(bot));
        let end = Duration::from_secs(options.seconds);
        let scenario = options.scenario;
        let presence = if scenario == Scenario::Fanout && bot < stars(options.players) {
            STAR_INTERVAL
        } else {
            PRESENCE_INTERVAL
        };
        // A short run drops each link at least once.
        let drop_interval = Duration::from_millis(options.drop_interval_ms).min(end / 2);
        let mut kinds = vec![
            (Kind::Write, Duration::from_millis(options.write_interval_ms)),
            (Kind::Presence, presence.min(end / 2)),
            (Kind::Read, READ_INTERVAL.min(end / 2)),
            (Kind::Drop, drop_interval),
        ];
        if scenario == Scenario::Churn {
            kinds.push((Kind::Leave, CHURN_INTERVAL.min(end / 2)));
        }
        // Not all in the same moment.
        let login_at = (end / 10).min(LOGINS_WITHIN).mul_f64(rng.random());
        let next = kinds
            .into_iter()
            .map(|(kind, interval)| {
                let together = kind == Kind::Drop && scenario == Scenario::Reconnect;
                let first =
                    if together { interval.mul_f64(0.9) } else { login_at + interval.mul_f64(rng.random()) };
                (kind, first, interval)
            })
            .collect();
        Self { rng, durable_share: options.durable_share, scenario, next, login_at, end }
    }

    /// When this bot logs in; nothing is due before.
    #[must_use]
    pub fn login_at(&self) -> Duration {
        self.login_at
    }

    /// When the next thing is due; `None` past the end.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.next.iter().map(|(_, at, _)| *at).min().filter(|at| *at < self.end)
    }

    /// Takes the next thing.
    pub fn take(&mut self) -> Option<(Duration, Action)> {
        let due = self.due()?;
        let (kind, at, interval) = self.next.iter_mut().find(|(_, at, _)| *at == due)?;
        let (kind, interval) = (*kind, {
            *at += *interval;
            *interval
        });
        let action = match kind {
            Kind::Write => Action::Write { durable: self.rng.random_bool(self.durable_share) },
            Kind::Presence => Action::Presence { status: self.any_status() },
            Kind::Read => Action::Read,
            Kind::Drop => self.any_drop(interval),
            Kind::Leave => Action::Leave,
        };
        Some((due, action))
    }

    fn any_status(&mut self) -> Status {
        match self.rng.random_range(0..4) {
            0 => Status::Online,
            1 => Status::Away,
            2 => Status::Busy,
            _ => Status::Playing,
        }
    }

    fn any_drop(&mut self, interval: Duration) -> Action {
        let how = match self.rng.random_range(0..3) {
            0 => Drop::Reset,
            1 => Drop::Cut,
            _ => Drop::Abandon,
        };
        let moment = AWAY_MAX.min(interval / 4).mul_f64(self.rng.random());
        let away = match self.rng.random_range(0..16) {
            _ if self.scenario == Scenario::Reconnect => Away::For(Duration::ZERO),
            0 | 1 => Away::OfResume(0.7),
            2 => Away::OfResume(1.5),
            3 => Away::UntilForgotten,
            _ => Away::For(moment),
        };
        Action::Drop { how, away }
    }
}

/// How many stars a run under `fanout` has.
#[must_use]
pub fn stars(players: u32) -> u32 {
    (players / 100).clamp(1, 10)
}

/// Whom a bot watches.
#[must_use]
pub fn subjects(options: &Options, bot: u32) -> Vec<u32> {
    let players = options.players;
    if options.scenario == Scenario::Fanout {
        return (0..stars(players)).filter(|subject| *subject != bot).collect();
    }
    (1..players.min(options.watches + 1)).map(|ahead| (bot + ahead) % players).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn options(line: &str) -> Options {
        Options::try_parse_from(format!("load {line}").split_whitespace()).unwrap()
    }

    fn actions(line: &str, bot: u32) -> Vec<(Duration, Action)> {
        let mut schedule = Schedule::new(&options(line), bot);
        std::iter::from_fn(|| schedule.take()).collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_schedule() {
        assert_eq!(actions("steady --seed 3", 5), actions("steady --seed 3", 5));
        assert_ne!(actions("steady --seed 3", 5), actions("steady --seed 4", 5));
        assert_ne!(actions("steady --seed 3", 5), actions("steady --seed 3", 6));
    }

    #[test]
    fn every_bot_writes_each_second_and_drops_its_link() {
        for scenario in ["steady", "churn", "fanout", "reconnect"] {
            for (seconds, players) in [(60, 50), (5, 2)] {
                let line = format!("{scenario} --seconds {seconds} --players {players}");
                for bot in 0..players {
                    let all = actions(&line, bot);
                    let count = |of: fn(&Action) -> bool| all.iter().filter(|(_, action)| of(action)).count();
                    assert!(count(|a| matches!(a, Action::Write { .. })) + 1 >= seconds * 9 / 10, "{line}");
                    assert!(count(|a| matches!(a, Action::Drop { .. })) >= 1, "{line}");
                    assert!(count(|a| matches!(a, Action::Presence { .. })) >= 1, "{line}");
                    assert!(all.is_sorted_by_key(|(due, _)| *due));
                }
            }
        }
    }

    #[test]
    fn about_the_asked_share_is_durable() {
        let durable: usize = (0..100)
            .flat_map(|bot| actions("steady --durable-share 0.1 --seconds 60", bot))
            .filter(|(_, action)| matches!(action, Action::Write { durable: true }))
            .count();
        assert!((450..750).contains(&durable), "{durable} of about 6000");
    }

    #[test]
    fn under_reconnect_all_drop_in_the_same_moment() {
        let drops = |bot| -> Vec<Duration> {
            let all = actions("reconnect", bot);
            all.iter().filter(|(_, a)| matches!(a, Action::Drop { .. })).map(|(due, _)| *due).collect()
        };
        assert_eq!(drops(1), drops(2));
    }

    #[test]
    fn twenty_others_are_watched_and_stars_by_everybody() {
        let watched = subjects(&options("steady --players 1000"), 995);
        assert_eq!((watched.len(), watched.first(), watched.last()), (20, Some(&996), Some(&15)));
        assert_eq!(subjects(&options("steady --players 3"), 0), [1, 2]);
        assert_eq!(subjects(&options("fanout --players 1000"), 3).len(), 9);
        assert_eq!(subjects(&options("fanout --players 1000"), 500).len(), 10);
    }
}
