//! Switches that turn one guard off at run time, to prove that a checker notices. Without the feature `sabotage` no
//! switch exists and every guard stands. Asked by the guards themselves; `HEARTH_SABOTAGE` names one of them.

/// A guard that a test may turn off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// The epoch compared inside every commit: `fence`.
    Fence,
    /// The flush counter compared with the last acknowledged one: `flush_counter`.
    FlushCounter,
    /// A change's counter takes effect once: `cseq`.
    Cseq,
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
    };
    OFF.get().is_some_and(|off| off == name)
}
