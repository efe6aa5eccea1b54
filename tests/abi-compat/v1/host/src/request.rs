use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use trireme_abi::DType;

use crate::device::DeviceTensor;
use crate::openai::DocumentCall;
use crate::response::Responder;

/// Dimensions, outermost first.
pub type Shape = SmallVec<[i64; 6]>;

/// One request of a batch, with the right to answer it.
pub struct Item {
    /// What is asked.
    pub request: Box<Request>,
    /// Where the answer goes.
    pub responder: Responder,
}

/// The request object, from the wire to the backend. Whoever makes one has checked it against the model:
/// shape × type = length, BYTES framed, inputs known and in the order of the configuration.
#[derive(Debug)]
pub struct Request {
    /// The client's name for it, or empty.
    pub id: String,
    /// The inputs that are present.
    pub inputs: SmallVec<[Input; 2]>,
    /// Parameters for the model.
    pub parameters: Vec<(String, Value)>,
    /// The outputs that the client wants.
    pub wanted: OutputSet,
    /// Elements in the batch dimension; 1 if the model does not batch.
    pub batch_size: u32,
    /// 0 if none was given.
    pub priority: u64,
    /// Nanoseconds of the monotonic clock; 0: none.
    pub deadline_ns: u64,
    /// The sequence that it belongs to.
    pub correlation: Correlation,
    /// W3C `traceparent`, or empty.
    pub trace_parent: String,
    /// Set if it is a call of OpenAI's API; then there are no inputs.
    pub document: Option<DocumentCall>,
    /// The names of the model's inputs; [`Input::index`] points into it.
    pub names: Arc<[Box<str>]>,
}

impl Request {
    /// Bytes of all inputs together.
    pub fn byte_size(&self) -> usize {
        self.inputs.iter().map(Input::byte_size).sum()
    }
}

/// One input. A clone shares its bytes.
#[derive(Debug, Clone)]
pub struct Input {
    /// Number of the input in the configuration.
    pub index: u16,
    /// Type of its elements.
    pub dtype: DType,
    /// Batch dimension first if the model batches.
    pub shape: Shape,
    /// The data, one piece after the other; slices of what was received. None for a tensor without elements.
    pub buffers: SmallVec<[Bytes; 1]>,
    /// Set if the data is on a device; then there are no `buffers`.
    pub device: Option<DeviceTensor>,
}

impl Input {
    /// Bytes of the data, wherever it is.
    pub fn byte_size(&self) -> usize {
        let host: usize = self.buffers.iter().map(Bytes::len).sum();
        host + self.device.as_ref().map_or(0, DeviceTensor::byte_size)
    }
}

/// A parameter's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Double(f64),
    /// A text.
    String(String),
}

/// A sequence's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Correlation {
    /// Not part of a sequence.
    None,
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

/// A set of output numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSet {
    words: SmallVec<[u64; 1]>,
}

impl OutputSet {
    /// None of `count` outputs.
    pub fn none(count: usize) -> Self {
        Self { words: SmallVec::from_elem(0, count.div_ceil(64)) }
    }

    /// All of `count` outputs.
    pub fn all(count: usize) -> Self {
        let mut set = Self::none(count);
        (0..count).for_each(|output| set.insert(output));
        set
    }

    /// Adds output `output`.
    pub fn insert(&mut self, output: usize) {
        if let Some(word) = self.words.get_mut(output / 64) {
            *word |= 1 << (output % 64);
        }
    }

    /// Whether output `output` is in the set.
    pub fn contains(&self, output: usize) -> bool {
        self.words.get(output / 64).is_some_and(|word| word >> (output % 64) & 1 == 1)
    }
}
