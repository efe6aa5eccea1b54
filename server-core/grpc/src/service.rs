//! The calls of `inference.GRPCInferenceService`, one line each where the work is elsewhere.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};
use trireme_protocol::grpc::{decode_grpc_infer, encode_grpc_infer, parse_version};
use trireme_protocol::proto::grpc_inference_service_server::GrpcInferenceService;
use trireme_protocol::proto::*;
use trireme_runtime::{Core, Served};

use crate::access::forward;
use crate::deadline::Deadline;
use crate::options::GrpcOptions;
use crate::status::{from_protocol, from_serve};
use crate::stream::Exchange;
use crate::{memory, repository, settings};

type Answer<T> = Result<Response<T>, Status>;

/// Metadata of a stream that asks for a status in the place of error messages in the stream.
const ERROR_AS_STATUS: &str = "triton_grpc_error";

pub(crate) struct Service {
    core: Arc<Core>,
    options: GrpcOptions,
}

impl Service {
    pub(crate) fn new(core: Arc<Core>, options: GrpcOptions) -> Self {
        Self { core, options }
    }

    fn model(&self, name: &str, version: &str) -> Result<Arc<Served>, Status> {
        let version = parse_version(version).map_err(from_protocol)?;
        self.core.model(name, version).map_err(from_serve)
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Answer<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: self.core.is_live() }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Answer<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse { ready: self.core.is_ready() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Answer<ModelReadyResponse> {
        let request = request.into_inner();
        let version = parse_version(&request.version).map_err(from_protocol)?;
        // Who asks gets an answer, also for a model that nobody knows.
        let ready = match self.core.model_ready(&request.name, version) {
            Err(error) if error.status == trireme_protocol::StatusCode::NotFound => false,
            ready => ready.map_err(from_serve)?,
        };
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Answer<ServerMetadataResponse> {
        Ok(Response::new(ServerMetadataResponse {
            name: self.core.server_name().to_owned(),
            version: self.core.server_version().to_owned(),
            extensions: self.core.extensions(),
        }))
    }

    async fn model_metadata(&self, request: Request<ModelMetadataRequest>) -> Answer<ModelMetadataResponse> {
        let request = request.into_inner();
        Ok(Response::new(self.model(&request.name, &request.version)?.metadata()))
    }

    async fn model_config(&self, request: Request<ModelConfigRequest>) -> Answer<ModelConfigResponse> {
        let request = request.into_inner();
        let config = self.model(&request.name, &request.version)?.config().proto.clone();
        Ok(Response::new(ModelConfigResponse { config: Some(config) }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Answer<ModelStatisticsResponse> {
        let request = request.into_inner();
        let version = parse_version(&request.version).map_err(from_protocol)?;
        let name = Some(request.name.as_str()).filter(|name| !name.is_empty());
        let model_stats = self.core.statistics(name, version).map_err(from_serve)?;
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Answer<ModelInferResponse> {
        let (metadata, _, message) = request.into_parts();
        let mut request = decode_grpc_infer(message, self.core.limits()).map_err(from_protocol)?;
        forward(&mut request, metadata.as_ref(), self.options.forward.as_ref())?;
        let model = self.core.model(&request.model_name, request.model_version).map_err(from_serve)?;
        let response = self.core.shared_memory().infer(&model, request).await.map_err(from_serve)?;
        Ok(Response::new(encode_grpc_infer(response).map_err(from_protocol)?))
    }

    type ModelStreamInferStream = Exchange<Streaming<ModelInferRequest>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let asked = request.metadata().get(ERROR_AS_STATUS);
        let error_as_status = asked.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
        let core = Arc::clone(&self.core);
        let (metadata, extensions, requests) = request.into_parts();
        let deadline = extensions.get::<Deadline>().copied();
        let forward = self.options.forward.clone().map(|pattern| (pattern, metadata.into_headers()));
        let debts = self.options.debts.clone();
        Ok(Response::new(Exchange::new(core, requests, debts, error_as_status, forward, deadline)))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Answer<RepositoryIndexResponse> {
        repository::index(&self.core, request.get_ref()).map(Response::new)
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Answer<RepositoryModelLoadResponse> {
        repository::load(&self.core, request.into_inner()).await.map(Response::new)
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Answer<RepositoryModelUnloadResponse> {
        repository::unload(&self.core, request.into_inner()).await.map(Response::new)
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<SystemSharedMemoryStatusRequest>,
    ) -> Answer<SystemSharedMemoryStatusResponse> {
        memory::status(&self.core, request.get_ref()).map(Response::new)
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Answer<SystemSharedMemoryRegisterResponse> {
        memory::register(&self.core, request.get_ref()).map(Response::new)
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Answer<SystemSharedMemoryUnregisterResponse> {
        memory::unregister(&self.core, request.get_ref()).map(Response::new)
    }

    async fn cuda_shared_memory_status(
        &self,
        request: Request<CudaSharedMemoryStatusRequest>,
    ) -> Answer<CudaSharedMemoryStatusResponse> {
        memory::cuda_status(&self.core, request.get_ref()).map(Response::new)
    }

    async fn cuda_shared_memory_register(
        &self,
        request: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Answer<CudaSharedMemoryRegisterResponse> {
        memory::register_cuda(&self.core, request.into_inner()).await.map(Response::new)
    }

    async fn cuda_shared_memory_unregister(
        &self,
        request: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Answer<CudaSharedMemoryUnregisterResponse> {
        memory::unregister_cuda(&self.core, request.get_ref()).await.map(Response::new)
    }

    async fn trace_setting(&self, _: Request<TraceSettingRequest>) -> Answer<TraceSettingResponse> {
        settings::trace().map(Response::new)
    }

    async fn log_settings(&self, request: Request<LogSettingsRequest>) -> Answer<LogSettingsResponse> {
        settings::log(&self.core, &self.options.log, request.get_ref()).map(Response::new)
    }
}
