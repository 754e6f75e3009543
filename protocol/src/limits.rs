//! Bounds that belong to the protocol itself; a deployment may set tighter ones and names its own in `ready.limits`.

/// Most bytes of one frame (a WebSocket message).
pub const FRAME_BYTES_MAX: usize = 16 * 1024;
/// How deep values may nest: a scalar has depth 1.
pub const VALUE_DEPTH_MAX: usize = 16;
/// Most bytes of a device name.
pub const DEVICE_BYTES_MAX: usize = 16;
/// Most players one `watch`, `unwatch` or `presence.get` may name.
pub const PLAYERS_PER_CALL_MAX: usize = 200;
/// Most players one session may watch.
pub const WATCHES_MAX: usize = 500;
/// Most keys of an `activity`.
pub const ACTIVITY_KEYS_MAX: usize = 16;
/// Most bytes of a key of an `activity`.
pub const ACTIVITY_KEY_BYTES_MAX: usize = 64;
/// Most bytes of a value of an `activity`.
pub const ACTIVITY_VALUE_BYTES_MAX: usize = 256;
/// Most bytes of a player's whole `state`, counted as MessagePack.
pub const STATE_BYTES_MAX: usize = 4 * 1024;
/// Most bytes of a key of a `state`.
pub const STATE_KEY_BYTES_MAX: usize = 64;
/// Most bytes of a room's name.
pub const ROOM_NAME_BYTES_MAX: usize = 64;
/// Most keys of a member's `meta`.
pub const META_KEYS_MAX: usize = 16;
/// Most bytes of a key of a `meta`.
pub const META_KEY_BYTES_MAX: usize = 64;
/// Most bytes of a whole `meta`, counted as MessagePack.
pub const META_BYTES_MAX: usize = 512;
