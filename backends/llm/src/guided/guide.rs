//! What an answer must be, as a request says it.

use serde_json::Value;

/// The form of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Guide {
    /// A JSON value that this schema accepts.
    JsonSchema(Value),
    /// Any JSON object.
    JsonObject,
    /// A text that this regular expression matches as a whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A text of this grammar, in the Lark dialect of `llguidance`.
    Lark(String),
    /// Calls of tools.
    Tools {
        tools: Vec<ToolSchema>,
        /// Texts around each call, as the model's chat template has them; may be empty.
        begin: String,
        end: String,
        /// Whether several calls may follow one another.
        parallel: bool,
        /// Whether there may be an answer without a call, and text before the first one.
        optional: bool,
    },
}

/// A tool that may be called.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolSchema {
    pub name: String,
    /// JSON schema of its arguments.
    pub parameters: Value,
}
