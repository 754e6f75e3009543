//! Writes `config/hearth.toml`, the manual of all settings, from the table. A test compares it with the file in the
//! repository. Never read at run time but for the defaults.

use std::fmt::Write as _;

use super::table::{Leaf, SECTIONS};

const HEAD: &str = "\
# Hearth: every setting, with its meaning and its default.
#
# A line without a space after the # is a setting at its default: take the # away to change it.
# What counts, the later over the earlier: this file (--config FILE or HEARTH_CONFIG), the environment
# (HEARTH_CLIENT_ADDR, or HEARTH_SESSION__TTL_MS for ttl_ms of [session]), flags (--client-addr ADDR, or
# --set session.ttl_ms=5000). A list in a variable or a flag: a,b or, as in a file, [\"a\", \"b\"].
# `hearth check-config` tells all faults at once; with one, nothing starts.
#
# This file is generated: `UPDATE_MANUAL=1 cargo test manual` writes it from src/config/table.rs.
";

/// The manual as it stands in the repository: every setting switched off, at its default.
#[must_use]
pub fn text() -> String {
    render(true)
}

/// The defaults in force, as a document.
pub(super) fn in_force() -> String {
    render(false)
}

fn render(switched_off: bool) -> String {
    let mut out = String::from(if switched_off { HEAD } else { "" });
    for section in SECTIONS {
        if !section.name.is_empty() {
            out.push('\n');
            if switched_off {
                comment(&mut out, section.doc);
            }
            let _ = writeln!(out, "[{}]", section.name);
        }
        for leaf in section.leaves {
            setting(&mut out, leaf, switched_off);
        }
    }
    out
}

fn setting(out: &mut String, leaf: &Leaf, switched_off: bool) {
    if switched_off {
        out.push('\n');
        comment(out, leaf.doc);
        match leaf.bounds {
            Some((min, max)) => {
                let _ = writeln!(out, "# From {min} to {max}.");
            }
            None if leaf.default.is_empty() => {
                let _ = writeln!(out, "# Not set by default.");
            }
            None => {}
        }
    }
    match (switched_off, leaf.default) {
        (true, "") => {
            let _ = writeln!(out, "#{} = \"\"", leaf.key);
        }
        (true, default) => {
            let _ = writeln!(out, "#{} = {default}", leaf.key);
        }
        (false, "") => {}
        (false, default) => {
            let _ = writeln!(out, "{} = {default}", leaf.key);
        }
    }
}

fn comment(out: &mut String, lines: &[&str]) {
    for line in lines {
        let _ = writeln!(out, "#{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn the_manual_in_the_repository_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/hearth.toml");
        if std::env::var_os("UPDATE_MANUAL").is_some() {
            std::fs::write(path, text()).expect("write the manual");
        }
        let stored = std::fs::read_to_string(path).expect("config/hearth.toml");
        assert!(stored == text(), "config/hearth.toml is stale: run `UPDATE_MANUAL=1 cargo test manual`");
    }

    #[test]
    fn the_manual_changes_nothing() {
        let defaults = format!("{:?}", Settings::default());
        let read = Settings::from_toml(&text()).expect("the manual is good");
        assert_eq!(format!("{read:?}"), defaults);
    }

    #[test]
    fn every_line_of_the_manual_can_be_switched_on() {
        let switched_on: String = text()
            .lines()
            .filter(|line| !line.ends_with("= \"\""))
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => {
                    format!("{setting}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        assert!(switched_on.contains("\nttl_ms = 1_800_000\n"));
        let defaults = format!("{:?}", Settings::default());
        let read = Settings::from_toml(&switched_on).expect("the manual is good");
        assert_eq!(format!("{read:?}"), defaults);
    }
}
