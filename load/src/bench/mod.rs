//! Benches: what speed costs, ours beside a floor in the same minutes. Called by the `load` binary. Each starts servers
//! and floors itself, each on its core, takes rounds in turn, and is void as soon as anything was refused.

pub mod cores;
pub mod crowd;
pub mod figure;
pub mod frames;
pub mod machine;
pub mod options;
pub mod process;
pub mod swarm;
pub mod usage;
pub mod words;

mod ack;
mod asking;
mod cold;
mod driven;
mod durable;
mod fanout;
mod flush;
mod idle;
mod locks;
mod near;
mod pusher;
mod query;
mod reconnect;
mod rooms;
mod sight;
mod throng;
mod watch;

use std::fs::File;
use std::io::{BufWriter, Write as _};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use cores::Cores;
use figure::Findings;
use machine::Machine;
use options::{Name, Options};

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Something that is needed is not there.
    #[error("{0}")]
    Setup(String),
    /// Something was refused, limited or broken: what was measured is not what was asked.
    #[error("void, no figures: {0}")]
    Void(String),
    /// The system's.
    #[error("the system refuses: {0}")]
    System(#[from] std::io::Error),
}

/// Descriptors that a bench needs: the largest crowd has 12,000 links.
const DESCRIPTORS: u64 = 19_500;

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    rounds: u32,
    #[serde(flatten)]
    findings: &'a Findings,
}

/// Runs one bench, tells what it found, and writes it where asked.
///
/// # Errors
/// [`BenchError`]: then nothing was written.
pub fn run(options: &Options) -> Result<(), BenchError> {
    if cfg!(debug_assertions) {
        return Err(BenchError::Setup("only an optimised build is worth measuring: use --release".into()));
    }
    let limit = getrlimit(Resource::Nofile);
    let enough = Rlimit { current: Some(limit.maximum.unwrap_or(DESCRIPTORS)), maximum: limit.maximum };
    setrlimit(Resource::Nofile, enough).map_err(std::io::Error::from)?;
    process::build_workspace()?;
    let cores = Cores::choose()?;
    let machine = Machine::here();
    cores::pin(&[cores.client])?;
    let findings = match options.bench {
        Name::Idle => idle::run(cores, options.rounds),
        Name::Ack => ack::run(cores, options.rounds),
        Name::Fanout => fanout::run(cores, options.rounds),
        Name::Durable => durable::run(cores, options.rounds),
        Name::Reconnect => reconnect::run(cores, options.rounds),
        Name::Flush => flush::run(cores, options.rounds),
        Name::Locks => locks::run(cores, options.rounds),
        Name::Query => query::run(cores, options.rounds),
        Name::Unknown => cold::unknown(cores, options.rounds),
        Name::OneFlight => cold::one_flight(cores, options.rounds),
        Name::Avalanche => near::avalanche(cores, options.rounds),
        Name::Stale => near::stale(cores, options.rounds),
        Name::Rooms => rooms::run(cores, options.rounds),
        Name::Watch => watch::run(cores, options.rounds),
        Name::Sight => sight::run(cores, options.rounds),
    }?;
    println!("\n{}\n{}", machine.text(), findings.text());
    if let Some(path) = &options.json {
        let mut out = BufWriter::new(File::create(path)?);
        let report = Report { machine: &machine, rounds: options.rounds, findings: &findings };
        serde_json::to_writer_pretty(&mut out, &report).map_err(std::io::Error::from)?;
        out.flush()?;
    }
    Ok(())
}

/// Tells where a bench is.
fn progress(what: &str) {
    eprintln!("bench: {what}");
}
