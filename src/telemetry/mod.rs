//! Sight: how the house logs, the one table of its metrics, the watch over them, and its traces. `cli` starts the logs, `app`
//! metrics, watch and traces; every room writes to them. Knows no room and no setting; never carries a payload, a token or a
//! key.

pub mod frequent;
pub mod logs;
pub mod metrics;
pub mod process;
pub mod sampling;
pub mod traces;
pub mod watch;
