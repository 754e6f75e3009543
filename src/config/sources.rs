//! Gathers raw values from the file, the environment and the command line, the later over the earlier, and hands
//! them out by setting; finds names that no setting has. `config::load` calls it. Never decides what a value means.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use figment::Provider as _;
use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Value};

use super::table::{Leaf, SECTIONS};
use super::values::{Raw, Read};
use super::{ConfigError, Fault};

/// The environment variable that names the settings file.
pub const FILE_VARIABLE: &str = "HEARTH_CONFIG";

/// What the command line says about settings.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The settings file; over `HEARTH_CONFIG`.
    pub file: Option<PathBuf>,
    /// `(name, value)` such as `("session.ttl_ms", "5000")`, in the order given: the last one counts.
    pub set: Vec<(String, String)>,
}

/// All that settings are made of; a test passes its own.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `(name, value)` that a command chooses for itself; only the command line can say otherwise.
    pub chosen: Vec<(&'static str, String)>,
    /// What the command line says.
    pub flags: Flags,
    /// The environment. Only names with the prefix `HEARTH_` are looked at.
    pub environment: Vec<(OsString, OsString)>,
}

/// Where a value came from, as a fault names it.
type Origin = String;

/// Every setting's default, read like a file; or what is wrong with the table.
static DEFAULTS: LazyLock<Result<BTreeMap<String, Raw>, String>> = LazyLock::new(|| {
    let profiles = Toml::string(&super::manual::in_force()).data().map_err(|error| error.to_string())?;
    let leaves = SECTIONS.iter().flat_map(|section| section.leaves);
    let read = |leaf: &Leaf| {
        let value = profiles.values().find_map(|dict| lookup(dict, leaf))?;
        Some((leaf.path(), raw(value)))
    };
    Ok(leaves.filter_map(read).collect())
});

/// The values given, and the faults found so far.
#[derive(Debug, Default)]
pub(super) struct Reader {
    given: BTreeMap<String, (Raw, Origin)>,
    faults: Vec<Fault>,
    faulty: BTreeSet<String>,
}

impl Reader {
    /// Reads the sources, lowest first.
    pub(super) fn gather(sources: &Sources) -> Self {
        let mut reader = Self::with_defaults();
        let from_environment =
            sources.environment.iter().find(|(name, _)| name == FILE_VARIABLE).map(|(_, value)| value);
        let file = sources.flags.file.clone().or_else(|| from_environment.map(PathBuf::from));
        if let Some(path) = file.filter(|path| !path.as_os_str().is_empty()) {
            reader.add_file(&path);
        }
        reader.add_environment(&sources.environment);
        for (name, value) in &sources.chosen {
            reader.give(name, Raw::Loose(value.clone()), "the command's own choice".to_owned());
        }
        for (name, value) in &sources.flags.set {
            reader.give(name.trim(), Raw::Loose(value.clone()), format!("--set {name}"));
        }
        reader
    }

    /// Knows nothing but the defaults.
    pub(super) fn with_defaults() -> Self {
        let mut reader = Self::default();
        if let Err(fault) = &*DEFAULTS {
            reader.fault("defaults", fault);
        }
        reader
    }

    /// Adds a document in the file's form.
    pub(super) fn add_toml(&mut self, text: &str, origin: &str) {
        match Toml::string(text).data() {
            Ok(profiles) => {
                for dict in profiles.values() {
                    self.add_dict(dict, origin);
                }
            }
            Err(error) => self.fault(origin, &syntax(&error.to_string())),
        }
    }

    fn add_file(&mut self, path: &Path) {
        let origin = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => self.add_toml(&text, &origin),
            Err(error) => self.fault("config", &format!("cannot read the settings file {origin}: {error}")),
        }
    }

    fn add_dict(&mut self, dict: &Dict, origin: &str) {
        for (key, value) in dict {
            let section = SECTIONS.iter().find(|section| !section.name.is_empty() && section.name == key);
            match (section, value) {
                (Some(_), Value::Dict(_, settings)) => {
                    for (inner, value) in settings {
                        self.give(&format!("{key}.{inner}"), raw(value), origin.to_owned());
                    }
                }
                (Some(_), _) => self.fault(key, &format!("is a section: write [{key}] (in {origin})")),
                (None, Value::Dict(..)) => {
                    self.fault(key, &format!("there is no such section (in {origin})"))
                }
                (None, value) => self.give(key, raw(value), origin.to_owned()),
            }
        }
    }

    fn add_environment(&mut self, environment: &[(OsString, OsString)]) {
        let by_name: BTreeMap<String, String> = SECTIONS
            .iter()
            .flat_map(|section| section.leaves)
            .map(|leaf| (leaf.env_name(), leaf.path()))
            .collect();
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|name| name.starts_with("HEARTH_")) else { continue };
            if name == FILE_VARIABLE || is_service_link(name) {
                continue;
            }
            match (by_name.get(name), value.to_str()) {
                (Some(path), Some(value)) => self.give(path, Raw::Loose(value.to_owned()), name.to_owned()),
                (Some(path), None) => self.fault(path, &format!("must be UTF-8 (from {name})")),
                (None, _) => {
                    let hint = nearest(name, by_name.keys());
                    self.fault(name, &format!("no setting has this name in the environment{hint}"));
                }
            }
        }
    }

    /// Takes one value; a name that no setting has is a fault.
    fn give(&mut self, path: &str, raw: Raw, origin: Origin) {
        let known: Vec<String> = SECTIONS.iter().flat_map(|section| section.leaves).map(Leaf::path).collect();
        if known.iter().any(|known| known == path) {
            self.given.insert(path.to_owned(), (raw, origin));
        } else {
            let hint = nearest(path, known.iter());
            self.fault(path, &format!("there is no such setting{hint} (in {origin})"));
        }
    }

    /// The typed value of a setting. A bad one is noted as a fault and its default is read instead, so that what
    /// depends on other settings can still be judged.
    pub(super) fn read<T: Read>(&mut self, leaf: &Leaf) -> Option<T> {
        let path = leaf.path();
        if let Some((raw, origin)) = self.given.get(&path) {
            match T::read(raw, leaf) {
                Ok(value) => return Some(value),
                Err(message) => {
                    let message = format!("{message} (from {origin})");
                    self.fault(&path, &message);
                }
            }
        }
        match DEFAULTS.as_ref().ok().and_then(|defaults| defaults.get(&path)) {
            Some(raw) => match T::read(raw, leaf) {
                Ok(value) => Some(value),
                Err(message) => {
                    self.fault(&path, &format!("its default is wrong: {message}"));
                    None
                }
            },
            None => T::absent(),
        }
    }

    /// Notes a fault of one setting.
    pub(super) fn fault(&mut self, setting: &str, message: &str) {
        self.faulty.insert(setting.to_owned());
        self.faults.push(Fault { setting: setting.to_owned(), message: message.to_owned() });
    }

    /// Notes a fault between settings, named by the first of them; silent where one of them is faulty by itself.
    pub(super) fn relation(&mut self, settings: &[&str], message: &str) {
        if settings.iter().any(|setting| self.faulty.contains(*setting)) {
            return;
        }
        if let Some(first) = settings.first() {
            self.faults.push(Fault { setting: (*first).to_owned(), message: message.to_owned() });
        }
    }

    /// All faults, or nothing.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        if self.faults.is_empty() { Ok(()) } else { Err(ConfigError { faults: self.faults }) }
    }
}

fn lookup<'a>(dict: &'a Dict, leaf: &Leaf) -> Option<&'a Value> {
    if leaf.section.is_empty() {
        return dict.get(leaf.key);
    }
    match dict.get(leaf.section) {
        Some(Value::Dict(_, settings)) => settings.get(leaf.key),
        _ => None,
    }
}

fn raw(value: &Value) -> Raw {
    match value {
        Value::String(_, text) => Raw::Text(text.clone()),
        Value::Char(_, c) => Raw::Text(c.to_string()),
        Value::Bool(_, truth) => Raw::Truth(*truth),
        Value::Num(_, number) => match number.to_i128().or_else(|| number.to_u128()?.try_into().ok()) {
            Some(whole) => Raw::Whole(whole),
            None => number.to_f64().map_or(Raw::Other("a number too large"), Raw::Real),
        },
        Value::Array(_, items) => Raw::List(items.iter().map(raw).collect()),
        Value::Dict(..) => Raw::Other("a table"),
        Value::Empty(..) => Raw::Other("nothing"),
    }
}

/// A syntax error without the line it quotes: that line may hold a secret.
fn syntax(message: &str) -> String {
    let quoted = |line: &&str| line.contains('|') || line.trim().is_empty();
    let told: Vec<&str> = message.lines().filter(|line| !quoted(line)).map(str::trim).collect();
    format!("is not TOML: {}", told.join(": "))
}

/// Container platforms put variables such as `HEARTH_SERVICE_HOST` and `HEARTH_PORT_7700_TCP_ADDR` into every
/// container when a service of theirs is called "hearth": none of ours, and no typing error either.
fn is_service_link(name: &str) -> bool {
    let in_port_group = name.match_indices("_PORT_").any(|(at, found)| {
        name.get(at + found.len()..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    in_port_group
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_PORT")
        || name.contains("_SERVICE_PORT_")
}

/// " (did you mean …?)" for a name that is at most three letters off, or right but in another section.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let key = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    known
        .map(|candidate| {
            let same_key = name.contains('.') != candidate.contains('.') || name.contains('.');
            // More bytes apart than three letters can be: not worth the counting.
            let far = name.len().abs_diff(candidate.len()) > 12;
            let off = match same_key && key(name) == key(candidate) {
                true => 0,
                false if far => usize::MAX,
                false => letters_off(name, candidate),
            };
            (off, candidate)
        })
        .min()
        .filter(|(off, _)| *off <= 3)
        .map(|(_, candidate)| format!("; did you mean {candidate}?"))
        .unwrap_or_default()
}

/// How many letters must be put in, taken out or changed to get from `a` to `b`.
fn letters_off(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for ((to, diagonal), above) in b.iter().zip(&row).zip(row.iter().skip(1)) {
            let left = next.last().copied().unwrap_or_default();
            let changed = diagonal + usize::from(from != *to);
            next.push(changed.min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_off_counts_edits() {
        assert_eq!(letters_off("ttl_ms", "ttl_ms"), 0);
        assert_eq!(letters_off("tll_ms", "ttl_ms"), 1);
        assert_eq!(letters_off("", "abc"), 3);
        assert_eq!(letters_off("kitten", "sitting"), 3);
    }

    #[test]
    fn variables_of_a_container_platform_are_not_settings() {
        for name in [
            "HEARTH_SERVICE_HOST",
            "HEARTH_SERVICE_PORT",
            "HEARTH_SERVICE_PORT_CLIENT",
            "HEARTH_PORT",
            "HEARTH_PORT_7700_TCP",
            "HEARTH_CLIENT_PORT_7700_TCP_ADDR",
        ] {
            assert!(is_service_link(name), "{name}");
        }
        for section in SECTIONS {
            for leaf in section.leaves {
                assert!(!is_service_link(&leaf.env_name()), "{}", leaf.env_name());
            }
        }
    }

    #[test]
    fn a_syntax_error_does_not_repeat_the_line() {
        let mut reader = Reader::with_defaults();
        reader.add_toml("[auth]\njwt_secret = \"hunter2\" x\n", "test.toml");
        let error = reader.finish().expect_err("not TOML").to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
