//! How one setting is read: the raw value as a source gave it, and the typed value it must become. `table` names
//! the types, `sources` calls. Never says where a value came from, and never repeats a secret in a message.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::table::Leaf;

/// A value before it has a type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    /// From the environment or the command line: text that stands for any type.
    Loose(String),
    /// Text in the file.
    Text(String),
    /// A whole number in the file.
    Whole(i128),
    /// Another number in the file.
    Real(f64),
    /// A truth value in the file.
    Truth(bool),
    /// A list in the file.
    List(Vec<Raw>),
    /// Something that no setting takes, by name.
    Other(&'static str),
}

impl Raw {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Loose(_) | Self::Text(_) => "text",
            Self::Whole(_) => "a number",
            Self::Real(_) => "a number with a fraction",
            Self::Truth(_) => "true or false",
            Self::List(_) => "a list",
            Self::Other(name) => name,
        }
    }

    pub(super) fn text(&self) -> Result<&str, String> {
        match self {
            Self::Loose(text) => Ok(unquoted(text)),
            Self::Text(text) => Ok(text),
            other => Err(format!("must be text in quotes, not {}", other.kind())),
        }
    }

    fn whole(&self) -> Result<i128, String> {
        match self {
            Self::Whole(number) => Ok(*number),
            Self::Loose(text) => text
                .trim()
                .replace('_', "")
                .parse()
                .map_err(|_| format!("must be a whole number, not {text:?}")),
            other => Err(format!("must be a whole number, not {}", other.kind())),
        }
    }
}

/// The text within the quotes that the file's form asks for: whoever copies a line into a flag brings them along.
fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text)
}

/// A type that a setting can have. A message says what the value must be; the setting's name is put before it.
pub(super) trait Read: Sized {
    /// Takes a given value.
    fn read(raw: &Raw, leaf: &Leaf) -> Result<Self, String>;
    /// What it is when nobody gives one: `None` makes the setting required.
    fn absent() -> Option<Self> {
        None
    }
}

fn within(leaf: &Leaf, number: i128) -> Result<i128, String> {
    match leaf.bounds {
        Some((min, max)) if number < i128::from(min) || number > i128::from(max) => {
            Err(format!("must lie between {min} and {max}, not {number}"))
        }
        _ => Ok(number),
    }
}

macro_rules! read_whole {
    ($($number:ty),*) => { $(
        impl Read for $number {
            fn read(raw: &Raw, leaf: &Leaf) -> Result<Self, String> {
                let number = within(leaf, raw.whole()?)?;
                Self::try_from(number).map_err(|_| format!("does not take {number}"))
            }
        }
    )* };
}
read_whole!(u16, u32, usize);

impl Read for NonZeroU32 {
    fn read(raw: &Raw, leaf: &Leaf) -> Result<Self, String> {
        Self::new(u32::read(raw, leaf)?).ok_or_else(|| "must be at least 1".to_owned())
    }
}

impl Read for bool {
    fn read(raw: &Raw, _: &Leaf) -> Result<Self, String> {
        match raw {
            Raw::Truth(truth) => Ok(*truth),
            Raw::Loose(text) if text.trim() == "true" => Ok(true),
            Raw::Loose(text) if text.trim() == "false" => Ok(false),
            Raw::Loose(text) => Err(format!("must be true or false, not {text:?}")),
            other => Err(format!("must be true or false, not {}", other.kind())),
        }
    }
}

/// A share, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio(f64);

impl Ratio {
    /// As a number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl Read for Ratio {
    #[allow(clippy::cast_precision_loss, reason = "a number too large to be exact is too large")]
    fn read(raw: &Raw, _: &Leaf) -> Result<Self, String> {
        let number = match raw {
            Raw::Real(number) => Some(*number),
            Raw::Whole(number) => Some(*number as f64),
            Raw::Loose(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(number) if (0.0..=1.0).contains(&number) => Ok(Self(number)),
            Some(number) => Err(format!("must lie between 0 and 1, not {number}")),
            None => Err(match raw {
                Raw::Loose(text) => format!("must be a number between 0 and 1, not {text:?}"),
                other => format!("must be a number between 0 and 1, not {}", other.kind()),
            }),
        }
    }
}

/// The unit of a duration stands at the end of its key.
impl Read for Duration {
    fn read(raw: &Raw, leaf: &Leaf) -> Result<Self, String> {
        let number = within(leaf, raw.whole()?)?;
        let unit_ms = if leaf.key.ends_with("_days") { 86_400_000 } else { 1 };
        u64::try_from(number)
            .ok()
            .and_then(|number| number.checked_mul(unit_ms))
            .map(Self::from_millis)
            .ok_or_else(|| format!("does not take {number}"))
    }
}

impl Read for SocketAddr {
    fn read(raw: &Raw, _: &Leaf) -> Result<Self, String> {
        let text = raw.text()?;
        text.parse()
            .map_err(|_| format!("must be an IP address and a port such as 127.0.0.1:7700, not {text:?}"))
    }
}

impl Read for String {
    fn read(raw: &Raw, _: &Leaf) -> Result<Self, String> {
        match raw.text()? {
            "" => Err("must not be empty".to_owned()),
            text => Ok(text.to_owned()),
        }
    }
}

impl Read for PathBuf {
    fn read(raw: &Raw, leaf: &Leaf) -> Result<Self, String> {
        String::read(raw, leaf).map(Self::from)
    }
}

/// In the environment and on the command line the items stand between commas.
impl<T: Read> Read for Vec<T> {
    fn read(raw: &Raw, leaf: &Leaf) -> Result<Self, String> {
        match raw {
            Raw::List(items) => items.iter().map(|item| T::read(item, leaf)).collect(),
            // As the file has it.
            Raw::Loose(text) if text.trim_start().starts_with('[') => {
                let items: Vec<String> = serde_json::from_str(text).map_err(|_| {
                    format!(r#"must be a list of texts, as in a,b or ["a", "b"], not {text:?}"#)
                })?;
                items.into_iter().map(|item| T::read(&Raw::Text(item), leaf)).collect()
            }
            Raw::Loose(text) => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| T::read(&Raw::Loose(item.to_owned()), leaf))
                .collect(),
            other => Err(format!("must be a list of texts, not {}", other.kind())),
        }
    }
}

/// An empty text in the environment or on the command line stands for "not set".
impl<T: Read> Read for Option<T> {
    fn read(raw: &Raw, leaf: &Leaf) -> Result<Self, String> {
        match raw {
            Raw::Loose(text) if text.is_empty() => Ok(None),
            raw => T::read(raw, leaf).map(Some),
        }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

/// A value that must not be seen: its `Debug` is `***` and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that signs, compares or connects with it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Read for Secret {
    fn read(raw: &Raw, leaf: &Leaf) -> Result<Self, String> {
        match raw {
            // Quotes may be part of it.
            Raw::Loose(secret) if !secret.is_empty() => Ok(Self(secret.clone())),
            raw => String::read(raw, leaf).map(Self),
        }
    }
}

/// The name of a node or a cluster: 1 to 64 of `A-Z a-z 0-9 . _ -`, so that it can stand in keys and owners unescaped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(String);

impl Name {
    /// The name as configured.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Read for Name {
    fn read(raw: &Raw, _: &Leaf) -> Result<Self, String> {
        let text = raw.text()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if (1..=64).contains(&text.len()) && text.chars().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("must be 1 to 64 of A-Z a-z 0-9 . _ -, not {text:?}"))
        }
    }
}

/// A WebSocket address that clients are told: `ws://` or `wss://`, with host and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// The address as configured.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Read for PublicUrl {
    fn read(raw: &Raw, _: &Leaf) -> Result<Self, String> {
        let text = raw.text()?;
        let host = text.strip_prefix("ws://").or_else(|| text.strip_prefix("wss://"));
        match host {
            Some(host)
                if !host.is_empty() && !host.starts_with('/') && !text.contains(char::is_whitespace) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(format!("must be such as wss://play.example.com/v1/connect, not {text:?}")),
        }
    }
}

/// An address that other nodes are told: `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddr(String);

impl PeerAddr {
    /// The address as configured.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Read for PeerAddr {
    fn read(raw: &Raw, _: &Leaf) -> Result<Self, String> {
        let text = raw.text()?;
        let good = text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains(['/', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("must be such as 10.0.0.7:7702, not {text:?}"))
        }
    }
}

/// Web pages that may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// All.
    Any,
    /// Those of one origin as browsers write it: lower case, without a path and without the scheme's own port.
    Exact(String),
}

impl Read for AllowedOrigin {
    fn read(raw: &Raw, _: &Leaf) -> Result<Self, String> {
        let text = raw.text()?;
        let origin = text.to_ascii_lowercase();
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        match (origin.as_str(), host) {
            ("*", _) => Ok(Self::Any),
            // A page from a file, or in a sandbox: any page can make itself one.
            ("null", _) => Ok(Self::Exact(origin)),
            (_, Some(host)) if !host.is_empty() && !host.contains(|c: char| "/?#*@ ".contains(c)) => {
                let own_port = if origin.starts_with("https:") { ":443" } else { ":80" };
                Ok(Self::Exact(origin.strip_suffix(own_port).unwrap_or(&origin).to_owned()))
            }
            _ => Err(format!(r#"must hold origins such as https://game.example.com, or "*", not {text:?}"#)),
        }
    }
}

/// Rooms that are open: one by its name, or with a `*` at the end all whose names begin so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomGrant(String);

impl RoomGrant {
    /// The grant as configured.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Read for RoomGrant {
    fn read(raw: &Raw, _: &Leaf) -> Result<Self, String> {
        let text = raw.text()?;
        if (1..=64).contains(&text.len()) && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("must hold names of rooms such as lobby or party:*, not {text:?}"))
        }
    }
}

/// Directives of the log filter, checked when they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// Directives: levels, or targets with one.
    ///
    /// # Errors
    /// What is wrong with them, for people. A word that is no level is refused, though it could be a target: `warning` would
    /// else be one that says nothing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &dyn fmt::Display| {
            Err(format!("must be a log filter such as info or info,hearth::home=debug: {why}"))
        };
        if text.split(',').all(|part| part.trim().is_empty()) {
            return wrong(&"it says nothing");
        }
        let is_level = |word: &str| word.is_empty() || word.parse::<LevelFilter>().is_ok();
        let mut words = text.split(',').map(str::trim).filter(|part| !part.contains(['=', '[', '{']));
        if let Some(word) = words.find(|word| !is_level(word)) {
            return wrong(&format_args!(
                "{word:?} is no level (off, error, warn, info, debug, trace); a target needs one, {word}=debug"
            ));
        }
        match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => wrong(&error),
        }
    }

    /// The directives as configured.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Read for LogFilter {
    fn read(raw: &Raw, leaf: &Leaf) -> Result<Self, String> {
        Self::parse(&String::read(raw, leaf)?)
    }
}

/// Where everything is kept that outlives the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreTarget {
    /// The embedded store of one node.
    Embedded {
        /// Its data folder, made when missing.
        dir: PathBuf,
    },
    /// Redis, in any shape.
    Redis {
        /// Its URL; it may carry a password, so it is never shown: log [`StoreTarget`] with `Display`.
        url: Secret,
    },
}

impl StoreTarget {
    /// Whether it is Redis, in any shape.
    #[must_use]
    pub const fn is_redis(&self) -> bool {
        matches!(self, Self::Redis { .. })
    }
}

/// The target without a password.
impl fmt::Display for StoreTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { dir } => write!(f, "embedded:{}", dir.display()),
            Self::Redis { url } => {
                let (scheme, rest) = url.expose().split_once("://").unwrap_or(("redis", ""));
                let address = rest.rsplit_once('@').map_or(rest, |(_, address)| address);
                // A unix socket takes its password from the query.
                let address = address.split_once('?').map_or(address, |(address, _)| address);
                write!(f, "{scheme}://{address}")
            }
        }
    }
}

impl Read for StoreTarget {
    fn read(raw: &Raw, _: &Leaf) -> Result<Self, String> {
        const KNOWN: &str = "must be embedded:DIR, redis://HOST:PORT, redis+sentinel://HOST:PORT,…/MASTER or \
                             redis+cluster://HOST:PORT,… (rediss with TLS; also redis+unix:///PATH)";
        let text = raw.text()?;
        if let Some(dir) = text.strip_prefix("embedded:") {
            let dir = Path::new(dir).to_path_buf();
            return if dir.as_os_str().is_empty() {
                Err(KNOWN.to_owned())
            } else {
                Ok(Self::Embedded { dir })
            };
        }
        match text.split_once("://") {
            Some((
                "redis" | "rediss" | "redis+unix" | "unix" | "redis+sentinel" | "rediss+sentinel"
                | "redis+cluster" | "rediss+cluster",
                rest,
            )) if !rest.is_empty() => Ok(Self::Redis { url: Secret::new(text) }),
            // The text itself may hold a password.
            _ => Err(KNOWN.to_owned()),
        }
    }
}
