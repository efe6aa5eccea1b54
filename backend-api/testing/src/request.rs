use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use trireme_conformance::client::Counted;
use trireme_host::abi::{DType, StatusCode};
use trireme_host::{Correlation, Item, OutputSet, Responder, Value};
use trireme_sdk::{DataType, encode_bytes};

use crate::answer::Answer;
use crate::model::Model;
use crate::sink::Sink;

/// Longer than any test should take.
const LIMIT: Duration = Duration::from_secs(20);

/// A request that is being put together. What does not fit the configuration panics: a server would not let it through.
pub struct Request<'a> {
    model: &'a Model,
    request: Box<trireme_host::Request>,
    outputs: Option<OutputSet>,
    capacity: usize,
}

/// Values that can be a tensor's elements.
pub trait IntoTensor {
    /// The type of the elements.
    const DATA_TYPE: DataType;
    /// Adds the value's bytes: little endian, BYTES framed.
    fn put(&self, data: &mut Vec<u8>);
}

macro_rules! numbers {
    ($($ty:ty => $dtype:ident;)*) => {$(
        impl IntoTensor for $ty {
            const DATA_TYPE: DataType = DataType::$dtype;
            fn put(&self, data: &mut Vec<u8>) {
                data.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

numbers! {
    u8 => Uint8;
    u16 => Uint16;
    u32 => Uint32;
    u64 => Uint64;
    i8 => Int8;
    i16 => Int16;
    i32 => Int32;
    i64 => Int64;
    f32 => Fp32;
    f64 => Fp64;
}

impl IntoTensor for bool {
    const DATA_TYPE: DataType = DataType::Bool;
    fn put(&self, data: &mut Vec<u8>) {
        data.push(u8::from(*self));
    }
}

impl IntoTensor for &str {
    const DATA_TYPE: DataType = DataType::Bytes;
    fn put(&self, data: &mut Vec<u8>) {
        data.extend(encode_bytes(&[self]));
    }
}

impl<'a> Request<'a> {
    pub(crate) fn new(model: &'a Model) -> Self {
        let request = Box::new(trireme_host::Request {
            id: String::new(),
            inputs: SmallVec::new(),
            parameters: Vec::new(),
            wanted: OutputSet::all(model.config.outputs.len()),
            batch_size: 1,
            priority: 0,
            deadline_ns: 0,
            document: None,
            correlation: Correlation::None,
            trace_parent: String::new(),
            names: model.config.inputs.iter().map(|tensor| tensor.name.as_str().into()).collect(),
        });
        Self { model, request, outputs: None, capacity: usize::MAX }
    }

    /// Adds an input.
    #[must_use]
    pub fn input<T: IntoTensor>(self, name: &str, shape: &[i64], values: &[T]) -> Self {
        let count: i64 = shape.iter().product();
        assert_eq!(count, values.len() as i64, "input '{name}': number of values for the shape {shape:?}");
        let mut data = Vec::new();
        values.iter().for_each(|value| value.put(&mut data));
        self.raw(name, T::DATA_TYPE, shape, &[data])
    }

    /// Adds an input as bytes in pieces, as they may come from the network.
    #[must_use]
    pub fn raw(mut self, name: &str, data_type: DataType, shape: &[i64], pieces: &[Vec<u8>]) -> Self {
        let config = &self.model.config;
        let index = config.input_index(name);
        if let Some(difference) = config.inputs[index].difference(config.batches, data_type as u32, shape) {
            panic!("input: {difference}");
        }
        if config.batches {
            self.request.batch_size = u32::try_from(shape[0]).expect("a batch size");
        }
        let keep = |piece: &Vec<u8>| Bytes::from_owner(Counted::new(piece, &self.model.live));
        let input = trireme_host::Input {
            index: index as u16,
            dtype: DType(data_type as u32),
            shape: SmallVec::from_slice(shape),
            buffers: pieces.iter().map(keep).collect(),
            device: None,
        };
        let at = self.request.inputs.iter().position(|other| other.index > input.index);
        self.request.inputs.insert(at.unwrap_or(self.request.inputs.len()), input);
        self
    }

    /// Asks for this output; without it, for all.
    #[must_use]
    pub fn output(mut self, name: &str) -> Self {
        let outputs = &self.model.config.outputs;
        let index = outputs.iter().position(|tensor| tensor.name == name);
        let set = self.outputs.get_or_insert_with(|| OutputSet::none(outputs.len()));
        set.insert(index.unwrap_or_else(|| panic!("the configuration has no output '{name}'")));
        self
    }

    /// Adds a parameter.
    #[must_use]
    pub fn parameter(mut self, name: &str, value: Value) -> Self {
        self.request.parameters.push((name.to_owned(), value));
        self
    }

    /// Makes it a call of OpenAI's API, in the place of inputs.
    #[must_use]
    pub fn openai(mut self, endpoint: &'static str, body: &str) -> Self {
        self.request.document = trireme_host::DocumentCall::new(endpoint, body.to_owned().into());
        self
    }

    /// Tells the backend to pause while so many answers are unread.
    #[must_use]
    pub fn capacity(mut self, answers: usize) -> Self {
        self.capacity = answers;
        self
    }

    /// Sends it, as a batch of its own.
    pub fn send(self) -> Pending {
        let (model, item, pending) = self.into_item();
        model.submit(vec![item]);
        pending
    }

    pub(crate) fn into_item(mut self) -> (&'a Model, Item, Pending) {
        if let Some(outputs) = self.outputs {
            self.request.wanted = outputs;
        }
        let (sink, entrance) = Sink::new(Arc::clone(&self.model.config), self.capacity, &self.model.live);
        let item = Item { request: self.request, responder: Responder::new(Arc::new(entrance)) };
        (self.model, item, Pending { sink })
    }
}

/// The client's end of a request that was sent.
pub struct Pending {
    sink: Sink,
}

impl Pending {
    /// The next answer, errors too; none after the last one. Panics if there is none within 20 s.
    #[allow(clippy::should_implement_trait, reason = "it waits and panics, which an iterator should not")]
    pub fn next(&self) -> Option<Answer> {
        self.sink.next(LIMIT)
    }

    /// All answers from here on.
    pub fn answers(self) -> Vec<Answer> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// The only answer; panics if there are more or fewer, or it is an error.
    pub fn answer(self) -> Answer {
        let answers: [Answer; 1] = self.answers().try_into().expect("one answer");
        let [answer] = answers;
        if let Some(error) = &answer.error {
            panic!("the backend answered with an error: {error}");
        }
        answer
    }

    /// The only answer, which is an error; panics if it is none.
    pub fn error(self) -> (StatusCode, String) {
        let mut answers = self.answers();
        let error = answers.pop().and_then(|answer| answer.error).expect("an error");
        assert!(answers.is_empty(), "answers before the error: {answers:?}");
        (error.code, error.message)
    }

    /// How many answers wait to be read.
    pub fn unread(&self) -> usize {
        self.sink.unread()
    }

    /// Nobody waits any more.
    pub fn cancel(&self) {
        self.sink.cancel();
    }
}
