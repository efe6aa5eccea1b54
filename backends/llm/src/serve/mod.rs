//! A decoder as a model of a backend: all that lies between the ABI and an [`Executor`](crate::executor::Executor).
//!
//! So a backend for language models is thin. It opens the checkpoint, says how its executor is made, and passes on:
//!
//! ```text
//! Backend::complete_config  ─▶ text_config
//! Backend::load             ─▶ Decoder::load(context, checkpoint, parameters, make)
//! Model::create_instance    ─▶ Decoder::instance
//! Model::openai_endpoints   ─▶ Decoder::openai_endpoints
//! Instance::execute, drain  ─▶ DecoderInstance::execute, drain
//!
//! make: Fn(&Sizes) -> Result<Box<dyn Executor>>     the backend's own part; called again if an executor has failed
//! ```
//! A model has one engine, which all its instances share. An instance hands its requests over and is free at once, so
//! `Info::max_in_flight` stays 0: how many may wait is the engine's to say (`max_queue_size` of the configuration).
//! The rows of the parameters are [`crate::params::PARAMETERS`]; what of them an executor is to keep is in [`Sizes`].

mod decoder;
mod generator;
mod instance;
mod metrics;
mod sizes;
mod text;

pub use decoder::{Decoder, MakeExecutor};
pub use instance::DecoderInstance;
pub use sizes::Sizes;
pub use text::text_config;
