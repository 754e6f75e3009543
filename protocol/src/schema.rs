//! JSON Schemas of what has none by its Rust type alone: texts and values of the wire, and the ids of the house, whose
//! bounds a schema can say. Read by whoever describes the calls; never by what carries them out.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{Text, Value};

/// Texts without control characters.
pub const NO_CONTROLS: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";

impl JsonSchema for Text<'_> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl JsonSchema for Value {
    fn schema_name() -> Cow<'static, str> {
        "Value".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "Anything that JSON can say, nested at most 16 deep." })
    }
}

macro_rules! ids {
    ($($(#[doc = $doc:literal])* $name:ident: $bytes_max:literal, $pattern:expr;)*) => {
        $(
            $(#[doc = $doc])*
            #[derive(Debug)]
            pub enum $name {}

            impl JsonSchema for $name {
                fn schema_name() -> Cow<'static, str> {
                    stringify!($name).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!({
                        "description": (concat!($($doc),*).trim()),
                        "type": "string",
                        "minLength": 1,
                        "maxLength": $bytes_max,
                        "pattern": $pattern,
                    })
                }
            }
        )*
    };
}

ids! {
    /// A player's id: 1 to 64 bytes of UTF-8 without control characters.
    Player: 64, NO_CONTROLS;
    /// A room's name: 1 to 64 bytes of UTF-8 without control characters.
    RoomName: 64, NO_CONTROLS;
    /// The name of a lock or a counter: 1 to 64 bytes of UTF-8 without control characters, not all dots.
    KeyName: 64, r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-\x1f\x7f-\x9f.][^\x00-\x1f\x7f-\x9f]*$";
    /// The name of a blob: letters, digits, dots, underscores and hyphens, not all dots.
    BlobName: 64, "^[A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*$";
    /// A session's id: a UUID of version 7.
    Session: 36, "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$";
}

macro_rules! words {
    ($($(#[doc = $doc:literal])* $name:ident, $is_inline:literal: $words:tt;)*) => {
        $(
            $(#[doc = $doc])*
            #[derive(Debug)]
            pub enum $name {}

            impl JsonSchema for $name {
                fn inline_schema() -> bool {
                    $is_inline
                }

                fn schema_name() -> Cow<'static, str> {
                    stringify!($name).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!({ "type": "string", "enum": $words })
                }
            }
        )*
    };
}

// What may be `null` stands where it is said: a reference that may be `null` is more than generators of clients read.
words! {
    /// What of a presence can be asked for.
    PresenceField, false: ["status", "activity", "devices", "last_seen", "player", "ver"];
    /// How much the ack of a change can be asked to promise.
    ChangeAck, true: ["applied", "durable", "replicated"];
    /// The same of a message to one player.
    PushAck, true: ["applied", "durable"];
    /// The same of a message to many.
    PushToManyAck, true: ["applied"];
}
