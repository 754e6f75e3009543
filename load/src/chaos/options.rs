//! The command line of `load chaos`. Read once at the start.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser as _};

use crate::options::{Options as BotOptions, link_url, service_url};

/// How long at most, in minutes: all that is seen is kept in memory until it is judged.
const MINUTES_MAX: f64 = 240.0;

/// Breaks your own cluster, one thing at a time, while bots live on it, and checks what it promises.
///
/// What may be broken is yours to name: --pid, --proxy, --faults. The next fault begins 10 s after the one before, at the
/// earliest, and only when that one has been mended and all is well again: every shard served, bots at work, presence at each
/// node equal to the truth. Exit code 0: every promise held, and each fault left a trace; 1: one did not, or all did not become
/// well again; 2: nothing was broken, because something named here is not so. What was broken is mended in the end, also after
/// Ctrl-C, SIGTERM, SIGQUIT or SIGHUP.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Where bots connect: each node's own address, ws://HOST:PORT/v1/connect.
    #[arg(long, required = true, value_parser = link_url)]
    pub url: Vec<String>,
    /// Where services call each node: http://HOST:PORT. All nodes, each once.
    #[arg(long, required = true, value_parser = service_url)]
    pub service: Vec<String>,
    /// A key of the scopes `read` and `push`; with `read` alone no messages are sent to the bots, nor judged.
    #[arg(long, env = "HEARTH_SERVICE_KEY", hide_env_values = true)]
    pub key: String,
    /// A process of this machine that may be stopped and continued. One that is named as its node is watched, too.
    #[arg(long, value_name = "NAME=PID", value_parser = pid)]
    pub pid: Vec<(String, i32)>,
    /// What starts that process again: one program and its words (VAR=VALUE may stand before it) that stays in the foreground.
    /// It may then be killed (kill -9), too, and is left running at the end.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = named)]
    pub start: Vec<(String, String)>,
    /// A link that leads over a proxy here, which may carry it badly. It stands as long as this command runs; what is to use it
    /// may start later.
    #[arg(long, value_name = "NAME=LISTEN:UPSTREAM", value_parser = road)]
    pub proxy: Vec<Road>,
    /// Faults that commands break and mend, as TOML.
    #[arg(long, value_name = "FILE")]
    pub faults: Option<PathBuf>,
    /// How long faults go on.
    #[arg(long, default_value = "10", value_parser = minutes)]
    pub minutes: Duration,
    /// The same seed makes the same choices; one is chosen, and told, if none is given.
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many bots: with fewer, too little happens to be judged.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(20..=200_000))]
    pub players: u32,
    /// Between two writes of a bot, in milliseconds; a tenth of them is `durable`.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=1_000))]
    pub write_interval_ms: u64,
    /// A bot's token is this and its name.
    #[arg(long, default_value = "dev:")]
    pub token_prefix: String,
    /// A bot's name is this and its number.
    #[arg(long, default_value = "bot-")]
    pub player_prefix: String,
    /// The cluster's `home.lease_ttl_ms`.
    #[arg(long, default_value_t = 6_000, value_parser = clap::value_parser!(u64).range(300..=60_000))]
    pub lease_ms: u64,
    /// The cluster's `presence.grace_ms`: presence is compared when it, and 5 s more, have passed.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    pub presence_grace_ms: u64,
    /// How long anything may take to be well again before the run is broken off, in seconds.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub patience_s: u64,
    /// The folder into which each run puts one of its own: report.json, report.html, history.jsonl, audit.jsonl.
    #[arg(long, default_value = "hearth-chaos")]
    pub out: PathBuf,
}

impl Options {
    /// What its bots do, for as long as faults go on and `longer`; messages are sent to them where the key `may_push`.
    ///
    /// # Errors
    /// What is wrong with the names or tokens that they are to have.
    pub fn bots(&self, seed: u64, longer: Duration, may_push: bool) -> Result<BotOptions, clap::Error> {
        let line = ["load", "steady", "--quiet", "--encoding", "mixed", "--durable-share", "0.1"];
        let mut options = BotOptions::try_parse_from(line)?;
        options.common.url.clone_from(&self.url);
        if may_push {
            options.common.service_url.clone_from(&self.service);
            options.common.service_key = Some(self.key.clone());
        }
        options.common.token_prefix.clone_from(&self.token_prefix);
        options.common.player_prefix.clone_from(&self.player_prefix);
        (options.players, options.common.seed) = (self.players, seed);
        options.write_interval_ms = self.write_interval_ms;
        options.seconds = (self.minutes + longer).as_secs();
        Ok(options)
    }

    /// How long anything may take to be well again.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        Duration::from_secs(self.patience_s)
    }
}

/// A link that leads over a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Road {
    /// What it is called.
    pub name: String,
    /// Where the proxy listens, `HOST:PORT`.
    pub listen: String,
    /// Where it leads, `HOST:PORT`.
    pub upstream: String,
}

fn named(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, what)) if !name.is_empty() && !what.trim().is_empty() => {
            Ok((name.to_owned(), what.trim().to_owned()))
        }
        _ => Err("a name, =, and what it is".to_owned()),
    }
}

fn pid(text: &str) -> Result<(String, i32), String> {
    let (name, pid) = named(text)?;
    match pid.parse() {
        // 1 is the machine's own, and below it are groups.
        Ok(pid @ 2..) => Ok((name, pid)),
        _ => Err(format!("{pid} is no process id")),
    }
}

fn road(text: &str) -> Result<Road, String> {
    let (name, road) = named(text)?;
    let is_port = |port: &&str| port.parse::<u16>().is_ok();
    let (listen, upstream) = match road.split(':').collect::<Vec<_>>()[..] {
        [port, upstream, up_port] if is_port(&port) && is_port(&up_port) => {
            (format!("127.0.0.1:{port}"), format!("{upstream}:{up_port}"))
        }
        [host, port, upstream, up_port] if is_port(&port) && is_port(&up_port) => {
            (format!("{host}:{port}"), format!("{upstream}:{up_port}"))
        }
        _ => return Err("NAME=PORT:HOST:PORT or NAME=HOST:PORT:HOST:PORT".to_owned()),
    };
    Ok(Road { name, listen, upstream })
}

fn minutes(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes <= MINUTES_MAX => Ok(Duration::from_secs_f64(60.0 * minutes)),
        _ => Err(format!("a number above 0, {MINUTES_MAX} at most")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Command, Line};

    fn read(more: &str) -> Result<Options, String> {
        let line = format!("load chaos --url ws://a --service http://a --key k {more}");
        match Line::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?.command {
            Some(Command::Chaos(options)) => Ok(*options),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_may_be_broken_is_named() {
        let options = read(
            "--pid node-1=4711 --start node-1=hearth --proxy redis=6390:redis.local:6379 \
             --proxy other=0.0.0.0:1:b:2 --minutes 0.5 --seed 7",
        );
        let options = options.unwrap();
        assert_eq!(options.pid, [("node-1".to_owned(), 4711)]);
        assert_eq!(options.minutes, Duration::from_secs(30));
        let roads: Vec<_> = options.proxy.iter().map(|road| (&*road.listen, &*road.upstream)).collect();
        assert_eq!(roads, [("127.0.0.1:6390", "redis.local:6379"), ("0.0.0.0:1", "b:2")]);
        let bots = options.bots(7, Duration::from_secs(90), true).unwrap();
        assert_eq!((bots.common.service_url.len(), bots.common.service_key.as_deref()), (1, Some("k")));
        let bots = options.bots(7, Duration::from_secs(90), false).unwrap();
        assert!(bots.common.service_url.is_empty());
        assert_eq!((bots.seconds, bots.common.seed, bots.common.url), (120, 7, vec!["ws://a".to_owned()]));
    }

    #[test]
    fn what_is_no_name_no_process_and_no_link_is_refused() {
        for (more, why) in [
            ("--pid 4711", "a name, =, and what it is"),
            ("--pid a=1", "1 is no process id"),
            ("--pid a=-5", "-5 is no process id"),
            ("--pid a=b", "b is no process id"),
            ("--start a=", "a name, =, and what it is"),
            ("--proxy a=6379", "NAME=PORT:HOST:PORT"),
            ("--proxy a=x:host:1", "NAME=PORT:HOST:PORT"),
            ("--minutes 0", "a number above 0"),
            ("--minutes 1000", "240 at most"),
            ("--players 19", "20..=200000"),
        ] {
            let error = read(more).unwrap_err();
            assert!(error.contains(why), "{more}: {error}");
        }
    }
}
