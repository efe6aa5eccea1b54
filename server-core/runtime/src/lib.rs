//! Where models live: instances and their threads, the life cycle, the journey of a request, statistics.
//!
//! [`Core`] is the server without its front ends. A front end resolves a [`ModelVersion`], hands it a parsed request and
//! reads the answers; dropping what it waits on cancels the request.
#![forbid(unsafe_code)]

mod alarm;
mod backends;
mod batch_io;
mod bls;
mod cache;
mod classify;
mod control;
mod core;
mod ensemble;
mod error;
mod execution;
mod fault;
mod files;
mod fleet;
mod index;
mod instance;
mod journey;
mod labels;
mod lifecycle;
mod lineage;
mod load;
mod lookout;
mod mailbox;
mod model;
mod options;
mod ordering;
mod outputs;
mod overlay;
mod queue;
mod report;
mod sequence;
mod served;
mod services;
mod share;
mod shared_memory;
mod source;
mod state;
mod statistics;
mod stopping;
mod stream;
mod table;
mod text;
mod threads;
mod validate;
mod warmup;

pub use core::Core;
pub use error::ServeError;
pub use journey::StreamItem;
pub use model::ModelVersion;
pub use options::{ControlMode, CoreOptions};
pub use outputs::OutputPlan;
pub use served::Served;
pub use shared_memory::{CudaRegionStatus, RegionStatus, SharedMemory};
pub use source::CAPABILITIES;
pub use state::{IndexEntry, ModelState};
pub use stream::ResponseStream;
pub use trireme_host::abi::LogLevel;
pub use trireme_host::{Document, DocumentCall, PoolSizes, Value};
pub use trireme_scheduling::{StartAfter, Supplies};
