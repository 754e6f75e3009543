//! A process of this machine that is stopped and continued, or killed and started again. Each signal goes to the very process that
//! was named: a number that has another process now is left alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::commands::end_of;
use super::fault::FaultError;

/// How long a killed process may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// A command that starts a process again has failed if it ends so soon.
const STAYS_FOR: Duration = Duration::from_millis(300);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A way to break a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// SIGSTOP.
    Stop,
    /// SIGKILL.
    Kill,
}

/// How a process is broken, or half mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Stopped,
    Killed,
    /// Started again, and not yet seen to stay.
    Begun,
}

/// What starts a process again.
#[derive(Debug)]
pub(super) struct Start {
    /// One program and its words, and variables before it if need be; it stays in the foreground.
    command: String,
    /// Where what it says goes: open before anything is killed.
    log: File,
    /// How long that was before it was started last: what stands before was said by others.
    said_from: u64,
}

impl Start {
    /// What it says goes to the end of this file.
    pub(super) fn of(command: &str, log: &Path) -> io::Result<Self> {
        let log = File::options().create(true).append(true).read(true).open(log)?;
        Ok(Self { command: command.to_owned(), log, said_from: 0 })
    }
}

/// Why the program of a command that starts something cannot be started; none where it can, or where only a shell knows what it is.
pub(super) fn no_program(command: &str) -> Option<String> {
    let is_variable = |word: &&str| word.split_once('=').is_some_and(|(name, _)| !name.contains('/'));
    let program = command.split_whitespace().find(|word| !is_variable(word))?;
    let is_plain = |sign: char| sign.is_alphanumeric() || "/._-+@:,%".contains(sign);
    let finds_another =
        command.split_whitespace().take_while(is_variable).any(|word| word.starts_with("PATH="));
    if !program.chars().all(is_plain) || finds_another {
        return None;
    }
    let is_executable = |path: &Path| {
        let about = std::fs::metadata(path);
        about.is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        let path = Path::new(program);
        return match (path.exists(), is_executable(path)) {
            (_, true) => None,
            (false, _) => Some(format!("there is no {program}")),
            (true, false) => Some(format!("{program} is no program that may be executed")),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_found = std::env::split_paths(&path).any(|folder| is_executable(&folder.join(program)));
    (!is_found).then(|| format!("no folder of PATH has a program {program}"))
}

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) name: String,
    pid: Pid,
    /// When the kernel started it, in its own ticks: the second half of its name.
    started: Option<u64>,
    pub(super) start: Option<Start>,
    /// Since we started it ourselves.
    child: Option<Child>,
    /// [`STAYS_FOR`], but in a test.
    stays_for: Duration,
    broken: Option<Broken>,
}

impl Process {
    /// One that runs.
    pub(super) fn of(name: &str, pid: i32, start: Option<Start>) -> Result<Self, FaultError> {
        let gone = || FaultError::Gone { name: name.to_owned(), pid };
        let pid = Pid::from_raw(pid).ok_or_else(gone)?;
        if !is_alive(pid) {
            return Err(gone());
        }
        let (name, child, broken) = (name.to_owned(), None, None);
        let process = Self { name, pid, started: started(pid), start, child, stays_for: STAYS_FOR, broken };
        test_kill_process(pid).map_err(|error| process.refused(error.into()))?;
        Ok(process)
    }

    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    /// Breaks it.
    pub(super) async fn end(&mut self, how: End) -> Result<(), FaultError> {
        let signal = if how == End::Stop { Signal::STOP } else { Signal::KILL };
        self.signal(signal)?;
        self.broken = Some(if how == End::Stop { Broken::Stopped } else { Broken::Killed });
        if how == End::Kill { self.is_gone().await } else { Ok(()) }
    }

    /// Mends what was broken last; goes on where an earlier attempt, or the breaking itself, was left in the middle.
    pub(super) async fn go_on(&mut self) -> Result<(), FaultError> {
        match self.broken {
            Some(Broken::Stopped) => self.signal(Signal::CONT)?,
            Some(Broken::Killed) => {
                self.is_gone().await?;
                self.starts_again()?;
                self.stays().await?;
            }
            Some(Broken::Begun) => self.stays().await?,
            None => {}
        }
        self.broken = None;
        Ok(())
    }

    /// What is still wrong with it, and what its owner can do.
    pub(super) fn wrong(&self) -> Option<String> {
        let (name, pid) = (&self.name, self.pid.as_raw_pid());
        if !self.is_there() {
            return Some(format!("{name} is not running; start it yourself"));
        }
        let is_stopped = stat(self.pid).is_some_and(|fields| fields.starts_with('T'));
        is_stopped.then(|| format!("{name} is stopped; continue it yourself: kill -CONT {pid}"))
    }

    /// Waits until a killed process has ended.
    async fn is_gone(&mut self) -> Result<(), FaultError> {
        let deadline = Instant::now() + GONE_WITHIN;
        if let Some(child) = &mut self.child {
            let _ = timeout_at(deadline, child.wait()).await;
        }
        while self.is_there() {
            if Instant::now() > deadline {
                return Err(self.refused(io::Error::other("it was killed and is still there")));
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    fn starts_again(&mut self) -> Result<(), FaultError> {
        if let Some(start) = &mut self.start {
            start.said_from = start.log.metadata().map_or(0, |about| about.len());
        }
        let Some(Start { command, log, .. }) = &self.start else { return Ok(()) };
        let unable = |error: io::Error| self.failed(error.to_string());
        let (out, err) = (log.try_clone().map_err(unable)?, log.try_clone().map_err(unable)?);
        let mut again = Command::new("sh");
        // In a group of its own: it is to live on after us, whatever is typed here. The shell makes way for the program, whose
        // number this is then; `env` takes the variables that stand before it.
        again.arg("-c").arg(format!("exec env {command}")).process_group(0);
        let child = again.stdin(Stdio::null()).stdout(out).stderr(err).spawn().map_err(unable)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| self.failed("cannot be followed".to_owned()))?;
        (self.pid, self.started, self.child) = (pid, started(pid), Some(child));
        self.broken = Some(Broken::Begun);
        Ok(())
    }

    /// Waits until what was started has stayed for a while.
    async fn stays(&mut self) -> Result<(), FaultError> {
        let Some(child) = &mut self.child else { return Ok(()) };
        let Ok(ended) = timeout(self.stays_for, child.wait()).await else { return Ok(()) };
        self.broken = Some(Broken::Killed);
        let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
        Err(self
            .failed(format!("ended at once, {status}: it must be one program that stays in the foreground")))
    }

    /// Its start has failed in this way.
    fn failed(&self, how: String) -> FaultError {
        let said = self.start.as_ref().and_then(|start| Some((start.log.try_clone().ok()?, start.said_from)));
        let said = said.map_or_else(String::new, |(log, from)| end_of(log, from));
        FaultError::Command { name: self.name.clone(), which: "start", how, said }
    }

    /// Whether the very process that was named, or started, is there.
    fn is_there(&self) -> bool {
        is_alive(self.pid) && started(self.pid) == self.started
    }

    fn signal(&self, signal: Signal) -> Result<(), FaultError> {
        if !self.is_there() {
            let pid = self.pid.as_raw_pid();
            return Err(FaultError::Gone { name: self.name.clone(), pid });
        }
        kill_process(self.pid, signal).map_err(|error| self.refused(error.into()))
    }

    fn refused(&self, source: io::Error) -> FaultError {
        FaultError::Signal { name: self.name.clone(), pid: self.pid.as_raw_pid(), source }
    }
}

/// Whether there is such a process, and not only what is left of it for its parent to see.
pub(super) fn is_alive(pid: Pid) -> bool {
    let is_zombie = || stat(pid).is_some_and(|fields| fields.starts_with(['Z', 'X']));
    // Somebody else's may be there though it cannot be signalled.
    test_kill_process(pid) != Err(rustix::io::Errno::SRCH) && !is_zombie()
}

fn started(pid: Pid) -> Option<u64> {
    // The 22nd field; what stands here begins with the third.
    stat(pid)?.split_whitespace().nth(19)?.parse().ok()
}

/// What the kernel says of a process, from its state on: names before it may hold anything. None where there is no `/proc`.
fn stat(pid: Pid) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    text.rsplit_once(") ").map(|(_, fields)| fields.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody's process, who sees its end.
    fn sleeper() -> (Process, std::process::Child) {
        let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of("sleeper", i32::try_from(child.id()).unwrap(), None).unwrap();
        (process, child)
    }

    fn state(process: &Process) -> char {
        stat(process.pid).unwrap().chars().next().unwrap()
    }

    #[tokio::test]
    async fn a_process_is_stopped_and_goes_on() {
        let (mut process, mut child) = sleeper();
        process.end(End::Stop).await.unwrap();
        while state(&process) != 'T' {
            sleep(LOOK_INTERVAL).await;
        }
        process.go_on().await.unwrap();
        while state(&process) == 'T' {
            sleep(LOOK_INTERVAL).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let error = process.end(End::Stop).await.unwrap_err().to_string();
        assert!(error.contains("sleeper") && error.contains("gone"), "{error}");
    }

    #[tokio::test]
    async fn a_killed_process_is_started_again_and_can_be_killed_again() {
        let folder = tempfile::tempdir().unwrap();
        let (mut process, mut child) = sleeper();
        let start = |command| Some(Start::of(command, &folder.path().join("log")).unwrap());
        process.start = start("A_VARIABLE=1 sleep 60");
        let first = process.pid();
        for _ in 0..2 {
            let before = process.pid();
            process.end(End::Kill).await.unwrap();
            process.go_on().await.unwrap();
            assert!(process.pid() != before && process.is_there());
        }
        assert!(process.pid() != first);
        process.end(End::Kill).await.unwrap();
        // Also where it gets no processor for a while.
        process.stays_for = Duration::from_secs(20);
        for (command, says) in [("false", "exit status: 1"), ("cd / && sleep 60", "cd")] {
            process.start = start(command);
            let error = process.go_on().await.unwrap_err().to_string();
            assert!(error.contains("its start failed (ended at once") && error.contains(says), "{error}");
            assert!(error.contains("must be one program"), "{error}");
        }
        child.wait().unwrap();
    }

    #[test]
    fn a_program_that_is_not_there_is_found_out_before_anything_is_broken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plain");
        std::fs::write(&file, "x").unwrap();
        let plain = file.display().to_string();
        for (command, says) in [
            ("sleep 60", None),
            ("A=1 B=/x /bin/sh -c true", None),
            ("\"$HOME/hearth\" serve", None),
            ("PATH=/opt/hearth hearth serve", None),
            ("/nowhere/hearth serve", Some("there is no /nowhere/hearth")),
            ("A=1 hearthh serve", Some("no folder of PATH has a program hearthh")),
            (plain.as_str(), Some("is no program that may be executed")),
        ] {
            let why = no_program(command);
            assert_eq!(why.is_some(), says.is_some(), "{command}: {why:?}");
            assert!(why.is_none_or(|why| why.contains(says.unwrap_or_default())), "{command}");
        }
    }

    #[tokio::test]
    async fn what_is_still_wrong_with_a_process_is_said() {
        let (mut process, mut child) = sleeper();
        assert_eq!(process.wrong(), None);
        process.end(End::Stop).await.unwrap();
        while state(&process) != 'T' {
            sleep(LOOK_INTERVAL).await;
        }
        assert!(process.wrong().unwrap().contains("sleeper is stopped; continue it yourself: kill -CONT"));
        process.end(End::Kill).await.unwrap();
        assert_eq!(process.wrong().unwrap(), "sleeper is not running; start it yourself");
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn only_the_last_start_is_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, "said by an earlier run\n").unwrap();
        let (mut process, mut child) = sleeper();
        process.start = Some(Start::of("false", &log).unwrap());
        process.stays_for = Duration::from_secs(20);
        process.end(End::Kill).await.unwrap();
        let error = process.go_on().await.unwrap_err().to_string();
        assert!(error.contains("its start failed") && !error.contains("earlier run"), "{error}");
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn one_whose_mending_was_left_in_the_middle_is_not_started_twice() {
        let folder = tempfile::tempdir().unwrap();
        let (mut process, mut child) = sleeper();
        process.start = Some(Start::of("sleep 60", &folder.path().join("log")).unwrap());
        process.end(End::Kill).await.unwrap();
        process.stays_for = Duration::from_secs(60);
        assert!(timeout(Duration::from_millis(50), process.go_on()).await.is_err(), "it waits");
        let begun = process.pid();
        process.stays_for = Duration::from_millis(50);
        process.go_on().await.unwrap();
        assert!(process.pid() == begun && process.is_there() && process.broken.is_none());
        process.end(End::Kill).await.unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_is_gone_is_refused() {
        let (process, mut child) = sleeper();
        child.kill().unwrap();
        child.wait().unwrap();
        let pid = process.pid.as_raw_pid();
        assert!(matches!(Process::of("x", pid, None), Err(FaultError::Gone { .. })));
    }

    #[tokio::test]
    async fn a_number_that_another_process_has_now_is_left_alone() {
        let (mut process, mut child) = sleeper();
        process.started = process.started.map(|ticks| ticks + 1);
        assert!(matches!(process.end(End::Kill).await, Err(FaultError::Gone { .. })));
        assert!(child.try_wait().unwrap().is_none(), "it lives");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
