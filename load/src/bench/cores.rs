//! Which core does what: the measured server on one, everything else on the other. Called by all benches; a thread's
//! children inherit its cores, so a process is pinned from its first instruction. Never touches another's process.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::BenchError;

/// The two cores of a bench.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    /// Where the measured process runs, alone.
    pub server: usize,
    /// Where the client runs, and what the server depends on.
    pub client: usize,
}

impl Cores {
    /// The first and the last core that this process may use.
    ///
    /// # Errors
    /// There is only one.
    pub fn choose() -> Result<Self, BenchError> {
        let allowed = sched_getaffinity(None).map_err(std::io::Error::from)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        match (cores.next(), cores.next_back()) {
            (Some(server), Some(client)) => Ok(Self { server, client }),
            _ => Err(BenchError::Setup(
                "a bench needs two cores: one for the server, one for its client".into(),
            )),
        }
    }
}

/// From now on this thread, and what it starts, runs on these cores alone.
///
/// # Errors
/// The system's.
pub fn pin(cores: &[usize]) -> Result<(), BenchError> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    Ok(sched_setaffinity(None, &set).map_err(std::io::Error::from)?)
}

/// Does something on other cores, then goes back to where this thread may run now.
///
/// # Errors
/// The system's, or that of what was done.
pub fn on<T>(cores: &[usize], act: impl FnOnce() -> Result<T, BenchError>) -> Result<T, BenchError> {
    let before = sched_getaffinity(None).map_err(std::io::Error::from)?;
    pin(cores)?;
    let done = act();
    sched_setaffinity(None, &before).map_err(std::io::Error::from)?;
    done
}
