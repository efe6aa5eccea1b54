//! Loading and unloading models of the server (the extension `models/1`).

use std::ffi::c_void;
use std::sync::mpsc;

use serde_json::{Value, json};
use trireme_abi::{Buffer, CallReply, MODELS_1, ModelsVtable, Status, StatusCode, StrView};

use crate::element::DataType;
use crate::error::{Error, ErrorCode, Result};
use crate::host::Host;
use crate::response::{OwnBuffer, Response};
use crate::wire::{check, text, view};

/// A model that is to be loaded, and what stands in for its files.
#[must_use]
pub struct ModelLoad {
    model: String,
    config: Option<String>,
    files: Vec<(String, Vec<u8>)>,
}

impl ModelLoad {
    /// `model` as it is in the repository.
    pub fn new(model: &str) -> Self {
        Self { model: model.to_owned(), config: None, files: Vec::new() }
    }

    /// With this configuration, as JSON, in the place of its own.
    pub fn config(self, json: &str) -> Self {
        Self { config: Some(json.to_owned()), ..self }
    }

    /// With this file, at a path in its directory such as `1/model.onnx`. Where there is one, none of its own files are
    /// seen, and there must be a configuration. The contents move to the server without a copy.
    pub fn file(mut self, path: &str, contents: Vec<u8>) -> Self {
        self.files.push((path.to_owned(), contents));
        self
    }
}

/// The models of the server, for a model that loads and unloads others. The server must run with
/// `--model-control-mode=explicit`; whether a model is ready can always be asked.
///
/// It can be used from any thread, while its model is loaded, serves, and ends. A load that has to wait for itself, as of the
/// very model that is just being loaded, is refused.
#[derive(Clone)]
pub struct Models {
    table: &'static ModelsVtable,
    context: *const c_void,
    by: String,
}

// SAFETY: the ABI allows all calls from any thread, until the process ends.
unsafe impl Send for Models {}
// SAFETY: as above, also concurrently.
unsafe impl Sync for Models {}

type Then = dyn FnOnce(Result<()>) + Send;

impl Models {
    pub(crate) fn new(host: &Host, context: *const c_void, by: &str) -> Result<Self> {
        let table = host.extension(MODELS_1).cast::<ModelsVtable>();
        // SAFETY: what the host gave for this id lives until the process ends, and begins with its size.
        let whole = !table.is_null() && unsafe { (*table).struct_size } >= size_of::<ModelsVtable>();
        if !whole {
            return Err(Error::unsupported(format!(
                "this server does not let backends load models: it has no extension '{MODELS_1}'"
            )));
        }
        // SAFETY: as above.
        Ok(Self { table: unsafe { &*table }, context, by: by.to_owned() })
    }

    /// Loads a model, or loads it anew. `then` hears, on some thread, that it is ready, or why it is not; it should not
    /// block.
    pub fn load(&self, load: ModelLoad, then: impl FnOnce(Result<()>) + Send + 'static) {
        let ModelLoad { model, config, files } = load;
        let mut message = json!({ "by": self.by, "model": model });
        if let Some(config) = config {
            message["config"] = config.into();
        }
        message["files"] = files.iter().map(|(path, _)| path.as_str()).collect();
        let message = message.to_string();
        let tensors = files.into_iter().try_fold(Response::new(), |files, (path, contents)| {
            let length = contents.len() as i64;
            files.raw(&path, DataType::Uint8, &[length], contents)
        });
        let mut buffers = match tensors {
            Ok(mut tensors) => tensors.take_tensors().1,
            Err(error) => return then(Err(error)),
        };
        start(Box::new(then), |reply| {
            // SAFETY: the text lives until the call returns, the buffers move to the host.
            unsafe {
                let (files, count) = (buffers.as_mut_ptr(), buffers.len());
                (self.table.load)(self.context, view(&message), files, count, reply)
            }
        });
    }

    /// Loads a model and waits until it is ready.
    ///
    /// # Errors
    /// Why it is not.
    pub fn load_and_wait(&self, load: ModelLoad) -> Result<()> {
        wait(|then| self.load(load, then))
    }

    /// Unloads a model, and with `dependents` the models that were loaded only on behalf of this ensemble. `then` hears when it
    /// takes no more requests; those that it has are still answered. So a model may unload itself.
    pub fn unload(&self, model: &str, dependents: bool, then: impl FnOnce(Result<()>) + Send + 'static) {
        let message = json!({ "by": self.by, "model": model, "unload_dependents": dependents }).to_string();
        start(Box::new(then), |reply| {
            // SAFETY: the text lives until the call returns.
            unsafe { (self.table.unload)(self.context, view(&message), reply) }
        });
    }

    /// Unloads a model and waits until it takes no more requests.
    ///
    /// # Errors
    /// Why it cannot be unloaded.
    pub fn unload_and_wait(&self, model: &str, dependents: bool) -> Result<()> {
        wait(|then| self.unload(model, dependents, then))
    }

    /// Whether this version of a model takes requests, or any of its versions. A model that nobody knows is not ready.
    ///
    /// # Errors
    /// The server cannot say.
    pub fn is_ready(&self, model: &str, version: Option<i64>) -> Result<bool> {
        let mut ready = 0;
        // SAFETY: the text and the place live until the call returns.
        unsafe { check((self.table.ready)(self.context, view(model), version.unwrap_or(0), &mut ready))? };
        Ok(ready != 0)
    }
}

fn start(then: Box<Then>, call: impl FnOnce(CallReply) -> Status) {
    let user: *mut Box<Then> = Box::into_raw(Box::new(then));
    let status = call(CallReply { user: user.cast(), answer: on_answer });
    // SAFETY: what the host returned just now.
    if let Err(error) = unsafe { check(status) } {
        // SAFETY: the box made above; the host never calls back after an error.
        let then = unsafe { Box::from_raw(user) };
        guarded(|| then(Err(error)));
    }
}

fn wait(work: impl FnOnce(Box<Then>)) -> Result<()> {
    let (done, result) = mpsc::channel();
    work(Box::new(move |answer| {
        let _ = done.send(answer);
    }));
    result.recv().unwrap_or_else(|_| Err(Error::internal("the server gave no answer")))
}

unsafe extern "C" fn on_answer(
    user: *mut c_void,
    message: StrView,
    buffers: *mut Buffer,
    buffer_count: usize,
    is_final: u32,
) {
    // SAFETY: the host gives `buffer_count` buffers, which are ours now, and a text.
    let message = unsafe {
        (0..buffer_count).for_each(|at| drop(OwnBuffer::new(buffers.add(at).read())));
        text(message)
    };
    if is_final == 0 {
        return;
    }
    let answer = read(message);
    // SAFETY: the box that `start` made; the host calls once with the final answer.
    let then = unsafe { Box::from_raw(user.cast::<Box<Then>>()) };
    guarded(|| then(answer));
}

fn read(message: &str) -> Result<()> {
    let message: Value = serde_json::from_str(message)
        .map_err(|error| Error::internal(format!("the server's answer: {error}")))?;
    let Some(error) = message.get("error") else { return Ok(()) };
    let code = error.get("code").and_then(Value::as_u64).and_then(|code| u32::try_from(code).ok());
    let text = error.get("message").and_then(Value::as_str).unwrap_or("no message");
    Err(Error { code: ErrorCode::from_wire(StatusCode(code.unwrap_or(0))), message: text.to_owned() })
}

/// A panic must not reach the host.
fn guarded(work: impl FnOnce()) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
}
