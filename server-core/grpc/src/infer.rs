//! `ModelInfer` as most clients call it: not compressed. It is framed here and not by tonic, whose codec copies every
//! tensor of an answer and reserves whatever length a client announces; the rest of the calls is tonic's.

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::Status;
use trireme_drain::Debt;
use trireme_protocol::grpc::{decode_grpc_infer, decode_message, encode_grpc_infer};
use trireme_protocol::proto::ModelInferRequest;
use trireme_runtime::Core;

use crate::access::forward;
use crate::message::{read_one, write_answer};
use crate::options::GrpcOptions;
use crate::pace::Paced;
use crate::reply::Reply;
use crate::status::{from_protocol, from_serve};

/// The path of the call.
pub(crate) const PATH: &str = "/inference.GRPCInferenceService/ModelInfer";

static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Whether a request is one for [`answer`].
pub(crate) fn is_plain<B>(request: &Request<B>) -> bool {
    request.uri().path() == PATH && !is_compressed(request)
}

/// Whether the messages of a call are compressed.
pub(crate) fn is_compressed<B>(request: &Request<B>) -> bool {
    request.headers().get(&ENCODING).is_some_and(|value| value != "identity")
}

/// One message in, one out; `debt` is what is owed from when the message is there.
pub(crate) async fn answer(
    core: &Core,
    request: Request<Paced<Incoming>>,
    options: &GrpcOptions,
    debt: &mut Option<Debt>,
) -> Response<Reply> {
    match call(core, request, options, debt).await {
        Ok(reply) => {
            let mut response = Response::new(reply);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
        Err(status) => status.into_http::<tonic::body::Body>().map(Reply::Tonic),
    }
}

async fn call(
    core: &Core,
    request: Request<Paced<Incoming>>,
    options: &GrpcOptions,
    debt: &mut Option<Debt>,
) -> Result<Reply, Status> {
    let (head, body) = request.into_parts();
    let message = read_one(body, options.max_message).await?;
    *debt = Some(options.debts.open());
    let message: ModelInferRequest = decode_message(message).map_err(from_protocol)?;
    let mut request = decode_grpc_infer(message, core.limits()).map_err(from_protocol)?;
    forward(&mut request, &head.headers, options.forward.as_ref())?;
    let model = core.model(&request.model_name, request.model_version).map_err(from_serve)?;
    if model.is_decoupled() {
        let text = "ModelInfer RPC doesn't support models with decoupled transaction policy";
        return Err(Status::unimplemented(text));
    }
    let response = core.shared_memory().infer(&model, request).await.map_err(from_serve)?;
    let message = encode_grpc_infer(response).map_err(from_protocol)?;
    Ok(Reply::Message(write_answer(message)?.into_iter()))
}
