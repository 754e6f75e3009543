//! `load chaos`: breaks somebody's own cluster, one thing at a time, while bots live on it, and has its promises checked. What
//! may be broken is named by the user, since only he knows: processes, links, pairs of commands. Called by `main`.
//! Everything that was broken is mended before it ends, whatever happens but its own death.

mod cluster;
mod commands;
mod fault;
mod file;
mod link;
pub mod options;
mod process;
mod run;
mod sockets;
mod weigh;

use std::path::PathBuf;

pub use run::run;

use crate::run::RunError;
use cluster::LookError;
use fault::FaultError;
use file::FileError;

/// Why nothing was broken.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// Nothing may be broken.
    #[error("nothing may be broken: name what may with --pid, --proxy or --faults")]
    NoFault,
    /// Two things have one name.
    #[error("{0} is the name of two faults: reports could not tell them apart")]
    SameName(String),
    /// One process under two names.
    #[error("process {pid} is named twice, as {name} and as {other}")]
    SameProcess {
        /// Its number.
        pid: i32,
        /// One of its names.
        name: String,
        /// The other.
        other: String,
    },
    /// A process under another node's name.
    #[error("process {pid} is not {name}: it listens at port {port}, where {node} is called")]
    OtherNode {
        /// Its number.
        pid: i32,
        /// What it was called.
        name: String,
        /// Whose port it has.
        node: String,
        /// Which.
        port: u16,
    },
    /// Bots and services are at two clusters.
    #[error(
        "bots have logged in at {urls}, and no node at {services} knows any of them: --url and --service must be those of one \
         cluster"
    )]
    Elsewhere {
        /// Where bots are.
        urls: String,
        /// Where nobody knows them.
        services: String,
    },
    /// The folder of results.
    #[error("{} cannot be made, or written into: {source}", path.display())]
    Out {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A command that starts something, and nothing that it starts.
    #[error("--start {0}=… starts a process that no --pid names")]
    StartsNothing(String),
    /// The file of faults.
    #[error("{}: {fault}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        fault: FileError,
    },
    /// A process or a link cannot be had.
    #[error(transparent)]
    Fault(#[from] FaultError),
    /// The cluster is not what it was said to be.
    #[error(transparent)]
    Look(#[from] LookError),
    /// Bots are not let in.
    #[error(
        "bots are sent away ({0}): they log in with --token-prefix and their name, --player-prefix and a number"
    )]
    SentAway(String),
    /// Bots cannot live.
    #[error(transparent)]
    Bots(#[from] RunError),
    /// The HTTP client cannot be made, or signals cannot be heard.
    #[error("the system refuses: {0}")]
    System(#[source] Box<dyn std::error::Error + Send + Sync>),
}
