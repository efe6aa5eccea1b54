//! Shared memory of clients, which this server does not map: it answers as upstream does with
//! `--allow-client-shm=false`, its default.

use crate::answer::{Answer, Failure, json};
use crate::route::{Memory, RegionCall};

/// Every call under `/v2/systemsharedmemory` and `/v2/cudasharedmemory`.
pub(crate) fn call(kind: Memory, region: Option<&str>, call: RegionCall) -> Result<Answer, Failure> {
    match (call, region) {
        (RegionCall::Status, None) => Ok(json("[]")),
        (RegionCall::Status, Some(region)) => {
            let kind = match kind {
                Memory::System => "system",
                Memory::Cuda => "cuda",
            };
            let region = region.escape_debug();
            let text = format!("Unable to find {kind} shared memory region: '{region}'");
            Err(Failure::new(http::StatusCode::NOT_FOUND, text))
        }
        (RegionCall::Register | RegionCall::Unregister, _) => Err(Failure::unsupported(
            "Client shared memory is disabled: send tensors in the request body instead",
        )),
    }
}
