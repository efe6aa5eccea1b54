//! What a request may cost before it is refused.

use std::time::Duration;

use crate::error::{ProtocolError, Result};

/// How long the next piece of a body may take.
pub const PIECE_TIME: Duration = Duration::from_secs(75);
/// Bytes of a body that have to come each second on the whole, but for the first [`PIECE_TIME`]: who sends a byte now and then
/// holds no connection for ever.
pub const SLOWEST: u64 = 1024;

/// How long `received` bytes of a body may have taken.
pub fn time_for(received: u64) -> Duration {
    PIECE_TIME + Duration::from_secs(received / SLOWEST)
}

/// Bounds on one request; the defaults are Triton's where Triton has a number.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Limits {
    /// Bytes of a body, also after inflation, and of the tensors that a JSON body expands to.
    pub max_body: usize,
    /// How deep objects and arrays may nest; one container is depth 1.
    pub json_depth: usize,
    /// Non-empty chunks of a chunked body.
    pub max_chunks: usize,
    /// Inputs, and also requested outputs, of one request.
    pub max_tensors: usize,
    /// Dimensions of a tensor's shape.
    pub max_rank: usize,
    /// Parameters of a request, of an input or of an output.
    pub max_parameters: usize,
}

impl Limits {
    /// Refuses a body of `length` bytes that is over the limit; the doors also ask this while they receive.
    ///
    /// # Errors
    /// `InvalidArg`, which HTTP says as 400, as the C++ server does.
    pub fn check_body(&self, length: usize) -> Result<()> {
        if length <= self.max_body {
            return Ok(());
        }
        Err(ProtocolError::invalid(format!(
            "request body of {length} bytes exceeds the maximum allowed value of {} bytes",
            self.max_body
        )))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body: 64 << 20,
            json_depth: 100,
            max_chunks: 65_536,
            max_tensors: 4096,
            max_rank: 64,
            max_parameters: 1024,
        }
    }
}
