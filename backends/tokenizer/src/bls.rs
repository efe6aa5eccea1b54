//! `tensorrt_llm_bls`: text to text, by asking the other three models in turn.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trireme_llm::tensors::Contract;
use trireme_sdk::{
    Answer, Call, Caller, DataType, Error, ModelContext, Request, Responder, Response, Result,
};

use crate::{output_names, parameters};

/// A tensor of one model, and its name in the next one.
type Names = [(&'static str, &'static str)];

const TO_PREPROCESSING: &Names = &[
    ("text_input", "QUERY"),
    ("max_tokens", "REQUEST_OUTPUT_LEN"),
    ("bad_words", "BAD_WORDS_DICT"),
    ("stop_words", "STOP_WORDS_DICT"),
    ("embedding_bias_words", "EMBEDDING_BIAS_WORDS"),
    ("embedding_bias_weights", "EMBEDDING_BIAS_WEIGHTS"),
    ("end_id", "END_ID"),
    ("pad_id", "PAD_ID"),
];

const TO_ENGINE: &Names = &[
    ("top_k", "runtime_top_k"),
    ("top_p", "runtime_top_p"),
    ("temperature", "temperature"),
    ("length_penalty", "len_penalty"),
    ("repetition_penalty", "repetition_penalty"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("min_tokens", "min_tokens"),
    ("seed", "seed"),
    ("beam_width", "beam_width"),
    ("num_return_sequences", "num_return_sequences"),
    ("exclude_input_in_output", "exclude_input_in_output"),
    ("return_log_probs", "return_log_probs"),
    ("return_num_input_tokens", "return_num_input_tokens"),
    ("return_num_output_tokens", "return_num_output_tokens"),
    ("guided_decoding_guide_type", "guided_decoding_guide_type"),
    ("guided_decoding_guide", "guided_decoding_guide"),
    ("stream", "streaming"),
];

const FROM_PREPROCESSING: &Names = &[
    ("INPUT_ID", "input_ids"),
    ("REQUEST_INPUT_LEN", "input_lengths"),
    ("REQUEST_OUTPUT_LEN", "request_output_len"),
    ("BAD_WORDS_IDS", "bad_words_list"),
    ("STOP_WORDS_IDS", "stop_words_list"),
    ("EMBEDDING_BIAS", "embedding_bias"),
    ("OUT_END_ID", "end_id"),
    ("OUT_PAD_ID", "pad_id"),
];

const CONTRACT: Contract = Contract {
    what: "a model 'tensorrt_llm_bls'",
    inputs: &[
        ("text_input", DataType::Bytes),
        ("max_tokens", DataType::Int32),
        ("bad_words", DataType::Bytes),
        ("stop_words", DataType::Bytes),
        ("embedding_bias_words", DataType::Bytes),
        ("embedding_bias_weights", DataType::Fp32),
        ("end_id", DataType::Int32),
        ("pad_id", DataType::Int32),
        ("top_k", DataType::Int32),
        ("top_p", DataType::Fp32),
        ("temperature", DataType::Fp32),
        ("length_penalty", DataType::Fp32),
        ("repetition_penalty", DataType::Fp32),
        ("presence_penalty", DataType::Fp32),
        ("frequency_penalty", DataType::Fp32),
        ("min_tokens", DataType::Int32),
        ("seed", DataType::Uint64),
        ("beam_width", DataType::Int32),
        ("num_return_sequences", DataType::Int32),
        ("exclude_input_in_output", DataType::Bool),
        ("return_log_probs", DataType::Bool),
        ("return_num_input_tokens", DataType::Bool),
        ("return_num_output_tokens", DataType::Bool),
        ("guided_decoding_guide_type", DataType::Bytes),
        ("guided_decoding_guide", DataType::Bytes),
        ("stream", DataType::Bool),
    ],
    refused: &[
        "decoder_text_input",
        "image_input",
        "image_bytes_input",
        "image_url_input",
        "video_bytes_input",
        "lora_config",
        "lora_task_id",
        "lora_weights",
        "num_draft_tokens",
        "use_draft_logits",
        "prompt_embedding_table",
        "prompt_table_extra_id",
        "prompt_vocab_size",
        "return_context_logits",
        "return_generation_logits",
        "return_perf_metrics",
    ],
    outputs: &[
        ("text_output", DataType::Bytes),
        ("cum_log_probs", DataType::Fp32),
        ("output_log_probs", DataType::Fp32),
        ("batch_index", DataType::Int32),
        ("sequence_index", DataType::Int32),
        ("num_input_tokens", DataType::Int32),
        ("num_output_tokens", DataType::Int32),
    ],
    absent: &[
        "context_logits",
        "generation_logits",
        "kv_cache_alloc_new_blocks",
        "kv_cache_reused_blocks",
        "kv_cache_alloc_total_blocks",
        "arrival_time_ns",
        "first_scheduled_time_ns",
        "first_token_time_ns",
        "last_token_time_ns",
        "acceptance_rate",
        "total_accepted_draft_tokens",
        "total_draft_tokens",
    ],
};

pub(crate) struct Bls {
    preprocessing: String,
    engine: String,
    postprocessing: String,
    outputs: Vec<String>,
    accumulate: bool,
    decoupled: bool,
}

impl Bls {
    pub(crate) fn load(context: &ModelContext) -> Result<Self> {
        CONTRACT.check(&context.config)?;
        let draft = "tensorrt_llm_draft_model_name";
        if parameters::text(context, draft)?.is_some() {
            return Err(Error::unsupported(format!(
                "parameter '{draft}' asks for speculative decoding, which is not supported: leave it out"
            )));
        }
        let names = ["preprocessing_model_name", "tensorrt_llm_model_name", "postprocessing_model_name"];
        let [before, engine, after] = names;
        parameters::check(context, &["accumulate_tokens", before, engine, after, draft])?;
        let model = |name, default: &str| -> Result<String> {
            Ok(parameters::text(context, name)?.unwrap_or_else(|| default.to_owned()))
        };
        Ok(Self {
            preprocessing: model(before, "preprocessing")?,
            engine: model(engine, "tensorrt_llm")?,
            postprocessing: model(after, "postprocessing")?,
            outputs: output_names(&context.config)?,
            accumulate: parameters::flag(context, "accumulate_tokens", false)?,
            decoupled: context.config.is_decoupled(),
        })
    }

    pub(crate) fn answer(self: &Arc<Self>, request: Request) {
        let started = self.begin(&request).and_then(|calls| Ok((calls, request.caller()?)));
        let ((before, engine, stream), caller) = match started {
            Ok(started) => started,
            Err(error) => return request.fail(error),
        };
        let mut responder = request.into_responder();
        responder.computing();
        let answering = Arc::new(Answering {
            model: Arc::clone(self),
            caller: caller.clone(),
            accumulates: self.accumulate && stream,
            state: Mutex::new(State { responder: Some(responder), ..State::default() }),
        });
        caller.call(before, move |answer| {
            let call = answer.and_then(|answer| passed(engine, &answer, FROM_PREPROCESSING));
            match call {
                Err(error) => answering.fail(error),
                Ok(call) => {
                    let caller = answering.caller.clone();
                    caller.call_each(call, move |answer, last| answering.engine_said(answer, last));
                }
            }
        });
    }

    /// The call of `preprocessing`, what goes to the engine beside its answer, and whether that is to stream.
    fn begin(&self, request: &Request) -> Result<(Call, Call, bool)> {
        CONTRACT.refuse(request)?;
        let stream = request.optional_input("stream").map(|input| input.value::<bool>()).transpose()?;
        let stream = stream.unwrap_or(false);
        if stream && !self.decoupled {
            return Err(Error::invalid(
                "input 'stream' is true, but the model is not decoupled: set model_transaction_policy { decoupled: true }",
            ));
        }
        let (mut before, mut engine) = (Call::new(&self.preprocessing), Call::new(&self.engine));
        for input in request.inputs() {
            let renamed =
                |names: &Names| names.iter().find(|(own, _)| *own == input.name()).map(|(_, to)| *to);
            if let Some(name) = renamed(TO_PREPROCESSING) {
                before = before.forward(name, request, &input)?;
            } else if let Some(name) = renamed(TO_ENGINE) {
                engine = engine.forward(name, request, &input)?;
            }
        }
        Ok((before, engine, stream))
    }
}

/// Adds the tensors of an answer to a call, under the names that they have there.
fn passed(call: Call, answer: &Answer, names: &Names) -> Result<Call> {
    let present = names.iter().filter(|(name, _)| answer.names().any(|one| one == *name));
    present.into_iter().try_fold(call, |call, (name, to)| {
        call.raw(to, answer.data_type(name)?, answer.shape(name)?, answer.data(name)?.to_vec())
    })
}

/// A request that the engine is at.
struct Answering {
    model: Arc<Bls>,
    caller: Caller,
    /// Each answer has all the text so far.
    accumulates: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Taken when all is said.
    responder: Option<Responder>,
    /// Answers of the engine that are not text yet, and whether each is the last one.
    waiting: VecDeque<(Answer, bool)>,
    /// One of them is with `postprocessing`; the next one waits, so that texts keep their order.
    busy: bool,
    /// All tokens of a stream so far, where they are accumulated.
    tokens: Vec<i32>,
    /// The one answer of a model that is not decoupled.
    whole: Option<Response>,
}

impl Answering {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: Error) {
        let responder = self.lock().responder.take();
        if let Some(responder) = responder {
            responder.fail(error);
        }
    }

    fn engine_said(self: &Arc<Self>, answer: Result<Answer>, last: bool) {
        match answer {
            Err(error) => return self.fail(error),
            Ok(answer) => self.lock().waiting.push_back((answer, last)),
        }
        self.go_on();
    }

    /// Sends the next answer to `postprocessing`, if none is there.
    fn go_on(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.busy || state.responder.is_none() {
            return;
        }
        let Some((answer, last)) = state.waiting.pop_front() else { return };
        if answer.is_empty() {
            drop(state);
            return self.end(last);
        }
        state.busy = true;
        let call = self.to_text(&answer, &mut state.tokens);
        drop(state);
        match call {
            Err(error) => self.fail(error),
            Ok(call) => {
                let own = Arc::clone(self);
                self.caller.call(call, move |text| own.text_came(answer, text, last));
            }
        }
    }

    fn to_text(&self, answer: &Answer, tokens: &mut Vec<i32>) -> Result<Call> {
        let call = Call::new(&self.model.postprocessing);
        if !self.accumulates {
            return passed(
                call,
                answer,
                &[("output_ids", "TOKENS_BATCH"), ("sequence_length", "SEQUENCE_LENGTH")],
            );
        }
        tokens.extend_from_slice(&answer.values::<i32>("output_ids")?);
        let count = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
        let call = call.tensor("TOKENS_BATCH", &[1, 1, i64::from(count)], tokens.clone())?;
        call.tensor("SEQUENCE_LENGTH", &[1, 1], vec![count])
    }

    fn text_came(self: &Arc<Self>, mut answer: Answer, text: Result<Answer>, last: bool) {
        let response = text.and_then(|mut text| {
            let response = text.move_into("OUTPUT", Response::new(), "text_output")?;
            let own = |name: &&String| self.model.outputs.contains(name);
            let names: Vec<String> = answer.names().map(str::to_owned).collect();
            let passed = names.iter().filter(own);
            passed.into_iter().try_fold(response, |response, name| answer.move_into(name, response, name))
        });
        match response {
            Err(error) => return self.fail(error),
            Ok(response) => {
                let mut state = self.lock();
                state.busy = false;
                match state.responder.as_mut() {
                    Some(responder) if self.model.decoupled => {
                        // A cancelled request has cancelled the engine's, which ends this.
                        let _ = responder.send(response);
                    }
                    _ => state.whole = Some(response),
                }
            }
        }
        self.end(last);
    }

    /// After an answer: the end, or the next one.
    fn end(self: &Arc<Self>, last: bool) {
        if !last {
            return self.go_on();
        }
        let mut state = self.lock();
        let Some(mut responder) = state.responder.take() else { return };
        let whole = state.whole.take();
        drop(state);
        responder.computed();
        match whole {
            Some(response) => responder.finish(response),
            None if self.model.decoupled => responder.close(),
            None => responder.fail(Error::internal("the engine gave no answer")),
        }
    }
}
