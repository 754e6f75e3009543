//! A placeholder until the composition root stands: `cli` calls it. Starts nothing yet.

use crate::config::Settings;

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The composition root is not written yet.
    #[error("the server is not built yet")]
    Unbuilt,
}

impl ServeError {
    /// 64 for a fault of the configuration, 69 for something outside that is not available, 70 for a bug of ours.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Unbuilt => 70,
        }
    }
}

/// Runs the server until it is asked to stop.
///
/// # Errors
/// [`ServeError`] says what to do, in one line.
pub fn serve(_settings: Settings) -> Result<(), ServeError> {
    Err(ServeError::Unbuilt)
}
