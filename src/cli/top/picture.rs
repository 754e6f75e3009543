//! What is shown: the last overview, how it came to be so over the last minutes, what is in the way of a newer one, and what
//! whoever looks has chosen to see. Pure: the shell tells it what was answered and which keys were pressed, the board
//! draws it. Bounded by what an answer may have.

use std::time::Duration;

use protocol::calls::Overview;

use super::alarms::{FirstSeen, Ringing, blind, ringing, seen};
use super::nodes::Sort;
use super::past::{Past, Sample};
use super::shards::Held;

/// Between two questions.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// Between two tries where nobody answers, one after the other; the last one stays.
const TRIES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(3), Duration::from_secs(5)];
/// What only a change at the server mends is not asked for so often.
const REFUSED: Duration = Duration::from_secs(10);

/// How long to wait after so many failures in a row, at least one.
pub(super) fn pause_after(failures: usize, is_outside: bool) -> Duration {
    let at = failures.saturating_sub(1).min(TRIES.len() - 1);
    if is_outside { TRIES.get(at).copied().unwrap_or(REFUSED) } else { REFUSED }
}

/// What can be longer than its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum List {
    Alarms,
    #[default]
    Nodes,
    Changes,
    Rooms,
    Slow,
}

/// In the order in which they stand on the screen.
const LISTS: [List; 5] = [List::Alarms, List::Nodes, List::Changes, List::Rooms, List::Slow];

/// What somebody has pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    /// Closes what is open, or else ends.
    Back,
    Help,
    /// Asks now.
    Again,
    Sort,
    NextList,
    PreviousList,
    Down,
    Up,
    PageDown,
    PageUp,
    First,
    Last,
}

/// What the shell is to do then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Draw,
    Ask,
    End,
}

/// Why there is nothing newer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) why: String,
    /// When the next try begins, since the first look.
    pub(super) next: Duration,
}

/// All that is shown.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    /// Who is asked.
    pub(super) url: String,
    /// Its nodes are in the order that is chosen.
    pub(super) overview: Overview,
    /// When that came, since the first look.
    pub(super) told_at: Duration,
    pub(super) trouble: Option<Trouble>,
    pub(super) ringing: Vec<Ringing>,
    /// What is wrong, if it lasts.
    pub(super) pending: Vec<Ringing>,
    /// The nodes at which no alarm can ring.
    pub(super) blind: Vec<String>,
    pub(super) held: Held,
    pub(super) past: Past,
    pub(super) sort: Sort,
    pub(super) list: List,
    pub(super) has_help: bool,
    /// How many lines of the help are above what is shown, and how many had a place when it was drawn last.
    help_offset: usize,
    help_shown: usize,
    /// It is to be read as text: there is nothing to choose, and nothing to wait for.
    pub(super) is_plain: bool,
    /// How many rows of each list are above what is shown. The board takes back what is too much.
    offsets: [usize; LISTS.len()],
    /// How many rows of each had a place when it was drawn last.
    shown: [usize; LISTS.len()],
    first_seen: FirstSeen,
}

impl Picture {
    /// `lasts`: how long what is seen here must last to count.
    pub(super) fn new(url: &str, overview: Overview, lasts: Duration) -> Self {
        let mut picture = Self {
            url: url.to_owned(),
            overview: Overview::default(),
            told_at: Duration::ZERO,
            trouble: None,
            ringing: Vec::new(),
            pending: Vec::new(),
            blind: Vec::new(),
            held: Held::default(),
            past: Past::default(),
            sort: Sort::default(),
            list: List::default(),
            has_help: false,
            help_offset: 0,
            help_shown: 0,
            is_plain: false,
            offsets: [0; LISTS.len()],
            shown: [0; LISTS.len()],
            first_seen: FirstSeen::new(lasts),
        };
        picture.told(overview, Duration::ZERO);
        picture
    }

    /// An answer came. `at`: since the first look.
    pub(super) fn told(&mut self, overview: Overview, at: Duration) {
        self.held = Held::of(&overview);
        let (lasting, pending) = self.first_seen.lasting(seen(&overview, &self.held), at, overview.as_of);
        (self.ringing, self.pending, self.blind) = (ringing(&overview, lasting), pending, blind(&overview));
        self.past.add(Sample {
            at,
            acks: overview.rates.map(|rates| rates.acks),
            applied_p99: overview.latency_ms.applied.p99,
        });
        (self.overview, self.told_at, self.trouble) = (overview, at, None);
        self.sort.sort(&mut self.overview.nodes);
    }

    /// None came, and the next try begins at `next`.
    pub(super) fn failed(&mut self, why: String, next: Duration) {
        self.trouble = Some(Trouble { why, next });
    }

    /// Somebody pressed a key.
    pub(super) fn press(&mut self, key: Key) -> Wish {
        let page = self.page();
        match key {
            Key::Quit => return Wish::End,
            Key::Back if !self.has_help => return Wish::End,
            Key::Back => self.has_help = false,
            Key::Help => (self.has_help, self.help_offset) = (!self.has_help, 0),
            Key::Again => return Wish::Ask,
            Key::Sort => {
                self.sort = self.sort.next();
                self.sort.sort(&mut self.overview.nodes);
            }
            Key::NextList => self.choose(1),
            Key::PreviousList => self.choose(LISTS.len() - 1),
            Key::Down => self.scroll(|offset| offset.saturating_add(1)),
            Key::Up => self.scroll(|offset| offset.saturating_sub(1)),
            Key::PageDown => self.scroll(|offset| offset.saturating_add(page)),
            Key::PageUp => self.scroll(|offset| offset.saturating_sub(page)),
            Key::First => self.scroll(|_| 0),
            Key::Last => self.scroll(|_| usize::MAX),
        }
        Wish::Draw
    }

    fn scroll(&mut self, to: impl Fn(usize) -> usize) {
        if self.has_help {
            self.help_offset = to(self.help_offset);
            return;
        }
        self.set_offset(self.list, to(self.offset(self.list)));
    }

    /// The next list that has anything, so many steps further around.
    fn choose(&mut self, step: usize) {
        let mut at = LISTS.iter().position(|list| *list == self.list).unwrap_or_default();
        for _ in 0..LISTS.len() {
            at = (at + step) % LISTS.len();
            let Some(list) = LISTS.get(at).copied().filter(|list| self.rows(*list) > 0) else { continue };
            self.list = list;
            return;
        }
    }

    /// How many rows a list has.
    pub(super) fn rows(&self, list: List) -> usize {
        match list {
            // Of an alarm, what each of its nodes says.
            List::Alarms => self.ringing.iter().map(|one| one.said.len().max(1)).sum(),
            List::Nodes => self.overview.nodes.len(),
            List::Changes => self.held.changes.len(),
            List::Rooms => self.overview.top_rooms.len(),
            List::Slow => self.overview.slow_consumers.len(),
        }
    }

    /// How many of its rows are above what is shown, where `places` of them are; kept, so that whoever scrolls back does
    /// so from what is seen.
    pub(super) fn placed(&mut self, list: List, places: usize) -> usize {
        let offset = self.offset(list).min(self.rows(list).saturating_sub(places.max(1)));
        self.set_offset(list, offset);
        if let Some(shown) = place(list).and_then(|at| self.shown.get_mut(at)) {
            *shown = places;
        }
        offset
    }

    /// How many of so many lines of the help are above what is shown, where `places` of them are; kept.
    pub(super) fn placed_help(&mut self, lines: usize, places: usize) -> usize {
        self.help_offset = self.help_offset.min(lines.saturating_sub(places.max(1)));
        self.help_shown = places;
        self.help_offset
    }

    /// How many rows a page of what is chosen has.
    fn page(&self) -> usize {
        if self.has_help {
            return self.help_shown.max(1);
        }
        place(self.list).and_then(|at| self.shown.get(at)).copied().unwrap_or_default().max(1)
    }

    fn offset(&self, list: List) -> usize {
        place(list).and_then(|at| self.offsets.get(at)).copied().unwrap_or_default()
    }

    fn set_offset(&mut self, list: List, rows: usize) {
        if let Some(offset) = place(list).and_then(|at| self.offsets.get_mut(at)) {
            *offset = rows;
        }
    }
}

fn place(list: List) -> Option<usize> {
    LISTS.iter().position(|known| *known == list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::calls::{NodeOverview, TopRoom};

    fn picture() -> Picture {
        let node = |name: usize| NodeOverview {
            node: format!("n{name}"),
            state: "up".into(),
            ..NodeOverview::default()
        };
        let room = TopRoom { room: "r".into(), members: None, pushes: 1.0 };
        let overview =
            Overview { nodes: (0..9).map(node).collect(), top_rooms: vec![room], ..Overview::default() };
        Picture::new("http://a", overview, Duration::ZERO)
    }

    #[test]
    fn whoever_scrolls_stays_within_what_there_is() {
        let mut picture = picture();
        assert_eq!(picture.placed(List::Nodes, 4), 0);
        picture.press(Key::Up);
        assert_eq!(picture.placed(List::Nodes, 4), 0);
        picture.press(Key::Last);
        assert_eq!((picture.placed(List::Nodes, 4), picture.page()), (5, 4));
        picture.press(Key::Up);
        picture.press(Key::Up);
        assert_eq!(picture.placed(List::Nodes, 4), 3);
        picture.press(Key::PageUp);
        picture.press(Key::PageDown);
        assert_eq!(picture.placed(List::Nodes, 4), 4);
        // A higher terminal.
        assert_eq!(picture.placed(List::Nodes, 8), 1);
        assert_eq!(picture.placed(List::Nodes, 20), 0);
    }

    #[test]
    fn only_what_has_rows_is_chosen() {
        let mut picture = picture();
        let mut chosen = Vec::new();
        for key in [Key::NextList, Key::NextList, Key::PreviousList] {
            assert_eq!(picture.press(key), Wish::Draw);
            chosen.push(picture.list);
        }
        assert_eq!(chosen, [List::Rooms, List::Nodes, List::Rooms]);
        let mut empty = Picture::new("http://a", Overview::default(), Duration::ZERO);
        empty.press(Key::NextList);
        assert_eq!(empty.list, List::Nodes);
    }

    #[test]
    fn escape_closes_the_help_first() {
        let mut picture = picture();
        picture.press(Key::Help);
        assert_eq!((picture.press(Key::Back), picture.press(Key::Back)), (Wish::Draw, Wish::End));
        assert_eq!((picture.press(Key::Again), picture.press(Key::Quit)), (Wish::Ask, Wish::End));
    }

    #[test]
    fn who_does_not_answer_is_asked_ever_more_rarely_to_a_bound() {
        let pauses: Vec<u64> = (1..8).map(|failures| pause_after(failures, true).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 3, 5, 5, 5, 5]);
        assert_eq!(pause_after(1, false), REFUSED);
    }
}
