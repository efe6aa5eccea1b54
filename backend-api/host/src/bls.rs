//! The host's half of `bls/1`: calls of a backend become values, and go to the sink of the request they belong to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use bytes::Bytes;
use trireme_abi::{BlsVtable, Buffer, CallReply, CallerHandle, ResponderHandle, StrView};

use crate::memory::{Foreign, bytes_buffer};
use crate::response::{Responder, ResponseSink};
use crate::status::Status;
use crate::wire::{read, view};

/// What a message of a backend may have at most; more is a mistake.
pub(crate) struct Most {
    /// What the message is: `a call`.
    pub(crate) what: &'static str,
    /// What its text holds: `names and parameters`.
    pub(crate) text: &'static str,
    /// What each of its buffers is, as several.
    pub(crate) items: &'static str,
    /// So many of those.
    pub(crate) buffers: usize,
}

/// Bytes of a message's text.
const MAX_MESSAGE: usize = 1 << 20;
const CALL: Most = Most { what: "a call", text: "names and parameters", items: "tensors", buffers: 4096 };

/// A call or an answer to one: a JSON text, and the tensors that it names, not copied.
#[derive(Debug)]
pub struct Message {
    /// See `trireme_abi::BlsVtable`.
    pub text: String,
    /// One for each tensor of the text.
    pub buffers: Vec<Bytes>,
}

/// Where the answers to a call go. Dropped before the final one, nobody hears of it: see [`ResponseSink::call`].
pub struct CallReader {
    reply: CallReply,
    done: AtomicBool,
}

// SAFETY: the ABI says that `answer` may be called on any thread.
unsafe impl Send for CallReader {}
// SAFETY: as above; who answers a request does so one by one.
unsafe impl Sync for CallReader {}

impl CallReader {
    pub(crate) fn new(reply: CallReply) -> Self {
        Self { reply, done: AtomicBool::new(false) }
    }

    /// Hands an answer over; one by one. After the final one nothing happens any more.
    pub fn answer(&self, message: Message, is_final: bool) {
        if self.done.fetch_or(is_final, SeqCst) {
            return;
        }
        let mut buffers: Vec<Buffer> = message.buffers.into_iter().map(bytes_buffer).collect();
        // SAFETY: the final answer was not given yet; the buffers move, the text lives until the call returns.
        unsafe {
            (self.reply.answer)(
                self.reply.user,
                view(&message.text),
                buffers.as_mut_ptr(),
                buffers.len(),
                u32::from(is_final),
            );
        }
    }
}

pub(crate) static BLS: BlsVtable = BlsVtable { struct_size: size_of::<BlsVtable>(), open, call, close };

type Caller = Arc<dyn ResponseSink>;

unsafe extern "C" fn open(responder: *const ResponderHandle) -> *mut CallerHandle {
    // SAFETY: the ABI demands a live responder, which is a box of the host.
    let sink: Caller = Arc::clone(unsafe { &(*responder.cast::<Responder>()).sink });
    Box::into_raw(Box::new(sink)).cast()
}

unsafe extern "C" fn close(caller: *mut CallerHandle) {
    if !caller.is_null() {
        // SAFETY: the box that `open` made; closed once.
        drop(unsafe { Box::from_raw(caller.cast::<Caller>()) });
    }
}

unsafe extern "C" fn call(
    caller: *const CallerHandle,
    message: StrView,
    buffers: *mut Buffer,
    buffer_count: usize,
    reply: CallReply,
) -> trireme_abi::Status {
    // SAFETY: the ABI demands `buffer_count` whole buffers and a readable text.
    let message = unsafe { take(message, buffers, buffer_count, &CALL) };
    if caller.is_null() {
        return Status::invalid("a call without its request").into_wire();
    }
    // SAFETY: the ABI demands an open caller.
    let sink = unsafe { Caller::clone(&*caller.cast::<Caller>()) };
    match message.and_then(|message| sink.call(message, CallReader::new(reply))) {
        Ok(()) => Status::ok(),
        Err(status) => status.into_wire(),
    }
}

/// A message of a backend, whose buffers move here whatever the result.
///
/// # Safety
/// `message` is null or readable; `buffers` is null or names `buffer_count` whole buffers.
pub(crate) unsafe fn take(
    message: StrView,
    buffers: *mut Buffer,
    buffer_count: usize,
    most: &Most,
) -> Result<Message, Status> {
    // SAFETY: by this function's contract; each is moved out once.
    let one = |at: usize| unsafe { Foreign::new(buffers.add(at).read()) };
    let count = if buffers.is_null() { 0 } else { buffer_count };
    let buffers: Vec<Foreign> = (0..count).map(one).collect();
    let Most { what, text, items, buffers: most } = most;
    if buffers.len() > *most {
        return Err(Status::invalid(format!("{what} with {count} {items}; at most {most} are possible")));
    }
    if message.len > MAX_MESSAGE {
        return Err(Status::invalid(format!(
            "{what} whose {text} take {} bytes as JSON; at most {MAX_MESSAGE} are possible",
            message.len
        )));
    }
    // SAFETY: by this function's contract.
    let text = unsafe { read(message) };
    let buffers = buffers.into_iter().map(Foreign::into_bytes).collect::<Result<Vec<Bytes>, Status>>()?;
    Ok(Message { text, buffers })
}
