//! What an alarm says. Plain values.

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Somebody should look at it.
    Warning,
    /// Players notice, or soon will.
    Critical,
}

impl Severity {
    /// For logs and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// An alarm that is on.
#[derive(Debug, Clone, PartialEq)]
pub struct Alarm {
    /// Its name: one of [`super::names`].
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Since when (Unix ms).
    pub since_unix_ms: u64,
    /// The number as it was last.
    pub value: f64,
    /// What it must not lie above.
    pub limit: f64,
    /// Of both.
    pub unit: &'static str,
    /// What it is, for people.
    pub text: String,
    /// What to do about it, for people.
    pub advice: &'static str,
    /// The last second was good: it says what it said when it was bad, and ends when enough of them are.
    pub is_ending: bool,
}

/// What one second has changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It begins.
    Began(Alarm),
    /// It ends, as it was last.
    Ended(Alarm),
}
