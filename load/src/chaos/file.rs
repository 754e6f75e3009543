//! The file of faults: TOML, in which each `[[fault]]` is a pair of commands. Read once at the start; all of it is checked before
//! anything is broken.

use std::time::Duration;

use serde::Deserialize;

/// A fault lasts at most so long, ms.
const FOR_MS_MAX: u64 = 600_000;
/// A command takes at most so long, ms.
const TIMEOUT_MS_MAX: u64 = 600_000;
/// Faults in a file at most.
const FAULTS_MAX: usize = 100;

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It is no TOML, or none of ours: the message names line and field.
    #[error("{0}")]
    Shape(#[from] toml::de::Error),
    /// There is none, or there are too many.
    #[error("it names {0} faults; 1 to {FAULTS_MAX} [[fault]] may be there")]
    Count(usize),
    /// A value out of bounds.
    #[error("fault {name}: {what}")]
    Value {
        /// Of which fault.
        name: String,
        /// Which, and its bounds.
        what: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    fault: Vec<Pair>,
}

/// One fault of the file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pair {
    /// What it is called.
    pub(super) name: String,
    /// What breaks it: a line for `sh -c`.
    #[serde(rename = "break")]
    pub(super) breaks: String,
    /// What mends it. Also run when breaking it failed or was interrupted: it must do no harm then.
    pub(super) mend: String,
    /// For how long it lasts, ms: at least, at most.
    #[serde(default = "for_ms")]
    pub(super) for_ms: [u64; 2],
    /// How long each command may take, ms.
    #[serde(default = "timeout_ms")]
    timeout_ms: u64,
    /// A node's memory may be lost in it: what was acked `applied` may then be gone, if that is told.
    #[serde(default)]
    pub(super) ends_memory: bool,
}

impl Pair {
    pub(super) const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// How long faults last where nobody says how long: some end before a lease of 6 s does, and some after it.
pub(super) const fn for_ms() -> [u64; 2] {
    [500, 8_000]
}

const fn timeout_ms() -> u64 {
    10_000
}

/// Reads it.
pub(super) fn read(text: &str) -> Result<Vec<Pair>, FileError> {
    let Written { fault: pairs } = toml::from_str(text)?;
    if pairs.is_empty() || pairs.len() > FAULTS_MAX {
        return Err(FileError::Count(pairs.len()));
    }
    for pair in &pairs {
        let wrong = |what: String| Err(FileError::Value { name: pair.name.clone(), what });
        let [least, most] = pair.for_ms;
        if pair.name.is_empty() || pair.breaks.trim().is_empty() || pair.mend.trim().is_empty() {
            return wrong("name, break and mend must not be empty".to_owned());
        }
        if least > most || most > FOR_MS_MAX {
            return wrong(format!("for_ms is [least, most], {FOR_MS_MAX} at most, not [{least}, {most}]"));
        }
        if pair.timeout_ms == 0 || pair.timeout_ms > TIMEOUT_MS_MAX {
            return wrong(format!("timeout_ms is 1 to {TIMEOUT_MS_MAX}, not {}", pair.timeout_ms));
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: &str =
        "[[fault]]\nname = 'redis'\nbreak = 'docker pause redis'\nmend = 'docker unpause redis'\n";

    #[test]
    fn a_pair_of_commands_is_a_fault() {
        let [redis] = &read(PAUSE).unwrap()[..] else { panic!("one fault") };
        assert_eq!(
            (redis.for_ms, redis.timeout(), redis.ends_memory),
            ([500, 8_000], Duration::from_secs(10), false)
        );
        let killed = read(&format!("{PAUSE}for_ms = [1, 2]\nends_memory = true\ntimeout_ms = 5")).unwrap();
        assert!(killed[0].ends_memory && killed[0].for_ms == [1, 2]);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        for (text, why) in [
            (format!("{PAUSE}end_memory = true"), "unknown field `end_memory`"),
            ("[[faults]]\nname = 'x'".to_owned(), "unknown field `faults`"),
            ("[[fault]]\nname = 'x'\nbreak = 'y'".to_owned(), "missing field `mend`"),
            (String::new(), "it names 0 faults"),
            (format!("{PAUSE}for_ms = [9, 1]"), "fault redis: for_ms is [least, most]"),
            (format!("{PAUSE}for_ms = [9, 700000]"), "600000 at most"),
            (format!("{PAUSE}timeout_ms = 0"), "fault redis: timeout_ms is 1 to"),
            (PAUSE.replace("docker unpause redis", " "), "must not be empty"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
