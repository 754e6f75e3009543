//! What is promised about the operators' console: a page for everybody that shows nothing without a key, and with one what
//! goes on; what is wrong first; whatever players call themselves is text; what cannot be shown is said. Told with a
//! real browser at a real server. Where a story needs alarms or nodes that move, the overview is its own.

use serde_json::{Value, json};

use crate::harness::browser::Browser;
use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::stages::Stage;

const KEY: &str = "the key of +operators/";
/// What nobody should call herself.
const HOSTILE: &str = "<img src=x onerror=document.title='taken'>";

fn server() -> Server {
    Server::on(Stage::Embedded).with("service_key", KEY).start()
}

fn link(server: &Server, key: &str) -> String {
    hearth::service::console::link(server.service_url(), key)
}

/// Keeps what is said aloud.
const LISTENS: &str = "
    window.heard = [];
    const listens = new MutationObserver(() => heard.push(document.getElementById('heard').textContent));
    listens.observe(document.getElementById('heard'), {childList: true, characterData: true, subtree: true})";

/// An overview of two nodes at this second of the story.
fn overview(second: u64, change: impl FnOnce(&mut Value)) -> Value {
    let node = |name: &str| {
        json!({"node": name, "state": "up", "started_at": 1_700_000_000_000_u64, "version": "0.1.0", "shards": 4,
               "links": 3, "sessions": 3, "records": 3, "dirty": 0, "flush_lag_ms": 0, "mail_lag_ms": 1, "acks": 2.0,
               "applied_p99_ms": 0.4, "memory_bytes": 1_000_000, "cpu_percent": 3.0, "breakers": []})
    };
    let mut told = json!({
        "as_of": 1_700_000_100_000_u64 + 1_000 * second, "node": "node-1", "version": "0.1.0",
        "players": {"online": 3, "by_status": {"online": 2, "playing": 1}, "by_device": {"pc": 3}},
        "sessions": 3, "links": 3, "rooms": 1,
        "rates": {"acks": 4.0, "logins": 0.0, "resumes": 0.0, "pushes": 9.0, "refused": 0.0, "service_calls": 1.0},
        "latency_ms": {"applied": {"p50": 0.2, "p99": 0.4}, "durable": {"p50": null}, "commit": {}},
        "nodes": [node("node-1"), node("node-2")],
        "shards": [
            {"node": "node-1", "serving": [0, 1, 2, 3], "changing": []},
            {"node": "node-2", "serving": [4, 5, 6, 7], "changing": []}
        ],
        "shards_total": 8,
        "store": {"kind": "redis", "state": "ok", "shortfalls": []},
        "alarms": [], "top_rooms": [], "slow_consumers": [], "unknown_nodes": []
    });
    change(&mut told);
    told
}

/// Nothing was complained about, and nobody else was asked.
#[track_caller]
fn is_clean(browser: &Browser, server: &Server) {
    assert_eq!(browser.faults(), &[] as &[String]);
    let own = format!("{}/", server.service_url());
    let strangers: Vec<_> =
        browser.requests().iter().filter(|url| !url.starts_with(&own) && *url != "about:blank").collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

#[tokio::test]
async fn the_page_asks_for_a_key_and_shows_nothing_without_a_good_one() {
    let server = server();
    let mut browser = Browser::start().await;
    // The root leads there, and nothing is asked of the API without a key.
    browser.open(&format!("{}/", server.service_url())).await;
    browser.shows("#gate", "A service key, please").await;
    assert_eq!(browser.value("location.pathname").await, "/console");
    assert_eq!(browser.value("document.activeElement.id").await, "gate-key");
    let is_call = |url: &&String| url.contains("/v1/");
    assert_eq!(browser.requests().iter().find(is_call), None);

    browser.open(&link(&server, "wrong")).await;
    browser.shows("#gate-fault", "This server does not take the key").await;
    assert_eq!(browser.value("location.hash").await, "", "no key stays in the address");
    assert_eq!(browser.value("document.getElementById('all').hidden").await, true);
    assert_eq!(browser.value("sessionStorage.length").await, 0, "nor does it stay in the tab");

    // Another one may be typed, if it is one.
    browser.types("ключ").await;
    browser.press("Enter").await;
    browser.shows("#gate-fault", "This is no key").await;
    assert_eq!(browser.value("document.getElementById('forget').hidden").await, true);
    browser.answers("/v1/overview", &overview(0, |_| {})).await;
    browser.types(KEY).await;
    browser.press("Enter").await;
    browser.shows("#players", "3").await;
    browser.shows("#mood", "All is well").await;
    assert_eq!(browser.value("document.getElementById('gate').hidden").await, true);
    is_clean(&browser, &server);
}

#[tokio::test]
async fn a_key_in_the_link_is_taken_out_of_the_address() {
    let server = server();
    let mut browser = Browser::start().await;
    browser.answers("/v1/overview", &overview(0, |_| {})).await;
    browser.open(&link(&server, KEY)).await;
    browser.until("!document.getElementById('all').hidden").await;
    assert_eq!(browser.value("location.href").await, format!("{}/console", server.service_url()));
    // The server takes what the page made of the link.
    browser.answers_no_more().await;
    let status = "fetch('/v1/stats', {headers: {Authorization: 'Bearer ' + sessionStorage.getItem('hearth.service-key')}}).then((answer) => answer.status)";
    assert_eq!(browser.value(status).await, 200);
    browser.value("document.getElementById('forget').click()").await;
    browser.shows("#gate", "A service key, please").await;
    assert_eq!(browser.value("sessionStorage.length").await, 0);
    is_clean(&browser, &server);
}

#[tokio::test]
async fn nobody_is_stuck_with_a_key_that_may_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.toml");
    let pushes = "0123456789abcdef-pushes";
    std::fs::write(
        &keys,
        format!("[[keys]]\nname = \"pushes\"\nsecret = \"{pushes}\"\nscopes = [\"push\"]\n"),
    )
    .unwrap();
    let server = Server::on(Stage::Embedded)
        .with("service_key", KEY)
        .with("service.keys_file", keys.display())
        .start();
    let mut browser = Browser::start().await;
    browser.open(&link(&server, pushes)).await;
    browser.shows("#gate-fault", "needs a key with the scope read").await;
    browser.until("!document.getElementById('gate').hidden").await;
    assert_eq!(browser.value("sessionStorage.length").await, 0);
    browser.types(KEY).await;
    browser.press("Enter").await;
    browser.shows("#mood", "All is well").await;
    // Nor with any other: it can be forgotten before anything has been answered.
    browser.value("document.getElementById('forget').click()").await;
    browser.until("document.activeElement.id === 'gate-key'").await;
    let typed = format!(
        "document.getElementById('gate-key').value = '{KEY}', document.getElementById('gate-form').requestSubmit(),
         document.getElementById('forget').hidden"
    );
    assert_eq!(browser.value(&typed).await, false);
}

#[tokio::test]
async fn rows_of_one_key_leave_nothing_behind_and_marks_come_back() {
    let server = server();
    let mut browser = Browser::start().await;
    browser.open(&format!("{}/console", server.service_url())).await;
    let kept = "import('/console/dom.js').then(({h, keep}) => {
        const parent = h('ul');
        const show = (keys) => keep(parent, [...keys], (key) => key, () => h('li'), (element, key) => { element.textContent = key; });
        return ['aab', 'ba', 'abcb', 'cab', 'xc', ''].map((keys) => (show(keys), parent.textContent)).join();
    })";
    assert_eq!(browser.value(kept).await, "ab,ba,abc,cab,xc,");
    let marked = "import('/console/nodes.js').then(({meet, markOf}) => {
        const now = performance.now();
        const letter = (second, ...names) => {
            performance.now = () => now + 1_000 * second;
            meet(names);
            return names.map((name) => markOf(name).letter).join('');
        };
        const told = [letter(0, 'a', 'b'), letter(200, 'b', 'c'), letter(299, 'b', 'd'), letter(301, 'b', 'e'), letter(302, 'a', 'b')];
        delete performance.now;
        return told.join();
    })";
    assert_eq!(browser.value(marked).await, "AB,BC,BD,BA,EB");
    is_clean(&browser, &server);
}

#[tokio::test]
async fn what_is_wrong_comes_first_and_whatever_anybody_is_called_is_text() {
    let server = server();
    let mut browser = Browser::start().await;
    browser.answers("/v1/overview", &overview(0, |_| {})).await;
    browser.open(&link(&server, KEY)).await;
    browser.shows("#calm", "Nothing is wrong").await;
    browser.value(LISTENS).await;
    let alarmed = overview(1, |told| {
        told["alarms"] = json!([
            {"name": "store_slow", "node": HOSTILE, "severity": "warning", "since": 1_700_000_000_000_u64, "value": 1.2,
             "limit": 0.5, "unit": "seconds", "text": HOSTILE, "do": HOSTILE},
            {"name": "store_down", "node": "node-2", "severity": "critical", "since": 1_700_000_090_000_u64, "value": 1,
             "limit": 0, "unit": "", "text": "It is away.", "do": "See to Redis."},
            {"name": HOSTILE, "severity": HOSTILE, "unit": HOSTILE, "value": "3"}
        ]);
        told["top_rooms"] = json!([{"room": HOSTILE, "members": 3, "pushes": 1.5}]);
        told["slow_consumers"] =
            json!([{"player": HOSTILE, "session": HOSTILE, "node": HOSTILE, "waiting": 7, "closed": false}]);
        told["players"]["by_device"] = json!({HOSTILE: 3});
        told["unknown_nodes"] = json!([HOSTILE]);
        told["store"]["shortfalls"] = json!([{"name": HOSTILE, "text": HOSTILE}]);
        told["nodes"][0]["breakers"] = json!([{"endpoint": HOSTILE, "state": HOSTILE}]);
        told["nodes"][1]["version"] = json!(HOSTILE);
        told["node"] = json!(HOSTILE);
    });
    browser.answers("/v1/overview", &alarmed).await;
    browser.shows("#mood", "1 critical, 3 warnings").await;
    let first = "#alarm-cards > :first-child";
    browser.shows(first, "The store does not answer").await;
    browser.shows(first, "for 11 s").await;
    browser.shows(first, "What to do: See to Redis.").await;
    browser.shows("#alarm-cards", "1.2 s, limit 500 ms").await;
    // It is said aloud, once.
    let heard = "Critical alarm: The store does not answer at node-2. See to Redis.";
    browser.until(&format!("heard.filter((said) => said.includes('{heard}')).length === 1")).await;
    for place in ["#alarm-cards", "#rooms", "#slow", "#players", "#store", "#nodes", "#foot"] {
        browser.shows(place, HOSTILE).await;
    }
    assert_eq!(browser.value("document.querySelectorAll('#all img, #all [onerror]').length").await, 0);
    assert!(browser.value("document.title").await.as_str().unwrap().contains("Hearth"));
    // On a phone nothing hangs out.
    browser.is_of(360, 780).await;
    browser.until("document.documentElement.scrollWidth <= 360").await;

    browser.answers("/v1/overview", &overview(2, |_| {})).await;
    browser.shows("#mood", "All is well").await;
    browser.shows("#calm", "The store does not answer at node-2").await;
    is_clean(&browser, &server);
    // The wall behind all that: a text that is taken for markup is a fault, and so is whoever else is asked.
    let markup = browser.value("try { document.body.innerHTML = '<b>'; 'taken' } catch { 'refused' }").await;
    assert_eq!(markup, "refused");
    browser
        .value("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'})), 1")
        .await;
    browser.until("true").await;
    assert!(
        browser.faults().iter().any(|fault| fault.contains("Content Security Policy")),
        "{:?}",
        browser.faults()
    );
}

#[tokio::test]
async fn what_is_over_is_told_as_that_and_calm_is_promised_only_where_something_is_counted() {
    let server = server();
    let mut browser = Browser::start().await;
    let down = |second: u64, here: bool, there: bool| {
        let alarm = |node: &str, value: u32, ending: bool| {
            json!({"name": "store_down", "node": node, "severity": "critical", "since": 1_700_000_090_000_u64,
                   "value": value, "limit": 0, "unit": "shards", "text": format!("{value} are held back."),
                   "do": "See to Redis.", "ending": ending})
        };
        overview(second, |told| {
            told["alarms"] = json!([alarm("node-1", 83, here), alarm("node-2", 1, there)]);
            told["rates"]["failed"] = json!(5.5);
        })
    };
    browser.answers("/v1/overview", &down(0, true, false)).await;
    browser.open(&link(&server, KEY)).await;
    // It goes on at one of them, and of what goes on is told.
    browser.shows("#alarm-cards", "1 are held back.").await;
    browser
        .until(
            "document.querySelector('.alarm .over').hidden && document.querySelector('.alarm .gauge').hidden",
        )
        .await;
    assert_eq!(browser.text(".alarm .against p").await, "1 shard");
    browser.shows("#mood", "1 critical").await;
    browser.shows("#work .rates > :last-child", "failed at the server").await;
    browser.shows("#work .rates > :last-child", "5.5/s").await;
    browser.shows("#work", "refused as too much").await;
    browser.answers("/v1/overview", &down(1, true, true)).await;
    browser.shows("#mood", "1 critical, ending").await;
    browser.shows("#alarm-cards", "This is over: the alarm ends in a moment").await;
    browser.shows("#alarm-cards .grade", "CRITICAL, ENDING").await;

    let blind = |second: u64, nodes: &[usize]| {
        overview(second, |told| nodes.iter().for_each(|at| told["nodes"][*at]["counts"] = json!(false)))
    };
    browser.answers("/v1/overview", &blind(2, &[1])).await;
    browser.shows("#mood", "Not all is counted").await;
    browser
        .shows("#calm", "Nothing is counted at node-2 (metrics.record=false): no alarm can ring there.")
        .await;
    browser.answers("/v1/overview", &blind(3, &[0, 1])).await;
    browser.shows("#calm", "Nothing is counted (metrics.record=false): no alarm can ring.").await;
    assert_eq!(browser.text("#mood-text").await, "Nothing is counted");
    assert!(!browser.text("#calm").await.contains("Nothing is wrong"));
    is_clean(&browser, &server);
}

#[tokio::test]
async fn what_nodes_fall_short_of_is_shown_where_it_belongs() {
    let server = server();
    let mut browser = Browser::start().await;
    let short = overview(0, |told| {
        told["nodes"][0]["shortfalls"] = json!([{"name": "tls.cert_file", "text": "runs out in 3 days"}]);
        told["nodes"][1]["shortfalls"] = json!([{"name": "store", "text": "78 shards were written again"}]);
    });
    browser.answers("/v1/overview", &short).await;
    browser.open(&link(&server, KEY)).await;
    for said in ["node-2", "78 shards were written again"] {
        browser.shows("#store", said).await;
    }
    for said in ["node-1", "tls.cert_file", "runs out in 3 days"] {
        browser.shows("#nodes + .shortfalls", said).await;
    }
    assert!(!browser.text("#nodes + .shortfalls").await.contains("78 shards"));
    is_clean(&browser, &server);
}

#[tokio::test]
async fn bars_are_as_long_as_their_numbers_say_at_every_width() {
    let server = server();
    let mut browser = Browser::start().await;
    let rooms = overview(0, |told| {
        told["top_rooms"] = json!([
            {"room": "one", "members": 3, "pushes": 206.0},
            {"room": "two", "members": 3, "pushes": 171.0},
            {"room": "three", "members": 3, "pushes": 20.6}
        ]);
    });
    browser.answers("/v1/overview", &rooms).await;
    browser.open(&link(&server, KEY)).await;
    browser.shows("#rooms", "171/s").await;
    for (width, height) in [(1280, 800), (1920, 1080), (1100, 800), (800, 600)] {
        browser.is_of(width, height).await;
        let apart = "(() => {
            const [one, two, three] = [...document.querySelectorAll('#rooms .share')].map((bar) => bar.getBoundingClientRect().width);
            return one > 20 && Math.abs(two / one - 171 / 206) < 0.03 && Math.abs(three / one - 0.1) < 0.03;
        })()";
        browser.until(apart).await;
    }
    is_clean(&browser, &server);
}

#[tokio::test]
async fn what_hides_in_a_name_is_seen() {
    let server = server();
    let mut browser = Browser::start().await;
    let hostile = "room\u{202e}gpj.exe";
    let told = overview(0, |told| {
        told["top_rooms"] = json!([{"room": hostile, "members": 3, "pushes": 1.5}]);
        told["slow_consumers"] = json!([{"player": "\u{202e}evil", "session": "s", "node": "node-1", "waiting": 7, "closed": false}]);
        told["players"]["by_device"] = json!({"p\u{200b}c\n": 3});
        told["alarms"] = json!([{"name": "hot_room", "node": "node-1\u{2067}", "severity": "warning", "value": 0.9,
            "limit": 0.5, "unit": "share", "text": format!("the room {hostile} is hot"), "do": ""}]);
    });
    browser.answers("/v1/overview", &told).await;
    browser.open(&link(&server, KEY)).await;
    browser.shows("#rooms", r"room\u202egpj.exe").await;
    browser.shows("#alarm-cards", r"the room room\u202egpj.exe is hot").await;
    browser.shows("#alarm-cards", r"node-1\u2067").await;
    browser.shows("#players", r"p\u200bc\u000a 3").await;
    browser.shows("#slow", r"\u202eevil").await;
    // She is asked for by her own name.
    browser.value("document.querySelector('#slow button').click()").await;
    browser.shows("#player-title", r"\u202eevil").await;
    browser.shows("#player-fault", "Nothing is known of her.").await;
    assert!(browser.requests().iter().any(|url| url.ends_with("/v1/players/%E2%80%AEevil")));
    let seen = r"import('/console/dom.js').then(({visible}) =>
        ['a\u0000\u0085', '\u200d\u2066x\ufeff', '\u{e0041}', '\ud800', '❤\ufe0f', 'a\ufe0f', 'Zoë 名前 שלום 🎮'].map(visible).join('|'))";
    let expected = r"a\u0000\u0085|\u200d\u2066x\ufeff|\u{e0041}|\ud800|❤️|a\ufe0f|Zoë 名前 שלום 🎮";
    assert_eq!(browser.value(seen).await, expected);
    let bare =
        "/[\u{202a}-\u{202e}\u{2066}-\u{2069}\u{200b}]/u.test(document.body.textContent + document.title)";
    assert_eq!(browser.value(bare).await, false);
    is_clean(&browser, &server);
}

#[tokio::test]
async fn an_id_that_is_too_long_is_called_so_and_nobody_is_asked_for() {
    let server = server();
    let mut browser = Browser::start().await;
    browser.answers("/v1/overview", &overview(0, |_| {})).await;
    browser.open(&link(&server, KEY)).await;
    browser.until("!document.getElementById('all').hidden").await;
    let finds = |id: &str| {
        format!(
            "document.getElementById('find-name').value = '{id}', document.getElementById('find').requestSubmit()"
        )
    };
    browser.press("/").await;
    browser.types(&"a".repeat(70)).await;
    browser.press("Enter").await;
    browser.shows("#player-fault", "it is too long, 70 bytes where 64 may be").await;
    browser.value(&finds(&"ü".repeat(33))).await;
    browser.shows("#player-fault", "66 bytes where 64 may be").await;
    assert!(!browser.requests().iter().any(|url| url.contains("/v1/players/")));
    browser.value(&finds(&"a".repeat(64))).await;
    browser.shows("#player-fault", "Nothing is known of her.").await;
    is_clean(&browser, &server);
}

#[tokio::test]
async fn a_hand_over_is_seen_and_told() {
    let server = server();
    let mut browser = Browser::start().await;
    browser.answers("/v1/overview", &overview(0, |_| {})).await;
    browser.open(&link(&server, KEY)).await;
    browser.shows("#shards-said", "8 shards · none changing").await;
    let cell = |number: u16| format!("document.querySelector('[data-shard=\"{number}\"]')");
    browser.until(&format!("{}.textContent === 'A' && {}.textContent === 'B'", cell(3), cell(5))).await;

    browser
        .answers(
            "/v1/overview",
            &overview(1, |told| {
                told["nodes"][0]["state"] = json!("stopping");
                told["nodes"][0]["shards_left"] = json!(4);
                told["shards"][0]["serving"] = json!([0, 1, 2]);
                told["shards"][0]["changing"] =
                    json!([{"shard": 3, "state": "handing_over", "to": "node-2"}]);
                told["shards"][1]["changing"] = json!([{"shard": 3, "state": "taking"}]);
            }),
        )
        .await;
    browser.shows("#shards-said", "1 changing").await;
    browser.until(&format!("{}.matches('.changing:has(.comes)')", cell(3))).await;
    browser.shows("#nodes", "stopping, 4 shards to go").await;
    browser.shows("#map-key", "4, stopping").await;

    browser
        .answers(
            "/v1/overview",
            &overview(2, |told| {
                told["shards"][0]["serving"] = json!([0, 1, 2]);
                told["shards"][1]["serving"] = json!([3, 4, 5, 6, 7]);
            }),
        )
        .await;
    browser.until(&format!("{}.textContent === 'B' && !{}.matches('.changing')", cell(3), cell(3))).await;
    browser.shows("#moves", "1 shard").await;
    // Whoever does not see the map reads it.
    browser.value("document.getElementById('map-text').open = true").await;
    browser.shows("#map-text", "0–2").await;
    browser.shows("#map-text", "3–7").await;

    // One that stops and answers no more is no surprise; the store that it waits for is.
    browser
        .answers(
            "/v1/overview",
            &overview(3, |told| {
                told["nodes"][1] = json!({"node": "node-2", "state": "stopping", "shards_left": 1});
                let left = json!([{"shard": 7, "state": "handing_over", "to": "node-1"}]);
                told["shards"][0]["serving"] = json!([0, 1, 2, 3, 4, 5, 6]);
                told["shards"][1] = json!({"node": "node-2", "serving": [], "changing": left});
                told["unknown_nodes"] = json!(["node-2"]);
                told["store"]["state"] = json!("down");
            }),
        )
        .await;
    browser.shows("#nodes", "stopping, 1 shard to go").await;
    browser.until(&format!("{}.matches('.changing:has(.comes)')", cell(7))).await;
    browser.shows("#alarm-cards", "The store does not answer").await;
    let surprised = "document.getElementById('alarm-cards').textContent.includes('A node does not answer')";
    assert_eq!(browser.value(surprised).await, false);

    // A node that is lost: its shards are at nobody, and that is told as well.
    browser
        .answers(
            "/v1/overview",
            &overview(4, |told| {
                told["nodes"] = json!([told["nodes"][0]]);
                told["shards"] = json!([told["shards"][0]]);
            }),
        )
        .await;
    browser.shows("#alarm-cards", "4 shards have no home").await;
    is_clean(&browser, &server);
}

#[tokio::test]
async fn a_player_is_found_and_kicked_by_a_key_that_may() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.toml");
    let reads = "0123456789abcdef-reads";
    std::fs::write(&keys, format!("[[keys]]\nname = \"looks\"\nsecret = \"{reads}\"\nscopes = [\"read\"]\n"))
        .unwrap();
    let server = Server::on(Stage::Embedded)
        .with("service_key", KEY)
        .with("service.keys_file", keys.display())
        .start();
    let mut ann = server.connect().await;
    ann.login_with(json!({"token": format!("dev:{HOSTILE}"), "device": "<b>pc"})).await;
    ann.does("presence.set", json!({"status": "playing", "activity": {"map": HOSTILE}})).await;
    ann.does("state.patch", json!({"set": {"gold": 12, "note": HOSTILE}, "cseq": 1, "ack": "durable"})).await;

    let mut browser = Browser::start().await;
    browser.answers("/v1/overview", &overview(0, |_| {})).await;
    browser.open(&link(&server, reads)).await;
    browser.until("!document.getElementById('all').hidden").await;
    // By the keyboard alone.
    browser.press("/").await;
    assert_eq!(browser.value("document.activeElement.id").await, "find-name");
    browser.types("nobody").await;
    browser.press("Enter").await;
    browser.shows("#player-fault", "Nothing is known of her.").await;
    browser.press("Escape").await;
    assert_eq!(browser.value("document.activeElement.id").await, "find-name");
    browser.value("document.activeElement.select()").await;
    browser.types(HOSTILE).await;
    browser.press("Enter").await;
    for told in [HOSTILE, "playing", "<b>pc", "linked", "2 keys", "logged in on <b>pc"] {
        browser.shows("#player", told).await;
    }
    assert_eq!(browser.value("document.querySelectorAll('#player img, #player b').length").await, 0);

    let kick = "document.querySelector('#player .danger').click(), document.getElementById('kick').open";
    assert_eq!(browser.value(kick).await, true);
    browser.types("lobby closed").await;
    browser.press("Enter").await;
    browser.shows("#kick-fault", "needs a key with the scope admin").await;
    // Nothing touches its neighbour.
    let apart = |dialog: &str, above: &str| {
        format!(
            "(() => {{
                const [above, row] = ['{above}', '.row.end'].map((place) => document.querySelector('#{dialog} ' + place).getBoundingClientRect());
                return row.top - above.bottom >= 8;
            }})()"
        )
    };
    assert_eq!(browser.value(&apart("kick", "#kick-fault")).await, true);
    let below = "document.getElementById('kick-fault').getBoundingClientRect().top - document.getElementById('kick-reason').getBoundingClientRect().bottom >= 4";
    assert_eq!(browser.value(below).await, true);
    assert!(ann.is_alive().await);
    browser.press("Escape").await;

    // A link takes the place of a key that is there only if that is wanted.
    let kept = "sessionStorage.getItem('hearth.service-key')";
    for (button, expected) in [("swap-no", reads), ("swap-yes", KEY)] {
        browser.open(&link(&server, KEY)).await;
        browser.until("document.getElementById('swap').open").await;
        assert_eq!(browser.value("location.hash").await, "");
        assert_eq!(browser.value(kept).await, reads);
        assert_eq!(browser.value(&apart("swap", "p")).await, true);
        browser.value(&format!("document.getElementById('{button}').click()")).await;
        assert_eq!(browser.value(kept).await, expected);
        browser.until("!document.getElementById('swap').open").await;
    }
    browser.until("!document.getElementById('all').hidden").await;
    browser.press("/").await;
    browser.types(HOSTILE).await;
    browser.press("Enter").await;
    browser.shows("#player", "linked").await;
    assert_eq!(browser.value(kick).await, true);
    browser.press("Enter").await;
    assert_eq!(browser.value("document.getElementById('kick').open").await, true, "not without a reason");
    browser.types("lobby closed").await;
    browser.press("Enter").await;
    assert_eq!(ann.expect_close(4502).await["reason"], "lobby closed");
    browser.shows("#player", "session ended: she was kicked (4502), “lobby closed”").await;
    let (_, told) = Service::of(&server, KEY).get("/v1/stats").await;
    assert_eq!(told["sessions"], 0);
    // There is nothing left to kick, and that is said; whoever came by the keyboard stays in her panel.
    browser.shows("#player", "She has none: there is nothing to kick.").await;
    browser.until("document.querySelector('#player .danger').disabled && document.activeElement.id === 'player-title'").await;
    is_clean(&browser, &server);
}

#[tokio::test]
async fn a_state_is_as_large_as_the_server_says_and_numbers_are_told_as_people_do() {
    let server = server();
    let mut browser = Browser::start().await;
    browser.open(&format!("{}/console", server.service_url())).await;
    let numbers = [
        0_i64,
        31,
        -32,
        -33,
        127,
        128,
        -128,
        -129,
        255,
        256,
        65_535,
        65_536,
        -32_769,
        1 << 32,
        -(1 << 31) - 1,
    ];
    let texts = [0, 1, 31, 32, 255, 256, 70_000].map(|length| "ü".repeat(length));
    let lists = [0, 15, 16].map(|length| vec![Value::Null; length]);
    let mut values: Vec<Value> = numbers.into_iter().map(Value::from).collect();
    values.extend(texts.into_iter().map(Value::from));
    values.extend(lists.into_iter().map(Value::from));
    values.extend([json!(1.5), json!(true), json!({"a": {"b": [1, "c", null]}}), json!({})]);
    values.push((0..20).map(|key| (key.to_string(), json!(key))).collect::<serde_json::Map<_, _>>().into());
    for value in values {
        let expected = rmp_serde::to_vec(&value).unwrap().len();
        let asked = format!("import('/console/words.js').then(({{packed}}) => packed({value}))");
        assert_eq!(browser.value(&asked).await, expected, "{value}");
    }
    for (asked, told) in [
        ("span(0.123)", "0.12 ms"),
        ("span(0)", "0 ms"),
        ("span(1234)", "1.2 s"),
        ("span(null)", "–"),
        ("duration(3_725_000)", "1 h 2 min"),
        ("duration(59_999)", "59 s"),
        ("bytes(1536)", "1.5 KiB"),
        ("count(1234567)", "1,234,567"),
        ("count(undefined)", "–"),
        ("rate(0)", "0"),
        ("rate(0.25)", "0.3"),
        ("measure(0.07, 'share')", "7.0 %"),
        ("measure(3, 'logins/s')", "3 logins/s"),
        ("measure(1, 'logins/s')", "1 login/s"),
        ("measure(1, 'nodes')", "1 node"),
        ("measure(0, 'shards')", "0 shards"),
        ("measure(1.5, 'logins/s')", "1.5 logins/s"),
        ("measure(0.5, 'seconds')", "500 ms"),
    ] {
        let asked = format!("import('/console/words.js').then((words) => words.{asked})");
        assert_eq!(browser.value(&asked).await, told, "{asked}");
    }
    is_clean(&browser, &server);
}

#[tokio::test]
async fn a_server_that_goes_is_told_with_the_age_of_what_is_shown() {
    let mut server = server();
    let mut browser = Browser::start().await;
    browser.answers("/v1/overview", &overview(0, |_| {})).await;
    browser.open(&link(&server, KEY)).await;
    browser.shows("#fresh", "live").await;
    server.kill9();
    browser.answers_no_more().await;
    browser.shows("#trouble", "The node does not answer. What you see is").await;
    browser.shows("#trouble", "Trying again").await;
    browser.shows("#mood", "Not live").await;
    browser.shows("#players", "3").await;
    server.restart();
    browser.answers("/v1/overview", &overview(9, |_| {})).await;
    browser.shows("#fresh", "live").await;
    browser.until("document.getElementById('trouble').hidden").await;
    assert_eq!(browser.faults(), &[] as &[String]);
}

#[tokio::test]
async fn players_come_and_go_before_the_eyes_of_whoever_looks() {
    let server = server();
    let mut browser = Browser::start().await;
    browser.open(&link(&server, KEY)).await;
    browser.shows("#mood", "All is well").await;
    let online =
        |players: u32| format!("document.querySelector('#players .big')?.textContent === '{players}'");
    browser.until(&online(0)).await;
    let mut ann = server.login("ann").await;
    let mut bea = server.login("bea").await;
    browser.until(&online(2)).await;
    ann.does("presence.set", json!({"status": "playing"})).await;
    browser.until("[...document.querySelectorAll('#players .legend li')].some((told) => told.textContent === 'playing1')").await;
    // What she does is counted, and drawn as it goes on.
    let acks = "document.querySelector('#work .big').textContent";
    let deadline = std::time::Instant::now() + crate::harness::patience::PATIENCE;
    while browser.value(&format!("{acks} === '0'")).await == true {
        assert!(std::time::Instant::now() < deadline, "no acks are shown");
        // As fast as she may: what is too fast for her counts for nothing here.
        let _ = bea.ask("state.patch", json!({"incr": {"n": 1}})).await;
    }
    browser.until("document.querySelector('#work path').getAttribute('d').length > 20").await;
    browser.until("document.querySelectorAll('#nodes tbody tr').length === 1").await;
    browser.shows("#shards-said", "16 shards").await;
    browser.until("document.querySelectorAll('#map .cell').length === 16").await;
    // She logs out, and is gone at once.
    ann.send("logout", json!({})).await;
    browser.until(&online(1)).await;
    is_clean(&browser, &server);
}
