//! `model.plan`: one file that holds a whole checkpoint, or names where its weights are.
//!
//! ```text
//! | "TRIREMEP" | version: u32 | 0: u32 | n: u64 | sha256 of the table: 32 bytes |  64 bytes
//! | table: n bytes of JSON | padding to 4096 | sections, each at a multiple of 4096 ... |
//! ```
//! The table lists sections. A *text* is a file of the checkpoint by its name there (`config.json`, `tokenizer.json`); *weights*
//! are whole safetensors or GGUF files, inside the plan or beside it (then by relative path, length and checksum); a *tuning*
//! section is a device's table, which only that device's engine reads. Weights keep the layout of their file and are mapped:
//! kernels re-order them when they load. Every section has a sha256, which is verified when the plan is opened.

mod error;
mod read;
mod table;
mod tuning;
mod write;

pub use error::PlanError;
pub use read::Plan;
pub use table::{Profile, Range};
pub use tuning::{MAX_TUNING_BYTES, TuningError, open_tuning, seal_tuning, tuning_device};
pub(crate) use write::texts;
pub use write::{PlanOptions, write};

/// The name that a plan has in a version directory.
pub const FILE_NAME: &str = "model.plan";

const MAGIC: &[u8; 8] = b"TRIREMEP";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
/// Sections begin at multiples of it, so that weights are aligned for whatever reads them.
const ALIGNMENT: u64 = 4096;
/// Longest table; a thousand sections take a fifth of it.
const MAX_TABLE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests;
