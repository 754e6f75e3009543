//! The two closed tables of numbers and names that tell a client what happened and what to do: error codes and
//! close codes. Whoever adds a code adds its line to `protocol/README.md`; a test compares.

use serde::{Deserialize, Serialize};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, temporary: $temporary:literal;)*) => {
        /// Why a request was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether the same request may succeed later without the client changing anything.
            #[must_use]
            pub const fn is_temporary(self) -> bool {
                match self { $(Self::$variant => $temporary,)* }
            }

            /// Whether it is the server's own fault, and nobody else's.
            #[must_use]
            pub const fn is_ours(self) -> bool {
                matches!(self, Self::Internal | Self::StoreUnavailable | Self::Overloaded | Self::NotHome)
            }
        }
    };
}

error_codes! {
    /// The frame is not `[op, ref, body]` in the link's encoding.
    BadFrame = "bad_frame", temporary: false;
    /// No such op, or not one a client sends.
    UnknownOp = "unknown_op", temporary: false;
    /// A field is missing, of the wrong type or out of range.
    BadRequest = "bad_request", temporary: false;
    /// A frame, a state, an activity or a list is over its limit.
    TooLarge = "too_large", temporary: false;
    /// Only `login`, `resume` and `ping` may come before `ready`.
    NotLoggedIn = "not_logged_in", temporary: false;
    /// The link has its session already.
    AlreadyLoggedIn = "already_logged_in", temporary: false;
    /// The token or the key is not good.
    Unauthorized = "unauthorized", temporary: false;
    /// The token was good once.
    TokenExpired = "token_expired", temporary: false;
    /// The player is banned.
    Banned = "banned", temporary: false;
    /// The login policy refuses one more session.
    SessionLimit = "session_limit", temporary: true;
    /// No such session, its time has run out, or the ticket is not its latest.
    NotResumable = "not_resumable", temporary: false;
    /// The player's home is elsewhere or not known yet.
    NotHome = "not_home", temporary: true;
    /// `if_state` names another state than the present one.
    StateConflict = "state_conflict", temporary: false;
    /// The `cseq` leaves a gap; `expected` is the next one.
    CseqGap = "cseq_gap", temporary: false;
    /// The asked stamp is not reached yet.
    Behind = "behind", temporary: true;
    /// The asked stamp lies on a lost line; `to` is what survived.
    RolledBack = "rolled_back", temporary: false;
    /// Too fast; wait `retry_after_ms`.
    RateLimited = "rate_limited", temporary: true;
    /// The store cannot give what was asked (a `durable` ack, a cold record).
    StoreUnavailable = "store_unavailable", temporary: true;
    /// The server sheds load.
    Overloaded = "overloaded", temporary: true;
    /// Players are not let in for now; close 4507 follows.
    Maintenance = "maintenance", temporary: true;
    /// No such thing.
    NotFound = "not_found", temporary: false;
    /// The room has all the members that it may have.
    RoomFull = "room_full", temporary: true;
    /// The counter would leave the bounds that the call names; `value` is where it stands.
    OutOfBounds = "out_of_bounds", temporary: true;
    /// Somebody else has the lock.
    LockHeld = "lock_held", temporary: true;
    /// The lock is not the caller's, or not any more.
    LockLost = "lock_lost", temporary: false;
    /// What is stored is not what `If-Match` or `If-None-Match` asks for.
    PreconditionFailed = "precondition_failed", temporary: false;
    /// Not allowed by the configuration, the token or the key's scopes.
    Forbidden = "forbidden", temporary: false;
    /// A fault of ours.
    Internal = "internal", temporary: true;
}

macro_rules! close_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal;)*) => {
        /// Why a link was closed; the range alone tells the client what to do ([`CloseCode::advice`]).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CloseCode {
            $($(#[$doc])* $variant,)*
            /// One of the application's own, 4750 to 4999.
            Application(u16),
        }

        impl CloseCode {
            /// Every code but the application's own.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)* Self::Application(number) => number }
            }

            /// The code with this number, if the table has it.
            #[must_use]
            pub const fn numbered(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    4750..=4999 => Some(Self::Application(number)),
                    _ => None,
                }
            }
        }
    };
}

close_codes! {
    /// The session ended.
    Done = 1000;
    /// RFC 6455 was violated.
    ProtocolViolation = 1002;
    /// A text frame was not UTF-8.
    NotUtf8 = 1007;
    /// A message was over the frame limit.
    MessageTooBig = 1009;
    /// The server is going away.
    GoingAway = 4000;
    /// The session is served elsewhere, or by a newer link.
    Moved = 4001;
    /// A `redirect` was sent.
    Redirect = 4002;
    /// The client reads too slowly.
    TooSlow = 4003;
    /// No frame for twice the heartbeat.
    NoSignOfLife = 4004;
    /// A fault of ours.
    InternalFault = 4005;
    /// The session's time ran out.
    SessionExpired = 4250;
    /// The token ran out on the live link.
    TokenExpired = 4251;
    /// No login within the handshake's deadline.
    HandshakeTimeout = 4252;
    /// The token or ticket is not good.
    BadToken = 4500;
    /// The client does not speak this protocol.
    ProtocolError = 4501;
    /// An operator or a service closed the session.
    Kicked = 4502;
    /// The player is banned.
    Banned = 4503;
    /// A newer login of the player took the session's place.
    Replaced = 4504;
    /// The login policy refuses one more session.
    SessionLimit = 4505;
    /// The rate limits were abused.
    RateAbuse = 4506;
    /// Closed for maintenance.
    Maintenance = 4507;
}

/// What a client does after a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Nothing: the session ended.
    Done,
    /// Reconnect and resume.
    Resume,
    /// Reconnect with a fresh login.
    Login,
    /// Do not reconnect.
    Stop,
}

/// What the number of a close tells the client, also for numbers this version does not know.
#[must_use]
pub const fn advice(number: u16) -> Advice {
    match number {
        1000 => Advice::Done,
        4250..=4499 => Advice::Login,
        4500..=4999 => Advice::Stop,
        _ => Advice::Resume,
    }
}

impl CloseCode {
    /// What the client does after it.
    #[must_use]
    pub const fn advice(self) -> Advice {
        advice(self.number())
    }
}
