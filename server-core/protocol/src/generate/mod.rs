//! The `generate` and `generate_stream` mapping: one flat JSON object in, one out.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::decode_generate;
pub use encode::encode_generate;

/// What `generate` answers when the model sends no response or several: such models need `generate_stream`.
pub const ONE_RESPONSE_NEEDED: &str = "generate expects model to produce exactly 1 response, use \
    generate_stream for a model that produces any other number of responses";
