//! Pictures of a page, as SVG within it: curves over time or over nines, faults and phases as bands, moments as lines. What a
//! curve is, is told by its dashes as well as by its colour. Pure; called by pages.

use std::fmt::Write as _;

use super::text;

const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const HEIGHT: f64 = 168.0;
const BELOW: f64 = 22.0;
const COLOURS: usize = 8;
const DASHES: [&str; 4] = ["", "7 3", "2 3", "9 3 2 3"];
/// Decades that a logarithmic axis shows at most.
const DECADES_MAX: i32 = 6;
/// A strip: the height of its band, what a letter of its names takes, and what the number of a mark takes (three digits and a
/// blank), in how many rows at most.
const BAND_HEIGHT: f64 = 30.0;
const LETTER_WIDTH: f64 = 10.0;
const LABEL_WIDTH: f64 = 22.0;
const LABEL_HEIGHT: f64 = 12.0;
const LABEL_ROWS_MAX: usize = 6;

/// A time in which something was so.
#[derive(Debug, Clone, PartialEq)]
pub struct Shade {
    /// From when, in seconds.
    pub from_s: f64,
    /// Until when.
    pub to_s: f64,
    /// What.
    pub name: String,
    /// It was broken; else it is a phase.
    pub is_fault: bool,
}

/// A line through points; a gap where there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    name: String,
    points: Vec<Option<(f64, f64)>>,
    is_filled: bool,
    /// Of which of the plot's colours, and how it is dashed; in their order where nobody says so.
    look: Option<(usize, usize)>,
}

impl Curve {
    /// Of values a step; a step is so many seconds long.
    #[must_use]
    pub fn by_step(name: &str, step_s: f64, values: &[Option<f64>]) -> Self {
        let at = |step: usize| float(step) * step_s;
        let points = values.iter().enumerate().map(|(step, value)| value.map(|value| (at(step), value)));
        Self::through(name, points.collect())
    }

    /// Through these points.
    #[must_use]
    pub fn through(name: &str, points: Vec<Option<(f64, f64)>>) -> Self {
        Self { name: name.to_owned(), points, is_filled: false, look: None }
    }

    /// The same with what is below it tinted.
    #[must_use]
    pub fn filled(self) -> Self {
        Self { is_filled: true, ..self }
    }

    /// The same in this of the plot's colours, dashed in this way.
    #[must_use]
    pub fn looking(self, colour: usize, dashes: usize) -> Self {
        Self { look: Some((colour, dashes)), ..self }
    }

    fn has_points(&self) -> bool {
        self.points.iter().any(Option::is_some)
    }

    /// Its parts without gaps.
    fn parts(&self) -> Vec<Vec<(f64, f64)>> {
        let mut parts: Vec<Vec<(f64, f64)>> = Vec::new();
        let mut goes_on = false;
        for point in &self.points {
            match (point, parts.last_mut().filter(|_| goes_on)) {
                (Some(point), Some(part)) => part.push(*point),
                (Some(point), None) => parts.push(vec![*point]),
                (None, _) => {}
            }
            goes_on = point.is_some();
        }
        parts
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Across {
    /// So many seconds.
    Time(f64),
    /// Quantiles, so many nines.
    Nines(f64),
}

/// Curves with their axes.
#[derive(Debug, Clone)]
pub struct Plot<'a> {
    title: &'a str,
    unit: &'a str,
    across: Across,
    shades: &'a [Shade],
    curves: Vec<Curve>,
    is_log: bool,
    /// What is before does not set the scale, seconds.
    settles_s: f64,
}

impl<'a> Plot<'a> {
    /// Over so many seconds.
    #[must_use]
    pub fn over_time(title: &'a str, unit: &'a str, until_s: f64, shades: &'a [Shade]) -> Self {
        let across = Across::Time(until_s.max(0.001));
        Self { title, unit, across, shades, curves: Vec::new(), is_log: false, settles_s: 0.0 }
    }

    /// Over quantiles, each nine as wide as the one before; points are given by their quantile.
    #[must_use]
    pub fn over_nines(title: &'a str, unit: &'a str, nines: f64) -> Self {
        let across = Across::Nines(nines.max(1.0));
        Self { title, unit, across, shades: &[], curves: Vec::new(), is_log: false, settles_s: 0.0 }
    }

    /// With one more curve; one without points is left out.
    #[must_use]
    pub fn with(mut self, curve: Curve) -> Self {
        if curve.has_points() {
            self.curves.push(curve);
        }
        self
    }

    /// With one more, if there is one.
    #[must_use]
    pub fn with_some(self, curve: Option<Curve>) -> Self {
        match curve {
            Some(curve) => self.with(curve),
            None => self,
        }
    }

    /// Each ten times as much takes as much room.
    #[must_use]
    pub fn logarithmic(self) -> Self {
        Self { is_log: true, ..self }
    }

    /// The first seconds of a run that goes on longer do not set the scale: all begins in them, and never again.
    #[must_use]
    pub fn settling(self, settles_s: f64) -> Self {
        Self { settles_s, ..self }
    }

    pub(super) fn draw(&self, out: &mut String) {
        if self.curves.is_empty() {
            return;
        }
        out.push_str("<figure>");
        self.caption(out);
        let (height, base) = (TOP + HEIGHT + BELOW, TOP + HEIGHT);
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
            text(self.title)
        );
        shades(out, self.shades, &|s| self.x(s), TOP, HEIGHT);
        let scale = self.scale();
        for (value, label) in scale.ticks() {
            let y = scale.y(value);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                WIDTH - RIGHT,
                LEFT - 7.0,
                y + 4.0
            );
        }
        self.ticks_across(out, base);
        for (place, curve) in self.curves.iter().enumerate() {
            let (colour, dashes) = look(curve, place);
            for part in curve.parts() {
                self.part(out, curve, &part, &scale, (colour, dashes));
            }
        }
        out.push_str("</svg></figure>");
    }

    fn caption(&self, out: &mut String) {
        let unit = if self.unit.is_empty() { String::new() } else { format!(", {}", self.unit) };
        let _ = write!(out, "<figcaption><b>{}{}</b><div>", text(self.title), text(&unit));
        for (place, curve) in self.curves.iter().enumerate() {
            let (colour, dashes) = look(curve, place);
            let _ = write!(
                out,
                "<span><svg width=\"26\" height=\"8\" aria-hidden=\"true\"><line class=\"curve c{colour}\" \
                 stroke-dasharray=\"{dashes}\" x1=\"1\" x2=\"25\" y1=\"4\" y2=\"4\"/></svg>{}</span>",
                text(&curve.name)
            );
        }
        out.push_str("</div></figcaption>");
    }

    fn part(
        &self,
        out: &mut String,
        curve: &Curve,
        part: &[(f64, f64)],
        scale: &Scale,
        (colour, dashes): (usize, &str),
    ) {
        let place = |(x, y): &(f64, f64)| format!("{:.1},{:.1}", self.x(*x), scale.y(*y));
        let mut points: Vec<String> = part.iter().map(place).collect();
        if let [(x, y)] = part {
            // One point alone is a short line.
            points.push(format!("{:.1},{:.1}", self.x(*x) + 3.0, scale.y(*y)));
        }
        let points = points.join(" ");
        if let (true, Some((first, _)), Some((last, _))) = (curve.is_filled, part.first(), part.last()) {
            let (first, last, base) = (self.x(*first), self.x(*last), TOP + HEIGHT);
            let _ = write!(
                out,
                "<polygon class=\"area a{colour}\" points=\"{first:.1},{base:.1} {points} {last:.1},{base:.1}\"/>"
            );
        }
        let _ = write!(
            out,
            "<polyline class=\"curve c{colour}\" stroke-dasharray=\"{dashes}\" points=\"{points}\"/>"
        );
    }

    fn x(&self, at: f64) -> f64 {
        let share = match self.across {
            Across::Time(until_s) => at / until_s,
            // The whole has no end: it stands at the last nine.
            Across::Nines(nines) => -(1.0 - at).max(1e-12).log10() / nines,
        };
        LEFT + (WIDTH - LEFT - RIGHT) * share.clamp(0.0, 1.0)
    }

    fn scale(&self) -> Scale {
        let points = || self.curves.iter().flat_map(|curve| &curve.points).flatten();
        let most = |from: f64| points().filter(|(x, _)| *x >= from).map(|(_, y)| *y).fold(0.0, f64::max);
        let settled = most(self.settles_s);
        let most = if settled > 0.0 { settled } else { most(f64::MIN) };
        if self.is_log {
            let least = points().map(|(_, y)| *y).filter(|y| *y > 0.0).fold(f64::MAX, f64::min);
            return Scale::logarithmic(least, most);
        }
        Scale::linear(most)
    }

    fn ticks_across(&self, out: &mut String, base: f64) {
        let y = base + 15.0;
        match self.across {
            Across::Time(until_s) => times(out, until_s, &|s| self.x(s), y),
            Across::Nines(nines) => {
                for nine in 0..=whole(nines.floor()) {
                    let quantile = 1.0 - 10_f64.powi(-nine);
                    let digits = usize::try_from((nine - 2).max(0)).unwrap_or(0);
                    let label =
                        if nine == 0 { "0 %".to_owned() } else { format!("{:.digits$} %", 100.0 * quantile) };
                    let _ = write!(
                        out,
                        "<line class=\"grid\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{base}\"/>\
                         <text x=\"{0:.1}\" y=\"{y:.0}\" text-anchor=\"middle\">{label}</text>",
                        self.x(quantile)
                    );
                }
            }
        }
    }
}

/// A curve's colour and its dashes.
fn look(curve: &Curve, place: usize) -> (usize, &'static str) {
    let (colour, dashes) = curve.look.unwrap_or((place, place));
    (colour % COLOURS, DASHES.get(dashes % DASHES.len()).copied().unwrap_or(""))
}

fn float(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

#[allow(clippy::cast_possible_truncation, reason = "decades and nines")]
fn whole(number: f64) -> i32 {
    number.clamp(-300.0, 300.0) as i32
}

/// From values to heights.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scale {
    /// From 0 to this, in steps of that.
    Linear(f64, f64),
    /// From this power of ten to that.
    Logarithmic(i32, i32),
}

impl Scale {
    /// Up to a number that reads well.
    fn linear(most: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let power = 10_f64.powi(whole((most / 4.0).log10().floor()));
        let fits = |step: &f64| step * power * 4.0 >= most * 0.999;
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(fits).unwrap_or(10.0) * power;
        Self::Linear(step * (most * 0.999 / step).ceil().max(1.0), step)
    }

    fn logarithmic(least: f64, most: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let top = whole((most * 0.999).log10().ceil());
        let bottom = whole(least.min(most).log10().floor()).clamp(top - DECADES_MAX, top - 1);
        Self::Logarithmic(bottom, top)
    }

    fn y(&self, value: f64) -> f64 {
        let share = match *self {
            Self::Linear(most, _) => value / most,
            Self::Logarithmic(bottom, top) => {
                let above = value.max(f64::MIN_POSITIVE).log10() - f64::from(bottom);
                above / f64::from(top - bottom)
            }
        };
        TOP + HEIGHT * (1.0 - share.clamp(0.0, 1.0))
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        match *self {
            Self::Linear(most, step) => {
                let count = whole((most / step).round());
                (0..=count).map(|n| f64::from(n) * step).map(|value| (value, short(value))).collect()
            }
            Self::Logarithmic(bottom, top) => {
                (bottom..=top).map(|power| 10_f64.powi(power)).map(|value| (value, short(value))).collect()
            }
        }
    }
}

/// A number of an axis.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", trimmed(value / 1e6)),
        value if value >= 1e4 => format!("{}k", trimmed(value / 1e3)),
        value => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The times below a picture.
fn times(out: &mut String, until_s: f64, x: &dyn Fn(f64) -> f64, y: f64) {
    let steps = [0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 14_400.0];
    let step = steps.into_iter().find(|step| until_s / step <= 12.0).unwrap_or(43_200.0);
    for n in 0..=whole((until_s / step).floor()) {
        let at = f64::from(n) * step;
        let label = if until_s < 120.0 { format!("{} s", trimmed(at)) } else { clock(at) };
        let _ = write!(out, "<text x=\"{:.1}\" y=\"{y:.0}\" text-anchor=\"middle\">{label}</text>", x(at));
    }
}

/// Seconds as minutes, and hours where there are any.
#[must_use]
pub fn clock(seconds: f64) -> String {
    let all = std::time::Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default().as_secs();
    let (hours, minutes, seconds) = (all / 3_600, all / 60 % 60, all % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

fn shades(out: &mut String, shades: &[Shade], x: &dyn Fn(f64) -> f64, top: f64, height: f64) {
    let mut phases = 0;
    for Shade { from_s, to_s, name, is_fault } in shades {
        let (from, to) = (x(*from_s), x(*to_s));
        let width = (to - from).max(2.0);
        if !is_fault {
            phases += 1;
            let _ = write!(
                out,
                "<line class=\"edge\" x1=\"{from:.1}\" x2=\"{from:.1}\" y1=\"{top:.0}\" y2=\"{:.0}\"/>",
                top + height
            );
            // Every second one is tinted.
            if phases % 2 == 1 {
                continue;
            }
        }
        let class = if *is_fault { "fault" } else { "phase" };
        let _ = write!(
            out,
            "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{top:.0}\" width=\"{width:.1}\" height=\"{height:.0}\"><title>{}</title></rect>",
            text(name)
        );
    }
}

/// What was done when: phases with their names, faults, and moments by number.
#[derive(Debug, Clone, Copy)]
pub struct Strip<'a> {
    /// How long all of it was, seconds.
    pub until_s: f64,
    /// Phases and faults.
    pub shades: &'a [Shade],
    /// Moments: when, in seconds, and what.
    pub marks: &'a [(f64, String)],
}

impl Strip<'_> {
    pub(super) fn draw(&self, out: &mut String) {
        let until_s = self.until_s.max(0.001);
        let x = |at: f64| LEFT + (WIDTH - LEFT - RIGHT) * (at / until_s).clamp(0.0, 1.0);
        let label_x = |at: f64| x(at).min(WIDTH - LABEL_WIDTH);
        let rows = label_rows(&self.marks.iter().map(|(at, _)| label_x(*at)).collect::<Vec<_>>());
        let rows_used = rows.iter().flatten().max().map_or(0, |last| last + 1);
        let head = LABEL_HEIGHT * f64::from(rows_used) + 4.0;
        let base = head + BAND_HEIGHT;
        let _ = write!(
            out,
            "<div class=\"plots\"><figure><figcaption><b>What was done</b></figcaption><svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"timeline\">",
            base + BELOW
        );
        shades(out, self.shades, &x, head, BAND_HEIGHT);
        for shade in self.shades.iter().filter(|shade| !shade.is_fault) {
            let letters = ((x(shade.to_s) - x(shade.from_s) - 10.0) / LETTER_WIDTH).floor();
            let name = cut(&shade.name, letters);
            let _ = write!(
                out,
                "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}<title>{}</title></text>",
                x(shade.from_s) + 5.0,
                head + BAND_HEIGHT / 2.0 + 4.0,
                text(&name),
                text(&shade.name)
            );
        }
        for ((number, (at, what)), row) in (1..).zip(self.marks).zip(rows) {
            let what = text(what);
            let _ = write!(
                out,
                "<line class=\"mark\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{head:.0}\" y2=\"{base:.0}\"><title>{what}</title></line>",
                x(*at)
            );
            // One for which there is no place is in the list below, as all are.
            if let Some(row) = row {
                let y = LABEL_HEIGHT * f64::from(row + 1) - 1.0;
                let at = label_x(*at);
                let _ = write!(out, "<text x=\"{at:.1}\" y=\"{y:.0}\">{number}<title>{what}</title></text>");
            }
        }
        times(out, until_s, &x, base + 15.0);
        out.push_str("</svg></figure></div>");
    }
}

/// So many letters of a name.
fn cut(name: &str, letters: f64) -> String {
    let count = usize::try_from(whole(letters.min(300.0))).unwrap_or(0);
    if name.chars().count() <= count {
        return name.to_owned();
    }
    if count < 3 {
        return String::new();
    }
    name.chars().take(count - 1).chain(['…']).collect()
}

/// In which row the number of each mark stands, so that no two overlap; none where even the last row is taken.
fn label_rows(at: &[f64]) -> Vec<Option<u32>> {
    let mut marks: Vec<(usize, f64)> = at.iter().copied().enumerate().collect();
    marks.sort_by(|(_, one), (_, other)| one.total_cmp(other));
    let (mut rows, mut free_from) = (vec![None; at.len()], [f64::MIN; LABEL_ROWS_MAX]);
    for (mark, at) in marks {
        let free = (0..).zip(&mut free_from).find(|(_, from)| **from <= at);
        if let (Some((row, from)), Some(place)) = (free, rows.get_mut(mark)) {
            *from = at + LABEL_WIDTH;
            *place = Some(row);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(plot: &Plot<'_>) -> String {
        let mut out = String::new();
        plot.draw(&mut out);
        out
    }

    #[test]
    fn a_gap_between_looks_is_drawn_as_a_gap() {
        let values = [None, Some(4.0), Some(4.0), None, None, Some(2.0), None];
        let curve = Curve::by_step("node-1", 1.0, &values);
        assert_eq!(curve.parts(), [vec![(1.0, 4.0), (2.0, 4.0)], vec![(5.0, 2.0)]]);
        let out = drawn(&Plot::over_time("shards served", "", 7.0, &[]).with(curve));
        assert_eq!(out.matches("<polyline").count(), 2, "{out}");
        let base = format!(",{:.1}", TOP + HEIGHT);
        let points: Vec<_> =
            out.split("points=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(points.iter().all(|points| !points.contains(&base)), "nothing falls to 0: {points:?}");
    }

    #[test]
    fn a_curve_without_points_is_not_there_and_a_plot_without_curves_neither() {
        let plot = Plot::over_time("a", "", 7.0, &[]).with(Curve::by_step("b", 1.0, &[None, None]));
        assert_eq!(drawn(&plot), "");
    }

    #[test]
    fn the_beginning_does_not_set_the_scale() {
        let plot = |values: &[Option<f64>]| {
            Plot::over_time("a", "", 32.0, &[]).with(Curve::by_step("x", 1.0, values)).settling(24.0)
        };
        let mut values = vec![Some(9.0); 24];
        assert_eq!(plot(&values).scale(), Scale::Linear(10.0, 2.5), "there is nothing else");
        values.extend([Some(3.0); 8]);
        assert_eq!(plot(&values).scale(), Scale::Linear(3.0, 1.0));
        assert!(!drawn(&plot(&values)).contains(",-"), "what is above is cut");
    }

    #[test]
    fn axes_end_at_numbers_that_read_well() {
        let labels = |scale: Scale| scale.ticks().into_iter().map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(labels(Scale::linear(0.0)), ["0", "0.25", "0.5", "0.75", "1"]);
        assert_eq!(labels(Scale::linear(37_000.0)), ["0", "10k", "20k", "30k", "40k"]);
        assert_eq!(labels(Scale::logarithmic(0.3, 40.0)), ["0.1", "1", "10", "100"]);
        // However far down it goes.
        assert_eq!(labels(Scale::logarithmic(1e-9, 10.0)).len(), 7);
        for most in [0.001, 0.7, 1.0, 99.9, 12_345.0] {
            let Scale::Linear(top, _) = Scale::linear(most) else { panic!() };
            assert!(top >= most * 0.998 && top <= most * 2.1, "{most}: {top}");
        }
    }

    #[test]
    fn each_nine_is_as_wide_as_the_one_before() {
        let plot = Plot::over_nines("a", "ms", 3.0);
        let at = [0.0, 0.9, 0.99, 0.999, 1.0].map(|quantile| plot.x(quantile));
        assert!((at[1] - at[0] - (at[2] - at[1])).abs() < 0.01, "{at:?}");
        assert!((at[3] - at[4]).abs() < 0.01 && (at[4] - (WIDTH - RIGHT)).abs() < 0.01, "{at:?}");
        let out = drawn(&plot.with(Curve::through("b", vec![Some((0.5, 1.0)), Some((1.0, 2.0))])));
        for label in [">0 %<", ">90 %<", ">99 %<", ">99.9 %<"] {
            assert!(out.contains(label), "{label}: {out}");
        }
    }

    #[test]
    fn the_number_of_a_mark_at_the_end_is_within_the_picture() {
        let mut out = String::new();
        let marks = [(10.0, "the end".to_owned())];
        Strip { until_s: 10.0, shades: &[], marks: &marks }.draw(&mut out);
        let at = out.split("<text x=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(at.parse::<f64>().unwrap() <= WIDTH - LABEL_WIDTH, "{out}");
    }

    #[test]
    fn numbers_of_close_marks_stand_below_one_another() {
        let rows = label_rows(&[100.0, 300.0, 101.0, 125.0, 102.0, 301.0]);
        assert_eq!(rows, [Some(0), Some(0), Some(1), Some(0), Some(2), Some(1)]);
        let crowded = label_rows(&[5.0; 9]);
        assert_eq!(crowded.iter().flatten().count(), LABEL_ROWS_MAX);
    }

    #[test]
    fn a_name_is_cut_where_its_phase_is_short() {
        assert_eq!(["the doors open", "storm"].map(|name| cut(name, 6.0)), ["the d…", "storm"]);
        assert_eq!(cut("the doors open", 2.0), "");
    }

    #[test]
    fn curves_differ_without_colours() {
        let value = [Some(1.0), Some(2.0)];
        let plot = Plot::over_time("a", "", 2.0, &[]);
        let plot = plot.with(Curve::by_step("b", 1.0, &value)).with(Curve::by_step("c", 1.0, &value));
        let out = drawn(&plot);
        assert!(out.contains("stroke-dasharray=\"\"") && out.contains("stroke-dasharray=\"7 3\""), "{out}");
    }
}
