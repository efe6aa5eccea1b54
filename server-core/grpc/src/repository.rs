//! The model repository: index, load, unload.

use std::sync::Arc;

use tonic::Status;
use trireme_protocol::proto::repository_index_response::ModelIndex;
use trireme_protocol::proto::{
    RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest, RepositoryModelUnloadResponse,
};
use trireme_protocol::repository::{LoadRequest, UnloadRequest, refuse_repository_name};
use trireme_runtime::Core;

use crate::status::{from_protocol, from_serve};

pub(crate) fn index(
    core: &Core,
    request: &RepositoryIndexRequest,
) -> Result<RepositoryIndexResponse, Status> {
    refuse_repository_name(&request.repository_name).map_err(from_protocol)?;
    let models = core.index(request.ready).into_iter().map(|line| ModelIndex {
        name: line.name,
        version: line.version.map(|version| version.to_string()).unwrap_or_default(),
        state: line.state.map(|state| state.to_string()).unwrap_or_default(),
        reason: line.reason,
    });
    Ok(RepositoryIndexResponse { models: models.collect() })
}

pub(crate) async fn load(
    core: &Arc<Core>,
    request: RepositoryModelLoadRequest,
) -> Result<RepositoryModelLoadResponse, Status> {
    refuse_repository_name(&request.repository_name).map_err(from_protocol)?;
    let name = &request.model_name;
    let parameters =
        LoadRequest::from_proto(name, request.parameters, core.limits()).map_err(from_protocol)?;
    core.load(&request.model_name, parameters).await.map_err(from_serve)?;
    Ok(RepositoryModelLoadResponse {})
}

pub(crate) async fn unload(
    core: &Arc<Core>,
    request: RepositoryModelUnloadRequest,
) -> Result<RepositoryModelUnloadResponse, Status> {
    refuse_repository_name(&request.repository_name).map_err(from_protocol)?;
    let parameters = UnloadRequest::from_proto(&request.parameters).map_err(from_protocol)?;
    core.unload(&request.model_name, parameters.unload_dependents).await.map_err(from_serve)?;
    Ok(RepositoryModelUnloadResponse {})
}
