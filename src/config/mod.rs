//! Every setting, read once at start: defaults, then the file, then `HEARTH_…` variables, then flags. `cli` loads
//! them, `app` hands each room what it needs. The only place that reads the environment; never starts anything.

mod choices;
mod host;
mod jwt;
mod manual;
mod relations;
mod sources;
mod table;
mod values;

use std::ffi::OsString;
use std::fmt;

pub use choices::{DevTokens, JwtAlgorithm, LogFormat, LoginPolicy};
pub use jwt::Jwt;
pub use manual::text as manual_text;
use sources::Reader;
pub use sources::{FILE_VARIABLE, Flags, Sources};
pub use table::{
    Alarm, Auth, Cluster, Home, Limits, Link, Log, Near, Presence, Redis, Rooms, ServiceAuth, Session,
    Settings, Tls, Trace, Watchdog,
};
pub use values::{
    AllowedOrigin, LogFilter, Name, PeerAddr, PublicUrl, Ratio, RoomGrant, Secret, StoreTarget,
};

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The setting's name as in the file (`session.ttl_ms`), or what stands in its place.
    pub setting: String,
    /// What is wrong and what would be right. Never repeats a secret.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.message)
    }
}

/// All that is wrong with the settings. Nothing may start with them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// At least one, in the order found.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.faults.iter().enumerate() {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{fault}")?;
        }
        Ok(())
    }
}

/// The environment of this process: what [`Sources`] take outside tests.
#[must_use]
pub fn environment() -> Vec<(OsString, OsString)> {
    #[cfg(feature = "sabotage")]
    if let Ok(guard) = std::env::var("HEARTH_SABOTAGE") {
        crate::sabotage::turn_off(&guard);
    }
    std::env::vars_os()
        .filter(|(name, _)| cfg!(not(feature = "sabotage")) || name != "HEARTH_SABOTAGE")
        .collect()
}

impl Settings {
    /// Reads settings from given sources.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault there is.
    pub fn from_sources(sources: &Sources) -> Result<Self, ConfigError> {
        Self::judge(Reader::gather(sources))
    }

    /// Reads settings from the text of a file alone.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault there is.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let mut reader = Reader::with_defaults();
        reader.add_toml(text, "the text");
        Self::judge(reader)
    }

    fn judge(mut reader: Reader) -> Result<Self, ConfigError> {
        let settings = Self::read_all(&mut reader);
        if let Some(settings) = &settings {
            relations::check(settings, &mut reader);
        }
        reader.finish()?;
        // Without a fault every setting was read.
        settings.ok_or(ConfigError { faults: Vec::new() })
    }
}

/// The defaults alone: one node on the embedded store.
impl Default for Settings {
    #[allow(clippy::expect_used, reason = "the defaults are read like a file; a test reads them, too")]
    fn default() -> Self {
        Self::from_toml("").expect("the defaults are good")
    }
}

#[cfg(test)]
mod tests;
