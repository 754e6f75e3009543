//! The document says what the API does: every route, every key, and every refusal that these tests come upon.

use std::collections::BTreeSet;

use axum::http::Method;
use protocol::ErrorCode;
use serde_json::{Value, json};

use super::{Answer, House};
use crate::service::{calls, openapi, route};

/// Whether a path is one of those that a route stands for.
fn is_of(route: &str, path: &str) -> bool {
    let (parts, said): (Vec<_>, Vec<_>) = (route.split('/').collect(), path.split('/').collect());
    let fits = |(part, said): (&&str, &&str)| part == said || part.starts_with('{') && !said.is_empty();
    parts.len() == said.len() && parts.iter().zip(&said).all(fits)
}

/// An answer that nobody was told of is a fault: of the document or of the server.
#[track_caller]
pub(super) fn is_told(method: &Method, path: &str, answer: &Answer) {
    let all = calls::all();
    let Some(call) = all.iter().find(|call| call.method == *method && is_of(call.path, path)) else { return };
    let is_refusal =
        answer.headers.get("content-type").is_some_and(|kind| kind == "application/problem+json");
    let code = is_refusal.then(|| {
        let name = answer.json()["code"].as_str().map(str::to_owned).unwrap();
        ErrorCode::ALL.iter().copied().find(|code| code.name() == name).unwrap()
    });
    assert!(call.may_answer(answer.status, code), "{method} {}: {} {code:?}", call.path, answer.status);
}

fn document() -> Value {
    serde_json::from_str(openapi()).unwrap()
}

#[test]
fn every_route_is_told_and_nothing_else() {
    let told: BTreeSet<_> = calls::all().iter().map(|call| call.path).collect();
    assert_eq!(told, route::ALL.iter().copied().collect());
    let open: BTreeSet<_> =
        calls::all().iter().filter(|call| call.scope.is_none()).map(|call| call.path).collect();
    assert_eq!(open, route::OPEN.iter().copied().collect());
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.values().flat_map(|path| path.as_object().unwrap().values());
    let ids: BTreeSet<_> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), calls::all().len(), "each call once, under a name of its own");
}

#[test]
fn whatever_is_referred_to_is_there_and_nothing_else() {
    fn refer<'a>(value: &'a Value, to: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                let named = fields.get("$ref").and_then(Value::as_str);
                to.extend(named.map(|path| path.strip_prefix("#/components/schemas/").unwrap()));
                fields.values().for_each(|value| refer(value, to));
            }
            Value::Array(items) => items.iter().for_each(|value| refer(value, to)),
            _ => {}
        }
    }
    let document = document();
    let mut named = BTreeSet::new();
    refer(&document, &mut named);
    let there: BTreeSet<_> = document["components"]["schemas"].as_object().unwrap().keys().collect();
    assert_eq!(named, there.into_iter().map(String::as_str).collect());
}

/// What generators of clients stop at, or make classes of that cannot read an answer.
fn is_hard(at: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let alternatives = ["oneOf", "anyOf"].iter().filter_map(|name| fields.get(*name)?.as_array());
            let is_words = alternatives.flatten().any(|one| one.get("const").is_some());
            let is_null = fields.get("type").is_some_and(|kind| kind == "null");
            let media = fields.get("content").and_then(Value::as_object).into_iter().flatten();
            let is_empty =
                media.filter(|(_, media)| media["schema"].as_object().is_none_or(serde_json::Map::is_empty));
            let is_told_twice = fields.contains_key("in") && fields["schema"].get("anyOf").is_some();
            let faults = [
                (is_words, "one of some words"),
                (is_null, "null"),
                (is_told_twice, "a parameter of two kinds"),
            ];
            found
                .extend(faults.iter().filter(|(is_so, _)| *is_so).map(|(_, fault)| format!("{at}: {fault}")));
            found.extend(is_empty.map(|(media, _)| format!("{at}: {media} of nothing")));
            for (name, value) in fields {
                is_hard(&format!("{at}/{name}"), value, found);
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(place, item)| is_hard(&format!("{at}/{place}"), item, found));
        }
        _ => {}
    }
}

#[test]
fn generators_of_clients_know_all_that_the_document_says() {
    let mut found = Vec::new();
    is_hard("", &document(), &mut found);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn words_are_one_enum_that_tells_what_each_means() {
    let ack = &document()["components"]["schemas"]["Ack"];
    assert_eq!(
        (&ack["type"], &ack["enum"]),
        (&json!("string"), &json!(["applied", "durable", "replicated"]))
    );
    let about =
        "How much an ack promises. `applied`: Visible to every later read. `durable`: The store has it.";
    assert!(ack["description"].as_str().unwrap().starts_with(about), "{ack}");
}

#[tokio::test]
async fn the_document_is_read_without_a_key() {
    let house = House::new().await;
    for path in ["/v1/openapi.json", "/openapi.json"] {
        let request = axum::http::Request::builder().uri(path).body(axum::body::Body::empty()).unwrap();
        assert_eq!(house.send(request).await.ok(), document(), "{path}");
    }
}

#[tokio::test]
async fn what_is_asked_of_a_room_means_something_or_is_refused() {
    let house = House::new().await;
    for asked in ["count_only", "count_only=true", "count_only=false", "limit=3"] {
        house.get(&format!("/v1/rooms/hall?{asked}")).await.ok();
    }
    for asked in ["count_only=maybe", "count_only=0", "count_only&limit=many", "limit=-1"] {
        house.get(&format!("/v1/rooms/hall?{asked}")).await.problem(400, "bad_request");
    }
}
