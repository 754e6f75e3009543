//! The `load` command. Placeholder until the bots are in.
fn main() {}
