//! Calls of OpenAI's API that do not come over the network.

use bytes::Bytes;
use http::StatusCode;
use trireme_runtime::{Core, DocumentCall};

use super::call::{only_answer, served};
use super::error::{error_object, unknown_path};
use super::head::head;
use super::{OpenAi, route};
use crate::answer::Failure;

/// What a call was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAiAnswer {
    /// As in HTTP.
    pub status: u16,
    /// A JSON object: what was asked for, or `{"error": {…}}`. It may be written over several lines.
    pub body: String,
}

/// Answers one call without a connection: the same models, limits of JSON, statuses and error objects as over HTTP. A
/// call that wants a stream is refused. Dropped before its end, it cancels the call.
///
/// `path` is `/v1/chat/completions` or another one that models answer; `id` is the request's, as backends know it.
pub async fn openai_call(core: &Core, path: &str, id: String, body: Bytes) -> OpenAiAnswer {
    answer(core, path, id, body).await.unwrap_or_else(|failure| OpenAiAnswer {
        status: failure.status.as_u16(),
        body: error_object(&failure),
    })
}

async fn answer(core: &Core, path: &str, id: String, body: Bytes) -> Result<OpenAiAnswer, Failure> {
    let Some(OpenAi::Endpoint(endpoint)) = path.strip_prefix("/v1/").and_then(route) else {
        return Err(unknown_path(path));
    };
    let head = head(&body)?;
    if head.stream {
        return Err(Failure::invalid("a batch is answered whole: leave 'stream' out").about("stream"));
    }
    let model = served(core, endpoint, &head.model)?;
    let call = DocumentCall::new(endpoint, body)
        .ok_or_else(|| Failure::new(StatusCode::BAD_REQUEST, "the request body is not UTF-8"))?;
    let document = only_answer(model.openai_stream(call, id, Vec::new())?).await?;
    Ok(OpenAiAnswer { status: document.status, body: document.body })
}
