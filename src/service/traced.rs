//! The trace of a call: what its caller says of it (W3C Trace Context), the server's span, and what the caller is told.
//! Called by `door` for each call. The span names the route and not the path: whom a call concerns is in the log, under the
//! same `trace_id`.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use axum::response::Response;
use protocol::ErrorCode;
use tracing::Instrument as _;

use super::route;
use crate::telemetry::traces::{self, Context, Kind, Parent, Span, TraceId, Work};

/// The header that tells a caller of the server's span.
pub(super) const TRACERESPONSE: &str = "traceresponse";

/// A call under way. It ends however its caller does.
pub(super) struct Traced {
    work: Option<Work>,
    trace: Option<TraceId>,
    method: &'static str,
    route: Option<&'static str>,
    version: Version,
    answered: Option<StatusCode>,
    failed: Option<String>,
}

impl Traced {
    /// A call as it came in, or as another node has brought it. Its trace goes with it, as an extension. What a caller says
    /// of one counts if her key is good: strangers would else have kept what they like.
    pub(super) fn begin(route: Option<&'static str>, request: &mut Request, is_known: bool) -> Self {
        let caller = traces::here().or_else(|| parent_of(request.headers()).filter(|_| is_known));
        let is_patient = route.is_some_and(waits);
        let work = traces::begin(caller.clone()).map(|work| work.patient(is_patient));
        let context = work.as_ref().map(Work::context).or(caller.map(|caller| caller.context));
        let trace = context.map(|context| context.trace);
        if let Some(trace) = trace {
            request.extensions_mut().insert(trace);
        }
        let method = name_of(request.method());
        Self { work, trace, method, route, version: request.version(), answered: None, failed: None }
    }

    /// Answers it within its trace.
    pub(super) async fn answer(mut self, answering: impl Future<Output = Response>) -> Response {
        let within = match self.trace {
            // Whatever is logged: a line that is written names its trace.
            Some(trace) => tracing::error_span!("call", trace_id = %trace),
            None => tracing::Span::none(),
        };
        let mut response = traces::during(self.work.as_ref(), answering.instrument(within)).await;
        let status = response.status();
        self.answered = Some(status);
        self.failed = fault_of(&response);
        if let Some(work) = &self.work {
            // It ends in a moment, and may be slow by then: then it is kept though that was not said.
            let told = work.context().sampled(work.promises(self.failed.is_some()));
            if let Ok(told) = HeaderValue::try_from(told.to_string()) {
                response.headers_mut().insert(TRACERESPONSE, told);
            }
        }
        response
    }

    fn span(&self) -> Span {
        let name =
            self.route.map_or_else(|| self.method.to_owned(), |route| format!("{} {route}", self.method));
        let version = match self.version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        };
        Span::new(Kind::Server, name)
            .with("http.request.method", self.method)
            .with_some("http.route", self.route)
            .with_some("http.response.status_code", self.answered.map(|status| status.as_u16()))
            .with("url.scheme", "http")
            .with("network.protocol.version", version)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        // Whoever asked may have gone: that is nobody's fault here.
        let failed = self.failed.take();
        let span = || self.span();
        work.end(failed.map(Into::into), span);
    }
}

/// What went wrong by the server's own fault: a refusal says so by its code, since a status is also that of others. What
/// it does not do, it says on purpose.
pub(super) fn fault_of(response: &Response) -> Option<String> {
    let (status, code) = (response.status(), response.extensions().get::<ErrorCode>());
    let by_status = || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
    let is_ours = code.map_or_else(by_status, |code| code.is_ours());
    is_ours.then(|| status.as_str().to_owned())
}

/// Whether a call takes as long as it was asked to wait.
fn waits(route: &str) -> bool {
    matches!(route, route::LOCK | route::EVENTS)
}

/// What its caller says of a call.
fn parent_of(headers: &HeaderMap) -> Option<Parent> {
    let values = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    Parent::read(values("traceparent"), values("tracestate"))
}

/// What an answer that another node has brought says of its own span.
pub(super) fn told_in(headers: &HeaderMap) -> Option<Context> {
    Context::parse(headers.get(TRACERESPONSE)?.to_str().ok()?)
}

/// Of all that a caller may send as a method, those that there are.
pub(super) fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::problem::Problem;
    use axum::response::IntoResponse as _;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn request(headers: &[(&str, &str)]) -> Request {
        let builder =
            headers.iter().fold(Request::builder(), |builder, (name, value)| builder.header(*name, *value));
        builder.body(axum::body::Body::empty()).unwrap()
    }

    #[test]
    fn a_caller_says_of_which_trace_a_call_is_a_part() {
        let trace = |request: &Request| request.extensions().get::<TraceId>().map(TraceId::to_string);
        let mut told = request(&[("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")]);
        let parent = parent_of(told.headers()).unwrap();
        assert_eq!(
            (parent.context.to_string(), parent.state.as_deref()),
            (PARENT.to_owned(), Some("a=1,b=2"))
        );
        // Without a collector, too: the log names it.
        Traced::begin(Some(route::STATE), &mut told, true);
        assert_eq!(trace(&told).as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        for wrong in [&[][..], &[("traceparent", "x")], &[("traceparent", PARENT), ("traceparent", PARENT)]] {
            let mut request = request(wrong);
            Traced::begin(Some(route::STATE), &mut request, true);
            assert_eq!(trace(&request), None);
        }
        let mut strangers = request(&[("traceparent", PARENT)]);
        Traced::begin(Some(route::STATE), &mut strangers, false);
        assert_eq!(trace(&strangers), None);
    }

    #[test]
    fn a_closed_server_has_not_failed_and_one_without_its_store_has() {
        let failed = |code| fault_of(&Problem::new(code, "no").into_response());
        assert_eq!(failed(ErrorCode::Maintenance), None);
        assert_eq!(failed(ErrorCode::Forbidden), None);
        assert_eq!(failed(ErrorCode::StoreUnavailable).as_deref(), Some("503"));
        assert_eq!(fault_of(&StatusCode::INTERNAL_SERVER_ERROR.into_response()).as_deref(), Some("500"));
        assert_eq!(fault_of(&StatusCode::NOT_IMPLEMENTED.into_response()), None);
    }

    #[test]
    fn a_span_names_no_path_and_no_method_that_a_caller_made_up() {
        let mut request = request(&[]);
        *request.method_mut() = Method::from_bytes(b"S3CRET").unwrap();
        *request.uri_mut() = "/v1/players/s3cret/state?key=s3cret".parse().unwrap();
        let told = format!("{:?}", Traced::begin(Some(route::STATE), &mut request, true).span());
        assert!(
            told.contains("_OTHER /v1/players/{player}/state") && !told.to_lowercase().contains("s3cret"),
            "{told}"
        );
    }
}
