//! What every engine for language models shares, and no engine writes again.
//!
//! * [`checkpoint`]: weights, hyper-parameters, tokenizer and chat template of a model as they lie on disk
//! * [`tokenizer`]: text to token ids, and ids back to text piece by piece
//! * [`chat`]: messages to the prompt that the model was trained on
//! * [`sampling`]: the next token from logits, reproducible by seed
//! * [`stop`]: when a text ends, and what of it may be shown before that is known
//! * [`engine`]: in-flight batching of many texts at a time
//! * [`profile`]: the shapes that steps may have
//! * [`executor`]: the waist to what computes, in packed steps over slots and blocks
//! * [`kv`]: which sequence holds which block, and what is in it
//! * [`grammar`]: answers of a form, JSON of a schema for one
//! * [`openai`]: OpenAI's API, from the body of a call to the objects of its answer
//! * [`serve`]: all of these as a model of a backend, over any executor
//! * [`tensors`]: requests of token ids, by TensorRT-LLM's contract
//! * [`plan`]: `model.plan`, a checkpoint in one file
//! * [`params`]: the table of `config.pbtxt` parameters that engines understand
//!
//! Nothing here computes a layer: that is the backend's part, behind [`executor::Executor`].
#![deny(unsafe_code)]

pub mod chat;
pub mod checkpoint;
pub mod engine;
pub mod executor;
pub mod grammar;
pub mod kv;
pub mod openai;
pub mod params;
pub mod plan;
pub mod profile;
pub mod sampling;
pub mod serve;
pub mod stop;
pub mod tensors;
pub mod tokenizer;
