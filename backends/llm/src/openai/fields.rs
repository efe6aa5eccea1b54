//! Reads a JSON object field by field. What is wrong names its field, and what nobody has taken is unknown.

use serde_json::{Map, Value};
use trireme_sdk::OpenAiError;

use super::{Result, unsupported};

/// The fields of an object that were not taken yet. `null` is as good as absent.
pub(super) struct Fields {
    /// The path of the object with a dot behind it: `messages[0].`, or empty.
    at: String,
    rest: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    /// `at` is the object's path.
    pub(super) fn of(at: &str, value: Value) -> Result<Self> {
        let Value::Object(rest) = value else {
            return Err(wrong_type(at, "an object", &value));
        };
        let at = if at.is_empty() { String::new() } else { format!("{at}.") };
        Ok(Self { at, rest, known: Vec::new() })
    }

    /// A field's path.
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.at)
    }

    pub(super) fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.rest.remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn needed(&mut self, name: &'static str) -> Result<Value> {
        let missing = || {
            OpenAiError::invalid(self.path(name), format!("Missing required parameter: '{}{name}'.", self.at))
        };
        let missing = missing();
        self.take(name).ok_or_else(|| missing.with_code("missing_required_parameter"))
    }

    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>> {
        self.typed(name, "a string", |value| match value {
            Value::String(text) => Ok(text),
            other => Err(other),
        })
    }

    pub(super) fn boolean(&mut self, name: &'static str) -> Result<Option<bool>> {
        self.typed(name, "true or false", |value| value.as_bool().ok_or(value))
    }

    pub(super) fn list(&mut self, name: &'static str) -> Result<Option<Vec<Value>>> {
        self.typed(name, "a list", |value| match value {
            Value::Array(list) => Ok(list),
            other => Err(other),
        })
    }

    /// A number from `low` to `high`.
    pub(super) fn number(&mut self, name: &'static str, low: f64, high: f64) -> Result<Option<f32>> {
        let Some(number) = self.typed(name, "a number", |value| value.as_f64().ok_or(value))? else {
            return Ok(None);
        };
        if (low..=high).contains(&number) {
            return Ok(Some(number as f32));
        }
        Err(self.out_of_range(name, &number.to_string(), &format!("from {low} to {high}")))
    }

    /// A whole number from `low` to `high`.
    pub(super) fn integer(&mut self, name: &'static str, low: u64, high: u64) -> Result<Option<u64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_u64() {
            Some(number) if (low..=high).contains(&number) => Ok(Some(number)),
            _ if value.as_i64().is_some() || value.is_u64() => {
                let range = if high == u64::MAX {
                    format!("at least {low}")
                } else {
                    format!("from {low} to {high}")
                };
                Err(self.out_of_range(name, &value.to_string(), &range))
            }
            _ => Err(wrong_type(&self.path(name), "a whole number", &value)),
        }
    }

    fn typed<T>(
        &mut self,
        name: &'static str,
        what: &str,
        convert: impl FnOnce(Value) -> std::result::Result<T, Value>,
    ) -> Result<Option<T>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        convert(value).map(Some).map_err(|value| wrong_type(&self.path(name), what, &value))
    }

    pub(super) fn out_of_range(&self, name: &str, is: &str, range: &str) -> OpenAiError {
        let path = self.path(name);
        let text = format!("Invalid '{path}': it is {is}, it must be {range}.");
        OpenAiError::invalid(path, text).with_code("invalid_value")
    }

    /// A field that is known and works with these values only, which change nothing.
    pub(super) fn only(&mut self, name: &'static str, fine: &[Value], why: &str) -> Result<()> {
        match self.take(name) {
            Some(value) if !fine.contains(&value) => {
                let path = self.path(name);
                Err(unsupported(path.clone(), format!("'{path}' is not supported: {why}.")))
            }
            _ => Ok(()),
        }
    }

    /// Fields that are for the caller's own books.
    pub(super) fn noted(&mut self, names: &[&'static str]) {
        names.iter().for_each(|name| drop(self.take(name)));
    }

    /// # Errors
    /// A field that nobody has taken.
    pub(super) fn finish(self) -> Result<()> {
        let Some(name) = self.rest.keys().next() else { return Ok(()) };
        let scored = self.known.iter().map(|known| (strsim::jaro_winkler(name, known), known));
        let near = scored.filter(|(score, _)| *score > 0.85).max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = near.map(|(_, known)| format!(" Did you mean '{}{known}'?", self.at)).unwrap_or_default();
        let path = self.path(name);
        let text = format!("Unknown parameter: '{path}'.{hint}");
        Err(OpenAiError::invalid(path, text).with_code("unknown_parameter"))
    }
}

/// A value of the wrong type.
pub(super) fn wrong_type(path: &str, expected: &str, value: &Value) -> OpenAiError {
    let got = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    let text = format!("Invalid type for '{path}': expected {expected}, but got {got} instead.");
    OpenAiError::invalid(path, text).with_code("invalid_type")
}
