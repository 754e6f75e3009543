//! What the watch promises, on recorded series: calm on a day's wave and on a launch, and each alarm soon after its fault
//! and gone after it.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::telemetry::process::Process;

fn limits() -> Limits {
    Limits {
        error_share: 0.05,
        latency_s: 1.0,
        latency_factor: 5.0,
        latency_floor_s: 0.2,
        traffic_factor: 2.0,
        traffic_floor_per_s: 200.0,
        commit_s: 0.5,
        flush_interval_s: 0.1,
        hot_room_share: 0.5,
        hot_room_floor_per_s: 2_000.0,
        logins_refused_per_s: 5.0,
        slow_readers: 5,
        leak_window_ms: 6_000,
        leak_floor: 50,
        mail_lag_s: 3.0,
        bad_clients_per_s: 5.0,
        begins_after: 3,
        ends_after: 15,
    }
}

/// Seconds after which the watch knows what is usual.
const LEARNT: u32 = 310;

/// A node that lives by the second.
struct Node {
    watch: Watch,
    now: Reading,
    /// What it does a second.
    load: Load,
}

/// A second of a node.
#[derive(Debug, Clone)]
struct Load {
    acks: u64,
    failed: u64,
    logins_refused: u64,
    pushes: u64,
    slow: u64,
    bad_clients: u64,
    /// How long most acks take, and how many take how much longer.
    ack_s: f64,
    slow_acks: (u64, f64),
    commit_s: f64,
    sessions: i64,
    players: i64,
    descriptors: i64,
    hottest: u64,
    breaker: u8,
    mail_lag_ms: u64,
    unreached: u64,
    leases_lost: u64,
    store_lost_shards: u64,
    vanished: Option<&'static str>,
}

impl Load {
    /// An ordinary one.
    const fn calm() -> Self {
        Self {
            acks: 1_000,
            failed: 5,
            logins_refused: 0,
            pushes: 10_000,
            slow: 0,
            bad_clients: 0,
            ack_s: 0.002,
            slow_acks: (0, 0.0),
            commit_s: 0.01,
            sessions: 0,
            players: 0,
            descriptors: 0,
            hottest: 1_000,
            breaker: 0,
            mail_lag_ms: 0,
            unreached: 0,
            leases_lost: 0,
            store_lost_shards: 0,
            vanished: None,
        }
    }
}

/// The steps of durations, as the metrics have them.
const STEPS: &[f64] =
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, f64::INFINITY];

/// So many values of this length.
fn take(spread: &mut Spread, seconds: f64, count: u64) {
    STEPS.iter().for_each(|step| spread.add(*step, if seconds <= *step { count } else { 0 }));
}

impl Node {
    fn new() -> Self {
        let process = Process { descriptors: Some(6_000), ..Process::default() };
        let now = Reading {
            unix_ms: 1_764_320_000_000,
            sessions: 5_000,
            players: 5_000,
            links: 5_000,
            process,
            ..Reading::default()
        };
        Self { watch: Watch::new(limits()), now, load: Load::calm() }
    }

    /// One second passes; what it changed, by name.
    fn second(&mut self) -> Vec<String> {
        let Load { slow_acks: (slow_acks, slow_s), .. } = self.load;
        let (load, now) = (&self.load, &mut self.now);
        now.mono_ms += 1_000;
        now.unix_ms += 1_000;
        let totals = &mut now.totals;
        totals.acks += load.acks;
        totals.failed += load.failed;
        totals.logins_refused += load.logins_refused;
        totals.pushes += load.pushes;
        totals.slow += load.slow;
        totals.bad_clients += load.bad_clients;
        totals.leases_run_out += load.leases_lost;
        totals.shards_lost += load.leases_lost;
        totals.unreached = load.unreached;
        totals.breakers = vec![("redis://10.0.0.1:6379".to_owned(), load.breaker)];
        take(&mut totals.applied, load.ack_s, load.acks / 16);
        take(&mut totals.applied, slow_s, slow_acks);
        take(&mut totals.commit, load.commit_s, 10);
        let moved = |count: u64, by: i64| count.saturating_add_signed(by);
        now.sessions = moved(now.sessions, load.sessions);
        now.players = moved(now.players, load.players);
        now.links = moved(now.links, load.players);
        now.process.descriptors = now.process.descriptors.map(|count| moved(count, load.descriptors));
        now.mail_lag_ms = load.mail_lag_ms;
        now.rooms = vec![("guild".into(), load.hottest), ("lobby".into(), 100)];
        now.store_lost_shards = load.store_lost_shards;
        now.vanished = load.vanished.map(str::to_owned).into_iter().collect();
        let changes = self.watch.take(now.clone());
        changes.iter().map(named).collect()
    }

    /// Seconds pass; what they changed, with when.
    fn seconds(&mut self, count: u32) -> Vec<(u32, String)> {
        (1..=count).flat_map(|at| self.second().into_iter().map(move |change| (at, change))).collect()
    }
}

fn named(change: &Change) -> String {
    match change {
        Change::Began(alarm) => format!("+{}", alarm.name),
        Change::Ended(alarm) => format!("-{}", alarm.name),
    }
}

/// What goes wrong in a second.
type Breaks = fn(&mut Load);

/// What goes wrong, alone.
const FAULTS: &[(&str, Breaks)] = &[
    (names::ERROR_RATE, |load| load.failed = 300),
    (names::LATENCY, |load| load.slow_acks = (20, 3.0)),
    (names::TRAFFIC, |load| load.acks = 4_000),
    (names::STORE_SLOW, |load| load.commit_s = 1.3),
    (names::STORE_DOWN, |load| load.breaker = 3),
    (names::STORE_LOST, |load| load.store_lost_shards = 78),
    (names::HOT_ROOM, |load| (load.pushes, load.hottest) = (100_000, 91_000)),
    (names::LOGIN_FLOOD, |load| load.logins_refused = 50),
    (names::SLOW_READERS, |load| load.slow = 8),
    (names::SESSION_LEAK, |load| load.sessions = 200),
    (names::SESSION_LEAK, |load| load.descriptors = 200),
    (names::NODE_LOST, |load| load.vanished = Some("node-3")),
    (names::LEASE_LOST, |load| load.leases_lost = 4),
    (names::MAIL_LAG, |load| load.mail_lag_ms = 6_000),
    (names::MAIL_LAG, |load| load.unreached = 2),
    (names::BAD_CLIENT, |load| load.bad_clients = 40),
];

#[test]
fn each_alarm_begins_within_ten_seconds_of_its_fault_and_ends_after_it() {
    for (name, breaks) in FAULTS {
        let mut node = Node::new();
        assert_eq!(node.seconds(LEARNT), [], "{name}: before");
        breaks(&mut node.load);
        let begun = node.seconds(30);
        let [(at, told)] = begun.as_slice() else { panic!("{name}: {begun:?}") };
        assert_eq!(*told, format!("+{name}"));
        assert!(*at <= 10, "{name}: after {at} s");
        let alarm = node.watch.alarms().next().expect("it is on").clone();
        assert!(alarm.value > alarm.limit && !alarm.text.is_empty() && !alarm.advice.is_empty(), "{alarm:?}");
        assert_eq!(alarm.since_unix_ms, 1_764_320_000_000 + u64::from(LEARNT + at) * 1_000);
        assert!(!alarm.is_ending, "{alarm:?}");
        node.load = Load::calm();
        let ended = node.seconds(120);
        assert_eq!(ended.iter().map(|(_, told)| told.as_str()).collect::<Vec<_>>(), [format!("-{name}")]);
        assert!(ended[0].0 >= 15, "{name}: ends after {} s", ended[0].0);
        assert_eq!(node.watch.alarms().count(), 0);
    }
}

#[test]
fn every_name_has_a_rule_and_every_rule_a_fault_here() {
    let rules: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(rules, names::ALL);
    for name in names::ALL {
        assert!(FAULTS.iter().any(|(known, _)| known == name), "{name}");
    }
}

#[test]
fn what_is_off_its_own_baseline_is_told_below_the_fixed_limit() {
    let mut node = Node::new();
    assert_eq!(node.seconds(LEARNT), []);
    node.load.slow_acks = (20, 0.45);
    assert_eq!(node.seconds(10), [(3, "+latency".to_owned())]);
    let text = &node.watch.alarms().next().unwrap().text;
    assert!(text.contains("now that 0.00"), "{text}");
}

#[test]
fn what_is_not_known_is_not_said() {
    let alarm = |breaks: Breaks| {
        let mut node = Node::new();
        node.seconds(30);
        breaks(&mut node.load);
        node.seconds(10);
        node.watch.alarms().next().expect("it is on").clone()
    };
    let text = alarm(|load| load.slow_acks = (20, 3.0)).text;
    assert!(text.ends_with("1.000 s is the limit, while it is not yet known what is usual"), "{text}");
    let unreached = alarm(|load| load.unreached = 2);
    assert_eq!((unreached.value, unreached.limit, unreached.unit), (2.0, 0.0, "nodes"));
    assert_eq!(unreached.text, "live nodes to which there is no link: 2; letters to them wait");
    let both = alarm(|load| (load.unreached, load.mail_lag_ms) = (1, 6_000));
    assert_eq!((both.value, both.limit, both.unit), (6.0, 3.0, "seconds"));
    assert!(both.text.ends_with("no link at all: 1"), "{}", both.text);
}

#[test]
fn a_store_that_has_lost_what_it_acknowledged_rings_at_once_and_says_what_is_gone() {
    let mut node = Node::new();
    assert_eq!(node.seconds(30), []);
    node.load.store_lost_shards = 1;
    assert_eq!(node.seconds(1), [(1, "+store_lost".to_owned())]);
    let told = |node: &Node| node.watch.alarms().next().expect("it is on").clone();
    assert!(told(&node).text.ends_with("1 shard was written again from memory so far"), "{:?}", told(&node));
    // The others follow, and it stays for as long as it is told.
    node.load.store_lost_shards = 78;
    assert_eq!(node.seconds(600), []);
    let alarm = told(&node);
    assert_eq!((alarm.severity, alarm.value, alarm.unit), (Severity::Critical, 78.0, "shards"));
    assert!(alarm.text.ends_with("78 shards were written again from memory so far"), "{}", alarm.text);
    for gone in ["kept for players who are away", "blobs", "counters", "lock"] {
        assert!(alarm.advice.contains(gone), "{}", alarm.advice);
    }
    node.load.store_lost_shards = 0;
    assert_eq!(node.seconds(60), [(15, "-store_lost".to_owned())]);
}

#[test]
fn what_holds_no_more_is_told_as_ending_until_it_ends_or_is_bad_again() {
    let mut node = Node::new();
    node.seconds(30);
    node.load.breaker = 3;
    node.seconds(10);
    let told = |node: &Node| node.watch.alarms().map(|alarm| (alarm.is_ending, alarm.value)).next();
    assert_eq!(told(&node), Some((false, 1.0)));
    node.load.breaker = 0;
    node.seconds(5);
    assert_eq!(told(&node), Some((true, 1.0)), "with what it said");
    node.load.breaker = 2;
    node.seconds(1);
    assert_eq!(told(&node), Some((false, 1.0)));
    node.load.breaker = 0;
    assert_eq!(node.seconds(14), []);
    assert_eq!(told(&node), Some((true, 1.0)));
    assert_eq!(node.seconds(1), [(1, "-store_down".to_owned())]);
    assert_eq!(told(&node), None);
}

#[test]
fn what_is_told_of_one_is_told_as_of_one() {
    let told = |breaks: fn(&mut Node)| {
        let mut node = Node::new();
        node.seconds(30);
        breaks(&mut node);
        node.seconds(10);
        let alarm = node.watch.alarms().next().expect("it is on");
        (alarm.unit, alarm.text.clone())
    };
    let [one, more] =
        [told(|node| node.now.totals.held_back = 1), told(|node| node.now.totals.held_back = 83)];
    assert_eq!(one, ("shards", "the store does not take what is changed: 1 shard is held back".to_owned()));
    assert_eq!(
        more,
        ("shards", "the store does not take what is changed: 83 shards are held back".to_owned())
    );
    let (unit, text) = told(|node| node.load.breaker = 3);
    assert_eq!((unit, text.ends_with(": redis://10.0.0.1:6379")), ("servers", true), "{text}");
    let (_, text) = told(|node| {
        node.load.leases_lost = 1;
        node.second();
        node.load.leases_lost = 0;
    });
    assert!(text.starts_with("1 shard has lost its lease within the last minute: its players"), "{text}");
    let (unit, text) = told(|node| node.load.descriptors = 200);
    assert!(unit == "descriptors" && text.contains(" descriptors more than before"), "{text}");
}

#[test]
fn who_floods_and_who_has_no_manners_is_named() {
    let mut node = Node::new();
    node.seconds(30);
    (node.load.logins_refused, node.load.bad_clients) = (50, 40);
    node.now.flooding = Refused { all: 50, addresses: vec![("203.0.113.7".into(), 46), ("::/64".into(), 4)] };
    node.seconds(20);
    let texts: Vec<String> = node.watch.alarms().map(|alarm| alarm.text.clone()).collect();
    let [flood, nonsense] = texts.as_slice() else { panic!("{texts:?}") };
    assert!(flood.ends_with("5.0 is the limit; 203.0.113.7: 92 % of them, ::/64: 8 % of them"), "{flood}");
    assert!(nonsense.ends_with("; no address makes a share of them that is worth naming"), "{nonsense}");
}

#[test]
fn a_small_server_stays_calm() {
    let mut node = Node::new();
    node.load = Load { acks: 2, failed: 0, pushes: 4, hottest: 4, ..Load::calm() };
    assert_eq!(node.seconds(LEARNT), []);
    // Fifty times as much, half of it fails, one room has all of it, one reader is slow: of next to nothing.
    node.load = Load { acks: 100, pushes: 100, hottest: 100, ..node.load };
    assert_eq!(node.seconds(60), []);
    node.load = Load { acks: 1, failed: 1, bad_clients: 1, logins_refused: 1, ..node.load };
    assert_eq!(node.seconds(60), []);
}

#[test]
fn a_few_failures_are_no_rate() {
    let mut node = Node::new();
    node.load = Load { acks: 4, failed: 0, ..Load::calm() };
    assert_eq!(node.seconds(30), []);
    // Four of forty in each window.
    for _ in 0..10 {
        node.load.failed = 4;
        assert_eq!(node.seconds(1), []);
        node.load.failed = 0;
        assert_eq!(node.seconds(9), []);
    }
    node.load.failed = 1;
    assert!(node.seconds(15).iter().any(|(_, told)| told == "+error_rate"));
}

#[test]
fn traffic_that_stays_rings_for_ten_minutes_and_none_rings_soon_after_a_start() {
    let mut node = Node::new();
    node.seconds(60);
    node.load.acks = 4_000;
    assert_eq!(node.seconds(600), [], "players come back after a start");
    node.load.acks = 30_000;
    let told = node.seconds(3_600);
    let [(begun, first), (ended, second)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((first.as_str(), second.as_str()), ("+traffic", "-traffic"));
    assert!((590..640).contains(&(ended - begun)), "{begun} {ended}");
}

#[test]
fn a_store_that_is_away_is_not_called_slow_as_well() {
    let mut node = Node::new();
    node.seconds(30);
    (node.load.breaker, node.load.commit_s) = (3, 3.0);
    assert_eq!(node.seconds(60), [(3, "+store_down".to_owned())]);
}

#[test]
fn players_who_come_with_their_sessions_are_no_leak() {
    let mut node = Node::new();
    (node.load.sessions, node.load.players, node.load.descriptors) = (300, 300, 300);
    assert_eq!(node.seconds(300), []);
    // Another device for some of them.
    (node.load.sessions, node.load.players, node.load.descriptors) = (310, 300, 300);
    assert_eq!(node.seconds(300), []);
    // An evening on which all have two.
    (node.load.sessions, node.load.players, node.load.descriptors) = (600, 300, 300);
    assert_eq!(node.seconds(300), []);
}

/// One second of a day, a share of its height, 0 to 1, with noise as real nodes have it.
fn noisy(share: f64, rng: &mut StdRng) -> Load {
    let about = |value: f64, rng: &mut StdRng| (value * rng.random_range(0.8..1.2)) as u64;
    let acks = about(2_000.0 * share, rng).max(1);
    Load {
        acks,
        failed: acks * rng.random_range(0..20) / 1_000,
        logins_refused: u64::from(rng.random_bool(0.2)),
        pushes: about(20_000.0 * share, rng),
        slow: u64::from(rng.random_bool(0.1)),
        bad_clients: rng.random_range(0..4),
        ack_s: rng.random_range(0.001..0.004) * (1.0 + share),
        slow_acks: (u64::from(rng.random_bool(0.1)), rng.random_range(0.01..0.25)),
        commit_s: rng.random_range(0.005..0.05),
        hottest: about(4_000.0 * share, rng),
        mail_lag_ms: rng.random_range(0..2_100),
        ..Load::calm()
    }
}

#[test]
fn a_days_wave_rings_nothing() {
    let (mut node, mut rng) = (Node::new(), StdRng::seed_from_u64(1));
    let day = 86_400;
    let share = |at: u32| 0.55 - 0.45 * (f64::from(at) * std::f64::consts::TAU / f64::from(day)).cos();
    let mut told = Vec::new();
    for at in 0..day {
        let players = (10_000.0 * (share(at + 1) - share(at))).round() as i64 + rng.random_range(-3..=3);
        // Some have two devices.
        let sessions = players + i64::from(rng.random_bool(0.5)) - i64::from(rng.random_bool(0.5));
        node.load = Load { players, sessions, descriptors: players, ..noisy(share(at), &mut rng) };
        told.extend(node.second());
    }
    assert_eq!(told, Vec::<String>::new());
}

#[test]
fn a_launch_that_grows_more_slowly_than_the_limit_rings_nothing() {
    let (mut node, mut rng) = (Node::new(), StdRng::seed_from_u64(2));
    let mut told = Vec::new();
    // Twice as much every quarter of an hour, for two hours: 250 times as much in the end.
    for at in 0..7_200_u32 {
        let share = 0.02 * (f64::from(at) / 900.0).exp2();
        let players = (share * 8.0) as i64;
        node.load = Load { players, sessions: players, descriptors: players, ..noisy(share, &mut rng) };
        told.extend(node.second());
    }
    assert_eq!(told, Vec::<String>::new());
    // And one that does not is told.
    node.load.acks *= 3;
    assert!(node.seconds(10).iter().any(|(_, told)| told == "+traffic"));
}

#[test]
fn a_number_that_stays_about_its_limit_rings_once() {
    let (mut node, mut rng) = (Node::new(), StdRng::seed_from_u64(3));
    node.seconds(60);
    let mut told = Vec::new();
    for _ in 0..1_000 {
        node.load.bad_clients = rng.random_range(4..8);
        told.extend(node.second());
    }
    assert_eq!(told, ["+bad_client"]);
}
