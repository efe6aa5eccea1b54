//! From what a backend says to what a client reads.

use trireme_host::{Output, Response, Shape, Value};
use trireme_protocol::{DataType, InferResponse, OutputTensor, ParameterValue, ShapeText, element_count};

use super::{Journey, Letter, StreamItem};
use crate::cache::share_response;
use crate::error::ServeError;
use crate::table::reshape;

impl Journey {
    /// The one answer of a model that is not decoupled.
    pub(super) fn finish_single(&self, count: u64, response: Option<Response>) -> Letter {
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

    pub(super) fn finish_decoupled(&self, response: Option<Response>) -> Letter {
        match response {
            None => Ok(StreamItem::end(None)),
            Some(Response { error: Some(error), .. }) => Err(error.into()),
            Some(response) => self.item(response, true),
        }
    }

    /// One of several answers, or the last.
    pub(super) fn item(&self, response: Response, is_final: bool) -> Letter {
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

    /// The backend's answer in the form of the protocol; what was not asked for is left out.
    pub(super) fn convert(&self, response: Response) -> Result<InferResponse, ServeError> {
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
                held: output.device.map(crate::ensemble::held),
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
    pub(super) fn cut_shape(&self, output: &Output, wanted: &[i64]) -> Result<Shape, ServeError> {
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
}

fn from_value(value: Value) -> ParameterValue {
    match value {
        Value::Bool(value) => ParameterValue::Bool(value),
        Value::Int(value) => ParameterValue::Int64(value),
        Value::Double(value) => ParameterValue::Double(value),
        Value::String(value) => ParameterValue::String(value),
    }
}
