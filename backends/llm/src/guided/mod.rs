//! Answers that keep to a grammar.

mod guide;

pub use guide::{Guide, ToolSchema};
