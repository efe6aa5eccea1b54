//! What a model of sequences sees beside the client's tensors: the controls of each row, the state that the server keeps
//! for a sequence, and null requests in empty slots. Which row a request has is decided by `scheduling`.

mod controls;
mod null;
mod state;

use std::path::Path;

use trireme_host::{Correlation, Item};
use trireme_model_config::CheckedConfig;
use trireme_protocol::SequenceControl;
use trireme_protocol::SequenceId;
use trireme_protocol::proto::ModelSequenceBatching;
use trireme_protocol::proto::model_sequence_batching::StrategyChoice;
use trireme_scheduling::{
    CorrelationId, DirectSequenceConfig, DirectSequences, Dispatcher, InstanceId, InstanceSlots,
    OldestSequenceConfig, OldestSequences, Row, SequenceStep, StartAfter,
};

use crate::error::ServeError;
use controls::Control;
use state::States;

pub(crate) use state::StateSlot;

/// The sequences of a model version.
pub(crate) struct Sequences {
    controls: Vec<Control>,
    states: States,
    batches: bool,
}

impl Sequences {
    /// What the configuration asks for; none if the model is not one of sequences. Initial states are read from
    /// `model_dir/initial_state`.
    pub(crate) fn new(config: &CheckedConfig, model_dir: &Path) -> Result<Option<Self>, ServeError> {
        let Some(sequence) = config.sequence() else { return Ok(None) };
        let first = config.inputs.len();
        let controls = controls::plan(sequence, first)?;
        let batches = config.max_batch_size > 0;
        let states = States::new(sequence, first + sequence.control_input.len(), batches, model_dir)?;
        Ok(Some(Self { controls, states, batches }))
    }

    /// The names of the inputs that are added to those of the configuration, in the order of their indices.
    pub(crate) fn input_names(sequence: &ModelSequenceBatching) -> impl Iterator<Item = Box<str>> {
        let controls = sequence.control_input.iter().map(|control| control.name.as_str());
        controls.chain(sequence.state.iter().map(|state| state.input_name.as_str())).map(Box::from)
    }

    /// Gives each request of a batch its controls and its state, and puts null requests into the rows without one.
    pub(crate) fn prepare(&self, instance: InstanceId, rows: &[Row], batch: &mut Vec<Item>) {
        let mut requests = std::mem::take(batch).into_iter();
        // The null requests have the shapes of a real one.
        let model = requests.as_slice().first().map(|item| null::like(&item.request));
        for row in rows {
            let mut item = match (row.request, &model) {
                (Some(_), _) => match requests.next() {
                    Some(item) => item,
                    None => return,
                },
                (None, Some(model)) => null::item(model),
                (None, None) => continue,
            };
            let request = &mut item.request;
            for control in &self.controls {
                request.inputs.push(control.input(row, &request.correlation, self.batches));
            }
            let slot = StateSlot { instance, slot: row.slot };
            self.states.attach(slot, row, &mut request.inputs);
            batch.push(item);
        }
    }

    /// Takes an output that is the new state of a slot's sequence. True: it is one.
    pub(crate) fn keep(&self, slot: StateSlot, output: &trireme_host::Output) -> bool {
        self.states.keep(slot, output)
    }
}

/// The batcher of a configuration's strategy.
pub(crate) fn dispatcher(
    sequence: &ModelSequenceBatching,
    max_batch_size: u32,
    slots: InstanceSlots,
    start_after: StartAfter,
) -> Result<Dispatcher, ServeError> {
    let idle = sequence.max_sequence_idle_microseconds;
    let refuse = |error: trireme_scheduling::SequenceConfigError| ServeError::invalid(error.to_string());
    Ok(match &sequence.strategy_choice {
        Some(StrategyChoice::Oldest(oldest)) => {
            let preferred: Vec<u32> =
                oldest.preferred_batch_size.iter().filter_map(|size| u32::try_from(*size).ok()).collect();
            let candidates = u32::try_from(oldest.max_candidate_sequences).unwrap_or(0);
            let delay = oldest.max_queue_delay_microseconds;
            let config = OldestSequenceConfig::new(max_batch_size, idle, candidates, &preferred, delay);
            Dispatcher::new(
                OldestSequences::new(config.map_err(refuse)?.with_start_after(start_after)),
                slots,
            )
        }
        choice => {
            let (delay, least) = match choice {
                Some(StrategyChoice::Direct(direct)) => {
                    (direct.max_queue_delay_microseconds, direct.minimum_slot_utilization)
                }
                _ => (0, 0.0),
            };
            let config = DirectSequenceConfig::new(max_batch_size, idle, delay, least);
            Dispatcher::new(
                DirectSequences::new(config.map_err(refuse)?.with_start_after(start_after)),
                slots,
            )
        }
    })
}

/// Whether answers leave in the order of the requests.
pub(crate) fn preserves_ordering(sequence: &ModelSequenceBatching) -> bool {
    matches!(&sequence.strategy_choice, Some(StrategyChoice::Oldest(oldest)) if oldest.preserve_ordering)
}

/// What a request says of its sequence, for the batcher.
pub(crate) fn step(control: &SequenceControl) -> SequenceStep {
    let correlation = match &control.id {
        None => CorrelationId::Number(0),
        Some(SequenceId::Number(number)) => CorrelationId::Number(*number),
        Some(SequenceId::Text(text)) => CorrelationId::Text(text.as_str().into()),
    };
    SequenceStep { correlation, start: control.start, end: control.end }
}

impl Sequences {
    /// Whether the model can be told this name of a sequence.
    pub(crate) fn check(&self, correlation: &Correlation, model: &str) -> Result<(), ServeError> {
        self.controls.iter().try_for_each(|control| control.check(correlation, model))
    }
}
