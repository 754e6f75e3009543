//! Messages to a player, to many, to a room.

use serde::{Deserialize, Serialize};

use super::{is_not, is_zero};
use crate::request::Ack;
#[cfg(feature = "schema")]
use crate::schema::{Player, PushAck, PushToManyAck};
use crate::{Text, Value};

/// `POST /v1/players/{player}/messages`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("required" = ["data"])))]
pub struct Push<'a> {
    /// Anything; the message has at most 16 384 bytes as MessagePack.
    pub data: Value,
    /// The same key sends once: 1 to 64 bytes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 64)))]
    pub idempotency_key: Option<Text<'a>>,
    /// `durable`: kept until a client of the player has seen it. `replicated` is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<PushAck>"))]
    pub ack: Option<Ack>,
}

/// A message that was pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pushed {
    /// Names the message, as its receivers see it.
    pub id: String,
    /// To how many sessions.
    pub delivered: u32,
    /// It waits in the store until it is seen.
    #[serde(default, skip_serializing_if = "is_not")]
    pub kept: bool,
}

/// `POST /v1/messages`: to `players`, or to all.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend(
    "required" = ["data"],
    "if" = {"required": ["all"], "properties": {"all": {"const": true}}},
    "then" = {"properties": {"players": {"not": {"type": "array"}}}},
    "else" = {"required": ["players"], "properties": {"players": {"type": "array"}}},
)))]
pub struct PushToMany<'a> {
    /// To whom: at most 1 000.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<Player>>", length(max = 1000)))]
    pub players: Option<Vec<Text<'a>>>,
    /// In place of `players`: to every session of the cluster.
    #[serde(default, skip_serializing_if = "is_not")]
    pub all: bool,
    /// Anything; the message has at most 16 384 bytes as MessagePack.
    pub data: Value,
    /// The same key sends once: 1 to 64 bytes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 64)))]
    pub idempotency_key: Option<Text<'a>>,
    /// None but `applied`: messages to many are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<PushToManyAck>"))]
    pub ack: Option<Ack>,
}

/// A message to many, and whom it did not reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Given {
    /// Names the message, as its receivers see it.
    pub id: String,
    /// To how many sessions.
    pub delivered: u32,
    /// Whose home cannot be reached now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Which nodes could not be told, of a message to all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_nodes: Vec<String>,
    /// For how many shards nobody has answered, of a message to all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown_shards: usize,
}

/// `POST /v1/rooms/{room}/messages`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("required" = ["data"])))]
pub struct Say<'a> {
    /// Anything; the message has at most 16 384 bytes as MessagePack.
    pub data: Value,
    /// The same key sends once: 1 to 64 bytes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 64)))]
    pub idempotency_key: Option<Text<'a>>,
}

/// A message that was said in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Said {
    /// Names the message, as its receivers see it.
    pub id: String,
    /// To how many sessions.
    pub delivered: u32,
}
