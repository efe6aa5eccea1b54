//! `response_format`.

use serde_json::{Value, json};
use trireme_sdk::OpenAiError;

use super::fields::{Fields, wrong_type};
use super::tools::function_name;
use super::{GuideSpec, Result};

/// Takes the field; `None` is any text.
pub(super) fn take(fields: &mut Fields) -> Result<Option<GuideSpec>> {
    let Some(format) = fields.take("response_format") else { return Ok(None) };
    let mut format = Fields::of("response_format", format)?;
    let kind = match format.needed("type")? {
        Value::String(kind) => kind,
        other => return Err(wrong_type("response_format.type", "a string", &other)),
    };
    let guide = match kind.as_str() {
        "text" => None,
        "json_object" => Some(GuideSpec::JsonObject),
        "json_schema" => Some(GuideSpec::JsonSchema(schema(format.needed("json_schema")?)?)),
        _ => {
            let text = format!(
                "Invalid 'response_format.type': '{kind}'. Supported values are: 'text', 'json_object', and 'json_schema'."
            );
            return Err(OpenAiError::invalid("response_format.type", text).with_code("invalid_value"));
        }
    };
    format.finish()?;
    Ok(guide)
}

fn schema(value: Value) -> Result<Value> {
    let mut fields = Fields::of("response_format.json_schema", value)?;
    let name = fields.needed("name")?;
    function_name(&fields.path("name"), &name)?;
    fields.text("description")?;
    // The schema is always kept.
    fields.boolean("strict")?;
    let schema = fields.take("schema").unwrap_or_else(|| json!({ "type": "object" }));
    fields.finish()?;
    match schema {
        schema @ (Value::Object(_) | Value::Bool(_)) => Ok(schema),
        other => Err(wrong_type("response_format.json_schema.schema", "a JSON schema, an object", &other)),
    }
}
