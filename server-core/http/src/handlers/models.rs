//! What the server and its models say of themselves.

use trireme_protocol::answers::{model_metadata_json, server_metadata_json, statistics_json};
use trireme_protocol::grpc::parse_version;
use trireme_protocol::proto::{ModelStatisticsResponse, ServerMetadataResponse};
use trireme_runtime::Core;

use crate::answer::{Answer, Failure, empty, json};
use crate::route::Model;

/// `GET /v2`.
pub(crate) fn server(core: &Core) -> Answer {
    json(server_metadata_json(&ServerMetadataResponse {
        name: core.server_name().to_owned(),
        version: core.server_version().to_owned(),
        extensions: core.extensions(),
    }))
}

/// `GET /v2/models/M[/versions/V]`.
pub(crate) fn metadata(core: &Core, model: &Model<'_>) -> Result<Answer, Failure> {
    let served = core.model(&model.name, parse_version(model.version)?)?;
    Ok(json(model_metadata_json(&served.metadata())))
}

/// `GET /v2/models/M[/versions/V]/config`.
pub(crate) fn config(core: &Core, model: &Model<'_>) -> Result<Answer, Failure> {
    let served = core.model(&model.name, parse_version(model.version)?)?;
    Ok(json(served.config_json().to_owned()))
}

/// `GET /v2/models/M[/versions/V]/ready`.
pub(crate) fn ready(core: &Core, model: &Model<'_>) -> Result<Answer, Failure> {
    if core.model_ready(&model.name, parse_version(model.version)?)? {
        return Ok(empty(http::StatusCode::OK));
    }
    Err(Failure::invalid("Model version not ready"))
}

/// `GET /v2/models/M[/versions/V]/stats`.
pub(crate) fn statistics(core: &Core, model: &Model<'_>) -> Result<Answer, Failure> {
    let model_stats = core.statistics(Some(&model.name), parse_version(model.version)?)?;
    Ok(json(statistics_json(&ModelStatisticsResponse { model_stats })))
}

/// `GET /v2/models/stats`.
pub(crate) fn all_statistics(core: &Core) -> Result<Answer, Failure> {
    let model_stats = core.statistics(None, None)?;
    Ok(json(statistics_json(&ModelStatisticsResponse { model_stats })))
}
