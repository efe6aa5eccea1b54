//! A strict reader of the protobuf text format, driven by descriptors, which keeps where each field stands.

mod error;
mod lexer;
mod parser;
mod spans;

pub use error::{ParseError, Position};
pub use parser::parse;
pub use spans::{Path, Spans};
