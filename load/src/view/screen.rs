//! The full screen: from a view's state to lines of text. Pure. What is said by a colour is said by a word or a sign, too.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::Stage;
use super::state::{Row, State};
use crate::page::grouped;
use crate::page::plot::clock;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Lines of broken promises that are shown.
const BROKEN_SHOWN: usize = 4;
/// Rows of the table that stay however small the screen is.
const ROWS_MIN: usize = 3;
const NAME_WIDTH: usize = 20;

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    is_coloured: bool,
}

impl Paint {
    /// As the environment wants it: <https://no-color.org>.
    pub(super) fn from_environment() -> Self {
        Self { is_coloured: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    #[cfg(test)]
    pub(super) const fn none() -> Self {
        Self { is_coloured: false }
    }

    fn colour(self, colour: Color) -> Style {
        if self.is_coloured { Style::new().fg(colour) } else { Style::new() }
    }

    fn soft(self) -> Style {
        if self.is_coloured { Style::new().fg(Color::DarkGray) } else { Style::new() }
    }

    fn alarm(self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if self.is_coloured {
            style.fg(Color::White).bg(Color::Red)
        } else {
            style.add_modifier(Modifier::REVERSED)
        }
    }
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

pub(super) fn draw(frame: &mut Frame<'_>, state: &State, paint: Paint) {
    let area = frame.area();
    // A margin of one on both sides, where there is room for it.
    let margin = u16::from(area.width > 40);
    let inner = Rect { x: area.x + margin, width: area.width.saturating_sub(2 * margin), ..area };
    let lines = lines(state, usize::from(inner.width), usize::from(inner.height), paint);
    frame.render_widget(Paragraph::new(lines), inner);
}

/// All lines of a screen of this size: what matters most stays when there is not room for all.
fn lines(state: &State, width: usize, height: usize, paint: Paint) -> Vec<Line<'static>> {
    let mut head = vec![title(state, width), progress(state, width, paint), phase(state, width, paint)];
    head.extend(silence(state, width, paint));
    let broken = broken(state, width, paint);
    let is_broken = !broken.is_empty();
    if is_broken {
        head.push(Line::default());
        head.extend(broken);
    }
    let trails = trails(state, width, paint);
    let mut foot = sessions(state, width, paint);
    foot.extend(server(state, width, paint));
    foot.extend(state.notes.iter().map(|note| Line::from(cut(note, width))));
    if !is_broken && state.silence.is_none() {
        foot.push(Line::from(vec![
            Span::styled("✓ ", paint.colour(Color::Green)),
            Span::raw("no broken promise seen so far"),
            Span::styled("; all of them are judged at the end", paint.soft()),
        ]));
    }
    let fixed = head.len() + trails.len() + foot.len() + 1;
    let rows_max = height.saturating_sub(fixed).max(ROWS_MIN);
    let mut table = vec![table_head(width, paint)];
    table.extend(state.rows.iter().take(rows_max).map(|row| table_row(row, width, paint)));
    // Air between the parts, as far as there is any.
    let mut spare = height.saturating_sub(head.len() + trails.len() + table.len() + foot.len());
    let mut all = head;
    for part in [trails, table, foot] {
        if spare > 0 && !part.is_empty() {
            spare -= 1;
            all.push(Line::default());
        }
        all.extend(part);
    }
    all
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn title(state: &State, width: usize) -> Line<'static> {
    let left = format!("{} · {} bots · seed {}", state.name, grouped(u64::from(state.players)), state.seed);
    let time = format!("{} of {}", clock(state.at.as_secs_f64()), clock(state.length.as_secs_f64()));
    let gap = width.saturating_sub(left.chars().count() + time.chars().count()).max(1);
    Line::from(vec![Span::styled(left, bold()), Span::raw(" ".repeat(gap)), Span::styled(time, bold())])
}

/// The whole run, with a notch where a phase ends.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "columns"
)]
fn progress(state: &State, width: usize, paint: Paint) -> Line<'static> {
    let length = state.length.as_secs_f64().max(0.001);
    let column = |at: f64| ((at / length).clamp(0.0, 1.0) * width as f64) as usize;
    let done = column(state.at.as_secs_f64());
    let notches: Vec<usize> = state.phases.iter().map(|(ends, _)| column(ends.as_secs_f64())).collect();
    let sign = |at: usize| match (at < done, notches.contains(&at) && at > 0) {
        (true, false) => '━',
        (true, true) => '╋',
        (false, false) => '─',
        (false, true) => '┼',
    };
    let part = |from: usize, to: usize| (from..to).map(sign).collect::<String>();
    Line::from(vec![
        Span::styled(part(0, done), paint.colour(Color::Cyan)),
        Span::styled(part(done, width), paint.soft()),
    ])
}

fn phase(state: &State, width: usize, paint: Paint) -> Line<'static> {
    let (number, name) = state.phase();
    let of = if state.phases.len() > 1 && state.stage == Stage::Living {
        format!("phase {number} of {}: ", state.phases.len())
    } else {
        String::new()
    };
    let online = u64::try_from(state.online).unwrap_or(u64::MAX);
    let online = format!("{} of {} online", grouped(online), grouped(u64::from(state.players)));
    let hint = if state.is_ending { "again ^C: at once" } else { "q or ^C: end now" };
    let left = cut(&format!("{of}{name} · {online}"), width.saturating_sub(hint.chars().count() + 1));
    let gap = width.saturating_sub(left.chars().count() + hint.chars().count());
    Line::from(vec![Span::raw(left), Span::raw(" ".repeat(gap)), Span::styled(hint, paint.soft())])
}

fn alarm(text: &str, width: usize, paint: Paint) -> Line<'static> {
    let text = cut(text, width);
    let gap = width.saturating_sub(text.chars().count());
    Line::from(Span::styled(format!("{text}{}", " ".repeat(gap)), paint.alarm()))
}

/// Nobody is answered.
fn silence(state: &State, width: usize, paint: Paint) -> Vec<Line<'static>> {
    let Some((since, long, reason)) = &state.silence else { return Vec::new() };
    let [since, long] = [since, long].map(|time| clock(time.as_secs_f64()));
    let told = format!("   ✗ the server does not answer since {since}, for {long}: {reason}");
    vec![Line::default(), alarm(&told, width, paint)]
}

/// Large, and with who saw it.
fn broken(state: &State, width: usize, paint: Paint) -> Vec<Line<'static>> {
    let count = state.live.broken;
    if count == 0 {
        return Vec::new();
    }
    let bar = |text: String| alarm(&text, width, paint);
    let word = if count == 1 { "PROMISE BROKEN" } else { "PROMISES BROKEN" };
    let mut lines =
        vec![bar(String::new()), bar(format!("   ✗ {} {word}", grouped(count))), bar(String::new())];
    let shown = state.live.first_broken.iter().take(BROKEN_SHOWN);
    lines.extend(shown.map(|(bot, what)| {
        Line::from(Span::styled(cut(&format!("  bot {bot}: {what}"), width), paint.colour(Color::Red)))
    }));
    let more = count.saturating_sub(u64::try_from(BROKEN_SHOWN).unwrap_or(u64::MAX));
    if more > 0 {
        lines.push(Line::from(format!("  and {} more", grouped(more))));
    }
    lines
}

/// What came lately as bars, the latest last; scaled by the highest that is shown.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "one of eight bars")]
fn bars(trail: &VecDeque<f64>, width: usize) -> String {
    let shown = trail.iter().skip(trail.len().saturating_sub(width));
    let most = shown.clone().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        let place = if most > 0.0 { (value / most * 7.0).round() as usize } else { 0 };
        BARS.get(place).copied().unwrap_or('█')
    };
    let drawn: String = shown.map(bar).collect();
    format!("{}{drawn}", " ".repeat(width.saturating_sub(drawn.chars().count())))
}

fn trails(state: &State, width: usize, paint: Paint) -> Vec<Line<'static>> {
    let trail = |name: &str, values: &VecDeque<f64>, colour| {
        let now = values.back().copied().unwrap_or(0.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shown")]
        let now = format!("{:>10}", grouped(now.max(0.0).round() as u64));
        let room = width.saturating_sub(NAME_WIDTH + now.len() + 2);
        Line::from(vec![
            Span::raw(format!("{name:<NAME_WIDTH$}")),
            Span::styled(now, bold()),
            Span::raw("  "),
            Span::styled(bars(values, room), paint.colour(colour)),
        ])
    };
    vec![trail("answers/s", &state.answers, Color::Cyan), trail("pushes/s", &state.pushes, Color::Blue)]
}

/// Which columns fit.
const fn is_wide(width: usize) -> bool {
    width >= 76
}

fn table_head(width: usize, paint: Paint) -> Line<'static> {
    // They are forgotten in two halves of five seconds.
    let name = "ms, last 5 to 10 s";
    let text = if is_wide(width) {
        format!(
            "{name:<NAME_WIDTH$}{:>10}{:>8}{:>9}{:>9}{:>10}{:>10}",
            "in all", "/s", "p50", "p90", "p99", "max"
        )
    } else {
        format!("{name:<NAME_WIDTH$}{:>8}{:>9}{:>10}", "/s", "p50", "p99")
    };
    Line::from(Span::styled(cut(&text, width), paint.soft()))
}

fn table_row(row: &Row, width: usize, paint: Paint) -> Line<'static> {
    let number = |ms: f64| match ms {
        ms if ms >= 1_000.0 => format!("{ms:.0}"),
        ms if ms >= 100.0 => format!("{ms:.1}"),
        ms => format!("{ms:.2}"),
    };
    let [p50, p90, p99, max] =
        row.lately_ms.map_or_else(|| std::array::from_fn(|_| "–".to_owned()), |lately| lately.map(number));
    let kind = format!("{:<NAME_WIDTH$}", cut(row.kind, NAME_WIDTH - 1));
    let (before, after) = if is_wide(width) {
        let before = format!("{:>10}{:>8.0}{p50:>9}{p90:>9}", grouped(row.count), row.rate);
        (before, format!("{max:>10}"))
    } else {
        (format!("{:>8.0}{p50:>9}", row.rate), String::new())
    };
    Line::from(vec![
        Span::raw(kind),
        Span::raw(before),
        Span::styled(format!("{p99:>10}"), bold()),
        Span::styled(after, paint.soft()),
    ])
}

fn named(name: &str, what: String, width: usize, style: Style) -> Line<'static> {
    let what = cut(&what, width.saturating_sub(10));
    Line::from(vec![Span::raw(format!("{name:<10}")), Span::styled(what, style)])
}

fn sessions(state: &State, width: usize, paint: Paint) -> Vec<Line<'static>> {
    let [logins, resumes] = state.sessions();
    let closes = state.live.closes.iter().map(|(code, count)| match code.as_str() {
        "own" => format!("own {}", grouped(*count)),
        "none" => format!("without a code {}", grouped(*count)),
        code => format!("{code} {}", grouped(*count)),
    });
    let closes: Vec<String> = closes.collect();
    let closes = if closes.is_empty() { "none".to_owned() } else { closes.join(" · ") };
    let sessions =
        format!("{} logins · {} resumes · links ended: {closes}", grouped(logins), grouped(resumes));
    let mut lines = vec![named("sessions", sessions, width, Style::new())];
    let mut refused: Vec<String> =
        state.live.refused.iter().map(|(code, count)| format!("{code} {}", grouped(*count))).collect();
    if state.shed > 0 {
        refused.push(format!("shed {}", grouped(state.shed)));
    }
    if !refused.is_empty() {
        lines.push(named("refused", refused.join(" · "), width, paint.colour(Color::Yellow)));
    }
    lines
}

fn server(state: &State, width: usize, paint: Paint) -> Vec<Line<'static>> {
    let Some(look) = &state.server else { return Vec::new() };
    #[allow(clippy::cast_precision_loss, reason = "shown")]
    let mebibytes = |bytes: u64| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20));
    let small = 8;
    let mut server = Vec::new();
    if let Some(bytes) = look.memory_bytes {
        server.push(format!("{} {}", mebibytes(bytes), bars(&state.memory, small).trim_start()));
    }
    if let Some(cores) = look.cpu_cores {
        server.push(format!("{cores:.2} cores {}", bars(&state.cpu, small).trim_start()));
    }
    server.extend(look.links.map(|links| format!("{} links", grouped(links))));
    server.extend(look.flush_lag_ms.map(|lag| format!("flush lag {lag:.0} ms")));
    let mut lines = Vec::new();
    if !server.is_empty() {
        lines.push(named("server", server.join(" · "), width, Style::new()));
    } else if state.has_told_of_server {
        let told = "tells nothing of itself now".to_owned();
        lines.push(named("server", told, width, paint.colour(Color::Yellow)));
    }
    let mut bots = Vec::new();
    bots.extend(look.bots_memory_bytes.map(mebibytes));
    bots.extend(look.bots_cpu_cores.map(|cores| format!("{cores:.2} cores")));
    if !bots.is_empty() {
        lines.push(named("bots", bots.join(" · "), width, paint.soft()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser as _;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::board::Board;
    use crate::options::Options;
    use crate::server::Look;

    fn board() -> Board {
        let board = Board::new(Options::try_parse_from(["load", "steady", "--quiet"]).unwrap());
        for kind in [
            "write applied",
            "write durable",
            "presence",
            "presence to watcher",
            "read",
            "login",
            "resume",
            "watch",
        ] {
            (1..=50).for_each(|ms| board.live.took(kind, ms * 1_000));
        }
        ["own", "4003", "none"].into_iter().for_each(|code| board.live.closes(code.to_owned()));
        board.live.refuses("rate_limited");
        let look = Look {
            memory_bytes: Some(128 << 20),
            cpu_cores: Some(0.5),
            links: Some(100),
            bots_cpu_cores: Some(0.25),
            ..Look::default()
        };
        board.looks(look, 9);
        board
    }

    fn shown(board: &Board, width: u16, height: u16) -> String {
        let mut state = State::new(board);
        state.refresh(board, Stage::Living, board.began + Duration::from_secs(20));
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &state, Paint::none())).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let rows = buffer.content.chunks(usize::from(width));
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    #[test]
    fn all_that_matters_is_on_a_small_screen() {
        let text = shown(&board(), 80, 24);
        for told in [
            "steady · 100 bots · seed 1",
            "0:20 of 1:00",
            "0 of 100 online",
            "answers/s",
            "write applied",
            "presence to watcher",
            "ms, last 5 to 10 s      in all",
            "50 logins · 50 resumes",
            "4003 1",
            "rate_limited 1",
            "128 MiB",
            "0.50 cores",
            "no broken promise seen so far",
        ] {
            assert!(text.contains(told), "{told} is not in\n{text}");
        }
    }

    #[test]
    fn a_broken_promise_is_large_and_says_who_saw_it() {
        let board = board();
        (0..9).for_each(|bot| board.live.breaks(bot, "push 7 came where 5 was due".to_owned()));
        for (width, height) in [(80, 24), (200, 60), (60, 18)] {
            let text = shown(&board, width, height);
            for told in ["✗ 9 PROMISES BROKEN", "bot 0: push 7 came where 5 was due", "and 5 more"] {
                assert!(text.contains(told), "{told} is not in\n{text}");
            }
            assert!(!text.contains("no broken promise"), "{text}");
        }
    }

    #[test]
    fn a_server_that_is_silent_is_shown_and_nothing_is_green_then() {
        let board = board();
        board.answers();
        board.fails(board.began + Duration::from_secs(5), "connection refused");
        board.looks(Look { bots_cpu_cores: Some(0.1), ..Look::default() }, 9);
        let text = shown(&board, 80, 24);
        for told in [
            "✗ the server does not answer since 0:05, for 0:15: connection refused",
            "tells nothing of itself",
        ] {
            assert!(text.contains(told), "{told} is not in\n{text}");
        }
        assert!(!text.contains("no broken promise seen"), "{text}");
    }

    #[test]
    fn any_size_can_be_drawn() {
        let board = board();
        board.live.breaks(1, "x".repeat(300));
        for (width, height) in [(1, 1), (10, 3), (41, 10), (79, 23), (300, 100)] {
            shown(&board, width, height);
        }
    }

    #[test]
    fn bars_are_as_high_as_what_they_show() {
        assert_eq!(bars(&VecDeque::from([0.0, 3.5, 7.0]), 5), "  ▁▅█");
        assert_eq!(bars(&VecDeque::from([1.0, 7.0, 7.0]), 2), "██");
        assert_eq!(bars(&VecDeque::new(), 2), "  ");
    }
}
