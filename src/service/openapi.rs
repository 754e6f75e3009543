//! The OpenAPI 3.1 document of the service API: made of the table of its calls and of the types of their bodies, served,
//! and printed by `hearth openapi`. It says nothing of a deployment, so nobody needs a key to read it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::ErrorCode;
use protocol::calls::{AlarmChange, Checkpoint, Event, Problem};
use protocol::schema::{BlobName, KeyName, Player, RoomName, Session};
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::calls::{self, Answer, Body, Call, Parameter, SchemaOf};
use super::route;

/// Made once: it never changes.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    // Texts and numbers always serialise.
    serde_json::to_string_pretty(&document()).unwrap_or_default() + "\n"
});

/// The document, as JSON text.
#[must_use]
pub fn openapi() -> &'static str {
    &DOCUMENT
}

/// `GET /v1/openapi.json`
pub(super) async fn look() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi()).into_response()
}

/// What is said of the whole.
const ABOUT: &str = "\
    Hearth's service API: for game services and operators, never for players. Every call under `/v1` but \
    `/v1/openapi.json` needs `Authorization: Bearer` with a service key or a service's JWT, whose scopes each call names. \
    Refusals are problem details (RFC 9457) with a named `code`. Unknown fields of a body are ignored; clients must ignore \
    unknown fields of answers. Lengths of texts are counted in bytes of UTF-8, and whole numbers are written without a \
    fraction. Of a repeat under the same `idempotency_key` the rest of the body is not compared with the first one's. \
    Where GET is answered HEAD is, too, without the body. Beside what each call names, a method that a path does not take \
    is 405 with `Allow`, and a path that does not exist 404; a body that has not arrived after 10 s is 408; what the HTTP \
    layer itself refuses (an address over 64 KiB is 414, a head over about 480 kB or of more than 100 header lines 431) \
    has no body. `/console` and what is below it is a page for operators and no call; `/` leads there. All of it in words: protocol/README.md, section 11.";

fn document() -> Value {
    let mut schemas = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .with_transform(Plain)
        .into_generator();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for call in calls::all() {
        let operation = operation(&call, &mut schemas);
        paths.entry(call.path).or_default().insert(call.method.as_str().to_ascii_lowercase(), operation);
    }
    // What events carry is referred to by its name.
    let _ = (
        schemas.subschema_for::<Event>(),
        schemas.subschema_for::<Checkpoint>(),
        schemas.subschema_for::<AlarmChange>(),
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Hearth service API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        // Where it was read from.
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": { "serviceKey": {
                "type": "http",
                "scheme": "bearer",
                "description": "A service key, or a JWT of a service. Scopes: read, push, write, admin.",
            } },
        },
    })
}

fn operation(call: &Call, schemas: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": call.id,
        "tags": [tag(call.path)],
        "summary": call.summary,
        "responses": responses(call, schemas),
        "security": match call.scope {
            Some(scope) => json!([{ "serviceKey": [scope.name()] }]),
            None => json!([]),
        },
    });
    let mut put = |name: &str, value: Value| {
        operation.as_object_mut().map(|operation| operation.insert(name.to_owned(), value))
    };
    let scope = call.scope.map(|scope| format!("Needs a key with the scope `{}`.", scope.name()));
    let about: Vec<&str> = [call.more, scope.as_deref().unwrap_or_default()]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    put("description", json!(about.join(" ")));
    let named = in_path(call.path).map(|name| path_parameter(call.path, name, schemas));
    let parameters: Vec<Value> = named.chain(call.parameters.iter().map(parameter)).collect();
    if !parameters.is_empty() {
        put("parameters", json!(parameters));
    }
    if let Some(body) = &call.body {
        put("requestBody", request_body(body, schemas));
    }
    operation
}

/// What a path is about: its first part that is a name.
fn tag(path: &str) -> &str {
    match path.split('/').find(|part| !part.is_empty() && *part != "v1") {
        Some("healthz" | "readyz" | "metrics" | "openapi.json" | "stats" | "cluster") | None => "operations",
        Some(part) => part,
    }
}

/// The names in braces of a path.
fn in_path(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn path_parameter(path: &str, name: &str, schemas: &mut SchemaGenerator) -> Value {
    fn of<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Schema {
        schemas.subschema_for::<T>()
    }
    let schema = match name {
        "player" => of::<Player>(schemas),
        "session" => of::<Session>(schemas),
        "room" => of::<RoomName>(schemas),
        _ if path == route::BLOB => of::<BlobName>(schemas),
        _ => of::<KeyName>(schemas),
    };
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

fn parameter(parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.is_required,
        "description": parameter.about,
        "schema": parameter.schema,
    })
}

fn request_body(body: &Body, schemas: &mut SchemaGenerator) -> Value {
    let schema = body.schema.map_or_else(bytes, |schema| schema_of(schema, body, schemas));
    let media = json!({ "schema": schema });
    let content: Map<String, Value> =
        body.types.iter().map(|named| ((*named).to_owned(), media.clone())).collect();
    json!({ "required": body.is_required, "content": content })
}

/// Bytes of any kind. JSON Schema has no word for them; generators of clients know this one, and stop where there is none.
fn bytes() -> Value {
    json!({ "type": "string", "format": "binary" })
}

/// The schema of a body, without what means nothing there.
fn schema_of(schema: SchemaOf, body: &Body, schemas: &mut SchemaGenerator) -> Value {
    let schema = schema(schemas).to_value();
    let reference = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    if let Some(named) = reference.and_then(|name| schemas.definitions_mut().get_mut(name)) {
        for field in body.without {
            named.get_mut("properties").and_then(Value::as_object_mut).map(|fields| fields.remove(*field));
        }
    }
    schema
}

fn responses(call: &Call, schemas: &mut SchemaGenerator) -> Value {
    let mut responses: BTreeMap<u16, Value> =
        call.answers.iter().map(|told| (told.status, answer(told, schemas))).collect();
    let mut refusals: BTreeMap<StatusCode, Vec<ErrorCode>> = BTreeMap::new();
    for (status, code) in &call.refusals {
        refusals.entry(*status).or_default().push(*code);
    }
    for (status, codes) in refusals {
        responses.insert(status.as_u16(), refusal(status, &codes, schemas));
    }
    json!(responses)
}

fn answer(answer: &Answer, schemas: &mut SchemaGenerator) -> Value {
    let mut told = json!({ "description": answer.about });
    let mut put =
        |name: &str, value: Value| told.as_object_mut().map(|told| told.insert(name.to_owned(), value));
    if !answer.types.is_empty() {
        let schema = match answer.schema {
            Some(schema) => json!({ "schema": schema(schemas) }),
            None if answer.types.contains(&"text/event-stream") => json!({ "schema": event_message() }),
            None if answer.types.contains(&"application/json") => json!({ "schema": { "type": "object" } }),
            None if answer.types.iter().any(|named| named.starts_with("text/")) => {
                json!({ "schema": { "type": "string" } })
            }
            None => json!({ "schema": bytes() }),
        };
        let content: Map<String, Value> =
            answer.types.iter().map(|named| ((*named).to_owned(), schema.clone())).collect();
        put("content", Value::Object(content));
    }
    if !answer.headers.is_empty() {
        let headers: Map<String, Value> =
            answer.headers.iter().map(|name| ((*name).to_owned(), header_of(name, true))).collect();
        put("headers", Value::Object(headers));
    }
    told
}

/// One server-sent event.
fn event_message() -> Value {
    json!({
        "description": "Of each event.",
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": { "type": "string", "enum": ["session", "presence", "resync", "gap", "checkpoint", "alarm"] },
            "id": { "description": "Of a `checkpoint`: the same as in its data.", "type": "string" },
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": { "anyOf": [
                    { "$ref": "#/components/schemas/Event" },
                    { "$ref": "#/components/schemas/Checkpoint" },
                    { "$ref": "#/components/schemas/AlarmChange" },
                ] },
            },
        },
    })
}

fn refusal(status: StatusCode, codes: &[ErrorCode], schemas: &mut SchemaGenerator) -> Value {
    let names: Vec<&str> = codes.iter().map(|code| code.name()).collect();
    let mut headers = Map::new();
    match status {
        StatusCode::UNAUTHORIZED => {
            drop(headers.insert("WWW-Authenticate".to_owned(), header_of("WWW-Authenticate", true)))
        }
        StatusCode::PRECONDITION_FAILED => drop(headers.insert("ETag".to_owned(), header_of("ETag", false))),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT => {
            headers.insert("Retry-After".to_owned(), header_of("Retry-After", false));
        }
        _ => {}
    }
    json!({
        "description": names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        "headers": headers,
        "content": { "application/problem+json": { "schema": {
            "allOf": [schemas.subschema_for::<Problem>()],
            "properties": {
                "status": { "type": "integer", "const": status.as_u16() },
                "code": { "type": "string", "enum": names },
            },
        } } },
    })
}

fn header_of(name: &str, is_required: bool) -> Value {
    let (about, schema) = match name {
        "ETag" => {
            ("Names exactly this content.", json!({ "type": "string", "pattern": "^\"[0-9a-f]{32}\"$" }))
        }
        "Location" => ("Where it is looked at.", json!({ "type": "string" })),
        "Retry-After" => {
            ("When to try again at the earliest, in seconds.", json!({ "type": "integer", "minimum": 1 }))
        }
        "WWW-Authenticate" => ("How to say who calls.", json!({ "type": "string", "const": "Bearer" })),
        "Cache-Control" => ("Who may keep it.", json!({ "type": "string" })),
        _ => ("As it says.", json!({ "type": "string" })),
    };
    json!({ "description": about, "required": is_required, "schema": schema })
}

/// Says things as generators of clients know them: how large a number can be that has so many bits, two of the same kind as
/// a list of two, one of some words as an enum, and what is left out rather than `null` by what it is.
#[derive(Debug, Clone)]
struct Plain;

impl Plain {
    /// Words with what each means, one schema for each, become one schema of them all.
    fn words(schema: &mut Schema) {
        let Some(Value::Array(each)) = schema.get("oneOf") else { return };
        let word = |one: &Value| one.get("const").and_then(Value::as_str).map(str::to_owned);
        let Some(words) = each.iter().map(word).collect::<Option<Vec<_>>>() else { return };
        let meant = |(one, word): (&Value, &String)| {
            one.get("description").and_then(Value::as_str).map(|meaning| format!("`{word}`: {meaning}"))
        };
        let meanings: Vec<_> = each.iter().zip(&words).filter_map(meant).collect();
        let about = schema.get("description").and_then(Value::as_str).map(str::to_owned);
        let about: Vec<_> = about.into_iter().chain(meanings).collect();
        schema.remove("oneOf");
        schema.insert("description".to_owned(), json!(about.join(" ")));
        schema.insert("type".to_owned(), json!("string"));
        schema.insert("enum".to_owned(), json!(words));
    }

    /// An answer leaves out what it does not have: what is there is what it refers to.
    fn left_out(schema: &mut Schema) {
        let Some(Value::Array(either)) = schema.get("anyOf") else { return };
        if let [referred, null] = either.as_slice()
            && let (Some(reference), Some("null")) =
                (referred.get("$ref").cloned(), null.get("type").and_then(Value::as_str))
        {
            schema.remove("anyOf");
            schema.insert("$ref".to_owned(), reference);
        }
    }
}

impl Transform for Plain {
    fn transform(&mut self, schema: &mut Schema) {
        Self::words(schema);
        Self::left_out(schema);
        if let Some(Value::Array(items)) = schema.remove("prefixItems") {
            schema.insert("items".to_owned(), items.into_iter().next().unwrap_or_default());
        }
        let format = schema.get("format").and_then(Value::as_str);
        let (min, max) = match format {
            Some("uint64" | "uint") => (json!(0), json!(u64::MAX)),
            Some("uint32") => (json!(0), json!(u32::MAX)),
            Some("int64") => (json!(i64::MIN), json!(i64::MAX)),
            _ => return transform_subschemas(self, schema),
        };
        // What is bounded more closely stays so.
        for (name, bound) in [("minimum", min), ("maximum", max)] {
            if schema.get(name).is_none() {
                schema.insert(name.to_owned(), bound);
            }
        }
        transform_subschemas(self, schema);
    }
}
