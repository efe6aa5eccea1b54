//! `ModelStreamInfer`: many requests and their answers on one stream.
//!
//! Requests run concurrently. Answers of models that are not decoupled leave in the order of their requests, those of
//! decoupled models as they come. Whoever writes the answers polls this, so that a client that does not read also does
//! not get more requests accepted. Nothing is spawned but the work on shared memory that would hold up other connections.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::stream::SelectAll;
use http::HeaderMap;
use regex::Regex;
use tokio::time::Sleep;
use tonic::Status;
use trireme_drain::{Debt, Debts};
use trireme_protocol::grpc::{decode_grpc_infer, encode_grpc_infer};
use trireme_protocol::proto::infer_parameter::ParameterChoice;
use trireme_protocol::proto::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
};
use trireme_protocol::{InferRequest, InferResponse};
use trireme_runtime::{Core, ModelVersion, OutputPlan, ResponseStream, ServeError, StreamItem};

use crate::access;
use crate::deadline::{Deadline, deadline_exceeded};
use crate::status::{from_protocol, from_serve};

/// The parameter of every answer that says whether it is the last of its request.
const FINAL: &str = "triton_final_response";
/// With so many requests of one stream running, the next one is not read yet.
const MAX_RUNNING: usize = 1024;

/// The answers to the requests of `R`. Dropped before its end, it cancels what runs.
pub(crate) struct Exchange<R> {
    core: Arc<Core>,
    /// Absent once the client has sent everything.
    requests: Option<R>,
    debts: Debts,
    /// A request that is being brought to its model. The next one waits, so that they come there in their order.
    starting: Option<Later<(Running, bool)>>,
    /// Models that are not decoupled, in the order of their requests.
    ordered: VecDeque<Running>,
    /// Decoupled models.
    free: SelectAll<Running>,
    /// A failure ends the stream with a status in the place of a message.
    error_as_status: bool,
    /// Which of the stream's headers become parameters of its requests.
    forward: Option<Forward>,
    /// The client's, for the whole stream.
    deadline: Option<Pin<Box<Sleep>>>,
}

type Forward = (Regex, HeaderMap);

/// Work that goes on elsewhere.
type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

type Message = Result<ModelStreamInferResponse, Status>;

impl<R> Exchange<R>
where
    R: Stream<Item = Result<ModelInferRequest, Status>> + Unpin,
{
    pub(crate) fn new(
        core: Arc<Core>,
        requests: R,
        debts: Debts,
        error_as_status: bool,
        forward: Option<Forward>,
        deadline: Option<Deadline>,
    ) -> Self {
        Self {
            deadline: deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline.0))),
            core,
            requests: Some(requests),
            debts,
            starting: None,
            ordered: VecDeque::new(),
            free: SelectAll::new(),
            error_as_status,
            forward,
        }
    }

    /// Starts every request that is there; an error of the transport ends the stream.
    fn poll_requests(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        while self.ordered.len() + self.free.len() < MAX_RUNNING {
            if let Some(starting) = &mut self.starting {
                let Poll::Ready(started) = starting.as_mut().poll(context) else { break };
                self.starting = None;
                self.add(started);
                continue;
            }
            let Some(requests) = &mut self.requests else { break };
            match Pin::new(requests).poll_next(context) {
                Poll::Pending => break,
                Poll::Ready(None) => self.requests = None,
                Poll::Ready(Some(Err(status))) => return Err(status),
                Poll::Ready(Some(Ok(request))) => {
                    let debt = self.debts.open();
                    match Running::start(&self.core, request, self.forward.as_ref(), debt) {
                        Start::Now(started) => self.add(started),
                        Start::Later(starting) => self.starting = Some(starting),
                    }
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, (running, decoupled): (Running, bool)) {
        if decoupled { self.free.push(running) } else { self.ordered.push_back(running) }
    }

    fn poll_answers(&mut self, context: &mut Context<'_>) -> Poll<Option<Outcome>> {
        while let Some(oldest) = self.ordered.front_mut() {
            match Pin::new(oldest).poll_next(context) {
                Poll::Ready(Some(outcome)) => return Poll::Ready(Some(outcome)),
                Poll::Ready(None) => drop(self.ordered.pop_front()),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(Some(outcome)) = Pin::new(&mut self.free).poll_next(context) {
            return Poll::Ready(Some(outcome));
        }
        let ended = self.requests.is_none() && self.starting.is_none();
        if ended && self.ordered.is_empty() && self.free.is_empty() {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }

    fn end(&mut self) {
        self.requests = None;
        self.starting = None;
        self.ordered.clear();
        self.free = SelectAll::new();
    }
}

impl<R> Stream for Exchange<R>
where
    R: Stream<Item = Result<ModelInferRequest, Status>> + Unpin,
{
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            self.deadline = None;
            self.end();
            return Poll::Ready(Some(Err(deadline_exceeded())));
        }
        if let Err(status) = self.poll_requests(context) {
            self.end();
            return Poll::Ready(Some(Err(status)));
        }
        self.poll_answers(context).map(|outcome| {
            let message = match outcome? {
                Ok(response) => {
                    ModelStreamInferResponse { infer_response: Some(response), ..Default::default() }
                }
                Err((_, status)) if self.error_as_status => {
                    self.end();
                    return Some(Err(status));
                }
                Err((id, status)) => ModelStreamInferResponse {
                    error_message: status.message().to_owned(),
                    infer_response: Some(ModelInferResponse { id, ..Default::default() }),
                },
            };
            Some(Ok(message))
        })
    }
}

/// An answer, or the request's id and why it failed.
type Outcome = Result<ModelInferResponse, (String, Status)>;

/// One request of the stream.
struct Running {
    id: String,
    /// Whether the client wants a last message without outputs.
    empty_final: bool,
    answers: Answers,
    /// A stream that waits for its client owes nothing; each of its requests does.
    _debt: Debt,
}

enum Answers {
    Stream {
        answers: ResponseStream,
        model: Arc<ModelVersion>,
        outputs: OutputPlan,
        /// An answer that is being written to the memory of a GPU, and whether it is the last one.
        writing: Option<Later<(Result<InferResponse, ServeError>, bool)>>,
    },
    /// It failed before it ran.
    Failed(Status),
    Done,
}

/// A request with whether its model is decoupled, or what brings it there.
enum Start {
    Now((Running, bool)),
    Later(Later<(Running, bool)>),
}

impl Running {
    /// Decodes and queues a request.
    fn start(core: &Core, message: ModelInferRequest, forward: Option<&Forward>, debt: Debt) -> Start {
        let id = message.id.clone();
        let (model, request) = match Self::decode(core, message, forward) {
            Ok(decoded) => decoded,
            Err(status) => return Start::Now(Self::failed(id, status, debt)),
        };
        let memory = core.shared_memory();
        if !memory.takes_time(&model, &request) {
            let sent = memory.send_at_once(&model, request);
            return Start::Now(Self::sent(id, model, sent, debt));
        }
        let memory = Arc::clone(memory);
        Start::Later(Box::pin(async move {
            let sent = memory.send(&model, request).await;
            Self::sent(id, model, sent, debt)
        }))
    }

    fn decode(
        core: &Core,
        message: ModelInferRequest,
        forward: Option<&Forward>,
    ) -> Result<(Arc<ModelVersion>, InferRequest), Status> {
        let mut request = decode_grpc_infer(message, core.limits()).map_err(from_protocol)?;
        if let Some((pattern, headers)) = forward {
            access::forward(&mut request, headers, Some(pattern))?;
        }
        let model = core.model(&request.model_name, request.model_version).map_err(from_serve)?;
        Ok((Arc::clone(&model), request))
    }

    fn sent(
        id: String,
        model: Arc<ModelVersion>,
        sent: Result<(ResponseStream, OutputPlan), ServeError>,
        debt: Debt,
    ) -> (Self, bool) {
        match sent {
            Ok((answers, outputs)) => {
                let (decoupled, empty_final) = (model.is_decoupled(), answers.wants_empty_final());
                let answers = Answers::Stream { answers, model, outputs, writing: None };
                (Self { id, empty_final, answers, _debt: debt }, decoupled)
            }
            Err(error) => Self::failed(id, from_serve(error), debt),
        }
    }

    /// In its place in the order, as the answer of a model that is not decoupled would be.
    fn failed(id: String, status: Status, debt: Debt) -> (Self, bool) {
        (Self { id, empty_final: false, answers: Answers::Failed(status), _debt: debt }, false)
    }

    /// What becomes of an item of the model's, if anything is said of it. An answer that takes time is put aside.
    fn outcome(&mut self, item: Result<StreamItem, ServeError>) -> Option<Outcome> {
        let item = match item {
            Ok(item) => item,
            Err(error) => return Some(Err((self.id.clone(), from_serve(error)))),
        };
        let Answers::Stream { model, outputs, writing, .. } = &mut self.answers else { return None };
        let StreamItem { response, is_final, .. } = item;
        let Some(mut response) = response else {
            // An end that carries flags only is silent unless the client asked for it.
            return self.empty_final.then(|| {
                let message = ModelInferResponse {
                    id: self.id.clone(),
                    model_name: model.name().to_owned(),
                    model_version: model.version().to_string(),
                    ..Default::default()
                };
                Ok(marked(message, is_final))
            });
        };
        if outputs.takes_time() {
            let (model, outputs) = (Arc::clone(model), outputs.clone());
            *writing = Some(Box::pin(async move { (outputs.apply_async(&model, response).await, is_final) }));
            return None;
        }
        let applied = outputs.apply(model, &mut response).map(|()| response);
        Some(self.written(applied, is_final))
    }

    /// An answer whose outputs are where the client wants them.
    fn written(&self, response: Result<InferResponse, ServeError>, is_final: bool) -> Outcome {
        let message = response
            .map_err(from_serve)
            .and_then(|response| encode_grpc_infer(response).map_err(from_protocol));
        message.map(|message| marked(message, is_final)).map_err(|status| (self.id.clone(), status))
    }

    /// The next thing to say, before the end.
    fn poll_outcome(&mut self, context: &mut Context<'_>) -> Poll<Option<Outcome>> {
        loop {
            let Answers::Stream { answers, writing, .. } = &mut self.answers else {
                return Poll::Ready(None);
            };
            let (outcome, is_last) = if let Some(work) = writing {
                let Poll::Ready((response, is_final)) = work.as_mut().poll(context) else {
                    return Poll::Pending;
                };
                *writing = None;
                (Some(self.written(response, is_final)), is_final)
            } else {
                // The future holds nothing between two polls: the stream itself keeps the waker.
                let Poll::Ready(item) = pin!(answers.next()).poll(context) else { return Poll::Pending };
                let Some(item) = item else {
                    self.answers = Answers::Done;
                    continue;
                };
                let is_last = !matches!(&item, Ok(item) if !item.is_final);
                let outcome = self.outcome(item);
                (outcome, is_last && !self.is_writing())
            };
            if is_last || matches!(outcome, Some(Err(_))) {
                self.answers = Answers::Done;
            }
            if outcome.is_some() {
                return Poll::Ready(outcome);
            }
        }
    }

    fn is_writing(&self) -> bool {
        matches!(&self.answers, Answers::Stream { writing: Some(_), .. })
    }
}

/// The answer, which says whether it is the last of its request.
fn marked(mut message: ModelInferResponse, is_final: bool) -> ModelInferResponse {
    let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(is_final)) };
    message.parameters.insert(FINAL.to_owned(), last);
    message
}

impl Stream for Running {
    type Item = Outcome;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Outcome>> {
        if matches!(self.answers, Answers::Failed(_))
            && let Answers::Failed(status) = std::mem::replace(&mut self.answers, Answers::Done)
        {
            return Poll::Ready(Some(Err((self.id.clone(), status))));
        }
        self.poll_outcome(context)
    }
}
