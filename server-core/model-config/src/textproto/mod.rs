//! A strict reader of the protobuf text format, driven by descriptors, which keeps where each field stands; and a
//! writer of the same format.

mod error;
mod lexer;
mod parser;
mod printer;
mod scalar;
mod spans;

pub use error::{ParseError, Position};
pub use parser::parse;
pub use printer::print;
pub use spans::{Path, Spans};
