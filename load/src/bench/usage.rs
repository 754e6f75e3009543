//! What a process has used: CPU time of all its threads in nanoseconds, and resident memory, as the kernel tells
//! them in `/proc`. Called around every measured window. Only reads.

use std::collections::BTreeSet;
use std::time::Duration;

use super::BenchError;

/// CPU time of a process so far, kernel work on its behalf included: the sum over its threads.
///
/// # Errors
/// There is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration, BenchError> {
    let mut nanos = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the look.
        if let Ok(text) = std::fs::read_to_string(thread?.path().join("schedstat")) {
            nanos += on_cpu_ns(&text);
        }
    }
    Ok(Duration::from_nanos(nanos))
}

/// Resident memory of a process in bytes.
///
/// # Errors
/// There is no such process.
pub fn resident_bytes(pid: u32) -> Result<u64, BenchError> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    kib_of(&text, "Rss:")
        .map(|kib| kib * 1024)
        .ok_or_else(|| BenchError::Setup("smaps_rollup has no line Rss".into()))
}

/// Threads that run, or want to, of this process, of those that it has started, and of `others`. Of children of all these
/// it knows nothing.
#[must_use]
pub fn runnable_of_own(others: &BTreeSet<u32>) -> u64 {
    own(others).map(runnable).sum()
}

/// This process, those that it has started, and others.
fn own(others: &BTreeSet<u32>) -> impl Iterator<Item = u32> {
    let me = std::process::id();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(move |pid| *pid == me || others.contains(pid) || parent_of(*pid) == Some(me))
}

/// Threads of a process that run, or want to; 0 of one that has gone.
fn runnable(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let states = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    states.map(|stat| u64::from(after_name(&stat).next() == Some("R"))).sum()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    after_name(&stat).nth(1)?.parse().ok()
}

/// The words after the name, which may hold anything: state, parent, and so on.
fn after_name(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

/// The first of the three numbers: time on the CPU.
fn on_cpu_ns(schedstat: &str) -> u64 {
    schedstat.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn kib_of(smaps: &str, name: &str) -> Option<u64> {
    let line = smaps.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(on_cpu_ns("3597364 1200 17\n"), 3_597_364);
        let smaps = "55d0-7ffc ---p 00000000 00:00 0    [rollup]\nRss:                3220 kB\nPss:   1 kB\n";
        assert_eq!(kib_of(smaps, "Rss:"), Some(3_220));
        assert_eq!(kib_of(smaps, "Swap:"), None);
    }

    #[test]
    fn a_name_may_hold_what_follows_it() {
        assert_eq!(after_name("7 (a) R 1) S 42 7\n").collect::<Vec<_>>(), ["S", "42", "7"]);
    }

    #[test]
    fn a_thread_that_spins_is_counted_also_in_a_child() {
        use std::process::{Command, Stdio};
        let spin = || Command::new("sh").args(["-c", "while :; do :; done"]).stdout(Stdio::null()).spawn();
        let (me, mut child) = (std::process::id(), spin().unwrap());
        let own: Vec<u32> = own(&BTreeSet::from([1])).collect();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while runnable(child.id()) != 1 && std::time::Instant::now() < deadline {}
        let spins = runnable(child.id());
        // This thread runs, too.
        let all = runnable_of_own(&BTreeSet::new());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!([1, me, child.id()].iter().all(|pid| own.contains(pid)), "{own:?}");
        assert!(spins == 1 && all >= 2, "{spins}, {all}");
        assert_eq!(runnable(child.id()), 0, "it has gone");
    }

    #[test]
    fn a_busy_process_uses_more() {
        let me = std::process::id();
        let before = cpu_time(me).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while cpu_time(me).unwrap() <= before {
            assert!(std::time::Instant::now() < until, "no CPU time passes");
            std::hint::spin_loop();
        }
        assert!(resident_bytes(me).unwrap() > 100_000);
    }
}
