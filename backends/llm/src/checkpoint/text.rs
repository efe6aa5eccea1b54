//! The tokenizer and the chat template of a checkpoint.

use serde_json::Value;

use super::config::Architecture;
use super::error::{CheckpointError, CheckpointErrorKind as Kind};
use super::files::Files;
use super::generation::GenerationDefaults;
use super::gguf::Metadata;
use super::json::Object;
use super::open::{Checkpoint, named_as_given};
use crate::tokenizer::{self, Tokenizer};

/// A chat template as it lies on disk, with the tokens that it may name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatTemplateSource {
    /// Jinja text.
    pub text: String,
    pub bos_token: Option<String>,
    pub eos_token: Option<String>,
}

/// What is known about text: read at open, except for the tokenizer, which is large and not always wanted.
#[derive(Default)]
pub(super) struct TextFiles {
    origin: Origin,
    template: Option<ChatTemplateSource>,
    generation: GenerationDefaults,
}

enum Origin {
    /// There is no tokenizer: each byte is a token, among so many and besides those that end a text.
    Bytes(usize, Vec<u32>),
    Folder(Files),
    Gguf(Box<Metadata>),
}

impl Default for Origin {
    fn default() -> Self {
        Self::Bytes(0, Vec::new())
    }
}

impl TextFiles {
    /// The template is `chat_template.jinja`, else `chat_template` in `tokenizer_config.json`.
    pub(super) fn of_folder(files: &Files) -> Result<Self, CheckpointError> {
        let path = files.path("tokenizer_config.json");
        let config = Object::read(files, "tokenizer_config.json")?.unwrap_or_default();
        let file = files.path("chat_template.jinja");
        let text = match files.read("chat_template.jinja")? {
            Some(bytes) => {
                Some(String::from_utf8(bytes).map_err(|_| Kind::malformed("it is not UTF-8").at(&file))?)
            }
            None => default_template(config.get("chat_template")).map_err(|k| k.at(&path))?,
        };
        let template = text.map(|text| ChatTemplateSource {
            text,
            bos_token: token_text(config.get("bos_token")),
            eos_token: token_text(config.get("eos_token")),
        });
        let generation = GenerationDefaults::of_folder(files)?;
        Ok(Self { origin: Origin::Folder(files.clone()), template, generation })
    }

    /// These, or a tokenizer of bytes where the folder has none.
    pub(super) fn or_bytes(mut self, architecture: &Architecture) -> Result<Self, CheckpointError> {
        let Origin::Folder(files) = &self.origin else { return Ok(self) };
        if files.read("tokenizer.json")?.is_none() {
            let (size, special) = match architecture {
                Architecture::Decoder(config) => (config.vocab_size, config.eos_token_ids.clone()),
                Architecture::Bert(config) => (config.vocab_size, Vec::new()),
            };
            self.origin = Origin::Bytes(size, special);
        }
        Ok(self)
    }

    pub(super) fn of_gguf(meta: Metadata) -> Result<Self, Kind> {
        let template = match meta.optional_str("tokenizer.chat_template")? {
            None => None,
            Some(text) => {
                let token = |key: &str| -> Result<Option<String>, Kind> {
                    let Some(id) = meta.optional_id(&format!("tokenizer.ggml.{key}"))? else {
                        return Ok(None);
                    };
                    Ok(meta.strings("tokenizer.ggml.tokens")?.get(id as usize).cloned())
                };
                let (bos_token, eos_token) = (token("bos_token_id")?, token("eos_token_id")?);
                Some(ChatTemplateSource { text: text.to_owned(), bos_token, eos_token })
            }
        };
        let generation = GenerationDefaults::default();
        Ok(Self { origin: Origin::Gguf(Box::new(meta)), template, generation })
    }
}

impl Checkpoint {
    /// The tokenizer: `tokenizer.json`, or built from the metadata of a GGUF file. Takes tens of milliseconds.
    pub fn tokenizer(&self) -> Result<Tokenizer, CheckpointError> {
        self.read_tokenizer().map_err(|error| named_as_given(error, &self.source))
    }

    fn read_tokenizer(&self) -> Result<Tokenizer, CheckpointError> {
        match &self.text.origin {
            Origin::Bytes(size, special) => tokenizer::of_bytes(*size, special)
                .map_err(|error| Kind::Tokenizer(error.to_string()).at(&self.source)),
            Origin::Gguf(meta) => {
                tokenizer::from_gguf(meta).map_err(|e| Kind::Tokenizer(e.to_string()).at(&self.source))
            }
            Origin::Folder(files) => {
                let path = files.path("tokenizer.json");
                let missing = || {
                    let text = match files.path("tokenizer.model").is_file() {
                        true => {
                            "is missing; tokenizer.model alone is not read: write tokenizer.json with save_pretrained of transformers' AutoTokenizer"
                        }
                        false => "is missing; the folder has no tokenizer",
                    };
                    Kind::Tokenizer(text.into()).at(&path)
                };
                let bytes = files.read("tokenizer.json")?.ok_or_else(missing)?;
                Tokenizer::from_json(&bytes).map_err(|e| Kind::Tokenizer(e.to_string()).at(&path))
            }
        }
    }

    /// How tokens are chosen where nobody says; from `generation_config.json`.
    pub fn generation_defaults(&self) -> GenerationDefaults {
        self.text.generation
    }

    /// The chat template, if the model has one.
    pub fn chat_template(&self) -> Option<ChatTemplateSource> {
        self.text.template.clone()
    }
}

/// A template is a text, or a list of named ones of which `default` is for plain chat.
fn default_template(value: Option<&Value>) -> Result<Option<String>, Kind> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(list)) => {
            let default = list.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"));
            Ok(default.and_then(|t| t.get("template")?.as_str()).map(str::to_owned))
        }
        Some(_) => Err(Kind::malformed("'chat_template' is neither a text nor a list")),
    }
}

/// A token is a text, or an object with its text in `content`.
pub(super) fn token_text(value: Option<&Value>) -> Option<String> {
    let value = value?;
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}
