use std::sync::Mutex;
use std::sync::atomic::AtomicU32;

use bytes::Bytes;
use smallvec::SmallVec;
use trireme_host::abi::{DType, Stage};
use trireme_host::{Correlation, Input, OutputSet, Request, Response, ResponseSink, Verdict};

/// One call of `send`.
pub(crate) struct Call {
    pub(crate) response: Response,
    pub(crate) is_final: bool,
}

/// Keeps what a backend answers to one request.
#[derive(Default)]
pub(crate) struct Answers {
    calls: Mutex<Vec<Call>>,
    cancelled: AtomicU32,
}

impl Answers {
    /// All answers; the last one must have been final, and only that.
    pub(crate) fn take(&self) -> Vec<Response> {
        let calls = std::mem::take(&mut *self.calls.lock().unwrap());
        let finals: Vec<bool> = calls.iter().map(|call| call.is_final).collect();
        assert!(finals.split_last().is_some_and(|(last, rest)| *last && !rest.contains(&true)), "{finals:?}");
        calls.into_iter().map(|call| call.response).collect()
    }
}

impl ResponseSink for Answers {
    fn send(&self, response: Response, is_final: bool) -> Verdict {
        self.calls.lock().unwrap().push(Call { response, is_final });
        Verdict::Continue
    }

    fn on_writable(&self, call: Box<dyn FnOnce() + Send>) {
        call();
    }

    fn cancelled(&self) -> &AtomicU32 {
        &self.cancelled
    }

    fn mark(&self, _: Stage, _: u64) {}
}

/// Input `index` in pieces.
pub(crate) fn input(index: u16, dtype: DType, shape: &[i64], pieces: &[&[u8]]) -> Input {
    let buffers = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
    Input { index, dtype, shape: SmallVec::from_slice(shape), buffers, device: None }
}

/// A request of a model whose inputs have these names.
pub(crate) fn request(id: &str, names: &[&str], inputs: Vec<Input>) -> Request {
    Request {
        id: id.to_owned(),
        inputs: inputs.into(),
        parameters: Vec::new(),
        wanted: OutputSet::all(4),
        batch_size: 1,
        priority: 0,
        deadline_ns: 0,
        document: None,
        correlation: Correlation::None,
        trace_parent: String::new(),
        names: names.iter().map(|name| Box::from(*name)).collect(),
    }
}
