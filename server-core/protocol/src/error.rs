//! The one error of this crate: a status and a sentence for the caller.

use crate::status::StatusCode;

/// The longest message in bytes: texts quote the request, and a name there may be as long as the body.
const MAX_MESSAGE: usize = 8 << 10;

/// Why a message was refused: `status` decides the HTTP or gRPC status, `message` is shown to the caller.
#[derive(Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ProtocolError {
    /// Whose fault it is, as the doors say it.
    pub status: StatusCode,
    /// What is wrong, where, and what would mend it.
    pub message: String,
}

/// The result of this crate's functions.
pub type Result<T, E = ProtocolError> = std::result::Result<T, E>;

impl ProtocolError {
    /// An error with any status; a message of more than 8 KiB is cut.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE));
            message.push('…');
        }
        Self { status, message }
    }

    /// The caller must change the request (HTTP 400).
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::InvalidArg, message)
    }

    /// The server does not do this (HTTP 501).
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::Unsupported, message)
    }

    /// The server or a backend broke a promise (HTTP 500).
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::Internal, message)
    }

    /// The same error with the place that it was found in before it.
    #[must_use]
    pub(crate) fn within(self, place: impl std::fmt::Display) -> Self {
        Self::new(self.status, format!("{place}: {}", self.message))
    }

    /// The JSON body of the error answer: `{"error":"…"}`.
    #[must_use]
    pub fn to_json(&self) -> String {
        error_json(&self.message)
    }
}

/// `{"error":"<message>"}`, the body of every HTTP error and of an error in a stream of events.
#[must_use]
pub fn error_json(message: &str) -> String {
    let mut out = Vec::with_capacity(message.len() + 12);
    out.extend_from_slice(b"{\"error\":");
    crate::json::write_string(&mut out, message);
    out.push(b'}');
    // The writer only puts out UTF-8, so nothing is ever replaced here.
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{ProtocolError, error_json};

    #[test]
    fn a_text_as_long_as_the_body_is_cut() {
        let long = ProtocolError::invalid("é".repeat(1 << 20)).within("input");
        assert!(long.message.starts_with("input: éé") && long.message.ends_with("é…"));
        assert!(long.message.len() <= super::MAX_MESSAGE + "…".len());
    }

    #[test]
    fn the_body_escapes_what_json_needs_escaped() {
        assert_eq!(error_json("a \"b\"\n\u{1}é"), r#"{"error":"a \"b\"\n\u0001é"}"#);
        let error = ProtocolError::invalid("no");
        assert_eq!((error.status.http_status(), error.to_json()), (400, r#"{"error":"no"}"#.to_owned()));
    }
}
