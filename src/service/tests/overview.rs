//! The overview of one node: what it holds, what the watch has seen of it, and what is not known.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::House;
use crate::telemetry::watch::{Alarm, Figures, Glance, Reading, Severity, Totals, names};

/// What the watch may have seen.
fn glance() -> Glance {
    let breakers = vec![("redis://10.0.0.1:6379".to_owned(), 2)];
    let reading = Reading { totals: Totals { breakers, ..Totals::default() }, ..Reading::default() };
    let rooms = vec![("guild".into(), 3.0)];
    let mut figures = Figures { acks: 7.5, over_ms: 5_000, failed: 8, rooms, ..Figures::default() };
    figures.applied.add(0.01, 10);
    figures.applied.add(f64::INFINITY, 10);
    let alarm = Alarm {
        name: names::STORE_DOWN,
        severity: Severity::Critical,
        since_unix_ms: 1_764_320_000_000,
        value: 1.0,
        limit: 0.0,
        unit: "servers",
        text: "it does not answer".to_owned(),
        advice: "bring it back",
        is_ending: true,
    };
    Glance { reading, figures: Some(figures), alarms: vec![alarm], is_blind: false }
}

#[tokio::test]
async fn a_node_that_has_seen_nothing_yet_says_what_it_holds_and_leaves_the_rest_out() {
    let house = House::new().await;
    for (player, device) in [("ann", "pc"), ("bea", "web")] {
        house.log_in(player, device).await;
    }
    let told = house.get("/v1/overview").await.ok();
    assert_eq!(
        (&told["players"]["online"], &told["sessions"], &told["node"]),
        (&json!(2), &json!(2), &json!("node-1"))
    );
    assert_eq!(
        (&told["shards_total"], &told["unknown_nodes"], &told["alarms"]),
        (&json!(4), &json!([]), &json!([]))
    );
    let shards = json!([{"node": "node-1", "serving": [0, 1, 2, 3], "changing": []}]);
    assert_eq!((&told["shards"], &told["latency_ms"]["applied"]), (&shards, &json!({})));
    assert!(told.get("rates").is_none(), "{told}");
    let node = &told["nodes"][0];
    assert_eq!((&node["state"], &node["records"], &node["shards"]), (&json!("up"), &json!(2), &json!(4)));
    for absent in ["acks", "applied_p99_ms", "mail_lag_ms", "memory_bytes", "cpu_percent"] {
        assert!(node.get(absent).is_none(), "{absent}: {node}");
    }
    let shortfalls = json!([{"name": "appendonly", "text": "is no"}]);
    assert_eq!((&told["store"]["state"], &told["store"]["shortfalls"]), (&json!("ok"), &shortfalls));
    // Asked at once again, nothing is walked.
    house.log_in("cem", "pc").await;
    assert_eq!(house.get("/v1/overview").await.ok(), told);
}

#[tokio::test]
async fn what_the_watch_has_seen_is_told_with_what_to_do() {
    let house = House::new().await;
    house.board.put(glance());
    let told = house.get("/v1/overview").await.ok();
    let alarm = json!({
        "name": "store_down", "node": "node-1", "severity": "critical", "since": 1_764_320_000_000_u64, "value": 1.0,
        "limit": 0.0, "unit": "servers", "text": "it does not answer", "do": "bring it back", "ending": true,
    });
    assert_eq!(told["alarms"], json!([alarm]));
    assert_eq!((&told["rates"]["acks"], &told["latency_ms"]["applied"]["p50"]), (&json!(7.5), &json!(5.0)));
    assert_eq!((&told["store"]["state"], &told["nodes"][0]["acks"]), (&json!("down"), &json!(7.5)));
    assert_eq!((&told["rates"]["failed"], &told["nodes"][0]["counts"]), (&json!(1.6), &json!(true)));
    assert_eq!(
        told["nodes"][0]["breakers"],
        json!([{"endpoint": "redis://10.0.0.1:6379", "state": "half_open"}])
    );
    // Nobody is in it here, and nobody else has said how many are.
    assert_eq!(told["top_rooms"], json!([{"room": "guild", "pushes": 3.0}]));
}

#[tokio::test]
async fn a_node_that_counts_nothing_says_so_and_one_that_is_unwell_says_how() {
    let house = House::new().await;
    house.board.put(Glance { is_blind: true, ..Glance::default() });
    house.condition.store(3, Ordering::Relaxed);
    let told = house.get("/v1/overview").await.ok();
    let node = &told["nodes"][0];
    assert_eq!((&node["counts"], told.get("rates")), (&json!(false), None), "{told}");
    let unwell = json!([
        {"name": "process", "text": "no file descriptor is left: raise ulimit -n"},
        {"name": "service.keys_file", "text": "cannot be read"}
    ]);
    assert_eq!(node["shortfalls"], unwell);
}

#[tokio::test]
async fn a_node_that_stops_says_so() {
    let house = House::new().await;
    let _ = house.service.part().await;
    house.condition.store(1, Ordering::Relaxed);
    // At once, though what was said before is fresh.
    let node = &house.get("/v1/overview").await.ok()["nodes"][0];
    assert_eq!((&node["state"], &node["shards_left"]), (&json!("stopping"), &json!(4)));
}
