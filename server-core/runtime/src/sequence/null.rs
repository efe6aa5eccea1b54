//! Null requests: what a model sees in a slot that has no request. Same inputs as a real one, all zero, READY false.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use bytes::Bytes;
use smallvec::SmallVec;
use trireme_host::abi::Stage;
use trireme_host::{
    Correlation, Input, Item, OutputSet, Request, Responder, Response, ResponseSink, Verdict,
};

/// A null request with the shapes of `request`, which has no controls yet.
pub(super) fn like(request: &Request) -> Request {
    Request {
        id: String::new(),
        inputs: request.inputs.iter().map(zeros).collect(),
        parameters: Vec::new(),
        wanted: OutputSet::none(0),
        batch_size: request.batch_size,
        priority: 0,
        deadline_ns: 0,
        document: None,
        correlation: Correlation::None,
        trace_parent: String::new(),
        names: Arc::clone(&request.names),
    }
}

fn zeros(input: &Input) -> Input {
    let length = input.byte_size();
    // Texts of length 0, where the type is one of texts.
    let elements: i64 = input.shape.iter().product();
    let texts = input.dtype == trireme_host::abi::DType::BYTES;
    let length = if texts { usize::try_from(elements).unwrap_or(0) * 4 } else { length };
    let mut buffers = SmallVec::new();
    if length > 0 {
        buffers.push(Bytes::from(vec![0; length]));
    }
    Input { buffers, device: None, ..input.clone() }
}

/// One row without a request.
pub(super) fn item(model: &Request) -> Item {
    let request = Request {
        inputs: model.inputs.clone(),
        wanted: model.wanted.clone(),
        names: Arc::clone(&model.names),
        id: String::new(),
        parameters: Vec::new(),
        trace_parent: String::new(),
        document: None,
        correlation: Correlation::None,
        ..*model
    };
    Item { request: Box::new(request), responder: Responder::new(Arc::new(Nobody(AtomicU32::new(0)))) }
}

/// Who asked a null request.
struct Nobody(AtomicU32);

impl ResponseSink for Nobody {
    fn send(&self, _: Response, is_final: bool) -> Verdict {
        if is_final { Verdict::Closed } else { Verdict::Continue }
    }

    fn on_writable(&self, call: Box<dyn FnOnce() + Send>) {
        call();
    }

    fn cancelled(&self) -> &AtomicU32 {
        &self.0
    }

    fn mark(&self, _: Stage, _: u64) {}
}
