//! `/v1/…`: OpenAI's API, answered by any model whose backend says that it can (`openai/1`).
//!
//! This room owns paths, limits, statuses and the framing of streams. Of a body it looks at `model` and `stream` only.

mod call;
mod error;
mod events;
mod head;
mod local;
mod models;

pub(crate) use call::call;
pub(crate) use error::failure_answer;
pub(crate) use events::Documents;
pub use local::{OpenAiAnswer, openai_call};
pub(crate) use models::{model, models};

/// A call of the API by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OpenAi<'a> {
    Models,
    Model(std::borrow::Cow<'a, str>),
    /// The path without `/v1/`, as backends know it.
    Endpoint(&'static str),
}

/// Whether what goes wrong on a path is told as OpenAI's API does.
pub(crate) fn is_openai(path: &str) -> bool {
    path.starts_with("/v1/")
}

/// The endpoints that models may answer.
const ENDPOINTS: &[&str] = &["chat/completions", "completions", "embeddings"];

/// The call of a path below `/v1/`.
pub(crate) fn route(path: &str) -> Option<OpenAi<'_>> {
    if path == "models" {
        return Some(OpenAi::Models);
    }
    if let Some(model) = path.strip_prefix("models/").filter(|model| !model.is_empty()) {
        return Some(OpenAi::Model(percent_encoding::percent_decode_str(model).decode_utf8().ok()?));
    }
    ENDPOINTS.iter().find(|endpoint| **endpoint == path).map(|endpoint| OpenAi::Endpoint(endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_call() {
        assert_eq!(route("models"), Some(OpenAi::Models));
        assert_eq!(route("models/a%20b"), Some(OpenAi::Model("a b".into())));
        assert_eq!(route("models/org/m"), Some(OpenAi::Model("org/m".into())));
        assert_eq!(route("chat/completions"), Some(OpenAi::Endpoint("chat/completions")));
        for unknown in ["", "models/", "completions/", "chat", "audio/speech", "models/%FF"] {
            assert_eq!(route(unknown), None, "{unknown}");
        }
    }
}
