//! Ensembles: models without instances, whose requests run other models through their queues.

mod plan;
mod run;
mod step;
mod tensor;

use std::sync::{Arc, Mutex, OnceLock, Weak};

use arc_swap::ArcSwap;
use trireme_host::{Request, Value};
use trireme_model_config::{CheckedConfig, Draft};
use trireme_protocol::{InferRequest, Parameters, SequenceControl, SequenceId};
use trireme_scheduling::ensemble::Gate;

use crate::error::ServeError;
use crate::index::Index;
use crate::journey::Journey;
use crate::served::Served;
use crate::statistics::lock;
use crate::threads::Threads;
use plan::Plan;
use run::Run;
use step::Waiting;

pub(crate) use tensor::{device_tensor, held};

/// How deep requests may cause each other.
pub(crate) const MAX_DEPTH: u32 = 16;

/// The steps of a loaded ensemble and what its requests share.
pub(crate) struct Ensemble {
    plan: Plan,
    /// Weak: the index holds the ensemble.
    index: Weak<ArcSwap<Index>>,
    gate: Mutex<Gate<Waiting>>,
    threads: OnceLock<Arc<Threads>>,
}

/// What the steps of a request have from it.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    id: String,
    sequence: SequenceControl,
    priority: u64,
    timeout_us: u64,
    parameters: Parameters,
}

impl Header {
    pub(crate) fn of(request: &InferRequest) -> Self {
        Self {
            id: request.id.clone(),
            sequence: request.sequence.clone(),
            priority: request.priority,
            timeout_us: request.timeout_us,
            parameters: request.parameters.clone(),
        }
    }

    /// What an answer says of its sequence, if it is part of one.
    fn told(&self) -> Vec<(String, Value)> {
        let SequenceControl { id: Some(id), start, end } = &self.sequence else { return Vec::new() };
        let id = match id {
            SequenceId::Text(text) => Some(Value::String(text.clone())),
            // Parameters know no larger number.
            SequenceId::Number(number) => i64::try_from(*number).ok().map(Value::Int),
        };
        let flags = [("sequence_start", Value::Bool(*start)), ("sequence_end", Value::Bool(*end))];
        let all = id.map(|id| ("sequence_id", id)).into_iter().chain(flags);
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl Ensemble {
    /// Holds the ensemble against the models of its steps, which must be ready.
    ///
    /// # Errors
    /// INVALID_ARG with the lines of the configuration that do not fit.
    pub(crate) fn load(
        draft: &Draft,
        config: &CheckedConfig,
        index: &Arc<ArcSwap<Index>>,
    ) -> Result<Self, ServeError> {
        let plan = Plan::new(draft, config, &index.load())?;
        let gate = Mutex::new(Gate::new(plan.steps.len(), plan.max_inflight));
        Ok(Self { plan, index: Arc::downgrade(index), gate, threads: OnceLock::new() })
    }

    /// A decoupled step makes the ensemble decoupled.
    pub(crate) fn is_decoupled(&self) -> bool {
        self.plan.graph.is_decoupled()
    }

    /// The threads that an unload waits for; a running request counts as one.
    pub(crate) fn set_threads(&self, threads: &Arc<Threads>) {
        let _ = self.threads.set(Arc::clone(threads));
    }

    /// Lets a request run through the steps.
    ///
    /// # Errors
    /// A model of a step is not there, or has become another kind.
    pub(crate) fn start(
        self: &Arc<Self>,
        journey: &Arc<Journey>,
        request: Box<Request>,
        header: Header,
    ) -> Result<(), ServeError> {
        let members = self.members(journey).map_err(|error| in_ensemble(journey.model.name(), error))?;
        let guard = self.threads.get().map(|threads| threads.begin(journey.model.generation()));
        Run::start(Arc::clone(self), Arc::clone(journey), members, request, header, guard);
        Ok(())
    }

    /// The models of the steps as they are now. While they are held they take requests, whatever is loaded meanwhile.
    fn members(&self, journey: &Journey) -> Result<Vec<Arc<Served>>, ServeError> {
        if journey.lineage().depth >= MAX_DEPTH {
            let message = format!("more than {MAX_DEPTH} models would run inside each other");
            return Err(ServeError::invalid(message));
        }
        let index =
            self.index.upgrade().ok_or_else(|| ServeError::unavailable("the server has ended"))?.load_full();
        let steps = self.plan.steps.iter().zip(self.plan.graph.steps());
        let member = |(step, known): (&plan::PlanStep, &trireme_scheduling::ensemble::GraphStep)| {
            let member = index.find(&step.model, step.version)?;
            if member.is_decoupled() != known.decoupled {
                return Err(ServeError::unavailable(format!(
                    "model '{}' has changed its transaction policy; the ensemble must be loaded again",
                    step.model
                )));
            }
            Ok(Arc::clone(member))
        };
        steps.map(member).collect()
    }

    fn enter(&self, waiting: Waiting) -> Option<Waiting> {
        match self.plan.max_inflight {
            0 => Some(waiting),
            _ => lock(&self.gate).enter(waiting.step, waiting),
        }
    }

    fn leave(&self, step: usize) -> Option<Waiting> {
        if self.plan.max_inflight == 0 {
            return None;
        }
        lock(&self.gate).leave(step)
    }

    fn withdraw(&self, gone: impl FnMut(&Waiting) -> bool) -> Vec<Waiting> {
        if self.plan.max_inflight == 0 {
            return Vec::new();
        }
        lock(&self.gate).withdraw(gone)
    }
}

/// An error of a step as the client of the ensemble sees it.
fn in_ensemble(name: &str, error: ServeError) -> ServeError {
    ServeError::new(error.status, format!("in ensemble '{name}', {}", error.message))
}
