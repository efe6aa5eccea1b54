//! From a request of token ids to an engine.

use trireme_sdk::{Config, Error, Request, Result, TensorConfig};

use super::inputs::{self, Defaults};
use super::outputs::{Answers, RowReceiver, Wanted};
use crate::openai::{Abilities, Generator};
use crate::tokenizer::Tokenizer;

/// The input that makes a model one of token ids.
const INPUT_IDS: &str = "input_ids";

/// What is needed to read requests of token ids and to write their answers.
pub struct TokenDoor {
    eos_ids: Vec<u32>,
    vocab_size: usize,
    max_context: usize,
    can: Abilities,
    defaults: Defaults,
    outputs: Vec<TensorConfig>,
    batches: bool,
    decoupled: bool,
    tokenizer: Option<Tokenizer>,
}

impl TokenDoor {
    /// Whether a configuration is one of token ids.
    pub fn is_for(config: &Config) -> bool {
        config.json()["input"].as_array().into_iter().flatten().any(|input| input["name"] == INPUT_IDS)
    }

    /// The door of a model. `max_tokens` is how long an answer is where a request does not say.
    ///
    /// # Errors
    /// The configuration has an input or output that is not among the contract's, or has it in another type.
    pub fn new(
        config: &Config,
        eos_ids: &[u32],
        (vocab_size, max_context): (usize, usize),
        max_tokens: usize,
        can: Abilities,
    ) -> Result<Self> {
        inputs::CONTRACT.check(config)?;
        let outputs = config.outputs()?;
        Wanted::check(&outputs)?;
        let exclude = config.parameter::<String>("exclude_input_in_output")?;
        let exclude_input = exclude.is_some_and(|word| word.eq_ignore_ascii_case("true"));
        Ok(Self {
            eos_ids: eos_ids.to_vec(),
            vocab_size,
            max_context,
            can,
            defaults: Defaults { max_tokens, exclude_input },
            outputs,
            batches: config.max_batch_size() > 0,
            decoupled: config.is_decoupled(),
            tokenizer: None,
        })
    }

    /// Streams in whole characters: tokens that end within one wait for the rest of it, so that whoever turns one answer
    /// after the other into text loses nothing.
    #[must_use]
    pub fn in_whole_characters(mut self, tokenizer: &Tokenizer) -> Self {
        self.tokenizer = Some(tokenizer.clone());
        self
    }

    /// Answers a request.
    pub fn answer(&self, request: Request, engine: &mut dyn Generator) {
        let read = inputs::read(
            &request,
            &self.eos_ids,
            (self.vocab_size, self.max_context),
            self.can,
            self.defaults,
        );
        let (rows, options) = match read {
            Ok(read) => read,
            Err(error) => return request.fail(error),
        };
        if options.streaming && !self.decoupled {
            let text = "input 'streaming' is true, but the model is not decoupled: set model_transaction_policy { decoupled: true }";
            return request.fail(Error::invalid(text));
        }
        if options.streaming && rows.len() > 1 {
            let text = "input 'streaming' is true for a batch: stream each prompt in a request of its own";
            return request.fail(Error::invalid(text));
        }
        let wanted = Wanted::of(&self.outputs, |number| request.wants_output(number), self.batches);
        let (priority, deadline_ns) = (request.priority(), request.deadline_ns());
        let mut responder = request.into_responder();
        responder.computing();
        let prompts = rows.iter().map(|ask| ask.prompt.clone()).collect();
        let answers = Answers::new(prompts, options, wanted, responder, self.tokenizer.clone());
        for (row, ask) in rows.into_iter().enumerate() {
            let receiver = RowReceiver { answers: answers.clone(), row };
            engine.run(crate::openai::Ask { priority, deadline_ns, ..ask }, Box::new(receiver));
        }
    }
}
