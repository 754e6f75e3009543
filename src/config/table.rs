//! Every setting of Hearth, once: its name, type, default, bounds and meaning. The structs the house reads, the
//! manual `config/hearth.toml` and the names in the environment all come from this table. Holds no logic.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::choices::{DevTokens, JwtAlgorithm, LogFormat, LoginPolicy};
use super::sources::Reader;
use super::values::{
    AllowedOrigin, LogFilter, Name, PeerAddr, PublicUrl, Ratio, RoomGrant, Secret, StoreTarget,
};

/// One setting as the manual and the sources see it.
#[derive(Debug)]
pub(super) struct Leaf {
    /// The section's name; empty at the top level.
    pub(super) section: &'static str,
    /// The key within the section, unit included.
    pub(super) key: &'static str,
    /// The default as TOML; empty for none.
    pub(super) default: &'static str,
    /// The smallest and the largest number taken, in the key's unit.
    pub(super) bounds: Option<(i64, i64)>,
    /// Its meaning, line by line.
    pub(super) doc: &'static [&'static str],
}

impl Leaf {
    /// `section.key`, or `key` at the top level.
    pub(super) fn path(&self) -> String {
        if self.section.is_empty() { self.key.to_owned() } else { format!("{}.{}", self.section, self.key) }
    }

    /// `HEARTH_SECTION__KEY`, or `HEARTH_KEY` at the top level.
    pub(super) fn env_name(&self) -> String {
        format!("HEARTH_{}", self.path().replace('.', "__").to_uppercase())
    }
}

/// One section of the manual.
#[derive(Debug)]
pub(super) struct Section {
    /// Its name; empty for the top level.
    pub(super) name: &'static str,
    /// What it is about, line by line.
    pub(super) doc: &'static [&'static str],
    /// Its settings, in the manual's order.
    pub(super) leaves: &'static [Leaf],
}

/// Makes one section: the struct with its documentation, its rows for the manual, and how it is read.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])*
        $Section:ident [$name:literal] {
            $(
                $(#[doc = $doc:literal])*
                $field:ident: $ty:ty = $key:literal $(=> $default:tt)? $(, $min:literal ..= $max:literal)?;
            )*
        }
        $(with { $($sub:ident: $Sub:ident,)* })?
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Debug, Clone)]
        pub struct $Section {
            $(
                $(#[doc = $doc])*
                #[doc = concat!(
                    "\n\nIn TOML: `", $key, "`" $(, ", default `", stringify!($default), "`")?
                    $(, ", from ", $min, " to ", $max)?, "."
                )]
                pub $field: $ty,
            )*
            $($(
                #[doc = concat!("Section `[", stringify!($sub), "]`.")]
                pub $sub: $Sub,
            )*)?
        }

        impl $Section {
            const ROWS: Section = Section {
                name: $name,
                doc: &[$($section_doc),*],
                leaves: &[$(Leaf {
                    section: $name,
                    key: $key,
                    default: concat!($(stringify!($default))?),
                    bounds: section!(@bounds $($min, $max)?),
                    doc: &[$($doc),*],
                }),*],
            };

            /// Reads every setting before it gives up on one, so that all faults are found.
            fn read(reader: &mut Reader) -> Option<Self> {
                let mut leaves = Self::ROWS.leaves.iter();
                $(let $field = leaves.next().and_then(|leaf| reader.read::<$ty>(leaf));)*
                $($(let $sub = $Sub::read(reader);)*)?
                Some(Self { $($field: $field?,)* $($($sub: $sub?,)*)? })
            }
        }
    };
    (@bounds) => { None };
    (@bounds $min:literal, $max:literal) => { Some(($min, $max)) };
}

/// Every section, in the manual's order.
pub(super) const SECTIONS: &[&Section] = &[
    &Settings::ROWS,
    &Cluster::ROWS,
    &Auth::ROWS,
    &ServiceAuth::ROWS,
    &Tls::ROWS,
    &Link::ROWS,
    &Session::ROWS,
    &Presence::ROWS,
    &Rooms::ROWS,
    &Home::ROWS,
    &Near::ROWS,
    &Watchdog::ROWS,
    &Redis::ROWS,
    &Blobs::ROWS,
    &Locks::ROWS,
    &Limits::ROWS,
    &Alarm::ROWS,
    &Log::ROWS,
    &Metrics::ROWS,
    &Trace::ROWS,
];

impl Settings {
    /// Reads all sections.
    pub(super) fn read_all(reader: &mut Reader) -> Option<Self> {
        Self::read(reader)
    }
}

section! {
    /// Everything that can be configured.
    Settings [""] {
        /// Where players connect. Port 0 takes a free one, which is printed and logged.
        client_addr: SocketAddr = "client_addr" => "127.0.0.1:7700";
        /// Where game services, dashboards and the console connect. Keep it on a private network.
        service_addr: SocketAddr = "service_addr" => "127.0.0.1:7701";
        /// What outlives the node: `embedded:DIR` (one node, no other program needed) or Redis, in one of its shapes:
        ///
        /// - one server: `redis://10.0.0.1:6379` (also `redis+unix:///PATH` for a socket);
        /// - the master that sentinels name: `redis+sentinel://10.0.0.1:26379,10.0.0.2:26379,10.0.0.3:26379/mymaster`;
        /// - a Redis Cluster, by some of its nodes: `redis+cluster://10.0.0.1:6379,10.0.0.2:6379,10.0.0.3:6379`.
        ///
        /// With TLS it is `rediss`, to sentinels, too. User and password go before the first host, `user:password@` or
        /// `:password@`; those of the sentinels, if they want any, at the end: `?sentinel_user=…&sentinel_password=…`.
        /// What is special in a URL is written as there (`%40` for `@`).
        store: StoreTarget = "store" => "embedded:./hearth-data";
        /// This node's name: 1 to 64 of `A-Z a-z 0-9 . _ -`, different on every node of a cluster: the older of two
        /// processes of one name ends. Without it the host's name and the client port, such as `play-3-7700`.
        node_id: Option<Name> = "node_id";
        /// The address that clients are told to connect to, where it is not `client_addr`: behind a proxy or a
        /// name, such as `wss://play.example.com/v1/connect`. Where a cluster has several nodes each needs its own:
        /// it is where players of this node are sent.
        public_url: Option<PublicUrl> = "public_url";
        /// Where the other nodes of a cluster connect; never clients, and not needed with the embedded store. Without it
        /// a free port for nodes of this machine alone. Keep it on a private network: it is not encrypted. Whoever knows the
        /// secret that the cluster keeps in Redis is let in as a node.
        peer_addr: Option<SocketAddr> = "peer_addr";
        /// The address that other nodes are told to connect to, where it is not `peer_addr`: `HOST:PORT`. A node that lives
        /// and cannot be reached there is named in the others' logs and among the shortfalls of `/readyz`.
        peer_public_addr: Option<PeerAddr> = "peer_public_addr";
        /// One service key with every scope, to begin with. Without it the service API takes no key. One shorter than
        /// 16 bytes is taken, with a warning at start: it can be guessed. Secret: set it as HEARTH_SERVICE_KEY rather
        /// than in a file. The same on all nodes of a cluster, since any of them takes any call; it cannot be changed while
        /// they run, as those of `service.keys_file` can.
        service_key: Option<Secret> = "service_key";
    }
    with {
        cluster: Cluster,
        auth: Auth,
        service: ServiceAuth,
        tls: Tls,
        link: Link,
        session: Session,
        presence: Presence,
        rooms: Rooms,
        home: Home,
        near: Near,
        watchdog: Watchdog,
        redis: Redis,
        blobs: Blobs,
        locks: Locks,
        limits: Limits,
        alarm: Alarm,
        log: Log,
        metrics: Metrics,
        trace: Trace,
    }
}

section! {
    /// What all nodes of a cluster share.
    Cluster ["cluster"] {
        /// Names every key in Redis, so that two clusters never share one by accident. Required with Redis.
        name: Option<Name> = "name";
        /// How many partitions the players fall into. Fixed when the cluster is first started.
        shards: u16 = "shards" => 256, 1..=4096;
        /// How long a node counts as alive without a heartbeat; it says one six times as often, and at least once a
        /// second. Without it five sixths of `home.lease_ttl_ms`, so that who is to take over a dead node's shards knows
        /// of it when their leases end. The same on all nodes.
        member_ttl: Option<Duration> = "member_ttl_ms", 250..=60_000;
        /// How long a node that is asked to stop hands its shards over to the others, before it stops as if it were
        /// alone. Not longer than a second while the store takes nothing. 0: not at all.
        drain: Duration = "drain_ms" => 5_000, 0..=600_000;
    }
}

section! {
    /// Who may log in.
    Auth ["auth"] {
        /// Whether `dev:<player>` is a good token: `"auto"` (while no JWT key is configured and `client_addr` is a
        /// loopback address), true (refused on any other address) or false.
        dev_tokens: DevTokens = "dev_tokens" => "auto";
        /// How long a development token lasts, counted from login.
        dev_token_ttl: Duration = "dev_token_ttl_ms" => 86_400_000, 1_000..=31_536_000_000;
        /// The one algorithm taken: HS256 (with `jwt_secret`), RS256, ES256 or EdDSA (with `jwt_key_file`).
        /// Without it, `jwt_secret` means HS256.
        jwt_algorithm: Option<JwtAlgorithm> = "jwt_algorithm";
        /// The shared secret of HS256, at least 32 bytes long. Secret: set it as HEARTH_AUTH__JWT_SECRET.
        jwt_secret: Option<Secret> = "jwt_secret";
        /// The public key of RS256, ES256 or EdDSA as a PEM file. Read again when it changes.
        jwt_key_file: Option<PathBuf> = "jwt_key_file";
        /// Several public keys as a JSON Web Key Set (RFC 7517), instead of `jwt_key_file`: RSA, EC (P-256, P-384)
        /// and OKP (Ed25519), found by a token's `kid`, each with its one algorithm. Read again when it changes, so
        /// that keys come and go without a restart; while it cannot be read, the keys that were read stay. In a set
        /// of one key alone a token may do without a `kid`; one that it has must still be that key's.
        jwks_file: Option<PathBuf> = "jwks_file";
        /// The `iss` that a token must carry; without it none is asked for.
        jwt_issuer: Option<String> = "jwt_issuer";
        /// The `aud` that a token must carry; without it a token that names an audience is refused.
        jwt_audience: Option<String> = "jwt_audience";
        /// How far the clocks of the token's issuer and this node may lie apart.
        leeway: Duration = "leeway_ms" => 60_000, 0..=600_000;
        /// Rooms that one token may open with its `rooms` claim. One that names more is not a good token.
        token_rooms_max: usize = "token_rooms_max" => 64, 0..=1_024;
        /// Web pages that may connect, by origin (`https://game.example.com`); `"*"` takes all. Requests without
        /// an `Origin`, as native clients send them, always pass. While the list is empty, pages from a loopback
        /// address or localhost pass if `client_addr` is a loopback address, and no others: a page that was
        /// opened as a file has the origin `null`, and is not among them.
        origins_allowed: Vec<AllowedOrigin> = "origins_allowed" => [];
    }
}

section! {
    /// Which game services may call, besides the one with `service_key`. A service's JWT claims `sub` (its name),
    /// `scopes` (a list of `read`, `push`, `write`, `admin`) and `exp`; it is never good for a player, nor a player's
    /// for a service.
    ServiceAuth ["service"] {
        /// Service keys with their names and scopes, as a TOML file such as `config/service-keys.toml`; `hearth
        /// service-key` prints entries for it. A secret has at least 16 bytes. Read again when it changes: a key that is taken out stops at once. While it cannot be read, the keys that were
        /// read stay. On several nodes a key is changed in three steps: old and new in the files of all, services take the
        /// new one, the old one out of all.
        keys_file: Option<PathBuf> = "keys_file";
        /// The one algorithm of services' JWTs: HS256 (with `jwt_secret`), RS256, ES256 or EdDSA (with
        /// `jwt_key_file`). Without it, `jwt_secret` means HS256.
        jwt_algorithm: Option<JwtAlgorithm> = "jwt_algorithm";
        /// The shared secret of HS256, at least 32 bytes long, and not that of players. Secret: set it as
        /// HEARTH_SERVICE__JWT_SECRET.
        jwt_secret: Option<Secret> = "jwt_secret";
        /// The public key of RS256, ES256 or EdDSA as a PEM file. Read again when it changes.
        jwt_key_file: Option<PathBuf> = "jwt_key_file";
        /// Several public keys as a JSON Web Key Set, as `jwks_file` of `[auth]`.
        jwks_file: Option<PathBuf> = "jwks_file";
        /// The `iss` that a service's token must carry; without it none is asked for.
        jwt_issuer: Option<String> = "jwt_issuer";
        /// The `aud` that a service's token must carry; without it a token that names an audience is refused.
        jwt_audience: Option<String> = "jwt_audience";
    }
}

section! {
    /// Encryption of the client address. Both files or none; without them clients connect in the clear, or
    /// through a proxy that ends TLS.
    Tls ["tls"] {
        /// The certificate chain as a PEM file, the server's own certificate first.
        cert_file: Option<PathBuf> = "cert_file";
        /// Its private key as a PEM file.
        key_file: Option<PathBuf> = "key_file";
    }
}

section! {
    /// One WebSocket connection.
    Link ["link"] {
        /// From accept to a login or resume that is taken: TLS, upgrade and token all fall under it; what the server
        /// then needs for it does not. Past it: 4252.
        handshake_timeout: Duration = "handshake_timeout_ms" => 5_000, 100..=60_000;
        /// Connections at a time that are not logged in yet. Above it the others wait in the backlog, and whoever
        /// has had a fifth of `handshake_timeout_ms` makes room for them. As many logins, and as many resumes, may wait
        /// for the store beside them; above it a login is refused as `overloaded`.
        handshakes_max: usize = "handshakes_max" => 2_048, 1..=1_000_000;
        /// Largest request for an upgrade, headers included. Above it, or with more than 124 headers: HTTP 431.
        request_head_bytes_max: usize = "request_head_bytes_max" => 8_192, 512..=65_536;
        /// How often a client should say something. Twice this long without a frame ends the link (4004).
        heartbeat: Duration = "heartbeat_ms" => 15_000, 100..=300_000;
        /// Links at a time, those in their handshake included. Above it connections are closed at once; the
        /// process needs a file descriptor each.
        links_max: usize = "links_max" => 19_000, 1..=1_000_000;
        /// Connections that the kernel holds while we accept. Cut by net.core.somaxconn.
        backlog: u32 = "backlog" => 4_096, 1..=65_535;
        /// Largest frame from a client, judged before it is decoded. Above it: 1009.
        frame_bytes_max: usize = "frame_bytes_max" => 16_384, 1_024..=1_048_576;
        /// Fragments of one message. Above it: 1009.
        fragments_max: u32 = "fragments_max" => 256, 1..=65_536;
        /// From a message's first byte to its last, pings between its fragments or not. Past it: 4003.
        message_timeout: Duration = "message_timeout_ms" => 10_000, 100..=300_000;
        /// Pushes that wait for a slow reader. Presence is joined first; then the link is a slow one.
        outbox_items_max: usize = "outbox_items_max" => 512, 8..=65_536;
        /// How long a slow link may stay slow before it is closed (4003). Its session can be resumed.
        slow_close_after: Duration = "slow_close_after_ms" => 10_000, 100..=300_000;
        /// Commands of one link that wait for the store. Above it the next one waits, and the link is not read.
        durable_in_flight_max: usize = "durable_in_flight_max" => 64, 1..=4_096;
    }
}

section! {
    /// One login of one player on one device.
    Session ["session"] {
        /// How long a session lives after the last sign of life: the time in which it can be resumed.
        ttl: Duration = "ttl_ms" => 1_800_000, 100..=604_800_000;
        /// How long a session that a service made waits for its client.
        pending: Duration = "pending_ms" => 60_000, 100..=3_600_000;
        /// What a second login of the same player does. `"replace"` ends the older session. `"reject"` refuses the
        /// newer one while the older is attached or has dropped less than `presence.grace_ms` ago. `"per_device"`
        /// ends the older session of the same device and leaves other devices alone, up to 32 of them. `"many(n)"`,
        /// n from 1 to 32, lets n sessions stand beside one another; one more is refused while none of them has been
        /// away for the grace, else it takes the place of the one that has been away the longest.
        login_policy: LoginPolicy = "login_policy" => "replace";
        /// Missed pushes kept for a resume. What falls out is told (`missed`), with fresh snapshots.
        replay_frames_max: usize = "replay_frames_max" => 256, 0..=65_536;
        /// Bytes of missed pushes kept for a resume. When the session's home moves, more than 4 MiB of them are missed.
        replay_bytes_max: usize = "replay_bytes_max" => 65_536, 0..=16_777_216;
        /// Largest state of a player, as it is stored. Above it: `too_large`.
        state_bytes_max: usize = "state_bytes_max" => 4_096, 64..=65_536;
        /// Whether players may push to each other with `send`.
        player_messages: bool = "player_messages" => false;
    }
}

section! {
    /// Who is here and who wants to know.
    Presence ["presence"] {
        /// How long a player stays online to others after her last link dropped: short drops are not seen.
        grace: Duration = "grace_ms" => 15_000, 0..=600_000;
        /// How long without a command until an online player is shown away; 0 for never.
        away_after: Duration = "away_after_ms" => 300_000, 0..=86_400_000;
        /// How often changes are gathered and pushed. Longer ones join more changes in one write.
        tick: Duration = "tick_ms" => 50, 1..=1_000;
        /// Players that one session may watch.
        watches_max: usize = "watches_max" => 500, 1..=500;
    }
}

section! {
    /// Parties, lobbies, guild halls, chat channels.
    Rooms ["rooms"] {
        /// Rooms that every player may enter, beside those that her token names: by name, or with a `*` at the end
        /// all whose names begin so. While the list is empty and development tokens are taken, every room is open.
        grants: Vec<RoomGrant> = "grants" => [];
        /// Rooms that one session may be in. Above it: `too_large`.
        session_max: usize = "session_max" => 64, 1..=1_024;
        /// Members of one room. Above it: `room_full`.
        members_max: usize = "members_max" => 20_000, 1..=100_000;
        /// Rooms with members whose home is this node. Above it nobody enters a new one: `overloaded`.
        rooms_max: usize = "rooms_max" => 100_000, 1..=10_000_000;
        /// Members in one answer or snapshot; the rest comes by page.
        page_members_max: usize = "page_members_max" => 100, 1..=1_000;
        /// Members in one push of what has changed within a tick. Where more have, only their number is told, and
        /// clients ask for pages.
        diff_members_max: usize = "diff_members_max" => 200, 1..=10_000;
        /// Largest meta of a member, as it is stored. Above it: `too_large`.
        meta_bytes_max: usize = "meta_bytes_max" => 512, 0..=4_096;
        /// Keys of a member's meta.
        meta_keys_max: usize = "meta_keys_max" => 16, 0..=64;
        /// Messages of one room that wait to be told, of what players of one node have said. Above it: `overloaded`.
        messages_waiting_max: usize = "messages_waiting_max" => 256, 1..=65_536;
    }
}

section! {
    /// What happens when the server itself hangs.
    Watchdog ["watchdog"] {
        /// How long the runtime may stand still before the process ends with exit code 70, so that whoever supervises it
        /// starts it again; a single task that must live may hang three times as long. That something hangs is told in the
        /// log after a second, and in `/readyz` after five. 0: it is only told.
        patience: Duration = "patience_ms" => 10_000, 0..=600_000;
    }
}

section! {
    /// Where hot state lives, and when it reaches the store.
    Home ["home"] {
        /// The longest that a change waits for its commit. A `durable` one does not wait for it.
        flush_interval: Duration = "flush_interval_ms" => 100, 1..=10_000;
        /// How long the right to be home lasts without a renewal; it is renewed every third of it. The same on all nodes.
        lease_ttl: Duration = "lease_ttl_ms" => 6_000, 300..=60_000;
        /// How long a request waits for a home that cannot answer yet. Past it: `not_home`.
        hold: Duration = "hold_ms" => 2_000, 0..=30_000;
        /// Player records in memory. Above it new logins are refused as temporary.
        hot_records_max: usize = "hot_records_max" => 200_000, 1..=10_000_000;
        /// Players banned at a time. Above it a new ban is refused as temporary; those that ended do not count. Of as
        /// many players a node knows the revoked tokens in memory, too, and writes them again into a store that has
        /// lost them; beyond it the store alone knows those of the oldest tokens.
        bans_max: usize = "bans_max" => 100_000, 1..=10_000_000;
        /// How long a player is remembered after the last session: last seen, version, revoked
        /// tokens. A ban is remembered for as long as it lasts.
        remember: Duration = "remember_days" => 30, 1..=3_650;
        /// How long a message that a service sent `durable` waits for its player.
        messages_keep: Duration = "messages_keep_days" => 7, 1..=365;
        /// Commits on their way to the store at a time, each of another shard. Half of them are kept for writes that
        /// somebody waits for.
        commits_in_flight_max: usize = "commits_in_flight_max" => 256, 1..=4_096;
    }
}

section! {
    /// What is kept near of players who are not in memory, and of players whose home is another node. All of it answers
    /// reads alone.
    Near ["near"] {
        /// Reads from the store that are kept, of players who are not in memory. Above it what was not asked for lately
        /// makes room.
        cold_records_max: usize = "cold_records_max" => 50_000, 1_000..=10_000_000;
        /// How long such a read is kept before the store is asked again, once, while the old one is served: it is dropped at
        /// once when the player comes, so this bounds memory and not truth.
        cold_ttl: Duration = "cold_ttl_ms" => 30_000, 100..=3_600_000;
        /// The same of a read that found nothing.
        negative_ttl: Duration = "negative_ttl_ms" => 5_000, 100..=600_000;
        /// Views of players at home elsewhere that are kept, for services that say how old an answer may be (`max_age_ms`).
        /// Above it what was not asked for lately makes room.
        views_max: usize = "views_max" => 100_000, 1_000..=10_000_000;
        /// How long such a view is fresh. A change is told by the home at once, whatever this says; past it the old one is
        /// served on, with its age, while one call brings it anew.
        views_ttl: Duration = "views_ttl_ms" => 10_000, 100..=600_000;
        /// For how long after that, where a service takes one that old.
        views_stale: Duration = "views_stale_ms" => 30_000, 0..=600_000;
        /// After what time a home tells a change once more to the nodes that keep the player near.
        invalidate_again: Duration = "invalidate_again_ms" => 1_000, 50..=60_000;
        /// Players of this node whom other nodes may keep near. Above it those drop the one that they read longest ago.
        readers_max: usize = "readers_max" => 200_000, 1_000..=10_000_000;
        /// By how much of a hundred each of these times is longer or shorter, so that what came together does not go
        /// together.
        jitter_percent: u32 = "jitter_percent" => 50, 10..=90;
    }
}

section! {
    /// The connection to Redis; ignored with the embedded store.
    Redis ["redis"] {
        /// How long a command may take. Past it its outcome is unknown and it is judged a failure.
        response_timeout: Duration = "response_timeout_ms" => 1_000, 50..=30_000;
        /// How long a connection may take to stand.
        connect_timeout: Duration = "connect_timeout_ms" => 1_000, 50..=30_000;
        /// The certificate authority of servers with TLS (`rediss`) as a PEM file, where it is not one that everybody
        /// trusts. Read at the start.
        ca_file: Option<PathBuf> = "ca_file";
        /// How many replicas must have a change before it is acked `replicated`. With fewer it is refused as
        /// temporary, though the store itself has it.
        replicated_to: u32 = "replicated_to" => 1, 1..=16;
        /// Start even when the server's settings can lose data (eviction, no persistence). What falls short is
        /// still said in readiness and in the log.
        ignore_shortfalls: bool = "ignore_shortfalls" => false;
    }
}

section! {
    /// Blobs: large data of players that game services keep (`/v1/players/{player}/blobs/{name}`). The same on all nodes.
    Blobs ["blobs"] {
        /// Largest blob. Above it: `too_large`.
        bytes_max: usize = "bytes_max" => 1_048_576, 1..=1_048_576;
        /// Bytes of all blobs of one player. Above it: `too_large`; what shrinks is always taken.
        player_bytes_max: usize = "player_bytes_max" => 8_388_608, 1..=1_073_741_824;
        /// Blobs of one player. Above it: `too_large`.
        player_count_max: usize = "player_count_max" => 32, 1..=1_024;
        /// Calls that carry a blob at a time at this node, and as many more whose blob is still arriving: so many megabytes
        /// each of both may take. Above it a call waits for a second, then: `overloaded`.
        in_flight_max: usize = "in_flight_max" => 64, 1..=65_536;
    }
}

section! {
    /// Locks for game services (`/v1/locks`). Those who wait for one stand in line at the node that they asked, and the
    /// first of each line asks the store for all of them.
    Locks ["locks"] {
        /// Calls that wait for a lock at this node. Above it: `overloaded`.
        waiters_max: usize = "waiters_max" => 4_096, 0..=1_000_000;
        /// Calls that wait for the same lock at this node. Above it: `overloaded`.
        lock_waiters_max: usize = "lock_waiters_max" => 1_024, 0..=1_000_000;
    }
}

section! {
    /// How fast is too fast. A rate is what may go on for ever; a burst is what may come at once after a pause.
    /// Refused frames are answered `rate_limited` with the time to wait.
    Limits ["limits"] {
        /// Frames a second on one link, of any kind.
        link_frames_per_s: NonZeroU32 = "link_frames_per_s" => 100, 1..=1_000_000;
        /// Frames at once on one link.
        link_frames_burst: NonZeroU32 = "link_frames_burst" => 200, 1..=1_000_000;
        /// `state.patch` a second in one session.
        state_per_s: NonZeroU32 = "state_per_s" => 50, 1..=1_000_000;
        /// `state.patch` at once.
        state_burst: NonZeroU32 = "state_burst" => 100, 1..=1_000_000;
        /// `presence.set` a second in one session.
        presence_per_s: NonZeroU32 = "presence_per_s" => 10, 1..=1_000_000;
        /// `presence.set` at once.
        presence_burst: NonZeroU32 = "presence_burst" => 20, 1..=1_000_000;
        /// `watch` and `unwatch` a second in one session.
        watch_per_s: NonZeroU32 = "watch_per_s" => 5, 1..=1_000_000;
        /// `watch` and `unwatch` at once.
        watch_burst: NonZeroU32 = "watch_burst" => 20, 1..=1_000_000;
        /// `state.get`, `presence.get` and `room.members` a second in one session.
        query_per_s: NonZeroU32 = "query_per_s" => 20, 1..=1_000_000;
        /// `state.get`, `presence.get` and `room.members` at once.
        query_burst: NonZeroU32 = "query_burst" => 40, 1..=1_000_000;
        /// `send` a second in one session.
        send_per_s: NonZeroU32 = "send_per_s" => 10, 1..=1_000_000;
        /// `send` at once.
        send_burst: NonZeroU32 = "send_burst" => 20, 1..=1_000_000;
        /// `room.join`, `room.leave` and `room.meta` a second in one session.
        room_per_s: NonZeroU32 = "room_per_s" => 5, 1..=1_000_000;
        /// `room.join`, `room.leave` and `room.meta` at once.
        room_burst: NonZeroU32 = "room_burst" => 40, 1..=1_000_000;
        /// `room.send` a second in one session.
        room_send_per_s: NonZeroU32 = "room_send_per_s" => 10, 1..=1_000_000;
        /// `room.send` at once.
        room_send_burst: NonZeroU32 = "room_send_burst" => 20, 1..=1_000_000;
        /// Connections a second from one address (IPv6: one /64).
        connects_per_s: NonZeroU32 = "connects_per_s" => 20, 1..=1_000_000;
        /// Connections at once from one address.
        connects_burst: NonZeroU32 = "connects_burst" => 200, 1..=1_000_000;
        /// Logins a second from one address. Resumes are not counted.
        logins_per_s: NonZeroU32 = "logins_per_s" => 10, 1..=1_000_000;
        /// Logins at once from one address.
        logins_burst: NonZeroU32 = "logins_burst" => 100, 1..=1_000_000;
        /// Whether the limits per address spare loopback: load tests and local proxies come from there.
        exempt_loopback: bool = "exempt_loopback" => true;
        /// Requests a second with one service key, over all nodes together; each counts its own share while the store does
        /// not answer.
        service_requests_per_s: NonZeroU32 = "service_requests_per_s" => 1_000, 1..=1_000_000;
        /// Requests at once with one service key, over all nodes together.
        service_requests_burst: NonZeroU32 = "service_requests_burst" => 2_000, 1..=1_000_000;
        /// Services that may follow the events (`GET /v1/events`) of one node at a time; one more is refused as `overloaded`. Each
        /// looks at the store some times a second, and all together at the other nodes' alarms once.
        event_consumers_max: usize = "event_consumers_max" => 16, 0..=1_000;
        /// Refusals within `abuse_window_ms` that close a link (4506); of several in a row each fourth counts.
        abuse_strikes_max: NonZeroU32 = "abuse_strikes_max" => 100, 1..=60_000;
        /// The time in which refusals are counted together.
        abuse_window: Duration = "abuse_window_ms" => 10_000, 100..=3_600_000;
        /// Addresses, and service keys, remembered at a time. Where it is full of busy ones, all others together
        /// share one limit, a hundred times that of one.
        addresses_max: usize = "addresses_max" => 100_000, 1..=10_000_000;
    }
}

section! {
    /// When the anomaly watch rings: in the log (target `alarm`), in `hearth_alarm`, in `GET /v1/overview`, and as an event
    /// `alarm` of `GET /v1/events`. Each node
    /// looks at itself every second, over the last ten seconds. An alarm begins after some bad looks in a row and ends
    /// after some good ones, a fifth below its limit and more; between the two it stays as it is. It changes nothing of how
    /// players are served.
    Alarm ["alarm"] {
        /// `error_rate`: requests of players and services that fail by the server's fault, in percent of all; fewer than five
        /// within ten seconds are few.
        error_percent: u32 = "error_percent" => 5, 1..=100;
        /// `latency`: how long acks may take (p99, of those that do not wait for the store).
        latency: Duration = "latency_ms" => 1_000, 1..=60_000;
        /// `latency`: the same in percent of what was usual in the last minutes, if that is less.
        latency_percent: u32 = "latency_percent" => 500, 110..=100_000;
        /// `latency`: whatever is usual, acks below this are quick.
        latency_floor: Duration = "latency_floor_ms" => 200, 1..=60_000;
        /// `traffic`: requests, in percent of what was usual in the last minutes. While it is on, the store is tried by a
        /// write and a read of the node's own every few seconds, so that its breaker knows of trouble before players do.
        traffic_percent: u32 = "traffic_percent" => 200, 110..=100_000;
        /// `traffic`: whatever is usual, fewer requests a second are few.
        traffic_floor_per_s: u32 = "traffic_floor_per_s" => 200, 1..=100_000_000;
        /// `store_slow`: how long commits may take (p99), and changes wait beyond `home.flush_interval_ms`.
        commit: Duration = "commit_ms" => 500, 1..=60_000;
        /// `hot_room`: what one room may make of all pushes, in percent.
        hot_room_percent: u32 = "hot_room_percent" => 50, 1..=100;
        /// `hot_room`: fewer pushes a second of a room, to all its members together, are few.
        hot_room_floor_per_s: u32 = "hot_room_floor_per_s" => 5_000, 1..=100_000_000;
        /// `login_flood`: logins and connections a second that are refused for being too many from one address.
        logins_refused_per_s: u32 = "logins_refused_per_s" => 5, 1..=1_000_000;
        /// `slow_readers`: links that are closed for reading too slowly within ten seconds. One link in a thousand may be,
        /// whatever this is.
        slow_readers: u32 = "slow_readers" => 5, 1..=1_000_000;
        /// `session_leak`: for how long sessions must grow, and players not with them, or descriptors and links not with
        /// them.
        leak_window: Duration = "leak_window_ms" => 120_000, 6_000..=240_000;
        /// `session_leak`: by how many, and by a tenth of what there was. Each player who comes may bring two.
        leak_floor: u32 = "leak_floor" => 200, 1..=10_000_000;
        /// `mail_lag`: how late letters to other nodes may be. A live node without a link is too late at once.
        mail_lag: Duration = "mail_lag_ms" => 3_000, 2_000..=60_000;
        /// `bad_client`: connections a second whose client does not keep to the protocol, or shows a token or ticket that is no
        /// good.
        bad_clients_per_s: u32 = "bad_clients_per_s" => 5, 1..=1_000_000;
        /// Bad looks in a row before an alarm begins: one a second, each of them at the last ten seconds. A node that vanishes,
        /// a lease that is lost and a store that lost data ring at once.
        begins_after: u32 = "begins_after_s" => 3, 1..=300;
        /// Good looks in a row before it ends.
        ends_after: u32 = "ends_after_s" => 15, 1..=3_600;
        /// How many times as many traces are sampled while an alarm is on, in its first ten minutes.
        trace_boost: u32 = "trace_boost" => 10, 1..=1_000_000;
    }
}

section! {
    /// What is said about what happens.
    Log ["log"] {
        /// `"text"` for people, `"json"` for machines.
        format: LogFormat = "format" => "text";
        /// What is logged: `info`, or directives such as `info,hearth::home=debug`. A target needs a level.
        level: LogFilter = "level" => "info";
    }
}

section! {
    /// What is counted.
    Metrics ["metrics"] {
        /// `false`: nothing is counted, `/metrics` is empty, no alarm rings, and `GET /v1/overview` has neither rates nor
        /// latencies, since all of them are read from the counts.
        record: bool = "record" => true;
    }
}

section! {
    /// What is done for a call, over all nodes, as traces for Jaeger or any other collector that takes OTLP.
    Trace ["trace"] {
        /// Where the collector listens for OTLP over HTTP, such as `http://127.0.0.1:4318` (`/v1/traces` if it names no path;
        /// with `https` its certificate must be one that everybody trusts). Without it nothing is traced.
        otlp_url: Option<String> = "otlp_url";
        /// The share of traces that is kept whatever becomes of them, 0 to 1. A service's call that comes with a `traceparent`
        /// is kept as that says, if its key is good. What fails by the server's own fault is kept, and what is slow: up to 200
        /// spans a second.
        sample_ratio: Ratio = "sample_ratio" => 0.01;
        /// What takes as long is slow.
        slow: Duration = "slow_ms" => 500, 1..=3_600_000;
        /// Headers for the collector, `name=value` with commas between them. Secret: set it as HEARTH_TRACE__HEADERS.
        headers: Option<Secret> = "headers";
        /// More of them, as a file with one on each line. Read at the start.
        headers_file: Option<PathBuf> = "headers_file";
    }
}
