//! What the stories are told with: one file an idea. Knows how to start, hurt and end real servers; promises nothing.

pub(crate) mod both_stores;
#[allow(dead_code, reason = "tests/it does, through this same file")]
pub(crate) mod certificates;
#[allow(dead_code, reason = "tests/faults and tests/hostile look, through this same file")]
pub(crate) mod metrics;
#[allow(dead_code, reason = "tests/it does, through this same file")]
pub(crate) mod nodes;
pub(crate) mod patience;
pub(crate) mod player;
pub(crate) mod redis_server;
#[allow(dead_code, reason = "tests/it does, through this same file")]
pub(crate) mod redis_sets;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod socket;
