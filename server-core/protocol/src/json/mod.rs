//! JSON as the wire has it: a pull reader with limits, and the few writers that answers need.

mod escapes;
mod number;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use reader::{Kind, Mark, Number, Reader};
pub(crate) use writer::{write_f32, write_f64, write_i64, write_string, write_u64};
