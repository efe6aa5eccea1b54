//! `embeddings`: texts to vectors.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use trireme_sdk::{OpenAiCall, OpenAiError};

use super::Result;
use super::completion::{Text, texts};
use super::fields::Fields;
use crate::tokenizer::Tokenizer;

/// The endpoints that [`EmbedDoor`](super::EmbedDoor) answers.
pub const EMBED_ENDPOINTS: &[&str] = &["embeddings"];

/// Texts of one call, as in OpenAI's API.
const MAX_TEXTS: usize = 2048;

/// What is needed to read calls and to write their answers.
pub struct EmbedDoor {
    pub model: String,
    pub tokenizer: Tokenizer,
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Tokens that a text may have.
    pub max_tokens: usize,
    /// Numbers in a vector.
    pub dimensions: usize,
}

/// A call, checked.
#[derive(Debug)]
pub struct EmbedAsk {
    /// The tokens of each text, special tokens included.
    pub texts: Vec<Vec<u32>>,
    base64: bool,
}

impl EmbedDoor {
    /// Reads a call.
    ///
    /// # Errors
    /// 400 with the field that is wrong.
    pub fn read(&self, call: &OpenAiCall<'_>) -> Result<EmbedAsk> {
        let mut fields = Fields::of("", super::door::parse(call.body)?)?;
        fields.noted(&["model", "user"]);
        let base64 = match fields.text("encoding_format")?.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                let text = format!(
                    "Invalid 'encoding_format': '{other}'. Supported values are: 'float' and 'base64'."
                );
                return Err(OpenAiError::invalid("encoding_format", text).with_code("invalid_value"));
            }
        };
        let own = self.dimensions;
        let why = format!("the vectors of this model have {own} dimensions");
        fields.only("dimensions", &[json!(own)], &why)?;
        let texts = texts(&mut fields, "input", self.vocab_size, MAX_TEXTS)?;
        fields.finish()?;
        let texts =
            texts.into_iter().enumerate().map(|(at, text)| self.tokens(at, text)).collect::<Result<_>>()?;
        Ok(EmbedAsk { texts, base64 })
    }

    fn tokens(&self, at: usize, text: Text) -> Result<Vec<u32>> {
        let refuse = |what: String| OpenAiError::invalid("input", format!("Invalid 'input[{at}]': {what}."));
        let ids = match text {
            Text::Text(text) if text.is_empty() => return Err(refuse("the text is empty".to_owned())),
            Text::Text(text) if self.tokenizer.exceeds(&text, self.max_tokens) => {
                let most = self.max_tokens;
                let text = format!(
                    "This model's maximum context length is {most} tokens, however 'input[{at}]' has more."
                );
                return Err(OpenAiError::invalid("input", text).with_code("context_length_exceeded"));
            }
            Text::Text(text) => self.tokenizer.encode(&text, true).map_err(|e| refuse(e.to_string()))?,
            Text::Ids(ids) => ids,
        };
        match ids.len() {
            0 => Err(refuse("it has no tokens".to_owned())),
            n if n > self.max_tokens => {
                let most = self.max_tokens;
                let text = format!(
                    "This model's maximum context length is {most} tokens, however 'input[{at}]' has {n}."
                );
                Err(OpenAiError::invalid("input", text).with_code("context_length_exceeded"))
            }
            _ => Ok(ids),
        }
    }

    /// The answer: one vector for each text.
    pub fn object(&self, ask: &EmbedAsk, rows: &[Vec<f32>]) -> String {
        let vector = |row: &Vec<f32>| match ask.base64 {
            // Written as what they are: by way of a JSON value each would get the digits of a double.
            false => serde_json::to_string(row).unwrap_or_else(|_| "[]".to_owned()),
            true => {
                let bytes: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
                format!("\"{}\"", STANDARD.encode(bytes))
            }
        };
        let data: Vec<String> = rows
            .iter()
            .enumerate()
            .map(|(index, row)| {
                format!(r#"{{"object":"embedding","index":{index},"embedding":{}}}"#, vector(row))
            })
            .collect();
        let tokens: usize = ask.texts.iter().map(Vec::len).sum();
        format!(
            r#"{{"object":"list","data":[{}],"model":{},"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}"#,
            data.join(","),
            Value::from(self.model.as_str()),
        )
    }
}
