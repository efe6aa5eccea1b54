//! The loading side of the backend ABI: finds out whether a library is a backend that this server can use, and wraps
//! what it offers into handles that cannot be misused.
//!
//! The server's own data ([`Request`], [`Response`]) has no wire type in it; the vtables through which a backend reads
//! it are in `vtables`. Nothing else in the server touches a raw pointer.

mod backend;
mod bls;
mod callback;
pub mod check;
mod device;
mod elf;
mod error;
mod fault;
mod layout;
mod library;
mod memory;
mod metrics;
mod models;
mod openai;
mod request;
mod response;
mod services;
mod status;
mod vtables;
mod wire;

/// The wire types, for the few open enums that the server passes on.
pub use trireme_abi as abi;

pub use backend::{Backend, Instance, InstanceArgs, Model, ModelArgs};
pub use bls::{CallReader, Message};
pub use device::{
    DeviceCopies, DeviceTensor, PoolSizes, device_copies, has_devices, open_shared, set_pool_sizes,
};
pub use error::LoadError;
pub use library::{Library, LibraryInfo, LoadOptions};
pub use memory::{HostMemory, copied_bytes, count_copied};
pub use metrics::Series;
pub use openai::{Document, DocumentCall};
pub use request::{Correlation, Input, Item, OutputSet, Request, Shape, Value};
pub use response::{Output, Responder, Response, ResponseSink, Verdict};
pub use services::{HostServices, MetricSet};
pub use status::Status;
