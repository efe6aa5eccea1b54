//! Shared memory of clients: `/v2/systemsharedmemory` and `/v2/cudasharedmemory`.

use http::StatusCode;
use serde_json::{Map, Value, json};
use trireme_runtime::{Core, RegionStatus};

use crate::answer::{self, Answer, Failure, empty};
use crate::handlers::fields::object;
use crate::route::{Memory, RegionCall};

/// Every call on a region, or on all.
pub(crate) fn call(
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
            memory.cuda_status(region)?;
            return Ok(answer::json("[]"));
        }
        (Memory::System, RegionCall::Register) => {
            let Part { key, offset, byte_size } = part(&object(body, core.limits())?)?;
            memory.register(region.unwrap_or_default(), &key, offset, byte_size)?;
        }
        (Memory::Cuda, RegionCall::Register) => memory.register_cuda(region.unwrap_or_default())?,
        (Memory::System, RegionCall::Unregister) => memory.unregister(region)?,
        (Memory::Cuda, RegionCall::Unregister) => memory.unregister_cuda()?,
    }
    Ok(empty(StatusCode::OK))
}

fn line(region: &RegionStatus) -> Value {
    json!({"name": region.name, "key": region.key, "offset": region.offset, "byte_size": region.byte_size})
}

struct Part {
    key: String,
    offset: u64,
    byte_size: u64,
}

fn part(fields: &Map<String, Value>) -> Result<Part, Failure> {
    let missing =
        |field: &str| Failure::invalid(format!("Shared memory register request has no '{field}' field"));
    let number = |field: &str, value: &Value| {
        value.as_u64().ok_or_else(|| Failure::invalid(format!("'{field}' must be an unsigned integer")))
    };
    let key = fields.get("key").ok_or_else(|| missing("key"))?;
    let key = key.as_str().ok_or_else(|| Failure::invalid("'key' must be a string"))?.to_owned();
    let byte_size = number("byte_size", fields.get("byte_size").ok_or_else(|| missing("byte_size"))?)?;
    let offset = fields.get("offset").map_or(Ok(0), |value| number("offset", value))?;
    Ok(Part { key, offset, byte_size })
}
