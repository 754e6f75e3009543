//! One `hearth` process: started with arguments, ready when it says where it listens, hurt by process id. `server` owns
//! it; knows nothing of what it is told to be.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::patience::PATIENCE;
use super::signals::{pause, signal};

/// How a server ended that did not become ready.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: Option<i32>,
    /// What it said on standard error, without log lines.
    pub(crate) lines: Vec<String>,
}

/// A process that has been started, and what it says.
pub(crate) struct Starts {
    process: Process,
    said: Receiver<String>,
}

impl Starts {
    /// Starts it; its log is in the folder.
    pub(crate) fn now(arguments: &[String], environment: &[(&str, String)], folder: &Path) -> Self {
        let log = folder.join("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HEARTH_"))
        {
            command.env_remove(name);
        }
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().unwrap();
        let said = lines_of(child.stdout.take().unwrap());
        let (url, service_url) = (String::new(), String::new());
        Self { process: Process { child, url, service_url, log }, said }
    }

    /// Waits until it is ready, or has ended.
    pub(crate) fn ready(self) -> Result<Process, Exit> {
        let Self { mut process, said } = self;
        match (said_address(&said, "clients "), said_address(&said, "services ")) {
            (Some(url), Some(service_url)) => {
                (process.url, process.service_url) = (url, service_url);
                Ok(process)
            }
            _ => Err(process.exit()),
        }
    }
}

/// The process, its addresses and its log.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
    pub(crate) service_url: String,
    log: PathBuf,
}

impl Process {
    fn exit(&mut self) -> Exit {
        let code = self.wait_for_end().code();
        // Log lines begin with the time.
        let log = self.log();
        let lines = log.lines().filter(|line| !line.starts_with(|c: char| c.is_ascii_digit()));
        Exit { code, lines: lines.map(str::to_owned).collect() }
    }

    #[allow(dead_code, reason = "tests/hostile does, through this same file")]
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log, with that of earlier processes in the same folder.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Stops it without ending it.
    pub(crate) fn pause(&self) {
        pause(self.child.id());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL also ends a stopped process.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address from the lines that a server says when it is ready; `None` when it ends before.
fn said_address(said: &Receiver<String>, name: &str) -> Option<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match said.recv_timeout(left) {
            Ok(line) => {
                if let Some(url) = line.trim().strip_prefix(name) {
                    return Some(url.trim().to_owned());
                }
            }
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => panic!("the server is not ready in time"),
        }
    }
}

/// Reads to the end on a thread of its own, so that the pipe never fills.
fn lines_of(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}
