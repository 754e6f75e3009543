//! What is said on Hearth's wire: messages, codes, codec, limits, for servers and clients alike.
//! The public specification is `protocol/README.md`; the golden vectors in `protocol/vectors` pin every frame's bytes.
//! Never holds state or policy.

pub mod calls;
#[cfg(feature = "client")]
pub mod client;
pub mod codec;
pub mod codes;
pub mod limits;
pub mod plain;
pub mod push;
pub mod reply;
pub mod request;
#[cfg(feature = "schema")]
pub mod schema;
#[cfg(feature = "service")]
pub mod service;
pub mod text;
pub mod value;

pub use codec::{DecodeError, Encoding, decode_request, encode, peek};
pub use codes::{CloseCode, ErrorCode};
pub use request::{Op, Request};
pub use text::Text;
pub use value::Value;

/// Where a player's record stood, or a presence item's `ver`: `[epoch, n]`.
pub type Stamp = (u64, u64);
