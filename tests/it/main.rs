//! The promises of Hearth, told as stories against real servers and a real Redis. One binary; `harness` owns the
//! vocabulary, each other module a room's promises. A missing Redis is a loud failure, never a silent skip.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must fail, and says where"
)]

mod away;
mod barred;
mod blobs;
mod breaker;
mod broadcast;
mod broadcast_elsewhere;
mod cluster;
mod cold;
mod console;
mod counters;
mod crash;
mod demo;
mod deploy;
mod elsewhere;
mod erasure;
mod events;
mod expiry;
mod founding;
mod harness;
mod kept;
mod keys;
mod limits;
mod limits_together;
mod local;
mod locks;
mod logs;
mod maintenance;
mod messages;
mod moved;
mod near_elsewhere;
mod openapi;
mod policies;
mod presence;
mod readme;
mod replay;
mod reviewed;
mod rooms;
mod rooms_elsewhere;
mod routing;
mod salvaged;
mod service_client;
mod sessions;
mod shapes;
mod sight;
mod sight_events;
mod sight_overview;
mod start;
mod state;
mod stock_faults;
mod store;
mod store_faults;
mod timeline;
mod tokens;
mod top;
mod traces;
mod watch_lists;
mod watches_elsewhere;
mod wire;
