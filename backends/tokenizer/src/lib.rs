//! The models that TensorRT-LLM's Triton backend has around the engine, with their tensor names, types and shapes:
//! `preprocessing` (text to token ids), `postprocessing` (token ids to text) and `tensorrt_llm_bls` (both, and the engine
//! in between). Upstream writes them in Python; their configurations serve here as they are, with
//! `backend: "tokenizer"` or by `--backend-fallback python=tokenizer`.
//!
//! Which of them a model is, its inputs say.
#![forbid(unsafe_code)]

mod bls;
mod parameters;
mod postprocessing;
mod preprocessing;
mod words;

use std::sync::Arc;

use trireme_sdk::{
    Config, Error, Instance, InstanceContext, LoadModel, Model, ModelContext, Request, Result, Stateless,
};

use bls::Bls;
use postprocessing::Postprocessing;
use preprocessing::Preprocessing;

/// A model of the family.
#[derive(Clone)]
enum Tokenize {
    Before(Arc<Preprocessing>),
    After(Arc<Postprocessing>),
    Around(Arc<Bls>),
}

impl LoadModel for Tokenize {
    fn load(context: ModelContext) -> Result<Self> {
        let inputs = context.config.inputs()?;
        let has = |name: &str| inputs.iter().any(|input| input.name == name);
        if has("QUERY") {
            Ok(Self::Before(Arc::new(Preprocessing::load(&context)?)))
        } else if has("TOKENS_BATCH") {
            Ok(Self::After(Arc::new(Postprocessing::load(&context)?)))
        } else if has("text_input") {
            Ok(Self::Around(Arc::new(Bls::load(&context)?)))
        } else {
            Err(Error::unsupported(
                "the backend 'tokenizer' runs the models 'preprocessing' (input 'QUERY'), 'postprocessing' (input \
                 'TOKENS_BATCH') and 'tensorrt_llm_bls' (input 'text_input') of TensorRT-LLM's repository, and this \
                 configuration has none of these inputs; it runs no Python",
            ))
        }
    }
}

impl Model for Tokenize {
    type Instance = Self;

    fn create_instance(&self, _: InstanceContext) -> Result<Self> {
        Ok(self.clone())
    }
}

impl Instance for Tokenize {
    fn execute(&mut self, batch: Vec<Request>) {
        for request in batch {
            match self {
                Self::Before(model) => request.answer(|request| model.answer(request)),
                Self::After(model) => request.answer(|request| model.answer(request)),
                Self::Around(model) => model.answer(request),
            }
        }
    }
}

/// The names of a configuration's outputs: what an answer may have in it.
fn output_names(config: &Config) -> Result<Vec<String>> {
    Ok(config.outputs()?.into_iter().map(|output| output.name).collect())
}

trireme_sdk::export_backend!(Stateless<Tokenize>, name = "tokenizer");
