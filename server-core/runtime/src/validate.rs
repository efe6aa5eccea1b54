//! From a parsed request to the request object: names become indices, shapes and sizes are held against the model.
//!
//! After this a backend can trust that shape × type equals length and that BYTES are framed, and nothing looks up a
//! tensor by its name again. The wording of the errors is the one that clients of the field know.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use trireme_host::{Correlation, Input, OutputSet, Request, Value};
use trireme_protocol::{
    DataType, InferRequest, InputTensor, ParameterValue, RequestedOutput, SequenceId, ShapeText, TensorData,
    byte_count, bytes_tensor,
};
use trireme_scheduling::ShapeKey;

use crate::ensemble::device_tensor;
use crate::error::ServeError;
use crate::table::{TensorSpec, TensorTable, reshape};

/// What the front end asked of the outputs; `None` means all of them in the request's default format.
#[derive(Debug, Default)]
pub(crate) struct OutputChoice {
    pub(crate) chosen: Option<Vec<(usize, RequestedOutput)>>,
    pub(crate) binary: bool,
}

/// A request that may enter the queue.
pub(crate) struct Admitted {
    pub(crate) request: Box<Request>,
    pub(crate) outputs: OutputChoice,
    /// Requests with equal keys may be batched together.
    pub(crate) shape_key: ShapeKey,
    pub(crate) timeout_us: u64,
    pub(crate) empty_final: bool,
}

/// Turns `request` into an [`Admitted`] one for `model`. `reads_values`: the server itself reads what the inputs hold, so that
/// those on a device are copied.
///
/// # Errors
/// INVALID_ARG with the text that says which tensor, what was expected and what came; UNSUPPORTED for shared memory.
pub(crate) fn admit(
    model: &str,
    table: &TensorTable,
    hasher: &RandomState,
    reads_values: bool,
    request: InferRequest,
) -> Result<Admitted, ServeError> {
    let id = request.id_for_errors().to_owned();
    admit_inner(model, table, hasher, reads_values, request).map_err(|mut error| {
        error.message = format!("[request id: {id}] {}", error.message);
        error
    })
}

fn admit_inner(
    model: &str,
    table: &TensorTable,
    hasher: &RandomState,
    reads_values: bool,
    request: InferRequest,
) -> Result<Admitted, ServeError> {
    let mut inputs: SmallVec<[Input; 2]> = SmallVec::with_capacity(request.inputs.len());
    let mut batch: Option<i64> = None;
    check_count(model, table, &request.inputs)?;
    for tensor in request.inputs {
        inputs.push(admit_input(model, table, tensor, reads_values, &mut batch)?);
    }
    // Backends see inputs in the order of the configuration, whatever the order of the request was.
    inputs.sort_by_key(|input| input.index);
    if let Some(pair) = inputs.windows(2).find(|pair| pair[0].index == pair[1].index) {
        let name = &table.input_names[usize::from(pair[0].index)];
        return Err(ServeError::invalid(format!("input '{name}' already exists in request")));
    }
    let batch = batch.unwrap_or(1);
    if table.batches() && batch > i64::from(table.max_batch_size) {
        return Err(ServeError::invalid(format!(
            "inference request batch-size must be <= {} for '{model}'",
            table.max_batch_size
        )));
    }
    let shape_key = shape_key(table, hasher, &inputs);
    let (wanted, chosen) = choose_outputs(model, table, request.outputs)?;
    let correlation = match request.sequence.id {
        None => Correlation::None,
        Some(SequenceId::Number(number)) => Correlation::Number(number),
        Some(SequenceId::Text(text)) => Correlation::Text(text),
    };
    let admitted = Request {
        id: request.id,
        inputs,
        parameters: request.parameters.into_iter().map(|(name, value)| (name, parameter(value))).collect(),
        wanted,
        batch_size: u32::try_from(batch.max(1)).unwrap_or(u32::MAX),
        priority: request.priority,
        deadline_ns: 0,
        correlation,
        trace_parent: String::new(),
        document: None,
        names: Arc::clone(&table.input_names),
    };
    Ok(Admitted {
        request: Box::new(admitted),
        outputs: OutputChoice { chosen, binary: request.binary_data_output },
        shape_key,
        timeout_us: request.timeout_us,
        empty_final: request.enable_empty_final_response,
    })
}

fn check_count(model: &str, table: &TensorTable, inputs: &[InputTensor]) -> Result<(), ServeError> {
    let got = inputs.len();
    let (least, most) = (table.required_inputs, table.inputs.len());
    if let Some(unknown) = inputs.iter().find(|tensor| table.input(&tensor.name).is_none())
        && got <= most
    {
        return Err(ServeError::invalid(format!(
            "unexpected inference input '{}' for model '{model}'{}",
            unknown.name,
            known(&table.inputs)
        )));
    }
    let missing: Vec<&str> = table
        .inputs
        .iter()
        .filter(|spec| !spec.optional && !inputs.iter().any(|tensor| tensor.name == *spec.name))
        .map(|spec| &*spec.name)
        .collect();
    if got >= least && got <= most && missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = inputs.iter().map(|tensor| tensor.name.as_str()).collect();
    let count = if least == most {
        format!("expected {most} inputs but got {got} inputs for model '{model}'")
    } else {
        format!(
            "expected number of inputs between {least} and {most} but got {got} inputs for model '{model}'"
        )
    };
    Err(ServeError::invalid(format!(
        "{count}. Got input(s) [{}], but missing required input(s) [{}]. Please provide all required input(s).",
        quoted(&names),
        quoted(&missing)
    )))
}

fn quoted(names: &[&str]) -> String {
    if names.is_empty() { String::new() } else { format!("'{}'", names.join("','")) }
}

fn known(specs: &[TensorSpec]) -> String {
    let names: Vec<&str> = specs.iter().map(|spec| &*spec.name).collect();
    if names.is_empty() { String::new() } else { format!(", known are '{}'", names.join("', '")) }
}

fn admit_input(
    model: &str,
    table: &TensorTable,
    tensor: InputTensor,
    reads_values: bool,
    batch: &mut Option<i64>,
) -> Result<Input, ServeError> {
    let InputTensor { name, datatype, shape, data } = tensor;
    let index = table.input(&name).ok_or_else(|| {
        ServeError::invalid(format!("unexpected inference input '{name}' for model '{model}'"))
    })?;
    let spec = &table.inputs[index];
    if datatype != spec.datatype {
        return Err(ServeError::invalid(format!(
            "inference input '{name}' data-type is '{}', but model '{model}' expects '{}'",
            datatype.wire_name(),
            spec.datatype.wire_name()
        )));
    }
    let fits = |dims: &[i64]| {
        dims.len() == spec.dims.len()
            && dims.iter().zip(&spec.dims).all(|(got, want)| *want < 0 || got == want)
    };
    let batches = spec.has_batch(table.batches());
    let dims = if batches { shape.get(1..).unwrap_or(&[]) } else { &shape[..] };
    if (batches && shape.is_empty()) || !fits(dims) {
        let hint = if batches && fits(&shape) {
            " NOTE: the model batches, so the first dimension of the shape must be the batch size."
        } else if batches {
            " NOTE: the first dimension is the batch size."
        } else {
            ""
        };
        return Err(ServeError::invalid(format!(
            "unexpected shape for input '{name}' for model '{model}'. Expected {}, got {}.{hint}",
            ShapeText(&spec.wire_dims(table.batches())),
            ShapeText(&shape)
        )));
    }
    if batches {
        match batch {
            None => *batch = Some(shape[0]),
            Some(first) if *first == shape[0] => {}
            Some(_) => {
                return Err(ServeError::invalid(format!(
                    "input '{name}' batch size does not match other inputs for '{model}'"
                )));
            }
        }
    }
    let (data, device) = match data {
        TensorData::Bytes(data) => (data, None),
        TensorData::Held(held) => match device_tensor(held) {
            // Front ends call this where such a copy holds up no connection: `ModelVersion::reads_at_once`.
            Some(tensor) if reads_values || spec.is_looked_at() => (tensor.to_host()?, None),
            found => (Bytes::new(), found),
        },
        TensorData::SharedMemory(_) => {
            return Err(ServeError::unsupported(format!(
                "input '{name}' names a shared-memory region, but shared memory is disabled in this server"
            )));
        }
    };
    match &device {
        None => check_size(model, &name, datatype, &shape, &data)?,
        Some(tensor) => {
            check_length(model, &name, datatype, &shape, tensor.byte_size())?;
        }
    }
    let shape = match &spec.reshape {
        None => shape,
        Some(to) => {
            let head = &shape[..usize::from(batches)];
            head.iter().copied().chain(reshape(dims, &spec.dims, to)).collect()
        }
    };
    let mut buffers = SmallVec::new();
    if !data.is_empty() {
        buffers.push(data);
    }
    Ok(Input {
        index: u16::try_from(index).unwrap_or(u16::MAX),
        dtype: trireme_host::abi::DType(datatype as u32),
        shape: shape.into_iter().collect(),
        buffers,
        device,
    })
}

fn check_size(
    model: &str,
    name: &str,
    datatype: DataType,
    shape: &[i64],
    data: &[u8],
) -> Result<(), ServeError> {
    if check_length(model, name, datatype, shape, data.len())? {
        return Ok(());
    }
    let in_input = |error: &dyn std::fmt::Display| {
        ServeError::invalid(format!("input '{name}' for model '{model}': {error}"))
    };
    let count = trireme_protocol::element_count(shape).map_err(|error| in_input(&error))?;
    bytes_tensor::validate(data, count).map_err(|error| in_input(&error))
}

/// False if the type has no size of its own.
fn check_length(
    model: &str,
    name: &str,
    datatype: DataType,
    shape: &[i64],
    length: usize,
) -> Result<bool, ServeError> {
    let expected = byte_count(datatype, shape)
        .map_err(|error| ServeError::invalid(format!("input '{name}' for model '{model}': {error}")))?;
    match expected {
        Some(expected) if expected != length => Err(ServeError::invalid(format!(
            "input byte size mismatch for input '{name}' for model '{model}'. Expected {expected}, got {length}"
        ))),
        expected => Ok(expected.is_some()),
    }
}

/// Two requests may share a batch if their free dimensions, their sets of optional inputs and the values of their shape
/// tensors are equal. The key is a
/// keyed 128-bit hash of those, so that no two shapes meet, by chance or on purpose.
fn shape_key(table: &TensorTable, hasher: &RandomState, inputs: &[Input]) -> ShapeKey {
    let all_present = inputs.len() == table.inputs.len();
    if all_present && table.inputs.iter().all(|spec| (spec.is_fixed() || spec.ragged) && !spec.is_shape) {
        return ShapeKey(0);
    }
    let half = |salt: u8| {
        let mut state = hasher.build_hasher();
        salt.hash(&mut state);
        hash_shapes(table, inputs, &mut state);
        u128::from(state.finish())
    };
    ShapeKey(half(0) << 64 | half(1))
}

fn hash_shapes(table: &TensorTable, inputs: &[Input], state: &mut impl Hasher) {
    for input in inputs {
        let spec = &table.inputs[usize::from(input.index)];
        input.index.hash(state);
        if !spec.ragged {
            input.shape[usize::from(spec.has_batch(table.batches())).min(input.shape.len())..].hash(state);
        }
        if spec.is_shape {
            input.buffers.iter().flatten().for_each(|byte| state.write_u8(*byte));
        }
    }
}

type Chosen = Option<Vec<(usize, RequestedOutput)>>;

fn choose_outputs(
    model: &str,
    table: &TensorTable,
    asked: Vec<RequestedOutput>,
) -> Result<(OutputSet, Chosen), ServeError> {
    if asked.is_empty() {
        return Ok((OutputSet::all(table.outputs.len()), None));
    }
    let mut wanted = OutputSet::none(table.outputs.len());
    let mut chosen = Vec::with_capacity(asked.len());
    for output in asked {
        let Some(index) = table.output(&output.name) else {
            return Err(ServeError::invalid(format!(
                "unexpected inference output '{}' for model '{model}'{}",
                output.name,
                known(&table.outputs)
            )));
        };
        if output.shared_memory.is_some() {
            return Err(ServeError::unsupported(format!(
                "output '{}' names a shared-memory region, but shared memory is disabled in this server",
                output.name
            )));
        }
        wanted.insert(index);
        chosen.push((index, output));
    }
    Ok((wanted, Some(chosen)))
}

fn parameter(value: ParameterValue) -> Value {
    match value {
        ParameterValue::Bool(value) => Value::Bool(value),
        ParameterValue::Int64(value) => Value::Int(value),
        // The ABI has no unsigned kind; what does not fit keeps its digits as text.
        ParameterValue::Uint64(value) => {
            i64::try_from(value).map_or_else(|_| Value::String(value.to_string()), Value::Int)
        }
        ParameterValue::Double(value) => Value::Double(value),
        ParameterValue::String(value) => Value::String(value),
    }
}
