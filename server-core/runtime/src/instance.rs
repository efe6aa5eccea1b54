//! The threads that run instances: one each, which owns it from creation to destruction.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use trireme_host::abi::InstanceKind;
use trireme_host::{Instance, InstanceArgs, Item, Model};
use trireme_model_config::InstanceGroup;
use trireme_scheduling::{InstanceId, Row};

use crate::error::ServeError;
use crate::model::ModelVersion;
use crate::queue::Work;
use crate::share::Share;
use crate::threads::ThreadGuard;
use crate::warmup::Warmup;

/// First pause before a failed instance is made anew; doubled up to [`MAX_BACK_OFF`].
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const MAX_BACK_OFF: Duration = Duration::from_secs(1);
/// After how many failures in a row a model stops trying and refuses its requests.
const MAX_ATTEMPTS: u32 = 10;

/// What an instance is.
#[derive(Debug, Clone)]
pub(crate) struct InstancePlan {
    pub(crate) name: String,
    /// The group without its name and its count: instances of equal groups can stand in for each other.
    pub(crate) group: InstanceGroup,
    /// Its number among all that the version ever had.
    pub(crate) index: u32,
    pub(crate) kind: InstanceKind,
    pub(crate) device: i32,
}

impl InstancePlan {
    /// Whether an instance of this plan is as good as one of the other.
    pub(crate) fn stands_for(&self, other: &Self) -> bool {
        (&self.group, self.kind, self.device) == (&other.group, other.kind, other.device)
    }

    fn args(&self) -> InstanceArgs<'_> {
        InstanceArgs { name: &self.name, index: self.index, kind: self.kind, device: self.device }
    }
}

/// An instance that exists and waits to be told which model version it serves.
pub(crate) struct Prepared {
    start: mpsc::Sender<(Arc<ModelVersion>, ThreadGuard)>,
}

impl Prepared {
    /// Starts the thread, which makes the instance and runs the warm-up on it.
    pub(crate) fn create(
        model: Arc<Model>,
        plan: InstancePlan,
        warmup: Arc<Warmup>,
        share: Option<Share>,
        label: &str,
    ) -> Result<PendingInstance, ServeError> {
        let (created, result) = mpsc::channel();
        let (start, go) = mpsc::channel::<(Arc<ModelVersion>, ThreadGuard)>();
        let name = format!("{label}#{}", plan.index);
        // Linux keeps 15 bytes of a thread's name; the end tells instances apart.
        let short: String = name.chars().rev().take(15).collect::<Vec<_>>().into_iter().rev().collect();
        std::thread::Builder::new()
            .name(short)
            .spawn(move || {
                let made = model.create_instance(&plan.args()).map_err(ServeError::from);
                let warm = |mut instance| {
                    warmup.run(&mut instance, &plan)?;
                    Ok(instance)
                };
                let instance = match made.and_then(warm) {
                    Ok(instance) => instance,
                    Err(error) => {
                        let _ = created.send(Err(error));
                        return;
                    }
                };
                let _ = created.send(Ok(()));
                // No model: another instance failed, the load is given up.
                if let Ok((version, guard)) = go.recv() {
                    let lost = LostByPanic(&version, InstanceId(plan.index));
                    run(&version, &model, &plan, share.as_ref(), instance);
                    drop((lost, share));
                    version.queue().instance_ended(InstanceId(plan.index));
                    // The guard goes last: who waits for it wants instance and model gone.
                    drop((version, model));
                    drop(guard);
                }
            })
            .map_err(|error| ServeError::internal(format!("no thread for an instance: {error}")))?;
        Ok(PendingInstance { result, prepared: Self { start } })
    }

    /// The instance begins to take requests of `model`.
    pub(crate) fn start(self, model: Arc<ModelVersion>, guard: ThreadGuard) {
        let _ = self.start.send((model, guard));
    }
}

/// An instance that is being made.
pub(crate) struct PendingInstance {
    result: mpsc::Receiver<Result<(), ServeError>>,
    prepared: Prepared,
}

impl PendingInstance {
    pub(crate) fn wait(self) -> Result<Prepared, ServeError> {
        match self.result.recv() {
            Ok(Ok(())) => Ok(self.prepared),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ServeError::internal("the instance's thread ended while the instance was made")),
        }
    }
}

/// Without its thread, an instance would leave requests waiting for ever.
struct LostByPanic<'a>(&'a ModelVersion, InstanceId);

impl Drop for LostByPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.instance_lost(self.1);
        }
    }
}

/// Serves until the queue is closed and empty. An instance that fails is replaced.
fn run(
    version: &Arc<ModelVersion>,
    model: &Arc<Model>,
    plan: &InstancePlan,
    share: Option<&Share>,
    first: Instance,
) {
    let mut instance = first;
    let mut batch: Vec<Item> = Vec::new();
    let mut rows: Vec<Row> = Vec::new();
    let number = InstanceId(plan.index);
    version.queue().instance_begins(number, share);
    // Grows while one execution after the other fails, so that a model is not made anew at the rate of its requests.
    let mut pause = Duration::ZERO;
    while let Work::Run = version.queue().next(number, share, &mut batch, &mut rows) {
        if let Some(sequences) = version.sequences() {
            sequences.prepare(number, &rows, &mut batch);
        }
        version.batch_io.attach(&mut batch);
        if batch.is_empty() {
            continue;
        }
        let outcome = instance.execute(&mut batch);
        // What a backend left behind is answered by the responder's drop.
        batch.clear();
        if let Err(status) = outcome {
            tracing::error!(model = version.name(), instance = %plan.name, "instance failed: {}", status.message);
            drop(instance);
            // Others can use it while this one is made anew.
            if let Some(share) = share {
                share.give_back(true, false);
            }
            version.queue().instance_failed(number);
            if !pause.is_zero() {
                version.queue().wait_closed(pause);
            }
            pause = (pause * 2).clamp(FIRST_BACK_OFF, MAX_BACK_OFF);
            match replace(version, model, plan) {
                Some(fresh) => instance = fresh,
                None => return,
            }
        } else {
            pause = Duration::ZERO;
        }
    }
    instance.drain();
}

/// Makes the instance anew, with growing pauses; `None` when the model is to be given up.
fn replace(version: &Arc<ModelVersion>, model: &Arc<Model>, plan: &InstancePlan) -> Option<Instance> {
    let mut pause = FIRST_BACK_OFF;
    for attempt in 1..=MAX_ATTEMPTS {
        match model.create_instance(&plan.args()) {
            Ok(instance) => {
                tracing::info!(model = version.name(), instance = %plan.name, attempt, "instance replaced");
                return Some(instance);
            }
            Err(status) => {
                tracing::error!(model = version.name(), instance = %plan.name, attempt, "{}", status.message);
                // Nobody to wait for if the model is being unloaded.
                if version.queue().wait_closed(pause) {
                    break;
                }
                pause = (pause * 2).min(MAX_BACK_OFF);
            }
        }
    }
    version.instance_lost(InstanceId(plan.index));
    None
}
