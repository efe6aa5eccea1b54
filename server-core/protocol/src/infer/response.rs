//! The inference answer, the same whichever door it leaves through.

use bytes::Bytes;

use crate::dtype::DataType;
use crate::infer::parameters::Parameters;
use crate::infer::request::{HeldTensor, SharedMemoryRef};
use crate::shape::Shape;

/// One answer to an inference request.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct InferResponse {
    /// The request's id; empty where it had none.
    pub id: String,
    /// The model that answered.
    pub model_name: String,
    /// Its version; written as a string on the wire.
    pub model_version: i64,
    /// Parameters of the answer.
    pub parameters: Parameters,
    /// The outputs, in the order they are sent.
    pub outputs: Vec<OutputTensor>,
}

/// One output of an answer.
#[derive(Clone, PartialEq, Debug)]
pub struct OutputTensor {
    /// The output's name.
    pub name: String,
    /// The type of its elements.
    pub datatype: DataType,
    /// Its dimensions, the batch dimension included.
    pub shape: Shape,
    /// Little endian, C order, framed for BYTES. Empty where the tensor went into shared memory.
    pub data: Bytes,
    /// Whether an HTTP answer carries it as binary data; gRPC always does.
    pub binary: bool,
    /// The region that the tensor was written into, if it was.
    pub shared_memory: Option<SharedMemoryRef>,
    /// Set if the tensor is where the protocol cannot read it; then `data` is empty. Only who asked for it gets one.
    pub held: Option<HeldTensor>,
}
