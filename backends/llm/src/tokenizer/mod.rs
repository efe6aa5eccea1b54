//! Text to token ids and back.

mod detokenizer;
mod gguf;
mod pre_tokenizer;
mod stand_in;

pub use detokenizer::Detokenizer;

use std::sync::Arc;

use tokenizers::DecoderWrapper;

pub(crate) use gguf::from_gguf;
pub(crate) use stand_in::of_bytes;

use crate::checkpoint::CheckpointErrorKind;

/// Bytes of a word, as of a stop string.
const MAX_WORD: usize = 4096;

/// Bytes of a long text that are read at a time.
const PIECE: usize = 16 << 10;

/// Why a tokenizer cannot be built or used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TokenizerError(pub(crate) String);

impl TokenizerError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<tokenizers::Error> for TokenizerError {
    fn from(e: tokenizers::Error) -> Self {
        Self(e.to_string())
    }
}

impl From<CheckpointErrorKind> for TokenizerError {
    fn from(e: CheckpointErrorKind) -> Self {
        Self(e.to_string())
    }
}

/// A tokenizer; cheap to clone and to share between threads.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    vocab_size: usize,
    byte_level: bool,
}

impl Tokenizer {
    fn new(mut inner: tokenizers::Tokenizer) -> Result<Self, TokenizerError> {
        // Files ship with the padding and truncation of their training; a server wants the text's own tokens.
        inner.with_padding(None);
        inner.with_truncation(None)?;
        let byte_level = matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let vocab_size = inner.get_vocab_size(true);
        Ok(Self { inner: Arc::new(inner), vocab_size, byte_level })
    }

    /// Reads a `tokenizer.json`. Its padding and truncation are switched off.
    pub fn from_json(json: &[u8]) -> Result<Self, TokenizerError> {
        // Some inconsistent files make the reader panic (a merge longer than every token, for one).
        let parsed = std::panic::catch_unwind(|| tokenizers::Tokenizer::from_bytes(json));
        let inner = parsed
            .map_err(|_| TokenizerError::new("tokenizer.json is inconsistent: its reader gave up"))?
            .map_err(|e| TokenizerError(format!("tokenizer.json cannot be read: {e}")))?;
        Self::new(inner)
    }

    /// The ids of `text`. Special tokens written out in the text are recognised; `add_special` adds those that the
    /// tokenizer puts around a text (`[CLS]`, BOS), which a text from a chat template has already.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, add_special)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Whether `text` has far more tokens than `limit`: found out by reading no more of it than about that many, so that a
    /// text of megabytes holds nobody up. `false` says nothing; the ids do.
    pub fn exceeds(&self, text: &str, limit: usize) -> bool {
        // What is read in any case may be as long as this.
        if text.len() <= limit.saturating_mul(8).max(2 * PIECE) {
            return false;
        }
        // Tokenizers that leave blanks out, or take a long word for one token, find few in much.
        if text.len() > limit.saturating_mul(1024) {
            return true;
        }
        let mut tokens = 0usize;
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE.min(rest.len())));
            rest = after;
            // A cut moves the bounds of the tokens around it, which a quarter more is ample for.
            tokens += self.inner.encode_fast(piece, false).map_or(0, |encoding| encoding.len());
            if tokens > limit.saturating_add(limit / 4) {
                return true;
            }
        }
        false
    }

    /// The tokens of each text, as it stands at the beginning of a text and behind a blank.
    ///
    /// # Errors
    /// A text has more than 4,096 bytes.
    pub fn words(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, TokenizerError> {
        let mut words: Vec<Vec<u32>> = Vec::with_capacity(2 * texts.len());
        for text in texts {
            if text.len() > MAX_WORD {
                let bytes = text.len();
                return Err(TokenizerError(format!(
                    "a word has {bytes} bytes, at most {MAX_WORD} are allowed"
                )));
            }
            for form in [text.clone(), format!(" {text}")] {
                let word = self.encode(&form, false)?;
                if !word.is_empty() && !words.contains(&word) {
                    words.push(word);
                }
            }
        }
        Ok(words)
    }

    /// The text of `ids`. Bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        Ok(self.inner.decode(ids, skip_special)?)
    }

    /// The text of `ids` as a part of a longer text: a blank at its front stays, where [`Self::decode`] may take it for
    /// the tokenizer's own. Bytes that are no UTF-8 become U+FFFD, ids without a token have no text.
    pub fn decode_part(&self, ids: &[u32], skip_special: bool) -> String {
        let kept = ids.iter().filter(|id| !skip_special || !self.is_special_id(**id));
        let bytes: Vec<u8> = kept.flat_map(|id| self.token_bytes(*id)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether the text of `ids` does not end within a character. Bytes that begin none are whole by themselves, so at
    /// most three bytes ever wait.
    pub fn ends_whole(&self, ids: &[u32]) -> bool {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.token_bytes(*id)).collect();
        let mut rest = bytes.as_slice();
        while let Err(error) = std::str::from_utf8(rest) {
            let Some(bad) = error.error_len() else { return false };
            rest = &rest[error.valid_up_to() + bad..];
        }
        true
    }

    /// Number of tokens, added ones included. A model's vocabulary may be padded beyond it.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of a token as the vocabulary spells it.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id as the vocabulary spells it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The bytes that a token stands for in a text; those of a special token are its name. None for an id without one.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.id_to_token(id) else { return Vec::new() };
        if self.is_special(&token) {
            return token.into_bytes();
        }
        if !self.byte_level {
            // SentencePiece: a byte by its number, and blanks under another name.
            let byte = token
                .strip_prefix("<0x")
                .and_then(|rest| u8::from_str_radix(rest.strip_suffix('>')?, 16).ok());
            return byte.map_or_else(|| token.replace('\u{2581}', " ").into_bytes(), |byte| vec![byte]);
        }
        let mut bytes = Vec::new();
        detokenizer::append_bytes(&token, &mut bytes);
        bytes
    }

    /// Whether a token is one that stands for no text.
    pub fn is_special_id(&self, id: u32) -> bool {
        self.id_to_token(id).is_some_and(|token| self.is_special(&token))
    }

    fn is_special(&self, token: &str) -> bool {
        self.inner.get_added_vocabulary().is_special_token(token)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn inconsistent_files_are_refused() {
        let error = |json: &str| Tokenizer::from_json(json.as_bytes()).err().unwrap().to_string();
        assert!(error("{").starts_with("tokenizer.json cannot be read: "));
        let merge = r#"{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[["a","b"]]}}"#;
        assert!(error(merge).starts_with("tokenizer.json "), "{}", error(merge));
    }

    #[test]
    fn a_text_far_beyond_a_limit_is_not_read_to_its_end() {
        let bytes = of_bytes(300, &[]).unwrap();
        let long = "é".repeat(1 << 20);
        assert!(bytes.exceeds(&long, 100) && bytes.exceeds(&long, 200_000));
        // What may fit is left to be counted.
        assert!(!bytes.exceeds(&long, 2 << 20) && !bytes.exceeds("short", 1));
        assert!(!bytes.exceeds(&long[..300_000], 290_000), "that is for the ids to say");
    }
}
