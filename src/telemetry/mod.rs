//! Sight: how the house logs, the one table of its metrics, and the watch over them. `cli` starts the logs, `app` the
//! metrics and the watch; every room writes to both. Knows no room and no setting; never carries a payload, a token or a
//! key.

pub mod logs;
pub mod metrics;
pub mod process;
pub mod sampling;
pub mod watch;
