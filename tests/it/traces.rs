//! What is promised of traces: one call is one trace over all nodes that do it, what fails and what is slow is kept though
//! nothing is sampled, and a collector that is away disturbs nobody.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::harness::collector::Collector;
use crate::harness::nodes::{KEY, node_on, nodes, players_of};
use crate::harness::patience::until;
use crate::harness::player::Player;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::{Server, Starting};
use crate::harness::socket::Encoding;
use crate::harness::stages::Stage;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// Nothing is slow.
const NEVER_MS: u64 = 3_600_000;

fn traced(starting: Starting, collector: &Collector, ratio: f64) -> Starting {
    let starting = starting.with("trace.otlp_url", collector.url()).with("trace.sample_ratio", ratio);
    starting.with("trace.slow_ms", NEVER_MS)
}

/// A durable change of a player by a service, with these headers: the status, and what the answer says of its span.
async fn patches(node: &Server, player: &str, headers: &[(&str, &str)]) -> (u16, Option<String>) {
    let url = format!("{}/v1/players/{player}/state", node.service_url());
    let request = reqwest::Client::new().patch(url).bearer_auth(KEY);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let answer = request.json(&json!({"set": {"zone": "docks"}, "ack": "durable"})).send().await.unwrap();
    let told = |headers: &HeaderMap| Some(headers.get("traceresponse")?.to_str().unwrap().to_owned());
    (answer.status().as_u16(), told(answer.headers()))
}

/// The one span of this kind and name.
fn one<'a>(spans: &'a [Value], kind: &str, name: &str, node: &str) -> &'a Value {
    let is_it = |span: &&Value| {
        span["kind"] == kind && span["name"] == name && span["resource"]["service.instance.id"] == node
    };
    let found: Vec<_> = spans.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{kind} {name} of {node}: {spans:#?}");
    found[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_for_a_player_at_home_elsewhere_is_one_trace_over_both_nodes_with_its_commit() {
    let (redis, collector) = (RedisServer::start(), Collector::start());
    let settings = |node: Starting| traced(node, &collector, 0.0).with("log.format", "json");
    let [here, there] = {
        let names = std::sync::atomic::AtomicUsize::new(0);
        nodes(&redis, |node| {
            let number = names.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            settings(node).with("node_id", ["here", "there"][number])
        })
        .await
    };
    let name = players_of(&there).await.next().unwrap();
    let mut ann = Player::connect(there.url(), Encoding::Json).await;
    ann.login(&name).await;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let (status, told) = patches(&here, &name, &[("traceparent", &parent), ("tracestate", "shop=t61")]).await;
    assert_eq!(status, 200);
    let spans =
        until("all of the trace", async || Some(collector.trace(TRACE)).filter(|spans| spans.len() >= 4))
            .await;
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let route = "PATCH /v1/players/{player}/state";
    let came_in = one(&spans, "server", route, "here");
    let sent_on = one(&spans, "client", route, "here");
    let at_home = one(&spans, "server", route, "there");
    let commit = one(&spans, "client", "commit", "there");
    for (span, parent, is_remote) in [
        (came_in, &json!(CALLER), true),
        (sent_on, &came_in["span"], false),
        (at_home, &sent_on["span"], true),
        (commit, &at_home["span"], false),
    ] {
        assert_eq!((&span["parent"], &span["is_parent_remote"]), (parent, &json!(is_remote)), "{spans:#?}");
        assert_eq!((&span["state"], &span["failed"]), (&json!("shop=t61"), &json!(false)), "{span}");
        let at = |name: &str| span[name].as_u64().unwrap();
        assert!(at("began_ns") > 1_600_000_000_000_000_000 && at("ended_ns") >= at("began_ns"), "{span}");
        let resource = &span["resource"];
        assert_eq!(
            (&resource["service.name"], &resource["service.namespace"]),
            (&json!("hearth"), &json!("test"))
        );
        assert!(resource["service.version"].is_string(), "{resource}");
    }
    assert_eq!(told.unwrap(), format!("00-{TRACE}-{}-01", came_in["span"].as_str().unwrap()));
    let attribute = |span: &Value, name: &str| span["attributes"][name].clone();
    for span in [came_in, at_home] {
        assert_eq!(attribute(span, "http.request.method"), "PATCH");
        assert_eq!(attribute(span, "http.route"), "/v1/players/{player}/state");
        assert_eq!(attribute(span, "http.response.status_code"), 200);
    }
    assert_eq!(attribute(sent_on, "hearth.peer"), "there");
    assert_eq!(attribute(commit, "db.system.name"), "redis");
    assert_eq!(attribute(commit, "db.operation.name"), "commit");
    // The home's log names the trace, too.
    let audit = until("the audit line", async || {
        let log = there.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|line| line["target"] == "audit" && line["operation"] == "state.patch")
    })
    .await;
    assert_eq!((&audit["trace_id"], &audit["player"]), (&json!(TRACE), &json!(name)), "{audit}");
    // A caller who does not sample gets her own answer, and nothing is kept.
    let other = "0af7651916cd43dd8448eb211c80319c";
    let (status, told) = patches(&here, &name, &[("traceparent", &format!("00-{other}-{CALLER}-00"))]).await;
    assert_eq!(status, 200);
    assert!(told.as_ref().is_some_and(|told| told.contains(other) && told.ends_with("-00")), "{told:?}");
    // A stranger's word counts for nothing, nor does anybody's where no key is asked for.
    let strangers = "2af7651916cd43dd8448eb211c80319c";
    for path in ["v1/players/ann", "healthz"] {
        let call = reqwest::Client::new().get(format!("{}/{path}", here.service_url())).bearer_auth("wrong");
        let told = call.header("traceparent", format!("00-{strangers}-{CALLER}-01")).send().await.unwrap();
        let kept = told.headers().get("traceresponse").map(|told| told.to_str().unwrap());
        assert_eq!(kept.is_some(), path != "healthz");
        assert!(kept.is_none_or(|told| !told.contains(strangers) && told.ends_with("-02")), "{kept:?}");
    }
    let last = "1af7651916cd43dd8448eb211c80319c";
    patches(&here, &name, &[("traceparent", &format!("00-{last}-{CALLER}-01"))]).await;
    collector.until_span("a later trace", |span| span["trace"] == last && span["name"] == "commit").await;
    assert_eq!((collector.trace(other).len(), collector.trace(strangers).len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_kept_though_nothing_is_sampled_with_the_commit_that_did_not_come() {
    let collector = Collector::start();
    let starting = Server::on(Stage::Redis).with_lease(20_000).with("service_key", KEY);
    let mut server = traced(starting, &collector, 0.0).start();
    let mut ann = server.login("ann").await;
    assert_eq!(patches(&server, "ann", &[]).await.0, 200);
    server.redis().pause();
    let refused = ann.is_refused(
        "state.patch",
        json!({"set": {"n": 1}, "cseq": 1, "ack": "durable"}),
        "store_unavailable",
    );
    let (_, (status, told)) = tokio::join!(refused, patches(&server, "ann", &[]));
    assert_eq!(status, 503);
    // Sampled, of an id that was drawn at random.
    assert!(told.is_some_and(|told| told.ends_with("-03")), "the caller hears that it is kept");
    server.redis().go_on();
    for (name, error) in [("PATCH /v1/players/{player}/state", "503"), ("state.patch", "store_unavailable")] {
        let span = collector.until_span(name, |span| span["name"] == name).await;
        assert_eq!(
            (&span["failed"], &span["attributes"]["error.type"]),
            (&json!(true), &json!(error)),
            "{span}"
        );
        assert_eq!((&span["kind"], &span["parent"]), (&json!("server"), &Value::Null));
        let is_child = |child: &Value| child["parent"] == span["span"] && child["trace"] == span["trace"];
        let commit = collector.until_span("its commit", is_child).await;
        assert_eq!((&commit["name"], &commit["failed"]), (&json!("commit"), &json!(true)), "{commit}");
    }
    let other = collector.spans().into_iter().find(|span| span["failed"] == false);
    assert_eq!(other, None, "what went well is not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_slow_is_kept_with_the_commit_that_was() {
    let collector = Collector::start();
    let starting = Server::on(Stage::Redis).with_lease(20_000).with("service_key", KEY);
    let mut server = traced(starting, &collector, 0.0).with("trace.slow_ms", 100).start();
    let mut ann = server.login("ann").await;
    server.redis().query::<()>(&["CLIENT", "PAUSE", "900", "WRITE"]);
    ann.patch_durably(json!({"set": {"n": 1}, "cseq": 1})).await;
    let span = collector.until_span("the command", |span| span["name"] == "state.patch").await;
    assert_eq!(span["attributes"]["hearth.player"], "ann");
    let commit = collector.until_span("its commit", |child| child["parent"] == span["span"]).await;
    for span in [&span, &commit] {
        let took = span["ended_ns"].as_u64().unwrap() - span["began_ns"].as_u64().unwrap();
        assert!(took >= 100_000_000 && span["failed"] == false, "{span}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_logs_out_is_told_of_whether_she_says_so_or_closes_for_good_or_does_not_stay_to_hear_it() {
    let collector = Collector::start();
    let starting = Server::on(Stage::Redis).with_lease(20_000);
    let mut server = traced(starting, &collector, 1.0).start();
    let logout = async |player: &str| {
        let is_it = |span: &Value| span["name"] == "logout" && span["attributes"]["hearth.player"] == player;
        let span = collector.until_span(&format!("the logout of {player}"), is_it).await;
        let told = (&span["kind"], &span["failed"], &span["attributes"]["hearth.shard"]);
        assert!(told.0 == "server" && told.1 == false && told.2.is_u64(), "{span}");
        span
    };
    let mut ann = server.login("ann").await;
    ann.does("logout", json!({})).await;
    let span = logout("ann").await;
    assert_eq!(span["attributes"]["hearth.session"], ann.ready["session"]);
    let bea = server.login("bea").await;
    let session = bea.closes(1000).await.session;
    assert_eq!(logout("bea").await["attributes"]["hearth.session"], json!(session));
    // One who is cut off comes back, and has not logged out.
    server.login("cem").await.closes(1001).await;
    // The store does not take it before she is gone.
    let mut dan = server.login("dan").await;
    server.redis().pause();
    dan.send("logout", json!({})).await;
    dan.drops();
    logout("dan").await;
    server.redis().go_on();
    assert!(
        collector
            .spans()
            .iter()
            .all(|span| { span["name"] != "logout" || span["attributes"]["hearth.player"] != "cem" })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_disturbs_nobody_and_is_counted_and_gets_what_waits_when_it_comes() {
    // Nobody listens there, nor is it one that the system gives to anybody who asks for any.
    let port = hearth::rig::free_ports(1).unwrap()[0];
    let starting = Server::on(Stage::Embedded).with("trace.otlp_url", format!("http://127.0.0.1:{port}"));
    let mut server = starting.with("trace.sample_ratio", 1).start();
    let mut ann = server.login("ann").await;
    // Refused for want of a key, and sampled like everything.
    let call = format!("{}/v1/stats", server.service_url());
    let client = reqwest::Client::new();
    let asks = async || {
        for _ in 0..100 {
            assert!(client.get(&call).send().await.unwrap().status().is_client_error());
        }
    };
    until("more spans than wait", async || {
        futures_util::future::join_all((0..10).map(|_| asks())).await;
        (server.metric("hearth_trace_spans_total", "outcome=\"dropped\"").await > 0).then_some(())
    })
    .await;
    ann.patch_durably(json!({"set": {"n": 1}, "cseq": 1})).await;
    let told = |words: &str| server.log().lines().filter(|line| line.contains(words)).count();
    until("it to be told", async || (told("the collector does not take traces") > 0).then_some(())).await;
    assert_eq!(server.metric("hearth_trace_spans_total", "outcome=\"sent\"").await, 0);
    let collector = Collector::start_on(port, 200);
    collector.until_span("what waited", |span| span["name"] == "login").await;
    server.until_metric("hearth_trace_spans_total", "outcome=\"sent\"", 512).await;
    assert_eq!(told("the collector does not take traces"), 1, "once");
    until("that to be told", async || (told("the collector takes traces again") == 1).then_some(())).await;
    drop(collector);
    // Nor does it keep a stop waiting.
    assert!(server.stop_gracefully().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_sends_what_is_left_with_the_headers_of_the_environment() {
    let collector = Collector::start();
    let starting = Server::on(Stage::Embedded).with("trace.otlp_url", collector.url());
    let starting = starting
        .with("trace.sample_ratio", 1)
        .in_environment("HEARTH_TRACE__HEADERS", "x-team=games, x-key=s3cret");
    let mut server = starting.start();
    let mut ann = server.login("ann").await;
    ann.patch(json!({"set": {"n": 1}, "cseq": 1})).await;
    assert!(server.stop_gracefully().success());
    let span = collector.until_span("the change", |span| span["name"] == "state.patch").await;
    assert_eq!((&span["headers"]["x-team"], &span["headers"]["x-key"]), (&json!("games"), &json!("s3cret")));
    let login = collector.until_span("the login", |span| span["name"] == "login").await;
    assert_eq!(login["attributes"]["hearth.outcome"], "ok");
    assert_eq!(login["attributes"]["hearth.session"], ann.ready["session"]);
    assert!(!server.log().contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_moves_is_a_trace_and_what_its_next_home_asks_is_a_part_of_it() {
    let (redis, collector) = (RedisServer::start(), Collector::start());
    let [here, mut there] = nodes(&redis, |node| traced(node, &collector, 1.0)).await;
    let name = players_of(&there).await.next().unwrap();
    let mut ann = Player::connect(there.url(), Encoding::Json).await;
    ann.login(&name).await;
    ann.patch(json!({"set": {"n": 1}, "cseq": 1})).await;
    assert!(there.stop_gracefully().success());
    let pull = collector.until_span("a pull", |span| span["name"] == "shard pull").await;
    for (kind, parent) in [("client", "shard pull"), ("server", "peer home")] {
        let what = format!("a question under {parent}");
        let asked =
            collector.until_span(&what, |span| span["name"] == "peer home" && span["kind"] == kind).await;
        let spans = collector.trace(asked["trace"].as_str().unwrap());
        assert!(
            spans.iter().any(|span| span["span"] == asked["parent"] && span["name"] == parent),
            "{spans:#?}"
        );
    }
    assert!(pull["attributes"]["hearth.shard"].is_u64());
    for name in ["shard hand over", "shard take over"] {
        collector.until_span(name, |span| span["name"] == name).await;
    }
    drop(here);
}

#[tokio::test]
async fn a_collector_that_cannot_be_is_a_fault_before_anything_starts_and_no_secret_is_told() {
    for (setting, value, said) in [
        ("trace.otlp_url", "http://user:s3cret@jaeger:4318", "trace.otlp_url"),
        ("trace.otlp_url", "http://jaeger:http", "trace.otlp_url"),
        ("trace.sample_ratio", "1.5", "between 0 and 1"),
        ("trace.headers", "s3cret", "name=value"),
        ("trace.headers_file", "/nowhere/headers", "cannot read /nowhere/headers"),
    ] {
        let starting =
            Server::on(Stage::Embedded).with("trace.otlp_url", "http://127.0.0.1:4318").with(setting, value);
        let exit = starting.fails();
        let told = exit.lines.join("\n");
        assert_eq!(exit.code, Some(64), "{setting}: {told}");
        assert!(told.contains(said) && !told.contains("s3cret"), "{setting}: {told}");
    }
}

#[tokio::test]
async fn without_a_collector_nothing_is_traced_and_the_log_still_names_a_callers_trace() {
    let redis = RedisServer::start();
    let node = node_on(&redis).with("log.format", "json").start();
    let _ann = node.login("ann").await;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let (status, told) = patches(&node, "ann", &[("traceparent", &parent)]).await;
    assert_eq!((status, told), (200, None));
    let audit = until("the audit line", async || {
        let log = node.log();
        log.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["target"] == "audit")
    })
    .await;
    assert_eq!(audit["trace_id"], TRACE, "{audit}");
}
