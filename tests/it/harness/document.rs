//! The service API's document, as the stories' services read it: whatever they are answered must stand in it.

use std::sync::LazyLock;

use serde_json::Value;

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(hearth::service::openapi()).expect("a document"));

/// An answer that nobody was told of is a fault: of the document or of the server.
#[track_caller]
pub(crate) fn is_told(method: &str, path: &str, status: u16, body: &Value) {
    let path = path.split('?').next().unwrap_or(path);
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let Some((_, calls)) = paths.iter().find(|(template, _)| is_of(template, path)) else { return };
    let call = &calls[method.to_ascii_lowercase()];
    if call.is_null() {
        assert_eq!(status, 405, "{method} {path} is not told of");
        return;
    }
    let told = &call["responses"][status.to_string()];
    assert!(told.is_object(), "{method} {path}: nobody was told of {status} {body}");
    let codes = &told["content"]["application/problem+json"]["schema"]["properties"]["code"]["enum"];
    if let (Some(codes), false) = (codes.as_array(), body["code"].is_null()) {
        assert!(codes.contains(&body["code"]), "{method} {path}: nobody was told of {status} {body}");
    }
}

fn is_of(template: &str, path: &str) -> bool {
    let (parts, said): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    let fits = |(part, said): (&&str, &&str)| part == said || part.starts_with('{') && !said.is_empty();
    parts.len() == said.len() && parts.iter().zip(&said).all(fits)
}
