//! The two fields of a body that the server itself needs.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::answer::Failure;

/// What a body says to the server; all else is the model's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) model: String,
    pub(crate) stream: bool,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    model: Option<Value>,
    #[serde(default)]
    stream: Option<Value>,
}

/// Reads the head of a body.
///
/// # Errors
/// 400 for what is no JSON object, or has no usable `model` or `stream`.
pub(crate) fn head(body: &Bytes) -> Result<Head, Failure> {
    if body.is_empty() {
        return Err(Failure::invalid(
            "the request has no body: send a JSON object with Content-Type: application/json",
        ));
    }
    // A list would be taken for the fields one after the other.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Failure::invalid("the request body must be a JSON object"));
    }
    // serde_json bounds the depth itself.
    let wire: Wire = serde_json::from_slice(body).map_err(|error| {
        let text = format!("We could not parse the JSON body of your request: {error}");
        Failure::invalid(text)
    })?;
    let model = match wire.model {
        Some(Value::String(model)) if !model.is_empty() => model,
        None => return Err(Failure::invalid("you must provide a model parameter").about("model")),
        Some(_) => {
            return Err(Failure::invalid("'model' must be the name of a model, a string").about("model"));
        }
    };
    let stream = match wire.stream {
        None | Some(Value::Null) => false,
        Some(Value::Bool(stream)) => stream,
        Some(_) => return Err(Failure::invalid("'stream' must be true or false").about("stream")),
    };
    Ok(Head { model, stream })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(body: &str) -> Result<Head, (u16, String)> {
        head(&Bytes::copy_from_slice(body.as_bytes()))
            .map_err(|failure| (failure.status.as_u16(), failure.param.unwrap_or_default().to_owned()))
    }

    #[test]
    fn only_model_and_stream_are_looked_at() {
        let head = read(r#"{"model": "m", "messages": [{"x": [1, 2]}], "stream": true, "n": "?"}"#).unwrap();
        assert_eq!(head, Head { model: "m".to_owned(), stream: true });
        assert!(!read(r#"{"model": "m", "stream": null}"#).unwrap().stream);
    }

    #[test]
    fn what_is_wrong_names_its_field() {
        for (body, param) in [
            ("", ""),
            ("{", ""),
            ("[]", ""),
            ("\"x\"", ""),
            ("{}", "model"),
            (r#"{"model": 1}"#, "model"),
            (r#"{"model": ""}"#, "model"),
            (r#"{"model": "m", "stream": "yes"}"#, "stream"),
            (&"[".repeat(100_000), ""),
        ] {
            assert_eq!(read(body), Err((400, param.to_owned())), "{body:.40}");
        }
    }
}
