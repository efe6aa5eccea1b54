//! How a text is cut into words before the merges, by the name that GGUF files give in `tokenizer.ggml.pre`.

use tokenizers::SplitDelimiterBehavior::Isolated;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

use super::TokenizerError;

/// Words, numbers of up to three digits, runs of signs, line ends, other space: the published pattern of Llama 3.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The same with each digit alone: the published pattern of Qwen 2.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What a `pre` name stands for.
pub(super) struct Pre {
    pub(super) words: PreTokenizerWrapper,
    /// Texts are brought to the composed form (NFC) first.
    pub(super) nfc: bool,
    /// A word that is a token stays one, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// BOS goes in front where the file does not say.
    pub(super) add_bos: bool,
}

pub(super) fn by_name(name: &str) -> Result<Pre, TokenizerError> {
    let plain = |words| Pre { words, nfc: false, ignore_merges: false, add_bos: false };
    match name {
        "smollm" => {
            let digits = PreTokenizerWrapper::Digits(Digits::new(true));
            Ok(plain(Sequence::new(vec![digits, byte_level(true).into()]).into()))
        }
        "gpt-2" | "default" => Ok(plain(byte_level(true).into())),
        "llama-bpe" | "llama3" | "llama-v3" => {
            Ok(Pre { ignore_merges: true, add_bos: true, ..plain(pattern(LLAMA3)?) })
        }
        "qwen2" => Ok(Pre { nfc: true, ..plain(pattern(QWEN2)?) }),
        other => Err(TokenizerError(format!(
            "the pre-tokenizer '{other}' (tokenizer.ggml.pre) is not known; known are: default, gpt-2, llama-bpe, qwen2, smollm"
        ))),
    }
}

fn byte_level(use_regex: bool) -> ByteLevel {
    ByteLevel::new(false, true, use_regex)
}

fn pattern(regex: &str) -> Result<PreTokenizerWrapper, TokenizerError> {
    let split = Split::new(SplitPattern::Regex(regex.to_owned()), Isolated, false)?;
    Ok(Sequence::new(vec![split.into(), byte_level(false).into()]).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use expect_test::{Expect, expect};
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    fn words(name: &str, text: &str) -> String {
        let mut cut = PreTokenizedString::from(text);
        by_name(name).unwrap().words.pre_tokenize(&mut cut).unwrap();
        let splits = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(_, (a, b), _)| text[a..b].to_owned()).collect::<Vec<_>>().join("|")
    }

    #[track_caller]
    fn check(name: &str, expected: Expect) {
        expected.assert_eq(&words(name, "It's 2024-01, I'LL pay\n\n  x=1234;"));
    }

    #[test]
    fn words_by_name() {
        check(
            "smollm",
            expect![[r#"
            It|'s| |2|0|2|4|-|0|1|,| I|'|LL| pay|

             | x|=|1|2|3|4|;"#]],
        );
        check(
            "gpt-2",
            expect![[r#"
            It|'s| 2024|-|01|,| I|'|LL| pay|

             | x|=|1234|;"#]],
        );
        check(
            "llama-bpe",
            expect![[r#"
            It|'s| |202|4|-|01|,| I|'LL| pay|

            | | x|=|123|4|;"#]],
        );
        check(
            "qwen2",
            expect![[r#"
            It|'s| |2|0|2|4|-|0|1|,| I|'LL| pay|

            | | x|=|1|2|3|4|;"#]],
        );
    }

    #[test]
    fn unknown_names_list_the_known() {
        expect!["the pre-tokenizer 'tekken' (tokenizer.ggml.pre) is not known; known are: default, gpt-2, llama-bpe, qwen2, smollm"].assert_eq(&by_name("tekken").err().unwrap().to_string());
    }
}
