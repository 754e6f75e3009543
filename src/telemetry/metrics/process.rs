//! What the process takes of its machine, under the names that Prometheus' conventions give it: looked at whenever somebody
//! looks at the metrics, as its other clients do.

use metrics::{Counter, Gauge};

use crate::telemetry::process::Process as Now;

use super::{PROCESS_CPU, PROCESS_FDS, PROCESS_MAX_FDS, PROCESS_MEMORY, PROCESS_STARTED, PROCESS_THREADS};

/// The handles.
#[derive(Debug)]
pub(super) struct Process {
    memory: Gauge,
    cpu: Counter,
    fds: Gauge,
    max_fds: Gauge,
    started: Gauge,
    threads: Gauge,
}

impl Process {
    /// Nothing is known before the first [`Process::take`].
    pub(super) fn new() -> Self {
        Self {
            memory: PROCESS_MEMORY.handle(),
            cpu: PROCESS_CPU.handle(),
            fds: PROCESS_FDS.handle(),
            max_fds: PROCESS_MAX_FDS.handle(),
            started: PROCESS_STARTED.handle(),
            threads: PROCESS_THREADS.handle(),
        }
    }

    /// As the system tells it; what that does not stays as it was.
    pub(super) fn take(&self, now: &Now) {
        if let Some(ms) = now.cpu_ms {
            self.cpu.absolute(ms / 1_000);
        }
        for (gauge, value) in [
            (&self.memory, now.memory_bytes),
            (&self.fds, now.descriptors),
            (&self.max_fds, now.descriptors_max),
            (&self.started, now.started_unix_s),
            (&self.threads, now.threads),
        ] {
            if let Some(value) = value {
                gauge.set(value as f64);
            }
        }
    }
}
