//! Switches that turn one guard off at run time, to prove that a checker notices, and faults planted in a task, to prove
//! that its watch does. Without the feature `sabotage` no switch exists and every guard stands. Asked by the guards
//! themselves; `HEARTH_SABOTAGE` names one of them, or a fault: `panic:TASK`, `hang:TASK` and `stall:MS`, which waits for
//! SIGUSR2.

/// A guard that a test may turn off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// The epoch compared inside every commit: `fence`.
    Fence,
    /// The flush counter compared with the last acknowledged one: `flush_counter`.
    FlushCounter,
    /// A change's counter takes effect once: `cseq`.
    Cseq,
    /// A stamp of an older epoch is judged by what that epoch left behind: `history`.
    History,
    /// A home that is asked for a shard is fenced before it answers: `pull_fences_first`.
    PullFencesFirst,
    /// No answer leaves when the lease may be over: `validity`.
    Validity,
}

/// Whether this guard is turned off. Always false in a build for players.
#[cfg(not(feature = "sabotage"))]
#[must_use]
pub const fn is_off(_guard: Guard) -> bool {
    false
}

#[cfg(feature = "sabotage")]
static OFF: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Turns one guard off for the life of the process; `config` calls it with what the environment says.
#[cfg(feature = "sabotage")]
pub fn turn_off(name: &str) {
    let _ = OFF.set(name.to_owned());
}

/// Whether this guard is turned off.
#[cfg(feature = "sabotage")]
#[must_use]
pub fn is_off(guard: Guard) -> bool {
    let name = match guard {
        Guard::Fence => "fence",
        Guard::FlushCounter => "flush_counter",
        Guard::Cseq => "cseq",
        Guard::History => "history",
        Guard::PullFencesFirst => "pull_fences_first",
        Guard::Validity => "validity",
    };
    OFF.get().is_some_and(|off| off == name)
}

/// Whether SIGUSR2 has come.
#[cfg(feature = "sabotage")]
static STRUCK: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// What is planted in a task: after the colon of `HEARTH_SABOTAGE`, if it begins so.
#[cfg(feature = "sabotage")]
fn planted(kind: &str) -> Option<&'static str> {
    OFF.get()?.strip_prefix(kind)?.strip_prefix(':')
}

/// Whether this task is to hang from now on. Where it is to panic, that happens here.
#[cfg(feature = "sabotage")]
pub(crate) fn strikes(task: &str) -> bool {
    if !STRUCK.load(std::sync::atomic::Ordering::Relaxed) {
        return false;
    }
    assert!(planted("panic") != Some(task), "planted in {task}");
    planted("hang") == Some(task)
}

/// Waits for SIGUSR2, then lets the fault out: what is planted in a task at its next poll. For how long every thread of the
/// runtime is to sleep, if that is the fault.
#[cfg(feature = "sabotage")]
pub async fn struck() -> Option<std::time::Duration> {
    use tokio::signal::unix::{SignalKind, signal};
    signal(SignalKind::user_defined2()).ok()?.recv().await;
    STRUCK.store(true, std::sync::atomic::Ordering::Relaxed);
    planted("stall").and_then(|ms| ms.parse().ok()).map(std::time::Duration::from_millis)
}
