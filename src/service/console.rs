//! The operators' console: one page and what it is made of, as they stand in `console/`. Holds nothing of a deployment, so
//! nobody needs a key to read it: what it shows it asks the API for, with the key of whoever looks. No call of the API,
//! and so in no document of it. Its headers are the second wall around what players and services call themselves.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use xxhash_rust::xxh3::xxh3_64;

use super::Service;

/// Where the page is.
const PAGE: &str = "/console";
/// Scripts, styles and pictures of the page's own, calls to where it came from, and nothing else; no markup is ever made of
/// a text (Trusted Types), and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// One file of the page.
#[derive(Clone, Copy)]
struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All of them.
const FILES: &[File] = &[
    File { path: PAGE, kind: "text/html; charset=utf-8", text: include_str!("console/index.html") },
    File {
        path: "/console/style.css",
        kind: "text/css; charset=utf-8",
        text: include_str!("console/style.css"),
    },
    File { path: "/console/icon.svg", kind: "image/svg+xml", text: include_str!("console/icon.svg") },
    File { path: "/console/app.js", kind: SCRIPT, text: include_str!("console/app.js") },
    File { path: "/console/alarms.js", kind: SCRIPT, text: include_str!("console/alarms.js") },
    File { path: "/console/api.js", kind: SCRIPT, text: include_str!("console/api.js") },
    File { path: "/console/charts.js", kind: SCRIPT, text: include_str!("console/charts.js") },
    File { path: "/console/dom.js", kind: SCRIPT, text: include_str!("console/dom.js") },
    File { path: "/console/figures.js", kind: SCRIPT, text: include_str!("console/figures.js") },
    File { path: "/console/lists.js", kind: SCRIPT, text: include_str!("console/lists.js") },
    File { path: "/console/nodes.js", kind: SCRIPT, text: include_str!("console/nodes.js") },
    File { path: "/console/past.js", kind: SCRIPT, text: include_str!("console/past.js") },
    File { path: "/console/player.js", kind: SCRIPT, text: include_str!("console/player.js") },
    File { path: "/console/shards.js", kind: SCRIPT, text: include_str!("console/shards.js") },
    File { path: "/console/words.js", kind: SCRIPT, text: include_str!("console/words.js") },
];

/// The page, its files, and the ways to it that people try. Redirects are relative, so that they hold behind a proxy that
/// serves the port under a path of its own; a browser carries the fragment, in which a key may be, along.
pub(super) fn router() -> Router<Arc<Service>> {
    let ways = Router::new()
        .route("/", get(async || moved("console")))
        .route("/console/", get(async || moved("../console")));
    FILES.iter().fold(ways, |router, file| {
        let tag = tag_of(file.text);
        router.route(file.path, get(async move |headers: HeaderMap| file.answer(&tag, &headers)))
    })
}

fn moved(to: &'static str) -> Response {
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, HeaderValue::from_static(to))]).into_response()
}

/// The content's own: a new version of the server is seen at the next look.
fn tag_of(text: &str) -> String {
    format!("\"{:016x}\"", xxh3_64(text.as_bytes()))
}

impl File {
    fn answer(self, tag: &str, asked: &HeaderMap) -> Response {
        let mut response = if is_there_already(tag, asked) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, HeaderValue::from_static(self.kind))], self.text).into_response()
        };
        let headers = response.headers_mut();
        if let Ok(tag) = HeaderValue::from_str(tag) {
            headers.insert(header::ETAG, tag);
        }
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            // For browsers that do not know `frame-ancestors`.
            (header::X_FRAME_OPTIONS, "DENY"),
            // Nor does a page that opened it, or that it opens, hold a handle of it.
            (OPENER_POLICY, "same-origin"),
            // Whoever keeps it asks whether it is still the same, so that its files are always of one version.
            (header::CACHE_CONTROL, "no-cache"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Whether `If-None-Match` names it (RFC 9110: compared weakly).
fn is_there_already(tag: &str, asked: &HeaderMap) -> bool {
    let named = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    named
        .flat_map(|tags| tags.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// Where the console of a node is. `services`: `http://HOST:PORT`.
#[must_use]
pub fn address(services: &str) -> String {
    format!("{services}{PAGE}")
}

/// The same with a key, as a command can print it: in the fragment, which no browser sends anywhere, and
/// which the page takes out of the address bar.
#[must_use]
pub fn link(services: &str, key: &str) -> String {
    let mut link = address(services) + "#key=";
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            link.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(link, "%{byte:02X}");
        }
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_files_that_are_there_and_nothing_outside() {
        let named = |text: &str, before: &str| -> Vec<String> {
            text.split(before).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
        };
        let there = |path: &str| FILES.iter().any(|file| file.path == path);
        for file in FILES {
            let name = file.path;
            for asked in [named(file.text, " src=\""), named(file.text, " href=\"")].concat() {
                assert!(asked.starts_with('#') || there(&format!("/{asked}")), "{name} names {asked}");
            }
            for module in named(file.text, " from \"./") {
                assert!(there(&format!("{PAGE}/{module}")), "{name} names {module}");
            }
            let outside: Vec<_> =
                named(file.text, "//").into_iter().filter(|rest| rest.contains('.')).collect();
            let is_outside = |rest: &&String| !rest.starts_with(' ') && *rest != "www.w3.org/2000/svg";
            assert_eq!(outside.iter().find(is_outside), None, "{name}");
        }
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/service/console");
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), FILES.len(), "each file is served");
    }

    #[test]
    fn no_text_becomes_markup_and_no_markup_holds_a_script() {
        for file in FILES {
            for word in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
            {
                assert!(!file.text.contains(word), "{} has {word}", file.path);
            }
        }
        let page = FILES[0].text;
        for inline in ["<style", " style=", " onclick=", " onload=", "javascript:"] {
            assert!(!page.contains(inline), "{inline}");
        }
        assert_eq!(page.matches("<script").count(), page.matches("<script type=\"module\" src=").count());
    }

    #[test]
    fn a_tag_that_is_known_spares_the_body() {
        let file = FILES[0];
        let tag = tag_of(file.text);
        let status = |known: &str| {
            let asked = [(header::IF_NONE_MATCH, known.parse().unwrap())].into_iter().collect();
            file.answer(&tag, &asked).status()
        };
        for known in [&tag, &format!("W/{tag}"), &format!("\"other\", {tag}"), "*"] {
            assert_eq!(status(known), StatusCode::NOT_MODIFIED, "{known}");
        }
        assert_eq!(status("\"other\""), StatusCode::OK);
    }

    #[test]
    fn a_link_holds_any_key() {
        let link = link("http://127.0.0.1:1", "aB0-._~ +/&=#%ü");
        assert_eq!(link, "http://127.0.0.1:1/console#key=aB0-._~%20%2B%2F%26%3D%23%25%C3%BC");
    }
}
