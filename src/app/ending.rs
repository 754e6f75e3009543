//! Why a server did not start, or ended, in one line that says what to do, and with which exit code. Said by the composition
//! root alone; `cli` prints it.

use std::net::SocketAddr;

use crate::cluster::JoinError;
use crate::files;
use crate::store::{OpenError, StoreError};
use crate::tasks::Cause;

/// A bug of ours: sysexits' EX_SOFTWARE. Whoever supervises the process starts it again.
pub(super) const SOFTWARE: u8 = 70;

/// Why the server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file of keys or certificates that cannot be used.
    #[error(transparent)]
    File(#[from] files::Fault),
    /// An address that cannot be listened on.
    #[error("cannot listen on {addr} ({source}): stop what uses it, or set {setting} to another address")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// No store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The store stopped answering while the server started.
    #[error("the server cannot start on this store ({0}): check that it runs and takes writes")]
    StoreSilent(#[from] StoreError),
    /// The store's settings lose data.
    #[error("{0} (redis.ignore_shortfalls = true starts anyway)")]
    Shortfall(String),
    /// The cluster was made otherwise.
    #[error("{0}")]
    Cluster(String),
    /// The node cannot be a member of the cluster.
    #[error("{0}")]
    Join(#[from] JoinError),
    /// A newer process has this node's name.
    #[error(
        "another process was started as node {node}: this one has ended; give each node a node_id of its own"
    )]
    Superseded {
        /// The name.
        node: String,
    },
    /// The metrics recorder or the runtime did not start.
    #[error("cannot start: {0}")]
    Start(String),
    /// Stopped while the store took nothing.
    #[error(
        "stopped, but the store has not taken all changes: what was acked `applied` last is lost, and will be told"
    )]
    Unflushed,
    /// What must live does not.
    #[error("{0}: that is a bug, please report it with the log; the server is to be started again")]
    Failed(Cause),
}

impl ServeError {
    /// 64 for a fault of the configuration, 69 for something outside that is not available, 70 for a bug of ours.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::File(_)
            | Self::Cluster(_)
            | Self::Superseded { .. }
            | Self::Join(JoinError::Formats { .. } | JoinError::Full) => 64,
            Self::Store(error) if error.is_of_settings() => 64,
            Self::Join(JoinError::Store(_))
            | Self::Bind { .. }
            | Self::Store(_)
            | Self::StoreSilent(_)
            | Self::Shortfall(_)
            | Self::Unflushed => 69,
            Self::Start(_) | Self::Failed(_) => SOFTWARE,
        }
    }
}
