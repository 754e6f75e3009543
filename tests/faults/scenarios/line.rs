//! The command line of the scenarios. Understands what libtest understands and has no use for it, since `cargo test` says
//! the same to every test binary.

use std::path::PathBuf;

use crate::scenario::{self, Scenario};

/// Redis's default lease.
const TTL_MS: u64 = 6_000;
/// Where a quick look is enough.
const SHORT_TTL_MS: u64 = 2_000;
const TTL_MS_MIN: u64 = 1_000;
const REPEATS_MAX: u32 = 100;
/// How long mixed faults go on, and at most.
const MINUTES: u64 = 60;
const MINUTES_MAX: u64 = 24 * 60;
/// Flags of libtest, and those of them with a value.
const LIBTEST: [&str; 9] = [
    "--nocapture",
    "--no-capture",
    "--exact",
    "--ignored",
    "--include-ignored",
    "--quiet",
    "-q",
    "--show-output",
    "--test",
];
const LIBTEST_VALUES: [&str; 6] = ["--test-threads", "--skip", "--format", "--color", "--logfile", "-Z"];

/// What is to be played.
pub(crate) struct Line {
    pub(crate) scenarios: Vec<&'static Scenario>,
    pub(crate) seed: u64,
    pub(crate) ttl_ms: u64,
    pub(crate) repeats: u32,
    pub(crate) out: PathBuf,
    pub(crate) lists: bool,
    pub(crate) keeps_table: bool,
    /// Every count of repetitions within a scenario is 1.
    pub(crate) is_short: bool,
    pub(crate) minutes: u64,
}

/// What a scenario is played with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    /// The lease. Waits of a scenario are told for one of 6 s, and scaled with it.
    pub(crate) ttl_ms: u64,
    /// Every count of repetitions within a scenario is 1.
    pub(crate) is_short: bool,
    /// How long `chaos` lasts.
    pub(crate) minutes: u64,
}

impl Settings {
    /// So many times; once in a short run.
    pub(crate) fn times(&self, times: u32) -> u32 {
        if self.is_short { 1 } else { times }
    }

    /// A wait that is told for a lease of 6 s.
    pub(crate) fn scaled_ms(&self, ms: u64) -> u64 {
        ms * self.ttl_ms / TTL_MS
    }
}

impl Line {
    pub(crate) fn settings(&self, seed: u64) -> Settings {
        Settings { seed, ttl_ms: self.ttl_ms, is_short: self.is_short, minutes: self.minutes }
    }

    /// Reads it.
    pub(crate) fn read(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut words = words.peekable();
        let is_default = words.peek().is_none();
        let (mut names, mut ttl_ms, mut is_ci) = (Vec::new(), None, false);
        let mut line = Self {
            scenarios: Vec::new(),
            seed: rand::random_range(1..1_000_000),
            ttl_ms: TTL_MS,
            repeats: 1,
            out: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("faults"),
            lists: false,
            keeps_table: false,
            is_short: false,
            minutes: MINUTES,
        };
        while let Some(word) = words.next() {
            let mut value = |name: &str| words.next().ok_or_else(|| format!("{name} wants a value"));
            match word.as_str() {
                "--seed" => line.seed = number(&value("--seed")?)?,
                "--minutes" => line.minutes = number(&value("--minutes")?)?,
                "--ttl-ms" => ttl_ms = Some(number(&value("--ttl-ms")?)?),
                "--repeats" => {
                    line.repeats = u32::try_from(number(&value("--repeats")?)?).unwrap_or(u32::MAX);
                }
                "--out" => line.out = PathBuf::from(value("--out")?),
                "--ci" => is_ci = true,
                "--list" => line.lists = true,
                "--table" => line.keeps_table = true,
                known if LIBTEST.contains(&known) => {}
                known if LIBTEST_VALUES.contains(&known) => drop(value(known)?),
                unknown if unknown.starts_with('-') && !unknown.contains('=') => {
                    return Err(format!(
                        "{unknown} is not known: F1 to F19, all, --seed N, --ttl-ms N, --repeats N, --minutes N (of chaos), --ci, --table, --list, --out DIR"
                    ));
                }
                name if name.starts_with('-') => {}
                name => names.push(name.to_owned()),
            }
        }
        let is_default = is_default || (names.is_empty() && !is_ci);
        line.is_short = is_ci || is_default;
        line.ttl_ms = ttl_ms.unwrap_or(if line.is_short { SHORT_TTL_MS } else { TTL_MS });
        let in_default =
            |scenario: &&Scenario| if is_ci { scenario.in_ci } else { is_default && scenario.in_default };
        let is_named = |scenario: &&Scenario| {
            names
                .iter()
                .any(|name| name == scenario.name || (name == "all" && scenario.name.starts_with('F')))
        };
        line.scenarios = scenario::ALL
            .iter()
            .filter(|s| if names.is_empty() { in_default(s) } else { is_named(s) })
            .collect();
        // A name that is none of ours may be libtest's filter, meant for other binaries; a number is ours.
        let is_ours = |name: &&String| {
            name.strip_prefix('F')
                .is_some_and(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
        };
        if let Some(name) = names.iter().filter(is_ours).find(|n| scenario::ALL.iter().all(|s| s.name != *n))
        {
            return Err(format!("there is no scenario {name}"));
        }
        if line.ttl_ms < TTL_MS_MIN
            || line.repeats == 0
            || line.repeats > REPEATS_MAX
            || line.minutes > MINUTES_MAX
        {
            return Err(format!(
                "a TTL is {TTL_MS_MIN} ms at least, repeats are 1 to {REPEATS_MAX}, minutes at most {MINUTES_MAX}"
            ));
        }
        Ok(line)
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}
