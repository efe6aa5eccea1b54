//! Answers that are not tensors, and how a failure becomes one.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use trireme_protocol::{ProtocolError, error_json};
use trireme_runtime::ServeError;

use crate::body::Body;

pub(crate) type Answer = Response<Body>;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub(crate) const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Why a call failed, as its caller sees it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The field that is wrong and a word for programs, for APIs that tell them.
    pub(crate) param: Option<&'static str>,
    pub(crate) code: Option<&'static str>,
    /// What would have been right, as a header.
    pub(crate) hint: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None, hint: None }
    }

    /// The same about a field of the request.
    pub(crate) fn about(self, param: &'static str) -> Self {
        Self { param: Some(param), ..self }
    }

    /// The same with a word for programs.
    pub(crate) fn coded(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    pub(crate) fn internal(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    pub(crate) fn with_hint(mut self, name: HeaderName, value: &'static str) -> Self {
        self.hint = Some(Box::new((name, HeaderValue::from_static(value))));
        self
    }

    pub(crate) fn into_answer(self) -> Answer {
        let mut answer = with_type(self.status, JSON, error_json(&self.message));
        if let Some((name, value)) = self.hint.map(|hint| *hint) {
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        Self::new(status(error.status), error.message)
    }
}

impl From<ProtocolError> for Failure {
    fn from(error: ProtocolError) -> Self {
        Self::new(status(error.status), error.message)
    }
}

fn status(status: trireme_protocol::StatusCode) -> StatusCode {
    StatusCode::from_u16(status.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A status without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::Empty);
    *answer.status_mut() = status;
    answer
}

/// 200 with JSON.
pub(crate) fn json(text: impl Into<Bytes>) -> Answer {
    with_type(StatusCode::OK, JSON, text)
}

/// A status with a body of a type.
pub(crate) fn with_type(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Body::Whole(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// No such path. The texts of both are upstream's.
pub(crate) fn not_found() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "Not Found")
}

/// The path does not have the method.
pub(crate) fn method_not_allowed() -> Failure {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_protocol::StatusCode as Code;

    #[test]
    fn each_status_has_its_number() {
        let http = |code| {
            Failure::from(ServeError { status: code, message: String::new() }).into_answer().status().as_u16()
        };
        assert_eq!(http(Code::Internal), 500);
        assert_eq!(http(Code::NotFound), 404);
        assert_eq!(http(Code::Unavailable), 503);
        assert_eq!(http(Code::Unsupported), 501);
        for code in [Code::InvalidArg, Code::AlreadyExists, Code::Cancelled, Code::Unknown] {
            assert_eq!(http(code), 400);
        }
    }
}
