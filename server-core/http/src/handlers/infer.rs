//! `POST /v2/models/M[/versions/V]/infer`.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use trireme_protocol::grpc::parse_version;
use trireme_protocol::{
    HttpInfer, HttpInferBody, InferRequest, InferResponse, decode_http_infer, encode_http_infer,
    forward_header, parse_header_length,
};
use trireme_runtime::{Core, ModelVersion};

use crate::answer::{Answer, Failure};
use crate::body::Body;
use crate::encoding;
use crate::handlers::tensors;
use crate::offload::offload;
use crate::route::Model;

/// Says how many bytes of a body are JSON.
static HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Decodes, infers and encodes. Tensors are slices of the body on the way in and not copied on the way out.
pub(crate) async fn infer(
    core: &Core,
    model: Model<'_>,
    headers: &HeaderMap,
    body: Bytes,
    forwarded: Vec<(HeaderName, HeaderValue)>,
) -> Result<Answer, Failure> {
    let version = parse_version(model.version)?;
    let served = core.model(&model.name, version)?;
    if served.is_decoupled() {
        let text = "HTTP end point doesn't support models with decoupled transaction policy";
        return Err(trireme_runtime::ServeError::unsupported(text).into());
    }
    let header_length = headers.get(&HEADER_LENGTH).map(header_length).transpose()?;
    let mut request = decode(core, &served, version, body, header_length).await?;
    for (name, value) in forwarded {
        forward_header(&mut request, name.as_str(), value.as_bytes())?;
    }
    let response = core.shared_memory().infer(&served, request).await?;
    let body = encode(response).await?;
    answer(body, headers).await
}

fn header_length(value: &HeaderValue) -> Result<usize, Failure> {
    Ok(parse_header_length(value.to_str().unwrap_or("a value that is not text"))?)
}

async fn decode(
    core: &Core,
    served: &Arc<ModelVersion>,
    version: Option<i64>,
    body: Bytes,
    header_length: Option<usize>,
) -> Result<InferRequest, Failure> {
    let limits = *core.limits();
    let model = Arc::clone(served);
    let text = header_length.unwrap_or(body.len());
    let decoded =
        offload(text, move || Ok(decode_http_infer(model.name(), version, body, header_length, &limits)?));
    Ok(match decoded.await? {
        HttpInfer::Request(request) => request,
        HttpInfer::Raw(raw) => {
            let batched = served.config().proto.max_batch_size > 0;
            raw.into_request(&tensors::inputs(served)?, batched)?
        }
    })
}

async fn encode(response: InferResponse) -> Result<HttpInferBody, Failure> {
    let outputs = response.outputs.iter().filter(|output| !output.binary);
    let text: usize = outputs.map(|output| output.data.len()).sum();
    offload(text, move || Ok(encode_http_infer(&response)?)).await
}

async fn answer(body: HttpInferBody, headers: &HeaderMap) -> Result<Answer, Failure> {
    let mut answer = Answer::new(Body::Empty);
    let out = answer.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static(body.content_type()));
    if let Some(length) = body.json_len {
        // The length before compression.
        out.insert(HEADER_LENGTH.clone(), HeaderValue::from(length));
    }
    *answer.body_mut() = match encoding::of_answer(headers) {
        None => Body::pieces(body.pieces),
        Some(encoding) => {
            out.insert(CONTENT_ENCODING, encoding.header_value());
            let compressed = offload(body.len(), move || {
                encoding
                    .deflate(&body.pieces)
                    .map_err(|error| Failure::internal(&format!("the answer cannot be compressed: {error}")))
            });
            Body::Whole(compressed.await?)
        }
    };
    Ok(answer)
}
