//! Tokenizers from the metadata of a GGUF file.

use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;

use super::pre_tokenizer;
use super::{Tokenizer, TokenizerError};
use crate::checkpoint::gguf::Metadata;

/// `tokenizer.ggml.token_type` of tokens that steer the model and are not text.
const CONTROL: i64 = 3;
/// The same of tokens that are text, but never made by merges.
const USER_DEFINED: i64 = 4;

pub(crate) fn from_gguf(meta: &Metadata) -> Result<Tokenizer, TokenizerError> {
    let model = meta.str("tokenizer.ggml.model")?;
    if model != "gpt2" {
        return Err(TokenizerError(format!(
            "the tokenizer model '{model}' is not supported yet, only 'gpt2' (byte-level BPE) is"
        )));
    }
    let pre = meta.optional_str("tokenizer.ggml.pre")?;
    let pre = pre_tokenizer::by_name(pre.unwrap_or("default"))?;
    let tokens = meta.strings("tokenizer.ggml.tokens")?;
    let vocab = vocabulary(tokens)?;
    let merges = merges(meta.strings("tokenizer.ggml.merges")?, &vocab)?;
    let bpe = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(pre.ignore_merges).build();

    let mut inner = tokenizers::Tokenizer::new(bpe?);
    inner.with_pre_tokenizer(Some(pre.words));
    inner.with_decoder(Some(ByteLevel::new(false, true, true)));
    if pre.nfc {
        inner.with_normalizer(Some(NFC))?;
    }
    add_tokens(&mut inner, tokens, meta)?;
    let bos = meta.optional_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(pre.add_bos);
    let eos = meta.optional_bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    add_ends(&mut inner, tokens, meta, bos, eos)?;
    Tokenizer::new(inner)
}

fn vocabulary(tokens: &[String]) -> Result<Vocab, TokenizerError> {
    let mut vocab = Vocab::default();
    for (id, token) in (0u32..).zip(tokens) {
        if let Some(first) = vocab.insert(token.clone(), id) {
            return Err(TokenizerError(format!("token {token:?} has two ids, {first} and {id}")));
        }
    }
    Ok(vocab)
}

/// The pairs of the merges. Both halves and the whole must be tokens, which the builder relies on.
fn merges(lines: &[String], vocab: &Vocab) -> Result<Vec<(String, String)>, TokenizerError> {
    let pair = |line: &String| {
        let (a, b) = line.split_once(' ')?;
        let known = vocab.contains_key(a) && vocab.contains_key(b) && vocab.contains_key(&format!("{a}{b}"));
        known.then(|| (a.to_owned(), b.to_owned()))
    };
    lines
        .iter()
        .map(|line| {
            pair(line).ok_or_else(|| TokenizerError(format!("the merge {line:?} is not one of two tokens")))
        })
        .collect()
}

fn add_tokens(
    inner: &mut tokenizers::Tokenizer,
    tokens: &[String],
    meta: &Metadata,
) -> Result<(), TokenizerError> {
    if meta.get("tokenizer.ggml.token_type").is_none() {
        return Ok(());
    }
    let types = meta.integers("tokenizer.ggml.token_type")?;
    if types.len() != tokens.len() {
        return Err(TokenizerError(format!("{} tokens have {} types", tokens.len(), types.len())));
    }
    let of = |ty: i64| {
        let list = tokens.iter().zip(types).filter(move |(token, t)| **t == ty && !token.is_empty());
        list.map(move |(token, _)| AddedToken::from(token.clone(), ty == CONTROL).normalized(false))
            .collect::<Vec<_>>()
    };
    inner.add_special_tokens(of(CONTROL))?;
    inner.add_tokens(of(USER_DEFINED))?;
    Ok(())
}

/// Makes `encode(.., add_special: true)` put BOS in front or EOS behind.
fn add_ends(
    inner: &mut tokenizers::Tokenizer,
    tokens: &[String],
    meta: &Metadata,
    bos: bool,
    eos: bool,
) -> Result<(), TokenizerError> {
    let mut special = Vec::new();
    let mut template = vec!["$A".to_owned()];
    for (wanted, key, at) in [(bos, "bos_token_id", 0), (eos, "eos_token_id", usize::MAX)] {
        let key = format!("tokenizer.ggml.{key}");
        let id = meta.optional_id(&key)?;
        let Some(id) = id.filter(|_| wanted) else { continue };
        let token = tokens.get(id as usize).ok_or_else(|| {
            TokenizerError(format!("'{key}' is {id}, the vocabulary has {} tokens", tokens.len()))
        })?;
        template.insert(at.min(template.len()), token.clone());
        special.push((token.clone(), id));
    }
    if special.is_empty() {
        return Ok(());
    }
    let processor = TemplateProcessing::builder()
        .try_single(template)
        .map_err(TokenizerError::new)?
        .special_tokens(special)
        .build()
        .map_err(|e| TokenizerError::new(e.to_string()))?;
    inner.with_post_processor(Some(processor));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::checkpoint::gguf::Value;

    fn strings(list: &[&str]) -> Value {
        Value::Strings(list.iter().map(|s| (*s).to_owned()).collect())
    }

    fn build(more: &[(&'static str, Value)]) -> Result<Tokenizer, TokenizerError> {
        let base = [
            ("tokenizer.ggml.model", Value::String("gpt2".into())),
            ("tokenizer.ggml.pre", Value::String("gpt-2".into())),
            ("tokenizer.ggml.tokens", strings(&["<s>", "</s>", "h", "i", "hi", "\u{120}", "<think>"])),
            ("tokenizer.ggml.token_type", Value::Integers(vec![3, 3, 1, 1, 1, 1, 4])),
            ("tokenizer.ggml.merges", strings(&["h i"])),
            ("tokenizer.ggml.bos_token_id", Value::Unsigned(0)),
            ("tokenizer.ggml.eos_token_id", Value::Unsigned(1)),
        ];
        from_gguf(&Metadata::from_pairs(base.into_iter().chain(more.iter().cloned())))
    }

    #[track_caller]
    fn refused(more: &[(&'static str, Value)], expected: &str) {
        assert_eq!(build(more).err().expect("it should be refused").to_string(), expected);
    }

    #[test]
    fn ends_are_added_as_the_file_says() {
        let ids = |more: &[_]| build(more).unwrap().encode("hi hi", true).unwrap();
        let bos = |on| ("tokenizer.ggml.add_bos_token", Value::Bool(on));
        let llama = ("tokenizer.ggml.pre", Value::String("llama-bpe".into()));
        assert_eq!(ids(&[]), [4, 5, 4]);
        assert_eq!(ids(&[bos(true)]), [0, 4, 5, 4]);
        assert_eq!(ids(&[bos(true), ("tokenizer.ggml.add_eos_token", Value::Bool(true))]), [0, 4, 5, 4, 1]);
        assert_eq!(ids(std::slice::from_ref(&llama)), [0, 4, 5, 4], "BOS is the rule for this one");
        assert_eq!(ids(&[llama, bos(false)]), [4, 5, 4]);
        assert_eq!(build(&[bos(true)]).unwrap().encode("hi", false).unwrap(), [4]);
    }

    #[test]
    fn special_tokens_are_recognised_and_only_control_ones_are_no_text() {
        let t = build(&[]).unwrap();
        let ids = t.encode("<s>hi<think></s>", false).unwrap();
        assert_eq!(ids, [0, 4, 6, 1]);
        assert_eq!(t.decode(&ids, true).unwrap(), "hi<think>");
    }

    #[test]
    fn false_metadata_is_refused() {
        refused(
            &[("tokenizer.ggml.model", Value::String("llama".into()))],
            "the tokenizer model 'llama' is not supported yet, only 'gpt2' (byte-level BPE) is",
        );
        refused(
            &[("tokenizer.ggml.merges", strings(&["h h"]))],
            "the merge \"h h\" is not one of two tokens",
        );
        refused(&[("tokenizer.ggml.tokens", strings(&["h", "h"]))], "token \"h\" has two ids, 0 and 1");
        refused(&[("tokenizer.ggml.token_type", Value::Integers(vec![1]))], "7 tokens have 1 types");
        refused(
            &[
                ("tokenizer.ggml.add_bos_token", Value::Bool(true)),
                ("tokenizer.ggml.bos_token_id", Value::Unsigned(7)),
            ],
            "'tokenizer.ggml.bos_token_id' is 7, the vocabulary has 7 tokens",
        );
    }
}
