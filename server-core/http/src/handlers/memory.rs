//! Shared memory of clients: `/v2/systemsharedmemory` and `/v2/cudasharedmemory`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use serde_json::{Map, Value, json};
use trireme_runtime::{Core, CudaRegionStatus, RegionStatus};

use crate::answer::{self, Answer, Failure, empty};
use crate::handlers::fields::object;
use crate::route::{Memory, RegionCall};

/// Every call on a region, or on all.
pub(crate) async fn call(
    core: &Core,
    kind: Memory,
    region: Option<&str>,
    call: RegionCall,
    body: &[u8],
) -> Result<Answer, Failure> {
    let memory = core.shared_memory();
    match (kind, call) {
        (Memory::System, RegionCall::Status) => {
            let regions: Vec<Value> = memory.status(region)?.iter().map(line).collect();
            return Ok(answer::json(Value::from(regions).to_string()));
        }
        (Memory::Cuda, RegionCall::Status) => {
            let regions: Vec<Value> = memory.cuda_status(region)?.iter().map(cuda_line).collect();
            return Ok(answer::json(Value::from(regions).to_string()));
        }
        (Memory::System, RegionCall::Register) => {
            let Part { key, offset, byte_size } = part(&object(body, core.limits())?)?;
            memory.register(region.unwrap_or_default(), &key, offset, byte_size)?;
        }
        (Memory::Cuda, RegionCall::Register) => {
            // Before the body is looked at: who may not do it at all is told that.
            memory.check_allowed()?;
            let CudaPart { handle, device, byte_size } = cuda_part(&object(body, core.limits())?)?;
            memory.register_cuda_async(region.unwrap_or_default(), handle, device, byte_size).await?;
        }
        (Memory::System, RegionCall::Unregister) => memory.unregister(region)?,
        (Memory::Cuda, RegionCall::Unregister) => memory.unregister_cuda_async(region).await?,
    }
    Ok(empty(StatusCode::OK))
}

fn line(region: &RegionStatus) -> Value {
    json!({"name": region.name, "key": region.key, "offset": region.offset, "byte_size": region.byte_size})
}

fn cuda_line(region: &CudaRegionStatus) -> Value {
    json!({"name": region.name, "device_id": region.device, "byte_size": region.byte_size})
}

struct Part {
    key: String,
    offset: u64,
    byte_size: u64,
}

fn missing(field: &str) -> Failure {
    Failure::invalid(format!("Shared memory register request has no '{field}' field"))
}

fn number(field: &str, value: &Value) -> Result<u64, Failure> {
    value.as_u64().ok_or_else(|| Failure::invalid(format!("'{field}' must be an unsigned integer")))
}

/// Memory of a GPU.
struct CudaPart {
    handle: Vec<u8>,
    device: i64,
    byte_size: u64,
}

fn cuda_part(fields: &Map<String, Value>) -> Result<CudaPart, Failure> {
    let field = |name: &str| fields.get(name).ok_or_else(|| missing(name));
    let text = field("raw_handle")?.get("b64").ok_or_else(|| missing("b64"))?;
    let text = text.as_str().ok_or_else(|| Failure::invalid("'b64' must be a string"))?;
    let handle = BASE64_STANDARD
        .decode(text)
        .map_err(|error| Failure::invalid(format!("'raw_handle' is no base64: {error}")))?;
    let device = field("device_id")?;
    let device = device.as_i64().ok_or_else(|| Failure::invalid("'device_id' must be an integer"))?;
    Ok(CudaPart { handle, device, byte_size: number("byte_size", field("byte_size")?)? })
}

fn part(fields: &Map<String, Value>) -> Result<Part, Failure> {
    let key = fields.get("key").ok_or_else(|| missing("key"))?;
    let key = key.as_str().ok_or_else(|| Failure::invalid("'key' must be a string"))?.to_owned();
    let byte_size = number("byte_size", fields.get("byte_size").ok_or_else(|| missing("byte_size"))?)?;
    let offset = fields.get("offset").map_or(Ok(0), |value| number("offset", value))?;
    Ok(Part { key, offset, byte_size })
}
