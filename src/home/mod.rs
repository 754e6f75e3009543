//! Where hot state lives.
pub mod history;
pub mod placement;
pub mod record;
pub mod ticket;
