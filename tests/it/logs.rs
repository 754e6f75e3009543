//! What is promised of the log: one line a change, with the same fields wherever it comes from; and a level that can be
//! changed while a node runs.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::nodes::KEY;
use crate::harness::patience::until;
use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::stages::Stage;

/// Its lines so far: all of them are JSON.
fn lines(server: &Server) -> Vec<Value> {
    let log = server.log();
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
}

async fn line(server: &Server, operation: &str, of: impl Fn(&Value) -> bool) -> Value {
    let is_it = |line: &Value| line["operation"] == operation && of(line);
    until(&format!("a line of {operation}"), async || lines(server).into_iter().find(&is_it)).await
}

fn logging() -> Server {
    let starting = Server::on(Stage::Embedded).with("log.format", "json").with("node_id", "n1");
    starting.with("service_key", KEY).start()
}

#[tokio::test]
async fn a_session_leaves_one_line_for_each_of_its_turns() {
    let server = logging();
    let ann = server.login("ann").await;
    let session = ann.ready["session"].clone();
    let credentials = ann.drops();
    let is_hers = |line: &Value| line["session"] == session && line["player"] == "ann";
    let detached = line(&server, "detach", is_hers).await;
    assert_eq!(detached["status"], "1006", "{detached}");
    let _back = server.resume(&credentials).await;
    let service = Service::of(&server, KEY);
    let kicked = service.post("/v1/players/ann/kick", json!({"reason": "enough"})).await;
    assert_eq!(kicked.0, 200);
    for (operation, status) in [("login", "ok"), ("resume", "ok"), ("session.end", "kicked")] {
        let told = line(&server, operation, is_hers).await;
        assert_eq!(told["status"], status, "{told}");
        for field in ["timestamp", "level", "service", "node", "operation"] {
            assert!(told[field].is_string(), "{field}: {told}");
        }
        assert_eq!((&told["service"], &told["node"]), (&json!("hearth"), &json!("n1")));
        assert_eq!(told["duration_ms"].is_f64(), operation != "session.end", "{told}");
        let times =
            lines(&server).iter().filter(|line| line["operation"] == operation && is_hers(line)).count();
        assert_eq!(times, 1, "{operation}");
    }
    let audit = line(&server, "kick", |line| line["target"] == "audit").await;
    assert_eq!((&audit["player"], &audit["status"]), (&json!("ann"), &json!("ok")), "{audit}");
    assert!(lines(&server).iter().all(|line| line["operation"].is_string()), "each says what was being done");
}

#[tokio::test]
async fn a_level_is_changed_while_a_node_runs_and_goes_back_by_itself() {
    let server = logging();
    let service = Service::of(&server, KEY);
    let calls = async || lines(&server).iter().filter(|line| line["message"] == "a call").count();
    let (status, told) = service.get("/v1/log").await;
    assert_eq!((status, &told), (200, &json!({"node": "n1", "level": "info", "configured": "info"})));
    assert_eq!(calls().await, 0);
    let asked = json!({"level": "warn,hearth::service=debug", "for_s": 15});
    let (status, told) = service.put("/v1/log", asked).await;
    assert_eq!(
        (status, &told["level"], &told["configured"]),
        (200, &json!("warn,hearth::service=debug"), &json!("info"))
    );
    assert!(told["until"].as_u64().unwrap() > 1_600_000_000_000);
    until("what is logged at that level", async || {
        service.get("/v1/stats").await;
        (calls().await > 0).then_some(())
    })
    .await;
    line(&server, "log.level", |line| line["message"] == "logs by the settings again").await;
    let (_, told) = service.get("/v1/log").await;
    assert_eq!(told, json!({"node": "n1", "level": "info", "configured": "info"}));
    let before = calls().await;
    service.get("/v1/stats").await;
    assert_eq!(calls().await, before);
    let audit = line(&server, "log.level", |line| line["target"] == "audit").await;
    assert_eq!((&audit["status"], &audit["method"]), (&json!("ok"), &json!("PUT")));
    assert_eq!(audit["asked"], "warn,hearth::service=debug for 15 s");
    // Also where nothing else is.
    assert_eq!(service.put("/v1/log", json!({"level": "off,audit=off"})).await.0, 200);
    let is_second = async || {
        lines(&server)
            .iter()
            .filter(|line| line["target"] == "audit" && line["operation"] == "log.level")
            .count()
            > 1
    };
    until("its audit line", async || is_second().await.then_some(())).await;
}

#[tokio::test]
async fn what_is_no_level_is_refused_by_name_and_changes_nothing() {
    let server = logging();
    let service = Service::of(&server, KEY);
    for (body, named) in [
        (json!({"level": "hearth=loud"}), "level"),
        (json!({"level": "warning", "for_s": 60}), "level: must be a log filter"),
        (json!({"level": ",,,"}), "it says nothing"),
        (json!({"level": "info, loud"}), "\"loud\" is no level"),
        (json!({"level": ""}), "level"),
        (json!({"level": "info,audit[{key}]=off"}), "level"),
        (json!({"level": "x".repeat(2_000)}), "level"),
        (json!({"level": 7}), "level"),
        (json!({"for_s": 60}), "level"),
        (json!({"level": "debug", "for_s": 0}), "for_s"),
        (json!({"level": "debug", "for_s": 86_401}), "for_s"),
        (json!({"level": "debug", "for_s": -1}), "for_s"),
    ] {
        let (status, told) = service.call(Method::PUT, "/v1/log", Some(body.clone())).await;
        assert_eq!((status, &told["code"]), (400, &json!("bad_request")), "{body}");
        assert!(told["detail"].as_str().unwrap().contains(named), "{told}");
    }
    assert_eq!(service.get("/v1/log").await.1["level"], "info");
}
