//! What a store promises. `contract` is one text that both stores must pass; the other files look at one store from
//! inside.

mod absent;
mod blobs;
mod cluster;
mod contract;
mod counters;
mod embedded;
mod fixture;
mod known;
mod locks;
mod members;
mod random;
mod rate;
mod redis_faults;
mod redis_layout;
mod replicas;
mod sentinel;
mod writer;
