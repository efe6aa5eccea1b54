//! Failures in the form in which clients of OpenAI's API know them.

use http::StatusCode;
use serde_json::json;

use crate::answer::{Answer, Failure, JSON, with_type};
use crate::body::TOO_LARGE;

/// `{"error": {"message", "type", "param", "code"}}`.
pub(crate) fn error_object(failure: &Failure) -> String {
    let kind = if failure.status.is_server_error() { "server_error" } else { "invalid_request_error" };
    let message = &failure.message;
    json!({ "error": { "message": message, "type": kind, "param": failure.param, "code": failure.code } })
        .to_string()
}

/// A failure of whatever part of the server on a path of OpenAI's API.
pub(crate) fn failure_answer(failure: Failure, method: &http::Method, path: &str) -> Answer {
    let failure = match failure.status {
        _ if failure.code == Some(TOO_LARGE) => Failure { status: StatusCode::PAYLOAD_TOO_LARGE, ..failure },
        StatusCode::NOT_FOUND if failure.code.is_none() => Failure {
            message: format!("Unknown request URL: {method} {path}. The server answers {KNOWN}."),
            code: Some("unknown_url"),
            ..failure
        },
        StatusCode::METHOD_NOT_ALLOWED => Failure {
            message: format!("{path} does not take {method}. The server answers {KNOWN}."),
            ..failure
        },
        _ => failure,
    };
    let mut answer = with_type(failure.status, JSON, error_object(&failure));
    if let Some((name, value)) = failure.hint.map(|hint| *hint) {
        answer.headers_mut().insert(name, value);
    }
    answer
}

/// A path that models do not answer.
pub(super) fn unknown_path(path: &str) -> Failure {
    let text = format!(
        "Unknown url: {path}. Models answer /v1/chat/completions, /v1/completions and /v1/embeddings."
    );
    Failure::new(StatusCode::NOT_FOUND, text).coded("unknown_url")
}

const KNOWN: &str = "GET /v1/models, GET /v1/models/MODEL, POST /v1/chat/completions, POST /v1/completions and POST /v1/embeddings";
