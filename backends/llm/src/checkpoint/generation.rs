//! `generation_config.json`: how the model's makers would have its tokens chosen.

use serde_json::Value;

use super::error::{CheckpointError, CheckpointErrorKind as Kind};
use super::files::Files;
use super::json::Object;
use crate::openai::Sampling;

const FILE: &str = "generation_config.json";

/// What of it an engine uses besides the ids that end a text. `do_sample` is passed over: a request that says no
/// temperature gets the file's, whatever its makers' own tools do by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    pub temperature: Option<f32>,
    pub top_k: Option<u32>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    /// Tokens of an answer.
    pub max_new_tokens: Option<usize>,
}

impl GenerationDefaults {
    pub(super) fn of_folder(files: &Files) -> Result<Self, CheckpointError> {
        let Some(object) = Object::read(files, FILE)? else { return Ok(Self::default()) };
        Self::read(&object).map_err(|kind| kind.at(&files.path(FILE)))
    }

    fn read(object: &Object) -> Result<Self, Kind> {
        let wrong = |key: &str, value: &Value, must: &str| {
            Kind::Malformed(format!("'{key}' is {value}, it must be {must}"))
        };
        let number = |key: &str, low: f64, high: f64| -> Result<Option<f32>, Kind> {
            let Some(value) = object.get(key) else { return Ok(None) };
            let fits = value.as_f64().filter(|x| (low..=high).contains(x));
            fits.map(|x| Some(x as f32))
                .ok_or_else(|| wrong(key, value, &format!("a number from {low} to {high}")))
        };
        let count = |key: &str| -> Result<Option<u32>, Kind> {
            let Some(value) = object.get(key) else { return Ok(None) };
            let fits = value.as_u64().and_then(|n| u32::try_from(n).ok());
            fits.map(Some).ok_or_else(|| wrong(key, value, "a whole number of at least 0"))
        };
        Ok(Self {
            temperature: number("temperature", 0.0, 100.0)?,
            top_k: count("top_k")?,
            top_p: number("top_p", 0.0, 1.0)?,
            min_p: number("min_p", 0.0, 1.0)?,
            repetition_penalty: number("repetition_penalty", 0.01, 100.0)?,
            max_new_tokens: count("max_new_tokens")?.filter(|n| *n > 0).map(|n| n as usize),
        })
    }

    /// How tokens are chosen where a call of OpenAI's API does not say.
    pub fn sampling(&self) -> Sampling {
        let plain = Sampling::default();
        Sampling {
            temperature: self.temperature.unwrap_or(plain.temperature),
            top_k: self.top_k.unwrap_or(plain.top_k),
            top_p: self.top_p.unwrap_or(plain.top_p),
            min_p: self.min_p.unwrap_or(plain.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(plain.repetition_penalty),
            ..plain
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<GenerationDefaults, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        GenerationDefaults::of_folder(&Files::Folder(dir.path().to_path_buf()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_said_becomes_the_default() {
        let read_one =
            read(r#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "max_new_tokens": 9}"#).unwrap();
        let sampling = read_one.sampling();
        assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (0.6, 20, 1.0));
        assert_eq!(read_one.max_new_tokens, Some(9));
        assert_eq!(read("{}").unwrap().sampling(), Sampling::default());
    }

    #[test]
    fn nonsense_is_named() {
        let error = read(r#"{"top_p": 3}"#).unwrap_err();
        assert!(
            error.contains(FILE) && error.contains("'top_p' is 3, it must be a number from 0 to 1"),
            "{error}"
        );
    }
}
