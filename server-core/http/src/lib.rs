//! The HTTP front end: the KServe v2 protocol with its extensions, `generate`, the metrics and one page to look at.
//!
//! HTTP/1.1 and HTTP/2 without TLS share a port. A request is routed by [`route`], its body is read whole under the
//! limits of the core ([`body::read`]), and one of the [`handlers`] makes the answer. A client that goes away ends the
//! connection's task, or the stream's task on HTTP/2; that drops the handler's future, which cancels the request in
//! the core. Nothing else is needed for cancellation, and nothing is spawned for a request on HTTP/1.1 but to read the rest
//! of a body that is refused.
#![forbid(unsafe_code)]

mod answer;
mod body;
mod client;
mod encoding;
mod farewell;
mod handlers;
mod heads;
mod metrics;
mod offload;
mod openai;
mod options;
mod patience;
mod route;
mod router;
mod serve;

pub use client::{Client, ClientError, Reply};
pub use metrics::serve_metrics;
pub use openai::{OpenAiAnswer, openai_call};
pub use options::HttpOptions;
pub use serve::serve;
