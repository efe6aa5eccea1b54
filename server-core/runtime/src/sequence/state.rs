//! Implicit state: the server keeps it for the model, one set for each slot, so that there is never more of it than slots.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use smallvec::SmallVec;
use trireme_host::abi::DType;
use trireme_host::{Input, Output};
use trireme_protocol::proto::ModelSequenceBatching;
use trireme_protocol::proto::model_sequence_batching::State;
use trireme_protocol::proto::model_sequence_batching::initial_state::StateData;
use trireme_protocol::{DataType, byte_count, bytes_tensor, element_count};
use trireme_scheduling::{InstanceId, Row};

use crate::error::ServeError;
use crate::statistics::lock;

/// More of one state than this is a mistake in the configuration.
const MAX_STATE_BYTES: usize = 1 << 30;

/// A slot of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StateSlot {
    pub(crate) instance: InstanceId,
    pub(crate) slot: u32,
}

/// A tensor without its batch dimension.
#[derive(Clone)]
struct Value {
    dims: Vec<i64>,
    data: Bytes,
}

struct Plan {
    index: u16,
    output: String,
    dtype: DType,
    initial: Value,
}

/// The states of a model.
pub(super) struct States {
    plans: Vec<Plan>,
    kept: Mutex<HashMap<StateSlot, Vec<Value>>>,
    batches: bool,
}

impl States {
    /// The states of a configuration; their inputs are numbered from `first`.
    pub(super) fn new(
        sequence: &ModelSequenceBatching,
        first: usize,
        batches: bool,
        model_dir: &Path,
    ) -> Result<Self, ServeError> {
        let mut plans = Vec::new();
        for (number, state) in sequence.state.iter().enumerate() {
            let index = u16::try_from(first + number)
                .map_err(|_| ServeError::invalid("a model with more than 65,535 inputs"))?;
            let initial = initial(state, model_dir).map_err(|reason| {
                ServeError::invalid(format!("state '{}' of the sequence batcher: {reason}", state.input_name))
            })?;
            let dtype = DType(u32::try_from(state.data_type).unwrap_or(0));
            plans.push(Plan { index, output: state.output_name.clone(), dtype, initial });
        }
        Ok(Self { plans, kept: Mutex::default(), batches })
    }

    /// Adds the state inputs of one row. A sequence that starts has the initial ones, and so has a row without a request.
    pub(super) fn attach(&self, slot: StateSlot, row: &Row, inputs: &mut SmallVec<[Input; 2]>) {
        if self.plans.is_empty() {
            return;
        }
        let initial = || self.plans.iter().map(|plan| plan.initial.clone()).collect();
        let values = if row.request.is_none() {
            initial()
        } else {
            let mut kept = lock(&self.kept);
            if row.start {
                kept.insert(slot, initial());
            }
            kept.entry(slot).or_insert_with(initial).clone()
        };
        for (plan, value) in self.plans.iter().zip(values) {
            let mut buffers = SmallVec::new();
            if !value.data.is_empty() {
                buffers.push(value.data);
            }
            let shape = self.batches.then_some(1).into_iter().chain(value.dims).collect();
            inputs.push(Input { index: plan.index, dtype: plan.dtype, shape, buffers, device: None });
        }
    }

    /// As [`super::Sequences::keep`].
    pub(super) fn keep(&self, slot: StateSlot, output: &Output) -> bool {
        let Some(at) = self.plans.iter().position(|plan| plan.output == output.name) else { return false };
        let skip = usize::from(self.batches).min(output.shape.len());
        let value = Value { dims: output.shape[skip..].to_vec(), data: output.data.clone() };
        if let Some(values) = lock(&self.kept).get_mut(&slot)
            && let Some(place) = values.get_mut(at)
        {
            *place = value;
        }
        true
    }
}

/// The value with which a sequence starts: of the file, or zeros. Free dimensions are 1.
fn initial(state: &State, model_dir: &Path) -> Result<Value, String> {
    let datatype = DataType::from_proto(state.data_type).ok_or("it has no data_type")?;
    let given = state.initial_state.first();
    let dims = given.map_or(&state.dims, |given| &given.dims);
    let dims: Vec<i64> = dims.iter().map(|dim| if *dim < 0 { 1 } else { *dim }).collect();
    let bytes = byte_count(datatype, &dims).map_err(|error| error.to_string())?;
    let elements = element_count(&dims).map_err(|error| error.to_string())?;
    let data = match given.and_then(|given| given.state_data.as_ref()) {
        Some(StateData::DataFile(file)) => {
            let path = model_dir.join("initial_state").join(file);
            let data = std::fs::read(&path).map_err(|error| format!("'{}': {error}", path.display()))?;
            match bytes {
                Some(bytes) if bytes != data.len() => {
                    let (path, found) = (path.display(), data.len());
                    return Err(format!("'{path}' has {found} bytes, its dims and type need {bytes}"));
                }
                None => bytes_tensor::validate(&data, elements)
                    .map_err(|error| format!("'{}': {error}", path.display()))?,
                Some(_) => {}
            }
            Bytes::from(data)
        }
        Some(StateData::ZeroData(_)) | None => {
            let bytes = bytes.or_else(|| elements.checked_mul(4)).ok_or("it is too large")?;
            if bytes > MAX_STATE_BYTES {
                return Err(format!("it has {bytes} bytes, at most {MAX_STATE_BYTES} are allowed"));
            }
            Bytes::from(vec![0; bytes])
        }
    };
    Ok(Value { dims, data })
}
