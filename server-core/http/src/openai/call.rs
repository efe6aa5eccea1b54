//! `POST /v1/chat/completions`, `/v1/completions` and `/v1/embeddings`.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use trireme_runtime::{Core, Document, DocumentCall, ResponseStream, Served, Value};

use super::events::Documents;
use super::head::{Head, head};
use super::models::find;
use crate::answer::{Answer, Failure, JSON, with_type};
use crate::body::Body;
use crate::offload::offload;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long a stream's status waits for the model's first answer, which may be an error. After that it is 200, and the
/// client is kept informed by comments.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// Hands a call to the model that it names, and its answers to the client.
pub(crate) async fn call(
    core: &Core,
    endpoint: &'static str,
    headers: &HeaderMap,
    body: Bytes,
    forwarded: Vec<(HeaderName, HeaderValue)>,
) -> Result<Answer, Failure> {
    let id = request_id(headers);
    let mut answer = answer(core, endpoint, body, forwarded, &id).await?;
    if let Ok(id) = HeaderValue::from_str(&id) {
        answer.headers_mut().insert(REQUEST_ID.clone(), id);
    }
    Ok(answer)
}

async fn answer(
    core: &Core,
    endpoint: &'static str,
    body: Bytes,
    forwarded: Vec<(HeaderName, HeaderValue)>,
    id: &str,
) -> Result<Answer, Failure> {
    let checked = offload(body.len(), move || {
        let call = DocumentCall::new(endpoint, body)
            .ok_or_else(|| Failure::invalid("the request body is not UTF-8"))?;
        Ok((head(call.body())?, call))
    });
    let (Head { model, stream }, call) = checked.await?;
    let served = served(core, endpoint, &model)?;
    let mut answers = served.openai_stream(call, id.to_owned(), parameters(&forwarded)?)?;
    if !stream {
        return whole(answers).await;
    }
    let first = match tokio::time::timeout(FIRST_ANSWER, answers.next()).await {
        Err(_) => None,
        Ok(Some(Ok(item))) => match &item.document {
            Some(document) if document.is_error() => return Ok(document_answer(document)),
            _ => Some(item),
        },
        Ok(Some(Err(error))) => return Err(error.into()),
        Ok(None) => return Err(Failure::internal("the model ended without an answer")),
    };
    let mut answer = Answer::new(Body::Documents(Box::new(Documents::begin(first, answers))));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that buffer would hold the tokens back.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(answer)
}

/// The model that a call names.
///
/// # Errors
/// It is not there, or does not answer this endpoint.
pub(super) fn served(core: &Core, endpoint: &str, model: &str) -> Result<Arc<Served>, Failure> {
    let served = find(core, model)?;
    if served.openai_endpoints().iter().any(|known| known == endpoint) {
        return Ok(served);
    }
    let known: Vec<String> = served.openai_endpoints().iter().map(|known| format!("/v1/{known}")).collect();
    let text = format!("The model '{model}' does not answer /v1/{endpoint}, but {}.", known.join(" and "));
    let failure = Failure::new(StatusCode::NOT_FOUND, text);
    Err(failure.about("model").coded("endpoint_not_supported"))
}

async fn whole(answers: ResponseStream) -> Result<Answer, Failure> {
    Ok(document_answer(&only_answer(answers).await?))
}

/// The one object of a call that does not stream. It may say that the call failed.
pub(super) async fn only_answer(mut answers: ResponseStream) -> Result<Document, Failure> {
    let mut only: Option<Document> = None;
    while let Some(item) = answers.next().await {
        let Some(document) = item?.document else { continue };
        if document.is_error() {
            return Ok(document);
        }
        if only.replace(document).is_some() {
            return Err(Failure::internal("the model sent several answers to a call that wants one"));
        }
    }
    only.ok_or_else(|| Failure::internal("the model ended without an answer"))
}

fn document_answer(document: &Document) -> Answer {
    let status = StatusCode::from_u16(document.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = with_type(status, JSON, document.body.clone());
    if status == StatusCode::TOO_MANY_REQUESTS {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

/// The client's own name for the request, or a new one.
fn request_id(headers: &HeaderMap) -> String {
    static SALT: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let usable = |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    match headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()).filter(usable) {
        Some(id) => id.to_owned(),
        None => {
            let number = NUMBER.fetch_add(1, Relaxed);
            format!("{:016x}{:016x}", SALT.hash_one(number), SALT.hash_one(!number))
        }
    }
}

/// The headers that the model is to see, as parameters.
fn parameters(forwarded: &[(HeaderName, HeaderValue)]) -> Result<Vec<(String, Value)>, Failure> {
    let one = |(name, value): &(HeaderName, HeaderValue)| {
        let text = value.to_str().map_err(|_| {
            Failure::invalid(format!("the header '{name}' is to be forwarded, but is not text"))
        })?;
        Ok((name.as_str().to_owned(), Value::String(text.to_owned())))
    };
    forwarded.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_are_the_clients_if_they_are_fit_to_print() {
        let of = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID.clone(), HeaderValue::from_str(id).unwrap());
            request_id(&headers)
        };
        assert_eq!(of("abc-1"), "abc-1");
        assert_ne!(of("a b"), "a b");
        assert_ne!(of(&"x".repeat(129)).len(), 129);
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
