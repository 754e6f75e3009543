//! One node of a local cluster: its folder with settings and log, its process, and a guard that ends it should whoever
//! started it die without a word.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::{LocalError, NAME, Plan, failed};

/// Waits on its own input: when that ends without a word, because whoever started the node died, the node is killed.
const GUARD: &str = r#"read -r word || kill -9 "$0" 2>/dev/null"#;
/// How much of a log is shown: lines, and bytes that are read for them.
const LOG_LINES: usize = 15;
const LOG_BYTES: u64 = 16 * 1024;

/// A node's process.
pub(super) struct Node {
    pub(super) name: String,
    /// Where clients, services and other nodes connect, on loopback.
    pub(super) ports: [u16; 3],
    /// How many shards it serves.
    pub(super) shards: usize,
    folder: PathBuf,
    /// Its command line, but for the program.
    arguments: Vec<OsString>,
    child: Child,
    guard: Option<Child>,
    is_told: bool,
}

impl Node {
    pub(super) fn start(
        plan: &Plan,
        number: u16,
        ports: [u16; 3],
        store_url: &str,
    ) -> Result<Self, LocalError> {
        let name = format!("node-{number}");
        let folder = plan.folder.join(&name);
        let cannot = |file: &PathBuf| failed(format!("{} cannot be written", file.display()));
        fs::create_dir_all(&folder).map_err(cannot(&folder))?;
        let file = folder.join("hearth.toml");
        // It holds the key.
        let opened = File::options().create(true).truncate(true).write(true).mode(0o600).open(&file);
        let text = settings(plan, &name, ports, store_url);
        opened.and_then(|mut opened| opened.write_all(text.as_bytes())).map_err(cannot(&file))?;
        let mut arguments: Vec<OsString> = vec!["serve".into(), "--config".into(), file.into()];
        for (name, value) in &plan.set {
            arguments.extend(["--set".into(), format!("{name}={value}").into()]);
        }
        let log = folder.join("log");
        let opened = File::options().create(true).append(true).open(&log).map_err(cannot(&log))?;
        let of_errors = opened.try_clone().map_err(cannot(&log))?;
        let program = std::env::current_exe().map_err(failed("this program is not known"))?;
        let mut command = Command::new(program);
        command.args(&arguments).env_clear().envs(plan.environment.iter().cloned());
        // In a group of its own: what is typed at the terminal is for whoever started it, who ends it in order.
        command.process_group(0).stdin(Stdio::null()).stdout(opened).stderr(of_errors);
        let child = command.spawn().map_err(failed(format!("{name} cannot be started")))?;
        let mut node = Self { name, ports, shards: 0, folder, arguments, child, guard: None, is_told: false };
        node.guard = Some(guard(node.pid())?);
        Ok(node)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// What a person types to start it again.
    pub(super) fn command_line(&self) -> String {
        let program = std::env::current_exe().unwrap_or_else(|_| "hearth".into());
        let words = [program.into_os_string()].into_iter().chain(self.arguments.iter().cloned());
        words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
    }

    /// How it ended, if it did.
    pub(super) fn has_ended(&mut self) -> Result<Option<ExitStatus>, LocalError> {
        let ended = self.child.try_wait().map_err(failed(format!("{} is not known any more", self.name)))?;
        if ended.is_some() {
            self.dismiss_guard();
        }
        Ok(ended)
    }

    /// The same, once.
    pub(super) fn has_ended_anew(&mut self) -> Result<Option<ExitStatus>, LocalError> {
        if self.is_told {
            return Ok(None);
        }
        let ended = self.has_ended()?;
        self.is_told = ended.is_some();
        Ok(ended)
    }

    /// Whether its end was told.
    pub(super) fn is_told(&self) -> bool {
        self.is_told
    }

    /// The failure that its end is while others wait for it.
    pub(super) fn failed_by(&self, ended: ExitStatus) -> LocalError {
        LocalError::Ended {
            node: self.name.clone(),
            how: ended.to_string(),
            exit_code: ended.code(),
            log: self.log_end(),
        }
    }

    /// SIGTERM, while it lives.
    pub(super) fn ask_to_stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let pid = self.pid().to_string();
            let _ = Command::new("kill").args(["-s", "TERM", &pid]).stderr(Stdio::null()).status();
        }
    }

    /// The last lines of its log.
    pub(super) fn log_end(&self) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(self.log())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(LOG_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(LOG_LINES)).copied().collect::<Vec<_>>().join("\n")
    }

    fn dismiss_guard(&mut self) {
        let Some(mut guard) = self.guard.take() else { return };
        if let Some(mut input) = guard.stdin.take() {
            let _ = writeln!(input, "done");
        }
        let _ = guard.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both do nothing to one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.dismiss_guard();
    }
}

fn guard(pid: u32) -> Result<Child, LocalError> {
    let mut command = Command::new("sh");
    command.args(["-c", GUARD, &pid.to_string()]);
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(failed("sh cannot be started"))
}

fn settings(plan: &Plan, name: &str, [clients, services, peers]: [u16; 3], store_url: &str) -> String {
    let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let at = |port: u16| text(&format!("127.0.0.1:{port}"));
    format!(
        "# A node of a local cluster.\nnode_id = {}\nclient_addr = {}\nservice_addr = {}\npeer_addr = {}\n\
         store = {}\nservice_key = {}\n\n[cluster]\nname = {}\n",
        text(name),
        at(clients),
        at(services),
        at(peers),
        text(store_url),
        text(&plan.service_key),
        text(NAME),
    )
}

/// As a shell reads it as one word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_can_be_typed() {
        assert_eq!(quoted("--set"), "--set");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
