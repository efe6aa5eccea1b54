//! JSON files beside the weights, read with errors that name file and key.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use super::error::{CheckpointError, CheckpointErrorKind as Kind};
use super::files::Files;
use super::limits::{MAX_JSON_BYTES, positive};
use super::mapping::not_a_pointer;

/// Bytes of a small file, `None` if there is no such file.
pub(super) fn read_limited(path: &Path) -> Result<Option<Vec<u8>>, CheckpointError> {
    let file = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| Kind::from(e).at(path))?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Kind::from(e).at(path))?;
    if bytes.len() as u64 > MAX_JSON_BYTES {
        return Err(
            Kind::Malformed(format!("it is larger than the limit of {MAX_JSON_BYTES} bytes")).at(path)
        );
    }
    not_a_pointer(&bytes).map_err(|e| Kind::from(e).at(path))?;
    Ok(Some(bytes))
}

/// The parsed file, `None` if there is no such file.
pub(super) fn read_value(files: &Files, name: &str) -> Result<Option<Value>, CheckpointError> {
    let Some(bytes) = files.read(name)? else { return Ok(None) };
    let at = |e: serde_json::Error| Kind::Malformed(e.to_string()).at(&files.path(name));
    Ok(Some(serde_json::from_slice(&bytes).map_err(at)?))
}

/// A JSON object from a file.
#[derive(Default)]
pub(super) struct Object {
    file: String,
    map: Map<String, Value>,
}

impl Object {
    /// The object in the file `name`, `None` if there is no such file.
    pub(super) fn read(files: &Files, name: &str) -> Result<Option<Self>, CheckpointError> {
        let file = name.rsplit('/').next().unwrap_or_default().to_owned();
        match read_value(files, name)? {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self { file, map })),
            Some(_) => Err(Kind::malformed("it is not a JSON object").at(&files.path(name))),
        }
    }

    /// The value of `key`; `null` counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        what: &str,
        f: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Kind> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => f(v).map(Some).ok_or_else(|| {
                Kind::Malformed(format!("'{key}' in {} is {}, it must be {what}", self.file, brief(v)))
            }),
        }
    }

    /// A count of at least 1.
    pub(super) fn size(&self, key: &str) -> Result<usize, Kind> {
        self.optional_size(key)?
            .ok_or_else(|| Kind::Malformed(format!("'{key}' is missing in {}", self.file)))
    }

    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>, Kind> {
        self.typed(key, "a whole number", Value::as_u64)?.map(|n| positive(key, n)).transpose()
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, Kind> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>, Kind> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn str(&self, key: &str) -> Result<Option<&str>, Kind> {
        self.typed(key, "a string", Value::as_str)
    }

    /// Refuses a value of `key` that is none of `allowed`; absent is fine.
    pub(super) fn only(&self, key: &str, allowed: &[&str]) -> Result<(), Kind> {
        match self.str(key)? {
            Some(v) if !allowed.contains(&v) => Err(Kind::Unsupported(format!("{key} '{v}'"))),
            _ => Ok(()),
        }
    }

    /// The kind of rotary scaling that the object `key` asks for, `None` if it is absent or the default.
    pub(super) fn rope_type(&self, key: &str) -> Result<Option<&str>, Kind> {
        let Some(scaling) = self.typed(key, "an object", Value::as_object)? else { return Ok(None) };
        let kind = ["rope_type", "type"].iter().find_map(|k| scaling.get(*k)?.as_str());
        match kind {
            Some("default") => Ok(None),
            Some(other) => Ok(Some(other)),
            None if scaling.contains_key("factor") => Ok(Some("linear")),
            None => Ok(None),
        }
    }

    /// A number of `rope_parameters`.
    pub(super) fn rope_parameter(&self, key: &str) -> Result<Option<f64>, Kind> {
        Ok(self.typed("rope_parameters", "an object", Value::as_object)?.and_then(|p| p.get(key)?.as_f64()))
    }
}

/// A value short enough for an error line.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}
