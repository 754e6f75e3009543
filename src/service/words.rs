//! What services say and hear, in the house's words: stamps of a query, states, statuses. Pure; called by the calls of
//! this room. What players say, too, is `wire`'s.

use std::collections::BTreeMap;

use protocol::Value;
use protocol::request::Status as WireStatus;

use crate::events::Status;
use crate::home::record::Session;
use crate::home::record::document::Document;
use crate::ids::Stamp;
use crate::wire::{house_stamp, read_value};

/// A stamp as a query carries it: `E.V`.
pub(super) fn stamp_of_text(text: &str) -> Option<Stamp> {
    let (epoch, version) = text.split_once('.')?;
    Some(house_stamp((epoch.parse().ok()?, version.parse().ok()?)))
}

/// A whole state as services see it.
pub(super) fn state_of(document: &Document) -> BTreeMap<String, Value> {
    document.entries().map(|(key, value)| (key.to_owned(), read_value(value))).collect()
}

/// What others see of a player.
pub(super) const fn wire_status(status: Status) -> WireStatus {
    match status {
        Status::Offline | Status::Invisible => WireStatus::Offline,
        Status::Away => WireStatus::Away,
        Status::Online => WireStatus::Online,
        Status::Busy => WireStatus::Busy,
        Status::Playing => WireStatus::Playing,
    }
}

/// What one session says it is doing: services see more than watchers do, an invisible one included.
pub(super) const fn status_of(session: &Session) -> WireStatus {
    match session.status {
        Status::Offline => WireStatus::Offline,
        Status::Invisible => WireStatus::Invisible,
        Status::Online if session.idle => WireStatus::Away,
        Status::Away => WireStatus::Away,
        Status::Online => WireStatus::Online,
        Status::Busy => WireStatus::Busy,
        Status::Playing => WireStatus::Playing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_of_a_query_is_two_numbers_with_a_dot() {
        assert_eq!(stamp_of_text("7.12"), Some(house_stamp((7, 12))));
        for text in ["", "7", "7.", ".7", "7.12.1", "a.b", "-1.2", "7,12", "18446744073709551616.1"] {
            assert_eq!(stamp_of_text(text), None, "{text}");
        }
    }
}
