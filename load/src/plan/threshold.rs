//! What must be so at the end of a run, as a line of words: `p99 applied < 50 ms`, `refused < 1 %`, `resumes > 0`,
//! `no broken promise`. Pure; judged over figures.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::faults::findings::Threshold as Met;
use crate::figures::Figures;

/// What is written of each kind of latency, and what figures call it.
const KINDS: [(&str, &str); 12] = [
    ("applied", "write applied"),
    ("durable", "write durable"),
    ("replicated", "write replicated"),
    ("presence", "presence"),
    ("read", "read"),
    ("say", "say"),
    ("join", "join"),
    ("login", "login"),
    ("resume", "resume"),
    ("watcher", "presence to watcher"),
    ("member", "say to member"),
    ("query", "query"),
];
const STATS: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];
const PROMISES: &str = "no broken promise";

/// A bound of a run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Threshold {
    what: What,
    /// Whether found must be below the bound, and whether it may be equal.
    is_below: bool,
    may_equal: bool,
    bound: f64,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    Promises,
    /// Place in [`STATS`] and in [`KINDS`].
    Latency(&'static str, &'static str, &'static str),
    /// A count by its name, in per cent of all operations (of what was shed: of these and those) or as it is.
    Count(String, bool),
}

/// Why a line is no threshold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{line}` is none: such as `p99 applied < 50 ms` (p50, p90, p99, p99.9, max; {}), `refused < 1 %`, `resumes > 0` ({}) or \
     `no broken promise`",
    KINDS.map(|(word, _)| word).join(", "), counts().join(", ")
)]
pub struct NoThreshold {
    line: String,
}

/// Counts that may be bounded.
fn counts() -> Vec<&'static str> {
    let own = ["refused", "closes", "shed"].into_iter();
    own.chain(Figures::names()).collect()
}

impl TryFrom<String> for Threshold {
    type Error = NoThreshold;

    fn try_from(line: String) -> Result<Self, NoThreshold> {
        line.parse()
    }
}

impl FromStr for Threshold {
    type Err = NoThreshold;

    fn from_str(line: &str) -> Result<Self, NoThreshold> {
        let none = || NoThreshold { line: line.to_owned() };
        let words: Vec<&str> = line.split_whitespace().collect();
        let (what, sign, bound) = match words[..] {
            ["no", "broken", "promise"] => {
                return Ok(Self { what: What::Promises, is_below: true, may_equal: true, bound: 0.0 });
            }
            [stat, kind, sign, bound, "ms"] => {
                let stat = STATS.into_iter().find(|known| *known == stat).ok_or_else(none)?;
                let (word, kind) = KINDS.into_iter().find(|(known, _)| *known == kind).ok_or_else(none)?;
                (What::Latency(stat, word, kind), sign, bound)
            }
            [count, sign, bound] | [count, sign, bound, "%"] => {
                let known = counts().into_iter().find(|known| *known == count).ok_or_else(none)?;
                (What::Count(known.to_owned(), words.len() == 4), sign, bound)
            }
            _ => return Err(none()),
        };
        let (is_below, may_equal) = match sign {
            "<" => (true, false),
            "<=" => (true, true),
            ">" => (false, false),
            ">=" => (false, true),
            _ => return Err(none()),
        };
        let bound: f64 = bound.parse().map_err(|_| none())?;
        if !(0.0..=1e12).contains(&bound) {
            return Err(none());
        }
        Ok(Self { what, is_below, may_equal, bound })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Promises => f.write_str(PROMISES),
            What::Latency(stat, word, _) => write!(f, "{stat} {word} {} {} ms", self.sign(), self.bound),
            What::Count(name, true) => write!(f, "{name} {} {} %", self.sign(), self.bound),
            What::Count(name, false) => write!(f, "{name} {} {}", self.sign(), self.bound),
        }
    }
}

impl Threshold {
    fn sign(&self) -> &'static str {
        match (self.is_below, self.may_equal) {
            (true, false) => "<",
            (true, true) => "≤",
            (false, false) => ">",
            (false, true) => "≥",
        }
    }

    fn holds(&self, found: f64) -> bool {
        let is_beyond = if self.is_below { found < self.bound } else { found > self.bound };
        // Both come from text or whole microseconds.
        is_beyond || self.may_equal && (found - self.bound).abs() < f64::EPSILON
    }

    /// Whether it holds. What has not happened at all does not: a latency of nothing is not low.
    #[must_use]
    pub fn judge(&self, figures: &Figures, broken: u64, shed: u64) -> Met {
        let met = |what: String, found: String, bound: String, holds| Met { what, found, bound, holds };
        match &self.what {
            What::Promises => {
                met(PROMISES.to_owned(), format!("{broken} broken"), "0".to_owned(), broken == 0)
            }
            What::Latency(stat, word, kind) => {
                let latency = figures.latency_ms.get(*kind);
                let found = latency.map(|l| match *stat {
                    "p50" => l.p50,
                    "p90" => l.p90,
                    "p99" => l.p99,
                    "p99.9" => l.p999,
                    _ => l.max,
                });
                let said = found.map_or_else(|| "none came".to_owned(), |ms| format!("{ms:.2} ms"));
                let bound = format!("{} {} ms", self.sign(), self.bound);
                met(format!("{stat} {word}"), said, bound, found.is_some_and(|ms| self.holds(ms)))
            }
            What::Count(name, is_share) => {
                let count = match name.as_str() {
                    "refused" => figures.refused.values().sum(),
                    "closes" => figures.downs.iter().filter(|(code, _)| *code != "own").map(|(_, n)| n).sum(),
                    "shed" => shed,
                    name => figures.count(name),
                };
                #[allow(clippy::cast_precision_loss, reason = "counts of a run")]
                let count = count as f64;
                // What was shed is no operation: it was never asked.
                let all = figures.count("operations") + if name == "shed" { shed } else { 0 };
                #[allow(clippy::cast_precision_loss, reason = "counts of a run")]
                let all = all.max(1) as f64;
                let (found, unit) = if *is_share { (100.0 * count / all, " %") } else { (count, "") };
                let said = if *is_share { format!("{found:.3} %") } else { format!("{found}") };
                met(name.clone(), said, format!("{} {}{unit}", self.sign(), self.bound), self.holds(found))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Latency;

    fn judged(line: &str) -> Met {
        let latency = Latency { count: 9, p50: 1.0, p90: 2.0, p99: 50.0, p999: 60.0, max: 70.0 };
        let figures = Figures {
            latency_ms: [("write applied".to_owned(), latency)].into(),
            counts: [("operations", 200), ("resumes", 3)].into(),
            refused: [("rate_limited", 1), ("not_home", 1)].into(),
            downs: [("own".to_owned(), 9), ("4003".to_owned(), 2)].into(),
            ..Figures::default()
        };
        line.parse::<Threshold>().unwrap().judge(&figures, 0, 4)
    }

    #[test]
    fn what_is_written_is_judged() {
        for (line, found, holds) in [
            ("p99 applied < 50 ms", "50.00 ms", false),
            ("p99 applied <= 50 ms", "50.00 ms", true),
            ("max applied < 70.5 ms", "70.00 ms", true),
            ("p99 durable < 50 ms", "none came", false),
            ("refused <= 1 %", "1.000 %", true),
            ("refused < 2", "2", false),
            ("closes <= 2", "2", true),
            ("shed < 1", "4", false),
            // Of 200 that were answered, and itself.
            ("shed < 2 %", "1.961 %", true),
            ("shed < 1 %", "1.961 %", false),
            ("resumes > 2", "3", true),
            ("resumes >= 4", "3", false),
            ("no broken promise", "0 broken", true),
        ] {
            let met = judged(line);
            assert_eq!((met.found.as_str(), met.holds), (found, holds), "{line}");
        }
    }

    #[test]
    fn what_is_no_threshold_is_refused_with_what_would_be_one() {
        for line in [
            "",
            "fast",
            "p98 applied < 5 ms",
            "p99 applied < 5",
            "p99 applied ~ 5 ms",
            "luck > 1",
            "refused < -1",
            "refused < nan",
        ] {
            let error = line.parse::<Threshold>().unwrap_err().to_string();
            assert!(error.contains("p99 applied < 50 ms"), "{line}: {error}");
        }
    }

    #[test]
    fn it_says_itself_as_it_was_written() {
        for line in ["p99.9 watcher < 200 ms", "no broken promise", "refused < 1 %", "resumes > 0"] {
            assert_eq!(line.parse::<Threshold>().unwrap().to_string(), line);
        }
    }
}
