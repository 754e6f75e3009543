//! Spans as OTLP has them: the official messages, made of ours. Called by `exporter` for each batch, and by `collector` for
//! what is answered. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as proto;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Status, span::SpanKind, status::StatusCode,
};
use prost::Message as _;

use super::TraceSettings;
use super::span::{Finished, Kind, Value};

/// The bits of a span's flags that say that it is known whether its parent is another process's, and that it is.
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// This process.
pub(super) fn resource(settings: &TraceSettings) -> Resource {
    let attributes = [
        ("service.name", Some("hearth".to_owned())),
        ("service.version", Some(env!("CARGO_PKG_VERSION").to_owned())),
        ("service.instance.id", Some(settings.node.clone())),
        ("service.namespace", settings.cluster.clone()),
    ];
    let known = attributes.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let attributes = known.map(|(name, value)| attribute(name, Value::from(value))).collect();
    Resource { attributes, ..Resource::default() }
}

/// One request with these spans.
pub(super) fn request(resource: &Resource, spans: &[Finished]) -> Bytes {
    let scope = InstrumentationScope { name: "hearth".to_owned(), ..InstrumentationScope::default() };
    let spans = spans.iter().map(span).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource_spans =
        ResourceSpans { resource: Some(resource.clone()), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec().into()
}

/// How many spans an answer refuses. What is no answer of OTLP refuses none.
pub(super) fn refused(answer: &[u8]) -> usize {
    let answer = ExportTraceServiceResponse::decode(answer).ok();
    let partly = answer.and_then(|answer| answer.partial_success);
    partly.and_then(|partly| usize::try_from(partly.rejected_spans).ok()).unwrap_or(0)
}

fn span(finished: &Finished) -> proto::Span {
    let Finished { span, context, parent, is_parent_remote, began, ended, failed } = finished;
    let remote = if *is_parent_remote { IS_REMOTE } else { 0 };
    let mut attributes: Vec<_> =
        span.attributes.iter().map(|(name, value)| attribute(name, value.clone())).collect();
    attributes.extend(failed.as_ref().map(|failed| attribute("error.type", Value::Text(failed.clone()))));
    let state = parent.as_ref().and_then(|parent| parent.state.as_deref()).unwrap_or_default();
    proto::Span {
        trace_id: context.trace.bytes().to_vec(),
        span_id: context.span.bytes().to_vec(),
        trace_state: state.to_owned(),
        parent_span_id: parent
            .as_ref()
            .map(|parent| parent.context.span.bytes().to_vec())
            .unwrap_or_default(),
        flags: u32::from(context.flags()) | KNOWS_REMOTE | remote,
        name: span.name.to_string(),
        kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Internal => SpanKind::Internal,
        }
        .into(),
        start_time_unix_nano: nanos(*began),
        end_time_unix_nano: nanos(*ended),
        attributes,
        status: failed.as_ref().map(|_| Status { code: StatusCode::Error.into(), ..Status::default() }),
        ..proto::Span::default()
    }
}

fn attribute(name: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text.into_owned()),
        Value::Whole(number) => any_value::Value::IntValue(number),
    };
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::context::{Context, Parent};
    use super::super::span::Span;
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_span_is_told_with_all_that_is_known_of_it() {
        let parent = Parent { context: Context::root(|_| true), state: Some("a=1".into()) };
        let began = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let finished = Finished {
            span: Span::new(Kind::Client, "commit")
                .with("hearth.shard", 7_u16)
                .with("db.system.name", "redis"),
            context: parent.context.child(),
            parent: Some(parent.clone()),
            is_parent_remote: true,
            began,
            ended: began + Duration::from_nanos(5),
            failed: Some("timeout".into()),
        };
        let resource =
            Resource { attributes: vec![attribute("service.name", "hearth".into())], ..Resource::default() };
        let request =
            ExportTraceServiceRequest::decode(request(&resource, std::slice::from_ref(&finished))).unwrap();
        let told = &request.resource_spans[0];
        assert_eq!(told.resource, Some(resource));
        let span = &told.scope_spans[0].spans[0];
        assert_eq!(span.trace_id, parent.context.trace.bytes());
        assert_eq!(span.parent_span_id, parent.context.span.bytes());
        assert_eq!((span.name.as_str(), span.kind), ("commit", SpanKind::Client as i32));
        assert_eq!((span.trace_state.as_str(), span.flags), ("a=1", 0x303));
        assert_eq!(span.start_time_unix_nano, 1_700_000_000_000_000_000);
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 5);
        let names: Vec<_> = span.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        assert_eq!(names, ["hearth.shard", "db.system.name", "error.type"]);
        assert_eq!(span.status.as_ref().map(|status| status.code), Some(StatusCode::Error as i32));
        assert_eq!(refused(b""), 0);
        assert_eq!(refused(b"\xff\xff"), 0);
    }
}
