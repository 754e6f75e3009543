//! Scenarios as TOML: those that come with the program, by name, and anybody's own, by path. Every fault is named with its
//! file and its field. Reads; never runs anything.

use std::io::ErrorKind;
use std::path::Path;

use super::{Burst, Cut, Drops, Phase, Plan, Watch};

/// What comes with the program.
const BUILT_IN: [(&str, &str); 4] = [
    ("launch-day", include_str!("../../scenarios/launch-day.toml")),
    ("patch-night", include_str!("../../scenarios/patch-night.toml")),
    ("guild-raid", include_str!("../../scenarios/guild-raid.toml")),
    ("steady", include_str!("../../scenarios/steady.toml")),
];

const PHASES_MAX: usize = 50;
const THRESHOLDS_MAX: usize = 100;
const NAME_BYTES_MAX: usize = 60;
const SECONDS_MIN: f64 = 0.1;
const SECONDS_MAX: f64 = 86_400.0;
/// As the command line allows.
const PLAYERS_MIN: u32 = 2;
const PLAYERS_MAX: u32 = 200_000;
/// As the protocol allows.
const WATCHES_MAX: u32 = 200;
/// All of a room watch each other in pushes of a page.
const ROOM_PLAYERS_MAX: u32 = 1_000;
/// The paces that a server takes from one session: nothing faster, and nothing slower than an hour.
const EVERY_MS_MAX: u64 = 3_600_000;
const WRITE_MS_MIN: u64 = 20;
const OTHER_MS_MIN: u64 = 100;
const RELOGIN_MS_MIN: u64 = 1_000;
const BURST_MS_MIN: u64 = 1_000;
/// What a server takes from one session at once.
const BURST_OF_EACH_MAX: u32 = 10;
const AWAY_MS_MAX: u64 = 600_000;
/// A link lives a second at least.
const SHARE_PER_MINUTE_MAX: f64 = 60.0;
/// What bots do and hear is kept in memory until it is judged.
const ENTRIES_MAX: f64 = 20e6;
const ENTRIES: &str = "what bots do and hear (entries of the history)";

/// Why a scenario cannot be played. Each says which file, and which field.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Neither a name nor a file.
    #[error("no scenario is called {name}, and there is no such file ({source}); there are: {}", names().join(", "))]
    Missing {
        /// What was asked for.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is there, and no text.
    #[error("{file} cannot be read: {}", unread(source))]
    Unreadable {
        /// Which file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no TOML, or a field of it is no such field.
    #[error("{file}: {place}{why}")]
    Malformed {
        /// Which file.
        file: String,
        /// Which line, and which field.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// Fields out of bounds.
    #[error("{file}: {}", faults.join("; "))]
    OutOfBounds {
        /// Which file.
        file: String,
        /// Each with its field.
        faults: Vec<String>,
    },
}

/// The names of what comes with the program.
#[must_use]
pub fn names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}

impl Plan {
    /// The scenario of a name, or of a file.
    ///
    /// # Errors
    /// [`PlanError`]. Bounds are judged by [`Plan::checked`], once the command line has had its say.
    pub fn named(name: &str) -> Result<Self, PlanError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Self::read(name, &format!("{name}.toml"), text);
        }
        let text = std::fs::read_to_string(name).map_err(|source| match source.kind() {
            ErrorKind::NotFound => PlanError::Missing { name: name.to_owned(), source },
            _ => PlanError::Unreadable { file: name.to_owned(), source },
        })?;
        let stem = Path::new(name).file_stem().map_or(name.into(), |stem| stem.to_string_lossy());
        Self::read(&stem, name, &text)
    }

    /// A scenario of this text.
    ///
    /// # Errors
    /// [`PlanError::Malformed`].
    pub fn read(name: &str, file: &str, text: &str) -> Result<Self, PlanError> {
        let read: Result<Self, _> = serde_path_to_error::deserialize(toml::Deserializer::new(text));
        let plan = read.map_err(|error| {
            let line = error.inner().span().and_then(|span| text.get(..span.start));
            let line = line.map_or(0, |before| before.matches('\n').count() + 1);
            let line = if line > 0 { format!("line {line}: ") } else { String::new() };
            let path = error.path().to_string();
            let path = if path == "." { String::new() } else { format!("{path}: ") };
            let why = error.inner().message().replace('\n', ", ");
            PlanError::Malformed { file: file.to_owned(), place: format!("{line}{path}"), why }
        })?;
        Ok(Self { name: name.to_owned(), ..plan })
    }

    /// The same, if nothing is out of bounds.
    ///
    /// # Errors
    /// [`PlanError::OutOfBounds`], with every fault.
    pub fn checked(self) -> Result<Self, PlanError> {
        let faults = self.faults();
        if faults.is_empty() {
            return Ok(self);
        }
        Err(PlanError::OutOfBounds { file: self.name, faults })
    }

    /// The same, if what bots do and hear can be kept: all that is asked of a built-in scenario, whose other bounds the command
    /// line keeps.
    ///
    /// # Errors
    /// [`PlanError::OutOfBounds`].
    pub fn remembered(self) -> Result<Self, PlanError> {
        let entries = self.entries();
        if entries <= ENTRIES_MAX {
            return Ok(self);
        }
        let fault = format!("{ENTRIES} is {entries:.0}: 0 to {ENTRIES_MAX}: take fewer bots, or less time");
        Err(PlanError::OutOfBounds { file: self.name, faults: vec![fault] })
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut within = |field: &str, value: f64, least: f64, most: f64| {
            // Not a number is within nothing.
            if !(least..=most).contains(&value) {
                faults.push(format!("{field} is {}: {least} to {most}", shown(value)));
            }
        };
        within("players", f64::from(self.players), f64::from(PLAYERS_MIN), f64::from(PLAYERS_MAX));
        within("watches", f64::from(self.watches), 0.0, f64::from(WATCHES_MAX));
        within("room_players", f64::from(self.room_players), 0.0, f64::from(ROOM_PLAYERS_MAX));
        within("durable_share", self.durable_share, 0.0, 1.0);
        within("title (bytes)", length(self.title.len()), 1.0, 200.0);
        within("phase (how many)", length(self.phases.len()), 1.0, length(PHASES_MAX));
        within("thresholds (how many)", length(self.thresholds.len()), 0.0, length(THRESHOLDS_MAX));
        within("seconds of all phases", self.length().as_secs_f64(), 1.0, SECONDS_MAX);
        for (number, phase) in (1..).zip(&self.phases) {
            phase.bounds(&mut |field: &str, value, least, most| {
                within(&format!("phase {number}: {field}"), value, least, most);
            });
        }
        // Of a time that is none there is no more to say.
        if self.phases.iter().all(Phase::has_time) {
            within(ENTRIES, self.entries(), 0.0, ENTRIES_MAX);
        }
        if self.room_players == 0 {
            let says = |phase: &Phase| {
                phase.every_ms.say.is_some() || phase.burst.is_some_and(|burst| burst.say > 0)
            };
            if let Some(at) = self.phases.iter().position(says) {
                faults.push(format!("phase {}: say: room_players is 0, so nobody is in a room", at + 1));
            }
            if self.watch == Watch::Room {
                faults.push("watch = \"room\": room_players is 0, so nobody is in a room".to_owned());
            }
        }
        faults
    }

    /// About how many entries a history of it has: what bots do, and what others hear of it.
    fn entries(&self) -> f64 {
        let (players, room) = (f64::from(self.players), f64::from(self.room_players));
        let of_phase = |phase: &Phase| {
            let rate = |every_ms: Option<u64>| every_ms.map_or(0.0, |ms| 1e3 / float(ms.max(1)));
            let every = phase.every_ms;
            let burst = |count: fn(Burst) -> u32| {
                phase.burst.map_or(0.0, |burst| f64::from(count(burst)) * rate(Some(burst.every_ms)))
            };
            let bursts = burst(|burst| burst.presence);
            let presence = rate(every.presence) + bursts;
            // All watch the stars, and nobody else.
            let seen = match self.watch {
                Watch::Stars => {
                    f64::from(self.stars()) * (rate(every.star.or(every.presence)) + bursts) * players
                }
                _ => players * presence * f64::from(self.watches),
            };
            let says = rate(every.say) + burst(|burst| burst.say);
            let own = 2.0 * (rate(every.write) + rate(every.read) + presence + says);
            phase.seconds * (players * (own + says * room) + seen)
        };
        self.phases.iter().map(of_phase).sum::<f64>()
    }
}

impl Phase {
    fn has_time(&self) -> bool {
        (SECONDS_MIN..=SECONDS_MAX).contains(&self.seconds)
    }

    fn bounds(&self, within: &mut dyn FnMut(&str, f64, f64, f64)) {
        within("name (bytes)", length(self.name.len()), 1.0, length(NAME_BYTES_MAX));
        within("seconds", self.seconds, SECONDS_MIN, SECONDS_MAX);
        within("online", self.online.unwrap_or(1.0), 0.0, 1.0);
        let seconds = if self.has_time() { self.seconds } else { SECONDS_MAX };
        within("within_s", self.within_s.unwrap_or(0.0), 0.0, seconds);
        let every = self.every_ms;
        for (name, value, least) in [
            ("write", every.write, WRITE_MS_MIN),
            ("presence", every.presence, OTHER_MS_MIN),
            ("star", every.star, OTHER_MS_MIN),
            ("read", every.read, OTHER_MS_MIN),
            ("say", every.say, OTHER_MS_MIN),
            ("relogin", every.relogin, RELOGIN_MS_MIN),
        ] {
            let value = value.unwrap_or(EVERY_MS_MAX);
            within(&format!("every_ms.{name}"), float(value), float(least), float(EVERY_MS_MAX));
        }
        if let Some(Drops { share_per_minute, away_ms, long_share, back: _ }) = self.drops {
            within("drops.share_per_minute", share_per_minute, 0.0, SHARE_PER_MINUTE_MAX);
            within("drops.away_ms", float(away_ms), 0.0, float(AWAY_MS_MAX));
            within("drops.long_share", long_share, 0.0, 1.0);
        }
        if let Some(Cut { at_s, share, every_s, away_ms, back: _ }) = self.cut {
            within("cut.at_s", at_s, 0.0, seconds);
            within("cut.share", share, 0.0, 1.0);
            within("cut.every_s", every_s.unwrap_or(1.0), 0.5, SECONDS_MAX);
            within("cut.away_ms", float(away_ms), 0.0, float(AWAY_MS_MAX));
        }
        if let Some(Burst { every_ms, within_ms, presence, say }) = self.burst {
            within("burst.every_ms", float(every_ms), float(BURST_MS_MIN), float(EVERY_MS_MAX));
            within("burst.within_ms", float(within_ms), 0.0, float(every_ms));
            within("burst.presence", f64::from(presence), 0.0, f64::from(BURST_OF_EACH_MAX));
            within("burst.say", f64::from(say), 0.0, f64::from(BURST_OF_EACH_MAX));
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "bounds of minutes and thousands")]
fn float(number: u64) -> f64 {
    number as f64
}

/// A number that nobody would write out is not written out.
fn shown(value: f64) -> String {
    if value.abs() < 1e15 || !value.is_finite() { value.to_string() } else { format!("{value:e}") }
}

fn unread(source: &std::io::Error) -> String {
    match source.kind() {
        ErrorKind::InvalidData => "it is no text (UTF-8)".to_owned(),
        ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => source.to_string(),
    }
}

fn length(of: usize) -> f64 {
    u32::try_from(of).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::Options;

    const LEAST: &str = "title = \"a\"\n[[phase]]\nname = \"b\"\nseconds = 5\n";

    fn said(text: &str) -> String {
        let read = Plan::read("mine", "mine.toml", text);
        read.and_then(Plan::checked).map_or_else(|error| error.to_string(), |_| "well".to_owned())
    }

    #[test]
    fn what_comes_with_the_program_is_well() {
        for name in names() {
            let plan = Plan::named(name).and_then(Plan::checked).unwrap();
            assert_eq!(plan.name, name);
            assert!(
                plan.thresholds.iter().any(|threshold| threshold.to_string() == "no broken promise"),
                "{name}"
            );
            // Small and short, as in a test, it is well, too.
            Plan { players: 20, ..plan }.scaled(0.1).checked().unwrap();
        }
    }

    #[test]
    fn a_fault_is_named_with_its_file_and_its_field() {
        assert_eq!(said(LEAST), "well");
        for (more, told) in [
            ("secondz = 5", "mine.toml: line 5: phase[0].secondz: unknown field `secondz`"),
            ("online = \"many\"", "phase[0].online: invalid type: string \"many\""),
            ("[phase.every_ms]\nwrit = 5", "phase[0].every_ms.writ: unknown field `writ`"),
            ("[phase.drops]\nback = \"login\"", "missing field `share_per_minute`"),
            ("[phase.cut]\nat_s = 1\nback = \"never\"", "unknown variant `never`"),
            ("online = 1.5", "mine: phase 1: online is 1.5: 0 to 1"),
            ("every_ms = { write = 1 }", "phase 1: every_ms.write is 1: 20 to 3600000"),
            ("every_ms = { say = 500 }", "phase 1: say: room_players is 0"),
            ("cut = { at_s = 9 }", "phase 1: cut.at_s is 9: 0 to 5"),
            ("drops = { share_per_minute = nan }", "drops.share_per_minute is NaN"),
            ("x = [", "mine.toml: line 6: invalid array, expected `]`"),
        ] {
            let said = said(&format!("{LEAST}{more}\n"));
            assert!(said.contains(told), "{more}: {said}");
        }
        let said = said(&format!("thresholds = [\"p99 applied < fast\"]\n{LEAST}"));
        assert!(said.contains("thresholds[0]: ") && said.contains("p99 applied < fast"), "{said}");
    }

    #[test]
    fn all_that_is_out_of_bounds_is_told_at_once() {
        let told = said("title = \"a\"\nplayers = 1\nwatches = 900\n[[phase]]\nname = \"b\"\nseconds = 0\n");
        for fault in
            ["players is 1: 2 to 200000", "watches is 900", "phase 1: seconds is 0", "seconds of all phases"]
        {
            assert!(told.contains(fault), "{fault}: {told}");
        }
        for (seconds, told) in
            [("nan", "phase 1: seconds is NaN"), ("1e308", "phase 1: seconds is 1e308: 0.1 to 86400")]
        {
            let said = said(&format!("title = \"a\"\n[[phase]]\nname = \"b\"\nseconds = {seconds}\n"));
            assert!(said.contains(told) && said.len() < 200, "{said}");
            assert!(!said.contains("within_s") && !said.contains("entries"), "{said}");
        }
        let much = "title = \"a\"\nplayers = 200000\nroom_players = 1000\n[[phase]]\nname = \"b\"\nseconds = 600\n\
                    every_ms = { say = 100 }\n";
        assert!(said(much).contains("entries of the history"));
        // Ten stars twice a second, heard by all.
        let stars = "title = \"a\"\nplayers = 20000\nwatch = \"stars\"\n[[phase]]\nname = \"b\"\nseconds = 100\n\
                     every_ms = { star = 500 }\n";
        assert!(said(stars).contains("is 40000000: 0 to 20000000"), "{}", said(stars));
    }

    #[test]
    fn a_built_in_scenario_is_no_larger_than_can_be_kept() {
        let plan = |line: &str| {
            let options = Options::try_parse_from(format!("load {line}").split_whitespace()).unwrap();
            Plan::built_in(&options).remembered()
        };
        // Also at paces that no file may have.
        assert!(plan("steady --write-interval-ms 10 --drop-interval-ms 500").is_ok());
        assert!(plan("steady --players 1000").is_ok() && plan("fanout --players 1000").is_ok());
        for much in ["steady --players 200000 --seconds 3600", "fanout --players 20000 --seconds 3600"] {
            let told = plan(much).unwrap_err().to_string();
            assert!(told.contains("entries of the history"), "{told}");
        }
    }

    #[test]
    fn a_file_that_is_no_text_is_there_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("latin.toml");
        std::fs::write(&file, b"title = \"\xe4\"").unwrap();
        for (path, why) in [(file.as_path(), "no text (UTF-8)"), (folder.path(), "it is a folder")] {
            let path = path.to_str().unwrap();
            let told = Plan::named(path).unwrap_err().to_string();
            assert!(told.contains(path) && told.contains(why) && !told.contains("no such file"), "{told}");
        }
    }

    #[test]
    fn what_is_no_name_and_no_file_is_told_with_what_there_is() {
        let told = Plan::named("lunch-day").unwrap_err().to_string();
        assert!(told.contains("lunch-day") && told.contains("launch-day, patch-night, guild-raid"), "{told}");
    }
}
