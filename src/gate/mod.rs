//! From socket to identity: who may connect, over what, and as whom. `app` starts it; it hands attached links to
//! `session`. Never touches a player's state.

mod arrival;
pub mod auth;
mod crowd;
pub mod handshake;
pub mod inside;
pub mod listener;
pub mod origin;
pub mod peers;
mod relay;
mod routing;
pub mod tls;
pub mod token;
pub mod upgrade;
