//! Which calls need a secret in their metadata, and which metadata becomes parameters of a request.

use http::{HeaderMap, HeaderValue, Request};
use regex::Regex;
use tonic::Status;
use trireme_protocol::proto::grpc_inference_service_server::SERVICE_NAME as INFERENCE;
use trireme_protocol::proto::health::health_server::SERVICE_NAME as HEALTH;
use trireme_protocol::{ApiGroup, InferRequest, Restrictions, forward_header};

use crate::status::from_protocol;

/// The group of a call by the path of its request; `None` for what is no call.
fn group(path: &str) -> Option<ApiGroup> {
    let (service, call) = path.strip_prefix('/')?.split_once('/')?;
    if service == HEALTH {
        return Some(ApiGroup::Health);
    }
    if service != INFERENCE {
        return None;
    }
    Some(match call {
        "ServerLive" | "ServerReady" | "ModelReady" => ApiGroup::Health,
        "ServerMetadata" | "ModelMetadata" => ApiGroup::Metadata,
        "ModelInfer" | "ModelStreamInfer" => ApiGroup::Inference,
        "ModelConfig" => ApiGroup::ModelConfig,
        "ModelStatistics" => ApiGroup::Statistics,
        "RepositoryIndex" | "RepositoryModelLoad" | "RepositoryModelUnload" => ApiGroup::ModelRepository,
        "SystemSharedMemoryStatus"
        | "SystemSharedMemoryRegister"
        | "SystemSharedMemoryUnregister"
        | "CudaSharedMemoryStatus"
        | "CudaSharedMemoryRegister"
        | "CudaSharedMemoryUnregister" => ApiGroup::SharedMemory,
        "TraceSetting" => ApiGroup::Trace,
        "LogSettings" => ApiGroup::Logging,
        _ => return None,
    })
}

/// Whether a call may go on.
///
/// # Errors
/// UNAVAILABLE, as upstream says it, with the name of the metadata that is missing or wrong.
pub(crate) fn permits<B>(restrictions: &Restrictions, request: &Request<B>) -> Result<(), Status> {
    let Some(group) = group(request.uri().path()) else { return Ok(()) };
    let find = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
    restrictions.check(group, find).map_err(|header| {
        Status::unavailable(format!("This protocol is restricted, expecting header '{header}'"))
    })
}

/// Makes metadata whose keys match into parameters of the request; what HTTP/2 and gRPC themselves need is no metadata.
pub(crate) fn forward(
    request: &mut InferRequest,
    headers: &HeaderMap,
    pattern: Option<&Regex>,
) -> Result<(), Status> {
    let Some(pattern) = pattern else { return Ok(()) };
    let is_metadata = |name: &str| !name.starts_with("grpc-") && !matches!(name, "te" | "content-type");
    for (name, value) in headers {
        let name = name.as_str();
        if is_metadata(name) && pattern.is_match(name) {
            forward_header(request, name, value.as_bytes()).map_err(from_protocol)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use prost_reflect::DescriptorPool;

    #[test]
    fn every_call_belongs_to_a_group() {
        let pool = DescriptorPool::decode(trireme_protocol::proto::DESCRIPTORS).unwrap();
        let mut calls = 0;
        for service in pool.services() {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                assert!(group(&path).is_some(), "{path}");
                calls += 1;
            }
        }
        assert!(calls >= 21);
        assert_eq!(group("/inference.GRPCInferenceService/Nothing"), None);
    }

    #[test]
    fn metadata_is_forwarded_and_the_transport_is_not() {
        let mut request = InferRequest::new("m", None);
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-a", "1"), ("te", "trailers"), ("grpc-timeout", "1S"), ("other", "2")] {
            headers.insert(name, value.parse().unwrap());
        }
        forward(&mut request, &headers, Some(&Regex::new("x-|te|grpc").unwrap())).unwrap();
        let names: Vec<_> = request.parameters.iter().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names, ["x-a"]);
        let reserved = forward(&mut request, &headers, Some(&Regex::new("other").unwrap()));
        assert!(reserved.is_ok());
        headers.insert("priority", "1".parse().unwrap());
        assert!(forward(&mut request, &headers, Some(&Regex::new("").unwrap())).is_err());
    }
}
