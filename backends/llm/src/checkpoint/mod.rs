//! Checkpoints: weights, hyper-parameters, tokenizer and chat template of a model as they lie on disk.
//!
//! [`Checkpoint::open`] takes a Hugging Face folder (`config.json` and `*.safetensors`), a `.gguf` file or a `model.plan`
//! (see [`crate::plan`]). Any way
//! the weights are found by their Hugging Face name, stay as they are on disk (quantised blocks included) and are
//! mapped, not read.

mod bert;
mod config;
mod decoder;
mod dummy;
mod error;
mod files;
mod generation;
pub(crate) mod gguf;
mod hf;
mod index;
mod json;
mod limits;
mod mapping;
mod open;
mod registry;
mod safetensors;
mod text;
mod vocabulary;
mod weight;
mod weight_type;

pub use config::{Architecture, BertConfig, Pooling, RopeLayout};
pub use decoder::{DecoderConfig, Rope, RopeScaling};
pub use dummy::DummyNumbers;
pub use error::{CheckpointError, CheckpointErrorKind};
pub use generation::GenerationDefaults;
pub(crate) use mapping::Mapping;
pub use open::Checkpoint;
pub use text::ChatTemplateSource;
pub use vocabulary::Vocabulary;
pub use weight::Weight;
pub use weight_type::{WeightType, q4_k_scales};
