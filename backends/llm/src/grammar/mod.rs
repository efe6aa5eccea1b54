//! Answers of a form: which tokens may come next, so that JSON of a schema, a regular expression or one of several texts
//! comes out. A thin layer over `llguidance`, which keeps grammars within limits of size and work.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use crate::openai::GuideSpec;
use crate::tokenizer::Tokenizer;

/// Bytes of a schema or expression.
const MAX_GUIDE: usize = 1 << 20;

/// A form that cannot be kept, or a tokenizer that no form can be kept with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GrammarError(String);

/// Makes grammars for one tokenizer; cheap to clone.
#[derive(Clone)]
pub struct GrammarFactory(Arc<ParserFactory>);

impl GrammarFactory {
    /// `eos_ids` end a text, the first of them first; ids from the tokenizer's size to `vocab_size` stand for nothing.
    ///
    /// # Errors
    /// The vocabulary is not one that texts can be made of.
    pub fn new(tokenizer: &Tokenizer, eos_ids: &[u32], vocab_size: usize) -> Result<Self, GrammarError> {
        let error =
            |what: String| GrammarError(format!("the vocabulary does not allow guided answers: {what}"));
        let size = u32::try_from(vocab_size).map_err(|e| error(e.to_string()))?;
        let eos = *eos_ids.first().ok_or_else(|| error("no token ends a text".to_owned()))?;
        let words: Vec<Vec<u8>> = (0..size).map(|id| word(tokenizer, id)).collect();
        let info = TokRxInfo { tok_end_of_turn: eos_ids.get(1).copied(), ..TokRxInfo::new(size, eos) };
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
        let mut factory = ParserFactory::new_simple(&environment).map_err(|e| error(e.to_string()))?;
        factory.quiet();
        Ok(Self(Arc::new(factory)))
    }

    /// The grammar of one answer.
    ///
    /// # Errors
    /// The form cannot be kept, and why.
    pub fn grammar(&self, guide: &GuideSpec) -> Result<Grammar, GrammarError> {
        let grammar = match guide {
            GuideSpec::JsonObject => {
                TopLevelGrammar::from_json_schema(compact(json!({ "type": "object" }), false))
            }
            GuideSpec::JsonSchema(schema) => {
                check_size(schema.to_string().len())?;
                TopLevelGrammar::from_json_schema(compact(schema.clone(), false))
            }
            GuideSpec::LooseJsonSchema(schema) => {
                check_size(schema.to_string().len())?;
                TopLevelGrammar::from_json_schema(compact(schema.clone(), true))
            }
            GuideSpec::Regex(regex) => {
                check_size(regex.len())?;
                TopLevelGrammar::from_regex(regex)
            }
            GuideSpec::Choice(texts) => {
                check_size(texts.iter().map(String::len).sum())?;
                let texts: Vec<String> = texts.iter().map(|text| escaped(text)).collect();
                TopLevelGrammar::from_regex(&format!("({})", texts.join("|")))
            }
        };
        let mut grammar = self.compile(grammar)?;
        // A form that nothing has shows at its first token.
        grammar.mask()?;
        Ok(grammar)
    }

    fn compile(&self, grammar: TopLevelGrammar) -> Result<Grammar, GrammarError> {
        let matcher = Matcher::new(self.0.create_parser(grammar));
        match matcher.get_error() {
            Some(error) => Err(told(&error)),
            None => Ok(Grammar(matcher)),
        }
    }
}

/// Without white space between tokens: a small model that may write blanks may write them for ever. A `loose` schema may have
/// rules that cannot be held.
fn compact(schema: Value, loose: bool) -> Value {
    let mut schema = match schema {
        Value::Object(map) => map,
        Value::Bool(false) => return Value::Bool(false),
        _ => serde_json::Map::new(),
    };
    let options = json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": ", "lenient": loose });
    schema.insert("x-guidance".to_owned(), options);
    Value::Object(schema)
}

fn check_size(bytes: usize) -> Result<(), GrammarError> {
    match bytes > MAX_GUIDE {
        true => Err(GrammarError(format!("it has {bytes} bytes, at most {MAX_GUIDE} are taken"))),
        false => Ok(()),
    }
}

/// An error of the library, for whoever gave the form.
fn told(error: &str) -> GrammarError {
    if error.contains("NoExtensionBias") {
        return GrammarError("no text has it, a part of it may refer to itself without an end".to_owned());
    }
    // A regular expression's error is a drawing below a first line that says nothing.
    let says = |line: &&str| !line.is_empty() && !line.starts_with("regex parse error");
    let lines: Vec<&str> = error.lines().map(str::trim).filter(says).collect();
    let error = lines.iter().find_map(|line| line.strip_prefix("error: ")).or(lines.first().copied());
    let text = error
        .unwrap_or("it cannot be kept")
        .replace("Unimplemented keys:", "it cannot be held to the keywords");
    GrammarError(text.trim_end_matches('.').to_owned())
}

/// A text as a regular expression that matches it only.
fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '\n' => "\\n".to_owned(),
        c if c.is_ascii_punctuation() => format!("\\{c}"),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// The bytes of a token; those of a special one are marked, so that no text is made with it.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id);
    match tokenizer.is_special_id(id) {
        true => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes.as_slice()].concat(),
        false => bytes,
    }
}

/// The state of one answer; a clone goes its own way.
pub struct Grammar(Matcher);

impl Clone for Grammar {
    fn clone(&self) -> Self {
        Self(self.0.deep_clone())
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grammar")
    }
}

impl Grammar {
    /// Which tokens may come next: bit `i % 32` of word `i / 32` for token `i`.
    ///
    /// # Errors
    /// The grammar took too much work, or no token leads to a whole answer.
    pub fn mask(&mut self) -> Result<Mask, GrammarError> {
        self.0.compute_mask_or_eos().map(Mask).map_err(|error| told(&error.to_string()))
    }

    /// Goes on by a token that the mask allows.
    ///
    /// # Errors
    /// The token is not allowed.
    pub fn consume(&mut self, id: u32) -> Result<(), GrammarError> {
        self.0.consume_token(id).map_err(|error| told(&error.to_string()))
    }

    /// Whether the answer is whole and nothing may follow.
    pub fn is_over(&self) -> bool {
        self.0.is_stopped()
    }
}

/// A set of tokens.
pub struct Mask(SimpleVob);

impl Mask {
    /// Bit `i % 32` of word `i / 32` for token `i`.
    pub fn words(&self) -> &[u32] {
        self.0.as_slice()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The grammar of a form that nothing has, which shows at its first mask.
    pub(crate) fn of_nothing() -> Grammar {
        factory().compile(TopLevelGrammar::from_json_schema(compact(json!({ "$ref": "#" }), false))).unwrap()
    }

    /// One token a byte, and one for the end.
    fn factory() -> GrammarFactory {
        let letters: Vec<char> = (' '..='~').collect();
        let vocab: serde_json::Map<String, Value> = letters
            .iter()
            .enumerate()
            .map(|(id, c)| (if *c == ' ' { "Ġ".to_owned() } else { c.to_string() }, id.into()))
            .collect();
        let end = letters.len();
        let json = json!({
            "version": "1.0",
            "added_tokens": [{ "id": end, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true }],
            "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
            "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
            "model": { "type": "BPE", "vocab": vocab, "merges": [] },
        });
        let tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
        GrammarFactory::new(&tokenizer, &[end as u32], end + 5).unwrap()
    }

    /// Whether a text is of the form, and whether it is whole.
    fn walk(guide: &GuideSpec, text: &str) -> Option<bool> {
        let mut grammar = factory().grammar(guide).unwrap();
        for byte in text.bytes() {
            let id = u32::from(byte - b' ');
            let mask = grammar.mask().unwrap();
            if mask.words()[id as usize / 32] >> (id % 32) & 1 == 0 {
                return None;
            }
            grammar.consume(id).unwrap();
        }
        Some(grammar.is_over())
    }

    #[test]
    fn only_texts_of_the_form_come_out() {
        let schema = json!({
            "type": "object",
            "properties": { "a": { "$ref": "#/$defs/n" } },
            "required": ["a"],
            "additionalProperties": false,
            "$defs": { "n": { "type": "integer" } },
        });
        let schema = GuideSpec::JsonSchema(schema);
        assert_eq!(walk(&schema, "{\"a\": 1}"), Some(true));
        assert_eq!(walk(&schema, "{\"a\": 1"), Some(false));
        assert_eq!(walk(&schema, "{\"b\""), None);
        assert_eq!(walk(&schema, "{\"a\": x"), None);
        assert_eq!(walk(&GuideSpec::JsonObject, "{\"x\": [1, {\"y\": null}]}"), Some(true));
        assert_eq!(walk(&GuideSpec::JsonObject, "[1"), None);
        assert_eq!(walk(&GuideSpec::Regex("a+b".to_owned()), "aab"), Some(true));
        let choice = GuideSpec::Choice(vec!["a.b".to_owned(), "(c)".to_owned()]);
        assert_eq!(
            (walk(&choice, "a.b"), walk(&choice, "(c)"), walk(&choice, "axb")),
            (Some(true), Some(true), None)
        );
    }

    #[test]
    fn forms_that_cannot_be_kept_are_refused() {
        let refuse = |guide| factory().grammar(&guide).err().unwrap().to_string();
        assert!(refuse(GuideSpec::JsonSchema(json!({ "type": "nothing" }))).contains("nothing"));
        assert!(!refuse(GuideSpec::Regex("(".to_owned())).is_empty());
        assert!(refuse(GuideSpec::Regex("a".repeat(2 << 20))).contains("at most"));
        for endless in [
            json!({ "$ref": "#" }),
            json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/a" } } }),
        ] {
            assert!(refuse(GuideSpec::JsonSchema(endless)).contains("no text has it"));
        }
        assert!(refuse(GuideSpec::JsonSchema(json!({ "pattern": "(?=a)b" }))).contains("look-around"));
    }

    #[test]
    fn a_loose_schema_is_held_to_as_far_as_it_can() {
        let schema = json!({
            "type": "array", "items": { "type": "string", "format": "zebra", "maxLength": 2 }, "uniqueItems": true,
        });
        let strict = factory().grammar(&GuideSpec::JsonSchema(schema.clone())).err().unwrap().to_string();
        assert!(strict.contains("uniqueItems"), "{strict}");
        let loose = GuideSpec::LooseJsonSchema(schema);
        assert_eq!(walk(&loose, "[\"a\", \"a\"]"), Some(true));
        assert_eq!((walk(&loose, "[\"abc"), walk(&loose, "{")), (None, None));
    }
}
