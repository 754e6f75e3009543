//! What the stories are told with: one file an idea. Knows how to start, hurt and end real servers; promises nothing.

pub(crate) mod both_stores;
pub(crate) mod patience;
pub(crate) mod player;
pub(crate) mod redis_server;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod socket;
