//! Locks: taken, renewed.

use serde::{Deserialize, Serialize};

/// `POST /v1/locks/{name}`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LockAsk {
    /// How long it is the caller's: 100 to 3 600 000 ms.
    #[cfg_attr(feature = "schema", schemars(range(min = 100, max = 3_600_000)))]
    pub ttl_ms: u64,
    /// How long to stand in line for it: at most 60 000 ms.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(max = 60_000)))]
    pub wait_ms: u64,
}

/// A lock that is the caller's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LockAcquired {
    /// The fencing token: above those of all who held this lock before.
    pub token: u64,
    /// Proves to be the holder, in the header `Lock-Secret`: 32 hex digits.
    pub secret: String,
    /// How long it is the caller's, ms.
    pub ttl_ms: u64,
}

/// `PUT /v1/locks/{name}`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LockRenewal {
    /// How long it is the caller's from now: 100 to 3 600 000 ms.
    #[cfg_attr(feature = "schema", schemars(range(min = 100, max = 3_600_000)))]
    pub ttl_ms: u64,
}

/// A lock that was renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LockRenewed {
    /// The fencing token, as it was.
    pub token: u64,
    /// How long it is the caller's, ms.
    pub ttl_ms: u64,
}
