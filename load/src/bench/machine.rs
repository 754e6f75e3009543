//! Where and when a bench ran: what a reader must know to compare. Only reads.

use std::process::Command;
use std::time::SystemTime;

use serde::Serialize;

/// The machine and the moment.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// The kernel.
    pub kernel: String,
    /// The compiler.
    pub rustc: String,
    /// The Redis.
    pub redis: String,
    /// Load average of the last minute when the bench began: over half a core of somebody else's is too much.
    pub load_1m: f64,
    /// Unix seconds.
    pub unix_s: u64,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub fn here() -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let model = file("/proc/cpuinfo");
        let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        Self {
            cpu: model.trim_start_matches([' ', '\t', ':']).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            rustc: said("rustc", &["--version"]),
            redis: said("redis-server", &["--version"]),
            load_1m: file("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|word| word.parse().ok())
                .unwrap_or(0.0),
            unix_s: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
        }
    }

    /// In one line.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "{} cores of {} · Linux {} · {} · {} · load {} before",
            self.cores, self.cpu, self.kernel, self.rustc, self.redis, self.load_1m
        )
    }
}

/// The first words of what a program says of itself.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
