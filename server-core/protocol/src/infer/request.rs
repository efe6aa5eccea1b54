//! The parsed inference request, the same whichever door it came through.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::dtype::DataType;
use crate::infer::parameters::Parameters;
use crate::shape::Shape;

/// One inference request as the runtime takes it. Names, sizes and BYTES framing agree with each other;
/// nothing here has been compared with the model's own table of tensors yet.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct InferRequest {
    /// The model asked for.
    pub model_name: String,
    /// The version asked for; `None` lets the server choose.
    pub model_version: Option<i64>,
    /// The caller's name for the request; may be empty.
    pub id: String,
    /// Which sequence the request belongs to, and whether it opens or closes it.
    pub sequence: SequenceControl,
    /// 0 is the model's default level, 1 the most urgent.
    pub priority: u64,
    /// How long the request may wait in the queue, in microseconds; 0 is no bound of its own.
    pub timeout_us: u64,
    /// Send an empty last message when a decoupled model ends with flags only.
    pub enable_empty_final_response: bool,
    /// The format of outputs that do not say their own: binary if true, JSON if false.
    pub binary_data_output: bool,
    /// Everything else the caller set, for the model.
    pub parameters: Parameters,
    /// The inputs, in the order they came.
    pub inputs: Vec<InputTensor>,
    /// The outputs asked for; empty means all of them.
    pub outputs: Vec<RequestedOutput>,
}

impl InferRequest {
    /// An empty request for a model.
    pub fn new(model_name: impl Into<String>, model_version: Option<i64>) -> Self {
        Self { model_name: model_name.into(), model_version, ..Self::default() }
    }

    /// Whether the HTTP answer carries this output as binary data.
    #[must_use]
    pub fn wants_binary(&self, output: &str) -> bool {
        let asked = self.outputs.iter().find(|o| o.name == output);
        asked.and_then(|o| o.binary).unwrap_or(self.binary_data_output)
    }

    /// The request's name in error texts: its id, or `<id_unknown>`.
    #[must_use]
    pub fn id_for_errors(&self) -> &str {
        if self.id.is_empty() { "<id_unknown>" } else { &self.id }
    }
}

/// The sequence that a request belongs to.
#[derive(Clone, Eq, PartialEq, Debug, Default)]
pub struct SequenceControl {
    /// `None` where the request named no sequence.
    pub id: Option<SequenceId>,
    /// First request of the sequence.
    pub start: bool,
    /// Last request of the sequence.
    pub end: bool,
}

/// A sequence's name: a number or a text. 0 and the empty text stand for "no sequence".
#[derive(Clone, Eq, PartialEq, Hash, Debug)]
pub enum SequenceId {
    /// A number other than 0.
    Number(u64),
    /// A text of 1 to 128 characters.
    Text(String),
}

/// One input of a request.
#[derive(Clone, PartialEq, Debug)]
pub struct InputTensor {
    /// The input's name.
    pub name: String,
    /// The type of its elements.
    pub datatype: DataType,
    /// Its dimensions, the batch dimension included; none is negative.
    pub shape: Shape,
    /// Where its bytes are.
    pub data: TensorData,
}

/// Where a tensor's bytes are.
#[derive(Clone, PartialEq, Debug)]
pub enum TensorData {
    /// The bytes themselves: little endian, C order, no alignment promised. From a binary or gRPC request
    /// they are a slice of what was received.
    Bytes(Bytes),
    /// A part of a region that the caller registered.
    SharedMemory(SharedMemoryRef),
    /// Where only who put it there can read it. Never from the wire.
    Held(HeldTensor),
}

/// Memory that the protocol cannot read, as that of a GPU, on its way between those who can.
#[derive(Clone)]
pub struct HeldTensor {
    /// Length in bytes.
    pub byte_size: u64,
    /// What it is, for who knows the type.
    pub memory: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for HeldTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes elsewhere", self.byte_size)
    }
}

/// The same memory.
impl PartialEq for HeldTensor {
    fn eq(&self, other: &Self) -> bool {
        self.byte_size == other.byte_size && Arc::ptr_eq(&self.memory, &other.memory)
    }
}

impl Eq for HeldTensor {}

/// A part of a registered shared-memory region.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct SharedMemoryRef {
    /// The region's registered name.
    pub region: String,
    /// First byte, counted from the region's start.
    pub offset: u64,
    /// Length in bytes.
    pub byte_size: u64,
}

/// One output that the request asks for.
#[derive(Clone, Eq, PartialEq, Debug, Default)]
pub struct RequestedOutput {
    /// The output's name.
    pub name: String,
    /// Binary or JSON in an HTTP answer; `None` follows the request's `binary_data_output`.
    pub binary: Option<bool>,
    /// Answer with the k best classes instead of the tensor.
    pub classification: Option<u32>,
    /// Write the tensor into this region instead of the answer.
    pub shared_memory: Option<SharedMemoryRef>,
}
