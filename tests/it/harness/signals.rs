//! Signals to processes that tests have started, by their id.

use std::process::Command;
use std::time::{Duration, Instant};

use super::patience::PATIENCE;

/// Sends a process of ours a signal.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

/// Stops a process without ending it. Whoever is told so finds no thread of it at work any more: on a busy machine some go on
/// for a moment after the signal.
pub(crate) fn pause(pid: u32) {
    signal(pid, "STOP");
    let deadline = Instant::now() + PATIENCE;
    while !is_stopped(pid) {
        assert!(Instant::now() < deadline, "a process does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.map_while(Result::ok).all(|thread| {
        // The state stands behind the name, which is in brackets and may hold some itself. A thread that is gone does nothing.
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['T', 'Z', 'X']))
    })
}
