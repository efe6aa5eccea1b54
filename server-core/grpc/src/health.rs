//! `grpc.health.v1.Health/Check`: the service's name does not matter, as upstream has it.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use trireme_protocol::proto::health::health_check_response::ServingStatus;
use trireme_protocol::proto::health::health_server::Health;
use trireme_protocol::proto::health::{HealthCheckRequest, HealthCheckResponse};
use trireme_runtime::Core;

pub(crate) struct Readiness(pub(crate) Arc<Core>);

#[tonic::async_trait]
impl Health for Readiness {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let status = if self.0.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }
}
