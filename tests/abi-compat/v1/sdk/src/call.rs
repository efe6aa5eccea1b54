//! Asking other models while a request is answered (the extension `bls/1`).

use std::ffi::c_void;
use std::sync::{Arc, mpsc};

use serde_json::{Map, Value, json};
use trireme_abi::{BLS_1, BlsVtable, Buffer, CallReply, CallerHandle, ResponderHandle, StatusCode, StrView};

use crate::answer::Answer;
use crate::element::{DataType, Element};
use crate::error::{Error, ErrorCode, Result};
use crate::host::Host;
use crate::input::Input;
use crate::request::{Parameter, Request};
use crate::response::Response;
use crate::wire::{check, text, view};

/// What another model is asked.
pub struct Call {
    header: Map<String, Value>,
    parameters: Map<String, Value>,
    outputs: Vec<String>,
    tensors: Response,
    waits: bool,
}

impl Call {
    /// A request to the newest version of `model`.
    pub fn new(model: &str) -> Self {
        let header = Map::from_iter([("model".to_owned(), model.into())]);
        Self { header, parameters: Map::new(), outputs: Vec::new(), tensors: Response::new(), waits: false }
    }

    /// Asks this version.
    #[must_use]
    pub fn version(mut self, version: i64) -> Self {
        self.header.insert("version".to_owned(), version.into());
        self
    }

    /// Gives the request an id of its own.
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.header.insert("id".to_owned(), id.into());
        self
    }

    /// Makes it a request of sequence number `id`, the first or last one of it.
    #[must_use]
    pub fn sequence(self, id: u64, start: bool, end: bool) -> Self {
        self.in_sequence(id.into(), start, end)
    }

    /// As [`Call::sequence`], with a sequence that has a name.
    #[must_use]
    pub fn named_sequence(self, id: &str, start: bool, end: bool) -> Self {
        self.in_sequence(id.into(), start, end)
    }

    fn in_sequence(mut self, id: Value, start: bool, end: bool) -> Self {
        self.header.insert("sequence".to_owned(), json!({ "id": id, "start": start, "end": end }));
        self
    }

    /// How long the request may wait in the model's queue, in microseconds, if the model lets its callers say so.
    #[must_use]
    pub fn timeout_us(mut self, timeout: u64) -> Self {
        self.header.insert("timeout".to_owned(), timeout.into());
        self
    }

    /// Says that the instance does nothing else until the answer is there, however the call is made: if it could never
    /// be answered, because it would need that instance, it is refused.
    #[must_use]
    pub fn waits(mut self) -> Self {
        self.waits = true;
        self
    }

    /// Adds a parameter for the model.
    #[must_use]
    pub fn parameter(mut self, name: &str, value: Parameter) -> Self {
        let value = match value {
            Parameter::Bool(value) => value.into(),
            Parameter::Int(value) => value.into(),
            Parameter::Double(value) => value.into(),
            Parameter::String(value) => value.into(),
        };
        self.parameters.insert(name.to_owned(), value);
        self
    }

    /// Asks for this output; without any for all.
    #[must_use]
    pub fn output(mut self, name: &str) -> Self {
        self.outputs.push(name.to_owned());
        self
    }

    /// Adds an input. The values move to the server without a copy.
    ///
    /// # Errors
    /// The number of values does not fit the shape.
    pub fn tensor<T: Element>(self, name: &str, shape: &[i64], values: Vec<T>) -> Result<Self> {
        Ok(Self { tensors: self.tensors.tensor(name, shape, values)?, ..self })
    }

    /// Adds a BYTES input.
    ///
    /// # Errors
    /// The number of elements does not fit the shape.
    pub fn bytes<T: AsRef<[u8]>>(self, name: &str, shape: &[i64], elements: &[T]) -> Result<Self> {
        Ok(Self { tensors: self.tensors.bytes(name, shape, elements)?, ..self })
    }

    /// Adds an input given as its bytes.
    ///
    /// # Errors
    /// The length does not fit the shape.
    pub fn raw(self, name: &str, data_type: DataType, shape: &[i64], data: Vec<u8>) -> Result<Self> {
        Ok(Self { tensors: self.tensors.raw(name, data_type, shape, data)?, ..self })
    }

    /// Passes an input of `request` on, without a copy if it is in one piece.
    ///
    /// # Errors
    /// The input is not in the memory of this process.
    pub fn forward(self, name: &str, request: &Request, input: &Input<'_>) -> Result<Self> {
        Ok(Self { tensors: self.tensors.forward(name, request, input)?, ..self })
    }

    fn into_message(mut self, waits: bool) -> (String, Vec<Buffer>) {
        let (inputs, buffers) = self.tensors.take_tensors();
        self.header.insert("waits".to_owned(), waits.into());
        self.header.insert("inputs".to_owned(), inputs.into());
        self.header.insert("parameters".to_owned(), json!(self.parameters));
        self.header.insert("outputs".to_owned(), json!(self.outputs));
        (Value::Object(self.header).to_string(), buffers)
    }
}

/// The right to call other models on behalf of a request. It can be cloned, moved to other threads and kept while the
/// request is answered elsewhere. A cancelled request cancels its calls, and its deadline is theirs.
#[derive(Clone)]
pub struct Caller(Arc<Handle>);

struct Handle {
    handle: *mut CallerHandle,
    table: &'static BlsVtable,
}

// SAFETY: the ABI allows all calls from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above, also concurrently.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: owned by this value; the last call.
        unsafe { (self.table.close)(self.handle) };
    }
}

type Each = dyn FnMut(Result<Answer>, bool) + Send;

impl Caller {
    /// # Safety
    /// `responder` is live.
    pub(crate) unsafe fn new(host: &Host, responder: *const ResponderHandle) -> Result<Self> {
        let table = host.extension(BLS_1).cast::<BlsVtable>();
        if table.is_null() {
            return Err(Error::unsupported("this server does not let backends call other models"));
        }
        // SAFETY: the host gives its table, which lives until the process ends.
        let table = unsafe { &*table };
        // SAFETY: the responder is live.
        let handle = unsafe { (table.open)(responder) };
        Ok(Self(Arc::new(Handle { handle, table })))
    }

    /// Asks a model that gives one answer. `then` gets it on some thread, or an error if the call cannot be made; it
    /// should not block.
    pub fn call(&self, call: Call, then: impl FnOnce(Result<Answer>) + Send + 'static) {
        let (mut then, mut answer) = (Some(then), Err(Error::internal("the model gave no answer")));
        self.call_each(call, move |one, is_final| {
            // A decoupled model may end with no more than the flag.
            if !matches!(&one, Ok(one) if one.is_empty()) || !is_final {
                answer = one;
            }
            if is_final && let Some(then) = then.take() {
                then(std::mem::replace(&mut answer, Err(Error::internal("the answer is gone"))));
            }
        });
    }

    /// Asks a model that may give any number of answers. `each` gets them in order, never two at once; `true` with the
    /// last one, which may be empty or an error.
    pub fn call_each(&self, call: Call, each: impl FnMut(Result<Answer>, bool) + Send + 'static) {
        let waits = call.waits;
        self.start(call, waits, Box::new(each));
    }

    /// Asks a model and waits for its one answer. Meanwhile the instance does nothing else; a call that could never be
    /// answered, because it would need that instance, is refused.
    ///
    /// # Errors
    /// What the model or the server says.
    pub fn call_and_wait(&self, call: Call) -> Result<Answer> {
        let (done, result) = mpsc::channel();
        let each = move |answer: Result<Answer>, is_final: bool| {
            let _ = done.send((answer, is_final));
        };
        self.start(call, true, Box::new(each));
        let mut last = Err(Error::internal("the model gave no answer"));
        while let Ok((answer, is_final)) = result.recv() {
            if !matches!(&answer, Ok(one) if one.is_empty()) {
                last = answer;
            }
            if is_final {
                break;
            }
        }
        last
    }

    fn start(&self, call: Call, waits: bool, each: Box<Each>) {
        let (message, mut buffers) = call.into_message(waits);
        let user: *mut Box<Each> = Box::into_raw(Box::new(each));
        let reply = CallReply { user: user.cast(), answer: on_answer };
        // SAFETY: the text lives until the call returns, the buffers move to the host.
        let started = unsafe {
            let status = (self.0.table.call)(
                self.0.handle,
                view(&message),
                buffers.as_mut_ptr(),
                buffers.len(),
                reply,
            );
            check(status)
        };
        if let Err(error) = started {
            // SAFETY: the box made above; the host never calls back after an error.
            let mut each = unsafe { Box::from_raw(user) };
            guarded(|| each(Err(error), true));
        }
    }
}

unsafe extern "C" fn on_answer(
    user: *mut c_void,
    message: StrView,
    buffers: *mut Buffer,
    buffer_count: usize,
    is_final: u32,
) {
    let user = user.cast::<Box<Each>>();
    // SAFETY: the host gives `buffer_count` buffers, which are ours now, and a text.
    let (message, buffers) = unsafe {
        let buffers = (0..buffer_count).map(|at| buffers.add(at).read()).collect();
        (text(message), buffers)
    };
    let answer = read_answer(message, buffers);
    // SAFETY: the box that `start` made; the host makes one call at a time, and none after the final one.
    unsafe { guarded(|| (*user)(answer, is_final != 0)) };
    if is_final != 0 {
        // SAFETY: as above; the last use.
        drop(unsafe { Box::from_raw(user) });
    }
}

fn read_answer(message: &str, buffers: Vec<Buffer>) -> Result<Answer> {
    let mut answer = Answer::new(buffers);
    let message: Value = serde_json::from_str(message)
        .map_err(|error| Error::internal(format!("the server's answer: {error}")))?;
    if let Some(error) = message.get("error") {
        let code = error.get("code").and_then(Value::as_u64).and_then(|code| u32::try_from(code).ok());
        let text = error.get("message").and_then(Value::as_str).unwrap_or("no message");
        let code = ErrorCode::from_wire(StatusCode(code.unwrap_or(0)));
        return Err(Error { code, message: text.to_owned() });
    }
    answer.describe(&message)?;
    Ok(answer)
}

/// A panic must not reach the host.
fn guarded(work: impl FnOnce()) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
}
