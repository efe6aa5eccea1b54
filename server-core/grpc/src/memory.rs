//! Shared memory of clients.

use tonic::Status;
use trireme_protocol::proto::cuda_shared_memory_status_response::RegionStatus as CudaRegion;
use trireme_protocol::proto::system_shared_memory_status_response::RegionStatus;
use trireme_protocol::proto::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryRegisterResponse, CudaSharedMemoryStatusRequest,
    CudaSharedMemoryStatusResponse, CudaSharedMemoryUnregisterRequest, CudaSharedMemoryUnregisterResponse,
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse, SystemSharedMemoryStatusRequest,
    SystemSharedMemoryStatusResponse, SystemSharedMemoryUnregisterRequest,
    SystemSharedMemoryUnregisterResponse,
};
use trireme_runtime::Core;

use crate::status::from_serve;

/// The empty name stands for all regions.
fn one(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty())
}

pub(crate) fn status(
    core: &Core,
    request: &SystemSharedMemoryStatusRequest,
) -> Result<SystemSharedMemoryStatusResponse, Status> {
    let regions = core.shared_memory().status(one(&request.name)).map_err(from_serve)?;
    let regions = regions.into_iter().map(|region| {
        let status = RegionStatus {
            name: region.name.clone(),
            key: region.key,
            offset: region.offset,
            byte_size: region.byte_size,
        };
        (region.name, status)
    });
    Ok(SystemSharedMemoryStatusResponse { regions: regions.collect() })
}

pub(crate) fn register(
    core: &Core,
    request: &SystemSharedMemoryRegisterRequest,
) -> Result<SystemSharedMemoryRegisterResponse, Status> {
    let SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = request;
    core.shared_memory().register(name, key, *offset, *byte_size).map_err(from_serve)?;
    Ok(SystemSharedMemoryRegisterResponse {})
}

pub(crate) fn unregister(
    core: &Core,
    request: &SystemSharedMemoryUnregisterRequest,
) -> Result<SystemSharedMemoryUnregisterResponse, Status> {
    core.shared_memory().unregister(one(&request.name)).map_err(from_serve)?;
    Ok(SystemSharedMemoryUnregisterResponse {})
}

pub(crate) fn cuda_status(
    core: &Core,
    request: &CudaSharedMemoryStatusRequest,
) -> Result<CudaSharedMemoryStatusResponse, Status> {
    let regions = core.shared_memory().cuda_status(one(&request.name)).map_err(from_serve)?;
    let regions = regions.into_iter().map(|region| {
        let status = CudaRegion {
            name: region.name.clone(),
            device_id: u64::try_from(region.device).unwrap_or_default(),
            byte_size: region.byte_size,
        };
        (region.name, status)
    });
    Ok(CudaSharedMemoryStatusResponse { regions: regions.collect() })
}

pub(crate) async fn register_cuda(
    core: &Core,
    request: CudaSharedMemoryRegisterRequest,
) -> Result<CudaSharedMemoryRegisterResponse, Status> {
    let CudaSharedMemoryRegisterRequest { name, raw_handle, device_id, byte_size } = request;
    let memory = core.shared_memory();
    memory.register_cuda_async(&name, raw_handle, device_id, byte_size).await.map_err(from_serve)?;
    Ok(CudaSharedMemoryRegisterResponse {})
}

pub(crate) async fn unregister_cuda(
    core: &Core,
    request: &CudaSharedMemoryUnregisterRequest,
) -> Result<CudaSharedMemoryUnregisterResponse, Status> {
    core.shared_memory().unregister_cuda_async(one(&request.name)).await.map_err(from_serve)?;
    Ok(CudaSharedMemoryUnregisterResponse {})
}
