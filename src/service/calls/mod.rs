//! Every call of the API, once: where it is, what carries it out, and what is told of it. The router is built of this
//! table and so is the OpenAPI document, so that neither has a call that the other lacks. What a call does is its handler's.

mod kept;
mod messages;
mod operators;
mod players;

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::routing::{MethodFilter, MethodRouter, on};
use protocol::ErrorCode;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::problem::status_of;
use super::{Scope, Service};

/// Makes the schema of one type, and remembers those that it refers to.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What any call that needs a key may be refused with.
const AT_THE_DOOR: &[ErrorCode] =
    &[ErrorCode::Unauthorized, ErrorCode::Forbidden, ErrorCode::RateLimited, ErrorCode::Internal];
/// What a call may be refused with that somebody's home has to carry out.
const AT_HOME: &[ErrorCode] = &[
    ErrorCode::NotHome,
    ErrorCode::StoreUnavailable,
    ErrorCode::Overloaded,
    // A call that is carried to another node has a bounded body, whatever it is.
    ErrorCode::TooLarge,
];

/// One call.
pub(super) struct Call {
    pub(super) method: Method,
    /// With its parameters in braces.
    pub(super) path: &'static str,
    /// Its name in generated clients.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) more: &'static str,
    /// What its key must open; `None`: it needs none.
    pub(super) scope: Option<Scope>,
    /// Beside those of the path.
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Body>,
    pub(super) answers: Vec<Answer>,
    pub(super) refusals: Vec<(StatusCode, ErrorCode)>,
    handler: MethodRouter<Arc<Service>>,
}

/// What stands in the query or in a header.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// `query` or `header`.
    pub(super) place: &'static str,
    pub(super) is_required: bool,
    pub(super) about: &'static str,
    pub(super) schema: Value,
}

/// What a call carries.
pub(super) struct Body {
    pub(super) types: &'static [&'static str],
    pub(super) is_required: bool,
    /// `None`: bytes of any kind.
    pub(super) schema: Option<SchemaOf>,
    /// Fields of its type that mean nothing here.
    pub(super) without: &'static [&'static str],
}

/// What a call that was carried out says.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) about: &'static str,
    /// None: without a body.
    pub(super) types: &'static [&'static str],
    /// `None`: text or bytes.
    pub(super) schema: Option<SchemaOf>,
    /// Those that always come.
    pub(super) headers: &'static [&'static str],
}

/// The encoding of nearly everything.
pub(super) const JSON: &[&str] = &["application/json"];

impl Call {
    fn of<H: Handler<T, Arc<Service>>, T: 'static>(
        (method, filter): (Method, MethodFilter),
        path: &'static str,
        handler: H,
        (id, summary): (&'static str, &'static str),
    ) -> Self {
        Self {
            method,
            path,
            id,
            summary,
            more: "",
            scope: None,
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            refusals: Vec::new(),
            handler: on(filter, handler),
        }
    }

    fn get<H: Handler<T, Arc<Service>>, T: 'static>(
        path: &'static str,
        handler: H,
        told: (&'static str, &'static str),
    ) -> Self {
        Self::of((Method::GET, MethodFilter::GET), path, handler, told)
    }

    fn post<H: Handler<T, Arc<Service>>, T: 'static>(
        path: &'static str,
        handler: H,
        told: (&'static str, &'static str),
    ) -> Self {
        Self::of((Method::POST, MethodFilter::POST), path, handler, told)
    }

    fn put<H: Handler<T, Arc<Service>>, T: 'static>(
        path: &'static str,
        handler: H,
        told: (&'static str, &'static str),
    ) -> Self {
        Self::of((Method::PUT, MethodFilter::PUT), path, handler, told)
    }

    fn patch<H: Handler<T, Arc<Service>>, T: 'static>(
        path: &'static str,
        handler: H,
        told: (&'static str, &'static str),
    ) -> Self {
        Self::of((Method::PATCH, MethodFilter::PATCH), path, handler, told)
    }

    fn delete<H: Handler<T, Arc<Service>>, T: 'static>(
        path: &'static str,
        handler: H,
        told: (&'static str, &'static str),
    ) -> Self {
        Self::of((Method::DELETE, MethodFilter::DELETE), path, handler, told)
    }

    /// Says more than the summary does.
    fn more(self, more: &'static str) -> Self {
        Self { more, ..self }
    }

    /// Its key must open this.
    fn needs(self, scope: Scope) -> Self {
        let call = Self { scope: Some(scope), ..self }.refuses(AT_THE_DOOR);
        // Without a name a path is another one, which does not exist.
        if call.path.contains('{') {
            call.refuses(&[ErrorCode::BadRequest, ErrorCode::NotFound])
        } else {
            call
        }
    }

    fn query(self, name: &'static str, about: &'static str, schema: Value) -> Self {
        self.parameter(Parameter { name, place: "query", is_required: false, about, schema })
            .refuses(&[ErrorCode::BadRequest])
    }

    fn header(self, name: &'static str, about: &'static str, schema: Value) -> Self {
        self.parameter(Parameter { name, place: "header", is_required: false, about, schema })
            .refuses(&[ErrorCode::BadRequest])
    }

    fn parameter(mut self, parameter: Parameter) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// It carries a JSON object.
    fn body<T: JsonSchema>(self) -> Self {
        let schema: SchemaOf = SchemaGenerator::subschema_for::<T>;
        let body = Body { types: JSON, is_required: true, schema: Some(schema), without: &[] };
        Self { body: Some(body), ..self }.refuses_bodies()
    }

    /// What a body may be refused with whatever is asked in it.
    fn refuses_bodies(self) -> Self {
        self.refuses(&[ErrorCode::BadRequest, ErrorCode::TooLarge])
            .refuses_as(StatusCode::REQUEST_TIMEOUT, ErrorCode::BadRequest)
            .refuses_as(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::BadRequest)
    }

    /// Changes what is told of its body.
    fn body_is(mut self, change: impl FnOnce(Body) -> Body) -> Self {
        self.body = self.body.map(change);
        self
    }

    /// It answers with JSON.
    fn answers<T: JsonSchema>(self, status: u16, about: &'static str) -> Self {
        let schema: SchemaOf = SchemaGenerator::subschema_for::<T>;
        self.answer(Answer { status, about, types: JSON, schema: Some(schema), headers: &[] })
    }

    /// It answers without a body.
    fn answers_nothing(self, status: u16, about: &'static str) -> Self {
        self.answer(Answer { status, about, types: &[], schema: None, headers: &[] })
    }

    fn answer(mut self, answer: Answer) -> Self {
        self.answers.push(answer);
        self
    }

    /// The latest answer always has these headers.
    fn with_headers(mut self, headers: &'static [&'static str]) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers = headers;
        }
        self
    }

    fn refuses(self, codes: &[ErrorCode]) -> Self {
        codes.iter().fold(self, |call, code| call.refuses_as(status_of(*code), *code))
    }

    /// Under another status than the code has by itself.
    fn refuses_as(mut self, status: StatusCode, code: ErrorCode) -> Self {
        if !self.refusals.contains(&(status, code)) {
            self.refusals.push((status, code));
        }
        self
    }

    /// What it carries out is somebody's home's to do.
    fn at_home(self) -> Self {
        self.refuses(AT_HOME)
    }

    /// Whether it is told that it may answer so.
    #[cfg(test)]
    pub(super) fn may_answer(&self, status: u16, code: Option<ErrorCode>) -> bool {
        match code {
            None => self.answers.iter().any(|answer| answer.status == status),
            Some(code) => self.refusals.iter().any(|(told, of)| (told.as_u16(), *of) == (status, code)),
        }
    }
}

/// All of them, in the order in which they are told.
pub(super) fn all() -> Vec<Call> {
    [players::calls(), messages::calls(), kept::calls(), operators::calls()].into_iter().flatten().collect()
}

/// What carries them out.
pub(super) fn router() -> Router<Arc<Service>> {
    all().into_iter().fold(Router::new(), |router, call| router.route(call.path, call.handler))
}
