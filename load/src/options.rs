//! The command line. Every bound of a run is here. Read once at the start.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use protocol::Encoding;
use serde::Deserialize;

use crate::plan::Plan;
use crate::plan::file::PlanError;
use crate::{bench, chaos, compare, floor};

/// Bots that live on a Hearth server like players and check its promises; and benches that measure it.
///
/// Ends by itself, or at Ctrl-C or SIGTERM, after which bots have their last words and what was seen is judged; at a second one,
/// a second later or more, at once. Exit code 0: every promise held, and the run exercised them; 1: a promise was broken, the run was told to end, or was
/// vacuous (no write, no resume, no push compared, or nothing to be seen of what was expected); 2: the command line.
#[derive(Debug, Clone, Parser)]
#[command(name = "load", version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub struct Line {
    /// A built-in scenario, by its name.
    #[command(flatten)]
    pub scenario: Option<Options>,
    /// The key for --service-url.
    // Not among the scenario's own: one from the environment would make a scenario of every command.
    #[arg(long, env = "HEARTH_SERVICE_KEY", hide_env_values = true)]
    pub service_key: Option<String>,
    /// Or something else.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What is no scenario.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Plays a scenario of a file, or one that comes with the program: launch-day, patch-night, guild-raid, steady.
    Run(Box<Run>),
    /// Compares the reports of two runs.
    Compare(compare::Options),
    /// Measures a server that it starts itself, beside a floor.
    Bench(bench::options::Options),
    /// Breaks a cluster of yours, one thing at a time, while bots live on it.
    Chaos(Box<chaos::options::Options>),
    /// Is such a floor: `bench` starts it.
    #[command(hide = true)]
    Floor(floor::Options),
}

/// A built-in scenario.
#[derive(Debug, Clone, Parser)]
#[command(name = "load")]
// Whoever names a scenario has all of them. Said here, since what is flattened below makes no member of the group.
#[group(args = ["scenario"])]
pub struct Options {
    /// What the bots do.
    pub scenario: Scenario,
    /// How many bots.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=200_000))]
    pub players: u32,
    /// How long they live, in seconds. Their last words may take half a minute more.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..=86_400))]
    pub seconds: u64,
    /// Which share of the writes asks for `durable`.
    #[arg(long, default_value_t = 0.1, value_parser = share)]
    pub durable_share: f64,
    /// How links speak.
    #[arg(long, default_value = "msgpack")]
    pub encoding: Speech,
    /// Between two writes of a bot, in milliseconds.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=1_000))]
    pub write_interval_ms: u64,
    /// Between two dropped links of a bot, in milliseconds.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(500..=3_600_000))]
    pub drop_interval_ms: u64,
    /// How many others each bot watches; under `fanout` it watches the stars.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=200))]
    pub watches: u32,
    /// Fails unless sessions were taken up again on another node than before: for runs under which nodes stop.
    #[arg(long)]
    pub expect_moves: bool,
    /// What is so of every run.
    #[command(flatten)]
    pub common: Common,
    /// What plays a scenario of a file again; of a built-in one its options say it.
    #[arg(skip)]
    pub played: Option<String>,
}

/// Where bots live, who they are, and where goes what they have seen.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Where they connect; of several nodes each, once: every bot begins with another one, goes where it is sent, and tries
    /// the others when its own is gone.
    #[arg(long, default_value = "ws://127.0.0.1:7700/v1/connect", value_parser = link_url)]
    pub url: Vec<String>,
    /// Where services call; of several nodes each, once. `/metrics` is looked at there. With a key, messages are pushed and
    /// presence is queried there, too, at one after the other.
    #[arg(long, visible_alias = "service", value_parser = service_url)]
    pub service_url: Vec<String>,
    /// [`Line::service_key`].
    #[arg(skip)]
    pub service_key: Option<String>,
    /// The server's process, if it is one of this machine: its memory and CPU are looked at. Of several each, once.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..))]
    pub pid: Vec<u32>,
    /// The same seed makes the same schedule.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// A bot's token is this and its name.
    #[arg(long, default_value = "dev:")]
    pub token_prefix: String,
    /// A bot's name is this and its number.
    #[arg(long, default_value = "bot-")]
    pub player_prefix: String,
    /// Where the result goes, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where the history goes, as JSON lines.
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// Where the result goes as a page to look at, with the JSON beside it under the same name and `.json`.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// The folder into which both go, as report.html and report.json; it is made where there is none.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// A line every five seconds instead of the full screen, as on a pipe.
    #[arg(long)]
    pub plain: bool,
    /// Says nothing while it runs, and at the end only what went wrong.
    #[arg(long)]
    pub quiet: bool,
}

/// `load run`: a scenario of a file.
///
/// Exit code 0: every promise held, the run exercised them, and every threshold of the scenario holds; 1: one did not, or the run
/// was told to end; 2: the scenario is none, or is out of bounds.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// A TOML file, or the name of one that comes with the program: launch-day, patch-night, guild-raid, steady.
    pub scenario: String,
    /// How many bots, instead of what the scenario says.
    #[arg(long)]
    pub players: Option<u32>,
    /// How many times as long every phase lasts.
    #[arg(long, default_value_t = 1.0, value_parser = scale)]
    pub seconds_scale: f64,
    /// The key for --service-url.
    #[arg(long, env = "HEARTH_SERVICE_KEY", hide_env_values = true)]
    pub service_key: Option<String>,
    /// What is so of every run.
    #[command(flatten)]
    pub common: Common,
}

impl Common {
    /// Whether anybody is to see how the server does.
    #[must_use]
    pub const fn tells_of_server(&self) -> bool {
        !self.quiet || self.json.is_some() || self.report.is_some() || self.out.is_some()
    }
}

impl Options {
    /// What plays the same again, as a command.
    #[must_use]
    pub fn again(&self) -> String {
        let (name, _) = self.scenario.says();
        let built_in = format!(
            "load {name} --players {} --seconds {} --durable-share {} --write-interval-ms {} --drop-interval-ms {} \
             --watches {} --encoding {}",
            self.players,
            self.seconds,
            self.durable_share,
            self.write_interval_ms,
            self.drop_interval_ms,
            self.watches,
            self.encoding.name()
        );
        let urls: String = self.common.url.iter().map(|url| format!(" --url {url}")).collect();
        format!("{} --seed {}{urls}", self.played.clone().unwrap_or(built_in), self.common.seed)
    }
}

impl Run {
    /// The scenario, and the options of its bots.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn read(self) -> Result<(Options, Plan), PlanError> {
        let mut plan = Plan::named(&self.scenario)?.scaled(self.seconds_scale);
        if let Some(players) = self.players {
            plan.players = players;
        }
        let plan = plan.checked()?;
        let scale = if (self.seconds_scale - 1.0).abs() > f64::EPSILON {
            format!(" --seconds-scale {}", self.seconds_scale)
        } else {
            String::new()
        };
        let played = format!("load run {} --players {}{scale}", self.scenario, plan.players);
        let options = Options {
            scenario: Scenario::Steady,
            players: plan.players,
            seconds: plan.length().as_secs(),
            durable_share: plan.durable_share,
            encoding: plan.encoding,
            write_interval_ms: 0,
            drop_interval_ms: 0,
            watches: plan.watches,
            expect_moves: false,
            common: Common { service_key: self.service_key, ..self.common },
            played: Some(played),
        };
        Ok((options, plan))
    }
}

/// What the bots do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Play: write, read, change presence, watch 20 others, lose the link now and then.
    Steady,
    /// Log in, play for a few seconds, log out, again.
    Churn,
    /// A few stars change their presence often; everybody watches them.
    Fanout,
    /// Everybody loses the link at the same moment, again and again.
    Reconnect,
}

/// How links speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speech {
    /// MessagePack.
    Msgpack,
    /// JSON.
    Json,
    /// Every second bot JSON.
    Mixed,
}

impl Scenario {
    /// Its name, and what it plays.
    #[must_use]
    pub const fn says(self) -> (&'static str, &'static str) {
        match self {
            Self::Steady => ("steady", "bots play, and lose their link now and then"),
            Self::Churn => ("churn", "bots log in, play for a few seconds, and log out"),
            Self::Fanout => ("fanout", "a few stars are watched by everybody"),
            Self::Reconnect => ("reconnect", "everybody loses the link at the same moment, again and again"),
        }
    }
}

impl Speech {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Msgpack => "msgpack",
            Self::Json => "json",
            Self::Mixed => "mixed",
        }
    }

    /// How this bot's link speaks.
    #[must_use]
    pub fn of(self, bot: u32) -> Encoding {
        match self {
            Self::Msgpack => Encoding::MessagePack,
            Self::Json => Encoding::Json,
            Self::Mixed if bot.is_multiple_of(2) => Encoding::MessagePack,
            Self::Mixed => Encoding::Json,
        }
    }
}

/// Where links go.
pub(crate) fn link_url(text: &str) -> Result<String, String> {
    address(text, ["ws", "wss"], "ws://127.0.0.1:7700/v1/connect")
}

/// Where services call.
pub(crate) fn service_url(text: &str) -> Result<String, String> {
    address(text, ["http", "https"], "http://127.0.0.1:7701")
}

fn address(text: &str, schemes: [&str; 2], example: &str) -> Result<String, String> {
    let [plain, safe] = schemes;
    let wanted = format!("wanted is {plain}://HOST:PORT or {safe}://…, as {example}");
    let url = reqwest::Url::parse(text).map_err(|error| format!("it is no URL ({error}); {wanted}"))?;
    if !schemes.contains(&url.scheme()) {
        return Err(format!("it begins with {}:; {wanted}", url.scheme()));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("it names no host; {wanted}"));
    }
    Ok(text.to_owned())
}

fn scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if (0.01..=100.0).contains(&scale) => Ok(scale),
        _ => Err("a number from 0.01 to 100".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share lies between 0 and 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(line: &str) -> Result<Line, clap::Error> {
        Line::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_of_the_readme_is_understood() {
        let text = "load steady --players 1000 --seconds 60 --url ws://127.0.0.1:7700/v1/connect \
                    --service-url http://127.0.0.1:7701 --seed 7 --json out.json";
        let options = line(text).unwrap().scenario.unwrap();
        assert_eq!((options.scenario, options.players, options.seconds), (Scenario::Steady, 1000, 60));
        assert_eq!(options.common.url, ["ws://127.0.0.1:7700/v1/connect"]);
    }

    #[test]
    fn a_scenario_of_a_name_is_read_and_says_how_it_is_played_again() {
        let read = |text: &str| match line(text).unwrap().command {
            Some(Command::Run(run)) => run.read(),
            other => panic!("{other:?}"),
        };
        let (options, plan) =
            read("load run guild-raid --players 20 --seconds-scale 0.1 --seed 7 --url ws://a").unwrap();
        assert_eq!((options.players, plan.players, plan.name.as_str()), (20, 20, "guild-raid"));
        let again = options.again();
        assert_eq!(again, "load run guild-raid --players 20 --seconds-scale 0.1 --seed 7 --url ws://a");
        let (_, whole) = read("load run guild-raid").unwrap();
        assert!((whole.length().as_secs_f64() - 10.0 * plan.length().as_secs_f64()).abs() < 0.01);
        let refused = read("load run guild-raid --players 1").unwrap_err().to_string();
        assert!(refused.contains("players is 1"), "{refused}");
        let options = line("load churn --players 9 --seed 3").unwrap().scenario.unwrap();
        let again = line(&options.again()).unwrap().scenario.unwrap();
        assert_eq!(Plan::built_in(&again), Plan::built_in(&options));
    }

    #[test]
    fn a_run_is_bounded() {
        for text in [
            "load steady --players 1",
            "load steady --seconds 0",
            "load steady --durable-share 1.5",
            "load x",
            "load",
            "load bench",
            "load bench idle --rounds 0",
            "load run",
            "load run steady --seconds-scale 0",
            "load run steady --pid 1",
        ] {
            assert!(line(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_is_one() {
        for (option, wrong, told) in [
            ("--url", "nonsense", "it is no URL"),
            ("--url", "http://127.0.0.1:7700", "it begins with http:; wanted is ws://HOST:PORT"),
            ("--url", "127.0.0.1:7700", "wanted is ws://"),
            ("--url", "ws://", "wanted is ws://"),
            ("--service-url", "ftp://x", "it begins with ftp:; wanted is http://HOST:PORT"),
            ("--service-url", "ws://a", "it begins with ws:"),
        ] {
            let said = line(&format!("load run steady {option} {wrong}")).unwrap_err();
            let (code, said) = (said.exit_code(), said.to_string());
            assert!(
                code == 2 && said.contains(told) && said.contains(option) && said.contains(wrong),
                "{said}"
            );
        }
        line("load run steady --url wss://[::1]:7/x --service-url https://a/").unwrap();
    }

    #[test]
    fn a_bench_is_no_scenario() {
        let read = line("load bench idle --json idle.json").unwrap();
        assert!(read.scenario.is_none());
        assert!(matches!(read.command, Some(Command::Bench(options)) if options.rounds == 5));
        assert!(matches!(line("load floor echo-epoll").unwrap().command, Some(Command::Floor(_))));
    }
}
