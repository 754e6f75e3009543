//! Blobs through the router: what is kept, when something changes, and what is refused.

use axum::http::Method;

use super::*;

const PATH: &str = "/v1/players/ann/blobs/save";

impl House {
    async fn blob(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let request = headers
            .iter()
            .fold(with_key(method, path), |request, (name, value)| request.header(*name, *value));
        self.send(request.body(Body::from(body.to_vec())).unwrap()).await
    }

    /// The tag of a blob that must be taken.
    async fn puts(&self, path: &str, body: &[u8]) -> String {
        let answer = self.blob(Method::PUT, path, &[], body).await;
        assert!(matches!(answer.status, 201 | 204), "{}", String::from_utf8_lossy(&answer.bytes));
        assert!(answer.bytes.is_empty());
        tag_of(&answer)
    }
}

fn tag_of(answer: &Answer) -> String {
    answer.headers[header::ETAG].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_blob_is_read_as_it_was_written() {
    let house = House::new().await;
    house.get(PATH).await.problem(404, "not_found");
    let written = house.blob(Method::PUT, PATH, &[("content-type", "image/png; x=1")], b"\x00\xffpng").await;
    assert_eq!(written.status, 201);
    let read = house.get(PATH).await;
    assert_eq!((read.status, &read.bytes[..]), (200, &b"\x00\xffpng"[..]));
    assert_eq!(read.headers[header::CONTENT_TYPE], "image/png; x=1");
    assert_eq!(tag_of(&read), tag_of(&written));
    assert_eq!(read.headers[header::CONTENT_LENGTH], "5");
    let head = house.blob(Method::HEAD, PATH, &[], b"").await;
    assert_eq!((head.status, head.bytes.len(), tag_of(&head)), (200, 0, tag_of(&read)));
    // Another type is another blob; without one it is of an unknown type; it may be empty.
    let untyped = house.blob(Method::PUT, PATH, &[], b"\x00\xffpng").await;
    assert_eq!(untyped.status, 204);
    assert_ne!(tag_of(&untyped), tag_of(&read));
    assert_eq!(house.get(PATH).await.headers[header::CONTENT_TYPE], "application/octet-stream");
    house.puts(PATH, b"").await;
    assert!(house.get(PATH).await.bytes.is_empty());
    assert_eq!(house.blob(Method::DELETE, PATH, &[], b"").await.status, 204);
    house.blob(Method::DELETE, PATH, &[], b"").await.problem(404, "not_found");
    house.get(PATH).await.problem(404, "not_found");
}

#[tokio::test]
async fn a_change_is_made_only_in_the_place_of_what_its_caller_knows() {
    let house = House::new().await;
    let none = house.blob(Method::PUT, PATH, &[("if-match", "*")], b"1").await;
    assert!(none.problem(412, "precondition_failed")["etag"].is_null());
    assert_eq!(house.blob(Method::PUT, PATH, &[("if-none-match", "*")], b"1").await.status, 201);
    let again = house.blob(Method::PUT, PATH, &[("if-none-match", "*")], b"2").await;
    let one = tag_of(&house.get(PATH).await);
    assert_eq!(again.problem(412, "precondition_failed")["etag"], *one);
    assert_eq!(again.headers[header::ETAG], *one);
    let two = house.blob(Method::PUT, PATH, &[("if-match", &one)], b"2").await;
    assert_eq!(two.status, 204);
    // Whoever still knows the first loses; a weak tag never matches.
    house.blob(Method::PUT, PATH, &[("if-match", &one)], b"3").await.problem(412, "precondition_failed");
    let weak = format!("W/{}", tag_of(&two));
    house.blob(Method::PUT, PATH, &[("if-match", &weak)], b"3").await.problem(412, "precondition_failed");
    house.blob(Method::DELETE, PATH, &[("if-match", &one)], b"").await.problem(412, "precondition_failed");
    assert_eq!(house.get(PATH).await.bytes, b"2");
    let either = format!("{one}, {}", tag_of(&two));
    assert_eq!(house.blob(Method::DELETE, PATH, &[("if-match", &either)], b"").await.status, 204);
}

#[tokio::test]
async fn what_its_reader_has_is_not_sent_again() {
    let house = House::new().await;
    let tag = house.puts(PATH, b"1").await;
    for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let answer = house.blob(Method::GET, PATH, &[("if-none-match", &known)], b"").await;
        assert_eq!((answer.status, answer.bytes.len(), tag_of(&answer)), (304, 0, tag.clone()), "{known}");
    }
    assert_eq!(house.blob(Method::GET, PATH, &[("if-none-match", "\"x\"")], b"").await.status, 200);
    assert_eq!(house.blob(Method::GET, PATH, &[("if-match", &tag)], b"").await.status, 200);
    house.blob(Method::GET, PATH, &[("if-match", "\"x\"")], b"").await.problem(412, "precondition_failed");
}

#[tokio::test]
async fn a_player_has_no_more_than_she_may() {
    let house = House::new().await;
    let path = |name: &str| format!("/v1/players/ann/blobs/{name}");
    let too_large = |answer: Answer, what: &str| {
        let problem = answer.problem(413, "too_large");
        assert!(problem["detail"].as_str().unwrap().contains(what), "{problem}");
    };
    too_large(
        house.blob(Method::PUT, &path("a"), &[], &[b'x'; 1_001]).await,
        "a blob has at most 1000 bytes",
    );
    house.puts(&path("a"), &[b'x'; 1_000]).await;
    too_large(house.blob(Method::PUT, &path("b"), &[], &[b'x'; 501]).await, "2 with 1501 bytes");
    house.puts(&path("b"), &[b'x'; 500]).await;
    too_large(house.blob(Method::PUT, &path("c"), &[], b"").await, "3 with 1500 bytes");
    house.puts(&path("a"), &[b'y'; 1_000]).await;
    // Another player has her own.
    house.puts("/v1/players/bea/blobs/a", &[b'x'; 1_000]).await;
    assert_eq!(house.blob(Method::DELETE, &path("a"), &[], b"").await.status, 204);
    house.puts(&path("c"), &[b'x'; 1_000]).await;
}

#[tokio::test]
async fn what_is_no_blob_call_is_named() {
    let house = House::new().await;
    let long = "a/".repeat(128);
    for (name, value) in
        [("if-match", "1"), ("if-none-match", "\"1"), ("content-type", "png"), ("content-type", &long)]
    {
        let problem = house.blob(Method::PUT, PATH, &[(name, value)], b"1").await.problem(400, "bad_request");
        assert!(problem["detail"].as_str().unwrap().to_ascii_lowercase().contains(name), "{problem}");
    }
    for path in ["/v1/players/ann/blobs/a%3Ab", "/v1/players/ann/blobs/a%2Fb", "/v1/players/a%00/blobs/a"] {
        house.blob(Method::PUT, path, &[], b"1").await.problem(400, "bad_request");
    }
    house.blob(Method::POST, PATH, &[], b"1").await.problem(405, "bad_request");
}

#[tokio::test]
async fn no_more_are_under_way_than_may_and_who_holds_an_answer_counts() {
    let house = House::new().await;
    house.puts(PATH, b"1").await;
    let read = || async {
        let request = with_key(Method::GET, PATH).body(Body::empty()).unwrap();
        router(Arc::clone(&house.service)).oneshot(request).await.unwrap()
    };
    let held = [read().await, read().await];
    assert!(held.iter().all(|response| response.status() == 200));
    house.get(PATH).await.problem(503, "overloaded");
    drop(held);
    assert_eq!(house.get(PATH).await.status, 200);
}

#[tokio::test]
async fn bodies_that_do_not_come_keep_no_reader_out() {
    let house = House::new().await;
    house.puts(PATH, b"1").await;
    let begun = [(); 2].map(|()| {
        let body = futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
        let request = with_key(Method::PUT, PATH).body(Body::from_stream(body)).unwrap();
        Box::pin(router(Arc::clone(&house.service)).oneshot(request))
    });
    let others = async {
        house.blob(Method::PUT, PATH, &[], b"2").await.problem(503, "overloaded");
        assert_eq!(house.get(PATH).await.status, 200);
    };
    let begun = futures_util::future::join_all(begun);
    tokio::select! {
        // First of all these two have their places.
        biased;
        _ = begun => panic!("no body came"),
        () = others => {}
    }
    house.puts(PATH, b"2").await;
}

#[tokio::test]
async fn an_erased_player_has_no_blobs_and_an_erasure_without_them_is_not_done() {
    let house = House::new().await;
    for path in [PATH, "/v1/players/ann/blobs/b", "/v1/players/an/blobs/save", "/v1/players/annx/blobs/save"]
    {
        house.puts(path, b"1").await;
    }
    house.store.takes_messages_back.store(false, Ordering::Relaxed);
    let erase = || house.blob(Method::DELETE, "/v1/players/ann", &[], b"");
    assert_eq!(erase().await.problem(503, "store_unavailable")["applied"], true);
    house.store.takes_messages_back.store(true, Ordering::Relaxed);
    assert_eq!(erase().await.status, 204);
    for path in [PATH, "/v1/players/ann/blobs/b"] {
        house.get(path).await.problem(404, "not_found");
    }
    for path in ["/v1/players/an/blobs/save", "/v1/players/annx/blobs/save"] {
        assert_eq!(house.get(path).await.status, 200, "{path}");
    }
    // Her quota is whole again.
    house.puts(PATH, &[b'x'; 1_000]).await;
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_said_not_to() {
    let house = House::new().await;
    house.store.takes_writes.store(false, Ordering::Relaxed);
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        house.blob(method, PATH, &[], b"").await.problem(503, "store_unavailable");
    }
}
