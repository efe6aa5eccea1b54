//! `POST /v2/models/M[/versions/V]/generate` and `/generate_stream`.
//!
//! The status is that of the model's first answer. What goes wrong later is said in the body, because by then a
//! client that streams has the status already.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, StatusCode};
use trireme_protocol::generate::{ONE_RESPONSE_NEEDED, decode_generate, encode_generate};
use trireme_protocol::grpc::parse_version;
use trireme_protocol::{InferResponse, error_json};
use trireme_runtime::{Core, ResponseStream};

use crate::answer::{Answer, Failure, JSON, json, with_type};
use crate::body::{Body, Events};
use crate::handlers::tensors;
use crate::offload::offload;
use crate::route::Model;

/// One JSON object in, one out.
pub(crate) async fn generate(
    core: &Core,
    model: Model<'_>,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Answer, Failure> {
    let mut stream = start(core, model, headers, body).await?;
    let mut only: Option<InferResponse> = None;
    let mut first = true;
    let late = |message: &str| Ok(with_type(StatusCode::OK, JSON, error_json(message)));
    while let Some(item) = stream.next().await {
        let item = match item {
            Ok(item) => item,
            Err(error) if first => return Err(error.into()),
            Err(error) => return late(&error.message),
        };
        first = false;
        if item.response.is_some() && only.is_some() {
            // Dropping the stream cancels the rest.
            return late(ONE_RESPONSE_NEEDED);
        }
        only = item.response.or(only);
    }
    match only {
        Some(response) => Ok(json(encode_generate(&response)?)),
        None => late(ONE_RESPONSE_NEEDED),
    }
}

/// One JSON object in, an event for every answer out.
pub(crate) async fn generate_stream(
    core: &Core,
    model: Model<'_>,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Answer, Failure> {
    let mut stream = start(core, model, headers, body).await?;
    let first = stream.next().await;
    let events = Events::begin(first, stream)?;
    let mut answer = Answer::new(Body::Events(Box::new(events)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(answer)
}

async fn start(
    core: &Core,
    model: Model<'_>,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<ResponseStream, Failure> {
    let coded = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get(CONTENT_ENCODING).is_some_and(coded) {
        return Err(Failure::invalid("Unsupported content-encoding, only 'identity' is supported."));
    }
    let version = parse_version(model.version)?;
    let served = core.model(&model.name, version)?;
    let limits = *core.limits();
    let (inputs, name) = (tensors::inputs(&served)?, model.name.into_owned());
    let decoded =
        offload(body.len(), move || Ok(decode_generate(&name, version, &body, &inputs, &limits)?)).await?;
    Ok(served.infer_stream(decoded)?)
}
