//! What a bench found: one number a round for the floor and for ours, their ratio, the goal beside it, told to people
//! and as JSON. Pure. Medians, never means: this is read on machines that others use.

use std::fmt::Write as _;

use serde::Serialize;

/// One number a round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// All, in the order of the rounds.
    pub rounds: Vec<f64>,
}

impl Series {
    /// Of these rounds.
    #[must_use]
    pub fn of(rounds: Vec<f64>) -> Self {
        let mut sorted = rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        let (half, last) = (sorted.len() / 2, sorted.len().saturating_sub(1));
        let median =
            if sorted.len() % 2 == 1 { at(half) } else { (at(half.saturating_sub(1)) + at(half)) / 2.0 };
        Self { median, min: at(0), max: at(last), rounds }
    }

    fn text(&self) -> String {
        format!("{} ({}–{})", short(self.median), short(self.min), short(self.max))
    }
}

/// The value below which this share of them lies; NaN where there is none. Sorts them.
pub fn quantile(times: &mut [f64], share: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    let place = (times.len() as f64 * share) as usize;
    times.get(place.min(times.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// What is wanted of a row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Ours over the floor is at most this, in the median.
    Ratio(f64),
    /// Ours is at most this in the median, in the row's unit.
    Ours(f64),
    /// Ours is at most this in every round: once is a miss.
    Never(f64),
    /// Told for comparison.
    None,
}

/// One measured thing.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// In which unit.
    pub unit: &'static str,
    /// What the floor is.
    pub floor_is: &'static str,
    /// The floor, if there is one.
    pub floor: Option<Series>,
    /// Ours.
    pub ours: Series,
    /// Ours over the floor, round by round.
    pub ratio: Option<Series>,
    /// The goal.
    pub goal: Goal,
    /// Whether it is met.
    pub met: Option<bool>,
}

/// The rounds of one thing that is measured, while they come in.
#[derive(Debug, Clone)]
pub struct Rounds {
    what: String,
    unit: &'static str,
    floor_is: &'static str,
    goal: Goal,
    floor: Vec<f64>,
    ours: Vec<f64>,
}

impl Rounds {
    /// No rounds yet.
    #[must_use]
    pub fn of(what: impl Into<String>, unit: &'static str, floor_is: &'static str, goal: Goal) -> Self {
        Self { what: what.into(), unit, floor_is, goal, floor: Vec::new(), ours: Vec::new() }
    }

    /// The floor's number of this round.
    pub fn floor(&mut self, number: f64) {
        self.floor.push(number);
    }

    /// Our number of this round.
    pub fn ours(&mut self, number: f64) {
        self.ours.push(number);
    }

    /// The smallest of ours so far.
    #[must_use]
    pub fn least(&self) -> f64 {
        self.ours.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The row.
    #[must_use]
    pub fn row(self) -> Row {
        let ratios: Vec<f64> = self.ours.iter().zip(&self.floor).map(|(ours, floor)| ours / floor).collect();
        let ours = Series::of(self.ours);
        let ratio = (!ratios.is_empty()).then(|| Series::of(ratios));
        let met = match self.goal {
            Goal::Ratio(most) => Some(ratio.as_ref().is_some_and(|ratio| ratio.median <= most)),
            Goal::Ours(most) => Some(ours.median <= most),
            Goal::Never(most) => Some(ours.max <= most),
            Goal::None => None,
        };
        let floor = (!self.floor.is_empty()).then(|| Series::of(self.floor));
        Row {
            what: self.what,
            unit: self.unit,
            floor_is: self.floor_is,
            floor,
            ours,
            ratio,
            goal: self.goal,
            met,
        }
    }
}

/// All that one bench found.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// The bench.
    pub bench: &'static str,
    /// How it was measured, as far as a reader must know to judge it.
    pub method: &'static str,
    /// The rows.
    pub rows: Vec<Row>,
    /// What else was seen, in words.
    pub notes: Vec<String>,
}

impl Findings {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!("{}: {}\n\n", self.bench, self.method);
        for row in &self.rows {
            let _ = writeln!(out, "{}, {}", row.what, row.unit);
            if let Some(floor) = &row.floor {
                let _ = writeln!(out, "    floor  {:<28} {}", floor.text(), row.floor_is);
            }
            let _ = writeln!(out, "    ours   {}", row.ours.text());
            if let Some(ratio) = &row.ratio {
                let _ = writeln!(out, "    ratio  {}", ratio.text());
            }
            let goal = match row.goal {
                Goal::Ratio(most) => format!("ratio at most {most}"),
                Goal::Ours(most) => format!("ours at most {most} {}", row.unit),
                Goal::Never(most) => format!("ours at most {most} {} in every round", row.unit),
                Goal::None => continue,
            };
            let _ =
                writeln!(out, "    goal   {goal}: {}", if row.met == Some(true) { "met" } else { "MISSED" });
        }
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        out
    }
}

/// Three digits that count.
fn short(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        size if size >= 1.0 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_tells_its_middle_and_its_ends() {
        let odd = Series::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        assert_eq!(Series::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }

    #[test]
    fn a_quantile_lies_where_it_should() {
        let mut times: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let told = [0.0, 0.5, 0.99, 1.0].map(|share| quantile(&mut times, share));
        assert_eq!(told, [1.0, 51.0, 100.0, 100.0]);
        assert!(quantile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn what_must_never_be_is_judged_by_the_worst_round() {
        for (rounds, met) in [([0.0, 0.0, 0.0], true), ([0.0, 1.0, 0.0], false)] {
            let mut lost = Rounds::of("lost", "messages", "", Goal::Never(0.0));
            rounds.into_iter().for_each(|count| lost.ours(count));
            assert_eq!(lost.row().met, Some(met), "{rounds:?}");
        }
    }

    #[test]
    fn a_ratio_is_taken_round_by_round_and_judged_by_its_median() {
        let mut rounds = Rounds::of("x", "µs", "echo", Goal::Ratio(1.3));
        for (floor, ours) in [(1.0, 1.2), (2.0, 2.4), (10.0, 30.0)] {
            rounds.floor(floor);
            rounds.ours(ours);
        }
        let row = rounds.row();
        assert_eq!(row.ratio.unwrap().median, 1.2);
        assert_eq!(row.met, Some(true));
        let mut missed = Rounds::of("x", "KiB", "", Goal::Ours(4.5));
        missed.ours(4.6);
        let row = missed.row();
        assert_eq!((row.met, row.ratio.is_none()), (Some(false), true));
        let findings = Findings { bench: "x", method: "m", rows: vec![row], notes: Vec::new() };
        assert!(findings.text().contains("MISSED"), "{}", findings.text());
    }
}
