//! What this process takes of its machine, as the system says: memory, processor time, descriptors. Read once a second
//! by the watch; what cannot be read (another system than Linux) is absent, never zero.

use std::fs;

/// Ticks a second of the times in `/proc`: the kernel counts them so towards programs, whatever its own clock does.
const TICKS_PER_S: u64 = 100;

/// What the process takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Process {
    /// Memory in use (resident), bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time since the start, all threads together, ms.
    pub cpu_ms: Option<u64>,
    /// Open file descriptors.
    pub descriptors: Option<u64>,
}

impl Process {
    /// As it is now. A few microseconds: the files are the kernel's memory.
    #[must_use]
    pub fn now() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).ok();
        // Since Linux 6.2 the folder's size is their number; before that it is 0, and they would have to be counted.
        let descriptors = fs::metadata("/proc/self/fd").ok().map(|folder| folder.len());
        Self {
            memory_bytes: read("status").as_deref().and_then(resident_bytes),
            cpu_ms: read("stat").as_deref().and_then(cpu_ms),
            descriptors: descriptors.filter(|count| *count > 0),
        }
    }
}

/// Of `/proc/self/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Of `/proc/self/stat`: the name of the program, in brackets, may hold anything.
fn cpu_ms(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some((user + system) * 1_000 / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        let status = "Name:\thearth\nVmPeak:\t  9000 kB\nVmRSS:\t    5120 kB\nThreads:\t3\n";
        assert_eq!(resident_bytes(status), Some(5_242_880));
        assert_eq!(resident_bytes("Name:\thearth\n"), None);
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 1 2 3 4 250 50 7 8 20 0 3 0 100 1000 10";
        assert_eq!(cpu_ms(stat), Some(3_000));
        assert_eq!(cpu_ms("7 (a"), None);
    }

    #[test]
    fn this_process_takes_something() {
        let now = Process::now();
        assert!(now.memory_bytes.is_some_and(|bytes| bytes > 100_000), "{now:?}");
        assert!(now.cpu_ms.is_some(), "{now:?}");
    }
}
