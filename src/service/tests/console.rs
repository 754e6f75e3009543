//! The console through the router: open to all, walled in, and no call of the API.

use axum::body::Body;
use axum::http::{HeaderName, Method, Request, header};

use super::{Answer, House};

async fn look(house: &House, path: &str) -> Answer {
    house.send(Request::builder().uri(path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn the_page_needs_no_key_and_carries_its_walls() {
    let house = House::new().await;
    for (path, kind) in [
        ("/console", "text/html; charset=utf-8"),
        ("/console/app.js", "text/javascript; charset=utf-8"),
        ("/console/style.css", "text/css; charset=utf-8"),
        ("/console/icon.svg", "image/svg+xml"),
    ] {
        let answer = look(&house, path).await;
        assert_eq!(
            (answer.status, answer.headers[header::CONTENT_TYPE].to_str().unwrap()),
            (200, kind),
            "{path}"
        );
        assert!(!answer.bytes.is_empty(), "{path}");
        let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        for rule in
            ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'"]
        {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(
            !policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"),
            "{path}: {policy}"
        );
        for (name, value) in [
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (header::CACHE_CONTROL, "no-cache"),
        ] {
            assert_eq!(answer.headers[&name], value, "{path}");
        }
        let known = Request::builder().uri(path).header(header::IF_NONE_MATCH, &answer.headers[header::ETAG]);
        let again = house.send(known.body(Body::empty()).unwrap()).await;
        assert_eq!((again.status, again.bytes.len()), (304, 0), "{path}");
        assert_eq!(again.headers[header::ETAG], answer.headers[header::ETAG], "{path}");
        assert_eq!(again.headers[header::CONTENT_SECURITY_POLICY], policy, "{path}");
    }
}

#[tokio::test]
async fn ways_to_the_page_lead_there_and_others_are_nothing() {
    let house = House::new().await;
    for (path, to) in [("/", "console"), ("/console/", "../console")] {
        let answer = look(&house, path).await;
        assert_eq!((answer.status, answer.headers[header::LOCATION].to_str().unwrap()), (307, to), "{path}");
    }
    for path in ["/console/nothing.js", "/console/app.js/", "/console/../Cargo.toml", "/consoles"] {
        look(&house, path).await.problem(404, "not_found");
    }
    let posted = Request::builder().method(Method::POST).uri("/console").body(Body::empty()).unwrap();
    house.send(posted).await.problem(405, "bad_request");
}
