//! A fault that a pair of commands breaks and mends: `docker pause`, `systemctl kill`, `kubectl delete`. Each command is bounded in
//! time, and what it said is told when it fails.

use std::collections::HashSet;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::time::timeout;

use super::fault::FaultError;
use super::file::Pair;

/// What is shown of what a command said: its last bytes.
const SAID_BYTES_MAX: u64 = 2_000;

/// Runs one to its end.
pub(super) async fn run(pair: &Pair, is_break: bool) -> Result<(), FaultError> {
    let (which, line) = if is_break { ("break", &pair.breaks) } else { ("mend", &pair.mend) };
    let failed =
        |how: String, said: String| FaultError::Command { name: pair.name.clone(), which, how, said };
    let unable = |error: std::io::Error| failed(error.to_string(), String::new());
    // A file, not a pipe: what the command leaves running may hold its output for as long as it likes.
    let said = tempfile::tempfile().map_err(unable)?;
    let (out, err) = (said.try_clone().map_err(unable)?, said.try_clone().map_err(unable)?);
    let mut command = Command::new("sh");
    command.arg("-c").arg(line).stdin(Stdio::null()).stdout(out).stderr(err);
    // In a group of its own: Ctrl-C is for us, who mend, and what is late ends with all that it started.
    let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(unable)?;
    let mut group = Group(child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw));
    match timeout(pair.timeout(), child.wait()).await {
        Ok(ended) => {
            // What it leaves running is meant to run.
            group.0 = None;
            match ended {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(failed(status.to_string(), end_of(said, 0))),
                Err(error) => Err(unable(error)),
            }
        }
        Err(_) => {
            drop(group);
            let _ = timeout(Duration::from_secs(1), child.wait()).await;
            Err(failed(format!("not within {} ms", pair.timeout().as_millis()), end_of(said, 0)))
        }
    }
}

/// A command and all that it started, until it has ended: killed by whoever waits no longer for it.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.0.map(|group| kill_process_group(group, Signal::KILL));
    }
}

/// The end of what was said from this place on: whole lines, each once.
pub(super) fn end_of(mut said: std::fs::File, from: u64) -> String {
    let mut end = Vec::new();
    let length = said.seek(SeekFrom::End(0)).unwrap_or(0);
    let first = from.max(length.saturating_sub(SAID_BYTES_MAX));
    let _ = said.seek(SeekFrom::Start(first));
    let _ = said.take(SAID_BYTES_MAX).read_to_end(&mut end);
    let end = String::from_utf8_lossy(&end);
    // Where it begins in the middle of a line, that is left out, unless there is no other.
    let whole =
        end.split_once('\n').map(|(_, whole)| whole).filter(|whole| first > from && !whole.is_empty());
    let mut heard = HashSet::new();
    let lines = whole.unwrap_or(&end).lines().map(str::trim_end);
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty() && heard.insert(*line)).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::file::read;
    use super::*;

    fn pair(breaks: &str) -> Pair {
        let text = format!("[[fault]]\nname = 'x'\nbreak = '''{breaks}'''\nmend = 'true'\ntimeout_ms = 2000");
        read(&text).unwrap().remove(0)
    }

    /// The process whose number stands in this file is killed, and gone when the kernel gets to it.
    async fn ends_soon(file: &std::path::Path) {
        let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while super::super::process::is_alive(Pid::from_raw(pid).unwrap()) {
            assert!(tokio::time::Instant::now() < deadline, "{pid} lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[test]
    fn what_was_said_is_quoted_from_its_beginning_in_whole_lines_and_once() {
        use std::io::Write as _;
        let mut file = tempfile::tempfile().unwrap();
        writeln!(file, "of an earlier run").unwrap();
        let from = file.stream_position().unwrap();
        for line in ["no such store", "", "no such store", "gives up"] {
            writeln!(file, "{line}").unwrap();
        }
        assert_eq!(end_of(file.try_clone().unwrap(), from), "no such store\ngives up");
        for number in 0..400 {
            writeln!(file, "line {number}").unwrap();
        }
        let end = end_of(file, from);
        assert!(end.ends_with("line 399") && end.len() <= 2_000, "{end}");
        assert!(end.lines().all(|line| line.starts_with("line ")), "no half of a line: {end}");
    }

    #[tokio::test]
    async fn a_command_that_fails_tells_what_it_said() {
        assert!(run(&pair("true"), true).await.is_ok());
        let error = run(&pair("echo out; echo err >&2; exit 3"), true).await.unwrap_err().to_string();
        assert!(error.contains("fault x: its break failed (exit status: 3)"), "{error}");
        assert!(error.contains("out") && error.contains("err"), "{error}");
    }

    #[tokio::test]
    async fn a_command_that_does_not_end_is_ended_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let line = format!("sleep 60 & echo $! > {}; echo here; wait", file.display());
        let error = run(&pair(&line), true).await.unwrap_err().to_string();
        assert!(error.contains("not within 2000 ms") && error.contains("here"), "{error}");
        ends_soon(&file).await;
    }

    #[tokio::test]
    async fn a_command_that_nobody_waits_for_any_longer_ends_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let breaks = format!("sleep 60 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display());
        let mut breaks = pair(&breaks);
        breaks.breaks.push_str("; true");
        let has_begun = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            ended = run(&breaks, true) => panic!("{ended:?}"),
            () = has_begun => {}
        }
        ends_soon(&file).await;
    }

    #[tokio::test]
    async fn one_that_leaves_something_running_has_ended_nevertheless() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        run(&pair(&format!("sleep 60 & echo $! > {}", file.display())), true).await.unwrap();
        let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
}
