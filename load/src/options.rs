//! The command line. Every bound of a run is here. Read once at the start.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use protocol::Encoding;

use crate::{bench, chaos, floor};

/// Bots that live on a Hearth server like players and check its promises; and benches that measure it.
///
/// Ends by itself. Exit code 0: every promise held, and the run exercised them; 1: a promise was broken, or the run was
/// vacuous (no write, no resume, no push compared, or nothing to be seen of what was expected); 2: the command line.
#[derive(Debug, Clone, Parser)]
#[command(name = "load", version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub struct Line {
    /// A scenario, by its name.
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
    /// Measures a server that it starts itself, beside a floor.
    Bench(bench::options::Options),
    /// Breaks a cluster of yours, one thing at a time, while bots live on it.
    Chaos(Box<chaos::options::Options>),
    /// Is such a floor: `bench` starts it.
    #[command(hide = true)]
    Floor(floor::Options),
}

/// A scenario.
#[derive(Debug, Clone, Parser)]
#[command(name = "load")]
pub struct Options {
    /// What the bots do.
    pub scenario: Scenario,
    /// Where they connect; of several nodes each, once: every bot begins with another one, goes where it is sent, and tries
    /// the others when its own is gone.
    #[arg(long, default_value = "ws://127.0.0.1:7700/v1/connect")]
    pub url: Vec<String>,
    /// Where services call; of several nodes each, once. With a key, messages are pushed and presence is queried there, too,
    /// at one after the other.
    #[arg(long)]
    pub service_url: Vec<String>,
    /// [`Line::service_key`].
    #[arg(skip)]
    pub service_key: Option<String>,
    /// How many bots.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=200_000))]
    pub players: u32,
    /// How long they live, in seconds. Their last words may take half a minute more.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..=86_400))]
    pub seconds: u64,
    /// The same seed makes the same schedule.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where the result goes, as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Where the history goes, as JSON lines.
    #[arg(long)]
    pub history: Option<PathBuf>,
    /// Which share of the writes asks for `durable`.
    #[arg(long, default_value_t = 0.1, value_parser = share)]
    pub durable_share: f64,
    /// A bot's token is this and its name.
    #[arg(long, default_value = "dev:")]
    pub token_prefix: String,
    /// A bot's name is this and its number.
    #[arg(long, default_value = "bot-")]
    pub player_prefix: String,
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
    /// Says nothing while it runs, and at the end only what went wrong.
    #[arg(long)]
    pub quiet: bool,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Speech {
    /// MessagePack.
    Msgpack,
    /// JSON.
    Json,
    /// Every second bot JSON.
    Mixed,
}

impl Speech {
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
        assert_eq!(options.url, ["ws://127.0.0.1:7700/v1/connect"]);
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
        ] {
            assert!(line(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bench_is_no_scenario() {
        let read = line("load bench idle --json idle.json").unwrap();
        assert!(read.scenario.is_none());
        assert!(matches!(read.command, Some(Command::Bench(options)) if options.rounds == 5));
        assert!(matches!(line("load floor echo-epoll").unwrap().command, Some(Command::Floor(_))));
    }
}
