//! The model repository: index, load, unload.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use trireme_protocol::answers::index_json;
use trireme_protocol::proto::RepositoryIndexResponse;
use trireme_protocol::proto::repository_index_response::ModelIndex;
use trireme_protocol::repository::{LoadRequest, UnloadRequest, decode_index, refuse_repository_name};
use trireme_runtime::Core;

use crate::answer::{Answer, Failure, empty, json};
use crate::offload::offload;

/// `POST /v2/repository[/R]/index`.
pub(crate) fn index(core: &Core, repository: &str, body: &[u8]) -> Result<Answer, Failure> {
    refuse_repository_name(repository)?;
    let lines = core.index(decode_index(body, core.limits())?).into_iter();
    let models = lines.map(|line| ModelIndex {
        name: line.name,
        version: line.version.map(|version| version.to_string()).unwrap_or_default(),
        state: line.state.map(|state| state.to_string()).unwrap_or_default(),
        reason: line.reason,
    });
    Ok(json(index_json(&RepositoryIndexResponse { models: models.collect() })))
}

/// `POST /v2/repository[/R]/models/M/load`.
pub(crate) async fn load(
    core: &Arc<Core>,
    repository: &str,
    model: &str,
    body: Bytes,
) -> Result<Answer, Failure> {
    refuse_repository_name(repository)?;
    let limits = *core.limits();
    let name = model.to_owned();
    let request = offload(body.len(), move || Ok(LoadRequest::from_json(&name, &body, &limits)?)).await?;
    core.load(model, request).await?;
    Ok(empty(StatusCode::OK))
}

/// `POST /v2/repository[/R]/models/M/unload`.
pub(crate) async fn unload(
    core: &Arc<Core>,
    repository: &str,
    model: &str,
    body: &[u8],
) -> Result<Answer, Failure> {
    refuse_repository_name(repository)?;
    let request = UnloadRequest::from_json(body, core.limits())?;
    core.unload(model, request.unload_dependents).await?;
    Ok(empty(StatusCode::OK))
}
