//! The safe API in which a backend for the Trireme inference server is written.
//!
//! A backend is a dynamic library `libtrireme_<name>.so`. Its author implements three traits, one for each object that
//! the server makes, and exports the first:
//!
//! * [`Backend`]: one a library. Says what it needs and loads models.
//! * [`Model`]: one a model and version. Makes instances.
//! * [`Instance`]: one an `instance_group` slot, on a thread of its own. Runs batches.
//!
//! ```
//! use trireme_sdk::{Instance, InstanceContext, LoadModel, Model, ModelContext, Request, Response, Result, Stateless};
//!
//! struct Doubler;
//!
//! impl LoadModel for Doubler {
//!     fn load(_: ModelContext) -> Result<Doubler> {
//!         Ok(Doubler)
//!     }
//! }
//!
//! impl Model for Doubler {
//!     type Instance = Doubler;
//!     fn create_instance(&self, _: InstanceContext) -> Result<Doubler> {
//!         Ok(Doubler)
//!     }
//! }
//!
//! impl Instance for Doubler {
//!     fn execute(&mut self, batch: Vec<Request>) {
//!         for request in batch {
//!             request.answer(|request| {
//!                 let input = request.input("INPUT0")?;
//!                 let doubled: Vec<f32> = input.values::<f32>()?.iter().map(|x| x * 2.0).collect();
//!                 Response::new().tensor("OUTPUT0", input.shape(), doubled)
//!             });
//!         }
//!     }
//! }
//!
//! trireme_sdk::export_backend!(Stateless<Doubler>, name = "doubler");
//! # fn main() {}
//! ```
//!
//! A backend that keeps something for all its models implements [`Backend`] itself in the place of [`LoadModel`].
//!
//! All of it is safe: a crate that uses this one can be `#![forbid(unsafe_code)]`. A panic is fenced: its batch is
//! answered INTERNAL and the instance is replaced.

mod answer;
mod backend;
mod bytes;
mod call;
mod config;
mod element;
mod error;
mod fence;
mod host;
mod input;
mod memory;
mod metrics;
mod models;
mod openai;
mod provider;
mod request;
mod respond;
mod response;
mod wire;

/// What [`export_backend!`] expands to; not for direct use.
#[doc(hidden)]
pub mod export;

pub use answer::Answer;
pub use backend::{
    Backend, BackendContext, Devices, Info, Instance, InstanceContext, LoadModel, Model, ModelContext,
    Stateless,
};
pub use bytes::{BytesError, bytes_elements, encode_bytes};
pub use call::{Call, Caller};
pub use config::{Config, ConfigPatch, TensorConfig};
pub use element::{DataType, Element};
pub use error::{Error, ErrorCode, Result};
pub use host::Host;
pub use input::Input;
pub use memory::{DeviceView, Exported, Memory};
pub use metrics::{Counter, Gauge, Histogram, MetricSet};
pub use models::{ModelLoad, Models};
pub use openai::{OpenAiCall, OpenAiError};
pub use provider::{DeviceDescription, DeviceProvider, Place};
pub use request::{Parameter, Request};
pub use respond::{Responder, Verdict};
pub use response::Response;
pub use trireme_abi::InstanceKind;
