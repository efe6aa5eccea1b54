use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use bytes::Bytes;
use smallvec::SmallVec;
use trireme_abi::{DType, Stage};

use crate::bls::{CallReader, Message};
use crate::device::DeviceTensor;
use crate::memory::HostMemory;
use crate::openai::Document;
use crate::request::{Shape, Value};
use crate::status::Status;

/// One answer of a backend.
#[derive(Debug, Default)]
pub struct Response {
    /// The tensors.
    pub outputs: SmallVec<[Output; 2]>,
    /// Parameters for the client.
    pub parameters: Vec<(String, Value)>,
    /// Set if this is an error; then there are no outputs.
    pub error: Option<Status>,
    /// The answer to a call of OpenAI's API; then there are no outputs, and none of it is set otherwise.
    pub document: Option<Document>,
}

impl Response {
    /// An answer that is an error.
    pub fn error(status: Status) -> Self {
        Self { error: Some(status), ..Self::default() }
    }
}

/// One tensor of an answer. Shape × type = length was checked.
#[derive(Debug)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Batch dimension first if the model batches.
    pub shape: Shape,
    /// The backend's or the host's memory, not copied.
    pub data: Bytes,
    /// Set if the data stays on a device; then `data` is empty. Only a sink that says so ([`ResponseSink::reads_device`])
    /// is sent such an output.
    pub device: Option<DeviceTensor>,
}

/// What a sink says to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted.
    Continue,
    /// Accepted; wait for `on_writable` before the next one.
    Pause,
    /// Accepted, but nobody waits for more.
    Cancelled,
    /// Dropped: the last answer was given before.
    Closed,
}

/// Where the answers of one request go; implemented by the runtime. All functions may be called from any thread.
pub trait ResponseSink: Send + Sync {
    /// Takes an answer; with `is_final` it is the last one. An answer without outputs, parameters and error carries
    /// only the flag.
    fn send(&self, response: Response, is_final: bool) -> Verdict;

    /// Calls `call` once, when the sink can take more.
    fn on_writable(&self, call: Box<dyn FnOnce() + Send>);

    /// Not 0 when nobody waits for the answer any more.
    fn cancelled(&self) -> &AtomicU32;

    /// Notes the time of a stage, in nanoseconds of the monotonic clock; 0 means now.
    fn mark(&self, stage: Stage, time_ns: u64);

    /// Asks another model on behalf of the request. If this is OK, `reader` gets exactly one final answer.
    ///
    /// # Errors
    /// The call is malformed, or can never be answered; then `reader` gets nothing.
    fn call(self: Arc<Self>, call: Message, reader: CallReader) -> Result<(), Status> {
        let _ = (call, reader);
        let code = trireme_abi::StatusCode::UNSUPPORTED;
        Err(Status { code, message: "there are no other models here".to_owned() })
    }

    /// Whether output `name` may stay in the memory of GPU `device`. What may not is copied to the memory of the process
    /// before it is sent.
    fn reads_device(&self, name: &str, device: i32) -> bool {
        let _ = (name, device);
        false
    }

    /// Memory for an output.
    ///
    /// # Errors
    /// There is not so much memory.
    fn allocate(&self, name: &str, byte_size: usize) -> Result<HostMemory, Status> {
        let _ = name;
        HostMemory::allocate(byte_size)
    }
}

/// The right to answer one request. Dropped before the last answer, it answers INTERNAL.
pub struct Responder {
    pub(crate) sink: Arc<dyn ResponseSink>,
    pub(crate) finished: AtomicBool,
}

impl Responder {
    /// The right to answer through `sink`.
    pub fn new(sink: Arc<dyn ResponseSink>) -> Self {
        Self { sink, finished: AtomicBool::new(false) }
    }

    /// Answers with an error.
    pub fn fail(self, status: Status) {
        self.send(Response::error(status), true);
    }

    // By shared reference: a backend may ask `cancelled` meanwhile.
    pub(crate) fn send(&self, response: Response, is_final: bool) -> Verdict {
        // An error is the last word, whatever the flag says.
        let failed = response.document.as_ref().is_some_and(Document::is_error);
        let is_final = is_final || failed || response.error.is_some();
        if self.finished.fetch_or(is_final, Relaxed) {
            return Verdict::Closed;
        }
        self.sink.send(response, is_final)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !*self.finished.get_mut() {
            let status = Status::internal("the backend dropped the request without an answer");
            self.send(Response::error(status), true);
        }
    }
}
