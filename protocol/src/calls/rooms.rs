//! Rooms: who is in one, who is put in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use crate::limits::{META_KEY_BYTES_MAX, META_KEYS_MAX};
use crate::reply::Roster;
use crate::{Stamp, Text, Value};

/// A room, or a page of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RoomView {
    /// Its name.
    pub room: String,
    /// Who is in it.
    #[serde(flatten)]
    pub roster: Roster,
}

/// `PUT /v1/rooms/{room}/members/{player}`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Join<'a> {
    /// The member's own: at most 16 keys of at most 64 bytes, 512 bytes as MessagePack in all.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("maxProperties" = META_KEYS_MAX, "propertyNames" = {"maxLength": META_KEY_BYTES_MAX})))]
    pub meta: Option<BTreeMap<Text<'a>, Value>>,
}

/// A player who was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PutIn {
    /// Where her record stands.
    pub stamp: Stamp,
    /// How many sessions of hers are in.
    pub sessions: usize,
}
