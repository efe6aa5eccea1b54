//! Token ids to text, one id at a time.

use super::{Tokenizer, TokenizerError};

/// Tokens looked back at where the text of a token depends on its neighbours.
const WINDOW: usize = 6;

/// Turns a stream of ids into pieces of text that together are the text of all the ids, special tokens left out.
/// A piece never holds half a character: bytes wait until their character is whole.
pub struct Detokenizer {
    tokenizer: Tokenizer,
    state: State,
}

enum State {
    /// Every token is a string of bytes: bytes that are not yet a whole character.
    Bytes(Vec<u8>),
    /// The text of a token depends on those before it: the last ids, and how many of them are emitted.
    Window { ids: Vec<u32>, emitted: usize },
}

impl Detokenizer {
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let state = if tokenizer.byte_level {
            State::Bytes(Vec::new())
        } else {
            State::Window { ids: Vec::new(), emitted: 0 }
        };
        Self { tokenizer: tokenizer.clone(), state }
    }

    /// Takes the next id and returns the text that is now certain, which may be empty. Ids without a token (a
    /// model's vocabulary may be padded) have no text.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        match &mut self.state {
            State::Bytes(pending) => {
                let Some(token) = self.tokenizer.id_to_token(id) else { return Ok(String::new()) };
                if !self.tokenizer.is_special(&token) {
                    append_bytes(&token, pending);
                }
                Ok(whole_characters(pending))
            }
            State::Window { ids, emitted } => {
                ids.push(id);
                let before = self.tokenizer.decode(&ids[..*emitted], true)?;
                let text = self.tokenizer.decode(ids, true)?;
                // A replacement character at the end may be the front of a character that is still to come.
                if text.ends_with('\u{fffd}') && ids.len() - *emitted < WINDOW {
                    return Ok(String::new());
                }
                let piece = text.strip_prefix(&before).unwrap_or_default().to_owned();
                *emitted = ids.len();
                if ids.len() > 2 * WINDOW {
                    ids.drain(..ids.len() - WINDOW);
                    *emitted = WINDOW;
                }
                Ok(piece)
            }
        }
    }

    /// The rest: bytes that never became a character, as U+FFFD.
    pub fn finish(&mut self) -> Result<String, TokenizerError> {
        match &mut self.state {
            State::Bytes(pending) => Ok(String::from_utf8_lossy(&std::mem::take(pending)).into_owned()),
            State::Window { ids, emitted } => {
                let before = self.tokenizer.decode(&ids[..*emitted], true)?;
                let text = self.tokenizer.decode(&std::mem::take(ids), true)?;
                *emitted = 0;
                Ok(text.strip_prefix(&before).unwrap_or_default().to_owned())
            }
        }
    }
}

/// The bytes that a byte-level token stands for; a token that has another letter in it stands for itself.
pub(super) fn append_bytes(token: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for c in token.chars() {
        match byte_of(c) {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// The byte behind a letter of a byte-level vocabulary. Printable bytes are their own Latin-1 letter; the 68 others
/// follow one another from U+0100.
pub(super) fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        n @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(n).ok(),
        n @ 0x100..=0x120 => u8::try_from(n - 0x100).ok(),
        n @ 0x121..=0x142 => u8::try_from(n - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// Takes the whole characters off the front of `pending`, bytes that can be no character's as U+FFFD.
fn whole_characters(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    loop {
        match std::str::from_utf8(pending) {
            Ok(all) => {
                text.push_str(all);
                pending.clear();
                return text;
            }
            Err(e) => {
                let valid = e.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&pending[..valid]));
                pending.drain(..valid);
                let Some(bad) = e.error_len() else { return text };
                text.push('\u{fffd}');
                pending.drain(..bad);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn every_byte_has_one_letter() {
        let bytes: HashSet<u8> = (0..0x200u32).filter_map(char::from_u32).filter_map(byte_of).collect();
        assert_eq!(bytes.len(), 256);
        assert_eq!(byte_of('\u{120}'), Some(b' '));
        assert_eq!(byte_of('\u{10a}'), Some(b'\n'));
        assert_eq!((0..0x200u32).filter_map(char::from_u32).filter(|c| byte_of(*c).is_some()).count(), 256);
    }

    proptest! {
        #[test]
        fn pieces_are_the_whole_text(bytes: Vec<u8>, cuts in prop::collection::vec(1usize..5, 0..40)) {
            let mut pending = Vec::new();
            let mut text = String::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                pending.extend_from_slice(now);
                text.push_str(&whole_characters(&mut pending));
                rest = later;
            }
            text.push_str(&String::from_utf8_lossy(&pending));
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
