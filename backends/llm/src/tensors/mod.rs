//! Models whose requests are token ids, with the tensor names, types and shapes of TensorRT-LLM's Triton backend
//! (`input_ids` to `output_ids`): once for all engines.

mod contract;
mod door;
mod inputs;
mod outputs;

pub use contract::Contract;
pub use door::TokenDoor;
