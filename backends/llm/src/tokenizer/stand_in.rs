//! A tokenizer for a model that has none: each byte is a token, the others are words of their number.

use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::detokenizer::byte_of;
use super::{Tokenizer, TokenizerError};

/// The tokenizer of a vocabulary of this size; `special` stand for no text. Bytes without a token, because the vocabulary is
/// too small or theirs is special, are left out of a text.
pub(crate) fn of_bytes(vocab_size: usize, special: &[u32]) -> Result<Tokenizer, TokenizerError> {
    let mut names: Vec<String> = (0..vocab_size).map(|id| format!("\u{120}{id}")).collect();
    for letter in (0..0x200).filter_map(char::from_u32) {
        if let Some(name) = byte_of(letter).and_then(|byte| names.get_mut(usize::from(byte))) {
            *name = letter.to_string();
        }
    }
    for id in special {
        if let Some(name) = names.get_mut(*id as usize) {
            *name = format!("<|special {id}|>");
        }
    }
    let control = special.iter().filter_map(|id| names.get(*id as usize));
    let control: Vec<_> =
        control.map(|name| AddedToken::from(name.clone(), true).normalized(false)).collect();
    let vocab: Vocab = names.into_iter().zip(0u32..).collect();
    let mut inner = tokenizers::Tokenizer::new(BPE::builder().vocab_and_merges(vocab, Vec::new()).build()?);
    inner.with_pre_tokenizer(Some(ByteLevel::new(false, true, false)));
    inner.with_decoder(Some(ByteLevel::new(false, true, false)));
    inner.add_special_tokens(control)?;
    Tokenizer::new(inner)
}
