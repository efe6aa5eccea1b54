use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use trireme_abi::{
    MemoryKind, OpenAiAnswer, ResponderHandle, ResponderVtable, ResponseFlags, SendVerdict, Stage,
    StatusCode, StrView, Writable,
};

use crate::call::Caller;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::memory::Memory;
use crate::openai::OpenAiError;
use crate::response::{OwnBuffer, Response};
use crate::wire::{check, view};

/// What the server says to a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted.
    Continue,
    /// Accepted, but the reader is slow: wait for [`Responder::on_writable`] before the next one.
    Pause,
    /// Accepted, but nobody waits for more: stop computing.
    Cancelled,
    /// Dropped: the last response was sent before.
    Closed,
}

/// The right to answer one request: once, or if the model is decoupled any number of times. It may be moved to other
/// threads. Dropped before its end, the server answers INTERNAL.
pub struct Responder {
    handle: *mut ResponderHandle,
    cancelled: *const u32,
    host: Host,
}

// SAFETY: the ABI allows all calls from any thread, and `&mut` keeps them from being made concurrently.
unsafe impl Send for Responder {}
// SAFETY: `is_cancelled` is the only call through a shared reference, and the ABI allows it concurrently.
unsafe impl Sync for Responder {}

impl Responder {
    /// # Safety
    /// `handle` is live and owned by nobody else.
    pub(crate) unsafe fn new(handle: *mut ResponderHandle, host: Host) -> Self {
        // SAFETY: the handle is live.
        let cancelled = unsafe { (host.responders().cancelled)(handle) };
        Self { handle, cancelled, host }
    }

    fn table(&self) -> &'static ResponderVtable {
        self.host.responders()
    }

    /// Whether nobody waits for the answer any more. One atomic load.
    pub fn is_cancelled(&self) -> bool {
        // SAFETY: the host keeps the flag as long as the responder, and writes it atomically.
        unsafe { AtomicU32::from_ptr(self.cancelled.cast_mut()) }.load(Relaxed) != 0
    }

    /// The right to ask other models on behalf of the request.
    ///
    /// # Errors
    /// UNSUPPORTED if this server does not have it.
    pub fn caller(&self) -> Result<Caller> {
        // SAFETY: the handle is live.
        unsafe { Caller::new(&self.host, self.handle) }
    }

    /// Sends one of several responses (decoupled models).
    pub fn send(&mut self, response: Response) -> Verdict {
        self.transmit(Some(response), ResponseFlags::NONE)
    }

    /// Sends the last response.
    pub fn finish(mut self, response: Response) {
        self.transmit(Some(response), ResponseFlags::FINAL);
    }

    /// Ends without a further response (decoupled models).
    pub fn close(mut self) {
        self.transmit(None, ResponseFlags::FINAL);
    }

    /// Sends one of several objects as the answer to a call of OpenAI's API.
    pub fn send_json(&mut self, object: &str) -> Verdict {
        self.send_document(200, object, ResponseFlags::NONE)
    }

    /// Sends the last or only object.
    pub fn finish_json(mut self, object: &str) {
        self.send_document(200, object, ResponseFlags::FINAL);
    }

    /// Ends a call of OpenAI's API with an error.
    pub fn fail_json(mut self, error: &OpenAiError) {
        self.send_document(error.status.into(), &error.to_json(), ResponseFlags::FINAL);
    }

    fn send_document(&mut self, status: u32, object: &str, flags: ResponseFlags) -> Verdict {
        // A host without the extension sends no such calls, so there is nothing to answer.
        let Some(table) = self.host.openai() else { return Verdict::Closed };
        let answer = OpenAiAnswer { status, reserved: 0, body: view(object) };
        // SAFETY: the handle is live; the text is copied.
        verdict(unsafe { (table.send)(self.handle, &answer, flags) })
    }

    /// Ends with an error.
    pub fn fail(mut self, error: Error) {
        let message = view(&error.message);
        self.raw_send(&mut [], &[], error.wire_code(), message, ResponseFlags::FINAL);
    }

    /// Notes that the inputs are gathered and computing starts, for the statistics.
    pub fn computing(&mut self) {
        // SAFETY: the handle is live.
        unsafe { (self.table().mark)(self.handle, Stage::COMPUTE_START, 0) };
    }

    /// Notes that computing has ended and the outputs are being made, for the statistics.
    pub fn computed(&mut self) {
        // SAFETY: the handle is live.
        unsafe { (self.table().mark)(self.handle, Stage::COMPUTE_END, 0) };
    }

    /// Memory for output `name`, which work of GPU `device` writes: on that GPU if who reads it reads it there, otherwise pinned
    /// memory of the process, which that work reaches too, or if there is none, ordinary memory. Every byte is zero.
    ///
    /// # Errors
    /// There is not so much.
    pub fn allocate(&mut self, name: &str, byte_size: usize, device: i32) -> Result<Memory> {
        let mut buffer = OwnBuffer::empty();
        let kind = MemoryKind::GPU;
        // SAFETY: the handle is live; the name lives until the call returns; on OK the buffer is ours.
        unsafe {
            check((self.table().allocate)(self.handle, view(name), byte_size, kind, device, &mut buffer))?;
        }
        Ok(Memory::new(buffer))
    }

    /// Calls `call` once when the next response is welcome, or when the request is cancelled; at once if it is welcome
    /// now.
    pub fn on_writable(&mut self, call: impl FnOnce() + Send + 'static) {
        let boxed: Box<Box<dyn FnOnce() + Send>> = Box::new(Box::new(call));
        let callback = Writable { call: call_boxed, user: Box::into_raw(boxed).cast() };
        // SAFETY: the handle is live; the host calls back once.
        unsafe { (self.table().on_writable)(self.handle, callback) };
    }

    fn transmit(&mut self, response: Option<Response>, flags: ResponseFlags) -> Verdict {
        let Some(mut response) = response else {
            return self.raw_send(&mut [], &[], StatusCode::OK, view(""), flags);
        };
        let parameters = response.wire_parameters();
        let mut outputs = response.wire_outputs();
        self.raw_send(&mut outputs, &parameters, StatusCode::OK, view(""), flags)
    }

    fn raw_send(
        &mut self,
        outputs: &mut [trireme_abi::OutputTensor],
        parameters: &[trireme_abi::Parameter],
        code: StatusCode,
        message: StrView,
        flags: ResponseFlags,
    ) -> Verdict {
        let mut wire = trireme_abi::Response {
            outputs: outputs.as_mut_ptr(),
            output_count: outputs.len(),
            parameters: parameters.as_ptr(),
            parameter_count: parameters.len(),
            code,
            reserved: 0,
            message,
        };
        // SAFETY: the handle is live; the lists live until the call returns, the buffers move to the host.
        verdict(unsafe { (self.table().send)(self.handle, &mut wire, flags) })
    }
}

fn verdict(verdict: SendVerdict) -> Verdict {
    match verdict {
        SendVerdict::PAUSE => Verdict::Pause,
        SendVerdict::CANCELLED => Verdict::Cancelled,
        SendVerdict::CLOSED => Verdict::Closed,
        _ => Verdict::Continue,
    }
}

unsafe extern "C" fn call_boxed(user: *mut c_void) {
    // SAFETY: the box that `on_writable` made; the host calls back once.
    let call = unsafe { Box::from_raw(user.cast::<Box<dyn FnOnce() + Send>>()) };
    // A panic must not reach the host.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
}

impl Drop for Responder {
    fn drop(&mut self) {
        // SAFETY: owned by this value; the last call.
        unsafe { (self.table().release)(self.handle) };
    }
}
