//! Hearth: a session and presence server for online games. The map of the rooms is README's architecture section.

pub mod app;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod events;
pub mod files;
pub mod gate;
pub mod home;
pub mod hub;
pub mod ids;
pub mod jwt;
pub mod limits;
pub mod local;
pub mod maintenance;
pub mod presence;
pub mod rig;
pub mod sabotage;
pub mod service;
pub mod session;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod wheel;
pub mod wire;
