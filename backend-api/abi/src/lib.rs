//! The wire types between the server (the *host*) and a backend library.
//!
//! **This crate contains only types.** No logic, no allocation, no std type crosses the boundary: every type here
//! is `#[repr(C)]`, so that a backend written in C is served by the same interface. Who needs behaviour finds it on
//! either side: `trireme-sdk` for authors of backends, `trireme-host` for the server.
//!
//! * A loaded library is met first through its [`Probe`], a plain C symbol that never changes its shape.
//! * Three objects follow one another: *backend* (one a library), *model* (one a name and version), *instance* (one an
//!   `instance_group` slot). Each has a vtable: [`BackendVtable`], [`ModelVtable`], [`InstanceVtable`].
//! * The host offers [`HostVtable`], [`RequestVtable`] and [`ResponderVtable`].
//! * Vtables and argument structs begin with `struct_size`, the size that their maker knew. A reader looks at a field
//!   only if `struct_size` covers it; so either side may be the older one.
//!
//! Growth, in order of preference: an extension id (`"name/REV"`), a field after the last one, a new constant in an open
//! enum. Anything else is a new major version. The major version is **1**, and frozen: nothing of 1.0 changes.
//!
//! Functions carry tags: `[load-thread]` runs while a model is loaded and may take long; `[instance-thread]` runs on the
//! one OS thread that the instance owns, never concurrently for one instance; `[any-thread]` may be called from
//! everywhere, also concurrently; `[& loaded]`, `[& executing]` name the state in which the call is allowed.
#![allow(non_camel_case_types, non_local_definitions)]

mod args;
mod bls;
mod buffer;
mod device;
mod dtype;
mod fault;
mod host;
mod metrics;
mod models;
mod object;
mod openai;
mod probe;
mod request;
mod responder;
mod status;
mod text;

pub use args::{BackendArgs, BackendInfo, InstanceArgs, InstanceKind, ModelArgs};
pub use args::{BackendArgsPtr, BackendInfoPtr, InstanceArgsPtr, ModelArgsPtr};
pub use bls::{BLS_1, BlsVtable, CallReply, CallerHandle};
pub use buffer::{Buffer, BufferView, MemoryKind};
pub use device::{DEVICE_1, DeviceInfo, DeviceVtable, IpcMemory, MemoryRange};
pub use dtype::DType;
pub use fault::{FAULT_1, FaultVtable};
pub use host::{HostRef, HostVtable, HostVtablePtr, LogLevel, MetricCell, MetricDesc, MetricKind};
pub use metrics::{METRICS_1, MetricSetHandle, MetricsVtable, SeriesDesc};
pub use models::{MODELS_1, ModelsVtable};
pub use object::{
    BackendVtable, BackendVtablePtr, InstanceVtable, InstanceVtablePtr, ModelVtable, ModelVtablePtr,
};
pub use openai::{OPENAI_1, OpenAiAnswer, OpenAiCall, OpenAiModel, OpenAiVtable};
pub use probe::{
    LAYOUT_TAG, LayoutFn, LayoutRoot, LayoutRootRef, PROBE_MAGIC, PROBE_SYMBOL, PanicStrategy, Probe,
    layout_record,
};
pub use request::{
    InputInfo, Parameter, ParameterKind, RequestHandle, RequestItem, RequestVtable, RequestVtablePtr, Stage,
};
pub use responder::{
    OutputTensor, ResponderHandle, ResponderVtable, ResponderVtablePtr, Response, ResponseFlags, SendVerdict,
    Writable,
};
pub use status::{Status, StatusCode};
pub use text::{OwnedText, StrView};

/// Major version of the ABI: a host takes libraries of its own only.
pub const ABI_MAJOR: u16 = 1;
/// Minor version; grows with each field, function, constant or extension that is added. Nobody is refused for it.
pub const ABI_MINOR: u16 = 1;

// Sizes and offsets are those of machines with 64-bit addresses.
const _: () = assert!(size_of::<usize>() == 8);
