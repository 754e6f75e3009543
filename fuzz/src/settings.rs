//! What an operator may write: a settings file, variables and flags.

use hearth::config::{Flags, Settings, Sources};

const SECRET: &str = "pl4nted-secret-that-no-fault-may-repeat";

/// A file; or, behind a zero byte, names and values in turn with zero bytes between them, for the environment and for
/// flags. All faults are named, no secret is repeated.
pub fn settings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if text.contains(SECRET) {
        // An engine that sees what is compared finds the secret, and writes it where none belongs.
        return;
    }
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let parts: Vec<&str> = parts.collect();
    if parts.is_empty() {
        return judge(Settings::from_toml(file));
    }
    let pairs = || parts.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?)));
    let environment = pairs()
        .filter(|(name, _)| *name != "CONFIG")
        .map(|(name, value)| (format!("HEARTH_{name}").into(), value.into()))
        .chain([("HEARTH_SERVICE_KEY".into(), SECRET.into())])
        .collect();
    let set = pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    judge(Settings::from_sources(&Sources {
        flags: Flags { file: None, set },
        environment,
        ..Sources::default()
    }));
}

fn judge(read: Result<Settings, hearth::config::ConfigError>) {
    match read {
        Ok(settings) => {
            let shown = format!("{settings:?}");
            assert!(!shown.contains(SECRET), "a secret is shown: {shown}");
        }
        Err(error) => {
            assert!(!error.faults.is_empty(), "refused without a fault");
            for fault in &error.faults {
                assert!(!fault.message.is_empty(), "a fault without a word: {fault:?}");
                assert!(!fault.message.contains(SECRET), "a secret is repeated: {fault:?}");
            }
        }
    }
}
