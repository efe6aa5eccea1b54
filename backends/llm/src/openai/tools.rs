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
    /// A schema that cannot be held as a whole is an error.
    strict: bool,
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
    /// Those that may be called; all if `None`.
    allowed: Option<Vec<String>>,
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
        let (choice, allowed) =
            choice.map_or(Ok((Choice::Auto, None)), |choice| read_choice(choice, &list))?;
        Ok(Self { list, choice, allowed, parallel: parallel.unwrap_or(true) })
    }

    /// The tools that an answer may call.
    pub(super) fn callable(&self) -> impl Iterator<Item = &Tool> {
        let allowed = |tool: &&Tool| self.allowed.as_ref().is_none_or(|names| names.contains(&tool.name));
        self.list.iter().filter(allowed)
    }

    /// Whether the model may call tools at all.
    pub(super) fn usable(&self) -> bool {
        self.choice != Choice::None
    }

    /// Whether the answer must be calls.
    pub(super) fn forced(&self) -> bool {
        matches!(self.choice, Choice::Required | Choice::Named(_))
    }

    /// What holds a forced call to its schema: one object.
    pub(super) fn guide(&self) -> Option<GuideSpec> {
        let wanted = |tool: &&Tool| match &self.choice {
            Choice::Named(name) => tool.name == *name,
            choice => *choice == Choice::Required,
        };
        let tools: Vec<&Tool> = self.callable().filter(wanted).collect();
        let schema = match tools.as_slice() {
            [] => return None,
            [one] => one.call_schema("#"),
            several => {
                let calls = several.iter().enumerate();
                let calls: Vec<Value> =
                    calls.map(|(at, tool)| tool.call_schema(&format!("#/anyOf/{at}"))).collect();
                json!({ "anyOf": calls })
            }
        };
        Some(match tools.iter().all(|tool| tool.strict) {
            true => GuideSpec::JsonSchema(schema),
            false => GuideSpec::LooseJsonSchema(schema),
        })
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
        let name = function_name(&function.path("name"), &function.needed("name")?)?;
        function.text("description")?;
        let strict = function.boolean("strict")?.unwrap_or(false);
        let parameters = match function.take("parameters") {
            None => json!({ "type": "object", "properties": {} }),
            Some(Value::Object(mut schema)) => {
                let kind = schema.entry("type").or_insert_with(|| "object".into());
                if kind != "object" {
                    let path = function.path("parameters");
                    let text = format!("Invalid '{path}': its 'type' must be \"object\", it is {kind}.");
                    return Err(OpenAiError::invalid(path, text).with_code("invalid_function_parameters"));
                }
                Value::Object(schema)
            }
            Some(other) => {
                return Err(wrong_type(&function.path("parameters"), "a JSON schema, an object", &other));
            }
        };
        function.finish()?;
        Ok(Self { name, value, parameters, strict })
    }

    /// The schema of a call, which will stand at `at` of a larger one.
    fn call_schema(&self, at: &str) -> Value {
        json!({
            "type": "object",
            "properties": {
                "name": { "const": self.name },
                "arguments": moved(&self.parameters, &format!("{at}/properties/arguments")),
            },
            "required": ["name", "arguments"],
            "additionalProperties": false,
        })
    }
}

/// A schema whose own parts are at `at` from now on: what refers to them follows.
fn moved(schema: &Value, at: &str) -> Value {
    let all = |list: &[Value]| Value::Array(list.iter().map(|value| moved(value, at)).collect());
    let Value::Object(map) = schema else {
        return schema.as_array().map_or_else(|| schema.clone(), |list| all(list));
    };
    let part = |(key, value): (&String, &Value)| {
        let value = match (key.as_str(), value) {
            ("$ref", Value::String(to)) => match to.strip_prefix('#') {
                Some(path) if path.is_empty() || path.starts_with('/') => {
                    format!("{at}{}", path.trim_end_matches('/')).into()
                }
                _ => value.clone(),
            },
            // Values, not schemas.
            ("const" | "enum" | "default" | "examples", _) => value.clone(),
            // Schemas by names, and a name may be any word.
            (
                "properties" | "patternProperties" | "dependentSchemas" | "$defs" | "definitions",
                Value::Object(named),
            ) => {
                let named = named.iter().map(|(name, value)| (name.clone(), moved(value, at)));
                Value::Object(named.collect())
            }
            _ => moved(value, at),
        };
        (key.clone(), value)
    };
    Value::Object(map.iter().map(part).collect())
}

/// A name of a function or a form.
pub(super) fn function_name(path: &str, name: &Value) -> Result<String> {
    let Value::String(name) = name else { return Err(wrong_type(path, "a string", name)) };
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(fit) {
        let text = format!("Invalid '{path}': '{name}' must be 1 to 64 letters, digits, '_', '-' and '.'.");
        return Err(OpenAiError::invalid(path, text).with_code("invalid_value"));
    }
    Ok(name.clone())
}

/// The choice, and the tools that it is among if not all.
fn read_choice(choice: Value, tools: &[Tool]) -> Result<(Choice, Option<Vec<String>>)> {
    let named = match choice {
        Value::String(word) => match word.as_str() {
            "none" => return Ok((Choice::None, None)),
            "auto" => return Ok((Choice::Auto, None)),
            "required" => return Ok((Choice::Required, None)),
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
    if named["type"] == "allowed_tools" {
        return allowed_tools(named, tools);
    }
    named_tool("tool_choice", named, tools).map(|name| (Choice::Named(name), None))
}

/// `{"type": "allowed_tools", "allowed_tools": {"mode", "tools"}}`: the model is told of all tools and calls only these.
fn allowed_tools(choice: Value, tools: &[Tool]) -> Result<(Choice, Option<Vec<String>>)> {
    let mut fields = Fields::of("tool_choice", choice)?;
    fields.needed("type")?;
    let mut allowed = Fields::of("tool_choice.allowed_tools", fields.needed("allowed_tools")?)?;
    fields.finish()?;
    let choice = match allowed.text("mode")?.as_deref() {
        Some("auto") => Choice::Auto,
        Some("required") => Choice::Required,
        other => {
            let path = allowed.path("mode");
            let is = other.unwrap_or("missing");
            let text = format!("Invalid '{path}': '{is}'. Supported values are: 'auto' and 'required'.");
            return Err(OpenAiError::invalid(path, text).with_code("invalid_value"));
        }
    };
    let path = allowed.path("tools");
    let list = allowed.list("tools")?.unwrap_or_default();
    allowed.finish()?;
    if list.is_empty() {
        let text = format!("Invalid '{path}': the list is empty.");
        return Err(OpenAiError::invalid(path, text).with_code("empty_array"));
    }
    let name = |(at, tool)| named_tool(&format!("{path}[{at}]"), tool, tools);
    let names = list.into_iter().enumerate().map(name).collect::<Result<Vec<_>>>()?;
    Ok((choice, Some(names)))
}

/// The name in `{"type": "function", "function": {"name"}}`, which is one of the tools'.
fn named_tool(at: &str, value: Value, tools: &[Tool]) -> Result<String> {
    let mut fields = Fields::of(at, value)?;
    fields.only("type", &[json!("function")], "a choice is a function, or 'allowed_tools'")?;
    let mut function = Fields::of(&format!("{at}.function"), fields.needed("function")?)?;
    fields.finish()?;
    let (path, name) = (function.path("name"), function.needed("name")?);
    function.finish()?;
    match name.as_str().filter(|name| tools.iter().any(|tool| tool.name == **name)) {
        Some(name) => Ok(name.to_owned()),
        None => {
            let text = format!("Invalid '{path}': {name} is not among 'tools'.");
            Err(OpenAiError::invalid(path, text).with_code("invalid_value"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn references_follow_their_schema() {
        let schema = json!({
            "properties": {
                "enum": { "$ref": "#/$defs/a" }, "b": { "items": [{ "$ref": "#" }] }, "$ref": { "const": { "$ref": "#/x" } },
            },
            "$defs": { "a": { "anyOf": [{ "$ref": "#/$defs/a" }, { "$ref": "https://example.com/#/x" }] } },
        });
        let expected = json!({
            "properties": {
                "enum": { "$ref": "#/p/$defs/a" }, "b": { "items": [{ "$ref": "#/p" }] }, "$ref": { "const": { "$ref": "#/x" } },
            },
            "$defs": { "a": { "anyOf": [{ "$ref": "#/p/$defs/a" }, { "$ref": "https://example.com/#/x" }] } },
        });
        assert_eq!(moved(&schema, "#/p"), expected);
    }
}
