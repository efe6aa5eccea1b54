use std::sync::Arc;

use trireme_abi::{ParameterKind, RequestHandle, RequestItem, RequestVtable};

use crate::call::Caller;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::input::Input;
use crate::openai::OpenAiCall;
use crate::respond::Responder;
use crate::response::Response;
use crate::wire::{check, text, view};

/// Keeps a request, and with it the data of its inputs.
pub(crate) struct RequestGuard {
    handle: *mut RequestHandle,
    host: Host,
}

// SAFETY: the ABI allows all calls on a request from any thread.
unsafe impl Send for RequestGuard {}
// SAFETY: as above; a request is not changed after it was handed over.
unsafe impl Sync for RequestGuard {}

impl RequestGuard {
    pub(crate) fn handle(&self) -> *const RequestHandle {
        self.handle
    }

    pub(crate) fn table(&self) -> &'static RequestVtable {
        self.host.requests()
    }
}

impl RequestGuard {
    fn release_after(self, done_event: u64) {
        let table = self.table();
        let guard = std::mem::ManuallyDrop::new(self);
        // SAFETY: owned by the guard; the last call. The host lives until the process ends, so nothing else is left behind.
        unsafe { (table.release_after)(guard.handle, done_event) };
    }

    fn wait_for(&self, done_event: u64) {
        if done_event == 0 {
            return;
        }
        // SAFETY: the handle is live.
        let count = unsafe { (self.table().input_count)(self.handle) };
        let on_device = |index| Input::new(self, index).ok()?.on_device().ok()?;
        if let (Some(view), Some(devices)) = ((0..count).find_map(on_device), self.host.devices()) {
            let _ = devices.wait(view.device, done_event);
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        // SAFETY: owned by this guard; the last call.
        unsafe { (self.table().release)(self.handle) };
    }
}

/// A parameter of a request or of a response.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Double(f64),
    /// A text.
    String(String),
}

/// A request, with the right to answer it.
pub struct Request {
    pub(crate) guard: Arc<RequestGuard>,
    responder: Responder,
}

impl Request {
    /// # Safety
    /// Both halves of `item` are live and owned by nobody else.
    pub(crate) unsafe fn new(item: RequestItem, host: &Host) -> Self {
        let guard = Arc::new(RequestGuard { handle: item.request, host: host.clone() });
        // SAFETY: by this function's contract.
        let responder = unsafe { Responder::new(item.responder, host.clone()) };
        Self { guard, responder }
    }

    /// The right to ask other models on behalf of this request.
    ///
    /// # Errors
    /// UNSUPPORTED if this server does not have it.
    pub fn caller(&self) -> Result<Caller> {
        self.responder.caller()
    }

    /// The id that the client gave, or empty.
    pub fn id(&self) -> &str {
        // SAFETY: the handle is live.
        unsafe { text((self.guard.table().id)(self.guard.handle())) }
    }

    /// How many inputs are present.
    pub fn input_count(&self) -> usize {
        // SAFETY: the handle is live.
        unsafe { (self.guard.table().input_count)(self.guard.handle()) }
    }

    /// The inputs that are present, in the order of the configuration. Behind them come those that the server adds: the
    /// controls and states of a sequence, and this request's part of each `batch_input`. The parts of a batch, one behind
    /// the other, are the tensor of the whole batch.
    pub fn inputs(&self) -> impl Iterator<Item = Input<'_>> {
        (0..self.input_count()).filter_map(|index| Input::new(&self.guard, index).ok())
    }

    /// The input of this name, if it is present.
    pub fn optional_input(&self, name: &str) -> Option<Input<'_>> {
        self.inputs().find(|input| input.name() == name)
    }

    /// The input of this name.
    ///
    /// # Errors
    /// INVALID_ARG if it is absent.
    pub fn input(&self, name: &str) -> Result<Input<'_>> {
        self.optional_input(name).ok_or_else(|| Error::invalid(format!("input '{name}' is missing")))
    }

    /// Whether the client wants output number `output` of the configuration.
    pub fn wants_output(&self, output: usize) -> bool {
        // SAFETY: the handle is live.
        unsafe { (self.guard.table().output_wanted)(self.guard.handle(), output) }
    }

    /// Elements in the batch dimension; 1 if the model does not batch.
    pub fn batch_size(&self) -> u32 {
        // SAFETY: the handle is live.
        unsafe { (self.guard.table().batch_size)(self.guard.handle()) }
    }

    /// The client's priority; 0 if none was given, smaller is more urgent.
    pub fn priority(&self) -> u64 {
        // SAFETY: the handle is live.
        unsafe { (self.guard.table().priority)(self.guard.handle()) }
    }

    /// When the answer is of no use any more, in nanoseconds of [`Host::now_ns`].
    pub fn deadline_ns(&self) -> Option<u64> {
        // SAFETY: the handle is live.
        let deadline = unsafe { (self.guard.table().deadline_ns)(self.guard.handle()) };
        (deadline != 0).then_some(deadline)
    }

    /// The number of the sequence, if it has one.
    pub fn correlation_id(&self) -> Option<u64> {
        // SAFETY: the handle is live.
        let id = unsafe { (self.guard.table().correlation_id)(self.guard.handle()) };
        (id != 0).then_some(id)
    }

    /// The name of the sequence, if it has one.
    pub fn correlation_text(&self) -> Option<&str> {
        // SAFETY: the handle is live.
        let id = unsafe { text((self.guard.table().correlation_text)(self.guard.handle())) };
        (!id.is_empty()).then_some(id)
    }

    /// The parameters that the client sent for the model.
    pub fn parameters(&self) -> Vec<(String, Parameter)> {
        // SAFETY: the handle is live.
        let count = unsafe { (self.guard.table().parameter_count)(self.guard.handle()) };
        (0..count).filter_map(|index| self.nth_parameter(index).ok()).collect()
    }

    fn nth_parameter(&self, index: usize) -> Result<(String, Parameter)> {
        let mut wire = trireme_abi::Parameter {
            name: view(""),
            kind: ParameterKind::STRING,
            reserved: 0,
            int_value: 0,
            double_value: 0.0,
            string_value: view(""),
        };
        // SAFETY: the handle is live.
        unsafe { check((self.guard.table().parameter)(self.guard.handle(), index, &mut wire))? };
        let value = match wire.kind {
            ParameterKind::BOOL => Parameter::Bool(wire.int_value != 0),
            ParameterKind::INT => Parameter::Int(wire.int_value),
            ParameterKind::DOUBLE => Parameter::Double(wire.double_value),
            // SAFETY: lives as long as the request.
            ParameterKind::STRING => Parameter::String(unsafe { text(wire.string_value) }.to_owned()),
            other => {
                let what =
                    format!("parameter number {index} is of kind {}, newer than this backend", other.0);
                return Err(Error::unsupported(what));
            }
        };
        // SAFETY: lives as long as the request.
        Ok((unsafe { text(wire.name) }.to_owned(), value))
    }

    /// The call of OpenAI's API that this request is, if it is one; then it has no inputs and is answered by
    /// [`Responder::send_json`].
    pub fn openai(&self) -> Option<OpenAiCall<'_>> {
        // SAFETY: the handle is live, as long as the borrow.
        unsafe { OpenAiCall::read(self.guard.host.openai()?, self.guard.handle()) }
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_cancelled(&self) -> bool {
        self.responder.is_cancelled()
    }

    /// Where the answers go.
    pub fn responder(&mut self) -> &mut Responder {
        &mut self.responder
    }

    /// Gives the inputs back and keeps the right to answer.
    pub fn into_responder(self) -> Responder {
        self.responder
    }

    /// As [`Self::into_responder`], for inputs on a GPU that are still being read: their memory is not used anew before
    /// `done_event`, which is an event of that GPU, lent until this returns.
    pub fn into_responder_after(self, done_event: u64) -> Responder {
        let Self { guard, responder } = self;
        match Arc::try_unwrap(guard) {
            Ok(guard) => guard.release_after(done_event),
            // An answer on its way still keeps the inputs, and who gives them back knows nothing of the event.
            Err(guard) => guard.wait_for(done_event),
        }
        responder
    }

    /// The one answer to this request.
    pub fn respond(self, response: Response) {
        self.responder.finish(response);
    }

    /// Answers with an error.
    pub fn fail(self, error: Error) {
        self.responder.fail(error);
    }

    /// Answers with what `work` makes of the request, be it a response or an error.
    pub fn answer(self, work: impl FnOnce(&Self) -> Result<Response>) {
        match work(&self) {
            Ok(response) => self.respond(response),
            Err(error) => self.fail(error),
        }
    }
}
