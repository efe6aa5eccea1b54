//! What is known about a model's texts without its weights.

use std::path::Path;

use super::config::Architecture;
use super::error::{CheckpointError, CheckpointErrorKind as Kind};
use super::files::Files;
use super::hf::HfFolder;
use super::json::Object;
use super::open::Checkpoint;
use super::text::token_text;
use crate::tokenizer::Tokenizer;

/// A tokenizer, and which of its tokens end and pad a text.
#[derive(Clone)]
pub struct Vocabulary {
    pub tokenizer: Tokenizer,
    /// Rows of the model's vocabulary where a configuration says, which may be more than the tokenizer has tokens.
    pub size: usize,
    /// All ids that end a text.
    pub eos_ids: Vec<u32>,
    pub pad_id: Option<u32>,
}

impl Vocabulary {
    /// Of a folder with a `tokenizer.json`, which needs no weights, or of anything that [`Checkpoint::open`] takes.
    ///
    /// # Errors
    /// There is no tokenizer, or a file is not as it must be; the error names the file.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let files = Files::Folder(path.to_path_buf());
        if path.is_dir()
            && path.join("tokenizer.json").is_file()
            && !path.join(crate::plan::FILE_NAME).is_file()
        {
            return Self::of_folder(&files);
        }
        let checkpoint = Checkpoint::open(path)?;
        let tokenizer = checkpoint.tokenizer()?;
        let (size, eos_ids, pad_id) = match &checkpoint.architecture {
            Architecture::Decoder(config) => {
                (config.vocab_size, config.eos_token_ids.clone(), config.pad_token_id)
            }
            Architecture::Bert(_) => (tokenizer.vocab_size(), Vec::new(), None),
        };
        Ok(Self { tokenizer, size, eos_ids, pad_id })
    }

    fn of_folder(files: &Files) -> Result<Self, CheckpointError> {
        let path = files.path("tokenizer.json");
        let bytes =
            files.read("tokenizer.json")?.ok_or_else(|| Kind::Tokenizer("is missing".into()).at(&path))?;
        let tokenizer =
            Tokenizer::from_json(&bytes).map_err(|error| Kind::Tokenizer(error.to_string()).at(&path))?;
        let mut out = Self { size: tokenizer.vocab_size(), tokenizer, eos_ids: Vec::new(), pad_id: None };
        if let Some(folder) = HfFolder::open(files.clone())? {
            let at = |kind: Kind| kind.at(&files.path("config.json"));
            out.size = folder.config().optional_size("vocab_size").map_err(at)?.unwrap_or(out.size);
            out.eos_ids = folder.token_ids("eos_token_id").map_err(at)?;
            out.pad_id = folder.token_ids("pad_token_id").map_err(at)?.first().copied();
        }
        // A folder of a tokenizer alone says it by the tokens' names.
        let names = Object::read(files, "tokenizer_config.json")?.unwrap_or_default();
        let id = |key: &str| out.tokenizer.token_to_id(&token_text(names.get(key))?);
        if out.eos_ids.is_empty() {
            out.eos_ids = id("eos_token").into_iter().collect();
        }
        out.pad_id = out.pad_id.or_else(|| id("pad_token"));
        Ok(out)
    }
}
