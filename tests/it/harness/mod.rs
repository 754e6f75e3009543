//! What the stories are told with: one file an idea. Knows how to start, hurt and end real servers; promises nothing.

#[allow(dead_code, reason = "tests/it does, through this same file")]
pub(crate) mod bridge;
#[allow(dead_code, reason = "tests/it does, through this same file")]
pub(crate) mod browser;
#[allow(dead_code, reason = "tests/it does, through this same file")]
pub(crate) mod certificates;
#[allow(dead_code, reason = "tests/it and tests/hostile do, through this same file")]
pub(crate) mod collector;
pub(crate) mod detour;
pub(crate) mod document;
pub(crate) mod doors;
#[allow(dead_code, reason = "tests/it does, through this same file")]
pub(crate) mod follower;
#[allow(dead_code, reason = "tests/faults and tests/hostile look, through this same file")]
pub(crate) mod metrics;
#[allow(dead_code, reason = "tests/it does, through this same file")]
pub(crate) mod nodes;
pub(crate) mod patience;
pub(crate) mod player;
pub(crate) mod process;
pub(crate) mod redis_server;
#[allow(dead_code, reason = "tests/it does, through this same file")]
pub(crate) mod redis_sets;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod signals;
#[allow(dead_code, reason = "tests/it and tests/faults do, through this same file")]
pub(crate) mod slots;
#[allow(dead_code, reason = "tests/it does, through this same file")]
pub(crate) mod slow_road;
pub(crate) mod socket;
pub(crate) mod stages;
#[allow(dead_code, reason = "tests/it does, through this same file")]
pub(crate) mod strait;
