//! One request from the moment it is accepted to its last answer.
//!
//! ```text
//!   accepted ── queued ── taken into a batch ── answers ── FINAL
//!       │          │                │               │
//!       └── refused└── expired      └── cancelled   └── dropped by the backend: INTERNAL
//! ```
//! Whatever happens, exactly one terminal answer reaches the mailbox.

mod answer;
mod cached;
mod counting;
mod sink;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};

use trireme_host::{Document, Response};
use trireme_protocol::InferResponse;
use trireme_scheduling::{MemberId, Turn};
use trireme_telemetry::FailureReason;
use trireme_telemetry::clock::now_ns;

use crate::batch_io::OutputShapes;
use crate::cache::Key;
use crate::error::ServeError;
use crate::execution::Execution;
use crate::lineage::{Dependent, Lineage, Outlet};
use crate::lookout;
use crate::model::ModelVersion;
use crate::sequence::StateSlot;
use crate::statistics::{Sums, lock};
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

    /// What the instance that runs it holds of the server's resources, if it runs and needs any.
    pub(crate) fn share(&self) -> Option<MemberId> {
        lock(&self.progress).execution.as_ref()?.share
    }

    /// An instance has taken the request into a batch.
    pub(crate) fn begin(&self, execution: Arc<Execution>) {
        if lock(&self.progress).execution.replace(execution).is_none() {
            self.model.metrics.running_request_count.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Letter> {
        self.outlet.poll_next(context)
    }

    /// Whether the client wants to be told of an end that carries no response.
    pub(crate) fn wants_empty_final(&self) -> bool {
        self.empty_final
    }

    /// Waits for a moment if an answer is likely to come in that.
    pub(crate) async fn look_out(&self) {
        lookout::look_out(&lookout::READERS, &self.model.answer_wait, || self.outlet.has_letter()).await;
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

    /// Refused after it was accepted, by somebody who has counted that.
    pub(crate) fn refuse(&self, error: ServeError) {
        if !std::mem::replace(&mut lock(&self.progress).done, true) {
            self.send_letter(Err(error));
        }
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
