//! What this process takes of its machine, as the system says: memory, processor time, descriptors. Read by the watch once a
//! second, and whenever somebody looks at the metrics; what cannot be read is absent, never zero.

/// What the process takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Process {
    /// Memory in use (resident), bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time since the start, all threads together, ms.
    pub cpu_ms: Option<u64>,
    /// Open file descriptors.
    pub descriptors: Option<u64>,
    /// How many may be open; 0 for no limit.
    pub descriptors_max: Option<u64>,
    /// When it began, Unix time in seconds.
    pub started_unix_s: Option<u64>,
    /// Its threads.
    pub threads: Option<u64>,
}

impl Process {
    /// As it is now. A few microseconds: the files are the kernel's memory. Before Linux 6.2 descriptors are counted one by
    /// one, which takes milliseconds where there are ten thousands.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a process lives for less than 2^53 ms"
    )]
    pub fn now() -> Self {
        let now = metrics_process::collector::collect();
        Self {
            memory_bytes: now.resident_memory_bytes,
            cpu_ms: now.cpu_seconds_total.map(|seconds| (seconds * 1_000.0) as u64),
            descriptors: now.open_fds,
            descriptors_max: now.max_fds,
            started_unix_s: now.start_time_seconds,
            threads: now.threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something() {
        let now = Process::now();
        assert!(now.memory_bytes.is_some_and(|bytes| bytes > 100_000), "{now:?}");
        assert!(now.cpu_ms.is_some() && now.descriptors.is_some_and(|open| open > 2), "{now:?}");
        assert!(now.threads.is_some_and(|threads| threads > 0), "{now:?}");
    }
}
