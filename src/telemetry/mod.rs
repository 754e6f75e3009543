//! Sight: how the house logs, and the one table of its metrics. `cli` starts the logs, `app` the metrics; every room
//! writes to both. Knows no room and no setting; never carries a payload, a token or a key.

pub mod logs;
pub mod metrics;
