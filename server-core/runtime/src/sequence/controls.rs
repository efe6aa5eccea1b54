//! Control tensors: START, END and READY as one of two values, CORRID as the sequence's name.

use bytes::Bytes;
use smallvec::smallvec;
use trireme_host::abi::DType;
use trireme_host::{Correlation, Input};
use trireme_protocol::DataType;
use trireme_protocol::proto::ModelSequenceBatching;
use trireme_protocol::proto::model_sequence_batching::control::Kind;
use trireme_scheduling::Row;

use crate::error::ServeError;

/// One control of a model.
pub(super) struct Control {
    index: u16,
    name: String,
    datatype: DataType,
    sort: Sort,
}

enum Sort {
    /// The bytes for no and for yes.
    Flag(Kind, [Bytes; 2]),
    Correlation,
}

/// The controls of a configuration; their inputs are numbered from `first`.
pub(super) fn plan(sequence: &ModelSequenceBatching, first: usize) -> Result<Vec<Control>, ServeError> {
    let mut controls = Vec::new();
    for (number, input) in sequence.control_input.iter().enumerate() {
        let index = u16::try_from(first + number)
            .map_err(|_| ServeError::invalid("a model with more than 65,535 inputs"))?;
        for control in &input.control {
            let values = |bytes: Vec<[u8; 4]>, width: usize| {
                let value = |at: usize| {
                    let bytes = bytes.get(at).map_or(&[0; 4][..], |bytes| &bytes[..]);
                    Bytes::copy_from_slice(&bytes[..width])
                };
                [value(0), value(1)]
            };
            let (datatype, sort) = if control.kind() == Kind::ControlSequenceCorrid {
                let datatype = DataType::from_proto(control.data_type).unwrap_or(DataType::Uint64);
                (datatype, Sort::Correlation)
            } else if !control.int32_false_true.is_empty() {
                let bytes = control.int32_false_true.iter().map(|value| value.to_le_bytes()).collect();
                (DataType::Int32, Sort::Flag(control.kind(), values(bytes, 4)))
            } else if !control.fp32_false_true.is_empty() {
                let bytes = control.fp32_false_true.iter().map(|value| value.to_le_bytes()).collect();
                (DataType::Fp32, Sort::Flag(control.kind(), values(bytes, 4)))
            } else {
                let bytes = control.bool_false_true.iter().map(|value| [u8::from(*value), 0, 0, 0]).collect();
                (DataType::Bool, Sort::Flag(control.kind(), values(bytes, 1)))
            };
            controls.push(Control { index, name: input.name.clone(), datatype, sort });
        }
    }
    Ok(controls)
}

impl Control {
    /// The tensor for one row: shape `[1]`, with the batch dimension in front if the model batches.
    pub(super) fn input(&self, row: &Row, correlation: &Correlation, batches: bool) -> Input {
        let data = match &self.sort {
            Sort::Flag(kind, [no, yes]) => {
                let set = match kind {
                    Kind::ControlSequenceStart => row.start,
                    Kind::ControlSequenceEnd => row.end,
                    _ => row.request.is_some(),
                };
                if set { yes.clone() } else { no.clone() }
            }
            Sort::Correlation => self.name_of(correlation),
        };
        let shape = if batches { smallvec![1, 1] } else { smallvec![1] };
        let dtype = DType(self.datatype as u32);
        Input { index: self.index, dtype, shape, buffers: smallvec![data], device: None }
    }

    fn name_of(&self, correlation: &Correlation) -> Bytes {
        let number = match correlation {
            Correlation::Number(number) => *number,
            Correlation::None | Correlation::Text(_) => 0,
        };
        match self.datatype {
            DataType::Bytes => {
                let text = match correlation {
                    Correlation::Text(text) => text.clone(),
                    Correlation::Number(number) if *number > 0 => number.to_string(),
                    Correlation::None | Correlation::Number(_) => String::new(),
                };
                // At most 128 bytes, as the batcher holds.
                let length = (text.len() as u32).to_le_bytes();
                [&length[..], text.as_bytes()].concat().into()
            }
            // What does not fit keeps its low half, as the model's type says.
            DataType::Int32 | DataType::Uint32 => Bytes::copy_from_slice(&(number as u32).to_le_bytes()),
            _ => Bytes::copy_from_slice(&number.to_le_bytes()),
        }
    }

    /// A text cannot be told by a number.
    pub(super) fn check(&self, correlation: &Correlation, model: &str) -> Result<(), ServeError> {
        let text = matches!(correlation, Correlation::Text(_));
        if text && matches!(self.sort, Sort::Correlation) && self.datatype != DataType::Bytes {
            return Err(ServeError::invalid(format!(
                "the sequence id is a text, but control '{}' of model '{model}' has type {}: give a number",
                self.name,
                self.datatype.wire_name()
            )));
        }
        Ok(())
    }
}
