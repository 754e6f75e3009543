//! What a bot does and when: made from the seed before anything happens, so that a slow server cannot slow the load down.
//! Pure; asked by the bot. Never knows an answer.

use std::sync::Arc;
use std::time::Duration;

use protocol::request::Status;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::history::Drop;
use crate::plan::{Back, Burst, Phase, Plan};

/// Whatever mixes a seed with a number.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    /// Log in.
    Enter,
    /// Log out, and stay out.
    Leave,
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
    /// Speak in the room.
    Say,
    /// Lose the link.
    Drop {
        /// In this way.
        how: Drop,
        /// As a share of what may be.
        away: Away,
    },
    /// Lose the link and the ticket, and log in anew.
    Forget,
    /// Log out, and in again.
    Relogin,
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

/// A bot's schedule: of the phase that is on, one next time a kind.
#[derive(Debug)]
pub struct Schedule {
    rng: SmallRng,
    seed: u64,
    plan: Arc<Plan>,
    bot: u32,
    /// The phase that comes after the one whose timers these are.
    next_phase: usize,
    timers: Vec<Timer>,
}

/// Something that is due at a time, and then again.
#[derive(Debug)]
struct Timer {
    kind: Kind,
    at: Duration,
    /// `None`: never again.
    every: Option<Duration>,
    /// Not due from then on.
    until: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Enter,
    Leave,
    Write,
    Presence,
    Read,
    Say,
    Relogin,
    /// How they come back, how long they stay away at most, and which share stays for long.
    Drop(Back, Duration, f64),
}

impl Schedule {
    /// The schedule of one bot.
    #[must_use]
    pub fn new(plan: &Arc<Plan>, seed: u64, bot: u32) -> Self {
        let rng = SmallRng::seed_from_u64(seed.wrapping_mul(MIX) ^ u64::from(bot));
        let plan = Arc::clone(plan);
        let mut schedule = Self { rng, seed, plan, bot, next_phase: 0, timers: Vec::new() };
        schedule.settle();
        schedule
    }

    /// When the next thing is due; `None` past the end.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.timers.iter().filter(|timer| timer.at < timer.until).map(|timer| timer.at).min()
    }

    /// Takes the next thing.
    pub fn take(&mut self) -> Option<(Duration, Action)> {
        let due = self.due()?;
        let timer = self.timers.iter_mut().find(|timer| timer.at == due && timer.at < timer.until)?;
        let kind = timer.kind;
        timer.at = timer.every.map_or(Duration::MAX, |every| timer.at + every);
        let action = match kind {
            Kind::Enter => Action::Enter,
            Kind::Leave => Action::Leave,
            Kind::Write => Action::Write { durable: self.rng.random_bool(self.plan.durable_share) },
            Kind::Presence => Action::Presence { status: self.any_status() },
            Kind::Read => Action::Read,
            Kind::Say => Action::Say,
            Kind::Relogin => Action::Relogin,
            Kind::Drop(Back::Login, ..) => Action::Forget,
            Kind::Drop(Back::Resume, away, long_share) => self.any_drop(away, long_share),
        };
        self.settle();
        Some((due, action))
    }

    /// Goes on to the phase in which the next thing is due.
    fn settle(&mut self) {
        while self.due().is_none() {
            let plan = Arc::clone(&self.plan);
            let Some((phase, begin, before, after)) = plan.phase(self.next_phase) else { return };
            self.next_phase += 1;
            self.timers.clear();
            self.plays(phase, begin, before, after);
        }
    }

    /// What is due in a phase, for a bot that is in, comes, or goes.
    fn plays(&mut self, phase: &Phase, begin: Duration, before: f64, after: f64) {
        let end = begin + phase.length();
        let rank = f64::from(self.bot) / f64::from(self.plan.players.max(1));
        // One after the other; only of who comes or goes, whose rank lies between the two.
        let turn = || {
            let (fewer, more) = (before.min(after), before.max(after));
            begin + phase.within().mul_f64(((rank - fewer) / (more - fewer)).clamp(0.0, 1.0))
        };
        let (from, until) = match (rank < before, rank < after) {
            (true, true) => (begin, end),
            (false, true) => {
                let turn = turn();
                self.once(Kind::Enter, turn, end);
                (turn, end)
            }
            (true, false) => {
                let turn = turn();
                self.once(Kind::Leave, turn, end);
                (begin, turn)
            }
            (false, false) => return,
        };
        let every = phase.every_ms;
        let is_star = self.bot < self.plan.stars();
        let presence = every.star.filter(|_| is_star).or(every.presence);
        for (kind, every) in [
            (Kind::Write, every.write),
            (Kind::Presence, presence),
            (Kind::Read, every.read),
            (Kind::Say, every.say),
            (Kind::Relogin, every.relogin),
        ] {
            if let Some(every) = every {
                self.now_and_then(kind, Duration::from_millis(every), from, until);
            }
        }
        if let Some(drops) = phase.drops.filter(|drops| drops.share_per_minute > 0.0) {
            let kind = Kind::Drop(drops.back, Duration::from_millis(drops.away_ms), drops.long_share);
            let every =
                Duration::try_from_secs_f64(60.0 / drops.share_per_minute).unwrap_or(Duration::MAX / 4);
            self.now_and_then(kind, every, from, until);
        }
        if let Some(cut) = phase.cut
            && self.rng.random::<f64>() < cut.share
        {
            let kind = Kind::Drop(cut.back, Duration::from_millis(cut.away_ms), 0.0);
            let every = cut.every_s.and_then(|every| Duration::try_from_secs_f64(every).ok());
            let at = begin + cut.at();
            if at >= from {
                self.timers.push(Timer { kind, at, every, until });
            }
        }
        if let Some(burst) = phase.burst {
            self.bursts(burst, from, until);
        }
    }

    fn once(&mut self, kind: Kind, at: Duration, end: Duration) {
        // Also for who comes with the last moment.
        self.timers.push(Timer { kind, at, every: None, until: end.max(at + Duration::from_nanos(1)) });
    }

    /// Begins at a time of its own.
    fn now_and_then(&mut self, kind: Kind, every: Duration, from: Duration, until: Duration) {
        let at = from + every.mul_f64(self.rng.random());
        self.timers.push(Timer { kind, at, every: Some(every.max(Duration::from_millis(1))), until });
    }

    /// All of a room at the same time, which no other room has.
    fn bursts(&mut self, burst: Burst, from: Duration, until: Duration) {
        let room = self.plan.room_of(self.bot).unwrap_or(0);
        let mut of_room =
            SmallRng::seed_from_u64(self.seed.wrapping_mul(MIX) ^ u64::from(room).rotate_left(32));
        let every = Duration::from_millis(burst.every_ms);
        let begins = every.mul_f64(of_room.random());
        // Rooms keep their time over phases, whoever comes when.
        let periods = u32::try_from(from.as_nanos() / every.as_nanos().max(1)).unwrap_or(u32::MAX);
        let mut first = every * periods + begins;
        if first < from {
            first += every;
        }
        let kinds = [(Kind::Presence, burst.presence), (Kind::Say, burst.say)];
        for kind in kinds.into_iter().flat_map(|(kind, count)| (0..count).map(move |_| kind)) {
            let at = first + Duration::from_millis(burst.within_ms).mul_f64(self.rng.random());
            self.timers.push(Timer { kind, at, every: Some(every), until });
        }
    }

    fn any_status(&mut self) -> Status {
        match self.rng.random_range(0..4) {
            0 => Status::Online,
            1 => Status::Away,
            2 => Status::Busy,
            _ => Status::Playing,
        }
    }

    fn any_drop(&mut self, away: Duration, long_share: f64) -> Action {
        let how = match self.rng.random_range(0..3) {
            0 => Drop::Reset,
            1 => Drop::Cut,
            _ => Drop::Abandon,
        };
        let moment = away.mul_f64(self.rng.random());
        let is_long = self.rng.random::<f64>() < long_share;
        let away = match self.rng.random_range(0..4) {
            _ if !is_long => Away::For(moment),
            0 | 1 => Away::OfResume(0.7),
            2 => Away::OfResume(1.5),
            _ => Away::UntilForgotten,
        };
        Action::Drop { how, away }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::Options;

    fn plan(line: &str) -> (Arc<Plan>, u64) {
        let options = Options::try_parse_from(format!("load {line}").split_whitespace()).unwrap();
        (Arc::new(Plan::built_in(&options)), options.common.seed)
    }

    fn read(text: &str) -> Arc<Plan> {
        Arc::new(Plan::read("a", "a", &format!("title = \"a\"\n{text}")).and_then(Plan::checked).unwrap())
    }

    fn all(plan: &Arc<Plan>, seed: u64, bot: u32) -> Vec<(Duration, Action)> {
        let mut schedule = Schedule::new(plan, seed, bot);
        std::iter::from_fn(|| schedule.take()).collect()
    }

    fn actions(line: &str, bot: u32) -> Vec<(Duration, Action)> {
        let (plan, seed) = plan(line);
        all(&plan, seed, bot)
    }

    /// When a bot does what is so, in milliseconds.
    fn times(plan: &Arc<Plan>, bot: u32, is_so: fn(&Action) -> bool) -> Vec<u128> {
        let all = all(plan, 1, bot);
        all.iter().filter(|(_, action)| is_so(action)).map(|(due, _)| due.as_millis()).collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_schedule() {
        assert_eq!(actions("steady --seed 3", 5), actions("steady --seed 3", 5));
        assert_ne!(actions("steady --seed 3", 5), actions("steady --seed 4", 5));
        assert_ne!(actions("steady --seed 3", 5), actions("steady --seed 3", 6));
    }

    #[test]
    fn the_file_of_steady_plays_what_the_command_plays() {
        let file = Plan::named("steady").and_then(Plan::checked).unwrap();
        let (command, seed) = plan("steady --encoding mixed");
        assert_eq!(file.phases.len(), 1);
        let file = Arc::new(file);
        for bot in [0, 7, 99] {
            assert_eq!(all(&file, seed, bot), all(&command, seed, bot));
        }
    }

    #[test]
    fn what_comes_with_the_program_proves_something_also_when_it_is_small_and_short() {
        for name in crate::plan::file::names() {
            let plan = Plan { players: 20, ..Plan::named(name).unwrap() }.scaled(0.1).checked().unwrap();
            assert_eq!(plan.demands(), (true, true, true), "{name}");
            let plan = Arc::new(plan);
            let actions: Vec<Action> =
                (0..20).flat_map(|bot| all(&plan, 1, bot)).map(|(_, action)| action).collect();
            let has = |is_so: fn(&Action) -> bool| actions.iter().any(is_so);
            assert!(has(|action| matches!(action, Action::Write { durable: true })), "{name}");
            assert!(has(|action| matches!(action, Action::Drop { .. })), "{name}");
            assert!(has(|action| matches!(action, Action::Presence { .. })), "{name}");
        }
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
                    assert_eq!(all.first().map(|(_, action)| *action), Some(Action::Enter));
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
        assert!(!drops(1).is_empty());
        assert_eq!(drops(1), drops(2));
    }

    #[test]
    fn twenty_others_are_watched_and_stars_by_everybody() {
        let subjects = |line, bot| plan(line).0.subjects(bot);
        let watched = subjects("steady --players 1000", 995);
        assert_eq!((watched.len(), watched.first(), watched.last()), (20, Some(&996), Some(&15)));
        assert_eq!(subjects("steady --players 3", 0), [1, 2]);
        assert_eq!(subjects("fanout --players 1000", 3).len(), 9);
        assert_eq!(subjects("fanout --players 1000", 500).len(), 10);
    }

    #[test]
    fn a_room_watches_its_own() {
        let plan = read(
            "players = 90\nroom_players = 40\nwatch = \"room\"\nwatches = 50\n[[phase]]\nname = \"a\"\nseconds = 5",
        );
        assert_eq!((plan.room_of(39), plan.room_of(40)), (Some(0), Some(1)));
        assert_eq!(plan.subjects(41).len(), 39);
        assert!(plan.subjects(41).iter().all(|subject| (40..80).contains(subject) && *subject != 41));
        // The last room has those who are left.
        assert_eq!(plan.subjects(89), (80..89).collect::<Vec<_>>());
    }

    #[test]
    fn bots_come_and_go_in_their_turn_and_do_nothing_while_they_are_out() {
        let plan = read(
            "players = 100\n[[phase]]\nname = \"a\"\nseconds = 10\nonline = 0.5\nevery_ms = { write = 100 }\n\
             [[phase]]\nname = \"b\"\nseconds = 10\nonline = 1.0\nwithin_s = 1.0\nevery_ms = { write = 100 }\n\
             [[phase]]\nname = \"c\"\nseconds = 10\nonline = 0.2\nevery_ms = { write = 100 }",
        );
        let enters = |bot| times(&plan, bot, |action| *action == Action::Enter);
        let leaves = |bot| times(&plan, bot, |action| *action == Action::Leave);
        assert_eq!(
            (enters(0), enters(25), enters(50), enters(75)),
            (vec![0], vec![5_000], vec![10_000], vec![10_500])
        );
        assert_eq!((leaves(0), leaves(20), leaves(60)), (vec![], vec![20_000], vec![25_000]));
        let writes = times(&plan, 75, |action| matches!(action, Action::Write { .. }));
        // From 10.5 s to 26.9 s.
        assert!(writes.iter().all(|at| (10_500..26_900).contains(at)) && writes.len() > 155, "{writes:?}");
    }

    #[test]
    fn where_as_many_are_in_as_before_nobody_comes_or_goes() {
        let plan = read(
            "players = 100\n[[phase]]\nname = \"a\"\nseconds = 10\nonline = 0.5\nevery_ms = { write = 1000 }\n\
             [[phase]]\nname = \"b\"\nseconds = 10\nevery_ms = { write = 1000 }",
        );
        // The one whose rank is the share itself is the first of those who are out.
        for bot in 0..100 {
            assert_eq!(
                times(&plan, bot, |action| *action == Action::Enter).len(),
                usize::from(bot < 50),
                "{bot}"
            );
            assert!(times(&plan, bot, |action| *action == Action::Leave).is_empty(), "{bot}");
            let writes = times(&plan, bot, |action| matches!(action, Action::Write { .. }));
            let count = writes.iter().filter(|at| **at >= 10_000).count();
            assert_eq!(count, if bot < 50 { 10 } else { 0 }, "{bot}");
        }
    }

    #[test]
    fn a_cut_hits_its_share_at_its_time_and_who_forgets_logs_in_anew() {
        let plan = read(
            "players = 100\n[[phase]]\nname = \"a\"\nseconds = 10\nwithin_s = 0\n\
             cut = { at_s = 4, share = 0.5, back = \"login\" }\ndrops = { share_per_minute = 6 }",
        );
        let hit: Vec<_> = (0..100).map(|bot| times(&plan, bot, |action| *action == Action::Forget)).collect();
        assert!(hit.iter().all(|at| at.is_empty() || *at == [4_000]));
        let count = hit.iter().filter(|at| !at.is_empty()).count();
        assert!((30..70).contains(&count), "{count}");
        // Each link once in ten seconds.
        assert!(
            (0..100).all(|bot| times(&plan, bot, |action| matches!(action, Action::Drop { .. })).len() == 1)
        );
    }

    #[test]
    fn a_room_bursts_together() {
        let plan = read(
            "players = 80\nroom_players = 40\n[[phase]]\nname = \"a\"\nseconds = 20\nwithin_s = 0\n\
             burst = { every_ms = 5000, within_ms = 200, presence = 1, say = 3 }",
        );
        let says = |bot| times(&plan, bot, |action| *action == Action::Say);
        let bursts = |bot| -> Vec<u128> { says(bot).iter().map(|at| at / 200).collect() };
        assert!((9..=12).contains(&says(0).len()), "{:?}", says(0));
        let (first, other) = (bursts(0), bursts(39));
        assert!(first.iter().zip(&other).all(|(one, two)| one.abs_diff(*two) <= 1), "{first:?} {other:?}");
        assert_ne!(bursts(0).first(), bursts(40).first(), "another room has another time");
        let presence = times(&plan, 5, |action| matches!(action, Action::Presence { .. }));
        assert!((3..=4).contains(&presence.len()));
    }
}
