//! When a text ends, and what of it may be shown before that is known.

/// Most stop strings of one request, and the longest in bytes; each is searched for in every piece.
const MAX_STRINGS: usize = 256;
const MAX_BYTES: usize = 4096;

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended its text with an end-of-text token.
    EndOfText,
    /// A stop token of the request.
    StopToken,
    /// A stop string of the request.
    StopString,
    /// `max_tokens` were generated.
    MaxTokens,
    /// The model's context is full.
    ContextFull,
    /// The client went away or cancelled.
    Cancelled,
}

impl FinishReason {
    /// The word of the OpenAI API: `stop`, `length` or `cancelled`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EndOfText | Self::StopToken | Self::StopString => "stop",
            Self::MaxTokens | Self::ContextFull => "length",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A stop rule that cannot be kept.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct StopError(String);

/// When to stop, as one request asks for it.
#[derive(Clone, Debug, Default)]
pub struct StopRules {
    /// Ids that end the text; of the model.
    pub eos_ids: Vec<u32>,
    /// Further ids that end the text; of the request.
    pub stop_ids: Vec<u32>,
    /// Most tokens to generate, at least 1.
    pub max_tokens: usize,
    strings: Vec<String>,
    words: Vec<Vec<u32>>,
}

impl StopRules {
    pub fn new(eos_ids: &[u32], max_tokens: usize) -> Result<Self, StopError> {
        if max_tokens == 0 {
            return Err(StopError("max_tokens is 0, it must be at least 1".into()));
        }
        Ok(Self { eos_ids: eos_ids.to_vec(), max_tokens, ..Self::default() })
    }

    /// Adds strings that end the text and are not part of it. Empty ones are passed over: clients send them for
    /// "none".
    pub fn with_strings<S: AsRef<str>>(mut self, strings: &[S]) -> Result<Self, StopError> {
        let strings = strings.iter().map(AsRef::as_ref).filter(|s| !s.is_empty());
        self.strings.extend(strings.map(str::to_owned));
        if let Some(long) = self.strings.iter().find(|s| s.len() > MAX_BYTES) {
            return Err(StopError(format!(
                "a stop string has {} bytes, at most {MAX_BYTES} are allowed",
                long.len()
            )));
        }
        if self.strings.len() > MAX_STRINGS {
            let n = self.strings.len();
            return Err(StopError(format!("there are {n} stop strings, at most {MAX_STRINGS} are allowed")));
        }
        Ok(self)
    }

    pub fn with_stop_ids(mut self, ids: &[u32]) -> Self {
        self.stop_ids.extend_from_slice(ids);
        self
    }

    /// Adds sequences of tokens that end the answer and are part of it. Empty ones are passed over.
    ///
    /// # Errors
    /// There are too many.
    pub fn with_words(mut self, words: &[Vec<u32>]) -> Result<Self, StopError> {
        self.words.extend(words.iter().filter(|word| !word.is_empty()).cloned());
        match self.words.len() {
            n if n > MAX_STRINGS => {
                Err(StopError(format!("there are {n} stop words, at most {MAX_STRINGS} are allowed")))
            }
            _ => Ok(self),
        }
    }

    /// Whether an answer ends with a stop word.
    pub fn at_word(&self, generated: &[u32]) -> bool {
        self.words.iter().any(|word| generated.ends_with(word))
    }

    /// Whether there are stop strings.
    pub fn has_strings(&self) -> bool {
        !self.strings.is_empty()
    }

    /// The reason to stop at this token, which is then no part of the text.
    pub fn at_token(&self, id: u32) -> Option<FinishReason> {
        if self.eos_ids.contains(&id) {
            Some(FinishReason::EndOfText)
        } else if self.stop_ids.contains(&id) {
            Some(FinishReason::StopToken)
        } else {
            None
        }
    }

    /// A filter of one text for the stop strings.
    pub fn filter(&self) -> StopFilter {
        StopFilter { strings: self.strings.clone(), held: String::new(), stopped: false }
    }
}

/// Lets text through up to the first stop string. Text that may turn out to be the beginning of one is held back, so
/// that what went out never has to be taken back.
pub struct StopFilter {
    strings: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopFilter {
    /// Takes the next piece; returns the text that may go out, and whether a stop string ended it.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        if self.stopped {
            return (String::new(), true);
        }
        if self.strings.is_empty() {
            return (piece.to_owned(), false);
        }
        self.held.push_str(piece);
        // The first to be complete ends the text, wherever the pieces were cut; of those that end together the
        // longest, so that none is left in the text.
        let found =
            self.strings.iter().filter_map(|s| self.held.find(s.as_str()).map(|at| (at + s.len(), at)));
        if let Some((_, at)) = found.min() {
            self.stopped = true;
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let keep = self.strings.iter().map(|s| overlap(&self.held, s)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text is over: what was held back is no stop string after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes of the longest end of `text` that is a beginning of `stop`, but not all of it.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|&n| text.as_bytes().ends_with(&stop.as_bytes()[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut filter = StopRules::new(&[], 1).unwrap().with_strings(stops).unwrap().filter();
        let mut out = Vec::new();
        for piece in pieces {
            let (text, stopped) = filter.push(piece);
            out.push(text);
            if stopped {
                return (out, true);
            }
        }
        out.push(filter.finish());
        (out, false)
    }

    #[test]
    fn a_beginning_is_held_back() {
        assert_eq!(run(&["END"], &["a E", "N", "D b"]), (vec!["a ".into(), "".into(), "".into()], true));
        assert_eq!(
            run(&["END"], &["a E", "N", "d", "E"]),
            (vec!["a ".into(), "".into(), "ENd".into(), "".into(), "E".into()], false)
        );
        assert_eq!(run(&["\n\n"], &["x\n", "\ny"]), (vec!["x".into(), "".into()], true));
        assert_eq!(
            run(&["", "é!"], &["caf", "é", "?"]),
            (vec!["caf".into(), "".into(), "é?".into(), "".into()], false)
        );
    }

    #[test]
    fn the_first_complete_one_counts() {
        assert_eq!(run(&["abX", "b"], &["zab", "X"]), (vec!["za".into()], true));
        assert_eq!(run(&["b", "ab"], &["zab"]), (vec!["z".into()], true));
    }

    #[test]
    fn bad_rules_are_named() {
        assert_eq!(StopRules::new(&[], 0).unwrap_err().to_string(), "max_tokens is 0, it must be at least 1");
        let rules = || StopRules::new(&[2], 1).unwrap();
        assert!(rules().with_strings(&["x".repeat(5000)]).unwrap_err().to_string().contains("5000 bytes"));
        assert!(rules().with_strings(&["x"; 300]).unwrap_err().to_string().contains("300 stop strings"));
        let rules = rules().with_stop_ids(&[7]);
        assert_eq!(rules.at_token(2), Some(FinishReason::EndOfText));
        assert_eq!((rules.at_token(7), rules.at_token(3)), (Some(FinishReason::StopToken), None));
    }

    proptest! {
        /// Neither the text nor its end depends on where the pieces are cut, and no stop string is ever seen.
        #[test]
        fn cuts_do_not_matter(
            text in "[abé]{0,30}",
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
            cuts in prop::collection::vec(1usize..4, 0..40),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let letters: Vec<String> = text.chars().map(String::from).collect();
            let mut pieces = Vec::new();
            let mut rest = letters.as_slice();
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                pieces.push(now.concat());
                rest = later;
            }
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (whole, stopped) = run(&stops, &[&text]);
            let (cut, cut_stopped) = run(&stops, &pieces);
            prop_assert_eq!(whole.concat(), cut.concat());
            prop_assert_eq!(stopped, cut_stopped);
            prop_assert_eq!(stopped, stops.iter().any(|s| text.contains(s)));
            prop_assert!(!stops.iter().any(|s| cut.concat().contains(s)));
        }
    }
}
