//! What a process has used: CPU time of all its threads in nanoseconds, and resident memory, as the kernel tells
//! them in `/proc`. Called around every measured window. Only reads.

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
