//! A request as the kit describes it, and its way into the host's form.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use trireme_host::abi::DType;
use trireme_host::{Correlation, Input, OutputSet, Request, Value};

use crate::client::{Counted, Live};
use crate::config::Config;
use crate::declared::{DeclaredRequest, DeclaredTensor, Expectation, code_of};
use crate::element::put_value;

/// A request that can be sent any number of times.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) inputs: Vec<CaseInput>,
    pub(crate) parameters: Vec<(String, Value)>,
    pub(crate) rows: u32,
    pub(crate) expected: Expectation,
    /// By name, with the shape and the bytes.
    pub(crate) outputs: Vec<(String, DType, Vec<i64>, Vec<u8>)>,
}

#[derive(Debug, Clone)]
pub(crate) struct CaseInput {
    pub(crate) index: u16,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<i64>,
    pub(crate) data: Vec<u8>,
}

/// Into how many pieces the inputs are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pieces {
    Whole,
    /// Of so many bytes each, none of them aligned, with empty ones between.
    Of(usize),
}

/// How a case is asked.
#[derive(Debug, Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) case: &'a Case,
    pub(crate) pieces: Pieces,
    pub(crate) deadline_ns: u64,
    pub(crate) cancelled: bool,
    /// Unread answers from which on the backend is told to pause.
    pub(crate) capacity: usize,
    /// Outputs that are wanted; all without it.
    pub(crate) wanted: Option<usize>,
    pub(crate) parameter: Option<&'static str>,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(case: &'a Case) -> Self {
        let (pieces, capacity) = (Pieces::Whole, usize::MAX);
        Self { case, pieces, deadline_ns: 0, cancelled: false, capacity, wanted: None, parameter: None }
    }

    pub(crate) fn request(&self, config: &Config, live: &Live) -> Request {
        let mut inputs: SmallVec<[Input; 2]> =
            self.case.inputs.iter().map(|input| wire(input, self.pieces, live)).collect();
        let lead = if config.batches() { vec![i64::from(self.case.rows)] } else { Vec::new() };
        let mut index = config.inputs.len() as u16;
        for control in &config.controls {
            // One row: the batcher gives each request of a sequence its own.
            let (shape, data) = ([lead.clone(), vec![1]].concat(), control.value.clone());
            inputs.push(wire(&CaseInput { index, dtype: control.dtype, shape, data }, Pieces::Whole, live));
            index += 1;
        }
        for state in &config.states {
            let dims: Vec<i64> = state.dims.iter().map(|dim| (*dim).max(1)).collect();
            let elements = dims.iter().product::<i64>() as usize;
            let data = vec![0; elements * crate::element::width(state.dtype).unwrap_or(4)];
            let shape = [lead.clone(), dims].concat();
            inputs.push(wire(&CaseInput { index, dtype: state.dtype, shape, data }, Pieces::Whole, live));
            index += 1;
        }
        let outputs = config.outputs.len();
        let mut wanted = OutputSet::none(outputs);
        match self.wanted {
            Some(one) => wanted.insert(one),
            None => (0..outputs).for_each(|output| wanted.insert(output)),
        }
        let mut parameters = self.case.parameters.clone();
        parameters.extend(self.parameter.map(|name| (name.to_owned(), Value::Int(7))));
        let names: Arc<[Box<str>]> = config.input_names().into();
        Request {
            id: self.case.name.clone(),
            inputs,
            parameters,
            wanted,
            batch_size: self.case.rows,
            priority: 0,
            deadline_ns: self.deadline_ns,
            correlation: if config.sequence { Correlation::Number(1) } else { Correlation::None },
            trace_parent: String::new(),
            document: None,
            names,
        }
    }
}

fn wire(input: &CaseInput, pieces: Pieces, live: &Live) -> Input {
    let keep = |piece: &[u8]| Bytes::from_owner(Counted::unaligned(piece, live));
    let buffers = match pieces {
        _ if input.data.is_empty() => SmallVec::new(),
        Pieces::Whole => smallvec::smallvec![keep(&input.data)],
        Pieces::Of(size) => {
            let mut buffers = SmallVec::new();
            for (number, piece) in input.data.chunks(size.max(1)).enumerate() {
                buffers.push(keep(piece));
                if number == 0 {
                    buffers.push(Bytes::new());
                }
            }
            buffers
        }
    };
    let shape = SmallVec::from_slice(&input.shape);
    Input { index: input.index, dtype: input.dtype, shape, buffers, device: None }
}

impl Case {
    /// A request of `conformance.json`; what is wrong with it otherwise.
    pub(crate) fn declared(request: &DeclaredRequest, config: &Config) -> Result<Self, String> {
        let wrong = |what: String| format!("request '{}' of conformance.json: {what}", request.name);
        let mut inputs = Vec::new();
        let mut rows = 1;
        for (name, tensor) in &request.inputs {
            let index = config.inputs.iter().position(|input| input.name == *name);
            let index = index.ok_or_else(|| wrong(format!("the model has no input '{name}'")))?;
            let dtype = config.inputs[index].dtype;
            let data = bytes(dtype, tensor).map_err(|what| wrong(format!("input '{name}': {what}")))?;
            if config.batches() {
                let first = tensor.shape.first().and_then(|first| u32::try_from(*first).ok());
                rows = first.ok_or_else(|| wrong(format!("input '{name}' has no batch dimension")))?;
            }
            inputs.push(CaseInput { index: index as u16, dtype, shape: tensor.shape.clone(), data });
        }
        inputs.sort_by_key(|input| input.index);
        let mut outputs = Vec::new();
        for (name, tensor) in &request.outputs {
            let known = config.outputs.iter().find(|output| output.name == *name);
            let dtype = known.ok_or_else(|| wrong(format!("the model has no output '{name}'")))?.dtype;
            let data = bytes(dtype, tensor).map_err(|what| wrong(format!("output '{name}': {what}")))?;
            outputs.push((name.clone(), dtype, tensor.shape.clone(), data));
        }
        let mut parameters = Vec::new();
        for (name, value) in &request.parameters {
            let value = match value {
                serde_json::Value::Bool(value) => Value::Bool(*value),
                serde_json::Value::String(value) => Value::String(value.clone()),
                serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                    (Some(value), _) => Value::Int(value),
                    (None, Some(value)) => Value::Double(value),
                    (None, None) => return Err(wrong(format!("parameter '{name}' is no number"))),
                },
                _ => return Err(wrong(format!("parameter '{name}' is no text, number or boolean"))),
            };
            parameters.push((name.clone(), value));
        }
        let error = request.error.as_deref().and_then(code_of);
        let expected = Expectation { answers: request.answers, error };
        Ok(Self { name: request.name.clone(), inputs, parameters, rows, expected, outputs })
    }
}

fn bytes(dtype: DType, tensor: &DeclaredTensor) -> Result<Vec<u8>, String> {
    let count = tensor
        .shape
        .iter()
        .try_fold(1usize, |count, dim| usize::try_from(*dim).ok().and_then(|dim| count.checked_mul(dim)));
    if count != Some(tensor.data.len()) {
        return Err(format!("{} elements do not fill the shape {:?}", tensor.data.len(), tensor.shape));
    }
    let mut data = Vec::new();
    tensor.data.iter().try_for_each(|value| put_value(dtype, value, &mut data))?;
    Ok(data)
}
