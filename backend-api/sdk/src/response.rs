use std::ffi::c_void;
use std::sync::Arc;

use trireme_abi::{Buffer, MemoryKind, OutputTensor, ParameterKind};

use crate::bytes::encode_bytes;
use crate::element::{DataType, Element};
use crate::error::{Error, Result};
use crate::input::Input;
use crate::memory::Memory;
use crate::request::{Parameter, Request, RequestGuard};
use crate::wire::{readable, view};

/// One answer: tensors and parameters.
#[derive(Default)]
pub struct Response {
    outputs: Vec<Output>,
    parameters: Vec<(String, Parameter)>,
}

struct Output {
    name: String,
    data_type: DataType,
    shape: Vec<i64>,
    buffer: OwnBuffer,
}

/// A buffer that is released if it is not sent.
pub(crate) struct OwnBuffer(Option<Buffer>);

// SAFETY: made of memory that may be read and released on any thread.
unsafe impl Send for OwnBuffer {}
// SAFETY: it is only read.
unsafe impl Sync for OwnBuffer {}

impl OwnBuffer {
    /// What a call of the host fills.
    pub(crate) fn empty() -> Buffer {
        Buffer {
            data: std::ptr::null_mut(),
            len: 0,
            kind: MemoryKind::CPU,
            device: 0,
            ready_event: 0,
            fd: -1,
            reserved: 0,
            fd_offset: 0,
            owner: std::ptr::null_mut(),
            release: None,
        }
    }

    pub(crate) fn wire(&self) -> Option<&Buffer> {
        self.0.as_ref()
    }

    /// As [`Self::bytes`], to be written: for memory that nobody else has.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let (data, len) = {
            let bytes = self.bytes();
            (bytes.as_ptr().cast_mut(), bytes.len())
        };
        if len == 0 {
            return &mut [];
        }
        // SAFETY: `bytes` has looked at the memory, which was handed to us to be written and is borrowed once.
        unsafe { std::slice::from_raw_parts_mut(data, len) }
    }

    /// Gives it back; the event is lent. 0: at once.
    pub(crate) fn release(mut self, done_event: u64) {
        if let Some(Buffer { owner, release: Some(release), .. }) = self.0.take() {
            // SAFETY: not sent, so this is the only release.
            unsafe { release(owner, done_event) };
        }
    }

    /// A buffer that came from the host, to be released by us.
    pub(crate) fn new(buffer: Buffer) -> Self {
        Self(Some(buffer))
    }

    /// What is in it; nothing if it is not in the memory of this process.
    pub(crate) fn bytes(&self) -> &[u8] {
        let there = |buffer: &&Buffer| readable(buffer.kind) && !buffer.data.is_null() && buffer.len > 0;
        match self.0.as_ref().filter(there) {
            // SAFETY: `len` bytes are readable until the buffer is released, which takes `self`.
            Some(buffer) => unsafe { std::slice::from_raw_parts(buffer.data.cast::<u8>(), buffer.len) },
            None => &[],
        }
    }
}

impl Drop for OwnBuffer {
    fn drop(&mut self) {
        if let Some(Buffer { owner, ready_event, release: Some(release), .. }) = self.0.take() {
            // SAFETY: not sent, so this is the only release. What makes the bytes may still run.
            unsafe { release(owner, ready_event) };
        }
    }
}

unsafe extern "C" fn release_box<T>(owner: *mut c_void, _done_event: u64) {
    // SAFETY: the box that `owned` made, released once.
    drop(unsafe { Box::from_raw(owner.cast::<T>()) });
}

/// `data` is kept alive by `keep`.
fn owned<T: Send + Sync + 'static>(data: *const u8, len: usize, keep: T) -> OwnBuffer {
    OwnBuffer(Some(Buffer {
        data: data.cast_mut().cast(),
        len,
        kind: MemoryKind::CPU,
        device: 0,
        ready_event: 0,
        fd: -1,
        reserved: 0,
        fd_offset: 0,
        owner: Box::into_raw(Box::new(keep)).cast(),
        release: Some(release_box::<T>),
    }))
}

/// The number of elements of a shape; none if it is impossible.
fn count(shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(1usize, |count, dim| count.checked_mul(usize::try_from(*dim).ok()?))
}

impl Response {
    /// An answer without tensors.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor. The values move to the server without a copy.
    ///
    /// # Errors
    /// The shape does not have as many elements as there are values.
    pub fn tensor<T: Element>(self, name: &str, shape: &[i64], values: Vec<T>) -> Result<Self> {
        if count(shape) != Some(values.len()) {
            return Err(Error::internal(format!(
                "output '{name}' has {} values, which do not fit its shape {shape:?}",
                values.len()
            )));
        }
        let (data, len) = (values.as_ptr().cast::<u8>(), std::mem::size_of_val(values.as_slice()));
        Ok(self.push(name, T::DATA_TYPE, shape, owned(data, len, values)))
    }

    /// Adds a BYTES tensor.
    ///
    /// # Errors
    /// The shape does not have as many elements as there are.
    pub fn bytes<T: AsRef<[u8]>>(self, name: &str, shape: &[i64], elements: &[T]) -> Result<Self> {
        if count(shape) != Some(elements.len()) {
            return Err(Error::internal(format!(
                "output '{name}' has {} elements, which do not fit its shape {shape:?}",
                elements.len()
            )));
        }
        self.raw(name, DataType::Bytes, shape, encode_bytes(elements))
    }

    /// Adds a tensor given as its bytes: little endian, C order, BYTES framed.
    ///
    /// # Errors
    /// The length does not fit the shape.
    pub fn raw(self, name: &str, data_type: DataType, shape: &[i64], data: Vec<u8>) -> Result<Self> {
        let expected =
            count(shape).and_then(|count| data_type.byte_size().map(|size| count.checked_mul(size)));
        if expected.is_some_and(|expected| expected != Some(data.len())) {
            return Err(Error::internal(format!(
                "output '{name}' has {} bytes, which do not fit its shape {shape:?}",
                data.len()
            )));
        }
        Ok(self.push(name, data_type, shape, owned(data.as_ptr(), data.len(), data)))
    }

    /// Adds an input of `request` as a tensor. If the input is in one piece, or on a GPU, nothing is copied: the server keeps
    /// the request until the answer has left.
    ///
    /// # Errors
    /// The input is not in the memory of this process.
    pub fn forward(self, name: &str, request: &Request, input: &Input<'_>) -> Result<Self> {
        if let Some(view) = input.on_device()? {
            // Shared where it is.
            let memory = input.gather_on(view.device)?;
            return Ok(self.push(name, input.data_type(), input.shape(), memory.into_buffer()));
        }
        let pieces = input.pieces()?;
        let buffer = match pieces.as_slice() {
            [one] if std::ptr::eq(input.guard, Arc::as_ptr(&request.guard)) => {
                let keep: Arc<RequestGuard> = Arc::clone(&request.guard);
                owned(one.as_ptr(), one.len(), keep)
            }
            // Copied: an answer is one buffer.
            pieces => {
                let data = pieces.concat();
                owned(data.as_ptr(), data.len(), data)
            }
        };
        Ok(self.push(name, input.data_type(), input.shape(), buffer))
    }

    pub(crate) fn push(mut self, name: &str, data_type: DataType, shape: &[i64], buffer: OwnBuffer) -> Self {
        self.outputs.push(Output { name: name.to_owned(), data_type, shape: shape.to_vec(), buffer });
        self
    }

    /// Adds a tensor in memory of the server or of a GPU: little endian, C order.
    ///
    /// # Errors
    /// The length does not fit the shape; a BYTES tensor.
    pub fn memory(self, name: &str, data_type: DataType, shape: &[i64], memory: Memory) -> Result<Self> {
        let expected =
            count(shape).zip(data_type.byte_size()).and_then(|(count, size)| count.checked_mul(size));
        if expected != Some(memory.byte_size()) {
            return Err(Error::internal(format!(
                "output '{name}' has {} bytes, which do not fit its shape {shape:?}",
                memory.byte_size()
            )));
        }
        Ok(self.push(name, data_type, shape, memory.into_buffer()))
    }

    /// Adds a parameter.
    #[must_use]
    pub fn parameter(mut self, name: &str, value: Parameter) -> Self {
        self.parameters.push((name.to_owned(), value));
        self
    }

    /// The tensors as a message has them: descriptions, and the buffers in the same order.
    pub(crate) fn take_tensors(&mut self) -> (Vec<serde_json::Value>, Vec<Buffer>) {
        let one = |output: &mut Output| {
            let Output { name, data_type, shape, .. } = &*output;
            let described = serde_json::json!({ "name": name, "datatype": data_type.name(), "shape": shape });
            Some((described, output.buffer.0.take()?))
        };
        self.outputs.iter_mut().filter_map(one).unzip()
    }

    pub(crate) fn wire_parameters(&self) -> Vec<trireme_abi::Parameter> {
        let wire = |(name, value): &(String, Parameter)| {
            let mut wire = trireme_abi::Parameter {
                name: view(name),
                kind: ParameterKind::STRING,
                reserved: 0,
                int_value: 0,
                double_value: 0.0,
                string_value: view(""),
            };
            match value {
                Parameter::Bool(value) => {
                    (wire.kind, wire.int_value) = (ParameterKind::BOOL, i64::from(*value))
                }
                Parameter::Int(value) => (wire.kind, wire.int_value) = (ParameterKind::INT, *value),
                Parameter::Double(value) => (wire.kind, wire.double_value) = (ParameterKind::DOUBLE, *value),
                Parameter::String(value) => wire.string_value = view(value),
            }
            wire
        };
        self.parameters.iter().map(wire).collect()
    }

    /// The outputs as the wire has them. They point into `self`, which must outlive the call that takes them.
    pub(crate) fn wire_outputs(&mut self) -> Vec<OutputTensor> {
        let wire = |output: &mut Output| {
            Some(OutputTensor {
                name: view(&output.name),
                dtype: output.data_type.wire(),
                reserved: 0,
                shape: output.shape.as_ptr(),
                rank: output.shape.len(),
                buffer: output.buffer.0.take()?,
            })
        };
        self.outputs.iter_mut().filter_map(wire).collect()
    }
}
