//! The command line: `serve`, `demo`, `cluster`, `check-config`, `shards`, `top`, `token`, `service-key`. `main` calls it; it loads
//! the settings, judges what they name, and leaves the rest to `app`. Every failure is one line on standard error and an exit code of sysexits.h.

mod ask;
mod shards;
mod top;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use ask::{AskError, AskFlags, Asked};
use clap::{Arg, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use top::{TopError, TopFlags};

use crate::app::{self, ServeError};
use crate::clock;
use crate::config::{Flags, LogFormat, Settings, Sources};
use crate::demo::{self, Demo};
use crate::gate::token::{self, Grant, MintError};
use crate::ids::PlayerId;
use crate::local::{self, LocalError, Plan, Shape};
use crate::service::{self, Scope};
use crate::telemetry::logs::{self, Lines, Logs};

/// The command line or the settings are wrong; nothing was started.
const EXIT_CONFIG: u8 = 64;
/// Something outside is missing.
const EXIT_UNAVAILABLE: u8 = 69;
/// A bug of ours.
const EXIT_INTERNAL: u8 = 70;
/// How long a token of the demo lasts: each login takes a new one.
const DEMO_TOKEN_TTL_S: u64 = 3_600;

#[derive(Debug, Parser)]
#[command(name = "hearth", version, about = "A session and presence server for online games", long_about = None)]
struct Line {
    #[command(flatten)]
    settings: SettingFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

impl Line {
    /// Reads a command line. What `cluster` chooses for each node it refuses, so it does not offer it either.
    fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let hidden = |(name, flag): (&'static str, &'static str)| Arg::new(name).long(flag).hide(true);
        let flags = [
            ("client_addr", "client-addr"),
            ("service_addr", "service-addr"),
            ("store", "store"),
            ("node_id", "node-id"),
        ];
        let command = Self::command().mut_subcommand("cluster", |cluster| {
            let file = hidden(("config", "config")).value_parser(clap::value_parser!(PathBuf));
            cluster.args(flags.map(hidden)).arg(file)
        });
        Self::from_arg_matches(&command.try_get_matches_from(args)?)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (what happens without a command)
    Serve,
    /// Run a server with players who live on it, to see what it does; in a store of its own unless --store says otherwise
    Demo(DemoFlags),
    /// Run real Redis servers and several nodes on this machine; settings of every node by --set alone
    Cluster(ClusterFlags),
    /// Say everything that is wrong with the settings, or ok
    CheckConfig,
    /// Print which node holds how many shards, as a running server says
    Shards(AskFlags),
    /// Show a running cluster on this terminal, once a second: alarms, players, latencies, nodes
    Top(TopFlags),
    /// Print a token for a player, to try things out
    Token(TokenFlags),
    /// Make a service key: print its entry for service.keys_file, and the key itself on standard error
    ServiceKey(ServiceKeyFlags),
    /// Print the service API as an OpenAPI document, as a server shows it at /v1/openapi.json
    Openapi,
}

/// Each setting is also HEARTH_… in the environment; config/hearth.toml explains all.
#[derive(Debug, Args)]
struct SettingFlags {
    /// Settings file [env: HEARTH_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where players connect [env: HEARTH_CLIENT_ADDR] [default: 127.0.0.1:7700]
    #[arg(long, global = true, value_name = "ADDR")]
    client_addr: Option<String>,
    /// Where game services connect [env: HEARTH_SERVICE_ADDR] [default: 127.0.0.1:7701]
    #[arg(long, global = true, value_name = "ADDR")]
    service_addr: Option<String>,
    /// embedded:DIR or redis://HOST:PORT [env: HEARTH_STORE] [default: embedded:./hearth-data]
    #[arg(long, global = true, value_name = "STORE")]
    store: Option<String>,
    /// This node's name [env: HEARTH_NODE_ID] [default: host and client port]
    #[arg(long, global = true, value_name = "NAME")]
    node_id: Option<String>,
    /// Any other setting, such as session.ttl_ms=5000; may be repeated
    #[arg(long, global = true, value_name = "NAME=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Args)]
struct TokenFlags {
    /// Whose token
    #[arg(long)]
    player: String,
    /// How long it lasts, in seconds
    #[arg(long, default_value_t = 3_600)]
    ttl_s: u64,
    /// A room that it opens; may be repeated
    #[arg(long = "room", value_name = "ROOM")]
    rooms: Vec<String>,
    /// The private key to sign with, for RS256, ES256 and EdDSA
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The name of that key in auth.jwks_file
    #[arg(long, value_name = "NAME")]
    kid: Option<String>,
}

#[derive(Debug, Args)]
struct DemoFlags {
    /// How many players
    #[arg(long, default_value_t = demo::PLAYERS, value_parser = clap::value_parser!(u32).range(1..=i64::from(demo::PLAYERS_MAX)))]
    players: u32,
}

#[derive(Debug, Args)]
struct ClusterFlags {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(local::NODES_MAX)))]
    nodes: u16,
    /// On which Redis
    #[arg(long, value_enum, default_value_t = Shape::Standalone)]
    redis: Shape,
    /// Where the nodes' logs and settings go, and stay [default: a folder that goes with the cluster]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// The first of three ports for each node: clients, services, other nodes [default: free ones]
    #[arg(long, value_name = "BASE", value_parser = clap::value_parser!(u16).range(1..=i64::from(u16::MAX - local::NODES_MAX * local::PORTS_EACH)))]
    port: Option<u16>,
}

#[derive(Debug, Args)]
struct ServiceKeyFlags {
    /// The service's name: what audit lines say, and what players see as the sender of its messages
    #[arg(long)]
    name: String,
    /// What it opens, of read, push, write, admin
    #[arg(long, value_delimiter = ',', required = true, value_parser = scope)]
    scopes: Vec<Scope>,
}

fn scope(text: &str) -> Result<Scope, String> {
    Scope::named(text).ok_or_else(|| "must be read, push, write or admin".to_owned())
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("must be NAME=VALUE, such as session.ttl_ms=5000")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

impl SettingFlags {
    fn into_flags(self) -> Flags {
        let named = [
            ("client_addr", self.client_addr),
            ("service_addr", self.service_addr),
            ("store", self.store),
            ("node_id", self.node_id),
        ];
        let named = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Flags { file: self.config, set: self.set.into_iter().chain(named).collect() }
    }
}

/// What a command failed with: lines for standard error, and the exit code.
struct Failure {
    lines: Vec<String>,
    exit_code: u8,
}

impl Failure {
    fn config(line: impl ToString) -> Self {
        Self { lines: vec![line.to_string()], exit_code: EXIT_CONFIG }
    }

    fn outside(line: String) -> Self {
        Self { lines: vec![line], exit_code: EXIT_UNAVAILABLE }
    }

    /// A server that was asked did not answer, or not as it should.
    #[allow(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
    fn asked(error: AskError) -> Self {
        if error.is_outside() { Self::outside(error.to_string()) } else { Self::config(error) }
    }

    #[allow(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
    fn served(error: ServeError) -> Self {
        Self { lines: vec![error.to_string()], exit_code: error.exit_code() }
    }
}

/// Runs one command line; the exit code.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    environment: Vec<(OsString, OsString)>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let line = match Line::read(args) {
        Ok(line) => line,
        Err(told) => return usage(&told, out, err),
    };
    let sources = Sources { chosen: Vec::new(), flags: line.settings.into_flags(), environment };
    let outcome = match line.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(&sources, err),
        Command::Demo(flags) => run_demo(sources, &flags, err),
        Command::Cluster(flags) => run_cluster(sources, flags),
        Command::CheckConfig => check_config(&sources, out, err),
        Command::Shards(flags) => print_shards(&sources, &flags, out),
        Command::Top(flags) => show_top(&sources, flags, out),
        Command::Token(flags) => print_token(&sources, flags, out),
        Command::ServiceKey(flags) => make_service_key(&flags, out, err),
        Command::Openapi => write!(out, "{}", service::openapi()).map_err(cannot_print),
    };
    let Err(failure) = outcome else { return 0 };
    for line in failure.lines {
        // Who closed our standard error does not want to know.
        let _ = writeln!(err, "hearth: {line}");
    }
    failure.exit_code
}

/// Help and version are no failure; anything else clap has to say is a wrong command line.
fn usage(told: &clap::Error, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    if told.use_stderr() {
        let _ = write!(err, "{told}");
        EXIT_CONFIG
    } else {
        let _ = write!(out, "{told}");
        0
    }
}

fn serve(sources: &Sources, err: &mut dyn Write) -> Result<(), Failure> {
    let settings = load(sources)?;
    let _logs = start_logs(&settings, err);
    for warning in settings.warnings() {
        tracing::warn!(operation = "start", "{warning}");
    }
    app::serve(settings).map_err(Failure::served)
}

/// A server on free ports and in a folder of its own, and players to live on it. Only a flag can name another store or
/// address: what the shell holds for a real server must not send the players there.
fn run_demo(mut sources: Sources, flags: &DemoFlags, err: &mut dyn Write) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("hearth-demo-").tempdir();
    let folder = folder.map_err(|error| Failure::outside(format!("no folder for the data: {error}")))?;
    let key = service::generate_key("demo", Scope::ALL).map_err(Failure::config)?;
    sources.chosen = vec![
        ("client_addr", "127.0.0.1:0".to_owned()),
        ("service_addr", "127.0.0.1:0".to_owned()),
        ("store", format!("embedded:{}", folder.path().join("data").display())),
        ("service_key", key.secret.expose().to_owned()),
        // What the demo has to say it says on standard output.
        ("log.level", "error".to_owned()),
    ];
    let settings = load(&sources)?;
    let is_own_store = !sources.flags.set.iter().any(|(name, _)| name.trim() == "store");
    let asked = Arc::new(settings.clone());
    let token = move |player: &str, rooms| -> Result<String, MintError> {
        let player = PlayerId::parse(player).map_err(|_| MintError::NoKey)?;
        let grant = Grant { player, ttl_s: DEMO_TOKEN_TTL_S, rooms, kid: None };
        token::mint(&asked, &grant, None, clock::now())
    };
    token("somebody", Vec::new()).map_err(|error| Failure::config(format!("demo: {error}")))?;
    let _logs = start_logs(&settings, err);
    let demo = Demo {
        players: flags.players,
        service_key: settings.service_key.as_ref().map(|key| key.expose().to_owned()).unwrap_or_default(),
        tokens: Arc::new(move |player, rooms| token(player, rooms).unwrap_or_default()),
        takes_any_name: settings.dev_tokens_taken(),
        leaves_nothing: is_own_store,
    };
    let served = app::serve_with(settings, demo.company()).map_err(Failure::served);
    // Also where the server did not end well.
    folder.close().map_err(|error| Failure::outside(format!("the demo's folder is left behind: {error}")))?;
    served
}

/// Processes of this same program on Redis servers of their own. What the shell holds for a real server must not reach
/// them, and what the cluster chooses for each node nobody else can.
fn run_cluster(sources: Sources, flags: ClusterFlags) -> Result<(), Failure> {
    let Flags { file, set } = sources.flags;
    let is_chosen = |name: &str| local::CHOSEN.contains(&name.trim());
    let file = file.map(|_| "config".to_owned());
    let taken =
        file.into_iter().chain(set.iter().map(|(name, _)| name.clone()).filter(|name| is_chosen(name)));
    let lines: Vec<String> =
        taken.map(|name| format!("cluster: chooses {name} for each node itself")).collect();
    if !lines.is_empty() {
        return Err(Failure { lines, exit_code: EXIT_CONFIG });
    }
    let key = service::generate_key("local", Scope::ALL).map_err(Failure::config)?;
    let service_key = key.secret.expose().to_owned();
    let of_a_node =
        [("store", "redis://127.0.0.1:6379"), ("node_id", "node-1"), ("cluster.name", local::NAME)];
    let mut chosen: Vec<_> = of_a_node.map(|(name, value)| (name, value.to_owned())).into();
    chosen.push(("service_key", service_key.clone()));
    let flags_of_all = Flags { file: None, set: set.clone() };
    let settings = load(&Sources { chosen, flags: flags_of_all, environment: Vec::new() })?;
    let own = if flags.folder.is_none() {
        let made = tempfile::Builder::new().prefix("hearth-cluster-").tempdir();
        Some(made.map_err(|error| Failure::outside(format!("no folder for the cluster: {error}")))?)
    } else {
        None
    };
    let folder = own.as_ref().map(|folder| folder.path().to_owned()).or(flags.folder).unwrap_or_default();
    let is_ours = |name: &OsString| name.to_string_lossy().starts_with("HEARTH_");
    let ran = local::run(Plan {
        nodes: flags.nodes,
        shape: flags.redis,
        folder: std::path::absolute(&folder).unwrap_or(folder),
        leaves_nothing: own.is_some(),
        port: flags.port,
        shards: settings.cluster.shards,
        service_key,
        takes_any_name: settings.dev_tokens_taken(),
        set,
        environment: sources.environment.into_iter().filter(|(name, _)| !is_ours(name)).collect(),
    });
    if let Some(folder) = own {
        folder
            .close()
            .map_err(|error| Failure::outside(format!("the cluster's folder is left behind: {error}")))?;
    }
    ran.map_err(|error: LocalError| Failure { lines: vec![error.to_string()], exit_code: error.exit_code() })
}

/// What is logged is written until what is returned goes.
fn start_logs(settings: &Settings, err: &mut dyn Write) -> Option<Logs> {
    let lines = match settings.log.format {
        LogFormat::Text => Lines::Text,
        LogFormat::Json => Lines::Json,
    };
    // A port that the system chooses is not known yet: then `app` names the node.
    let node = settings.node_name(settings.client_addr.port());
    match logs::start(lines, settings.log.level.as_str(), &node) {
        Ok(logs) => Some(logs),
        Err(error) => {
            let _ = writeln!(err, "hearth: nothing will be logged: {error}");
            None
        }
    }
}

fn check_config(sources: &Sources, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
    let settings = load(sources)?;
    for warning in settings.warnings() {
        let _ = writeln!(err, "warning: {warning}");
    }
    let _ = writeln!(out, "ok");
    Ok(())
}

/// The settings, and everything that they name: keys, certificates and the store's URL are read before anything starts.
fn load(sources: &Sources) -> Result<Settings, Failure> {
    let settings = Settings::from_sources(sources).map_err(|error| Failure {
        lines: error.faults.iter().map(ToString::to_string).collect(),
        exit_code: EXIT_CONFIG,
    })?;
    let lines = app::faults(&settings);
    if lines.is_empty() { Ok(settings) } else { Err(Failure { lines, exit_code: EXIT_CONFIG }) }
}

fn print_token(sources: &Sources, flags: TokenFlags, out: &mut dyn Write) -> Result<(), Failure> {
    let settings = load(sources)?;
    let player =
        PlayerId::parse(&flags.player).map_err(|error| Failure::config(format!("--player: {error}")))?;
    let grant = Grant { player, ttl_s: flags.ttl_s, rooms: flags.rooms, kid: flags.kid };
    let token =
        token::mint(&settings, &grant, flags.key_file.as_deref(), clock::now()).map_err(Failure::config)?;
    writeln!(out, "{token}").map_err(cannot_print)
}

fn print_shards(sources: &Sources, flags: &AskFlags, out: &mut dyn Write) -> Result<(), Failure> {
    let asked = Asked::named(flags, &load(sources)?).map_err(Failure::asked)?;
    write!(out, "{}", shards::table(&asked).map_err(Failure::asked)?).map_err(cannot_print)
}

fn show_top(sources: &Sources, flags: TopFlags, out: &mut dyn Write) -> Result<(), Failure> {
    let settings = load(sources)?;
    top::run(flags, &settings, &sources.environment, out).map_err(|error| match error {
        TopError::Ask(error) => Failure::asked(error),
        TopError::Print(error) => cannot_print(error),
        error @ TopError::Terminal(_) => Failure::outside(error.to_string()),
    })
}

/// The entry goes where it can be appended to a file, the key where it cannot be by accident.
fn make_service_key(
    flags: &ServiceKeyFlags,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let made = service::generate_key(&flags.name, &flags.scopes)
        .map_err(|message| Failure::config(format!("service-key: {message}")))?;
    write!(out, "{}", made.entry).map_err(cannot_print)?;
    let told = format!("the key of {}, told only now: {}", flags.name, made.secret.expose());
    writeln!(err, "{told}").map_err(cannot_print)
}

fn cannot_print(error: std::io::Error) -> Failure {
    Failure { lines: vec![format!("cannot print: {error}")], exit_code: EXIT_INTERNAL }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::auth::Authenticator;
    use crate::service::Keys;

    struct Ran {
        exit_code: u8,
        out: String,
        err: String,
    }

    fn hearth(args: &[&str], environment: &[(&str, &str)]) -> Ran {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = ["hearth"].iter().chain(args).map(OsString::from);
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let exit_code = run(args, environment, &mut out, &mut err);
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ran { exit_code, out: text(out), err: text(err) }
    }

    #[test]
    fn the_command_line_is_well_made() {
        use clap::CommandFactory as _;
        Line::command().debug_assert();
    }

    #[test]
    fn the_document_of_the_service_api_is_printed_without_a_server() {
        let ran = hearth(&["openapi"], &[]);
        assert_eq!((ran.exit_code, ran.out.as_str(), ran.err.as_str()), (0, service::openapi(), ""));
    }

    #[test]
    fn good_settings_are_ok() {
        let ran = hearth(&["check-config"], &[]);
        assert_eq!((ran.exit_code, ran.out.as_str()), (0, "ok\n"));
        assert!(ran.err.starts_with("warning: auth.dev_tokens: "), "{}", ran.err);
    }

    #[test]
    fn every_fault_is_told_in_one_line_and_nothing_starts() {
        for command in [&["serve"][..], &["check-config"], &["token", "--player", "ada"], &[]] {
            let flags =
                ["--client-addr", "nowhere", "--set", "session.ttl_ms=0", "--set", "tls.cert_file=a.pem"];
            let args: Vec<&str> = command.iter().chain(&flags).copied().collect();
            let ran = hearth(&args, &[("HEARTH_COLOUR", "red")]);
            assert_eq!(ran.exit_code, 64, "{}", ran.err);
            for name in ["client_addr", "session.ttl_ms", "tls.cert_file", "HEARTH_COLOUR"] {
                let told = ran.err.lines().any(|line| line.starts_with(&format!("hearth: {name}: ")));
                assert!(told, "{name} is not in {}", ran.err);
            }
            assert_eq!(ran.err.lines().count(), 4, "{}", ran.err);
            assert_eq!(ran.out, "");
        }
    }

    #[test]
    fn files_that_the_settings_name_are_read_before_anything_starts() {
        let ran = hearth(
            &["check-config"],
            &[
                ("HEARTH_TLS__CERT_FILE", "/nowhere/cert.pem"),
                ("HEARTH_TLS__KEY_FILE", "/nowhere/key.pem"),
                ("HEARTH_AUTH__JWT_ALGORITHM", "ES256"),
                ("HEARTH_AUTH__JWT_KEY_FILE", "/nowhere/jwt.pem"),
            ],
        );
        assert_eq!(ran.exit_code, 64);
        assert!(ran.err.contains("hearth: auth.jwt_key_file: cannot read /nowhere/jwt.pem"), "{}", ran.err);
        assert!(ran.err.contains("hearth: tls.cert_file: cannot read /nowhere/cert.pem"), "{}", ran.err);
    }

    #[test]
    fn what_the_store_is_called_is_judged_as_serving_would_judge_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let empty = folder.path().join("ca.pem");
        std::fs::write(&empty, "").expect("write");
        let empty = empty.to_str().expect("UTF-8");
        for (url, set, told) in [
            ("redis+sentinel://h:26379", "", "the name of the master is missing"),
            ("redis://h:99999", "", "no port"),
            ("redis://h:6379/abc", "", "its database is no number"),
            ("redis://secret@h", "", "a user without a password"),
            ("redis://h?timeout=5", "", "a parameter that is not known"),
            ("rediss://h", "redis.ca_file=/nowhere/ca.pem", "redis.ca_file: cannot read /nowhere/ca.pem"),
            ("rediss://h", &format!("redis.ca_file={empty}"), "there is no certificate in it"),
            ("redis://h", "cluster.name=a-name-that-is-longer-than-keys-can-bear", "cluster.name is"),
        ] {
            let mut args = vec!["--store", url, "--set", "cluster.name=c"];
            if !set.is_empty() {
                args.extend(["--set", set]);
            }
            let check = hearth(&[&["check-config"][..], &args].concat(), &[]);
            assert!(check.err.contains(told) && !check.err.contains("secret"), "{url}: {}", check.err);
            let serve = hearth(&[&["serve"][..], &args].concat(), &[]);
            assert_eq!((serve.exit_code, &serve.err), (64, &check.err), "{url}");
            assert_eq!(check.exit_code, 64, "{url}");
        }
    }

    #[test]
    fn a_flag_of_its_own_beats_the_same_setting_by_name() {
        let ran = hearth(&["check-config", "--set", "node_id=a b", "--node-id", "good"], &[]);
        assert_eq!(ran.exit_code, 0, "{}", ran.err);
    }

    #[test]
    fn a_wrong_command_line_is_a_fault_too() {
        for args in [&["--colour"][..], &["dance"], &["--set", "x"], &["token"], &["token", "--player", ""]] {
            let ran = hearth(args, &[]);
            assert_eq!(ran.exit_code, 64, "{args:?}");
            assert!(!ran.err.is_empty() && ran.out.is_empty(), "{args:?}");
        }
    }

    #[test]
    fn help_and_version_are_answers() {
        let version = hearth(&["--version"], &[]);
        assert_eq!((version.exit_code, version.out), (0, format!("hearth {}\n", env!("CARGO_PKG_VERSION"))));
        let help = hearth(&["--help"], &[]);
        assert_eq!(help.exit_code, 0);
        for name in ["--client-addr", "HEARTH_STORE", "check-config", "--set"] {
            assert!(help.out.contains(name), "{name} is not in {}", help.out);
        }
        let help = hearth(&["cluster", "--help"], &[]);
        assert!(help.out.contains("--set") && help.out.contains("--nodes"), "{}", help.out);
        for name in ["--store", "--node-id", "--client-addr", "--service-addr", "--config"] {
            assert!(!help.out.contains(name), "{name} is in {}", help.out);
        }
        let refused = hearth(&["cluster", "--store", "redis://h"], &[]);
        assert_eq!(refused.exit_code, 64);
        assert!(refused.err.contains("cluster: chooses store for each node itself"), "{}", refused.err);
    }

    #[test]
    fn a_service_key_is_printed_apart_from_its_entry() {
        let ran = hearth(&["service-key", "--name", "shop", "--scopes", "read,push"], &[]);
        assert_eq!(ran.exit_code, 0, "{}", ran.err);
        assert!(
            ran.out.starts_with("[[keys]]\n") && ran.out.contains("scopes = [\"read\", \"push\"]"),
            "{}",
            ran.out
        );
        let key = ran.err.trim().rsplit(' ').next().expect("a key").to_owned();
        assert!(!ran.out.contains(&key));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.toml");
        std::fs::write(&path, &ran.out).expect("write");
        let settings =
            Settings::from_toml(&format!("[service]\nkeys_file = {path:?}")).expect("good settings");
        let keys = Keys::from_settings(&settings).expect("a good file");
        assert_eq!(keys.find(key.as_bytes(), clock::now()).expect("the key").name(), "shop");
        for args in [
            &["service-key", "--name", "shop", "--scopes", "dance"][..],
            &["service-key", "--name", "", "--scopes", "read"],
        ] {
            assert_eq!(hearth(args, &[]).exit_code, 64, "{args:?}");
        }
    }

    #[test]
    fn a_printed_token_is_taken_by_the_same_settings() {
        let secret = "0123456789abcdef0123456789abcdef";
        let ran = hearth(
            &["token", "--player", "ada", "--room", "guild:7", "--ttl-s", "60"],
            &[("HEARTH_AUTH__JWT_SECRET", secret)],
        );
        assert_eq!(ran.exit_code, 0, "{}", ran.err);
        let settings =
            Settings::from_toml(&format!("[auth]\njwt_secret = {secret:?}")).expect("good settings");
        let identity = Authenticator::from_settings(&settings)
            .expect("a good secret")
            .verify(ran.out.trim(), clock::now())
            .expect("a good token");
        assert_eq!((identity.player.as_str(), identity.rooms[0].as_str()), ("ada", "guild:7"));
        assert_eq!(hearth(&["token", "--player", "ada"], &[]).out, "dev:ada\n");
    }
}
