//! What the faults have in common: a server that believes soon, and the look at its alarms.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value;

pub(crate) use crate::harness::nodes::KEY;
use crate::harness::patience::{trying_until, until};
use crate::harness::server::{Server, Starting};
use crate::harness::service::Service;

/// So many bad seconds in a row are believed.
const BEGINS_AFTER: usize = 2;

/// With limits that a handful of clients can reach.
pub(crate) fn watched(starting: Starting) -> Starting {
    starting
        .with("service_key", KEY)
        .with("alarm.begins_after_s", BEGINS_AFTER)
        .with("alarm.ends_after_s", 3)
        .with("alarm.hot_room_floor_per_s", 60)
        .with("alarm.logins_refused_per_s", 1)
        .with("alarm.slow_readers", 1)
        .with("alarm.bad_clients_per_s", 1)
        .with("alarm.leak_window_ms", 6_000)
        .with("alarm.leak_floor", 20)
}

async fn overview(server: &Server) -> Value {
    let (status, told) = Service::of(server, KEY).get("/v1/overview").await;
    assert_eq!(status, 200, "{told}");
    told
}

/// The alarms that are on, by name.
fn names(told: &Value) -> Vec<(String, Value)> {
    let alarms = told["alarms"].as_array().unwrap().iter();
    alarms.map(|alarm| (alarm["name"].as_str().unwrap().to_owned(), alarm.clone())).collect()
}

/// No alarm of this name is on before the fault, for longer than one takes to begin.
pub(crate) async fn is_calm(server: &Server, name: &str) {
    let mut looks = BTreeSet::new();
    trying_until("looks at what is known", async || {
        let told = overview(server).await;
        let on = names(&told);
        assert!(on.iter().all(|(known, _)| known != name), "{name} rings before its fault: {on:?}");
        // This call is one of those that are counted as soon as anything is.
        if told["rates"]["service_calls"].as_f64() > Some(0.0) {
            looks.insert(told["as_of"].as_u64());
        }
        (looks.len() >= BEGINS_AFTER + 2).then_some(())
    })
    .await;
}

/// Waits until the alarm rings, hurting all the while; what it says.
pub(crate) async fn rings(server: &Server, name: &str, mut hurt: impl AsyncFnMut()) -> Value {
    let began = Instant::now();
    let alarm = trying_until(&format!("{name} to ring"), async || {
        hurt().await;
        names(&overview(server).await).into_iter().find_map(|(known, alarm)| (known == name).then_some(alarm))
    })
    .await;
    println!("{name} rings after {:.1} s: {}", began.elapsed().as_secs_f64(), alarm["text"]);
    for field in ["text", "do", "unit", "severity", "node"] {
        assert!(alarm[field].as_str().is_some_and(|text| !text.is_empty()), "{alarm}");
    }
    assert!(alarm["value"].as_f64() > alarm["limit"].as_f64(), "{alarm}");
    alarm
}

/// Waits until it rings no more.
pub(crate) async fn ends(server: &Server, name: &str) {
    until(&format!("{name} to end"), async || {
        names(&overview(server).await).iter().all(|(known, _)| known != name).then_some(())
    })
    .await;
}
