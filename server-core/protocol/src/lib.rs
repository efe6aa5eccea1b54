//! KServe v2 on the wire: messages, JSON, binary tensors, data types, limits.
#![forbid(unsafe_code)]

/// The messages of the package `inference`, generated from `proto/`.
pub mod proto {
    #![allow(clippy::all, unreachable_pub, missing_docs)]
    tonic::include_proto!("inference");
    /// The serialised `FileDescriptorSet` of all protos.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    /// The standard health service.
    pub mod health {
        tonic::include_proto!("grpc.health.v1");
    }
}
