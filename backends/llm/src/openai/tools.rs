//! The tools that a model may call, and how it is told of them.

use serde_json::{Value, json};
use trireme_sdk::OpenAiError;

use super::fields::{Fields, wrong_type};
use super::{GuideSpec, Result, unsupported};

const MAX_TOOLS: usize = 128;

/// A function that a model may call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tool {
    pub(super) name: String,
    /// As the client gave it, for the template.
    pub(super) value: Value,
    parameters: Value,
}

/// Whether and what the model is to call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Choice {
    #[default]
    None,
    Auto,
    /// Some tool.
    Required,
    Named(String),
}

/// The tools of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tools {
    pub(super) list: Vec<Tool>,
    pub(super) choice: Choice,
    pub(super) parallel: bool,
}

impl Tools {
    /// Takes `tools`, `tool_choice` and `parallel_tool_calls`.
    pub(super) fn take(fields: &mut Fields) -> Result<Self> {
        let given = fields.list("tools")?.unwrap_or_default();
        if given.len() > MAX_TOOLS {
            return Err(fields.out_of_range(
                "tools",
                &format!("a list of {}", given.len()),
                "a list of at most 128",
            ));
        }
        let list =
            given.into_iter().enumerate().map(|(at, tool)| Tool::of(at, tool)).collect::<Result<Vec<_>>>()?;
        let choice = fields.take("tool_choice");
        let parallel = fields.boolean("parallel_tool_calls")?;
        if list.is_empty() {
            let stray = match (&choice, parallel) {
                (Some(choice), _) if choice != "none" && choice != "auto" => Some("tool_choice"),
                (_, Some(_)) => Some("parallel_tool_calls"),
                _ => None,
            };
            return match stray {
                Some(name) => Err(OpenAiError::invalid(
                    name,
                    format!("'{name}' is only allowed when 'tools' are specified."),
                )),
                None => Ok(Self::default()),
            };
        }
        let choice = choice.map_or(Ok(Choice::Auto), |choice| read_choice(choice, &list))?;
        Ok(Self { list, choice, parallel: parallel.unwrap_or(true) })
    }

    /// Whether the model may call tools at all.
    pub(super) fn usable(&self) -> bool {
        self.choice != Choice::None
    }

    /// Whether the answer must be calls.
    pub(super) fn forced(&self) -> bool {
        matches!(self.choice, Choice::Required | Choice::Named(_))
    }

    /// What holds a forced call to its schema: one object, or a list of them if several are allowed.
    pub(super) fn guide(&self) -> Option<GuideSpec> {
        let wanted = |tool: &&Tool| match &self.choice {
            Choice::Named(name) => tool.name == *name,
            choice => *choice == Choice::Required,
        };
        let calls: Vec<Value> = self.list.iter().filter(wanted).map(Tool::call_schema).collect();
        match calls.as_slice() {
            [] => None,
            [one] => Some(GuideSpec::JsonSchema(one.clone())),
            _ => Some(GuideSpec::JsonSchema(json!({ "anyOf": calls }))),
        }
    }

    /// What a model is told whose template has no place for tools.
    pub(super) fn instructions(&self) -> String {
        let list: Vec<String> = self.list.iter().map(|tool| tool.value.to_string()).collect();
        format!(
            "You can call functions. These are their descriptions in JSON:\n<tools>\n{}\n</tools>\n\
             To call one, answer with a JSON object of its name and its arguments within these tags, and nothing else:\n\
             <tool_call>\n{{\"name\": \"the name\", \"arguments\": {{}}}}\n</tool_call>",
            list.join("\n")
        )
    }
}

impl Tool {
    fn of(at: usize, tool: Value) -> Result<Self> {
        let path = format!("tools[{at}]");
        let value = tool.clone();
        let mut tool = Fields::of(&path, tool)?;
        match tool.needed("type")? {
            Value::String(kind) if kind == "function" => {}
            Value::String(kind) => {
                let text = format!("'{path}.type' is '{kind}', this server knows 'function' only.");
                return Err(unsupported(tool.path("type"), text));
            }
            other => return Err(wrong_type(&tool.path("type"), "a string", &other)),
        }
        let mut function = Fields::of(&format!("{path}.function"), tool.needed("function")?)?;
        tool.finish()?;
        let name = match function.needed("name")? {
            Value::String(name) => name,
            other => return Err(wrong_type(&function.path("name"), "a string", &other)),
        };
        let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(fit) {
            let path = function.path("name");
            let text =
                format!("Invalid '{path}': '{name}' must be 1 to 64 letters, digits, '_', '-' and '.'.");
            return Err(OpenAiError::invalid(path, text).with_code("invalid_value"));
        }
        function.text("description")?;
        // A forced call is always held to its schema.
        function.boolean("strict")?;
        let parameters = match function.take("parameters") {
            None => json!({ "type": "object", "properties": {} }),
            Some(schema @ Value::Object(_)) => schema,
            Some(other) => {
                return Err(wrong_type(&function.path("parameters"), "a JSON schema, an object", &other));
            }
        };
        function.finish()?;
        Ok(Self { name, value, parameters })
    }

    fn call_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": { "name": { "const": self.name }, "arguments": self.parameters },
            "required": ["name", "arguments"],
            "additionalProperties": false,
        })
    }
}

fn read_choice(choice: Value, tools: &[Tool]) -> Result<Choice> {
    let named = match choice {
        Value::String(word) => match word.as_str() {
            "none" => return Ok(Choice::None),
            "auto" => return Ok(Choice::Auto),
            "required" => return Ok(Choice::Required),
            _ => {
                let text = format!(
                    "Invalid 'tool_choice': '{word}'. Supported values are: 'none', 'auto', 'required', or a tool."
                );
                return Err(OpenAiError::invalid("tool_choice", text).with_code("invalid_value"));
            }
        },
        named @ Value::Object(_) => named,
        other => return Err(wrong_type("tool_choice", "a word or a tool", &other)),
    };
    let mut fields = Fields::of("tool_choice", named)?;
    fields.only("type", &[json!("function")], "a choice is a function")?;
    let mut function = Fields::of("tool_choice.function", fields.needed("function")?)?;
    fields.finish()?;
    let name = function.needed("name")?;
    function.finish()?;
    match name.as_str().filter(|name| tools.iter().any(|tool| tool.name == **name)) {
        Some(name) => Ok(Choice::Named(name.to_owned())),
        None => {
            let text = format!("Invalid 'tool_choice.function.name': {name} is not among 'tools'.");
            Err(OpenAiError::invalid("tool_choice.function.name", text).with_code("invalid_value"))
        }
    }
}
