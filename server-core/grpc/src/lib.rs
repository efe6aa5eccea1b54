//! The gRPC front end: every call of `inference.GRPCInferenceService`, and `grpc.health.v1.Health/Check`.
//!
//! hyper speaks HTTP/2, tonic frames the messages of all calls but the hot one (`infer`). A client that cancels or goes
//! away drops the call's future, or the stream of its answers; that cancels the request in the core.
#![forbid(unsafe_code)]

mod access;
mod connection;
mod deadline;
mod health;
mod infer;
mod memory;
mod message;
mod options;
mod pace;
mod reply;
mod repository;
mod serve;
mod service;
mod settings;
mod status;
mod stream;
mod tls;

pub use options::GrpcOptions;
pub use serve::serve;
pub use tls::{Tls, TlsError};
