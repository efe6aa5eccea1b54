//! A line of the input as a call, and an answer as a line of the output: the forms of OpenAI's batches.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use trireme_http::OpenAiAnswer;

use super::input::{Line, MAX_LINE};

/// A call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) custom_id: String,
    /// `/v1/chat/completions` or what else the line says.
    pub(super) url: String,
    /// A JSON object, as it was written.
    pub(super) body: Bytes,
}

/// Why a line is no call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusable {
    /// If it can be made out.
    pub(super) custom_id: Option<String>,
    code: &'static str,
    message: String,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(default)]
    custom_id: Option<Value>,
    #[serde(default)]
    method: Option<Value>,
    #[serde(default)]
    url: Option<Value>,
    #[serde(default, borrow)]
    body: Option<&'a RawValue>,
}

impl Call {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it, by field; that is then its answer.
    pub(super) fn read(line: &Line) -> Result<Self, Unusable> {
        let number = line.number;
        let bad = |custom_id: Option<String>, code, what: String| Unusable {
            custom_id,
            code,
            message: format!("line {number}: {what}"),
        };
        let Some(text) = &line.text else {
            return Err(bad(None, "line_too_long", format!("it is longer than {MAX_LINE} bytes")));
        };
        if !text.starts_with(b"{") {
            return Err(bad(None, "invalid_json_line", "it is not a JSON object".to_owned()));
        }
        let wire: Wire<'_> = serde_json::from_slice(text)
            .map_err(|error| bad(None, "invalid_json_line", format!("it is not JSON: {error}")))?;
        let custom_id = match wire.custom_id {
            Some(Value::String(id)) => id,
            None => return Err(bad(None, "missing_custom_id", "'custom_id' is missing".to_owned())),
            Some(_) => return Err(bad(None, "invalid_custom_id", "'custom_id' must be a string".to_owned())),
        };
        let bad = |code, what: &str| bad(Some(custom_id.clone()), code, what.to_owned());
        match wire.method {
            Some(Value::String(method)) if method.eq_ignore_ascii_case("POST") => {}
            None => return Err(bad("invalid_method", "'method' is missing; it must be \"POST\"")),
            Some(_) => return Err(bad("invalid_method", "'method' must be \"POST\"")),
        }
        let url = match wire.url {
            Some(Value::String(url)) => url,
            None => return Err(bad("invalid_url", "'url' is missing, as \"/v1/chat/completions\"")),
            Some(_) => return Err(bad("invalid_url", "'url' must be a path, as \"/v1/chat/completions\"")),
        };
        let Some(body) = wire.body.map(RawValue::get).filter(|body| body.starts_with('{')) else {
            return Err(bad("invalid_body", "'body' must be the JSON object of the call"));
        };
        Ok(Self { custom_id, url, body: text.slice_ref(body.as_bytes()) })
    }
}

/// The line of the output for an answer.
pub(super) fn answered(number: u64, custom_id: &str, request_id: &str, answer: &OpenAiAnswer) -> String {
    // Breaks of lines are never inside of JSON's strings, so that a space says the same.
    let body = answer.body.replace(['\n', '\r'], " ");
    format!(
        "{{\"id\":\"batch_req_{number}\",\"custom_id\":{},\"response\":{{\"status_code\":{},\"request_id\":{},\"body\":{body}}},\"error\":null}}\n",
        Value::from(custom_id),
        answer.status,
        Value::from(request_id),
    )
}

/// The line of the output for a line that is no call.
pub(super) fn refused(number: u64, unusable: &Unusable) -> String {
    let Unusable { custom_id, code, message } = unusable;
    let error = json!({ "code": code, "message": message });
    let line = json!({ "id": format!("batch_req_{number}"), "custom_id": custom_id, "response": null, "error": error });
    format!("{line}\n")
}

/// What a line of the output answers.
///
/// # Errors
/// It is none of ours.
pub(super) fn answers(line: &[u8]) -> Result<Option<String>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Written {
        #[serde(rename = "id")]
        _id: String,
        custom_id: Option<String>,
        #[serde(rename = "response")]
        _response: Option<serde::de::IgnoredAny>,
        #[serde(rename = "error")]
        _error: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Written>(line).map(|written| written.custom_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Call, (Option<String>, &'static str)> {
        Call::read(&Line { number: 7, text: Some(Bytes::copy_from_slice(text.as_bytes())) }).map_err(|bad| {
            assert!(bad.message.starts_with("line 7: "), "{}", bad.message);
            (bad.custom_id, bad.code)
        })
    }

    #[test]
    fn a_body_is_handed_on_as_it_was_written() {
        let call = read(
            r#"{"custom_id": "a", "method": "POST", "url": "/v1/x", "body": {"z": 1.50,  "a": "\u00fc"}}"#,
        );
        let body = Bytes::from_static(br#"{"z": 1.50,  "a": "\u00fc"}"#);
        assert_eq!(call, Ok(Call { custom_id: "a".to_owned(), url: "/v1/x".to_owned(), body }));
    }

    #[test]
    fn what_is_wrong_has_its_word() {
        let a = || Some("a".to_owned());
        for (text, who, code) in [
            ("[]", None, "invalid_json_line"),
            ("{", None, "invalid_json_line"),
            ("{} {}", None, "invalid_json_line"),
            ("{}", None, "missing_custom_id"),
            (r#"{"custom_id": 1}"#, None, "invalid_custom_id"),
            (r#"{"custom_id": "a"}"#, a(), "invalid_method"),
            (r#"{"custom_id": "a", "method": "GET"}"#, a(), "invalid_method"),
            (r#"{"custom_id": "a", "method": "POST"}"#, a(), "invalid_url"),
            (r#"{"custom_id": "a", "method": "post", "url": 3}"#, a(), "invalid_url"),
            (r#"{"custom_id": "a", "method": "POST", "url": "/v1/x"}"#, a(), "invalid_body"),
            (r#"{"custom_id": "a", "method": "POST", "url": "/v1/x", "body": [1]}"#, a(), "invalid_body"),
        ] {
            assert_eq!(read(text), Err((who, code)), "{text}");
        }
        let long = Call::read(&Line { number: 1, text: None }).unwrap_err();
        assert_eq!(long.code, "line_too_long");
    }

    #[test]
    fn lines_of_the_output_are_one_line_each_and_are_known_again() {
        let answer = OpenAiAnswer { status: 200, body: "{\n  \"a\": \"\\n\"\r\n}".to_owned() };
        let line = answered(3, "x\"\n", "r-3", &answer);
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(answers(line.as_bytes()).unwrap(), Some("x\"\n".to_owned()));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["response"]["body"]["a"], "\n");
        let bad = Unusable { custom_id: None, code: "c", message: "m".to_owned() };
        assert_eq!(answers(refused(4, &bad).as_bytes()).unwrap(), None);
        assert!(answers(b"{\"custom_id\": \"a\"}").is_err(), "lines of the input are none of the output");
    }
}
