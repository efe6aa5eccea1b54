//! OpenAI's API, once for all engines: calls of the extension `openai/1` to what an engine is asked for, and what it
//! says to the API's objects.
//!
//! ```text
//! body ─▶ fields ─▶ chat | completion | embedding ─▶ [`Ask`] ─▶ engine ─▶ [`Event`] ─▶ choices ─▶ object or chunks
//! ```
//! Every documented field works, or is refused by its name; so is one that nobody knows.

mod ask;
mod chat;
mod chunks;
mod common;
mod completion;
mod door;
mod embedding;
mod fields;
mod format;
mod logprobs;
mod messages;
mod tool_calls;
mod tools;

pub use ask::{
    Abilities, Ask, AskError, Event, Flow, GuideSpec, Output, Receiver, Sampling, TokenLogprobs, Usage,
};
pub use door::{GENERATE_ENDPOINTS, Generator, TextDoor};
pub use embedding::{EMBED_ENDPOINTS, EmbedAsk, EmbedDoor};

pub(crate) type Result<T> = std::result::Result<T, trireme_sdk::OpenAiError>;

use trireme_sdk::OpenAiError;

/// A field that is known and not supported, or not with this value.
pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> OpenAiError {
    OpenAiError::invalid(param, message).with_code("unsupported_parameter")
}
