//! Whole pictures: what an operator sees of clusters that are well, in trouble, empty and gone, on terminals of all sizes.

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::cli::ask::read;
use crate::cli::top::alarms::LASTS;
use crate::cli::top::picture::{Key, Wish};
use protocol::calls::Overview;
use serde_json::{Value, json};

/// 22:13:20 UTC.
const AS_OF: u64 = 1_700_000_000_000;

fn node(name: &str, sessions: usize) -> Value {
    json!({"node": name, "state": "up", "started_at": AS_OF - 3_600_000, "version": "0.1.0", "shards": 85,
        "links": sessions - 4, "sessions": sessions, "records": sessions + 100, "dirty": 7, "flush_lag_ms": 40,
        "mail_lag_ms": 2, "acks": 1_234.5, "applied_p99_ms": 1.25, "memory_bytes": 134_217_728, "cpu_percent": 12.5,
        "breakers": [{"endpoint": "redis:6379", "state": "closed"}], "local": false, "paused": false})
}

fn alarm(name: &str, node: &str, severity: &str, ago_s: u64) -> Value {
    json!({"name": name, "node": node, "severity": severity, "since": AS_OF - 1_000 * ago_s, "value": 1.5, "limit": 1.0,
        "unit": "seconds", "text": format!("The slowest hundredth of what {node} answers takes too long."),
        "do": "Look at the store's latency first; if that is well, at the processor time of this node and at its largest rooms, and then at its neighbours."})
}

/// Three nodes on Redis, with two alarms; one hands shards over to another.
fn cluster() -> Value {
    let leaving = [168, 169, 170].map(|shard| json!({"shard": shard, "state": "handing_over", "to": "n3"}));
    json!({
        "as_of": AS_OF, "node": "n1", "version": "0.1.0",
        "players": {"online": 1204, "by_status": {"online": 800, "playing": 300, "busy": 4, "away": 100}, "by_device": {}},
        "sessions": 1250, "links": 1238, "rooms": 44,
        "rates": {"acks": 3_703.5, "logins": 3.25, "resumes": 1.0, "pushes": 40_123.0, "refused": 2.0, "service_calls": 12.0},
        "latency_ms": {"applied": {"p50": 0.125, "p99": 1.25}, "durable": {"p50": 3.1, "p99": 9.0},
            "commit": {"p50": 1.2, "p99": 8.0}, "service": {}},
        "nodes": [node("n1", 500), node("n2", 450), node("n3", 300)],
        "shards": [
            {"node": "n1", "serving": (0..86).collect::<Vec<u16>>(), "changing": []},
            {"node": "n2", "serving": (86..168).collect::<Vec<u16>>(),
                "changing": leaving},
            {"node": "n3", "serving": (171..256).collect::<Vec<u16>>(), "changing": []},
        ],
        "shards_total": 256,
        "store": {"kind": "redis", "state": "slow", "shortfalls": []},
        "alarms": [alarm("store_slow", "n2", "critical", 125), alarm("latency", "n1", "warning", 30)],
        "top_rooms": [
            {"room": "guild:harbour", "members": 212, "pushes": 9_120.5}, {"room": "match:77", "members": 10, "pushes": 340.0},
        ],
        "slow_consumers": [{"player": "dora", "session": "s1", "node": "n2", "waiting": 96, "closed": false}],
        "unknown_nodes": [],
    })
}

fn overview(told: &Value) -> Overview {
    read(&serde_json::to_vec(told).unwrap()).unwrap()
}

/// As it is two minutes after the first look, with a past.
fn picture(told: &Value) -> Picture {
    let mut picture = Picture::new("http://127.0.0.1:7701", overview(told), LASTS);
    for second in 1..=120_u32 {
        let mut then = overview(told);
        if let Some(rates) = &mut then.rates {
            rates.acks *= f64::from(second) / 120.0;
        }
        picture.told(then, Duration::from_secs(second.into()));
    }
    picture
}

const NOW: Duration = Duration::from_secs(120);

fn drawn_at(picture: &mut Picture, now: Duration, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame.buffer_mut(), picture, now, Paint::none())).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let rows = buffer.content.chunks(usize::from(width));
    let row = |row: &[ratatui::buffer::Cell]| row.iter().map(|cell| cell.symbol()).collect::<String>();
    rows.map(|cells| row(cells).trim_end().to_owned() + "\n").collect()
}

fn drawn(told: &Value, size: (u16, u16)) -> String {
    drawn_at(&mut picture(told), NOW, size)
}

#[test]
fn a_cluster_with_two_alarms_is_seen_at_a_glance() {
    assert_eq!(
        drawn(&cluster(), (80, 24)),
        r" Hearth · 127.0.0.1:7701 · 3 nodes            ▲ 1 critical · ! 1 warning · live
 ▲ CRITICAL The store is slow · at n2 · since 22:11:15 UTC, for 2 min 5 s
     The slowest hundredth of what n2 answers takes too long.
   → Look at the store's latency first; if that is well, at the processor time…
 ! WARNING Answers are slow · at n1 · since 22:12:50 UTC, for 30 s
     The slowest hundredth of what n1 answers takes too long.
   → Look at the store's latency first; if that is well, at the processor time…
 players   1,204 · online 800 · playing 300 · busy 4 · away 100
 a second  acks 3,704 · logins 3.2 · refused 2 · failed 0 · resumes 1
 p50/99 ms applied 0.12/1.2 · durable 3.1/9 · commit 1.2/8 · calls –/–
 sessions  1,250 · 1,238 links · 44 rooms
 store     redis is slow · 3 breakers closed
 acks/s        3,704                                      █▁▁▂▂▂▃▃▄▄▄▅▅▆▆▆▇▇███
 ack p99      1.2 ms                                      █████████████████████
 ▸node▾ state shards links sess  cpu  memory dirty flush   mail    p99 acks/s
 n1     up        85   496  500 12 % 128 MiB     7 40 ms 2.0 ms 1.2 ms  1,235
 n2     up        85   446  450 12 % 128 MiB     7 40 ms 2.0 ms 1.2 ms  1,235
 n3     up        85   296  300 12 % 128 MiB     7 40 ms 2.0 ms 1.2 ms  1,235
 shards 256 · 253 served · 3 changing hands
   being handed over n2 → n3: 168–170
 busiest room   pushes/s  members        slow consumer  waiting  link  node
 guild:harbour     9,121      212        dora                96  open  n2
 match:77            340       10
 q quit · ? help · s sort · Tab list   told by n1, 22:13:20 UTC · nodes by node
"
    );
}

#[test]
fn a_small_terminal_shows_what_matters_most() {
    assert_eq!(
        drawn(&cluster(), (40, 10)),
        r"Hearth ▲ 1 critical · ! 1 warning · live
▲ CRITICAL The store is slow · at n2
! WARNING Answers are slow · at n1
players   1,204 · online 800
a second  acks 3,704 · logins 3.2
p50/99 ms applied 0.12/1.2
sessions  1,250 · 1,238 links · 44 rooms
▸node▾ 1–1/3 state  cpu  memory    p99
n1           up    12 % 128 MiB 1.2 ms
q quit · ? help · s sort · Tab list
"
    );
}

#[test]
fn a_cluster_in_which_nothing_is_yet_says_so() {
    let told = json!({
        "as_of": AS_OF, "node": "n1", "version": "0.1.0",
        "players": {"online": 0, "by_status": {"online": 0, "playing": 0, "busy": 0, "away": 0}, "by_device": {}},
        "sessions": 0, "links": 0, "rooms": 0, "latency_ms": {"applied": {}, "durable": {}, "commit": {}, "service": {}},
        "nodes": [{"node": "n1", "state": "up", "version": "0.1.0"}], "shards": [{"node": "n1", "serving": [0, 1, 2, 3], "changing": []}],
        "shards_total": 4, "store": {"kind": "embedded", "state": "ok", "shortfalls": []}, "alarms": [],
        "top_rooms": [], "slow_consumers": [], "unknown_nodes": [],
    });
    assert_eq!(
        drawn(&told, (80, 24)),
        r" Hearth · 127.0.0.1:7701 · 1 node · version 0.1.0                          live

 ✓ Nothing is wrong.

 players   0 · online 0 · playing 0 · busy 0 · away 0
 a second  not known yet
 p50/99 ms applied –/– · durable –/– · commit –/– · calls –/–
 sessions  0 · 0 links · 0 rooms
 store     embedded answers · no breakers
 acks/s            –
 ack p99           –

 ▸node▾ state shards links sess cpu memory dirty flush mail p99 acks/s breakers
 n1     up         –     –    –   –      –     –     –    –   –      –     none

 shards 4 · 4 served · none changes hands

 busiest rooms: nothing is said in any   slow consumers: none





 q quit · ? help · s sort · Tab list   told by n1, 22:13:20 UTC · nodes by node
"
    );
}

#[test]
fn a_node_that_does_not_answer_is_an_alarm_and_has_no_figures() {
    let mut told = cluster();
    told["alarms"] = json!([]);
    told["nodes"][1] = json!({"node": "n2", "state": "unknown"});
    told["unknown_nodes"] = json!(["n2"]);
    told["shards"].as_array_mut().unwrap().remove(1);
    let text = drawn(&told, (80, 24));
    for said in
        ["! WARNING A node does not answer · at n2 · since 22:13:20 UTC", "! 1 warning", " n2     no answer"]
    {
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
    assert!(!text.contains("without a home"), "nobody can tell:\n{text}");
    let row = text.lines().find(|line| line.contains("no answer")).unwrap();
    assert_eq!(row.matches('–').count(), 9, "{row}");
}

#[test]
fn a_node_that_stops_tells_how_many_shards_it_has_yet_to_give() {
    let mut told = cluster();
    told["alarms"] = json!([]);
    told["nodes"][1]["state"] = json!("stopping");
    told["nodes"][1]["shards_left"] = json!(3);
    for leaving in told["shards"][1]["changing"].as_array_mut().unwrap() {
        leaving["to"] = json!("n1");
    }
    told["shards"][0]["serving"] = (0..86).chain(172..256).collect::<Vec<u16>>().into();
    // The last one answers no more, and may hold a shard still.
    told["nodes"][2] = json!({"node": "n3", "state": "stopping", "shards_left": 1});
    told["shards"][2] = json!({"node": "n3", "serving": [], "changing": [{"shard": 171, "state": "handing_over", "to": "n1"}]});
    told["unknown_nodes"] = json!(["n3"]);
    assert_eq!(
        drawn(&told, (100, 24)),
        r" Hearth · 127.0.0.1:7701 · 3 nodes · version 0.1.0                                             live

 ✓ Nothing is wrong.

 players   1,204 · online 800 · playing 300 · busy 4 · away 100
 a second  acks 3,704 · logins 3.2 · refused 2 · failed 0 · resumes 1 · pushes 40,123 · calls 12
 p50/99 ms applied 0.12/1.2 · durable 3.1/9 · commit 1.2/8 · calls –/–
 sessions  1,250 · 1,238 links · 44 rooms
 store     redis is slow · 2 breakers closed
 acks/s        3,704                                                █▁▁▁▁▂▂▂▂▃▃▃▃▄▄▄▄▅▅▅▆▆▆▆▇▇▇▇███
 ack p99      1.2 ms                                                ███████████████████████████████

 ▸node▾ state             shards links sess  cpu  memory dirty flush   mail    p99 acks/s breakers
 n1     up                    85   496  500 12 % 128 MiB     7 40 ms 2.0 ms 1.2 ms  1,235 1 closed
 n2     stopping, 3 to go     85   446  450 12 % 128 MiB     7 40 ms 2.0 ms 1.2 ms  1,235 1 closed
 n3     stopping, 1 to go      –     –    –    –       –     –     –      –      –      –        –

 shards 256 · 252 served · 4 changing hands
   being handed over n2 → n1: 168–170
   being handed over n3 → n1: 171
 busiest room   pushes/s  members                  slow consumer  waiting  link  node
 guild:harbour     9,121      212                  dora                96  open  n2
 match:77            340       10
 q quit · ? help · s sort · Tab list · j/k scroll          told by n1, 22:13:20 UTC · nodes by node
"
    );
}

#[test]
fn who_is_no_longer_answered_keeps_the_last_picture_and_is_told_how_old_it_is() {
    let mut picture = picture(&cluster());
    let why = "http://127.0.0.1:7701 does not answer (Connection refused)".to_owned();
    picture.failed(why, NOW + Duration::from_secs(15));
    for size in [(80, 24), (120, 40), (40, 10)] {
        let text = drawn_at(&mut picture, NOW + Duration::from_secs(12), size);
        for said in ["✗ 12 s old", "✗ what you see is 12 s old,", "acks 3,704"] {
            assert!(text.contains(said), "{said} is not in\n{text}");
        }
        assert!(!text.contains("live"), "{text}");
    }
    let text = drawn_at(&mut picture, NOW + Duration::from_secs(12), (80, 24));
    assert!(text.contains("trying again in 3 s: http://127.0.0.1:7701 does"), "{text}");
    picture.told(overview(&cluster()), NOW + Duration::from_secs(15));
    let text = drawn_at(&mut picture, NOW + Duration::from_secs(15), (80, 24));
    assert!(text.contains("· live") && !text.contains('✗'), "{text}");
}

#[test]
fn a_list_that_is_longer_than_its_place_is_scrolled() {
    let mut told = cluster();
    told["nodes"] = (0..30).map(|number| node(&format!("n{number:02}"), 100 + number)).collect();
    let mut picture = picture(&told);
    let text = drawn_at(&mut picture, NOW, (80, 24));
    assert!(text.contains("▸node▾ 1–3/30") && text.contains(" n00 ") && !text.contains(" n03 "), "{text}");
    picture.press(Key::Down);
    let text = drawn_at(&mut picture, NOW, (80, 24));
    assert!(text.contains("▸node▾ 2–4/30") && !text.contains(" n00 ") && text.contains(" n03 "), "{text}");
    picture.press(Key::Last);
    let text = drawn_at(&mut picture, NOW, (80, 24));
    assert!(text.contains("▸node▾ 28–30/30") && text.contains(" n29 "), "{text}");
    // By state, shards, links, sessions: who has most comes first.
    (0..4).for_each(|_| assert_eq!(picture.press(Key::Sort), Wish::Draw));
    picture.press(Key::First);
    let text = drawn_at(&mut picture, NOW, (80, 24));
    assert!(text.contains("sess▾") && text.contains("nodes by sess") && text.contains(" n29 "), "{text}");
}

/// The first two nodes are flooded, the first one more.
fn flooded() -> Value {
    let flood = |node: &str, value: f64, from: &str| {
        let mut one = alarm("login_flood", node, "warning", 20);
        (one["value"], one["limit"], one["unit"]) = (json!(value), json!(5.0), json!("per_second"));
        one["text"] = json!(format!("{value} logins a second are refused, most of them from {from}."));
        one
    };
    let mut told = cluster();
    told["alarms"] = json!([flood("n1", 14.1, "10.0.0.1"), flood("n2", 77.0, "10.0.0.2")]);
    told
}

#[test]
fn each_node_of_an_alarm_says_what_it_sees() {
    let mut picture = picture(&flooded());
    let text = drawn_at(&mut picture, NOW, (80, 24));
    for said in [
        "! WARNING A flood of logins · at n2, n1 · since",
        "     n2: 77 logins a second are refused, most of them from 10.0.0.2.\n     n1: 14.1 logins",
    ] {
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
    assert!(drawn(&flooded(), (120, 24)).contains("· up to 77/s, limit 5/s"));
    // Where there is not room for all of them, whoever scrolls comes to the others.
    picture.list = List::Alarms;
    let text = drawn_at(&mut picture, NOW, (40, 10));
    assert!(text.contains("n2: 77 logins") && !text.contains("n1: 14.1"), "{text}");
    picture.press(Key::Down);
    let text = drawn_at(&mut picture, NOW, (40, 10));
    assert!(text.contains("! WARNING A flood") && text.contains("n1: 14.1 logins"), "{text}");
}

#[test]
fn an_alarm_that_ends_says_so_and_that_its_numbers_were() {
    let mut told = flooded();
    told["alarms"][1]["ending"] = json!(true);
    let text = drawn(&told, (100, 24));
    for said in
        ["! 1 warning · live", "! WARNING A flood", "     n1: 14.1 logins", "     n2, ending: 77 logins"]
    {
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
    told["alarms"].as_array_mut().unwrap().remove(0);
    let text = drawn(&told, (100, 24));
    for said in [
        "! 1 warning, ending · live",
        "! ENDING A flood of logins · at n2",
        "· was 77/s,",
        "     It said: 77 logins",
    ] {
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
    assert!(!text.contains("WARNING"), "{text}");
}

#[test]
fn nothing_is_well_while_a_node_is_silent() {
    let mut silent = cluster();
    silent["alarms"] = json!([]);
    let mut picture = Picture::new("http://127.0.0.1:7701", overview(&silent), LASTS);
    assert!(drawn_at(&mut picture, NOW, (80, 24)).contains("✓ Nothing is wrong."));
    silent["nodes"][1] = json!({"node": "n2", "state": "unknown"});
    silent["unknown_nodes"] = json!(["n2"]);
    picture.told(overview(&silent), Duration::from_secs(1));
    let text = drawn_at(&mut picture, Duration::from_secs(1), (80, 24));
    assert!(text.contains(" … n2 does not answer\n") && !text.contains(['✓', '!']), "{text}");
    picture.told(overview(&silent), Duration::from_secs(4));
    let text = drawn_at(&mut picture, Duration::from_secs(4), (80, 24));
    assert!(text.contains("! WARNING A node does not answer · at n2 · since"), "{text}");
    // Nobody has seen it begin who looks once.
    let once = text_of(&silent);
    assert!(once.contains("! WARNING A node does not answer · at n2\n") && !once.contains("since"), "{once}");
}

#[test]
fn where_nothing_is_counted_no_alarm_can_ring() {
    let mut told = cluster();
    told["alarms"] = json!([]);
    told["nodes"][0]["counts"] = json!(false);
    let text = drawn(&told, (120, 24));
    let said = "– Nothing is counted at n1 (metrics.record=false): no alarm can ring there. Nothing is wrong at the others.";
    assert!(text.contains(said) && !text.contains('✓'), "{text}");
    for at in [1, 2] {
        told["nodes"][at]["counts"] = json!(false);
    }
    told["rates"] = Value::Null;
    let text = drawn(&told, (40, 12));
    assert!(text.contains("– Nothing is counted") && text.contains("no alarm can\n  ring.\n"), "{text}");
    assert!(text.contains("a second  not counted") && !text.contains('✓'), "{text}");
}

#[test]
fn what_is_fallen_short_of_is_told_once_with_who_does() {
    let mut told = cluster();
    told["nodes"][0]["shortfalls"] = json!([
        {"name": "process", "text": "may open 1024 files"}, {"name": "store", "text": "is one server"}]);
    told["nodes"][2]["shortfalls"] = json!([{"name": "process", "text": "may open 1024 files"}]);
    told["store"]["shortfalls"] = json!([{"name": "maxmemory-policy", "text": "is allkeys-lru"}]);
    let text = drawn(&told, (100, 30));
    for said in [
        "redis is slow · 3 breakers closed · !2 shortfalls\n           !is one server (at n1)\n           !maxmemory-policy: is",
        " nodes     !1 shortfall\n           !process: may open 1024 files (at n1, n3)\n",
    ] {
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
}

#[test]
fn who_has_vanished_is_another_than_who_has_seen_it() {
    let mut told = cluster();
    told["alarms"] = json!([alarm("node_lost", "n1", "critical", 10)]);
    let text = drawn(&told, (80, 24));
    assert!(text.contains("CRITICAL A node has vanished · seen by n1 ·"), "{text}");
}

#[test]
fn nothing_goes_on_after_the_time_of_the_picture() {
    let mut picture = picture(&cluster());
    picture.failed("gone".to_owned(), NOW + Duration::from_secs(99));
    let text = drawn_at(&mut picture, NOW + Duration::from_secs(90), (120, 40));
    for said in ["since 22:12:50 UTC, for 30 s", " 1 h\n", "✗ 1 min 30 s old"] {
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
}

#[test]
fn what_is_chosen_has_a_place_however_small_the_terminal_is() {
    let mut picture = picture(&cluster());
    for (size, said) in [((40, 10), "guild:harbour"), ((40, 12), "dora"), ((80, 9), "dora")] {
        picture.list = if said == "dora" { List::Slow } else { List::Rooms };
        let text = drawn_at(&mut picture, NOW, size);
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
    // Whoever scrolls to an alarm reads all of what to do.
    picture.list = List::Alarms;
    picture.press(Key::Down);
    let text = drawn_at(&mut picture, NOW, (40, 12));
    assert!(text.contains("! WARNING Answers are slow") && !text.contains("CRITICAL"), "{text}");
}

#[test]
fn many_alarms_leave_room_for_the_rest() {
    let mut told = cluster();
    let names = (0..20).map(|number| alarm(&format!("kind_{number:02}"), "n1", "critical", 100 - number));
    told["alarms"] = names.collect();
    let mut picture = picture(&told);
    let text = drawn_at(&mut picture, NOW, (80, 24));
    for said in ["▲ 20 critical", "▲ CRITICAL Kind 00", "more", "acks 3,704", " n1 "] {
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
    picture.list = List::Alarms;
    (0..40).for_each(|_| assert_eq!(picture.press(Key::Down), Wish::Draw));
    let text = drawn_at(&mut picture, NOW, (80, 24));
    assert!(text.contains("▲ CRITICAL Kind 19") && text.contains("and then at its neighbours."), "{text}");
}

#[test]
fn any_size_can_be_drawn_with_names_of_any_kind() {
    let mut told = cluster();
    told["nodes"][0]["node"] = json!("\u{1b}[31m港町の酒場\r\n".repeat(9));
    told["top_rooms"][0]["room"] = json!("\u{7}\u{202e}room".repeat(30));
    told["alarms"][0]["text"] = json!("x".repeat(3_000));
    told["store"]["shortfalls"] =
        (0..9).map(|number| json!({"name": format!("maxmemory{number}"), "text": "y".repeat(200)})).collect();
    let mut picture = picture(&told);
    picture.failed("z".repeat(500), NOW);
    for has_help in [false, true] {
        picture.has_help = has_help;
        for size in [(1, 1), (2, 5), (10, 3), (41, 10), (63, 17), (79, 23), (110, 30), (300, 100)] {
            let text = drawn_at(&mut picture, NOW, size);
            assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text:?}");
        }
    }
}

#[test]
fn as_text_all_of_it_is_said_and_nothing_is_to_be_chosen() {
    let mut told = cluster();
    told["nodes"] = (0..30).map(|number| node(&format!("n{number:02}"), 100 + number)).collect();
    let text = text(&mut Picture::new("http://127.0.0.1:7701", overview(&told), Duration::ZERO), 100);
    for said in [
        "127.0.0.1:7701",
        "22:13:20 UTC",
        "▲ CRITICAL The store is slow · at n2",
        "and then at its neighbours.",
        "1,204 · online 800 · playing 300",
        "n29 ",
        "handed over n2 → n3: 168–170",
        "guild:harbour",
        "dora",
    ] {
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
    assert!(!text.contains("quit") && !text.contains('▸') && !text.contains('\u{1b}'), "{text}");
    assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
}

fn text_of(told: &Value) -> String {
    text(&mut Picture::new("http://127.0.0.1:7701", overview(told), Duration::ZERO), 100)
}

#[test]
fn all_of_the_help_can_be_reached_on_a_small_terminal() {
    let mut picture = picture(&cluster());
    picture.press(Key::Help);
    let first = drawn_at(&mut picture, NOW, (40, 10));
    let mut seen = String::new();
    for _ in 0..100 {
        seen += &drawn_at(&mut picture, NOW, (40, 10));
        picture.press(Key::Down);
    }
    let last = drawn_at(&mut picture, NOW, (40, 10));
    assert!(!first.contains("it lasts") && last.ends_with("it lasts\n"), "{last}");
    for (name, said) in WORDS {
        assert!(seen.contains(name), "{name}");
        assert!(said.split(' ').all(|word| seen.contains(word)), "{said}");
    }
    // What is below it has not moved, and the help begins anew.
    picture.press(Key::Back);
    picture.press(Key::Help);
    assert!(drawn_at(&mut picture, NOW, (40, 10)).contains("q Esc Ctrl-C"));
}

#[test]
fn the_help_tells_every_key_and_every_word_on_the_smallest_usual_terminal() {
    let mut picture = picture(&cluster());
    picture.press(Key::Help);
    let text = drawn_at(&mut picture, NOW, (80, 24));
    let words = WORDS.iter().map(|(name, said)| ((*name).to_owned(), *said));
    for (name, said) in keys::help().chain(words) {
        let is_told = |line: &str| {
            line.strip_prefix(' ').is_some_and(|line| line.starts_with(&name) && line.ends_with(said))
        };
        assert!(text.lines().any(is_told), "{name}: {said} is not in\n{text}");
    }
}
