//! One request from the moment it is accepted to its last answer.
//!
//! ```text
//!   accepted ── queued ── taken into a batch ── answers ── FINAL
//!       │          │                │               │
//!       └── refused└── expired      └── cancelled   └── dropped by the backend: INTERNAL
//! ```
//! Whatever happens, exactly one terminal answer reaches the mailbox.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};

use trireme_host::abi::Stage;
use trireme_host::{
    CallReader, Document, Message, Output, Response, ResponseSink, Shape, Status, Value, Verdict,
};
use trireme_protocol::{DataType, InferResponse, OutputTensor, ParameterValue, ShapeText, element_count};
use trireme_scheduling::{MemberId, Turn};
use trireme_telemetry::FailureReason;
use trireme_telemetry::clock::now_ns;

use crate::batch_io::OutputShapes;
use crate::cache::{Key, share_response};
use crate::error::ServeError;
use crate::execution::Execution;
use crate::lineage::{Dependent, Lineage, Outlet};
use crate::model::ModelVersion;
use crate::sequence::StateSlot;
use crate::statistics::{ExecutionTimes, Sums, lock};
use crate::table::reshape;
use crate::validate::OutputChoice;

/// What a front end reads for one request, in order; the last one is final.
#[derive(Debug)]
pub struct StreamItem {
    /// Absent for an end that carries flags only, and for a document.
    pub response: Option<InferResponse>,
    /// What a call of OpenAI's API is answered with.
    pub document: Option<Document>,
    /// No further item follows.
    pub is_final: bool,
}

impl StreamItem {
    fn end(response: Option<InferResponse>) -> Self {
        Self { response, document: None, is_final: true }
    }

    /// Whether it is a document that says that the call failed.
    fn is_failure(&self) -> bool {
        self.document.as_ref().is_some_and(Document::is_error)
    }
}

pub(crate) type Letter = Result<StreamItem, ServeError>;

/// The state of a request in flight.
pub(crate) struct Journey {
    pub(crate) model: Arc<ModelVersion>,
    id: String,
    outputs: OutputChoice,
    batch_size: u32,
    empty_final: bool,
    /// Whether it is a call of OpenAI's API: then documents go out, any number of them.
    document: bool,
    cancelled: AtomicU32,
    accepted_ns: u64,
    deadline_ns: AtomicU64,
    /// Where the request waits in the queue, 0 while it does not.
    pub(crate) ticket: AtomicU64,
    /// The same, also after it has left the queue.
    pub(crate) number: AtomicU64,
    /// Where the state of its sequence is kept; set when an instance takes it.
    slot: OnceLock<StateSlot>,
    progress: Mutex<Progress>,
    /// Its place in the order of answers, if the model keeps one.
    turn: OnceLock<Turn>,
    outlet: Outlet,
    /// Whose part it is, if another request caused it.
    lineage: Lineage,
    /// The shapes of outputs that are cut by those of an input.
    output_shapes: OnceLock<OutputShapes>,
    /// Under which name its answer is to be kept, and how long the look-up took.
    cache_miss: OnceLock<(Key, u64)>,
    /// What its steps spent, if its model is an ensemble.
    sums: Option<Arc<Sums>>,
}

#[derive(Default)]
struct Progress {
    execution: Option<Arc<Execution>>,
    /// What it caused, to be cancelled with it.
    dependents: Vec<Weak<dyn Dependent>>,
    /// A response of a model that is not decoupled waits here for FINAL.
    held: Option<Response>,
    responses: u64,
    last_response_ns: u64,
    done: bool,
}

impl Journey {
    pub(crate) fn new(
        model: Arc<ModelVersion>,
        id: String,
        outputs: OutputChoice,
        batch_size: u32,
        empty_final: bool,
        document: bool,
        (outlet, lineage): (Outlet, Lineage),
    ) -> Arc<Self> {
        Arc::new(Self {
            sums: model.is_ensemble().then(Arc::default),
            model,
            id,
            outputs,
            batch_size,
            empty_final,
            document,
            cancelled: AtomicU32::new(0),
            accepted_ns: now_ns(),
            deadline_ns: AtomicU64::new(0),
            ticket: AtomicU64::new(0),
            number: AtomicU64::new(0),
            slot: OnceLock::new(),
            progress: Mutex::default(),
            turn: OnceLock::new(),
            outlet,
            lineage,
            output_shapes: OnceLock::new(),
            cache_miss: OnceLock::new(),
        })
    }

    /// Nanoseconds of the monotonic clock; 0: none.
    pub(crate) fn deadline_ns(&self) -> u64 {
        self.deadline_ns.load(Relaxed)
    }

    pub(crate) fn set_deadline_ns(&self, deadline_ns: u64) {
        self.deadline_ns.store(deadline_ns, Relaxed);
    }

    pub(crate) fn accepted_ns(&self) -> u64 {
        self.accepted_ns
    }

    /// Outputs of these numbers have these shapes, whatever the backend says of them.
    pub(crate) fn set_output_shapes(&self, shapes: OutputShapes) {
        let _ = self.output_shapes.set(shapes);
    }

    /// The request is in the row of this slot.
    pub(crate) fn take_slot(&self, slot: StateSlot) {
        let _ = self.slot.set(slot);
    }

    /// An instance has taken the request into a batch.
    /// What the instance that runs it holds of the server's resources, if it runs and needs any.
    pub(crate) fn share(&self) -> Option<MemberId> {
        lock(&self.progress).execution.as_ref()?.share
    }

    pub(crate) fn begin(&self, execution: Arc<Execution>) {
        if lock(&self.progress).execution.replace(execution).is_none() {
            self.model.metrics.running_request_count.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Letter> {
        self.outlet.poll_next(context)
    }

    /// The reader went away.
    pub(crate) fn cancel(self: &Arc<Self>) {
        self.cancelled.store(1, SeqCst);
        self.outlet.abandon();
        self.model.queue().cancel(self);
        let dependents = std::mem::take(&mut lock(&self.progress).dependents);
        dependents.iter().filter_map(Weak::upgrade).for_each(|dependent| dependent.cancel());
    }

    /// Cancels `dependent` with this request, at once if that is cancelled already.
    pub(crate) fn adopt(&self, dependent: &Arc<dyn Dependent>) {
        let mut progress = lock(&self.progress);
        let dependents = &mut progress.dependents;
        // Those that have ended are swept now and then: a request may cause any number of others.
        if dependents.len() >= 16 && dependents.len().is_power_of_two() {
            dependents.retain(|dependent| dependent.strong_count() > 0);
        }
        dependents.push(Arc::downgrade(dependent));
        drop(progress);
        if self.is_cancelled() {
            Arc::clone(dependent).cancel();
        }
    }

    pub(crate) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Where its steps add up what they spend.
    pub(crate) fn sums(&self) -> Option<&Arc<Sums>> {
        self.sums.as_ref()
    }

    /// Gives the request its place in the order of answers.
    pub(crate) fn take_turn(&self, turn: Turn) -> bool {
        self.turn.set(turn).is_ok()
    }

    /// Sends a letter, in its turn if the model keeps the order; true if the backend should pause.
    fn send_letter(&self, letter: Letter) -> bool {
        match (self.model.ordering(), self.turn.get()) {
            (Some(ordering), Some(turn)) => {
                ordering.send(*turn, letter);
                false
            }
            _ => self.deliver(letter),
        }
    }

    /// Puts a letter where the client reads; true if the backend should pause.
    pub(crate) fn deliver(&self, letter: Letter) -> bool {
        self.outlet.push(letter)
    }

    /// Whether so much waits for the client that no more is taken.
    fn is_full(&self) -> bool {
        let held = match (self.model.ordering(), self.turn.get()) {
            (Some(ordering), Some(turn)) => ordering.held(*turn),
            _ => 0,
        };
        held >= crate::mailbox::LIMIT || self.outlet.is_full()
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed) != 0
    }

    /// The cache does not know the answer, but is to know it.
    pub(crate) fn missed(&self, key: Key, lookup_ns: u64) {
        let _ = self.cache_miss.set((key, lookup_ns));
    }

    /// Answers from the cache, before the request has entered a queue.
    pub(crate) fn answer_from_cache(&self, response: Response, lookup_start: u64, lookup_ns: u64) {
        let converted = self.convert(response);
        lock(&self.progress).done = true;
        if converted.is_ok() {
            let queue_ns = lookup_start.saturating_sub(self.accepted_ns);
            let total_ns = now_ns().saturating_sub(self.accepted_ns);
            self.model.statistics.success.add(total_ns);
            self.model.statistics.queue.add(queue_ns);
            self.model.statistics.cache_hit.add(lookup_ns);
            self.model.metrics.count_cache_hit(total_ns, queue_ns, lookup_ns);
        } else {
            self.count_failure(FailureReason::Other);
        }
        self.deliver(converted.map(|response| StreamItem::end(Some(response))));
    }

    /// Refused after it was accepted, by somebody who has counted that.
    pub(crate) fn refuse(&self, error: ServeError) {
        if !std::mem::replace(&mut lock(&self.progress).done, true) {
            self.send_letter(Err(error));
        }
    }

    /// Keeps a good answer, if it is to be kept.
    fn keep(&self, response: Option<&Response>) {
        let Some(response) = response else { return };
        let (Some(cache), Some((key, lookup_ns))) = (&self.model.cache, self.cache_miss.get()) else {
            return;
        };
        let start = now_ns();
        cache.insert(*key, response);
        let miss_ns = lookup_ns + now_ns().saturating_sub(start);
        self.model.statistics.cache_miss.add(miss_ns);
        self.model.metrics.count_cache_miss(miss_ns);
    }

    /// Ends the request without a backend: refused, expired, cancelled.
    pub(crate) fn fail(&self, error: ServeError, reason: FailureReason) {
        let mut progress = lock(&self.progress);
        if std::mem::replace(&mut progress.done, true) {
            return;
        }
        drop(progress);
        self.count_failure(reason);
        self.send_letter(Err(error));
    }

    fn count_failure(&self, reason: FailureReason) {
        self.model.statistics.fail.add(now_ns().saturating_sub(self.accepted_ns));
        self.model.metrics.count_failure(reason);
    }

    /// Counts the request as answered well; called once, before its last letter leaves.
    fn count_success(&self, times: &ExecutionTimes) {
        let statistics = &self.model.statistics;
        let total = times.end.saturating_sub(self.accepted_ns);
        let queued = times.start.saturating_sub(self.accepted_ns);
        if let Some(sums) = &self.lineage.sums {
            sums.add(times);
        }
        statistics.success.add(total);
        statistics.queue.add(queued);
        statistics.compute_input.add(times.input_ns);
        statistics.compute_infer.add(times.infer_ns);
        statistics.compute_output.add(times.output_ns);
        statistics.inference_count.fetch_add(u64::from(self.batch_size), Relaxed);
        statistics.last_inference_ms.store(trireme_telemetry::clock::epoch_ms(), Relaxed);
        self.model.metrics.count_success(&trireme_telemetry::RequestTimes {
            batch_size: u64::from(self.batch_size),
            total_ns: total,
            queue_ns: queued,
            compute_input_ns: times.input_ns,
            compute_infer_ns: times.infer_ns,
            compute_output_ns: times.output_ns,
        });
    }

    /// The backend's answer in the form of the protocol; what was not asked for is left out.
    fn convert(&self, response: Response) -> Result<InferResponse, ServeError> {
        let table = &self.model.table;
        let mut outputs = Vec::with_capacity(response.outputs.len());
        let mut order = Vec::with_capacity(response.outputs.len());
        for output in response.outputs {
            if let (Some(sequences), Some(slot)) = (self.model.sequences(), self.slot.get())
                && sequences.keep(*slot, &output)
                && table.output(&output.name).is_none()
            {
                continue;
            }
            let Some(index) = table.output(&output.name) else {
                return Err(ServeError::internal(format!(
                    "the backend of model '{}' sent output '{}', which its configuration does not have",
                    self.model.name(),
                    output.name
                )));
            };
            let (rank, binary) = match &self.outputs.chosen {
                None => (index, self.outputs.binary),
                Some(chosen) => match chosen.iter().position(|(wanted, _)| *wanted == index) {
                    None => continue,
                    Some(rank) => (rank, chosen[rank].1.binary.unwrap_or(self.outputs.binary)),
                },
            };
            let spec = &table.outputs[index];
            let datatype = i32::try_from(output.dtype.0)
                .ok()
                .and_then(DataType::from_proto)
                .filter(|datatype| *datatype == spec.datatype);
            let Some(datatype) = datatype else {
                return Err(ServeError::internal(format!(
                    "the backend of model '{}' sent output '{}' with data type number {}, its configuration says '{}'",
                    self.model.name(),
                    output.name,
                    output.dtype.0,
                    spec.datatype.wire_name()
                )));
            };
            let cut = self.output_shapes.get().and_then(|all| all.iter().find(|(at, _)| *at == index));
            let shape = match &spec.reshape {
                _ if cut.is_some() => self.cut_shape(&output, cut.map_or(&[][..], |(_, shape)| shape))?,
                None => output.shape.into_iter().collect(),
                Some(from) => {
                    let (head, dims) = output
                        .shape
                        .split_at(usize::from(spec.has_batch(table.batches())).min(output.shape.len()));
                    head.iter().copied().chain(reshape(dims, from, &spec.dims)).collect()
                }
            };
            outputs.push(OutputTensor {
                name: output.name,
                datatype,
                shape,
                data: output.data,
                binary,
                shared_memory: None,
            });
            order.push(rank);
        }
        if order.windows(2).any(|pair| pair[0] > pair[1]) {
            let mut ranked: Vec<_> = order.into_iter().zip(outputs).collect();
            ranked.sort_by_key(|(rank, _)| *rank);
            outputs = ranked.into_iter().map(|(_, output)| output).collect();
        }
        Ok(InferResponse {
            id: self.id.clone(),
            model_name: self.model.name().to_owned(),
            model_version: self.model.version(),
            parameters: response
                .parameters
                .into_iter()
                .map(|(name, value)| (name, from_value(value)))
                .collect(),
            outputs,
        })
    }

    /// The shape of an output that is cut by an input (`batch_output`): the backend has said how many elements there are.
    fn cut_shape(&self, output: &Output, wanted: &[i64]) -> Result<Shape, ServeError> {
        if element_count(wanted).ok() == element_count(&output.shape).ok() {
            return Ok(wanted.into());
        }
        Err(ServeError::internal(format!(
            "the backend of model '{}' sent output '{}' of shape {}, but its batch_output needs the elements of {}",
            self.model.name(),
            output.name,
            ShapeText(&output.shape),
            ShapeText(wanted)
        )))
    }

    /// The one answer of a model that is not decoupled.
    fn finish_single(&self, count: u64, response: Option<Response>) -> Letter {
        let Some(response) = response.filter(|_| count == 1) else {
            return Err(ServeError::internal(format!("expected a single response, got {count}")));
        };
        match response.error {
            Some(error) => Err(error.into()),
            None => {
                let missed = self.cache_miss.get().is_some();
                let kept = missed.then(|| share_response(&response));
                let letter = StreamItem::end(Some(self.convert(response)?));
                self.keep(kept.as_ref());
                Ok(letter)
            }
        }
    }

    fn finish_decoupled(&self, response: Option<Response>) -> Letter {
        match response {
            None => Ok(StreamItem::end(None)),
            Some(Response { error: Some(error), .. }) => Err(error.into()),
            Some(response) => self.item(response, true),
        }
    }

    /// One of several answers, or the last.
    fn item(&self, response: Response, is_final: bool) -> Letter {
        match (response.document, self.document) {
            (Some(document), true) => Ok(StreamItem { response: None, document: Some(document), is_final }),
            (None, false) => {
                let response = Response { document: None, ..response };
                Ok(StreamItem { response: Some(self.convert(response)?), document: None, is_final })
            }
            (document, _) => Err(ServeError::internal(format!(
                "the backend of model '{}' answered a {} with a {}",
                self.model.name(),
                if document.is_some() { "request of tensors" } else { "call of OpenAI's API" },
                if document.is_some() { "document" } else { "tensor" },
            ))),
        }
    }

    /// Notes a response under its index, as decoupled models report them.
    fn count_response(&self, progress: &mut Progress, response: Option<&Response>, now: u64) {
        let execution_start =
            progress.execution.as_ref().map_or(self.accepted_ns, |run| run.times(now).start);
        let since = if progress.last_response_ns == 0 { execution_start } else { progress.last_response_ns };
        let took = now.saturating_sub(since);
        let index = progress.responses;
        progress.last_response_ns = now;
        if index == 0 && response.is_some() {
            self.model.metrics.observe_first_response(now.saturating_sub(self.accepted_ns));
        }
        let cancelled = self.is_cancelled();
        self.model.statistics.count_response(index, |counts| {
            let add = |slot: &mut (u64, u64)| *slot = (slot.0 + 1, slot.1 + took);
            match response {
                _ if cancelled => add(&mut counts.cancel),
                None => add(&mut counts.empty),
                Some(response) if is_failure(response) => {
                    add(&mut counts.infer);
                    add(&mut counts.fail);
                }
                Some(_) => {
                    add(&mut counts.infer);
                    counts.output.0 += 1;
                    add(&mut counts.success);
                }
            }
        });
    }
}

impl ResponseSink for Journey {
    fn send(&self, response: Response, is_final: bool) -> Verdict {
        let now = now_ns();
        // A document may come in parts, whatever the model's tensors do.
        let decoupled = self.model.is_decoupled() || self.document;
        let mut progress = lock(&self.progress);
        if progress.done {
            return Verdict::Closed;
        }
        // A response without outputs and without an error carries only the FINAL flag.
        let empty = response.outputs.is_empty()
            && response.error.is_none()
            && response.document.is_none()
            && response.parameters.is_empty();
        let failed = is_failure(&response);
        let response = (!empty).then_some(response);
        if decoupled {
            self.count_response(&mut progress, response.as_ref(), now);
        }
        progress.responses += u64::from(response.is_some());
        // An error is the last word, whatever the flag says.
        let is_final = is_final || failed;
        if !is_final {
            let Some(response) = response else { return self.verdict(false) };
            if !decoupled {
                let earlier = progress.held.replace(response);
                drop(progress);
                // Its memory goes back to the backend, so without the lock.
                drop(earlier);
                return self.verdict(false);
            }
            drop(progress);
            let converted = if self.is_full() {
                Err(ServeError::unavailable(
                    "the client reads too slowly, and the backend sends on although it was asked to pause",
                ))
            } else {
                self.item(response, false)
            };
            return match converted {
                Ok(item) => self.verdict(self.send_letter(Ok(item))),
                Err(error) => {
                    let mut progress = lock(&self.progress);
                    progress.done = true;
                    let execution = progress.execution.take();
                    drop(progress);
                    self.end(Err(error), execution, now);
                    Verdict::Closed
                }
            };
        }
        progress.done = true;
        let (held, count) = (progress.held.take(), progress.responses);
        let execution = progress.execution.take();
        drop(progress);
        // Without the lock: what is not used of the response goes back to the backend.
        let response = response.or(held);
        let letter =
            if decoupled { self.finish_decoupled(response) } else { self.finish_single(count, response) };
        self.end(letter, execution, now);
        self.verdict(false)
    }

    fn on_writable(&self, call: Box<dyn FnOnce() + Send>) {
        self.outlet.on_writable(call);
    }

    fn call(self: Arc<Self>, call: Message, reader: CallReader) -> Result<(), Status> {
        crate::bls::call(&self, call, reader).map_err(Status::from)
    }

    fn cancelled(&self) -> &AtomicU32 {
        &self.cancelled
    }

    fn mark(&self, stage: Stage, time_ns: u64) {
        let time_ns = if time_ns == 0 { now_ns() } else { time_ns };
        if let Some(execution) = &lock(&self.progress).execution {
            execution.mark(stage, time_ns);
        }
    }
}

impl Drop for Journey {
    fn drop(&mut self) {
        // Ended by somebody else while an instance had it.
        let left = self.progress.get_mut().unwrap_or_else(PoisonError::into_inner).execution.take();
        if left.is_some() {
            self.model.metrics.running_request_count.fetch_sub(1, Relaxed);
        }
    }
}

impl Journey {
    /// The last answer of a request that an instance had: counts it, gives the room back, then lets the answer leave.
    fn end(&self, letter: Letter, execution: Option<Arc<Execution>>, now: u64) {
        if execution.is_some() {
            self.model.metrics.running_request_count.fetch_sub(1, Relaxed);
        }
        let failed = letter.as_ref().map_or(true, StreamItem::is_failure);
        let times = match &execution {
            Some(execution) => execution.request_done(self, self.batch_size, now),
            None => self.steps_done(!failed, now),
        };
        match &letter {
            Ok(_) if !failed => self.count_success(&times),
            _ if self.is_cancelled() => self.count_failure(FailureReason::Canceled),
            Err(error) if error.status == trireme_protocol::StatusCode::Cancelled => {
                self.count_failure(FailureReason::Canceled);
            }
            Err(_) if self.sums.is_some() => {
                // Dashboards know it so: the failure of a step counts for the ensemble too.
                self.model.metrics.count_failure(FailureReason::Other);
                self.count_failure(FailureReason::Other);
            }
            _ => self.count_failure(FailureReason::Backend),
        }
        self.send_letter(letter);
    }

    /// An ensemble counts a request as one execution, with the sums of what its steps spent.
    fn steps_done(&self, ok: bool, now: u64) -> ExecutionTimes {
        let Some(sums) = &self.sums else { return ExecutionTimes::none(now) };
        let times = sums.times(self.accepted_ns, now);
        if ok {
            self.model.statistics.count_batch(u64::from(self.batch_size), &times);
            self.model.metrics.count_execution();
        }
        times
    }

    fn verdict(&self, paused: bool) -> Verdict {
        if self.is_cancelled() {
            Verdict::Cancelled
        } else if paused {
            Verdict::Pause
        } else {
            Verdict::Continue
        }
    }

    /// Whether the client wants to be told of an end that carries no response.
    pub(crate) fn wants_empty_final(&self) -> bool {
        self.empty_final
    }
}

/// The request of a call goes with the one that caused it.
impl Dependent for Journey {
    fn cancel(self: Arc<Self>) {
        Self::cancel(&self);
    }
}

/// Whether a response is the last word because something went wrong.
fn is_failure(response: &Response) -> bool {
    response.error.is_some() || response.document.as_ref().is_some_and(Document::is_error)
}

fn from_value(value: Value) -> ParameterValue {
    match value {
        Value::Bool(value) => ParameterValue::Bool(value),
        Value::Int(value) => ParameterValue::Int64(value),
        Value::Double(value) => ParameterValue::Double(value),
        Value::String(value) => ParameterValue::String(value),
    }
}
