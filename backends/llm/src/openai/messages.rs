//! The messages of a conversation, checked and in the form that chat templates expect.

use serde_json::{Map, Value, json};
use trireme_sdk::OpenAiError;

use super::fields::{Fields, wrong_type};
use super::{Result, unsupported};

const ROLES: &[&str] = &["developer", "system", "user", "assistant", "tool"];

/// Reads `messages`.
pub(super) fn messages(value: Value) -> Result<Vec<Value>> {
    let Value::Array(list) = value else { return Err(wrong_type("messages", "a list of messages", &value)) };
    if list.is_empty() {
        let text = "Invalid 'messages': the list is empty, expected at least one message.";
        return Err(OpenAiError::invalid("messages", text).with_code("empty_array"));
    }
    list.into_iter().enumerate().map(|(at, value)| message(&format!("messages[{at}]"), value)).collect()
}

fn message(at: &str, value: Value) -> Result<Value> {
    let mut fields = Fields::of(at, value)?;
    let role = match fields.needed("role")? {
        Value::String(role) => role,
        other => return Err(wrong_type(&fields.path("role"), "a string", &other)),
    };
    if role == "function" {
        let text = format!("'{at}.role' is 'function', which is not supported: use 'tool'.");
        return Err(unsupported(fields.path("role"), text));
    }
    if !ROLES.contains(&role.as_str()) {
        let text = format!("Invalid '{at}.role': '{role}'. Supported values are: '{}'.", ROLES.join("', '"));
        return Err(OpenAiError::invalid(fields.path("role"), text).with_code("invalid_value"));
    }
    let mut out = Map::new();
    // Templates know the older name only.
    out.insert("role".to_owned(), if role == "developer" { "system" } else { role.as_str() }.into());
    let calls = if role == "assistant" { tool_calls(&mut fields)? } else { None };
    let content = match fields.take("content") {
        Some(content) => content_text(&fields.path("content"), content)?,
        // Only an assistant that calls tools may say nothing.
        None if calls.is_some() => String::new(),
        None => {
            let path = fields.path("content");
            let text = format!("Missing required parameter: '{path}'.");
            return Err(OpenAiError::invalid(path, text).with_code("missing_required_parameter"));
        }
    };
    out.insert("content".to_owned(), content.into());
    if let Some(calls) = calls {
        out.insert("tool_calls".to_owned(), calls);
    }
    if let Some(name) = fields.text("name")? {
        out.insert("name".to_owned(), name.into());
    }
    if role == "tool" {
        let id = fields.needed("tool_call_id")?;
        let Value::String(_) = id else {
            return Err(wrong_type(&fields.path("tool_call_id"), "a string", &id));
        };
        out.insert("tool_call_id".to_owned(), id);
    }
    if role == "assistant" {
        // What an answer of this API carries, so that it can be sent back as it is.
        for name in ["refusal", "annotations", "audio", "function_call"] {
            fields.only(name, &[json!([])], "it is not among what this server answers")?;
        }
    }
    fields.finish()?;
    Ok(Value::Object(out))
}

/// A text, or parts that are texts.
fn content_text(at: &str, content: Value) -> Result<String> {
    match content {
        Value::String(text) => Ok(text),
        Value::Array(parts) => {
            let part = |(number, part): (usize, Value)| {
                let at = format!("{at}[{number}]");
                let mut fields = Fields::of(&at, part)?;
                match fields.text("type")?.as_deref() {
                    Some("text") => {}
                    Some(other) => {
                        let text = format!("'{at}.type' is '{other}', this model reads 'text' only.");
                        return Err(unsupported(fields.path("type"), text));
                    }
                    None => fields.needed("type").map(drop)?,
                }
                match fields.needed("text")? {
                    Value::String(text) => fields.finish().map(|()| text),
                    other => Err(wrong_type(&fields.path("text"), "a string", &other)),
                }
            };
            parts.into_iter().enumerate().map(part).collect::<Result<Vec<_>>>().map(|parts| parts.concat())
        }
        other => Err(wrong_type(at, "a string or a list of parts", &other)),
    }
}

/// The calls that an assistant made. Templates want the arguments as the object that the text holds.
fn tool_calls(fields: &mut Fields) -> Result<Option<Value>> {
    let path = fields.path("tool_calls");
    let Some(list) = fields.list("tool_calls")?.filter(|list| !list.is_empty()) else { return Ok(None) };
    let call = |(number, call): (usize, Value)| {
        let at = format!("{path}[{number}]");
        let mut call = Fields::of(&at, call)?;
        let id = call.text("id")?.unwrap_or_default();
        call.only("type", &[json!("function")], "the only type is 'function'")?;
        call.noted(&["index"]);
        let mut function = Fields::of(&format!("{at}.function"), call.needed("function")?)?;
        let name = function.needed("name")?;
        let arguments = function.text("arguments")?.unwrap_or_default();
        let arguments = match serde_json::from_str::<Value>(&arguments) {
            Ok(value @ Value::Object(_)) => value,
            _ => Value::String(arguments),
        };
        function.finish()?;
        call.finish()?;
        Ok(json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } }))
    };
    let calls = list.into_iter().enumerate().map(call).collect::<Result<Vec<_>>>()?;
    Ok(Some(Value::Array(calls)))
}
