//! The decode loop over a scripted model and the real SmolLM2 tokenizer.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::OnceLock;

use trireme_llm::checkpoint::Checkpoint;
use trireme_llm::generate::{DecoderModel, GenerateError, GenerateRequest, Generation, generate};
use trireme_llm::sampling::SamplingParams;
use trireme_llm::stop::{FinishReason, StopRules};
use trireme_llm::tokenizer::Tokenizer;

const EOS: u32 = 2;

fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        Checkpoint::open(&common::model_file(common::SMOLLM2_GGUF)).unwrap().tokenizer().unwrap()
    })
}

/// Says the tokens of its script one after another, if it is fed what it said.
struct Scripted {
    script: Vec<u32>,
    said: usize,
    context: usize,
    logits: Vec<f32>,
}

impl Scripted {
    fn new(text: &str) -> Self {
        let mut script = tokenizer().encode(text, false).unwrap();
        script.push(EOS);
        Self { script, said: 0, context: 100, logits: Vec::new() }
    }

    fn say(&mut self) -> &[f32] {
        self.logits = vec![0.0; self.vocab_size()];
        self.logits[self.script[self.said] as usize] = 1.0;
        self.said += 1;
        &self.logits
    }
}

impl DecoderModel for Scripted {
    type Error = Infallible;

    fn vocab_size(&self) -> usize {
        49152
    }
    fn max_context(&self) -> usize {
        self.context
    }
    fn prefill(&mut self, ids: &[u32]) -> Result<&[f32], Infallible> {
        assert!(!ids.is_empty() && self.said == 0);
        Ok(self.say())
    }
    fn step(&mut self, id: u32) -> Result<&[f32], Infallible> {
        assert_eq!(id, self.script[self.said - 1]);
        Ok(self.say())
    }
}

fn rules(max_tokens: usize, strings: &[&str]) -> StopRules {
    StopRules::new(&[EOS], max_tokens).unwrap().with_strings(strings).unwrap()
}

fn run(model: &mut Scripted, stop: &StopRules, cancel_after: usize) -> (Vec<String>, Generation) {
    let mut pieces = Vec::new();
    let mut asked = 0;
    let cancelled = || {
        asked += 1;
        asked > cancel_after
    };
    let request = GenerateRequest { prompt: &[504], sampling: SamplingParams::GREEDY, stop };
    let done = generate(model, tokenizer(), &request, cancelled, |text| {
        pieces.push(text.to_owned());
        ControlFlow::Continue(())
    });
    (pieces, done.unwrap())
}

#[test]
fn a_text_ends_at_eos() {
    let (pieces, done) = run(&mut Scripted::new("Paris is 🦀."), &rules(50, &[]), usize::MAX);
    assert_eq!(pieces.concat(), "Paris is 🦀.");
    assert!(
        pieces.len() > 2 && pieces.iter().all(|p| !p.is_empty() && !p.contains('\u{fffd}')),
        "{pieces:?}"
    );
    assert_eq!(done.finish, FinishReason::EndOfText);
    assert_eq!(done.prompt_tokens, 1);
}

#[test]
fn a_text_ends_at_a_stop_string_over_several_tokens() {
    let (pieces, done) =
        run(&mut Scripted::new("one two three four"), &rules(50, &["two three"]), usize::MAX);
    assert_eq!((pieces.concat().as_str(), done.finish), ("one ", FinishReason::StopString));
    let (pieces, done) = run(&mut Scripted::new("one two"), &rules(50, &["two three"]), usize::MAX);
    assert_eq!((pieces.concat().as_str(), done.finish), ("one two", FinishReason::EndOfText));
}

#[test]
fn a_text_ends_at_its_limits() {
    let text = "one two three four";
    let (pieces, done) = run(&mut Scripted::new(text), &rules(2, &["two three"]), usize::MAX);
    assert_eq!(
        (pieces.concat().as_str(), done.finish, done.completion_tokens),
        ("one two", FinishReason::MaxTokens, 2)
    );
    let mut small = Scripted { context: 4, ..Scripted::new(text) };
    let (pieces, done) = run(&mut small, &rules(50, &[]), usize::MAX);
    assert_eq!((pieces.concat().as_str(), done.finish), ("one two three", FinishReason::ContextFull));
    assert_eq!(small.said, 3, "the last token is not fed again");
    let (pieces, done) = run(&mut Scripted::new(text), &rules(50, &[]), 1);
    assert_eq!((pieces.concat().as_str(), done.finish), ("one", FinishReason::Cancelled));
}

#[test]
fn a_break_of_the_receiver_cancels() {
    let stop = rules(50, &[]);
    let request = GenerateRequest { prompt: &[504], sampling: SamplingParams::GREEDY, stop: &stop };
    let mut model = Scripted::new("one two three");
    let done = generate(&mut model, tokenizer(), &request, || false, |_| ControlFlow::Break(())).unwrap();
    assert_eq!((done.finish, done.completion_tokens, model.said), (FinishReason::Cancelled, 1, 1));
}

#[test]
fn bad_prompts_are_refused() {
    let stop = rules(5, &[]);
    let error = |prompt: &[u32]| {
        let request = GenerateRequest { prompt, sampling: SamplingParams::GREEDY, stop: &stop };
        let mut model = Scripted { context: 4, ..Scripted::new("x") };
        match generate(&mut model, tokenizer(), &request, || false, |_| ControlFlow::Continue(())) {
            Err(GenerateError::InvalidArgument(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(error(&[]), "the prompt has no tokens");
    assert_eq!(error(&[1; 4]), "the prompt has 4 tokens, the model's context holds 4 with the answer");
    assert_eq!(error(&[49152]), "token id 49152 is outside the vocabulary of 49152");
}
